//! Time and chance, passed in rather than taken.
//!
//! Everything that decides (`crates/core`) is handed the time it is and the random numbers it may use, so that the same
//! inputs always give the same outputs. This crate holds the one timestamp type, the [`Clock`] and [`Chance`] traits the
//! shells implement with the machine's own, and simulated ones that tests own.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests may fail loudly"
    )
)]

mod chance;
mod clock;
mod timestamp;
mod zone;

pub use chance::{Chance, SeededChance, SystemChance};
pub use clock::{Clock, SimClock, SteadyClock, SystemClock};
pub use timestamp::{ParseTimestampError, Timestamp};
pub use zone::{LocalDate, LocalTime, ParseZoneError, Zone};
