//! What is ordered of a Unit beside services: states of Nodes, unit configuration, update schedules.

use aos_api::{
    BlobEncryption, Node, NodePatch, OrderUnitConfig, OrderedFor, Unit, UnitConfigOrder,
    UnitConfigProgress, UnitPatch, UnitUpdateSchedules, WantedNodeState, paths,
};
use clap::Args;
use reqwest::Method;

use crate::cli::{pick, schedule};
use crate::client::Client;
use crate::failure::Failure;
use crate::table;

/// Which Node of which Unit.
#[derive(Args)]
pub struct OneNode {
    /// System id, id or title of the Unit.
    unit: String,
    /// Id of the Node: see `aos unit nodes`.
    node: String,
}

/// The unit configuration of a Unit.
#[derive(Args)]
pub struct Config {
    /// System id, id or title of the Unit.
    unit: String,
    /// Order this version for the Unit; shows what is wanted and what is there if absent.
    version: Option<String>,
    /// Let the version that is ordered for its unit model count again.
    #[arg(long, conflicts_with = "version")]
    as_model: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// When a Unit may be updated.
#[derive(Args)]
pub struct Schedule {
    /// System id, id or title of the Unit.
    unit: String,
    #[command(flatten)]
    setting: schedule::Setting,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Whether blobs are delivered encrypted.
#[derive(Args)]
pub struct Encrypt {
    /// System id, id or title of the Unit.
    unit: String,
    /// `on`: each blob by a key of its own that only the Unit's offline key opens; `off`: plain, within TLS; `model`: as its
    /// unit model says.
    #[arg(value_parser = encryption)]
    how: BlobEncryption,
}

fn encryption(text: &str) -> Result<BlobEncryption, String> {
    match text {
        "on" => Ok(BlobEncryption::On),
        "off" => Ok(BlobEncryption::Off),
        "model" => Ok(BlobEncryption::Model),
        _ => Err("expected on, off or model".into()),
    }
}

/// `aos unit encrypt`.
pub async fn encrypt(client: &Client, command: &Encrypt) -> Result<(), Failure> {
    let unit = pick::unit(client, &command.unit).await?;
    let path = paths::fill(paths::UNIT, &[&unit.id.to_string()]);
    let body = UnitPatch {
        blob_encryption: Some(command.how),
        ..UnitPatch::default()
    };
    let unit: Unit = client.write(Method::PATCH, &path, &body).await?;
    table::say(format!(
        "encryption of blobs for {}: {}",
        unit.system_uid,
        table::word(&unit.blob_encryption)
    ));
    Ok(())
}

/// `aos unit pause` and `aos unit resume`.
pub async fn node(
    client: &Client,
    which: &OneNode,
    wanted: WantedNodeState,
) -> Result<(), Failure> {
    let unit = pick::unit(client, &which.unit).await?;
    let path = paths::fill(paths::UNIT_NODE, &[&unit.id.to_string(), &which.node]);
    let body = NodePatch {
        wanted_state: wanted,
    };
    let node: Node = client.write(Method::PATCH, &path, &body).await?;
    table::say(format!(
        "ordered Node {} of {} to be {}; it is {} now",
        node.node_id,
        unit.system_uid,
        table::word(&wanted),
        node.state
    ));
    Ok(())
}

/// `aos unit config`.
pub async fn config(client: &Client, command: &Config) -> Result<(), Failure> {
    let unit = pick::unit(client, &command.unit).await?;
    let path = paths::fill(paths::UNIT_CONFIG, &[&unit.id.to_string()]);
    if command.as_model {
        client.delete(&path).await?;
    }
    let order: UnitConfigOrder = match &command.version {
        Some(version) => {
            let body = OrderUnitConfig {
                version: version.clone(),
            };
            client.write(Method::PUT, &path, &body).await?
        }
        None => client.get(&path).await?,
    };
    if command.json {
        return table::json(&order);
    }
    table::say(format!("wanted     {}", wanted(&order)));
    table::say(format!(
        "installed  {}",
        table::or_dash(order.installed.clone().unwrap_or_default())
    ));
    if let Some(failed) = &order.failed {
        let why = failed.error.as_ref().map_or("", |error| &error.message);
        table::say(format!("failed     {}: {why}", failed.version));
    }
    Ok(())
}

/// The version that is ordered, with how far it is.
pub fn wanted(order: &UnitConfigOrder) -> String {
    let Some(version) = &order.wanted else {
        return "-".to_owned();
    };
    let whom = match order.ordered_for {
        Some(OrderedFor::Unit) => ", ordered for this Unit",
        _ => "",
    };
    let progress = match order.progress {
        UnitConfigProgress::Waiting => "not there yet",
        UnitConfigProgress::Installed => "installed",
        UnitConfigProgress::Failed => "failed",
        UnitConfigProgress::None => "-",
    };
    format!("{version} ({progress}{whom})")
}

/// `aos unit schedule`.
pub async fn schedule(client: &Client, command: &Schedule) -> Result<(), Failure> {
    let unit = pick::unit(client, &command.unit).await?;
    let path = paths::fill(paths::UNIT_SCHEDULE, &[&unit.id.to_string()]);
    let mut known: UnitUpdateSchedules = client.get(&path).await?;
    if let Some(new) = command.setting.over(&known.own)? {
        known = client.write(Method::PUT, &path, &new).await?;
    }
    if command.json {
        return table::json(&known);
    }
    let mut out = table::table(&["part", "this unit", "its model", "in force"]);
    for (name, own, model, force) in [
        (
            "software",
            &known.own.sota,
            &known.of_model.sota,
            &known.in_force.sota,
        ),
        (
            "firmware",
            &known.own.fota,
            &known.of_model.fota,
            &known.in_force.fota,
        ),
    ] {
        out.add_row([
            name.to_owned(),
            schedule::said(own.as_ref(), "-"),
            schedule::said(model.as_ref(), "-"),
            schedule::said(force.as_ref(), "at once"),
        ]);
    }
    table::show(&out, "");
    Ok(())
}
