use std::{
    fs,
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use aos_types::Digest;
use sha2::{Digest as _, Sha256};

use super::{Error, LARGE, Spool, Stored, sync_folder, write_back};

/// How the names of blobs being written begin.
pub(super) const UNFINISHED: &str = ".new-";

/// A blob on its way into the store. Its SHA-256 is computed while it is written.
#[derive(Debug)]
pub struct BlobWriter {
    blobs: PathBuf,
    /// Ends before the file it writes.
    spool: Option<Spool>,
    file: tempfile::NamedTempFile,
    hasher: Sha256,
    size: u64,
    cap: u64,
}

impl BlobWriter {
    pub(super) fn new(blobs: &Path, partial: &Path, cap: u64) -> Result<Self, Error> {
        Ok(Self {
            blobs: blobs.to_owned(),
            spool: None,
            file: tempfile::Builder::new()
                .prefix(UNFINISHED)
                .tempfile_in(partial)
                .map_err(|e| Error::io("create a file in", partial, e))?,
            hasher: Sha256::new(),
            size: 0,
            cap,
        })
    }

    /// Bytes written so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds bytes; refused once the blob would be longer than the store takes.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if self.cap - self.size < bytes.len() as u64 {
            return Err(Error::TooLong {
                digest: None,
                cap: self.cap,
            });
        }
        self.write(bytes)
            .map_err(|e| Error::io("write", self.file.path(), e))?;
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.spool.is_none() && self.size >= LARGE {
            self.spool = Some(Spool::start(self.file.as_file().try_clone()?, self.size)?);
        }
        match &mut self.spool {
            Some(spool) => spool.push(bytes),
            None => {
                self.file.write_all(bytes)?;
                write_back(
                    self.file.as_file(),
                    self.size,
                    self.size + bytes.len() as u64,
                );
                Ok(())
            }
        }
    }

    /// Flushes the blob and gives it its name. Content of another digest than `expected` is thrown away.
    pub fn finish(mut self, expected: Option<&Digest>) -> Result<Stored, Error> {
        let digest = Digest::from_bytes(self.hasher.finalize().into());
        if let Some(expected) = expected.filter(|expected| **expected != digest) {
            return Err(Error::WrongDigest {
                expected: *expected,
                found: digest,
            });
        }
        self.spool
            .as_mut()
            .map_or(Ok(()), Spool::end)
            .map_err(|e| Error::io("write", self.file.path(), e))?;
        let file = self.file.as_file();
        file.set_permissions(fs::Permissions::from_mode(0o400))
            .and_then(|()| file.sync_all())
            .map_err(|e| Error::io("flush", self.file.path(), e))?;
        let place = self.blobs.join(digest.hex());
        self.file
            .persist(&place)
            .map_err(|e| Error::io("rename into the store", &place, e.error))?;
        sync_folder(&self.blobs)?;
        Ok(Stored {
            digest,
            size: self.size,
        })
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
