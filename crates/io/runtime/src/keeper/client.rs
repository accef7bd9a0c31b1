use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, oneshot},
    time,
};
use tokio_util::sync::CancellationToken;

use super::{
    Answer, ExitRecord, Message, Order, Request, VERSION,
    frame::{self, FrameError, MAX_MESSAGE},
};

/// How long the keeper may take for what it does itself.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why the keeper did not do something.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens.
    #[error("no keeper answers at {socket}")]
    Connect {
        /// Where.
        socket: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The connection ended.
    #[error("the connection to the keeper was lost")]
    Lost,
    /// No answer in time.
    #[error("the keeper did not answer `{order}` within {seconds} s")]
    Silent {
        /// To what.
        order: &'static str,
        /// The deadline.
        seconds: u64,
    },
    /// It said no.
    #[error("the keeper refused `{order}`: {why}")]
    Refused {
        /// What.
        order: &'static str,
        /// Its reason.
        why: String,
    },
    /// It answered something else than the order allows.
    #[error("the keeper answered `{order}` with something unexpected; is it of another version?")]
    Unexpected {
        /// What it was told.
        order: &'static str,
    },
    /// The order cannot be written.
    #[error("an order to the keeper cannot be written")]
    Write(#[source] FrameError),
    /// It cannot be started.
    #[error("the keeper cannot be started by `{program}`: {why}")]
    Start {
        /// The program.
        program: PathBuf,
        /// What went wrong.
        why: String,
    },
}

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Answer>>>>;

/// A connection to the keeper. Clones share it; it closes with the last of them.
#[derive(Debug, Clone)]
pub struct Client {
    orders: mpsc::Sender<Vec<u8>>,
    waiting: Waiting,
    next: Arc<AtomicU64>,
    /// Set when the connection is lost; ends the reader together with the last client.
    closed: Arc<Closed>,
}

#[derive(Debug)]
struct Closed(CancellationToken);

impl Drop for Closed {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Exits as the keeper tells them: first those nobody acknowledged, then new ones. `None` when the connection is lost.
#[derive(Debug)]
pub struct Events(mpsc::UnboundedReceiver<ExitRecord>);

impl Events {
    /// The next exit.
    pub async fn next(&mut self) -> Option<ExitRecord> {
        self.0.recv().await
    }
}

impl Client {
    /// Connects and says hello.
    pub async fn connect(socket: &Path) -> Result<(Self, Events), Error> {
        let stream = UnixStream::connect(socket)
            .await
            .map_err(|source| Error::Connect {
                socket: socket.to_path_buf(),
                source,
            })?;
        let (reader, writer) = stream.into_split();
        let stop = CancellationToken::new();
        let waiting = Waiting::default();
        let (orders, queue) = mpsc::channel(64);
        // Unbounded on our side, bounded by the keeper: it sends each exit once a connection.
        let (exits, events) = mpsc::unbounded_channel();
        tokio::spawn(write(writer, queue));
        tokio::spawn(read(reader, Arc::clone(&waiting), exits, stop.clone()));
        let client = Self {
            orders,
            waiting,
            next: Arc::default(),
            closed: Arc::new(Closed(stop)),
        };
        let hello = Order::Hello { version: VERSION };
        match client.call(hello, PATIENCE).await? {
            Answer::Hello { .. } => Ok((client, Events(events))),
            _ => Err(Error::Unexpected { order: "hello" }),
        }
    }

    /// Gives an order that the keeper carries out by itself.
    pub async fn tell(&self, order: Order) -> Result<Answer, Error> {
        self.call(order, PATIENCE).await
    }

    /// Gives an order and waits at most `patience` for the answer. A refusal is an error.
    pub async fn call(&self, order: Order, patience: Duration) -> Result<Answer, Error> {
        let name = name(&order);
        let re = self.next.fetch_add(1, Ordering::Relaxed);
        let mut bytes = Vec::new();
        frame::push(&mut bytes, &Request { re, order }).map_err(Error::Write)?;
        let (answer, answered) = oneshot::channel();
        lock(&self.waiting).insert(re, answer);
        let result = time::timeout(patience, async {
            tokio::select! {
                // An answer that came before the end of the connection counts. Both are cancel-safe for us: a lost
                // connection takes the order and its answer with it.
                biased;
                answer = async {
                    self.orders.send(bytes).await.map_err(|_| Error::Lost)?;
                    answered.await.map_err(|_| Error::Lost)
                } => answer,
                () = self.closed.0.cancelled() => Err(Error::Lost),
            }
        })
        .await;
        lock(&self.waiting).remove(&re);
        match result {
            Err(_) => Err(Error::Silent {
                order: name,
                seconds: patience.as_secs(),
            }),
            Ok(Err(error)) => Err(error),
            Ok(Ok(Answer::Refused { why })) => Err(Error::Refused { order: name, why }),
            Ok(Ok(answer)) => Ok(answer),
        }
    }
}

const fn name(order: &Order) -> &'static str {
    match order {
        Order::Hello { .. } => "hello",
        Order::Start(_) => "start",
        Order::Adopt { .. } => "adopt",
        Order::Signal { .. } => "signal",
        Order::List => "list",
        Order::Exits { .. } => "exits",
        Order::Ack { .. } => "ack",
        Order::Forget { .. } => "forget",
        Order::StopKeeper => "stop_keeper",
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing is done under this lock that could leave the map half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends when all clients are gone (the queue closes) or the connection breaks.
async fn write(mut writer: OwnedWriteHalf, mut queue: mpsc::Receiver<Vec<u8>>) {
    while let Some(bytes) = queue.recv().await {
        if writer.write_all(&bytes).await.is_err() {
            break;
        }
    }
}

/// Ends when the connection breaks or all clients are gone; whoever waits for an answer learns that it is lost.
async fn read(
    mut reader: OwnedReadHalf,
    waiting: Waiting,
    exits: mpsc::UnboundedSender<ExitRecord>,
    stop: CancellationToken,
) {
    let mut bytes = Vec::new();
    loop {
        match frame::take::<Message>(&mut bytes, MAX_MESSAGE) {
            Ok(Some(Message::Answer { re, answer })) => {
                if let Some(caller) = lock(&waiting).remove(&re) {
                    // The caller may have stopped waiting.
                    let _ = caller.send(answer);
                }
                continue;
            }
            Ok(Some(Message::Exit(exit))) => {
                if exits.send(exit).is_err() {
                    tracing::debug!("an exit came and nobody listens; it stays with the keeper");
                }
                continue;
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "the keeper speaks another language; the connection is closed");
                break;
            }
        }
        // Cancel-safe: what was read is in `bytes`.
        let count = tokio::select! {
            () = stop.cancelled() => break,
            count = reader.read_buf(&mut bytes) => count,
        };
        if !count.is_ok_and(|count| count > 0) {
            break;
        }
    }
    stop.cancel();
    lock(&waiting).clear();
}
