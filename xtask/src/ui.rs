//! The web UI: installed, checked and built by npm, tried in Chromium.

use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use anyhow::Result;

use crate::node;
use crate::process::{run, target_dir};

fn npm(root: &Path) -> Result<Command> {
    let mut command = Command::new("npm");
    if let Some(newer) = node::folder(root)? {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::iter::once(newer).chain(std::env::split_paths(&path));
        command.env("PATH", std::env::join_paths(folders)?);
    }
    command
        .current_dir(root.join("ui"))
        .env("npm_config_update_notifier", "false")
        .env("npm_config_fund", "false")
        .env("npm_config_audit", "false");
    Ok(command)
}

/// Installs exactly the packages of `package-lock.json`, unless they are installed already.
pub fn install(root: &Path) -> Result<()> {
    let ui = root.join("ui");
    let lock = std::fs::read(ui.join("package-lock.json"))?;
    // npm leaves no copy of the lock file that is equal byte for byte, so we keep our own.
    let stamp = ui.join("node_modules").join(".installed-lock.json");
    if std::fs::read(&stamp).is_ok_and(|installed| installed == lock) {
        println!("the UI's packages are installed already");
        return Ok(());
    }
    run(npm(root)?.args(["ci", "--no-progress"]))?;
    std::fs::write(stamp, lock)?;
    Ok(())
}

/// Builds `ui/dist`, which the server carries inside, unless it is newer than all that it is made of: what is written
/// anew makes cargo compile the server anew.
pub fn build(root: &Path) -> Result<()> {
    let ui = root.join("ui");
    let made = newest(&ui.join("dist"));
    let sources = [
        "src",
        "public",
        "index.html",
        "package.json",
        "package-lock.json",
        "node_modules/.installed-lock.json",
        "vite.config.ts",
        "tsconfig.json",
        "postcss.config.cjs",
        "licences.ts",
    ];
    let changed = sources
        .iter()
        .filter_map(|name| newest(&ui.join(name)))
        .max();
    if made.is_some() && made > changed {
        println!("the UI is built already");
        return Ok(());
    }
    run(npm(root)?.args(["run", "build"]))
}

/// When a file, or the newest one in a folder, was changed. A folder changes when a file goes.
fn newest(path: &Path) -> Option<SystemTime> {
    let own = path.metadata().and_then(|data| data.modified()).ok();
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| newest(&entry.path()))
        .chain(own)
        .max()
}

/// Types, style and unit tests of the UI.
pub fn check(root: &Path) -> Result<()> {
    run(npm(root)?.args(["run", "check"]))?;
    run(npm(root)?.args(["run", "test"]))
}

/// A shell command that walks through the web UI in Chromium, by one of the programs in `e2e`. The demo starts it and
/// tells it by its environment where the cloud is.
pub fn audience(root: &Path, program: &str) -> Result<String> {
    let path = npm(root)?
        .get_envs()
        .find_map(|(name, value)| {
            (name == "PATH")
                .then(|| value.map(ToOwned::to_owned))
                .flatten()
        })
        .or_else(|| std::env::var_os("PATH"))
        .unwrap_or_default();
    let home = std::env::var_os("HOME").unwrap_or_else(|| "/tmp".into());
    let shots = target_dir(root).join("ui-shots");
    std::fs::create_dir_all(&shots)?;
    // Chromium takes the cloud's self-made certificate by the hash of the root's public key.
    let spki = "const c = require('crypto'); \
                const key = new c.X509Certificate(process.env.AOS_CA_PEM).publicKey; \
                const der = key.export({type: 'spki', format: 'der'}); \
                console.log(c.createHash('sha256').update(der).digest('base64'))";
    Ok(format!(
        "cd {} && export PATH={} HOME={} AOS_SHOTS={} && \
         export AOS_SPKI=$(node -e {}) && exec node e2e/{}",
        quoted(root.join("ui")),
        quoted(path),
        quoted(home),
        quoted(shots),
        quoted(spki),
        quoted(program),
    ))
}

/// A word for the shell.
fn quoted(word: impl AsRef<std::ffi::OsStr>) -> String {
    format!(
        "'{}'",
        word.as_ref().to_string_lossy().replace('\'', "'\\''")
    )
}
