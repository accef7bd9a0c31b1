//! What is ordered of a Unit beside services: Nodes, unit configuration, schedules, environment variables.

use std::time::Duration;

use aos_api::{ChangeAction, paths};
use aos_db::{
    DownloadReport, EnvReport, InstanceReport, LinkWrite, UnitConfigReport, UnitStatusReport,
};
use aos_types::{
    ErrorInfo, InstanceIdent, InstanceState, ItemId, ItemType, NodeId, RuntimeId, SubjectId,
    UnitConfigState,
};
use http::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    assignments::{main_node, provision},
    bench::{As, Bench},
};

struct World {
    bench: Bench,
    owner: As,
    unit: Uuid,
    model: String,
}

/// A provisioned Unit `car` of a model, with one Node.
async fn world() -> World {
    let bench = Bench::new().await;
    let owner = bench.owner().await;
    bench
        .post(
            &owner,
            paths::UNITS,
            json!({"system_uid": "car", "unit_model": "vm;1"}),
        )
        .await
        .expect(201);
    let unit = provision(&bench, &owner).await;
    let models = bench.get(&owner, paths::UNIT_MODELS).await.expect(200);
    let model = models["items"][0]["id"].as_str().unwrap().to_owned();
    let world = World {
        bench,
        owner,
        unit,
        model,
    };
    world
        .reports(UnitStatusReport {
            nodes: Some(vec![main_node("amd64")]),
            ..UnitStatusReport::default()
        })
        .await;
    world
}

impl World {
    async fn reports(&self, report: UnitStatusReport) {
        self.bench
            .db
            .apply_status(self.unit, &report, &LinkWrite::default())
            .await
            .unwrap();
    }

    /// What the Unit tells of downloads is added up while it downloads, and then forgotten.
    async fn downloads_are_added_up(&self) {
        let at = aos_time::Timestamp::from_secs(1_800_000_000);
        let told = |digest: &str, here, finished, hindrance: Option<&str>| DownloadReport {
            at,
            digest: format!("sha256:{}", digest.repeat(64)).parse().unwrap(),
            here,
            total: 1_000,
            finished,
            hindrance: hindrance.map(str::to_owned),
        };
        let stage = |stage| UnitStatusReport {
            delta: true,
            update: Some(aos_api::UnitUpdate {
                stage,
                goes_back: false,
                waits: Vec::new(),
                failure: None,
                rollback: None,
            }),
            ..UnitStatusReport::default()
        };
        let tell = async |downloads: &[DownloadReport]| {
            let (retention, none) = (aos_db::Retention::default(), LinkWrite::default());
            let db = &self.bench.db;
            db.keep_alerts(self.unit, (&[], downloads), &[], &retention, &none)
                .await
                .unwrap();
            let unit = self.read("/api/v11/units/car/").await;
            unit["download"].clone()
        };
        self.reports(stage(aos_api::UpdateStage::Downloading)).await;
        assert_eq!(tell(&[]).await, Value::Null);
        let told_first = [told("a", 100, false, None), told("b", 0, false, None)];
        let sum = tell(&told_first).await;
        assert_eq!(
            sum,
            json!({"bytes_here": 100, "bytes_total": 2000, "blobs": 2, "blobs_here": 0, "hindrance": null})
        );
        // The end of what nobody heard of is no news.
        let sum = tell(&[
            told("a", 600, false, Some("the server hung up")),
            told("b", 1_000, true, None),
            told("c", 1_000, true, None),
        ])
        .await;
        let sum: aos_api::UnitDownload = serde_json::from_value(sum).unwrap();
        assert_eq!((sum.blobs, sum.blobs_here, sum.percent()), (2, 1, 80));
        assert_eq!(sum.text(), "80 % of 0.0 MB; broke off: the server hung up");
        // All are here, but the Unit does not say yet that no more are to come.
        let sum = tell(&[told("a", 1_000, true, None)]).await;
        assert_eq!(
            (&sum["blobs_here"], &sum["hindrance"]),
            (&json!(2), &Value::Null)
        );
        self.reports(stage(aos_api::UpdateStage::Pending)).await;
        self.reports(stage(aos_api::UpdateStage::Downloading)).await;
        assert_eq!(tell(&[]).await, Value::Null);
    }

    async fn call(&self, method: Method, path: &str, body: Value) -> crate::bench::Answer {
        self.bench.call(&self.owner, method, path, Some(body)).await
    }

    async fn read(&self, path: &str) -> Value {
        self.bench.get(&self.owner, path).await.expect(200)
    }

    /// What is written about the Unit, and about what people did.
    async fn texts(&self) -> String {
        let timeline = self.read("/api/v11/units/car/timeline/?limit=1000").await;
        let audit = self.read("/api/v11/audit/?limit=1000").await;
        format!("{timeline}{audit}")
    }
}

#[tokio::test]
async fn a_node_is_paused_and_resumed() {
    let world = world().await;
    let mut changes = world.bench.db.changes();
    let node = "/api/v11/units/car/nodes/main/";
    let answer = world
        .call(Method::PATCH, node, json!({"wanted_state": "paused"}))
        .await
        .expect(200);
    // Ordered, but it is so only when the Unit says so.
    assert_eq!(answer["wanted_state"], "paused");
    assert_eq!(answer["state"], "provisioned");
    assert!(
        std::iter::from_fn(|| changes.try_recv().ok())
            .any(|change| change.id == world.unit && change.action == ChangeAction::Desired)
    );
    let input = world.bench.db.unit_for_compose(world.unit).await.unwrap();
    let composed = aos_compose::compose(&input.input(&Default::default()).unwrap()).desired;
    assert_eq!(
        composed.to_json()["nodes"],
        json!([{"item": {"codename": "main"}, "state": "paused"}])
    );
    // Ordering the same again changes nothing.
    world
        .call(Method::PATCH, node, json!({"wanted_state": "paused"}))
        .await
        .expect(200);
    assert!(changes.try_recv().is_err());
    world
        .call(Method::PATCH, node, json!({"wanted_state": "provisioned"}))
        .await
        .expect(200);
    let texts = world.texts().await;
    assert!(texts.contains("ordered it to pause"), "{texts}");
    assert!(
        texts.contains("node.pause") && texts.contains("node.resume"),
        "{texts}"
    );
    for (path, body, status) in [
        (
            "/api/v11/units/car/nodes/other/",
            json!({"wanted_state": "paused"}),
            404,
        ),
        (node, json!({"wanted_state": "burning"}), 422),
        (node, json!({}), 422),
    ] {
        let answer = world.call(Method::PATCH, path, body).await;
        assert_eq!(answer.status, status, "{}", answer.json());
    }
}

#[tokio::test]
async fn a_unit_is_given_no_model_whose_unit_configuration_it_would_refuse() {
    let world = world().await;
    let document = |version: &str, priority: i64| {
        json!({"formatVersion": "1", "version": version,
               "nodes": [{"nodeGroupSubject": {"codename": "vm"}, "priority": priority}]})
    };
    let configs = paths::fill(paths::UNIT_CONFIGS, &[&world.model]);
    let body = json!({"unit_config": document("1.1.0", 1), "order": true});
    world.call(Method::POST, &configs, body).await.expect(201);
    world
        .reports(UnitStatusReport {
            delta: true,
            unit_config: Some(vec![UnitConfigReport {
                version: "1.1.0".into(),
                state: UnitConfigState::Installed,
                error: None,
            }]),
            ..UnitStatusReport::default()
        })
        .await;
    for (name, version, priority) in [
        ("older", "1.0.0", 1),
        ("other", "1.1.0", 2),
        ("same", "1.1.0", 1),
        ("newer", "1.2.0", 3),
    ] {
        let body =
            json!({"name": name, "version": "1", "unit_config": document(version, priority)});
        world
            .call(Method::POST, paths::UNIT_MODELS, body)
            .await
            .expect(201);
    }
    let give = |model: &str| {
        let body = json!({"unit_model": format!("{model};1")});
        world.call(Method::PATCH, "/api/v11/units/car/", body)
    };
    let older = give("older").await.expect(409).to_string();
    assert!(older.contains("would be a step back"), "{older}");
    let other = give("other").await.expect(409).to_string();
    assert!(other.contains("only under a greater version"), "{other}");
    assert_eq!(
        world.read("/api/v11/units/car/").await["unit_model"]["name"],
        "vm"
    );
    for model in ["same", "newer"] {
        let unit = give(model).await.expect(200);
        assert_eq!(unit["unit_model"]["name"], model);
    }
}

#[tokio::test]
async fn a_unit_configuration_is_ordered_for_one_unit_and_for_all_of_a_model() {
    let world = world().await;
    let configs = paths::fill(paths::UNIT_CONFIGS, &[&world.model]);
    let store = |version: &str, order: bool| {
        let body = json!({"unit_config": {"formatVersion": "1", "version": version, "nodes": []}, "order": order});
        world.call(Method::POST, &configs, body)
    };
    store("1.0.0", true).await.expect(201);
    store("2.0.0", false).await.expect(201);
    store("3.0.0", false).await.expect(201);
    let of_unit = "/api/v11/units/car/unit-config/";
    let order = world.read(of_unit).await;
    assert_eq!(order["wanted"], "1.0.0", "storing alone orders nothing");
    assert_eq!(
        (&order["ordered_for"], &order["progress"]),
        (&json!("model"), &json!("waiting"))
    );

    let answer = world
        .call(Method::PUT, of_unit, json!({"version": "2.0.0"}))
        .await
        .expect(200);
    assert_eq!(answer["ordered_for"], "unit");
    let composed = world.bench.db.unit_for_compose(world.unit).await.unwrap();
    assert_eq!(composed.unit_config.unwrap().version, "2.0.0");
    let config = |version: &str, state, why: Option<&str>| UnitConfigReport {
        version: version.into(),
        state,
        error: why.map(|why| ErrorInfo {
            aos_code: 1,
            exit_code: 0,
            message: why.into(),
        }),
    };
    let reported = |configs: Vec<UnitConfigReport>| UnitStatusReport {
        delta: true,
        unit_config: Some(configs),
        ..UnitStatusReport::default()
    };
    world
        .reports(reported(vec![
            config("1.0.0", UnitConfigState::Installed, None),
            config("2.0.0", UnitConfigState::Failed, Some("no node main")),
        ]))
        .await;
    let order = world.read(of_unit).await;
    assert_eq!(order["progress"], "failed");
    assert_eq!(order["installed"], "1.0.0");
    assert_eq!(order["failed"]["version"], "2.0.0");
    assert_eq!(order["failed"]["error"]["message"], "no node main");
    // What failed can be taken back: the Unit still has the older one in force.
    let gone = world.bench.delete(&world.owner, of_unit).await;
    assert_eq!(gone.status, 204);
    assert_eq!(world.read(of_unit).await["progress"], "installed");

    // All Units of the model, also this one.
    let of_model = paths::fill(paths::MODEL_UNIT_CONFIG, &[&world.model]);
    let answer = world
        .call(Method::PUT, &of_model, json!({"version": "3.0.0"}))
        .await
        .expect(200);
    assert_eq!(answer["ordered_unit_config"], "3.0.0");
    world
        .reports(reported(vec![config(
            "3.0.0",
            UnitConfigState::Installed,
            None,
        )]))
        .await;
    let units = world
        .read(&paths::fill(paths::MODEL_UNITS, &[&world.model]))
        .await;
    assert_eq!(units["items"][0]["system_uid"], "car");
    assert_eq!(units["items"][0]["unit_config"]["progress"], "installed");

    // Nobody goes back.
    for (path, body) in [
        (of_unit, json!({"version": "2.0.0"})),
        (of_model.as_str(), json!({"version": "1.0.0"})),
    ] {
        let refused = world.call(Method::PUT, path, body).await.expect(409);
        let text = refused["message"].as_str().unwrap();
        assert!(text.contains("Unit car has 3.0.0"), "{text}");
        assert!(
            refused["hint"].as_str().unwrap().contains("higher version"),
            "{refused}"
        );
    }
    let refused = world
        .call(Method::PUT, of_unit, json!({"version": "9.0.0"}))
        .await
        .expect(422);
    assert_eq!(refused["field"], "version");
    assert!(
        refused["message"]
            .as_str()
            .unwrap()
            .contains("3.0.0, 2.0.0, 1.0.0"),
        "{refused}"
    );
}

#[tokio::test]
async fn schedules_of_the_unit_count_before_those_of_its_model() {
    let world = world().await;
    let of_unit = "/api/v11/units/car/update-schedule/";
    let of_model = paths::fill(paths::MODEL_SCHEDULE, &[&world.model]);
    let night = json!({"type": "timetable", "timetable": [{"day_of_week": 1,
        "time_slots": [{"start": "22:00", "end": "24:00"}]}]});
    world
        .call(
            Method::PUT,
            &of_model,
            json!({"sota": night, "fota": {"type": "trigger"}}),
        )
        .await
        .expect(200);
    let set = world
        .call(
            Method::PUT,
            of_unit,
            json!({"sota": {"type": "force", "ttl": 3600}}),
        )
        .await
        .expect(200);
    assert_eq!(set["in_force"]["sota"]["type"], "force");
    assert_eq!(set["in_force"]["fota"]["type"], "trigger");
    assert_eq!(set["of_model"]["sota"], night);
    let input = world.bench.db.unit_for_compose(world.unit).await.unwrap();
    let composed = aos_compose::compose(&input.input(&Default::default()).unwrap()).desired;
    assert_eq!(
        composed.to_json()["sotaSchedule"],
        json!({"type": "force", "ttl": 3600})
    );
    // The Unit says nothing any more: its model's counts.
    world
        .call(Method::PUT, of_unit, json!({}))
        .await
        .expect(200);
    let input = world.bench.db.unit_for_compose(world.unit).await.unwrap();
    let composed = aos_compose::compose(&input.input(&Default::default()).unwrap()).desired;
    assert_eq!(
        composed.to_json()["sotaSchedule"]["timetable"][0]["timeSlots"],
        json!([{"start": "22:00:00", "end": "24:00:00"}])
    );
    for path in [of_unit, of_model.as_str()] {
        let bad = json!({"fota": {"type": "timetable", "timetable": [{"day_of_week": 3,
            "time_slots": [{"start": "05:00", "end": "04:00"}]}]}});
        let refused = world.call(Method::PUT, path, bad).await.expect(422);
        assert_eq!(refused["field"], "fota.timetable[0].time_slots[0]");
    }
    assert!(world.texts().await.contains("when told on the Unit"));
}

#[tokio::test]
async fn environment_variables_are_set_without_their_values_being_told() {
    const SECRET: &str = "hunter2 is a secret";
    let world = world().await;
    let published = world
        .bench
        .publish(&world.owner, &[("http", "1.0.0")])
        .await;
    let service = published["items"][0]["service_id"].as_str().unwrap();
    let at = "/api/v11/units/car/env-vars/";
    let body = json!({"service": "http", "instance_id": 1, "variables": [
        {"name": "TOKEN", "value": SECRET}, {"name": "DEBUG", "value": "1", "ttl": 60}]});
    let all = world.call(Method::POST, at, body).await.expect(201);
    assert_eq!(all["total"], 2);
    assert!(!all.to_string().contains(SECRET), "{all}");
    assert_eq!(all["items"][1]["name"], "TOKEN");
    assert_eq!(all["items"][1]["value"], Value::Null);
    assert_eq!(all["items"][1]["state"], "waiting_for_unit");
    assert_eq!(all["items"][1]["service"]["codename"], "http");
    // Whoever asks for the values gets them, and the audit says who did.
    let shown = world.read(&format!("{at}?reveal=true")).await;
    assert_eq!(shown["items"][1]["value"], SECRET);
    let texts = world.texts().await;
    assert!(texts.contains("env_vars.reveal"), "{texts}");
    assert!(texts.contains("set TOKEN for service http, instance 1"));
    assert!(!texts.contains(SECRET), "a value is told");

    // The Unit takes the set over and says what became of it.
    let db = &world.bench.db;
    let none = LinkWrite::default();
    db.env_sent(world.unit, "txn-1", &none).await.unwrap();
    db.desired_acked(world.unit, "txn-1", &none).await.unwrap();
    assert_eq!(world.read(at).await["items"][1]["state"], "taken");
    let said = |index: u64, error: Option<&str>| EnvReport {
        instance: InstanceIdent {
            item: ItemId::new(service).unwrap(),
            subject: SubjectId::new("s").unwrap(),
            index,
            item_type: ItemType::Service,
            preinstalled: false,
        },
        name: "TOKEN".into(),
        error: error.map(|text| ErrorInfo {
            aos_code: 1,
            exit_code: 0,
            message: text.into(),
        }),
    };
    db.apply_env_statuses(world.unit, &[said(1, None), said(2, Some("no"))], &none)
        .await
        .unwrap();
    let token = world.read(at).await["items"][1].clone();
    assert_eq!(token["state"], "set", "instance 2 is not meant: {token}");
    assert_eq!(token["instances"].as_array().unwrap().len(), 1);
    db.apply_env_statuses(world.unit, &[said(1, Some("too long"))], &none)
        .await
        .unwrap();
    let token = world.read(at).await["items"][1].clone();
    assert_eq!(token["state"], "failed");
    assert_eq!(token["instances"][0]["error"]["message"], "too long");

    // The same name for the same instances is replaced, and must be sent anew.
    let body = json!({"service": "http", "instance_id": 1, "variables": [{"name": "TOKEN", "value": "x"}]});
    let all = world.call(Method::POST, at, body).await.expect(201);
    assert_eq!(all["total"], 2);
    assert_eq!(all["items"][1]["state"], "waiting_for_unit");
    world.bench.clock.advance(Duration::from_secs(61));
    let left = world.read(at).await;
    assert_eq!(left["total"], 1, "DEBUG has expired: {left}");
    let id = left["items"][0]["id"].as_str().unwrap();
    let gone = world
        .bench
        .delete(&world.owner, &format!("{at}{id}/"))
        .await;
    assert_eq!(gone.status, 204);
    assert_eq!(
        db.env_set(world.unit).await.unwrap().unwrap().variables,
        [],
        "an empty set takes all away"
    );

    for (variables, field) in [
        (json!([]), "variables"),
        (json!([{"name": "A=B", "value": ""}]), "variables.name"),
        (json!([{"name": "", "value": ""}]), "variables.name"),
        (
            json!([{"name": "A", "value": ""}, {"name": "A", "value": ""}]),
            "variables.name",
        ),
        (
            json!([{"name": "A", "value": "x".repeat(10_241)}]),
            "variables.value",
        ),
        (
            json!([{"name": "A", "value": "x", "ttl": 0}]),
            "variables.ttl",
        ),
    ] {
        let refused = world
            .call(Method::POST, at, json!({"variables": variables}))
            .await
            .expect(422);
        assert_eq!(refused["field"], field);
    }
}

#[tokio::test]
async fn one_request_assigns_and_says_so_once_and_is_all_or_nothing() {
    let world = world().await;
    world
        .bench
        .publish(&world.owner, &[("http", "1.0.0"), ("mqtt", "1.0.0")])
        .await;
    let body = json!({"subject": "fleet", "system_uids": ["car"], "services": [
        {"service": "http"}, {"service": "mqtt", "overrides": {"num_instances": 2, "independent": true}}]});
    let mut changes = world.bench.db.changes();
    let subject = world
        .call(Method::POST, paths::ASSIGNMENTS, body.clone())
        .await
        .expect(201);
    assert_eq!(subject["unit_count"], 1);
    assert_eq!(subject["services"][1]["overrides"]["independent"], true);
    let desired = std::iter::from_fn(|| changes.try_recv().ok())
        .filter(|change| change.action == ChangeAction::Desired)
        .count();
    assert_eq!(desired, 1, "the Unit gets one new desired state");
    // Again: the same subject, nothing is there twice.
    let again = world
        .call(Method::POST, paths::ASSIGNMENTS, body)
        .await
        .expect(201);
    assert_eq!(
        (&again["id"], &again["unit_count"]),
        (&subject["id"], &json!(1))
    );
    // A service that does not exist: no subject is left behind.
    let body = json!({"subject": "other", "system_uids": ["car"], "services": [{"service": "http"}, {"service": "nonsense"}]});
    let refused = world.call(Method::POST, paths::ASSIGNMENTS, body).await;
    assert_eq!(refused.status, 404);
    assert_eq!(world.read(paths::SUBJECTS).await["total"], 1);
    let body = json!({"subject": "fleet", "is_group": false});
    let refused = world
        .call(Method::POST, paths::ASSIGNMENTS, body)
        .await
        .expect(422);
    assert_eq!(refused["field"], "is_group");
}

#[tokio::test]
async fn a_subject_that_the_unit_reports_brings_its_services() {
    let world = world().await;
    world
        .bench
        .publish(&world.owner, &[("http", "1.0.0")])
        .await;
    let report = |subjects: &[&str]| UnitStatusReport {
        delta: true,
        subjects: Some(subjects.iter().map(|it| (*it).to_owned()).collect()),
        ..UnitStatusReport::default()
    };
    world.reports(report(&["driver-7"])).await;
    let shown = world.read("/api/v11/units/car/subjects/").await;
    assert_eq!(shown["items"][0]["label"], "driver-7");
    assert_eq!(shown["items"][0]["id"], Value::Null);
    assert_eq!(shown["items"][0]["reported"], true);

    let body = json!({"subject": "Driver seven", "reported_as": "driver-7", "services": [{"service": "http"}]});
    let subject = world
        .call(Method::POST, paths::ASSIGNMENTS, body)
        .await
        .expect(201);
    let id = subject["id"].as_str().unwrap();
    let shown = world.read("/api/v11/units/car/subjects/").await;
    assert_eq!(shown["total"], 1);
    assert_eq!(shown["items"][0]["id"], id);
    assert_eq!(shown["items"][0]["member"], false);
    let units = world
        .read(&paths::fill(paths::SUBJECT_REPORTED, &[id]))
        .await;
    assert_eq!(units["items"][0]["system_uid"], "car");
    let composed = async || {
        let input = world.bench.db.unit_for_compose(world.unit).await.unwrap();
        aos_compose::compose(&input.input(&Default::default()).unwrap())
            .desired
            .to_json()
    };
    let desired = composed().await;
    assert_eq!(
        desired["subjects"],
        json!([{"identity": {"id": "driver-7"}, "type": "group", "isReportedFromUnit": true}])
    );
    assert_eq!(desired["instances"][0]["subject"]["id"], "driver-7");

    let mut changes = world.bench.db.changes();
    world.reports(report(&[])).await;
    assert!(
        std::iter::from_fn(|| changes.try_recv().ok())
            .any(|change| change.action == ChangeAction::Desired)
    );
    assert_eq!(composed().await["instances"], json!([]));
    let taken = json!({"label": "another", "reported_as": "driver-7"});
    let refused = world.call(Method::POST, paths::SUBJECTS, taken).await;
    assert_eq!(refused.status, 409);
    let bad = json!({"label": "another", "reported_as": ""});
    let refused = world
        .call(Method::POST, paths::SUBJECTS, bad)
        .await
        .expect(422);
    assert_eq!(refused["field"], "reported_as");
}

#[tokio::test]
async fn why_says_for_each_instance_which_nodes_are_excluded_by_which_rule() {
    let world = world().await;
    let published = world
        .bench
        .publish(&world.owner, &[("http", "1.0.0")])
        .await;
    let service = published["items"][0]["service_id"].as_str().unwrap();
    let body = json!({"subject": "fleet", "system_uids": ["car"], "services": [
        {"service": "http", "overrides": {"num_instances": 2, "labels": ["edge"]}}]});
    let subject = world
        .call(Method::POST, paths::ASSIGNMENTS, body)
        .await
        .expect(201);
    let input = world.bench.db.unit_for_compose(world.unit).await.unwrap();
    let desired = aos_compose::compose(&input.input(&Default::default()).unwrap()).desired;
    world
        .bench
        .db
        .store_desired(
            world.unit,
            &aos_db::NewDesired {
                document: desired.to_json().to_string(),
                content: aos_db::DesiredContent {
                    items: vec![aos_db::DesiredItem {
                        item_id: service.into(),
                        version: "1.0.0".into(),
                    }],
                    instances: vec![aos_db::DesiredInstances {
                        item_id: service.into(),
                        subject_id: subject["id"].as_str().unwrap().into(),
                        num_instances: 2,
                        priority: 0,
                        labels: vec!["edge".into()],
                    }],
                },
                reason: String::new(),
            },
        )
        .await
        .unwrap();
    world
        .reports(UnitStatusReport {
            delta: true,
            instances: Some(vec![InstanceReport {
                ident: InstanceIdent {
                    item: ItemId::new(service).unwrap(),
                    subject: SubjectId::new(subject["id"].as_str().unwrap()).unwrap(),
                    index: 1,
                    item_type: ItemType::Service,
                    preinstalled: false,
                },
                version: "1.0.0".into(),
                node: Some(NodeId::new("main").unwrap()),
                runtime: Some(RuntimeId::new("r").unwrap()),
                state: InstanceState::Failed,
                state_checksum: None,
                error: Some(ErrorInfo {
                    aos_code: 1,
                    exit_code: 0,
                    message: "no Node fits: main has no label edge".into(),
                }),
            }]),
            ..UnitStatusReport::default()
        })
        .await;
    let why = world.read("/api/v11/units/car/why/?service=http").await;
    let instances = why["instances"].as_array().unwrap();
    assert_eq!(instances.len(), 2);
    assert_eq!(instances[0]["run_state"], Value::Null);
    assert_eq!(instances[0]["nodes"][0]["excluded_by"], "labels");
    assert_eq!(instances[0]["nodes"][0]["text"], "it has no label edge");
    assert_eq!(
        instances[1]["waits_for"],
        "no Node fits: main has no label edge"
    );
    // What the Unit said of its update since is there too, the newest first.
    for text in ["CM: waits for a slot", "CM: waits for consent"] {
        let said =
            aos_db::Happening::new(aos_api::TimelineKind::Update, aos_api::Severity::Info, text);
        let none = LinkWrite::default();
        world
            .bench
            .db
            .note(world.unit, &[said], &none)
            .await
            .unwrap();
        world.bench.clock.advance(Duration::from_secs(1));
    }
    world
        .bench
        .db
        .desired_sent(world.unit, 1, "t", &LinkWrite::default())
        .await
        .unwrap();
    world
        .bench
        .db
        .desired_acked(world.unit, "t", &LinkWrite::default())
        .await
        .unwrap();
    let why = world.read("/api/v11/units/car/why/").await;
    assert_eq!(
        why["update"],
        json!(["CM: waits for consent", "CM: waits for a slot"])
    );
    world.downloads_are_added_up().await;
    // A paused Node is excluded for that, before anything else is looked at.
    world
        .call(
            Method::PATCH,
            "/api/v11/units/car/nodes/main/",
            json!({"wanted_state": "paused"}),
        )
        .await
        .expect(200);
    let why = world.read("/api/v11/units/car/why/").await;
    assert_eq!(
        why["instances"][0]["nodes"][0]["excluded_by"], "state",
        "{why}"
    );
    // What the Unit itself says counts before what the cloud can tell, as long as it is true.
    let at = aos_time::Timestamp::from_secs(1_800_000_000);
    let update = aos_api::UnitUpdate {
        stage: aos_api::UpdateStage::Pending,
        goes_back: false,
        waits: vec![aos_api::UpdateWait {
            part: aos_api::UpdatePart::Software,
            reason: "the vehicle drives".into(),
            until: None,
        }],
        failure: Some(aos_api::UpdateFailure {
            stage: aos_api::UpdateStage::Launching,
            at,
            error: Some(
                ErrorInfo {
                    aos_code: 1,
                    exit_code: 0,
                    message: "launching took longer than it may".into(),
                }
                .into(),
            ),
            attempts: 2,
            next_try: Some(at),
        }),
        rollback: None,
    };
    world
        .reports(UnitStatusReport {
            delta: true,
            update: Some(update),
            placements: Some(vec![aos_db::PlacementReport {
                item_id: service.into(),
                subject_id: subject["id"].as_str().unwrap().into(),
                instance: 1,
                node: None,
                reason: "no runtimes with requested RAM".into(),
                excluded: vec![("main".into(), "ram".into(), "10 bytes are left".into())],
            }]),
            ..UnitStatusReport::default()
        })
        .await;
    let why = world.read("/api/v11/units/car/why/").await;
    let said = why["update"].to_string();
    assert!(
        said.contains("the software part waits: the vehicle drives")
            && said.contains("launching took longer than it may (attempt 2, tried again at 2027"),
        "{said}"
    );
    let held = &why["instances"][1];
    assert_eq!(held["placement"], "no runtimes with requested RAM");
    assert_eq!(held["nodes"].as_array().unwrap().len(), 1);
    assert_eq!(held["nodes"][0]["excluded_by"], "ram");
    assert_eq!(held["nodes"][0]["said_by_unit"], true);
    assert_eq!(why["instances"][0]["nodes"][0]["said_by_unit"], false);
    let unit = world.read("/api/v11/units/car/").await;
    assert_eq!(unit["update"]["stage"], "pending");
    assert_eq!(unit["update"]["failure"]["attempts"], 2);
    // A delta that says nothing of it changes nothing; a full status that says nothing takes it back.
    world
        .reports(UnitStatusReport {
            delta: true,
            ..UnitStatusReport::default()
        })
        .await;
    let unit = world.read("/api/v11/units/car/").await;
    assert_eq!(unit["update"]["stage"], "pending");
    world.reports(UnitStatusReport::default()).await;
    let unit = world.read("/api/v11/units/car/").await;
    assert_eq!(unit["update"], Value::Null);
}
