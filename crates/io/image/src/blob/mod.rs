//! The blob store: a folder of blobs named by their content.
//!
//! ```text
//! <root>/blobs/sha256/<hex>      whole, verified blobs, read-only for their owner
//! <root>/blobs/partial/<hex>     a transfer that may be resumed
//! <root>/blobs/partial/.new-*    a blob being written; swept when the store is opened
//! ```
//!
//! A blob is written beside its place, flushed, and renamed there only when its SHA-256 is the name it gets, so a file
//! under `sha256/` is always whole. All calls block: from async code use `spawn_blocking`.

mod error;
mod spool;
mod writer;

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    num::NonZeroU64,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use aos_types::Digest;
use rustix::fs::{Advice, fadvise};
use sha2::{Digest as _, Sha256};

pub use error::Error;
pub(crate) use spool::{LARGE, Spool};
pub use writer::BlobWriter;

/// Bytes read or written at once.
pub(crate) const CHUNK: usize = 128 * 1024;

/// Bytes after which the kernel is told to start writing to the disk: the flush at the end finds little left to do.
const WRITE_BACK: u64 = 8 << 20;

/// A blob that is in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Its digest, which is its name.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
}

/// What a garbage collection took away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Blobs removed.
    pub blobs: usize,
    /// Bytes freed, those of abandoned transfers included.
    pub bytes: u64,
    /// Blobs and transfers that nobody needs but that are too young to go.
    pub young: usize,
}

/// A folder of blobs. Cheap to clone; clones share the folder.
#[derive(Debug, Clone)]
pub struct BlobStore {
    blobs: PathBuf,
    partial: PathBuf,
    max_blob: u64,
}

impl BlobStore {
    /// The largest blob taken if the owner of the store sets no other limit: 16 GiB.
    pub const DEFAULT_MAX_BLOB: u64 = 16 << 30;

    /// Opens the store under `root`, making its folders (mode 0700) and sweeping what an earlier run left half written.
    pub fn open(root: impl AsRef<Path>) -> Result<Self, Error> {
        let base = root.as_ref().join("blobs");
        let store = Self {
            blobs: base.join("sha256"),
            partial: base.join("partial"),
            max_blob: Self::DEFAULT_MAX_BLOB,
        };
        for folder in [&store.blobs, &store.partial] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .map_err(|e| Error::io("make the folder", folder, e))?;
        }
        store.sweep_unfinished()?;
        Ok(store)
    }

    /// Sets the largest blob that is taken, in bytes.
    #[must_use]
    pub fn with_max_blob(mut self, bytes: u64) -> Self {
        self.max_blob = bytes;
        self
    }

    /// The largest blob that is taken, in bytes.
    pub fn max_blob(&self) -> u64 {
        self.max_blob
    }

    /// Where the blob is or would be.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.blobs.join(digest.hex())
    }

    /// Where a transfer of the blob is kept until it is whole.
    pub fn partial_path(&self, digest: &Digest) -> PathBuf {
        self.partial.join(digest.hex())
    }

    /// The size of the blob in bytes, or nothing if it is not here.
    pub fn size(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        let path = self.path(digest);
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_file() => Ok(Some(meta.len())),
            Ok(_) => Err(Error::NotAFile { path }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io("look at", &path, e)),
        }
    }

    /// Whether the blob is here. Its content was verified when it came in; see [`verify`](Self::verify) for bit rot.
    pub fn contains(&self, digest: &Digest) -> Result<bool, Error> {
        Ok(self.size(digest)?.is_some())
    }

    /// Starts writing a blob. Dropping the writer before [`BlobWriter::finish`] leaves nothing behind.
    pub fn writer(&self) -> Result<BlobWriter, Error> {
        BlobWriter::new(&self.blobs, &self.partial, self.max_blob)
    }

    /// Takes in all of `reader`; if a digest is expected, content of another one is refused and not stored.
    pub fn insert(
        &self,
        mut reader: impl Read,
        expected: Option<&Digest>,
    ) -> Result<Stored, Error> {
        let mut writer = self.writer()?;
        let mut buffer = vec![0; CHUNK];
        loop {
            let count = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(Error::Source(e)),
            };
            writer.push(buffer.get(..count).unwrap_or_default())?;
        }
        writer.finish(expected)
    }

    /// Takes in a small blob that is in memory.
    pub fn insert_bytes(&self, content: &[u8]) -> Result<Stored, Error> {
        self.insert(content, None)
    }

    /// Moves a whole file of the same file system into the store. The caller vouches that `digest` was computed over
    /// exactly the bytes in the file; this flushes the file before it gets its name.
    pub(crate) fn adopt(&self, file: &File, from: &Path, digest: &Digest) -> Result<(), Error> {
        file.set_permissions(fs::Permissions::from_mode(0o400))
            .and_then(|()| file.sync_all())
            .map_err(|e| Error::io("flush", from, e))?;
        let to = self.path(digest);
        fs::rename(from, &to).map_err(|e| Error::io("rename into the store", &to, e))?;
        sync_folder(&self.blobs)
    }

    /// Opens the blob for reading.
    pub fn open_blob(&self, digest: &Digest) -> Result<File, Error> {
        let path = self.path(digest);
        File::open(&path).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => Error::Absent { digest: *digest },
            _ => Error::io("open", &path, e),
        })
    }

    /// Opens `length` bytes of the blob from `offset`; shorter if the blob ends before.
    pub fn open_range(
        &self,
        digest: &Digest,
        offset: u64,
        length: u64,
    ) -> Result<io::Take<File>, Error> {
        let mut file = self.open_blob(digest)?;
        file.seek(SeekFrom::Start(offset))
            .map_err(|e| Error::io("seek in", &self.path(digest), e))?;
        Ok(file.take(length))
    }

    /// The whole blob in memory, if it has at most `cap` bytes. For configs and manifests, not for layers.
    pub fn read(&self, digest: &Digest, cap: u64) -> Result<Vec<u8>, Error> {
        let file = self.open_blob(digest)?;
        let path = self.path(digest);
        let size = file
            .metadata()
            .map_err(|e| Error::io("look at", &path, e))?
            .len();
        if size > cap {
            return Err(Error::TooLong {
                digest: Some(*digest),
                cap,
            });
        }
        let mut content = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
        file.take(cap)
            .read_to_end(&mut content)
            .map_err(|e| Error::io("read", &path, e))?;
        Ok(content)
    }

    /// Reads the whole blob and compares its content with its name. A corrupt blob is removed and reported.
    pub fn verify(&self, digest: &Digest) -> Result<u64, Error> {
        let mut file = self.open_blob(digest)?;
        let path = self.path(digest);
        let (found, size) =
            hash_reader(&mut file, u64::MAX).map_err(|e| Error::io("read", &path, e))?;
        if found == *digest {
            return Ok(size);
        }
        // Somebody may have put a good one in its place meanwhile.
        let read = file.metadata().ok().map(|meta| meta.ino());
        let named = fs::metadata(&path).ok().map(|meta| meta.ino());
        if read == named {
            self.remove(digest)?;
        }
        Err(Error::Corrupt {
            expected: *digest,
            found,
        })
    }

    /// Removes the blob and what was transferred of it. Whether it was there.
    pub fn remove(&self, digest: &Digest) -> Result<bool, Error> {
        remove_file(&self.partial_path(digest))?;
        let was_there = remove_file(&self.path(digest))?;
        if was_there {
            sync_folder(&self.blobs)?;
        }
        Ok(was_there)
    }

    /// Every blob with its size, by digest. Files that are not named like a blob are passed over.
    pub fn list(&self) -> Result<Vec<Stored>, Error> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.blobs).map_err(|e| Error::io("list", &self.blobs, e))? {
            let entry = entry.map_err(|e| Error::io("list", &self.blobs, e))?;
            let Some(digest) = digest_of_name(&entry) else {
                continue;
            };
            match entry.metadata() {
                Ok(meta) if meta.is_file() => found.push(Stored {
                    digest,
                    size: meta.len(),
                }),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(Error::io("look at", &entry.path(), e)),
            }
        }
        found.sort_by_key(|stored| stored.digest);
        Ok(found)
    }

    /// Removes every blob and every transfer whose digest is not in `keep`. Blobs younger than `grace` stay: somebody may
    /// just be about to refer to them.
    pub fn collect(&self, keep: &BTreeSet<Digest>, grace: Duration) -> Result<Collected, Error> {
        let mut collected = Collected::default();
        for (folder, counts) in [(&self.blobs, 1), (&self.partial, 0)] {
            let mut gone = false;
            for entry in fs::read_dir(folder).map_err(|e| Error::io("list", folder, e))? {
                let entry = entry.map_err(|e| Error::io("list", folder, e))?;
                let Some(digest) = digest_of_name(&entry) else {
                    continue;
                };
                if keep.contains(&digest) {
                    continue;
                }
                let Ok(meta) = entry.metadata() else { continue };
                if !older_than(&meta, grace) {
                    collected.young += 1;
                    continue;
                }
                if remove_file(&entry.path())? {
                    gone = true;
                    collected.blobs += counts;
                    collected.bytes = collected.bytes.saturating_add(meta.len());
                }
            }
            if gone {
                sync_folder(folder)?;
            }
        }
        Ok(collected)
    }

    fn sweep_unfinished(&self) -> Result<(), Error> {
        for entry in fs::read_dir(&self.partial).map_err(|e| Error::io("list", &self.partial, e))? {
            let entry = entry.map_err(|e| Error::io("list", &self.partial, e))?;
            let unfinished = entry
                .file_name()
                .to_str()
                .is_some_and(|name| name.starts_with(writer::UNFINISHED));
            // A second process on the same folder may be writing right now; only what nobody can still hold goes.
            let abandoned = entry
                .metadata()
                .is_ok_and(|meta| older_than(&meta, Duration::from_secs(3600)));
            if unfinished && abandoned {
                remove_file(&entry.path())?;
            }
        }
        Ok(())
    }
}

fn older_than(meta: &fs::Metadata, grace: Duration) -> bool {
    grace.is_zero()
        || meta
            .modified()
            .ok()
            .and_then(|at| SystemTime::now().duration_since(at).ok())
            .is_some_and(|age| age >= grace)
}

fn digest_of_name(entry: &fs::DirEntry) -> Option<Digest> {
    let name = entry.file_name();
    format!("sha256:{}", name.to_str()?).parse().ok()
}

/// Removes a file; whether it was there.
pub(crate) fn remove_file(path: &Path) -> Result<bool, Error> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(Error::io("remove", path, e)),
    }
}

/// Flushes a folder, so that a rename into it survives a power cut.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), Error> {
    File::open(folder)
        .and_then(|dir| dir.sync_all())
        .map_err(|e| Error::io("flush the folder", folder, e))
}

/// Tells the kernel to write back what was written of a growing file, a stretch at a time. Memory then holds no more than a
/// stretch or two of it, and the flush before the rename is short. Only advice: whatever becomes of it, the flush decides.
pub(crate) fn write_back(file: &File, before: u64, now: u64) {
    let (old, new) = (before / WRITE_BACK, now / WRITE_BACK);
    if new > old
        && let Some(length) = NonZeroU64::new((new - old) * WRITE_BACK)
    {
        let _ = fadvise(file, old * WRITE_BACK, Some(length), Advice::DontNeed);
    }
}

/// The SHA-256 and the size of at most `cap` bytes of `reader`.
pub(crate) fn hash_reader(reader: &mut impl Read, cap: u64) -> io::Result<(Digest, u64)> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    let mut total = 0_u64;
    let mut reader = reader.take(cap);
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                hasher.update(buffer.get(..count).unwrap_or_default());
                total += count as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok((Digest::from_bytes(hasher.finalize().into()), total))
}
