//! `aos explain`: why a service is or is not on a Unit.

use aos_api::{ExplainQuery, Explanation, paths};
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
