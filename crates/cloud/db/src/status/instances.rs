use std::collections::BTreeMap;

use aos_api::{Severity, TimelineKind};
use aos_types::InstanceState;
use uuid::Uuid;

use super::{InstanceReport, Names, because, name};
use crate::{
    DbError, Happening,
    columns::{Columns, big, to_json},
    error::Doing,
    store::Tx,
};

fn place(node: &str) -> String {
    match node {
        "" => "on no Node".into(),
        node => format!("on Node {node}"),
    }
}

/// Of two reports of one instance the heavier counts: what runs says more about it than what does not.
const fn weight(state: InstanceState) -> u8 {
    match state {
        InstanceState::Active => 3,
        InstanceState::Activating => 2,
        InstanceState::Failed => 1,
        InstanceState::Inactive => 0,
    }
}

impl Tx {
    pub(super) async fn instance_status(
        &mut self,
        unit: Uuid,
        instances: &[InstanceReport],
        delta: bool,
        names: &Names,
        events: &mut Vec<Happening>,
    ) -> Result<(), DbError> {
        type Key = (String, String, String, i64);
        type Row = (
            String,
            String,
            String,
            String,
            Option<String>,
            Option<String>,
        );
        let now = self.now.as_micros();
        let mut before: BTreeMap<Key, Row> = BTreeMap::new();
        for row in sqlx::query(
            "SELECT item_type, item_id, subject_id, instance, version, state, node_id, runtime_id, state_checksum, error
             FROM unit_instances WHERE unit_id = $1",
        )
        .bind(unit.to_string())
        .fetch_all(self.on())
        .await
        .doing("read the instances of a Unit")?
        {
            before.insert(
                (
                    row.text("item_type")?,
                    row.text("item_id")?,
                    row.text("subject_id")?,
                    row.int("instance")?,
                ),
                (
                    row.text("version")?,
                    row.text("state")?,
                    row.text("node_id")?,
                    row.text("runtime_id")?,
                    row.text_or_null("state_checksum")?,
                    row.text_or_null("error")?,
                ),
            );
        }
        // While a version is replaced, or when that did not succeed, a Unit reports the same instance twice.
        let mut newest: BTreeMap<Key, &InstanceReport> = BTreeMap::new();
        for instance in instances {
            let key = (
                instance.ident.item_type.to_string(),
                instance.ident.item.to_string(),
                instance.ident.subject.to_string(),
                big(instance.ident.index),
            );
            let keep = newest
                .get(&key)
                .is_none_or(|other| weight(instance.state) >= weight(other.state));
            if keep {
                newest.insert(key, instance);
            }
        }
        for (key, instance) in newest {
            // What runs runs on: that another version of it failed stands at the item. A full status says it all.
            let spared = delta
                && instance.state == InstanceState::Failed
                && before.get(&key).is_some_and(|(version, state, ..)| {
                    *version != instance.version && state == InstanceState::Active.as_str()
                });
            if spared {
                continue;
            }
            let error = instance
                .error
                .as_ref()
                .map(|error| to_json("error", error))
                .transpose()?;
            let new: Row = (
                instance.version.clone(),
                instance.state.as_str().to_owned(),
                instance
                    .node
                    .as_ref()
                    .map(ToString::to_string)
                    .unwrap_or_default(),
                instance
                    .runtime
                    .as_ref()
                    .map(ToString::to_string)
                    .unwrap_or_default(),
                instance.state_checksum.clone(),
                error,
            );
            let old = before.remove(&key);
            if old.as_ref() == Some(&new) {
                continue;
            }
            sqlx::query(
                "INSERT INTO unit_instances (unit_id, item_type, item_id, subject_id, instance, version, state, node_id,
                 runtime_id, preinstalled, state_checksum, error, changed_at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
                 ON CONFLICT (unit_id, item_type, item_id, subject_id, instance) DO UPDATE SET version = excluded.version,
                 state = excluded.state, node_id = excluded.node_id, runtime_id = excluded.runtime_id,
                 preinstalled = excluded.preinstalled, state_checksum = excluded.state_checksum, error = excluded.error,
                 changed_at = excluded.changed_at",
            )
            .bind(unit.to_string())
            .bind(key.0.clone())
            .bind(key.1.clone())
            .bind(key.2.clone())
            .bind(key.3)
            .bind(new.0.clone())
            .bind(new.1.clone())
            .bind(new.2.clone())
            .bind(new.3.clone())
            .bind(i64::from(instance.ident.preinstalled))
            .bind(new.4.clone())
            .bind(new.5.clone())
            .bind(now)
            .execute(self.on())
            .await
            .doing("store an instance")?;
            let same_but_checksum = old.as_ref().is_some_and(|old| {
                (&old.0, &old.1, &old.2, &old.5) == (&new.0, &new.1, &new.2, &new.5)
            });
            if same_but_checksum {
                continue;
            }
            let mut was = Vec::new();
            if let Some(old) = &old {
                if old.1 != new.1 {
                    was.push(old.1.clone());
                }
                if old.0 != new.0 {
                    was.push(format!("version {}", old.0));
                }
                if old.2 != new.2 {
                    was.push(place(&old.2));
                }
            }
            let was = if was.is_empty() {
                String::new()
            } else {
                format!(" (was {})", was.join(", "))
            };
            let was_active = old
                .as_ref()
                .is_some_and(|old| old.1 == InstanceState::Active.as_str());
            let severity = match instance.state {
                InstanceState::Failed => Severity::Error,
                // It went down and is started again.
                InstanceState::Activating if was_active && instance.error.is_some() => {
                    Severity::Warning
                }
                _ => Severity::Info,
            };
            events.push(Happening {
                node_id: Some(new.2.clone()).filter(|node| !node.is_empty()),
                item_id: Some(key.1.clone()),
                subject_id: Some(key.2.clone()),
                instance: Some(instance.ident.index),
                version: Some(instance.version.clone()),
                ..Happening::new(
                    TimelineKind::Instance,
                    severity,
                    format!(
                        "instance {} of {} {} {} is {}{was}{}",
                        instance.ident.index,
                        name(names, &key.1),
                        instance.version,
                        place(&new.2),
                        instance.state,
                        because(instance.error.as_ref())
                    ),
                )
            });
        }
        if !delta {
            for (key, old) in before {
                sqlx::query(
                    "DELETE FROM unit_instances WHERE unit_id = $1 AND item_type = $2 AND item_id = $3 AND subject_id = $4
                     AND instance = $5",
                )
                .bind(unit.to_string())
                .bind(key.0.clone())
                .bind(key.1.clone())
                .bind(key.2.clone())
                .bind(key.3)
                .execute(self.on())
                .await
                .doing("drop an instance")?;
                events.push(Happening {
                    node_id: Some(old.2.clone()).filter(|node| !node.is_empty()),
                    item_id: Some(key.1.clone()),
                    subject_id: Some(key.2.clone()),
                    instance: u64::try_from(key.3).ok(),
                    version: Some(old.0.clone()),
                    ..Happening::info(
                        TimelineKind::Instance,
                        format!(
                            "instance {} of {} {}, {}, is gone",
                            key.3,
                            name(names, &key.1),
                            old.0,
                            place(&old.2)
                        ),
                    )
                });
            }
        }
        Ok(())
    }
}
