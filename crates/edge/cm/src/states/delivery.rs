use std::time::Duration;

use aos_types::{AosCode, ErrorInfo, InstanceState};
use tokio::time::Instant;

/// The pause after the first attempt that failed; it doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Doublings that are counted.
const MOST_DOUBLINGS: u32 = 6;

/// A state that a Node was to be given and does not have.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Undelivered {
    /// The stream of the Node on which it was tried: on another one everything begins anew.
    connection: u64,
    since: Instant,
    attempts: u32,
    next: Instant,
    error: ErrorInfo,
    /// It is not expected to succeed any more; it is tried on all the same.
    pub(crate) given_up: bool,
}

impl Undelivered {
    /// After one more attempt has failed. `patience` is how long it may fail before it is given up; one that the Node
    /// refuses for what it is, is given up at once.
    pub(super) fn after(
        before: Option<&Self>,
        connection: u64,
        now: Instant,
        error: ErrorInfo,
        patience: Duration,
    ) -> Self {
        let before = before.filter(|before| before.connection == connection);
        let attempts = before.map_or(0, |before| before.attempts).saturating_add(1);
        let since = before.map_or(now, |before| before.since);
        let doublings = (attempts - 1).min(MOST_DOUBLINGS);
        let pause = (FIRST_PAUSE * (1 << doublings)).min(LONGEST_PAUSE);
        let refused = error.aos_code == AosCode::InvalidArgument as i32;
        Self {
            connection,
            since,
            attempts,
            // The end of the patience is a moment to look, too.
            next: match now < since + patience {
                true => (now + pause).min(since + patience),
                false => now + pause,
            },
            given_up: refused || now >= since + patience,
            error,
        }
    }

    /// Whether it is time for another attempt.
    pub(super) fn is_due(&self, connection: u64, now: Instant) -> bool {
        self.connection != connection || now >= self.next
    }

    /// When it is tried again.
    pub(super) const fn next(&self) -> Instant {
        self.next
    }

    /// How its instance is told, as long as it is not started.
    pub(crate) const fn state(&self) -> InstanceState {
        match self.given_up {
            true => InstanceState::Failed,
            false => InstanceState::Activating,
        }
    }

    /// Why the instance is not started.
    pub(crate) fn why(&self) -> ErrorInfo {
        let wait = match self.given_up {
            true => "it is not started without its state, which its Node does not take",
            false => "it waits for its state, which its Node has not taken yet",
        };
        ErrorInfo {
            message: format!("{wait}: {}", self.error),
            ..self.error.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn failed(before: Option<&Undelivered>, connection: u64, now: Instant) -> Undelivered {
        let error = ErrorInfo::new(AosCode::Failed, "the disk is full");
        Undelivered::after(before, connection, now, error, PATIENCE)
    }

    #[test]
    fn pauses_grow_and_it_is_given_up_at_its_deadline_and_tried_on() {
        let begin = Instant::now();
        let (mut now, mut state) = (begin, failed(None, 1, begin));
        let mut pauses = Vec::new();
        for _ in 0..12 {
            assert!(!state.is_due(1, now));
            pauses.push((state.next() - now).as_secs());
            assert_eq!(state.given_up, now >= begin + PATIENCE);
            now = state.next();
            assert!(state.is_due(1, now));
            state = failed(Some(&state), 1, now);
        }
        // At 10 s it is given up: that moment is not slept over.
        assert_eq!(pauses, [1, 2, 4, 3, 16, 32, 60, 60, 60, 60, 60, 60]);
    }

    #[test]
    fn on_another_connection_everything_begins_anew() {
        let begin = Instant::now();
        let late = begin + 2 * PATIENCE;
        let old = failed(Some(&failed(None, 1, begin)), 1, late);
        assert!(old.given_up && old.is_due(2, late));
        assert!(!failed(Some(&old), 2, late).given_up);
    }

    #[test]
    fn what_a_node_refuses_is_given_up_at_once() {
        let now = Instant::now();
        let error = ErrorInfo::new(AosCode::InvalidArgument, "too long");
        let state = Undelivered::after(None, 1, now, error, PATIENCE);
        assert!(state.given_up);
        assert!(state.why().message.contains("too long"));
    }
}
