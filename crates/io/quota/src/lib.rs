//! Bounds what instances keep on the Node's disk: a folder for each storage and each state, with a limit of its own.
//!
//! The caller makes folders with limits, asks what they hold and removes them ([`Quota`]); what stands behind it is chosen
//! once, by [`open`], from what the file system can do:
//!
//! | back-end | how a folder is bounded | needs |
//! |---|---|---|
//! | project | a project id that all in the folder inherits | ext4 or xfs with project quota on |
//! | user | the owner's user quota: storage and state together | a file system with user quota on |
//! | btrfs | a subvolume with a qgroup, in one image file of the Node | btrfs in the kernel, loop devices, `mkfs.btrfs` |
//! | accounting | not at all; it is only measured | |
//!
//! A limit is what an instance can be sure of and, but for what the file system needs for itself, what it cannot exceed.
//! Nothing here ever empties a folder that it cannot read: what is damaged is reported and left alone.
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests may fail loudly"
    )
)]

mod accounting;
mod choose;
mod error;
mod image;
mod plain;
mod project;
mod quota;
mod sys;
mod user;

pub use choose::{Choice, Chosen, Setup, open};
pub use error::Error;
pub use quota::{Backend, Below, Bound, Kind, Name, Quota, Space, Usage};
