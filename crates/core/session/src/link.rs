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
    },
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
}

impl Link {
    pub(crate) fn new(config: &Config, now: Timestamp) -> Self {
        let state = if config.reconnect.is_some() {
            State::Waiting(now)
        } else {
            State::Idle
        };
        Self { state, failures: 0 }
    }

    pub(crate) fn online(&self) -> bool {
        matches!(self.state, State::Online { .. })
    }

    pub(crate) fn connected(&mut self, now: Timestamp) {
        self.state = State::Online {
            since: now,
            heard: now,
            pinged: None,
        };
    }

    pub(crate) fn heard(&mut self, now: Timestamp) {
        if let State::Online { heard, pinged, .. } = &mut self.state {
            *heard = now;
            *pinged = None;
        }
    }

    pub(crate) fn lost(&mut self, config: &Config, now: Timestamp, chance: &mut dyn Chance) {
        let State::Online { since, .. } = self.state else {
            return;
        };
        let Some(reconnect) = &config.reconnect else {
            self.state = State::Idle;
            return;
        };
        if now.since(since) >= reconnect.stable_after {
            self.failures = 0;
        }
        self.wait(reconnect, now, None, chance);
    }

    pub(crate) fn failed(
        &mut self,
        config: &Config,
        now: Timestamp,
        asked: Option<Duration>,
        chance: &mut dyn Chance,
    ) {
        if self.state != State::Connecting {
            return;
        }
        match &config.reconnect {
            Some(reconnect) => self.wait(reconnect, now, asked, chance),
            None => self.state = State::Idle,
        }
    }

    pub(crate) fn connect_now(&mut self, now: Timestamp) {
        if let State::Waiting(_) = self.state {
            self.state = State::Waiting(now);
        }
    }

    /// What is due now; the state moves with it.
    pub(crate) fn due(&mut self, config: &Config, now: Timestamp) -> Option<Wish> {
        match &mut self.state {
            State::Waiting(at) if *at <= now => {
                self.state = State::Connecting;
                Some(Wish::Connect)
            }
            State::Online { heard, pinged, .. } => {
                if *heard + config.dead_after <= now {
                    Some(Wish::GiveUp)
                } else if (*pinged).unwrap_or(*heard) + config.ping_after <= now {
                    *pinged = Some(now);
                    Some(Wish::Ping)
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
            State::Online { heard, pinged, .. } => {
                Some((heard + config.dead_after).min(pinged.unwrap_or(heard) + config.ping_after))
            }
            _ => None,
        }
    }

    fn wait(
        &mut self,
        reconnect: &Reconnect,
        now: Timestamp,
        asked: Option<Duration>,
        chance: &mut dyn Chance,
    ) {
        let widest = reconnect
            .first
            .saturating_mul(1 << self.failures.min(20))
            .min(reconnect.longest);
        self.failures = self.failures.saturating_add(1);
        // Between half of it and all of it: spread out, yet never at once.
        let half = widest / 2;
        let jitter = chance.below(u64::try_from(half.as_micros()).unwrap_or(u64::MAX) + 1);
        let mut wait = half + Duration::from_micros(jitter);
        if let Some(asked) = asked {
            wait = wait.max(asked);
        }
        self.state = State::Waiting(now + wait);
    }
}
