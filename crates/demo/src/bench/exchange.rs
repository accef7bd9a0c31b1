//! One instance that people use: how long it is away when it crashes, and when a new version takes its place.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::floor::Floor;
use super::{Figure, bundle, said, withdraw};
use crate::narrator::Narrator;
use crate::outside::{self, Process};
use crate::play::Play;
use crate::stage::Place;
use crate::story::{self, WEB, WEB_PORT};

/// How often each is measured.
const ROUNDS: usize = 5;
/// An answer that takes longer is none.
const PATIENCE: Duration = Duration::from_millis(20);
/// How long the service may be away at all.
const AWAY: Duration = Duration::from_secs(60);

pub(super) fn tell(
    play: &mut Play<'_>,
    narrator: &mut Narrator,
    figures: &mut Vec<Figure>,
) -> Result<()> {
    let address = SocketAddr::from((play.stage.address(Place::Main), WEB_PORT));
    let mut floors = Vec::new();
    narrator.step("an instance crashes", || {
        story::publish_with(play, WEB, "1.0.0", bundle::persistent)?;
        story::assign(play, &[WEB, "--label", "main"])?;
        for _ in 0..ROUNDS {
            let floor = Floor::prepare(play, 1)?;
            let once = floor.start()?;
            floors.push(floor.stop()? + once);
        }
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            times.push(crash(play, address)?);
            // The next crash meets an instance at rest.
            sleep(Duration::from_secs(1));
        }
        figures.push(Figure::beside("restart.crash", times, floors.clone()));
        Ok(said(figures.last().map_or(&[], std::slice::from_ref)))
    })?;
    narrator.step("a new version takes its place", || {
        let mut times = Vec::new();
        for round in 1..=ROUNDS {
            let version = format!("1.{round}.0");
            story::publish_with(play, WEB, &version, bundle::persistent)?;
            let watching = Watch::begin(address)?;
            story::assign(play, &[WEB, "--label", "main"])?;
            times.push(watching.end(&version)?);
        }
        withdraw(play)?;
        figures.push(Figure::beside("update.downtime", times, floors));
        Ok(said(figures.last().map_or(&[], std::slice::from_ref)))
    })
}

/// Kills the instance; gives the seconds until another process answers, beyond the pause that it asked for.
fn crash(play: &Play<'_>, address: SocketAddr) -> Result<f64> {
    let processes = story::processes(play, Place::Main);
    ensure!(
        processes.len() == 1,
        "{} processes run, not 1",
        processes.len()
    );
    ensure!(version(address).is_some(), "nobody answers on {address}");
    let begin = Instant::now();
    for process in &processes {
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(process.pid),
            nix::sys::signal::Signal::SIGKILL,
        )
        .context("the instance cannot be killed")?;
    }
    // It may answer once more before the kernel has taken it away.
    let dying = |one: &Process| outside::process(one.pid).as_ref() == Some(one);
    while processes.iter().any(dying) {
        ensure!(begin.elapsed() < AWAY, "the instance does not die");
    }
    while version(address).is_none() {
        ensure!(begin.elapsed() < AWAY, "the instance did not come back");
    }
    Ok(begin.elapsed().saturating_sub(bundle::PAUSE).as_secs_f64())
}

/// Asks all the time who answers.
struct Watch {
    stop: Arc<AtomicBool>,
    asking: JoinHandle<Vec<(Instant, Option<String>)>>,
}

impl Watch {
    fn begin(address: SocketAddr) -> Result<Self> {
        ensure!(version(address).is_some(), "nobody answers on {address}");
        let stop = Arc::new(AtomicBool::new(false));
        let asking = spawn({
            let stop = stop.clone();
            move || {
                let mut answers = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let answer = version(address);
                    answers.push((Instant::now(), answer));
                    sleep(Duration::from_millis(1));
                }
                answers
            }
        });
        Ok(Self { stop, asking })
    }

    /// The longest time without an answer; the last answers have to come from `version`.
    fn end(self, version: &str) -> Result<f64> {
        self.stop.store(true, Ordering::Relaxed);
        let Ok(answers) = self.asking.join() else {
            bail!("the service cannot be watched");
        };
        let answered: Vec<&(Instant, Option<String>)> =
            answers.iter().filter(|(_, who)| who.is_some()).collect();
        let last = answered.last().and_then(|(_, who)| who.as_deref());
        ensure!(
            last == Some(version),
            "version {version} should answer, not {last:?}"
        );
        let gaps = answered
            .windows(2)
            .filter_map(|pair| Some(pair.get(1)?.0.duration_since(pair.first()?.0)));
        let longest = gaps.max().context("there were too few answers")?;
        Ok(longest.as_secs_f64())
    }
}

/// The version that answers, if somebody does at once.
fn version(address: SocketAddr) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Answer {
        version: String,
    }
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream
        .write_all(b"GET /json HTTP/1.1\r\nConnection: close\r\n\r\n")
        .ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let body = text.split_once("\r\n\r\n")?.1;
    serde_json::from_str::<Answer>(body)
        .ok()
        .map(|answer| answer.version)
}
