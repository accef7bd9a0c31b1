//! Decides when the use of something becomes an alert, how long it goes on being one, and when it is over.
//!
//! A Node and each instance have [`AlertRules`](aos_types::AlertRules): two thresholds and a time for each thing that is
//! measured. [`Watch`] holds one rule against one measurement after the other and says [`raise`](Change::Raise),
//! [`continue`](Change::Continue) or [`fall`](Change::Fall); [`Watches`] keeps all of a Node, and keeps what it knows when
//! rules are given again, so that a new configuration with the same rules neither repeats nor forgets an alert.
//!
//! ```text
//!            ≥ upper for the time: raise                 ≥ lower, the time after the last word: continue
//!   quiet ───────────────────────────────────► raised ◄───────────────┐
//!     ▲                                          │ └──────────────────┘
//!     └──────────────────────────────────────────┘
//!            < lower for the time, or the rule is gone: fall
//! ```
//!
//! The thresholds and the order of words are those of AosEdge (`docs/protocol/items.md`, alert rules).

mod rule;
mod watch;
mod watches;

pub use rule::{Rule, WrongRule};
pub use watch::{Change, Watch};
pub use watches::{Alert, Parameter, Sizes, Watches};
