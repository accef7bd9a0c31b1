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

    pub(crate) async fn desired_of_subject(
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

pub(crate) fn check_priority(priority: u64) -> Result<(), DbError> {
    if priority > MAX_PRIORITY {
        return Err(DbError::invalid("priority", "must be 0 to 999999"));
    }
    Ok(())
}
