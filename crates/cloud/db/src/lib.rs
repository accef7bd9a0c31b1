//! The store of AosCloud: one SQLite file (WAL, `synchronous=FULL`) behind functions named by what they are for.
//!
//! [`Db`] is a handle; clones share one writer, a few readers and one bus. Every call that changes something is one
//! transaction: the change, its audit row, what the Units' timelines say about it. After the commit a [`Change`] goes to
//! everyone who listens ([`Db::changes`]): the gateway composes desired states anew, pages in browsers read again.
//!
//! Tenancy is checked here and nowhere else: what people ask for takes an [`Actor`] and sees only its organisation;
//! something of another one is "not found". Calls by which a Unit speaks for itself take its id, which
//! [`Db::unit_of_certificate`] gives for a certificate that we issued.
//!
//! The statements are plain SQL with `$n` binds that suits SQLite and PostgreSQL alike (no JSON operators, times as
//! microseconds in BIGINT); lists and documents are JSON text that is read whole.
//!
//! | who | calls |
//! |---|---|
//! | gateway, a link comes and goes | [`Db::unit_of_certificate`], [`Db::set_link`], [`Db::set_all_links_down`] |
//! | gateway, its session machine | [`Db::link_records`], [`Db::write_link`] (and [`LinkWrite`] in the calls below) |
//! | gateway, what the Unit says | [`Db::apply_status`], [`Db::note`] |
//! | gateway, what the Unit should be | [`Db::unit_for_compose`], [`Db::store_desired`], [`Db::newest_desired`], [`Db::desired_sent`], [`Db::desired_acked`] |
//! | gateway, usage and alerts | [`Db::keep_usage`], [`Db::keep_alerts`] |
//! | gateway, environment variables | [`Db::env_set`], [`Db::env_sent`], [`Db::apply_env_statuses`] |
//! | gateway, logs | [`Db::logs_to_send`], [`Db::logs_sent`], [`Db::take_log_part`] |
//! | gateway, blobs | [`Db::blobs_for_unit`], [`Db::blob`] |
//! | people | the rest, one call a route of `aos_api` |

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests may fail loudly"
    )
)]

mod accounts;
mod actor;
mod alerts;
mod assignments;
mod audit;
mod blobs;
mod bundles;
mod change;
mod claim_codes;
mod columns;
mod compose;
mod compose_input;
mod desired;
mod downloads;
mod encryption;
mod enrolment;
mod env_vars;
mod error;
mod link;
mod listing;
mod logs;
mod node_orders;
mod phase;
mod renewals;
mod schedules;
mod services;
mod states;
mod status;
mod store;
mod subjects;
mod timeline;
mod unit_config_orders;
mod unit_models;
mod units;
mod usage;

pub use accounts::{SESSION_IDLE, SESSION_LONGEST, User};
pub use actor::Actor;
pub use alerts::{MOST_ALERTS, NewAlert, QuotaChange};
pub use blobs::BlobRow;
pub use bundles::NewVersion;
pub use change::Change;
pub use compose::{AssignedSubject, Assignment, UnitForCompose, VersionForCompose};
pub use compose_input::ComposeInputError;
pub use desired::{NewDesired, StoredDesired};
pub use downloads::DownloadReport;
pub use encryption::{EncryptedBlob, Receiver};
pub use enrolment::{IssuedCertificate, RegisterBy, Registered, Registration};
pub use env_vars::{EnvReport, EnvRow, EnvSet};
pub use error::DbError;
pub use link::{LinkKey, LinkRecord, LinkWrite, LinkedUnit};
pub use logs::{KEEP_LOGS, KeptPart, LogOrder, LogPart, LogsKept};
pub use phase::{DesiredContent, DesiredInstances, DesiredItem};
pub use renewals::{ExpiringCertificate, Installed, RenewalFilter, RenewalOrder};
pub use states::StateVerdict;
pub use status::{
    InstanceReport, ItemReport, NodeReport, PlacementReport, StatusOutcome, UnitConfigReport,
    UnitStatusReport,
};
pub use store::{Db, hash_secret};
pub use timeline::{Happening, KEPT_PER_UNIT};
pub use usage::{MOST_POINTS, NewPoint, Retention, UsageSeries};

/// The pattern for `LOWER(column) LIKE … ESCAPE '!'` that finds `search` anywhere; everything if there is none.
fn like(search: Option<&str>) -> String {
    let mut pattern = String::from("%");
    // ASCII only, as SQLite's LOWER does.
    for c in search.unwrap_or_default().to_ascii_lowercase().chars() {
        if matches!(c, '%' | '_' | '!') {
            pattern.push('!');
        }
        pattern.push(c);
    }
    if pattern.len() > 1 {
        pattern.push('%');
    }
    pattern
}
