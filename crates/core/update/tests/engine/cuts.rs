//! A Unit in a few lines: power cuts after any output, lost effects, failing downloads and instances, newer desired states.
//! Whatever happens: what runs is the committed set or one whose blobs were all verified, no item of the committed set is
//! ever thrown away, and when the trouble stops the Unit has what was asked last, or says why not.

use std::collections::BTreeSet;

use aos_time::Timestamp;
use aos_types::InstanceState;
use aos_update::{
    Config, DesiredItem, Effect, EffectId, Engine, Failures, Input, Output, Record, Target,
    UpdateState,
};
use proptest::prelude::*;

use crate::given::*;

#[derive(Debug, Clone)]
enum Event {
    /// Service a in this version, b if the number says so.
    Desire(u8, u8),
    /// The oldest effect in hand ends well, or not.
    End(bool),
    /// The Nodes say how the instances are; the flag makes one of them fail.
    Look(bool),
    /// The power goes after so many outputs of the next input.
    Cut(usize),
    Pass(i64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        2 => (1..5u8, 0..3u8).prop_map(|(a, b)| Event::Desire(a, b)),
        8 => prop::bool::weighted(0.85).prop_map(Event::End),
        4 => prop::bool::weighted(0.2).prop_map(Event::Look),
        3 => (0..5usize).prop_map(Event::Cut),
        1 => (1..4000i64).prop_map(Event::Pass),
    ]
}

struct Unit {
    engine: Engine,
    now: i64,
    disk: Option<Record>,
    in_hand: Vec<(EffectId, Effect)>,
    /// Verified and kept blobs, by item version.
    images: BTreeSet<String>,
    running: Target,
    /// Outputs until the power goes.
    power: usize,
    last: Option<aos_update::Desired>,
}

fn key(item: &DesiredItem) -> String {
    format!("{} {}", item.id, item.version)
}

impl Unit {
    fn new() -> Self {
        Self {
            engine: engine(),
            now: 0,
            disk: None,
            in_hand: Vec::new(),
            images: BTreeSet::new(),
            running: Target::default(),
            power: usize::MAX,
            last: None,
        }
    }

    fn input(&mut self, input: Input) {
        self.engine.handle(Timestamp::from_secs(self.now), input);
        self.run();
    }

    fn run(&mut self) {
        loop {
            if self.power == 0 {
                self.power = usize::MAX;
                self.in_hand.clear();
                let record = self.disk.clone();
                let now = Timestamp::from_secs(self.now);
                self.engine = Engine::restore(Config::default(), record, now);
                // CM gives the Nodes, when they connect again, the set in force.
                self.running = self.engine.in_force().clone();
                self.all_verified(&self.running);
            }
            let Some(output) = self.engine.poll() else {
                return;
            };
            self.power = self.power.saturating_sub(1);
            match output {
                Output::Persist(record) => {
                    for item in &record.committed.items {
                        assert!(
                            self.images.contains(&key(item)),
                            "{} is committed, its image is gone",
                            key(item)
                        );
                    }
                    self.disk = Some(*record);
                }
                Output::Do(_, Effect::Cancel { effect }) => {
                    self.in_hand.retain(|(id, _)| *id != effect);
                }
                Output::Do(id, effect) => self.in_hand.push((id, effect)),
                _ => {}
            }
        }
    }

    fn end(&mut self, well: bool) {
        if self.in_hand.is_empty() {
            return;
        }
        let (effect, what) = self.in_hand.remove(0);
        let mut failures = if well {
            Failures::default()
        } else {
            Failures::of_step(error("trouble"))
        };
        match &what {
            Effect::Download { items, .. } => {
                for item in items {
                    if well {
                        self.images.insert(key(item));
                    } else if !self.images.contains(&key(item)) {
                        failures.items.insert(item.id.clone(), error("not found"));
                    }
                }
                self.input(Input::Downloaded { effect, failures });
                return;
            }
            Effect::InstallOnNodes { target } => self.all_verified(target),
            // A Node may have taken the list over although the answer is lost.
            Effect::Launch { target } => {
                self.all_verified(target);
                self.running = target.clone();
                self.look(false);
            }
            Effect::Commit { target } if well => {
                let keep: BTreeSet<String> = target.items.iter().map(key).collect();
                self.images.retain(|image| keep.contains(image));
            }
            _ => {}
        }
        self.input(Input::Done { effect, failures });
    }

    fn all_verified(&self, target: &Target) {
        for item in &target.items {
            assert!(
                self.images.contains(&key(item)),
                "{} is used, and was not verified",
                key(item)
            );
        }
    }

    fn look(&mut self, fails: bool) {
        let mut view = all_active(&self.engine);
        view.retain(|ident, view| {
            self.running
                .wanted_instances()
                .any(|wanted| wanted.ident == *ident && wanted.version == view.version)
        });
        if fails && let Some(view) = view.values_mut().next() {
            view.state = InstanceState::Failed;
        }
        self.input(Input::Instances(view));
    }

    fn apply(&mut self, event: &Event) {
        match *event {
            Event::Desire(a, b) => {
                let (a, b) = (a.to_string(), b.to_string());
                let mut services = vec![("a", a.as_str(), 1)];
                if b != "0" {
                    services.push(("b", b.as_str(), 2));
                }
                self.desire(desired("1.0.0", &services));
            }
            Event::End(well) => self.end(well),
            Event::Look(fails) => self.look(fails),
            Event::Cut(outputs) => self.power = outputs,
            Event::Pass(secs) => {
                self.now += secs;
                self.input(Input::Wake);
            }
        }
    }

    fn desire(&mut self, wish: aos_update::Desired) {
        let actual = aos_update::Actual {
            unit_config: self
                .engine
                .record()
                .committed
                .unit_config
                .as_ref()
                .map(|config| config.version.clone()),
            nodes: actual_of(&self.engine).nodes,
            instances: self
                .running
                .wanted_instances()
                .map(|wanted| (wanted.ident, wanted.version))
                .collect(),
        };
        self.last = Some(wish.clone());
        self.input(Input::Desired {
            desired: wish,
            actual,
        });
    }

    fn settle(&mut self) {
        for _ in 0..1000 {
            // A launch that was not answered in time is still carried out.
            if self.engine.state() == UpdateState::None && self.in_hand.is_empty() {
                return;
            }
            if self.in_hand.is_empty() {
                self.look(false);
                self.now += 10;
                self.input(Input::Wake);
            } else {
                self.end(true);
            }
        }
        panic!("stuck in {:?}", self.engine.record());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn power_cuts_never_lose_the_committed_set_and_the_unit_converges(
        events in prop::collection::vec(event(), 0..80)
    ) {
        let mut unit = Unit::new();
        for event in &events {
            unit.apply(event);
        }
        unit.power = usize::MAX;
        unit.settle();
        // The set in force is whole, and it is what runs (once something was launched).
        let record = unit.engine.record();
        prop_assert!(record.launched.is_none());
        prop_assert_eq!(&unit.running.items, &record.committed.items);
        // The cloud says it once more: without trouble the Unit gets there.
        if let Some(wish) = unit.last.clone() {
            unit.desire(wish.clone());
            unit.settle();
            prop_assert_eq!(Some(&unit.engine.record().committed.items), wish.items.as_ref());
            prop_assert_eq!(&unit.running.items, &unit.engine.record().committed.items);
            prop_assert!(unit.engine.record().failure.is_none());
        }
    }
}
