use std::collections::{BTreeMap, BTreeSet};

use aos_api::{ChangeAction, ChangeTopic, OnlineStatus, Severity, TimelineKind};
use aos_types::{ErrorInfo, UnitConfigState};
use uuid::Uuid;

use crate::{
    Db, DbError, Happening, LinkWrite,
    columns::{Columns, to_json},
    error::Doing,
    store::Tx,
};

mod instances;
mod items;
mod nodes;
mod report;
mod told;

pub use report::{
    InstanceReport, ItemReport, NodeReport, PlacementReport, StatusOutcome, UnitConfigReport,
    UnitStatusReport,
};

impl Db {
    /// Takes over what a Unit reports, with the session's records, in one transaction; writes to the timeline what
    /// changed. A full status makes the Unit `Online`.
    pub async fn apply_status(
        &self,
        unit: Uuid,
        report: &UnitStatusReport,
        link: &LinkWrite,
    ) -> Result<StatusOutcome, DbError> {
        let mut tx = self.begin().await?;
        let tenant = tx.tenant_of(unit).await?;
        tx.link(unit, link).await?;
        let mut events = Vec::new();
        let mut recompose = false;
        let names = tx.service_names(tenant, report).await?;
        if let Some(configs) = &report.unit_config {
            tx.unit_config_status(unit, configs, &mut events).await?;
        }
        if let Some(nodes) = &report.nodes {
            recompose |= tx
                .node_status(unit, nodes, report.delta, &mut events)
                .await?;
        }
        if let Some(items) = &report.items {
            tx.item_status(unit, items, report.delta, &names, &mut events)
                .await?;
        }
        if let Some(instances) = &report.instances {
            tx.instance_status(unit, instances, report.delta, &names, &mut events)
                .await?;
        }
        if let Some(subjects) = &report.subjects {
            recompose |= tx.subject_status(unit, subjects, &mut events).await?;
        }
        tx.told(unit, report).await?;
        for text in &report.unreadable {
            events.push(Happening::new(
                TimelineKind::Protocol,
                Severity::Warning,
                format!(
                    "a part of the Unit's status could not be read and was left as it was: {text}"
                ),
            ));
        }
        let now = tx.now.as_micros();
        sqlx::query("UPDATE units SET last_seen_at = $2, updated_at = $2 WHERE id = $1")
            .bind(unit.to_string())
            .bind(now)
            .execute(tx.on())
            .await
            .doing("note that a Unit was heard")?;
        if !report.delta && tx.change_link(unit, OnlineStatus::Online, "").await? {
            tx.announce(tenant, ChangeTopic::Unit, ChangeAction::Link, unit);
        }
        tx.happened(unit, &events).await?;
        tx.summarise(unit).await?;
        tx.announce(tenant, ChangeTopic::Unit, ChangeAction::Status, unit);
        if recompose {
            tx.announce(tenant, ChangeTopic::Unit, ChangeAction::Desired, unit);
        }
        tx.commit().await?;
        Ok(StatusOutcome {
            events: events.len(),
            recompose,
        })
    }
}

/// Titles of services by their ids.
type Names = BTreeMap<String, String>;

fn name<'a>(names: &'a Names, item: &'a str) -> &'a str {
    names.get(item).map_or(item, String::as_str)
}

fn because(error: Option<&ErrorInfo>) -> String {
    error.map_or_else(String::new, |error| format!(": {error}"))
}

impl Tx {
    /// Titles of the services a report names, for texts.
    async fn service_names(
        &mut self,
        tenant: Uuid,
        report: &UnitStatusReport,
    ) -> Result<Names, DbError> {
        let items = report.items.iter().flatten().map(|item| item.item.as_str());
        let instances = report
            .instances
            .iter()
            .flatten()
            .map(|instance| instance.ident.item.as_str());
        let mut wanted: Vec<String> = items.chain(instances).map(str::to_owned).collect();
        wanted.sort();
        wanted.dedup();
        let mut names = Names::new();
        for id in wanted {
            let row = sqlx::query(
                "SELECT title, codename FROM services WHERE id = $1 AND tenant_id = $2",
            )
            .bind(id.clone())
            .bind(tenant.to_string())
            .fetch_optional(self.on())
            .await
            .doing("look up a service")?;
            if let Some(row) = row {
                let title = row.text("title")?;
                let name = if title.is_empty() {
                    row.text("codename")?
                } else {
                    title
                };
                names.insert(id, name);
            }
        }
        Ok(names)
    }
    async fn unit_config_status(
        &mut self,
        unit: Uuid,
        configs: &[UnitConfigReport],
        events: &mut Vec<Happening>,
    ) -> Result<(), DbError> {
        // Of the one in force and a newer one that failed, the failed one is what people must see.
        let shown = configs
            .iter()
            .find(|config| config.state == UnitConfigState::Failed)
            .or_else(|| configs.last());
        let Some(shown) = shown else { return Ok(()) };
        let error = shown
            .error
            .as_ref()
            .map(|error| to_json("error", error))
            .transpose()?;
        let in_force = configs
            .iter()
            .find(|config| config.state == UnitConfigState::Installed)
            .map(|config| config.version.clone());
        let before = sqlx::query(
            "SELECT config_version, config_state, config_error, config_in_force FROM units WHERE id = $1",
        )
        .bind(unit.to_string())
        .fetch_one(self.on())
        .await
        .doing("read a unit configuration's state")?;
        let none = configs
            .iter()
            .any(|config| config.state == UnitConfigState::Absent);
        let in_force_before = before.text_or_null("config_in_force")?;
        // A Unit may speak only of the one that failed.
        let in_force = match in_force {
            None if !none => in_force_before.clone(),
            in_force => in_force,
        };
        if in_force != in_force_before {
            sqlx::query("UPDATE units SET config_in_force = $2 WHERE id = $1")
                .bind(unit.to_string())
                .bind(in_force)
                .execute(self.on())
                .await
                .doing("store which unit configuration is in force")?;
        }
        let same = before.text_or_null("config_version")?.as_deref() == Some(&shown.version)
            && before.text_or_null("config_state")?.as_deref() == Some(shown.state.as_str())
            && before.text_or_null("config_error")? == error;
        if same {
            return Ok(());
        }
        sqlx::query(
            "UPDATE units SET config_version = $2, config_state = $3, config_error = $4 WHERE id = $1",
        )
        .bind(unit.to_string())
        .bind(shown.version.clone())
        .bind(shown.state.as_str())
        .bind(error)
        .execute(self.on())
        .await
        .doing("store a unit configuration's state")?;
        if shown.state != UnitConfigState::Absent {
            let severity = if shown.state == UnitConfigState::Failed {
                Severity::Error
            } else {
                Severity::Info
            };
            events.push(Happening {
                version: Some(shown.version.clone()),
                ..Happening::new(
                    TimelineKind::UnitConfig,
                    severity,
                    format!(
                        "unit configuration {} is {}{}",
                        shown.version,
                        shown.state,
                        because(shown.error.as_ref())
                    ),
                )
            });
        }
        Ok(())
    }

    /// True if the Unit reports other subjects than before.
    async fn subject_status(
        &mut self,
        unit: Uuid,
        subjects: &[String],
        events: &mut Vec<Happening>,
    ) -> Result<bool, DbError> {
        let before = sqlx::query("SELECT subject FROM unit_subjects WHERE unit_id = $1")
            .bind(unit.to_string())
            .fetch_all(self.on())
            .await
            .doing("read reported subjects")?
            .iter()
            .map(|row| row.text("subject"))
            .collect::<Result<BTreeSet<_>, _>>()?;
        let now: BTreeSet<String> = subjects.iter().cloned().collect();
        for gone in before.difference(&now) {
            sqlx::query("DELETE FROM unit_subjects WHERE unit_id = $1 AND subject = $2")
                .bind(unit.to_string())
                .bind(gone.clone())
                .execute(self.on())
                .await
                .doing("drop a reported subject")?;
            events.push(Happening {
                subject_id: Some(gone.clone()),
                ..Happening::info(
                    TimelineKind::Unit,
                    format!("the Unit does not report subject {gone} any more"),
                )
            });
        }
        for new in now.difference(&before) {
            sqlx::query("INSERT INTO unit_subjects (unit_id, subject) VALUES ($1, $2)")
                .bind(unit.to_string())
                .bind(new.clone())
                .execute(self.on())
                .await
                .doing("store a reported subject")?;
            events.push(Happening {
                subject_id: Some(new.clone()),
                ..Happening::info(
                    TimelineKind::Unit,
                    format!("the Unit reports subject {new}"),
                )
            });
        }
        Ok(before != now)
    }
}
