//! What Nodes and instances use, on average: nobody is moved because of a peak.

use std::{collections::VecDeque, time::Duration};

use aos_time::Timestamp;
use aos_types::{AlertRule, AlertRules};

use crate::{Overload, Usage};

/// Most measurements that are kept; of more the oldest go.
const MOST: usize = 512;

/// Measurements of a window of time.
#[derive(Debug, Clone)]
pub struct Average {
    window: Duration,
    samples: VecDeque<(Timestamp, Usage)>,
}

impl Average {
    /// Over this window.
    pub fn over(window: Duration) -> Self {
        Self {
            window,
            samples: VecDeque::new(),
        }
    }

    /// A measurement. One that is older than the last is left out.
    pub fn add(&mut self, at: Timestamp, usage: Usage) {
        if self.samples.back().is_some_and(|(last, _)| *last > at) {
            return;
        }
        self.samples.push_back((at, usage));
        while self.samples.len() > MOST
            || self
                .samples
                .front()
                .is_some_and(|(first, _)| at.since(*first) > self.window)
        {
            self.samples.pop_front();
        }
    }

    /// The last measurement.
    pub fn last(&self) -> Option<Usage> {
        self.samples.back().map(|(_, usage)| *usage)
    }

    /// The average of the window that ends `now`; `None` if the measurements do not span half of it.
    pub fn at(&self, now: Timestamp) -> Option<Usage> {
        let recent = || {
            self.samples
                .iter()
                .filter(|(at, _)| now.since(*at) <= self.window)
        };
        let (first, _) = recent().next()?;
        let (last, _) = recent().next_back()?;
        if last.since(*first) * 2 < self.window {
            return None;
        }
        let count = u128::try_from(recent().count()).unwrap_or(1).max(1);
        let mean = |of: fn(&Usage) -> u64| {
            let sum: u128 = recent().map(|(_, usage)| u128::from(of(usage))).sum();
            u64::try_from(sum / count).unwrap_or(u64::MAX)
        };
        Some(Usage {
            cpu: mean(|usage| usage.cpu),
            ram: mean(|usage| usage.ram),
            storage: mean(|usage| usage.storage),
            state: mean(|usage| usage.state),
        })
    }
}

/// Whether a Node uses more than its alert rules allow, and what its instances may use until it is relieved.
///
/// It is overloaded from the upper threshold on, and as long as it `was` until it is below the lower one. `system` is what
/// the Node uses besides its instances; `dmips` and `ram` are all it has, 0 if that is not known.
pub fn overload(
    was: bool,
    average: &Usage,
    system: &Usage,
    dmips: u64,
    ram: u64,
    rules: &AlertRules,
) -> Option<Overload> {
    let cpu = limit(was, average.cpu, system.cpu, dmips, rules.cpu.as_ref());
    let ram = limit(was, average.ram, system.ram, ram, rules.ram.as_ref());
    (cpu.is_some() || ram.is_some()).then_some(Overload { cpu, ram })
}

fn limit(was: bool, uses: u64, system: u64, total: u64, rule: Option<&AlertRule>) -> Option<u64> {
    let rule = rule.filter(|_| total > 0)?;
    let lower = share(total, rule.min_threshold);
    let over = uses >= share(total, rule.max_threshold) || (was && uses >= lower);
    over.then(|| lower.saturating_sub(system))
}

#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a threshold in percent is not exact anyway, and a cast from a float saturates"
)]
fn share(total: u64, percent: f64) -> u64 {
    ((total as f64) * percent.max(0.0) / 100.0) as u64
}
