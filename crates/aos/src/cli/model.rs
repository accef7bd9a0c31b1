//! `aos model`: unit models and the unit configurations their Units get.

use std::path::PathBuf;

use aos_api::{
    ModelUnit, NewUnitConfig, NewUnitModel, OrderUnitConfig, UnitConfigVersion, UnitModel,
    UnitModelPatch, UpdateSchedules, paths,
};
use clap::Subcommand;
use comfy_table::Cell;
use reqwest::Method;

use super::{pick, schedule};
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
        /// Only store it: `aos model order` or `aos unit config` orders it later.
        #[arg(long, requires = "file")]
        store_only: bool,
    },
    /// Order a stored unit configuration for all Units of a model.
    Order {
        /// `name;version` or id of the model.
        model: String,
        /// Version of the unit configuration.
        version: String,
    },
    /// List the Units of a model with their unit configurations, wanted and actual.
    Units {
        /// `name;version` or id of the model.
        model: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Say whether blobs of Units of a model are delivered encrypted, unless a Unit says otherwise.
    Encrypt {
        /// `name;version` or id of the model.
        model: String,
        /// `on` or `off`.
        #[arg(value_parser = ["on", "off"])]
        how: String,
    },
    /// Show or set when Units of a model may be updated.
    Schedule {
        /// `name;version` or id of the model.
        model: String,
        #[command(flatten)]
        setting: schedule::Setting,
        /// Print JSON.
        #[arg(long)]
        json: bool,
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
        Model::Config {
            model,
            file,
            store_only,
        } => config(&client, &model, file, store_only).await,
        Model::Order { model, version } => order(&client, &model, version).await,
        Model::Encrypt { model, how } => {
            let model = pick::model(&client, &model).await?;
            let path = paths::fill(paths::UNIT_MODEL, &[&model.id.to_string()]);
            let body = UnitModelPatch {
                encrypts_blobs: how == "on",
            };
            let _: UnitModel = client.write(Method::PATCH, &path, &body).await?;
            table::say(format!(
                "encryption of blobs for Units of {};{}: {how}",
                model.name, model.version
            ));
            Ok(())
        }
        Model::Units { model, json } => units(&client, &model, json).await,
        Model::Schedule {
            model,
            setting,
            json,
        } => when(&client, &model, &setting, json).await,
    }
}

fn show(models: &[UnitModel], json: bool) -> Result<(), Failure> {
    if json {
        return table::json(&models);
    }
    let mut out = table::table(&["model", "newest configuration", "ordered", "units", "made"]);
    for model in models {
        out.add_row([
            format!("{};{}", model.name, model.version),
            table::or_dash(model.unit_config_version.as_deref().unwrap_or_default()),
            table::or_dash(model.ordered_unit_config.as_deref().unwrap_or_default()),
            model.unit_count.to_string(),
            model.created_at.to_string(),
        ]);
    }
    table::show(&out, "no unit models yet: `aos model add 'name;1.0.0'`");
    Ok(())
}

async fn order(client: &Client, model: &str, version: String) -> Result<(), Failure> {
    let model = pick::model(client, model).await?;
    let path = paths::fill(paths::MODEL_UNIT_CONFIG, &[&model.id.to_string()]);
    let body = OrderUnitConfig { version };
    let model: UnitModel = client.write(Method::PUT, &path, &body).await?;
    table::say(format!(
        "ordered unit configuration {} for {} Units of {};{}",
        body.version, model.unit_count, model.name, model.version
    ));
    Ok(())
}

async fn units(client: &Client, model: &str, json: bool) -> Result<(), Failure> {
    let model = pick::model(client, model).await?;
    let path = paths::fill(paths::MODEL_UNITS, &[&model.id.to_string()]);
    let units: Vec<ModelUnit> = client.all(&path).await?;
    if json {
        return table::json(&units);
    }
    let mut out = table::table(&["unit", "title", "wanted", "installed", "state", "error"]);
    for unit in units {
        let config = unit.unit_config;
        let error = config.failed.and_then(|failed| failed.error);
        out.add_row([
            Cell::new(unit.system_uid),
            Cell::new(table::or_dash(unit.title)),
            Cell::new(table::or_dash(config.wanted.unwrap_or_default())),
            Cell::new(table::or_dash(config.installed.unwrap_or_default())),
            table::state(table::word(&config.progress)),
            Cell::new(error.map(|error| error.message).unwrap_or_default()),
        ]);
    }
    table::show(&out, "no Unit is of this model");
    Ok(())
}

async fn when(
    client: &Client,
    model: &str,
    setting: &schedule::Setting,
    json: bool,
) -> Result<(), Failure> {
    let model = pick::model(client, model).await?;
    let path = paths::fill(paths::MODEL_SCHEDULE, &[&model.id.to_string()]);
    let mut known: UpdateSchedules = client.get(&path).await?;
    if let Some(new) = setting.over(&known)? {
        known = client.write(Method::PUT, &path, &new).await?;
    }
    if json {
        return table::json(&known);
    }
    for (name, schedule) in [("software", &known.sota), ("firmware", &known.fota)] {
        let said = schedule::said(schedule.as_ref(), "nothing said: at once");
        table::say(format!("{name}  {said}"));
    }
    Ok(())
}

async fn config(
    client: &Client,
    model: &str,
    file: Option<PathBuf>,
    store_only: bool,
) -> Result<(), Failure> {
    let model = pick::model(client, model).await?;
    let path = paths::fill(paths::UNIT_CONFIGS, &[&model.id.to_string()]);
    if let Some(file) = file {
        let body = NewUnitConfig {
            unit_config: document(file)?,
            order: store_only.then_some(false),
        };
        let stored: UnitConfigVersion = client.post(&path, &body).await?;
        let ordered = if store_only {
            ""
        } else {
            ", and ordered it for all its Units"
        };
        table::say(format!(
            "stored unit configuration {} for {};{}{ordered}",
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
