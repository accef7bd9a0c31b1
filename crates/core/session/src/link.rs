use std::time::Duration;

use aos_time::{Chance, Timestamp};

use crate::{Config, Reconnect};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// No connection, and nobody tries.
    Idle,
    /// No connection; the next attempt starts at the given time.
    Waiting(Timestamp),
    /// The shell tries.
    Connecting,
    /// There is a connection.
    Online {
        since: Timestamp,
        heard: Timestamp,
        pinged: Option<Timestamp>,
        renewal: Renewal,
    },
}

/// Whether the connection is to be replaced while it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Renewal {
    No,
    At(Timestamp),
    /// The shell tries.
    Trying,
}

/// What the link wants at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    Connect,
    Ping,
    GiveUp,
}

/// Whether there is a connection, and when to try again, to ping, to give up.
#[derive(Debug)]
pub(crate) struct Link {
    state: State,
    failures: u32,
    /// What the peer asked for instead of [`Reconnect::first`].
    first: Option<Duration>,
}

impl Link {
    pub(crate) fn new(config: &Config, now: Timestamp) -> Self {
        let state = if config.reconnect.is_some() {
            State::Waiting(now)
        } else {
            State::Idle
        };
        Self {
            state,
            failures: 0,
            first: None,
        }
    }

    pub(crate) fn online(&self) -> bool {
        matches!(self.state, State::Online { .. })
    }

    pub(crate) fn connected(&mut self, now: Timestamp) {
        self.state = State::Online {
            since: now,
            heard: now,
            pinged: None,
            renewal: Renewal::No,
        };
    }

    pub(crate) fn heard(&mut self, now: Timestamp) {
        if let State::Online { heard, pinged, .. } = &mut self.state {
            *heard = now;
            *pinged = None;
        }
    }

    pub(crate) fn lost(&mut self, config: &Config, now: Timestamp, chance: &mut dyn Chance) {
        let State::Online { since, renewal, .. } = self.state else {
            return;
        };
        let Some(reconnect) = &config.reconnect else {
            self.state = State::Idle;
            return;
        };
        let stable = now.since(since) >= reconnect.stable_after;
        if stable {
            self.failures = 0;
        }
        self.state = if renewal == Renewal::Trying {
            // The attempt that is under way counts.
            State::Connecting
        } else if stable {
            State::Waiting(now + below(reconnect.spread, chance))
        } else {
            State::Waiting(now + self.back_off(reconnect, None, chance))
        };
    }

    pub(crate) fn failed(
        &mut self,
        config: &Config,
        now: Timestamp,
        asked: Option<Duration>,
        chance: &mut dyn Chance,
    ) {
        let Some(reconnect) = &config.reconnect else {
            return;
        };
        match self.state {
            State::Connecting if !config.policy.tries_again() => self.state = State::Idle,
            State::Connecting => {
                self.state = State::Waiting(now + self.back_off(reconnect, asked, chance));
            }
            State::Online {
                since,
                heard,
                pinged,
                renewal: Renewal::Trying,
            } => {
                let again = now + self.back_off(reconnect, asked, chance);
                self.state = State::Online {
                    since,
                    heard,
                    pinged,
                    renewal: Renewal::At(again),
                };
            }
            _ => {}
        }
    }

    pub(crate) fn connect_now(&mut self, now: Timestamp) {
        if let State::Waiting(_) = self.state {
            self.state = State::Waiting(now);
        }
    }

    pub(crate) fn renew(&mut self, now: Timestamp) {
        match &mut self.state {
            State::Online { renewal, .. } if *renewal != Renewal::Trying => {
                *renewal = Renewal::At(now);
            }
            _ => self.connect_now(now),
        }
    }

    pub(crate) fn first_wait(&mut self, first: Duration) {
        self.first = Some(first);
    }

    /// What is due now; the state moves with it.
    pub(crate) fn due(&mut self, config: &Config, now: Timestamp) -> Option<Wish> {
        match &mut self.state {
            State::Waiting(at) if *at <= now => {
                self.state = State::Connecting;
                Some(Wish::Connect)
            }
            State::Online {
                heard,
                pinged,
                renewal,
                ..
            } => {
                if *heard + config.dead_after <= now && config.policy.gives_up() {
                    Some(Wish::GiveUp)
                } else if (*pinged).unwrap_or(*heard) + config.ping_after <= now {
                    *pinged = Some(now);
                    Some(Wish::Ping)
                } else if matches!(renewal, Renewal::At(at) if *at <= now) {
                    *renewal = Renewal::Trying;
                    Some(Wish::Connect)
                } else {
                    None
                }
            }
            _ => None,
        }
    }

    pub(crate) fn wake_at(&self, config: &Config) -> Option<Timestamp> {
        match self.state {
            State::Waiting(at) => Some(at),
            State::Online {
                heard,
                pinged,
                renewal,
                ..
            } => {
                let ping = pinged.unwrap_or(heard) + config.ping_after;
                let listen = match config.policy.gives_up() {
                    true => (heard + config.dead_after).min(ping),
                    false => ping,
                };
                Some(match renewal {
                    Renewal::At(at) => listen.min(at),
                    _ => listen,
                })
            }
            _ => None,
        }
    }

    /// How long to wait after one more failure: between half of a span that doubles each time and all of it, so that Units
    /// spread out and yet none comes at once. What the peer asks for is heeded, and spread by a quarter too.
    fn back_off(
        &mut self,
        reconnect: &Reconnect,
        asked: Option<Duration>,
        chance: &mut dyn Chance,
    ) -> Duration {
        let widest = self
            .first
            .map_or(reconnect.first, |asked| asked.max(reconnect.first))
            .saturating_mul(1 << self.failures.min(20))
            .min(reconnect.longest);
        self.failures = self.failures.saturating_add(1);
        let half = widest / 2;
        let wait = half + below(half, chance);
        match asked.map(|asked| asked.min(reconnect.longest_asked)) {
            Some(asked) if asked >= wait => asked + below(asked / 4, chance),
            _ => wait,
        }
    }
}

/// A random span up to `bound`.
fn below(bound: Duration, chance: &mut dyn Chance) -> Duration {
    let micros = u64::try_from(bound.as_micros()).unwrap_or(u64::MAX - 1);
    Duration::from_micros(chance.below(micros + 1))
}
