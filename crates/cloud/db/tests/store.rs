//! The store against real SQLite files.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may fail loudly"
)]

use std::{sync::Arc, time::Duration};

use aos_api::{
    BundleState, ChangeAction, ChangeTopic, DeploymentBundle, ListQuery, NewClaimCode, NewSubject,
    NewUnit, OnlineStatus, Overrides, SubjectPatch, TimelineKind, UnitPatch, UnitStatus,
    UnitsQuery, UpdatePhase,
};
use aos_db::{
    Actor, BlobRow, Change, Db, DbError, DesiredContent, DesiredInstances, DesiredItem,
    InstanceReport, IssuedCertificate, ItemReport, KEPT_PER_UNIT, LinkKey, LinkRecord, LinkWrite,
    NewDesired, NewVersion, NodeReport, RegisterBy, Registration, UnitConfigReport,
    UnitStatusReport, hash_secret,
};
use aos_time::{Clock, SimClock, Timestamp};
use aos_types::{
    Digest, ErrorInfo, InstanceIdent, InstanceState, ItemId, ItemState, ItemType, NodeId, NodeInfo,
    NodeState, OsInfo, SubjectId, SystemId, UnitConfig, UnitConfigState,
};
use uuid::Uuid;

struct Bench {
    db: Db,
    clock: SimClock,
    actor: Actor,
    _folder: tempfile::TempDir,
    path: std::path::PathBuf,
}

async fn bench() -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a b.db");
    let clock = SimClock::at(Timestamp::from_secs(1_800_000_000));
    let db = Db::open(&path, Arc::new(clock.clone())).await.unwrap();
    db.put_owner_token(&hash_secret("t")).await.unwrap();
    let user = db
        .set_up_owner(&hash_secret("t"), "Org", "ada", "hash")
        .await
        .unwrap()
        .unwrap();
    Bench {
        db,
        clock,
        actor: user.actor(),
        _folder: folder,
        path,
    }
}

fn blob(byte: u8) -> BlobRow {
    BlobRow {
        digest: Digest::from_bytes([byte; 32]),
        size: 10,
        sha3_256: "ab".repeat(32),
        signature: String::new(),
    }
}

fn version(codename: &str, version: &str, byte: u8) -> NewVersion {
    NewVersion {
        service: None,
        codename: codename.into(),
        title: format!("{codename} service"),
        description: String::new(),
        version: version.parse().unwrap(),
        index_digest: Digest::from_bytes([byte; 32]).to_string(),
        configuration: serde_json::json!({"runtimes": ["crun"]}),
        platforms: vec!["linux/amd64".into()],
        labels: vec![],
        priority: 0,
        min_num_instances: 1,
        default_state: None,
        blobs: vec![blob(byte)],
    }
}

fn bundle(bench: &Bench) -> DeploymentBundle {
    DeploymentBundle {
        id: Uuid::now_v7(),
        state: BundleState::Done,
        build_info: String::new(),
        is_check: false,
        file_name: "batch.tar.gz".into(),
        file_size: 1,
        sha256: String::new(),
        signed_by: "ada".into(),
        created_by: "user:ada".into(),
        created_at: bench.clock.now(),
        items: vec![],
        stages: vec![],
    }
}

async fn publish(bench: &Bench, codename: &str, number: &str, byte: u8) -> Result<(), DbError> {
    let mut bundle = bundle(bench);
    bench
        .db
        .publish_bundle(
            &bench.actor,
            &mut bundle,
            &[version(codename, number, byte)],
        )
        .await
}

async fn unit(bench: &Bench, system_uid: &str) -> Uuid {
    bench
        .db
        .create_unit(
            &bench.actor,
            &NewUnit {
                system_uid: system_uid.into(),
                title: String::new(),
                unit_model: Some("vm;1.0".into()),
            },
        )
        .await
        .unwrap()
        .id
}

fn node(id: &str, main: bool, connected: bool) -> NodeReport {
    let mut attrs = std::collections::BTreeMap::new();
    if main {
        attrs.insert("MainNode".into(), String::new());
    }
    NodeReport {
        info: NodeInfo {
            id: NodeId::new(id).unwrap(),
            node_type: "vm".into(),
            title: id.into(),
            max_dmips: 1000,
            total_ram: 1 << 30,
            physical_ram: None,
            os: OsInfo {
                os: "linux".into(),
                ..OsInfo::default()
            },
            cpus: vec![],
            partitions: vec![],
            attrs,
            state: NodeState::Provisioned,
            error: None,
        },
        runtimes: vec![],
        resources: vec![],
        connected,
    }
}

fn item(id: &str, number: &str, state: ItemState) -> ItemReport {
    ItemReport {
        item: ItemId::new(id).unwrap(),
        item_type: ItemType::Service,
        version: number.into(),
        state,
        error: None,
    }
}

fn instance(item: &str, subject: &str, number: &str, state: InstanceState) -> InstanceReport {
    InstanceReport {
        ident: InstanceIdent::service(
            ItemId::new(item).unwrap(),
            SubjectId::new(subject).unwrap(),
            0,
        ),
        version: number.into(),
        node: Some(NodeId::new("main").unwrap()),
        runtime: None,
        state,
        state_checksum: None,
        error: None,
    }
}

async fn texts(bench: &Bench, unit: Uuid) -> Vec<String> {
    bench
        .db
        .timeline(&bench.actor, &unit.to_string(), &ListQuery::default())
        .await
        .unwrap()
        .items
        .into_iter()
        .map(|event| event.text)
        .collect()
}

fn drain(changes: &mut tokio::sync::broadcast::Receiver<Change>) -> Vec<Change> {
    let mut all = Vec::new();
    while let Ok(change) = changes.try_recv() {
        all.push(change);
    }
    all
}

#[tokio::test]
async fn the_owner_token_works_once_and_never_after_there_is_a_user() {
    let bench = bench().await;
    let db = &bench.db;
    assert!(db.has_users().await.unwrap());
    assert!(
        db.set_up_owner(&hash_secret("t"), "Org", "eve", "hash")
            .await
            .unwrap()
            .is_none()
    );
    db.put_owner_token(&hash_secret("second")).await.unwrap();
    assert!(
        !db.owner_token_is_open(&hash_secret("second"))
            .await
            .unwrap()
    );
    let (user, hash) = db.user_by_name("ada").await.unwrap().unwrap();
    assert_eq!((user.role.as_str(), hash.as_str()), ("oem", "hash"));
    assert!(db.user_by_name("Ada").await.unwrap().is_none());
}

#[tokio::test]
async fn the_file_is_private_and_survives_a_restart() {
    use std::os::unix::fs::PermissionsExt as _;
    let bench = bench().await;
    let mode = std::fs::metadata(&bench.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    unit(&bench, "u1").await;
    bench.db.close().await;
    let again = Db::open(&bench.path, Arc::new(bench.clock.clone()))
        .await
        .unwrap();
    assert_eq!(
        again
            .units(&bench.actor, &UnitsQuery::default())
            .await
            .unwrap()
            .total,
        1
    );
    assert_eq!(
        again
            .audit(&bench.actor, &ListQuery::default())
            .await
            .unwrap()
            .items[0]
            .action,
        "unit.create"
    );
}

#[tokio::test]
async fn sessions_end_by_idleness_by_age_and_by_sign_out() {
    let bench = bench().await;
    let db = &bench.db;
    let (user, _) = db.user_by_name("ada").await.unwrap().unwrap();
    let token = hash_secret("token");
    db.begin_session(&user, &token).await.unwrap();
    assert_eq!(
        db.user_of_session(&token).await.unwrap(),
        Some(user.clone())
    );
    for _ in 0..13 {
        bench.clock.advance(Duration::from_secs(11 * 3600));
        assert!(db.user_of_session(&token).await.unwrap().is_some());
    }
    bench.clock.advance(Duration::from_secs(13 * 3600));
    assert!(db.user_of_session(&token).await.unwrap().is_none(), "idle");
    db.begin_session(&user, &hash_secret("next")).await.unwrap();
    for _ in 0..16 {
        bench.clock.advance(Duration::from_secs(11 * 3600));
        let _ = db.user_of_session(&hash_secret("next")).await.unwrap();
    }
    assert!(
        db.user_of_session(&hash_secret("next"))
            .await
            .unwrap()
            .is_none(),
        "a week is the end"
    );
    db.begin_session(&user, &hash_secret("third"))
        .await
        .unwrap();
    db.end_session(&hash_secret("third")).await.unwrap();
    assert!(
        db.user_of_session(&hash_secret("third"))
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn user_certificates_are_known_by_fingerprint_until_they_expire() {
    let bench = bench().await;
    let end = bench.clock.now() + Duration::from_secs(60);
    bench
        .db
        .add_user_certificate(&bench.actor, "aa11", "01", "PEM", end)
        .await
        .unwrap();
    assert_eq!(
        bench
            .db
            .user_of_certificate("AA11")
            .await
            .unwrap()
            .unwrap()
            .username,
        "ada"
    );
    assert!(bench.db.user_of_certificate("bb").await.unwrap().is_none());
    assert_eq!(
        bench.db.signer_certificates(&bench.actor).await.unwrap(),
        vec![("01".to_owned(), "PEM".to_owned())]
    );
    bench.clock.advance(Duration::from_secs(61));
    assert!(
        bench
            .db
            .user_of_certificate("aa11")
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn another_organisation_sees_nothing() {
    let bench = bench().await;
    let id = unit(&bench, "u1").await;
    publish(&bench, "http", "1.0.0", 1).await.unwrap();
    let subject = bench
        .db
        .create_subject(
            &bench.actor,
            &NewSubject {
                label: "s".into(),
                priority: 0,
                is_group: true,
                reported_as: None,
            },
        )
        .await
        .unwrap();
    let other = Actor::user(Uuid::now_v7(), Uuid::now_v7(), "eve");
    let db = &bench.db;
    assert!(matches!(
        db.unit(&other, "u1").await,
        Err(DbError::NotFound { .. })
    ));
    assert!(db.unit(&other, &id.to_string()).await.is_err());
    assert!(db.delete_unit(&other, "u1").await.is_err());
    assert!(db.subject(&other, subject.id).await.is_err());
    assert!(db.service(&other, "http").await.is_err());
    assert_eq!(
        db.units(&other, &UnitsQuery::default())
            .await
            .unwrap()
            .total,
        0
    );
    assert_eq!(
        db.services(&other, &ListQuery::default())
            .await
            .unwrap()
            .total,
        0
    );
    assert_eq!(
        db.bundles(&other, &ListQuery::default())
            .await
            .unwrap()
            .total,
        0
    );
    assert_eq!(
        db.audit(&other, &ListQuery::default()).await.unwrap().total,
        0
    );
    assert!(
        db.timeline(&other, "u1", &ListQuery::default())
            .await
            .is_err()
    );
}

#[tokio::test]
async fn units_are_found_filtered_patched_and_deleted() {
    let bench = bench().await;
    let db = &bench.db;
    let id = unit(&bench, "vin_1").await;
    unit(&bench, "vinx1").await;
    let page = |search: &str| UnitsQuery {
        search: Some(search.into()),
        ..UnitsQuery::default()
    };
    assert_eq!(
        db.units(&bench.actor, &page("VIN_")).await.unwrap().total,
        1
    );
    assert_eq!(db.units(&bench.actor, &page("%")).await.unwrap().total, 0);
    let exact = UnitsQuery {
        system_uid: Some("vin_1".into()),
        status: Some(UnitStatus::New),
        online_status: Some(OnlineStatus::Offline),
        ..UnitsQuery::default()
    };
    assert_eq!(
        db.units(&bench.actor, &exact).await.unwrap().items[0].id,
        id
    );
    let again = db
        .create_unit(
            &bench.actor,
            &NewUnit {
                system_uid: "vin_1".into(),
                title: String::new(),
                unit_model: None,
            },
        )
        .await;
    assert!(matches!(again, Err(DbError::Conflict { .. })));
    let bad = db
        .create_unit(
            &bench.actor,
            &NewUnit {
                system_uid: "../x".into(),
                title: String::new(),
                unit_model: None,
            },
        )
        .await;
    assert!(matches!(
        bad,
        Err(DbError::Invalid {
            field: "system_uid",
            ..
        })
    ));
    let patched = db
        .patch_unit(
            &bench.actor,
            "vin_1",
            &UnitPatch {
                title: Some(" Car ".into()),
                unit_model: Some("truck;2".into()),
                blob_encryption: None,
            },
        )
        .await
        .unwrap();
    assert_eq!(patched.title, "Car");
    assert_eq!(patched.unit_model.unwrap().name, "truck");
    db.delete_unit(&bench.actor, "vin_1").await.unwrap();
    assert!(db.unit(&bench.actor, "vin_1").await.is_err());
}

#[tokio::test]
async fn unit_configurations_only_grow_and_reach_their_units() {
    let bench = bench().await;
    let db = &bench.db;
    let id = unit(&bench, "u1").await;
    let model = db
        .unit(&bench.actor, "u1")
        .await
        .unwrap()
        .unit_model
        .unwrap()
        .id;
    let config = |number: &str| {
        UnitConfig::from_slice(
            serde_json::json!({"formatVersion": "1", "version": number,
                "nodes": [{"nodeType": "vm", "labels": ["main"], "priority": 5}]})
            .to_string()
            .as_bytes(),
        )
        .unwrap()
    };
    let mut changes = db.changes();
    db.add_unit_config(&bench.actor, model, &config("1.0.0"), true)
        .await
        .unwrap();
    assert!(drain(&mut changes).iter().any(|change| change.id == id
        && change.topic == ChangeTopic::Unit
        && change.action == ChangeAction::Desired));
    for stale in ["1.0.0", "0.9.0"] {
        assert!(matches!(
            db.add_unit_config(&bench.actor, model, &config(stale), true)
                .await,
            Err(DbError::Conflict { .. })
        ));
    }
    assert!(matches!(
        db.add_unit_config(&bench.actor, model, &config("new"), true)
            .await,
        Err(DbError::Invalid { .. })
    ));
    db.add_unit_config(&bench.actor, model, &config("1.10.0"), true)
        .await
        .unwrap();
    let known = db
        .unit_configs(&bench.actor, model, &ListQuery::default())
        .await
        .unwrap();
    assert_eq!(known.total, 2);
    assert_eq!(known.items[0].version, "1.10.0");
    assert_eq!(
        db.unit_for_compose(id).await.unwrap().unit_config.unwrap(),
        config("1.10.0")
    );
    assert_eq!(
        db.unit_model(&bench.actor, model)
            .await
            .unwrap()
            .unit_config_version
            .unwrap(),
        "1.10.0"
    );
    assert!(matches!(
        db.delete_unit_model(&bench.actor, model).await,
        Err(DbError::Conflict { .. })
    ));
    assert!(matches!(
        db.create_unit_model(&bench.actor, "vm", "1.0", None).await,
        Err(DbError::Conflict { .. })
    ));
    let spare = db
        .create_unit_model(&bench.actor, "spare", "1", Some(&config("1.0.0")))
        .await
        .unwrap();
    db.delete_unit_model(&bench.actor, spare.id).await.unwrap();
}

fn registration(system_uid: &str, key: &str) -> Registration {
    Registration {
        system_uid: SystemId::new(system_uid).unwrap(),
        online_key: key.into(),
        unit_model: "vm;1.0".into(),
        nodes: vec![node("main", true, false)],
    }
}

fn certificate(bench: &Bench, fingerprint: &str) -> IssuedCertificate {
    IssuedCertificate {
        fingerprint: fingerprint.into(),
        cert_type: "online".into(),
        node_id: "main".into(),
        serial: "0a".into(),
        not_after: bench.clock.now() + Duration::from_secs(1000),
        public_key: None,
    }
}

#[tokio::test]
async fn a_claim_code_serves_one_unit_until_it_expires() {
    let bench = bench().await;
    let db = &bench.db;
    let hash = hash_secret("code");
    let made = db
        .create_claim_code(
            &bench.actor,
            &NewClaimCode {
                title: "Car 1".into(),
                unit_model: Some("special;3".into()),
                ..NewClaimCode::default()
            },
            &hash,
        )
        .await
        .unwrap();
    assert_eq!(made.state, "open");
    let by = RegisterBy::ClaimCode(&hash);
    let wrong = hash_secret("guess");
    let mine = registration("u1", "key1");
    assert!(
        !db.may_register(&RegisterBy::ClaimCode(&wrong), &mine.system_uid, "key1")
            .await
            .unwrap()
    );
    assert!(
        db.may_register(&by, &mine.system_uid, "key1")
            .await
            .unwrap()
    );
    let registered = db
        .register_unit(&by, &mine, &[certificate(&bench, "F1")], "secret")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(registered.title, "Car 1");
    assert_eq!(registered.unit_model.unwrap().name, "special");
    let linked = db.unit_of_certificate("u1", "f1").await.unwrap().unwrap();
    assert_eq!(linked.id, registered.unit);
    assert!(db.unit_of_certificate("u2", "f1").await.unwrap().is_none());
    assert!(db.unit_of_certificate("u1", "f2").await.unwrap().is_none());

    // The answer was lost: the same Unit with the same key asks again, and its former certificate ends.
    assert!(
        db.register_unit(&by, &mine, &[certificate(&bench, "f2")], "secret")
            .await
            .unwrap()
            .is_some()
    );
    assert!(db.unit_of_certificate("u1", "f1").await.unwrap().is_none());
    assert!(db.unit_of_certificate("u1", "f2").await.unwrap().is_some());

    // Another Unit cannot use the code, nor can another key take over the system id.
    assert!(
        db.register_unit(
            &by,
            &registration("u2", "key2"),
            &[certificate(&bench, "f3")],
            ""
        )
        .await
        .unwrap()
        .is_none()
    );
    assert!(matches!(
        db.register_unit(
            &by,
            &registration("u1", "thief"),
            &[certificate(&bench, "f4")],
            ""
        )
        .await,
        Err(DbError::Conflict { .. })
    ));
    let actor_way = RegisterBy::Actor(&bench.actor);
    assert!(matches!(
        db.register_unit(
            &actor_way,
            &registration("u1", "thief"),
            &[certificate(&bench, "f4")],
            ""
        )
        .await,
        Err(DbError::Conflict { .. })
    ));
    let listed = db
        .claim_codes(&bench.actor, &ListQuery::default())
        .await
        .unwrap();
    assert_eq!(listed.items[0].state, "used");
    assert_eq!(listed.items[0].unit_id, Some(registered.unit));

    // After it is deleted the system id is free again, the old certificate and the code are not.
    db.delete_unit(&bench.actor, "u1").await.unwrap();
    assert!(db.unit_of_certificate("u1", "f2").await.unwrap().is_none());
    assert!(
        !db.may_register(&by, &mine.system_uid, "key1")
            .await
            .unwrap()
    );
    assert!(
        db.register_unit(
            &actor_way,
            &registration("u1", "thief"),
            &[certificate(&bench, "f5")],
            ""
        )
        .await
        .unwrap()
        .is_some()
    );

    let short = hash_secret("short");
    db.create_claim_code(
        &bench.actor,
        &NewClaimCode {
            expires_in_minutes: Some(1),
            system_uid: Some("u9".into()),
            ..NewClaimCode::default()
        },
        &short,
    )
    .await
    .unwrap();
    let by = RegisterBy::ClaimCode(&short);
    let nine = SystemId::new("u9").unwrap();
    assert!(db.may_register(&by, &nine, "k").await.unwrap());
    assert!(
        !db.may_register(&by, &SystemId::new("u8").unwrap(), "k")
            .await
            .unwrap(),
        "for another Unit"
    );
    bench.clock.advance(Duration::from_secs(61));
    assert!(!db.may_register(&by, &nine, "k").await.unwrap(), "expired");
    let expired = db
        .claim_codes(&bench.actor, &ListQuery::default())
        .await
        .unwrap();
    assert_eq!(expired.items[0].state, "expired");
    db.delete_claim_code(&bench.actor, expired.items[0].id)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_unit_is_followed_from_assignment_to_running_and_back() {
    let bench = bench().await;
    let db = &bench.db;
    let id = unit(&bench, "u1").await;
    publish(&bench, "http", "1.0.0", 1).await.unwrap();
    publish(&bench, "http", "1.10.0", 2).await.unwrap();
    assert!(matches!(
        publish(&bench, "http", "1.9.0", 3).await,
        Err(DbError::Conflict { .. })
    ));
    let service = db.service(&bench.actor, "http").await.unwrap();
    assert_eq!(service.latest_version.as_deref(), Some("1.10.0"));
    let subject = db
        .create_subject(
            &bench.actor,
            &NewSubject {
                label: "fleet".into(),
                priority: 7,
                is_group: true,
                reported_as: None,
            },
        )
        .await
        .unwrap();
    let mut changes = db.changes();
    db.add_subject_units(&bench.actor, subject.id, &["u1".into()])
        .await
        .unwrap();
    db.assign_services(
        &bench.actor,
        subject.id,
        &["http".into()],
        &Overrides {
            num_instances: Some(1),
            labels: Some(vec!["main".into()]),
            priority: None,
            independent: None,
        },
    )
    .await
    .unwrap();
    let desired: Vec<_> = drain(&mut changes)
        .into_iter()
        .filter(|change| change.topic == ChangeTopic::Unit)
        .collect();
    assert_eq!(desired.len(), 2);
    assert!(
        desired
            .iter()
            .all(|change| change.id == id && change.action == ChangeAction::Desired)
    );
    let compose = db.unit_for_compose(id).await.unwrap();
    assert_eq!(compose.assignments.len(), 1);
    assert_eq!(compose.assignments[0].versions[0].version, "1.10.0");
    assert_eq!(
        compose.assignments[0].overrides.labels,
        Some(vec!["main".to_owned()])
    );
    assert_eq!(compose.assignments[0].overrides.priority, None);
    assert_eq!(compose.subjects[0].priority, 7);
    assert_eq!(
        db.blobs_for_unit(
            id,
            &[Digest::from_bytes([2; 32]), Digest::from_bytes([9; 32])]
        )
        .await
        .unwrap()
        .len(),
        1
    );

    let new = NewDesired {
        document: serde_json::json!({"messageType": "desiredStatus"}).to_string(),
        content: DesiredContent {
            items: vec![DesiredItem {
                item_id: service.id.to_string(),
                version: "1.10.0".into(),
            }],
            instances: vec![DesiredInstances {
                item_id: service.id.to_string(),
                subject_id: subject.id.to_string(),
                num_instances: 1,
                priority: 7,
                labels: vec!["main".into()],
            }],
        },
        reason: "http is assigned".into(),
    };
    assert_eq!(db.store_desired(id, &new).await.unwrap(), Some(1));
    assert_eq!(db.store_desired(id, &new).await.unwrap(), None, "unchanged");
    let phase = async || db.unit(&bench.actor, "u1").await.unwrap().update_phase;
    assert_eq!(phase().await, UpdatePhase::WaitingForUnit);
    db.desired_sent(id, 1, "txn1", &LinkWrite::default())
        .await
        .unwrap();
    assert!(
        !db.desired_acked(id, "other", &LinkWrite::default())
            .await
            .unwrap()
    );
    assert!(
        db.desired_acked(id, "txn1", &LinkWrite::default())
            .await
            .unwrap()
    );
    assert_eq!(phase().await, UpdatePhase::Downloading);

    let sid = service.id.to_string();
    let sub = subject.id.to_string();
    let full = UnitStatusReport {
        delta: false,
        unit_config: Some(vec![UnitConfigReport {
            version: "1.0.0".into(),
            state: UnitConfigState::Installed,
            error: None,
        }]),
        nodes: Some(vec![node("main", true, true), node("second", false, true)]),
        items: Some(vec![item(&sid, "1.10.0", ItemState::Pending)]),
        instances: Some(vec![]),
        subjects: Some(vec!["group".into()]),
        update: None,
        placements: None,
        unreadable: vec!["nodes[2].state".into()],
    };
    let outcome = db
        .apply_status(id, &full, &LinkWrite::default())
        .await
        .unwrap();
    assert!(outcome.recompose);
    assert_eq!(phase().await, UpdatePhase::Pending);
    let shown = db.unit(&bench.actor, "u1").await.unwrap();
    assert_eq!(shown.online_status, OnlineStatus::Online);
    assert_eq!((shown.counts.nodes, shown.counts.nodes_connected), (2, 2));
    assert_eq!(shown.installed_unit_config.unwrap().state, "installed");
    let same = db
        .apply_status(
            id,
            &UnitStatusReport {
                unreadable: vec![],
                ..full.clone()
            },
            &LinkWrite::default(),
        )
        .await
        .unwrap();
    assert_eq!((same.events, same.recompose), (0, false), "nothing new");

    let delta = |items, instances| UnitStatusReport {
        delta: true,
        items: Some(items),
        instances: Some(instances),
        ..UnitStatusReport::default()
    };
    db.apply_status(
        id,
        &delta(
            vec![item(&sid, "1.10.0", ItemState::Installing)],
            vec![instance(&sid, &sub, "1.10.0", InstanceState::Activating)],
        ),
        &LinkWrite::default(),
    )
    .await
    .unwrap();
    assert_eq!(phase().await, UpdatePhase::WaitingForActive);
    bench.clock.advance(Duration::from_millis(1500));
    db.apply_status(
        id,
        &delta(
            vec![item(&sid, "1.10.0", ItemState::Installed)],
            vec![instance(&sid, &sub, "1.10.0", InstanceState::Active)],
        ),
        &LinkWrite::default(),
    )
    .await
    .unwrap();
    assert_eq!(phase().await, UpdatePhase::Installed);
    let stored = db.newest_desired(id).await.unwrap().unwrap();
    assert!(stored.applied_at.is_some());
    let rows = db
        .unit_subjects_services(&bench.actor, "u1")
        .await
        .unwrap()
        .items;
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].installed_version.as_deref(), Some("1.10.0"));
    assert_eq!(rows[0].desired_version.as_deref(), Some("1.10.0"));
    assert_eq!(rows[0].instances[0].run_state, "active");
    let items = db.unit_items(&bench.actor, "u1").await.unwrap().items;
    assert!(items[0].desired);
    assert_eq!(items[0].service.as_ref().unwrap().codename, "http");
    let users = db
        .service_units(&bench.actor, "http", &ListQuery::default())
        .await
        .unwrap();
    assert_eq!(users.items[0].instances_active, 1);
    assert_eq!(
        db.service_versions(&bench.actor, "http", &ListQuery::default())
            .await
            .unwrap()
            .items[0]
            .unit_count,
        1
    );

    // It crashes, and says why.
    let mut crashed = instance(&sid, &sub, "1.10.0", InstanceState::Failed);
    crashed.error = Some(ErrorInfo::new(aos_types::AosCode::Runtime, "exit code 3"));
    db.apply_status(id, &delta(vec![], vec![crashed]), &LinkWrite::default())
        .await
        .unwrap();
    assert_eq!(phase().await, UpdatePhase::Failed);
    let told = texts(&bench, id).await;
    for part in [
        "is failed (was active): exit code 3",
        "desired state 1 is met, 1.5 s after it was sent",
        "the Unit has desired state 1",
        "could not be read and was left as it was: nodes[2].state",
        "Node second (vm) joined",
        "user:ada assigned http to subject fleet (1 instances, labels [main])",
    ] {
        assert!(
            told.iter().any(|text| text.contains(part)),
            "no `{part}` in {told:#?}"
        );
    }

    // A full status with empty lists removes; absent lists leave as is.
    db.apply_status(
        id,
        &UnitStatusReport {
            instances: Some(vec![]),
            ..UnitStatusReport::default()
        },
        &LinkWrite::default(),
    )
    .await
    .unwrap();
    let shown = db.unit(&bench.actor, "u1").await.unwrap();
    assert_eq!((shown.counts.instances, shown.counts.nodes), (0, 2));
    assert_eq!(
        db.unit_items(&bench.actor, "u1").await.unwrap().total,
        1,
        "items were not spoken of"
    );

    assert!(matches!(
        db.delete_service(&bench.actor, "http").await,
        Err(DbError::Conflict { .. })
    ));
    db.unassign_service(&bench.actor, subject.id, "http")
        .await
        .unwrap();
    assert!(
        db.unit_for_compose(id)
            .await
            .unwrap()
            .assignments
            .is_empty()
    );
    db.delete_service(&bench.actor, "http").await.unwrap();
    let orphans = db
        .orphan_blobs(bench.clock.now() + Duration::from_secs(1))
        .await
        .unwrap();
    assert_eq!(orphans.len(), 2);
    assert!(db.forget_blob(&orphans[0]).await.unwrap());
    assert!(db.blob(&orphans[0]).await.unwrap().is_none());
}

#[tokio::test]
async fn a_bundle_is_published_wholly_or_not_at_all() {
    let bench = bench().await;
    publish(&bench, "http", "1.0.0", 1).await.unwrap();
    let mut both = bundle(&bench);
    let refused = bench
        .db
        .publish_bundle(
            &bench.actor,
            &mut both,
            &[version("counter", "1.0.0", 2), version("http", "1.0.0", 3)],
        )
        .await;
    assert!(matches!(refused, Err(DbError::Conflict { .. })));
    assert!(bench.db.service(&bench.actor, "counter").await.is_err());
    assert!(bench.db.bundle(&bench.actor, both.id).await.is_err());
    assert!(
        bench
            .db
            .blob(&Digest::from_bytes([2; 32]))
            .await
            .unwrap()
            .is_none()
    );
    assert!(
        bench
            .db
            .check_versions(&bench.actor, &[("http".into(), "1.0.0".parse().unwrap())])
            .await
            .is_err()
    );
    assert!(
        bench
            .db
            .check_versions(&bench.actor, &[("http".into(), "1.0.1".parse().unwrap())])
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn a_restart_ends_bundles_that_were_being_worked_on() {
    let bench = bench().await;
    let mut cut = bundle(&bench);
    cut.state = BundleState::Processing;
    bench.db.put_bundle(&bench.actor, &cut).await.unwrap();
    bench.db.fail_interrupted_bundles().await.unwrap();
    let ended = bench.db.bundle(&bench.actor, cut.id).await.unwrap();
    assert_eq!(ended.state, BundleState::Error);
    assert!(ended.build_info.contains("stopped"));
}

#[tokio::test]
async fn the_session_of_a_link_finds_its_records_again() {
    let bench = bench().await;
    let id = unit(&bench, "u1").await;
    let outgoing = |seq, text: &str| LinkRecord::Outgoing {
        seq,
        txn: format!("t{seq}"),
        priority: 2,
        topic: Some("desired".into()),
        payload: text.as_bytes().into(),
    };
    let seen = LinkRecord::Seen {
        seq: 1,
        txn: "theirs".into(),
    };
    bench
        .db
        .write_link(
            id,
            &LinkWrite {
                put: vec![outgoing(2, "{}"), outgoing(1, "{\"a\":1}"), seen.clone()],
                forget: vec![],
            },
        )
        .await
        .unwrap();
    assert_eq!(
        bench.db.link_records(id).await.unwrap(),
        vec![outgoing(1, "{\"a\":1}"), outgoing(2, "{}"), seen.clone()]
    );
    bench
        .db
        .apply_status(
            id,
            &UnitStatusReport::default(),
            &LinkWrite {
                put: vec![LinkRecord::Seen {
                    seq: 2,
                    txn: "next".into(),
                }],
                forget: vec![LinkKey::Seen(1), LinkKey::Outgoing(1)],
            },
        )
        .await
        .unwrap();
    assert_eq!(
        bench.db.link_records(id).await.unwrap(),
        vec![
            outgoing(2, "{}"),
            LinkRecord::Seen {
                seq: 2,
                txn: "next".into()
            }
        ]
    );
}

#[tokio::test]
async fn the_timeline_is_bounded_and_newest_first() {
    let bench = bench().await;
    let id = unit(&bench, "u1").await;
    let events: Vec<_> = (0..KEPT_PER_UNIT + 5)
        .map(|n| aos_db::Happening::info(TimelineKind::Protocol, format!("event {n}")))
        .collect();
    bench
        .db
        .note(id, &events, &LinkWrite::default())
        .await
        .unwrap();
    let page = bench
        .db
        .timeline(
            &bench.actor,
            "u1",
            &ListQuery {
                limit: Some(2),
                ..ListQuery::default()
            },
        )
        .await
        .unwrap();
    assert_eq!(page.total, u64::try_from(KEPT_PER_UNIT).unwrap());
    assert_eq!(page.items[0].text, format!("event {}", KEPT_PER_UNIT + 4));
    assert!(page.items[0].id > page.items[1].id);
}

#[tokio::test]
async fn what_a_message_tells_and_that_it_was_handled_are_kept_together_or_not_at_all() {
    let bench = bench().await;
    let id = unit(&bench, "u1").await;
    let event = [aos_db::Happening::info(TimelineKind::Node, "an alert")];
    let seen = LinkRecord::Seen {
        seq: 1,
        txn: "t".into(),
    };
    let broken = LinkRecord::Outgoing {
        seq: 1,
        txn: "o".into(),
        priority: 1,
        topic: None,
        payload: [0xff].as_slice().into(),
    };
    let write = |put| LinkWrite {
        put,
        forget: Vec::new(),
    };
    let told = async || {
        let query = ListQuery {
            search: Some("an alert".into()),
            ..ListQuery::default()
        };
        let page = bench.db.timeline(&bench.actor, "u1", &query).await.unwrap();
        page.total
    };
    let failing = write(vec![seen.clone(), broken]);
    bench.db.note(id, &event, &failing).await.unwrap_err();
    assert_eq!(told().await, 0);
    assert_eq!(bench.db.link_records(id).await.unwrap(), []);
    let good = write(vec![seen.clone()]);
    bench.db.note(id, &event, &good).await.unwrap();
    assert_eq!(told().await, 1);
    assert_eq!(bench.db.link_records(id).await.unwrap(), [seen]);
    let later = write(vec![LinkRecord::Seen {
        seq: 2,
        txn: "u".into(),
    }]);
    bench.db.note(id, &[], &later).await.unwrap();
    assert_eq!(bench.db.link_records(id).await.unwrap().len(), 2);
}

#[tokio::test]
async fn links_come_and_go_with_a_reason() {
    let bench = bench().await;
    let id = unit(&bench, "u1").await;
    bench
        .db
        .set_link(id, OnlineStatus::Connected, "")
        .await
        .unwrap();
    bench
        .db
        .set_link(id, OnlineStatus::Offline, "nothing heard for 60 s")
        .await
        .unwrap();
    bench
        .db
        .set_link(id, OnlineStatus::Connected, "")
        .await
        .unwrap();
    bench.db.set_all_links_down().await.unwrap();
    let told = texts(&bench, id).await;
    assert_eq!(told[0], "link lost: the cloud was started again");
    assert_eq!(told[2], "link lost: nothing heard for 60 s");
    assert_eq!(
        bench
            .db
            .unit(&bench.actor, "u1")
            .await
            .unwrap()
            .online_status,
        OnlineStatus::Offline
    );
}

#[tokio::test]
async fn subjects_keep_their_rules() {
    let bench = bench().await;
    let db = &bench.db;
    unit(&bench, "u1").await;
    unit(&bench, "u2").await;
    let new = |label: &str, is_group| NewSubject {
        label: label.into(),
        priority: 0,
        is_group,
        reported_as: None,
    };
    let person = db
        .create_subject(&bench.actor, &new("driver", false))
        .await
        .unwrap();
    assert!(matches!(
        db.create_subject(&bench.actor, &new("driver", true)).await,
        Err(DbError::Conflict { .. })
    ));
    assert!(matches!(
        db.create_subject(&bench.actor, &new(" ", true)).await,
        Err(DbError::Invalid { field: "label", .. })
    ));
    assert!(matches!(
        db.add_subject_units(&bench.actor, person.id, &["u1".into(), "u2".into()])
            .await,
        Err(DbError::Conflict { .. })
    ));
    assert!(
        db.add_subject_units(&bench.actor, person.id, &["nobody".into()])
            .await
            .is_err()
    );
    db.add_subject_units(&bench.actor, person.id, &["u1".into()])
        .await
        .unwrap();
    assert_eq!(
        db.subject_units(&bench.actor, person.id, &ListQuery::default())
            .await
            .unwrap()
            .items[0]
            .system_uid,
        "u1"
    );
    assert!(
        db.patch_subject(
            &bench.actor,
            person.id,
            &SubjectPatch {
                label: None,
                priority: Some(1_000_000)
            }
        )
        .await
        .is_err()
    );
    for bad in [
        Overrides {
            num_instances: Some(0),
            ..Overrides::default()
        },
        Overrides {
            labels: Some(vec![String::new()]),
            ..Overrides::default()
        },
    ] {
        assert!(matches!(
            db.assign_services(&bench.actor, person.id, &[], &bad).await,
            Err(DbError::Invalid { .. })
        ));
    }
    db.remove_subject_unit(&bench.actor, person.id, "u1")
        .await
        .unwrap();
    assert!(
        db.remove_subject_unit(&bench.actor, person.id, "u1")
            .await
            .is_err()
    );
    db.delete_subject(&bench.actor, person.id).await.unwrap();
}

#[tokio::test]
async fn a_change_whose_asker_went_away_is_whole_and_told_or_not_there() {
    let bench = bench().await;
    for n in 0..60_u32 {
        let mut changes = bench.db.changes();
        let (db, actor) = (bench.db.clone(), bench.actor.clone());
        let label = format!("s{n}");
        let asked = label.clone();
        let task = tokio::spawn(async move {
            db.create_subject(
                &actor,
                &NewSubject {
                    label: asked,
                    priority: 0,
                    is_group: true,
                    reported_as: None,
                },
            )
            .await
        });
        tokio::time::sleep(Duration::from_micros(u64::from(n) * 40)).await;
        task.abort();
        let _ = task.await;
        // The next change waits for the one writer, so what was begun has ended by then.
        unit(&bench, &format!("u{n}")).await;
        let told = drain(&mut changes)
            .iter()
            .any(|change| change.topic == ChangeTopic::Subject);
        let query = ListQuery {
            search: Some(label.clone()),
            ..ListQuery::default()
        };
        let there = bench
            .db
            .subjects(&bench.actor, &query)
            .await
            .unwrap()
            .items
            .iter()
            .any(|subject| subject.label == label);
        assert_eq!(told, there, "round {n}");
        let audited = bench
            .db
            .audit(&bench.actor, &query)
            .await
            .unwrap()
            .items
            .iter()
            .any(|row| row.detail == label);
        assert_eq!(audited, there, "round {n}");
    }
}

#[tokio::test]
async fn a_version_that_failed_does_not_hide_the_one_that_runs() {
    let bench = bench().await;
    let id = unit(&bench, "unit-1").await;
    let report = |delta: bool, instances: Vec<InstanceReport>| UnitStatusReport {
        delta,
        instances: Some(instances),
        ..UnitStatusReport::default()
    };
    let of = |number: &str, state| instance("web", "s", number, state);
    let (old, new) = (
        of("1.0.0", InstanceState::Active),
        of("2.0.0", InstanceState::Failed),
    );
    let runs = async || {
        let unit = bench.db.unit(&bench.actor, "unit-1").await.unwrap();
        (unit.counts.instances_active, unit.counts.instances_failed)
    };
    let none = LinkWrite::default();
    for instances in [
        vec![old.clone(), new.clone()],
        vec![new.clone(), old.clone()],
    ] {
        let report = report(false, instances);
        bench.db.apply_status(id, &report, &none).await.unwrap();
        assert_eq!(runs().await, (1, 0));
    }
    // Tried again, and failed again.
    let again = report(true, vec![new.clone()]);
    bench.db.apply_status(id, &again, &none).await.unwrap();
    assert_eq!(runs().await, (1, 0));
    // Nothing else is there.
    let alone = report(false, vec![new]);
    bench.db.apply_status(id, &alone, &none).await.unwrap();
    assert_eq!(runs().await, (0, 1));
}
