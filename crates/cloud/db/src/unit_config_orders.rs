//! Which unit configuration is ordered for whom, and what became of it.

use aos_api::{
    ChangeAction, ChangeTopic, FailedUnitConfig, ListQuery, ModelUnit, OrderedFor, Page,
    TimelineKind, UnitConfigOrder, UnitConfigProgress, UnitModel,
};
use aos_types::{ErrorInfo, UnitConfig};
use semver::Version;
use sqlx::{Any, Executor, any::AnyRow};
use uuid::Uuid;

use crate::{
    Actor, Db, DbError, Happening, columns::Columns, error::Doing, like, listing::page, store::Tx,
};

/// Units named in a refusal.
const NAMED: usize = 3;

/// Whose configurations in force are looked at.
enum Of {
    Unit(Uuid),
    Model(Uuid),
}

/// The columns that [`order`] reads; the query joins `unit_models`.
macro_rules! orders {
    ($rest:literal) => {
        sqlx::query(concat!(
            "SELECT units.id, units.system_uid, units.title, units.ordered_config AS own,
             unit_models.ordered_config AS of_model, units.config_in_force, units.config_version, units.config_state,
             units.config_error FROM units LEFT JOIN unit_models ON unit_models.id = units.unit_model_id
             WHERE units.tenant_id = $1 ",
            $rest
        ))
    };
}

fn order(row: &AnyRow) -> Result<UnitConfigOrder, DbError> {
    let own = row.text_or_null("own")?;
    let ordered_for = if own.is_some() {
        OrderedFor::Unit
    } else {
        OrderedFor::Model
    };
    let wanted = match own {
        Some(own) => Some(own),
        None => row.text_or_null("of_model")?,
    };
    let installed = row.text_or_null("config_in_force")?;
    let failed = match row.text_or_null("config_state")?.as_deref() {
        Some("failed") => Some(FailedUnitConfig {
            version: row.text_or_null("config_version")?.unwrap_or_default(),
            error: row
                .json_or_null::<ErrorInfo>("config_error")?
                .map(Into::into),
        }),
        _ => None,
    };
    let progress = match &wanted {
        None => UnitConfigProgress::None,
        Some(_) if failed.as_ref().map(|failed| &failed.version) == wanted.as_ref() => {
            UnitConfigProgress::Failed
        }
        Some(_) if installed == wanted => UnitConfigProgress::Installed,
        Some(_) => UnitConfigProgress::Waiting,
    };
    Ok(UnitConfigOrder {
        ordered_for: wanted.is_some().then_some(ordered_for),
        wanted,
        installed,
        failed,
        progress,
    })
}

/// The unit configuration that is ordered for a Unit.
pub(crate) async fn ordered_config<'c>(
    on: impl Executor<'c, Database = Any>,
    unit: Uuid,
) -> Result<Option<UnitConfig>, DbError> {
    sqlx::query(
        "SELECT unit_configs.document FROM units JOIN unit_models ON unit_models.id = units.unit_model_id
         JOIN unit_configs ON unit_configs.unit_model_id = unit_models.id
         AND unit_configs.version = COALESCE(units.ordered_config, unit_models.ordered_config) WHERE units.id = $1",
    )
    .bind(unit.to_string())
    .fetch_optional(on)
    .await
    .doing("read a unit configuration")?
    .map(|row| {
        let text = row.text("document")?;
        UnitConfig::from_slice(text.as_bytes())
            .map_err(|source| DbError::corrupt("unit configuration", source))
    })
    .transpose()
}

impl Db {
    /// The unit configuration of a Unit: wanted and actual.
    pub async fn unit_config_order(
        &self,
        actor: &Actor,
        unit: &str,
    ) -> Result<UnitConfigOrder, DbError> {
        let id = self.find_unit(actor, unit).await?;
        let row = orders!("AND units.id = $2")
            .bind(actor.tenant_text())
            .bind(id.to_string())
            .fetch_one(self.readers())
            .await
            .doing("read the unit configuration of a Unit")?;
        order(&row)
    }

    /// The Units of a model with their unit configurations.
    pub async fn model_units(
        &self,
        actor: &Actor,
        model: Uuid,
        query: &ListQuery,
    ) -> Result<Page<ModelUnit>, DbError> {
        self.unit_model(actor, model).await?;
        let search = like(query.search.as_deref());
        let total = sqlx::query(
            "SELECT COUNT(*) AS total FROM units WHERE tenant_id = $1 AND unit_model_id = $2
             AND (LOWER(system_uid) LIKE $3 ESCAPE '!' OR LOWER(title) LIKE $3 ESCAPE '!')",
        )
        .bind(actor.tenant_text())
        .bind(model.to_string())
        .bind(search.clone())
        .fetch_one(self.readers())
        .await
        .doing("count the Units of a model")?
        .count("total")?;
        let rows = orders!(
            "AND units.unit_model_id = $2
             AND (LOWER(units.system_uid) LIKE $3 ESCAPE '!' OR LOWER(units.title) LIKE $3 ESCAPE '!')
             ORDER BY units.title, units.system_uid LIMIT $4 OFFSET $5"
        )
        .bind(actor.tenant_text())
        .bind(model.to_string())
        .bind(search)
        .bind(i64::from(query.limit()))
        .bind(i64::from(query.offset()))
        .fetch_all(self.readers())
        .await
        .doing("read the Units of a model")?;
        page(&rows, total, query, |row| {
            Ok(ModelUnit {
                id: row.uuid("id")?,
                system_uid: row.text("system_uid")?,
                title: row.text("title")?,
                unit_config: order(row)?,
            })
        })
    }

    /// Orders a version of the unit configuration for one Unit; `None`: what is ordered for its model counts again.
    pub async fn order_unit_config(
        &self,
        actor: &Actor,
        unit: &str,
        version: Option<&str>,
    ) -> Result<UnitConfigOrder, DbError> {
        let id = self.find_unit(actor, unit).await?;
        let mut tx = self.begin().await?;
        let row = sqlx::query(
            "SELECT units.unit_model_id, units.ordered_config AS own, unit_models.ordered_config AS of_model FROM units
             LEFT JOIN unit_models ON unit_models.id = units.unit_model_id WHERE units.id = $1",
        )
        .bind(id.to_string())
        .fetch_one(tx.on())
        .await
        .doing("read a Unit")?;
        let Some(model) = row.uuid_or_null("unit_model_id")? else {
            return Err(DbError::conflict(
                "the Unit has no unit model, so there is no unit configuration for it",
                "give it a model first",
            ));
        };
        let wanted = match version {
            Some(version) => Some(tx.known_config(model, version).await?),
            None => row.text_or_null("of_model")?,
        };
        if let Some(wanted) = &wanted {
            tx.goes_forward(wanted, Of::Unit(id)).await?;
        }
        if row.text_or_null("own")?.as_deref() == version {
            return self.unit_config_order(actor, &id.to_string()).await;
        }
        sqlx::query("UPDATE units SET ordered_config = $2 WHERE id = $1")
            .bind(id.to_string())
            .bind(version.and(wanted.clone()))
            .execute(tx.on())
            .await
            .doing("order a unit configuration")?;
        let text = match (version, &wanted) {
            (Some(version), _) => format!(
                "{} ordered unit configuration {version} for this Unit",
                actor.name()
            ),
            (None, Some(wanted)) => format!(
                "{} gave it the unit configuration of its model again: {wanted}",
                actor.name()
            ),
            (None, None) => format!(
                "{} took back the unit configuration that was ordered for it",
                actor.name()
            ),
        };
        tx.config_ordered(actor, id, text, wanted).await?;
        tx.audit(
            actor,
            "unit_config.order",
            format!("unit:{id}"),
            version.map_or_else(
                || "as the model".to_owned(),
                |version| format!("version {version}"),
            ),
        )
        .await?;
        tx.commit().await?;
        self.unit_config_order(actor, &id.to_string()).await
    }

    /// Orders a version of the unit configuration for all Units of a model, also those that had one of their own.
    pub async fn order_model_config(
        &self,
        actor: &Actor,
        model: Uuid,
        version: &str,
    ) -> Result<UnitModel, DbError> {
        self.unit_model(actor, model).await?;
        let mut tx = self.begin().await?;
        let version = tx.known_config(model, version).await?;
        tx.order_for_model(actor, model, &version).await?;
        tx.commit().await?;
        self.unit_model(actor, model).await
    }
}

impl Tx {
    /// A version as the model has it stored.
    async fn known_config(&mut self, model: Uuid, version: &str) -> Result<String, DbError> {
        let asked = version.trim();
        let rows = sqlx::query(
            "SELECT version FROM unit_configs WHERE unit_model_id = $1 ORDER BY number DESC",
        )
        .bind(model.to_string())
        .fetch_all(self.on())
        .await
        .doing("read unit configurations")?;
        let known = rows
            .iter()
            .map(|row| row.text("version"))
            .collect::<Result<Vec<_>, _>>()?;
        if known.iter().any(|known| known == asked) {
            return Ok(asked.to_owned());
        }
        let shown: String = asked.chars().take(64).collect();
        Err(DbError::invalid(
            "version",
            match known.as_slice() {
                [] => format!(
                    "the model has no unit configuration {shown}, and no other either; store one first"
                ),
                known => format!(
                    "the model has no unit configuration {shown}; it has {}",
                    known
                        .iter()
                        .take(10)
                        .cloned()
                        .collect::<Vec<_>>()
                        .join(", ")
                ),
            },
        ))
    }

    /// Refuses a version below one that is in force: the Unit would refuse it.
    async fn goes_forward(&mut self, version: &str, of: Of) -> Result<(), DbError> {
        let (sql, id) = match of {
            Of::Unit(id) => (
                "SELECT system_uid, config_in_force FROM units WHERE id = $1 AND config_in_force IS NOT NULL",
                id,
            ),
            Of::Model(id) => (
                "SELECT system_uid, config_in_force FROM units WHERE unit_model_id = $1
                 AND config_in_force IS NOT NULL ORDER BY system_uid",
                id,
            ),
        };
        let Ok(asked) = Version::parse(version) else {
            return Ok(());
        };
        let mut newer = Vec::new();
        for row in sqlx::query(sql)
            .bind(id.to_string())
            .fetch_all(self.on())
            .await
            .doing("read unit configurations in force")?
        {
            let in_force = row.text("config_in_force")?;
            if Version::parse(&in_force).is_ok_and(|in_force| in_force > asked) {
                newer.push(format!("Unit {} has {in_force}", row.text("system_uid")?));
            }
        }
        if newer.is_empty() {
            return Ok(());
        }
        let more = newer.len().saturating_sub(NAMED);
        newer.truncate(NAMED);
        let mut text = newer.join(", ");
        if more > 0 {
            text.push_str(&format!(" and {more} more a newer one"));
        }
        Err(DbError::conflict(
            format!(
                "unit configuration {version} would be a step back: {text} in force, and a Unit refuses to go back"
            ),
            "store the content you want under a higher version and order that",
        ))
    }

    /// Refuses a model whose unit configuration the Unit would refuse: one below what it has in force, or another of the same
    /// version.
    pub(crate) async fn model_goes_forward(
        &mut self,
        unit: Uuid,
        model: Uuid,
    ) -> Result<(), DbError> {
        let row = sqlx::query(
            "SELECT units.config_in_force, units.system_uid, asked.version AS asked_version, asked.document AS asked_document,
             known.document AS known_document FROM units
             JOIN unit_models ON unit_models.id = $2
             JOIN unit_configs AS asked ON asked.unit_model_id = unit_models.id
             AND asked.version = unit_models.ordered_config
             LEFT JOIN unit_configs AS known ON known.unit_model_id = units.unit_model_id
             AND known.version = units.config_in_force
             WHERE units.id = $1 AND units.config_in_force IS NOT NULL
             AND (units.unit_model_id IS NULL OR units.unit_model_id <> $2)",
        )
        .bind(unit.to_string())
        .bind(model.to_string())
        .fetch_optional(self.on())
        .await
        .doing("compare unit configurations")?;
        let Some(row) = row else { return Ok(()) };
        let read = |name: &'static str| -> Result<Option<UnitConfig>, DbError> {
            let text = row.text_or_null(name)?;
            text.map(|text| {
                UnitConfig::from_slice(text.as_bytes())
                    .map_err(|source| DbError::corrupt("unit configuration", source))
            })
            .transpose()
        };
        let asked = row.text("asked_version")?;
        self.goes_forward(&asked, Of::Unit(unit)).await?;
        // What the Unit has may be known no more; then it decides itself, and says so.
        match (read("asked_document")?, read("known_document")?) {
            (Some(new), Some(before)) if !new.may_follow(&before) => Err(DbError::conflict(
                format!(
                    "the model's unit configuration {asked} is another one than the {asked} that Unit {} has in force, and a \
                     Unit takes other content only under a greater version",
                    row.text("system_uid")?
                ),
                "store the model's unit configuration under a higher version and order that, then give the Unit the model",
            )),
            _ => Ok(()),
        }
    }

    /// Orders a known version for a model and all its Units.
    pub(crate) async fn order_for_model(
        &mut self,
        actor: &Actor,
        model: Uuid,
        version: &str,
    ) -> Result<(), DbError> {
        self.goes_forward(version, Of::Model(model)).await?;
        sqlx::query("UPDATE unit_models SET ordered_config = $2 WHERE id = $1")
            .bind(model.to_string())
            .bind(version.to_owned())
            .execute(self.on())
            .await
            .doing("order a unit configuration")?;
        let units = sqlx::query("SELECT id FROM units WHERE unit_model_id = $1")
            .bind(model.to_string())
            .fetch_all(self.on())
            .await
            .doing("read the Units of a model")?;
        sqlx::query("UPDATE units SET ordered_config = NULL WHERE unit_model_id = $1")
            .bind(model.to_string())
            .execute(self.on())
            .await
            .doing("order a unit configuration")?;
        for row in &units {
            let text = format!(
                "{} ordered unit configuration {version} for all Units of its model",
                actor.name()
            );
            self.config_ordered(actor, row.uuid("id")?, text, Some(version.to_owned()))
                .await?;
        }
        self.announce(
            actor.tenant(),
            ChangeTopic::UnitModel,
            ChangeAction::Updated,
            model,
        );
        self.audit(
            actor,
            "unit_config.order",
            format!("unit-model:{model}"),
            format!("version {version}"),
        )
        .await
    }

    async fn config_ordered(
        &mut self,
        actor: &Actor,
        unit: Uuid,
        text: String,
        version: Option<String>,
    ) -> Result<(), DbError> {
        let event = Happening {
            version,
            ..Happening::info(TimelineKind::UnitConfig, text)
        };
        self.happened(unit, &[event]).await?;
        self.announce(
            actor.tenant(),
            ChangeTopic::Unit,
            ChangeAction::Desired,
            unit,
        );
        Ok(())
    }
}
