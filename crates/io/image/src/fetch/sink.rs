//! A blob's file while it grows: decrypted, hashed, written. Blocking.
//!
//! Only plain bytes are on disk. They have no name in the store before everything about them was found right, so bytes that
//! turn out wrong, or not authenticated, are never used.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::PathBuf,
    sync::Arc,
};

use aos_pki::{BlobDecryptor, BlobKey, BlobReplay};
use aos_types::Digest;
use rustix::{
    fs::{FallocateFlags, FlockOperation, XattrFlags, fallocate, fgetxattr, flock, fsetxattr},
    io::Errno,
};

use super::{
    Error,
    hashes::{Hashes, Wanted},
    source::Source,
};
use crate::blob::{self, BlobStore, CHUNK, LARGE, Spool, Stored, remove_file, write_back};

/// Below this nothing is reserved: the file is written in one go.
const RESERVE: u64 = 64 * 1024;
/// Where the first bytes of an encrypted file are kept that are no part of its text.
const HEAD: &str = "user.aos.head";

/// The file of a transfer, locked against a second one.
pub(super) struct Sink {
    /// Ends before the file it writes.
    spool: Option<Spool>,
    file: File,
    path: PathBuf,
    /// Bytes of the transferred file that are here.
    len: u64,
    /// Bytes of the transferred file.
    size: u64,
    /// Plain bytes in our file.
    written: u64,
    hashes: Hashes,
    wanted: Wanted,
    key: Option<Arc<BlobKey>>,
    decryptor: Option<BlobDecryptor>,
    plain: Vec<u8>,
    is_head_kept: bool,
}

impl Sink {
    /// Opens the partial file of a blob, takes up what an earlier transfer left, and reserves room for the rest.
    pub(super) fn open(store: &BlobStore, digest: &Digest, source: &Source) -> Result<Self, Error> {
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
            Errno::WOULDBLOCK => Error::Busy,
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
        let wanted = source.hashes(digest);
        let mut sink = Self {
            spool: None,
            file,
            path,
            len: 0,
            size: source.size,
            written: 0,
            hashes: Hashes::new(wanted),
            wanted,
            key: source.key.clone(),
            decryptor: None,
            plain: Vec::new(),
            is_head_kept: false,
        };
        match sink.key.clone() {
            None => sink.take_up()?,
            Some(key) => sink.take_up_encrypted(&key)?,
        }
        if let Err(error) = sink.reserve() {
            sink.release();
            return Err(error);
        }
        Ok(sink)
    }

    fn io(&self, doing: &'static str) -> impl FnOnce(std::io::Error) -> blob::Error + '_ {
        move |e| blob::Error::io(doing, &self.path, e)
    }

    fn there(&self) -> Result<u64, Error> {
        Ok(self.file.metadata().map_err(self.io("look at"))?.len())
    }

    fn take_up(&mut self) -> Result<(), Error> {
        if self.there()? > self.size {
            return self.reset();
        }
        let mut buffer = vec![0; CHUNK];
        loop {
            let count = self.file.read(&mut buffer).map_err(self.io("read"))?;
            if count == 0 {
                return Ok(());
            }
            let bytes = buffer.get(..count).unwrap_or_default();
            self.hashes.file(bytes);
            self.hashes.content(bytes);
            self.len += count as u64;
            self.written = self.len;
        }
    }

    /// What is here is plain: it is encrypted again, for the checksums of the file and to go on where it stopped. If that
    /// cannot be, the transfer starts over.
    fn take_up_encrypted(&mut self, key: &Arc<BlobKey>) -> Result<(), Error> {
        let there = self.there()?;
        if there == 0 || there >= self.size {
            return self.reset();
        }
        let mut head = [0; 64];
        let head = match fgetxattr(&self.file, HEAD, &mut head[..]) {
            Ok(count) => head.get(..count).unwrap_or_default().to_vec(),
            Err(_) => return self.reset(),
        };
        let Ok(mut replay) = BlobReplay::new(key, &head) else {
            return self.reset();
        };
        let usable = there / BlobReplay::UNIT as u64 * BlobReplay::UNIT as u64;
        self.hashes.file(replay.head());
        self.len = replay.head().len() as u64;
        let (mut buffer, mut again) = (vec![0; CHUNK], Vec::new());
        while self.written < usable {
            let most = usize::try_from(usable - self.written).unwrap_or(CHUNK);
            let piece = buffer.get_mut(..most.min(CHUNK)).unwrap_or_default();
            self.file
                .read_exact(piece)
                .map_err(|e| blob::Error::io("read", &self.path, e))?;
            again.clear();
            replay.push(piece, &mut again)?;
            self.hashes.file(&again);
            self.hashes.content(piece);
            self.len += again.len() as u64;
            self.written += piece.len() as u64;
        }
        self.file.set_len(usable).map_err(self.io("cut"))?;
        self.decryptor = Some(replay.into_decryptor()?);
        self.is_head_kept = true;
        Ok(())
    }

    /// Sets room aside for the whole file, so that a full disk is noticed before anything is transferred. Plain content is
    /// never longer than what it was encrypted to.
    fn reserve(&self) -> Result<(), Error> {
        if self.size < RESERVE {
            return Ok(());
        }
        match fallocate(&self.file, FallocateFlags::KEEP_SIZE, 0, self.size) {
            // A file system that cannot reserve says so when it is full.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(()),
            Err(e) => Err(blob::Error::io("reserve room for", &self.path, e.into()).into()),
        }
    }

    /// Gives back what was reserved and not written. For a transfer that will not go on soon.
    pub(super) fn release(&mut self) {
        // What could not be written is not there.
        let here = self
            .settle()
            .and_then(|()| self.file.metadata())
            .map(|meta| meta.len().min(self.written));
        if let Err(error) = here.and_then(|here| self.file.set_len(here)) {
            tracing::debug!(%error, "reserved room is not given back now");
        }
    }

    /// Bytes of the transferred file that are here.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Bytes announced.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Starts over. Cutting the file gives back what was reserved, so that is done anew.
    pub(super) fn reset(&mut self) -> Result<(), Error> {
        // Whatever became of what was written, it goes.
        let _ = self.settle();
        self.file
            .seek(SeekFrom::Start(0))
            .map_err(self.io("go back in"))?;
        if self.there()? > 0 {
            self.file.set_len(0).map_err(self.io("empty"))?;
            self.reserve()?;
        }
        self.len = 0;
        self.written = 0;
        self.hashes = Hashes::new(self.wanted);
        self.is_head_kept = false;
        self.decryptor = match &self.key {
            Some(key) => Some(BlobDecryptor::new(key)?),
            None => None,
        };
        Ok(())
    }

    /// Adds bytes of the transferred file; the caller sees to it that there are not too many.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.hashes.file(bytes);
        self.len += bytes.len() as u64;
        let Some(decryptor) = &mut self.decryptor else {
            return self.write(bytes);
        };
        let mut plain = std::mem::take(&mut self.plain);
        plain.clear();
        decryptor.update(bytes, &mut plain)?;
        if !self.is_head_kept
            && let Some(head) = decryptor.head()
        {
            // Without it a later process starts over: nothing is lost but time.
            let _ = fsetxattr(&self.file, HEAD, &head, XattrFlags::empty());
            self.is_head_kept = true;
        }
        let outcome = self.write(&plain);
        self.plain = plain;
        outcome
    }

    fn write(&mut self, plain: &[u8]) -> Result<(), Error> {
        self.store(plain)
            .map_err(|e| blob::Error::io("write", &self.path, e))?;
        self.hashes.content(plain);
        self.written += plain.len() as u64;
        Ok(())
    }

    fn store(&mut self, plain: &[u8]) -> io::Result<()> {
        if self.spool.is_none() && self.written >= LARGE {
            self.spool = Some(Spool::start(self.file.try_clone()?, self.written)?);
        }
        match &mut self.spool {
            Some(spool) => spool.push(plain),
            None => {
                self.file.write_all(plain)?;
                let now = self.written + plain.len() as u64;
                write_back(&self.file, self.written, now);
                Ok(())
            }
        }
    }

    /// Ends writing for now, so that no thread waits for a transfer that may not go on.
    pub(super) fn pause(&mut self) -> Result<(), Error> {
        self.settle()
            .map_err(|e| blob::Error::io("write", &self.path, e).into())
    }

    /// Waits until everything is in the file.
    fn settle(&mut self) -> io::Result<()> {
        match self.spool.take() {
            Some(mut spool) => spool.end(),
            None => Ok(()),
        }
    }

    /// Whether the whole file is what was announced; its last bytes are decrypted.
    fn check(&mut self, digest: &Digest, source: &Source) -> Result<Result<(), Error>, Error> {
        if let Some(expected) = source
            .checksum
            .filter(|expected| !self.hashes.is_file(&expected.0))
        {
            return Ok(Err(Error::Checksum { expected }));
        }
        if let Some(decryptor) = self.decryptor.take() {
            let mut last = Vec::new();
            if let Err(error) = decryptor.finish(&mut last) {
                return Ok(Err(error.into()));
            }
            self.write(&last)?;
        }
        self.pause()?;
        let found = Digest::from_bytes(self.hashes.digest());
        if found != *digest {
            return Ok(Err(Error::WrongDigest {
                expected: *digest,
                found,
            }));
        }
        Ok(Ok(()))
    }

    /// Checks the whole file and stores it. Wrong content empties the sink; a refused signature removes the file.
    pub(super) fn accept(
        mut self,
        store: &BlobStore,
        digest: &Digest,
        source: &Source,
    ) -> Result<Result<Stored, (Self, Error)>, Error> {
        if let Err(error) = self.check(digest, source)? {
            self.reset()?;
            return Ok(Err((self, error)));
        }
        if let Some(check) = &source.signature
            && let Err(refusal) = check.check(&self.hashes.signed())
        {
            remove_file(&self.path)?;
            return Err(Error::Signature(refusal));
        }
        if self.written < self.size {
            // What was reserved for padding and tag.
            self.file.set_len(self.written).map_err(self.io("cut"))?;
        }
        store.adopt(&self.file, &self.path, digest)?;
        Ok(Ok(Stored {
            digest: *digest,
            size: self.written,
        }))
    }
}
