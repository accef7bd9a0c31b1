//! `aos service`: what can be assigned.

use aos_api::{Service as Row, ServiceVersion, paths};
use clap::Subcommand;

use super::pick;
use crate::failure::Failure;
use crate::table;

/// Services.
#[derive(Subcommand)]
pub enum Service {
    /// List the services, or the versions of one.
    Ls {
        /// Codename or id of a service whose versions to list.
        service: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// `aos service …`.
pub async fn run(command: Service) -> Result<(), Failure> {
    let client = super::cloud()?;
    let Service::Ls { service, json } = command;
    let Some(name) = service else {
        let services: Vec<Row> = client.all(paths::SERVICES).await?;
        if json {
            return table::json(&services);
        }
        let mut out = table::table(&["service", "title", "newest", "versions", "units"]);
        for service in services {
            out.add_row([
                service.codename,
                table::or_dash(service.title),
                table::or_dash(service.latest_version.unwrap_or_default()),
                service.version_count.to_string(),
                service.unit_count.to_string(),
            ]);
        }
        table::show(&out, "no services yet: publish one with `aos bundle push`");
        return Ok(());
    };
    let service = pick::service(&client, &name).await?;
    let path = paths::fill(paths::SERVICE_VERSIONS, &[&service.id.to_string()]);
    let versions: Vec<ServiceVersion> = client.all(&path).await?;
    if json {
        return table::json(&versions);
    }
    let mut out = table::table(&[
        "version",
        "state",
        "platforms",
        "size",
        "instances",
        "units",
        "made",
    ]);
    for version in versions {
        out.add_row([
            version.version.into(),
            table::state(version.state),
            version.platforms.join(", ").into(),
            indicatif::HumanBytes(version.size).to_string().into(),
            version.min_num_instances.to_string().into(),
            version.unit_count.to_string().into(),
            version.created_at.to_string().into(),
        ] as [comfy_table::Cell; 7]);
    }
    table::show(&out, "no versions yet");
    Ok(())
}
