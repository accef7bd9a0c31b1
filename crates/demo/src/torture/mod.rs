//! Torture: the real processes are killed at random moments while the person keeps changing their mind.
//!
//! A round is one to three changes of mind with kills in between: cloud, IAM, CM, SM of either Node, a keeper, or all
//! of the Unit at once (a power cut, with the cloud away until the Unit has helped itself). Then everybody is started
//! again, and the promises are checked from outside: the newest reachable wish runs, exactly, and the cloud knows it; a
//! version that cannot start has left the old set as it was, and a person can read why; what was not touched kept its
//! processes; nothing counted was lost; nothing is left behind.

mod dice;
pub(crate) mod promises;
mod wish;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aos_api::{OnlineStatus, Unit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use self::dice::Dice;
use self::promises::{NODES, Sight};
use self::wish::Wish;
use crate::cast::{Cast, Part};
use crate::narrator::Narrator;
use crate::play::Play;
use crate::stage::{Place, power};
use crate::story::{self, COUNTER, WEB};

/// How long the Unit may take to come to rest after a round, in seconds.
const REST: u64 = 120;
/// One round in so many is a power cut.
const POWER_CUT: u64 = 8;

/// How much, and from which seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dose {
    /// How many processes are killed in all; a power cut counts as one.
    pub kills: u32,
    /// Repeats the choices.
    pub seed: u64,
}

/// Where the torture stands.
struct Victim {
    /// What the person wants.
    wish: Wish,
    /// What the Unit can be expected to run, the likeliest last: the wish, or while that is impossible the set it was on
    /// before, or one that it was on the way to.
    grounds: Vec<Wish>,
    /// What was seen at rest.
    sight: Sight,
    dice: Dice,
    kills: u32,
}

/// All rounds.
pub fn tell(play: &mut Play<'_>, narrator: &mut Narrator, dose: Dose) -> Result<()> {
    story::prologue(play, narrator)?;
    story::publish(play, narrator)?;
    story::deploy(play, narrator)?;
    narrator.remark(&format!("{} kills, seed {}", dose.kills, dose.seed));
    let mut victim = Victim {
        wish: Wish::first(),
        grounds: vec![Wish::first()],
        sight: Sight::take(play),
        dice: Dice::new(dose.seed),
        kills: 0,
    };
    let mut round = 0;
    while victim.kills < dose.kills {
        round += 1;
        ensure!(
            !play.stop.load(std::sync::atomic::Ordering::SeqCst),
            "stopped"
        );
        if victim.dice.once_in(POWER_CUT) {
            narrator.step(&format!("round {round}: power cut"), || {
                victim.power_cut(play)
            })?;
        } else {
            narrator.step(&format!("round {round}: kills"), || victim.round(play))?;
        }
    }
    if victim.wish.web.is_none() {
        // The last scene takes both away.
        story::assign(play, &[WEB, "--label", "main"])?;
    }
    story::remove(play, narrator)
}

impl Victim {
    /// Changes of mind, kills, rest.
    fn round(&mut self, play: &mut Play<'_>) -> Result<String> {
        let mut told = Vec::new();
        // What it stands on, and what it may be trying again to get to.
        let before = self.grounds.last().unwrap_or(&self.wish).clone();
        let mut fewest = before.counters.0.min(self.wish.counters.0);
        let mut moved = (
            self.wish.web != before.web,
            self.wish.counters.1 != before.counters.1,
        );
        let mut published = self.wish.version != before.version;
        for _ in 0..=self.dice.below(3) {
            let change = self.wish.draw(&mut self.dice);
            let next = self.wish.after(change);
            next.order(play, change)
                .with_context(|| format!("the person could not order: {change}"))?;
            fewest = fewest.min(next.counters.0);
            moved.0 |= next.web != before.web;
            moved.1 |= next.counters.1 != before.counters.1;
            published |= next.version != before.version;
            self.wish = next;
            if self.wish.possible() {
                self.grounds.push(self.wish.clone());
            }
            told.push(change.to_string());
            self.pause(700);
            let mut dead = Vec::new();
            for _ in 0..=self.dice.below(2) {
                told.push(self.kill(play, &mut dead)?);
                self.pause(300);
            }
            for part in dead {
                play.cast.start(part)?;
            }
            self.cloud_answers(play)?;
        }
        let known = self.rest(play, told.join(", "))?;
        let sight = Sight::take(play);
        promises::nothing_lost(&self.sight, &sight)?;
        let kept = |service| {
            self.sight
                .of(service)
                .intersection(&sight.of(service))
                .count()
        };
        ensure!(
            moved.1 || kept(COUNTER) >= fewest,
            "only {} of at least {fewest} `{COUNTER}` kept their processes",
            kept(COUNTER)
        );
        ensure!(
            moved.0 || published || before.web.is_none() || kept(WEB) == 1,
            "`{WEB}` was restarted without cause"
        );
        self.sight = sight;
        Ok(known)
    }

    /// One process dies. `dead` are those that have died already.
    fn kill(&mut self, play: &mut Play<'_>, dead: &mut Vec<Part>) -> Result<String> {
        self.kills += 1;
        if self.dice.once_in(7) {
            let place = self.dice.one_of(Place::Main, &[Place::Secondary]);
            for pid in Cast::keepers(play.stage, place) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            return Ok(format!("† keeper of {}", place.name()));
        }
        let part = self.dice.one_of(
            Part::MainCm,
            &[
                Part::MainCm,
                Part::MainSm,
                Part::MainSm,
                Part::SecondarySm,
                Part::MainIam,
                Part::SecondaryIam,
                Part::Cloud,
            ],
        );
        if !dead.contains(&part) {
            play.cast.kill(part)?;
            dead.push(part);
        }
        Ok(format!("† {}", part.name()))
    }

    /// Both Nodes lose power while the cloud is away. They come back by themselves, then the cloud does.
    fn power_cut(&mut self, play: &mut Play<'_>) -> Result<String> {
        self.kills += 1;
        for part in ALL {
            play.cast.kill(part)?;
        }
        for place in NODES {
            power::cut(play.stage, place)?;
        }
        for part in ALL.into_iter().filter(|part| *part != Part::Cloud) {
            play.cast.start(part)?;
        }
        let grounds = self.grounds.clone();
        play.until("the last good set without a cloud", REST, |play| {
            stands_on(play, &grounds).map(|_| ())
        })?;
        play.cast.start(Part::Cloud)?;
        self.cloud_answers(play)?;
        let known = self.rest(play, "helped itself without a cloud".into())?;
        let sight = Sight::take(play);
        promises::nothing_lost(&self.sight, &sight)?;
        self.sight = sight;
        Ok(known)
    }

    /// Waits until the Unit is as it can be, and the cloud knows it.
    fn rest(&mut self, play: &mut Play<'_>, told: String) -> Result<String> {
        let wish = self.wish.clone();
        if wish.possible() {
            self.grounds = vec![wish.clone()];
        }
        let grounds = self.grounds.clone();
        let ground = play.until("the Unit at rest", REST, |play| {
            let unit: Unit = play.user.json(&["unit", "show", &play.unit])?;
            ensure!(
                unit.online_status == OnlineStatus::Online,
                "the Unit is {:?}",
                unit.online_status
            );
            ensure!(
                unit.counts.nodes_connected == 2,
                "{} Nodes",
                unit.counts.nodes_connected
            );
            let ground = stands_on(play, &grounds)?;
            promises::reported(play, ground)?;
            if wish.possible() {
                promises::committed(play)?;
            } else {
                promises::explained(play)?;
            }
            Ok(ground.clone())
        });
        let ground =
            ground.with_context(|| format!("after: {told}; expected one of {grounds:?}"))?;
        self.grounds = vec![ground];
        Ok(told)
    }

    fn cloud_answers(&self, play: &mut Play<'_>) -> Result<()> {
        play.until("the cloud answering", 30, |play| {
            play.user.aos(&["whoami"]).map(|_| ())
        })
    }

    fn pause(&mut self, most: u64) {
        std::thread::sleep(Duration::from_millis(self.dice.below(most)));
    }
}

/// The set that runs, of those that may; fails with why the likeliest does not.
fn stands_on<'w>(play: &Play<'_>, grounds: &'w [Wish]) -> Result<&'w Wish> {
    let mut why = anyhow::anyhow!("nothing is expected");
    for ground in grounds {
        match promises::runs(play, ground) {
            Ok(()) => return Ok(ground),
            Err(error) => why = error,
        }
    }
    Err(why)
}

/// Everybody, in the order in which they start.
const ALL: [Part; 6] = [
    Part::MainIam,
    Part::SecondaryIam,
    Part::MainCm,
    Part::MainSm,
    Part::SecondarySm,
    Part::Cloud,
];
