use std::{
    io::{self, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use aos_log::{Line, Span, clean};
use aos_time::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Deserialize;
use serde_json::Value;

use crate::Visit;

/// How long `journalctl` may say nothing.
const SILENCE: Duration = Duration::from_secs(30);
/// Longest entry that is read, in bytes of JSON.
const MOST_ENTRY: usize = 1 << 20;
/// What is read of an entry.
const FIELDS: &str = "MESSAGE,_SYSTEMD_UNIT,UNIT,SYSLOG_IDENTIFIER";

/// The journal of journald, read by `journalctl`: its files are systemd's own affair.
#[derive(Debug, Clone)]
pub(crate) struct Journal {
    /// A folder of journals instead of the system's.
    pub(crate) folder: Option<PathBuf>,
}

/// Where journald keeps what it writes.
const FOLDERS: [&str; 2] = ["/var/log/journal", "/run/log/journal"];

impl Journal {
    /// The journal of this Node, if journald runs here and `journalctl` can be had.
    pub(crate) fn of_this_node() -> Option<Self> {
        let there = FOLDERS.iter().any(|folder| Path::new(folder).is_dir())
            && Path::new("/run/systemd/journal/socket").exists();
        let journal = Self { folder: None };
        (there && journal.works()).then_some(journal)
    }

    pub(crate) fn works(&self) -> bool {
        let mut command = Command::new("journalctl");
        command
            .arg("--version")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    }

    pub(crate) fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![
            "--quiet".to_owned(),
            "--no-pager".into(),
            "--all".into(),
            "--output=json".into(),
            format!("--output-fields={FIELDS}"),
        ];
        match &self.folder {
            Some(folder) => arguments.push(format!("--directory={}", folder.display())),
            None => arguments.push("--system".into()),
        }
        arguments
    }

    /// Shows entries of a time, the newest first, for as long as more are wanted.
    pub(crate) fn newest_first(&self, span: &Span, visit: Visit<'_>) -> io::Result<()> {
        let mut command = Command::new("journalctl");
        command.args(self.arguments()).arg("--reverse");
        if let Some(from) = span.from {
            command.arg(format!("--since=@{}", from.as_secs().max(0)));
        }
        if let Some(till) = span.till {
            // It knows whole seconds only.
            command.arg(format!(
                "--until=@{}",
                till.as_secs().max(0).saturating_add(1)
            ));
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut entries = Entries::of(child);
        while let Some(entry) = entries.next()? {
            let Some(line) = line(&entry) else { continue };
            if span.contains(line.at) && !visit(line) {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// An entry as a line.
pub(crate) fn line(entry: &[u8]) -> Option<Line> {
    #[derive(Deserialize)]
    struct Entry {
        #[serde(rename = "__REALTIME_TIMESTAMP")]
        at: String,
        #[serde(rename = "MESSAGE", default)]
        message: Value,
        #[serde(rename = "_SYSTEMD_UNIT", default)]
        unit: Value,
        #[serde(rename = "UNIT", default)]
        about: Value,
        #[serde(rename = "SYSLOG_IDENTIFIER", default)]
        name: Value,
    }
    let entry: Entry = serde_json::from_slice(entry).ok()?;
    let source = [&entry.about, &entry.unit, &entry.name]
        .into_iter()
        .find_map(|word| Some(text(word)).filter(|text| !text.is_empty()))
        .unwrap_or_else(|| "system".into());
    Some(Line {
        at: Timestamp::from_micros(entry.at.parse().ok()?),
        source: clean(&source.replace(['[', ']'], "")).into_owned(),
        text: clean(&text(&entry.message)).into_owned(),
    })
}

/// A field: text, the bytes of one that is no UTF-8, or the first of several.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(list) => {
            let bytes: Option<Vec<u8>> = list
                .iter()
                .map(|byte| byte.as_u64().and_then(|byte| u8::try_from(byte).ok()))
                .collect();
            match bytes {
                Some(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                None => list.first().map(text).unwrap_or_default(),
            }
        }
        _ => String::new(),
    }
}

/// What `journalctl` prints, an entry a line. It is ended with this.
struct Entries {
    child: Child,
    waiting: Vec<u8>,
    ended: bool,
}

impl Entries {
    fn of(child: Child) -> Self {
        Self {
            child,
            waiting: Vec::new(),
            ended: false,
        }
    }

    fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut from = 0;
        loop {
            let end = self
                .waiting
                .iter()
                .skip(from)
                .position(|&byte| byte == b'\n');
            if let Some(end) = end {
                let line: Vec<u8> = self.waiting.drain(..=from + end).collect();
                if line.len() <= MOST_ENTRY {
                    return Ok(Some(line));
                }
                from = 0;
                continue;
            }
            if self.ended {
                return Ok(None);
            }
            // The beginning of an entry that is too long is let go; its end cannot be read and is passed over.
            if self.waiting.len() > MOST_ENTRY {
                self.waiting.clear();
            }
            from = self.waiting.len();
            self.fill()?;
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        let Some(output) = &mut self.child.stdout else {
            self.ended = true;
            return Ok(());
        };
        let deadline = Instant::now() + SILENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let wait = Timespec::try_from(left).unwrap_or(Timespec {
                tv_sec: 1,
                tv_nsec: 0,
            });
            let mut ready = [PollFd::new(output, PollFlags::IN)];
            match poll(&mut ready, Some(&wait)) {
                Ok(0) => {
                    return Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        "journalctl says nothing for too long",
                    ));
                }
                Ok(_) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let mut buffer = [0; 64 << 10];
        let count = output.read(&mut buffer)?;
        self.ended = count == 0;
        self.waiting
            .extend_from_slice(buffer.get(..count).unwrap_or_default());
        Ok(())
    }
}

impl Drop for Entries {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_every_shape_become_lines() {
        let of = |entry: &str| line(entry.as_bytes()).map(|line| line.render());
        assert_eq!(
            of(r#"{"__REALTIME_TIMESTAMP":"1000000","MESSAGE":"up","_SYSTEMD_UNIT":"a.service"}"#)
                .unwrap(),
            "1970-01-01T00:00:01Z [a.service] up\n"
        );
        assert_eq!(
            of(r#"{"__REALTIME_TIMESTAMP":"0","MESSAGE":[104,255,10],"SYSLOG_IDENTIFIER":"ker]nel"}"#).unwrap(),
            "1970-01-01T00:00:00Z [kernel] h\u{fffd}\\x0a\n"
        );
        assert_eq!(
            of(r#"{"__REALTIME_TIMESTAMP":"0","MESSAGE":null}"#).unwrap(),
            "1970-01-01T00:00:00Z [system] \n"
        );
        assert_eq!(
            of(r#"{"__REALTIME_TIMESTAMP":"0","MESSAGE":["one","two"],"UNIT":"u","_SYSTEMD_UNIT":"init.scope"}"#)
                .unwrap(),
            "1970-01-01T00:00:00Z [u] one\n"
        );
        for bad in ["", "{}", "[1]", r#"{"__REALTIME_TIMESTAMP":"soon"}"#] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
