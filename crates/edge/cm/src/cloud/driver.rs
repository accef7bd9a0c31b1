use std::{
    collections::{HashMap, HashSet, VecDeque},
    future,
    sync::Arc,
    time::Duration,
};

use aos_cloud_protocol::{Alert, BlobUrls, Body, Caps, Decoded, Header, Message, Nack, Unreadable};
use aos_session::{
    Config, Frame, Handled, Input, Keep, Lost, Message as Queued, Output, Priority, Session,
};
use aos_time::{Clock, SteadyClock, SystemChance, SystemClock, Timestamp};
use aos_types::{Digest, NodeId, SystemId};
use bytes::Bytes;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};
use tokio_tungstenite::tungstenite;
use tokio_util::sync::CancellationToken;

use super::{
    Answer, Connector, Link, Outbox, Outgoing,
    alerts::{Gate, lost_alert, refused_alert},
    arrived::{Arrived, Read, arrived},
    connector::{Failed, Opened},
    link::{Command, ask_for},
    outbox::Change,
    socket::{Heard, Socket},
};

/// What a nack asks the cloud to wait when nothing can be done with a message: it is given one more chance.
const USELESS_RETRY: Duration = Duration::from_secs(60);
/// What a nack asks the cloud to wait when nobody took a message.
const UNTAKEN_RETRY: Duration = Duration::from_secs(5);
/// How long whoever deals with a message may take to say that it is taken over.
const TAKING_OVER: Duration = Duration::from_secs(120);
/// How long the link waits for one more message when everything stops.
const LAST_WORDS: Duration = Duration::from_millis(50);
/// Parts of one message that people are told of when they cannot be used.
const TOLD_PARTS: usize = 8;
/// Useless messages remembered as told, at most.
const COMPLAINED: usize = 256;

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
    bounds: (usize, usize),
    /// Waits go by this one, so that setting the machine's clock neither ends nor stretches them.
    clock: SteadyClock,
    session: Session<Read>,
    outbox: Outbox,
    link: Link,
    commands: mpsc::Receiver<Command>,
    incoming: mpsc::Sender<Incoming>,
    online: watch::Sender<bool>,
    connector: Connector,
    attempt: Option<JoinHandle<Attempt>>,
    socket: Option<Socket>,
    /// The certificate the connection was made with.
    shown: Option<Vec<u8>>,
    /// Tells the frames of this connection from those of earlier ones.
    connection: u64,
    heard: Channel<(u64, Heard)>,
    in_hand: Option<InHand>,
    watched: HashMap<String, oneshot::Sender<Answer>>,
    asked: HashMap<String, Question>,
    /// The message that tells of dropped ones.
    report: Option<(String, Lost)>,
    wake: Option<Timestamp>,
    /// Useless messages an alert was sent for, by txn or else by text, so that a repetition raises none.
    complained: HashSet<String>,
}

/// The message that somebody deals with.
struct InHand {
    txn: String,
    outcome: oneshot::Receiver<Handled>,
    until: tokio::time::Instant,
}

/// A request that waits for the answer with the same correlation id.
struct Question {
    digests: Vec<Digest>,
    done: oneshot::Sender<BlobUrls>,
}

type Channel<T> = (mpsc::Sender<T>, mpsc::Receiver<T>);
type Attempt = (Connector, Result<Opened, Failed>);

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
    ) -> Result<(Link, mpsc::Receiver<Alert>, Box<Self>), aos_store::Error> {
        let records = setup.outbox.load().await?;
        let clock = SteadyClock::start();
        let bounds = (setup.config.max_messages, setup.config.max_bytes);
        let session = Session::restore(setup.config, Box::new(SystemChance), records, clock.now());
        let (commands, received) = mpsc::channel(64);
        let (alerts, alerted) = mpsc::channel(256);
        let (online, connected) = watch::channel(false);
        let link = Link {
            commands,
            alerts,
            alerts_dropped: Arc::default(),
            gate: Arc::new(Gate::new(setup.node.clone())),
            connected,
            patience: setup.patience,
        };
        let driver = Self {
            system_id: setup.system_id,
            node: setup.node,
            caps: setup.caps,
            bounds,
            clock,
            session,
            outbox: setup.outbox,
            link: link.clone(),
            commands: received,
            incoming: setup.incoming,
            online,
            connector: setup.connector,
            attempt: None,
            socket: None,
            shown: None,
            connection: 0,
            // One at a time: a frame may be large.
            heard: mpsc::channel(1),
            in_hand: None,
            watched: HashMap::new(),
            asked: HashMap::new(),
            report: None,
            wake: None,
            complained: HashSet::new(),
        };
        Ok((link, alerted, Box::new(driver)))
    }

    /// Runs until `stop`. An error is one of the database: nothing can be promised without it.
    pub(crate) async fn run(
        mut self: Box<Self>,
        stop: CancellationToken,
    ) -> Result<(), aos_store::Error> {
        let mut certificate = self.connector.certificate();
        self.carry_out().await?;
        loop {
            let sleep = self.wake.map(|at| at.since(self.clock.now()));
            // Each arm is cancel-safe: channels keep what was not received, the attempt goes on in its own task, and
            // the timer is made anew from the same moment.
            let input = tokio::select! {
                () = stop.cancelled() => break,
                Some(command) = self.commands.recv() => self.command(command),
                Some((number, heard)) = self.heard.1.recv() => {
                    if number == self.connection { self.hear(heard) } else { None }
                }
                (txn, outcome) = taken_over(&mut self.in_hand) => {
                    self.in_hand = None;
                    Some(Input::Handled { txn, outcome })
                }
                attempt = finished(&mut self.attempt) => self.attempted(attempt),
                Ok(()) = certificate.changed() => {
                    certificate.borrow_and_update();
                    self.renewal()
                }
                () = sleep_or_never(sleep) => {
                    self.wake = None;
                    Some(Input::Wake)
                }
            };
            if let Some(input) = input {
                let connected = matches!(input, Input::Connected);
                self.session.handle(self.clock.now(), input);
                if connected {
                    self.begin();
                }
                self.carry_out().await?;
            }
        }
        if let Some(attempt) = self.attempt.take() {
            attempt.abort();
        }
        self.keep_last().await?;
        self.online.send_replace(false);
        Ok(())
    }

    /// What others hand over while everything stops is kept for the next start.
    async fn keep_last(&mut self) -> Result<(), aos_store::Error> {
        while let Ok(Some(command)) = tokio::time::timeout(LAST_WORDS, self.commands.recv()).await {
            if let Some(input) = self.command(command) {
                self.session.handle(self.clock.now(), input);
                self.carry_out().await?;
            }
        }
        Ok(())
    }

    fn command(&mut self, command: Command) -> Option<Input<Read>> {
        match command {
            Command::Send(message, done) => {
                let queued = self.queued(*message);
                if let Some(done) = done {
                    self.watched.insert(queued.txn.clone(), done);
                }
                Some(Input::Send(queued))
            }
            Command::Ask(digests, done) => {
                self.asked.retain(|_, asked| !asked.done.is_closed());
                let correlation_id = uuid::Uuid::new_v4().to_string();
                let question = self.question(correlation_id.clone(), digests.clone());
                self.asked
                    .insert(correlation_id, Question { digests, done });
                Some(Input::Send(question))
            }
        }
    }

    /// A connection begins: what is still asked is asked again, and a certificate that came meanwhile is shown.
    fn begin(&mut self) {
        self.asked.retain(|_, asked| !asked.done.is_closed());
        let open = self.asked.iter();
        let questions: Vec<Queued> = open
            .map(|(id, asked)| self.question(id.clone(), asked.digests.clone()))
            .collect();
        let now = self.clock.now();
        for question in questions {
            self.session.handle(now, Input::Send(question));
        }
        if let Some(renew) = self.renewal() {
            self.session.handle(now, renew);
        }
    }

    fn question(&self, correlation_id: String, digests: Vec<Digest>) -> Queued {
        self.queued(Outgoing {
            body: ask_for(digests),
            correlation_id: Some(correlation_id),
            priority: Priority::High,
            keep: Keep::Connection,
            topic: None,
        })
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

    fn hear(&mut self, heard: Heard) -> Option<Input<Read>> {
        let frame = match heard {
            Heard::Alive => return Some(Input::Heard),
            Heard::TooLong(why) => {
                let why = format!("it is longer than anything that is read: {why}");
                self.complain(why.clone(), &why);
                self.hang_up();
                return Some(Input::Disconnected);
            }
            Heard::Closed(why) => {
                tracing::info!(why, "the cloud connection is over");
                self.hang_up();
                return Some(Input::Disconnected);
            }
            Heard::Frame(frame) => frame,
        };
        Some(match arrived(&frame, &self.system_id, &self.caps) {
            Arrived::Ack(txn) => Input::Acked { txn },
            Arrived::Nack { txn, retry_after } => Input::Nacked { txn, retry_after },
            Arrived::Data { txn, read } => Input::Received {
                txn,
                message: read,
                bytes: frame.len(),
            },
            Arrived::Nameless(why) => {
                self.complain(why.clone(), &why);
                Input::Heard
            }
        })
    }

    /// Says to people, once for each `which`, that a message of the cloud is of no use.
    fn complain(&mut self, which: String, why: &str) {
        use crate::contract::AlertSink;
        if self.complained.len() >= COMPLAINED {
            self.complained.clear();
        }
        if self.complained.insert(which) {
            tracing::warn!(why, "a message of the cloud cannot be used");
            self.link.alert(refused_alert(&self.node, why));
        }
    }

    fn attempted(&mut self, attempt: Option<Attempt>) -> Option<Input<Read>> {
        self.attempt = None;
        let Some((connector, result)) = attempt else {
            return Some(Input::ConnectFailed { wait: None });
        };
        self.connector = connector;
        match result {
            Ok(opened) => {
                tracing::info!("the cloud is connected");
                if let Some(first) = opened.first_wait {
                    self.session
                        .handle(self.clock.now(), Input::FirstWait(first));
                }
                self.connection += 1;
                self.shown = Some(opened.shown);
                // A former one, if any, is closed by this.
                self.socket = Some(Socket::start(
                    opened.stream,
                    self.connection,
                    self.heard.0.clone(),
                ));
                self.report = None;
                self.online.send_replace(true);
                Some(Input::Connected)
            }
            Err(failed) => {
                tracing::info!(why = failed.why, "cannot connect to the cloud");
                if let Some(first) = failed.first_wait {
                    self.session
                        .handle(self.clock.now(), Input::FirstWait(first));
                }
                Some(Input::ConnectFailed { wait: failed.wait })
            }
        }
    }

    /// A certificate came. The connection is replaced if it was made with another one.
    fn renewal(&self) -> Option<Input<Read>> {
        let own = self.connector.own()?;
        if self.socket.is_some() && self.shown.as_ref() == Some(&own) {
            return None;
        }
        tracing::info!("there is a new `online` certificate; connecting with it");
        Some(Input::Renew)
    }

    fn hang_up(&mut self) {
        self.socket = None;
        self.shown = None;
        self.connection += 1;
        self.report = None;
        self.online.send_replace(false);
    }

    /// Carries out all outputs: what is to be stored is on the disk before anything after it happens.
    async fn carry_out(&mut self) -> Result<(), aos_store::Error> {
        let mut changes = Vec::new();
        loop {
            let mut more = VecDeque::new();
            while let Some(output) = self.session.poll() {
                match output {
                    Output::Persist(record) => changes.push(Change::Put(record)),
                    Output::Forget(key) => changes.push(Change::Delete(key)),
                    Output::WakeAt(at) => self.wake = Some(at),
                    Output::Acked { txn } => {
                        if let Some((_, lost)) =
                            self.report.take_if(|(reporting, _)| *reporting == txn)
                        {
                            more.push_back(Input::Reported(lost));
                        }
                        self.answer(&txn, Answer::Acked);
                    }
                    Output::Dropped { txn, why } => {
                        tracing::debug!(txn, ?why, "a message was dropped");
                        self.answer(&txn, Answer::Dropped);
                    }
                    Output::Transmit(frame) => {
                        self.flush(&mut changes).await?;
                        more.extend(self.transmit(frame));
                    }
                    Output::Deliver { txn, message } => {
                        self.flush(&mut changes).await?;
                        more.extend(self.deliver(txn, message));
                    }
                    Output::Connect => {
                        let connecting = self.connector.clone().connect(self.system_id.clone());
                        self.attempt = Some(tokio::spawn(connecting));
                    }
                    Output::Disconnect(_) => {
                        tracing::info!("the cloud is silent; connecting anew");
                        self.hang_up();
                    }
                    Output::Report(lost) => more.push_back(self.tell_lost(lost)),
                }
            }
            if more.is_empty() {
                return self.flush(&mut changes).await;
            }
            for input in more {
                self.session.handle(self.clock.now(), input);
            }
        }
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

    /// Tells people what was dropped, on this connection.
    fn tell_lost(&mut self, lost: Lost) -> Input<Read> {
        let (messages, bytes) = self.bounds;
        let body = lost_alert(&self.node, lost, messages, bytes);
        let queued = self.queued(Outgoing {
            keep: Keep::Connection,
            ..Outgoing::durable(body, Priority::Normal)
        });
        tracing::warn!(
            ?lost,
            "messages for the cloud were dropped: too many waited"
        );
        self.report = Some((queued.txn.clone(), lost));
        Input::Send(queued)
    }

    /// Gives a frame to the socket. What comes of it when the socket does not take it is the end of the connection.
    fn transmit(&mut self, frame: Frame) -> Option<Input<Read>> {
        let message = match frame {
            Frame::Message { payload, .. } => {
                tungstenite::Message::Binary(Bytes::from_owner(payload))
            }
            Frame::Ack { txn } => {
                tungstenite::Message::Binary(self.message(txn, Body::Ack, None).into())
            }
            Frame::Nack { txn, retry_after } => {
                let nack = Body::Nack(Nack {
                    retry_after_ms: u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX),
                });
                tungstenite::Message::Binary(self.message(txn, nack, None).into())
            }
            Frame::Ping => tungstenite::Message::Ping(Bytes::new()),
        };
        if self.socket.as_ref()?.send(message) {
            return None;
        }
        // A gap in what is sent would change the order: the next connection begins with all of it.
        tracing::info!("the cloud does not read what is sent; connecting anew");
        self.hang_up();
        Some(Input::Disconnected)
    }

    /// Answers to requests are dealt with here; all else is somebody else's.
    fn deliver(&mut self, txn: String, read: Read) -> Option<Input<Read>> {
        let decoded: Decoded = match read {
            Read::Message(decoded) => *decoded,
            Read::Useless(why) => {
                self.complain(txn.clone(), &why);
                let outcome = Handled::Useless(USELESS_RETRY);
                return Some(Input::Handled { txn, outcome });
            }
        };
        // The engine reports what it cannot read of a desired state itself.
        if !matches!(decoded.message.body, Body::DesiredStatus(_)) {
            let kind = decoded.message.body.message_type();
            for (place, part) in decoded.unreadable.iter().take(TOLD_PARTS).enumerate() {
                let which = format!("{txn} {place}");
                self.complain(
                    which,
                    &format!("a part of a `{kind}` cannot be used: {part}"),
                );
            }
        }
        let correlation_id = decoded.message.correlation_id;
        if let Body::BlobUrls(urls) = decoded.message.body {
            // An answer that nobody waits for any more is of no use to anybody else.
            if let Some(question) = correlation_id.and_then(|id| self.asked.remove(&id)) {
                let _ = question.done.send(urls);
            }
            let outcome = Handled::Accept;
            return Some(Input::Handled { txn, outcome });
        }
        let (done, outcome) = oneshot::channel();
        let incoming = Incoming {
            body: decoded.message.body,
            unreadable: decoded.unreadable,
            correlation_id,
            done,
        };
        // There is room: one message is in hand at a time.
        if self.incoming.try_send(incoming).is_err() {
            let outcome = Handled::Refuse(UNTAKEN_RETRY);
            return Some(Input::Handled { txn, outcome });
        }
        self.in_hand = Some(InHand {
            txn,
            outcome,
            until: tokio::time::Instant::now() + TAKING_OVER,
        });
        None
    }
}

/// Waits until the message in hand is dealt with. One that nobody took may come again.
async fn taken_over(in_hand: &mut Option<InHand>) -> (String, Handled) {
    let Some(in_hand) = in_hand else {
        return future::pending().await;
    };
    let outcome = tokio::time::timeout_at(in_hand.until, &mut in_hand.outcome).await;
    let outcome = match outcome {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) | Err(_) => {
            tracing::warn!("a message of the cloud was not taken; it is asked for again");
            Handled::Refuse(UNTAKEN_RETRY)
        }
    };
    (in_hand.txn.clone(), outcome)
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
