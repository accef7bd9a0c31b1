//! Where a component's log goes and how it looks: stderr, by `AOS_LOG` and `AOS_LOG_FORMAT`; of a Node also a file, where
//! journald does not keep it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, fmt};

use crate::failure::{Failure, OrFail as _};

/// Crates that would write whole handshakes and headers, tokens included, below this level.
const TALKATIVE: &[&str] = &["tungstenite=info", "h2=info", "hyper=info", "reqwest=info"];

/// Bytes of the file of this process's log; a full one is put aside.
const OWN_BYTES: u64 = 1 << 20;

/// Starts the log of this process, also in the file `own` where nobody else keeps it. `AOS_LOG` is a level or a filter such as `info,aos_cm=debug`;
/// `AOS_LOG_FORMAT=json` writes one JSON object a line.
pub fn start(own: Option<&Path>) -> Result<(), Failure> {
    let text = std::env::var("AOS_LOG").unwrap_or_else(|_| "info".to_owned());
    let filter = EnvFilter::try_new(&text)
        .or_fail(|| format!("AOS_LOG=`{text}` is not a log filter"))
        .map_err(|failure| {
            failure.hint("say a level (debug, info, warn, error) or `info,aos_cm=debug`")
        })?;
    let mut filter = filter;
    for quiet in TALKATIVE {
        let directive = quiet.parse();
        filter = filter.add_directive(directive.or_fail(|| format!("`{quiet}` is no log filter"))?);
    }
    let own = match own.filter(|_| !to_journald()) {
        Some(path) => Some(
            OwnLog::open(path)
                .or_fail(|| format!("cannot keep the log of this process in {}", path.display()))?,
        ),
        None => None,
    };
    let own = own.map(|own| {
        fmt::layer()
            .with_ansi(false)
            .with_writer(std::sync::Mutex::new(own))
    });
    let to_stderr = fmt::layer().with_writer(std::io::stderr);
    let to_stderr = match std::env::var("AOS_LOG_FORMAT").as_deref() {
        Ok("json") => to_stderr.json().flatten_event(true).boxed(),
        Ok("text") | Err(_) => to_stderr.with_ansi(std::io::stderr().is_terminal()).boxed(),
        Ok(other) => {
            return Err(
                Failure::new(format!("AOS_LOG_FORMAT=`{other}` is no format"))
                    .hint("say `text` or `json`"),
            );
        }
    };
    let started = tracing_subscriber::registry()
        .with(filter)
        .with(to_stderr)
        .with(own)
        .try_init();
    started.map_err(|error| Failure::new("cannot start the log").why(error.to_string()))
}

/// Whether what this process writes to stderr goes to journald, which keeps it.
fn to_journald() -> bool {
    std::env::var_os("JOURNAL_STREAM").is_some()
}

/// A file with this process's log and one that was put aside before it, both bounded.
struct OwnLog {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl OwnLog {
    fn open(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let file = append_to(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self {
            path: path.to_owned(),
            file,
            bytes,
        })
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
}

impl Write for OwnLog {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        if self.bytes >= OWN_BYTES {
            let mut aside = self.path.as_os_str().to_owned();
            aside.push(".1");
            fs::rename(&self.path, aside)?;
            self.file = append_to(&self.path)?;
            self.bytes = 0;
        }
        let count = self.file.write(text)?;
        self.bytes += u64::try_from(count).unwrap_or(0);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_log_fills_its_share_of_the_disk_and_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs/aos.log");
        let mut log = OwnLog::open(&path).unwrap();
        let line = [b'x'; 1_000];
        for _ in 0..5_000 {
            log.write_all(&line).unwrap();
        }
        drop(log);
        let lengths: Vec<u64> = fs::read_dir(path.parent().unwrap())
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .collect();
        assert_eq!(lengths.len(), 2);
        assert!(
            lengths.iter().all(|length| *length <= OWN_BYTES + 1_000),
            "{lengths:?}"
        );
        // It goes on after a restart.
        let before = fs::metadata(&path).unwrap().len();
        OwnLog::open(&path).unwrap().write_all(b"more").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), before + 4);
    }
}
