//! `aos top`: what a Unit uses, live.

use std::io::IsTerminal as _;
use std::time::Duration;

use aos_api::{
    Alert, AlertState, ChangeTopic, MonitoringQuery, Unit, UnitMonitoring, UsageLimit, UsagePoint,
    paths,
};
use aos_time::{Clock as _, SystemClock};
use clap::Args;
use comfy_table::{Cell, Color};
use futures::StreamExt as _;
use indicatif::BinaryBytes;

use super::pick;
use crate::failure::Failure;
use crate::table;

/// After so long without an event it is drawn again all the same: ages grow.
const DRAW_AGAIN: Duration = Duration::from_secs(5);

/// Show what the Nodes and instances of a Unit use, and its alerts, until Ctrl-C.
#[derive(Args)]
pub struct Top {
    /// System id, id or title of the Unit; may be left out if there is only one.
    unit: Option<String>,
    /// Show it once.
    #[arg(long)]
    once: bool,
    /// Print JSON, once.
    #[arg(long)]
    json: bool,
}

/// `aos top`.
pub async fn run(command: Top) -> Result<(), Failure> {
    let client = super::cloud()?;
    let unit = match &command.unit {
        Some(unit) => pick::unit(&client, unit).await?,
        None => only(client.all(paths::UNITS).await?)?,
    };
    let id = unit.id.to_string();
    let path = paths::fill(paths::UNIT_MONITORING, &[&id]);
    let query = MonitoringQuery {
        datetime_from: Some("latest".into()),
        ..MonitoringQuery::default()
    };
    let mut changes = None;
    loop {
        let now: UnitMonitoring = client.get_with(&path, &query).await?;
        if command.json {
            return table::json(&now);
        }
        let unit: Unit = client.get(&paths::fill(paths::UNIT, &[&id])).await?;
        let live = !command.once && std::io::stdout().is_terminal();
        if live {
            // To the upper left corner, and everything below is cleared.
            table::say("\x1b[H\x1b[J");
        }
        draw(&unit, &now);
        if !live {
            return Ok(());
        }
        if changes.is_none() {
            changes = client.events().await.ok();
        }
        let until = tokio::time::Instant::now() + DRAW_AGAIN;
        while let Some(stream) = &mut changes {
            let concerns = |topic| {
                matches!(
                    topic,
                    ChangeTopic::Monitoring | ChangeTopic::Alert | ChangeTopic::Resync
                )
            };
            match tokio::time::timeout_at(until, stream.next()).await {
                Ok(Some(event))
                    if concerns(event.topic) && event.id.is_none_or(|of| of == unit.id) =>
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

fn only(mut units: Vec<Unit>) -> Result<Unit, Failure> {
    match (units.pop(), units.is_empty()) {
        (Some(unit), true) => Ok(unit),
        (None, _) => Err(Failure::new("the cloud knows no Unit")
            .hint("`aos unit claim` makes a code that a Unit joins with")),
        (Some(_), false) => {
            Err(Failure::new("the cloud knows more than one Unit")
                .hint("say which: `aos top <UNIT>`"))
        }
    }
}

fn draw(unit: &Unit, now: &UnitMonitoring) {
    let name = if unit.title.is_empty() {
        &unit.system_uid
    } else {
        &unit.title
    };
    let goes_on = |alert: &&Alert| alert.state == AlertState::Active;
    table::say(format!(
        "{name}  {}  {} of {} instances active",
        table::word(&unit.online_status),
        unit.counts.instances_active,
        unit.counts.instances
    ));
    table::say("");
    let mut out = table::table(&[
        "", "cpu", "cpu %", "memory", "down", "up", "disk", "measured",
    ]);
    for node in &now.nodes {
        let Some(point) = node.points.last() else {
            continue;
        };
        let percent = match node.max_dmips {
            0 => "-".to_owned(),
            most => format!("{:.0}", point.cpu as f64 * 100.0 / most as f64),
        };
        let over = is_over(now, |alert| {
            alert.node_id.as_deref() == Some(&node.node_id) && alert.service.is_none()
        });
        out.add_row(row(
            format!("Node {}", node.node_id),
            point,
            percent,
            &over,
            &node.limits,
        ));
    }
    for one in &now.instances {
        let Some(point) = one.points.last() else {
            continue;
        };
        let most = now.nodes.iter().find(|node| node.node_id == one.node_id);
        let percent = match most.map_or(0, |node| node.max_dmips) {
            0 => "-".to_owned(),
            most => format!("{:.0}", point.cpu as f64 * 100.0 / most as f64),
        };
        let over = is_over(now, |alert| {
            let service = alert.service.as_ref().map(|service| &service.id);
            let subject = alert.subject.as_ref().map(|subject| &subject.id);
            service == Some(&one.service.id)
                && subject == Some(&one.subject.id)
                && alert.instance_id == Some(one.instance_id)
        });
        let name = format!(
            "  {} #{} on {}",
            one.service.codename, one.instance_id, one.node_id
        );
        out.add_row(row(name, point, percent, &over, &one.limits));
    }
    table::show(&out, "the Unit told nothing of its usage lately");
    let alerts: Vec<&Alert> = now.alerts.iter().filter(goes_on).collect();
    if !alerts.is_empty() {
        table::say("");
        for alert in alerts {
            let since = table::ago(alert.at, SystemClock.now());
            table::say(format!("! {}, since {since}", alert.text));
        }
    }
}

/// The parameters of which too much is used now.
fn is_over(now: &UnitMonitoring, whose: impl Fn(&Alert) -> bool) -> Vec<String> {
    let alerts = now.alerts.iter();
    alerts
        .filter(|alert| alert.state == AlertState::Active && whose(alert))
        .filter_map(|alert| alert.parameter.clone())
        .collect()
}

fn row(
    name: String,
    point: &UsagePoint,
    percent: String,
    over: &[String],
    limits: &[UsageLimit],
) -> Vec<Cell> {
    let marked = |text: String, parameter: &str| {
        let cell = Cell::new(text);
        match over.iter().any(|one| one == parameter) {
            true if table::colours() => cell.fg(Color::Red),
            _ => cell,
        }
    };
    let bytes = |value: u64| BinaryBytes(value).to_string();
    let memory = match limits
        .iter()
        .find(|limit| limit.parameter == "ram")
        .and_then(|limit| limit.quota)
    {
        Some(quota) => format!("{} of {}", bytes(point.ram), bytes(quota)),
        None => bytes(point.ram),
    };
    let disks: Vec<String> = point
        .partitions
        .iter()
        .map(|(name, used)| format!("{name} {}", bytes(*used)))
        .collect();
    let disk_over = point.partitions.keys().find(|name| over.contains(*name));
    vec![
        Cell::new(name),
        marked(format!("{} DMIPS", point.cpu), "cpu"),
        marked(percent, "cpu"),
        marked(memory, "ram"),
        marked(
            point.download.map_or_else(|| "-".to_owned(), bytes),
            "download",
        ),
        marked(point.upload.map_or_else(|| "-".to_owned(), bytes), "upload"),
        marked(
            table::or_dash(disks.join(", ")),
            disk_over.map_or("", String::as_str),
        ),
        Cell::new(table::ago(point.at, SystemClock.now())),
    ]
}
