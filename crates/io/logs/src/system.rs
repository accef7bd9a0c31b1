use std::{fs::File, io, path::PathBuf, process::Stdio};

use aos_log::{Line, Span};
use aos_time::{Clock, SystemClock, Timestamp};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader, Interest, unix::AsyncFd},
    process::{Child, ChildStdout, Command},
};

use crate::{
    Visit, Watch,
    journal::{self, Journal},
    kernel,
};

/// Most bytes of one entry while it is followed.
const MOST_ENTRY: u64 = 1 << 20;
/// Most lines told at once.
const MOST_LINES: usize = 1_000;

/// Where the system's log is.
#[derive(Debug, Clone, Default)]
pub struct SystemOptions {
    /// A folder of journals to read instead of asking whether journald runs here.
    pub journal_folder: Option<PathBuf>,
    /// The file of our own log, for a Node without journald.
    pub own: Option<PathBuf>,
}

/// What the system of a Node says: the journal where journald runs, else the kernel's log and our own.
#[derive(Debug, Clone)]
pub struct SystemLog(Source);

#[derive(Debug, Clone)]
enum Source {
    Journal(Journal),
    Kernel { own: Option<PathBuf> },
}

impl SystemLog {
    /// Finds out what there is.
    pub fn open(options: SystemOptions) -> Self {
        let journal = match options.journal_folder {
            Some(folder) => Some(Journal {
                folder: Some(folder),
            })
            .filter(Journal::works),
            None => Journal::of_this_node(),
        };
        Self(match journal {
            Some(journal) => Source::Journal(journal),
            None => Source::Kernel { own: options.own },
        })
    }

    /// What it is, for people.
    pub fn name(&self) -> &'static str {
        match &self.0 {
            Source::Journal(_) => "journald",
            Source::Kernel { .. } => "the kernel's log and our own",
        }
    }

    /// Shows lines of a time, the newest first, for as long as more are wanted.
    pub fn newest_first(&self, span: &Span, visit: Visit<'_>) -> io::Result<()> {
        let own = match &self.0 {
            Source::Journal(journal) => return journal.newest_first(span, visit),
            Source::Kernel { own } => own,
        };
        // Both are bounded by the kernel and by us.
        let mut lines = match kernel::records(SystemClock.now()) {
            Ok(lines) => lines,
            Err(error) if own.is_some() => {
                tracing::debug!(%error, "the kernel's log cannot be read");
                Vec::new()
            }
            Err(error) => return Err(error),
        };
        if let Some(own) = own {
            lines.extend(kernel::own(own)?);
        }
        lines.retain(|line| span.contains(line.at));
        lines.sort_by_key(|line| line.at);
        for line in lines.into_iter().rev() {
            if !visit(line) {
                break;
            }
        }
        Ok(())
    }

    /// Tells lines as they come.
    #[allow(
        deprecated,
        reason = "what replaces it is unsafe; the file keeps its descriptor for as long as the AsyncFd lives"
    )]
    pub fn follow(&self) -> io::Result<SystemTail> {
        let inner = match &self.0 {
            Source::Journal(journal) => {
                let mut child = Command::new("journalctl")
                    .args(journal.arguments())
                    .args(["--follow", "--lines=0"])
                    .stdin(Stdio::null())
                    .stdout(Stdio::piped())
                    .stderr(Stdio::null())
                    .kill_on_drop(true)
                    .spawn()?;
                let output = child.stdout.take().map(BufReader::new);
                Tailing::Journal {
                    _child: Box::new(child),
                    output,
                    entry: Vec::new(),
                }
            }
            Source::Kernel { own } => {
                let kernel = kernel::open().ok().and_then(|file| {
                    let booted = kernel::booted(SystemClock.now());
                    // Everything that is there already was said before.
                    while let Ok(Some(_)) = kernel::next(&file, booted) {}
                    let file = AsyncFd::with_interest(file, Interest::READABLE).ok()?;
                    Some((file, booted))
                });
                let own = own.as_ref().and_then(|path| {
                    let watch = Watch::over(path.parent(), true).ok()?;
                    Some((path.clone(), watch, SystemClock.now()))
                });
                Tailing::Kernel { kernel, own }
            }
        };
        Ok(SystemTail(inner))
    }
}

/// The system's log as it comes.
#[derive(Debug)]
pub struct SystemTail(Tailing);

#[derive(Debug)]
enum Tailing {
    Journal {
        /// Ended with this.
        _child: Box<Child>,
        output: Option<BufReader<ChildStdout>>,
        /// As much of an entry as has come.
        entry: Vec<u8>,
    },
    Kernel {
        kernel: Option<(AsyncFd<File>, Timestamp)>,
        /// The file, what wakes us, and up to when we have told it.
        own: Option<(PathBuf, Watch, Timestamp)>,
    },
}

impl SystemTail {
    /// Waits for lines. An error, or no line at all, means that there will be none. Cancel-safe: what has come
    /// in part stays.
    pub async fn next(&mut self) -> io::Result<Vec<Line>> {
        match &mut self.0 {
            Tailing::Journal { output, entry, .. } => {
                let Some(output) = output else {
                    return Ok(Vec::new());
                };
                loop {
                    let mut bounded = output.take(MOST_ENTRY);
                    if bounded.read_until(b'\n', entry).await? == 0 {
                        return Ok(Vec::new());
                    }
                    // What is longer cannot be read, and its rest neither.
                    if let Some(line) = journal::line(&std::mem::take(entry)) {
                        return Ok(vec![line]);
                    }
                }
            }
            Tailing::Kernel { kernel, own } => loop {
                let said = async {
                    let Some((file, booted)) = kernel.as_ref() else {
                        return std::future::pending().await;
                    };
                    let mut ready = file.readable().await?;
                    let mut lines = Vec::new();
                    while lines.len() < MOST_LINES {
                        match kernel::next(file.get_ref(), *booted)? {
                            Some(line) => lines.extend(line),
                            None => {
                                ready.clear_ready();
                                break;
                            }
                        }
                    }
                    io::Result::Ok(lines)
                };
                let wrote = async {
                    let Some((path, watch, told)) = own.as_mut() else {
                        return std::future::pending().await;
                    };
                    watch.changed().await?;
                    let mut lines = kernel::own(path)?;
                    lines.retain(|line| line.at > *told);
                    if let Some(last) = lines.last() {
                        *told = last.at;
                    }
                    io::Result::Ok(lines)
                };
                // Both look again at what they have not told.
                let lines = tokio::select! {
                    lines = said => lines?,
                    lines = wrote => lines?,
                };
                if !lines.is_empty() {
                    return Ok(lines);
                }
            },
        }
    }
}
