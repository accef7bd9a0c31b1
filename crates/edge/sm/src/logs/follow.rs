use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aos_ipc::{convert::error_to_proto, proto::aos::node::v1 as pb};
use aos_log::{Budget, Line, Span};
use aos_logs::{SystemTail, Tail, Watch, gzip};
use aos_time::{Clock, SystemClock, Timestamp};
use aos_types::{AosCode, ErrorInfo};
use tokio::sync::watch;

use super::{Logs, Selection, answers::What};

/// Live logs at the same time.
const MOST: usize = 8;
/// Lines are gathered for so long.
const GATHER: Duration = Duration::from_millis(200);
/// Bytes of text that one live log may carry, a second and at once.
const RATE: u64 = 64 << 10;
const AT_ONCE: u64 = 256 << 10;
/// Lines of the system that are told at once.
const MOST_LINES: usize = 1_000;

/// The live logs in hand, with the moment of their end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Follows(Arc<Mutex<BTreeMap<String, watch::Sender<Timestamp>>>>);

impl Follows {
    /// Moves the end of one in hand, or gives the end of a new one to follow. Nothing if there are too many.
    pub(crate) fn order(&self, id: &str, till: Timestamp) -> Order {
        let mut follows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(end) = follows.get(id).filter(|end| !end.is_closed()) {
            end.send_replace(till);
            return Order::Moved;
        }
        follows.retain(|_, end| !end.is_closed());
        if follows.len() >= MOST {
            return Order::TooMany;
        }
        let (end, receiver) = watch::channel(till);
        follows.insert(id.to_owned(), end);
        Order::Begin(receiver)
    }
}

/// What becomes of an order to follow a log.
pub(crate) enum Order {
    Begin(watch::Receiver<Timestamp>),
    Moved,
    TooMany,
}

/// The answer when too many logs are followed.
pub(crate) fn too_many(id: String) -> pb::LogLines {
    let why = format!("this Node tells {MOST} live logs already: end one of them");
    last(id, Some(&ErrorInfo::new(AosCode::WrongState, why)))
}

fn last(correlation_id: String, error: Option<&ErrorInfo>) -> pb::LogLines {
    pb::LogLines {
        correlation_id,
        data: Vec::new(),
        end: true,
        error: error_to_proto(error),
    }
}

/// Where lines come from.
enum Source {
    System {
        tail: SystemTail,
        waiting: Vec<Line>,
    },
    Instances {
        selection: Selection,
        watch: Watch,
        tails: BTreeMap<String, Tail>,
        /// Something may be there to read.
        news: bool,
    },
}

impl Logs {
    /// Tells lines as they come until their end, or until `say` fails. The last word is always said.
    pub(crate) async fn follow<Said: Future<Output = Result<(), ()>>>(
        &self,
        id: String,
        what: What,
        from: Option<Timestamp>,
        end: watch::Receiver<Timestamp>,
        say: impl Fn(pb::LogLines) -> Said,
    ) {
        let span = Span {
            from: Some(from.unwrap_or_else(|| SystemClock.now())),
            till: None,
        };
        let error = self.tell(&id, what, span, end, &say).await.err();
        if let Some(error) = error {
            // Whoever cannot hear the last word has ended the stream.
            let _ = say(last(id, error.as_ref())).await;
        }
    }

    /// Ends with why there is no more; with nothing inside at the wanted end.
    async fn tell<Said: Future<Output = Result<(), ()>>>(
        &self,
        id: &str,
        what: What,
        span: Span,
        mut end: watch::Receiver<Timestamp>,
        say: &impl Fn(pb::LogLines) -> Said,
    ) -> Result<(), Option<ErrorInfo>> {
        let mut source = self.source(what).map_err(Some)?;
        let mut budget = Budget::new(RATE, AT_ONCE, SystemClock.now());
        loop {
            let left = end.borrow_and_update().since(SystemClock.now());
            if left.is_zero() {
                return Err(None);
            }
            // The lines' arm loses nothing when it is dropped: it only waits before it reads.
            let (lines, passed) = tokio::select! {
                lines = self.next(&mut source) => lines.map_err(Some)?,
                () = tokio::time::sleep(left) => return Err(None),
                changed = end.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return Err(None),
                },
            };
            let mut text = String::new();
            let mut left_out = 0_u64;
            for line in lines.iter().filter(|line| span.contains(line.at)) {
                let line = line.render();
                if budget.take(line.len() as u64, SystemClock.now()) {
                    text.push_str(&line);
                } else {
                    left_out += 1;
                }
            }
            let now = SystemClock.now();
            if passed > 0 {
                text.push_str(&format!(
                    "{now} [aos] # {passed} bytes were passed over: more came than can be read\n"
                ));
            }
            if left_out > 0 {
                text.push_str(&format!(
                    "{now} [aos] # {left_out} lines were left out: more came than a live log may carry\n"
                ));
            }
            if text.is_empty() {
                continue;
            }
            let data = gzip(text.as_bytes()).map_err(|error| Some(unread(&error)))?;
            let lines = pb::LogLines {
                correlation_id: id.to_owned(),
                data,
                end: false,
                error: None,
            };
            if say(lines).await.is_err() {
                return Ok(());
            }
        }
    }

    fn source(&self, what: What) -> Result<Source, ErrorInfo> {
        match what {
            What::System => Ok(Source::System {
                tail: self.system.follow().map_err(|error| unread(&error))?,
                waiting: Vec::new(),
            }),
            What::Instances(selection) => {
                let folders = self.store.folders().iter().map(PathBuf::as_path);
                let watch = Watch::over(folders, true).map_err(|error| unread(&error))?;
                Ok(Source::Instances {
                    selection,
                    watch,
                    tails: BTreeMap::new(),
                    news: true,
                })
            }
            What::Crashes(_) => Err(ErrorInfo::new(
                AosCode::NotSupported,
                "crash logs are asked for, they are not followed",
            )),
        }
    }

    /// Waits for lines; also says how many bytes were passed over. Cancel-safe.
    async fn next(&self, source: &mut Source) -> Result<(Vec<Line>, u64), ErrorInfo> {
        match source {
            Source::System { tail, waiting } => {
                let gathered = async {
                    loop {
                        if waiting.len() >= MOST_LINES {
                            return Ok(());
                        }
                        let lines = tail.next().await.map_err(|error| unread(&error))?;
                        if lines.is_empty() {
                            let error = std::io::Error::other("the system's log has ended");
                            return Err(unread(&error));
                        }
                        waiting.extend(lines);
                    }
                };
                // What was gathered stays in `waiting` whichever ends first.
                if let Ok(ended) = tokio::time::timeout(GATHER, gathered).await {
                    ended?;
                }
                if waiting.is_empty() {
                    let lines = tail.next().await.map_err(|error| unread(&error))?;
                    if lines.is_empty() {
                        let error = std::io::Error::other("the system's log has ended");
                        return Err(unread(&error));
                    }
                    waiting.extend(lines);
                }
                Ok((std::mem::take(waiting), 0))
            }
            Source::Instances {
                selection,
                watch,
                tails,
                news,
            } => {
                if !*news {
                    watch.changed().await.map_err(|error| unread(&error))?;
                    *news = true;
                }
                tokio::time::sleep(GATHER).await;
                let mut lines = Vec::new();
                let mut passed = 0;
                for (id, ident) in self.index.find(|ident| selection.takes(ident)) {
                    let tail = match tails.entry(id) {
                        std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                        std::collections::btree_map::Entry::Vacant(entry) => {
                            let Some(path) = self.store.current(entry.key()) else {
                                continue;
                            };
                            // What is older than the wanted time is left out by that.
                            entry.insert(Tail::new(path, ident.to_string(), true))
                        }
                    };
                    let (more, over) = tail.read().map_err(|error| unread(&error))?;
                    lines.extend(more);
                    passed += over;
                }
                *news = false;
                lines.sort_by_key(|line| line.at);
                Ok((lines, passed))
            }
        }
    }
}

fn unread(error: &std::io::Error) -> ErrorInfo {
    ErrorInfo::new(
        AosCode::Failed,
        format!("the log cannot be followed: {error}"),
    )
}
