//! One attempt: from the request to the last byte.

use bytes::Bytes;
use reqwest::{
    Response, StatusCode, Url,
    header::{ACCEPT_ENCODING, CONTENT_RANGE, RANGE},
};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

use super::{Error, Fetcher, Progress, sink::Sink};

/// Pieces of the body that wait for the disk. Together with reqwest's own buffers this bounds the memory of a transfer.
const WAITING: usize = 8;

/// Fetches what is missing. Gives the sink back, unless its writer was lost with the program.
pub(super) async fn run(
    fetcher: &Fetcher,
    url: &str,
    sink: Sink,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> (Option<Sink>, Result<(), Error>) {
    let total = sink.size();
    progress(Progress {
        done: sink.len(),
        total,
    });
    if sink.len() == total {
        return (Some(sink), Ok(()));
    }
    let asked = Url::parse(url).map_err(|_| Error::Status {
        host: "a malformed URL".into(),
        status: 400,
    });
    let asked = match asked {
        Ok(url) => url,
        Err(error) => return (Some(sink), Err(error)),
    };
    let host = asked.host_str().unwrap_or("the server").to_owned();
    let (response, resumed) = match open(fetcher, asked, &host, &sink).await {
        Ok(opened) => opened,
        Err(error) => return (Some(sink), Err(error)),
    };
    let mut done = if resumed { sink.len() } else { 0 };
    let (pieces, writer) = start_writer(sink, !resumed);
    let outcome = stream(
        fetcher, response, &host, &pieces, &mut done, total, progress,
    )
    .await;
    drop(pieces);
    match writer.await {
        Ok((sink, Ok(()))) => (Some(sink), outcome),
        // The disk's error explains the broken stream, not the other way round.
        Ok((sink, Err(error))) => (Some(sink), Err(error)),
        Err(_) => (None, Err(Error::Interrupted)),
    }
}

/// Asks for what is missing. Whether the server goes on where we are; otherwise it starts from the beginning.
async fn open(
    fetcher: &Fetcher,
    url: Url,
    host: &str,
    sink: &Sink,
) -> Result<(Response, bool), Error> {
    let (done, size) = (sink.len(), sink.size());
    let mut request = fetcher
        .client()
        .get(url)
        // A coded body would be another file than the one whose size and checksum we know.
        .header(ACCEPT_ENCODING, "identity");
    if done > 0 {
        request = request.header(RANGE, format!("bytes={done}-"));
    }
    let wait = fetcher.policy().connect;
    let response = timeout(wait, request.send())
        .await
        .map_err(|_| Error::NoAnswer {
            host: host.to_owned(),
            after: wait,
        })?
        .map_err(|e| {
            let e = e.without_url();
            if e.is_builder() {
                Error::BadUrl(e)
            } else {
                Error::Transfer {
                    host: host.to_owned(),
                    done,
                    source: e,
                }
            }
        })?;
    let status = response.status();
    let wrong_size = |found| Error::Size {
        host: host.to_owned(),
        found,
        size,
    };
    match status {
        StatusCode::PARTIAL_CONTENT if done > 0 => {
            let range = response
                .headers()
                .get(CONTENT_RANGE)
                .and_then(|value| value.to_str().ok())
                .and_then(content_range);
            match range {
                Some((from, total)) if from == done => match total {
                    Some(total) if total != size => Err(wrong_size(total)),
                    _ => Ok((response, true)),
                },
                _ => Err(Error::Status {
                    host: host.to_owned(),
                    status: 416,
                }),
            }
        }
        StatusCode::OK => match response.content_length() {
            Some(found) if found != size => Err(wrong_size(found)),
            _ => Ok((response, false)),
        },
        other => Err(Error::Status {
            host: host.to_owned(),
            status: other.as_u16(),
        }),
    }
}

/// `bytes <from>-<to>/<total or *>`.
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (from, _) = range.split_once('-')?;
    Some((from.trim().parse().ok()?, total.trim().parse().ok()))
}

type Writer = JoinHandle<(Sink, Result<(), Error>)>;

/// Hashes and writes on a thread that may block. It ends when the sender is dropped or the disk fails.
fn start_writer(mut sink: Sink, from_nothing: bool) -> (mpsc::Sender<Bytes>, Writer) {
    let (sender, mut pieces) = mpsc::channel::<Bytes>(WAITING);
    let writer = tokio::task::spawn_blocking(move || {
        let mut outcome = if from_nothing { sink.reset() } else { Ok(()) };
        while outcome.is_ok() {
            let Some(piece) = pieces.blocking_recv() else {
                break;
            };
            outcome = sink.push(&piece);
        }
        (sink, outcome)
    });
    (sender, writer)
}

async fn stream(
    fetcher: &Fetcher,
    mut response: Response,
    host: &str,
    pieces: &mpsc::Sender<Bytes>,
    done: &mut u64,
    total: u64,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<(), Error> {
    let wait = fetcher.policy().stall;
    loop {
        let piece = timeout(wait, response.chunk())
            .await
            .map_err(|_| Error::Stalled {
                host: host.to_owned(),
                after: wait,
                done: *done,
            })?
            .map_err(|e| Error::Transfer {
                host: host.to_owned(),
                done: *done,
                source: e.without_url(),
            })?;
        let Some(piece) = piece else { break };
        *done = done.saturating_add(piece.len() as u64);
        if *done > total {
            return Err(Error::Size {
                host: host.to_owned(),
                found: *done,
                size: total,
            });
        }
        if pieces.send(piece).await.is_err() {
            // The writer stopped; its error is the one to report.
            return Ok(());
        }
        progress(Progress { done: *done, total });
    }
    if *done < total {
        return Err(Error::Short {
            host: host.to_owned(),
            done: *done,
            size: total,
        });
    }
    Ok(())
}
