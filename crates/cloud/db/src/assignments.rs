use aos_api::{
    ChangeAction, ChangeTopic, NewAssignment, NewSubject, Overrides, Page, Service, Subject,
    SubjectService,
};
use sqlx::any::AnyRow;
use uuid::Uuid;

use crate::{
    Actor, Db, DbError,
    columns::{Columns, big, to_json},
    error::Doing,
    listing::whole,
    store::Tx,
    subjects::check_priority,
};

impl Db {
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
            found.push((self.service(actor, text).await?, overrides.clone()));
        }
        let mut tx = self.begin().await?;
        tx.assign(actor, id, &known.label, &found).await?;
        tx.commit().await
    }

    /// Subject, Units and services in one step: each Unit gets one new desired state. The Subject is made if there is none
    /// of this label or id.
    pub async fn assign(&self, actor: &Actor, new: &NewAssignment) -> Result<Subject, DbError> {
        let known = match self.subject_named(actor, &new.subject).await {
            Ok(known) => Some(known),
            Err(DbError::NotFound { .. }) => None,
            Err(error) => return Err(error),
        };
        let units = self.units_named(actor, &new.system_uids).await?;
        let mut services = Vec::new();
        for one in &new.services {
            check_overrides(&one.overrides)?;
            services.push((
                self.service(actor, &one.service).await?,
                one.overrides.clone(),
            ));
        }
        let mut tx = self.begin().await?;
        let (id, label) = match known {
            Some(known) => {
                let given = [
                    (
                        "is_group",
                        new.is_group.is_some_and(|it| it != known.is_group),
                    ),
                    (
                        "subject_priority",
                        new.subject_priority.is_some_and(|it| it != known.priority),
                    ),
                    (
                        "reported_as",
                        new.reported_as.is_some() && new.reported_as != known.reported_as,
                    ),
                ];
                if let Some((field, _)) = given.iter().find(|(_, differs)| *differs) {
                    return Err(DbError::invalid(
                        field,
                        format!("the subject `{}` exists and has another", known.label),
                    ));
                }
                tx.put_units_into(actor, &known, &units).await?;
                (known.id, known.label)
            }
            None => {
                let made = NewSubject {
                    label: new.subject.clone(),
                    priority: new.subject_priority.unwrap_or(0),
                    is_group: new.is_group.unwrap_or(true),
                    reported_as: new.reported_as.clone(),
                };
                let made = tx.insert_subject(actor, &made).await?;
                tx.put_units_into(actor, &made, &units).await?;
                (made.id, made.label)
            }
        };
        tx.assign(actor, id, &label, &services).await?;
        tx.commit().await?;
        self.subject(actor, id).await
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
    async fn assign(
        &mut self,
        actor: &Actor,
        id: Uuid,
        label: &str,
        services: &[(Service, Overrides)],
    ) -> Result<(), DbError> {
        let now = self.now.as_micros();
        for (service, overrides) in services {
            let labels = overrides
                .labels
                .as_ref()
                .map(|labels| to_json("labels", labels))
                .transpose()?;
            sqlx::query(
                "INSERT INTO subject_services (subject_id, service_id, num_instances, labels, priority, independent,
                 created_at) VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (subject_id, service_id) DO UPDATE SET
                 num_instances = excluded.num_instances, labels = excluded.labels, priority = excluded.priority,
                 independent = excluded.independent",
            )
            .bind(id.to_string())
            .bind(service.id.to_string())
            .bind(overrides.num_instances.map(big))
            .bind(labels)
            .bind(overrides.priority.map(big))
            .bind(overrides.independent.map(i64::from))
            .bind(now)
            .execute(self.on())
            .await
            .doing("assign a service")?;
            let what = describe(overrides);
            self.desired_of_subject(
                actor,
                id,
                Some(format!(
                    "{} assigned {} to subject {label}{what}",
                    actor.name(),
                    service.codename,
                )),
            )
            .await?;
            self.announce(
                actor.tenant(),
                ChangeTopic::Service,
                ChangeAction::Updated,
                service.id,
            );
            self.audit(
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
        self.announce(
            actor.tenant(),
            ChangeTopic::Subject,
            ChangeAction::Updated,
            id,
        );
        Ok(())
    }
}

/// What an assignment overrides, from a row of `subject_services`.
pub(crate) fn overrides(row: &AnyRow) -> Result<Overrides, DbError> {
    Ok(Overrides {
        num_instances: row.count_or_null("num_instances")?,
        labels: row.json_or_null("labels")?,
        priority: row.count_or_null("priority")?,
        independent: row.int_or_null("independent")?.map(|it| it != 0),
    })
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
    if overrides.independent == Some(true) {
        parts.push("independent".into());
    }
    if parts.is_empty() {
        String::new()
    } else {
        format!(" ({})", parts.join(", "))
    }
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
        if labels.len() > 64 {
            return Err(DbError::invalid("labels", "must be at most 64"));
        }
        if labels.iter().any(String::is_empty) {
            return Err(DbError::invalid("labels", "a label must not be empty"));
        }
        if labels.iter().any(|label| label.len() > 128) {
            return Err(DbError::invalid(
                "labels",
                "a label must be at most 128 bytes long",
            ));
        }
    }
    Ok(())
}
