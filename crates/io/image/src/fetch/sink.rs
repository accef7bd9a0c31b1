//! A blob's file while it grows, with the hashes of what is in it. Blocking.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::PathBuf,
};

use aos_types::Digest;
use rustix::fs::{FlockOperation, flock};
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use sha3::Sha3_256;

use super::{
    Error,
    source::{HashAlgorithm, Source, Wanted},
};
use crate::blob::{self, BlobStore, CHUNK, Stored, remove_file};

#[derive(Clone)]
enum Signed {
    No,
    Sha256,
    Sha384(Sha384),
    Sha512(Sha512),
}

#[derive(Clone)]
struct Hashes {
    sha256: Sha256,
    sha3: Option<Sha3_256>,
    signed: Signed,
}

impl Hashes {
    fn new(wanted: Wanted) -> Self {
        Self {
            sha256: Sha256::new(),
            sha3: wanted.sha3.then(Sha3_256::new),
            signed: match wanted.signature {
                None => Signed::No,
                Some(HashAlgorithm::Sha256) => Signed::Sha256,
                Some(HashAlgorithm::Sha384) => Signed::Sha384(Sha384::new()),
                Some(HashAlgorithm::Sha512) => Signed::Sha512(Sha512::new()),
            },
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        if let Some(sha3) = &mut self.sha3 {
            sha3.update(bytes);
        }
        match &mut self.signed {
            Signed::No | Signed::Sha256 => {}
            Signed::Sha384(hash) => hash.update(bytes),
            Signed::Sha512(hash) => hash.update(bytes),
        }
    }
}

/// The file of a transfer, locked against a second one.
pub(super) struct Sink {
    file: File,
    path: PathBuf,
    len: u64,
    size: u64,
    hashes: Hashes,
    wanted: Wanted,
}

impl Sink {
    /// Opens the partial file of a blob, hashing what an earlier transfer left.
    pub(super) fn open(
        store: &BlobStore,
        digest: &Digest,
        size: u64,
        wanted: Wanted,
    ) -> Result<Self, Error> {
        let path = store.partial_path(digest);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|e| blob::Error::io("open", &path, e))?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|e| match e {
            rustix::io::Errno::WOULDBLOCK => Error::Busy,
            e => blob::Error::io("lock", &path, e.into()).into(),
        })?;
        // Between opening and locking another transfer may have moved the file into the store: it is not ours to write then.
        let opened = file
            .metadata()
            .map_err(|e| blob::Error::io("look at", &path, e))?;
        let named = std::fs::metadata(&path);
        if !named.is_ok_and(|named| named.ino() == opened.ino()) {
            return Err(Error::Busy);
        }
        let mut sink = Self {
            file,
            path,
            len: 0,
            size,
            hashes: Hashes::new(wanted),
            wanted,
        };
        sink.take_up()?;
        Ok(sink)
    }

    fn take_up(&mut self) -> Result<(), Error> {
        let failed = |path: &PathBuf, e| blob::Error::io("read", path, e);
        let there = self
            .file
            .metadata()
            .map_err(|e| failed(&self.path, e))?
            .len();
        if there > self.size {
            return self.reset();
        }
        let mut buffer = vec![0; CHUNK];
        loop {
            let count = self
                .file
                .read(&mut buffer)
                .map_err(|e| failed(&self.path, e))?;
            if count == 0 {
                return Ok(());
            }
            self.hashes.update(buffer.get(..count).unwrap_or_default());
            self.len += count as u64;
        }
    }

    /// Bytes here.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Bytes announced.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Starts over.
    pub(super) fn reset(&mut self) -> Result<(), Error> {
        self.file
            .set_len(0)
            .and_then(|()| self.file.seek(SeekFrom::Start(0)))
            .map_err(|e| blob::Error::io("empty", &self.path, e))?;
        self.len = 0;
        self.hashes = Hashes::new(self.wanted);
        Ok(())
    }

    /// Adds bytes; the caller sees to it that there are not too many.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file
            .write_all(bytes)
            .map_err(|e| blob::Error::io("write", &self.path, e))?;
        self.hashes.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Checks the whole file and stores it. Wrong content empties the sink; a refused signature removes the file.
    pub(super) fn accept(
        mut self,
        store: &BlobStore,
        digest: &Digest,
        source: &Source,
    ) -> Result<Result<Stored, (Self, Error)>, Error> {
        let sha256: [u8; 32] = self.hashes.sha256.clone().finalize().into();
        let found = Digest::from_bytes(sha256);
        let checksum = source.checksum.filter(|expected| {
            let sha3 = self.hashes.sha3.clone().map(|hash| hash.finalize().into());
            expected.0 != sha256 && Some(expected.0) != sha3
        });
        let wrong = if let Some(expected) = checksum {
            Some(Error::Checksum { expected })
        } else if found != *digest {
            Some(Error::WrongDigest {
                expected: *digest,
                found,
            })
        } else {
            None
        };
        if let Some(error) = wrong {
            self.reset()?;
            return Ok(Err((self, error)));
        }
        if let Some(check) = &source.signature {
            let verdict = match self.hashes.signed.clone() {
                Signed::No | Signed::Sha256 => check.check(&sha256),
                Signed::Sha384(hash) => check.check(&hash.finalize()),
                Signed::Sha512(hash) => check.check(&hash.finalize()),
            };
            if let Err(refusal) = verdict {
                remove_file(&self.path)?;
                return Err(Error::Signature(refusal));
            }
        }
        store.adopt(&self.file, &self.path, digest)?;
        Ok(Ok(Stored {
            digest: *digest,
            size: self.len,
        }))
    }
}
