//! Certificates of a Unit and their renewal.

use aos_api::{Page, RenewQuery, UnitCertificate, paths};
use clap::Args;
use comfy_table::Cell;

use super::Named;
use crate::cli::pick;
use crate::client::Client;
use crate::failure::Failure;
use crate::table;

/// Have certificates renewed.
#[derive(Args)]
pub struct Renew {
    /// System id, id or title of the Unit.
    unit: String,
    /// Only certificates of this type: online, offline, iam, cm or sm.
    #[arg(long = "type", value_name = "TYPE")]
    cert_type: Option<String>,
    /// Only certificates of this Node.
    #[arg(long)]
    node: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Lists them.
pub async fn list(client: &Client, named: &Named) -> Result<(), Failure> {
    let unit = pick::unit(client, &named.unit).await?;
    let path = paths::fill(paths::UNIT_CERTIFICATES, &[&unit.id.to_string()]);
    let certificates: Vec<UnitCertificate> = client.all(&path).await?;
    show(&certificates, named.json)
}

/// Orders it.
pub async fn run(client: &Client, command: &Renew) -> Result<(), Failure> {
    let unit = pick::unit(client, &command.unit).await?;
    let path = paths::fill(paths::UNIT_RENEW_CERTIFICATES, &[&unit.id.to_string()]);
    let query = RenewQuery {
        cert_type: command.cert_type.clone(),
        node_id: command.node.clone(),
    };
    let certificates: Page<UnitCertificate> = client.post_query(&path, &query).await?;
    show(&certificates.items, command.json)?;
    if !command.json {
        table::say(format!(
            "ordered; `aos unit certificates {}` shows how it goes",
            command.unit
        ));
    }
    Ok(())
}

fn show(certificates: &[UnitCertificate], json: bool) -> Result<(), Failure> {
    if json {
        return table::json(&certificates);
    }
    let mut out = table::table(&["node", "type", "serial", "valid till", "status", "error"]);
    for one in certificates {
        out.add_row([
            Cell::new(table::or_dash(&one.node_id)),
            Cell::new(&one.cert_type),
            Cell::new(&one.serial),
            Cell::new(one.valid_till),
            table::state(&one.status),
            Cell::new(table::or_dash(one.error.clone().unwrap_or_default())),
        ]);
    }
    table::show(&out, "the Unit has no certificates: it never joined");
    Ok(())
}
