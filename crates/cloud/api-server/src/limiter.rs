use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use aos_time::Timestamp;

/// How long failures count.
const WINDOW: Duration = Duration::from_secs(15 * 60);
/// Failures of one user name from one address.
const PER_USER_AND_ADDRESS: u32 = 10;
/// Failures of one user name from all addresses: more, so that it is not easy to lock somebody out.
const PER_USER: u32 = 100;
/// Failures from one address.
const PER_ADDRESS: u32 = 30;
/// Keys remembered; beyond it the oldest are forgotten.
const REMEMBERED: usize = 20_000;

/// Counts failed attempts, by user and by address.
#[derive(Default)]
pub(crate) struct Limiter {
    failures: Mutex<HashMap<Key, Failures>>,
}

/// What failures are counted by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    User(String),
    UserFrom(String, String),
    Address(String),
}

struct Failures {
    since: Timestamp,
    count: u32,
}

impl Key {
    fn allowed(&self) -> u32 {
        match self {
            Self::User(_) => PER_USER,
            Self::UserFrom(..) => PER_USER_AND_ADDRESS,
            Self::Address(_) => PER_ADDRESS,
        }
    }
}

impl Limiter {
    /// Takes one attempt for each of `keys`, or says in how many seconds the next one is allowed. Call
    /// [`Limiter::succeeded`] when the attempt went well.
    pub(crate) fn attempt(&self, keys: &[Key], now: Timestamp) -> Result<(), u64> {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        for key in keys {
            if let Some(known) = failures.get(key)
                && now.since(known.since) < WINDOW
                && known.count >= key.allowed()
            {
                let left = WINDOW.saturating_sub(now.since(known.since));
                return Err(left.as_secs().max(1));
            }
        }
        if failures.len() >= REMEMBERED {
            failures.retain(|_, known| now.since(known.since) < WINDOW);
            if failures.len() >= REMEMBERED
                && let Some(oldest) = failures
                    .iter()
                    .min_by_key(|(_, known)| known.since)
                    .map(|(key, _)| key.clone())
            {
                failures.remove(&oldest);
            }
        }
        for key in keys {
            let known = failures.entry(key.clone()).or_insert(Failures {
                since: now,
                count: 0,
            });
            if now.since(known.since) >= WINDOW {
                *known = Failures {
                    since: now,
                    count: 0,
                };
            }
            known.count = known.count.saturating_add(1);
        }
        Ok(())
    }

    /// Takes back what [`Limiter::attempt`] counted; a user who got in starts afresh.
    pub(crate) fn succeeded(&self, keys: &[Key]) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        for key in keys {
            match key {
                Key::User(_) | Key::UserFrom(..) => {
                    failures.remove(key);
                }
                Key::Address(_) => {
                    if let Some(known) = failures.get_mut(key) {
                        known.count = known.count.saturating_sub(1);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(user: &str, address: &str) -> [Key; 3] {
        [
            Key::User(user.into()),
            Key::UserFrom(user.into(), address.into()),
            Key::Address(address.into()),
        ]
    }

    #[test]
    fn failures_are_limited_and_success_and_time_forgive() {
        let limiter = Limiter::default();
        let start = Timestamp::from_secs(1000);
        let ada = keys("ada", "1.2.3.4");
        for _ in 0..PER_USER_AND_ADDRESS {
            limiter.attempt(&ada, start).unwrap();
        }
        assert_eq!(limiter.attempt(&ada, start), Err(900));
        assert!(
            limiter.attempt(&keys("ada", "5.6.7.8"), start).is_ok(),
            "she herself is not locked out"
        );
        let other = keys("bob", "1.2.3.4");
        for _ in 0..50 {
            limiter.attempt(&other, start).unwrap();
            limiter.succeeded(&other);
        }
        for n in 0..PER_ADDRESS - PER_USER_AND_ADDRESS {
            limiter
                .attempt(&keys(&format!("u{n}"), "1.2.3.4"), start)
                .unwrap();
        }
        assert!(limiter.attempt(&other, start).is_err(), "the address");
        assert!(limiter.attempt(&ada, start + WINDOW).is_ok());
    }

    #[test]
    fn a_user_is_not_guessed_from_many_addresses_for_ever() {
        let limiter = Limiter::default();
        let now = Timestamp::from_secs(1000);
        let allowed = (0..500)
            .filter(|n| limiter.attempt(&keys("ada", &n.to_string()), now).is_ok())
            .count();
        assert_eq!(allowed, 100);
    }

    #[test]
    fn memory_is_bounded() {
        let limiter = Limiter::default();
        for n in 0..REMEMBERED as u32 + 10 {
            let _ = limiter.attempt(
                &[Key::Address(n.to_string())],
                Timestamp::from_secs(i64::from(n) / 100),
            );
        }
        assert!(limiter.failures.lock().unwrap().len() <= REMEMBERED);
    }
}
