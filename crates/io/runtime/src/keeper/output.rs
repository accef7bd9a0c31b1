use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use aos_time::{Clock, SystemClock};
use nix::{errno::Errno, libc, sys::stat::Mode, unistd};

use super::LogPolicy;

/// Least and most a log file may hold, whatever the order says.
const LOG_BYTES: std::ops::RangeInclusive<u64> = 4_096..=(1 << 30);
/// Bytes written at once.
const CHUNK: usize = 64 << 10;
/// Most files of one container.
const LOG_FILES: u32 = 20;

/// The two streams of a container and the names of their FIFOs.
pub(super) const STREAMS: [&str; 2] = ["stdout", "stderr"];

/// Makes the FIFO `name` in `bundle` unless it is there, and opens it for the container: for reading and writing, so
/// that it never sees a closed pipe, whatever becomes of the keeper.
pub(super) fn container_end(bundle: &Path, name: &str) -> io::Result<File> {
    let path = bundle.join(name);
    match unistd::mkfifo(&path, Mode::from_bits_truncate(0o600)) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(error) => return Err(error.into()),
    }
    // A FIFO opened for reading and writing never blocks the opener. NOFOLLOW: nobody but us makes it.
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
}

/// Opens the keeper's end: it does not block and does not end when the container does.
pub(super) fn keeper_end(bundle: &Path, name: &str) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW)
        .open(bundle.join(name))
}

/// The log of one container, in the Kubernetes log format: `<time> <stdout|stderr> <F|P> <text>`, `P` for a piece of a
/// line. A full file is put aside as `.1`, `.2`, …; the oldest goes.
pub(super) struct Log {
    path: PathBuf,
    policy: LogPolicy,
    file: Option<File>,
    bytes: u64,
}

impl Log {
    pub(super) fn new(folder: &Path, id: &str, policy: LogPolicy) -> Self {
        Self {
            path: folder.join(format!("{id}.log")),
            policy: LogPolicy {
                max_bytes: policy.max_bytes.clamp(*LOG_BYTES.start(), *LOG_BYTES.end()),
                files: policy.files.clamp(1, LOG_FILES),
            },
            file: None,
            bytes: 0,
        }
    }

    /// Reads what is in the pipe, at most two buffers full so that one talker does not starve the others, and writes it
    /// down. Says whether there may be more.
    pub(super) fn take(
        &mut self,
        stream: &str,
        pipe: &File,
        buffer: &mut [u8],
    ) -> io::Result<bool> {
        for _ in 0..2 {
            match (&mut &*pipe).read(buffer) {
                Ok(0) => return Ok(false),
                Ok(count) => {
                    let text = buffer.get(..count).unwrap_or_default();
                    // The pipe is emptied even if the disk is full: a service must not hang on its own output.
                    let _ = self.write(stream, text);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn write(&mut self, stream: &str, text: &[u8]) -> io::Result<()> {
        // What comes at once has one time: to write it anew for each line would cost more than all the rest.
        let head = format!("{} {stream} ", SystemClock.now());
        let most = usize::try_from(self.policy.max_bytes / 2).map_or(CHUNK, |most| most.min(CHUNK));
        let mut lines = Vec::with_capacity(most + text.len().min(CHUNK) + 64);
        for piece in text.split_inclusive(|&byte| byte == b'\n') {
            let (line, tag) = match piece.strip_suffix(b"\n") {
                Some(line) => (line, b"F "),
                None => (piece, b"P "),
            };
            lines.extend_from_slice(head.as_bytes());
            lines.extend_from_slice(tag);
            lines.extend_from_slice(line);
            lines.push(b'\n');
            // Empty lines grow by far more than they are: no file becomes longer for that.
            if lines.len() >= most {
                self.put(&lines)?;
                lines.clear();
            }
        }
        self.put(&lines)
    }

    fn put(&mut self, lines: &[u8]) -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let length = u64::try_from(lines.len()).unwrap_or(u64::MAX);
        if self.file.is_some() && self.bytes + length > self.policy.max_bytes {
            self.rotate()?;
        }
        if self.file.is_none() {
            let file = OpenOptions::new()
                .create(true)
                .append(true)
                .mode(0o600)
                .open(&self.path)?;
            file.set_permissions(fs::Permissions::from_mode(0o600))?;
            self.bytes = file.metadata()?.len();
            self.file = Some(file);
        }
        if let Some(file) = &mut self.file {
            file.write_all(lines)?;
            self.bytes += length;
        }
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file = None;
        for number in (1..self.policy.files).rev() {
            let from = if number == 1 {
                self.path.clone()
            } else {
                aside(&self.path, number - 1)
            };
            match fs::rename(from, aside(&self.path, number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if self.policy.files == 1 {
            fs::remove_file(&self.path)?;
        }
        Ok(())
    }
}

/// Removes all log files of `id`.
pub(super) fn remove_logs(folder: &Path, id: &str) {
    let path = folder.join(format!("{id}.log"));
    let _ = fs::remove_file(&path);
    for number in 1..LOG_FILES {
        if fs::remove_file(aside(&path, number)).is_err() {
            break;
        }
    }
}

fn aside(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_talkative_service_fills_its_share_of_the_disk_and_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let mut service = container_end(folder.path(), "stdout").unwrap();
        let pipe = keeper_end(folder.path(), "stdout").unwrap();
        let policy = LogPolicy {
            max_bytes: 4_096,
            files: 3,
        };
        let mut log = Log::new(folder.path(), "x", policy);
        let mut buffer = [0; 1_024];
        for round in 0..2_000 {
            writeln!(service, "line {round}").unwrap();
            while log.take("stdout", &pipe, &mut buffer).unwrap() {}
        }
        let mut total = 0;
        for name in ["x.log", "x.log.1", "x.log.2"] {
            let file = folder.path().join(name);
            let length = fs::metadata(&file).unwrap().len();
            assert!(length <= 4_096, "{name} has {length} bytes");
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
            total += length;
        }
        assert!(total > 8_192);
        assert!(!folder.path().join("x.log.3").exists());
        let last = fs::read_to_string(folder.path().join("x.log")).unwrap();
        assert!(last.ends_with(" stdout F line 1999\n"), "{last}");
        remove_logs(folder.path(), "x");
        assert!(!folder.path().join("x.log").exists() && !folder.path().join("x.log.2").exists());
    }

    #[test]
    fn empty_lines_do_not_make_a_file_longer_than_it_may_be() {
        let folder = tempfile::tempdir().unwrap();
        let policy = LogPolicy {
            max_bytes: 100_000,
            files: 2,
        };
        let mut log = Log::new(folder.path(), "x", policy);
        log.write("stdout", &[b'\n'; 64 << 10]).unwrap();
        for name in ["x.log", "x.log.1"] {
            let length = fs::metadata(folder.path().join(name)).unwrap().len();
            assert!((1..=100_000).contains(&length), "{name}: {length}");
        }
    }

    #[test]
    fn pieces_of_a_line_are_marked() {
        let folder = tempfile::tempdir().unwrap();
        let mut service = container_end(folder.path(), "stderr").unwrap();
        let pipe = keeper_end(folder.path(), "stderr").unwrap();
        let mut log = Log::new(folder.path(), "x", LogPolicy::default());
        let mut buffer = [0; 1_024];
        write!(service, "half").unwrap();
        log.take("stderr", &pipe, &mut buffer).unwrap();
        write!(service, " a line\nnext\n").unwrap();
        log.take("stderr", &pipe, &mut buffer).unwrap();
        let text = fs::read_to_string(folder.path().join("x.log")).unwrap();
        let lines: Vec<&str> = text
            .lines()
            .filter_map(|line| line.split_once(' ').map(|(_, rest)| rest))
            .collect();
        assert_eq!(
            lines,
            ["stderr P half", "stderr F  a line", "stderr F next"]
        );
    }
}
