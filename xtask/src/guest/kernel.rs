//! The guest's kernel: one that is installed, or the one of Debian's package, unpacked into our folder.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process::{output, run};

/// What the guest needs and Debian builds as modules.
const WANTED: &[&str] = &[
    "virtio_pci",
    "virtio_blk",
    "quota_v2",
    "overlay",
    "loop",
    "btrfs",
    "veth",
    "bridge",
    "8021q",
    "nf_tables",
    "nft_ct",
    "nft_chain_nat",
    "nft_nat",
    "nft_masq",
    "nft_fib_inet",
    "nft_reject_inet",
    "nft_limit",
    "nft_quota",
    "nft_objref",
    "nft_connlimit",
    "nft_meta_bridge",
];
/// The package that always depends on the newest kernel.
const PACKAGE: &str = "linux-image-cloud-amd64";

/// A kernel and its modules in the order in which they have to be loaded.
pub(super) struct Kernel {
    pub(super) image: PathBuf,
    pub(super) modules: Vec<PathBuf>,
}

/// Finds one, or fetches it once.
pub(super) fn find(folder: &Path) -> Result<Kernel> {
    let own = folder.join("kernel");
    if let Some(kernel) = in_tree(Path::new("/"))?.or(in_tree(&own)?) {
        return Ok(kernel);
    }
    fetch(&own).context(
        "no kernel for the guest: none with `-cloud-` in its name is in /boot, and Debian's package cannot be had",
    )?;
    in_tree(&own)?.context("the package of the kernel holds none")
}

/// Unpacked and not installed: the machine boots as before.
fn fetch(own: &Path) -> Result<()> {
    let depends = output(Command::new("apt-cache").args(["depends", PACKAGE]))?;
    let package = depends
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: "))
        .with_context(|| format!("{PACKAGE} is not known: `apt-get update` may help"))?
        .to_owned();
    println!("fetching {package} for the guest into {}", own.display());
    let loading = own.join("loading");
    let _ = fs::remove_dir_all(&loading);
    fs::create_dir_all(&loading)?;
    run(Command::new("apt-get")
        .args(["download", "-qq", &package])
        .current_dir(&loading))?;
    let archive = fs::read_dir(&loading)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .context("nothing was fetched")?;
    run(Command::new("dpkg-deb")
        .arg("--extract")
        .arg(&archive)
        .arg(own))?;
    fs::remove_dir_all(&loading)?;
    Ok(())
}

fn in_tree(top: &Path) -> Result<Option<Kernel>> {
    let boot = fs::read_dir(top.join("boot"));
    let mut images: Vec<(String, PathBuf)> = boot
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let version = name.strip_prefix("vmlinuz-")?.to_owned();
            version.contains("-cloud-").then(|| (version, entry.path()))
        })
        .collect();
    images.sort();
    let Some((version, image)) = images.pop() else {
        return Ok(None);
    };
    let modules = top.join("lib/modules").join(version).join("kernel");
    if !modules.is_dir() {
        return Ok(None);
    }
    let mut all = BTreeMap::new();
    collect(&modules, &mut all)?;
    let mut ordered = Vec::new();
    let mut seen = BTreeSet::new();
    for name in WANTED {
        order(name, &all, &mut seen, &mut ordered)?;
    }
    Ok(Some(Kernel {
        image,
        modules: ordered,
    }))
}

/// All modules by the name the kernel knows them by.
fn collect(folder: &Path, all: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, all)?;
        } else if path.extension().is_some_and(|extension| extension == "ko") {
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            all.insert(name.replace('-', "_"), path);
        }
    }
    Ok(())
}

/// Puts a module behind those it needs. What is no module is built in, or is an alias that has a module elsewhere.
fn order(
    name: &str,
    all: &BTreeMap<String, PathBuf>,
    seen: &mut BTreeSet<String>,
    ordered: &mut Vec<PathBuf>,
) -> Result<()> {
    if !seen.insert(name.to_owned()) {
        return Ok(());
    }
    let Some(path) = all.get(name) else {
        return Ok(());
    };
    let content = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    if seen.len() > 500 {
        bail!(
            "the modules of {} need each other without end",
            path.display()
        );
    }
    for needed in needs(&content) {
        order(&needed, all, seen, ordered)?;
    }
    ordered.push(path.clone());
    Ok(())
}

/// The modules that a module says it needs, in its section `.modinfo`: `depends=a,b` and `softdep=pre: c`.
fn needs(module: &[u8]) -> Vec<String> {
    let mut needs = Vec::new();
    for text in module.split(|&byte| byte == 0) {
        let Ok(text) = std::str::from_utf8(text) else {
            continue;
        };
        let names: Vec<&str> = if let Some(names) = text.strip_prefix("depends=") {
            names.split(',').collect()
        } else if let Some(names) = text.strip_prefix("softdep=pre: ") {
            names.split_whitespace().collect()
        } else {
            continue;
        };
        let names = names.into_iter().filter(|name| !name.is_empty());
        needs.extend(names.map(|name| {
            let name = name.replace('-', "_");
            // Cryptography is asked for by its name; the general module of that name has it as a suffix or none.
            match name.as_str() {
                "crypto_crc32c" => "crc32c_generic".into(),
                "blake2b_256" => "blake2b_generic".into(),
                "sha256" => "sha256_generic".into(),
                "xxhash64" => "xxhash_generic".into(),
                _ => name,
            }
        }));
    }
    needs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_says_what_it_needs() {
        let module = b"\x7fELF\0license=GPL\0depends=libcrc32c,raid6_pq\0softdep=pre: crypto-crc32c\0depends=\0\xff";
        assert_eq!(needs(module), ["libcrc32c", "raid6_pq", "crc32c_generic"]);
    }
}
