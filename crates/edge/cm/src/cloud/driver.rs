use std::{
    collections::{HashMap, HashSet},
    future,
    time::Duration,
};

use aos_cloud_protocol::{
    AlertEvent, BlobUrl, Body, Caps, Decoded, Header, Message, MessageType, Nack, Unreadable,
    decode,
};
use aos_session::{
    Config, Frame, Handled, Input, Keep, Message as Queued, Output, Priority, Session,
};
use aos_time::{Clock, SystemChance, SystemClock, Timestamp};
use aos_types::{NodeId, SystemId};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};
use tokio_tungstenite::tungstenite;
use tokio_util::sync::CancellationToken;

use super::{
    Answer, Connector, Link, Outbox, Outgoing,
    connector::Failed,
    link::{Command, ask_for},
    outbox::Change,
    socket::{Heard, Socket},
};

/// What a nack asks the cloud to wait when a message cannot be used at all: it will not be better soon.
const USELESS_RETRY: Duration = Duration::from_secs(300);

/// A message of the cloud for somebody else to deal with.
#[derive(Debug)]
pub(crate) struct Incoming {
    /// What it says.
    pub(crate) body: Body,
    /// What of it could not be read.
    pub(crate) unreadable: Vec<Unreadable>,
    /// For the answer.
    pub(crate) correlation_id: Option<String>,
    /// To be told when it is durably taken over, or to be sent again.
    pub(crate) done: oneshot::Sender<Handled>,
}

/// The task that owns the session.
pub(crate) struct Driver {
    system_id: SystemId,
    node: NodeId,
    caps: Caps,
    session: Session<Decoded>,
    outbox: Outbox,
    link: Link,
    commands: mpsc::Receiver<Command>,
    incoming: mpsc::Sender<Incoming>,
    online: watch::Sender<bool>,
    connector: Connector,
    attempt: Option<JoinHandle<Attempt>>,
    socket: Option<Socket>,
    /// Tells the frames of this connection from those of earlier ones.
    connection: u64,
    heard: Channel<(u64, Heard)>,
    handled: Channel<Done>,
    watched: HashMap<String, oneshot::Sender<Answer>>,
    asked: HashMap<String, oneshot::Sender<Vec<BlobUrl>>>,
    wake: Option<Timestamp>,
    /// Unreadable messages an alert was sent for, so that a repetition raises none.
    complained: HashSet<String>,
}

type Done = (String, Handled);
type Channel<T> = (mpsc::Sender<T>, mpsc::Receiver<T>);
type Attempt = (
    Connector,
    Result<
        tokio_tungstenite::WebSocketStream<tokio_rustls::client::TlsStream<tokio::net::TcpStream>>,
        Failed,
    >,
);

/// What a driver is made of.
pub(crate) struct Setup {
    pub(crate) system_id: SystemId,
    pub(crate) node: NodeId,
    pub(crate) config: Config,
    pub(crate) caps: Caps,
    pub(crate) outbox: Outbox,
    pub(crate) connector: Connector,
    pub(crate) incoming: mpsc::Sender<Incoming>,
    pub(crate) patience: Duration,
}

impl Driver {
    /// Restores the session. Gives the handle, the alerts to be gathered, and the task to run.
    pub(crate) async fn restore(
        setup: Setup,
    ) -> Result<(Link, mpsc::Receiver<AlertEvent>, Self), aos_store::Error> {
        let records = setup.outbox.load().await?;
        let session = Session::restore(
            setup.config,
            Box::new(SystemChance),
            records,
            SystemClock.now(),
        );
        let (commands, received) = mpsc::channel(64);
        let (alerts, alerted) = mpsc::channel(256);
        let (online, connected) = watch::channel(false);
        let link = Link {
            commands,
            alerts,
            connected,
            patience: setup.patience,
        };
        let driver = Self {
            system_id: setup.system_id,
            node: setup.node,
            caps: setup.caps,
            session,
            outbox: setup.outbox,
            link: link.clone(),
            commands: received,
            incoming: setup.incoming,
            online,
            connector: setup.connector,
            attempt: None,
            socket: None,
            connection: 0,
            heard: mpsc::channel(16),
            handled: mpsc::channel(16),
            watched: HashMap::new(),
            asked: HashMap::new(),
            wake: None,
            complained: HashSet::new(),
        };
        Ok((link, alerted, driver))
    }

    /// Runs until `stop`. An error is one of the database: nothing can be promised without it.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), aos_store::Error> {
        self.carry_out().await?;
        loop {
            let now = SystemClock.now();
            let sleep = self.wake.map(|at| at.since(now));
            // Each arm is cancel-safe: channels keep what was not received, the attempt goes on in its own task, and
            // the timer is made anew from the same moment.
            let input = tokio::select! {
                () = stop.cancelled() => break,
                Some(command) = self.commands.recv() => self.command(command),
                Some((number, heard)) = self.heard.1.recv() => {
                    if number != self.connection {
                        continue;
                    }
                    self.hear(heard).await
                }
                Some((txn, outcome)) = self.handled.1.recv() => Some(Input::Handled { txn, outcome }),
                attempt = finished(&mut self.attempt) => self.attempted(attempt),
                () = sleep_or_never(sleep) => {
                    self.wake = None;
                    Some(Input::Wake)
                }
            };
            if let Some(input) = input {
                self.session.handle(SystemClock.now(), input);
                self.carry_out().await?;
            }
        }
        if let Some(attempt) = self.attempt.take() {
            attempt.abort();
        }
        self.online.send_replace(false);
        Ok(())
    }

    fn command(&mut self, command: Command) -> Option<Input<Decoded>> {
        match command {
            Command::Send(message, done) => {
                let queued = self.queued(*message);
                if let Some(done) = done {
                    self.watched.insert(queued.txn.clone(), done);
                }
                Some(Input::Send(queued))
            }
            Command::Ask(digests, done) => {
                self.asked.retain(|_, waiting| !waiting.is_closed());
                let correlation_id = uuid::Uuid::new_v4().to_string();
                self.asked.insert(correlation_id.clone(), done);
                Some(Input::Send(self.queued(Outgoing {
                    body: ask_for(digests),
                    correlation_id: Some(correlation_id),
                    priority: Priority::High,
                    keep: Keep::Connection,
                    topic: None,
                })))
            }
        }
    }

    fn message(&self, txn: String, body: Body, correlation_id: Option<String>) -> Vec<u8> {
        Message {
            header: Header {
                system_id: self.system_id.clone(),
                created_at: SystemClock.now(),
                txn,
            },
            correlation_id,
            body,
        }
        .encode()
    }

    fn queued(&self, message: Outgoing) -> Queued {
        let txn = uuid::Uuid::new_v4().to_string();
        let payload = self.message(txn.clone(), message.body, message.correlation_id);
        Queued {
            txn,
            payload: payload.into(),
            priority: message.priority,
            keep: message.keep,
            topic: message.topic.map(Into::into),
        }
    }

    async fn hear(&mut self, heard: Heard) -> Option<Input<Decoded>> {
        let frame = match heard {
            Heard::Alive => return Some(Input::Heard),
            Heard::Closed(why) => {
                tracing::info!(why, "the cloud connection is over");
                self.hang_up();
                return Some(Input::Disconnected);
            }
            Heard::Frame(frame) => frame,
        };
        let decoded = match decode(&frame, &self.caps) {
            Ok(decoded) => decoded,
            Err(error) => {
                let text = super::discovery::chain(&error);
                self.refuse(error.txn, &text).await;
                return Some(Input::Heard);
            }
        };
        let header = &decoded.message.header;
        let txn = header.txn.clone();
        if header.system_id != self.system_id {
            let text = format!(
                "a message is for Unit `{}`, not for this one",
                header.system_id
            );
            self.refuse(Some(txn), &text).await;
            return Some(Input::Heard);
        }
        match &decoded.message.body {
            Body::Ack => return Some(Input::Acked { txn }),
            Body::Nack(nack) => {
                return Some(Input::Nacked {
                    txn,
                    retry_after: Duration::from_millis(nack.retry_after_ms),
                });
            }
            body if !body.message_type().is_from_cloud() => {
                let kind = body.message_type().as_str();
                let text = format!("a message of type `{kind}` is not one that a cloud sends");
                self.refuse(Some(txn), &text).await;
                return Some(Input::Heard);
            }
            _ => {}
        }
        Some(Input::Received {
            txn,
            message: decoded,
        })
    }

    /// Says to the cloud that a message cannot be used, and to people why. A repetition only gets the nack.
    async fn refuse(&mut self, txn: Option<String>, why: &str) {
        let known = txn.clone().unwrap_or_else(|| why.to_owned());
        if self.complained.len() > 1000 {
            self.complained.clear();
        }
        if self.complained.insert(known) {
            tracing::warn!(why, "a message of the cloud was refused");
            self.complain(format!("a message of the cloud was refused: {why}"));
        }
        if let Some(txn) = txn {
            let nack = Frame::Nack {
                txn,
                retry_after: USELESS_RETRY,
            };
            self.transmit(nack).await;
        }
    }

    fn complain(&self, message: String) {
        use crate::contract::AlertSink;
        self.link.alert(AlertEvent::Core {
            node: self.node.clone(),
            component: "CM".into(),
            message,
        });
    }

    fn attempted(&mut self, attempt: Option<Attempt>) -> Option<Input<Decoded>> {
        self.attempt = None;
        let Some((connector, result)) = attempt else {
            return Some(Input::ConnectFailed { wait: None });
        };
        self.connector = connector;
        match result {
            Ok(stream) => {
                tracing::info!("the cloud is connected");
                self.connection += 1;
                self.socket = Some(Socket::start(stream, self.connection, self.heard.0.clone()));
                self.online.send_replace(true);
                Some(Input::Connected)
            }
            Err(failed) => {
                tracing::info!(why = failed.why, "cannot connect to the cloud");
                Some(Input::ConnectFailed { wait: failed.wait })
            }
        }
    }

    fn hang_up(&mut self) {
        self.socket = None;
        self.connection += 1;
        self.asked.clear();
        self.online.send_replace(false);
    }

    /// Carries out all outputs: what is to be stored is on the disk before anything after it happens.
    async fn carry_out(&mut self) -> Result<(), aos_store::Error> {
        let mut changes = Vec::new();
        while let Some(output) = self.session.poll() {
            match output {
                Output::Persist(record) => changes.push(Change::Put(record)),
                Output::Forget(key) => changes.push(Change::Delete(key)),
                Output::WakeAt(at) => self.wake = Some(at),
                Output::Acked { txn } => self.answer(&txn, Answer::Acked),
                Output::Dropped { txn, why } => {
                    tracing::debug!(txn, ?why, "a message was dropped");
                    self.answer(&txn, Answer::Dropped);
                }
                Output::Transmit(frame) => {
                    self.flush(&mut changes).await?;
                    self.transmit(frame).await;
                }
                Output::Deliver { txn, message } => {
                    self.flush(&mut changes).await?;
                    self.deliver(txn, message);
                }
                Output::Connect => {
                    let connecting = self.connector.clone().connect(self.system_id.clone());
                    self.attempt = Some(tokio::spawn(connecting));
                }
                Output::Disconnect(_) => {
                    tracing::info!("the cloud is silent; connecting anew");
                    self.hang_up();
                }
            }
        }
        self.flush(&mut changes).await
    }

    async fn flush(&mut self, changes: &mut Vec<Change>) -> Result<(), aos_store::Error> {
        if changes.is_empty() {
            return Ok(());
        }
        self.outbox.apply(std::mem::take(changes)).await
    }

    fn answer(&mut self, txn: &str, answer: Answer) {
        if let Some(done) = self.watched.remove(txn) {
            let _ = done.send(answer);
        }
    }

    async fn transmit(&mut self, frame: Frame) {
        let message = match frame {
            Frame::Message { payload, .. } => tungstenite::Message::Binary(payload.to_vec().into()),
            Frame::Ack { txn } => {
                tungstenite::Message::Binary(self.message(txn, Body::Ack, None).into())
            }
            Frame::Nack { txn, retry_after } => {
                let nack = Body::Nack(Nack {
                    retry_after_ms: u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX),
                });
                tungstenite::Message::Binary(self.message(txn, nack, None).into())
            }
            Frame::Ping => tungstenite::Message::Ping(Vec::new().into()),
        };
        if let Some(socket) = &self.socket
            && !socket.send(message).await
        {
            // The reader or writer tells of the end; what was not sent is sent again on the next connection.
            tracing::debug!("a frame could not be sent");
        }
    }

    /// Answers to requests are dealt with here; all else is somebody else's.
    fn deliver(&mut self, txn: String, decoded: Decoded) {
        let correlation_id = decoded.message.correlation_id;
        if let Body::BlobUrls(urls) = decoded.message.body {
            let waiting = correlation_id.and_then(|id| self.asked.remove(&id));
            if let Some(waiting) = waiting {
                let _ = waiting.send(urls.items);
            }
            let done = self.handled.0.clone();
            tokio::spawn(async move { done.send((txn, Handled::Accept)).await });
            return;
        }
        let kind = decoded.message.body.message_type();
        let (done, outcome) = oneshot::channel();
        let incoming = Incoming {
            body: decoded.message.body,
            unreadable: decoded.unreadable,
            correlation_id,
            done,
        };
        let (to, handled) = (self.incoming.clone(), self.handled.0.clone());
        tokio::spawn(async move {
            let outcome = match to.send(incoming).await {
                Ok(()) => outcome.await.unwrap_or(refused(kind)),
                Err(_) => refused(kind),
            };
            // The driver has ended: the message comes again next time.
            let _ = handled.send((txn, outcome)).await;
        });
    }
}

/// Nobody took the message: it may come again.
fn refused(kind: MessageType) -> Handled {
    tracing::debug!(kind = kind.as_str(), "a message was not taken");
    Handled::Refuse(Duration::from_secs(5))
}

async fn finished(attempt: &mut Option<JoinHandle<Attempt>>) -> Option<Attempt> {
    match attempt {
        Some(handle) => handle.await.ok(),
        None => future::pending().await,
    }
}

async fn sleep_or_never(span: Option<Duration>) {
    match span {
        Some(span) => tokio::time::sleep(span).await,
        None => future::pending().await,
    }
}
