//! `aos unit why`: what CM of this Unit says of its instances, with or without a cloud.

use aos_ipc::proto::aos::unit::v1::{
    Chain, Reason, WhyRequest, WhyResponse, unit_service_client::UnitServiceClient,
};
use aos_ipc::{reason, within};
use clap::Args;
use serde_json::{Value, json};

use crate::failure::{Exit, Failure};
use crate::local::{CALL, Local};
use crate::table;

/// Say why services run, or do not run, on this Unit. Run it on the main Node, as root; it needs no cloud.
#[derive(Args)]
pub struct Why {
    /// Id of the item; all if absent.
    item: Option<String>,
    /// Only for this subject.
    #[arg(long, value_name = "SUBJECT")]
    subject: Option<String>,
    /// Only the instance with this index.
    #[arg(long, value_name = "N")]
    index: Option<u64>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    local: Local,
}

/// `aos unit why`.
pub async fn run(command: Why) -> Result<(), Failure> {
    let cm = command.local.connect().await?;
    let ask = WhyRequest {
        item_id: command.item,
        subject_id: command.subject,
        instance: command.index,
    };
    let answer = UnitServiceClient::new(cm)
        .max_decoding_message_size(aos_ipc::MAX_MESSAGE)
        .why(within(CALL, ask))
        .await
        .map_err(|status| Failure::new("CM does not say why").why(reason(&status)))?
        .into_inner();
    if command.json {
        table::json(&as_json(&answer))?;
    } else {
        show(&answer);
    }
    if answer.chains.iter().all(|chain| chain.as_desired) {
        Ok(())
    } else {
        Err(Failure::new("not everything is as desired").exit(Exit::NotAsDesired))
    }
}

fn name(chain: &Chain) -> String {
    let ident = chain.instance.clone().unwrap_or_default();
    format!("{}:{}:{}", ident.item_id, ident.subject_id, ident.instance)
}

fn show(answer: &WhyResponse) {
    for reason in &answer.unit {
        table::say(line(reason));
    }
    for chain in &answer.chains {
        let verdict = if chain.as_desired {
            "as desired"
        } else {
            "not as desired"
        };
        table::say("");
        table::say(format!("{} {}: {verdict}", name(chain), chain.version));
        for reason in &chain.reasons {
            table::say(line(reason));
        }
    }
    if answer.chains.is_empty() {
        table::say("\nno instance of that name is desired on this Unit");
    }
    if answer.left_out > 0 {
        table::say(format!(
            "\n{} more are left out: name an item",
            answer.left_out
        ));
    }
}

fn line(reason: &Reason) -> String {
    let mark = if reason.holds { "ok" } else { "no" };
    format!("  {mark}  {:<10}{}", reason.stage, reason.text)
}

fn as_json(answer: &WhyResponse) -> Value {
    let reasons = |list: &[Reason]| -> Vec<Value> {
        list.iter()
            .map(|reason| {
                json!({
                    "stage": reason.stage,
                    "holds": reason.holds,
                    "text": reason.text,
                    "node": reason.node_id,
                })
            })
            .collect()
    };
    let chains: Vec<Value> = answer
        .chains
        .iter()
        .map(|chain| {
            let ident = chain.instance.clone().unwrap_or_default();
            json!({
                "item": ident.item_id,
                "subject": ident.subject_id,
                "instance": ident.instance,
                "version": chain.version,
                "as_desired": chain.as_desired,
                "reasons": reasons(&chain.reasons),
            })
        })
        .collect();
    json!({"unit": reasons(&answer.unit), "instances": chains, "left_out": answer.left_out})
}
