use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use aos_log::{Crash, Keep, KeptFile, Piece, Span, surplus};
use aos_time::Timestamp;

use crate::{
    Visit,
    file::{self, gzip, plain},
};

/// Most files of one instance that the keeper may have put aside.
const ASIDE: u32 = 20;
/// Longest crash log, in plain bytes.
const MOST_CRASH: u64 = 4 << 20;

/// What instances wrote, and how they crashed. See the crate.
///
/// Names of instances are those that the keeper uses; nothing but letters, digits and dashes gets into a path.
#[derive(Debug)]
pub struct InstanceLogs {
    keepers: Vec<PathBuf>,
    archive: PathBuf,
    /// Held while files move, so that a reader finds each of them once.
    moving: Mutex<()>,
}

/// A file of the archive, as its name says.
struct Archived {
    path: PathBuf,
    first: Timestamp,
    last: Timestamp,
    crash: bool,
}

impl InstanceLogs {
    /// Over the folders of keepers' logs; makes the archive.
    pub fn open(keepers: Vec<PathBuf>, archive: PathBuf) -> io::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&archive)?;
        Ok(Self {
            keepers,
            archive,
            moving: Mutex::new(()),
        })
    }

    /// The folders in which keepers write.
    pub fn folders(&self) -> &[PathBuf] {
        &self.keepers
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        // It guards an order, no data.
        self.moving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves what keepers have put aside into the archive and compresses it. Says how many files there were.
    pub fn take_rotated(&self) -> io::Result<usize> {
        let mut taken = 0;
        for keeper in &self.keepers {
            for entry in entries(keeper)? {
                let name = entry.file_name();
                let Some((id, _)) = name.to_str().and_then(aside) else {
                    continue;
                };
                self.take(id, &entry.path())?;
                taken += 1;
            }
        }
        // An earlier attempt was cut.
        for folder in entries(&self.archive)? {
            for entry in entries(&folder.path())? {
                let name = entry.file_name();
                match name.to_str() {
                    Some(name) if name.starts_with("taking-") => self.compress(&entry.path())?,
                    Some(name) if name.ends_with(".new") => fs::remove_file(entry.path())?,
                    _ => {}
                }
            }
        }
        Ok(taken)
    }

    fn take(&self, id: &str, path: &Path) -> io::Result<()> {
        let folder = self.archive.join(id);
        make(&folder)?;
        let mut number = 0;
        let taking = loop {
            let place = folder.join(format!("taking-{number}"));
            if !place.exists() {
                break place;
            }
            number += 1;
        };
        {
            let _turn = self.turn();
            match fs::rename(path, &taking) {
                // The keeper has put it further aside meanwhile: the next look finds it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                moved => moved?,
            }
        }
        self.compress(&taking)
    }

    fn compress(&self, taking: &Path) -> io::Result<()> {
        let text = file::read(&File::open(taking)?, false)?;
        let times = |line: &[u8]| Piece::parse(line).map(|piece| piece.at);
        let mut lines = text.split(|&byte| byte == b'\n');
        let first = lines.clone().find_map(times);
        let last = lines.rfind(|line| times(line).is_some()).and_then(times);
        let (Some(first), Some(last)) = (first, last) else {
            return fs::remove_file(taking);
        };
        let folder = taking.parent().unwrap_or(&self.archive);
        let place = free(folder, first, last, "log");
        write_new(&place, &gzip(&text)?)?;
        let _turn = self.turn();
        fs::rename(place.with_extension("new"), &place)?;
        fs::remove_file(taking)
    }

    /// Removes what is too old or too much. Crashes count by themselves.
    pub fn tidy(&self, keep: &Keep, now: Timestamp) -> io::Result<()> {
        let mut paths = Vec::new();
        let mut files = Vec::new();
        for folder in entries(&self.archive)? {
            let id = folder.file_name().to_string_lossy().into_owned();
            for archived in archived(&folder.path())? {
                files.push(KeptFile {
                    instance: format!("{id}{}", if archived.crash { " crashes" } else { "" }),
                    last: archived.last,
                    bytes: fs::metadata(&archived.path).map_or(0, |facts| facts.len()),
                });
                paths.push(archived.path);
            }
        }
        let _turn = self.turn();
        for place in surplus(&files, keep, now) {
            if let Some(path) = paths.get(place) {
                remove(path)?;
            }
        }
        Ok(())
    }

    /// Removes all of an instance.
    pub fn forget(&self, id: &str) -> io::Result<()> {
        if !is_name(id) {
            return Ok(());
        }
        let _turn = self.turn();
        for keeper in &self.keepers {
            remove(&keeper.join(format!("{id}.log")))?;
            for number in 1..=ASIDE {
                remove(&keeper.join(format!("{id}.log.{number}")))?;
            }
        }
        match fs::remove_dir_all(self.archive.join(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The names of instances of which there is anything.
    pub fn instances(&self) -> io::Result<Vec<String>> {
        let mut names = BTreeMap::new();
        for keeper in &self.keepers {
            for entry in entries(keeper)? {
                let name = entry.file_name();
                if let Some(id) = name.to_str().and_then(|name| name.split('.').next()) {
                    names.insert(id.to_owned(), ());
                }
            }
        }
        for entry in entries(&self.archive)? {
            names.insert(entry.file_name().to_string_lossy().into_owned(), ());
        }
        Ok(names.into_keys().collect())
    }

    /// The file that is being written for an instance.
    pub fn current(&self, id: &str) -> Option<PathBuf> {
        let is = |folder: &PathBuf| Some(folder.join(format!("{id}.log"))).filter(|at| at.exists());
        self.keepers.iter().find_map(is)
    }

    /// Shows the lines of an instance in a time, the newest first, for as long as more are wanted.
    pub fn newest_first(
        &self,
        id: &str,
        source: &str,
        span: &Span,
        visit: Visit<'_>,
    ) -> io::Result<()> {
        if !is_name(id) {
            return Ok(());
        }
        for (file, compressed) in self.files(id, span)? {
            let text = match file::read(&file, compressed) {
                Ok(text) => text,
                Err(error) => {
                    // A file that is damaged costs itself only.
                    tracing::warn!(id, %error, "a file of a log cannot be read");
                    continue;
                }
            };
            for line in file::lines(source, &text).into_iter().rev() {
                if span.contains(line.at) && !visit(line) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The files that may have lines of a time, opened, the newest first.
    fn files(&self, id: &str, span: &Span) -> io::Result<Vec<(File, bool)>> {
        let _turn = self.turn();
        let mut files = Vec::new();
        let mut seen = Vec::new();
        for keeper in &self.keepers {
            // The keeper may put one aside between two looks: it is the same file under another name.
            let current = std::iter::once(format!("{id}.log"));
            for name in current.chain((1..=ASIDE).map(|number| format!("{id}.log.{number}"))) {
                let Some(file) = open(&keeper.join(name))? else {
                    continue;
                };
                let number = file.metadata()?.ino();
                if !seen.contains(&number) {
                    seen.push(number);
                    files.push((file, false));
                }
            }
        }
        let folder = self.archive.join(id);
        for entry in entries(&folder)? {
            if entry.file_name().to_string_lossy().starts_with("taking-") {
                files.extend(open(&entry.path())?.map(|file| (file, false)));
            }
        }
        let mut old = archived(&folder)?;
        old.retain(|one| !one.crash && span.meets(one.first, one.last));
        old.sort_by_key(|one| std::cmp::Reverse((one.last, one.first)));
        for one in old {
            files.extend(open(&one.path)?.map(|file| (file, true)));
        }
        Ok(files)
    }

    /// The last output of an instance, whole lines as they travel, at most so many bytes.
    pub fn last_words(&self, id: &str, source: &str, most: usize) -> io::Result<String> {
        let mut lines = Vec::new();
        let mut bytes = 0;
        self.newest_first(id, source, &Span::default(), &mut |line| {
            let line = line.render();
            bytes += line.len();
            let fits = bytes <= most;
            if fits {
                lines.push(line);
            }
            fits
        })?;
        Ok(lines.into_iter().rev().collect())
    }

    /// Keeps how an instance crashed, with its last output.
    pub fn put_crash(&self, id: &str, crash: &Crash, output: &str) -> io::Result<()> {
        if !is_name(id) {
            return Ok(());
        }
        let folder = self.archive.join(id);
        make(&folder)?;
        let place = free(&folder, crash.at, crash.at, "crash");
        write_new(&place, &gzip(crash.render(output).as_bytes())?)?;
        fs::rename(place.with_extension("new"), &place)
    }

    /// Shows the crash logs of an instance in a time, the newest first, for as long as more are wanted.
    pub fn crashes(
        &self,
        id: &str,
        span: &Span,
        visit: &mut dyn FnMut(String) -> bool,
    ) -> io::Result<()> {
        if !is_name(id) {
            return Ok(());
        }
        let mut crashes = archived(&self.archive.join(id))?;
        crashes.retain(|one| one.crash && span.contains(one.last));
        crashes.sort_by_key(|one| std::cmp::Reverse(one.last));
        for one in crashes {
            let Some(file) = open(&one.path)? else {
                continue;
            };
            let text = plain(file, MOST_CRASH)?;
            if !visit(String::from_utf8_lossy(&text).into_owned()) {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Whether this can be part of a path.
fn is_name(id: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    !id.is_empty() && id.len() <= 128 && id.chars().all(plain)
}

/// Whose file this is, and how far it was put aside.
fn aside(name: &str) -> Option<(&str, u32)> {
    let (rest, number) = name.rsplit_once('.')?;
    let id = rest.strip_suffix(".log")?;
    is_name(id).then_some(())?;
    Some((id, number.parse().ok()?))
}

/// The files of an archive folder, in no order.
fn archived(folder: &Path) -> io::Result<Vec<Archived>> {
    let read = |path: PathBuf| -> Option<Archived> {
        let name = path.file_name()?.to_str()?;
        let (name, crash) = match name.strip_suffix(".crash.gz") {
            Some(name) => (name, true),
            None => (name.strip_suffix(".log.gz")?, false),
        };
        let mut numbers = name.split(['-', '.']).map(str::parse::<i64>);
        let first = Timestamp::from_micros(numbers.next()?.ok()?);
        let last = Timestamp::from_micros(numbers.next()?.ok()?);
        Some(Archived {
            path,
            first,
            last,
            crash,
        })
    };
    let entries = entries(folder)?.into_iter();
    Ok(entries.filter_map(|entry| read(entry.path())).collect())
}

/// A name that is not taken.
fn free(folder: &Path, first: Timestamp, last: Timestamp, kind: &str) -> PathBuf {
    let (first, last) = (first.as_micros().max(0), last.as_micros().max(0));
    let mut name = format!("{first}-{last}.{kind}.gz");
    let mut number = 0;
    while folder.join(&name).exists() {
        number += 1;
        name = format!("{first}-{last}.{number}.{kind}.gz");
    }
    folder.join(name)
}

/// Writes the file that will be renamed to `place`.
fn write_new(place: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(place.with_extension("new"))?;
    file.write_all(content)?;
    file.sync_data()
}

fn make(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What is in a folder; nothing if it is not there.
fn entries(folder: &Path) -> io::Result<Vec<fs::DirEntry>> {
    match fs::read_dir(folder) {
        Ok(entries) => entries.collect(),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}
