//! `aos model`: unit models and the unit configurations their Units get.

use std::path::PathBuf;

use aos_api::{NewUnitConfig, NewUnitModel, UnitConfigVersion, UnitModel, paths};
use clap::Subcommand;

use super::pick;
use crate::client::Client;
use crate::failure::{Failure, OrFail as _};
use crate::table;

/// Unit models.
#[derive(Subcommand)]
pub enum Model {
    /// List the unit models.
    Ls {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Make a unit model.
    Add {
        /// Name and version, as the Units say it: `name;version`
        model: String,
        /// Its first unit configuration (JSON).
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show a model's newest unit configuration, or store a new one.
    Config {
        /// `name;version` or id of the model.
        model: String,
        /// The new unit configuration (JSON); its version must be higher than the last one's.
        file: Option<PathBuf>,
    },
}

/// `aos model …`.
pub async fn run(command: Model) -> Result<(), Failure> {
    let client = super::cloud()?;
    match command {
        Model::Ls { json } => {
            let models: Vec<UnitModel> = client.all(paths::UNIT_MODELS).await?;
            show(&models, json)
        }
        Model::Add {
            model,
            config,
            json,
        } => {
            let (name, version) = model.split_once(';').ok_or_else(|| {
                Failure::new(format!("`{model}` is not a unit model"))
                    .hint("write name and version with a semicolon: 'name;1.0.0' (in quotes)")
            })?;
            let body = NewUnitModel {
                name: name.to_owned(),
                version: version.to_owned(),
                unit_config: config.map(document).transpose()?,
            };
            let made: UnitModel = client.post(paths::UNIT_MODELS, &body).await?;
            if json {
                return table::json(&made);
            }
            table::say(format!(
                "made the unit model {};{}",
                made.name, made.version
            ));
            Ok(())
        }
        Model::Config { model, file } => config(&client, &model, file).await,
    }
}

fn show(models: &[UnitModel], json: bool) -> Result<(), Failure> {
    if json {
        return table::json(&models);
    }
    let mut out = table::table(&["model", "unit configuration", "units", "made"]);
    for model in models {
        out.add_row([
            format!("{};{}", model.name, model.version),
            table::or_dash(model.unit_config_version.as_deref().unwrap_or_default()),
            model.unit_count.to_string(),
            model.created_at.to_string(),
        ]);
    }
    table::show(&out, "no unit models yet: `aos model add 'name;1.0.0'`");
    Ok(())
}

async fn config(client: &Client, model: &str, file: Option<PathBuf>) -> Result<(), Failure> {
    let model = pick::model(client, model).await?;
    let path = paths::fill(paths::UNIT_CONFIGS, &[&model.id.to_string()]);
    if let Some(file) = file {
        let body = NewUnitConfig {
            unit_config: document(file)?,
        };
        let stored: UnitConfigVersion = client.post(&path, &body).await?;
        table::say(format!(
            "stored unit configuration {} for {};{}",
            stored.version, model.name, model.version
        ));
        return Ok(());
    }
    let versions: Vec<UnitConfigVersion> = client.all(&path).await?;
    match versions.first() {
        Some(newest) => table::json(&newest.unit_config),
        None => Err(Failure::new(format!(
            "{};{} has no unit configuration yet",
            model.name, model.version
        ))
        .hint("store one: `aos model config <model> <file>`")),
    }
}

fn document(file: PathBuf) -> Result<serde_json::Value, Failure> {
    let text = std::fs::read_to_string(&file)
        .or_fail(|| format!("cannot read the unit configuration {}", file.display()))?;
    serde_json::from_str(&text)
        .or_fail(|| format!("the unit configuration {} is not JSON", file.display()))
}
