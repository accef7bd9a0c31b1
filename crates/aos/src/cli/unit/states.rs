//! `aos unit states`: what services wrote to keep, as the cloud has it.

use aos_api::{KeptState, KeptStateContent, paths};
use clap::Args;

use crate::cli::pick;
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::table;

/// List the states of a Unit's instances, or print one.
#[derive(Args)]
pub struct States {
    /// System id, id or title of the Unit.
    unit: String,
    /// Print the state of this service's instance instead of the list.
    service: Option<String>,
    /// Through which Subject (label or id), if there is more than one.
    #[arg(long, value_name = "LABEL", requires = "service")]
    subject: Option<String>,
    /// Which instance, from 0.
    #[arg(long, value_name = "N", default_value_t = 0, requires = "service")]
    instance: u64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// `aos unit states`.
pub async fn run(client: &Client, command: &States) -> Result<(), Failure> {
    let unit = pick::unit(client, &command.unit).await?;
    let id = unit.id.to_string();
    let states: Vec<KeptState> = client.all(&paths::fill(paths::UNIT_STATES, &[&id])).await?;
    let Some(service) = &command.service else {
        return list(&states, command.json);
    };
    let found: Vec<_> = states
        .iter()
        .filter(|state| state.service.codename == *service || state.service.id == *service)
        .filter(|state| state.instance_id == command.instance)
        .filter(|state| {
            let subject = command.subject.as_ref();
            subject.is_none_or(|name| state.subject.label == *name || state.subject.id == *name)
        })
        .collect();
    let state = match found.as_slice() {
        [one] => one,
        [] => {
            return Err(Failure::new(format!(
                "the cloud has no state of instance {} of {service}",
                command.instance
            ))
            .hint(format!(
                "`aos unit states {}` lists what there is",
                unit.system_uid
            ))
            .exit(Exit::NotFound));
        }
        _ => {
            return Err(
                Failure::new(format!("{service} has states for more than one Subject"))
                    .hint("say which with --subject"),
            );
        }
    };
    let path = paths::fill(
        paths::UNIT_STATE,
        &[
            &id,
            &state.service.id,
            &state.subject.id,
            &state.instance_id.to_string(),
        ],
    );
    let content: KeptStateContent = client.get(&path).await?;
    if command.json {
        table::json(&content)
    } else {
        table::say(content.state.trim_end_matches('\n'));
        Ok(())
    }
}

fn list(states: &[KeptState], json: bool) -> Result<(), Failure> {
    if json {
        return table::json(&states);
    }
    let mut out = table::table(&[
        "service", "subject", "instance", "bytes", "checksum", "kept",
    ]);
    for state in states {
        out.add_row([
            state.service.codename.clone(),
            state.subject.label.clone(),
            state.instance_id.to_string(),
            state.size.to_string(),
            state.checksum.chars().take(12).collect(),
            state.kept_at.to_string(),
        ]);
    }
    table::show(&out, "no instance of this Unit has told a state");
    Ok(())
}
