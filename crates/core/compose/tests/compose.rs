//! What a Unit is told, and how it is explained.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may fail loudly"
)]

use aos_cloud_protocol::DesiredNodeState;
use aos_compose::{
    Assigned, Exclusion, Node, Outcome, Platform, Readiness, RuleName, Service, Subject, Unit,
    Version, compose, verdicts,
};
use aos_types::{
    ArchInfo, Digest, NodeState, OsInfo, RuntimeInfo, Schedule, ScheduleRule, SubjectType,
    UnitConfig,
};

fn arch(name: &str) -> ArchInfo {
    ArchInfo {
        architecture: name.into(),
        variant: None,
    }
}

fn linux() -> OsInfo {
    OsInfo {
        os: "linux".into(),
        ..OsInfo::default()
    }
}

fn node(id: &str, architecture: &str) -> Node {
    Node {
        id: id.parse().unwrap(),
        node_type: format!("{id}-type"),
        wanted: None,
        runtimes: vec![RuntimeInfo {
            id: format!("{id}-crun").parse().unwrap(),
            runtime_type: "crun".into(),
            arch: arch(architecture),
            os: linux(),
            max_dmips: None,
            allowed_dmips: None,
            total_ram: None,
            allowed_ram: None,
            max_instances: 0,
        }],
        resources: vec![],
        state: NodeState::Provisioned,
        connected: true,
    }
}

fn version(text: &str, architecture: &str) -> Version {
    Version {
        version: text.into(),
        readiness: Readiness::Ready,
        index_digest: Digest::from_bytes([text.len() as u8; 32]),
        platforms: vec![Platform {
            arch: arch(architecture),
            os: linux(),
        }],
        runtimes: vec![],
        min_instances: 1,
        labels: vec![],
        resources: vec![],
        priority: 0,
    }
}

fn assigned(id: &str, versions: Vec<Version>) -> Assigned {
    Assigned {
        service: Service {
            id: id.parse().unwrap(),
            codename: id.into(),
            owner: "sp".parse().unwrap(),
            versions,
        },
        num_instances: None,
        labels: None,
        priority: None,
        independent: false,
    }
}

fn subject(id: &str, services: Vec<Assigned>) -> Subject {
    Subject {
        id: id.parse().unwrap(),
        subject_type: SubjectType::Group,
        is_reported: false,
        priority: None,
        services,
    }
}

fn unit(subjects: Vec<Subject>) -> Unit {
    Unit {
        nodes: vec![node("main", "amd64")],
        subjects,
        ..Unit::default()
    }
}

#[test]
fn the_newest_version_by_semantic_order_is_chosen_once_for_all_subjects() {
    let versions = vec![
        version("1.9.0", "amd64"),
        version("1.10.0", "amd64"),
        version("1.10.0-rc.1", "amd64"),
    ];
    let composed = compose(&unit(vec![
        subject("b", vec![assigned("web", versions.clone())]),
        subject("a", vec![assigned("web", versions)]),
    ]));
    let items = composed.desired.items.unwrap();
    assert_eq!(items.len(), 1);
    assert_eq!(items[0].version, "1.10.0");
    let subjects: Vec<_> = composed
        .desired
        .instances
        .unwrap()
        .iter()
        .map(|i| i.subject.to_string())
        .collect();
    assert_eq!(subjects, ["a", "b"]);
}

#[test]
fn an_older_version_that_runs_is_better_than_a_newer_that_does_not() {
    let versions = vec![version("1.0.0", "amd64"), version("2.0.0", "arm64")];
    let composed = compose(&unit(vec![subject("s", vec![assigned("web", versions)])]));
    assert_eq!(composed.desired.items.unwrap()[0].version, "1.0.0");
    let rule = &composed.reports[0].rules[1];
    assert_eq!(
        rule.text,
        "version 1.0.0 runs on Node main; the newer 2.0.0 runs on none"
    );
}

#[test]
fn what_cannot_be_delivered_is_left_out_and_says_why() {
    let mut broken = version("1.0.0", "amd64");
    broken.readiness = Readiness::Unusable("bad signature".into());
    let composed = compose(&unit(vec![subject(
        "s",
        vec![
            assigned("broken", vec![broken]),
            assigned("foreign", vec![version("1.0.0", "riscv64")]),
            assigned("none", vec![]),
        ],
    )]));
    assert_eq!(
        composed.desired.items,
        Some(vec![]),
        "an empty list, not an absent one"
    );
    assert_eq!(composed.desired.instances, Some(vec![]));
    let told: Vec<String> = composed
        .reports
        .iter()
        .map(|report| {
            let rule = report
                .rules
                .iter()
                .find(|rule| rule.outcome == Outcome::Fail)
                .unwrap();
            format!("{}: {}: {}", report.service, rule.name, rule.text)
        })
        .collect();
    assert_eq!(
        told,
        [
            "broken: version_ready: version 1.0.0 cannot be delivered: bad signature",
            "foreign: platform_fits: no Node has what version 1.0.0 needs: runtime crun or runc or youki, platform linux/riscv64",
            "none: version_ready: it has no version",
        ]
    );
}

#[test]
fn the_assignment_overrides_the_version() {
    let mut one = assigned("web", vec![version("1.0.0", "amd64")]);
    one.num_instances = Some(3);
    one.priority = Some(7);
    one.labels = Some(vec!["gpu".into()]);
    let mut unit = unit(vec![subject("s", vec![one])]);
    unit.unit_config = Some(
        UnitConfig::from_slice(
            br#"{"formatVersion":"1","version":"1.0.0","nodes":[{"nodeGroupSubject":{"codename":"main-type"},"labels":["gpu"]}]}"#,
        )
        .unwrap(),
    );
    let composed = compose(&unit);
    let instances = composed.desired.instances.unwrap();
    assert_eq!((instances[0].num_instances, instances[0].priority), (3, 7));
    assert_eq!(instances[0].labels, ["gpu"]);
    assert!(
        composed.reports[0]
            .rules
            .iter()
            .all(|rule| rule.outcome == Outcome::Pass)
    );
}

#[test]
fn labels_that_no_node_has_are_told_but_do_not_stop_what_runs() {
    let mut one = assigned("web", vec![version("1.0.0", "amd64")]);
    one.labels = Some(vec!["gpu".into()]);
    let composed = compose(&unit(vec![subject("s", vec![one])]));
    assert_eq!(composed.desired.instances.unwrap().len(), 1);
    let rule = composed.reports[0]
        .rules
        .iter()
        .find(|rule| rule.name == RuleName::LabelsFit)
        .unwrap();
    assert_eq!(
        (rule.outcome, rule.text.as_str()),
        (Outcome::Fail, "no Node has the label(s) gpu")
    );
}

#[test]
fn a_unit_that_was_never_online_gets_the_newest_and_decides_itself() {
    let mut unit = unit(vec![subject(
        "s",
        vec![assigned("web", vec![version("1.0.0", "arm64")])],
    )]);
    unit.nodes[0].runtimes.clear();
    let composed = compose(&unit);
    assert_eq!(composed.desired.items.unwrap().len(), 1);
    assert_eq!(composed.reports[0].rules[1].outcome, Outcome::Waiting);
}

#[test]
fn the_order_of_the_input_does_not_matter() {
    let a = subject(
        "a",
        vec![
            assigned("x", vec![version("1.0.0", "amd64")]),
            assigned("y", vec![]),
        ],
    );
    let b = subject("b", vec![assigned("x", vec![version("1.0.0", "amd64")])]);
    let mut turned = a.clone();
    turned.services.reverse();
    assert_eq!(
        compose(&unit(vec![a, b.clone()])),
        compose(&unit(vec![b, turned]))
    );
}

#[test]
fn what_is_ordered_of_nodes_and_schedules_is_in_the_desired_state() {
    let mut unit = Unit {
        nodes: vec![node("b", "amd64"), node("a", "amd64"), node("c", "amd64")],
        sota_schedule: Some(Schedule {
            ttl: None,
            rule: ScheduleRule::Trigger,
        }),
        ..Unit::default()
    };
    unit.nodes[0].wanted = Some(DesiredNodeState::Provisioned);
    unit.nodes[1].wanted = Some(DesiredNodeState::Paused);
    let desired = compose(&unit).desired.to_json();
    assert_eq!(
        desired["nodes"].to_string(),
        r#"[{"item":{"codename":"a"},"state":"paused"},{"item":{"codename":"b"},"state":"provisioned"}]"#,
        "a Node of which nothing was said is not named"
    );
    assert_eq!(desired["sotaSchedule"]["type"], "trigger");
    assert!(desired.get("fotaSchedule").is_none());
}

#[test]
fn a_subject_of_the_unit_itself_is_marked() {
    let mut mine = subject("driver", vec![]);
    mine.is_reported = true;
    let unit = Unit {
        subjects: vec![subject("fleet", vec![]), mine],
        ..Unit::default()
    };
    let subjects = compose(&unit).desired.subjects.unwrap();
    let marks: Vec<_> = subjects
        .iter()
        .map(|it| (it.subject.as_str(), it.is_reported_from_unit))
        .collect();
    assert_eq!(marks, [("driver", true), ("fleet", false)]);
}

#[test]
fn each_rule_excludes_the_node_that_breaks_it() {
    let fine = node("fine", "amd64");
    let table: Vec<(Option<Exclusion>, Node)> = vec![
        (None, fine.clone()),
        (
            Some(Exclusion::State),
            Node {
                wanted: Some(DesiredNodeState::Paused),
                ..fine.clone()
            },
        ),
        (
            Some(Exclusion::State),
            Node {
                state: NodeState::Error,
                ..fine.clone()
            },
        ),
        (
            Some(Exclusion::Link),
            Node {
                connected: false,
                ..fine.clone()
            },
        ),
        (
            Some(Exclusion::Runtime),
            Node {
                runtimes: vec![],
                ..fine.clone()
            },
        ),
        (Some(Exclusion::Platform), node("fine", "arm64")),
        (
            Some(Exclusion::Labels),
            Node {
                node_type: "unlabelled".into(),
                ..fine.clone()
            },
        ),
        (
            Some(Exclusion::Resources),
            Node {
                resources: vec!["gps".into()],
                ..fine.clone()
            },
        ),
    ];
    let config = serde_json::json!({"version": "1.0.0", "nodes": [{"nodeType": "fine-type", "labels": ["edge"]}]});
    let mut version = version("1.0.0", "amd64");
    version.resources = vec!["camera".into()];
    for (expected, mut node) in table {
        if expected != Some(Exclusion::Resources) {
            node.resources = vec!["camera".into()];
        }
        let unit = Unit {
            nodes: vec![node],
            unit_config: Some(serde_json::from_value(config.clone()).unwrap()),
            ..Unit::default()
        };
        let verdict = &verdicts(&unit, &version, &["edge".into()])[0];
        assert_eq!(verdict.excluded_by, expected, "{}", verdict.text);
    }
}

#[test]
fn an_item_may_fail_alone_only_if_every_assignment_says_so() {
    for (one, other, expected) in [
        (true, true, true),
        (true, false, false),
        (false, true, false),
        (false, false, false),
    ] {
        let with = |independent| Assigned {
            independent,
            ..assigned("web", vec![version("1.0.0", "amd64")])
        };
        let unit = Unit {
            nodes: vec![node("main", "amd64")],
            subjects: vec![
                subject("a", vec![with(one)]),
                subject("b", vec![with(other)]),
            ],
            ..Unit::default()
        };
        let items = compose(&unit).desired.items.unwrap();
        assert_eq!((items.len(), items[0].independent), (1, expected));
    }
}
