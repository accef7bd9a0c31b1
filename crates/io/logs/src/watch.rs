use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::{Interest, unix::AsyncFd};

/// Notices that something in folders was written or moved. It does not say what: the reader looks.
#[derive(Debug)]
pub struct Watch {
    inotify: Inotify,
    ready: AsyncFd<OwnedFd>,
}

impl Watch {
    /// Over these folders, as far as they are there. `written`: also when a file grows, not only when one is moved.
    #[allow(
        deprecated,
        reason = "what replaces it is unsafe; an OwnedFd keeps its descriptor for as long as the AsyncFd lives"
    )]
    pub fn over<'a>(
        folders: impl IntoIterator<Item = &'a Path>,
        written: bool,
    ) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let ready = inotify.as_fd().try_clone_to_owned()?;
        let ready = AsyncFd::with_interest(ready, Interest::READABLE)?;
        let mut flags = AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_ONLYDIR;
        if written {
            flags |= AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE;
        }
        for folder in folders {
            match inotify.add_watch(folder, flags) {
                Ok(_) | Err(nix::errno::Errno::ENOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Self { inotify, ready })
    }

    /// Waits for a change, and takes away what was noticed. Cancel-safe: until it returns nothing is taken away.
    pub async fn changed(&self) -> io::Result<()> {
        loop {
            let mut ready = self.ready.readable().await?;
            let read = ready.try_io(|_| Ok(self.inotify.read_events().map(drop)?));
            match read {
                Ok(read) => return read,
                Err(_would_block) => {}
            }
        }
    }
}
