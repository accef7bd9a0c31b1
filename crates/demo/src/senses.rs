//! A person far away sees what the Unit feels: somebody makes a service work hard while a browser looks at its charts, and
//! the alert begins, is seen, and is over.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use aos_api::{Alert, AlertState, UnitMonitoring};

use crate::audience::Watcher;
use crate::narrator::Narrator;
use crate::play::Play;
use crate::stage::Place;
use crate::story::{self, WEB, WEB_PORT};

/// What the watcher says when it sees the charts move, and when it sees the alert.
const MOVING: &str = "charts move";
const SEEN: &str = "alert seen";
/// Lines for the configuration files of the Nodes: a person who waits shall not wait long.
pub(crate) const FAST_SM: &str = "\n[sm.monitoring]\nperiod_secs = 1\nlog = \"off\"\n";
pub(crate) const FAST_CM: &str = "\n[cm.monitoring]\ndelay_secs = 1\n";

/// All scenes in order. `command` is a browser that looks on.
pub fn tell(play: &mut Play<'_>, narrator: &mut Narrator, command: &str) -> Result<()> {
    story::prologue(play, narrator)?;
    narrator.step("a service with alert rules goes active", || {
        story::publish_with(play, WEB, "1.0.0", watched)?;
        story::assign(play, &[WEB, "--label", "main"])?;
        Ok("its processor use is watched".into())
    })?;
    narrator.step("`aos top` shows what the Unit uses", || {
        let top = play.until("usage of the service", 60, |play| {
            let top: UnitMonitoring = play.user.json(&["top", &play.unit])?;
            let service = top.instances.iter().find(|one| one.service.codename == WEB);
            ensure!(
                service.is_some_and(|one| !one.points.is_empty()),
                "the service is not measured yet"
            );
            Ok(top)
        })?;
        ensure!(
            top.nodes.len() == 2,
            "{} of 2 Nodes are measured",
            top.nodes.len()
        );
        let limits = top.instances.iter().flat_map(|one| &one.limits);
        ensure!(
            limits
                .clone()
                .any(|limit| limit.parameter == "cpu" && limit.raise.is_some()),
            "the limit is not there"
        );
        Ok(format!(
            "{} Nodes, {} instance(s)",
            top.nodes.len(),
            top.instances.len()
        ))
    })?;
    let mut watcher = None;
    narrator.step(
        "somebody opens the charts of the Unit, and they move",
        || {
            let started = Watcher::start(play, command)?;
            let said = started.said.clone();
            watcher = Some(started);
            play.until("moving charts", 90, |_| hears(&said, MOVING))?;
            Ok("they do".into())
        },
    )?;
    narrator.step("the service is made to work hard: an alert begins", || {
        let load = Load::start(play);
        let begun = play.until("the alert", 60, |play| one(play, AlertState::Active))?;
        let Some(watcher) = &watcher else {
            bail!("nobody watches")
        };
        let said = watcher.said.clone();
        play.until("the alert on the screen", 60, |_| hears(&said, SEEN))?;
        let asked = load.stop();
        Ok(format!("{} after {asked} questions", begun.text))
    })?;
    narrator.step("it rests: the alert is over", || {
        let over = play.until("the end of the alert", 60, |play| {
            one(play, AlertState::Ended)
        })?;
        let lasted = over.ended_at.context("it has no end")?.since(over.at);
        Ok(format!("it lasted {:.0} s", lasted.as_secs_f64()))
    })?;
    narrator.step("the watcher has seen all it wanted", || {
        let Some(mut watcher) = watcher.take() else {
            bail!("nobody watches")
        };
        watcher.end(play)?;
        Ok("charts, the alert, its end, and no error in the console".into())
    })
}

/// Rules that a service breaks when it is asked all the time.
fn watched(config: &str) -> String {
    let rules = "configuration:\n      alertRules:\n        cpu: {minTimeout: PT2S, minThreshold: 0.5, maxThreshold: 1}";
    config.replacen("configuration:", rules, 1)
}

fn hears(said: &Arc<std::sync::Mutex<Vec<String>>>, word: &str) -> Result<()> {
    let said = said
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    ensure!(
        said.iter().any(|line| line.contains(word)),
        "it did not say `{word}`"
    );
    Ok(())
}

fn one(play: &Play<'_>, state: AlertState) -> Result<Alert> {
    let alerts: Vec<Alert> = play.user.json(&[
        "alerts",
        "--unit",
        &play.unit,
        "--kind",
        "instance-quota",
        "--service",
        WEB,
    ])?;
    let found = alerts
        .into_iter()
        .find(|alert| alert.parameter.as_deref() == Some("cpu"));
    let alert = found.context("there is no alert")?;
    ensure!(alert.state == state, "it is {:?}", alert.state);
    Ok(alert)
}

/// Somebody who asks the service as often as it answers.
struct Load {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicU64>,
    askers: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(play: &Play<'_>) -> Self {
        let address = SocketAddr::from((play.stage.address(Place::Main), WEB_PORT));
        let (stop, asked) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let asker = |_| {
            let (stop, asked) = (stop.clone(), asked.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    if ask(address).is_some() {
                        asked.fetch_add(1, Ordering::SeqCst);
                    }
                }
            })
        };
        let askers = (0..4).map(asker).collect();
        Self {
            stop,
            asked,
            askers,
        }
    }

    fn stop(self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for asker in self.askers.drain(..) {
            let _ = asker.join();
        }
    }
}

fn ask(address: SocketAddr) -> Option<()> {
    let second = Duration::from_secs(1);
    let mut stream = TcpStream::connect_timeout(&address, second).ok()?;
    stream.set_read_timeout(Some(second)).ok()?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    Some(())
}
