//! The virtual machine: QEMU without acceleration, without network, ended by us if it does not end by itself.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Boots the guest, waits for its end, and gives what its serial console said.
pub(super) fn run(
    kernel: &Path,
    initrd: &Path,
    disks: &[PathBuf],
    longest: Duration,
) -> Result<String> {
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args(["-accel", "tcg", "-smp", "2", "-m", "768"])
        .args([
            "-nodefaults",
            "-no-reboot",
            "-nographic",
            "-serial",
            "stdio",
        ])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initrd)
        .args(["-append", "console=ttyS0 quiet panic=-1 mitigations=off"]);
    for disk in disks {
        let drive = format!("file={},if=virtio,format=raw,snapshot=on", disk.display());
        command.args(["-drive", &drive]);
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .context("cannot start qemu-system-x86_64")?;
    let mut console = child.stdout.take().context("QEMU has no output")?;
    let (say, said) = mpsc::channel();
    // Ends with QEMU, which closes the pipe.
    let reader = std::thread::spawn(move || {
        let mut piece = [0; 4096];
        while let Ok(length @ 1..) = console.read(&mut piece) {
            if say.send(piece[..length].to_vec()).is_err() {
                return;
            }
        }
    });
    let deadline = Instant::now() + longest;
    let mut bytes = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match said.recv_timeout(left) {
            Ok(piece) => bytes.extend(piece),
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                bytes.extend(b"\n@@note the time was up\n");
                let _ = child.kill();
                break;
            }
        }
    }
    child.wait().context("QEMU cannot be waited for")?;
    drop(said);
    let _ = reader.join();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
