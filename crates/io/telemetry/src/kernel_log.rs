use std::{
    fs::OpenOptions,
    io::{self, Seek as _, SeekFrom},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use rustix::io::Errno;
use tokio::net::unix::pipe;

use crate::{Entry, Error};

/// Longest record of the kernel, with its fields.
const RECORD: usize = 8 << 10;

/// The kernel's log from now on. It waits in the kernel: nothing happens while nothing is logged.
#[derive(Debug)]
pub struct KernelLog {
    // No pipe, but read and waited for like one.
    file: pipe::Receiver,
    path: PathBuf,
}

impl KernelLog {
    /// Opens `/dev/kmsg` at its end. Must be called within a runtime.
    pub fn open() -> Result<Self, Error> {
        Self::open_at("/dev/kmsg".as_ref())
    }

    fn open_at(path: &Path) -> Result<Self, Error> {
        let open = || {
            let mut file = OpenOptions::new()
                .read(true)
                .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
                .open(path)?;
            file.seek(SeekFrom::End(0))?;
            pipe::Receiver::from_file_unchecked(file)
        };
        let file = open().map_err(|source| Error::Read {
            path: path.to_path_buf(),
            source,
        })?;
        Ok(Self {
            file,
            path: path.to_path_buf(),
        })
    }

    /// The next record. Cancel-safe: a record is taken whole or stays in the kernel.
    pub async fn next(&mut self) -> Result<Entry, Error> {
        let mut buffer = vec![0; RECORD];
        loop {
            let read = match self.file.readable().await {
                Ok(()) => self.file.try_read(&mut buffer),
                Err(error) => Err(error),
            };
            match read {
                Ok(length) => {
                    let text = buffer.get(..length).unwrap_or_default();
                    if let Some(entry) = parse(&String::from_utf8_lossy(text)) {
                        return Ok(entry);
                    }
                }
                // Not ready after all.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // Records were overwritten before we read them; the next read goes on behind the gap.
                Err(error) if error.raw_os_error() == Some(Errno::PIPE.raw_os_error()) => {}
                Err(source) => {
                    return Err(Error::Read {
                        path: self.path.clone(),
                        source,
                    });
                }
            }
        }
    }
}

/// `priority,sequence,microseconds,flags;text` and lines with more, which begin with a blank (kernel documentation,
/// `dev-kmsg`). The priority holds a facility too.
fn parse(record: &str) -> Option<Entry> {
    let (head, rest) = record.split_once(';')?;
    let number: u32 = head.split(',').next()?.parse().ok()?;
    let message = rest.lines().next().unwrap_or_default();
    Some(Entry {
        priority: u8::try_from(number & 7).unwrap_or(7),
        unit: String::new(),
        identifier: if number >> 3 == 0 {
            "kernel".into()
        } else {
            String::new()
        },
        message: message.to_owned(),
        cursor: String::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_priority_and_text() {
        let entry = parse("3,339,5140900,-;disk on fire\n SUBSYSTEM=acpi\n").unwrap();
        assert_eq!(
            (entry.priority, entry.message.as_str()),
            (3, "disk on fire")
        );
        assert_eq!(entry.identifier, "kernel");
        assert_eq!(
            parse("30,340,5690716,-;udevd[80]: starting\n")
                .unwrap()
                .priority,
            6
        );
        assert!(parse("nonsense").is_none());
    }

    #[tokio::test]
    #[allow(clippy::print_stderr, reason = "a skipped test says so")]
    async fn what_is_logged_from_now_on_is_heard() {
        let mut log = match KernelLog::open() {
            Ok(log) => log,
            Err(error) => {
                eprintln!(
                    "SKIPPED what_is_logged_from_now_on_is_heard: {error}: needs root and /dev/kmsg"
                );
                return;
            }
        };
        let text = format!("aos test {}", std::process::id());
        if let Err(error) = std::fs::write("/dev/kmsg", format!("<3>{text}\n")) {
            eprintln!(
                "SKIPPED what_is_logged_from_now_on_is_heard: cannot write /dev/kmsg: {error}"
            );
            return;
        }
        let heard = tokio::time::timeout(std::time::Duration::from_secs(10), async {
            loop {
                let entry = log.next().await.unwrap();
                if entry.message.contains(&text) {
                    return entry;
                }
            }
        });
        assert_eq!(heard.await.unwrap().priority, 3);
    }
}
