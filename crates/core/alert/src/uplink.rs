use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use aos_time::Timestamp;

use crate::Usage;

/// What is told of usage, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thrift {
    /// News wait so long at most, and gather meanwhile.
    pub delay: Duration,
    /// Usage that does not change is told so often.
    pub heartbeat: Duration,
    /// Most points that wait.
    pub most: usize,
    /// One point each, on the long run, besides heartbeats.
    pub pause: Duration,
    /// So many at once before that counts.
    pub burst: u32,
}

impl Default for Thrift {
    fn default() -> Self {
        Self {
            delay: Duration::from_secs(30),
            heartbeat: Duration::from_secs(600),
            most: 1_024,
            pause: Duration::from_secs(2),
            burst: 2_048,
        }
    }
}

/// The smallest change that is news, of one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grain {
    /// In DMIPS.
    pub cpu: u64,
    /// In bytes of memory.
    pub ram: u64,
    /// In bytes of a partition.
    pub partition: u64,
    /// In bytes of traffic.
    pub traffic: u64,
    /// And in percent of what was told last, of processor and memory.
    pub percent: u64,
}

impl Grain {
    fn news(&self, told: &Usage, now: &Usage) -> bool {
        let moved = |told: u64, now: u64, least: u64, percent: u64| {
            let share =
                u64::try_from(u128::from(told) * u128::from(percent) / 100).unwrap_or(u64::MAX);
            told.abs_diff(now) >= least.max(share).max(1)
        };
        let traffic = |usage: &Usage| usage.traffic.unwrap_or_default();
        let (before, after) = (traffic(told), traffic(now));
        moved(told.cpu, now.cpu, self.cpu, self.percent)
            || moved(told.ram, now.ram, self.ram, self.percent)
            || moved(before.download, after.download, self.traffic, 0)
            || moved(before.upload, after.upload, self.traffic, 0)
            || told.partitions.len() != now.partitions.len()
            || now.partitions.iter().any(|(name, used)| {
                let told = told.partitions.get(name).copied().unwrap_or(0);
                moved(told, *used, self.partition, 0)
            })
    }
}

/// Usage at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    /// When.
    pub at: Timestamp,
    /// What.
    pub usage: Usage,
}

#[derive(Debug, Clone)]
struct Told {
    last: Point,
    /// When it was told, by the clock of whoever tells.
    when: Timestamp,
    /// Measured since and not worth telling yet.
    held: Option<Point>,
    /// When anything was measured.
    heard: Timestamp,
}

/// Decides what of the usage is told to the cloud: what changed by more than a grain, soon and together; what did not,
/// seldom; and never more than is agreed.
///
/// A line through the points told is no further than a grain from what was measured: before a jump the last point on the
/// level is told too.
#[derive(Debug, Clone)]
pub struct Uplink<K> {
    thrift: Thrift,
    of: BTreeMap<K, Told>,
    waiting: VecDeque<(K, Point)>,
    /// When the first of them came.
    since: Option<Timestamp>,
    tokens: u32,
    filled: Option<Timestamp>,
    left_out: u64,
}

impl<K: Ord + Clone> Uplink<K> {
    /// Nothing was told.
    pub const fn new(thrift: Thrift) -> Self {
        Self {
            thrift,
            of: BTreeMap::new(),
            waiting: VecDeque::new(),
            since: None,
            tokens: thrift.burst,
            filled: None,
            left_out: 0,
        }
    }

    /// A measurement.
    pub fn take(&mut self, now: Timestamp, of: &K, point: Point, grain: Grain) {
        self.refill(now);
        let Some(told) = self.of.get_mut(of) else {
            let told = Told {
                last: point.clone(),
                when: now,
                held: None,
                heard: now,
            };
            self.of.insert(of.clone(), told);
            self.wait(now, of.clone(), point);
            return;
        };
        told.heard = now;
        if !grain.news(&told.last.usage, &point.usage) || self.tokens == 0 {
            told.held = Some(point);
            return;
        }
        let level = told.held.take();
        told.last = point.clone();
        told.when = now;
        if let Some(level) = level {
            self.wait(now, of.clone(), level);
        }
        self.wait(now, of.clone(), point);
    }

    fn refill(&mut self, now: Timestamp) {
        let filled = *self.filled.get_or_insert(now);
        let pause = self.thrift.pause.as_micros().max(1);
        let more = now.since(filled).as_micros() / pause;
        if more > 0 {
            let more = u32::try_from(more).unwrap_or(u32::MAX);
            self.tokens = self.tokens.saturating_add(more).min(self.thrift.burst);
            self.filled = Some(now);
        }
    }

    fn wait(&mut self, now: Timestamp, of: K, point: Point) {
        self.tokens = self.tokens.saturating_sub(1);
        self.since.get_or_insert(now);
        self.waiting.push_back((of, point));
        while self.waiting.len() > self.thrift.most.max(1) {
            self.waiting.pop_front();
            self.left_out = self.left_out.saturating_add(1);
        }
    }

    /// When there is something to send next; nothing if nothing was ever measured.
    pub fn due(&self) -> Option<Timestamp> {
        let news = self.since.map(|since| since + self.thrift.delay);
        let beat = self.of.values().map(|told| told.when).min();
        let beat = beat.map(|when| when + self.thrift.heartbeat);
        match (news, beat) {
            (Some(news), Some(beat)) => Some(news.min(beat)),
            (one, other) => one.or(other),
        }
    }

    /// What is to be sent, if it is due. With it goes everything that would be due soon, as another message costs more than
    /// a point.
    pub fn send(&mut self, now: Timestamp) -> Option<Vec<(K, Point)>> {
        if self.due().is_none_or(|due| due > now) {
            return None;
        }
        // Whoever was not measured any more is gone, or its Node is.
        let heartbeat = self.thrift.heartbeat;
        self.of.retain(|_, told| now.since(told.heard) < heartbeat);
        let mut beats = Vec::new();
        for (of, told) in &mut self.of {
            if now.since(told.when) * 2 < heartbeat {
                continue;
            }
            told.when = now;
            if let Some(held) = told.held.take() {
                told.last = held.clone();
                beats.push((of.clone(), held));
            }
        }
        let mut points: Vec<_> = std::mem::take(&mut self.waiting).into();
        points.extend(beats);
        points.truncate(self.thrift.most.max(1));
        self.since = None;
        Some(points).filter(|points| !points.is_empty())
    }

    /// These were lost on their way: they wait again, before what came since.
    pub fn put_back(&mut self, points: Vec<(K, Point)>) {
        for point in points.into_iter().rev() {
            if self.waiting.len() >= self.thrift.most.max(1) {
                self.left_out = self.left_out.saturating_add(1);
            } else {
                self.waiting.push_front(point);
            }
        }
        if self.since.is_none() {
            // Due as soon as anybody asks.
            self.since = self.filled;
        }
    }

    /// Points that found no room since the last call.
    pub fn left_out(&mut self) -> u64 {
        std::mem::take(&mut self.left_out)
    }
}
