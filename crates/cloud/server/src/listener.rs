use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use aos_pki::{PeerIdentity, ServerTls};
use axum::{Router, body::Body, extract::ConnectInfo};
use http::Request;
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;

/// How long a TLS handshake may take.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// How long the head of a request may take.
const HEAD_DEADLINE: Duration = Duration::from_secs(30);
/// How long requests under way may take when the cloud stops.
const DRAIN_DEADLINE: Duration = Duration::from_secs(5);
/// The pause when the system has no connections to give.
const BREATH: Duration = Duration::from_millis(100);

/// Serves `router` over TLS on `listener` until `stop`, with at most `most` connections at once.
pub(crate) async fn serve(
    what: &'static str,
    listener: TcpListener,
    tls: ServerTls,
    router: Router,
    most: usize,
    stop: CancellationToken,
) {
    let acceptor = TlsAcceptor::from(tls.config);
    let places = Arc::new(Semaphore::new(most));
    let tasks = TaskTracker::new();
    loop {
        // Waiting for a place and accepting are cancel-safe.
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = next(&listener, &places) => accepted,
        };
        let (stream, address, place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // One connection that failed before it was taken, or no file descriptors left.
                tracing::warn!(what, %error, "a connection could not be accepted");
                sleep(BREATH).await;
                continue;
            }
        };
        let (acceptor, router, stop) = (acceptor.clone(), router.clone(), stop.clone());
        tasks.spawn(async move {
            if let Err(error) = connection(acceptor, stream, address, router, stop).await {
                tracing::debug!(what, %address, %error, "a connection ended with an error");
            }
            drop(place);
        });
    }
    drop(listener);
    tasks.close();
    if timeout(DRAIN_DEADLINE, tasks.wait()).await.is_err() {
        tracing::warn!(what, left = tasks.len(), "connections did not end in time");
    }
}

async fn next(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let place = places
        .clone()
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    let (stream, address) = listener.accept().await?;
    Ok((stream, address, place))
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

async fn connection(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    address: SocketAddr,
    router: Router,
    stop: CancellationToken,
) -> Result<(), AnyError> {
    stream.set_nodelay(true)?;
    let stream = timeout(HANDSHAKE_DEADLINE, acceptor.accept(stream)).await??;
    let peer = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(<[_]>::first)
        .map(|certificate| PeerIdentity::from_der(certificate))
        .transpose()?;
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(address));
        if let Some(peer) = &peer {
            request.extensions_mut().insert(peer.clone());
        }
        router.clone().oneshot(request.map(Body::new))
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(HEAD_DEADLINE)
        .max_concurrent_streams(64);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        // The connection goes on below when the stop comes first.
        ended = connection.as_mut() => return ended,
        () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    timeout(DRAIN_DEADLINE, connection).await?
}
