//! `aos unit join`: a Unit that calls out and gets its certificates with a claim code.

use clap::Args;

use crate::failure::Failure;

/// Enrol this Unit in a cloud.
#[derive(Args)]
pub struct Join {}

/// `aos unit join`.
pub async fn run(_: Join) -> Result<(), Failure> {
    Err(Failure::new("not part of this build yet"))
}
