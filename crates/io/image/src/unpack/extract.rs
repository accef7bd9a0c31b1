use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs::File,
    io::{self, BufReader, Read, Write},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use aos_types::Digest;
use flate2::read::MultiGzDecoder;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use super::{
    Error, Extracted, Flavour, Limits, Refusal,
    entry::{self, Item, Kind, Pending},
    meter::{Meter, is_over, is_stopped},
    rooted::{Hidden, Rooted},
};
use crate::{blob::CHUNK, graph::Compression, tree::TreeDigest};

/// Unpacks a tar into `folder`, which must be there and should be empty. If it fails, what was written stays for the
/// caller to remove. Blocks; `stop` ends it between two reads.
pub fn extract(
    packed: impl Read,
    compression: Compression,
    folder: &Path,
    flavour: Flavour,
    limits: &Limits,
    stop: &CancellationToken,
) -> Result<Extracted, Error> {
    let packed = BufReader::with_capacity(CHUNK, packed);
    // The tar around the files: a block of header and padding an entry, extended headers, the blocks at the end.
    let cap = limits
        .bytes
        .saturating_add(limits.entries.saturating_mul(4096))
        .saturating_add(1 << 20);
    match compression {
        Compression::None => run(packed, cap, folder, flavour, limits, stop),
        Compression::Gzip => run(
            MultiGzDecoder::new(packed),
            cap,
            folder,
            flavour,
            limits,
            stop,
        ),
    }
}

/// Turns an error of the reader into ours: a cap, a stop, or damage.
pub(super) fn damaged(error: io::Error) -> Error {
    if is_stopped(&error) {
        Error::Stopped
    } else if let Some(cap) = is_over(&error) {
        Error::TooMuch {
            what: "bytes when unpacked",
            cap,
        }
    } else {
        Error::Damaged {
            expected: "tar of the announced kind",
            source: error,
        }
    }
}

fn run(
    tar: impl Read,
    cap: u64,
    folder: &Path,
    flavour: Flavour,
    limits: &Limits,
    stop: &CancellationToken,
) -> Result<Extracted, Error> {
    let mut archive = tar::Archive::new(Meter::new(tar, cap, stop));
    let mut writer = Writer {
        rooted: Rooted::open(folder)?,
        flavour,
        tree: TreeDigest::default(),
        folders: BTreeMap::new(),
        hidden: BTreeSet::new(),
        bytes: 0,
    };
    let mut pending = Pending::default();
    let mut entries = 0;
    let raw = archive.entries().map_err(damaged)?.raw(true);
    for entry in raw {
        let mut entry = entry.map_err(damaged)?;
        entries += 1;
        if entries > limits.entries.saturating_mul(3) {
            return Err(too_many(limits));
        }
        if let Some(item) = entry::read(&mut entry, &mut pending, limits)? {
            writer.write(item, &mut entry, limits)?;
            if writer.count() > limits.entries {
                return Err(too_many(limits));
            }
        }
    }
    writer.finish_folders()?;
    let digest = archive.into_inner().finish().map_err(damaged)?;
    Ok(Extracted {
        tar: digest,
        tree: writer.tree.finish(),
        bytes: writer.bytes,
        entries: writer.count(),
    })
}

fn too_many(limits: &Limits) -> Error {
    Error::TooMuch {
        what: "entries",
        cap: limits.entries,
    }
}

struct Writer {
    rooted: Rooted,
    flavour: Flavour,
    tree: TreeDigest,
    /// Folders are dressed last: writing into them changes their time, and may need their write bit.
    folders: BTreeMap<PathBuf, Item>,
    /// Whiteouts made so far.
    hidden: BTreeSet<PathBuf>,
    bytes: u64,
}

impl Writer {
    fn owners(&self) -> bool {
        self.flavour == Flavour::Layer
    }

    fn count(&self) -> u64 {
        (self.tree.len() + self.folders.len()) as u64 + self.rooted.made
    }

    fn write(&mut self, item: Item, content: &mut impl Read, limits: &Limits) -> Result<(), Error> {
        if self.owners() {
            if self.whiteout(&item)? {
                return Ok(());
            }
            self.show_again(&item)?;
        }
        match &item.kind {
            Kind::Folder => {
                self.rooted.make_folder(&item.path)?;
                self.folders.insert(item.path.clone(), item);
                Ok(())
            }
            Kind::File { size } => {
                let size = *size;
                self.bytes = self
                    .bytes
                    .checked_add(size)
                    .filter(|bytes| *bytes <= limits.bytes)
                    .ok_or(Error::TooMuch {
                        what: "bytes when unpacked",
                        cap: limits.bytes,
                    })?;
                let mut file = self.rooted.create(&item.path)?;
                let digest = copy(content, &mut file, size, &item.path)?;
                self.rooted.dress(&file, &item, self.owners())?;
                self.tree.add(&item.path, digest);
                Ok(())
            }
            Kind::SymbolicLink(target) => {
                self.rooted.symbolic_link(&item.path, target)?;
                self.tree.note();
                self.rooted.dress_link(&item, self.owners())
            }
            Kind::HardLink(target) => {
                let Some(digest) = self.tree.get(target) else {
                    let bytes = item.path.as_os_str().as_bytes();
                    return Err(Error::refused(
                        bytes,
                        Refusal::HardLink(target.to_string_lossy().chars().take(200).collect()),
                    ));
                };
                self.rooted.hard_link(&item.path, target)?;
                self.tree.add(&item.path, digest);
                Ok(())
            }
        }
    }

    /// Takes back whiteouts of what comes in this layer after all.
    fn show_again(&mut self, item: &Item) -> Result<(), Error> {
        let hidden: Vec<PathBuf> = item
            .path
            .ancestors()
            .filter(|path| self.hidden.contains(*path))
            .map(Path::to_owned)
            .collect();
        for path in hidden {
            self.rooted.remove_whiteout(&path)?;
            self.hidden.remove(&path);
            if path != item.path || item.kind == Kind::Folder {
                self.rooted.opaque(&path)?;
            }
        }
        Ok(())
    }

    /// Translates a whiteout; whether the entry was one.
    fn whiteout(&mut self, item: &Item) -> Result<bool, Error> {
        let name = item
            .path
            .file_name()
            .map(OsStrExt::as_bytes)
            .unwrap_or_default();
        let Some(hidden) = name.strip_prefix(b".wh.") else {
            return Ok(false);
        };
        let folder = item.path.parent().unwrap_or(Path::new(""));
        if hidden == b".wh..opq" {
            self.rooted.opaque(folder)?;
        } else if hidden.starts_with(b".wh.") {
            // Book-keeping of aufs (`.wh..wh.plnk` and the like), without meaning here.
        } else if matches!(hidden, b"" | b"." | b"..") {
            let bytes = item.path.as_os_str().as_bytes();
            return Err(Error::refused(bytes, Refusal::Name("hides nothing")));
        } else {
            let path = folder.join(OsStr::from_bytes(hidden));
            // It speaks of the layers below: what this one has of that name stays, a folder without what it lies over.
            match self.rooted.whiteout(&path)? {
                Hidden::Made => {
                    self.hidden.insert(path);
                }
                Hidden::Folder => self.rooted.opaque(&path)?,
                Hidden::Other => {}
            }
        }
        self.tree.note();
        Ok(true)
    }

    fn finish_folders(&mut self) -> Result<(), Error> {
        for item in self.folders.values().rev() {
            self.rooted.finish_folder(item, self.owners())?;
        }
        Ok(())
    }
}

fn copy(content: &mut impl Read, file: &mut File, size: u64, path: &Path) -> Result<Digest, Error> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; CHUNK.min(usize::try_from(size).unwrap_or(CHUNK)).max(1)];
    let mut left = size;
    while left > 0 {
        let want = buffer
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        let count = match content.read(buffer.get_mut(..want).unwrap_or_default()) {
            Ok(0) => return Err(damaged(io::ErrorKind::UnexpectedEof.into())),
            Ok(count) => count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(damaged(e)),
        };
        let bytes = buffer.get(..count).unwrap_or_default();
        hasher.update(bytes);
        file.write_all(bytes)
            .map_err(|e| Error::io("write", path, e))?;
        left -= count as u64;
    }
    Ok(Digest::from_bytes(hasher.finalize().into()))
}
