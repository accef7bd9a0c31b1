use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor},
};
use tokio::io::{Interest, unix::AsyncFd};

use super::folders;

/// Pages of changes that are taken away at a time.
const READS: usize = 64;

/// Notices changes in folders. It does not say which: the reader compares.
///
/// Folders are watched and not files, so that a file that is replaced by another one of its name is noticed too.
pub(super) struct Watch {
    inotify: Option<Source>,
    watched: BTreeMap<PathBuf, WatchDescriptor>,
}

struct Source {
    inotify: Inotify,
    /// The same, to be waited for.
    ready: AsyncFd<OwnedFd>,
}

impl Watch {
    #[allow(
        deprecated,
        reason = "what replaces it is unsafe; an OwnedFd keeps its descriptor for as long as the AsyncFd lives"
    )]
    pub(super) fn new() -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let ready = inotify.as_fd().try_clone_to_owned()?;
        let ready = AsyncFd::with_interest(ready, Interest::READABLE)?;
        Ok(Self {
            inotify: Some(Source { inotify, ready }),
            watched: BTreeMap::new(),
        })
    }

    /// Notices nothing.
    pub(super) fn blind() -> Self {
        Self {
            inotify: None,
            watched: BTreeMap::new(),
        }
    }

    /// Watches these folders and no others. One that is not there yet is watched when it is asked for again.
    pub(super) fn only<'a>(&mut self, wanted: impl Iterator<Item = &'a Path>) {
        let Some(Source { inotify, .. }) = &self.inotify else {
            return;
        };
        let wanted = folders(wanted);
        self.watched.retain(|folder, descriptor| {
            let stays = wanted.contains(folder);
            if !stays {
                // It goes by itself with its folder.
                let _ = inotify.rm_watch(*descriptor);
            }
            stays
        });
        let flags = AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_ONLYDIR
            | AddWatchFlags::IN_DONT_FOLLOW;
        for folder in wanted {
            // Of one that is watched already the kernel gives the same number; of one made anew another.
            match inotify.add_watch(&folder, flags) {
                Ok(descriptor) => {
                    self.watched.insert(folder, descriptor);
                }
                Err(Errno::ENOENT) => {
                    self.watched.remove(&folder);
                }
                Err(error) => {
                    tracing::warn!(folder = %folder.display(), %error, "changes of a state are not noticed");
                }
            }
        }
    }

    /// Waits for a change. Cancel-safe: what was noticed stays until [`Watch::forget`].
    pub(super) async fn changed(&self) {
        if let Some(source) = &self.inotify
            && let Ok(mut ready) = source.ready.readable().await
        {
            ready.retain_ready();
            return;
        }
        std::future::pending().await
    }

    /// Takes away what was noticed. Call it before reading, so that a change while reading is noticed again.
    pub(super) fn forget(&self) {
        let Some(source) = &self.inotify else {
            return;
        };
        // A read takes a page of changes; who writes without end must not keep us here. What is left is noticed at once.
        for _ in 0..READS {
            let read = source.ready.try_io(Interest::READABLE, |_| {
                Ok(source.inotify.read_events().map(drop)?)
            });
            if read.is_err() {
                return;
            }
        }
    }
}
