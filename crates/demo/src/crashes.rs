//! The same loop while its components are killed: services keep their processes, nothing is lost.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use aos_api::{OnlineStatus, Unit};

use crate::cast::Part;
use crate::narrator::Narrator;
use crate::outside::Process;
use crate::play::Play;
use crate::stage::Place;
use crate::story::{self, COUNTER, WEB};

/// Who is killed, in this order.
const VICTIMS: [Part; 4] = [Part::Cloud, Part::MainIam, Part::MainCm, Part::MainSm];

/// All scenes in order.
pub fn tell(play: &mut Play<'_>, narrator: &mut Narrator) -> Result<()> {
    story::prologue(play, narrator)?;
    story::publish(play, narrator)?;
    story::deploy(play, narrator)?;
    for (round, victim) in VICTIMS.into_iter().enumerate() {
        narrator.step(
            &format!("{} gets SIGKILL and starts again", victim.name()),
            || crash(play, victim, round),
        )?;
    }
    story::remove(play, narrator)
}

/// Kills one component, starts it again, and proves that the loop goes on.
fn crash(play: &mut Play<'_>, victim: Part, round: usize) -> Result<String> {
    let before = story::processes(play, Place::Main);
    let counted = story::count(play, Place::Main)?;
    play.cast.kill(victim)?;
    same(play, &before, "while it is dead")?;
    story::web(play, Place::Main)?;
    play.cast.start(victim)?;
    play.until("the Unit online", 60, |play| {
        let unit: Unit = play.user.json(&["unit", "show", &play.unit])?;
        ensure!(
            unit.online_status == OnlineStatus::Online,
            "it is {:?}",
            unit.online_status
        );
        ensure!(
            unit.counts.nodes_connected == 2,
            "{} Nodes",
            unit.counts.nodes_connected
        );
        Ok(())
    })?;
    same(play, &before, "after it started again")?;

    // The loop goes on: up to three instances and back to one, in turns.
    let wanted = if round.is_multiple_of(2) { 3 } else { 1 };
    story::assign(
        play,
        &[
            COUNTER,
            "--instances",
            &wanted.to_string(),
            "--label",
            "main",
        ],
    )?;
    let active = story::instances(play, COUNTER)?.len();
    ensure!(
        active == wanted,
        "{active} counters are active, not {wanted}"
    );
    ensure!(
        story::instances(play, WEB)?.len() == 1,
        "{WEB} is not active"
    );
    let now = story::count(play, Place::Main)?;
    ensure!(
        now >= counted,
        "the count fell from {counted} to {now}: state was lost"
    );
    Ok(format!(
        "{} processes kept their pids; then {COUNTER} was scaled to {wanted}; the count is {now}",
        before.len()
    ))
}

fn same(play: &Play<'_>, before: &BTreeSet<Process>, when: &str) -> Result<()> {
    let now = story::processes(play, Place::Main);
    ensure!(
        now == *before,
        "{when} the services' processes are {:?}, not {:?}",
        now.iter().map(|process| process.pid).collect::<Vec<_>>(),
        before.iter().map(|process| process.pid).collect::<Vec<_>>()
    );
    Ok(())
}
