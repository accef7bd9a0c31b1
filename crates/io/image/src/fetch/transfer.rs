//! One attempt: from the request to the last byte.

use bytes::Bytes;
use reqwest::{
    Response, StatusCode, Url,
    header::{ACCEPT_ENCODING, CONTENT_RANGE, RANGE},
};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Duration, Instant, timeout},
};

use super::{Error, Fetcher, Progress, sink::Sink};

/// Pieces of the body that wait for the disk. Together with reqwest's own buffers this bounds the memory of a transfer.
const WAITING: usize = 8;

/// Fetches what is missing; `has_fresh` says that there is another source to turn to if this one is slow. Gives the sink back, unless its writer was lost with the program.
pub(super) async fn run(
    fetcher: &Fetcher,
    url: &str,
    has_fresh: bool,
    sink: Sink,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> (Option<Sink>, Result<(), Error>) {
    let total = sink.size();
    progress(Progress {
        broke_off: None,
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
    let (response, resumed) = match open(fetcher, asked, &host, sink.len(), total).await {
        Ok(opened) => opened,
        Err(error) => return (Some(sink), Err(error)),
    };
    let mut stream = Stream {
        fetcher,
        host: &host,
        done: if resumed { sink.len() } else { 0 },
        total,
        pace: has_fresh.then(|| Pace::new(fetcher)),
    };
    let (pieces, writer) = start_writer(sink, !resumed);
    let outcome = stream.run(response, &pieces, progress).await;
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
    done: u64,
    size: u64,
) -> Result<(Response, bool), Error> {
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
        let paused = sink.pause();
        (sink, outcome.and(paused))
    });
    (sender, writer)
}

/// How fast a source gives, counted while we wait for it.
struct Pace {
    slowest: u64,
    watch: Duration,
    waited: Duration,
    came: u64,
}

impl Pace {
    fn new(fetcher: &Fetcher) -> Self {
        let policy = fetcher.policy();
        // Our own bound of the rate is not the source's fault.
        let bound = fetcher.throttle().rate().map_or(u64::MAX, |rate| rate / 8);
        Self {
            slowest: policy.slowest.min(bound),
            watch: policy.watch,
            waited: Duration::ZERO,
            came: 0,
        }
    }

    /// Notes a piece. Whether the source is slow.
    fn note(&mut self, waited: Duration, bytes: usize) -> bool {
        self.waited += waited;
        self.came += bytes as u64;
        if self.waited < self.watch {
            return false;
        }
        let slow = (self.came as f64) < self.slowest as f64 * self.waited.as_secs_f64();
        self.waited = Duration::ZERO;
        self.came = 0;
        slow
    }
}

/// A body being read.
struct Stream<'a> {
    fetcher: &'a Fetcher,
    host: &'a str,
    done: u64,
    total: u64,
    pace: Option<Pace>,
}

impl Stream<'_> {
    async fn run(
        &mut self,
        mut response: Response,
        pieces: &mpsc::Sender<Bytes>,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<(), Error> {
        let host = || self.host.to_owned();
        let wait = self.fetcher.policy().stall;
        loop {
            let asked = Instant::now();
            let piece = timeout(wait, response.chunk())
                .await
                .map_err(|_| Error::Stalled {
                    host: host(),
                    after: wait,
                    done: self.done,
                })?
                .map_err(|e| Error::Transfer {
                    host: host(),
                    done: self.done,
                    source: e.without_url(),
                })?;
            let Some(piece) = piece else { break };
            let waited = asked.elapsed();
            let count = piece.len();
            self.done = self.done.saturating_add(count as u64);
            if self.done > self.total {
                return Err(Error::Size {
                    host: host(),
                    found: self.done,
                    size: self.total,
                });
            }
            if pieces.send(piece).await.is_err() {
                // The writer stopped; its error is the one to report.
                return Ok(());
            }
            progress(Progress {
                broke_off: None,
                done: self.done,
                total: self.total,
            });
            self.fetcher.throttle().take(count).await;
            if let Some(pace) = &mut self.pace
                && pace.note(waited, count)
                && self.done < self.total
            {
                return Err(Error::Slow {
                    host: host(),
                    slowest: pace.slowest,
                });
            }
        }
        if self.done < self.total {
            return Err(Error::Short {
                host: host(),
                done: self.done,
                size: self.total,
            });
        }
        Ok(())
    }
}
