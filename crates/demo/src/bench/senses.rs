//! What monitoring costs: processor time for fifty instances, and the uplink of a Unit that does nothing.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::{Figure, bundle, many, usage};
use crate::cast::{self, Part};
use crate::narrator::Narrator;
use crate::play::Play;
use crate::stage::{Place, network};
use crate::story::{self, WEB};

/// How many instances are measured.
const INSTANCES: usize = 50;
/// How long everything may take to come to rest.
const REST: Duration = Duration::from_secs(25);
/// How long processor time is watched: many passes of ten seconds.
const WATCH: Duration = Duration::from_secs(120);
/// How long the uplink is watched: usage that does not change is told each ten minutes, so this holds one such message.
const UPLINK: Duration = Duration::from_secs(600);
const DAY: f64 = 86_400.0;
/// The table of the counter.
const TABLE: &str = "aos_bench";

pub(super) fn tell(
    play: &mut Play<'_>,
    narrator: &mut Narrator,
    figures: &mut Vec<Figure>,
) -> Result<()> {
    narrator.step("the uplink of an idle Unit", || {
        sleep(REST);
        let counter = Counter::start(play)?;
        let begin = Instant::now();
        sleep(UPLINK);
        let sent = counter.read()? as f64;
        let a_day = sent * DAY / begin.elapsed().as_secs_f64() / 1000.0;
        figures.push(Figure::alone("uplink.idle", a_day, "KB"));
        Ok(format!(
            "{a_day:.0} KB a day, headers of IP and TCP included"
        ))
    })?;
    narrator.step("processor time of monitoring", || {
        story::publish_with(play, WEB, "2.0.0", bundle::many)?;
        many::deploy(play, INSTANCES)?;
        let with = processors(play)?;
        let file = cast::node_file(play.stage, Place::Main);
        let text = fs::read_to_string(&file).context("cannot read the Node's configuration")?;
        fs::write(&file, format!("{text}\n[sm.monitoring]\nperiod_secs = 0\n"))?;
        for part in [Part::MainSm, Part::MainCm] {
            play.cast.kill(part)?;
            play.cast.start(part)?;
        }
        let without = processors(play)?;
        fs::write(&file, text)?;
        let cost = (with - without).max(0.0);
        figures.push(Figure::alone(format!("monitor.cpu.{INSTANCES}"), cost, "%"));
        Ok(format!(
            "{with:.3} % of a core with it, {without:.3} % without"
        ))
    })
}

/// What IAM, CM, SM and keeper of the main Node take at rest, in percent of a core.
fn processors(play: &Play<'_>) -> Result<f64> {
    sleep(REST);
    let pids = usage::main(play)?;
    let (before, begin) = (usage::processor_seconds(&pids)?, Instant::now());
    sleep(WATCH);
    let spent = usage::processor_seconds(&pids)? - before;
    Ok(spent * 100.0 / begin.elapsed().as_secs_f64())
}

/// Counts what the main Node sends to the cloud.
struct Counter {
    namespace: String,
}

impl Counter {
    fn start(play: &Play<'_>) -> Result<Self> {
        let counter = Self {
            namespace: play.stage.namespace(Place::Main),
        };
        let cloud = play.stage.address(Place::Cloud).to_string();
        counter.nft(&["add", "table", "inet", TABLE])?;
        let chain = "{ type filter hook output priority 0 ; }";
        counter.nft(&["add", "chain", "inet", TABLE, "out", chain])?;
        counter.nft(&[
            "add", "rule", "inet", TABLE, "out", "ip", "daddr", &cloud, "counter",
        ])?;
        Ok(counter)
    }

    fn read(&self) -> Result<u64> {
        let text = self.nft(&["list", "chain", "inet", TABLE, "out"])?;
        let mut words = text.split_whitespace().skip_while(|word| *word != "bytes");
        let bytes = words.nth(1).context("the counter is not there")?;
        bytes.parse().context("the counter is no number")
    }

    fn nft(&self, words: &[&str]) -> Result<String> {
        let mut all = vec!["netns", "exec", self.namespace.as_str(), "nft"];
        all.extend(words);
        network::ip(&all)
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        let _ = self.nft(&["delete", "table", "inet", TABLE]);
    }
}
