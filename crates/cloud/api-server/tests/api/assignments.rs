use aos_api::paths;
use aos_db::{
    DesiredContent, DesiredInstances, DesiredItem, InstanceReport, ItemReport, LinkWrite,
    NewDesired, NodeReport, UnitStatusReport,
};
use aos_types::{
    ArchInfo, ErrorInfo, InstanceIdent, InstanceState, ItemId, ItemState, ItemType, NodeId,
    NodeInfo, NodeState, OsInfo, RuntimeId, RuntimeInfo, SubjectId,
};
use http::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::bench::{As, Bench};

async fn why(bench: &Bench, owner: &As) -> Value {
    bench
        .get(owner, "/api/v11/units/car/explain/?service=http")
        .await
        .expect(200)
}

fn first_not_passed(explained: &Value) -> (&str, &str) {
    let rule = explained["rules"]
        .as_array()
        .unwrap()
        .iter()
        .find(|rule| rule["outcome"] != "pass")
        .unwrap();
    (
        rule["rule"].as_str().unwrap(),
        rule["outcome"].as_str().unwrap(),
    )
}

pub(crate) fn main_node(architecture: &str) -> NodeReport {
    let os = OsInfo {
        os: "linux".into(),
        ..OsInfo::default()
    };
    let arch = ArchInfo {
        architecture: architecture.into(),
        variant: None,
    };
    NodeReport {
        info: NodeInfo {
            id: NodeId::new("main").unwrap(),
            node_type: "vm".into(),
            title: String::new(),
            max_dmips: 1,
            total_ram: 1,
            physical_ram: None,
            os: os.clone(),
            cpus: vec![],
            partitions: vec![],
            attrs: [("MainNode".to_owned(), String::new())].into(),
            state: NodeState::Provisioned,
            error: None,
        },
        runtimes: vec![RuntimeInfo {
            id: RuntimeId::new("r").unwrap(),
            runtime_type: "crun".into(),
            arch,
            os,
            max_dmips: None,
            allowed_dmips: None,
            total_ram: None,
            allowed_ram: None,
            max_instances: 0,
        }],
        resources: vec![],
        connected: true,
    }
}

#[tokio::test]
async fn why_a_service_is_not_there_is_answered_step_by_step() {
    let bench = Bench::new().await;
    let owner = bench.owner().await;
    let published = bench.publish(&owner, &[("http", "1.0.0")]).await;
    let service = published["items"][0]["service_id"]
        .as_str()
        .unwrap()
        .to_owned();
    bench
        .post(
            &owner,
            paths::UNITS,
            json!({"system_uid": "car", "unit_model": "vm;1"}),
        )
        .await
        .expect(201);
    assert_eq!(
        first_not_passed(&why(&bench, &owner).await),
        ("unit_provisioned", "fail")
    );
    let unit: Uuid = provision(&bench, &owner).await;
    let explained = why(&bench, &owner).await;
    assert_eq!(first_not_passed(&explained), ("assigned", "fail"));
    assert_eq!(explained["as_desired"], false);
    assert_eq!(explained["rules"].as_array().unwrap().len(), 10);

    let subject = bench
        .post(&owner, paths::SUBJECTS, json!({"label": "fleet"}))
        .await
        .expect(201);
    let subject_id = subject["id"].as_str().unwrap().to_owned();
    let at = |path: &str| paths::fill(path, &[&subject_id]);
    let page = bench
        .post(
            &owner,
            &at(paths::SUBJECT_UNITS),
            json!({"system_uids": ["car"]}),
        )
        .await
        .expect(201);
    assert_eq!(page["items"][0]["system_uid"], "car");
    let assigned = bench
        .post(
            &owner,
            &at(paths::SUBJECT_SERVICES),
            json!({"service_ids": ["http"], "num_instances": 3, "labels": ["edge"]}),
        )
        .await
        .expect(201);
    assert_eq!(assigned["items"][0]["overrides"]["num_instances"], 3);

    let status = |report: UnitStatusReport| {
        let db = bench.db.clone();
        async move {
            db.apply_status(unit, &report, &LinkWrite::default())
                .await
                .unwrap()
        }
    };
    status(UnitStatusReport {
        nodes: Some(vec![main_node("arm64")]),
        ..UnitStatusReport::default()
    })
    .await;
    assert_eq!(
        first_not_passed(&why(&bench, &owner).await),
        ("platform_fits", "fail")
    );
    status(UnitStatusReport {
        nodes: Some(vec![main_node("amd64")]),
        ..UnitStatusReport::default()
    })
    .await;
    assert_eq!(first_not_passed(&why(&bench, &owner).await).0, "labels_fit");
    let set = paths::fill(paths::SUBJECT_SERVICE, &[&subject_id, "http"]);
    let changed = bench
        .call(&owner, Method::PUT, &set, Some(json!({"num_instances": 1})))
        .await
        .expect(200);
    assert_eq!(changed["overrides"], json!({"num_instances": 1}));
    assert_eq!(
        first_not_passed(&why(&bench, &owner).await),
        ("acknowledged", "waiting")
    );

    let number = bench
        .db
        .store_desired(
            unit,
            &NewDesired {
                document: json!({"messageType": "desiredStatus"}).to_string(),
                content: DesiredContent {
                    items: vec![DesiredItem {
                        item_id: service.clone(),
                        version: "1.0.0".into(),
                    }],
                    instances: vec![DesiredInstances {
                        item_id: service.clone(),
                        subject_id: subject_id.clone(),
                        num_instances: 1,
                        priority: 0,
                        labels: vec![],
                    }],
                },
                reason: String::new(),
            },
        )
        .await
        .unwrap()
        .unwrap();
    bench
        .db
        .desired_sent(unit, number, "t", &LinkWrite::default())
        .await
        .unwrap();
    bench
        .db
        .desired_acked(unit, "t", &LinkWrite::default())
        .await
        .unwrap();
    assert_eq!(
        first_not_passed(&why(&bench, &owner).await),
        ("installed", "waiting")
    );
    let item = |state, error| ItemReport {
        item: ItemId::new(&service).unwrap(),
        item_type: ItemType::Service,
        version: "1.0.0".into(),
        state,
        error,
    };
    let instance = |state, error| InstanceReport {
        ident: InstanceIdent::service(
            ItemId::new(&service).unwrap(),
            SubjectId::new(&subject_id).unwrap(),
            0,
        ),
        version: "1.0.0".into(),
        node: Some(NodeId::new("main").unwrap()),
        runtime: Some(RuntimeId::new("r").unwrap()),
        state,
        state_checksum: None,
        error,
    };
    let refused = ErrorInfo::new(aos_types::AosCode::NoMemory, "the disk is full");
    status(UnitStatusReport {
        delta: true,
        items: Some(vec![item(ItemState::Failed, Some(refused))]),
        ..UnitStatusReport::default()
    })
    .await;
    let explained = why(&bench, &owner).await;
    assert_eq!(first_not_passed(&explained), ("installed", "fail"));
    assert!(
        explained["summary"]
            .as_str()
            .unwrap()
            .contains("the disk is full")
    );
    status(UnitStatusReport {
        delta: true,
        items: Some(vec![item(ItemState::Installed, None)]),
        instances: Some(vec![instance(InstanceState::Active, None)]),
        ..UnitStatusReport::default()
    })
    .await;
    let explained = why(&bench, &owner).await;
    assert_eq!(explained["as_desired"], true, "{explained:#}");
    assert_eq!(explained["summary"], "The http runs as desired");

    // Up again right after it went down: that is no success yet.
    let ended = ErrorInfo::new(aos_types::AosCode::Failed, "exit code 7");
    for (state, error, told) in [
        (
            InstanceState::Activating,
            Some(ended),
            "0 of 1 instances are active; instance 0 on Node main is activating: exit code 7",
        ),
        (
            InstanceState::Active,
            None,
            "1 of 1 instances are active, but",
        ),
    ] {
        status(UnitStatusReport {
            delta: true,
            instances: Some(vec![instance(state, error)]),
            ..UnitStatusReport::default()
        })
        .await;
        let explained = why(&bench, &owner).await;
        assert_eq!(first_not_passed(&explained), ("running", "waiting"));
        let summary = explained["summary"].as_str().unwrap();
        assert!(
            summary.contains(told) && summary.contains("exit code 7"),
            "{summary}"
        );
    }

    let shown = bench.get(&owner, "/api/v11/units/car/").await.expect(200);
    assert_eq!(shown["update_phase"], "installed");
    let rows = bench
        .get(&owner, "/api/v11/units/car/subjects-services/")
        .await
        .expect(200);
    assert_eq!(rows["items"][0]["instances"][0]["node_id"], "main");
    let timeline = bench
        .get(&owner, "/api/v11/units/car/timeline/?search=is%20met")
        .await
        .expect(200);
    assert_eq!(timeline["total"], 1);
    let desired = bench
        .get(&owner, "/api/v11/units/car/desired-state/")
        .await
        .expect(200);
    assert_eq!(desired["desired_status"]["messageType"], "desiredStatus");
    assert!(desired["applied_at"].is_string());
    let users = bench
        .get(&owner, "/api/v11/services/http/units/")
        .await
        .expect(200);
    assert_eq!(users["items"][0]["assigned"], true);

    bench.delete(&owner, &set).await.expect(204);
    assert_eq!(
        first_not_passed(&why(&bench, &owner).await),
        ("assigned", "fail")
    );
    bench
        .call(&owner, Method::PUT, &set, Some(json!({})))
        .await
        .expect(404);
    bench
        .delete(
            &owner,
            &paths::fill(paths::SUBJECT_UNIT, &[&subject_id, "car"]),
        )
        .await
        .expect(204);
    bench.delete(&owner, &at(paths::SUBJECT)).await.expect(204);
    let audit = bench
        .get(&owner, "/api/v11/audit/?search=subject.assign")
        .await
        .expect(200);
    assert_eq!(audit["total"], 2);
    assert_eq!(audit["items"][0]["actor"], "user:ada");
}

pub(crate) async fn provision(bench: &Bench, owner: &As) -> Uuid {
    let csr = aos_pki::KeyPair::generate(aos_pki::KeyAlgorithm::EcP256)
        .unwrap()
        .request("x", &[])
        .unwrap();
    bench
        .post(
            owner,
            paths::PROVISIONING,
            json!({"system_uid": "car", "nodes": [{"id": "main"}], "online_public_csr": csr, "offline_public_csr": csr}),
        )
        .await
        .expect(201);
    let shown = bench.get(owner, "/api/v11/units/car/").await.expect(200);
    assert_eq!(
        shown["unit_model"]["name"], "vm",
        "what was set before stays"
    );
    shown["id"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn models_and_their_configurations_are_managed() {
    let bench = Bench::new().await;
    let owner = bench.owner().await;
    let config = |version: &str| {
        json!({"unit_config": {"formatVersion": "1", "version": version,
            "nodes": [{"nodeType": "vm", "labels": ["main"]}]}})
    };
    let mut new = config("1.0.0");
    new["name"] = json!("vm");
    new["version"] = json!("1");
    let model = bench
        .post(&owner, paths::UNIT_MODELS, new)
        .await
        .expect(201);
    assert_eq!(model["unit_config_version"], "1.0.0");
    let id = model["id"].as_str().unwrap();
    let configs = paths::fill(paths::UNIT_CONFIGS, &[id]);
    bench
        .post(&owner, &configs, config("1.1.0"))
        .await
        .expect(201);
    bench
        .post(&owner, &configs, config("1.0.5"))
        .await
        .expect(409);
    let said = bench
        .post(
            &owner,
            &configs,
            json!({"unit_config": {"version": "2.0.0", "nodes": [{}]}}),
        )
        .await
        .expect(422);
    assert_eq!(said["field"], "unit_config");
    assert!(
        said["message"]
            .as_str()
            .unwrap()
            .contains("nodeGroupSubject"),
        "{said}"
    );
    let all = bench.get(&owner, &configs).await.expect(200);
    assert_eq!(all["total"], 2);
    assert_eq!(all["items"][0]["version"], "1.1.0");
    let found = bench
        .get(&owner, "/api/v11/unit-models/?search=V&limit=1")
        .await
        .expect(200);
    assert_eq!(found["total"], 1);
    let one = paths::fill(paths::UNIT_MODEL, &[id]);
    bench.get(&owner, &one).await.expect(200);
    bench.delete(&owner, &one).await.expect(204);
    bench.get(&owner, &one).await.expect(404);
}
