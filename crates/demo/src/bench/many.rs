//! Many instances at once: until all are active, until all are gone, and what they cost while they do nothing.

use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, bail, ensure};
use aos_api::DesiredState;
use aos_time::Timestamp;

use super::floor::Floor;
use super::usage::{self, Memory};
use super::{Figure, bundle, withdraw};
use crate::narrator::Narrator;
use crate::play::Play;
use crate::stage::Place;
use crate::story::{self, WEB};
use crate::torture::promises;

/// How many instances at once, and how often that is measured.
const SIZES: [(usize, usize); 4] = [(1, 5), (10, 5), (50, 5), (256, 3)];
/// At this size memory and processor time of idle instances are measured.
const IDLE: usize = 50;
/// How long all may take to be gone.
const GONE: Duration = Duration::from_secs(120);

pub(super) fn tell(
    play: &mut Play<'_>,
    narrator: &mut Narrator,
    empty: &Memory,
    figures: &mut Vec<Figure>,
) -> Result<()> {
    narrator.step("the service is published and its image cached", || {
        story::publish_with(play, WEB, "2.0.0", bundle::many)?;
        deploy(play, 1)?;
        withdraw(play)?;
        Ok("fetched, run once, taken away".into())
    })?;
    for (size, rounds) in SIZES {
        narrator.step(&format!("{size} instance(s), {rounds} times"), || {
            let (mut starts, mut stops) = (Vec::new(), Vec::new());
            let (mut least_starts, mut least_stops) = (Vec::new(), Vec::new());
            let mut idle = None;
            for round in 0..rounds {
                starts.push(deploy(play, size)?);
                if size == IDLE && round == 0 {
                    idle = Some(usage::with_instances(play, empty, size)?);
                }
                let floor = Floor::prepare(play, size)?;
                stops.push(stop(play)?);
                play.until("the Unit at rest", 60, |play| promises::committed(play))?;
                least_starts.push(floor.start()?);
                least_stops.push(floor.stop()?);
            }
            let mut measured = vec![
                Figure::beside(format!("deploy.active.{size}"), starts, least_starts),
                Figure::beside(format!("stop.{size}"), stops, least_stops),
            ];
            measured.extend(idle.into_iter().flatten());
            let said = super::said(&measured);
            figures.extend(measured);
            Ok(said)
        })?;
    }
    Ok(())
}

/// Assigns the service; gives the seconds from `desiredStatus` sent to the status with all instances active.
pub(super) fn deploy(play: &Play<'_>, instances: usize) -> Result<f64> {
    let number = instances.to_string();
    story::order(
        play,
        &[
            WEB,
            "--instances",
            &number,
            "--label",
            "main",
            "--wait",
            "--timeout",
            "180",
        ],
    )?;
    let active = story::active(play, WEB)?;
    ensure!(
        active.len() == instances,
        "{} of {instances} instances are active",
        active.len()
    );
    // The desired state is met when it is committed, after everything has been active for a while. What is measured here
    // ends with the status that says so of the last instance.
    let newest = active.into_iter().map(|one| one.changed_at).max();
    let reached = newest.context("no instance is active")?;
    Ok(reached.since(sent(play)?).as_secs_f64())
}

/// When the newest desired state was sent to the Unit.
fn sent(play: &Play<'_>) -> Result<Timestamp> {
    let state: DesiredState = play.user.json(&["unit", "desired", &play.unit])?;
    state
        .sent_at
        .context("the cloud does not say when it sent the desired state")
}

/// Takes the service away; gives the seconds from `desiredStatus` sent to the last process gone.
fn stop(play: &Play<'_>) -> Result<f64> {
    let processes = story::processes(play, Place::Main);
    let pids: Vec<i32> = processes.into_iter().map(|one| one.pid).collect();
    ensure!(!pids.is_empty(), "nothing runs");
    let watching = std::thread::spawn(move || gone(&pids));
    play.user.aos(&["unassign", WEB, "--unit", &play.unit])?;
    let gone = match watching.join() {
        Ok(gone) => gone?,
        Err(_) => bail!("the processes cannot be watched"),
    };
    let sent = sent(play)?;
    let sent = SystemTime::UNIX_EPOCH + Duration::from_micros(sent.as_micros().unsigned_abs());
    Ok(gone
        .duration_since(sent)
        .context("the processes were gone before the desired state was sent")?
        .as_secs_f64())
}

/// When the last of these processes was gone.
fn gone(pids: &[i32]) -> Result<SystemTime> {
    let until = Instant::now() + GONE;
    let there = |pid: &i32| nix::sys::signal::kill(nix::unistd::Pid::from_raw(*pid), None).is_ok();
    // The last one mostly stays the last one, so this is one call a look.
    let mut left: Vec<i32> = pids.to_vec();
    while let Some(pid) = left.last() {
        if !there(pid) {
            left.pop();
            continue;
        }
        ensure!(
            Instant::now() < until,
            "{} process(es) are left after {} s",
            left.len(),
            GONE.as_secs()
        );
        sleep(Duration::from_millis(1));
    }
    Ok(SystemTime::now())
}
