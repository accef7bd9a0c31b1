//! Writes a growing file on a thread of its own, so that hashing and decrypting go on meanwhile.

use std::{
    fs::File,
    io::{self, Write},
    sync::mpsc::{self, Receiver, SyncSender},
    thread::{self, JoinHandle},
};

use super::write_back;

/// From this size on a file is worth a thread.
pub(crate) const LARGE: u64 = 1 << 20;
/// Pieces that may wait for the disk.
const WAITING: usize = 4;

/// A file being written. Its thread ends with it.
#[derive(Debug)]
pub(crate) struct Spool {
    to: Option<SyncSender<Vec<u8>>>,
    /// Buffers that were written and can be filled anew.
    spare: Receiver<Vec<u8>>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Spool {
    /// Goes on behind the first `at` bytes of `file`, which is positioned there.
    pub(crate) fn start(mut file: File, mut at: u64) -> io::Result<Self> {
        let (to, pieces) = mpsc::sync_channel::<Vec<u8>>(WAITING);
        let (written, spare) = mpsc::channel();
        let work = move || {
            for piece in pieces {
                file.write_all(&piece)?;
                let before = at;
                at += piece.len() as u64;
                write_back(&file, before, at);
                // Nobody takes buffers back any more only if the last one was given.
                let _ = written.send(piece);
            }
            Ok(())
        };
        let thread = thread::Builder::new()
            .name("blob-write".into())
            .spawn(work)?;
        Ok(Self {
            to: Some(to),
            spare,
            thread: Some(thread),
        })
    }

    /// Adds bytes. An error may be that of earlier ones.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut piece = self.spare.try_recv().unwrap_or_default();
        piece.clear();
        piece.extend_from_slice(bytes);
        match self.to.as_ref().map(|to| to.send(piece)) {
            Some(Ok(())) => Ok(()),
            // The thread has stopped: its reason is the one to report.
            Some(Err(_)) | None => {
                self.end()?;
                Err(io::Error::other("the file is not written any more"))
            }
        }
    }

    /// Waits until everything is written. Further calls do nothing.
    pub(crate) fn end(&mut self) -> io::Result<()> {
        self.to = None;
        match self.thread.take() {
            Some(thread) => thread
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("the thread that writes was lost"))),
            None => Ok(()),
        }
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        let _ = self.end();
    }
}
