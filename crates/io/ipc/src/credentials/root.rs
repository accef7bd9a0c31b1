use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use aos_pki::Roots;
use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;
use tokio_util::sync::CancellationToken;

/// Look again after this long even if the kernel said nothing: the folder may be on a file system that does not tell.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Waits until the root certificate is there and can be used. `None` if `stop` comes first.
pub async fn wait_for_root(path: &Path, stop: &CancellationToken) -> Option<Roots> {
    let mut told = String::new();
    loop {
        // Watched before it is looked for: a file that comes in between is not missed.
        let watch = Watch::on(path);
        match Roots::from_file(path) {
            Ok(roots) => return Some(roots),
            Err(error) => {
                let why = error.to_string();
                if told != why {
                    tracing::info!(path = %path.display(), why, "waiting for the root certificate: has this Unit joined a cloud?");
                    told = why;
                }
            }
        }
        // All arms only wait; nothing is lost if one is dropped.
        tokio::select! {
            () = changed(&watch) => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
            () = stop.cancelled() => return None,
        }
    }
}

struct Watch(Option<AsyncFd<rustix::fd::OwnedFd>>);

impl Watch {
    /// Watches the folder of `path`, or the nearest one above it that exists.
    fn on(path: &Path) -> Self {
        let folder = path
            .ancestors()
            .skip(1)
            .find(|folder| folder.is_dir())
            .map_or_else(|| PathBuf::from("."), Path::to_path_buf);
        Self(Self::open(&folder).ok())
    }

    #[allow(
        deprecated,
        reason = "what replaces it is unsafe; an OwnedFd keeps its descriptor for as long as the AsyncFd lives"
    )]
    fn open(folder: &Path) -> io::Result<AsyncFd<rustix::fd::OwnedFd>> {
        let fd = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
        let flags = inotify::WatchFlags::CREATE
            | inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::CLOSE_WRITE;
        inotify::add_watch(&fd, folder, flags)?;
        AsyncFd::new(fd)
    }
}

async fn changed(watch: &Watch) {
    match &watch.0 {
        // A write may be followed by more: give it a moment instead of reading half a file twice.
        Some(fd) if fd.readable().await.is_ok() => {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        _ => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aos_pki::Authority;
    use aos_time::{Clock, SystemClock};

    #[tokio::test]
    async fn it_is_noticed_when_it_comes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("iam/ca.pem");
        let authority = Authority::in_memory("test", SystemClock.now()).unwrap();
        let pem = authority.root_pem();
        let stop = CancellationToken::new();
        let waiting = wait_for_root(&path, &stop);
        let coming = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            std::fs::create_dir(path.parent().unwrap()).unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
            std::fs::write(&path, &pem).unwrap();
        };
        let (roots, ()) = tokio::time::timeout(Duration::from_secs(5), async {
            tokio::join!(waiting, coming)
        })
        .await
        .unwrap();
        assert_eq!(roots.unwrap().certificates().len(), 1);
    }
}
