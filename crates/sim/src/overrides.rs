//! Variables that the cloud sets for instances, each until its time.

use std::{collections::BTreeMap, time::Duration};

use aos_session::Keep;
use aos_time::Timestamp;

use crate::{
    coverage::Fault,
    draw::{DAY, HOUR, MIN},
    event::Event,
    mutation::Mutation,
    words::{Inst, Item},
    world::{Message, World},
};

/// Variables of an instance, by name.
pub(crate) type Env = Vec<(String, String)>;

/// One variable for the instances of an item, or for all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Variable {
    item: Option<Item>,
    name: u8,
    value: usize,
    until: Option<Timestamp>,
}

impl Variable {
    pub(crate) fn is_over(&self, now: Timestamp) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    /// Whether its end is so near that nobody can say whether it counts.
    fn ends_about(&self, now: Timestamp) -> bool {
        let near = |until: Timestamp| until.since(now) < HOUR && now.since(until) < HOUR;
        self.until.is_some_and(near)
    }
}

/// A whole set, as the cloud sends it.
pub(crate) type Overrides = Vec<Variable>;

/// The variables of an instance; of several for one name the last counts.
pub(crate) fn env(overrides: &Overrides, inst: Inst, now: Timestamp) -> Env {
    let meant =
        |one: &&Variable| one.item.is_none_or(|item| item == inst.item) && !one.is_over(now);
    let by_name: BTreeMap<u8, usize> = overrides
        .iter()
        .filter(meant)
        .map(|one| (one.name, one.value))
        .collect();
    by_name
        .into_iter()
        .map(|(name, value)| (format!("V{name}"), value.to_string()))
        .collect()
}

impl World {
    /// The cloud sets variables, or takes them all back.
    pub(crate) fn override_comes(&mut self) {
        if self.over {
            return;
        }
        let after = self.dice.scale(HOUR, 6 * DAY);
        self.after(after, Event::Override);
        let number = self.overrides.len();
        let count = self.dice.to(4);
        let set = (0..count)
            .map(|_| Variable {
                item: (!self.dice.percent(20))
                    .then(|| self.dice.index(self.scene.items.len()) as Item),
                name: self.dice.to(3) as u8,
                value: number,
                until: self
                    .dice
                    .percent(70)
                    .then(|| self.now + self.dice.scale(MIN, 5 * DAY)),
            })
            .collect();
        self.note(|_| format!("CLOUD sets variables #{number}: {set:?}"));
        self.overrides.push(set);
        let message = self.message(Message::Override(number));
        self.cloud_sends(message, Keep::Durable, Some("override"));
    }

    /// CM has them: stored before the cloud hears of it.
    pub(crate) fn cm_overrides(&mut self, number: usize) {
        self.coverage.fault(Fault::Overridden);
        let now = self.cm_now();
        let mut set = self.overrides[number].clone();
        set.retain(|one| !one.is_over(now));
        self.oracle.overridden = Some((number, self.now));
        self.cm.disk.overrides.clone_from(&set);
        if let Some(run) = &mut self.cm.run {
            run.overrides = set;
        }
        self.publish();
        self.follow_soon();
    }

    /// Drops what is over, and comes back for the next end.
    pub(crate) fn end_overrides(&mut self) {
        let now = self.cm_now();
        let life = self.cm.life;
        let Some(run) = &mut self.cm.run else { return };
        let before = run.overrides.len();
        if !self
            .mutation
            .is_some_and(|one| one == Mutation::EndsIgnored)
        {
            run.overrides.retain(|one| !one.is_over(now));
        }
        let left = run.overrides.clone();
        let next = left.iter().filter_map(|one| one.until).min();
        if left.len() != before {
            self.coverage.fault(Fault::OverrideEnds);
            if self.now.since(self.oracle.cm_started) < MIN {
                self.coverage.fault(Fault::OverrideEndsAway);
            }
            self.cm.disk.overrides = left;
            self.publish();
        }
        if let Some(next) = next {
            let wait = next.since(now).clamp(Duration::from_secs(1), DAY);
            self.after(wait, Event::CmEnds { life });
        }
    }

    /// The lists as they are now, with the variables that are in force.
    fn publish(&mut self) {
        let lists = self.lists_of(self.cm.disk.placed.values());
        let Some(run) = &mut self.cm.run else { return };
        let unplaced = std::mem::take(&mut run.lists.unplaced);
        let before = std::mem::replace(&mut run.lists, lists);
        run.lists.share(&before);
        run.lists.unplaced = unplaced;
    }

    /// What an instance shall have by what the cloud said last; nothing if that, or an end, is too near to judge.
    pub(crate) fn env_asked(&self, inst: Inst) -> Option<Env> {
        let now = self.cm_now();
        let Some((number, since)) = self.oracle.overridden else {
            return Some(Env::new());
        };
        if self.now.since(since) < HOUR {
            return None;
        }
        let set = &self.overrides[number];
        let near = set.iter().any(|one| one.ends_about(now));
        (!near).then(|| env(set, inst, now))
    }
}
