//! `aos status`: what runs on Units, once or as it changes; and waiting for it.

use std::time::Duration;

use aos_api::{ChangeTopic, OnlineStatus, Page, Unit, UnitSubjectService, UpdatePhase, paths};
use aos_time::{Clock as _, SystemClock};
use clap::Args;
use comfy_table::Cell;
use futures::StreamExt as _;
use serde::Serialize;
use tokio::time::Instant;

use super::pick;
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::progress::Spinner;
use crate::table;

/// Without a change heard, things are read again after this: an event may have been missed.
const READ_AGAIN: Duration = Duration::from_secs(10);
/// Changes come in bursts: they are read together.
const GATHER: Duration = Duration::from_millis(100);

/// Show what runs on Units.
#[derive(Args)]
pub struct Status {
    /// System id, id or title of a Unit; all Units if absent.
    unit: Option<String>,
    /// Go on showing what changes, until Ctrl-C.
    #[arg(long, short)]
    watch: bool,
    /// Print JSON; with --watch one line a change.
    #[arg(long)]
    json: bool,
}

/// A Unit and what runs on it.
#[derive(Serialize, PartialEq, Clone)]
struct Row {
    unit: Unit,
    services: Vec<UnitSubjectService>,
}

/// `aos status`.
pub async fn run(command: Status) -> Result<(), Failure> {
    let client = super::cloud()?;
    let only = match &command.unit {
        Some(name) => Some(pick::unit(&client, name).await?.id.to_string()),
        None => None,
    };
    let mut shown = read(&client, only.as_deref()).await?;
    print(&shown, &command)?;
    if !command.watch {
        return Ok(());
    }
    let mut changes = Changes::new(&client);
    loop {
        tokio::select! {
            // Cancel-safe: nothing is lost, the process ends.
            _ = tokio::signal::ctrl_c() => return Ok(()),
            // Cancel-safe: dropped only when the process ends.
            () = changes.next() => {}
        }
        let now = read(&client, only.as_deref()).await?;
        if now != shown {
            print(&now, &command)?;
            shown = now;
        }
    }
}

async fn read(client: &Client, only: Option<&str>) -> Result<Vec<Row>, Failure> {
    let units: Vec<Unit> = match only {
        Some(id) => vec![client.get(&paths::fill(paths::UNIT, &[id])).await?],
        None => client.all(paths::UNITS).await?,
    };
    let mut rows = Vec::new();
    for unit in units {
        let services = services(client, &unit).await?;
        rows.push(Row { unit, services });
    }
    Ok(rows)
}

async fn services(client: &Client, unit: &Unit) -> Result<Vec<UnitSubjectService>, Failure> {
    let path = paths::fill(paths::UNIT_SUBJECTS_SERVICES, &[&unit.id.to_string()]);
    let page: Page<UnitSubjectService> = client.get(&path).await?;
    Ok(page.items)
}

fn print(rows: &[Row], command: &Status) -> Result<(), Failure> {
    if command.json {
        if command.watch {
            let line = serde_json::to_string(rows).unwrap_or_default();
            table::say(line);
            return Ok(());
        }
        return table::json(&rows);
    }
    if command.watch {
        use std::io::IsTerminal as _;
        if std::io::stdout().is_terminal() {
            // Home, and clear what was there.
            table::say("\x1b[H\x1b[2J");
        }
        table::say(SystemClock.now().to_string());
    }
    for row in rows {
        let unit = &row.unit;
        let seen = unit.last_seen_at.map_or_else(
            || "never seen".to_owned(),
            |at| format!("seen {}", table::ago(at, SystemClock.now())),
        );
        table::say(format!(
            "{}  {}  {}, {seen}; update: {}; nodes {}/{}; instances {}/{} active",
            unit.system_uid,
            table::or_dash(&unit.title),
            table::word(&unit.online_status),
            table::word(&unit.update_phase),
            unit.counts.nodes_connected,
            unit.counts.nodes,
            unit.counts.instances_active,
            unit.counts.instances_desired,
        ));
        instances(&row.services);
    }
    if rows.is_empty() {
        table::say("no Units yet: `aos unit claim` makes a code that a Unit joins with");
    }
    Ok(())
}

fn instances(services: &[UnitSubjectService]) {
    let mut out = table::table(&[
        "  service",
        "subject",
        "desired",
        "instance",
        "version",
        "state",
        "node",
        "error",
    ]);
    for service in services {
        let name = Cell::new(format!("  {}", service.service.codename));
        let desired = match &service.desired_version {
            Some(version) => format!("{version} ×{}", service.num_instances),
            None => "-".to_owned(),
        };
        if service.instances.is_empty() {
            out.add_row([
                name.clone(),
                Cell::new(&service.subject.label),
                Cell::new(&desired),
                Cell::new("-"),
            ]);
        }
        for instance in &service.instances {
            let error = instance
                .error
                .as_ref()
                .map_or("", |error| error.message.as_str());
            out.add_row([
                name.clone(),
                Cell::new(&service.subject.label),
                Cell::new(&desired),
                Cell::new(instance.instance_id),
                Cell::new(&instance.version),
                table::state(&instance.run_state),
                Cell::new(&instance.node_id),
                Cell::new(error),
            ]);
        }
    }
    if !services.is_empty() {
        table::show(&out, "");
    }
}

/// Waits for the cloud's changes; reads again now and then in case one was missed.
struct Changes<'a> {
    client: &'a Client,
    stream: Option<std::pin::Pin<Box<dyn futures::Stream<Item = aos_api::ChangeEvent> + Send>>>,
}

impl<'a> Changes<'a> {
    fn new(client: &'a Client) -> Self {
        Self {
            client,
            stream: None,
        }
    }

    /// Returns when something about Units may have changed.
    async fn next(&mut self) {
        let until = Instant::now() + READ_AGAIN;
        if self.stream.is_none() {
            match self.client.events().await {
                // Something may have happened before the stream stood.
                Ok(stream) => {
                    self.stream = Some(stream);
                    return;
                }
                Err(_) => return tokio::time::sleep(Duration::from_secs(1)).await,
            }
        }
        while let Some(stream) = &mut self.stream {
            match tokio::time::timeout_at(until, stream.next()).await {
                Ok(Some(event)) => {
                    if matches!(
                        event.topic,
                        ChangeTopic::Unit
                            | ChangeTopic::Subject
                            | ChangeTopic::Service
                            | ChangeTopic::Resync
                    ) {
                        tokio::time::sleep(GATHER).await;
                        return;
                    }
                }
                Ok(None) => self.stream = None,
                Err(_) => return,
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// What is waited for.
pub struct Wanted<'a> {
    /// Codenames of services.
    pub services: &'a [String],
    /// Whether they should run (`true`) or be gone.
    pub there: bool,
}

/// How far a Unit is from what is wanted.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Reached,
    NotYet(String),
    Failed(String),
}

/// Waits until a Unit is as wanted. Shows what it waits for.
pub async fn wait_for(
    client: &Client,
    unit: &Unit,
    wanted: &Wanted<'_>,
    seconds: u64,
) -> Result<(), Failure> {
    let until = Instant::now() + Duration::from_secs(seconds);
    let id = unit.id.to_string();
    let spinner = Spinner::new(&unit.system_uid);
    let mut changes = Changes::new(client);
    loop {
        let unit: Unit = client.get(&paths::fill(paths::UNIT, &[&id])).await?;
        let rows = services(client, &unit).await?;
        let waiting = match judge(&unit, &rows, wanted) {
            Verdict::Reached => {
                spinner.done();
                table::say(format!(
                    "{}: {} {}",
                    unit.system_uid,
                    wanted.services.join(", "),
                    if wanted.there { "active" } else { "removed" }
                ));
                return Ok(());
            }
            Verdict::Failed(why) => {
                spinner.done();
                return Err(
                    Failure::new(format!("the update of Unit {} failed", unit.system_uid))
                        .why(why)
                        .hint(format!(
                            "`aos explain {} <service>` gives the reasons",
                            unit.system_uid
                        ))
                        .exit(Exit::NotAsDesired),
                );
            }
            Verdict::NotYet(what) => what,
        };
        spinner.say(&waiting);
        if tokio::time::timeout_at(until, changes.next())
            .await
            .is_err()
        {
            spinner.done();
            return Err(Failure::new(format!(
                "Unit {} is not as desired after {seconds} s",
                unit.system_uid
            ))
            .why(waiting)
            .hint(format!(
                "`aos explain {} <service>` gives the reasons",
                unit.system_uid
            ))
            .exit(Exit::NotAsDesired));
        }
    }
}

fn judge(unit: &Unit, rows: &[UnitSubjectService], wanted: &Wanted<'_>) -> Verdict {
    let about = |row: &&UnitSubjectService| wanted.services.contains(&row.service.codename);
    let rows: Vec<_> = rows.iter().filter(about).collect();
    if !wanted.there {
        let left: usize = rows.iter().map(|row| row.instances.len()).sum();
        let installed = rows
            .iter()
            .any(|row| row.installed_version.is_some() || row.desired_version.is_some());
        return if left == 0 && !installed {
            Verdict::Reached
        } else {
            Verdict::NotYet(format!("{left} instance(s) still there"))
        };
    }
    if unit.online_status == OnlineStatus::Offline {
        return Verdict::NotYet("the Unit is offline".to_owned());
    }
    let mut active = 0;
    let mut desired = 0;
    for row in &rows {
        desired += row.num_instances;
        for instance in &row.instances {
            let current = Some(&instance.version) == row.desired_version.as_ref();
            if current && instance.run_state == "active" {
                active += 1;
            }
            if current && instance.run_state == "failed" && unit.update_phase == UpdatePhase::Failed
            {
                let why = instance
                    .error
                    .as_ref()
                    .map_or("no reason given", |e| e.message.as_str());
                return Verdict::Failed(format!(
                    "instance {} of {}: {why}",
                    instance.instance_id, row.service.codename
                ));
            }
        }
    }
    let all_named = wanted.services.iter().all(|name| {
        rows.iter()
            .any(|row| row.service.codename == *name && row.desired_version.is_some())
    });
    if all_named && active >= desired && unit.update_phase == UpdatePhase::Installed {
        return Verdict::Reached;
    }
    if all_named && unit.update_phase == UpdatePhase::Failed {
        return Verdict::Failed("the Unit reports that the update failed".to_owned());
    }
    Verdict::NotYet(format!(
        "{}, {active} of {desired} instance(s) active",
        table::word(&unit.update_phase)
    ))
}
