//! A performance: stage up, story told, stage down.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::cast::{Cast, PEOPLE};
use crate::narrator::Narrator;
use crate::stage::{Place, Stage, network};
use crate::user::User;
use crate::waiting::wait_for;
use crate::{Options, Plot, audience, bench, crashes, renewal, senses, story, torture};

/// What the scenes of a story work with.
pub struct Play<'a> {
    /// Where it plays.
    pub stage: &'a Stage,
    /// Who plays.
    pub cast: Cast<'a>,
    /// The person.
    pub user: User,
    /// What is asked for.
    pub options: &'a Options,
    /// Set when the audience wants to go home.
    pub stop: &'a AtomicBool,
    /// The Unit's system id, once it joined.
    pub unit: String,
    /// By what anybody can tell the cloud, once a Unit was claimed.
    pub fingerprint: String,
}

impl Play<'_> {
    /// Where the cloud answers people.
    pub fn cloud_url(&self) -> String {
        format!("https://{}:{PEOPLE}", self.stage.address(Place::Cloud))
    }

    /// Looks until `look` finds what it wants; fails at once if a process ended by itself.
    pub fn until<T>(
        &mut self,
        what: &str,
        seconds: u64,
        mut look: impl FnMut(&Self) -> Result<T>,
    ) -> Result<T> {
        let stop = self.stop;
        let mut dead = None;
        let found = wait_for(what, Duration::from_secs(seconds), stop, || {
            if let Err(error) = self.cast.all_alive() {
                dead = Some(error);
                return Ok(None);
            }
            look(self).map(Some)
        })?;
        match (found, dead) {
            (Some(found), _) => Ok(found),
            (None, Some(error)) => Err(error.context(format!("{what} cannot happen any more"))),
            (None, None) => anyhow::bail!("{what} did not happen"),
        }
    }
}

/// Plays the whole demo. Blocks until it is over and cleared away.
pub fn play(options: &Options, stop: &AtomicBool) -> Result<()> {
    let mut narrator = Narrator::default();
    narrator
        .remark("Setting the stage: network namespaces for a cloud, a main and a secondary Node");
    let stage = Stage::build()?;
    let told = tell(&stage, options, stop, &mut narrator);
    if let Some(folder) = &options.keep_logs {
        keep_logs(&stage, folder)?;
        narrator.remark(&format!("The logs are in {}", folder.display()));
    }
    let cleared = stage.clear().context("the demo could not be taken down");
    if cleared.is_ok() {
        narrator
            .remark("All processes, namespaces, mounts, cgroups and files of the demo are gone, but for a lock in /run/aos-demo");
    }
    if options.check {
        narrator.remark(&format!("\n{}", narrator.table()));
        narrator.remark(&match &told {
            Ok(()) => format!("all well in {:.1} s", narrator.elapsed().as_secs_f64()),
            Err(_) => "the demo FAILED".to_owned(),
        });
    }
    told.and(cleared)
}

fn tell(
    stage: &Stage,
    options: &Options,
    stop: &AtomicBool,
    narrator: &mut Narrator,
) -> Result<()> {
    let cast = Cast::new(stage, &options.aos, &options.plot)?;
    let user = User::new(&options.aos, &stage.folder().join("home"))?;
    let mut play = Play {
        stage,
        cast,
        user,
        options,
        stop,
        unit: String::new(),
        fingerprint: String::new(),
    };
    match &options.plot {
        Plot::Loop => story::tell(&mut play, narrator)?,
        Plot::Crashes(when) => crashes::tell(&mut play, narrator, *when)?,
        Plot::Torture(dose) => torture::tell(&mut play, narrator, *dose)?,
        Plot::Renewal => renewal::tell(&mut play, narrator)?,
        Plot::Bench => bench::tell(&mut play, narrator)?,
        Plot::BenchSenses => bench::senses(&mut play, narrator)?,
        Plot::Senses(command) => senses::tell(&mut play, narrator, command)?,
        Plot::Audience(command) => audience::tell(&mut play, narrator, command)?,
    }
    if options.check || options.plot != Plot::Loop {
        return Ok(());
    }
    story::encore(&mut play, narrator)?;
    let (url, user) = (play.cloud_url(), &play.user);
    narrator.remark(&format!(
        "\nThe web UI is open:\n\n    {url}/\n\n    user {}, password {}\n\n\
         Its certificate is the demo's own, so the browser will ask. By the command line:\n\n    \
         {} login {url} --user {} --ca-fingerprint {}\n    \
         {} status --watch\n\n\
         Ctrl-C takes everything down.",
        user.name,
        user.password,
        play.cast.aos().display(),
        user.name,
        play.fingerprint,
        play.cast.aos().display(),
    ));
    while !stop.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_millis(200));
        play.cast.all_alive()?;
    }
    narrator.remark("Taking everything down");
    Ok(())
}

fn keep_logs(stage: &Stage, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for place in Place::ALL {
        fs::write(
            folder.join(format!("{}-network.txt", place.name())),
            network::describe(stage, place),
        )?;
    }
    for entry in fs::read_dir(stage.logs()).context("there are no logs")? {
        let entry = entry?;
        fs::copy(entry.path(), folder.join(entry.file_name()))
            .with_context(|| format!("cannot keep the log {}", entry.path().display()))?;
    }
    Ok(())
}
