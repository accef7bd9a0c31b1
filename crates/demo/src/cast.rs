//! The cast: which processes play, how each is started, killed and started again.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::stage::{Place, Stage};
use crate::{Plot, senses};

/// Port of the cloud for people.
pub const PEOPLE: u16 = 10000;
/// Port of the cloud for Units.
const UNITS: u16 = 9000;
/// The unit model of the demo's Unit.
pub const MODEL: &str = "aos-demo;1.0.0";

/// One process of the play.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// AosCloud.
    Cloud,
    /// IAM of the main Node.
    MainIam,
    /// CM of the main Node.
    MainCm,
    /// SM of the main Node.
    MainSm,
    /// IAM of the secondary Node.
    SecondaryIam,
    /// SM of the secondary Node.
    SecondarySm,
}

impl Part {
    /// Where it runs.
    pub fn place(self) -> Place {
        match self {
            Self::Cloud => Place::Cloud,
            Self::MainIam | Self::MainCm | Self::MainSm => Place::Main,
            Self::SecondaryIam | Self::SecondarySm => Place::Secondary,
        }
    }

    /// Its name in logs and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cloud => "cloud",
            Self::MainIam => "main-iam",
            Self::MainCm => "main-cm",
            Self::MainSm => "main-sm",
            Self::SecondaryIam => "secondary-iam",
            Self::SecondarySm => "secondary-sm",
        }
    }

    /// The command of `aos` that runs it.
    fn component(self) -> &'static str {
        match self {
            Self::Cloud => "cloud",
            Self::MainIam | Self::SecondaryIam => "iam",
            Self::MainCm => "cm",
            Self::MainSm | Self::SecondarySm => "sm",
        }
    }
}

/// The processes that run.
pub struct Cast<'a> {
    stage: &'a Stage,
    aos: PathBuf,
    running: BTreeMap<Part, Child>,
}

impl<'a> Cast<'a> {
    /// Nobody plays yet. Writes the configuration files of both Nodes.
    pub fn new(stage: &'a Stage, aos: &Path, plot: &Plot) -> Result<Self> {
        for place in [Place::Main, Place::Secondary] {
            let path = node_file(stage, place);
            let mut text = node_configuration(stage, place);
            text.push_str(&further_configuration(place, plot));
            write_private(&path, &text)?;
        }
        Ok(Self {
            stage,
            aos: aos.to_path_buf(),
            running: BTreeMap::new(),
        })
    }

    /// Starts a process in its network namespace. Its pid is that of the program itself.
    pub fn start(&mut self, part: Part) -> Result<()> {
        let mut command = self.inside(part.place());
        command.arg(&self.aos).arg(part.component());
        if part == Part::Cloud {
            let address = self.stage.address(Place::Cloud);
            command
                .arg("serve")
                .arg("--data")
                .arg(cloud_data(self.stage))
                .args(["--people", &format!("{address}:{PEOPLE}")])
                .args(["--units", &format!("{address}:{UNITS}")])
                .args(["--host", &address.to_string()]);
        } else {
            command
                .args(["run", "--config"])
                .arg(node_file(self.stage, part.place()));
        }
        let path = self.log(part);
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("cannot open the log {}", path.display()))?;
        let child = command
            .env_remove("AOS_HOME")
            .env(
                "AOS_LOG",
                std::env::var("AOS_LOG").unwrap_or_else(|_| "info".to_owned()),
            )
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C is for the demo alone: it takes the cast down in order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", part.name()))?;
        self.running.insert(part, child);
        Ok(())
    }

    /// SIGKILL, and nothing else: what is left behind is left behind.
    pub fn kill(&mut self, part: Part) -> Result<()> {
        let mut child = self
            .running
            .remove(&part)
            .with_context(|| format!("{} does not run", part.name()))?;
        child
            .kill()
            .with_context(|| format!("cannot kill {}", part.name()))?;
        child
            .wait()
            .with_context(|| format!("{} does not die", part.name()))?;
        Ok(())
    }

    /// Fails if a process ended by itself, with the end of its log.
    pub fn all_alive(&mut self) -> Result<()> {
        let mut ended = None;
        for (part, child) in &mut self.running {
            if let Some(status) = child.try_wait()? {
                ended = Some((*part, status));
            }
        }
        let Some((part, status)) = ended else {
            return Ok(());
        };
        let log = fs::read_to_string(self.log(part)).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        let last = lines
            .get(lines.len().saturating_sub(5)..)
            .unwrap_or_default()
            .join("\n  ");
        bail!(
            "{} ended by itself ({status}); its last words:\n  {last}",
            part.name()
        );
    }

    /// The process number of a part that runs.
    pub fn pid(&self, part: Part) -> Option<i32> {
        i32::try_from(self.running.get(&part)?.id()).ok()
    }

    /// The keepers of a place: nobody here started them, so they are told by their socket.
    pub fn keepers(stage: &Stage, place: Place) -> Vec<i32> {
        let socket = stage.run_folder().join(place.name()).join("keeper.sock");
        let socket = socket.display().to_string();
        let Ok(entries) = fs::read_dir("/proc") else {
            return Vec::new();
        };
        entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid| {
                let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                let arguments: Vec<_> = command.split(|byte| *byte == 0).collect();
                arguments.contains(&b"keeper".as_slice()) && arguments.contains(&socket.as_bytes())
            })
            .collect()
    }

    /// A command that runs in the network namespace of a place.
    pub fn inside(&self, place: Place) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/run/netns/{}", self.stage.namespace(place)))
            .arg("--");
        command
    }

    /// The program that plays.
    pub fn aos(&self) -> &Path {
        &self.aos
    }

    fn log(&self, part: Part) -> PathBuf {
        self.stage.logs().join(format!("{}.log", part.name()))
    }
}

impl Drop for Cast<'_> {
    fn drop(&mut self) {
        for child in self.running.values_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What some stories need besides: who waits for an alert shall not wait long, and who measures may measure without.
fn further_configuration(place: Place, plot: &Plot) -> String {
    let (sm, cm) = match plot {
        Plot::Senses(_) => (senses::FAST_SM, senses::FAST_CM),
        _ => ("", ""),
    };
    match place {
        Place::Main => format!("{sm}{cm}"),
        _ => sm.to_owned(),
    }
}

/// The cloud's data folder.
pub fn cloud_data(stage: &Stage) -> PathBuf {
    stage.folder().join(Place::Cloud.name()).join("data")
}

/// The configuration file of a Node.
pub fn node_file(stage: &Stage, place: Place) -> PathBuf {
    stage.folder().join(place.name()).join("node.toml")
}

/// The folder of a Node.
pub fn node_folder(stage: &Stage, place: Place) -> PathBuf {
    stage.folder().join(place.name())
}

/// The pre-shared key by which unprovisioned Nodes know each other.
pub fn bootstrap_key(stage: &Stage, place: Place) -> PathBuf {
    node_folder(stage, place).join("iam").join("bootstrap.key")
}

/// The cgroup above the instances of a Node.
pub fn node_cgroup(stage: &Stage, place: Place) -> String {
    format!("{}/{}", stage.cgroup(), place.name())
}

/// Gives the secondary Node the main Node's key, as an operator would.
pub fn share_bootstrap_key(stage: &Stage) -> Result<()> {
    let from = bootstrap_key(stage, Place::Main);
    let key = fs::read_to_string(&from)
        .with_context(|| format!("cannot read the bootstrap key {}", from.display()))?;
    let to = bootstrap_key(stage, Place::Secondary);
    if let Some(folder) = to.parent() {
        fs::DirBuilder::new().recursive(true).create(folder)?;
    }
    write_private(&to, &key)
}

fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::io::Write as _;
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    file.write_all(text.as_bytes())
        .with_context(|| format!("cannot write {}", path.display()))
}

/// `node.toml`: what a Node's components are told. `docs/operations.md` explains each line.
fn node_configuration(stage: &Stage, place: Place) -> String {
    let folder = node_folder(stage, place);
    let folder = folder.display();
    let run = stage.run_folder().join(place.name());
    let run = run.display();
    let main = stage.address(Place::Main);
    let here = stage.address(place);
    let number = stage.number();
    let letter = if place == Place::Main { "m" } else { "s" };
    let name = place.name();
    let cgroup = node_cgroup(stage, place);

    let identity = if place == Place::Main {
        format!("system_id = \"aos-demo-{number}\"\nunit_model = \"{MODEL}\"\n")
    } else {
        format!("main_iam = {{ public = \"{main}:8090\", protected = \"{main}:8089\" }}\n")
    };
    let cm = if place == Place::Main {
        format!(
            "\n[cm]\n\
             state_dir = \"{folder}/cm\"\n\
             ca_cert = \"{folder}/iam/ca.pem\"\n\
             iam_public = \"{here}:8090\"\n\
             iam_protected = \"{here}:8089\"\n\
             listen = \"{here}:8093\"\n\
             local_socket = \"{folder}/cm.sock\"\n\
             blob_listen = \"{here}:8094\"\n\
             blob_url = \"https://{here}:8094\"\n"
        )
    } else {
        String::new()
    };
    format!(
        "# The {name} Node of the demo.\n\n\
         [iam]\n\
         state_dir = \"{folder}/iam\"\n\
         public_listen = \"{here}:8090\"\n\
         protected_listen = \"{here}:8089\"\n\
         {identity}\
         node = {{ id = \"{name}\", type = \"demo-{name}\", title = \"The {name} Node\", main = {is_main} }}\n\
         {cm}\n\
         [sm]\n\
         state_dir = \"{folder}/sm\"\n\
         runtime_dir = \"{run}\"\n\
         ca_cert = \"{folder}/iam/ca.pem\"\n\
         iam_public = \"{here}:8090\"\n\
         iam_protected = \"{here}:8089\"\n\
         cm = \"{main}:8093\"\n\
         storage_dir = \"{folder}/storage\"\n\
         states_dir = \"{folder}/states\"\n\
         cgroup_parent = \"{cgroup}\"\n\
         crun_root = \"{run}/crun\"\n\
         netns_dir = \"{run}/netns\"\n\
         interface_prefix = \"d{number}{letter}\"\n\
         keeper_socket = \"{run}/keeper.sock\"\n",
        is_main = place == Place::Main,
    )
}
