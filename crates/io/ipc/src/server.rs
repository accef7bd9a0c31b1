use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use aos_pki::{PeerIdentity, ServerTls, handshake_reason};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{
    sync::{CancellationToken, WaitForCancellationFutureOwned},
    task::TaskTracker,
};
use tonic::{
    Request, Status,
    service::{InterceptorLayer, Routes},
    transport::{Server, server::Connected},
};

use crate::Peer;

/// How long a client may take to shake hands.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How many handshakes run at once; more wait in the kernel's queue.
const HANDSHAKES: usize = 64;
/// How long open calls may go on after the stop.
const GRACE: Duration = Duration::from_secs(2);

/// The server ended by itself.
#[derive(Debug, thiserror::Error)]
#[error("the gRPC server failed")]
pub struct ServeError(#[from] tonic::transport::Error);

/// Puts the peer's identity into the request by itself, for handlers that want nothing else of [`Peer`].
#[allow(clippy::result_large_err, reason = "the signature is tonic's")]
fn show_identity(mut request: Request<()>) -> Result<Request<()>, Status> {
    let identity = request
        .extensions()
        .get::<Peer>()
        .and_then(|peer| peer.identity.clone());
    if let Some(identity) = identity {
        request.extensions_mut().insert(identity);
    }
    Ok(request)
}

/// Serves `routes` over TLS on `listener` until `stop`. Open calls get 2 s to end then, after which their connections
/// are closed. Clients are pinged every 10 s, so that a dead one is noticed. A client that fails the handshake is logged
/// with the reason and touches nothing else.
///
/// Each request carries a [`Peer`] and, if the client showed a certificate, its
/// [`PeerIdentity`](aos_pki::PeerIdentity) as extensions.
pub async fn serve(
    listener: TcpListener,
    tls: ServerTls,
    routes: Routes,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let (incoming, connections) = mpsc::channel::<io::Result<Connection>>(16);
    let cut = CancellationToken::new();
    let tracker = TaskTracker::new();
    tracker.spawn(accept(
        listener,
        TlsAcceptor::from(tls.config),
        incoming,
        stop.clone(),
        cut.clone(),
        tracker.clone(),
    ));
    tracker.close();
    let router = Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .layer(InterceptorLayer::new(show_identity))
        .add_routes(routes);
    let serving = router.serve_with_incoming_shutdown(
        ReceiverStream::new(connections),
        stop.clone().cancelled_owned(),
    );
    tokio::pin!(serving);
    // Neither arm loses anything: `serving` goes on below, and a cancelled token stays cancelled.
    let ended = tokio::select! {
        ended = &mut serving => Some(ended),
        () = stop.cancelled() => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => match tokio::time::timeout(GRACE, &mut serving).await {
            Ok(ended) => ended,
            Err(_) => {
                cut.cancel();
                serving.await
            }
        },
    };
    stop.cancel();
    cut.cancel();
    tracker.wait().await;
    ended.map_err(ServeError)
}

async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    incoming: mpsc::Sender<io::Result<Connection>>,
    stop: CancellationToken,
    cut: CancellationToken,
    tracker: TaskTracker,
) {
    let places = Arc::new(Semaphore::new(HANDSHAKES));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        // Accepting is cancel-safe: no connection is lost, it stays in the kernel's queue.
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, most likely: give others time to close some.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (acceptor, incoming) = (acceptor.clone(), incoming.clone());
        let (stop, cut) = (stop.clone(), cut.clone());
        tracker.spawn(async move {
            let shaken = tokio::select! {
                shaken = tokio::time::timeout(HANDSHAKE, shake(acceptor, stream, cut)) => shaken,
                () = stop.cancelled() => return,
            };
            drop(place);
            match shaken {
                Ok(Ok(connection)) => {
                    let _ = incoming.send(Ok(connection)).await;
                }
                Ok(Err(error)) => {
                    tracing::warn!(%address, reason = handshake_reason(&error), "a client was refused");
                }
                Err(_) => tracing::warn!(%address, "a client did not finish its handshake in time"),
            }
        });
    }
}

async fn shake(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    cut: CancellationToken,
) -> io::Result<Connection> {
    stream.set_nodelay(true)?;
    let address = stream.peer_addr().ok();
    let stream = acceptor.accept(stream).await?;
    let identity = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain| chain.first())
        .map(|leaf| PeerIdentity::from_der(leaf))
        .transpose()
        .map_err(io::Error::other)?;
    Ok(Connection {
        stream,
        peer: Peer { identity, address },
        cut: Box::pin(cut.cancelled_owned()),
    })
}

/// A connection that knows its peer and can be cut from outside.
struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Connection {
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.cut.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionAborted.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Err(error) = self.check(context) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
