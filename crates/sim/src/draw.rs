//! What a seed draws: the Unit, the catalogue, how bad the world is, and what the cloud will want.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    dice::Dice,
    words::{Item, Ver},
};

pub(crate) const SEC: Duration = Duration::from_secs(1);
pub(crate) const MIN: Duration = Duration::from_secs(60);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long a run lasts.
pub(crate) const RUN: Duration = Duration::from_secs(30 * 24 * 3600);

/// What a version turns out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Good,
    /// Its signature is by nobody the Unit trusts.
    Unsigned,
    /// The cloud does not have its blobs.
    Absent,
    /// It is larger than any disk of the Unit.
    TooBig,
    /// It cannot be started.
    WontStart,
    /// It ends by itself soon after each start.
    Crashes,
    /// It starts and never becomes active.
    Hangs,
}

/// One item: the fates of its versions, and where it may run.
#[derive(Debug, Clone)]
pub(crate) struct Drawn {
    /// It may fail alone.
    pub(crate) independent: bool,
    pub(crate) fates: Vec<Fate>,
    /// It needs a Node with this label.
    pub(crate) label: Option<u8>,
    /// What each instance asks for.
    pub(crate) takes: Amounts,
    /// What each instance keeps on the disk of its Node.
    pub(crate) storage: Storage,
}

/// Power and memory, in units of this small world, and places for instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Amounts {
    pub(crate) cpu: u64,
    pub(crate) ram: u64,
    pub(crate) instances: u64,
}

impl Amounts {
    pub(crate) fn each(self) -> [u64; 3] {
        [self.cpu, self.ram, self.instances]
    }
}

/// What an instance keeps on the disk of its Node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Storage {
    Nothing,
    /// It holds the instance on that Node.
    Pinned,
    /// It may be lost.
    Expendable,
}

/// What the cloud wants of the Unit. The oracle judges by this, never by what a core made of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Intent {
    /// Which desired state, in the order the cloud made them.
    pub(crate) number: usize,
    pub(crate) items: BTreeMap<Item, Ver>,
    /// By item and subject: how many, and of which priority.
    pub(crate) instances: BTreeMap<(Item, u8), (u8, u8)>,
    pub(crate) paused: Vec<usize>,
    /// The unit configuration and whether the Nodes take it.
    pub(crate) config: Option<(u32, bool)>,
    pub(crate) when: When,
}

/// When an update may be carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum When {
    #[default]
    Now,
    /// Somebody has to start it, within so many hours.
    Started(u64),
    /// In the first hours of each day.
    AtNight(u64),
}

/// How often what goes wrong: once in so many; 0 is never.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rates {
    pub(crate) cut_cm: u64,
    pub(crate) cut_sm: u64,
    pub(crate) frame_lost: u64,
    pub(crate) frame_twice: u64,
    pub(crate) frame_late: u64,
    pub(crate) frame_corrupt: u64,
    pub(crate) fetch_fails: u64,
    pub(crate) fetch_corrupt: u64,
    pub(crate) install_fails: u64,
    pub(crate) install_corrupt: u64,
    pub(crate) start_fails: u64,
    pub(crate) iam_fails: u64,
    pub(crate) config_fails: u64,
    pub(crate) commit_fails: u64,
    pub(crate) slow_fetch: u64,
    /// Mean time between troubles from outside.
    pub(crate) trouble: Duration,
}

/// All that is fixed before the first step.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) nodes: usize,
    /// Labels of each Node, as bits.
    pub(crate) labels: Vec<u8>,
    /// What each Node has for instances; 0 is no limit.
    pub(crate) has: Vec<Amounts>,
    pub(crate) items: Vec<Drawn>,
    pub(crate) subjects: usize,
    pub(crate) max_instances: u64,
    pub(crate) rates: Rates,
    /// The user is asked.
    pub(crate) consent: bool,
    /// The Unit is asked whether it is ready, which it is in so many of a hundred cases.
    pub(crate) readiness: Option<u64>,
    /// Messages that CM's outbox keeps.
    pub(crate) outbox: usize,
    /// Space for images at CM, in blobs.
    pub(crate) space: u64,
    /// Desired states the cloud will make before the end.
    pub(crate) desires: u64,
}

impl Scene {
    pub(crate) fn draw(dice: &mut Dice) -> Self {
        let nodes = dice.span(1, 6) as usize;
        let labels: Vec<u8> = (0..nodes).map(|_| dice.to(4) as u8).collect();
        let has = capacities(dice, nodes);
        let stores = dice.of(&[0, 0, 20, 50]);
        let items = dice.span(2, 9) as usize;
        let rotten = dice.of(&[0, 5, 15, 30]);
        let items = (0..items)
            .map(|_| Drawn {
                independent: dice.percent(20),
                fates: (0..24).map(|_| fate(dice, rotten)).collect(),
                label: dice
                    .percent(20)
                    .then(|| dice.to(2) as u8)
                    .filter(|label| labels.iter().any(|bits| bits & (1 << label) != 0)),
                takes: Amounts {
                    cpu: dice.span(1, 4),
                    ram: dice.span(1, 6),
                    instances: 1,
                },
                storage: match dice.percent(stores) {
                    false => Storage::Nothing,
                    true => dice.of(&[Storage::Pinned, Storage::Pinned, Storage::Expendable]),
                },
            })
            .collect();
        Self {
            nodes,
            labels,
            has,
            items,
            subjects: dice.span(1, 3) as usize,
            max_instances: dice.of(&[4, 10, 20, 20, 60]),
            rates: rates(dice),
            consent: dice.percent(20),
            readiness: dice.percent(30).then(|| dice.of(&[20, 60, 100])),
            outbox: dice.of(&[6, 20, 4096]),
            space: dice.of(&[30, 60, 200, 200]),
            desires: dice.span(20, 34),
        }
    }

    /// A new wish: the old one with some changes, so that most of it stays.
    pub(crate) fn wish(
        &self,
        dice: &mut Dice,
        before: &Intent,
        number: usize,
        good: bool,
    ) -> Intent {
        let mut wish = before.clone();
        wish.number = number;
        if dice.percent(4) {
            return wish;
        }
        wish.when = match dice.to(10) {
            _ if good => When::Now,
            0 => When::Started(dice.span(1, 40)),
            1 => When::AtNight(dice.span(1, 40)),
            _ => When::Now,
        };
        for _ in 0..dice.span(1, 3) {
            match dice.to(12) {
                0..=5 => {
                    let item = dice.index(self.items.len()) as Item;
                    let ver = self.version(dice, item, good);
                    wish.items.insert(item, ver);
                    if !wish.instances.keys().any(|(of, _)| *of == item) {
                        self.add(dice, &mut wish, item);
                    }
                }
                6 | 7 => {
                    let item = dice.index(self.items.len()) as Item;
                    if wish.items.contains_key(&item) {
                        self.add(dice, &mut wish, item);
                    }
                }
                8 => {
                    if wish.items.len() > 1 {
                        let at = dice.index(wish.items.len());
                        let item = wish.items.keys().nth(at).copied().unwrap_or(0);
                        wish.items.remove(&item);
                        wish.instances.retain(|(of, _), _| *of != item);
                    }
                }
                9 => {
                    let node = dice.index(self.nodes);
                    if wish.paused.contains(&node) {
                        wish.paused.retain(|one| *one != node);
                    } else if wish.paused.len() + 1 < self.nodes {
                        wish.paused.push(node);
                    }
                }
                10 => {
                    let version =
                        wish.config.map_or(0, |(version, _)| version) + 1 + dice.to(3) as u32;
                    wish.config = Some((version.max(number as u32 * 4), good || dice.percent(80)));
                }
                _ => {
                    let at = dice.index(wish.instances.len());
                    if let Some(entry) = wish.instances.values_mut().nth(at) {
                        entry.1 = dice.to(5) as u8;
                    }
                }
            }
        }
        if good {
            for (item, ver) in &mut wish.items {
                if self.fate(*item, *ver) != Fate::Good {
                    *ver = self.version(dice, *item, true);
                }
            }
            if let Some((version, false)) = wish.config {
                wish.config = Some((version.max(number as u32 * 4), true));
            }
        }
        wish
    }

    fn version(&self, dice: &mut Dice, item: Item, good: bool) -> Ver {
        for _ in 0..40 {
            let ver = dice.span(1, 23) as Ver;
            if !good || self.fate(item, ver) == Fate::Good {
                return ver;
            }
        }
        0
    }

    fn add(&self, dice: &mut Dice, wish: &mut Intent, item: Item) {
        let have: u64 = wish
            .instances
            .values()
            .map(|(count, _)| u64::from(*count))
            .sum();
        let subject = dice.index(self.subjects) as u8;
        let before = wish
            .instances
            .get(&(item, subject))
            .map_or(0, |entry| entry.0);
        let count = dice
            .span(1, 8)
            .min(self.max_instances.saturating_sub(have) + u64::from(before));
        if count > 0 {
            let priority = dice.to(5) as u8;
            wish.instances
                .insert((item, subject), (count as u8, priority));
        }
    }

    pub(crate) fn fate(&self, item: Item, ver: Ver) -> Fate {
        // Version 0 is the one that is always good, and so is every shared layer.
        let drawn = self.items.get(usize::from(item));
        drawn
            .and_then(|drawn| drawn.fates.get(usize::from(ver)))
            .copied()
            .filter(|_| ver != 0)
            .unwrap_or(Fate::Good)
    }

    pub(crate) fn is_independent(&self, item: Item) -> bool {
        self.items
            .get(usize::from(item))
            .is_some_and(|drawn| drawn.independent)
    }

    pub(crate) fn label(&self, item: Item) -> Option<u8> {
        self.items
            .get(usize::from(item))
            .and_then(|drawn| drawn.label)
    }
}

fn fate(dice: &mut Dice, rotten: u64) -> Fate {
    if !dice.percent(rotten) {
        return Fate::Good;
    }
    dice.of(&[
        Fate::Unsigned,
        Fate::Unsigned,
        Fate::Absent,
        Fate::TooBig,
        Fate::WontStart,
        Fate::Crashes,
        Fate::Hangs,
    ])
}

/// Most Units have room for everything; on some not every set fits, and the more important ones win.
fn capacities(dice: &mut Dice, nodes: usize) -> Vec<Amounts> {
    let tight = dice.percent(40);
    let amounts = |dice: &mut Dice| Amounts {
        cpu: dice.of(&[0, 12, 24, 48]),
        ram: dice.of(&[0, 16, 32, 64]),
        instances: dice.of(&[0, 0, 5, 12]),
    };
    (0..nodes)
        .map(|_| match tight {
            true => amounts(dice),
            false => Amounts::default(),
        })
        .collect()
}

fn rates(dice: &mut Dice) -> Rates {
    // Swarm testing: each kind of trouble is absent from some runs, so that rare ones are seen alone too.
    let mut some = |choices: &[u64]| dice.of(choices);
    let mut rates = Rates {
        cut_cm: some(&[0, 0, 40, 150, 600]),
        cut_sm: some(&[0, 0, 40, 150, 600]),
        frame_lost: some(&[0, 0, 5, 20, 100]),
        frame_twice: some(&[0, 0, 5, 20]),
        frame_late: some(&[0, 0, 0, 10, 30]),
        frame_corrupt: some(&[0, 0, 20, 100]),
        fetch_fails: some(&[0, 3, 10, 40]),
        fetch_corrupt: some(&[0, 0, 10, 30]),
        install_fails: some(&[0, 0, 20, 100]),
        install_corrupt: some(&[0, 0, 10, 40]),
        start_fails: some(&[0, 0, 30, 200]),
        iam_fails: some(&[0, 0, 5, 20]),
        config_fails: some(&[0, 0, 5, 20]),
        commit_fails: some(&[0, 0, 3, 10]),
        slow_fetch: some(&[0, 3, 10, 30]),
        trouble: Duration::ZERO,
    };
    rates.trouble = dice.of(&[2 * HOUR, 6 * HOUR, DAY, 4 * DAY]);
    rates
}
