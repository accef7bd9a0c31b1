//! What the cloud is told about the Unit: everything on each connection and after each update, and what has changed in
//! between.
//!
//! [`compose`] makes the whole status of a moment; [`delta`] takes from it what differs from the last status the cloud has.
//! Because a delta always starts from what was acknowledged, a newer one replaces an older one that is still on its way, and
//! nothing can be lost or overtaken. Changes are gathered for a bounded time counted from the first of them, so a steady
//! stream of changes cannot hold them back.

mod compose;
mod delta;
mod keeper;
mod update;

pub(crate) use compose::{EngineStatus, UpdateParts};
pub(crate) use keeper::{Keeper, Sources};
