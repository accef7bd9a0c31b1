//! `aos update`: updates that wait on this Unit, by the interface that any program on it may use
//! (`communicationmanager.v3`).

use std::time::Duration;

use aos_ipc::proto::{
    aos::unit::v1::{StartUpdateRequest, unit_service_client::UnitServiceClient},
    communicationmanager::v3::{
        SchedulerNotifications, UpdateFotaStatus, UpdateSotaStatus, UpdateState,
        scheduler_notifications::SchedulerNotification,
        update_scheduler_service_client::UpdateSchedulerServiceClient,
    },
};
use aos_ipc::{reason, within};
use clap::{Args, Subcommand, ValueEnum};
use comfy_table::Cell;
use serde_json::{Value, json};
use tonic::{Code, Status as Refusal, Streaming, transport::Channel};

use crate::failure::{Exit, Failure};
use crate::local::{CALL, Local};
use crate::table;

/// How long the present status may take to arrive.
const FIRST: Duration = Duration::from_secs(20);

/// Updates that wait on this Unit, on its main Node, as root.
#[derive(Subcommand)]
pub enum Update {
    /// Show where the software and the firmware part of the update stand.
    Status(Show),
    /// Start an update that is ready and waits, whatever its schedule is.
    ///
    /// The user's consent and the Unit's readiness are still asked, if the Unit is configured so.
    Start(Start),
    /// Show every change until Ctrl-C.
    Watch(Show),
}

/// How to show it.
#[derive(Args)]
pub struct Show {
    /// Print JSON; with `watch` one line a change.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    local: Local,
}

/// What to start.
#[derive(Args)]
pub struct Start {
    /// Only this part; every part that is ready if absent.
    part: Option<Part>,
    /// Try a part once more that has waited too long and was given up.
    #[arg(long, requires = "part")]
    again: bool,
    #[command(flatten)]
    local: Local,
}

/// A part of an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Services, unit configuration, node states.
    Software,
    /// Components.
    Firmware,
}

impl Part {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Software => "software",
            Self::Firmware => "firmware",
        }
    }
}

/// `aos update …`.
pub async fn run(command: Update) -> Result<(), Failure> {
    match command {
        Update::Status(show) => status(&show).await,
        Update::Start(start) => self::start(&start).await,
        Update::Watch(show) => watch(&show).await,
    }
}

/// One part of the update, as CM tells it.
#[derive(Debug, Clone, PartialEq)]
struct Line {
    part: Part,
    state: UpdateState,
    changes: Vec<String>,
    /// What it waits for.
    waits: String,
    /// Why the last update of it did not happen.
    error: String,
    json: Value,
}

impl Line {
    fn of(told: SchedulerNotifications) -> Option<Self> {
        match told.scheduler_notification? {
            SchedulerNotification::SotaStatus(status) => Some(Self::software(&status)),
            SchedulerNotification::FotaStatus(status) => Some(Self::firmware(&status)),
        }
    }

    fn software(status: &UpdateSotaStatus) -> Self {
        let services = |list: &[aos_ipc::proto::communicationmanager::v3::ServiceInfo]| {
            let pairs = list
                .iter()
                .map(|one| json!({ "item": one.service_id, "version": one.version }));
            pairs.collect::<Vec<Value>>()
        };
        let config = status.unit_config.as_ref().map(|config| &config.version);
        let install = status.install_services.iter();
        let remove = status.remove_services.iter();
        let mut changes: Vec<String> = install
            .map(|one| format!("+{} {}", one.service_id, one.version))
            .chain(remove.map(|one| format!("-{} {}", one.service_id, one.version)))
            .collect();
        changes.extend(config.map(|version| format!("unit configuration {version}")));
        Self::new(
            Part::Software,
            status.state(),
            changes,
            status.error.as_ref(),
            json!({
                "install": services(&status.install_services),
                "remove": services(&status.remove_services),
                "unit_config": config,
            }),
        )
    }

    fn firmware(status: &UpdateFotaStatus) -> Self {
        let components = status.components.iter();
        let changes = components
            .clone()
            .map(|one| format!("+{} {}", one.component_id, one.version));
        let install: Vec<Value> = components
            .map(|one| json!({ "item": one.component_id, "version": one.version }))
            .collect();
        Self::new(
            Part::Firmware,
            status.state(),
            changes.clone().collect(),
            status.error.as_ref(),
            json!({ "install": install }),
        )
    }

    fn new(
        part: Part,
        state: UpdateState,
        changes: Vec<String>,
        error: Option<&aos_ipc::proto::common::v1::ErrorInfo>,
        mut json: Value,
    ) -> Self {
        let (mut waits, mut failed) = (String::new(), String::new());
        if let Some(error) = error {
            // Both codes zero is no error: it says what is waited for.
            match (error.aos_code, error.exit_code) {
                (0, 0) => waits.clone_from(&error.message),
                _ => failed.clone_from(&error.message),
            }
        }
        json["part"] = part.as_str().into();
        json["state"] = word(state).into();
        json["waits"] = waits.as_str().into();
        json["error"] = failed.as_str().into();
        Self {
            part,
            state,
            changes,
            waits,
            error: failed,
            json,
        }
    }

    fn about(&self) -> String {
        let parts = [self.waits.as_str(), self.error.as_str()];
        parts
            .iter()
            .find(|text| !text.is_empty())
            .map_or_else(String::new, ToString::to_string)
    }
}

const fn word(state: UpdateState) -> &'static str {
    match state {
        UpdateState::NoUpdate => "none",
        UpdateState::Downloading => "downloading",
        UpdateState::ReadyToUpdate => "ready",
        UpdateState::Updating => "updating",
    }
}

fn refused(what: &str, refusal: &Refusal) -> Failure {
    let failure = Failure::new(what).why(reason(refusal));
    match refusal.code() {
        Code::FailedPrecondition => failure
            .exit(Exit::Refused)
            .hint("`aos update status` says where the update stands"),
        Code::PermissionDenied | Code::Unauthenticated => failure
            .exit(Exit::NotAllowed)
            .hint("run this as root on the main Node"),
        Code::Unavailable => failure
            .exit(Exit::NotReachable)
            .hint("try again in a moment"),
        _ => failure,
    }
}

async fn follow(cm: Channel) -> Result<Streaming<SchedulerNotifications>, Failure> {
    UpdateSchedulerServiceClient::new(cm)
        .max_decoding_message_size(aos_ipc::MAX_MESSAGE)
        .subscribe_notifications(())
        .await
        .map(tonic::Response::into_inner)
        .map_err(|refusal| refused("CM does not say where the update stands", &refusal))
}

async fn next(stream: &mut Streaming<SchedulerNotifications>) -> Result<Line, Failure> {
    loop {
        let told = stream
            .message()
            .await
            .map_err(|refusal| refused("CM does not go on telling", &refusal))?;
        let Some(told) = told else {
            return Err(Failure::new("CM has stopped")
                .hint("start it and try again")
                .exit(Exit::NotReachable));
        };
        if let Some(line) = Line::of(told) {
            return Ok(line);
        }
    }
}

/// The present status of both parts: software first.
async fn present(cm: Channel) -> Result<Vec<Line>, Failure> {
    let both = async {
        let mut stream = follow(cm).await?;
        let firmware = next(&mut stream).await?;
        Ok(vec![next(&mut stream).await?, firmware])
    };
    tokio::time::timeout(FIRST, both).await.map_err(|_| {
        Failure::new("CM does not say where the update stands")
            .why(format!("nothing came within {} s", FIRST.as_secs()))
            .exit(Exit::NotReachable)
    })?
}

async fn status(show: &Show) -> Result<(), Failure> {
    let lines = present(show.local.connect().await?).await?;
    if show.json {
        let all: Vec<&Value> = lines.iter().map(|line| &line.json).collect();
        return table::json(&all);
    }
    let mut out = table::table(&["part", "state", "changes", "waits for, or why it failed"]);
    for line in lines {
        out.add_row([
            Cell::new(line.part.as_str()),
            table::state(word(line.state)),
            Cell::new(table::or_dash(line.changes.join("\n"))),
            Cell::new(table::or_dash(line.about())),
        ]);
    }
    table::show(&out, "");
    Ok(())
}

async fn watch(show: &Show) -> Result<(), Failure> {
    let mut stream = follow(show.local.connect().await?).await?;
    loop {
        let line = tokio::select! {
            line = next(&mut stream) => line?,
            _ = tokio::signal::ctrl_c() => return Ok(()),
        };
        if show.json {
            table::say(line.json.to_string());
            continue;
        }
        let about = line.about();
        let changes = line.changes.join(", ");
        let text: Vec<&str> = [changes.as_str(), about.as_str()]
            .into_iter()
            .filter(|text| !text.is_empty())
            .collect();
        table::say(
            format!(
                "{:<9} {:<12} {}",
                line.part.as_str(),
                word(line.state),
                text.join("; ")
            )
            .trim_end(),
        );
    }
}

async fn start(command: &Start) -> Result<(), Failure> {
    let cm = command.local.connect().await?;
    let parts = match command.part {
        Some(part) => vec![part],
        None => ready(&present(cm.clone()).await?)?,
    };
    for part in parts {
        start_part(cm.clone(), part, command.again).await?;
        table::say(format!("the {} part is started", part.as_str()));
    }
    Ok(())
}

/// The parts that can be started; what is going on if there is none.
fn ready(lines: &[Line]) -> Result<Vec<Part>, Failure> {
    let ready: Vec<Part> = lines
        .iter()
        .filter(|line| line.state == UpdateState::ReadyToUpdate)
        .map(|line| line.part)
        .collect();
    if !ready.is_empty() {
        return Ok(ready);
    }
    let failure = Failure::new("no update is ready to be started").exit(Exit::Refused);
    let going_on = lines.iter().map(|line| {
        let about = line.about();
        let about = if about.is_empty() {
            about
        } else {
            format!(" ({about})")
        };
        format!("{}: {}{about}", line.part.as_str(), word(line.state))
    });
    Err(going_on.fold(failure, Failure::why))
}

async fn start_part(cm: Channel, part: Part, again: bool) -> Result<(), Failure> {
    let what = format!("the {} part cannot be started", part.as_str());
    let answer = if again {
        let ask = StartUpdateRequest {
            part: part.as_str().into(),
            again,
        };
        let started = UnitServiceClient::new(cm)
            .start_update(within(CALL, ask))
            .await;
        started.map(|_| ())
    } else {
        let mut scheduler = UpdateSchedulerServiceClient::new(cm);
        let started = match part {
            Part::Software => scheduler.start_sota_update(within(CALL, ())).await,
            Part::Firmware => scheduler.start_fota_update(within(CALL, ())).await,
        };
        started.map(|_| ())
    };
    answer.map_err(|refusal| refused(&what, &refusal))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use aos_ipc::proto::{
        common::v1::ErrorInfo,
        communicationmanager::v3::{ServiceInfo, UnitConfigInfo},
    };

    use super::*;

    fn software(state: UpdateState, error: Option<(i32, &str)>) -> Line {
        let service = |id: &str, version: &str| ServiceInfo {
            service_id: id.into(),
            version: version.into(),
        };
        Line::software(&UpdateSotaStatus {
            state: state.into(),
            unit_config: Some(UnitConfigInfo {
                version: "2.0.0".into(),
            }),
            install_services: vec![service("web", "2")],
            remove_services: vec![service("web", "1")],
            error: error.map(|(aos_code, message)| ErrorInfo {
                aos_code,
                exit_code: 0,
                message: message.into(),
            }),
            ..UpdateSotaStatus::default()
        })
    }

    #[test]
    fn what_is_waited_for_and_what_failed_are_told_apart() {
        let line = software(UpdateState::ReadyToUpdate, Some((0, "waits: for you")));
        assert_eq!(
            line.changes,
            ["+web 2", "-web 1", "unit configuration 2.0.0"]
        );
        assert_eq!(
            (line.waits.as_str(), line.error.as_str()),
            ("waits: for you", "")
        );
        assert_eq!(line.json["install"][0]["version"], "2");
        assert_eq!(line.json["state"], "ready");
        let line = software(UpdateState::NoUpdate, Some((7, "too late")));
        assert_eq!((line.waits.as_str(), line.error.as_str()), ("", "too late"));
    }

    #[test]
    fn only_what_is_ready_is_started_and_otherwise_it_says_what_is_going_on() {
        let waits = software(UpdateState::ReadyToUpdate, None);
        let none = Line::firmware(&UpdateFotaStatus::default());
        assert_eq!(ready(&[waits, none.clone()]).unwrap(), [Part::Software]);
        let busy = software(UpdateState::Updating, None);
        let failure = ready(&[busy, none]).unwrap_err();
        assert_eq!(failure.code(), Exit::Refused);
        assert_eq!(
            failure.to_string(),
            "error: no update is ready to be started\n  why: software: updating\n  why: firmware: none"
        );
    }
}
