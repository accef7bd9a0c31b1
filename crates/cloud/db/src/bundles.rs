use std::collections::{BTreeMap, BTreeSet};

use aos_api::{
    BundleItem, BundleStageReport, BundleState, ChangeAction, ChangeTopic, DeploymentBundle,
    ListQuery, Page, StageState,
};
use semver::Version;
use sqlx::any::AnyRow;
use uuid::Uuid;

use crate::{
    Actor, BlobRow, Db, DbError,
    columns::{Columns, big, to_json, to_word},
    error::Doing,
    like,
    listing::page,
    store::Tx,
};

/// A version that a bundle brings. Its blobs are in the blob folder already.
#[derive(Debug, Clone, PartialEq)]
pub struct NewVersion {
    /// The id its service has, if others of the bundle name it by that.
    pub service: Option<Uuid>,
    /// Name of the service in bundles.
    pub codename: String,
    /// Name for people.
    pub title: String,
    /// What it is.
    pub description: String,
    /// SemVer.
    pub version: Version,
    /// Digest of its OCI image index.
    pub index_digest: String,
    /// Its item configuration.
    pub configuration: serde_json::Value,
    /// What it can run on, as `os/architecture[/variant]`.
    pub platforms: Vec<String>,
    /// Labels it asks for.
    pub labels: Vec<String>,
    /// Priority it asks for.
    pub priority: u64,
    /// Instances it asks for.
    pub min_num_instances: u64,
    /// The state its instances begin with, if it brings one.
    pub default_state: Option<String>,
    /// All its blobs, the index included.
    pub blobs: Vec<BlobRow>,
}

const COLUMNS_ERROR: &str = "deployment bundle";

macro_rules! bundles {
    ($rest:literal) => {
        sqlx::query(concat!(
            "SELECT id, state, build_info, is_check, file_name, file_size, sha256, signed_by, created_by, created_at, items,
             stages FROM bundles WHERE tenant_id = $1 ",
            $rest
        ))
    };
}

fn bundle(row: &AnyRow) -> Result<DeploymentBundle, DbError> {
    Ok(DeploymentBundle {
        id: row.uuid("id")?,
        state: row.word("state")?,
        build_info: row.text("build_info")?,
        is_check: row.truth("is_check")?,
        file_name: row.text("file_name")?,
        file_size: row.count("file_size")?,
        sha256: row.text("sha256")?,
        signed_by: row.text("signed_by")?,
        created_by: row.text("created_by")?,
        created_at: row.time("created_at")?,
        items: row.json("items")?,
        stages: row.json("stages")?,
    })
}

impl Db {
    /// Bundles of the actor's organisation, newest first.
    pub async fn bundles(
        &self,
        actor: &Actor,
        query: &ListQuery,
    ) -> Result<Page<DeploymentBundle>, DbError> {
        let search = like(query.search.as_deref());
        let total = sqlx::query(
            "SELECT COUNT(*) AS total FROM bundles WHERE tenant_id = $1
             AND (LOWER(file_name) LIKE $2 ESCAPE '!' OR LOWER(items) LIKE $2 ESCAPE '!' OR id LIKE $2 ESCAPE '!')",
        )
        .bind(actor.tenant_text())
        .bind(search.clone())
        .fetch_one(self.readers())
        .await
        .doing("count bundles")?
        .count("total")?;
        let rows = bundles!(
            "AND (LOWER(file_name) LIKE $2 ESCAPE '!' OR LOWER(items) LIKE $2 ESCAPE '!' OR id LIKE $2 ESCAPE '!')
             ORDER BY created_at DESC, id DESC LIMIT $3 OFFSET $4"
        )
        .bind(actor.tenant_text())
        .bind(search)
        .bind(i64::from(query.limit()))
        .bind(i64::from(query.offset()))
        .fetch_all(self.readers())
        .await
        .doing("read bundles")?;
        page(&rows, total, query, bundle)
    }

    /// One bundle.
    pub async fn bundle(&self, actor: &Actor, id: Uuid) -> Result<DeploymentBundle, DbError> {
        let row = bundles!("AND id = $2")
            .bind(actor.tenant_text())
            .bind(id.to_string())
            .fetch_optional(self.readers())
            .await
            .doing("read a bundle")?
            .ok_or_else(|| DbError::not_found(COLUMNS_ERROR, id))?;
        bundle(&row)
    }

    /// Stores how far a bundle is; makes it known if it is new. Nothing of its content is published by this.
    pub async fn put_bundle(
        &self,
        actor: &Actor,
        bundle: &DeploymentBundle,
    ) -> Result<(), DbError> {
        let mut tx = self.begin().await?;
        tx.put_bundle(actor, bundle).await?;
        tx.commit().await
    }

    /// Publishes what a bundle brings: services, versions, blobs and the bundle's own end, all or nothing. Fills in the
    /// ids of the services. A version that is not higher than all before is refused.
    pub async fn publish_bundle(
        &self,
        actor: &Actor,
        bundle: &mut DeploymentBundle,
        versions: &[NewVersion],
    ) -> Result<(), DbError> {
        let mut tx = self.begin().await?;
        let mut published = bundle.clone();
        // Versions point to their bundle, so it must be there before them.
        tx.put_bundle(actor, &published).await?;
        for version in versions {
            let service = tx.publish_version(actor, bundle.id, version).await?;
            for item in &mut published.items {
                if item.codename == version.codename && item.version == version.version.to_string()
                {
                    item.service_id = Some(service);
                }
            }
        }
        tx.put_bundle(actor, &published).await?;
        tx.audit(
            actor,
            "bundle.publish",
            format!("bundle:{}", bundle.id),
            describe(&published.items),
        )
        .await?;
        tx.commit().await?;
        *bundle = published;
        Ok(())
    }

    /// The ids of those services that are known, by codename.
    pub async fn service_ids(
        &self,
        actor: &Actor,
        codenames: &BTreeSet<String>,
    ) -> Result<BTreeMap<String, Uuid>, DbError> {
        let mut ids = BTreeMap::new();
        for codename in codenames {
            let known =
                sqlx::query("SELECT id FROM services WHERE tenant_id = $1 AND codename = $2")
                    .bind(actor.tenant_text())
                    .bind(codename.clone())
                    .fetch_optional(self.readers())
                    .await
                    .doing("look up a service")?;
            if let Some(row) = known {
                ids.insert(codename.clone(), row.uuid("id")?);
            }
        }
        Ok(ids)
    }

    /// Whether these versions could be published: what [`Db::publish_bundle`] would refuse is refused here.
    pub async fn check_versions(
        &self,
        actor: &Actor,
        versions: &[(String, Version)],
    ) -> Result<(), DbError> {
        for (codename, version) in versions {
            let known = sqlx::query(
                "SELECT service_versions.version FROM service_versions
                 JOIN services ON services.id = service_versions.service_id
                 WHERE services.tenant_id = $1 AND services.codename = $2",
            )
            .bind(actor.tenant_text())
            .bind(codename.clone())
            .fetch_all(self.readers())
            .await
            .doing("read the versions of a service")?
            .iter()
            .map(|row| row.text("version"))
            .collect::<Result<Vec<_>, DbError>>()?;
            check_rises(codename, version, &known)?;
        }
        Ok(())
    }

    /// Bundles whose processing a restart cut off end as failed.
    pub async fn fail_interrupted_bundles(&self) -> Result<(), DbError> {
        let mut tx = self.begin().await?;
        let rows = sqlx::query(
            "SELECT id, tenant_id, state, build_info, is_check, file_name, file_size, sha256, signed_by, created_by,
             created_at, items, stages FROM bundles WHERE state IN ('uploaded', 'processing')",
        )
        .fetch_all(tx.on())
        .await
        .doing("read unfinished bundles")?;
        for row in &rows {
            let actor = Actor::system(row.uuid("tenant_id")?);
            let mut cut_off = bundle(row)?;
            cut_off.state = BundleState::Error;
            cut_off.build_info = "the cloud was stopped while it worked on this bundle".into();
            let now = tx.now;
            for stage in &mut cut_off.stages {
                if stage.state == StageState::Running {
                    stage.state = StageState::Failed;
                    stage.message = cut_off.build_info.clone();
                    stage.hint = Some("upload it again".into());
                    stage.finished_at = Some(now);
                } else if stage.state == StageState::Waiting {
                    stage.state = StageState::Skipped;
                }
            }
            tx.put_bundle(&actor, &cut_off).await?;
        }
        tx.commit().await
    }
}

fn describe(items: &[BundleItem]) -> String {
    items
        .iter()
        .map(|item| format!("{} {}", item.codename, item.version))
        .collect::<Vec<_>>()
        .join(", ")
}

fn check_rises(codename: &str, version: &Version, known: &[String]) -> Result<(), DbError> {
    let newest = known
        .iter()
        .filter_map(|text| Version::parse(text).ok())
        .max();
    match newest {
        Some(newest) if *version <= newest => Err(DbError::conflict(
            format!("{codename} {version} is not newer than {newest}, which is published already"),
            "raise `version` in config.yaml: Units get the highest version",
        )),
        _ => Ok(()),
    }
}

impl Tx {
    async fn put_bundle(
        &mut self,
        actor: &Actor,
        bundle: &DeploymentBundle,
    ) -> Result<(), DbError> {
        let stages: &Vec<BundleStageReport> = &bundle.stages;
        sqlx::query(
            "INSERT INTO bundles (id, tenant_id, state, build_info, is_check, file_name, file_size, sha256, signed_by,
             created_by, created_at, items, stages) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
             ON CONFLICT (id) DO UPDATE SET state = excluded.state, build_info = excluded.build_info,
             file_size = excluded.file_size, sha256 = excluded.sha256, signed_by = excluded.signed_by,
             items = excluded.items, stages = excluded.stages",
        )
        .bind(bundle.id.to_string())
        .bind(actor.tenant_text())
        .bind(to_word("bundle state", &bundle.state)?)
        .bind(bundle.build_info.clone())
        .bind(i64::from(bundle.is_check))
        .bind(bundle.file_name.clone())
        .bind(big(bundle.file_size))
        .bind(bundle.sha256.clone())
        .bind(bundle.signed_by.clone())
        .bind(bundle.created_by.clone())
        .bind(bundle.created_at.as_micros())
        .bind(to_json("items", &bundle.items)?)
        .bind(to_json("stages", stages)?)
        .execute(self.on())
        .await
        .doing("store a bundle")?;
        self.announce(
            actor.tenant(),
            ChangeTopic::Bundle,
            ChangeAction::Updated,
            bundle.id,
        );
        Ok(())
    }

    async fn publish_version(
        &mut self,
        actor: &Actor,
        bundle: Uuid,
        new: &NewVersion,
    ) -> Result<Uuid, DbError> {
        let now = self.now.as_micros();
        let known = sqlx::query("SELECT id FROM services WHERE tenant_id = $1 AND codename = $2")
            .bind(actor.tenant_text())
            .bind(new.codename.clone())
            .fetch_optional(self.on())
            .await
            .doing("look up a service")?;
        let service = match known {
            Some(row) => {
                let id = row.uuid("id")?;
                if new.service.is_some_and(|expected| expected != id) {
                    return Err(DbError::conflict(
                        format!(
                            "service `{}` was published by another bundle meanwhile",
                            new.codename
                        ),
                        "upload the bundle again",
                    ));
                }
                sqlx::query("UPDATE services SET title = $2, description = $3 WHERE id = $1")
                    .bind(id.to_string())
                    .bind(new.title.clone())
                    .bind(new.description.clone())
                    .execute(self.on())
                    .await
                    .doing("update a service")?;
                self.announce(
                    actor.tenant(),
                    ChangeTopic::Service,
                    ChangeAction::Updated,
                    id,
                );
                id
            }
            None => {
                let id = new.service.unwrap_or_else(Uuid::now_v7);
                sqlx::query(
                    "INSERT INTO services (id, tenant_id, codename, title, description, created_at)
                     VALUES ($1, $2, $3, $4, $5, $6)",
                )
                .bind(id.to_string())
                .bind(actor.tenant_text())
                .bind(new.codename.clone())
                .bind(new.title.clone())
                .bind(new.description.clone())
                .bind(now)
                .execute(self.on())
                .await
                .doing("make a service")?;
                self.announce(
                    actor.tenant(),
                    ChangeTopic::Service,
                    ChangeAction::Created,
                    id,
                );
                id
            }
        };
        let before = sqlx::query("SELECT version FROM service_versions WHERE service_id = $1")
            .bind(service.to_string())
            .fetch_all(self.on())
            .await
            .doing("read the versions of a service")?
            .iter()
            .map(|row| row.text("version"))
            .collect::<Result<Vec<_>, DbError>>()?;
        check_rises(&new.codename, &new.version, &before)?;
        let id = Uuid::now_v7();
        let size: u64 = new.blobs.iter().map(|blob| blob.size).sum();
        sqlx::query(
            "INSERT INTO service_versions (id, service_id, version, state, index_digest, configuration, platforms, labels,
             priority, min_num_instances, size, bundle_id, created_at, default_state)
             VALUES ($1, $2, $3, 'ready', $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
        )
        .bind(id.to_string())
        .bind(service.to_string())
        .bind(new.version.to_string())
        .bind(new.index_digest.clone())
        .bind(to_json("item configuration", &new.configuration)?)
        .bind(to_json("platforms", &new.platforms)?)
        .bind(to_json("labels", &new.labels)?)
        .bind(big(new.priority))
        .bind(big(new.min_num_instances))
        .bind(big(size))
        .bind(bundle.to_string())
        .bind(now)
        .bind(new.default_state.clone())
        .execute(self.on())
        .await
        .doing("store a version")?;
        for blob in &new.blobs {
            self.put_blob(blob).await?;
            sqlx::query(
                "INSERT INTO version_blobs (version_id, digest) VALUES ($1, $2) ON CONFLICT (version_id, digest) DO NOTHING",
            )
            .bind(id.to_string())
            .bind(blob.digest.to_string())
            .execute(self.on())
            .await
            .doing("tie a blob to its version")?;
        }
        let units = sqlx::query(
            "SELECT DISTINCT subject_units.unit_id FROM subject_units
             JOIN subject_services ON subject_services.subject_id = subject_units.subject_id
             WHERE subject_services.service_id = $1",
        )
        .bind(service.to_string())
        .fetch_all(self.on())
        .await
        .doing("read the Units of a service")?;
        for row in &units {
            let unit = row.uuid("unit_id")?;
            self.desired_changes(
                actor,
                unit,
                format!(
                    "{} published {} {}",
                    actor.name(),
                    new.codename,
                    new.version
                ),
            )
            .await?;
        }
        Ok(service)
    }
}
