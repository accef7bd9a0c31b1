//! gRPC for programs of this machine, over a Unix socket: who may open the file may call. No TLS, nothing leaves the machine.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{
    Request,
    service::Routes,
    transport::{Channel, Endpoint, Server, Uri, server::UdsConnectInfo},
};

use crate::ServeError;

/// How long open calls may go on after the stop.
const GRACE: Duration = Duration::from_secs(2);
/// Longest `/etc/group` that is looked through.
const GROUPS: usize = 1 << 20;

/// A socket cannot be listened at.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// Somebody else does.
    #[error("another program listens at {path}")]
    Taken {
        /// Where.
        path: PathBuf,
    },
    /// Something is there that is no socket.
    #[error("{path} is there and is no socket")]
    NoSocket {
        /// Where.
        path: PathBuf,
    },
    /// It cannot be made.
    #[error("cannot listen at {path}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Listens at `path`, for root and for the group of this name if the machine has it. What a program that ended left there is
/// replaced. Blocks for a moment.
pub fn listen_local(path: &Path, group: &str) -> Result<UnixListener, LocalError> {
    let at = |source| LocalError::Io {
        path: path.to_path_buf(),
        source,
    };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(at)?;
    }
    match fs::symlink_metadata(path) {
        Ok(there) if !there.file_type().is_socket() => {
            let path = path.to_path_buf();
            return Err(LocalError::NoSocket { path });
        }
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path).map_err(at)?;
            }
            Ok(_) => {
                let path = path.to_path_buf();
                return Err(LocalError::Taken { path });
            }
            Err(source) => return Err(at(source)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(at(source)),
    }
    let listener = UnixListener::bind(path).map_err(at)?;
    if let Some(id) = id_of(group) {
        let id = Some(rustix::fs::Gid::from_raw(id));
        rustix::fs::chown(path, None, id).map_err(|error| at(error.into()))?;
    }
    // Until now nobody but us could write to it, and that is what connecting takes.
    fs::set_permissions(path, fs::Permissions::from_mode(0o660)).map_err(at)?;
    Ok(listener)
}

/// The id of a group in `/etc/group`.
fn id_of(group: &str) -> Option<u32> {
    let text = fs::read_to_string("/etc/group").ok()?;
    let text = text.get(..GROUPS.min(text.len()))?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let named = fields.next()? == group;
        let id = fields.nth(1)?.parse().ok()?;
        named.then_some(id)
    })
}

/// Serves `routes` on a Unix socket until `stop`; open calls get 2 s to end then. Whether a call came this way is told by
/// [`is_local`].
pub async fn serve_local(
    listener: UnixListener,
    routes: Routes,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let serving = Server::builder()
        .add_routes(routes)
        .serve_with_incoming_shutdown(
            UnixListenerStream::new(listener),
            stop.clone().cancelled_owned(),
        );
    tokio::pin!(serving);
    // Neither arm loses anything: `serving` goes on below, and a cancelled token stays cancelled.
    tokio::select! {
        ended = &mut serving => return Ok(ended?),
        () = stop.cancelled() => {}
    }
    // Those that are still open are closed when this is dropped.
    tokio::time::timeout(GRACE, serving)
        .await
        .unwrap_or(Ok(()))
        .map_err(Into::into)
}

/// Whether a request came over [`serve_local`].
pub fn is_local<T>(request: &Request<T>) -> bool {
    request.extensions().get::<UdsConnectInfo>().is_some()
}

/// Connects to a Unix socket.
pub async fn connect_local(path: &Path) -> io::Result<Channel> {
    // Asked first by itself: the reason gets lost on the way through the client.
    drop(UnixStream::connect(path).await?);
    let place = path.to_path_buf();
    let service = tower::service_fn(move |_: Uri| {
        let place = place.clone();
        async move { Ok::<_, io::Error>(TokioIo::new(UnixStream::connect(place).await?)) }
    });
    Endpoint::from_static("http://localhost")
        .connect_with_connector(service)
        .await
        .map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

    use super::*;

    #[tokio::test]
    async fn what_a_dead_program_left_is_replaced_and_a_living_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/cm.sock");
        let first = listen_local(&path, "no such group").unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        let second = listen_local(&path, "no such group");
        assert!(matches!(second, Err(LocalError::Taken { .. })));
        drop(first);
        listen_local(&path, "no such group").unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let refused = listen_local(&file, "no such group");
        assert!(matches!(refused, Err(LocalError::NoSocket { .. })));
    }

    #[test]
    fn groups_are_found_by_their_name() {
        assert_eq!(id_of("root"), Some(0));
        assert_eq!(id_of("no such group"), None);
    }
}
