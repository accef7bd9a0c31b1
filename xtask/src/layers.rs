//! The rule of the house: folders are layers, and a crate uses only the layers above its own row.
//!
//! The rows and the few exceptions inside one are those of `docs/architecture.md`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::process::{cargo, output};

/// The layers from the first row to the last.
const ROWS: &[&str] = &["base", "core", "sim", "io", "edge", "cloud", "demo", "aos"];

/// Inside a layer a crate (left) may use these (right), and nothing else.
const WITHIN: &[(&str, &str, &[&str])] = &[
    ("base", "types", &["time"]),
    ("base", "cloud-protocol", &["types", "time"]),
    ("base", "api", &["types", "time"]),
    ("io", "ipc", &["pki"]),
    ("io", "image", &["pki", "store"]),
    ("io", "runtime", &["cgroup"]),
    ("io", "telemetry", &["cgroup"]),
    (
        "cloud",
        "server",
        &["bundle", "db", "gateway", "api-server", "jobs"],
    ),
    ("cloud", "gateway", &["bundle", "db"]),
    ("cloud", "api-server", &["bundle", "db"]),
    ("cloud", "jobs", &["bundle", "db"]),
    ("cloud", "bundle", &["db"]),
    ("cloud", "db", &["bundle"]),
];

/// Crates of others that a layer must not use: what would let it touch the outside world.
const FOREIGN: &[(&str, &[&str])] = &[
    ("base", OUTSIDE),
    ("core", OUTSIDE),
    ("core", &["rand", "getrandom", "fastrand"]),
    ("sim", OUTSIDE),
    ("sim", &["rand", "getrandom", "fastrand"]),
];
const OUTSIDE: &[&str] = &[
    "tokio",
    "tokio-util",
    "tokio-stream",
    "async-std",
    "smol",
    "hyper",
    "reqwest",
    "axum",
    "tonic",
    "rustix",
    "nix",
    "libc",
    "socket2",
    "rusqlite",
    "sqlx",
    "tempfile",
];

/// What the sources of a core must not say outside their tests.
const FORBIDDEN_IN_CORES: &[&str] = &[
    "std::fs",
    "std::process",
    "std::thread",
    "TcpStream",
    "UdpSocket",
    "Instant::now",
    "SystemTime",
    "tokio::",
    "rand::",
];

/// A crate of ours: its layer, its folder's name, what it uses.
#[derive(Debug)]
struct Member {
    layer: String,
    name: String,
    uses: Vec<Use>,
}

/// One line of a manifest.
#[derive(Debug)]
struct Use {
    package: String,
    dev: bool,
}

/// Checks the workspace; prints what breaks the rule and fails.
pub fn run(root: &Path) -> Result<()> {
    let text = output(cargo(root).args(["metadata", "--format-version", "1", "--no-deps"]))?;
    let metadata: Value = serde_json::from_str(&text).context("cargo metadata printed no JSON")?;
    let members = members(root, &metadata)?;
    let mut broken = broken(&members);
    broken.extend(words_in_cores(root)?);
    if !broken.is_empty() {
        bail!("the layers are broken:\n  {}", broken.join("\n  "));
    }
    println!("{} crates keep to their layers", members.len());
    Ok(())
}

fn members(root: &Path, metadata: &Value) -> Result<BTreeMap<String, Member>> {
    let mut members = BTreeMap::new();
    let packages = metadata
        .get("packages")
        .and_then(Value::as_array)
        .context("cargo metadata has no `packages`")?;
    for package in packages {
        let name = text(package, "name")?;
        let folder = Path::new(text(package, "manifest_path")?)
            .parent()
            .and_then(|folder| folder.strip_prefix(root).ok())
            .with_context(|| format!("package {name} lies outside the workspace"))?;
        let parts: Vec<_> = folder.iter().filter_map(|part| part.to_str()).collect();
        let (layer, short) = match parts.as_slice() {
            ["crates", layer, short] => (*layer, *short),
            ["crates", layer] => (*layer, *layer),
            [only] => (*only, *only),
            _ => bail!(
                "package {name} lies in {}: no layer has that folder",
                folder.display()
            ),
        };
        let uses = package
            .get("dependencies")
            .and_then(Value::as_array)
            .context("a package has no `dependencies`")?
            .iter()
            .map(|dependency| {
                Ok(Use {
                    package: text(dependency, "name")?.to_owned(),
                    dev: dependency.get("kind").and_then(Value::as_str) == Some("dev"),
                })
            })
            .collect::<Result<_>>()?;
        let member = Member {
            layer: layer.to_owned(),
            name: short.to_owned(),
            uses,
        };
        members.insert(name.to_owned(), member);
    }
    Ok(members)
}

fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    value
        .get(key)
        .and_then(Value::as_str)
        .with_context(|| format!("cargo metadata has an element without `{key}`"))
}

fn broken(members: &BTreeMap<String, Member>) -> Vec<String> {
    let mut broken = Vec::new();
    for (package, member) in members {
        let here = format!("{}/{}", member.layer, member.name);
        if member.layer != "xtask" && !ROWS.contains(&member.layer.as_str()) {
            broken.push(format!("{package} lies in {here}, which is no layer"));
            continue;
        }
        for used in &member.uses {
            match members.get(&used.package) {
                Some(other) if !allowed(member, other, used.dev) => broken.push(format!(
                    "{here} must not use {}/{}",
                    other.layer, other.name
                )),
                Some(_) => {}
                None => {
                    let banned = FOREIGN.iter().any(|(layer, names)| {
                        *layer == member.layer && names.contains(&used.package.as_str())
                    });
                    if banned && !used.dev {
                        broken.push(format!("{here} must not use the crate {}", used.package));
                    }
                }
            }
        }
    }
    broken
}

fn allowed(member: &Member, other: &Member, dev: bool) -> bool {
    if member.layer == "xtask" || other.layer == "xtask" {
        return false;
    }
    if other.layer == "sim" {
        return dev;
    }
    if member.layer == other.layer {
        return WITHIN.iter().any(|(layer, name, may)| {
            *layer == member.layer && *name == member.name && may.contains(&other.name.as_str())
        });
    }
    // The cloud and a Unit meet only on the wire.
    if member.layer == "cloud" && other.layer == "edge" {
        return false;
    }
    let row = |layer: &str| ROWS.iter().position(|row| *row == layer);
    row(&other.layer) < row(&member.layer)
}

/// Reads the sources of the cores for what only a shell may do.
fn words_in_cores(root: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut folders = vec![root.join("crates").join("core")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            if path.is_dir() && !["tests", "benches", "examples"].contains(&name) {
                folders.push(path);
            } else if name.ends_with(".rs") && !name.contains("test") {
                let source = std::fs::read_to_string(&path)?;
                found.extend(words(&path.display().to_string(), &source));
            }
        }
    }
    found.sort();
    Ok(found)
}

fn words(path: &str, source: &str) -> Vec<String> {
    source
        .lines()
        .enumerate()
        .take_while(|(_, line)| line.trim() != "#[cfg(test)]" && !line.starts_with("mod tests"))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .flat_map(|(number, line)| {
            FORBIDDEN_IN_CORES
                .iter()
                .filter(move |word| line.contains(**word))
                .map(move |word| format!("{path}:{}: a core must not use `{word}`", number + 1))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace(list: &[(&str, &str, &str, &[&str])]) -> BTreeMap<String, Member> {
        list.iter()
            .map(|(package, layer, name, uses)| {
                let uses = uses
                    .iter()
                    .map(|package| Use {
                        package: (*package).to_owned(),
                        dev: false,
                    })
                    .collect();
                let member = Member {
                    layer: (*layer).to_owned(),
                    name: (*name).to_owned(),
                    uses,
                };
                ((*package).to_owned(), member)
            })
            .collect()
    }

    #[test]
    fn the_layers_above_may_be_used() {
        let members = workspace(&[
            ("aos-time", "base", "time", &["serde"]),
            ("aos-types", "base", "types", &["aos-time"]),
            ("aos-update", "core", "update", &["aos-types"]),
            ("aos-pki", "io", "pki", &["aos-types", "tokio"]),
            ("aos-ipc", "io", "ipc", &["aos-pki"]),
            ("aos-cm", "edge", "cm", &["aos-update", "aos-ipc"]),
            ("aos-sim", "sim", "sim", &["aos-update", "aos-types"]),
            ("aos-db", "cloud", "db", &["aos-types"]),
            ("aos-gateway", "cloud", "gateway", &["aos-db", "aos-pki"]),
            ("aos", "aos", "aos", &["aos-cm", "aos-gateway"]),
        ]);
        assert_eq!(broken(&members), Vec::<String>::new());
    }

    #[test]
    fn each_breach_is_named() {
        let members = workspace(&[
            ("aos-types", "base", "types", &["aos-api", "tokio"]),
            ("aos-api", "base", "api", &["aos-update"]),
            ("aos-update", "core", "update", &["aos-schedule"]),
            ("aos-schedule", "core", "schedule", &[]),
            ("aos-pki", "io", "pki", &["aos-ipc"]),
            ("aos-ipc", "io", "ipc", &[]),
            ("aos-cm", "edge", "cm", &["aos-sm", "aos-sim"]),
            ("aos-sim", "sim", "sim", &["aos-pki"]),
            ("aos-sm", "edge", "sm", &[]),
            ("aos-db", "cloud", "db", &["aos-cm"]),
            ("xtask", "xtask", "xtask", &["aos-types"]),
        ]);
        assert_eq!(
            broken(&members),
            [
                "base/api must not use core/update",
                "edge/cm must not use edge/sm",
                "edge/cm must not use sim/sim",
                "cloud/db must not use edge/cm",
                "io/pki must not use io/ipc",
                "sim/sim must not use io/pki",
                "base/types must not use base/api",
                "base/types must not use the crate tokio",
                "core/update must not use core/schedule",
                "xtask/xtask must not use base/types",
            ]
        );
    }

    #[test]
    fn cores_read_no_clock() {
        let source = "use std::fs;\n// std::fs in a comment\nlet t = Instant::now();\n\
                      #[cfg(test)]\nuse std::fs;\n";
        assert_eq!(words("x.rs", source).len(), 2);
    }
}
