use std::collections::{BTreeMap, VecDeque};

use aos_time::Timestamp;

use crate::{Traffic, Usage};

/// Most measurements that an average is made of; of more the oldest go.
const MOST: usize = 512;

/// What was read of one instance at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counters {
    /// Processor time since its first process, in nanoseconds.
    pub cpu_nanos: u64,
    /// Memory, in bytes.
    pub ram: u64,
    /// Bytes used of each partition that was looked at; of others what was read last counts.
    pub partitions: BTreeMap<String, u64>,
    /// Traffic, if it is counted.
    pub traffic: Option<Traffic>,
}

/// What was read of the Node at the same moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeCounters {
    /// Processor time that was spent, of all processors, in nanoseconds.
    pub busy_nanos: u64,
    /// Processor time that there was.
    pub all_nanos: u64,
    /// Memory, in bytes.
    pub ram: u64,
    /// Bytes used of each partition.
    pub partitions: BTreeMap<String, u64>,
    /// Traffic, if it is counted.
    pub traffic: Option<Traffic>,
}

/// Turns counters of processor time into processing power.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    /// DMIPS of all processors; 0 if not known.
    dmips: u64,
    /// Processor time that there was since the last pass.
    all: u64,
}

impl Scale {
    pub(crate) const fn new(dmips: u64, all: u64) -> Self {
        Self { dmips, all }
    }

    pub(crate) fn dmips(self, spent: u64) -> u64 {
        if self.all == 0 {
            return 0;
        }
        // Nobody spends more than there is; counters are read a moment apart.
        let spent = u128::from(spent.min(self.all));
        let dmips =
            (spent * u128::from(self.dmips) + u128::from(self.all) / 2) / u128::from(self.all);
        u64::try_from(dmips).unwrap_or(u64::MAX)
    }
}

/// The measurements of one of them over a window.
#[derive(Debug, Clone, Default)]
pub(crate) struct Series {
    spent: Option<u64>,
    last: Usage,
    window: VecDeque<(Timestamp, Usage)>,
}

impl Series {
    /// Processor time spent since the last pass; nothing the first time. A counter that went back began anew.
    pub(crate) fn spent(&mut self, counter: u64) -> Option<u64> {
        let before = self.spent.replace(counter)?;
        Some(counter.checked_sub(before).unwrap_or(counter))
    }

    /// What is used now. Partitions that were not looked at stay as they were.
    pub(crate) fn note(
        &mut self,
        now: Timestamp,
        window: std::time::Duration,
        mut usage: Usage,
    ) -> Usage {
        for (name, used) in &self.last.partitions {
            usage.partitions.entry(name.clone()).or_insert(*used);
        }
        self.last = usage.clone();
        self.window.push_back((now, usage.clone()));
        let old = |(at, _): &(Timestamp, Usage)| now.since(*at) >= window;
        while self.window.len() > MOST
            || (self.window.len() > 1 && self.window.front().is_some_and(old))
        {
            self.window.pop_front();
        }
        usage
    }

    /// The average over the window; traffic and partitions as they were last, because they are no rates.
    pub(crate) fn average(&self) -> Usage {
        let count = u128::try_from(self.window.len()).unwrap_or(1).max(1);
        let mean = |of: fn(&Usage) -> u64| {
            let sum: u128 = self
                .window
                .iter()
                .map(|(_, usage)| u128::from(of(usage)))
                .sum();
            u64::try_from(sum / count).unwrap_or(u64::MAX)
        };
        Usage {
            cpu: mean(|usage| usage.cpu),
            ram: mean(|usage| usage.ram),
            ..self.last.clone()
        }
    }
}
