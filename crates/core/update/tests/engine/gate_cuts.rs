//! Gates through power cuts: whatever is asked for, started, consented to, cut and restored, nothing is installed that its
//! gate did not let through; every wait ends; and when somebody opens the gates the Unit has what was asked last.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use aos_types::{ItemType, Schedule, ScheduleRule};
use aos_update::{
    Config, Desired, Direction, Effect, EffectId, Engine, Failures, GatePolicy, Input, Order,
    Output, Readiness, ReadinessPolicy, Record, UpdatePart, UpdateState,
};
use proptest::prelude::*;

use crate::given::*;

const TTL: i64 = 5000;
const INTERVAL: i64 = 60;

#[derive(Debug, Clone)]
enum Event {
    /// Service and component in these versions; whether each needs a trigger.
    Desire(u8, u8, bool, bool),
    Start(UpdatePart),
    Consent(bool),
    /// The oldest effect in hand ends, or says "ready"; or not.
    End(bool),
    Cut(usize),
    Pass(i64),
}

fn event() -> impl Strategy<Value = Event> {
    let part = prop::sample::select(UpdatePart::ALL.to_vec());
    prop_oneof![
        2 => (1..4u8, 1..4u8, any::<bool>(), any::<bool>()).prop_map(|(a, b, s, f)| Event::Desire(a, b, s, f)),
        3 => part.prop_map(Event::Start),
        2 => prop::bool::weighted(0.7).prop_map(Event::Consent),
        8 => prop::bool::weighted(0.8).prop_map(Event::End),
        3 => (0..5usize).prop_map(Event::Cut),
        2 => (1..3000i64).prop_map(Event::Pass),
    ]
}

fn wish(a: u8, boot: u8, soft: bool, firm: bool) -> Desired {
    let (a, boot) = (a.to_string(), boot.to_string());
    let mut wish = desired("1.0.0", &[("a", &a, 1), ("boot", &boot, 1)]);
    for item in wish.items.iter_mut().flatten() {
        if item.id.as_str() == "boot" {
            item.item_type = ItemType::Component;
        }
    }
    let rule = |trigger| Schedule {
        ttl: None,
        rule: if trigger {
            ScheduleRule::Trigger
        } else {
            ScheduleRule::Force
        },
    };
    wish.sota_schedule = Some(rule(soft));
    wish.fota_schedule = Some(rule(firm));
    wish
}

fn config() -> Config {
    Config {
        gates: GatePolicy {
            ttl: Duration::from_secs(TTL as u64),
            consent: [UpdatePart::Firmware].into(),
            readiness: Some(ReadinessPolicy {
                interval: Duration::from_secs(INTERVAL as u64),
                deadline: Duration::from_secs(TTL as u64),
            }),
            ..GatePolicy::default()
        },
        ..crate::given::config()
    }
}

/// What people said about one update.
#[derive(Debug, Default, Clone)]
struct Said {
    started: BTreeSet<UpdatePart>,
    consent: bool,
}

struct Unit {
    engine: Engine,
    now: i64,
    disk: Option<Record>,
    in_hand: Vec<(EffectId, Effect)>,
    power: usize,
    /// By the number of the update.
    said: BTreeMap<u64, Said>,
    /// The Unit has said that it is ready since the last effect that changes something was begun.
    ready: bool,
    opened: usize,
    cuts: usize,
}

impl Unit {
    fn new() -> Self {
        Self {
            engine: Engine::restore(config(), None, at(0)),
            now: 0,
            disk: None,
            in_hand: Vec::new(),
            power: usize::MAX,
            said: BTreeMap::new(),
            ready: false,
            opened: 0,
            cuts: 0,
        }
    }

    /// An update begins to touch the Unit: everything that holds it back must have let it through.
    fn check(&mut self, record: &Record) {
        let Some(cycle) = &record.cycle else { return };
        let begins =
            cycle.state == UpdateState::Installing && cycle.direction == Direction::Forward;
        let begun = self.disk.as_ref().and_then(|disk| disk.cycle.as_ref());
        let begun = begun.is_some_and(|before| {
            before.state == UpdateState::Installing && before.target.items == cycle.target.items
        });
        if !begins || begun {
            return;
        }
        let said = self.said.get(&record.gates.as_ref().unwrap().update);
        let said = said.cloned().unwrap_or_default();
        let asked = cycle.asked();
        for (part, item, schedule) in [
            (UpdatePart::Software, "a", &asked.sota_schedule),
            (UpdatePart::Firmware, "boot", &asked.fota_schedule),
        ] {
            let id = item_id(item);
            if cycle.target.item(&id) == record.committed.item(&id) {
                continue;
            }
            self.opened += 1;
            let needs_start = schedule.as_ref().unwrap().rule == ScheduleRule::Trigger;
            assert!(
                !needs_start || said.started.contains(&part),
                "{part} was not started"
            );
            assert!(part == UpdatePart::Software || said.consent, "no consent");
            assert!(self.ready, "the Unit did not say that it is ready");
        }
        self.ready = false;
    }

    fn run(&mut self) {
        loop {
            if self.power == 0 {
                self.power = usize::MAX;
                self.cuts += 1;
                self.in_hand.clear();
                self.ready = false;
                self.engine = Engine::restore(config(), self.disk.clone(), at(self.now));
            }
            let Some(output) = self.engine.poll() else {
                return;
            };
            self.power = self.power.saturating_sub(1);
            match output {
                Output::Persist(record) => {
                    self.check(&record);
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

    fn input(&mut self, input: Input) {
        self.engine.handle(at(self.now), input);
        self.run();
    }

    fn end(&mut self, well: bool) {
        if self.in_hand.is_empty() {
            let active = all_active(&self.engine);
            self.input(Input::Instances(active));
            return;
        }
        let (effect, what) = self.in_hand.remove(0);
        let failures = if well {
            Failures::default()
        } else {
            Failures::of_step(error("trouble"))
        };
        match what {
            Effect::AskReadiness => {
                self.ready = well;
                let readiness = if well {
                    Readiness::Ready
                } else {
                    Readiness::NotReady("no".into())
                };
                self.input(Input::Readiness { effect, readiness });
                self.ready = false;
            }
            Effect::Download { .. } => self.input(Input::Downloaded { effect, failures }),
            _ => self.input(Input::Done { effect, failures }),
        }
    }

    fn order(&mut self, order: Order) -> bool {
        let done = self.engine.order(at(self.now), order).is_ok();
        self.run();
        done
    }

    /// What is said of the update that there is now. It is noted before it is stored: a cut in between must not let more
    /// through than was said.
    fn say(&mut self, say: impl FnOnce(&mut Said), order: Order) {
        let update = self
            .engine
            .record()
            .gates
            .as_ref()
            .map_or(0, |gates| gates.update);
        let before = self.said.clone();
        let (takes_back, cuts) = (
            matches!(order, Order::Consent { given: false, .. }),
            self.cuts,
        );
        say(self.said.entry(update).or_default());
        // A refusal that went with the power binds nobody: whoever said it got no answer.
        let done = self.order(order);
        if !done || (takes_back && self.cuts != cuts) {
            self.said = before;
        }
    }

    fn start(&mut self, part: UpdatePart) {
        let order = Order::Start { part, again: false };
        self.say(|said| _ = said.started.insert(part), order);
    }

    fn consent(&mut self, given: bool) {
        let order = Order::Consent {
            update: None,
            parts: [].into(),
            given,
            reason: String::new(),
        };
        self.say(|said| said.consent = given, order);
    }

    fn desire(&mut self, desired: Desired) {
        let actual = actual_of(&self.engine);
        self.input(Input::Desired { desired, actual });
    }

    fn apply(&mut self, event: &Event) {
        match *event {
            Event::Desire(a, b, soft, firm) => self.desire(wish(a, b, soft, firm)),
            Event::Start(part) => self.start(part),
            Event::Consent(given) => self.consent(given),
            Event::End(well) => self.end(well),
            Event::Cut(outputs) => self.power = outputs,
            Event::Pass(secs) => {
                self.now += secs;
                self.input(Input::Wake);
            }
        }
    }

    /// Nobody opens anything any more: every wait has an end.
    fn wait_to_the_end(&mut self) {
        for _ in 0..2000 {
            if self.engine.state() == UpdateState::None && self.in_hand.is_empty() {
                return;
            }
            self.end(true);
            if self.in_hand.is_empty() {
                self.now += 30;
                self.input(Input::Wake);
            }
        }
        panic!("stuck in {:?}", self.engine.record().cycle);
    }

    /// Somebody opens whatever waits.
    fn open_all(&mut self) {
        for _ in 0..2000 {
            if self.engine.state() == UpdateState::None && self.in_hand.is_empty() {
                return;
            }
            for part in UpdatePart::ALL {
                self.start(part);
            }
            self.consent(true);
            self.end(true);
            if self.in_hand.is_empty() {
                self.now += 1;
                self.input(Input::Wake);
            }
        }
        panic!("stuck in {:?}", self.engine.record().cycle);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn nothing_passes_a_shut_gate_and_every_wait_ends(
        events in prop::collection::vec(event(), 0..80)
    ) {
        let mut unit = Unit::new();
        for event in &events {
            unit.apply(event);
        }
        unit.power = usize::MAX;
        unit.wait_to_the_end();
        // Something newer, and somebody who opens the gates: it gets there.
        let last = wish(9, 9, true, true);
        unit.desire(last.clone());
        unit.open_all();
        prop_assert_eq!(Some(&unit.engine.record().committed.items), last.items.as_ref());
        prop_assert!(unit.engine.record().failure.is_none());
        prop_assert!(unit.opened >= 2, "both parts went through their gates");
    }
}
