//! What is looked at, from outside, once the Unit had time to come to rest.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

use super::wish::Wish;
use crate::cast::node_folder;
use crate::outside::{Process, count_by_command};
use crate::play::Play;
use crate::stage::{Place, network, power};
use crate::story::{self, COUNTER, WEB};

/// The Nodes of the Unit.
pub const NODES: [Place; 2] = [Place::Main, Place::Secondary];

/// What was seen of the Unit at rest.
#[derive(Debug, Clone, Default)]
pub struct Sight {
    /// The services' processes of each Node.
    pub processes: BTreeMap<Place, BTreeSet<Process>>,
    /// What each counter has counted to, by file.
    pub counts: BTreeMap<PathBuf, u64>,
}

impl Sight {
    /// Looks at the Unit now.
    pub fn take(play: &Play<'_>) -> Self {
        let processes = NODES.map(|place| (place, story::processes(play, place)));
        let files = NODES
            .into_iter()
            .flat_map(|place| story::count_files(play, place));
        let counts = files.filter_map(|(name, file)| {
            let text = fs::read_to_string(&file).ok()?;
            Some((name, text.trim().parse().ok()?))
        });
        Self {
            processes: processes.into(),
            counts: counts.collect(),
        }
    }

    /// The processes of one service on all Nodes.
    pub fn of(&self, service: &str) -> BTreeSet<Process> {
        let all = self.processes.values().flatten();
        all.filter(|process| process.command.contains(service))
            .cloned()
            .collect()
    }

    fn count(&self, place: Place, service: &str) -> usize {
        let processes = self.processes.get(&place).into_iter().flatten();
        processes
            .filter(|process| process.command.contains(service))
            .count()
    }
}

/// Fails while what runs is not exactly this wish.
pub fn runs(play: &Play<'_>, wish: &Wish) -> Result<()> {
    let sight = Sight::take(play);
    for place in NODES {
        let web = usize::from(wish.web == Some(place));
        let counters = if wish.counters.1 == place {
            wish.counters.0
        } else {
            0
        };
        let name = place.name();
        for (service, wanted) in [(WEB, web), (COUNTER, counters)] {
            let there = sight.count(place, service);
            ensure!(
                there == wanted,
                "{there} processes of `{service}` on the {name} Node, not {wanted}"
            );
        }
        let processes: Vec<_> = sight
            .processes
            .get(&place)
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        ensure!(
            processes.len() == web + counters,
            "foreign processes on the {name} Node: {:?}",
            count_by_command(&processes)
        );
        nothing_left(play, place, web + counters)?;
    }
    if let Some(place) = wish.web {
        let answer = story::web(play, place)?;
        let version = Wish::version_text(wish.version);
        ensure!(
            answer.ends_with(&format!("version {version}")),
            "`{WEB}` says: {answer}, not version {version}"
        );
    }
    addresses_differ(play)
}

/// Fails unless the cloud knows what runs.
pub fn reported(play: &Play<'_>, wish: &Wish) -> Result<()> {
    let web = story::instances(play, WEB)?.len();
    let counters = story::instances(play, COUNTER)?.len();
    ensure!(
        web == usize::from(wish.web.is_some()) && counters == wish.counters.0,
        "the cloud knows of {web} `{WEB}` and {counters} `{COUNTER}`"
    );
    Ok(())
}

/// Fails while the Unit has an update in hand: only what is committed is what a failed update goes back to. The cloud
/// sees what runs, and not that.
pub fn committed(play: &Play<'_>) -> Result<()> {
    let main = play.stage.address(Place::Main);
    let mut command = play.cast.inside(Place::Main);
    command
        .arg(play.cast.aos())
        .args(["update", "status", "--json"])
        .args(["--cm", &format!("{main}:8093")])
        .args(["--iam", &format!("{main}:8090")])
        .arg("--ca")
        .arg(node_folder(play.stage, Place::Main).join("iam/ca.pem"));
    let text = play.user.finish(command, None)?;
    let parts: Vec<serde_json::Value> =
        serde_json::from_str(&text).context("`aos update status` did not print JSON")?;
    for part in parts {
        ensure!(part["state"] == "none", "an update is in hand: {part}");
    }
    Ok(())
}

/// Fails unless a person can read why `wish` was not reached.
pub fn explained(play: &Play<'_>) -> Result<()> {
    let text = play.user.aos(&["unit", "show", &play.unit])?;
    ensure!(
        text.contains("exit code"),
        "`aos unit show` does not say why: {text}"
    );
    Ok(())
}

/// Nothing counted may fall, whatever was killed.
pub fn nothing_lost(before: &Sight, now: &Sight) -> Result<()> {
    ensure!(
        before.of(COUNTER).is_empty() || !before.counts.is_empty(),
        "a `{COUNTER}` runs and what it counts cannot be found, so nobody knows whether it is lost"
    );
    for (file, count) in &before.counts {
        if let Some(later) = now.counts.get(file) {
            ensure!(
                later >= count,
                "{} fell from {count} to {later}",
                file.display()
            );
        }
    }
    Ok(())
}

/// A network namespace and an interface for each instance, and no more.
fn nothing_left(play: &Play<'_>, place: Place, instances: usize) -> Result<()> {
    let folder = play.stage.run_folder().join(place.name());
    let name = place.name();
    let namespaces = network::instance_addresses(play.stage, place).len();
    ensure!(
        namespaces == instances,
        "{namespaces} network namespaces on the {name} Node for {instances} instances"
    );
    let table = fs::read_to_string("/proc/self/mountinfo").context("cannot read the mounts")?;
    let folder = folder.display().to_string();
    let roots = table
        .lines()
        .filter(|line| line.contains(&folder) && line.contains(" - overlay "))
        .count();
    ensure!(
        roots == instances,
        "{roots} root file systems are mounted on the {name} Node for {instances} instances"
    );
    // A bridge an owner and its way to the other Node, one leg an instance.
    let links = power::links(play.stage, place).len();
    ensure!(
        links <= instances + 2,
        "{links} interfaces on the {name} Node for {instances} instances"
    );
    Ok(())
}

fn addresses_differ(play: &Play<'_>) -> Result<()> {
    let mut seen = BTreeMap::new();
    for place in NODES {
        for (instance, address) in network::instance_addresses(play.stage, place) {
            if let Some(other) = seen.insert(address.clone(), instance.clone()) {
                anyhow::bail!("{instance} and {other} both have the address {address}");
            }
        }
    }
    Ok(())
}
