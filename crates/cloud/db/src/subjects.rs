use aos_api::{
    ChangeAction, ChangeTopic, ListQuery, NewSubject, Overrides, Page, ServiceRef, Subject,
    SubjectPatch, SubjectService, SubjectUnit, TimelineKind,
};
use sqlx::any::AnyRow;
use uuid::Uuid;

use crate::{
    Actor, Db, DbError, Happening,
    columns::{Columns, big, to_json},
    error::Doing,
    like,
    services::newest_version,
    store::Tx,
    units::whole,
};

/// Highest priority (`docs/protocol/unit-cloud.md`, desiredStatus).
const MAX_PRIORITY: u64 = 999_999;

macro_rules! subjects {
    ($rest:literal) => {
        sqlx::query(concat!(
            "SELECT subjects.id, subjects.label, subjects.priority, subjects.is_group, subjects.is_protected,
             subjects.created_by, subjects.created_at,
             (SELECT COUNT(*) FROM subject_units WHERE subject_units.subject_id = subjects.id) AS unit_count
             FROM subjects WHERE subjects.tenant_id = $1 ",
            $rest
        ))
    };
}

impl Db {
    async fn subject_of(&self, row: &AnyRow) -> Result<Subject, DbError> {
        let id = row.uuid("id")?;
        Ok(Subject {
            id,
            label: row.text("label")?,
            priority: row.count("priority")?,
            is_group: row.truth("is_group")?,
            is_protected: row.truth("is_protected")?,
            created_by: row.text("created_by")?,
            created_at: row.time("created_at")?,
            unit_count: row.count("unit_count")?,
            services: self.services_of(id).await?,
        })
    }

    async fn services_of(&self, subject: Uuid) -> Result<Vec<SubjectService>, DbError> {
        let rows = sqlx::query(
            "SELECT services.id, services.codename, services.title, subject_services.num_instances, subject_services.labels,
             subject_services.priority FROM subject_services JOIN services ON services.id = subject_services.service_id
             WHERE subject_services.subject_id = $1 ORDER BY services.title, services.codename",
        )
        .bind(subject.to_string())
        .fetch_all(self.readers())
        .await
        .doing("read the services of a subject")?;
        let mut services = Vec::new();
        for row in &rows {
            let id = row.uuid("id")?;
            services.push(SubjectService {
                service: ServiceRef {
                    id: id.to_string(),
                    codename: row.text("codename")?,
                    title: row.text("title")?,
                },
                latest_version: newest_version(self, id).await?,
                overrides: Overrides {
                    num_instances: row.count_or_null("num_instances")?,
                    labels: row.json_or_null("labels")?,
                    priority: row.count_or_null("priority")?,
                },
            });
        }
        Ok(services)
    }

    /// Subjects of the actor's organisation, by label.
    pub async fn subjects(
        &self,
        actor: &Actor,
        query: &ListQuery,
    ) -> Result<Page<Subject>, DbError> {
        let search = like(query.search.as_deref());
        let total = sqlx::query(
            "SELECT COUNT(*) AS total FROM subjects WHERE tenant_id = $1 AND LOWER(label) LIKE $2 ESCAPE '!'",
        )
        .bind(actor.tenant_text())
        .bind(search.clone())
        .fetch_one(self.readers())
        .await
        .doing("count subjects")?
        .count("total")?;
        let rows = subjects!(
            "AND LOWER(subjects.label) LIKE $2 ESCAPE '!' ORDER BY subjects.label LIMIT $3 OFFSET $4"
        )
        .bind(actor.tenant_text())
        .bind(search)
        .bind(i64::from(query.limit()))
        .bind(i64::from(query.offset()))
        .fetch_all(self.readers())
        .await
        .doing("read subjects")?;
        let mut items = Vec::new();
        for row in &rows {
            items.push(self.subject_of(row).await?);
        }
        Ok(Page {
            items,
            total,
            offset: query.offset().into(),
        })
    }

    /// One subject.
    pub async fn subject(&self, actor: &Actor, id: Uuid) -> Result<Subject, DbError> {
        let row = subjects!("AND subjects.id = $2")
            .bind(actor.tenant_text())
            .bind(id.to_string())
            .fetch_optional(self.readers())
            .await
            .doing("read a subject")?
            .ok_or_else(|| DbError::not_found("subject", id))?;
        self.subject_of(&row).await
    }

    /// Makes a subject.
    pub async fn create_subject(
        &self,
        actor: &Actor,
        new: &NewSubject,
    ) -> Result<Subject, DbError> {
        check_label(&new.label)?;
        check_priority(new.priority)?;
        let mut tx = self.begin().await?;
        tx.label_is_free(actor, &new.label, None).await?;
        let id = Uuid::now_v7();
        let now = tx.now.as_micros();
        sqlx::query(
            "INSERT INTO subjects (id, tenant_id, label, priority, is_group, is_protected, created_by, created_at)
             VALUES ($1, $2, $3, $4, $5, 0, $6, $7)",
        )
        .bind(id.to_string())
        .bind(actor.tenant_text())
        .bind(new.label.trim().to_owned())
        .bind(big(new.priority))
        .bind(i64::from(new.is_group))
        .bind(actor.name().to_owned())
        .bind(now)
        .execute(tx.on())
        .await
        .doing("store a subject")?;
        tx.announce(
            actor.tenant(),
            ChangeTopic::Subject,
            ChangeAction::Created,
            id,
        );
        tx.audit(
            actor,
            "subject.create",
            format!("subject:{id}"),
            new.label.clone(),
        )
        .await?;
        tx.commit().await?;
        self.subject(actor, id).await
    }

    /// Renames a subject or changes its priority.
    pub async fn patch_subject(
        &self,
        actor: &Actor,
        id: Uuid,
        patch: &SubjectPatch,
    ) -> Result<Subject, DbError> {
        let known = self.subject(actor, id).await?;
        let label = patch.label.clone().unwrap_or(known.label);
        let priority = patch.priority.unwrap_or(known.priority);
        check_label(&label)?;
        check_priority(priority)?;
        let mut tx = self.begin().await?;
        tx.label_is_free(actor, &label, Some(id)).await?;
        sqlx::query(
            "UPDATE subjects SET label = $3, priority = $4 WHERE id = $1 AND tenant_id = $2",
        )
        .bind(id.to_string())
        .bind(actor.tenant_text())
        .bind(label.trim().to_owned())
        .bind(big(priority))
        .execute(tx.on())
        .await
        .doing("change a subject")?;
        tx.desired_of_subject(actor, id, None).await?;
        tx.announce(
            actor.tenant(),
            ChangeTopic::Subject,
            ChangeAction::Updated,
            id,
        );
        tx.audit(
            actor,
            "subject.update",
            format!("subject:{id}"),
            to_json("patch", patch)?,
        )
        .await?;
        tx.commit().await?;
        self.subject(actor, id).await
    }

    /// Deletes a subject; what it brought leaves its Units.
    pub async fn delete_subject(&self, actor: &Actor, id: Uuid) -> Result<(), DbError> {
        let known = self.subject(actor, id).await?;
        if known.is_protected {
            return Err(DbError::conflict(
                format!("subject `{}` is protected: the cloud made it", known.label),
                "take its units and services away instead",
            ));
        }
        let mut tx = self.begin().await?;
        tx.desired_of_subject(
            actor,
            id,
            Some(format!("subject {} was deleted", known.label)),
        )
        .await?;
        sqlx::query("DELETE FROM subjects WHERE id = $1 AND tenant_id = $2")
            .bind(id.to_string())
            .bind(actor.tenant_text())
            .execute(tx.on())
            .await
            .doing("delete a subject")?;
        tx.announce(
            actor.tenant(),
            ChangeTopic::Subject,
            ChangeAction::Deleted,
            id,
        );
        tx.audit(
            actor,
            "subject.delete",
            format!("subject:{id}"),
            known.label,
        )
        .await?;
        tx.commit().await
    }

    /// The Units of a subject.
    pub async fn subject_units(
        &self,
        actor: &Actor,
        id: Uuid,
        query: &ListQuery,
    ) -> Result<Page<SubjectUnit>, DbError> {
        let known = self.subject(actor, id).await?;
        let items = sqlx::query(
            "SELECT units.id, units.system_uid, units.title, units.online_status FROM units
             JOIN subject_units ON subject_units.unit_id = units.id
             WHERE subject_units.subject_id = $1 ORDER BY units.title, units.system_uid LIMIT $2 OFFSET $3",
        )
        .bind(id.to_string())
        .bind(i64::from(query.limit()))
        .bind(i64::from(query.offset()))
        .fetch_all(self.readers())
        .await
        .doing("read the Units of a subject")?
        .iter()
        .map(|row| {
            Ok(SubjectUnit {
                id: row.uuid("id")?,
                system_uid: row.text("system_uid")?,
                title: row.text("title")?,
                online_status: row.word("online_status")?,
            })
        })
        .collect::<Result<_, DbError>>()?;
        Ok(Page {
            items,
            total: known.unit_count,
            offset: query.offset().into(),
        })
    }

    /// Puts Units into a subject, all or none. Those that are in already stay.
    pub async fn add_subject_units(
        &self,
        actor: &Actor,
        id: Uuid,
        units: &[String],
    ) -> Result<(), DbError> {
        let known = self.subject(actor, id).await?;
        let mut ids = Vec::new();
        for text in units {
            ids.push(self.find_unit(actor, text).await?);
        }
        if !known.is_group && known.unit_count.saturating_add(ids.len() as u64) > 1 {
            return Err(DbError::conflict(
                format!(
                    "subject `{}` is a person: on one Unit at a time",
                    known.label
                ),
                "take it off the other Unit first, or use a group subject",
            ));
        }
        let mut tx = self.begin().await?;
        let now = tx.now.as_micros();
        for unit in ids {
            let added = sqlx::query(
                "INSERT INTO subject_units (subject_id, unit_id, created_at) VALUES ($1, $2, $3)
                 ON CONFLICT (subject_id, unit_id) DO NOTHING",
            )
            .bind(id.to_string())
            .bind(unit.to_string())
            .bind(now)
            .execute(tx.on())
            .await
            .doing("put a Unit into a subject")?
            .rows_affected();
            if added == 0 {
                continue;
            }
            tx.desired_changes(
                actor,
                unit,
                format!("{} put it into subject {}", actor.name(), known.label),
            )
            .await?;
            tx.audit(
                actor,
                "subject.add_unit",
                format!("subject:{id}"),
                format!("unit:{unit}"),
            )
            .await?;
        }
        tx.announce(
            actor.tenant(),
            ChangeTopic::Subject,
            ChangeAction::Updated,
            id,
        );
        tx.commit().await
    }

    /// Takes a Unit out of a subject.
    pub async fn remove_subject_unit(
        &self,
        actor: &Actor,
        id: Uuid,
        unit: &str,
    ) -> Result<(), DbError> {
        let known = self.subject(actor, id).await?;
        let unit_id = self.find_unit(actor, unit).await?;
        let mut tx = self.begin().await?;
        let gone = sqlx::query("DELETE FROM subject_units WHERE subject_id = $1 AND unit_id = $2")
            .bind(id.to_string())
            .bind(unit_id.to_string())
            .execute(tx.on())
            .await
            .doing("take a Unit out of a subject")?
            .rows_affected();
        if gone == 0 {
            return Err(DbError::not_found("Unit in that subject", unit));
        }
        tx.desired_changes(
            actor,
            unit_id,
            format!("{} took it out of subject {}", actor.name(), known.label),
        )
        .await?;
        tx.announce(
            actor.tenant(),
            ChangeTopic::Subject,
            ChangeAction::Updated,
            id,
        );
        tx.audit(
            actor,
            "subject.remove_unit",
            format!("subject:{id}"),
            format!("unit:{unit_id}"),
        )
        .await?;
        tx.commit().await
    }

    /// The services of a subject, by title.
    pub async fn subject_services(
        &self,
        actor: &Actor,
        id: Uuid,
    ) -> Result<Page<SubjectService>, DbError> {
        Ok(whole(self.subject(actor, id).await?.services))
    }

    /// Assigns services to a subject, all or none. One that is assigned already gets the new overrides.
    pub async fn assign_services(
        &self,
        actor: &Actor,
        id: Uuid,
        services: &[String],
        overrides: &Overrides,
    ) -> Result<(), DbError> {
        let known = self.subject(actor, id).await?;
        check_overrides(overrides)?;
        let mut found = Vec::new();
        for text in services {
            found.push(self.service(actor, text).await?);
        }
        let mut tx = self.begin().await?;
        let now = tx.now.as_micros();
        let labels = overrides
            .labels
            .as_ref()
            .map(|labels| to_json("labels", labels))
            .transpose()?;
        for service in found {
            sqlx::query(
                "INSERT INTO subject_services (subject_id, service_id, num_instances, labels, priority, created_at)
                 VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (subject_id, service_id) DO UPDATE SET
                 num_instances = excluded.num_instances, labels = excluded.labels, priority = excluded.priority",
            )
            .bind(id.to_string())
            .bind(service.id.to_string())
            .bind(overrides.num_instances.map(big))
            .bind(labels.clone())
            .bind(overrides.priority.map(big))
            .bind(now)
            .execute(tx.on())
            .await
            .doing("assign a service")?;
            let what = describe(overrides);
            tx.desired_of_subject(
                actor,
                id,
                Some(format!(
                    "{} assigned {} to subject {}{what}",
                    actor.name(),
                    service.codename,
                    known.label
                )),
            )
            .await?;
            tx.announce(
                actor.tenant(),
                ChangeTopic::Service,
                ChangeAction::Updated,
                service.id,
            );
            tx.audit(
                actor,
                "subject.assign",
                format!("subject:{id}"),
                format!(
                    "service:{} {}",
                    service.id,
                    to_json("overrides", overrides)?
                ),
            )
            .await?;
        }
        tx.announce(
            actor.tenant(),
            ChangeTopic::Subject,
            ChangeAction::Updated,
            id,
        );
        tx.commit().await
    }

    /// Takes a service away from a subject; it leaves the subject's Units.
    pub async fn unassign_service(
        &self,
        actor: &Actor,
        id: Uuid,
        service: &str,
    ) -> Result<(), DbError> {
        let known = self.subject(actor, id).await?;
        let service = self.service(actor, service).await?;
        let mut tx = self.begin().await?;
        let gone =
            sqlx::query("DELETE FROM subject_services WHERE subject_id = $1 AND service_id = $2")
                .bind(id.to_string())
                .bind(service.id.to_string())
                .execute(tx.on())
                .await
                .doing("unassign a service")?
                .rows_affected();
        if gone == 0 {
            return Err(DbError::not_found(
                "service in that subject",
                &service.codename,
            ));
        }
        tx.desired_of_subject(
            actor,
            id,
            Some(format!(
                "{} took {} away from subject {}",
                actor.name(),
                service.codename,
                known.label
            )),
        )
        .await?;
        tx.announce(
            actor.tenant(),
            ChangeTopic::Subject,
            ChangeAction::Updated,
            id,
        );
        tx.announce(
            actor.tenant(),
            ChangeTopic::Service,
            ChangeAction::Updated,
            service.id,
        );
        tx.audit(
            actor,
            "subject.unassign",
            format!("subject:{id}"),
            format!("service:{}", service.id),
        )
        .await?;
        tx.commit().await
    }
}

impl Tx {
    /// Says that the desired state of a Unit may be another one now, and why.
    pub(crate) async fn desired_changes(
        &mut self,
        actor: &Actor,
        unit: Uuid,
        why: String,
    ) -> Result<(), DbError> {
        self.happened(unit, &[Happening::info(TimelineKind::Assignment, why)])
            .await?;
        self.announce(
            actor.tenant(),
            ChangeTopic::Unit,
            ChangeAction::Desired,
            unit,
        );
        Ok(())
    }

    async fn desired_of_subject(
        &mut self,
        actor: &Actor,
        subject: Uuid,
        why: Option<String>,
    ) -> Result<(), DbError> {
        let rows = sqlx::query("SELECT unit_id FROM subject_units WHERE subject_id = $1")
            .bind(subject.to_string())
            .fetch_all(self.on())
            .await
            .doing("read the Units of a subject")?;
        for row in &rows {
            let unit = row.uuid("unit_id")?;
            match &why {
                Some(why) => self.desired_changes(actor, unit, why.clone()).await?,
                None => self.announce(
                    actor.tenant(),
                    ChangeTopic::Unit,
                    ChangeAction::Desired,
                    unit,
                ),
            }
        }
        Ok(())
    }

    async fn label_is_free(
        &mut self,
        actor: &Actor,
        label: &str,
        except: Option<Uuid>,
    ) -> Result<(), DbError> {
        let taken = sqlx::query(
            "SELECT COUNT(*) AS total FROM subjects WHERE tenant_id = $1 AND label = $2 AND id <> $3",
        )
        .bind(actor.tenant_text())
        .bind(label.trim().to_owned())
        .bind(except.map(|id| id.to_string()).unwrap_or_default())
        .fetch_one(self.on())
        .await
        .doing("look up a subject")?
        .count("total")?;
        if taken > 0 {
            return Err(DbError::conflict(
                format!("a subject with label `{}` exists already", label.trim()),
                "use that one, or choose another label",
            ));
        }
        Ok(())
    }
}

fn describe(overrides: &Overrides) -> String {
    let mut parts = Vec::new();
    if let Some(count) = overrides.num_instances {
        parts.push(format!("{count} instances"));
    }
    if let Some(labels) = &overrides.labels {
        parts.push(format!("labels [{}]", labels.join(", ")));
    }
    if let Some(priority) = overrides.priority {
        parts.push(format!("priority {priority}"));
    }
    if parts.is_empty() {
        String::new()
    } else {
        format!(" ({})", parts.join(", "))
    }
}

fn check_label(label: &str) -> Result<(), DbError> {
    let length = label.trim().chars().count();
    if !(1..=128).contains(&length) || label.chars().any(char::is_control) {
        return Err(DbError::invalid(
            "label",
            "must be 1 to 128 characters without control characters",
        ));
    }
    Ok(())
}

fn check_priority(priority: u64) -> Result<(), DbError> {
    if priority > MAX_PRIORITY {
        return Err(DbError::invalid("priority", "must be 0 to 999999"));
    }
    Ok(())
}

fn check_overrides(overrides: &Overrides) -> Result<(), DbError> {
    if let Some(count) = overrides.num_instances
        && !(1..=1000).contains(&count)
    {
        return Err(DbError::invalid("num_instances", "must be 1 to 1000"));
    }
    if let Some(priority) = overrides.priority {
        check_priority(priority)?;
    }
    if let Some(labels) = &overrides.labels {
        let fine = labels.len() <= 64
            && labels
                .iter()
                .all(|label| !label.is_empty() && label.len() <= 128);
        if !fine {
            return Err(DbError::invalid(
                "labels",
                "must be at most 64 labels of 1 to 128 bytes",
            ));
        }
    }
    Ok(())
}
