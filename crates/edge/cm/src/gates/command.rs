use std::{io, process::Stdio, time::Duration};

use aos_update::Readiness;
use tokio::{
    io::AsyncReadExt,
    process::{ChildStderr, Command},
};

/// How much of what the program says is kept, in bytes.
const SAID: usize = 1024;
/// How long its last words are waited for after it has ended.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Runs the program once: exit code 0 means ready. It runs without CM's environment and standard input, in a process group
/// of its own; the group is killed when it takes longer than `timeout` and when nobody waits any more.
pub(super) async fn ask(command: &[String], timeout: Duration) -> Readiness {
    match tokio::time::timeout(timeout, run(command)).await {
        Ok(Ok((Some(0), _))) => Readiness::Ready,
        Ok(Ok((code, said))) => Readiness::NotReady(describe(code, &said)),
        Ok(Err(error)) => Readiness::NotReady(format!(
            "{} cannot be run: {error}",
            command.first().map_or("", String::as_str)
        )),
        Err(_) => Readiness::NotReady(format!(
            "the readiness command did not end within {} s and was killed",
            timeout.as_secs()
        )),
    }
}

fn describe(code: Option<i32>, said: &str) -> String {
    let said = said.lines().next().unwrap_or_default().trim();
    let ended = match code {
        Some(code) => format!("exit code {code}"),
        None => "ended by a signal".into(),
    };
    match said {
        "" => format!("the readiness command: {ended}"),
        said => format!("{said} ({ended})"),
    }
}

async fn run(command: &[String]) -> io::Result<(Option<i32>, String)> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    let mut group = Group(child.id());
    let mut said = Vec::new();
    let mut errors = child.stderr.take();
    let status = loop {
        let mut piece = [0; SAID];
        // Both are cancel-safe: what was not read stays in the pipe, and an end is told until it is taken.
        tokio::select! {
            status = child.wait() => break status?,
            read = next(&mut errors, &mut piece) => keep(&mut said, &piece, read),
        }
    };
    // What it left running may go on; from here on its number may be another's.
    group.0 = None;
    // Its last words may still be in the pipe, which something it left running may hold open.
    while errors.is_some() {
        let mut piece = [0; SAID];
        match tokio::time::timeout(LAST_WORDS, next(&mut errors, &mut piece)).await {
            Ok(read) => keep(&mut said, &piece, read),
            Err(_) => break,
        }
    }
    Ok((status.code(), String::from_utf8_lossy(&said).into_owned()))
}

/// The next piece of what it says; waits for ever once that has ended.
async fn next(errors: &mut Option<ChildStderr>, piece: &mut [u8]) -> usize {
    if let Some(pipe) = errors {
        match pipe.read(piece).await {
            Ok(count) if count > 0 => return count,
            _ => {
                *errors = None;
                return 0;
            }
        }
    }
    std::future::pending().await
}

/// Keeps the beginning; whatever else it says is read and dropped, so that it is not held up.
fn keep(said: &mut Vec<u8>, piece: &[u8], read: usize) {
    let room = SAID.saturating_sub(said.len());
    said.extend(piece.iter().take(read.min(room)));
}

/// Kills the program and what it started when nobody waits for it any more.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        let group = self
            .0
            .and_then(|id| i32::try_from(id).ok())
            .and_then(rustix::process::Pid::from_raw);
        if let Some(group) = group {
            // It may have ended already.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn shell(script: &str, timeout: u64) -> Readiness {
        let command = ["/bin/sh", "-c", script].map(String::from);
        ask(&command, Duration::from_secs(timeout)).await
    }

    fn not(why: &str) -> Readiness {
        Readiness::NotReady(why.into())
    }

    #[tokio::test]
    async fn the_exit_code_decides_and_the_first_line_says_why() {
        assert_eq!(shell("echo no >&2; exit 0", 20).await, Readiness::Ready);
        assert_eq!(
            shell("echo the engine runs >&2; echo more >&2; exit 3", 20).await,
            not("the engine runs (exit code 3)")
        );
        assert_eq!(
            shell("exit 1", 20).await,
            not("the readiness command: exit code 1")
        );
        assert_eq!(
            shell("kill -9 $$", 20).await,
            not("the readiness command: ended by a signal")
        );
        let gone = ask(&["/no/such/program".into()], Duration::from_secs(5)).await;
        assert!(
            matches!(gone, Readiness::NotReady(why) if why.contains("/no/such/program cannot be run"))
        );
    }

    #[tokio::test]
    async fn one_that_takes_too_long_is_killed_with_all_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("pid");
        let script = format!("sleep 300 & echo $! > {}; wait", mark.display());
        assert_eq!(
            shell(&script, 1).await,
            not("the readiness command did not end within 1 s and was killed")
        );
        let child = std::fs::read_to_string(&mark).unwrap();
        let child = format!("/proc/{}/stat", child.trim());
        for _ in 0..100 {
            // Gone, or dead and not yet collected by init.
            let stat = std::fs::read_to_string(&child).unwrap_or_default();
            if stat.is_empty() || stat.contains(") Z ") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("it still runs");
    }

    #[tokio::test]
    async fn it_sees_nothing_of_our_environment_and_a_flood_does_not_block_it() {
        // CARGO_MANIFEST_DIR is in the environment of every test.
        assert_eq!(
            shell("test -z \"$CARGO_MANIFEST_DIR\"", 20).await,
            Readiness::Ready
        );
        let flood = "i=0; while [ $i -lt 5000 ]; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx >&2; i=$((i+1)); done; exit 4";
        assert!(
            matches!(shell(flood, 30).await, Readiness::NotReady(why) if why.ends_with("(exit code 4)"))
        );
    }
}
