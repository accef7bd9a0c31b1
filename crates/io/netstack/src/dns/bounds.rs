use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{sync::Semaphore, time::Instant};

use super::Turn;

/// Questions a second of one asker, and how many more may come at once.
const A_SECOND: f64 = 200.0;
const AT_ONCE: f64 = 400.0;
/// Questions to the world under way: of one asker, and of all.
const OF_ONE: usize = 32;
const OF_ALL: usize = 256;
/// Connections at the same time: of one asker, and of all.
const CONNECTIONS_OF_ONE: usize = 8;
const CONNECTIONS_OF_ALL: usize = 128;
/// Askers that are remembered; there are never so many instances on a Node.
const REMEMBERED: usize = 8_192;

/// What one asker may take, so that something is left for the others.
pub(super) struct Bounds {
    askers: Mutex<HashMap<IpAddr, Asker>>,
    under_way: Arc<Semaphore>,
    connections: Arc<Semaphore>,
}

struct Asker {
    left: f64,
    at: Instant,
    under_way: Arc<Semaphore>,
    connections: Arc<Semaphore>,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            askers: Mutex::default(),
            under_way: Arc::new(Semaphore::new(OF_ALL)),
            connections: Arc::new(Semaphore::new(CONNECTIONS_OF_ALL)),
        }
    }
}

impl Bounds {
    fn with<T>(&self, ip: IpAddr, work: impl FnOnce(&mut Asker) -> T) -> T {
        // Changes under this lock are small and whole.
        let mut askers = self.askers.lock().unwrap_or_else(PoisonError::into_inner);
        if askers.len() >= REMEMBERED && !askers.contains_key(&ip) {
            askers.clear();
        }
        work(askers.entry(ip).or_insert_with(|| Asker {
            left: AT_ONCE,
            at: Instant::now(),
            under_way: Arc::new(Semaphore::new(OF_ONE)),
            connections: Arc::new(Semaphore::new(CONNECTIONS_OF_ONE)),
        }))
    }

    /// Whether one more question is answered.
    pub(super) fn question(&self, ip: IpAddr, now: Instant) -> bool {
        self.with(ip, |asker| {
            let passed = now.saturating_duration_since(asker.at).as_secs_f64();
            asker.at = now;
            asker.left = (asker.left + passed * A_SECOND).min(AT_ONCE);
            let may = asker.left >= 1.0;
            if may {
                asker.left -= 1.0;
            }
            may
        })
    }

    /// A place for a question to the world.
    pub(super) fn under_way(&self, ip: IpAddr) -> Option<Turn> {
        let own = self.with(ip, |asker| asker.under_way.clone());
        let own = own.try_acquire_owned().ok()?;
        Some((own, self.under_way.clone().try_acquire_owned().ok()?))
    }

    /// A place for a connection.
    pub(super) fn connection(&self, ip: IpAddr) -> Option<Turn> {
        let own = self.with(ip, |asker| asker.connections.clone());
        let own = own.try_acquire_owned().ok()?;
        Some((own, self.connections.clone().try_acquire_owned().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_asks_too_much_waits_and_others_do_not() {
        let bounds = Bounds::default();
        let (loud, quiet) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let now = Instant::now();
        let answered = (0..1_000).filter(|_| bounds.question(loud, now)).count();
        assert_eq!(answered, 400);
        assert!(bounds.question(quiet, now));
        let later = now + Duration::from_millis(500);
        let answered = (0..1_000).filter(|_| bounds.question(loud, later)).count();
        assert_eq!(answered, 100);
        let held: Vec<_> = (0..40).filter_map(|_| bounds.under_way(loud)).collect();
        assert_eq!(held.len(), 32);
        assert!(bounds.under_way(quiet).is_some());
        assert_eq!(
            (0..20).filter_map(|_| bounds.connection(loud)).count(),
            20,
            "given back"
        );
    }
}
