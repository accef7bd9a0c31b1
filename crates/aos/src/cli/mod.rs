//! The command line: what there is to say, and which module does it.

mod account;
mod alerts;
mod assignment;
mod bundle;
mod components;
mod demo;
mod explain;
mod logs;
mod model;
mod pick;
mod schedule;
mod service;
mod status;
mod steady;
mod top;
mod unit;
mod update;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::client::Client;
use crate::failure::Failure;
use crate::home::Home;

/// AosEdge in one program: AosCloud, AosCore and the tools for both.
#[derive(Parser)]
#[command(
    name = "aos",
    version,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "Credentials are kept in $AOS_HOME (default ~/.config/aos).\n\
                  Logs of components go to stderr: AOS_LOG=debug says more, AOS_LOG_FORMAT=json for programs."
)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// What to do.
#[derive(Subcommand)]
enum Command {
    /// Run AosCloud.
    #[command(subcommand)]
    Cloud(components::Cloud),
    /// Run a Node's components (IAM, SM and on the main Node CM) in one process.
    #[command(subcommand)]
    Core(components::Core),
    /// Run IAM: identity, keys and certificates of a Node.
    #[command(subcommand)]
    Iam(components::Iam),
    /// Run CM: the main Node's link to the cloud, updates, images and scheduling.
    #[command(subcommand)]
    Cm(components::Cm),
    /// Run SM: the instances of a Node.
    #[command(subcommand)]
    Sm(components::Sm),

    /// Sign in to a cloud; later commands use the certificate this gets.
    Login(account::Login),
    /// Forget the credentials of this user.
    Logout,
    /// Say who is signed in, where, and with which rights.
    Whoami(account::Whoami),

    /// Make, check, sign and publish deployment bundles.
    #[command(subcommand)]
    Bundle(bundle::Bundle),
    /// Enrol Units and look at them.
    #[command(subcommand)]
    Unit(unit::Unit),
    /// Updates that wait on this Unit: show, start, follow. Run it on the main Node.
    #[command(subcommand)]
    Update(update::Update),
    /// Unit models and their configurations.
    #[command(subcommand)]
    Model(model::Model),
    /// Services that can be assigned.
    #[command(subcommand)]
    Service(service::Service),
    /// Assign services to Units, or change how they are assigned.
    Assign(assignment::Assign),
    /// Take services away from Units.
    Unassign(assignment::Unassign),
    /// Show what runs on Units and how far their updates are.
    Status(status::Status),
    /// Say why a service is or is not on a Unit.
    Explain(explain::Explain),
    /// Alerts of Units: list, filter, follow.
    Alerts(alerts::Alerts),
    /// What the Nodes and instances of a Unit use, live.
    Top(top::Top),
    /// Show logs of a Unit: of its services, of a crash, or of a Node's system.
    Logs(logs::Logs),

    /// Run the whole loop on this machine: a cloud, a Unit of two Nodes, two services. Needs root.
    Demo(demo::Demo),
    /// Write a completion script for a shell.
    Completion {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Keep the containers of a Node alive; started by SM.
    #[command(hide = true)]
    Keeper,
}

/// Runs what the command line says.
pub fn run(arguments: Arguments) -> Result<(), Failure> {
    match arguments.command {
        Command::Cloud(command) => components::cloud(command),
        Command::Core(command) => components::core(command),
        Command::Iam(command) => components::iam(command),
        Command::Cm(command) => components::cm(command),
        Command::Sm(command) => components::sm(command),
        Command::Login(command) => wait(account::login(command)),
        Command::Logout => account::logout(),
        Command::Whoami(command) => wait(account::whoami(command)),
        Command::Bundle(command) => wait(bundle::run(command)),
        Command::Unit(command) => wait(unit::run(command)),
        Command::Update(command) => wait(update::run(command)),
        Command::Model(command) => wait(model::run(command)),
        Command::Service(command) => wait(service::run(command)),
        Command::Assign(command) => wait(assignment::assign(command)),
        Command::Unassign(command) => wait(assignment::unassign(command)),
        Command::Status(command) => wait(status::run(command)),
        Command::Explain(command) => wait(explain::run(command)),
        Command::Alerts(command) => wait(alerts::run(command)),
        Command::Top(command) => wait(top::run(command)),
        Command::Logs(command) => wait(logs::run(command)),
        Command::Demo(command) => demo::run(command),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "aos", &mut script);
            crate::table::say(String::from_utf8_lossy(&script).trim_end());
            Ok(())
        }
        // main() takes this way before a thread exists.
        Command::Keeper => Err(Failure::new("`aos keeper` must be the first argument")),
    }
}

/// Runs a command that talks to a cloud or to a Unit.
fn wait(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    use crate::failure::OrFail as _;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .or_fail(|| "cannot start")?
        .block_on(command)
}

/// The cloud this user is signed in to.
fn cloud() -> Result<Client, Failure> {
    Client::signed_in(&Home::find()?)
}
