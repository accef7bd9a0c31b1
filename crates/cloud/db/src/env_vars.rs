//! Environment variables that people set over those of the items. Their values may be secrets: they are in the store
//! and in the message to the Unit, never in texts of the audit, the timeline or an error.

use std::collections::BTreeMap;

use aos_api::{
    ChangeAction, ChangeTopic, EnvVar, EnvVarInstance, EnvVarState, NewEnvVars, Page, ServiceRef,
    Severity, SubjectRef, TimelineKind,
};
use aos_time::Timestamp;
use aos_types::{ErrorInfo, InstanceIdent};
use sqlx::any::AnyRow;
use uuid::Uuid;

use crate::{
    Actor, Db, DbError, Happening, LinkWrite,
    columns::{Columns, big, to_json},
    error::Doing,
    listing::whole,
    store::Tx,
};

/// Most variables that are set on one Unit.
const MOST: u64 = 1024;
/// Most in one request.
const MOST_AT_ONCE: usize = 64;
/// Longest name in characters, and value in bytes (`docs/protocol/unit-cloud.md`, overrideEnvVars).
const NAME: usize = 256;
const VALUE: usize = 10_240;
/// Longest life in seconds: ten years.
const TTL: u64 = 315_360_000;

/// The variables of a Unit as they are to be sent.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct EnvSet {
    /// All that have not expired, by what they are for.
    pub variables: Vec<EnvRow>,
    /// The message that this set went out with.
    pub txn: Option<String>,
    /// When the Unit took this set over.
    pub acked_at: Option<Timestamp>,
}

/// One variable.
#[derive(Clone, PartialEq, Eq)]
pub struct EnvRow {
    /// For this item only.
    pub item_id: Option<String>,
    /// For this subject only, as the Unit knows it.
    pub subject_id: Option<String>,
    /// For the instance of this number only.
    pub instance: Option<u64>,
    /// Its name.
    pub name: String,
    /// Its value; may be a secret.
    pub value: String,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
}

impl std::fmt::Debug for EnvSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EnvSet")
            .field("variables", &self.variables.len())
            .field("txn", &self.txn)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for EnvRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EnvRow")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// What a Unit says of one variable of one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvReport {
    /// Which instance.
    pub instance: InstanceIdent,
    /// Which variable.
    pub name: String,
    /// Why it failed; none: it is set.
    pub error: Option<ErrorInfo>,
}

fn is_of(row: &EnvVar, report: &EnvVarInstance) -> bool {
    row.service
        .as_ref()
        .is_none_or(|service| service.id == report.item_id)
        && row
            .subject
            .as_ref()
            .is_none_or(|subject| subject.id == report.subject_id)
        && row
            .instance_id
            .is_none_or(|instance| instance == report.instance_id)
}

fn variable(row: &AnyRow, reveal: bool) -> Result<EnvVar, DbError> {
    let service = row.text_or_null("item_id")?.map(|id| {
        Ok::<_, DbError>(ServiceRef {
            codename: row.text_or_null("codename")?.unwrap_or_else(|| id.clone()),
            title: row.text_or_null("title")?.unwrap_or_default(),
            id,
        })
    });
    let subject = row.text_or_null("subject_id")?.map(|id| {
        Ok::<_, DbError>(SubjectRef {
            label: row.text_or_null("label")?.unwrap_or_else(|| id.clone()),
            id,
        })
    });
    Ok(EnvVar {
        id: row.uuid("id")?,
        service: service.transpose()?,
        subject: subject.transpose()?,
        instance_id: row.count_or_null("instance")?,
        name: row.text("name")?,
        value: reveal.then(|| row.text("value")).transpose()?,
        expires_at: row.time_or_null("expires_at")?,
        created_by: row.text("created_by")?,
        created_at: row.time("created_at")?,
        state: EnvVarState::WaitingForUnit,
        instances: Vec::new(),
    })
}

impl Db {
    /// The variables that are set on a Unit and have not expired, by name. Values only with `reveal`, which is audited.
    pub async fn env_vars(
        &self,
        actor: &Actor,
        unit: &str,
        reveal: bool,
    ) -> Result<Page<EnvVar>, DbError> {
        let id = self.find_unit(actor, unit).await?;
        if reveal {
            let mut tx = self.begin().await?;
            tx.audit(actor, "env_vars.reveal", format!("unit:{id}"), "")
                .await?;
            tx.commit().await?;
        }
        let acked = sqlx::query("SELECT env_acked_at FROM units WHERE id = $1")
            .bind(id.to_string())
            .fetch_one(self.readers())
            .await
            .doing("read a Unit")?
            .time_or_null("env_acked_at")?
            .is_some();
        let mut reports: BTreeMap<String, Vec<EnvVarInstance>> = BTreeMap::new();
        for row in sqlx::query(
            "SELECT item_id, subject_id, instance, name, error FROM env_statuses WHERE unit_id = $1
             ORDER BY item_id, subject_id, instance",
        )
        .bind(id.to_string())
        .fetch_all(self.readers())
        .await
        .doing("read what became of variables")?
        {
            reports
                .entry(row.text("name")?)
                .or_default()
                .push(EnvVarInstance {
                    item_id: row.text("item_id")?,
                    subject_id: row.text("subject_id")?,
                    instance_id: row.count("instance")?,
                    error: row.json_or_null::<ErrorInfo>("error")?.map(Into::into),
                });
        }
        let rows = sqlx::query(
            "SELECT env_vars.id, env_vars.item_id, env_vars.subject_id, env_vars.instance, env_vars.name, env_vars.value,
             env_vars.expires_at, env_vars.created_by, env_vars.created_at, services.codename, services.title,
             subjects.label FROM env_vars
             LEFT JOIN services ON services.id = env_vars.item_id AND services.tenant_id = $2
             LEFT JOIN subjects ON COALESCE(subjects.reported_as, subjects.id) = env_vars.subject_id
             AND subjects.tenant_id = $2
             WHERE env_vars.unit_id = $1 AND (env_vars.expires_at IS NULL OR env_vars.expires_at > $3)
             ORDER BY env_vars.name, services.codename, subjects.label, env_vars.instance, env_vars.id",
        )
        .bind(id.to_string())
        .bind(actor.tenant_text())
        .bind(self.now().as_micros())
        .fetch_all(self.readers())
        .await
        .doing("read environment variables")?;
        let mut items = Vec::new();
        for row in &rows {
            let mut row = variable(row, reveal)?;
            let said = reports.get(&row.name).map_or(&[][..], Vec::as_slice);
            row.instances = said
                .iter()
                .filter(|report| is_of(&row, report))
                .cloned()
                .collect();
            row.state = match row.instances.as_slice() {
                _ if !acked => EnvVarState::WaitingForUnit,
                [] => EnvVarState::Taken,
                said if said.iter().any(|report| report.error.is_some()) => EnvVarState::Failed,
                _ => EnvVarState::Set,
            };
            items.push(row);
        }
        Ok(whole(items))
    }

    /// Sets variables on a Unit; one of the same name for the same instances is replaced.
    pub async fn set_env_vars(
        &self,
        actor: &Actor,
        unit: &str,
        new: &NewEnvVars,
    ) -> Result<(), DbError> {
        check(new)?;
        let id = self.find_unit(actor, unit).await?;
        let item = match &new.service {
            Some(text) => Some(self.service(actor, text).await?),
            None => None,
        };
        let subject = match &new.subject {
            Some(text) => Some(self.subject_named(actor, text).await?),
            None => None,
        };
        let mut whose = Vec::new();
        whose.extend(
            item.iter()
                .map(|service| format!("service {}", service.codename)),
        );
        whose.extend(
            subject
                .iter()
                .map(|subject| format!("subject {}", subject.label)),
        );
        whose.extend(
            new.instance_id
                .map(|instance| format!("instance {instance}")),
        );
        let whose = if whose.is_empty() {
            "all instances".to_owned()
        } else {
            whose.join(", ")
        };
        let item = item.map(|service| service.id.to_string());
        let subject = subject.map(|subject| subject.on_the_wire());
        let mut tx = self.begin().await?;
        let now = tx.now;
        for variable in &new.variables {
            // An absent part is an empty text here: no value of these columns is empty.
            sqlx::query(
                "DELETE FROM env_vars WHERE unit_id = $1 AND name = $2 AND COALESCE(item_id, '') = $3
                 AND COALESCE(subject_id, '') = $4 AND COALESCE(instance, -1) = $5",
            )
            .bind(id.to_string())
            .bind(variable.name.clone())
            .bind(item.clone().unwrap_or_default())
            .bind(subject.clone().unwrap_or_default())
            .bind(new.instance_id.map_or(-1, big))
            .execute(tx.on())
            .await
            .doing("replace an environment variable")?;
            let expires_at = variable
                .ttl
                .map(|ttl| (now + std::time::Duration::from_secs(ttl)).as_micros());
            sqlx::query(
                "INSERT INTO env_vars (id, unit_id, item_id, subject_id, instance, name, value, expires_at, created_by,
                 created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            )
            .bind(Uuid::now_v7().to_string())
            .bind(id.to_string())
            .bind(item.clone())
            .bind(subject.clone())
            .bind(new.instance_id.map(big))
            .bind(variable.name.clone())
            .bind(variable.value.clone())
            .bind(expires_at)
            .bind(actor.name().to_owned())
            .bind(now.as_micros())
            .execute(tx.on())
            .await
            .doing("store an environment variable")?;
            let lasting = variable
                .ttl
                .map_or_else(String::new, |ttl| format!(" for {ttl} s"));
            let text = format!("set {} for {whose}{lasting}", variable.name);
            tx.env_changed(actor, id, &variable.name, "env_vars.set", text)
                .await?;
        }
        let count = sqlx::query("SELECT COUNT(*) AS total FROM env_vars WHERE unit_id = $1")
            .bind(id.to_string())
            .fetch_one(tx.on())
            .await
            .doing("count environment variables")?
            .count("total")?;
        if count > MOST {
            return Err(DbError::conflict(
                format!("that would be {count} variables on one Unit; at most {MOST} can be set"),
                "take some away first",
            ));
        }
        tx.commit().await
    }

    /// Takes a variable away; what the item says counts again.
    pub async fn remove_env_var(
        &self,
        actor: &Actor,
        unit: &str,
        variable: Uuid,
    ) -> Result<(), DbError> {
        let id = self.find_unit(actor, unit).await?;
        let mut tx = self.begin().await?;
        let name = sqlx::query("SELECT name FROM env_vars WHERE unit_id = $1 AND id = $2")
            .bind(id.to_string())
            .bind(variable.to_string())
            .fetch_optional(tx.on())
            .await
            .doing("look up an environment variable")?
            .ok_or_else(|| DbError::not_found("environment variable", variable))?
            .text("name")?;
        sqlx::query("DELETE FROM env_vars WHERE id = $1")
            .bind(variable.to_string())
            .execute(tx.on())
            .await
            .doing("take an environment variable away")?;
        let text = format!("took {name} away");
        tx.env_changed(actor, id, &name, "env_vars.remove", text)
            .await?;
        tx.commit().await
    }

    /// What is to be sent to a Unit; nothing if no variable was ever set on it.
    pub async fn env_set(&self, unit: Uuid) -> Result<Option<EnvSet>, DbError> {
        let mut tx = self.snapshot().await?;
        let row =
            sqlx::query("SELECT env_changed_at, env_txn, env_acked_at FROM units WHERE id = $1")
                .bind(unit.to_string())
                .fetch_optional(&mut *tx)
                .await
                .doing("read a Unit")?
                .ok_or_else(|| DbError::not_found("Unit", unit))?;
        if row.time_or_null("env_changed_at")?.is_none() {
            return Ok(None);
        }
        let variables = sqlx::query(
            "SELECT item_id, subject_id, instance, name, value, expires_at FROM env_vars
             WHERE unit_id = $1 AND (expires_at IS NULL OR expires_at > $2)
             ORDER BY COALESCE(item_id, ''), COALESCE(subject_id, ''), COALESCE(instance, -1), name",
        )
        .bind(unit.to_string())
        .bind(self.now().as_micros())
        .fetch_all(&mut *tx)
        .await
        .doing("read environment variables")?
        .iter()
        .map(|row| {
            Ok(EnvRow {
                item_id: row.text_or_null("item_id")?,
                subject_id: row.text_or_null("subject_id")?,
                instance: row.count_or_null("instance")?,
                name: row.text("name")?,
                value: row.text("value")?,
                expires_at: row.time_or_null("expires_at")?,
            })
        })
        .collect::<Result<_, DbError>>()?;
        Ok(Some(EnvSet {
            variables,
            txn: row.text_or_null("env_txn")?,
            acked_at: row.time_or_null("env_acked_at")?,
        }))
    }

    /// Says that the set of variables is being sent with this transmission id, with the session's records.
    pub async fn env_sent(&self, unit: Uuid, txn: &str, link: &LinkWrite) -> Result<(), DbError> {
        let mut tx = self.begin().await?;
        let tenant = tx.tenant_of(unit).await?;
        tx.link(unit, link).await?;
        let now = tx.now.as_micros();
        sqlx::query("UPDATE units SET env_txn = $2, env_sent_at = $3 WHERE id = $1")
            .bind(unit.to_string())
            .bind(txn.to_owned())
            .bind(now)
            .execute(tx.on())
            .await
            .doing("note that environment variables are sent")?;
        tx.announce(tenant, ChangeTopic::Unit, ChangeAction::Status, unit);
        tx.commit().await
    }

    /// Takes over what a Unit says of its variables, with the session's records.
    pub async fn apply_env_statuses(
        &self,
        unit: Uuid,
        reports: &[EnvReport],
        link: &LinkWrite,
    ) -> Result<(), DbError> {
        let mut tx = self.begin().await?;
        let tenant = tx.tenant_of(unit).await?;
        tx.link(unit, link).await?;
        let now = tx.now.as_micros();
        let mut events = Vec::new();
        for report in reports {
            let instance = &report.instance;
            let error = report
                .error
                .as_ref()
                .map(|error| to_json("error", error))
                .transpose()?;
            let before = sqlx::query(
                "SELECT error FROM env_statuses WHERE unit_id = $1 AND item_id = $2 AND subject_id = $3
                 AND instance = $4 AND name = $5",
            )
            .bind(unit.to_string())
            .bind(instance.item.to_string())
            .bind(instance.subject.to_string())
            .bind(big(instance.index))
            .bind(report.name.clone())
            .fetch_optional(tx.on())
            .await
            .doing("read what became of a variable")?
            .map(|row| row.text_or_null("error"))
            .transpose()?;
            if before.as_ref() == Some(&error) {
                continue;
            }
            sqlx::query(
                "INSERT INTO env_statuses (unit_id, item_id, subject_id, instance, name, error, changed_at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7)
                 ON CONFLICT (unit_id, item_id, subject_id, instance, name) DO UPDATE SET error = excluded.error,
                 changed_at = excluded.changed_at",
            )
            .bind(unit.to_string())
            .bind(instance.item.to_string())
            .bind(instance.subject.to_string())
            .bind(big(instance.index))
            .bind(report.name.clone())
            .bind(error)
            .bind(now)
            .execute(tx.on())
            .await
            .doing("store what became of a variable")?;
            let shown: String = report.name.chars().take(NAME).collect();
            let (severity, text) = match &report.error {
                None => (
                    Severity::Info,
                    format!("instance {} has variable {shown}", instance.index),
                ),
                Some(error) => (
                    Severity::Error,
                    format!(
                        "instance {} did not get variable {shown}: {error}",
                        instance.index
                    ),
                ),
            };
            events.push(Happening {
                item_id: Some(instance.item.to_string()),
                subject_id: Some(instance.subject.to_string()),
                instance: Some(instance.index),
                ..Happening::new(TimelineKind::EnvVars, severity, text)
            });
        }
        // What is said of variables that nobody sets is not kept: a Unit could fill the store with it.
        sqlx::query(
            "DELETE FROM env_statuses WHERE unit_id = $1 AND NOT EXISTS
             (SELECT 1 FROM env_vars WHERE env_vars.unit_id = $1 AND env_vars.name = env_statuses.name)",
        )
        .bind(unit.to_string())
        .execute(tx.on())
        .await
        .doing("forget what became of variables")?;
        tx.happened(unit, &events).await?;
        tx.announce(tenant, ChangeTopic::Unit, ChangeAction::Status, unit);
        tx.commit().await
    }
}

impl Tx {
    /// The set of a Unit is another one now: it must be sent, and what was said of this variable counts no more.
    async fn env_changed(
        &mut self,
        actor: &Actor,
        unit: Uuid,
        name: &str,
        action: &'static str,
        text: String,
    ) -> Result<(), DbError> {
        let now = self.now.as_micros();
        sqlx::query("DELETE FROM env_statuses WHERE unit_id = $1 AND name = $2")
            .bind(unit.to_string())
            .bind(name.to_owned())
            .execute(self.on())
            .await
            .doing("forget what became of a variable")?;
        sqlx::query("DELETE FROM env_vars WHERE unit_id = $1 AND expires_at <= $2")
            .bind(unit.to_string())
            .bind(now)
            .execute(self.on())
            .await
            .doing("drop expired variables")?;
        self.env_is_new(unit).await?;
        self.happened(
            unit,
            &[Happening::info(
                TimelineKind::EnvVars,
                format!("{} {text}", actor.name()),
            )],
        )
        .await?;
        self.announce(
            actor.tenant(),
            ChangeTopic::Unit,
            ChangeAction::Desired,
            unit,
        );
        self.audit(actor, action, format!("unit:{unit}"), text)
            .await
    }

    async fn env_is_new(&mut self, unit: Uuid) -> Result<(), DbError> {
        let now = self.now.as_micros();
        sqlx::query(
            "UPDATE units SET env_changed_at = $2, env_txn = NULL, env_sent_at = NULL, env_acked_at = NULL WHERE id = $1",
        )
        .bind(unit.to_string())
        .bind(now)
        .execute(self.on())
        .await
        .doing("note that environment variables changed")?;
        Ok(())
    }

    /// Notes that the Unit took over the set that went out with this transmission id. True if that was one.
    pub(crate) async fn env_acked(&mut self, unit: Uuid, txn: &str) -> Result<bool, DbError> {
        let now = self.now.as_micros();
        let taken = sqlx::query(
            "UPDATE units SET env_acked_at = $3 WHERE id = $1 AND env_txn = $2 AND env_acked_at IS NULL",
        )
        .bind(unit.to_string())
        .bind(txn.to_owned())
        .bind(now)
        .execute(self.on())
        .await
        .doing("note that a Unit has its environment variables")?
        .rows_affected();
        if taken > 0 {
            self.happened(
                unit,
                &[Happening::info(
                    TimelineKind::EnvVars,
                    "the Unit has its environment variables",
                )],
            )
            .await?;
        }
        Ok(taken > 0)
    }
}

fn check(new: &NewEnvVars) -> Result<(), DbError> {
    if !(1..=MOST_AT_ONCE).contains(&new.variables.len()) {
        return Err(DbError::invalid(
            "variables",
            format!("must hold 1 to {MOST_AT_ONCE} variables"),
        ));
    }
    if new.instance_id.is_some_and(|instance| instance > 1_000_000) {
        return Err(DbError::invalid("instance_id", "must be 0 to 1000000"));
    }
    let mut names = std::collections::BTreeSet::new();
    for variable in &new.variables {
        let length = variable.name.chars().count();
        if !(1..=NAME).contains(&length)
            || variable
                .name
                .chars()
                .any(|c| c == '=' || c.is_control() || c.is_whitespace())
        {
            return Err(DbError::invalid(
                "variables.name",
                format!(
                    "must be 1 to {NAME} characters without `=`, blanks and control characters"
                ),
            ));
        }
        if !names.insert(&variable.name) {
            return Err(DbError::invalid(
                "variables.name",
                format!("`{}` is there twice", variable.name),
            ));
        }
        if variable.value.len() > VALUE || variable.value.contains('\0') {
            return Err(DbError::invalid(
                "variables.value",
                format!(
                    "the value of `{}` must be at most {VALUE} bytes without NUL",
                    variable.name
                ),
            ));
        }
        if variable.ttl.is_some_and(|ttl| !(1..=TTL).contains(&ttl)) {
            return Err(DbError::invalid(
                "variables.ttl",
                format!("must be 1 to {TTL} seconds"),
            ));
        }
    }
    Ok(())
}
