//! The stage: a free number, folders, network namespaces and a cgroup of the run's own.
//!
//! Everything a run makes carries its number: interfaces `aosd<n>…`, namespaces `aosd<n>-…`,
//! addresses `10.91.<n>.…`, folders `/var/lib/aos-demo/<n>` and `/run/aos-demo/<n>`, cgroups
//! `/aos-demo-<n>`. So two runs do not meet, and what a crashed run left is found and removed by the
//! next one that gets its number.

mod clear;
pub(crate) mod network;
pub(crate) mod power;

use std::fs::{DirBuilder, File, OpenOptions};
use std::net::Ipv4Addr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use nix::fcntl::{Flock, FlockArg};

/// How many demos can run at the same time.
const RUNS: u8 = 20;

/// A place where processes run: a network namespace with one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// Where the cloud runs.
    Cloud,
    /// The main Node.
    Main,
    /// The secondary Node.
    Secondary,
}

impl Place {
    /// All places.
    pub const ALL: [Self; 3] = [Self::Cloud, Self::Main, Self::Secondary];

    /// Its name in namespaces, folders and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cloud => "cloud",
            Self::Main => "main",
            Self::Secondary => "secondary",
        }
    }

    fn host(self) -> u8 {
        match self {
            Self::Cloud => 10,
            Self::Main => 11,
            Self::Secondary => 12,
        }
    }
}

/// The stage of one run. Dropping it leaves everything as it is: [`Stage::clear`] takes it down.
#[derive(Debug)]
pub struct Stage {
    number: u8,
    // Held as long as the run lives: whoever gets it may clear what it finds.
    _lock: Flock<File>,
}

/// What this machine lacks for the demo, as a sentence.
pub fn missing() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some(
            "the demo makes network namespaces and containers, which needs root: \
             run `sudo aos demo`, or `cargo xtask demo`, which does that for you"
                .to_owned(),
        );
    }
    for (program, package) in [
        ("ip", "iproute2"),
        ("nft", "nftables"),
        ("crun", "crun"),
        ("nsenter", "util-linux"),
    ] {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let there = std::env::split_paths(&path)
            .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")])
            .any(|folder| folder.join(program).is_file());
        if !there {
            return Some(format!(
                "`{program}` is not installed: run `apt-get install {package}`, \
                 or `cargo xtask setup`, which installs all that is missing"
            ));
        }
    }
    None
}

impl Stage {
    /// Takes the first free number, clears what a crashed run left under it, and builds anew.
    pub fn build() -> Result<Self> {
        let base = PathBuf::from("/run/aos-demo");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&base)
            .with_context(|| format!("cannot make {}", base.display()))?;
        for number in 0..RUNS {
            let path = base.join(format!("{number}.lock"));
            let file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .mode(0o600)
                .open(&path)
                .with_context(|| format!("cannot open {}", path.display()))?;
            let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else {
                continue;
            };
            let stage = Self {
                number,
                _lock: lock,
            };
            stage
                .clear()
                .context("what an earlier run left cannot be removed")?;
            stage.make_folders()?;
            network::build(&stage).context("the demo's network cannot be made")?;
            return Ok(stage);
        }
        bail!("{RUNS} demos run on this machine already: stop one of them")
    }

    /// The number of the run.
    pub fn number(&self) -> u8 {
        self.number
    }

    /// What interfaces and namespaces of this run begin with.
    pub fn prefix(&self) -> String {
        format!("aosd{}", self.number)
    }

    /// The network namespace of a place.
    pub fn namespace(&self, place: Place) -> String {
        format!("{}-{}", self.prefix(), place.name())
    }

    /// The address of a place.
    pub fn address(&self, place: Place) -> Ipv4Addr {
        Ipv4Addr::new(10, 91, self.number, place.host())
    }

    /// The host's own address in the run's network.
    pub fn host_address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 91, self.number, 1)
    }

    /// Where the run keeps its files.
    pub fn folder(&self) -> PathBuf {
        PathBuf::from("/var/lib/aos-demo").join(self.number.to_string())
    }

    /// Where the run keeps what does not outlive a reboot.
    pub fn run_folder(&self) -> PathBuf {
        PathBuf::from("/run/aos-demo").join(self.number.to_string())
    }

    /// Where the logs of its processes are.
    pub fn logs(&self) -> PathBuf {
        self.folder().join("logs")
    }

    /// The cgroup above all instances of the run.
    pub fn cgroup(&self) -> String {
        format!("/aos-demo-{}", self.number)
    }

    /// Ends every process of the run and removes everything it made.
    pub fn clear(&self) -> Result<()> {
        clear::clear(self)
    }

    fn make_folders(&self) -> Result<()> {
        let mut folders = vec![self.folder(), self.run_folder(), self.logs()];
        folders.push(self.folder().join("home"));
        folders.extend(Place::ALL.map(|place| self.folder().join(place.name())));
        folders.extend(Place::ALL.map(|place| self.run_folder().join(place.name())));
        for folder in folders {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        Ok(())
    }
}
