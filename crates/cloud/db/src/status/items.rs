use std::collections::BTreeMap;

use aos_api::{Severity, TimelineKind};
use aos_types::ItemState;
use uuid::Uuid;

use super::{ItemReport, Names, because, name};
use crate::{
    DbError, Happening,
    columns::{Columns, to_json},
    error::Doing,
    store::Tx,
};

impl Tx {
    pub(super) async fn item_status(
        &mut self,
        unit: Uuid,
        items: &[ItemReport],
        delta: bool,
        names: &Names,
        events: &mut Vec<Happening>,
    ) -> Result<(), DbError> {
        let now = self.now.as_micros();
        let mut before = BTreeMap::new();
        for row in sqlx::query(
            "SELECT item_type, item_id, version, state, error FROM unit_items WHERE unit_id = $1",
        )
        .bind(unit.to_string())
        .fetch_all(self.on())
        .await
        .doing("read the items of a Unit")?
        {
            before.insert(
                (
                    row.text("item_type")?,
                    row.text("item_id")?,
                    row.text("version")?,
                ),
                (row.text("state")?, row.text_or_null("error")?),
            );
        }
        for item in items {
            let key = (
                item.item_type.to_string(),
                item.item.to_string(),
                item.version.clone(),
            );
            let error = item
                .error
                .as_ref()
                .map(|error| to_json("error", error))
                .transpose()?;
            let old = before.remove(&key);
            let removed = item.state == ItemState::Removed;
            let new = (item.state.as_str().to_owned(), error);
            if old.as_ref() == Some(&new) || (old.is_none() && removed) {
                continue;
            }
            if removed {
                self.drop_item(unit, &key).await?;
            } else {
                sqlx::query(
                    "INSERT INTO unit_items (unit_id, item_type, item_id, version, state, error, changed_at)
                     VALUES ($1, $2, $3, $4, $5, $6, $7)
                     ON CONFLICT (unit_id, item_type, item_id, version) DO UPDATE SET state = excluded.state,
                     error = excluded.error, changed_at = excluded.changed_at",
                )
                .bind(unit.to_string())
                .bind(key.0.clone())
                .bind(key.1.clone())
                .bind(key.2.clone())
                .bind(new.0.clone())
                .bind(new.1.clone())
                .bind(now)
                .execute(self.on())
                .await
                .doing("store an item")?;
            }
            let was = old.map_or_else(String::new, |(state, _)| {
                if state == new.0 {
                    String::new()
                } else {
                    format!(" (was {state})")
                }
            });
            let severity = if item.state == ItemState::Failed {
                Severity::Error
            } else {
                Severity::Info
            };
            events.push(Happening {
                item_id: Some(key.1.clone()),
                version: Some(item.version.clone()),
                ..Happening::new(
                    TimelineKind::Item,
                    severity,
                    format!(
                        "{} {} is {}{was}{}",
                        name(names, &key.1),
                        item.version,
                        item.state,
                        because(item.error.as_ref())
                    ),
                )
            });
        }
        if !delta {
            for key in before.into_keys() {
                self.drop_item(unit, &key).await?;
                events.push(Happening {
                    item_id: Some(key.1.clone()),
                    version: Some(key.2.clone()),
                    ..Happening::info(
                        TimelineKind::Item,
                        format!("{} {} is gone", name(names, &key.1), key.2),
                    )
                });
            }
        }
        Ok(())
    }

    async fn drop_item(
        &mut self,
        unit: Uuid,
        key: &(String, String, String),
    ) -> Result<(), DbError> {
        sqlx::query(
            "DELETE FROM unit_items WHERE unit_id = $1 AND item_type = $2 AND item_id = $3 AND version = $4",
        )
        .bind(unit.to_string())
        .bind(key.0.clone())
        .bind(key.1.clone())
        .bind(key.2.clone())
        .execute(self.on())
        .await
        .doing("drop an item")?;
        Ok(())
    }
}
