//! The guest's disks: its root with the tests, and two with quotas.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::Case;
use crate::process::{output, run, target_dir};

/// Programs that tests call, beside those of busybox.
const TOOLS: &[&str] = &["crun", "mkfs.btrfs", "btrfs", "ip", "nft"];
/// Programs of ours that tests start, below the folder of the build.
const OURS: &[&str] = &["debug/aos-keeper", "debug/examples/sm-keeper"];

/// What runs in the guest's root: mounts, then one test after the other, then the end.
const INIT: &str = "#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
ip link set lo up
for controller in cpu memory pids io cpuset; do echo +$controller > /sys/fs/cgroup/cgroup.subtree_control; done
mount -t ext4 -o prjquota /dev/vdb /data/project || echo '@@note no disk with project quota'
mount -t ext4 -o usrquota /dev/vdc /data/user || echo '@@note no disk with user quota'
export AOS_GUEST=1 RUST_BACKTRACE=1 HOME=/root TMPDIR=/tmp
while read -r program test; do
    printf '\\n@@begin %s %s\\n' \"$program\" \"$test\"
    cd /tmp
    timeout -s KILL 100 \"$program\" --exact \"$test\" --nocapture --test-threads 1 < /dev/null 2>&1
    printf '\\n@@end %s\\n' $?
done < /guest/tests
printf '\\n@@done\\n'
poweroff -f
";

/// Makes the disks, root first.
pub(super) fn disks(root: &Path, folder: &Path, cases: &[Case]) -> Result<Vec<PathBuf>> {
    let tree = folder.join("root");
    let _ = fs::remove_dir_all(&tree);
    for name in [
        "bin",
        "sbin",
        "usr/bin",
        "usr/sbin",
        "lib",
        "lib64",
        "etc",
        "proc",
        "sys",
        "dev",
        "run",
        "tmp",
        "root",
        "guest",
        "data/project",
        "data/user",
    ] {
        fs::create_dir_all(tree.join(name))?;
    }
    let busybox = which("busybox")?;
    copy(&tree, &busybox, Path::new("/bin/busybox"))?;
    for applet in output(Command::new(&busybox).arg("--list"))?.lines() {
        if applet != "busybox" {
            symlink("/bin/busybox", tree.join("bin").join(applet))?;
        }
    }
    let mut programs: BTreeSet<PathBuf> = cases
        .iter()
        .map(|case| case.executable.clone().into())
        .collect();
    programs.extend(TOOLS.iter().filter_map(|tool| which(tool).ok()));
    let built = target_dir(root);
    programs.extend(
        OURS.iter()
            .map(|name| built.join(name))
            .filter(|path| path.exists()),
    );
    for program in &programs {
        copy(&tree, program, program)?;
        for library in libraries(program)? {
            if !inside(&tree, &library).exists() {
                copy(&tree, &library, &library)?;
            }
        }
    }
    let list: String = cases
        .iter()
        .map(|case| format!("{} {}\n", case.executable, case.test))
        .collect();
    fs::write(tree.join("guest/tests"), list)?;
    fs::write(tree.join("guest/init"), INIT)?;
    fs::set_permissions(tree.join("guest/init"), fs::Permissions::from_mode(0o755))?;
    let first = folder.join("root.ext4");
    ext4(
        &first,
        512,
        &["-O", "^has_journal", "-d", &tree.to_string_lossy()],
    )?;
    let project = folder.join("project.ext4");
    ext4(
        &project,
        128,
        &[
            "-O",
            "quota,project",
            "-E",
            "quotatype=usrquota:grpquota:prjquota",
        ],
    )?;
    let user = folder.join("user.ext4");
    ext4(&user, 128, &["-O", "quota", "-E", "quotatype=usrquota"])?;
    Ok(vec![first, project, user])
}

fn ext4(path: &Path, megabytes: u64, options: &[&str]) -> Result<()> {
    let _ = fs::remove_file(path);
    let file = fs::File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
    file.set_len(megabytes << 20)?;
    run(Command::new(which("mkfs.ext4")?)
        .args(["-q", "-F"])
        .args(options)
        .arg(path))
}

/// A program's path.
pub(super) fn which(program: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].into_iter().map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
        .with_context(|| format!("{program} is not installed"))
}

fn inside(tree: &Path, path: &Path) -> PathBuf {
    tree.join(path.strip_prefix("/").unwrap_or(path))
}

/// Copies a file to its place in the guest, without what only a debugger reads.
fn copy(tree: &Path, from: &Path, to: &Path) -> Result<()> {
    let target = inside(tree, to);
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    let stripped = Command::new("strip")
        .arg("-o")
        .arg(&target)
        .arg(from)
        .stderr(std::process::Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !stripped {
        fs::copy(from, &target).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    fs::set_permissions(&target, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// The libraries of a program; a static one has none.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let listed = Command::new("ldd")
        .arg(program)
        .output()
        .with_context(|| format!("cannot ask ldd about {}", program.display()))?;
    if !listed.status.success() {
        return Ok(Vec::new());
    }
    let text = String::from_utf8_lossy(&listed.stdout);
    if let Some(line) = text.lines().find(|line| line.contains("not found")) {
        bail!("{} misses a library: {}", program.display(), line.trim());
    }
    Ok(read_ldd(&text))
}

fn read_ldd(text: &str) -> Vec<PathBuf> {
    text.lines()
        .filter_map(|line| {
            let line = line.trim();
            let path = line.split_once("=> ").map_or(line, |(_, path)| path);
            let path = path.split(" (").next()?.trim();
            path.starts_with('/').then(|| PathBuf::from(path))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\
            \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        assert_eq!(
            read_ldd(text),
            [
                PathBuf::from("/lib/x86_64-linux-gnu/libc.so.6"),
                PathBuf::from("/lib64/ld-linux-x86-64.so.2")
            ]
        );
    }
}
