//! Tests in a small virtual machine with a kernel that can what this machine's cannot: cgroup v2 alone, quotas of ext4.
//!
//! ```text
//!   target/guest/kernel    Debian's cloud kernel and the modules we need, from /boot or from its package
//!   initrd                 busybox and modules: finds the disks, and goes over to
//!   root.ext4              test programs with their libraries, crun, busybox; thrown away
//!   project.ext4, user.ext4   disks with project and user quota, at /data/project and /data/user
//!   serial console         which test begins, what it prints, how it ends
//! ```
//!
//! A test whose name begins with `guest_`, in a package of [`PACKAGES`], runs only here. A few others run here too
//! ([`HERE_TOO`]). There is no network, and no machine acceleration is needed, so time passes ten to thirty times slower.

mod archive;
mod kernel;
mod machine;
mod root;
mod serial;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::harness::{self, Program};
use crate::process::{found, output, target_dir};
use crate::results::Counts;

/// Packages with tests for the guest.
const PACKAGES: &[&str] = &["aos-quota", "aos-runtime", "aos-sm", "aos-netstack"];
/// Tests that run everywhere and meet another kernel here: cgroup v2 alone, an older btrfs, VLAN interfaces.
const HERE_TOO: &[(&str, &str)] = &[
    (
        "runtime::containers",
        "limits_hold_and_a_memory_kill_is_told",
    ),
    (
        "runtime::containers",
        "stopping_asks_first_and_kills_after_the_grace_period",
    ),
    (
        "quota::image",
        "a_full_folder_is_stopped_at_its_limit_and_its_neighbour_writes_on",
    ),
    (
        "quota::image",
        "what_was_kept_in_plain_folders_moves_into_the_image",
    ),
    ("netstack::nodes", "one_owner_is_one_network_by_vlan_too"),
];
/// How long all of it may take in the guest.
const LONGEST: Duration = Duration::from_secs(200);

/// One test in the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Case {
    /// As it is counted: `quota::guest`.
    program: String,
    /// Its absolute path here, which is also its path there.
    executable: String,
    test: String,
}

/// Why it cannot be done on this machine; nothing if it can.
pub fn missing(root: &Path) -> Option<String> {
    if std::env::consts::ARCH != "x86_64" {
        return Some("the guest is made for x86_64".into());
    }
    for (program, package) in [
        ("qemu-system-x86_64", "qemu-system-x86"),
        ("busybox", "busybox-static"),
        ("crun", "crun"),
        ("mkfs.ext4", "e2fsprogs"),
        ("ldd", "libc-bin"),
    ] {
        if !found(program) {
            return Some(format!("{program} is not installed (package {package})"));
        }
    }
    let kernel = folder(root).and_then(|folder| kernel::find(&folder));
    kernel.err().map(|error| format!("{error:#}"))
}

fn folder(root: &Path) -> Result<PathBuf> {
    let folder = target_dir(root).join("guest");
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

/// Builds the tests and runs those for the guest: `cargo xtask test --guest`.
pub fn task(root: &Path) -> Result<()> {
    if let Some(reason) = missing(root) {
        bail!("the guest cannot be made: {reason}");
    }
    let programs = harness::programs_of(root, PACKAGES)?;
    let counts = run(root, &programs)?;
    for (name, reason) in &counts.skipped {
        println!("  SKIPPED {name}: {reason}");
    }
    for name in &counts.failed {
        println!("  FAILED {name}");
    }
    println!("{}", counts.line());
    if !counts.failed.is_empty() {
        bail!("tests in the guest failed");
    }
    Ok(())
}

/// Runs the tests for the guest among these programs.
pub fn run(root: &Path, programs: &[Program]) -> Result<Counts> {
    let folder = folder(root)?;
    let cases = cases(programs)?;
    if cases.is_empty() {
        bail!("no test is for the guest: their names begin with `guest_`");
    }
    let kernel = kernel::find(&folder)?;
    let initrd = archive::initrd(&folder, &kernel)?;
    let disks = root::disks(root, &folder, &cases)?;
    let console = machine::run(&kernel.image, &initrd, &disks, LONGEST)?;
    Ok(serial::read(&cases, &console))
}

fn cases(programs: &[Program]) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for program in programs {
        let ours = |package: &&str| {
            let short = package.trim_start_matches("aos-");
            program.name == **package || program.name.starts_with(&format!("{short}::"))
        };
        if !PACKAGES.iter().any(ours) {
            continue;
        }
        let list = output(Command::new(&program.executable).args(["--list", "--format", "terse"]))?;
        for test in list.lines().filter_map(|line| line.strip_suffix(": test")) {
            let last = test.rsplit("::").next().unwrap_or(test);
            let too = HERE_TOO.contains(&(program.name.as_str(), test));
            if last.starts_with("guest_") || too {
                cases.push(Case {
                    program: program.name.clone(),
                    executable: program.executable.display().to_string(),
                    test: test.to_owned(),
                });
            }
        }
    }
    Ok(cases)
}
