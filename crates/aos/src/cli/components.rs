//! `aos cloud|core|iam|cm|sm`: running a component until it is told to stop.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::components::{self, Component};
use crate::failure::Failure;

/// AosCloud.
#[derive(Subcommand)]
pub enum Cloud {
    /// Serve people (web UI, REST, events) and Units until SIGTERM or Ctrl-C.
    ///
    /// The first start makes the certificate authority and a one-time link for the owner in
    /// DATA/owner-link.txt.
    Serve(Serve),
    /// Print the OpenAPI document of the REST API.
    #[command(hide = true)]
    Openapi,
}

/// How to serve.
#[derive(Args)]
pub struct Serve {
    /// Folder for database, blobs and certificate authority; it is made if absent.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Address for people.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:10000")]
    people: SocketAddr,
    /// Address for Units.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9000")]
    units: SocketAddr,
    /// Name or IP address under which people and Units reach this cloud; may be given more than
    /// once. The first one stands in links.
    #[arg(long = "host", value_name = "NAME")]
    hosts: Vec<String>,
    /// Name of the organisation that the first user makes.
    #[arg(long, value_name = "NAME", default_value = "My organisation", value_parser = organisation)]
    organisation: String,
    /// Days for which the usage of Units is kept.
    #[arg(long, value_name = "DAYS", default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=3660))]
    keep_usage: u16,
    /// Days for which alerts that are over are kept.
    #[arg(long, value_name = "DAYS", default_value_t = 90, value_parser = clap::value_parser!(u16).range(1..=3660))]
    keep_alerts: u16,
}

fn days(count: u16) -> std::time::Duration {
    std::time::Duration::from_secs(u64::from(count) * 24 * 3600)
}

fn organisation(text: &str) -> Result<String, String> {
    let name = text.trim();
    if (1..=128).contains(&name.chars().count()) && !name.chars().any(char::is_control) {
        Ok(name.to_owned())
    } else {
        Err("expected 1 to 128 characters without control characters".into())
    }
}

/// A Node.
#[derive(Subcommand)]
pub enum Core {
    /// Run all components that the configuration file has a table for.
    Run(Run),
}

/// IAM.
#[derive(Subcommand)]
pub enum Iam {
    /// Run IAM by the table `[iam]` of the configuration file.
    Run(Run),
}

/// CM.
#[derive(Subcommand)]
pub enum Cm {
    /// Run CM by the table `[cm]` of the configuration file.
    Run(Run),
}

/// SM.
#[derive(Subcommand)]
pub enum Sm {
    /// Run SM by the table `[sm]` of the configuration file.
    Run(Run),
}

/// How to run.
#[derive(Args)]
pub struct Run {
    /// Configuration file (TOML); docs/operations.md lists its keys.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// `aos cloud …`.
pub fn cloud(command: Cloud) -> Result<(), Failure> {
    match command {
        Cloud::Serve(serve) => components::serve_cloud(aos_server::Options {
            data: serve.data,
            people: serve.people,
            units: serve.units,
            hosts: serve.hosts,
            organisation: serve.organisation,
            retention: aos_server::Retention {
                usage: days(serve.keep_usage),
                alerts: days(serve.keep_alerts),
            },
        }),
        Cloud::Openapi => components::openapi(),
    }
}

/// `aos core run`.
pub fn core(command: Core) -> Result<(), Failure> {
    let Core::Run(run) = command;
    components::run_node(&run.config, None)
}

/// `aos iam run`.
pub fn iam(command: Iam) -> Result<(), Failure> {
    let Iam::Run(run) = command;
    components::run_node(&run.config, Some(Component::Iam))
}

/// `aos cm run`.
pub fn cm(command: Cm) -> Result<(), Failure> {
    let Cm::Run(run) = command;
    components::run_node(&run.config, Some(Component::Cm))
}

/// `aos sm run`.
pub fn sm(command: Sm) -> Result<(), Failure> {
    let Sm::Run(run) = command;
    components::run_node(&run.config, Some(Component::Sm))
}
