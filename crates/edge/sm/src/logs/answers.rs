use std::{cell::Cell, io, sync::Arc};

use aos_ipc::{convert::status_error_to_proto, proto::servicemanager::v5 as pb};
use aos_log::{Limits, Span};
use aos_logs::{Gathered, gather};
use aos_time::{Clock, SystemClock};
use aos_types::{AosCode, ErrorInfo};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Logs, Selection};

/// Requests that may wait for their turn.
const WAITING: usize = 8;
/// Names of instances that are told to whoever asks for another one.
const TOLD: usize = 5;

/// What CM asks for.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) correlation_id: String,
    pub(crate) what: What,
    pub(crate) span: Span,
}

/// Which log.
#[derive(Debug, Clone)]
pub(crate) enum What {
    System,
    Instances(Selection),
    Crashes(Selection),
}

/// Where requests wait for their turn.
pub(crate) fn queue_of_asks() -> (mpsc::Sender<Ask>, mpsc::Receiver<Ask>) {
    mpsc::channel(WAITING)
}

impl Logs {
    /// Answers one request after the other for as long as `say` succeeds. Every request gets at least one answer.
    pub(crate) async fn serve<Said: Future<Output = Result<(), ()>>>(
        self: &Arc<Self>,
        mut waiting: mpsc::Receiver<Ask>,
        say: impl Fn(pb::LogData) -> Said,
    ) {
        while let Some(ask) = waiting.recv().await {
            if self.answer(ask, &say).await.is_err() {
                return;
            }
        }
    }

    async fn answer<Said: Future<Output = Result<(), ()>>>(
        self: &Arc<Self>,
        ask: Ask,
        say: &impl Fn(pb::LogData) -> Said,
    ) -> Result<(), ()> {
        let id = ask.correlation_id.clone();
        // Whoever drops us ends the reading too.
        let stop = CancellationToken::new();
        let _guard = stop.clone().drop_guard();
        let logs = self.clone();
        let read = tokio::task::spawn_blocking(move || logs.read(&ask, &stop)).await;
        let gathered = match read.unwrap_or_else(|error| Err(failed(&io::Error::other(error)))) {
            Ok(gathered) => Arc::new(gathered),
            Err((status, error)) => return say(word(id, status, Some(&error))).await,
        };
        let count = gathered.len();
        if count == 0 {
            return say(word(id, "empty", None)).await;
        }
        for number in 0..count {
            let parts = gathered.clone();
            let read = tokio::task::spawn_blocking(move || parts.part(number)).await;
            let data = match read.map_err(io::Error::other).and_then(|read| read) {
                Ok(data) => data,
                Err(error) => return say(word(id, "error", Some(&failed(&error).1))).await,
            };
            say(pb::LogData {
                correlation_id: id.clone(),
                part_count: u64::try_from(count).unwrap_or(u64::MAX),
                part: u64::try_from(number + 1).unwrap_or(u64::MAX),
                data,
                status: "ok".into(),
                error: None,
            })
            .await?;
        }
        Ok(())
    }

    fn read(&self, ask: &Ask, stop: &CancellationToken) -> Result<Gathered, Refusal> {
        let mut span = ask.span;
        if span.is_empty() {
            return gather(&self.scratch, Limits::default(), |_| Ok(())).map_err(|e| failed(&e));
        }
        if !matches!(ask.what, What::System) {
            // What the file that is being written has from before that is not kept either.
            let oldest = SystemClock.now() - self.keep.age;
            span.from = Some(span.from.map_or(oldest, |from| from.max(oldest)));
        }
        let found = match &ask.what {
            What::System => Vec::new(),
            What::Instances(selection) | What::Crashes(selection) => {
                let found = self.index.find(|ident| selection.takes(ident));
                if found.is_empty() {
                    return Err(self.absent(selection));
                }
                found
            }
        };
        let gathered = gather(&self.scratch, Limits::default(), |take| {
            let more = Cell::new(true);
            let mut take = |text: String| {
                more.set(take(text) && !stop.is_cancelled());
                more.get()
            };
            if let What::System = ask.what {
                let mut visit = |line: aos_log::Line| take(line.render());
                return self.system.newest_first(&span, &mut visit);
            }
            // One instance after the other, so that one file is in memory at a time.
            for (id, ident) in found.iter().rev() {
                if let What::Crashes(_) = ask.what {
                    self.store.crashes(id, &span, &mut take)?;
                } else {
                    let mut visit = |line: aos_log::Line| take(line.render());
                    let source = ident.to_string();
                    self.store.newest_first(id, &source, &span, &mut visit)?;
                }
                if !more.get() {
                    break;
                }
            }
            Ok(())
        });
        gathered.map_err(|error| failed(&error))
    }

    fn absent(&self, selection: &Selection) -> Refusal {
        let known = self.index.find(|_| true);
        let names: Vec<String> = known
            .iter()
            .take(TOLD)
            .map(|(_, ident)| ident.to_string())
            .collect();
        let here = match known.len() {
            0 => "it has none".to_owned(),
            n if n > TOLD => format!("it has {} and {} more", names.join(", "), n - TOLD),
            _ => format!("it has {}", names.join(", ")),
        };
        let why = format!("no instance of this Node is called {selection}: {here}");
        ("absent", ErrorInfo::new(AosCode::NotFound, why))
    }
}

/// A word instead of parts, and why.
type Refusal = (&'static str, ErrorInfo);

fn failed(error: &io::Error) -> Refusal {
    let why = format!("the log cannot be read: {error}");
    ("error", ErrorInfo::new(AosCode::Failed, why))
}

/// The answer when too many requests wait.
pub(crate) fn busy(correlation_id: String) -> pb::LogData {
    let why = format!("this Node answers {WAITING} requests for logs already: ask again later");
    let error = ErrorInfo::new(AosCode::WrongState, why);
    word(correlation_id, "error", Some(&error))
}

fn word(correlation_id: String, status: &str, error: Option<&ErrorInfo>) -> pb::LogData {
    pb::LogData {
        correlation_id,
        part_count: 1,
        part: 1,
        data: Vec::new(),
        status: status.into(),
        error: error.and_then(|error| status_error_to_proto(Some(error))),
    }
}
