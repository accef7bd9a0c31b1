use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use aos_log::{Line, clean};
use aos_time::Timestamp;
use rustix::fs::OFlags;

use crate::file;

/// Most records of the kernel that are read.
const MOST_RECORDS: usize = 50_000;
/// Most bytes of our own log that are read.
const MOST_OWN: u64 = 16 << 20;

/// Where the kernel tells what it says.
const KMSG: &str = "/dev/kmsg";

/// When the machine started, as far as the clocks tell.
pub(crate) fn booted(now: Timestamp) -> Timestamp {
    // Counts time asleep too, which the kernel's records do not: after a sleep they look older than they are.
    let up = std::fs::read_to_string("/proc/uptime")
        .ok()
        .and_then(|text| {
            let seconds: f64 = text.split_whitespace().next()?.parse().ok()?;
            Duration::try_from_secs_f64(seconds).ok()
        });
    let up = up.unwrap_or_default();
    now - up
}

/// Opens the kernel's log at its beginning.
pub(crate) fn open() -> io::Result<File> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    OpenOptions::new().read(true).custom_flags(flags).open(KMSG)
}

/// The next record; nothing if there is none now.
pub(crate) fn next(mut file: &File, booted: Timestamp) -> io::Result<Option<Option<Line>>> {
    let mut record = [0; 8 << 10];
    loop {
        match file.read(&mut record) {
            Ok(0) => return Ok(None),
            Ok(count) => {
                let text = record.get(..count).unwrap_or_default();
                return Ok(Some(line(text, booted)));
            }
            // The ring went over what we had not read: the next one is there.
            Err(error) if error.raw_os_error() == Some(nix::libc::EPIPE) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

/// All records of the kernel, the oldest first.
pub(crate) fn records(now: Timestamp) -> io::Result<Vec<Line>> {
    let file = open()?;
    let booted = booted(now);
    let mut lines = Vec::new();
    for _ in 0..MOST_RECORDS {
        let Some(record) = next(&file, booted)? else {
            break;
        };
        lines.extend(record);
    }
    Ok(lines)
}

/// A record: `<priority>,<number>,<microseconds>,<flags>[,…];<text>`, then lines with a blank before them.
fn line(record: &[u8], booted: Timestamp) -> Option<Line> {
    let record = String::from_utf8_lossy(record);
    let (head, text) = record.split_once(';')?;
    let micros: u64 = head.split(',').nth(2)?.parse().ok()?;
    let text = text.lines().next().unwrap_or_default();
    Some(Line {
        at: booted + Duration::from_micros(micros),
        source: "kernel".into(),
        text: clean(text).into_owned(),
    })
}

/// The lines of our own log, the oldest first: the file and the one that was put aside before it.
pub(crate) fn own(path: &Path) -> io::Result<Vec<Line>> {
    let mut lines = Vec::new();
    let mut before = path.as_os_str().to_owned();
    before.push(".1");
    for path in [PathBuf::from(before), path.to_owned()] {
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            file => file?,
        };
        let text = file::read(&file, false)?;
        let over = text
            .len()
            .saturating_sub(usize::try_from(MOST_OWN).unwrap_or(0));
        let mut last = Timestamp::EPOCH;
        for line in String::from_utf8_lossy(text.get(over..).unwrap_or_default()).lines() {
            // What has no time of its own belongs to the line before.
            let (at, text) = match line.split_once(' ') {
                Some((at, text)) => match at.parse() {
                    Ok(at) => (at, text.trim_start()),
                    Err(_) => (last, line),
                },
                None => (last, line),
            };
            last = at;
            lines.push(Line {
                at,
                source: "aos".into(),
                text: clean(text).into_owned(),
            });
        }
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_the_kernel_is_one_line() {
        let booted = Timestamp::from_secs(100);
        let text = b"6,339,5140900,-;NET: Registered family\n SUBSYSTEM=net\n";
        assert_eq!(
            line(text, booted).unwrap().render(),
            "1970-01-01T00:01:45.1409Z [kernel] NET: Registered family\n"
        );
        assert_eq!(line(b"no record", booted), None);
        assert_eq!(line(b"6,1;x", booted), None);
    }

    #[test]
    fn our_own_log_is_read_with_what_was_put_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("aos.log");
        assert!(own(&path).unwrap().is_empty());
        std::fs::write(
            folder.path().join("aos.log.1"),
            "2026-01-01T00:00:00Z  INFO one\n",
        )
        .unwrap();
        std::fs::write(&path, "2026-01-01T00:00:01Z  WARN two\n  cause\n").unwrap();
        let lines: Vec<String> = own(&path).unwrap().iter().map(Line::render).collect();
        assert_eq!(
            lines,
            [
                "2026-01-01T00:00:00Z [aos] INFO one\n",
                "2026-01-01T00:00:01Z [aos] WARN two\n",
                "2026-01-01T00:00:01Z [aos]   cause\n"
            ]
        );
    }
}
