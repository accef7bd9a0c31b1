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

#[derive(Debug, Clone, Copy)]
struct Account {
    counter: Traffic,
    sum: Traffic,
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

    /// Bytes of the present period, by the counters of all there are. `wall` is the time of the calendar. Who is not in
    /// `counters` is forgotten. What somebody's counter says the first time counts only if it `began` in our sight.
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
        self.of.retain(|one, _| counters.contains_key(one));
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
        self.of = counters.iter().map(count).collect();
        self.of
            .iter()
            .map(|(one, account)| (one.clone(), account.sum))
            .collect()
    }
}
