use std::collections::BTreeSet;

use aos_api::{
    ChangeAction, ChangeTopic, ListQuery, NewSubject, Page, ServiceRef, Subject, SubjectPatch,
    SubjectService, SubjectUnit, TimelineKind, UnitSubject,
};
use aos_types::SubjectId;
use sqlx::any::AnyRow;
use uuid::Uuid;

use crate::{
    Actor, Db, DbError, Happening,
    assignments::overrides,
    columns::{Columns, big, to_json},
    error::Doing,
    like,
    listing::{page, whole},
    services::newest_version,
    store::Tx,
};

/// Highest priority (`docs/protocol/unit-cloud.md`, desiredStatus).
const MAX_PRIORITY: u64 = 999_999;

macro_rules! subjects {
    ($rest:literal) => {
        sqlx::query(concat!(
            "SELECT subjects.id, subjects.label, subjects.priority, subjects.is_group, subjects.is_protected,
             subjects.reported_as, subjects.created_by, subjects.created_at,
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
            reported_as: row.text_or_null("reported_as")?,
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
             subject_services.priority, subject_services.independent FROM subject_services JOIN services ON services.id = subject_services.service_id
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
                overrides: overrides(row)?,
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
        let mut tx = self.begin().await?;
        let made = tx.insert_subject(actor, new).await?;
        tx.commit().await?;
        self.subject(actor, made.id).await
    }

    /// The subject of this label, id or reported name.
    pub(crate) async fn subject_named(
        &self,
        actor: &Actor,
        text: &str,
    ) -> Result<Subject, DbError> {
        let row = subjects!(
            "AND (subjects.label = $2 OR subjects.id = $3 OR subjects.reported_as = $4)
             ORDER BY CASE WHEN subjects.label = $2 THEN 0 ELSE 1 END LIMIT 1"
        )
        .bind(actor.tenant_text())
        .bind(text.trim().to_owned())
        .bind(text.to_ascii_lowercase())
        .bind(text.to_owned())
        .fetch_optional(self.readers())
        .await
        .doing("look up a subject")?
        .ok_or_else(|| DbError::not_found("subject", text))?;
        self.subject_of(&row).await
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
        let rows = sqlx::query(
            "SELECT units.id, units.system_uid, units.title, units.online_status FROM units
             JOIN subject_units ON subject_units.unit_id = units.id
             WHERE subject_units.subject_id = $1 ORDER BY units.title, units.system_uid LIMIT $2 OFFSET $3",
        )
        .bind(id.to_string())
        .bind(i64::from(query.limit()))
        .bind(i64::from(query.offset()))
        .fetch_all(self.readers())
        .await
        .doing("read the Units of a subject")?;
        page(&rows, known.unit_count, query, subject_unit)
    }

    /// Puts Units into a subject, all or none. Those that are in already stay.
    pub async fn add_subject_units(
        &self,
        actor: &Actor,
        id: Uuid,
        units: &[String],
    ) -> Result<(), DbError> {
        let known = self.subject(actor, id).await?;
        let units = self.units_named(actor, units).await?;
        let mut tx = self.begin().await?;
        tx.put_units_into(actor, &known, &units).await?;
        tx.commit().await
    }

    pub(crate) async fn units_named(
        &self,
        actor: &Actor,
        names: &[String],
    ) -> Result<Vec<Uuid>, DbError> {
        let mut found = Vec::new();
        for text in names {
            found.push(self.find_unit(actor, text).await?);
        }
        Ok(found)
    }

    /// The Units that report a subject by themselves.
    pub async fn subject_reported(
        &self,
        actor: &Actor,
        id: Uuid,
        query: &ListQuery,
    ) -> Result<Page<SubjectUnit>, DbError> {
        let name = self.subject(actor, id).await?.reported_as;
        let total = sqlx::query(
            "SELECT COUNT(*) AS total FROM units JOIN unit_subjects ON unit_subjects.unit_id = units.id
             WHERE units.tenant_id = $1 AND unit_subjects.subject = $2",
        )
        .bind(actor.tenant_text())
        .bind(name.clone())
        .fetch_one(self.readers())
        .await
        .doing("count the Units that report a subject")?
        .count("total")?;
        let rows = sqlx::query(
            "SELECT units.id, units.system_uid, units.title, units.online_status FROM units
             JOIN unit_subjects ON unit_subjects.unit_id = units.id
             WHERE units.tenant_id = $1 AND unit_subjects.subject = $2
             ORDER BY units.title, units.system_uid LIMIT $3 OFFSET $4",
        )
        .bind(actor.tenant_text())
        .bind(name)
        .bind(i64::from(query.limit()))
        .bind(i64::from(query.offset()))
        .fetch_all(self.readers())
        .await
        .doing("read the Units that report a subject")?;
        page(&rows, total, query, subject_unit)
    }

    /// The subjects that a Unit was put into, and those it reports.
    pub async fn unit_subjects(
        &self,
        actor: &Actor,
        unit: &str,
    ) -> Result<Page<UnitSubject>, DbError> {
        let id = self.find_unit(actor, unit).await?;
        let reported = sqlx::query("SELECT subject FROM unit_subjects WHERE unit_id = $1")
            .bind(id.to_string())
            .fetch_all(self.readers())
            .await
            .doing("read reported subjects")?
            .iter()
            .map(|row| row.text("subject"))
            .collect::<Result<BTreeSet<_>, _>>()?;
        let mut unknown = reported.clone();
        let mut items = sqlx::query(
            "SELECT subjects.id, subjects.label, subjects.reported_as,
             (SELECT COUNT(*) FROM subject_units WHERE subject_units.subject_id = subjects.id
              AND subject_units.unit_id = $1) AS member,
             (SELECT COUNT(*) FROM subject_services WHERE subject_services.subject_id = subjects.id) AS services
             FROM subjects JOIN subjects_of_units ON subjects_of_units.subject_id = subjects.id
             WHERE subjects_of_units.unit_id = $1 ORDER BY subjects.label",
        )
        .bind(id.to_string())
        .fetch_all(self.readers())
        .await
        .doing("read the subjects of a Unit")?
        .iter()
        .map(|row| {
            let reported_as = row.text_or_null("reported_as")?;
            let is_reported = reported_as
                .as_ref()
                .is_some_and(|name| reported.contains(name));
            if let Some(name) = &reported_as {
                unknown.remove(name);
            }
            Ok(UnitSubject {
                id: Some(row.uuid("id")?),
                label: row.text("label")?,
                reported: is_reported,
                reported_as,
                member: row.count("member")? > 0,
                service_count: row.count("services")?,
            })
        })
        .collect::<Result<Vec<_>, DbError>>()?;
        items.extend(unknown.into_iter().map(|name| UnitSubject {
            id: None,
            label: name.clone(),
            reported_as: Some(name),
            reported: true,
            member: false,
            service_count: 0,
        }));
        Ok(whole(items))
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

fn subject_unit(row: &AnyRow) -> Result<SubjectUnit, DbError> {
    Ok(SubjectUnit {
        id: row.uuid("id")?,
        system_uid: row.text("system_uid")?,
        title: row.text("title")?,
        online_status: row.word("online_status")?,
    })
}

impl Tx {
    /// Makes a subject; it has no Units and services yet.
    pub(crate) async fn insert_subject(
        &mut self,
        actor: &Actor,
        new: &NewSubject,
    ) -> Result<Subject, DbError> {
        check_label(&new.label)?;
        check_priority(new.priority)?;
        if let Some(name) = &new.reported_as {
            check_reported(name)?;
            self.name_is_free(actor, name).await?;
        }
        self.label_is_free(actor, &new.label, None).await?;
        let made = Subject {
            id: Uuid::now_v7(),
            label: new.label.trim().to_owned(),
            priority: new.priority,
            is_group: new.is_group,
            reported_as: new.reported_as.clone(),
            is_protected: false,
            created_by: actor.name().to_owned(),
            created_at: self.now,
            unit_count: 0,
            services: Vec::new(),
        };
        sqlx::query(
            "INSERT INTO subjects (id, tenant_id, label, priority, is_group, is_protected, reported_as, created_by,
             created_at) VALUES ($1, $2, $3, $4, $5, 0, $6, $7, $8)",
        )
        .bind(made.id.to_string())
        .bind(actor.tenant_text())
        .bind(made.label.clone())
        .bind(big(made.priority))
        .bind(i64::from(made.is_group))
        .bind(made.reported_as.clone())
        .bind(made.created_by.clone())
        .bind(made.created_at.as_micros())
        .execute(self.on())
        .await
        .doing("store a subject")?;
        self.announce(
            actor.tenant(),
            ChangeTopic::Subject,
            ChangeAction::Created,
            made.id,
        );
        self.audit(
            actor,
            "subject.create",
            format!("subject:{}", made.id),
            made.label.clone(),
        )
        .await?;
        // Units that report it already are concerned from now on.
        self.desired_of_subject(actor, made.id, None).await?;
        Ok(made)
    }

    /// Puts Units into a subject; those that are in already stay.
    pub(crate) async fn put_units_into(
        &mut self,
        actor: &Actor,
        subject: &Subject,
        units: &[Uuid],
    ) -> Result<(), DbError> {
        let now = self.now.as_micros();
        for unit in units {
            let added = sqlx::query(
                "INSERT INTO subject_units (subject_id, unit_id, created_at) VALUES ($1, $2, $3)
                 ON CONFLICT (subject_id, unit_id) DO NOTHING",
            )
            .bind(subject.id.to_string())
            .bind(unit.to_string())
            .bind(now)
            .execute(self.on())
            .await
            .doing("put a Unit into a subject")?
            .rows_affected();
            if added == 0 {
                continue;
            }
            self.desired_changes(
                actor,
                *unit,
                format!("{} put it into subject {}", actor.name(), subject.label),
            )
            .await?;
            self.audit(
                actor,
                "subject.add_unit",
                format!("subject:{}", subject.id),
                format!("unit:{unit}"),
            )
            .await?;
        }
        let count =
            sqlx::query("SELECT COUNT(*) AS total FROM subject_units WHERE subject_id = $1")
                .bind(subject.id.to_string())
                .fetch_one(self.on())
                .await
                .doing("count the Units of a subject")?
                .count("total")?;
        if !subject.is_group && count > 1 {
            return Err(DbError::conflict(
                format!(
                    "subject `{}` is a person: on one Unit at a time",
                    subject.label
                ),
                "take it off the other Unit first, or use a group subject",
            ));
        }
        self.announce(
            actor.tenant(),
            ChangeTopic::Subject,
            ChangeAction::Updated,
            subject.id,
        );
        Ok(())
    }

    async fn name_is_free(&mut self, actor: &Actor, name: &str) -> Result<(), DbError> {
        let taken = sqlx::query(
            "SELECT label FROM subjects WHERE tenant_id = $1 AND (reported_as = $2 OR id = $2)",
        )
        .bind(actor.tenant_text())
        .bind(name.to_owned())
        .fetch_optional(self.on())
        .await
        .doing("look up a subject")?;
        match taken {
            None => Ok(()),
            Some(row) => Err(DbError::conflict(
                format!(
                    "subject `{}` is the one that Units report as `{name}`",
                    row.text("label")?
                ),
                "use that one",
            )),
        }
    }

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
        let rows = sqlx::query("SELECT unit_id FROM subjects_of_units WHERE subject_id = $1")
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

/// It goes to Units as an id.
fn check_reported(name: &str) -> Result<(), DbError> {
    SubjectId::new(name)
        .map(drop)
        .map_err(|why| DbError::invalid("reported_as", why.to_string()))
}

pub(crate) fn check_priority(priority: u64) -> Result<(), DbError> {
    if priority > MAX_PRIORITY {
        return Err(DbError::invalid("priority", "must be 0 to 999999"));
    }
    Ok(())
}
