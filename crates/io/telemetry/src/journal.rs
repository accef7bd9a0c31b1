use std::{path::PathBuf, process::Stdio};

use serde::Deserialize;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt as _, BufReader, Lines, Take},
    process::{Child, ChildStdout, Command},
};

use crate::Error;

/// One entry of the journal or of the kernel's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// 0 (emergency) to 7 (debug).
    pub priority: u8,
    /// The systemd unit it is about; empty if there is none.
    pub unit: String,
    /// Who wrote it.
    pub identifier: String,
    /// What.
    pub message: String,
    /// Names its place, to go on behind it; empty if there is none.
    pub cursor: String,
}

/// Most that is read of one `journalctl` before it is started anew; a line longer than that is left out.
const MOST: u64 = 4 << 20;
/// Longest line that is looked at.
const LINE: usize = 256 << 10;

/// The journal from now on, or from behind an entry, by a `journalctl` that waits for more.
#[derive(Debug)]
pub struct Journal {
    // Ends with this.
    _child: Child,
    lines: Lines<BufReader<Take<ChildStdout>>>,
}

impl Journal {
    /// Whether this machine has a journal, and `journalctl` to read it by.
    pub fn is_there(program: &std::path::Path) -> bool {
        let kept = ["/run/log/journal", "/var/log/journal"]
            .iter()
            .any(|folder| PathBuf::from(folder).is_dir());
        let found = |folder: PathBuf| folder.join(program).is_file();
        kept && std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(found))
    }

    /// Follows entries of this priority and more urgent ones. With a cursor none since then is missed and none is told
    /// twice, also when the journal was rotated meanwhile.
    pub fn follow(program: &std::path::Path, priority: u8, cursor: &str) -> Result<Self, Error> {
        let mut command = Command::new(program);
        command
            .args(["--follow", "--output=json", "--quiet", "--all"])
            .arg(format!("--priority={priority}"));
        if cursor.is_empty() {
            command.arg("--lines=0");
        } else {
            command.args(["--no-tail", &format!("--after-cursor={cursor}")]);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| Error::Read {
                path: program.to_path_buf(),
                source,
            })?;
        let stdout = child.stdout.take().ok_or_else(|| Error::Content {
            path: program.to_path_buf(),
            what: "output",
        })?;
        Ok(Self {
            _child: child,
            lines: BufReader::new(stdout.take(MOST)).lines(),
        })
    }

    /// The next entry; nothing when `journalctl` has ended. What cannot be read is left out. Cancel-safe.
    pub async fn next(&mut self) -> Option<Entry> {
        loop {
            let line = self.lines.next_line().await.ok()??;
            if let Some(entry) = Some(line)
                .filter(|line| line.len() <= LINE)
                .and_then(|line| parse(&line))
            {
                return Some(entry);
            }
        }
    }
}

/// The fields that are looked at. A value is a text, a list of bytes if it is no text, or null if it is too long.
#[derive(Deserialize)]
#[serde(untagged)]
enum Value {
    Text(String),
    Bytes(Vec<u8>),
    /// The same field more than once, or nothing.
    Other(serde::de::IgnoredAny),
}

impl Value {
    fn text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Bytes(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Self::Other(_) => String::new(),
        }
    }
}

#[derive(Deserialize)]
struct Fields {
    #[serde(rename = "PRIORITY")]
    priority: Option<Value>,
    #[serde(rename = "MESSAGE")]
    message: Option<Value>,
    #[serde(rename = "_SYSTEMD_UNIT")]
    own_unit: Option<Value>,
    #[serde(rename = "UNIT")]
    unit: Option<Value>,
    #[serde(rename = "SYSLOG_IDENTIFIER")]
    identifier: Option<Value>,
    #[serde(rename = "__CURSOR")]
    cursor: Option<Value>,
}

fn parse(line: &str) -> Option<Entry> {
    let fields: Fields = serde_json::from_str(line).ok()?;
    let text = |value: Option<Value>| value.map(Value::text).unwrap_or_default();
    let own = text(fields.own_unit);
    // What systemd says of a unit it says in its own scope.
    let unit = match own.as_str() {
        "" | "init.scope" => text(fields.unit),
        _ => own,
    };
    Some(Entry {
        priority: text(fields.priority)
            .parse()
            .ok()
            .filter(|number| *number <= 7)?,
        unit,
        identifier: text(fields.identifier),
        message: text(fields.message),
        cursor: text(fields.cursor),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt};

    #[test]
    fn entries_of_all_kinds_are_read() {
        let line = r#"{"__CURSOR":"s=1","PRIORITY":"3","_SYSTEMD_UNIT":"a.service","SYSLOG_IDENTIFIER":"a","MESSAGE":"bad"}"#;
        let entry = parse(line).unwrap();
        assert_eq!(
            (entry.priority, entry.unit.as_str(), entry.message.as_str()),
            (3, "a.service", "bad")
        );
        assert_eq!(entry.cursor, "s=1");
        let of_systemd = r#"{"PRIORITY":"4","_SYSTEMD_UNIT":"init.scope","UNIT":"b.service","MESSAGE":[104,105]}"#;
        let entry = parse(of_systemd).unwrap();
        assert_eq!(
            (entry.unit.as_str(), entry.message.as_str()),
            ("b.service", "hi")
        );
        assert_eq!(
            parse(r#"{"PRIORITY":"3","MESSAGE":null}"#).unwrap().message,
            ""
        );
        for bad in ["", "{", r#"{"MESSAGE":"x"}"#, r#"{"PRIORITY":"9"}"#] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }

    #[tokio::test]
    async fn it_is_followed_from_behind_the_cursor_and_its_end_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("journalctl");
        let script = format!(
            "#!/bin/sh\necho \"$@\" > {}/said\necho '{{\"PRIORITY\":\"2\",\"MESSAGE\":\"one\",\"__CURSOR\":\"c1\"}}'\necho nonsense\n\
             echo '{{\"PRIORITY\":\"3\",\"MESSAGE\":\"two\",\"__CURSOR\":\"c2\"}}'\n",
            folder.path().display()
        );
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let mut journal = Journal::follow(&program, 4, "c0").unwrap();
        let first = journal.next().await.unwrap();
        assert_eq!(
            (first.message.as_str(), first.cursor.as_str()),
            ("one", "c1")
        );
        assert_eq!(journal.next().await.unwrap().message, "two");
        assert_eq!(journal.next().await, None);
        let said = fs::read_to_string(folder.path().join("said")).unwrap();
        assert!(
            said.contains("--after-cursor=c0") && said.contains("--priority=4"),
            "{said}"
        );
        assert!(Journal::follow(&folder.path().join("none"), 4, "").is_err());
    }
}
