//! `aos explain`: why a service is or is not on a Unit.

use aos_api::{ExplainQuery, Explanation, UnitWhy, WhyQuery, paths};
use clap::Args;

use super::pick;
use crate::failure::{Exit, Failure};
use crate::table;

/// Say why a service is or is not on a Unit.
#[derive(Args)]
pub struct Explain {
    /// System id, id or title of the Unit.
    unit: String,
    /// Codename or id of the service.
    service: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// `aos explain`.
pub async fn run(command: Explain) -> Result<(), Failure> {
    let client = super::cloud()?;
    let unit = pick::unit(&client, &command.unit).await?;
    let service = pick::service(&client, &command.service).await?;
    let path = paths::fill(paths::UNIT_EXPLAIN, &[&unit.id.to_string()]);
    let query = ExplainQuery {
        service: service.codename,
    };
    let answer: Explanation = client.get_with(&path, &query).await?;
    if command.json {
        table::json(&answer)?;
    } else {
        table::say(&answer.summary);
        let mut out = table::table(&["rule", "outcome", "found", "do"]);
        for rule in &answer.rules {
            out.add_row([
                rule.rule.replace('_', " ").into(),
                table::state(table::word(&rule.outcome)),
                rule.text.clone().into(),
                rule.hint.clone().unwrap_or_default().into(),
            ] as [comfy_table::Cell; 4]);
        }
        table::show(&out, "");
        let path = paths::fill(paths::UNIT_WHY, &[&unit.id.to_string()]);
        let query = WhyQuery {
            service: Some(answer.service.id.clone()),
        };
        let why: UnitWhy = client.get_with(&path, &query).await?;
        placement(&why);
    }
    if answer.as_desired {
        Ok(())
    } else {
        Err(Failure::new(format!(
            "{} is not as desired on {}",
            answer.service.codename, answer.system_uid
        ))
        .exit(Exit::NotAsDesired))
    }
}

/// What holds instances up, and which Nodes are excluded by which rule.
fn placement(why: &UnitWhy) {
    for text in &why.update {
        table::say(format!("update: {text}"));
    }
    for instance in &why.instances {
        let Some(waits_for) = &instance.waits_for else {
            continue;
        };
        table::say("");
        table::say(format!(
            "instance {} for {}: {waits_for}",
            instance.instance_id, instance.subject.label
        ));
        let mut out = table::table(&["node", "excluded by", "found"]);
        for node in &instance.nodes {
            out.add_row([
                node.node_id.clone(),
                table::or_dash(node.excluded_by.clone().unwrap_or_default()),
                node.text.clone(),
            ]);
        }
        table::show(&out, "");
    }
}
