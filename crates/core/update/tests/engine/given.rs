//! What the tests start from.

use std::collections::BTreeMap;

use aos_time::Timestamp;
use aos_types::{
    AosCode, Digest, ErrorInfo, InstanceIdent, InstanceState, ItemId, ItemType, NodeId, NodeState,
    OwnerId, SubjectId, UnitConfig,
};
use aos_update::{
    Actual, Config, Desired, DesiredInstances, DesiredItem, DesiredNode, DesiredNodeState, Effect,
    EffectId, Engine, Failures, Input, InstanceView, Output, Record,
};

pub(crate) fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(secs)
}

pub(crate) fn item_id(name: &str) -> ItemId {
    ItemId::new(name).unwrap()
}

pub(crate) fn subject() -> SubjectId {
    SubjectId::new("subject").unwrap()
}

pub(crate) fn item(name: &str, version: &str) -> DesiredItem {
    let mut bytes = [0; 32];
    for (place, byte) in bytes.iter_mut().zip(format!("{name}{version}").bytes()) {
        *place = byte;
    }
    DesiredItem {
        id: item_id(name),
        item_type: ItemType::Service,
        version: version.into(),
        index_digest: Digest::from_bytes(bytes),
        owner: OwnerId::new("owner").unwrap(),
        independent: false,
    }
}

pub(crate) fn run(name: &str, count: u64) -> DesiredInstances {
    DesiredInstances {
        item: item_id(name),
        subject: subject(),
        priority: 0,
        num_instances: count,
        labels: vec![],
    }
}

pub(crate) fn node(state: DesiredNodeState) -> DesiredNode {
    DesiredNode {
        node: NodeId::new("main").unwrap(),
        state,
    }
}

/// The same with this item free to fail alone.
pub(crate) fn independent(mut desired: Desired, name: &str) -> Desired {
    for item in desired.items.iter_mut().flatten() {
        item.independent = item.id.as_str() == name;
    }
    desired
}

/// Items by name, version and count, with a Node and a configuration.
pub(crate) fn desired(config: &str, services: &[(&str, &str, u64)]) -> Desired {
    Desired {
        nodes: Some(vec![node(DesiredNodeState::Provisioned)]),
        unit_config: Some(UnitConfig {
            version: config.into(),
            ..UnitConfig::default()
        }),
        items: Some(
            services
                .iter()
                .map(|(name, version, _)| item(name, version))
                .collect(),
        ),
        instances: Some(
            services
                .iter()
                .map(|(name, _, count)| run(name, *count))
                .collect(),
        ),
        ..Desired::default()
    }
}

pub(crate) fn ident(name: &str, index: u64) -> InstanceIdent {
    InstanceIdent::service(item_id(name), subject(), index)
}

pub(crate) fn error(text: &str) -> ErrorInfo {
    ErrorInfo::new(AosCode::Failed, text)
}

pub(crate) fn views(
    of: &[(&str, u64, &str, InstanceState)],
) -> BTreeMap<InstanceIdent, InstanceView> {
    of.iter()
        .map(|(name, index, version, state)| {
            let view = InstanceView {
                version: (*version).into(),
                state: *state,
                error: None,
                recovers: false,
                restarts: 0,
            };
            (ident(name, *index), view)
        })
        .collect()
}

/// The Unit runs exactly what the engine's set in force says.
pub(crate) fn actual_of(engine: &Engine) -> Actual {
    let record = engine.record();
    Actual {
        nodes: [(NodeId::new("main").unwrap(), NodeState::Provisioned)].into(),
        unit_config: record
            .committed
            .unit_config
            .as_ref()
            .map(|config| config.version.clone()),
        instances: engine
            .in_force()
            .wanted_instances()
            .map(|wanted| (wanted.ident, wanted.version))
            .collect(),
    }
}

pub(crate) fn all_active(engine: &Engine) -> BTreeMap<InstanceIdent, InstanceView> {
    engine
        .in_force()
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

/// Whatever is active is committed at once: what comes of waiting for more is tested by itself.
pub(crate) fn config() -> Config {
    Config {
        settle: std::time::Duration::ZERO,
        ..Config::default()
    }
}

pub(crate) fn engine() -> Engine {
    Engine::restore(config(), None, at(0))
}

/// An engine that has been through a restart at this point.
pub(crate) fn restarted(engine: &Engine, now: i64) -> Engine {
    let record: Record =
        serde_json::from_str(&serde_json::to_string(engine.record()).unwrap()).unwrap();
    assert_eq!(&record, engine.record(), "the record survives JSON");
    Engine::restore(config(), Some(record), at(now))
}

pub(crate) fn drain(engine: &mut Engine) -> Vec<Output> {
    std::iter::from_fn(|| engine.poll()).collect()
}

pub(crate) fn send(engine: &mut Engine, now: i64, desired: Desired) -> Vec<Output> {
    let actual = actual_of(engine);
    engine.handle(at(now), Input::Desired { desired, actual });
    drain(engine)
}

pub(crate) fn asked(outputs: &[Output]) -> Option<(EffectId, Effect)> {
    outputs.iter().rev().find_map(|output| match output {
        Output::Do(_, Effect::Cancel { .. }) => None,
        Output::Do(id, effect) => Some((*id, effect.clone())),
        _ => None,
    })
}

pub(crate) fn answer(
    engine: &mut Engine,
    now: i64,
    (effect, what): (EffectId, Effect),
    failures: Failures,
) -> Vec<Output> {
    let input = match what {
        Effect::Download { .. } => Input::Downloaded { effect, failures },
        _ => Input::Done { effect, failures },
    };
    engine.handle(at(now), input);
    drain(engine)
}

/// Answers every effect with success until nothing is asked; says what was asked.
pub(crate) fn go_on(engine: &mut Engine, now: i64, mut outputs: Vec<Output>) -> Vec<Effect> {
    let mut all = Vec::new();
    loop {
        while let Some((id, effect)) = asked(&outputs) {
            all.push(effect.clone());
            outputs = answer(engine, now, (id, effect), Failures::default());
        }
        if engine.state() != aos_update::UpdateState::WaitingActive {
            return all;
        }
        let active = all_active(engine);
        engine.handle(at(now), Input::Instances(active));
        outputs = drain(engine);
        if asked(&outputs).is_none() {
            return all;
        }
    }
}

/// An engine with a committed set: configuration 1.0.0, service a 1.
pub(crate) fn settled() -> Engine {
    let mut engine = engine();
    let outputs = send(&mut engine, 0, desired("1.0.0", &[("a", "1", 1)]));
    go_on(&mut engine, 0, outputs);
    engine
}

/// `settled`, then a 2 is desired and led to `state`.
pub(crate) fn in_state(state: aos_update::UpdateState) -> (Engine, Option<(EffectId, Effect)>) {
    let mut engine = settled();
    let mut outputs = send(&mut engine, 10, desired("2.0.0", &[("a", "2", 1)]));
    loop {
        if engine.state() == state {
            return (engine, asked(&outputs));
        }
        match asked(&outputs) {
            Some(effect) => outputs = answer(&mut engine, 10, effect, Failures::default()),
            None => {
                let active = all_active(&engine);
                engine.handle(at(10), Input::Instances(active));
                outputs = drain(&mut engine);
            }
        }
    }
}
