use aos_api::{ChangeAction, ChangeTopic, ListQuery, Page, UnitConfigVersion, UnitModel};
use aos_types::UnitConfig;
use semver::Version;
use sqlx::any::AnyRow;
use uuid::Uuid;

use crate::{
    Actor, Db, DbError,
    columns::{Columns, to_json},
    error::Doing,
    like,
    listing::page,
    store::Tx,
};

macro_rules! models {
    ($rest:literal) => {
        sqlx::query(concat!(
            "SELECT unit_models.id, unit_models.name, unit_models.version, unit_models.created_at,
             (SELECT unit_configs.version FROM unit_configs WHERE unit_configs.unit_model_id = unit_models.id
              ORDER BY unit_configs.number DESC LIMIT 1) AS config_version, unit_models.ordered_config, unit_models.encrypt_blobs,
             (SELECT COUNT(*) FROM units WHERE units.unit_model_id = unit_models.id) AS unit_count
             FROM unit_models WHERE unit_models.tenant_id = $1 ",
            $rest
        ))
    };
}

fn model(row: &AnyRow) -> Result<UnitModel, DbError> {
    Ok(UnitModel {
        id: row.uuid("id")?,
        name: row.text("name")?,
        version: row.text("version")?,
        unit_config_version: row.text_or_null("config_version")?,
        ordered_unit_config: row.text_or_null("ordered_config")?,
        encrypts_blobs: row.truth("encrypt_blobs")?,
        unit_count: row.count("unit_count")?,
        created_at: row.time("created_at")?,
    })
}

/// Splits `name;version`.
pub(crate) fn split_model(text: &str) -> Option<(&str, &str)> {
    text.split_once(';')
        .map(|(name, version)| (name.trim(), version.trim()))
        .filter(|(name, version)| !name.is_empty() && !version.is_empty())
}

impl Db {
    /// The unit models of the actor's organisation, by name.
    pub async fn unit_models(
        &self,
        actor: &Actor,
        query: &ListQuery,
    ) -> Result<Page<UnitModel>, DbError> {
        let search = like(query.search.as_deref());
        let total = sqlx::query(
            "SELECT COUNT(*) AS total FROM unit_models WHERE tenant_id = $1 AND LOWER(name) LIKE $2 ESCAPE '!'",
        )
        .bind(actor.tenant_text())
        .bind(search.clone())
        .fetch_one(self.readers())
        .await
        .doing("count unit models")?
        .count("total")?;
        let rows = models!(
            "AND LOWER(unit_models.name) LIKE $2 ESCAPE '!' ORDER BY unit_models.name, unit_models.version LIMIT $3 OFFSET $4"
        )
        .bind(actor.tenant_text())
        .bind(search)
        .bind(i64::from(query.limit()))
        .bind(i64::from(query.offset()))
        .fetch_all(self.readers())
        .await
        .doing("read unit models")?;
        page(&rows, total, query, model)
    }

    /// One unit model.
    pub async fn unit_model(&self, actor: &Actor, id: Uuid) -> Result<UnitModel, DbError> {
        let row = models!("AND unit_models.id = $2")
            .bind(actor.tenant_text())
            .bind(id.to_string())
            .fetch_optional(self.readers())
            .await
            .doing("read a unit model")?
            .ok_or_else(|| DbError::not_found("unit model", id))?;
        model(&row)
    }

    /// Makes a unit model, with its first unit configuration if there is one already.
    pub async fn create_unit_model(
        &self,
        actor: &Actor,
        name: &str,
        version: &str,
        config: Option<&UnitConfig>,
    ) -> Result<UnitModel, DbError> {
        for (field, text) in [("name", name), ("version", version)] {
            if text.trim().is_empty() || text.contains(';') || text.len() > 128 {
                return Err(DbError::invalid(
                    field,
                    "must be 1 to 128 characters without `;`",
                ));
            }
        }
        let mut tx = self.begin().await?;
        let (id, is_new) = tx.model_named(actor, name.trim(), version.trim()).await?;
        if !is_new {
            return Err(DbError::conflict(
                format!("unit model `{name};{version}` exists already"),
                "add a unit configuration to it, or choose another version",
            ));
        }
        if let Some(config) = config {
            tx.add_unit_config(actor, id, config, true).await?;
        }
        tx.commit().await?;
        self.unit_model(actor, id).await
    }

    /// Deletes a unit model that no Unit is of.
    pub async fn delete_unit_model(&self, actor: &Actor, id: Uuid) -> Result<(), DbError> {
        let known = self.unit_model(actor, id).await?;
        let mut tx = self.begin().await?;
        let gone = sqlx::query(
            "DELETE FROM unit_models WHERE id = $1 AND tenant_id = $2
             AND NOT EXISTS (SELECT 1 FROM units WHERE units.unit_model_id = unit_models.id)",
        )
        .bind(id.to_string())
        .bind(actor.tenant_text())
        .execute(tx.on())
        .await
        .doing("delete a unit model")?
        .rows_affected();
        if gone == 0 {
            return Err(DbError::conflict(
                format!(
                    "unit model `{};{}` is the model of {} Units",
                    known.name, known.version, known.unit_count
                ),
                "give them another model first",
            ));
        }
        tx.announce(
            actor.tenant(),
            ChangeTopic::UnitModel,
            ChangeAction::Deleted,
            id,
        );
        tx.audit(
            actor,
            "unit_model.delete",
            format!("unit-model:{id}"),
            format!("{};{}", known.name, known.version),
        )
        .await?;
        tx.commit().await
    }

    /// The unit configurations of a model, newest first.
    pub async fn unit_configs(
        &self,
        actor: &Actor,
        model: Uuid,
        query: &ListQuery,
    ) -> Result<Page<UnitConfigVersion>, DbError> {
        self.unit_model(actor, model).await?;
        let total =
            sqlx::query("SELECT COUNT(*) AS total FROM unit_configs WHERE unit_model_id = $1")
                .bind(model.to_string())
                .fetch_one(self.readers())
                .await
                .doing("count unit configurations")?
                .count("total")?;
        let rows = sqlx::query(
            "SELECT id, version, document, created_at FROM unit_configs WHERE unit_model_id = $1
             ORDER BY number DESC LIMIT $2 OFFSET $3",
        )
        .bind(model.to_string())
        .bind(i64::from(query.limit()))
        .bind(i64::from(query.offset()))
        .fetch_all(self.readers())
        .await
        .doing("read unit configurations")?;
        page(&rows, total, query, config_version)
    }

    /// Stores a newer unit configuration of a model, and with `order` orders it for all its Units. Its version must be
    /// higher than all before.
    pub async fn add_unit_config(
        &self,
        actor: &Actor,
        model: Uuid,
        config: &UnitConfig,
        order: bool,
    ) -> Result<UnitConfigVersion, DbError> {
        self.unit_model(actor, model).await?;
        let mut tx = self.begin().await?;
        let id = tx.add_unit_config(actor, model, config, order).await?;
        tx.commit().await?;
        let row =
            sqlx::query("SELECT id, version, document, created_at FROM unit_configs WHERE id = $1")
                .bind(id.to_string())
                .fetch_one(self.readers())
                .await
                .doing("read a unit configuration")?;
        config_version(&row)
    }
}

fn config_version(row: &AnyRow) -> Result<UnitConfigVersion, DbError> {
    Ok(UnitConfigVersion {
        id: row.uuid("id")?,
        version: row.text("version")?,
        unit_config: row.json("document")?,
        created_at: row.time("created_at")?,
    })
}

impl Tx {
    /// The model of that name and version, made if it is new.
    pub(crate) async fn model_named(
        &mut self,
        actor: &Actor,
        name: &str,
        version: &str,
    ) -> Result<(Uuid, bool), DbError> {
        let known = sqlx::query(
            "SELECT id FROM unit_models WHERE tenant_id = $1 AND name = $2 AND version = $3",
        )
        .bind(actor.tenant_text())
        .bind(name.to_owned())
        .bind(version.to_owned())
        .fetch_optional(self.on())
        .await
        .doing("look up a unit model")?;
        if let Some(row) = known {
            return Ok((row.uuid("id")?, false));
        }
        let id = Uuid::now_v7();
        let now = self.now.as_micros();
        sqlx::query(
            "INSERT INTO unit_models (id, tenant_id, name, version, created_at) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(id.to_string())
        .bind(actor.tenant_text())
        .bind(name.to_owned())
        .bind(version.to_owned())
        .bind(now)
        .execute(self.on())
        .await
        .doing("make a unit model")?;
        self.announce(
            actor.tenant(),
            ChangeTopic::UnitModel,
            ChangeAction::Created,
            id,
        );
        self.audit(
            actor,
            "unit_model.create",
            format!("unit-model:{id}"),
            format!("{name};{version}"),
        )
        .await?;
        Ok((id, true))
    }

    /// The model a request names, as an id or as `name;version`, which is made if it is new.
    pub(crate) async fn model_asked(&mut self, actor: &Actor, text: &str) -> Result<Uuid, DbError> {
        if let Some((name, version)) = split_model(text) {
            return Ok(self.model_named(actor, name, version).await?.0);
        }
        let Ok(id) = Uuid::parse_str(text) else {
            return Err(DbError::invalid(
                "unit_model",
                "expected `name;version` or the id of a unit model",
            ));
        };
        sqlx::query("SELECT id FROM unit_models WHERE tenant_id = $1 AND id = $2")
            .bind(actor.tenant_text())
            .bind(id.to_string())
            .fetch_optional(self.on())
            .await
            .doing("look up a unit model")?
            .ok_or_else(|| DbError::not_found("unit model", id))?
            .uuid("id")
    }

    async fn add_unit_config(
        &mut self,
        actor: &Actor,
        model: Uuid,
        config: &UnitConfig,
        order: bool,
    ) -> Result<Uuid, DbError> {
        let version = Version::parse(&config.version).map_err(|why| {
            DbError::invalid(
                "unit_config.version",
                format!("`{}` is not a semantic version: {why}", config.version),
            )
        })?;
        let newest = sqlx::query(
            "SELECT number, version FROM unit_configs WHERE unit_model_id = $1 ORDER BY number DESC LIMIT 1",
        )
        .bind(model.to_string())
        .fetch_optional(self.on())
        .await
        .doing("read the newest unit configuration")?;
        let mut number = 1;
        if let Some(row) = newest {
            number = row.int("number")?.saturating_add(1);
            let before = row.text("version")?;
            let grows = Version::parse(&before).map_or(true, |before| version > before);
            if !grows {
                return Err(DbError::conflict(
                    format!(
                        "unit configuration {version} is not newer than {before}, which the model has already"
                    ),
                    "raise `version`: Units take only a greater one than they have",
                ));
            }
        }
        let id = Uuid::now_v7();
        let now = self.now.as_micros();
        sqlx::query(
            "INSERT INTO unit_configs (id, unit_model_id, number, version, document, created_at) VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(id.to_string())
        .bind(model.to_string())
        .bind(number)
        .bind(version.to_string())
        .bind(to_json("unit configuration", config)?)
        .bind(now)
        .execute(self.on())
        .await
        .doing("store a unit configuration")?;
        self.announce(
            actor.tenant(),
            ChangeTopic::UnitModel,
            ChangeAction::Updated,
            model,
        );
        self.audit(
            actor,
            "unit_config.create",
            format!("unit-model:{model}"),
            format!("version {version}"),
        )
        .await?;
        if order {
            self.order_for_model(actor, model, &version.to_string())
                .await?;
        }
        Ok(id)
    }
}
