//! What the engine itself costs: one update of N services with Nodes that do at once what they are told, its record written
//! as JSON at each transition; and reading and comparing a desired state of many instances.
//!
//! `cargo run --release -p aos-update --example cycle [N]...` prints one JSON object a line, times in milliseconds.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use aos_time::Timestamp;
use aos_types::{
    Digest, InstanceState, ItemId, ItemType, NodeId, NodeState, OwnerId, SubjectId, UnitConfig,
};
use aos_update::{
    Actual, Config, Desired, DesiredInstances, DesiredItem, DesiredNode, DesiredNodeState, Effect,
    Engine, Failures, Input, InstanceView, Output, Target, UpdateState, differences, resolve,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let given: Result<Vec<u64>, _> = std::env::args().skip(1).map(|one| one.parse()).collect();
    let mut sizes = given?;
    if sizes.is_empty() {
        sizes = vec![100, 1_000, 10_000];
    }
    for size in sizes {
        let (ms, stored) = cycle(size)?;
        show(&format!(
            "{{\"name\":\"update.cycle.{size}\",\"value\":{ms:.2},\"unit\":\"ms\",\"stored\":{stored}}}"
        ))?;
    }
    for entries in [1_000, 10_000] {
        let ms = comparison(entries, 10)?;
        show(&format!(
            "{{\"name\":\"update.compare.{}\",\"value\":{ms:.2},\"unit\":\"ms\"}}",
            entries * 10
        ))?;
    }
    Ok(())
}

fn show(line: &str) -> std::io::Result<()> {
    use std::io::Write;
    writeln!(std::io::stdout(), "{line}")
}

fn wish(services: u64, each: u64, version: &str) -> Result<Desired, Box<dyn std::error::Error>> {
    let (mut items, mut instances) = (Vec::new(), Vec::new());
    for number in 0..services {
        let id = ItemId::new(format!("item-{number}"))?;
        items.push(DesiredItem {
            id: id.clone(),
            item_type: ItemType::Service,
            version: version.into(),
            index_digest: Digest::from_bytes([1; 32]),
            owner: OwnerId::new("owner")?,
            independent: false,
        });
        instances.push(DesiredInstances {
            item: id,
            subject: SubjectId::new("subject")?,
            priority: 0,
            num_instances: each,
            labels: vec!["label".into()],
        });
    }
    Ok(Desired {
        nodes: Some(vec![DesiredNode {
            node: NodeId::new("main")?,
            state: DesiredNodeState::Provisioned,
        }]),
        unit_config: Some(UnitConfig {
            version: version.into(),
            ..UnitConfig::default()
        }),
        items: Some(items),
        instances: Some(instances),
        ..Desired::default()
    })
}

/// Milliseconds of one update of all services, and the bytes stored for it.
fn cycle(services: u64) -> Result<(f64, usize), Box<dyn std::error::Error>> {
    let now = Timestamp::EPOCH;
    // What is measured is the engine's own time, not what it waits for.
    let config = Config {
        settle: Duration::ZERO,
        ..Config::default()
    };
    let mut engine = Engine::restore(config, None, now);
    let mut actual = Actual {
        nodes: [(NodeId::new("main")?, NodeState::Provisioned)].into(),
        ..Actual::default()
    };
    let mut last = (0.0, 0);
    for version in ["1.0.0", "2.0.0"] {
        let desired = wish(services, 1, version)?;
        let mut stored = 0;
        let started = Instant::now();
        engine.handle(now, Input::Desired { desired, actual });
        loop {
            let mut effect = None;
            while let Some(output) = engine.poll() {
                match output {
                    Output::Persist(record) => stored += serde_json::to_vec(&record)?.len(),
                    Output::Do(id, what) => effect = Some((id, what)),
                    _ => {}
                }
            }
            match effect {
                Some((effect, Effect::Download { .. })) => engine.handle(
                    now,
                    Input::Downloaded {
                        effect,
                        failures: Failures::default(),
                    },
                ),
                Some((effect, _)) => engine.handle(
                    now,
                    Input::Done {
                        effect,
                        failures: Failures::default(),
                    },
                ),
                None if engine.state() == UpdateState::WaitingActive => {
                    engine.handle(now, Input::Instances(active(engine.in_force())));
                }
                None => break,
            }
        }
        last = (started.elapsed().as_secs_f64() * 1000.0, stored);
        actual = as_desired(engine.in_force())?;
    }
    Ok(last)
}

fn active(target: &Target) -> BTreeMap<aos_types::InstanceIdent, InstanceView> {
    target
        .wanted_instances()
        .map(|wanted| {
            let view = InstanceView {
                version: wanted.version,
                state: InstanceState::Active,
                error: None,
                recovers: false,
                restarts: 0,
            };
            (wanted.ident, view)
        })
        .collect()
}

fn as_desired(target: &Target) -> Result<Actual, Box<dyn std::error::Error>> {
    Ok(Actual {
        nodes: [(NodeId::new("main")?, NodeState::Provisioned)].into(),
        unit_config: target
            .unit_config
            .as_ref()
            .map(|config| config.version.clone()),
        instances: target
            .wanted_instances()
            .map(|wanted| (wanted.ident, wanted.version))
            .collect(),
    })
}

/// Milliseconds for reading a desired state and comparing it with a Unit that is as desired.
fn comparison(entries: u64, each: u64) -> Result<f64, Box<dyn std::error::Error>> {
    let (committed, _) = resolve(wish(entries, each, "1.0.0")?, &Target::default());
    let actual = as_desired(&committed)?;
    let again = wish(entries, each, "1.0.0")?;
    let started = Instant::now();
    let (target, _) = resolve(again, &committed);
    let found = differences(&target, &committed, &actual);
    let took = started.elapsed().as_secs_f64() * 1000.0;
    if found.is_empty() {
        Ok(took)
    } else {
        Err("the same desired state differs".into())
    }
}
