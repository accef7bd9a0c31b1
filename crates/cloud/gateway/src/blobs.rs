use std::{
    io::{self, Read, Seek, SeekFrom},
    sync::Arc,
};

use aos_pki::PeerIdentity;
use axum::{
    Extension,
    body::Body,
    extract::{Path, State},
    response::Response,
};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode, header};

use crate::{
    caller::{Refusal, caller, internal},
    gateway::Shared,
};

/// Bytes read from the disk at a time.
const CHUNK: usize = 64 * 1024;

/// `GET`, `HEAD /blobs/v7/<token>`: a blob that a `blobUrls` message named.
///
/// The token is the credential: AosCore fetches without a client certificate. Where there is one, it must be of the Unit
/// the token was made for.
pub(crate) async fn blob(
    State(shared): State<Arc<Shared>>,
    peer: Option<Extension<PeerIdentity>>,
    Path(token): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let now = shared.options.db.now();
    let (unit, digest) = shared
        .options
        .tokens
        .open_blob(&token, now)
        .ok_or(Refusal::NoBlob)?;
    if let Some(Extension(peer)) = peer
        && caller(&shared, Some(peer)).await?.unit.id != unit
    {
        shared.counts.add("refused");
        return Err(Refusal::NoBlob);
    }
    let store = shared.options.blobs.clone();
    let file = tokio::task::spawn_blocking(move || {
        let file = store.open_blob(&digest)?;
        Ok::<_, aos_image::blob::Error>((file, store.size(&digest)?))
    })
    .await
    .map_err(internal)?;
    let (file, length) = match file {
        Ok((file, Some(length))) => (file, length),
        Ok((_, None)) | Err(aos_image::blob::Error::Absent { .. }) => return Err(Refusal::NoBlob),
        Err(error) => return Err(internal(error)),
    };
    let answer = Response::builder()
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::CONTENT_TYPE, "application/octet-stream")
        .header(header::ETAG, format!("\"{}\"", digest.hex()));
    let wanted = headers
        .get(header::RANGE)
        .and_then(|value| value.to_str().ok())
        .map_or(Wanted::All, |text| wanted(text, length));
    let (answer, start, count) = match wanted {
        Wanted::All => (answer.status(StatusCode::OK), 0, length),
        Wanted::Part { first, last } => (
            answer.status(StatusCode::PARTIAL_CONTENT).header(
                header::CONTENT_RANGE,
                format!("bytes {first}-{last}/{length}"),
            ),
            first,
            last - first + 1,
        ),
        Wanted::Nothing => {
            return answer
                .status(StatusCode::RANGE_NOT_SATISFIABLE)
                .header(header::CONTENT_RANGE, format!("bytes */{length}"))
                .body(Body::empty())
                .map_err(internal);
        }
    };
    let body = if method == Method::HEAD {
        Body::empty()
    } else {
        Body::from_stream(stream(file, start, count))
    };
    answer
        .header(header::CONTENT_LENGTH, count)
        .body(body)
        .map_err(internal)
}

/// Reads a part of a file piece by piece, no faster than the peer takes it.
fn stream(
    file: std::fs::File,
    start: u64,
    count: u64,
) -> impl futures::Stream<Item = io::Result<Bytes>> + Send {
    futures::stream::try_unfold(
        (Some(file), start, count),
        |(file, start, left)| async move {
            let Some(mut file) = file.filter(|_| left > 0) else {
                return Ok(None);
            };
            let read = tokio::task::spawn_blocking(move || {
                let size = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
                let mut chunk = BytesMut::zeroed(size);
                file.seek(SeekFrom::Start(start))?;
                file.read_exact(&mut chunk)?;
                Ok::<_, io::Error>((file, chunk.freeze()))
            });
            let (file, chunk) = read.await.map_err(io::Error::other)??;
            let size = chunk.len() as u64;
            Ok(Some((
                chunk,
                (
                    Some(file),
                    start.saturating_add(size),
                    left.saturating_sub(size),
                ),
            )))
        },
    )
}

#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    All,
    Part { first: u64, last: u64 },
    Nothing,
}

/// Reads a `Range` header with one range; anything else is as if there were none (RFC 9110, 14.2).
fn wanted(text: &str, length: u64) -> Wanted {
    let Some((from, to)) = text
        .strip_prefix("bytes=")
        .filter(|ranges| !ranges.contains(','))
        .and_then(|range| range.trim().split_once('-'))
    else {
        return Wanted::All;
    };
    let number = |text: &str| text.trim().parse::<u64>();
    let (first, last) = if from.is_empty() {
        match number(to) {
            Ok(0) => return Wanted::Nothing,
            Ok(count) => (length.saturating_sub(count), length.saturating_sub(1)),
            Err(_) => return Wanted::All,
        }
    } else {
        match (number(from), to.is_empty(), number(to)) {
            (Ok(first), true, _) => (first, length.saturating_sub(1)),
            (Ok(first), false, Ok(last)) if last >= first => {
                (first, last.min(length.saturating_sub(1)))
            }
            _ => return Wanted::All,
        }
    };
    if first >= length {
        Wanted::Nothing
    } else {
        Wanted::Part { first, last }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_http_has_them() {
        let part = |first, last| Wanted::Part { first, last };
        for (text, expected) in [
            ("bytes=0-", part(0, 9)),
            ("bytes=3-", part(3, 9)),
            ("bytes=3-5", part(3, 5)),
            ("bytes=3-500", part(3, 9)),
            ("bytes=-4", part(6, 9)),
            ("bytes=-400", part(0, 9)),
            ("bytes=9-9", part(9, 9)),
            ("bytes=10-", Wanted::Nothing),
            ("bytes=-0", Wanted::Nothing),
            ("bytes=5-3", Wanted::All),
            ("bytes=0-1,3-4", Wanted::All),
            ("bytes=a-b", Wanted::All),
            ("lines=1-2", Wanted::All),
            ("bytes=18446744073709551615-", Wanted::Nothing),
        ] {
            assert_eq!(wanted(text, 10), expected, "{text}");
        }
        assert_eq!(wanted("bytes=0-", 0), Wanted::Nothing);
        assert_eq!(wanted("bytes=-5", 0), Wanted::Nothing);
    }
}
