//! A Unit in a few lines: power cuts after any output, lost effects, failing downloads and instances, newer desired states.
//! Whatever happens: what runs is the committed set or one whose blobs were all verified, no item of the committed set is
//! ever thrown away, and when the trouble stops the Unit has what was asked last, or says why not.

use std::collections::BTreeSet;

use aos_time::Timestamp;
use aos_types::{InstanceState, ItemType, Schedule};
use aos_update::{
    Config, DesiredItem, Effect, EffectId, Engine, Failures, Input, Order, Output, Record, Target,
    UpdatePart, UpdateState,
    policy::{Policy, Rules},
};
use proptest::{
    prelude::*,
    test_runner::{RngAlgorithm, TestRng, TestRunner},
};

use crate::given::*;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Outcome {
    Well,
    /// The step itself fails.
    Badly,
    /// Only what belongs to service b fails.
    WithoutB,
}

#[derive(Debug, Clone)]
enum Event {
    /// Service a in this version; b, free to fail alone, if the number says so; component c in the version of a, if that is
    /// even. The flag makes the software wait for somebody to start it.
    Desire(u8, u8, bool),
    /// Somebody starts the software part.
    Start,
    /// The oldest effect in hand ends.
    End(Outcome),
    /// The Nodes say how the instances are; the number makes the one of that place fail, the flag for good.
    Look(Option<(usize, bool)>),
    /// The power goes after so many outputs of the next input.
    Cut(usize),
    /// The clock goes on, or is put back.
    Pass(i64),
}

fn event() -> impl Strategy<Value = Event> {
    let outcome = prop_oneof![
        8 => Just(Outcome::Well),
        1 => Just(Outcome::Badly),
        1 => Just(Outcome::WithoutB),
    ];
    let failing = prop::option::weighted(0.25, (0..3usize, any::<bool>()));
    prop_oneof![
        2 => (1..5u8, 0..3u8, prop::bool::weighted(0.3))
            .prop_map(|(a, b, waits)| Event::Desire(a, b, waits)),
        1 => Just(Event::Start),
        8 => outcome.prop_map(Event::End),
        4 => failing.prop_map(Event::Look),
        3 => (0..5usize).prop_map(Event::Cut),
        1 => (1..4000i64).prop_map(Event::Pass),
        1 => (-100_000..100_000i64).prop_map(Event::Pass),
    ]
}

struct Unit {
    engine: Engine,
    config: Config,
    now: i64,
    disk: Option<Record>,
    in_hand: Vec<(EffectId, Effect)>,
    /// Verified and kept blobs, by item version.
    images: BTreeSet<String>,
    running: Target,
    /// Outputs until the power goes.
    power: usize,
    /// How often it went.
    cuts: usize,
    /// When the engine wants to be woken.
    wake: Option<Timestamp>,
    last: Option<aos_update::Desired>,
}

fn key(item: &DesiredItem) -> String {
    format!("{} {}", item.id, item.version)
}

impl Unit {
    fn new(policy: &'static dyn Policy) -> Self {
        let config = Config { policy, ..config() };
        Self {
            engine: Engine::restore(config.clone(), None, at(0)),
            config,
            now: 0,
            disk: None,
            in_hand: Vec::new(),
            images: BTreeSet::new(),
            running: Target::default(),
            power: usize::MAX,
            cuts: 0,
            wake: None,
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
                self.cuts += 1;
                self.in_hand.clear();
                self.wake = None;
                let record = self.disk.clone();
                let now = Timestamp::from_secs(self.now);
                self.engine = Engine::restore(self.config.clone(), record, now);
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
                    assert!(
                        record.launched.is_none() || record.cycle.is_some(),
                        "a half-done set, and nothing leads out of it"
                    );
                    self.disk = Some(*record);
                }
                Output::Do(_, Effect::Cancel { effect }) => {
                    self.in_hand.retain(|(id, _)| *id != effect);
                }
                Output::Do(id, effect) => self.in_hand.push((id, effect)),
                Output::WakeAt(at) => self.wake = Some(at),
                _ => {}
            }
        }
    }

    fn end(&mut self, outcome: Outcome) {
        if self.in_hand.is_empty() {
            return;
        }
        let well = outcome == Outcome::Well;
        let (effect, what) = self.in_hand.remove(0);
        let mut failures = match outcome {
            Outcome::Well => Failures::default(),
            Outcome::Badly => Failures::of_step(error("trouble")),
            Outcome::WithoutB => Failures {
                instances: [(ident("b", 0), error("b does not start"))].into(),
                ..Failures::default()
            },
        };
        match &what {
            Effect::Download { items, .. } => {
                failures = Failures::default();
                for item in items {
                    let fails = match outcome {
                        Outcome::Well => false,
                        Outcome::Badly => true,
                        Outcome::WithoutB => item.id == item_id("b"),
                    };
                    if !fails {
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
                self.look(None);
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

    fn look(&mut self, fails: Option<(usize, bool)>) {
        let mut view = all_active(&self.engine);
        view.retain(|ident, view| {
            self.running
                .wanted_instances()
                .any(|wanted| wanted.ident == *ident && wanted.version == view.version)
        });
        if let Some((place, for_good)) = fails
            && let Some(view) = view.values_mut().nth(place)
        {
            view.state = InstanceState::Failed;
            view.recovers = !for_good;
        }
        self.input(Input::Instances(view));
    }

    fn apply(&mut self, event: &Event) {
        match *event {
            Event::Desire(a, b, waits) => {
                let even = a % 2 == 0;
                let (a, b) = (a.to_string(), b.to_string());
                let mut services = vec![("a", a.as_str(), 1)];
                if even {
                    services.push(("c", a.as_str(), 1));
                }
                if b != "0" {
                    services.push(("b", b.as_str(), 2));
                }
                let mut wish = independent(desired("1.0.0", &services), "b");
                for item in wish.items.iter_mut().flatten() {
                    if item.id == item_id("c") {
                        item.item_type = ItemType::Component;
                    }
                }
                wish.sota_schedule = waits.then(|| Schedule::closed(None));
                self.desire(wish);
            }
            Event::Start => {
                let order = Order::Start {
                    part: UpdatePart::Software,
                    again: true,
                };
                // Refused most of the time.
                let _ = self.engine.order(Timestamp::from_secs(self.now), order);
                self.run();
            }
            Event::End(outcome) => self.end(outcome),
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
        let cuts = self.cuts;
        self.input(Input::Desired {
            desired: wish.clone(),
            actual,
        });
        // It was not acknowledged: the cloud says it again.
        if self.cuts > cuts {
            self.desire(wish);
        }
    }

    /// No more trouble: time goes on until nothing is left to be done or tried again.
    fn settle(&mut self) {
        for _ in 0..1000 {
            let record = self.engine.record();
            let failure = record.failure.as_ref();
            let rests = record.cycle.is_none()
                && record.rollback.is_none()
                && failure.is_none_or(|failure| failure.retry_at.is_none());
            // A launch that was not answered in time is still carried out.
            if rests && self.in_hand.is_empty() {
                return;
            }
            if self.in_hand.is_empty() {
                self.look(None);
                self.apply(&Event::Start);
                let wake = self.wake.map_or(0, Timestamp::as_secs);
                self.now = wake.clamp(self.now + 10, self.now + 24 * 3600) + 1;
                self.input(Input::Wake);
            } else {
                self.end(Outcome::Well);
            }
        }
        panic!("stuck in {:?}", self.engine.record());
    }
}

/// Lets these things happen, then no more trouble, and looks whether the Unit is where it was asked to be.
fn happens(policy: &'static dyn Policy, events: &[Event]) -> Result<(), TestCaseError> {
    let mut unit = Unit::new(policy);
    for event in events {
        unit.apply(event);
    }
    unit.power = usize::MAX;
    unit.settle();
    // The set in force is whole, and it is what runs (once something was launched).
    let record = unit.engine.record();
    prop_assert!(record.launched.is_none());
    prop_assert!(
        unit.running.asks_the_same(&record.committed) || unit.running == Target::default()
    );
    let Some(wish) = unit.last.clone() else {
        return Ok(());
    };
    // The cloud need not say it again, unless it was given up.
    if let Some(failure) = &record.failure {
        prop_assert!(
            failure.attempts >= unit.config.retry.attempts,
            "{failure:?}"
        );
        unit.now += 2 * 3600;
        unit.desire(wish.clone());
        unit.settle();
    }
    let record = unit.engine.record();
    prop_assert!(record.failure.is_none(), "{:?}", record.failure);
    let ids = |items: &[DesiredItem]| items.iter().map(key).collect::<BTreeSet<_>>();
    let wanted = wish.items.unwrap_or_default();
    prop_assert_eq!(ids(&record.committed.items), ids(&wanted));
    prop_assert_eq!(ids(&unit.running.items), ids(&record.committed.items));
    Ok(())
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    prop::collection::vec(event(), 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn power_cuts_never_lose_the_committed_set_and_the_unit_converges(events in events()) {
        happens(&Rules, &events)?;
    }
}

/// A fault that is planted: what does not find these proves nothing.
macro_rules! fault {
    ($name:ident, $($rule:tt)*) => {
        #[derive(Debug)]
        struct $name;

        impl Policy for $name {
            $($rule)*
        }
    };
}

fault!(
    StoresNothing,
    fn stores(&self, _: &Record) -> bool {
        false
    }
);
fault!(
    NeverRetries,
    fn retries(&self) -> bool {
        false
    }
);
fault!(
    NeverUndoes,
    fn undoes(&self) -> bool {
        false
    }
);
fault!(
    GoesBackToNothing,
    fn way_back(&self, _: &Record) -> Target {
        Target::default()
    }
);
fault!(
    TakesWhatFailed,
    fn ends_update(&self, _: UpdateState, _: &Failures, _: bool) -> bool {
        false
    }
);
fault!(
    ForgetsTheNewest,
    fn is_same(&self, _: &Target, newest: &Target) -> bool {
        !newest.items.is_empty()
    }
);

#[test]
fn planted_faults_are_found() {
    let faults: [&'static dyn Policy; 6] = [
        &StoresNothing,
        &NeverRetries,
        &NeverUndoes,
        &GoesBackToNothing,
        &TakesWhatFailed,
        &ForgetsTheNewest,
    ];
    for fault in faults {
        let config = ProptestConfig {
            cases: 300,
            max_shrink_iters: 0,
            failure_persistence: None,
            ..ProptestConfig::default()
        };
        let mut runner =
            TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
        let found = runner.run(&events(), |events| happens(fault, &events));
        assert!(found.is_err(), "{fault:?} was not found");
    }
}
