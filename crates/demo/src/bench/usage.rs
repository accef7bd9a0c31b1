//! What the processes of a Unit take while nothing happens.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::Figure;
use crate::cast::{Cast, Part};
use crate::narrator::Narrator;
use crate::play::Play;
use crate::stage::Place;

/// How long everything may take to come to rest before it is measured.
const REST: Duration = Duration::from_secs(10);
/// How long processor time is watched.
const WATCH: Duration = Duration::from_secs(20);
const MAIN: [Part; 3] = [Part::MainIam, Part::MainCm, Part::MainSm];
const SECONDARY: [Part; 2] = [Part::SecondaryIam, Part::SecondarySm];

/// Memory of a Unit that runs nothing, in MB.
pub(super) struct Memory(f64);

/// Memory of a Unit without instances.
pub(super) fn at_rest(
    play: &mut Play<'_>,
    narrator: &mut Narrator,
    figures: &mut Vec<Figure>,
) -> Result<Memory> {
    let mut main = f64::NAN;
    narrator.step("memory of a Unit without instances", || {
        sleep(REST);
        main = pss(&processes(play, Place::Main, &MAIN)?)?;
        let secondary = pss(&processes(play, Place::Secondary, &SECONDARY)?)?;
        figures.push(Figure::alone("idle.pss.main", main, "MB"));
        figures.push(Figure::alone("idle.pss.secondary", secondary, "MB"));
        Ok(super::said(figures))
    })?;
    Ok(Memory(main))
}

/// What `instances` idle ones add on the main Node: memory of each, and processor time of all.
pub(super) fn with_instances(
    play: &Play<'_>,
    empty: &Memory,
    instances: usize,
) -> Result<[Figure; 2]> {
    sleep(REST);
    let pids = processes(play, Place::Main, &MAIN)?;
    let each = (pss(&pids)? - empty.0) / instances as f64;
    let (before, begin) = (processor_seconds(&pids)?, Instant::now());
    sleep(WATCH);
    let used = (processor_seconds(&pids)? - before) / begin.elapsed().as_secs_f64();
    Ok([
        Figure::alone("idle.memory_per_instance", each, "MB"),
        Figure::alone(format!("idle.cpu.{instances}"), used * 100.0, "%"),
    ])
}

/// The components of the main Node, and its keeper.
pub(super) fn main(play: &Play<'_>) -> Result<Vec<i32>> {
    processes(play, Place::Main, &MAIN)
}

/// The components of a Node that the play started, and its keeper.
fn processes(play: &Play<'_>, place: Place, parts: &[Part]) -> Result<Vec<i32>> {
    let mut pids: Vec<i32> = parts
        .iter()
        .filter_map(|part| play.cast.pid(*part))
        .collect();
    ensure!(
        pids.len() == parts.len(),
        "a component of the {} Node does not run",
        place.name()
    );
    pids.extend(Cast::keepers(play.stage, place));
    Ok(pids)
}

/// Megabytes that processes have for themselves, shared pages by their share.
fn pss(pids: &[i32]) -> Result<f64> {
    let mut kilobytes = 0.0;
    for pid in pids {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
            .with_context(|| format!("cannot read the memory of process {pid}"))?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("Pss:"))
            .context("the kernel tells no Pss")?;
        let number = line.split_whitespace().next().unwrap_or_default();
        kilobytes += number
            .parse::<f64>()
            .context("the kernel's Pss is not a number")?;
    }
    Ok(kilobytes / 1000.0 * 1.024)
}

/// Processor time of all threads. Of threads that ended meanwhile it is lost.
pub(super) fn processor_seconds(pids: &[i32]) -> Result<f64> {
    let mut nanoseconds = 0.0;
    for pid in pids {
        let threads = fs::read_dir(format!("/proc/{pid}/task"))
            .with_context(|| format!("process {pid} is gone"))?;
        for thread in threads.flatten() {
            let text = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
            let spent = text.split_whitespace().next().unwrap_or("0");
            nanoseconds += spent.parse::<f64>().unwrap_or(0.0);
        }
    }
    Ok(nanoseconds / 1e9)
}
