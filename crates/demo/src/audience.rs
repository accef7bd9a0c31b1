//! Somebody watches: a command of the caller's, such as a walk through the web UI in a browser, looks
//! on while the services are deployed.
//!
//! It is told by its environment: `AOS_URL`, `AOS_USER`, `AOS_PASSWORD`, `AOS_CA_PEM` (the root
//! certificate), `AOS_WATCH_UNIT` and `AOS_WATCH_SERVICE`. The deployment begins when it has printed a
//! line with `signed in`. It must end with 0.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::cast::cloud_data;
use crate::narrator::Narrator;
use crate::outside;
use crate::play::Play;
use crate::stage::Place;
use crate::story::{self, COUNTER, WEB, WEB_PORT};

/// The word that says it is watching.
const WATCHING: &str = "signed in";
/// How long it may take to sign in, and to see everything, in seconds.
const TO_SIGN_IN: u64 = 60;
const TO_END: u64 = 300;

/// Who watches.
pub(crate) struct Watcher {
    child: Child,
    /// The lines it has printed.
    pub(crate) said: Arc<Mutex<Vec<String>>>,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Watcher {
    /// Waits for its end, which must be a good one.
    pub(crate) fn end(&mut self, play: &mut Play<'_>) -> Result<()> {
        self.end_while(play, |_| {})
    }

    /// The same, and does something now and then meanwhile.
    fn end_while(
        &mut self,
        play: &mut Play<'_>,
        mut meanwhile: impl FnMut(&Play<'_>),
    ) -> Result<()> {
        let status = play.until("the watcher's end", TO_END, |play| {
            meanwhile(play);
            self.child.try_wait()?.context("it is still looking")
        })?;
        ensure!(
            status.success(),
            "it ended with {status}: its words above say why"
        );
        Ok(())
    }
}

/// All scenes in order.
pub fn tell(play: &mut Play<'_>, narrator: &mut Narrator, command: &str) -> Result<()> {
    story::prologue(play, narrator)?;
    story::publish(play, narrator)?;
    let mut watcher = None;
    narrator.step("somebody opens the web UI", || {
        let started = Watcher::start(play, command)?;
        let said = started.said.clone();
        watcher = Some(started);
        play.until("the watcher signed in", TO_SIGN_IN, |_| {
            let said = said.lock().unwrap_or_else(PoisonError::into_inner);
            let watching = said.iter().any(|line| line.contains(WATCHING));
            ensure!(watching, "it did not say `{WATCHING}`");
            Ok(())
        })?;
        // It still has to open the Unit's page.
        std::thread::sleep(Duration::from_secs(2));
        Ok("signed in and watching".into())
    })?;
    narrator.step("both services are deployed meanwhile", || {
        story::assign(play, &[WEB, COUNTER, "--label", "main"])?;
        Ok("active".into())
    })?;
    narrator.step("the watcher has seen all it wanted", || {
        let Some(mut watcher) = watcher.take() else {
            bail!("nobody watches")
        };
        let mut crashed = false;
        watcher.end_while(play, |play| talk(play, &mut crashed))?;
        Ok("it found nothing wrong".into())
    })
}

/// Has the web service write into its log, and end badly once: whoever reads logs shall find something.
fn talk(play: &Play<'_>, crashed: &mut bool) {
    for place in [Place::Main, Place::Secondary] {
        // It may be on the other Node, or on its way up again.
        if story::web(play, place).is_ok() && !*crashed {
            let _ = outside::http(play.stage.address(place), WEB_PORT, "/quit?code=3");
            *crashed = true;
        }
    }
}

impl Watcher {
    /// Starts the command and listens to it.
    pub(crate) fn start(play: &Play<'_>, line: &str) -> Result<Self> {
        let root = std::fs::read_to_string(cloud_data(play.stage).join("pki").join("root.pem"))
            .context("cannot read the root certificate")?;
        let mut command = Command::new("sh");
        command
            .args(["-c", line])
            .env("AOS_URL", play.cloud_url())
            .env("AOS_USER", &play.user.name)
            .env("AOS_PASSWORD", &play.user.password)
            .env("AOS_CA_PEM", root)
            .env("AOS_WATCH_UNIT", &play.unit)
            .env("AOS_WATCH_SERVICE", WEB)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .process_group(0);
        // A browser shall not be root because the demo has to be.
        if let (Some(user), Some(group)) = (number("SUDO_UID"), number("SUDO_GID")) {
            command.uid(user).gid(group);
        }
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start `{line}`"))?;
        let said = Arc::new(Mutex::new(Vec::new()));
        if let Some(output) = child.stdout.take() {
            let heard = said.clone();
            // Its owner is the watcher: it ends with its output.
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    println!("             | {line}");
                    heard
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(line);
                }
            });
        }
        Ok(Self { child, said })
    }
}

fn number(variable: &str) -> Option<u32> {
    std::env::var(variable).ok()?.parse().ok()
}
