//! The cgroups of this Node, v1 or v2: where they are mounted, what one of them uses, and how it is emptied and removed.
//!
//! The OCI runtime makes the cgroups of instances and sets their limits; this crate reads and clears up. [`Layout`] looks
//! at the mounts once and knows both versions, also side by side (a v2 tree beside v1 trees has no controllers worth
//! reading). [`Layout::usage`] costs three small files and keeps nothing open, so that fifty instances every ten seconds are
//! not noticed. What the numbers mean is decided by those who ask.
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests may fail loudly"
    )
)]

mod layout;
mod usage;

pub use layout::Layout;
pub use usage::{Error, Usage};
