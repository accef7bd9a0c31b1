use std::{
    env,
    ffi::OsString,
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Read, Write},
    os::{
        fd::AsFd,
        unix::{
            fs::{DirBuilderExt, OpenOptionsExt},
            process::CommandExt,
        },
    },
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use nix::unistd;

use super::{ServeError, ServeOptions, serve};
use crate::userns;

/// What the second process says when it listens.
const READY: &[u8] = b"ready\n";
/// Most bytes of the keeper's own log kept from one start to the next.
const MAX_OWN_LOG: u64 = 256 << 10;

/// Runs `keeper --socket PATH --state-dir DIR [--idle SECONDS] [--foreground]` and says how it went: 0 when a keeper listens, 3 when one
/// was there already.
///
/// Without `--foreground` it starts itself once more, detached: a session of its own, no descriptor of the caller's, and
/// returns when that one listens. So the keeper is no child of who started it and outlives it. Call it before the process
/// has a second thread. `args` are those after the word `keeper`.
///
/// `keeper --user-namespace` is another small thing that must be done before there are threads: it holds a user namespace
/// for as long as its standard input is open.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut args = args.into_iter().peekable();
    if args.peek().is_some_and(|first| first == "--user-namespace") {
        return userns::hold();
    }
    let result = parse(args).and_then(|(options, foreground)| {
        if foreground {
            work(&options)
        } else {
            detach(&options)
        }
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Taken) => ExitCode::from(3),
        Err(failure) => {
            let _ = writeln!(io::stderr(), "error: {failure}");
            ExitCode::FAILURE
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}; usage: keeper --socket PATH --state-dir DIR [--idle SECONDS] [--foreground]")]
    Usage(String),
    #[error("another keeper is at work")]
    Taken,
    #[error("the keeper cannot {what}: {source}")]
    System {
        what: &'static str,
        source: io::Error,
    },
    #[error("the keeper did not start; its own log is {0}")]
    Silent(PathBuf),
}

fn system(what: &'static str) -> impl Fn(io::Error) -> Failure {
    move |source| Failure::System { what, source }
}

fn parse(args: impl IntoIterator<Item = OsString>) -> Result<(ServeOptions, bool), Failure> {
    let (mut socket, mut state_dir, mut foreground) = (None, None, false);
    let mut idle = ServeOptions::IDLE;
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        if arg == "--idle" {
            let seconds = args.next().and_then(|text| text.to_str()?.parse().ok());
            idle = seconds
                .map(Duration::from_secs)
                .ok_or_else(|| Failure::Usage("--idle needs a number of seconds".into()))?;
            continue;
        }
        let mut value = || {
            args.next()
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
                .ok_or_else(|| {
                    Failure::Usage(format!("{} needs an absolute path", arg.to_string_lossy()))
                })
        };
        match arg.to_str() {
            Some("--socket") => socket = Some(value()?),
            Some("--state-dir") => state_dir = Some(value()?),
            Some("--foreground") => foreground = true,
            _ => {
                return Err(Failure::Usage(format!(
                    "unknown argument `{}`",
                    arg.to_string_lossy()
                )));
            }
        }
    }
    match (socket, state_dir) {
        (Some(socket), Some(state_dir)) => {
            let options = ServeOptions {
                socket,
                state_dir,
                idle,
            };
            Ok((options, foreground))
        }
        (None, _) => Err(Failure::Usage("--socket is missing".into())),
        (_, None) => Err(Failure::Usage("--state-dir is missing".into())),
    }
}

/// The first process: starts the second one and waits until it listens.
fn detach(options: &ServeOptions) -> Result<(), Failure> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&options.state_dir)
        .map_err(system("make its state folder"))?;
    let own_log = options.state_dir.join("keeper.log");
    if fs::metadata(&own_log).is_ok_and(|file| file.len() > MAX_OWN_LOG) {
        let _ = fs::remove_file(&own_log);
    }
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&own_log)
        .map_err(system("open its own log"))?;
    let program = env::current_exe().map_err(system("find its own program"))?;
    close_inherited(&log);
    // A new session needs a process that leads no group: the child of this one does not, once it has left ours.
    let mut child = Command::new(program)
        .arg0("aos-keeper")
        .arg("keeper")
        .arg("--foreground")
        .arg("--socket")
        .arg(&options.socket)
        .arg("--state-dir")
        .arg(&options.state_dir)
        .arg("--idle")
        .arg(options.idle.as_secs().to_string())
        .env_clear()
        .envs(env::var_os("PATH").map(|path| ("PATH", path)))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(system("start itself"))?;
    let mut said = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout
            .take(READY.len() as u64)
            .read_to_end(&mut said)
            .map_err(system("hear from itself"))?;
    }
    if said == READY {
        return Ok(());
    }
    match child.wait().ok().and_then(|status| status.code()) {
        Some(3) => Err(Failure::Taken),
        _ => Err(Failure::Silent(own_log)),
    }
}

/// Closes what the caller left open above standard error. Rust opens everything close-on-exec; other callers may not.
fn close_inherited(keep: &impl AsFd) {
    use std::os::fd::AsRawFd;
    let keep = keep.as_fd().as_raw_fd();
    let Ok(entries) = fs::read_dir("/proc/self/fd") else {
        return;
    };
    let open: Vec<i32> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|&fd| fd > 2 && fd != keep)
        .collect();
    for fd in open {
        // The folder's own descriptor is among them and closed by now.
        let _ = unistd::close(fd);
    }
}

/// The second process: the keeper itself.
fn work(options: &ServeOptions) -> Result<(), Failure> {
    // Fails only if we lead a group already, and then we are in nobody's way.
    let _ = unistd::setsid();
    let ready = || {
        let mut stdout = io::stdout();
        let _ = stdout.write_all(READY).and_then(|()| stdout.flush());
        if let Ok(nothing) = OpenOptions::new().write(true).open("/dev/null") {
            let _ = unistd::dup2_stdout(nothing);
        }
    };
    serve(options, ready).map_err(|error| match error {
        ServeError::Taken { .. } => Failure::Taken,
        ServeError::System { what, source } => Failure::System { what, source },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(text: &str) -> Vec<OsString> {
        text.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn arguments_are_checked() {
        let (options, foreground) =
            parse(args("--socket /run/k --state-dir /var/k --foreground")).unwrap();
        assert_eq!(options.socket, PathBuf::from("/run/k"));
        assert_eq!(options.idle, ServeOptions::IDLE);
        assert!(foreground);
        for bad in [
            "",
            "--socket /run/k",
            "--state-dir /var/k",
            "--socket run/k --state-dir /var/k",
            "--socket /run/k --state-dir /var/k --more",
            "--socket",
            "--socket /run/k --state-dir /var/k --idle soon",
        ] {
            assert!(
                matches!(parse(args(bad)), Err(Failure::Usage(_))),
                "`{bad}` must be refused"
            );
        }
    }
}
