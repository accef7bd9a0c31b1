//! `aos status`: what runs on Units, once or as it changes; and waiting for it.

use std::time::Duration;

use aos_api::{
    ChangeTopic, Node, OnlineStatus, Page, Unit, UnitItem, UnitSubjectService, UnitWhy,
    UpdatePhase, paths,
};
use aos_time::{Clock as _, SystemClock};
use clap::Args;
use comfy_table::Cell;
use futures::StreamExt as _;
use serde::Serialize;
use tokio::time::Instant;

use super::pick;
use super::steady::Steady;
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
    /// What holds the update up or made it fail, if it is not done.
    update: Vec<String>,
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
        let update = update(client, &unit).await?;
        rows.push(Row {
            unit,
            services,
            update,
        });
    }
    Ok(rows)
}

/// What the Unit says of an update that is not done, and the items that failed.
async fn update(client: &Client, unit: &Unit) -> Result<Vec<String>, Failure> {
    if !matches!(
        unit.update_phase,
        UpdatePhase::Downloading | UpdatePhase::Pending | UpdatePhase::Failed
    ) {
        return Ok(Vec::new());
    }
    let id = unit.id.to_string();
    let why: UnitWhy = client.get(&paths::fill(paths::UNIT_WHY, &[&id])).await?;
    let items: Page<UnitItem> = client.get(&paths::fill(paths::UNIT_ITEMS, &[&id])).await?;
    let failed = items
        .items
        .into_iter()
        .filter(|item| item.desired)
        .filter_map(|item| {
            let name = item
                .service
                .map_or(item.item_id, |service| service.codename);
            let error = item.error?;
            Some(format!("{name} {}: {}", item.version, error.message))
        });
    Ok(why.update.into_iter().chain(failed).collect())
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
        let download = unit.download.as_ref();
        let download = download.map_or_else(String::new, |told| format!(" {}", told.text()));
        table::say(format!(
            "{}  {}  {}, {seen}; update: {}{download}; nodes {}/{}; instances {}/{} active",
            unit.system_uid,
            table::or_dash(&unit.title),
            table::word(&unit.online_status),
            table::word(&unit.update_phase),
            unit.counts.nodes_connected,
            unit.counts.nodes,
            unit.counts.instances_active,
            unit.counts.instances_desired,
        ));
        for text in &row.update {
            table::say(format!("  ! {text}"));
        }
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
    /// Codenames of services, each with the version that should run if that is known.
    pub services: &'a [(String, Option<String>)],
    /// Whether they should run (`true`) or be gone.
    pub there: bool,
    /// How many instances of each were asked for, if that was said.
    pub instances: Option<u64>,
    /// Which labels were asked for, if that was said.
    pub labels: Option<&'a [String]>,
}

impl Wanted<'_> {
    fn names(&self) -> String {
        let names: Vec<_> = self
            .services
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        names.join(", ")
    }
}

/// How far a Unit is from what is wanted.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Reached,
    NotYet(String),
    Failed(String),
}

/// How long a failure may still be that of the desired state before: composing a new one takes a moment.
const STALE: Duration = Duration::from_secs(3);

/// Waits until a Unit is as wanted. Shows what it waits for.
pub async fn wait_for(
    client: &Client,
    unit: &Unit,
    wanted: &Wanted<'_>,
    seconds: u64,
) -> Result<(), Failure> {
    let begin = Instant::now();
    let until = begin + Duration::from_secs(seconds);
    let id = unit.id.to_string();
    let spinner = Spinner::new(&unit.system_uid);
    let mut changes = Changes::new(client);
    let mut steady = Steady::default();
    loop {
        let unit: Unit = client.get(&paths::fill(paths::UNIT, &[&id])).await?;
        let rows = services(client, &unit).await?;
        let nodes: Page<Node> = client.get(&paths::fill(paths::UNIT_NODES, &[&id])).await?;
        let waiting = match judge(&unit, &rows, &nodes.items, wanted) {
            Verdict::Reached => {
                let now = Instant::now();
                let rest = steady.rest(&unit, &rows, wanted.services, now);
                if let Some(rest) = rest.filter(|_| wanted.there) {
                    spinner.say("active; looking whether it lasts");
                    if now + rest < until {
                        // Looked at again then, and when something changes.
                        let _ = tokio::time::timeout(rest, changes.next()).await;
                        continue;
                    }
                }
                spinner.done();
                table::say(format!(
                    "{}: {} {}",
                    unit.system_uid,
                    wanted.names(),
                    if wanted.there { "active" } else { "removed" }
                ));
                return Ok(());
            }
            Verdict::Failed(_) if begin.elapsed() < STALE => {
                // Looked at again when the time is over, should nothing change until then.
                let _ = tokio::time::timeout_at(begin + STALE, changes.next()).await;
                continue;
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

/// Compares what the Unit reports with what was asked for. The cloud composes a new desired state a
/// moment after an assignment changed, so "the Unit is as desired" alone may speak of the old one.
fn judge(unit: &Unit, rows: &[UnitSubjectService], nodes: &[Node], wanted: &Wanted<'_>) -> Verdict {
    let of = |name: &str| -> Vec<&UnitSubjectService> {
        rows.iter()
            .filter(|row| row.service.codename == name)
            .collect()
    };
    if !wanted.there {
        let rows: Vec<_> = wanted
            .services
            .iter()
            .flat_map(|(name, _)| of(name))
            .collect();
        let left: usize = rows.iter().map(|row| row.instances.len()).sum();
        let known = rows
            .iter()
            .any(|row| row.installed_version.is_some() || row.desired_version.is_some());
        return if left == 0 && !known {
            Verdict::Reached
        } else {
            Verdict::NotYet(format!("{left} instance(s) still there"))
        };
    }
    if unit.online_status == OnlineStatus::Offline {
        return Verdict::NotYet("the Unit is offline".to_owned());
    }
    let mut phase = table::word(&unit.update_phase);
    if let Some(download) = &unit.download {
        phase = format!("{phase} {}", download.text());
    }
    for (name, version) in wanted.services {
        let rows = of(name);
        if rows.is_empty() {
            return Verdict::NotYet(format!("{name} is not in the desired state yet"));
        }
        for row in rows {
            match judge_row(unit, row, nodes, version.as_deref(), wanted) {
                Verdict::Reached => {}
                Verdict::NotYet(what) => return Verdict::NotYet(format!("{phase}, {what}")),
                failed @ Verdict::Failed(_) => return failed,
            }
        }
    }
    match unit.update_phase {
        UpdatePhase::Installed => Verdict::Reached,
        UpdatePhase::Failed => {
            Verdict::Failed("the Unit reports that the update failed".to_owned())
        }
        _ => Verdict::NotYet(phase),
    }
}

fn judge_row(
    unit: &Unit,
    row: &UnitSubjectService,
    nodes: &[Node],
    version: Option<&str>,
    wanted: &Wanted<'_>,
) -> Verdict {
    let name = &row.service.codename;
    let stale = version.is_some_and(|version| row.desired_version.as_deref() != Some(version))
        || wanted
            .instances
            .is_some_and(|count| row.num_instances != count)
        || wanted.labels.is_some_and(|labels| row.labels != labels);
    if stale {
        return Verdict::NotYet(format!("{name} has no new desired state yet"));
    }
    let mut active = 0;
    for instance in &row.instances {
        let current = Some(&instance.version) == row.desired_version.as_ref();
        let fits = nodes.iter().any(|node| {
            node.node_id == instance.node_id
                && row.labels.iter().all(|label| node.labels.contains(label))
        });
        if current && fits && instance.run_state == "active" {
            active += 1;
        }
        if current && instance.run_state == "failed" && unit.update_phase == UpdatePhase::Failed {
            let why = instance
                .error
                .as_ref()
                .map_or("no reason given", |e| e.message.as_str());
            return Verdict::Failed(format!(
                "instance {} of {name}: {why}",
                instance.instance_id
            ));
        }
    }
    let all = row.instances.len() as u64;
    if active == row.num_instances && all == active {
        Verdict::Reached
    } else {
        Verdict::NotYet(format!(
            "{active} of {} instance(s) of {name} active",
            row.num_instances
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A Unit with one service as the cloud would describe it.
    fn world(
        phase: &str,
        version: &str,
        node: &str,
        labels: &[&str],
    ) -> (Unit, Vec<UnitSubjectService>, Vec<Node>) {
        let unit = serde_json::from_value(serde_json::json!({
            "id": "01a1fc99-9b59-7757-9d8d-12025b54510c", "system_uid": "u", "title": "",
            "status": "provisioned", "online_status": "Online", "unit_model": null,
            "last_online_changed_at": null, "last_seen_at": null, "installed_unit_config": null,
            "update_phase": phase, "created_at": "2026-01-01T00:00:00Z",
            "updated_at": "2026-01-01T00:00:00Z",
            "counts": {"nodes": 2, "nodes_connected": 2, "instances": 1, "instances_active": 1,
                "instances_failed": 0, "instances_desired": 1, "subjects": 1},
        }))
        .unwrap();
        let row = serde_json::from_value(serde_json::json!({
            "subject": {"id": "s", "label": "s"},
            "service": {"id": "h", "codename": "hello", "title": ""},
            "desired_version": version, "installed_version": version, "num_instances": 1,
            "priority": 0, "labels": labels,
            "instances": [{"instance_id": 0, "version": version, "run_state": "active",
                "node_id": node, "runtime_id": "crun", "error": null,
                "changed_at": "2026-01-01T00:00:00Z"}],
        }))
        .unwrap();
        let nodes = ["main", "edge"]
            .map(|id| {
                serde_json::from_value(serde_json::json!({
                    "node_id": id, "node_type": id, "title": "", "is_main": id == "main",
                    "is_connected": true, "state": "provisioned", "error": null, "os": "linux",
                    "max_dmips": 1, "total_ram": 1, "physical_ram": null, "cpus": [], "attrs": {},
                    "labels": [id], "partitions": [], "runtimes": [], "resources": [],
                }))
                .unwrap()
            })
            .to_vec();
        (unit, vec![row], nodes)
    }

    fn verdict(
        (unit, rows, nodes): &(Unit, Vec<UnitSubjectService>, Vec<Node>),
        version: Option<&str>,
        instances: Option<u64>,
        labels: Option<&[&str]>,
    ) -> Verdict {
        let labels: Option<Vec<String>> =
            labels.map(|labels| labels.iter().map(|label| (*label).to_owned()).collect());
        let services = [("hello".to_owned(), version.map(str::to_owned))];
        let wanted = Wanted {
            services: &services,
            there: true,
            instances,
            labels: labels.as_deref(),
        };
        judge(unit, rows, nodes, &wanted)
    }

    #[test]
    fn what_runs_is_compared_with_what_was_asked_for() {
        let good = world("installed", "1.0.0", "main", &["main"]);
        assert_eq!(
            verdict(&good, Some("1.0.0"), Some(1), Some(&["main"])),
            Verdict::Reached
        );
        assert_eq!(verdict(&good, None, None, None), Verdict::Reached);
        // Each of these is a desired state that the cloud has not composed yet.
        for (version, instances, labels) in [
            (Some("1.1.0"), None, None),
            (None, Some(2), None),
            (None, None, Some(&["edge"][..])),
        ] {
            let verdict = verdict(&good, version, instances, labels);
            assert!(matches!(verdict, Verdict::NotYet(_)), "{verdict:?}");
        }
        // Composed, but the instance has not moved yet.
        let moving = world("installed", "1.0.0", "main", &["edge"]);
        assert!(matches!(
            verdict(&moving, None, None, Some(&["edge"])),
            Verdict::NotYet(_)
        ));
        let busy = world("downloading", "1.0.0", "main", &["main"]);
        assert!(matches!(
            verdict(&busy, None, None, None),
            Verdict::NotYet(_)
        ));
        let failed = world("failed", "1.0.0", "main", &["main"]);
        assert!(matches!(
            verdict(&failed, None, None, None),
            Verdict::Failed(_)
        ));
    }

    #[test]
    fn gone_means_gone() {
        let (unit, rows, nodes) = world("installed", "1.0.0", "main", &[]);
        let services = [("hello".to_owned(), None)];
        let wanted = Wanted {
            services: &services,
            there: false,
            instances: None,
            labels: None,
        };
        assert!(matches!(
            judge(&unit, &rows, &nodes, &wanted),
            Verdict::NotYet(_)
        ));
        assert_eq!(judge(&unit, &[], &nodes, &wanted), Verdict::Reached);
    }
}
