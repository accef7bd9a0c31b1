//! `aos alerts`: what Units complain of, once or as it happens.

use std::collections::BTreeMap;
use std::time::Duration;

use aos_api::{Alert, AlertState, AlertTag, AlertsQuery, ChangeTopic, Page, Severity, paths};
use aos_time::{Clock as _, SystemClock, Timestamp};
use clap::{Args, ValueEnum};
use comfy_table::Cell;
use futures::StreamExt as _;

use super::pick;
use crate::client::Client;
use crate::failure::Failure;
use crate::table;

/// After so long without an event the list is read again all the same.
const READ_AGAIN: Duration = Duration::from_secs(30);
/// Alerts that are read at once while following.
const NEWEST: u32 = 200;

/// List alerts of Units, those told last first.
#[derive(Args)]
pub struct Alerts {
    /// Only of this Unit: system id, id or title.
    #[arg(long, value_name = "UNIT")]
    unit: Option<String>,
    /// Only those that go on.
    #[arg(long)]
    active: bool,
    /// Only of this kind.
    #[arg(long, value_enum, value_name = "KIND")]
    kind: Option<Kind>,
    /// Only about this Node.
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// Only about instances of this service: codename or id.
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,
    /// Only those whose text holds this.
    #[arg(long, value_name = "TEXT")]
    search: Option<String>,
    /// Most of them.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Go on and print each that begins, and the end of each, until Ctrl-C.
    #[arg(long, short)]
    follow: bool,
    /// Print JSON; with `--follow` one line an alert.
    #[arg(long)]
    json: bool,
}

/// A kind of alert.
#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    /// From the log of a Node.
    System,
    /// From a component of AosCore.
    Core,
    /// A Node uses too much.
    NodeQuota,
    /// An instance uses too much.
    InstanceQuota,
    /// A download broke off.
    Download,
    /// An instance did not get something of a Node.
    Allocation,
    /// Something is wrong with an instance.
    Instance,
}

impl Kind {
    fn tag(self) -> AlertTag {
        match self {
            Self::System => AlertTag::System,
            Self::Core => AlertTag::Core,
            Self::NodeQuota => AlertTag::SystemQuota,
            Self::InstanceQuota => AlertTag::InstanceQuota,
            Self::Download => AlertTag::DownloadProgress,
            Self::Allocation => AlertTag::ResourceAllocate,
            Self::Instance => AlertTag::Instance,
        }
    }
}

/// `aos alerts`.
pub async fn run(command: Alerts) -> Result<(), Failure> {
    let client = super::cloud()?;
    let path = match &command.unit {
        Some(unit) => {
            let unit = pick::unit(&client, unit).await?;
            paths::fill(paths::UNIT_ALERTS, &[&unit.id.to_string()])
        }
        None => paths::ALERTS.to_owned(),
    };
    let query = AlertsQuery {
        tag: command.kind.map(Kind::tag),
        state: command.active.then_some(AlertState::Active),
        node: command.node.clone(),
        service: command.service.clone(),
        search: command.search.clone(),
        limit: Some(command.limit),
        ..AlertsQuery::default()
    };
    if command.follow {
        return follow(&client, &path, query, command.json).await;
    }
    let page: Page<Alert> = client.get_with(&path, &query).await?;
    if command.json {
        return table::json(&page.items);
    }
    let now = SystemClock.now();
    let mut out = table::table(&["when", "unit", "about", "state", "times", "what"]);
    for alert in &page.items {
        out.add_row([
            Cell::new(table::ago(alert.last_at, now)),
            Cell::new(unit(alert)),
            Cell::new(about(alert)),
            table::state(state(alert)),
            Cell::new(alert.count),
            Cell::new(&alert.text),
        ]);
    }
    table::show(&out, "no alerts");
    let shown = page.items.len() as u64;
    if page.total > shown {
        table::say(format!("{shown} of {}: --limit shows more", page.total));
    }
    Ok(())
}

fn unit(alert: &Alert) -> &str {
    match alert.unit_title.as_str() {
        "" => &alert.system_uid,
        title => title,
    }
}

fn about(alert: &Alert) -> String {
    match (&alert.service, alert.instance_id, &alert.node_id) {
        (Some(service), Some(instance), _) => format!("{} #{instance}", service.codename),
        (_, _, Some(node)) => format!("Node {node}"),
        _ => "the Unit".to_owned(),
    }
}

/// In the words that colour a cell.
fn state(alert: &Alert) -> &'static str {
    match (alert.state, alert.severity) {
        (AlertState::Active, _) => "goes on",
        (AlertState::Ended, _) => "over",
        (AlertState::Once, Severity::Error) => "error",
        (AlertState::Once, _) => "-",
    }
}

/// What was printed of an alert: until when it was told, and whether its end was.
type Told = BTreeMap<i64, (Timestamp, bool)>;

async fn follow(
    client: &Client,
    path: &str,
    query: AlertsQuery,
    json: bool,
) -> Result<(), Failure> {
    let query = AlertsQuery {
        limit: Some(NEWEST),
        // An end has to be seen too.
        state: None,
        ..query
    };
    let mut told: Option<Told> = None;
    let mut changes = None;
    loop {
        let page: Page<Alert> = client.get_with(path, &query).await?;
        told = Some(tell(page.items, told, json)?);
        if changes.is_none() {
            changes = client.events().await.ok();
            // Something may have happened before the stream stood.
            if changes.is_some() {
                continue;
            }
        }
        let until = tokio::time::Instant::now() + READ_AGAIN;
        while let Some(stream) = &mut changes {
            match tokio::time::timeout_at(until, stream.next()).await {
                Ok(Some(event))
                    if matches!(event.topic, ChangeTopic::Alert | ChangeTopic::Resync) =>
                {
                    break;
                }
                Ok(Some(_)) => {}
                Ok(None) => changes = None,
                Err(_) => break,
            }
        }
        if changes.is_none() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

/// Prints what is new; the first time nothing is, but that which goes on.
fn tell(mut alerts: Vec<Alert>, told: Option<Told>, json: bool) -> Result<Told, Failure> {
    alerts.reverse();
    let first = told.is_none();
    let before = told.unwrap_or_default();
    let mut now = Told::new();
    for alert in &alerts {
        let over = alert.state == AlertState::Ended;
        now.insert(alert.id, (alert.last_at, over));
        let news = match before.get(&alert.id) {
            None => !first || alert.state == AlertState::Active,
            Some((_, was_over)) if over != *was_over => true,
            // That it goes on is no news; the same words again are.
            Some((last, _)) => alert.state == AlertState::Once && *last != alert.last_at,
        };
        if !news {
            continue;
        }
        if json {
            let line = serde_json::to_string(alert).unwrap_or_default();
            table::say(line);
        } else {
            let word = match alert.state {
                AlertState::Active => "begins",
                AlertState::Ended => "is over",
                AlertState::Once => "says",
            };
            let (at, unit, about) = (alert.last_at, unit(alert), about(alert));
            table::say(format!("{at}  {unit}  {about}  {word}: {}", alert.text));
        }
    }
    Ok(now)
}
