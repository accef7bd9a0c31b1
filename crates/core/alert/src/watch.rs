use std::time::Duration;

use aos_time::Timestamp;

use crate::Rule;

/// What is said of an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It begins.
    Raise,
    /// It goes on.
    Continue,
    /// It is over.
    Fall,
}

/// The shortest time between two words that an alert goes on, whatever its rule says: each costs the uplink.
const OFTEN: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not too much. Perhaps above the upper threshold since a moment ago.
    Quiet { above: Option<Timestamp> },
    /// Too much. Perhaps below the lower threshold since a moment ago.
    Raised {
        told: Timestamp,
        below: Option<Timestamp>,
    },
}

/// One rule, and how the usage stands towards it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watch {
    rule: Rule,
    state: State,
}

impl Watch {
    /// Nothing was measured yet.
    pub const fn new(rule: Rule) -> Self {
        Self {
            rule,
            state: State::Quiet { above: None },
        }
    }

    /// An alert that was told before this program was started. It waits for its rule, by [`change`](Self::change).
    pub const fn resumed(now: Timestamp) -> Self {
        Self {
            rule: Rule {
                hold: Duration::ZERO,
                lower: 0,
                upper: u64::MAX,
            },
            state: State::Raised {
                told: now,
                below: None,
            },
        }
    }

    /// Its rule.
    pub const fn rule(&self) -> Rule {
        self.rule
    }

    /// Whether there is an alert.
    pub const fn is_raised(&self) -> bool {
        matches!(self.state, State::Raised { .. })
    }

    /// Another rule for what is measured. An alert that was raised stays until the usage is low enough for the new one.
    pub fn change(&mut self, rule: Rule) {
        if rule == self.rule {
            return;
        }
        self.rule = rule;
        // Times were taken for other thresholds.
        match &mut self.state {
            State::Quiet { above } => *above = None,
            State::Raised { below, .. } => *below = None,
        }
    }

    /// A measurement. Measurements come in the order of time; a clock that was put back only makes waits longer.
    pub fn measured(&mut self, now: Timestamp, value: u64) -> Option<Change> {
        let Rule { hold, lower, upper } = self.rule;
        match &mut self.state {
            State::Quiet { above } => {
                if value < upper {
                    *above = None;
                    return None;
                }
                let since = *above.get_or_insert(now);
                if now.since(since) < hold {
                    return None;
                }
                self.state = State::Raised {
                    told: now,
                    below: None,
                };
                Some(Change::Raise)
            }
            State::Raised { told, below } => {
                if value < lower {
                    let since = *below.get_or_insert(now);
                    if now.since(since) < hold {
                        return None;
                    }
                    self.state = State::Quiet { above: None };
                    return Some(Change::Fall);
                }
                *below = None;
                if now.since(*told) < hold.max(OFTEN) {
                    return None;
                }
                *told = now;
                Some(Change::Continue)
            }
        }
    }
}
