//! All certificates of a Unit are renewed by order of the cloud: no service notices, and the loop goes on with the new ones.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use aos_api::{OnlineStatus, Unit, UnitCertificate};

use crate::narrator::Narrator;
use crate::play::Play;
use crate::stage::Place;
use crate::story::{self, COUNTER};

/// By Node and type.
type Serials = BTreeMap<(String, String), String>;

/// All scenes in order.
pub fn tell(play: &mut Play<'_>, narrator: &mut Narrator) -> Result<()> {
    story::prologue(play, narrator)?;
    story::publish(play, narrator)?;
    story::deploy(play, narrator)?;
    let before = serials(play)?;
    let running = story::processes(play, Place::Main);
    narrator.step("the certificates of both Nodes are renewed", || {
        play.user.aos(&["unit", "renew", &play.unit])?;
        let after = play.until("all certificates renewed", 120, |play| {
            let after = done(play)?;
            ensure!(
                after.keys().eq(before.keys()),
                "there are {after:?} instead of {before:?}"
            );
            Ok(after)
        })?;
        for (which, serial) in &before {
            ensure!(after[which] != *serial, "{which:?} is as before");
        }
        // One is linked by its `online` certificate: the old one is worth nothing any more, and the link is up.
        let unit: Unit = play.user.json(&["unit", "show", &play.unit])?;
        ensure!(
            unit.online_status == OnlineStatus::Online,
            "the link is {:?}",
            unit.online_status
        );
        ensure!(
            running == story::processes(play, Place::Main),
            "a service was started again"
        );
        Ok(format!("{} certificates", after.len()))
    })?;
    narrator.step("an update comes over the renewed certificates", || {
        story::assign(play, &[COUNTER, "--instances", "2", "--label", "main"])?;
        let active = story::instances(play, COUNTER)?.len();
        ensure!(active == 2, "{active} counters are active");
        Ok(format!("{active} counters"))
    })?;
    story::remove(play, narrator)
}

fn certificates(play: &Play<'_>) -> Result<Vec<UnitCertificate>> {
    play.user.json(&["unit", "certificates", &play.unit])
}

fn serials(play: &Play<'_>) -> Result<Serials> {
    let all = certificates(play)?.into_iter();
    Ok(all
        .map(|one| ((one.node_id, one.cert_type), one.serial))
        .collect())
}

/// The certificates, if each is a renewed one and none of the old ones is left.
fn done(play: &Play<'_>) -> Result<Serials> {
    let all = certificates(play)?;
    for one in &all {
        ensure!(
            one.status == "renew_done",
            "{} of {} is {}: {}",
            one.cert_type,
            one.node_id,
            one.status,
            one.error.as_deref().unwrap_or("no error")
        );
    }
    serials(play)
}
