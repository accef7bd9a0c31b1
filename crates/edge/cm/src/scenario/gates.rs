//! Updates that wait, as the cloud and programs on the Unit see it: over real TLS.

use std::time::Duration;

use aos_cloud_protocol::{Body, DesiredStatus, UnitStatus};
use aos_ipc::{
    proto::{
        aos::unit::v1::{
            ConsentRequest, GetUpdateRequest, ReportReadinessRequest, StartUpdateRequest,
            unit_service_client::UnitServiceClient,
        },
        communicationmanager::v3::{
            SchedulerNotifications, UpdateFotaStatus, UpdateSotaStatus, UpdateState,
            scheduler_notifications::SchedulerNotification,
            update_scheduler_service_client::UpdateSchedulerServiceClient,
        },
    },
    within,
};
use aos_pki::CertKind;
use aos_time::{Clock, SystemClock, Zone};
use aos_types::{InstanceState, ItemConfig, ItemState, ItemType, Schedule, tolerant::FromJson};
use serde_json::{Value, json};
use tonic::{Code, Streaming, transport::Channel};

use super::{
    SOON,
    stage::{Stage, desired, item_state, states},
};

fn scheduled(mut status: DesiredStatus, schedule: &Value) -> DesiredStatus {
    status.sota_schedule = Some(Schedule::from_json(schedule).unwrap());
    status
}

fn is_done(status: &UnitStatus, version: &str) -> bool {
    item_state(status, "web", version) == Some(ItemState::Installed)
        && states(status, "web") == [InstanceState::Active]
}

/// A program on the Unit.
struct Tool {
    scheduler: UpdateSchedulerServiceClient<Channel>,
    unit: UnitServiceClient<Channel>,
}

impl Tool {
    async fn of(stage: &Stage, kind: CertKind) -> Self {
        let channel = stage.tools(kind).await;
        let mut tool = Self {
            scheduler: UpdateSchedulerServiceClient::new(channel.clone()),
            unit: UnitServiceClient::new(channel),
        };
        // CM has just been started.
        let look = async {
            while let Err(status) = tool.unit.get_update(GetUpdateRequest {}).await {
                if status.code() != Code::Unavailable {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(SOON, look).await.expect("CM answers");
        tool
    }

    async fn start_sota(&mut self) -> Result<(), tonic::Status> {
        let asked = self.scheduler.start_sota_update(within(SOON, ())).await;
        asked.map(|_| ())
    }

    async fn follow(&mut self) -> Streaming<SchedulerNotifications> {
        let answer = self.scheduler.subscribe_notifications(()).await;
        answer.unwrap().into_inner()
    }

    async fn ready(&mut self, ready: bool, reason: &str) {
        let ask = ReportReadinessRequest {
            ready,
            reason: reason.into(),
            valid_for_secs: 60,
        };
        let answer = self.unit.report_readiness(within(SOON, ask)).await;
        answer.unwrap();
    }

    async fn consent(&mut self, given: bool, update: Option<u64>) -> Result<(), tonic::Status> {
        let ask = ConsentRequest {
            given,
            reason: "later".into(),
            update,
            parts: vec![],
        };
        self.unit.consent(within(SOON, ask)).await.map(|_| ())
    }
}

async fn next(stream: &mut Streaming<SchedulerNotifications>) -> SchedulerNotification {
    let message = tokio::time::timeout(SOON, stream.message()).await;
    let message = message.expect("told in time").unwrap().unwrap();
    message.scheduler_notification.unwrap()
}

/// Reads on until the software part is as wanted.
async fn until(
    stream: &mut Streaming<SchedulerNotifications>,
    wanted: impl Fn(&UpdateSotaStatus) -> bool,
) -> UpdateSotaStatus {
    let look = async {
        loop {
            if let SchedulerNotification::SotaStatus(status) = next(stream).await
                && wanted(&status)
            {
                return status;
            }
        }
    };
    tokio::time::timeout(SOON, look).await.expect("in time")
}

fn says(status: &UpdateSotaStatus, what: &str) -> bool {
    let error = status.error.clone().unwrap_or_default();
    status.state() == UpdateState::ReadyToUpdate
        && (error.aos_code, error.exit_code) == (0, 0)
        && error.message.contains(what)
}

#[tokio::test]
async fn it_waits_for_the_trigger_for_consent_and_for_the_unit_and_then_goes() {
    let mut stage = Stage::new(&["main"]).await;
    stage.options.gates = toml::from_str(
        "consent = ['software']\nreadiness = { timeout_secs = 1, interval_secs = 3 }",
    )
    .unwrap();
    stage.start().await;
    let mut tool = Tool::of(&stage, CertKind::Cm).await;
    tool.ready(true, "").await;
    // The first set needs consent too.
    stage.cloud.desire(desired(&[("web", "1", 1)])).await;
    let mut told = tool.follow().await;
    until(&mut told, |status| says(status, "consent")).await;
    tool.consent(true, None).await.unwrap();
    stage.cloud.whole(|status| is_done(status, "1")).await;
    tool.ready(false, "the vehicle drives").await;

    let mut told = tool.follow().await;
    assert!(
        matches!(next(&mut told).await, SchedulerNotification::FotaStatus(status) if status.state() == UpdateState::NoUpdate)
    );
    until(&mut told, |status| status.state() == UpdateState::NoUpdate).await;
    let refused = tool.start_sota().await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert_eq!(
        refused.message(),
        "the software part is not ready to be updated: there is no update of it"
    );

    let wish = scheduled(desired(&[("web", "2", 1)]), &json!({ "type": "trigger" }));
    stage.cloud.desire(wish).await;
    let status = until(&mut told, |status| says(status, "start it")).await;
    assert_eq!(status.install_services[0].service_id, "web");
    assert_eq!(status.install_services[0].version, "2");
    assert_eq!(status.remove_services[0].version, "1");
    let alert = stage
        .cloud
        .message(|message| {
            matches!(&message.body, Body::Alerts(_)) && format!("{message:?}").contains("waits")
        })
        .await;
    assert!(format!("{alert:?}").contains("the software part of the update waits"));
    let other = tool.scheduler.start_fota_update(within(SOON, ())).await;
    assert_eq!(other.unwrap_err().code(), Code::FailedPrecondition);

    tool.start_sota().await.unwrap();
    until(&mut told, |status| says(status, "consent")).await;
    let shown = tool
        .unit
        .get_update(within(SOON, GetUpdateRequest {}))
        .await;
    let shown = shown.unwrap().into_inner().parts.remove(0);
    assert_eq!(
        (shown.part.as_str(), shown.waits_for.as_str()),
        ("software", "consent")
    );
    assert!(shown.needs_consent && shown.started);
    let wrong = tool.consent(true, Some(shown.update + 1)).await;
    assert_eq!(wrong.unwrap_err().code(), Code::FailedPrecondition);
    tool.consent(false, Some(shown.update)).await.unwrap();
    until(&mut told, |status| says(status, "refused: later")).await;
    tool.consent(true, Some(shown.update)).await.unwrap();
    until(&mut told, |status| says(status, "the vehicle drives")).await;
    assert_eq!(stage.nodes.running("main"), ["web:s:0 1"]);
    tool.ready(true, "").await;
    until(&mut told, |status| status.state() == UpdateState::Updating).await;
    stage.cloud.whole(|status| is_done(status, "2")).await;
    until(&mut told, |status| {
        status.state() == UpdateState::NoUpdate && status.install_services.is_empty()
    })
    .await;
    assert_eq!(stage.nodes.running("main"), ["web:s:0 2"]);
    stage.stop().await;
    assert!(
        matches!(
            tokio::time::timeout(SOON, told.message()).await,
            Ok(Ok(None) | Err(_))
        ),
        "a subscription ends with CM"
    );
}

#[tokio::test]
async fn gap_15_nothing_changes_outside_the_maintenance_window_also_after_a_restart() {
    let mut stage = Stage::new(&["main"]).await;
    stage.options.gates.time_zone = Some("UTC".into());
    stage.start().await;
    stage.settle(desired(&[("web", "1", 1)])).await;
    let opens = SystemClock.now() + Duration::from_secs(4);
    let local = Zone::utc().local(opens);
    let second = local.second_of_day();
    let start = format!(
        "{:02}:{:02}:{:02}",
        second / 3600,
        second / 60 % 60,
        second % 60
    );
    let schedule = json!({ "type": "timetable", "timetable": [
        { "dayOfWeek": local.date().day_of_week(), "timeSlots": [{ "start": start, "end": "24:00" }] },
    ] });
    let wish = scheduled(desired(&[("web", "2", 1)]), &schedule);
    stage.cloud.desire(wish).await;
    stage
        .cloud
        .whole(|status| item_state(status, "web", "2") == Some(ItemState::Pending))
        .await;
    stage.kill().await;
    stage.start().await;
    let mut tool = Tool::of(&stage, CertKind::Iam).await;
    let mut told = tool.follow().await;
    until(&mut told, |status| {
        says(status, "the next time slot begins")
    })
    .await;
    assert_eq!(stage.nodes.running("main"), ["web:s:0 1"]);
    stage.cloud.whole(|status| is_done(status, "2")).await;
    assert!(
        SystemClock.now().as_secs() >= opens.as_secs(),
        "not before the slot"
    );
    stage.stop().await;
}

#[tokio::test]
async fn a_ttl_that_ends_is_reported_and_somebody_may_try_once_more() {
    let mut stage = Stage::new(&["main"]).await;
    stage.start().await;
    stage.settle(desired(&[("web", "1", 1)])).await;
    let schedule = json!({ "type": "trigger", "ttl": 1 });
    let wish = scheduled(desired(&[("web", "2", 1)]), &schedule);
    stage.cloud.desire(wish.clone()).await;
    let failed = |status: &UnitStatus| item_state(status, "web", "2") == Some(ItemState::Failed);
    let status = stage.cloud.whole(failed).await;
    let mut items = status.items.into_iter().flatten();
    let item = items.find(|item| item.version == "2").unwrap();
    let error = item.error.unwrap().message;
    assert!(error.contains("has waited as long as it may"), "{error}");
    // The same again starts nothing.
    stage.cloud.desire(wish).await;
    stage.cloud.status(|status| !status.is_delta).await;
    let mut tool = Tool::of(&stage, CertKind::Cm).await;
    let mut told = tool.follow().await;
    let status = until(&mut told, |status| status.state() == UpdateState::NoUpdate).await;
    assert!(status.error.unwrap().message.contains("as long as it may"));
    assert_eq!(
        tool.start_sota().await.unwrap_err().code(),
        Code::FailedPrecondition
    );
    let again = StartUpdateRequest {
        part: "software".into(),
        again: true,
    };
    tool.unit.start_update(within(SOON, again)).await.unwrap();
    stage.cloud.whole(|status| is_done(status, "2")).await;
    stage.stop().await;
}

#[tokio::test]
async fn a_schedule_that_cannot_be_read_is_reported_and_waits_for_a_person() {
    let mut stage = Stage::new(&["main"]).await;
    stage.start().await;
    stage.settle(desired(&[("web", "1", 1)])).await;
    let mut data = desired(&[("web", "2", 1)]).to_json();
    data["messageType"] = "desiredStatus".into();
    data["sotaSchedule"] = json!({ "type": "timetable", "timetable": [
        { "dayOfWeek": 9, "timeSlots": [{ "start": "00:00", "end": "24:00" }] },
    ] });
    let header =
        json!({"version": 7, "systemId": "unit", "createdAt": "2026-01-01T00:00:00Z", "txn": "t"});
    let message = json!({ "header": header, "data": data }).to_string();
    stage.cloud.raw(&message).await;
    stage
        .cloud
        .message(|message| format!("{message:?}").contains("9 is no day"))
        .await;
    let mut tool = Tool::of(&stage, CertKind::Cm).await;
    let mut told = tool.follow().await;
    until(&mut told, |status| says(status, "start it")).await;
    tool.start_sota().await.unwrap();
    stage.cloud.whole(|status| is_done(status, "2")).await;
    stage.stop().await;
}

#[tokio::test]
async fn a_command_answers_for_the_unit() {
    let mut stage = Stage::new(&["main"]).await;
    stage.start().await;
    stage.settle(desired(&[("web", "1", 1)])).await;
    stage.stop().await;
    let folder = tempfile::tempdir().unwrap();
    let parked = folder.path().join("parked");
    let text = format!(
        "readiness = {{ command = ['/bin/sh', '-c', 'test -e {}'], timeout_secs = 1, interval_secs = 1 }}",
        parked.display()
    );
    stage.options.gates = toml::from_str(&text).unwrap();
    stage.start().await;
    let mut tool = Tool::of(&stage, CertKind::Cm).await;
    let mut told = tool.follow().await;
    stage.cloud.desire(desired(&[("web", "2", 1)])).await;
    until(&mut told, |status| says(status, "exit code 1")).await;
    assert_eq!(stage.nodes.running("main"), ["web:s:0 1"]);
    std::fs::write(&parked, "").unwrap();
    stage.cloud.whole(|status| is_done(status, "2")).await;
    stage.stop().await;
}

#[tokio::test]
async fn only_tools_of_the_main_node_may_start_or_follow() {
    let mut stage = Stage::new(&["main"]).await;
    stage.start().await;
    let mut tool = Tool::of(&stage, CertKind::Sm).await;
    let denied = Some(Code::PermissionDenied);
    let code = |answer: Result<(), tonic::Status>| answer.err().map(|status| status.code());
    assert_eq!(code(tool.start_sota().await), denied);
    assert_eq!(code(tool.consent(true, None).await), denied);
    let follow = tool.scheduler.subscribe_notifications(()).await;
    assert_eq!(code(follow.map(|_| ())), denied);
    stage.stop().await;
}

#[tokio::test]
async fn who_does_not_read_is_given_the_newest_and_too_many_are_refused() {
    let mut stage = Stage::new(&["main"]).await;
    stage.start().await;
    let mut tool = Tool::of(&stage, CertKind::Cm).await;
    let mut slow = tool.follow().await;
    let mut others = Vec::new();
    let refused = loop {
        match tool.scheduler.subscribe_notifications(()).await {
            Ok(answer) => others.push(answer.into_inner()),
            Err(status) => break status,
        }
        assert!(others.len() < 1000, "bounded");
    };
    assert_eq!(refused.code(), Code::ResourceExhausted);
    drop(others);
    for version in ["1", "2", "3"] {
        stage.settle(desired(&[("web", version, 1)])).await;
    }
    let wish = scheduled(desired(&[("web", "4", 1)]), &json!({ "type": "trigger" }));
    stage.cloud.desire(wish).await;
    let status = until(&mut slow, |status| says(status, "start it")).await;
    assert_eq!(status.install_services[0].version, "4");
    stage.stop().await;
}

/// Reads on until the firmware part is as wanted.
async fn until_firmware(
    stream: &mut Streaming<SchedulerNotifications>,
    wanted: impl Fn(&UpdateFotaStatus) -> bool,
) -> UpdateFotaStatus {
    let look = async {
        loop {
            if let SchedulerNotification::FotaStatus(status) = next(stream).await
                && wanted(&status)
            {
                return status;
            }
        }
    };
    tokio::time::timeout(SOON, look).await.expect("in time")
}

#[tokio::test]
async fn what_a_firmware_update_changes_is_told_also_if_it_only_removes() {
    let mut stage = Stage::new(&["main"]).await;
    stage.start().await;
    stage.images.configure(ItemConfig {
        runtimes: vec!["crun".into()],
        ..ItemConfig::default()
    });
    let mut tool = Tool::of(&stage, CertKind::Cm).await;
    let mut told = tool.follow().await;
    let with = |services: &[(&str, &str, u64)]| {
        let mut wish = desired(services);
        for item in wish.items.iter_mut().flatten() {
            if item.item.as_str() == "boot" {
                item.item_type = ItemType::Component;
            }
        }
        wish.fota_schedule = Schedule::from_json(&json!({ "type": "trigger" })).ok();
        wish
    };
    let waits = |status: &UpdateFotaStatus| status.state() == UpdateState::ReadyToUpdate;
    let components = |status: UpdateFotaStatus| -> Vec<(String, String, String)> {
        let all = status.components.into_iter();
        all.map(|one| (one.component_id, one.component_type, one.version))
            .collect()
    };
    let one = |version: &str| vec![("boot".to_owned(), "crun".to_owned(), version.to_owned())];
    stage.cloud.desire(with(&[("boot", "1", 1)])).await;
    let status = until_firmware(&mut told, waits).await;
    assert_eq!(components(status), one("1"));
    let started = tool.scheduler.start_fota_update(within(SOON, ())).await;
    started.unwrap();
    until_firmware(&mut told, |status| status.state() == UpdateState::NoUpdate).await;
    // It only goes.
    stage.cloud.desire(with(&[])).await;
    let status = until_firmware(&mut told, waits).await;
    assert_eq!(components(status), one(""));
    // Nothing comes or goes of the software, and more instances are asked for.
    stage
        .settle(with(&[("boot", "1", 1), ("web", "1", 1)]))
        .await;
    let mut wish = with(&[("boot", "1", 1), ("web", "1", 2)]);
    wish.sota_schedule = Schedule::from_json(&json!({ "type": "trigger" })).ok();
    stage.cloud.desire(wish).await;
    let status = until(&mut told, |status| {
        status.state() == UpdateState::ReadyToUpdate
    })
    .await;
    assert!(status.rebalance_request);
    assert_eq!(status.install_services, []);
    stage.stop().await;
}
