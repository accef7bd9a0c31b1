//! Decides what the use of a Node and its instances means: how much it is, when it becomes an alert, how long it goes on
//! being one, when it is over, and what of it the cloud is told.
//!
//! [`Monitor`] is the SM's part: it turns counters into usage ([`Usage`]), keeps averages, and holds everything against the
//! rules. [`Uplink`] and [`Flood`] are the CM's part: of usage the cloud gets what changed, and of alerts no more than is
//! good, the rest counted.
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

mod flood;
mod ledger;
mod meter;
mod monitor;
mod rule;
mod uplink;
mod usage;
mod watch;
mod watches;

pub use flood::{Admitted, Flood, Tide};
pub use ledger::{Account, Ledger};
pub use meter::{Counters, NodeCounters};
pub use monitor::{Changed, Measured, Monitor, Whose};
pub use rule::{Rule, WrongRule};
pub use uplink::{Grain, Point, Thrift, Uplink};
pub use usage::{Traffic, Usage};
pub use watch::{Change, Watch};
pub use watches::{Alert, Parameter, Sizes, Watches};
