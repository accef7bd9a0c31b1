//! Which URL is tried next, and when.

use std::time::Duration;

use tokio::time::Instant;

use super::Policy;

/// One URL and how it has done.
#[derive(Debug)]
struct Place {
    url: String,
    failures: u32,
    not_before: Instant,
    is_spoilt: bool,
}

/// The URLs of a blob, in the order of preference. Each has its own failures and its own pause.
#[derive(Debug)]
pub(super) struct Turns {
    places: Vec<Place>,
    policy: Policy,
    made: u32,
}

/// The next attempt.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Turn {
    /// Which URL.
    pub index: usize,
    /// Not before.
    pub at: Instant,
    /// Whether there is another URL that was not tried yet.
    pub has_fresh: bool,
}

impl Turns {
    pub(super) fn new(urls: &[String], policy: &Policy, now: Instant) -> Self {
        let places = urls
            .iter()
            .map(|url| Place {
                url: url.clone(),
                failures: 0,
                not_before: now,
                is_spoilt: false,
            })
            .collect();
        Self {
            places,
            policy: *policy,
            made: 0,
        }
    }

    /// The URL that may be tried soonest, the preferred one of equals. Nothing: all have had their attempts.
    pub(super) fn next(&self, now: Instant) -> Option<Turn> {
        let open = |place: &&(usize, &Place)| {
            !place.1.is_spoilt && place.1.failures < self.policy.attempts.max(1)
        };
        let places: Vec<(usize, &Place)> = self.places.iter().enumerate().collect();
        let (index, place) = places
            .iter()
            .filter(open)
            .min_by_key(|(_, place)| place.not_before.max(now))?;
        let has_fresh = places
            .iter()
            .filter(open)
            .any(|(other, place)| other != index && place.failures == 0);
        Some(Turn {
            index: *index,
            at: place.not_before.max(now),
            has_fresh,
        })
    }

    pub(super) fn url(&self, index: usize) -> &str {
        self.places.get(index).map_or("", |place| &place.url)
    }

    /// Attempts made.
    pub(super) fn made(&self) -> u32 {
        self.made
    }

    /// Notes that an attempt failed. `jitter` (0 to 1) spreads the pauses of many Units that lost the same server.
    pub(super) fn failed(&mut self, index: usize, spoils: bool, now: Instant, jitter: f64) {
        self.made += 1;
        let Some(place) = self.places.get_mut(index) else {
            return;
        };
        let doublings = place.failures.min(20);
        place.failures += 1;
        place.is_spoilt |= spoils;
        let pause = self
            .policy
            .first_pause
            .saturating_mul(1 << doublings)
            .min(self.policy.longest_pause);
        place.not_before = now + spread(pause, jitter);
    }
}

/// Three quarters to five quarters of a pause.
fn spread(pause: Duration, jitter: f64) -> Duration {
    pause.mul_f64(0.75 + jitter.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Policy {
        Policy {
            attempts: 3,
            first_pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(3),
            ..Policy::default()
        }
    }

    fn turns(count: usize) -> (Turns, Instant) {
        let urls: Vec<String> = (0..count).map(|i| i.to_string()).collect();
        let now = Instant::now();
        (Turns::new(&urls, &policy(), now), now)
    }

    #[test]
    fn a_failed_url_gives_way_and_comes_back_after_its_pause() {
        let (mut turns, now) = turns(2);
        let first = turns.next(now).unwrap();
        assert_eq!((first.index, first.at, first.has_fresh), (0, now, true));
        turns.failed(0, false, now, 0.5);
        let second = turns.next(now).unwrap();
        assert_eq!((second.index, second.at, second.has_fresh), (1, now, false));
        turns.failed(1, false, now, 0.5);
        let third = turns.next(now).unwrap();
        assert_eq!((third.index, third.at), (0, now + Duration::from_secs(1)));
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_attempts_are_bounded() {
        let (mut turns, mut now) = turns(1);
        let mut pauses = Vec::new();
        while let Some(turn) = turns.next(now) {
            pauses.push((turn.at - now).as_secs_f64());
            now = turn.at;
            turns.failed(turn.index, false, now, 0.5);
        }
        assert_eq!(pauses, [0.0, 1.0, 2.0]);
        assert_eq!(turns.made(), 3);
        let wide = Policy {
            attempts: 6,
            ..policy()
        };
        let mut turns = Turns::new(&["a".into()], &wide, now);
        for _ in 0..5 {
            turns.failed(0, false, now, 1.0);
        }
        let last = turns.next(now).unwrap().at - now;
        assert_eq!(last, Duration::from_millis(3750));
    }

    #[test]
    fn a_spoilt_url_is_not_tried_again() {
        let (mut turns, now) = turns(2);
        turns.failed(0, true, now, 0.0);
        turns.failed(1, false, now, 0.0);
        assert_eq!(turns.next(now).unwrap().index, 1);
        turns.failed(1, true, now, 0.0);
        assert_eq!(turns.next(now), None);
    }
}
