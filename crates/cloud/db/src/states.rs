//! States of instances: kept when the Unit tells them and they are right, given back when it asks.

use aos_api::{
    ChangeAction, ChangeTopic, KeptState, KeptStateContent, Page, ServiceRef, Severity, SubjectRef,
    TimelineKind,
};
use aos_types::{InstanceIdent, state_checksum};
use sqlx::any::AnyRow;
use uuid::Uuid;

use crate::{
    Actor, Db, DbError, Happening, LinkWrite,
    columns::{Columns, big},
    error::Doing,
    listing::whole,
};

/// The longest state that is kept, in bytes.
const MOST: usize = 1 << 20;

/// What the cloud says to a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateVerdict {
    /// It is kept.
    Accepted,
    /// It is not; why, for people.
    Rejected(String),
}

/// What is read of a state, whatever else is.
macro_rules! select {
    ($also:literal, $rest:literal) => {
        concat!(
            "SELECT ",
            $also,
            "instance_states.item_id, instance_states.subject_id, instance_states.instance, instance_states.checksum,
             instance_states.size, instance_states.kept_at, services.codename, services.title, subjects.label
             FROM instance_states
             LEFT JOIN services ON services.id = instance_states.item_id AND services.tenant_id = $2
             LEFT JOIN subjects ON COALESCE(subjects.reported_as, subjects.id) = instance_states.subject_id
             AND subjects.tenant_id = $2
             WHERE instance_states.unit_id = $1 ",
            $rest
        )
    };
}

fn kept(row: &AnyRow) -> Result<KeptState, DbError> {
    let (item, subject) = (row.text("item_id")?, row.text("subject_id")?);
    Ok(KeptState {
        service: ServiceRef {
            codename: row
                .text_or_null("codename")?
                .unwrap_or_else(|| item.clone()),
            title: row.text_or_null("title")?.unwrap_or_default(),
            id: item,
        },
        subject: SubjectRef {
            label: row
                .text_or_null("label")?
                .unwrap_or_else(|| subject.clone()),
            id: subject,
        },
        instance_id: row.count("instance")?,
        checksum: row.text("checksum")?,
        size: row.count("size")?,
        kept_at: row.time("kept_at")?,
    })
}

impl Db {
    /// Takes a state that a Unit tells, together with what the link has to store.
    pub async fn keep_state(
        &self,
        unit: Uuid,
        instance: &InstanceIdent,
        state: &str,
        checksum: &str,
        link: &LinkWrite,
    ) -> Result<StateVerdict, DbError> {
        let own = state_checksum(state.as_bytes());
        let verdict = if state.len() > MOST {
            StateVerdict::Rejected(format!("it is longer than {MOST} bytes"))
        } else if !own.eq_ignore_ascii_case(checksum) {
            StateVerdict::Rejected("its checksum is not that of what arrived".into())
        } else {
            StateVerdict::Accepted
        };
        let mut tx = self.begin().await?;
        let tenant = tx.tenant_of(unit).await?;
        tx.link(unit, link).await?;
        match &verdict {
            StateVerdict::Accepted => {
                let now = tx.now.as_micros();
                sqlx::query(
                    "INSERT INTO instance_states (unit_id, item_id, subject_id, instance, state, checksum, size, kept_at)
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
                     ON CONFLICT (unit_id, item_id, subject_id, instance) DO UPDATE SET state = excluded.state,
                     checksum = excluded.checksum, size = excluded.size, kept_at = excluded.kept_at",
                )
                .bind(unit.to_string())
                .bind(instance.item.to_string())
                .bind(instance.subject.to_string())
                .bind(big(instance.index))
                .bind(state.to_owned())
                .bind(own)
                .bind(big(state.len() as u64))
                .bind(now)
                .execute(tx.on())
                .await
                .doing("keep a state")?;
            }
            StateVerdict::Rejected(why) => {
                let event = Happening {
                    item_id: Some(instance.item.to_string()),
                    subject_id: Some(instance.subject.to_string()),
                    instance: Some(instance.index),
                    ..Happening::new(
                        TimelineKind::Instance,
                        Severity::Warning,
                        format!(
                            "the state of instance {} was not accepted: {why}",
                            instance.index
                        ),
                    )
                };
                tx.happened(unit, &[event]).await?;
            }
        }
        tx.announce(tenant, ChangeTopic::Unit, ChangeAction::Status, unit);
        tx.commit().await?;
        Ok(verdict)
    }

    /// The state of an instance that was accepted last, with its checksum.
    pub async fn kept_state(
        &self,
        unit: Uuid,
        instance: &InstanceIdent,
    ) -> Result<Option<(String, String)>, DbError> {
        sqlx::query(
            "SELECT state, checksum FROM instance_states WHERE unit_id = $1 AND item_id = $2 AND subject_id = $3
             AND instance = $4",
        )
        .bind(unit.to_string())
        .bind(instance.item.to_string())
        .bind(instance.subject.to_string())
        .bind(big(instance.index))
        .fetch_optional(self.readers())
        .await
        .doing("read a state")?
        .map(|row| Ok((row.text("state")?, row.text("checksum")?)))
        .transpose()
    }

    /// The state that an instance of a Unit begins with: that of the version its Unit was told to run last.
    pub async fn default_state(
        &self,
        unit: Uuid,
        instance: &InstanceIdent,
    ) -> Result<Option<String>, DbError> {
        let Some(version) = self.wanted_version(unit, instance).await? else {
            return Ok(None);
        };
        let row = sqlx::query(
            "SELECT service_versions.default_state FROM service_versions
             JOIN services ON services.id = service_versions.service_id
             JOIN units ON units.tenant_id = services.tenant_id
             WHERE units.id = $1 AND services.id = $2 AND service_versions.version = $3",
        )
        .bind(unit.to_string())
        .bind(instance.item.to_string())
        .bind(version)
        .fetch_optional(self.readers())
        .await
        .doing("read a default state")?;
        row.map_or(Ok(None), |row| row.text_or_null("default_state"))
    }

    /// The version of an item in the newest desired state of a Unit.
    async fn wanted_version(
        &self,
        unit: Uuid,
        instance: &InstanceIdent,
    ) -> Result<Option<String>, DbError> {
        let row = sqlx::query(
            "SELECT document FROM desired_states WHERE unit_id = $1 ORDER BY number DESC LIMIT 1",
        )
        .bind(unit.to_string())
        .fetch_optional(self.readers())
        .await
        .doing("read the version of an item")?;
        let Some(row) = row else { return Ok(None) };
        let document: serde_json::Value = row.json("document")?;
        let items = document.get("items").and_then(serde_json::Value::as_array);
        let wanted = items.into_iter().flatten().find(|item| {
            let id = item.pointer("/item/id").and_then(serde_json::Value::as_str);
            id == Some(instance.item.as_str())
        });
        let version = wanted.and_then(|item| item.get("version"));
        Ok(version
            .and_then(serde_json::Value::as_str)
            .map(str::to_owned))
    }

    /// The states of a Unit's instances, without their content. `unit` is an id or a system id.
    pub async fn states(&self, actor: &Actor, unit: &str) -> Result<Page<KeptState>, DbError> {
        let unit = self.find_unit(actor, unit).await?;
        let rows = sqlx::query(select!(
            "",
            "ORDER BY services.codename, subjects.label, instance_states.instance"
        ))
        .bind(unit.to_string())
        .bind(actor.tenant_text())
        .fetch_all(self.readers())
        .await
        .doing("read states")?;
        Ok(whole(rows.iter().map(kept).collect::<Result<_, _>>()?))
    }

    /// One state with its content. `service` is an id or a codename, `subject` an id or a label.
    pub async fn state(
        &self,
        actor: &Actor,
        unit: &str,
        service: &str,
        subject: &str,
        instance: u64,
    ) -> Result<KeptStateContent, DbError> {
        let unit = self.find_unit(actor, unit).await?;
        let row = sqlx::query(select!(
            "instance_states.state, ",
            "AND instance_states.instance = $3
             AND (instance_states.item_id = $4 OR services.codename = $4)
             AND (instance_states.subject_id = $5 OR subjects.label = $5)"
        ))
        .bind(unit.to_string())
        .bind(actor.tenant_text())
        .bind(big(instance))
        .bind(service.to_owned())
        .bind(subject.to_owned())
        .fetch_optional(self.readers())
        .await
        .doing("read a state")?
        .ok_or_else(|| DbError::not_found("state", format!("{service}:{subject}:{instance}")))?;
        Ok(KeptStateContent {
            about: kept(&row)?,
            state: row.text("state")?,
        })
    }
}
