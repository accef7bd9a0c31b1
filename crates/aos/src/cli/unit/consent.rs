//! `aos unit consent` and `aos unit ready`: what the user, and the Unit itself, say to an update that waits.

use aos_ipc::proto::aos::unit::v1::{
    ConsentRequest, GetUpdateRequest, ReportReadinessRequest, UpdateItem, UpdatePart,
    unit_service_client::UnitServiceClient,
};
use aos_ipc::{convert::time_from_proto, reason, within};
use clap::{Args, Subcommand};
use comfy_table::Cell;
use serde_json::{Value, json};
use tonic::{Code, Status, transport::Channel};

use crate::cli::update::Part;
use crate::failure::{Exit, Failure};
use crate::local::{CALL, Local};
use crate::table;

/// The user's consent to an update that waits on this Unit.
#[derive(Subcommand)]
pub enum Consent {
    /// Show what waits for consent, and what was said.
    Show(Show),
    /// Consent to the update.
    Give(Answer),
    /// Refuse the update. It waits on and may be consented to later, as long as it may wait.
    Refuse(Refuse),
}

/// How to show it.
#[derive(Args)]
pub struct Show {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    local: Local,
}

/// What is consented to.
#[derive(Args)]
pub struct Answer {
    /// Only this part of the update; all parts that need consent if absent.
    part: Option<Part>,
    /// Number of the update, as `show` gives it: refused if it is another one by now.
    #[arg(long, value_name = "NUMBER")]
    update: Option<u64>,
    #[command(flatten)]
    local: Local,
}

/// What is refused.
#[derive(Args)]
pub struct Refuse {
    #[command(flatten)]
    answer: Answer,
    /// Why; it is shown wherever the update waits.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// Say whether this Unit may be changed now. Counts for a minute if not said otherwise: repeat it.
#[derive(Args)]
pub struct Ready {
    /// It may not be changed, and why.
    #[arg(long, value_name = "WHY")]
    not: Option<String>,
    /// How long this counts, in seconds; at most an hour.
    #[arg(long = "for", value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=3600))]
    valid_for: u32,
    #[command(flatten)]
    local: Local,
}

/// `aos unit consent …`.
pub async fn run(command: Consent) -> Result<(), Failure> {
    match command {
        Consent::Show(show) => self::show(&show).await,
        Consent::Give(answer) => say(&answer, true, String::new()).await,
        Consent::Refuse(refuse) => {
            let reason = refuse.reason.unwrap_or_default();
            say(&refuse.answer, false, reason).await
        }
    }
}

/// `aos unit ready`.
pub async fn ready(command: Ready) -> Result<(), Failure> {
    let cm = command.local.connect().await?;
    let ask = ReportReadinessRequest {
        ready: command.not.is_none(),
        reason: command.not.unwrap_or_default(),
        valid_for_secs: command.valid_for,
    };
    UnitServiceClient::new(cm)
        .report_readiness(within(CALL, ask))
        .await
        .map_err(|status| refused("CM does not take the report", &status))?;
    Ok(())
}

fn refused(what: &str, status: &Status) -> Failure {
    let failure = Failure::new(what).why(reason(status));
    match status.code() {
        Code::FailedPrecondition => failure
            .exit(Exit::Refused)
            .hint("`aos unit consent show` and `aos update status` say what waits"),
        Code::PermissionDenied | Code::Unauthenticated => failure
            .exit(Exit::NotAllowed)
            .hint("run this as root on the main Node"),
        Code::Unavailable => failure
            .exit(Exit::NotReachable)
            .hint("try again in a moment"),
        _ => failure,
    }
}

async fn say(answer: &Answer, given: bool, reason: String) -> Result<(), Failure> {
    let cm = answer.local.connect().await?;
    let ask = ConsentRequest {
        given,
        reason,
        update: answer.update,
        parts: answer
            .part
            .iter()
            .map(|part| part.as_str().to_owned())
            .collect(),
    };
    UnitServiceClient::new(cm)
        .consent(within(CALL, ask))
        .await
        .map_err(|status| refused("CM does not take the answer", &status))?;
    table::say(if given { "consented" } else { "refused" });
    Ok(())
}

async fn parts(cm: Channel) -> Result<Vec<UpdatePart>, Failure> {
    UnitServiceClient::new(cm)
        .max_decoding_message_size(aos_ipc::MAX_MESSAGE)
        .get_update(within(CALL, GetUpdateRequest {}))
        .await
        .map(|answer| answer.into_inner().parts)
        .map_err(|status| refused("CM does not say what waits", &status))
}

async fn show(show: &Show) -> Result<(), Failure> {
    let parts = parts(show.local.connect().await?).await?;
    if show.json {
        let all: Vec<Value> = parts.iter().map(as_json).collect();
        return table::json(&all);
    }
    let mut out = table::table(&[
        "part",
        "update",
        "state",
        "changes",
        "consent",
        "until",
        "waits for",
    ]);
    for part in parts.iter().filter(|part| part.state != "no update") {
        let until = time_from_proto(part.expires_at).map(|at| at.to_string());
        out.add_row([
            Cell::new(&part.part),
            Cell::new(part.update),
            table::state(&part.state),
            Cell::new(table::or_dash(changes(part))),
            Cell::new(consent(part)),
            Cell::new(table::or_dash(until.unwrap_or_default())),
            Cell::new(table::or_dash(&part.reason)),
        ]);
    }
    table::show(&out, "no update is under way");
    Ok(())
}

fn changes(part: &UpdatePart) -> String {
    let sign = |sign: char, items: &[UpdateItem]| -> Vec<String> {
        let items = items.iter();
        items
            .map(|item| format!("{sign}{} {}", item.item_id, item.version))
            .collect()
    };
    let mut lines = sign('+', &part.install);
    lines.extend(sign('-', &part.remove));
    if !part.unit_config.is_empty() {
        lines.push(format!("unit configuration {}", part.unit_config));
    }
    lines.join("\n")
}

fn consent(part: &UpdatePart) -> String {
    match (&part.consent, part.needs_consent) {
        (_, false) => "not needed".into(),
        (None, true) => "asked for".into(),
        (Some(consent), true) if consent.given => "given".into(),
        (Some(consent), true) if consent.reason.is_empty() => "refused".into(),
        (Some(consent), true) => format!("refused: {}", consent.reason),
    }
}

fn as_json(part: &UpdatePart) -> Value {
    let items = |items: &[UpdateItem]| -> Vec<Value> {
        items
            .iter()
            .map(|item| json!({ "item": item.item_id, "version": item.version }))
            .collect()
    };
    let config = (!part.unit_config.is_empty()).then_some(&part.unit_config);
    json!({
        "part": part.part,
        "update": part.update,
        "state": part.state,
        "install": items(&part.install),
        "remove": items(&part.remove),
        "unit_config": config,
        "waits_for": part.waits_for,
        "reason": part.reason,
        "expires_at": time_from_proto(part.expires_at),
        "expired": part.expired,
        "started": part.started,
        "needs_consent": part.needs_consent,
        "consent": part.consent.as_ref().map(|consent| json!({
            "given": consent.given,
            "at": time_from_proto(consent.at),
            "reason": consent.reason,
        })),
        "error": part.error,
    })
}
