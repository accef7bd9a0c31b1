use aos_api::{ChangeAction, ChangeTopic, Overrides, Page, SubjectService};
use uuid::Uuid;

use crate::{
    Actor, Db, DbError,
    columns::{big, to_json},
    error::Doing,
    subjects::check_priority,
    units::whole,
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
