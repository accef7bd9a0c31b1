//! The story that `aos demo` tells: a cloud, a Unit of a main and a secondary Node, and two
//! services that are deployed, updated, scaled, placed and removed.
//!
//! The demo is an onlooker. It makes network namespaces ([`stage`]), starts the same programs that a
//! user would start ([`cast`]), does everything by the `aos` command line ([`user`]), and looks at
//! the outcome from outside ([`outside`]): HTTP answers, processes, files. It uses nothing of the
//! product but the types of the REST API. [`story`] is the order of events, [`crashes`] the variant
//! in which components are killed on the way, [`torture`] the one in which that has no end.
#![allow(clippy::print_stdout, reason = "the demo narrates to its terminal")]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests may fail loudly"
    )
)]

pub mod audience;
pub mod bench;
pub mod cast;
pub mod crashes;
pub mod narrator;
pub mod outside;
pub mod play;
pub mod renewal;
pub mod senses;
pub mod stage;
pub mod story;
pub mod torture;
pub mod user;
pub mod waiting;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, bail};

/// How the demo is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// The `aos` program that plays all parts.
    pub aos: PathBuf,
    /// The folder of example bundles.
    pub examples: PathBuf,
    /// Unattended: check every step, end with a table.
    pub check: bool,
    /// Copy the logs of all processes here at the end.
    pub keep_logs: Option<PathBuf>,
    /// Which story.
    pub plot: Plot,
}

/// Which story is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plot {
    /// The certificates of all components are renewed while services run and the link is up.
    Renewal,
    /// Deploy, update, scale, place, remove.
    Loop,
    /// The same loop while cloud, IAM, CM and SM are killed one after the other.
    Crashes(When),
    /// Deployments measured beside their floor.
    Bench,
    /// What monitoring costs the Unit, measured.
    BenchSenses,
    /// Charts and alerts, watched by this shell command.
    Senses(String),
    /// Processes killed at random while desired states keep arriving.
    Torture(torture::Dose),
    /// One deployment, watched by this shell command; [`audience`] says what it is told.
    Audience(String),
}

/// When components are killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// While nothing changes.
    AtRest,
    /// While an update is on its way, each at another step of it.
    OnTheWay,
}

/// Tells the story and takes everything down again, also after a failure or Ctrl-C.
///
/// Fails with what did not happen.
pub async fn run(options: Options) -> Result<()> {
    if let Some(missing) = stage::missing() {
        bail!("{missing}");
    }
    let stop = Arc::new(AtomicBool::new(false));
    let told = tokio::task::spawn_blocking({
        let stop = stop.clone();
        move || play::play(&options, &stop)
    });
    let heard = tokio::spawn({
        let stop = stop.clone();
        async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                stop.store(true, Ordering::SeqCst);
            }
        }
    });
    let result = told.await.context("the demo broke off");
    heard.abort();
    result?
}
