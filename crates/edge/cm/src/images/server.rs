//! Serves blobs to the Nodes: `GET /blobs/sha256/<hex>` over mutual TLS, with ranges. Where the configuration names Nodes
//! that cannot, also by plain HTTP under paths that are passes (`legacy`).

use std::{convert::Infallible, io, net::IpAddr, sync::Arc, time::Duration};

use aos_image::BlobStore;
use aos_pki::{ServerTls, handshake_reason};
use aos_types::Digest;
use bytes::Bytes;
use futures::TryStreamExt;
use http::{
    HeaderMap, Method, Request, Response, StatusCode,
    header::{ACCEPT_RANGES, ALLOW, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE},
};
use http_body_util::{BodyExt, Empty, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    fs::File,
    io::{AsyncRead, AsyncReadExt, AsyncSeekExt, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{io::ReaderStream, sync::CancellationToken, task::TaskTracker};

use super::legacy::Passes;

/// Connections at once; more wait in the kernel's queue.
const CONNECTIONS: usize = 128;
/// How long a client may take to shake hands, and to send the head of a request.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a connection may live. A client that takes longer goes on with a range.
const LIFETIME: Duration = Duration::from_secs(3600);
/// Bytes read at once.
const CHUNK: usize = 128 * 1024;

/// How clients come in.
#[derive(Clone)]
pub(super) enum Door {
    /// By mutual TLS, whose certificate says that it is an SM of this Unit.
    Mutual(ServerTls),
    /// By plain HTTP, with a pass.
    Plain(Passes),
}

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Serves until `stop`; open transfers are cut then, clients resume them.
pub(super) async fn serve(
    listener: TcpListener,
    door: Door,
    blobs: BlobStore,
    stop: &CancellationToken,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let tracker = TaskTracker::new();
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            break;
        };
        // Accepting is cancel-safe: the connection stays in the kernel's queue.
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        let (stream, from) = match accepted {
            Ok((stream, from)) => (stream, from.ip()),
            Err(error) => {
                // Out of descriptors, most likely: give others time to close some.
                tracing::warn!(%error, "cannot accept a connection for blobs");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (door, blobs, stop) = (door.clone(), blobs.clone(), stop.clone());
        tracker.spawn(async move {
            tokio::select! {
                () = connection(stream, from, door, blobs) => {}
                () = tokio::time::sleep(LIFETIME) => {}
                () = stop.cancelled() => {}
            }
            drop(place);
        });
    }
    tracker.close();
    tracker.wait().await;
}

async fn connection(stream: TcpStream, from: IpAddr, door: Door, blobs: BlobStore) {
    let _ = stream.set_nodelay(true);
    let tls = match door {
        Door::Plain(passes) => {
            let find = move |path: &str| passes.open(path, from);
            return converse(stream, blobs, find).await;
        }
        Door::Mutual(tls) => TlsAcceptor::from(tls.config),
    };
    let stream = match timeout(HANDSHAKE, tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::warn!(
                reason = handshake_reason(&error),
                "a client for blobs was refused"
            );
            return;
        }
        Err(_) => return,
    };
    converse(stream, blobs, by_digest).await;
}

/// The blob that a path names by its digest.
fn by_digest(path: &str) -> Option<Digest> {
    let hex = path.strip_prefix("/blobs/sha256/")?;
    format!("sha256:{hex}").parse().ok()
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    blobs: BlobStore,
    find: impl Fn(&str) -> Option<Digest> + Send + Sync + Clone + 'static,
) {
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let blobs = blobs.clone();
        let wanted = find(request.uri().path());
        async move { Ok::<_, Infallible>(answer(&blobs, &request, wanted).await) }
    });
    let mut server = auto::Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HANDSHAKE);
    server
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(HANDSHAKE)
        .max_concurrent_streams(16);
    if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(error, "a connection for blobs ended");
    }
}

async fn answer(
    blobs: &BlobStore,
    request: &Request<Incoming>,
    wanted: Option<Digest>,
) -> Response<Body> {
    let head = match *request.method() {
        Method::GET => false,
        Method::HEAD => true,
        _ => {
            let mut refusal = bare(StatusCode::METHOD_NOT_ALLOWED);
            refusal
                .headers_mut()
                .insert(ALLOW, http::HeaderValue::from_static("GET, HEAD"));
            return refusal;
        }
    };
    let Some(digest) = wanted else {
        return bare(StatusCode::NOT_FOUND);
    };
    match blob(blobs, &digest, request.headers(), head).await {
        Ok(response) => response,
        Err(error) if error.kind() == io::ErrorKind::NotFound => bare(StatusCode::NOT_FOUND),
        Err(error) => {
            tracing::warn!(%digest, %error, "a blob cannot be served");
            bare(StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
}

async fn blob(
    blobs: &BlobStore,
    digest: &Digest,
    headers: &HeaderMap,
    head: bool,
) -> io::Result<Response<Body>> {
    let mut file = File::open(blobs.path(digest)).await?;
    let size = file.metadata().await?.len();
    let range = headers.get(RANGE).and_then(|value| value.to_str().ok());
    let (status, from, length) = match range.map(|text| part(text, size)) {
        None | Some(Part::Whole) => (StatusCode::OK, 0, size),
        Some(Part::Of(from, length)) => (StatusCode::PARTIAL_CONTENT, from, length),
        Some(Part::Outside) => {
            let mut refusal = bare(StatusCode::RANGE_NOT_SATISFIABLE);
            insert(
                refusal.headers_mut(),
                CONTENT_RANGE,
                format!("bytes */{size}"),
            );
            return Ok(refusal);
        }
    };
    let body = if head {
        empty()
    } else {
        file.seek(io::SeekFrom::Start(from)).await?;
        let pieces = ReaderStream::with_capacity(file.take(length), CHUNK).map_ok(Frame::data);
        StreamBody::new(pieces).boxed_unsync()
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    insert(headers, CONTENT_TYPE, "application/octet-stream".into());
    insert(headers, ACCEPT_RANGES, "bytes".into());
    insert(headers, CONTENT_LENGTH, length.to_string());
    if status == StatusCode::PARTIAL_CONTENT {
        let last = from + length - 1;
        insert(
            headers,
            CONTENT_RANGE,
            format!("bytes {from}-{last}/{size}"),
        );
    }
    Ok(response)
}

/// What a `Range` header asks for.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    /// Not understood, or several ranges: the whole, as HTTP allows.
    Whole,
    /// From here, so many bytes; at least one.
    Of(u64, u64),
    /// Past the end.
    Outside,
}

fn part(text: &str, size: u64) -> Part {
    let Some((first, last)) = text
        .strip_prefix("bytes=")
        .and_then(|range| range.split_once('-'))
    else {
        return Part::Whole;
    };
    let number = |text: &str| text.trim().parse::<u64>();
    let (from, to) = match (first.trim(), last.trim()) {
        ("", suffix) => match number(suffix) {
            Ok(0) => return Part::Outside,
            Ok(count) => (size.saturating_sub(count), size),
            Err(_) => return Part::Whole,
        },
        (from, "") => match number(from) {
            Ok(from) => (from, size),
            Err(_) => return Part::Whole,
        },
        (from, to) => match (number(from), number(to)) {
            (Ok(from), Ok(to)) if from <= to => (from, to.saturating_add(1).min(size)),
            _ => return Part::Whole,
        },
    };
    if from >= size {
        return Part::Outside;
    }
    Part::Of(from, to - from)
}

fn insert(headers: &mut HeaderMap, name: http::HeaderName, value: String) {
    if let Ok(value) = http::HeaderValue::from_str(&value) {
        headers.insert(name, value);
    }
}

fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

fn bare(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(empty());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod range_tests {
    use super::{Part, part};

    #[test]
    fn ranges_are_read_as_http_says() {
        for (text, expected) in [
            ("bytes=0-", Part::Of(0, 10)),
            ("bytes=3-", Part::Of(3, 7)),
            ("bytes=3-4", Part::Of(3, 2)),
            ("bytes=3-99", Part::Of(3, 7)),
            ("bytes=-4", Part::Of(6, 4)),
            ("bytes=-40", Part::Of(0, 10)),
            ("bytes=9-9", Part::Of(9, 1)),
            ("bytes=10-", Part::Outside),
            ("bytes=-0", Part::Outside),
            ("bytes=4-3", Part::Whole),
            ("bytes=0-1,3-4", Part::Whole),
            ("bytes=x-", Part::Whole),
            ("lines=1-2", Part::Whole),
            ("bytes=18446744073709551615-", Part::Outside),
            ("bytes=0-18446744073709551615", Part::Of(0, 10)),
        ] {
            assert_eq!(part(text, 10), expected, "{text}");
        }
        assert_eq!(part("bytes=0-", 0), Part::Outside);
    }
}
