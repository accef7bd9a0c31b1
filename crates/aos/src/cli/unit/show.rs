//! `aos unit show`: one Unit at a glance.

use aos_api::{
    Node, TimelineEvent, UnitConfigOrder, UnitItem, UnitUpdateSchedules, UnitWhy, WantedNodeState,
    paths,
};
use aos_time::{Clock as _, SystemClock};
use comfy_table::Cell;

use super::{Named, orders};
use crate::cli::{pick, schedule};
use crate::client::Client;
use crate::failure::Failure;
use crate::table;

/// `aos unit show`.
pub async fn show(client: &Client, named: &Named) -> Result<(), Failure> {
    let unit = pick::unit(client, &named.unit).await?;
    if named.json {
        return table::json(&unit);
    }
    let id = unit.id.to_string();
    let line =
        |name: &str, value: String| table::say(format!("{name:<14}{}", table::or_dash(value)));
    line("unit", unit.system_uid.clone());
    line("title", unit.title.clone());
    line("id", id.clone());
    line("status", table::word(&unit.status));
    line("link", table::word(&unit.online_status));
    let seen = unit
        .last_seen_at
        .map(|at| table::ago(at, SystemClock.now()));
    line("last seen", seen.unwrap_or_default());
    let model = unit
        .unit_model
        .map(|model| format!("{};{}", model.name, model.version));
    line("model", model.unwrap_or_default());
    let order: UnitConfigOrder = client.get(&paths::fill(paths::UNIT_CONFIG, &[&id])).await?;
    line("configuration", configuration(&order));
    let schedules: UnitUpdateSchedules = client
        .get(&paths::fill(paths::UNIT_SCHEDULE, &[&id]))
        .await?;
    let force = &schedules.in_force;
    if force.sota.is_some() || force.fota.is_some() {
        let of = |schedule| schedule::said(schedule, "at once");
        line("software", of(force.sota.as_ref()));
        line("firmware", of(force.fota.as_ref()));
    }
    let download = unit.download.as_ref();
    let download = download.map_or_else(String::new, |told| format!(", {}", told.text()));
    line(
        "update",
        format!("{}{download}", table::word(&unit.update_phase)),
    );

    let items: Vec<UnitItem> = client.all(&paths::fill(paths::UNIT_ITEMS, &[&id])).await?;
    let nodes: Vec<Node> = client.all(&paths::fill(paths::UNIT_NODES, &[&id])).await?;
    let why: UnitWhy = client.get(&paths::fill(paths::UNIT_WHY, &[&id])).await?;
    let findings = findings(&order, &items, &nodes, &why);
    if !findings.is_empty() {
        let mut out = table::table(&["what is wrong or waits", "why"]);
        for (what, why) in findings {
            out.add_row([what, why]);
        }
        table::say("");
        table::show(&out, "");
    }
    if !items.is_empty() {
        let mut out = table::table(&["item", "version", "state", "desired", "error"]);
        for item in items {
            let name = item
                .service
                .map_or(item.item_id, |service| service.codename);
            out.add_row([
                Cell::new(name),
                Cell::new(item.version),
                table::state(item.state),
                Cell::new(if item.desired { "yes" } else { "no" }),
                Cell::new(item.error.map(|error| error.message).unwrap_or_default()),
            ]);
        }
        table::say("");
        table::show(&out, "");
    }
    let events: aos_api::Page<TimelineEvent> = client
        .get(&paths::fill(paths::UNIT_TIMELINE, &[&id]))
        .await?;
    if !events.items.is_empty() {
        let mut out = table::table(&["when", "about", "what happened"]);
        for event in events.items.iter().take(10) {
            out.add_row([
                Cell::new(table::ago(event.at, SystemClock.now())),
                Cell::new(table::word(&event.kind)),
                Cell::new(&event.text),
            ]);
        }
        table::say("");
        table::show(&out, "");
    }
    Ok(())
}

fn configuration(order: &UnitConfigOrder) -> String {
    match (&order.wanted, &order.installed) {
        (None, None) => String::new(),
        (Some(wanted), Some(installed)) if wanted == installed => installed.clone(),
        (_, installed) => format!(
            "{}; wanted {}",
            table::or_dash(installed.clone().unwrap_or_default()),
            orders::wanted(order)
        ),
    }
}

/// Whatever is not as it should be, each with its reason.
fn findings(
    order: &UnitConfigOrder,
    items: &[UnitItem],
    nodes: &[Node],
    why: &UnitWhy,
) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = why
        .update
        .iter()
        .map(|text| ("update".to_owned(), text.clone()))
        .collect();
    let told = |error: Option<&aos_api::ReportedError>| {
        error.map_or_else(|| "no reason given".to_owned(), |it| it.message.clone())
    };
    if let Some(failed) = &order.failed {
        found.push((
            format!("unit configuration {}", failed.version),
            told(failed.error.as_ref()),
        ));
    }
    for node in nodes {
        let name = || format!("Node {}", node.node_id);
        if let Some(error) = &node.error {
            found.push((name(), error.message.clone()));
        }
        if node
            .attrs
            .get("AosBlobTransfer")
            .is_some_and(|how| how == "plain-http")
        {
            let text = "is served its images over plain HTTP, without encryption (`legacy_blobs`)";
            found.push((name(), text.into()));
        }
        if !node.is_connected {
            found.push((name(), "the main Node has no link to it".into()));
        }
        match node.wanted_state {
            Some(WantedNodeState::Paused) if node.state != "paused" => {
                found.push((name(), format!("is to pause; it is {}", node.state)));
            }
            Some(WantedNodeState::Provisioned) if node.state == "paused" => {
                found.push((name(), "is to take part again; it is paused".into()));
            }
            _ => {}
        }
    }
    for item in items.iter().filter(|item| item.state == "failed") {
        let name = item
            .service
            .as_ref()
            .map_or(&item.item_id, |service| &service.codename);
        found.push((
            format!("{name} {}", item.version),
            told(item.error.as_ref()),
        ));
    }
    for instance in &why.instances {
        if let Some(text) = &instance.waits_for {
            let node = instance
                .node_id
                .as_ref()
                .map_or_else(String::new, |node| format!(" on {node}"));
            found.push((
                format!(
                    "{} instance {} for {}{node}",
                    instance.service.codename, instance.instance_id, instance.subject.label
                ),
                text.clone(),
            ));
        }
    }
    found
}
