//! A user namespace to take a mapping from. A process with threads cannot make one, so a small one does: the keeper's
//! program.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::fd::OwnedFd,
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
};

use nix::sched::{CloneFlags, unshare};

use super::map::{IdMaps, text};

/// What the small process says when its namespace is there.
const READY: &[u8] = b"ready\n";

/// Runs `keeper --user-namespace`: makes a user namespace, says so, and ends when standard input does. Call it before the
/// process has a second thread.
pub(crate) fn hold() -> ExitCode {
    let held = unshare(CloneFlags::CLONE_NEWUSER)
        .map_err(io::Error::from)
        .and_then(|()| io::stdout().write_all(READY))
        .and_then(|()| io::stdout().flush())
        .and_then(|()| io::stdin().read(&mut [0]));
    match held {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: no user namespace: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The process that holds the namespace; ended and reaped when it is not needed any more.
struct Holder(Child);

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A new user namespace with these maps. Blocks for as long as a small process takes to start.
pub(super) fn namespace(program: &Path, maps: &IdMaps) -> io::Result<OwnedFd> {
    let child = Command::new(program)
        .arg("keeper")
        .arg("--user-namespace")
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut holder = Holder(child);
    let mut said = Vec::new();
    if let Some(stdout) = holder.0.stdout.take() {
        // It says one line or ends.
        stdout.take(READY.len() as u64).read_to_end(&mut said)?;
    }
    if said != READY {
        let mut why = String::new();
        if let Some(stderr) = holder.0.stderr.take() {
            stderr.take(512).read_to_string(&mut why)?;
        }
        return Err(io::Error::other(why.trim().to_owned()));
    }
    let proc = Path::new("/proc").join(holder.0.id().to_string());
    fs::write(proc.join("uid_map"), text(&maps.uids))?;
    fs::write(proc.join("gid_map"), text(&maps.gids))?;
    Ok(File::open(proc.join("ns/user"))?.into())
}
