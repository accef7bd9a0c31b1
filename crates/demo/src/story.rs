//! The story: from nothing to two services on a Unit of two Nodes, updated, scaled, placed, removed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use aos_api::{IssuedClaimCode, Node, OnlineStatus, Unit, UnitInstance, UnitSubjectService};

use crate::cast::{self, Cast, MODEL, Part, bootstrap_key, cloud_data, node_cgroup, node_folder};
use crate::narrator::Narrator;
use crate::outside::{self, Process};
use crate::play::Play;
use crate::stage::Place;

/// The service that answers HTTP, and the host port it publishes.
pub const WEB: &str = "hello";
/// The port of [`WEB`] on its Node.
pub const WEB_PORT: u16 = 8080;
/// The service that counts in its storage and its state.
pub const COUNTER: &str = "counter";
/// The file in which [`COUNTER`] counts.
const COUNT_FILE: &str = "count";

/// All scenes in order.
pub fn tell(play: &mut Play<'_>, narrator: &mut Narrator) -> Result<()> {
    prologue(play, narrator)?;
    publish(play, narrator)?;
    deploy(play, narrator)?;
    update(play, narrator)?;
    scale(play, narrator)?;
    place(play, narrator)?;
    remove(play, narrator)
}

/// Cloud, person, Unit: everything before the first service.
pub fn prologue(play: &mut Play<'_>, narrator: &mut Narrator) -> Result<()> {
    narrator.step("the cloud starts", || start_cloud(play))?;
    narrator.step("its owner signs in by the one-time link", || sign_in(play))?;
    narrator.step(
        "the owner makes a unit model with labels for each Node",
        || make_model(play),
    )?;
    narrator.step("main and secondary Node start", || start_nodes(play))?;
    narrator.step("the Unit joins with a claim code", || join(play))?;
    narrator.step("the Unit is online with both Nodes", || online(play))
}

fn start_cloud(play: &mut Play<'_>) -> Result<String> {
    play.cast.start(Part::Cloud)?;
    let link = cloud_data(play.stage).join("owner-link.txt");
    play.until("the owner link", 30, |_| {
        ensure!(link.is_file(), "{} is not there", link.display());
        Ok(())
    })?;
    let address = (play.stage.address(Place::Cloud), cast::PEOPLE);
    play.until("the cloud listening", 30, |_| {
        std::net::TcpStream::connect(address)
            .context("nobody listens")
            .map(|_| ())
    })?;
    Ok(format!("it listens on {}", play.cloud_url()))
}

fn sign_in(play: &mut Play<'_>) -> Result<String> {
    let data = cloud_data(play.stage);
    let url = play.cloud_url();
    play.user.with_password(&[
        "login",
        &url,
        "--user",
        &play.user.name,
        "--password-stdin",
        "--owner-link",
        path(&data.join("owner-link.txt"))?,
        "--ca",
        path(&data.join("pki").join("root.pem"))?,
    ])?;
    let me: aos_api::Me = play.user.json(&["whoami"])?;
    ensure!(
        me.signed_in_by == "certificate",
        "signed in by {}",
        me.signed_in_by
    );
    let used = play.user.with_password(&[
        "login",
        &url,
        "--user",
        "thief",
        "--password-stdin",
        "--owner-link",
        path(&data.join("owner-link.txt"))?,
    ]);
    ensure!(used.is_err(), "the owner link worked a second time");
    Ok(format!(
        "{} holds a certificate; the link is used up",
        me.username
    ))
}

fn make_model(play: &mut Play<'_>) -> Result<String> {
    let config = serde_json::json!({
        "formatVersion": "1",
        "version": "1.0.0",
        "nodes": [
            {"nodeType": "demo-main", "labels": ["main"], "priority": 100},
            {"nodeType": "demo-secondary", "labels": ["edge"], "priority": 50},
        ],
    });
    let file = play.stage.folder().join("unit-config.json");
    fs::write(&file, config.to_string())?;
    play.user
        .aos(&["model", "add", MODEL, "--config", path(&file)?])?;
    Ok(format!(
        "{MODEL}: label `main` on the main Node, `edge` on the secondary"
    ))
}

fn start_nodes(play: &mut Play<'_>) -> Result<String> {
    play.cast.start(Part::MainIam)?;
    let key = bootstrap_key(play.stage, Place::Main);
    play.until("the main Node's bootstrap key", 20, |_| {
        let text = fs::read_to_string(&key).with_context(|| format!("no {}", key.display()))?;
        ensure!(text.trim().len() == 64, "the key is not whole yet");
        Ok(())
    })?;
    cast::share_bootstrap_key(play.stage)?;
    for part in [
        Part::SecondaryIam,
        Part::MainCm,
        Part::MainSm,
        Part::SecondarySm,
    ] {
        play.cast.start(part)?;
    }
    Ok("main: IAM, CM, SM; secondary: IAM, SM; not a certificate among them yet".into())
}

fn join(play: &mut Play<'_>) -> Result<String> {
    let claim: IssuedClaimCode =
        play.user
            .json(&["unit", "claim", "--title", "Demo Unit", "--model", MODEL])?;
    play.fingerprint.clone_from(&claim.ca_fingerprint);
    let mut command = play.cast.inside(Place::Main);
    command
        .arg(play.cast.aos())
        .args(["unit", "join", "--cloud", &play.cloud_url()])
        .args(["--code", "-", "--ca-fingerprint", &claim.ca_fingerprint])
        .args([
            "--iam",
            &format!("{}:8089", play.stage.address(Place::Main)),
        ])
        .arg("--bootstrap-key")
        .arg(bootstrap_key(play.stage, Place::Main))
        .args(["--nodes", "2"]);
    play.user.finish(command, Some(&claim.code))?;
    let units: Vec<Unit> = play.user.json(&["unit", "ls"])?;
    let [unit] = units.as_slice() else {
        bail!("the cloud knows {} Units, not 1", units.len())
    };
    play.unit.clone_from(&unit.system_uid);
    Ok(format!(
        "{} has its certificates from the cloud",
        unit.system_uid
    ))
}

fn online(play: &mut Play<'_>) -> Result<String> {
    let nodes = play.until("the Unit online with both Nodes", 20, |play| {
        let unit: Unit = play.user.json(&["unit", "show", &play.unit])?;
        ensure!(
            unit.online_status == OnlineStatus::Online,
            "it is {:?}",
            unit.online_status
        );
        let nodes: Vec<Node> = play.user.json(&["unit", "nodes", &play.unit])?;
        let connected = nodes.iter().filter(|node| node.is_connected).count();
        ensure!(connected == 2, "{connected} of 2 Nodes are connected");
        ensure!(
            nodes
                .iter()
                .all(|node| !node.runtimes.is_empty() && !node.labels.is_empty()),
            "runtimes or labels are missing"
        );
        Ok(nodes)
    })?;
    let names: Vec<_> = nodes
        .iter()
        .map(|node| {
            format!(
                "{} ({}; {})",
                node.node_id,
                node.runtimes.len(),
                node.labels.join(", ")
            )
        })
        .collect();
    Ok(names.join(", "))
}

/// Both example bundles, signed and published.
pub fn publish(play: &mut Play<'_>, narrator: &mut Narrator) -> Result<()> {
    for service in [WEB, COUNTER] {
        narrator.step(
            &format!("bundle `{service}` is signed and published"),
            || push(play, service, "1.0.0"),
        )?;
    }
    Ok(())
}

/// Copies an example, gives it a version, signs and publishes it.
fn push(play: &Play<'_>, service: &str, version: &str) -> Result<String> {
    publish_with(play, service, version, str::to_owned)
}

/// Like the stories' own publishing, with the bundle's `config.yaml` changed by `change` before it is signed.
pub fn publish_with(
    play: &Play<'_>,
    service: &str,
    version: &str,
    change: impl FnOnce(&str) -> String,
) -> Result<String> {
    let folder = play
        .stage
        .folder()
        .join("bundles")
        .join(format!("{service}-{version}"));
    copy_tree(&play.options.examples.join(service), &folder)?;
    // The version of the item, and the variable by which the service says it.
    let config = folder.join("config.yaml");
    edit(&config, "1.0.0", version)?;
    let text = fs::read_to_string(&config)?;
    fs::write(&config, change(&text))?;
    let signed = folder.with_extension("tar.gz");
    play.user.aos(&["bundle", "check", path(&folder)?])?;
    play.user
        .aos(&["bundle", "sign", path(&folder)?, "--output", path(&signed)?])?;
    play.user
        .aos(&["bundle", "push", path(&signed)?, "--wait"])?;
    let versions: Vec<aos_api::ServiceVersion> = play.user.json(&["service", "ls", service])?;
    let made = versions
        .iter()
        .find(|made| made.version == version)
        .with_context(|| format!("the cloud has no version {version} of {service}"))?;
    Ok(format!(
        "version {version}, {} KiB, {}",
        made.size / 1024,
        made.platforms.join(", ")
    ))
}

/// First deployment of both services on the main Node.
pub fn deploy(play: &mut Play<'_>, narrator: &mut Narrator) -> Result<()> {
    narrator.step("both services are assigned and go active", || {
        assign(play, &[WEB, COUNTER, "--label", "main"])?;
        let web = instances(play, WEB)?;
        let counter = instances(play, COUNTER)?;
        ensure!(nodes(&web) == ["main"], "{WEB} runs on {:?}", nodes(&web));
        ensure!(
            nodes(&counter) == ["main"],
            "{COUNTER} runs on {:?}",
            nodes(&counter)
        );
        let processes = processes(play, Place::Main);
        ensure!(
            processes.len() >= 2,
            "only {} processes run",
            processes.len()
        );
        Ok(format!(
            "{} processes in the Node's cgroup",
            processes.len()
        ))
    })?;
    narrator.step("the HTTP service answers the host", || {
        let answer = play.until("an answer", 10, |play| web(play, Place::Main))?;
        ensure!(
            answer.contains("1.0.0"),
            "it does not say its version: {}",
            answer
        );
        Ok(format!(
            "http://{}:{WEB_PORT}/ says: {}",
            play.stage.address(Place::Main),
            answer
        ))
    })?;
    narrator.step("the counter counts in its storage and its state", || {
        let first = count(play, Place::Main)?;
        let second = play.until("a higher count", 15, |play| {
            let now = count(play, Place::Main)?;
            ensure!(now > first, "it is still {first}");
            Ok(now)
        })?;
        Ok(format!(
            "from {first} to {second}, read from the Node's disk"
        ))
    })
}

/// A new version takes the place of the old one.
pub fn update(play: &mut Play<'_>, narrator: &mut Narrator) -> Result<()> {
    let before = processes(play, Place::Main);
    narrator.step(
        "version 1.1.0 of the HTTP service is published and rolled out",
        || {
            push(play, WEB, "1.1.0")?;
            assign(play, &[WEB, "--label", "main"])?;
            let answer = play.until("the new version's answer", 10, |play| {
                let answer = web(play, Place::Main)?;
                ensure!(answer.contains("1.1.0"), "it says: {}", answer);
                Ok(answer)
            })?;
            let after = processes(play, Place::Main);
            let kept = before.intersection(&after).count();
            ensure!(
                kept >= 1,
                "the counter was restarted though nothing changed for it"
            );
            Ok(format!(
                "it says: {}; {kept} other process(es) were not touched",
                answer
            ))
        },
    )
}

/// More instances of one service.
pub fn scale(play: &mut Play<'_>, narrator: &mut Narrator) -> Result<()> {
    narrator.step("the counter is scaled to 2 instances", || {
        let before = processes(play, Place::Main);
        assign(play, &[COUNTER, "--instances", "2", "--label", "main"])?;
        let active = instances(play, COUNTER)?;
        ensure!(
            active.len() == 2,
            "{} instances are active, not 2",
            active.len()
        );
        let after = processes(play, Place::Main);
        ensure!(after.len() > before.len(), "no process was added");
        ensure!(before.is_subset(&after), "running instances were restarted");
        Ok(format!(
            "{} processes became {}, none was restarted",
            before.len(),
            after.len()
        ))
    })
}

/// A service moves to the Node that has a label.
pub fn place(play: &mut Play<'_>, narrator: &mut Narrator) -> Result<()> {
    narrator.step(
        "by its label the HTTP service moves to the secondary Node",
        || {
            assign(play, &[WEB, "--label", "edge"])?;
            let placed = instances(play, WEB)?;
            ensure!(
                nodes(&placed) == ["secondary"],
                "it runs on {:?}",
                nodes(&placed)
            );
            let secondary = play.stage.address(Place::Secondary);
            let answer = play.until("an answer", 10, |play| web(play, Place::Secondary))?;
            ensure!(
                web(play, Place::Main).is_err(),
                "it still answers on the main Node"
            );
            Ok(format!("http://{secondary}:{WEB_PORT}/ says: {}", answer))
        },
    )
}

/// Everything is taken away again.
pub fn remove(play: &mut Play<'_>, narrator: &mut Narrator) -> Result<()> {
    narrator.step("both services are unassigned and removed", || {
        play.user.aos(&[
            "unassign",
            WEB,
            COUNTER,
            "--unit",
            &play.unit,
            "--wait",
            "--timeout",
            "60",
        ])?;
        play.until("the last process gone", 20, |play| {
            let left: usize = Place::ALL
                .iter()
                .map(|place| processes(play, *place).len())
                .sum();
            ensure!(left == 0, "{left} process(es) are left");
            Ok(())
        })?;
        for place in [Place::Main, Place::Secondary] {
            ensure!(
                web(play, place).is_err(),
                "the {} Node still answers",
                place.name()
            );
        }
        Ok("no process, no answer, nothing installed".into())
    })
}

/// For an audience that stays: both services once more, so that there is something to see.
pub fn encore(play: &mut Play<'_>, narrator: &mut Narrator) -> Result<()> {
    narrator.step("both services once more, for you to look at", || {
        assign(play, &[WEB, "--label", "edge"])?;
        assign(play, &[COUNTER, "--instances", "2", "--label", "main"])?;
        let address = play.stage.address(Place::Secondary);
        Ok(format!("try http://{address}:{WEB_PORT}/"))
    })
}

/// `aos assign … --wait` for the demo's Unit.
pub fn assign(play: &Play<'_>, what: &[&str]) -> Result<()> {
    let mut arguments = what.to_vec();
    arguments.extend(["--wait", "--timeout", "60"]);
    order(play, &arguments)
}

/// `aos assign …` for the demo's Unit, without waiting for what becomes of it.
pub fn order(play: &Play<'_>, what: &[&str]) -> Result<()> {
    let mut arguments = vec!["assign"];
    arguments.extend(what);
    arguments.extend(["--unit", &play.unit]);
    play.user.aos(&arguments).map(|_| ())
}

/// The active instances of a service, as the cloud knows them: the Node of each.
pub fn instances(play: &Play<'_>, service: &str) -> Result<Vec<String>> {
    let active = active(play, service)?;
    Ok(active.into_iter().map(|one| one.node_id).collect())
}

/// The same, with all that the cloud knows of each.
pub fn active(play: &Play<'_>, service: &str) -> Result<Vec<UnitInstance>> {
    #[derive(serde::Deserialize)]
    struct Row {
        services: Vec<UnitSubjectService>,
    }
    let rows: Vec<Row> = play.user.json(&["status", &play.unit])?;
    Ok(rows
        .into_iter()
        .flat_map(|row| row.services)
        .filter(|row| row.service.codename == service)
        .flat_map(|row| row.instances)
        .filter(|instance| instance.run_state == "active")
        .collect())
}

fn nodes(instances: &[String]) -> Vec<&str> {
    let mut nodes: Vec<_> = instances.iter().map(String::as_str).collect();
    nodes.dedup();
    nodes
}

/// The processes of all instances of a Node.
pub fn processes(play: &Play<'_>, place: Place) -> BTreeSet<Process> {
    outside::instance_processes(&node_cgroup(play.stage, place))
        .into_iter()
        .collect()
}

/// What the HTTP service of a Node answers to the host: instance and version.
pub fn web(play: &Play<'_>, place: Place) -> Result<String> {
    #[derive(serde::Deserialize)]
    struct Answer {
        instance: String,
        version: String,
    }
    let text = outside::http(play.stage.address(place), WEB_PORT, "/json")?;
    let answer: Answer = serde_json::from_str(&text).context("the answer is not its JSON")?;
    Ok(format!(
        "instance {}, version {}",
        answer.instance, answer.version
    ))
}

/// The files to which counters of a Node count: what each is called, and where it is seen. Storages may lie on a file system
/// that only SM and the keeper have mounted, so it is looked through their eyes.
pub fn count_files(play: &Play<'_>, place: Place) -> Vec<(PathBuf, PathBuf)> {
    let part = match place {
        Place::Secondary => Part::SecondarySm,
        _ => Part::MainSm,
    };
    let node = node_folder(play.stage, place);
    let folders = [node.join("storage"), node.join("sm").join("kept")];
    let pids = play.cast.pid(part).into_iter();
    let pids = pids.chain(Cast::keepers(play.stage, place));
    let roots = pids.map(|pid| PathBuf::from(format!("/proc/{pid}/root")));
    for root in roots.chain([PathBuf::from("/")]) {
        let mut found = Vec::new();
        for folder in &folders {
            let seen = root.join(folder.strip_prefix("/").unwrap_or(folder));
            for file in outside::find_files(&seen, COUNT_FILE) {
                let name = file.strip_prefix(&root).unwrap_or(&file).to_path_buf();
                found.push((name, file));
            }
        }
        if !found.is_empty() {
            return found;
        }
    }
    Vec::new()
}

/// What the counter has counted to, read from the Node's disk.
pub fn count(play: &Play<'_>, place: Place) -> Result<u64> {
    let files = count_files(play, place);
    let (_, file) = files.first().with_context(|| {
        format!(
            "no `{COUNT_FILE}` in a storage of the {} Node",
            place.name()
        )
    })?;
    let text = fs::read_to_string(file)?;
    text.trim()
        .parse()
        .with_context(|| format!("{} holds `{}`", file.display(), text.trim()))
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

fn edit(file: &PathBuf, old: &str, new: &str) -> Result<()> {
    let text =
        fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    ensure!(
        text.contains(old),
        "{} does not hold `{old}`",
        file.display()
    );
    fs::write(file, text.replace(old, new))?;
    Ok(())
}

fn path(path: &Path) -> Result<&str> {
    path.to_str()
        .with_context(|| format!("{} is not UTF-8", path.display()))
}
