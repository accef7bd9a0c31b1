use std::{collections::BTreeMap, time::Duration};

use aos_time::Timestamp;

use crate::Traffic;

/// Adds up traffic within periods of the calendar (days of UTC, if the period is a day), from counters that only grow and
/// begin anew with their interface.
#[derive(Debug, Clone)]
pub struct Ledger<K> {
    period: Duration,
    current: i64,
    of: BTreeMap<K, Account>,
}

/// What is known of one whose traffic is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// What its counter said last.
    pub counter: Traffic,
    /// What was counted in the period.
    pub sum: Traffic,
}

impl<K: Ord + Clone> Ledger<K> {
    /// Nothing was counted yet.
    pub const fn new(period: Duration) -> Self {
        Self {
            period,
            current: i64::MIN,
            of: BTreeMap::new(),
        }
    }

    /// Goes on where an earlier ledger of periods of this length was, as [`kept`](Self::kept). What a counter has grown by
    /// meanwhile counts where it is found.
    pub const fn restore(period: Duration, current: i64, of: BTreeMap<K, Account>) -> Self {
        Self {
            period,
            current,
            of,
        }
    }

    /// How long a period is.
    pub const fn period(&self) -> Duration {
        self.period
    }

    /// The number of the period, and what is known of everybody.
    pub const fn kept(&self) -> (i64, &BTreeMap<K, Account>) {
        (self.current, &self.of)
    }

    /// Bytes of the present period, by the counters of all there are. `wall` is the time of the calendar. Who is not in
    /// `counters` is remembered until the period ends: an instance that is started again has the same counter. What
    /// somebody's counter says the first time counts only if it `began` in our sight.
    pub fn count(
        &mut self,
        wall: Timestamp,
        counters: &BTreeMap<K, Traffic>,
        began: impl Fn(&K) -> bool,
    ) -> BTreeMap<K, Traffic> {
        let length = i64::try_from(self.period.as_micros())
            .unwrap_or(i64::MAX)
            .max(1);
        let period = wall.as_micros().div_euclid(length);
        let turned = period != self.current;
        self.current = period;
        let count = |(one, counter): (&K, &Traffic)| {
            let known = self.of.get(one).copied();
            let before = known.unwrap_or_else(|| Account {
                counter: if began(one) {
                    Traffic::default()
                } else {
                    *counter
                },
                sum: Traffic::default(),
            });
            let grown = |before: u64, now: u64| now.checked_sub(before).unwrap_or(now);
            let mut sum = if turned {
                Traffic::default()
            } else {
                before.sum
            };
            sum.download = sum
                .download
                .saturating_add(grown(before.counter.download, counter.download));
            sum.upload = sum
                .upload
                .saturating_add(grown(before.counter.upload, counter.upload));
            let account = Account {
                counter: *counter,
                sum,
            };
            (one.clone(), account)
        };
        let counted: BTreeMap<K, Account> = counters.iter().map(count).collect();
        let sums = counted
            .iter()
            .map(|(one, account)| (one.clone(), account.sum))
            .collect();
        if turned {
            self.of = counted;
        } else {
            self.of.extend(counted);
        }
        sums
    }
}
