//! `aos unit`: enrol Units and look at them.

mod consent;
mod env;
mod join;
mod orders;
mod renew;
mod show;
mod states;
mod why;

use aos_api::{
    DesiredState, IssuedClaimCode, NewClaimCode, Node, Unit as Row, UnitSubject, WantedNodeState,
    paths,
};
use clap::{Args, Subcommand};
use comfy_table::Cell;

use super::pick;
use crate::client::Client;
use crate::failure::Failure;
use crate::table;

/// Units.
#[derive(Subcommand)]
pub enum Unit {
    /// List the Units.
    Ls {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show one Unit: link, what is wrong, items and what happened lately.
    Show(Named),
    /// List the Nodes of a Unit.
    Nodes(Named),
    /// List the Subjects a Unit is in, and those it reports by itself.
    Subjects(Named),
    /// Order a Node to pause: its instances are stopped and placed elsewhere.
    Pause(orders::OneNode),
    /// Order a paused Node to take part again.
    Resume(orders::OneNode),
    /// Show or order the unit configuration of a Unit.
    Config(orders::Config),
    /// Show or set when a Unit may be updated.
    Schedule(orders::Schedule),
    /// Say whether the blobs of a Unit are delivered encrypted.
    Encrypt(orders::Encrypt),
    /// Environment variables set over those of the items.
    #[command(subcommand)]
    Env(env::Env),
    /// List the states of a Unit's instances as the cloud keeps them, or print one.
    States(states::States),
    /// Show the desired state last composed for a Unit, and how far it came.
    Desired(Named),
    /// List the certificates of a Unit, and how their renewals stand.
    Certificates(Named),
    /// Have certificates of a Unit renewed; all, unless a type or a Node is named.
    Renew(renew::Renew),
    /// Make a claim code: with it one Unit can join the cloud, once.
    Claim(Claim),
    /// Enrol this Unit in a cloud with a claim code. Run it on the main Node.
    Join(join::Join),
    /// Say why services run, or do not run, on this Unit. Run it on the main Node; it needs no cloud.
    Why(why::Why),
    /// The user's consent to an update that waits on this Unit. Run it on the main Node.
    #[command(subcommand)]
    Consent(consent::Consent),
    /// Say whether this Unit may be changed now. Run it on the main Node.
    Ready(consent::Ready),
}

/// Which Unit.
#[derive(Args)]
pub struct Named {
    /// System id, id or title of the Unit.
    unit: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Make a claim code.
#[derive(Args)]
pub struct Claim {
    /// Title that the Unit gets.
    #[arg(long, default_value = "")]
    title: String,
    /// Unit model that the Unit gets: `name;version` or id. If absent, what the Unit says it is.
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// Only the Unit of this system id may use the code.
    #[arg(long, value_name = "SYSTEM ID")]
    system_id: Option<String>,
    /// Minutes until the code expires; a day if absent.
    #[arg(long, value_name = "MINUTES")]
    expires: Option<u32>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// `aos unit …`.
pub async fn run(command: Unit) -> Result<(), Failure> {
    // What is done on the Unit itself, where nobody is signed in.
    let command = match command {
        Unit::Join(command) => return join::run(command).await,
        Unit::Why(command) => return why::run(command).await,
        Unit::Consent(command) => return consent::run(command).await,
        Unit::Ready(command) => return consent::ready(command).await,
        other => other,
    };
    let client = super::cloud()?;
    match command {
        Unit::Ls { json } => list(&client, json).await,
        Unit::Show(named) => show::show(&client, &named).await,
        Unit::Subjects(named) => subjects(&client, &named).await,
        Unit::Pause(which) => orders::node(&client, &which, WantedNodeState::Paused).await,
        Unit::Resume(which) => orders::node(&client, &which, WantedNodeState::Provisioned).await,
        Unit::Config(command) => orders::config(&client, &command).await,
        Unit::Schedule(command) => orders::schedule(&client, &command).await,
        Unit::Encrypt(command) => orders::encrypt(&client, &command).await,
        Unit::Env(command) => env::run(&client, command).await,
        Unit::States(command) => states::run(&client, &command).await,
        Unit::Nodes(named) => nodes(&client, &named).await,
        Unit::Desired(named) => desired(&client, &named).await,
        Unit::Certificates(named) => renew::list(&client, &named).await,
        Unit::Renew(command) => renew::run(&client, &command).await,
        Unit::Claim(claim) => self::claim(&client, claim).await,
        Unit::Join(_) | Unit::Why(_) | Unit::Consent(_) | Unit::Ready(_) => Ok(()),
    }
}

async fn list(client: &Client, json: bool) -> Result<(), Failure> {
    let units: Vec<Row> = client.all(paths::UNITS).await?;
    if json {
        return table::json(&units);
    }
    let mut out = table::table(&[
        "unit",
        "title",
        "model",
        "link",
        "update",
        "nodes",
        "instances",
    ]);
    for unit in units {
        let model = unit
            .unit_model
            .map(|model| format!("{};{}", model.name, model.version));
        out.add_row([
            Cell::new(unit.system_uid),
            Cell::new(table::or_dash(unit.title)),
            Cell::new(table::or_dash(model.unwrap_or_default())),
            table::state(table::word(&unit.online_status)),
            table::state(table::word(&unit.update_phase)),
            Cell::new(format!(
                "{}/{}",
                unit.counts.nodes_connected, unit.counts.nodes
            )),
            Cell::new(format!(
                "{}/{}",
                unit.counts.instances_active, unit.counts.instances_desired
            )),
        ]);
    }
    table::show(
        &out,
        "no Units yet: `aos unit claim` makes a code that a Unit joins with",
    );
    Ok(())
}

async fn subjects(client: &Client, named: &Named) -> Result<(), Failure> {
    let unit = pick::unit(client, &named.unit).await?;
    let path = paths::fill(paths::UNIT_SUBJECTS, &[&unit.id.to_string()]);
    let subjects: Vec<UnitSubject> = client.all(&path).await?;
    if named.json {
        return table::json(&subjects);
    }
    let mut out = table::table(&["subject", "put into it", "reported", "services"]);
    for subject in subjects {
        let known = if subject.id.is_some() {
            subject.service_count.to_string()
        } else {
            "not known here".to_owned()
        };
        out.add_row([
            subject.label,
            if subject.member { "yes" } else { "no" }.to_owned(),
            match (subject.reported_as, subject.reported) {
                (None, _) => "-".to_owned(),
                (Some(name), true) => format!("now, as {name}"),
                (Some(name), false) => format!("not now, as {name}"),
            },
            known,
        ]);
    }
    table::show(&out, "the Unit is in no Subject and reports none");
    Ok(())
}

async fn nodes(client: &Client, named: &Named) -> Result<(), Failure> {
    let unit = pick::unit(client, &named.unit).await?;
    let path = paths::fill(paths::UNIT_NODES, &[&unit.id.to_string()]);
    let nodes: Vec<Node> = client.all(&path).await?;
    if named.json {
        return table::json(&nodes);
    }
    let mut out = table::table(&[
        "node", "type", "main", "link", "state", "wanted", "labels", "runtimes", "memory", "dmips",
    ]);
    for node in nodes {
        let runtimes: Vec<_> = node
            .runtimes
            .iter()
            .map(|one| one.runtime_type.as_str())
            .collect();
        out.add_row([
            Cell::new(node.node_id),
            Cell::new(node.node_type),
            Cell::new(if node.is_main { "yes" } else { "no" }),
            table::state(if node.is_connected {
                "online"
            } else {
                "offline"
            }),
            table::state(node.state),
            Cell::new(
                node.wanted_state
                    .map_or_else(|| "-".to_owned(), |wanted| table::word(&wanted)),
            ),
            Cell::new(table::or_dash(node.labels.join(", "))),
            Cell::new(table::or_dash(runtimes.join(", "))),
            Cell::new(indicatif::HumanBytes(node.total_ram)),
            Cell::new(node.max_dmips),
        ]);
    }
    table::show(&out, "the Unit reported no Nodes yet");
    Ok(())
}

async fn desired(client: &Client, named: &Named) -> Result<(), Failure> {
    let unit = pick::unit(client, &named.unit).await?;
    let path = paths::fill(paths::UNIT_DESIRED_STATE, &[&unit.id.to_string()]);
    let state: DesiredState = client.get(&path).await?;
    if named.json {
        return table::json(&state);
    }
    let when = |at: Option<aos_time::Timestamp>| at.map(|at| at.to_string()).unwrap_or_default();
    table::say(format!("number        {}", state.number));
    table::say(format!("composed      {}", state.composed_at));
    table::say(format!(
        "sent          {}",
        table::or_dash(when(state.sent_at))
    ));
    table::say(format!(
        "acknowledged  {}",
        table::or_dash(when(state.acknowledged_at))
    ));
    table::say(format!(
        "reached       {}",
        table::or_dash(when(state.applied_at))
    ));
    table::say("");
    table::json(&state.desired_status)
}

async fn claim(client: &Client, claim: Claim) -> Result<(), Failure> {
    let body = NewClaimCode {
        title: claim.title,
        unit_model: claim.model,
        system_uid: claim.system_id,
        expires_in_minutes: claim.expires,
    };
    let issued: IssuedClaimCode = client.post(paths::CLAIM_CODES, &body).await?;
    if claim.json {
        return table::json(&issued);
    }
    table::say(format!("claim code  {}", issued.code));
    table::say(format!(
        "good until  {}, for one Unit",
        issued.claim_code.expires_at
    ));
    table::say("on the Unit's main Node, as root:");
    table::say(format!("  {}", issued.join_command));
    Ok(())
}
