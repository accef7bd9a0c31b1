//! The same loop while its components are killed: services keep their processes, nothing is lost.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use aos_api::{OnlineStatus, Unit};

use crate::When;
use crate::cast::Part;
use crate::narrator::Narrator;
use crate::outside::Process;
use crate::play::Play;
use crate::stage::{Place, network};
use crate::story::{self, COUNTER, WEB};

/// Who is killed at rest, in this order.
const AT_REST: [Part; 4] = [Part::Cloud, Part::MainIam, Part::MainCm, Part::MainSm];
/// Who is killed while an update is on its way, and how many milliseconds after it was ordered: the
/// update is then at different steps.
const ON_THE_WAY: [(Part, u64); 8] = [
    (Part::Cloud, 0),
    (Part::MainCm, 40),
    (Part::MainSm, 80),
    (Part::MainIam, 40),
    (Part::MainCm, 160),
    (Part::MainSm, 160),
    (Part::MainCm, 320),
    (Part::MainSm, 320),
];

/// All scenes in order.
pub fn tell(play: &mut Play<'_>, narrator: &mut Narrator, when: When) -> Result<()> {
    story::prologue(play, narrator)?;
    story::publish(play, narrator)?;
    story::deploy(play, narrator)?;
    match when {
        When::AtRest => {
            for (round, victim) in AT_REST.into_iter().enumerate() {
                let title = format!("{} gets SIGKILL and starts again", victim.name());
                narrator.step(&title, || at_rest(play, victim, round))?;
            }
        }
        When::OnTheWay => {
            for (round, (victim, delay)) in ON_THE_WAY.into_iter().enumerate() {
                let title = format!("{} gets SIGKILL {delay} ms into an update", victim.name());
                narrator.step(&title, || on_the_way(play, victim, delay, round))?;
            }
        }
    }
    story::remove(play, narrator)
}

/// Kills one component, starts it again, and proves that the loop goes on.
fn at_rest(play: &mut Play<'_>, victim: Part, round: usize) -> Result<String> {
    let before = story::processes(play, Place::Main);
    let counted = story::count(play, Place::Main)?;
    play.cast.kill(victim)?;
    same(play, &before, "while it is dead")?;
    story::web(play, Place::Main)?;
    play.cast.start(victim)?;
    whole(play)?;
    same(play, &before, "after it started again")?;

    let wanted = wanted(round);
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
    reached(play, wanted, counted)?;
    Ok(format!(
        "{} processes kept their pids; then {COUNTER} was scaled to {wanted}",
        before.len()
    ))
}

/// Kills one component while an update is on its way: it is finished all the same, and what the update
/// does not touch is not touched.
fn on_the_way(play: &mut Play<'_>, victim: Part, delay: u64, round: usize) -> Result<String> {
    let before = story::processes(play, Place::Main);
    let counted = story::count(play, Place::Main)?;
    let wanted = wanted(round);
    story::order(
        play,
        &[
            COUNTER,
            "--instances",
            &wanted.to_string(),
            "--label",
            "main",
        ],
    )?;
    std::thread::sleep(Duration::from_millis(delay));
    play.cast.kill(victim)?;
    play.cast.start(victim)?;
    whole(play)?;
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
    reached(play, wanted, counted)?;
    let kept = before
        .intersection(&story::processes(play, Place::Main))
        .count();
    // The HTTP service and the first counter are in the old set and in the new one.
    ensure!(
        kept >= 2,
        "only {kept} of {} processes kept their pids",
        before.len()
    );
    Ok(format!(
        "scaled to {wanted} all the same; {kept} processes kept their pids"
    ))
}

/// Up to three instances and back to one, in turns.
fn wanted(round: usize) -> usize {
    if round.is_multiple_of(2) { 3 } else { 1 }
}

/// Waits until the cloud sees the Unit with both Nodes.
fn whole(play: &mut Play<'_>) -> Result<()> {
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
    })
}

/// Fails unless the services are as wanted and the counter went on from where it was.
fn reached(play: &Play<'_>, wanted: usize, counted: u64) -> Result<()> {
    let active = story::instances(play, COUNTER)?.len();
    ensure!(
        active == wanted,
        "{active} counters are active, not {wanted}"
    );
    ensure!(
        story::instances(play, WEB)?.len() == 1,
        "{WEB} is not active"
    );
    let mut addresses = BTreeSet::new();
    for (name, address) in network::instance_addresses(play.stage, Place::Main) {
        ensure!(
            addresses.insert(address.clone()),
            "{name} has {address}, as another instance does"
        );
    }
    story::web(play, Place::Main)?;
    let now = story::count(play, Place::Main)?;
    ensure!(
        now >= counted,
        "the count fell from {counted} to {now}: state was lost"
    );
    Ok(())
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
