use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::ExitRecord;

/// Acknowledged lines after which the file is written anew.
const COMPACT_AFTER: usize = 256;
/// Longest journal read at the start; a longer one is no journal of ours.
const MAX_BYTES: u64 = 64 << 20;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Next(u64),
    Exit(ExitRecord),
    Ack(Vec<u64>),
}

/// Exits that nobody acknowledged, on the disk. What a call has returned is durable.
///
/// The file holds a JSON line for each exit and each acknowledgement; a line cut by a power failure is ignored.
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    next: u64,
    pending: BTreeMap<u64, ExitRecord>,
    dead_lines: usize,
}

impl Journal {
    /// Opens or makes the journal in `folder` and writes it anew without what was acknowledged.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        let path = folder.join("exits.journal");
        let mut text = String::new();
        match File::open(&path) {
            Ok(file) => {
                file.take(MAX_BYTES).read_to_string(&mut text)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let mut next = 1;
        let mut pending = BTreeMap::new();
        for line in text.lines() {
            match serde_json::from_str(line) {
                Ok(Line::Next(number)) => next = next.max(number),
                Ok(Line::Exit(exit)) => {
                    next = next.max(exit.seq + 1);
                    pending.insert(exit.seq, exit);
                }
                Ok(Line::Ack(seqs)) => {
                    for seq in seqs {
                        pending.remove(&seq);
                    }
                }
                // A cut or damaged line: what it said is lost, the rest counts.
                Err(_) => {}
            }
        }
        let file = rewrite(&path, next, &pending)?;
        Ok(Self {
            path,
            file,
            next,
            pending,
            dead_lines: 0,
        })
    }

    /// Numbers and stores an exit.
    pub(super) fn record(&mut self, mut exit: ExitRecord) -> io::Result<ExitRecord> {
        exit.seq = self.next;
        self.next += 1;
        // In memory in any case: a full disk must not hide the exit from a caller who is there.
        self.pending.insert(exit.seq, exit.clone());
        self.append(&Line::Exit(exit.clone()))?;
        Ok(exit)
    }

    /// Forgets exits.
    pub(super) fn acknowledge(&mut self, seqs: &[u64]) -> io::Result<()> {
        let known: Vec<u64> = seqs
            .iter()
            .copied()
            .filter(|seq| self.pending.remove(seq).is_some())
            .collect();
        if known.is_empty() {
            return Ok(());
        }
        self.dead_lines += known.len() + 1;
        if self.dead_lines > COMPACT_AFTER {
            self.file = rewrite(&self.path, self.next, &self.pending)?;
            self.dead_lines = 0;
            Ok(())
        } else {
            self.append(&Line::Ack(known))
        }
    }

    /// The numbers of the exits of `id`.
    pub(super) fn of(&self, id: &str) -> Vec<u64> {
        self.pending
            .values()
            .filter(|exit| exit.id == id)
            .map(|exit| exit.seq)
            .collect()
    }

    /// Exits after `since`, by number.
    pub(super) fn since(&self, since: u64) -> impl Iterator<Item = &ExitRecord> {
        self.pending
            .range(since.saturating_add(1)..)
            .map(|(_, exit)| exit)
    }

    fn append(&mut self, line: &Line) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(line)?;
        bytes.push(b'\n');
        self.file.write_all(&bytes)?;
        self.file.sync_data()
    }
}

fn rewrite(path: &Path, next: u64, pending: &BTreeMap<u64, ExitRecord>) -> io::Result<File> {
    let fresh = path.with_extension("new");
    let mut bytes = serde_json::to_vec(&Line::Next(next))?;
    bytes.push(b'\n');
    for exit in pending.values() {
        serde_json::to_writer(&mut bytes, &Line::Exit(exit.clone()))?;
        bytes.push(b'\n');
    }
    let mut file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)?;
    file.write_all(&bytes)?;
    file.sync_data()?;
    fs::rename(&fresh, path)?;
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    OpenOptions::new().append(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ExitCause;
    use aos_time::Timestamp;

    fn exit(id: &str) -> ExitRecord {
        ExitRecord {
            seq: 0,
            id: id.into(),
            pid: 5,
            cause: ExitCause::Code(3),
            at: Timestamp::EPOCH,
        }
    }

    fn ids(journal: &Journal, since: u64) -> Vec<String> {
        journal.since(since).map(|exit| exit.id.clone()).collect()
    }

    #[test]
    fn exits_stay_until_they_are_acknowledged_and_numbers_never_repeat() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(folder.path()).unwrap();
        assert_eq!(journal.record(exit("a")).unwrap().seq, 1);
        assert_eq!(journal.record(exit("b")).unwrap().seq, 2);
        journal.acknowledge(&[1, 77]).unwrap();
        drop(journal);

        let mut journal = Journal::open(folder.path()).unwrap();
        assert_eq!(ids(&journal, 0), ["b"]);
        assert_eq!(journal.of("b"), [2]);
        journal.acknowledge(&[2]).unwrap();
        drop(journal);

        let mut journal = Journal::open(folder.path()).unwrap();
        assert!(ids(&journal, 0).is_empty());
        assert_eq!(journal.record(exit("c")).unwrap().seq, 3);
    }

    #[test]
    fn a_line_cut_by_a_power_failure_costs_only_itself() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(folder.path()).unwrap();
        journal.record(exit("a")).unwrap();
        journal.record(exit("b")).unwrap();
        drop(journal);
        let path = folder.path().join("exits.journal");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, &text[..text.len() - 9]).unwrap();

        let mut journal = Journal::open(folder.path()).unwrap();
        assert_eq!(ids(&journal, 0), ["a"]);
        journal.record(exit("c")).unwrap();
        drop(journal);
        assert_eq!(ids(&Journal::open(folder.path()).unwrap(), 0), ["a", "c"]);
    }

    #[test]
    fn the_file_does_not_grow_with_what_is_acknowledged() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(folder.path()).unwrap();
        for _ in 0..1_000 {
            let seq = journal.record(exit("a")).unwrap().seq;
            journal.acknowledge(&[seq]).unwrap();
        }
        let length = fs::metadata(folder.path().join("exits.journal"))
            .unwrap()
            .len();
        assert!(length < 60_000, "{length} bytes");
    }
}
