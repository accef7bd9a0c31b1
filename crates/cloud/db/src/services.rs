use aos_api::{ChangeAction, ChangeTopic, ListQuery, Page, Service, ServiceUnit, ServiceVersion};
use semver::Version;
use sqlx::any::AnyRow;
use uuid::Uuid;

use crate::{Actor, Db, DbError, columns::Columns, error::Doing, like};

macro_rules! services {
    ($rest:literal) => {
        sqlx::query(concat!(
            "SELECT services.id, services.codename, services.title, services.description, services.created_at,
             (SELECT COUNT(*) FROM service_versions WHERE service_versions.service_id = services.id) AS version_count,
             (SELECT COUNT(DISTINCT subjects_of_units.unit_id) FROM subject_services
              JOIN subjects_of_units ON subjects_of_units.subject_id = subject_services.subject_id
              WHERE subject_services.service_id = services.id) AS unit_count
             FROM services WHERE services.tenant_id = $1 ",
            $rest
        ))
    };
}

/// The newest version of a service that is ready, by SemVer.
pub(crate) async fn newest_version(db: &Db, service: Uuid) -> Result<Option<String>, DbError> {
    let mut newest: Option<Version> = None;
    for row in sqlx::query(
        "SELECT version FROM service_versions WHERE service_id = $1 AND state = 'ready'",
    )
    .bind(service.to_string())
    .fetch_all(db.readers())
    .await
    .doing("read the versions of a service")?
    {
        let version = Version::parse(&row.text("version")?).ok();
        newest = newest.max(version);
    }
    Ok(newest.map(|version| version.to_string()))
}

impl Db {
    async fn service_of(&self, row: &AnyRow) -> Result<Service, DbError> {
        let id = row.uuid("id")?;
        Ok(Service {
            id,
            codename: row.text("codename")?,
            title: row.text("title")?,
            description: row.text("description")?,
            latest_version: newest_version(self, id).await?,
            version_count: row.count("version_count")?,
            unit_count: row.count("unit_count")?,
            created_at: row.time("created_at")?,
        })
    }

    /// Services of the actor's organisation, by title.
    pub async fn services(
        &self,
        actor: &Actor,
        query: &ListQuery,
    ) -> Result<Page<Service>, DbError> {
        let search = like(query.search.as_deref());
        let total = sqlx::query(
            "SELECT COUNT(*) AS total FROM services WHERE tenant_id = $1
             AND (LOWER(title) LIKE $2 ESCAPE '!' OR LOWER(codename) LIKE $2 ESCAPE '!')",
        )
        .bind(actor.tenant_text())
        .bind(search.clone())
        .fetch_one(self.readers())
        .await
        .doing("count services")?
        .count("total")?;
        let rows = services!(
            "AND (LOWER(services.title) LIKE $2 ESCAPE '!' OR LOWER(services.codename) LIKE $2 ESCAPE '!')
             ORDER BY services.title, services.codename LIMIT $3 OFFSET $4"
        )
        .bind(actor.tenant_text())
        .bind(search)
        .bind(i64::from(query.limit()))
        .bind(i64::from(query.offset()))
        .fetch_all(self.readers())
        .await
        .doing("read services")?;
        let mut items = Vec::new();
        for row in &rows {
            items.push(self.service_of(row).await?);
        }
        Ok(Page {
            items,
            total,
            offset: query.offset().into(),
        })
    }

    /// One service, by id or codename.
    pub async fn service(&self, actor: &Actor, text: &str) -> Result<Service, DbError> {
        let row = services!("AND (services.id = $2 OR services.codename = $3)")
            .bind(actor.tenant_text())
            .bind(text.to_ascii_lowercase())
            .bind(text.to_owned())
            .fetch_optional(self.readers())
            .await
            .doing("read a service")?
            .ok_or_else(|| DbError::not_found("service", text))?;
        self.service_of(&row).await
    }

    /// Deletes a service and its versions. Refused while it is assigned.
    pub async fn delete_service(&self, actor: &Actor, text: &str) -> Result<(), DbError> {
        let known = self.service(actor, text).await?;
        let mut tx = self.begin().await?;
        let gone = sqlx::query(
            "DELETE FROM services WHERE id = $1 AND tenant_id = $2
             AND NOT EXISTS (SELECT 1 FROM subject_services WHERE subject_services.service_id = services.id)",
        )
        .bind(known.id.to_string())
        .bind(actor.tenant_text())
        .execute(tx.on())
        .await
        .doing("delete a service")?
        .rows_affected();
        if gone == 0 {
            return Err(DbError::conflict(
                format!("service `{}` is assigned to a subject", known.codename),
                "unassign it first",
            ));
        }
        tx.announce(
            actor.tenant(),
            ChangeTopic::Service,
            ChangeAction::Deleted,
            known.id,
        );
        tx.audit(
            actor,
            "service.delete",
            format!("service:{}", known.id),
            known.codename,
        )
        .await?;
        tx.commit().await
    }

    /// The versions of a service, newest first.
    pub async fn service_versions(
        &self,
        actor: &Actor,
        text: &str,
        query: &ListQuery,
    ) -> Result<Page<ServiceVersion>, DbError> {
        let service = self.service(actor, text).await?;
        let mut all = sqlx::query(
            "SELECT service_versions.id, service_versions.version, service_versions.state, service_versions.platforms,
             service_versions.index_digest, service_versions.size, service_versions.min_num_instances,
             service_versions.configuration, service_versions.bundle_id, service_versions.created_at,
             (SELECT COUNT(DISTINCT unit_items.unit_id) FROM unit_items WHERE unit_items.item_id = service_versions.service_id
              AND unit_items.version = service_versions.version AND unit_items.state = 'installed') AS unit_count
             FROM service_versions WHERE service_versions.service_id = $1",
        )
        .bind(service.id.to_string())
        .fetch_all(self.readers())
        .await
        .doing("read the versions of a service")?
        .iter()
        .map(|row| {
            Ok(ServiceVersion {
                id: row.uuid("id")?,
                version: row.text("version")?,
                state: row.text("state")?,
                platforms: row.json("platforms")?,
                index_digest: row.text("index_digest")?,
                size: row.count("size")?,
                min_num_instances: row.count("min_num_instances")?,
                configuration: row.json("configuration")?,
                bundle_id: row.uuid_or_null("bundle_id")?,
                unit_count: row.count("unit_count")?,
                created_at: row.time("created_at")?,
            })
        })
        .collect::<Result<Vec<_>, DbError>>()?;
        all.sort_by_key(|version| std::cmp::Reverse(Version::parse(&version.version).ok()));
        let total = all.len() as u64;
        let items = all
            .into_iter()
            .skip(query.offset() as usize)
            .take(query.limit() as usize)
            .collect();
        Ok(Page {
            items,
            total,
            offset: query.offset().into(),
        })
    }

    /// The Units that have or should have a service.
    pub async fn service_units(
        &self,
        actor: &Actor,
        text: &str,
        query: &ListQuery,
    ) -> Result<Page<ServiceUnit>, DbError> {
        let service = self.service(actor, text).await?.id.to_string();
        let total = sqlx::query(
            "SELECT COUNT(*) AS total FROM units WHERE tenant_id = $1 AND (
             EXISTS (SELECT 1 FROM subject_services JOIN subjects_of_units ON subjects_of_units.subject_id = subject_services.subject_id
                     WHERE subject_services.service_id = $2 AND subjects_of_units.unit_id = units.id)
             OR EXISTS (SELECT 1 FROM unit_items WHERE unit_items.unit_id = units.id AND unit_items.item_id = $2))",
        )
        .bind(actor.tenant_text())
        .bind(service.clone())
        .fetch_one(self.readers())
        .await
        .doing("count the Units of a service")?
        .count("total")?;
        let rows = sqlx::query(
            "SELECT units.id, units.system_uid, units.title,
             (SELECT COUNT(*) FROM subject_services JOIN subjects_of_units ON subjects_of_units.subject_id = subject_services.subject_id
              WHERE subject_services.service_id = $2 AND subjects_of_units.unit_id = units.id) AS assigned,
             (SELECT COUNT(*) FROM unit_instances WHERE unit_instances.unit_id = units.id
              AND unit_instances.item_id = $2) AS instances,
             (SELECT COUNT(*) FROM unit_instances WHERE unit_instances.unit_id = units.id
              AND unit_instances.item_id = $2 AND (unit_instances.state = 'active'
              OR (unit_instances.state = 'inactive' AND unit_instances.error IS NULL))) AS active
             FROM units WHERE units.tenant_id = $1 AND (
             EXISTS (SELECT 1 FROM subject_services JOIN subjects_of_units ON subjects_of_units.subject_id = subject_services.subject_id
                     WHERE subject_services.service_id = $2 AND subjects_of_units.unit_id = units.id)
             OR EXISTS (SELECT 1 FROM unit_items WHERE unit_items.unit_id = units.id AND unit_items.item_id = $2))
             ORDER BY units.title, units.system_uid LIMIT $3 OFFSET $4",
        )
        .bind(actor.tenant_text())
        .bind(service.clone())
        .bind(i64::from(query.limit()))
        .bind(i64::from(query.offset()))
        .fetch_all(self.readers())
        .await
        .doing("read the Units of a service")?;
        let mut items = Vec::new();
        for row in &rows {
            let id = row.uuid("id")?;
            let versions = sqlx::query(
                "SELECT version FROM unit_items WHERE unit_id = $1 AND item_id = $2 ORDER BY version",
            )
            .bind(id.to_string())
            .bind(service.clone())
            .fetch_all(self.readers())
            .await
            .doing("read the versions on a Unit")?
            .iter()
            .map(|row| row.text("version"))
            .collect::<Result<_, DbError>>()?;
            items.push(ServiceUnit {
                id,
                system_uid: row.text("system_uid")?,
                title: row.text("title")?,
                assigned: row.count("assigned")? > 0,
                versions,
                instances: row.count("instances")?,
                instances_active: row.count("active")?,
            });
        }
        Ok(Page {
            items,
            total,
            offset: query.offset().into(),
        })
    }
}
