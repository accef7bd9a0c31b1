//! What the kernel offers and the standard library does not: quota calls, attributes, btrfs, loop devices.
#![allow(
    unsafe_code,
    reason = "the kernel's calls take pointers to structures of theirs"
)]

pub(crate) mod btrfs;
pub(crate) mod loops;
pub(crate) mod quotactl;
