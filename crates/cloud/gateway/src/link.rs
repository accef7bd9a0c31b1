use std::{collections::VecDeque, sync::Arc, time::Duration};

use aos_api::{OnlineStatus, Severity, TimelineKind, UpdatePhase};
use aos_cloud_protocol::{
    Body, Header, Message, MessageType, Nack, RequestBlobUrls, StateAcceptance, StateResult,
    Unreadable,
};
use aos_db::{Actor, DbError, Happening, LinkKey, LinkRecord, LinkWrite, UnitStatusReport};
use aos_session::{
    Dropped, Frame, Gone, Handled, Input, Keep, Output, Priority, Record, RecordKey, Session,
};
use aos_time::{SystemChance, Timestamp};
use aos_types::SystemId;
use axum::extract::ws::{self, CloseFrame, WebSocket, close_code};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    alerts,
    blob_urls::{self, AnswerError},
    desired::{self, ComposeError},
    gateway::Shared,
    incoming::{Arrived, Incoming, arrived},
    status,
};

/// How long one frame may take to leave; a peer that does not read for so long is dropped.
const SEND_DEADLINE: Duration = Duration::from_secs(30);
/// How long saying goodbye may take.
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);
/// The newest desired state replaces an older one that still waits.
const DESIRED_TOPIC: &str = "desired";

/// A new connection of a Unit.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) socket: WebSocket,
    pub(crate) system_id: SystemId,
    /// Host and port by which the Unit reached us.
    pub(crate) authority: String,
}

/// What the task of a Unit is told.
#[derive(Debug)]
pub(crate) enum Note {
    Attach(Box<Attached>),
    /// What the Unit should be may have changed.
    Recompose,
}

/// The task cannot go on: it ends, the link is closed, and what was not stored comes again.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error(transparent)]
    Db(#[from] DbError),
    #[error(transparent)]
    Compose(#[from] ComposeError),
    #[error(transparent)]
    Answer(#[from] AnswerError),
    #[error("the id `{0}` of a Unit in the store is not usable")]
    Id(String),
}

/// Runs the task of one Unit until there is nothing to do for it.
pub(crate) async fn run(
    shared: Arc<Shared>,
    unit: Uuid,
    mailbox: mpsc::Receiver<Note>,
    stop: CancellationToken,
) {
    let place = shared.composing.acquire().await.ok();
    let restored = Link::restore(shared.clone(), unit, mailbox).await;
    drop(place);
    let mut link = match restored {
        Ok(link) => link,
        Err(error) => {
            report(unit, &error);
            shared.registry.remove(unit);
            return;
        }
    };
    let (code, reason) = match link.serve(&stop).await {
        // Off the list already, and another task may be on it.
        Ok(Ended::Idle) => return,
        Ok(Ended::Stopped) => (close_code::AWAY, "the cloud stops"),
        Err(error) => {
            report(unit, &error);
            (close_code::ERROR, "something failed in the cloud")
        }
    };
    shared.registry.remove(unit);
    if link.online.is_some() {
        link.close(code, reason).await;
        if let Err(error) = shared
            .options
            .db
            .set_link(unit, OnlineStatus::Offline, reason)
            .await
        {
            report(unit, &error.into());
        }
    }
}

fn report(unit: Uuid, error: &LinkError) {
    match error {
        // A Unit that was deleted meanwhile is no fault.
        LinkError::Db(DbError::NotFound { .. }) => tracing::info!(%unit, "the Unit is gone"),
        error => {
            let cause = std::error::Error::source(error).map(ToString::to_string);
            tracing::error!(%unit, %error, cause, "the link of a Unit failed");
        }
    }
}

/// Why a task ended without a fault.
enum Ended {
    Idle,
    Stopped,
}

struct Online {
    socket: WebSocket,
    authority: String,
    /// No full status came over this connection yet.
    fresh: bool,
}

struct Link {
    shared: Arc<Shared>,
    unit: Uuid,
    tenant: Uuid,
    system_id: SystemId,
    session: Session<Incoming>,
    /// Outputs of the session that are to be carried out, in order.
    outputs: VecDeque<Output<Incoming>>,
    mailbox: mpsc::Receiver<Note>,
    online: Option<Online>,
    wake: Option<Instant>,
    /// The desired state that is in the outbox.
    desired_txn: Option<String>,
}

/// Whether a desired state that was just composed is to be sent.
enum Sending {
    No,
    /// Unless the Unit has taken it over, or it waits in the outbox already.
    Unacknowledged,
    Anyway,
}

/// What a message does, apart from being acknowledged.
enum Effect {
    Nothing,
    Status {
        reports: Vec<UnitStatusReport>,
        full: bool,
    },
    Events(Vec<Happening>),
    Urls {
        correlation_id: Option<String>,
        request: RequestBlobUrls,
        events: Vec<Happening>,
    },
    Answer(Body),
}

impl Link {
    async fn restore(
        shared: Arc<Shared>,
        unit: Uuid,
        mailbox: mpsc::Receiver<Note>,
    ) -> Result<Self, LinkError> {
        let db = &shared.options.db;
        let known = db.unit_for_compose(unit).await?;
        let records: Vec<Record> = db
            .link_records(unit)
            .await?
            .into_iter()
            .map(record_of)
            .collect();
        let desired_txn = records.iter().rev().find_map(|record| match record {
            Record::Outgoing(message) if message.topic.as_deref() == Some(DESIRED_TOPIC) => {
                Some(message.txn.clone())
            }
            _ => None,
        });
        let session = Session::restore(
            shared.options.session.clone(),
            Box::new(SystemChance),
            records,
            db.now(),
        );
        Ok(Self {
            unit,
            tenant: known.tenant,
            system_id: SystemId::new(&known.system_uid)
                .map_err(|_| LinkError::Id(known.system_uid))?,
            session,
            outputs: VecDeque::new(),
            mailbox,
            online: None,
            wake: None,
            desired_txn,
            shared,
        })
    }

    fn now(&self) -> Timestamp {
        self.shared.options.db.now()
    }

    /// Serves until the stop, or until the Unit is not linked and nothing waits.
    async fn serve(&mut self, stop: &CancellationToken) -> Result<Ended, LinkError> {
        enum Next {
            Note(Option<Note>),
            Frame(Option<Result<ws::Message, axum::Error>>),
            Wake,
        }
        loop {
            if self.online.is_none() && self.shared.registry.retire(self.unit, &self.mailbox) {
                return Ok(Ended::Idle);
            }
            let wake = self.wake;
            let online = self.online.as_mut();
            // Receiving from the box and from the socket is cancel-safe: what is not taken stays.
            let next = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(Ended::Stopped),
                note = self.mailbox.recv() => Next::Note(note),
                frame = receive(online) => Next::Frame(frame),
                () = sleep(wake) => Next::Wake,
            };
            match next {
                Next::Note(Some(Note::Attach(attached))) => self.attach(*attached).await?,
                Next::Note(Some(Note::Recompose)) => self.recompose().await?,
                Next::Note(None) => return Ok(Ended::Stopped),
                Next::Frame(Some(Ok(frame))) => self.frame(frame).await?,
                Next::Frame(Some(Err(error))) => {
                    self.lost(&format!("the connection failed: {error}"))
                        .await?;
                }
                Next::Frame(None) => self.lost("").await?,
                Next::Wake => {
                    self.wake = None;
                    self.feed(Input::Wake).await?;
                }
            }
        }
    }

    async fn attach(&mut self, attached: Attached) -> Result<(), LinkError> {
        if self.online.is_some() {
            self.close(close_code::POLICY, "the Unit has connected anew")
                .await;
        }
        // The new one first, so that no outdated desired state leaves.
        if let Err(error) = self.queue_desired(Sending::Unacknowledged).await {
            match error {
                // The link is worth having even so; people see why nothing new is sent.
                LinkError::Compose(error) => self.note_compose_error(&error).await?,
                error => return Err(error),
            }
        }
        self.online = Some(Online {
            socket: attached.socket,
            authority: attached.authority,
            fresh: true,
        });
        tracing::info!(unit = %attached.system_id, "linked");
        self.shared
            .options
            .db
            .set_link(self.unit, OnlineStatus::Connected, "")
            .await?;
        self.feed(Input::Connected).await
    }

    async fn note_compose_error(&mut self, error: &ComposeError) -> Result<(), LinkError> {
        let event = Happening::new(TimelineKind::Desired, Severity::Error, error.to_string());
        Ok(self.shared.options.db.note(self.unit, &[event]).await?)
    }

    async fn frame(&mut self, frame: ws::Message) -> Result<(), LinkError> {
        let bytes = match &frame {
            ws::Message::Binary(bytes) => bytes.as_ref(),
            ws::Message::Text(text) => text.as_bytes(),
            ws::Message::Ping(_) | ws::Message::Pong(_) => return self.feed(Input::Heard).await,
            ws::Message::Close(_) => return self.lost("").await,
        };
        match arrived(bytes, &self.system_id, &self.shared.options.caps) {
            Arrived::Ack(txn) => self.feed(Input::Acked { txn }).await,
            Arrived::Nack {
                txn,
                retry_after_ms,
            } => {
                let retry_after = Duration::from_millis(retry_after_ms);
                self.feed(Input::Nacked { txn, retry_after }).await
            }
            Arrived::Data { txn, incoming } => {
                self.feed(Input::Received {
                    txn,
                    message: incoming,
                })
                .await
            }
            Arrived::OfAnother(claimed) => {
                let claimed: String = claimed.chars().take(64).collect();
                self.shared.counts.add("refused");
                let event = Happening::new(
                    TimelineKind::Protocol,
                    Severity::Error,
                    format!(
                        "refused: a message on the link of this Unit claims to be of Unit `{claimed}`; the link was closed"
                    ),
                );
                self.shared.options.db.note(self.unit, &[event]).await?;
                self.close(
                    close_code::POLICY,
                    "the message names another system id than the certificate",
                )
                .await;
                self.lost("it claimed to be another Unit").await
            }
        }
    }

    /// Gives an input to the session and carries out what comes of it.
    async fn feed(&mut self, input: Input<Incoming>) -> Result<(), LinkError> {
        let now = self.now();
        self.session.handle(now, input);
        self.carry_out().await
    }

    fn collect(&mut self) {
        while let Some(output) = self.session.poll() {
            self.outputs.push_back(output);
        }
    }

    /// Takes the records that come before the next frame, so that they can be stored together with something else.
    fn records_ahead(&mut self) -> LinkWrite {
        self.collect();
        let mut write = LinkWrite::default();
        let mut rest = VecDeque::with_capacity(self.outputs.len());
        let mut before_frame = true;
        for output in self.outputs.drain(..) {
            match output {
                Output::Persist(record) if before_frame => write.put.push(link_record(record)),
                Output::Forget(key) if before_frame => write.forget.push(link_key(key)),
                other => {
                    before_frame &= !matches!(other, Output::Transmit(_) | Output::Deliver { .. });
                    rest.push_back(other);
                }
            }
        }
        self.outputs = rest;
        write
    }

    async fn carry_out(&mut self) -> Result<(), LinkError> {
        let mut write = LinkWrite::default();
        loop {
            self.collect();
            let Some(output) = self.outputs.pop_front() else {
                return self.flush(&mut write).await;
            };
            match output {
                Output::Persist(record) => write.put.push(link_record(record)),
                Output::Forget(key) => write.forget.push(link_key(key)),
                Output::Transmit(frame) => {
                    self.flush(&mut write).await?;
                    self.transmit(frame).await?;
                }
                Output::Deliver { txn, message } => {
                    self.flush(&mut write).await?;
                    self.deliver(txn, message).await?;
                }
                Output::Acked { txn } => {
                    if self.desired_txn.as_ref() == Some(&txn) {
                        self.desired_txn = None;
                    }
                    let records = std::mem::take(&mut write);
                    self.shared
                        .options
                        .db
                        .desired_acked(self.unit, &txn, &records)
                        .await?;
                }
                Output::Dropped { txn, why } => {
                    if self.desired_txn.as_ref() == Some(&txn) && why != Dropped::Replaced {
                        self.desired_txn = None;
                    }
                    if why == Dropped::Full {
                        self.shared.counts.add("dropped");
                    }
                }
                Output::Disconnect(Gone::Silent) => {
                    self.close(close_code::POLICY, "nothing was heard for too long")
                        .await;
                    self.online = None;
                    self.set_offline("nothing was heard for too long").await?;
                }
                Output::WakeAt(at) => self.wake = Some(Instant::now() + at.since(self.now())),
                // The cloud is called, it never calls.
                Output::Connect => {}
            }
        }
    }

    async fn flush(&mut self, write: &mut LinkWrite) -> Result<(), LinkError> {
        let write = std::mem::take(write);
        Ok(self.shared.options.db.write_link(self.unit, &write).await?)
    }

    async fn transmit(&mut self, frame: Frame) -> Result<(), LinkError> {
        let frame = match frame {
            Frame::Message { payload, .. } => {
                ws::Message::Binary(bytes::Bytes::copy_from_slice(&payload))
            }
            Frame::Ack { txn } => self.reply(txn, Body::Ack),
            Frame::Nack { txn, retry_after } => {
                let retry_after_ms = u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX);
                self.reply(txn, Body::Nack(Nack { retry_after_ms }))
            }
            Frame::Ping => ws::Message::Ping(bytes::Bytes::new()),
        };
        let Some(online) = &mut self.online else {
            return Ok(());
        };
        let lost = match timeout(SEND_DEADLINE, online.socket.send(frame)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => format!("sending failed: {error}"),
            Err(_) => "the Unit does not read what is sent".into(),
        };
        self.gone(&lost).await
    }

    fn reply(&self, txn: String, body: Body) -> ws::Message {
        let message = Message {
            header: self.header(txn),
            correlation_id: None,
            body,
        };
        ws::Message::Binary(message.encode().into())
    }

    fn header(&self, txn: String) -> Header {
        Header {
            system_id: self.system_id.clone(),
            created_at: self.now(),
            txn,
        }
    }

    /// The connection is gone: tells session and store, and carries out what comes of it.
    async fn lost(&mut self, reason: &str) -> Result<(), LinkError> {
        self.gone(reason).await?;
        self.carry_out().await
    }

    /// The connection is gone: tells session and store.
    async fn gone(&mut self, reason: &str) -> Result<(), LinkError> {
        if self.online.take().is_none() {
            return Ok(());
        }
        let now = self.now();
        self.session.handle(now, Input::Disconnected);
        self.set_offline(reason).await
    }

    async fn set_offline(&mut self, reason: &str) -> Result<(), LinkError> {
        tracing::info!(unit = %self.system_id, reason, "link lost");
        self.wake = None;
        Ok(self
            .shared
            .options
            .db
            .set_link(self.unit, OnlineStatus::Offline, reason)
            .await?)
    }

    async fn close(&mut self, code: u16, reason: &'static str) {
        if let Some(online) = &mut self.online {
            let frame = CloseFrame {
                code,
                reason: reason.into(),
            };
            let send = online.socket.send(ws::Message::Close(Some(frame)));
            // The peer may be gone already.
            let _ = timeout(CLOSE_DEADLINE, send).await;
        }
    }

    /// Deals with one message: what it changes and that it was handled are stored together, then it is acknowledged.
    async fn deliver(&mut self, txn: String, incoming: Incoming) -> Result<(), LinkError> {
        let effect = self.effect(incoming);
        let now = self.now();
        let outcome = Handled::Accept;
        self.session.handle(now, Input::Handled { txn, outcome });
        let records = self.records_ahead();
        let db = self.shared.options.db.clone();
        match effect {
            Effect::Nothing => db.write_link(self.unit, &records).await?,
            Effect::Events(events) => {
                if !events.is_empty() {
                    db.note(self.unit, &events).await?;
                }
                db.write_link(self.unit, &records).await?;
            }
            Effect::Status { reports, full } => {
                let last = reports.len().saturating_sub(1);
                for (place, report) in reports.iter().enumerate() {
                    let none = LinkWrite::default();
                    let records = if place == last { &records } else { &none };
                    db.apply_status(self.unit, report, records).await?;
                }
                if full {
                    self.full_status().await?;
                }
            }
            Effect::Urls {
                correlation_id,
                request,
                events,
            } => {
                let authority = self
                    .online
                    .as_ref()
                    .map(|online| online.authority.clone())
                    .unwrap_or_default();
                let answer =
                    blob_urls::answer(&self.shared, self.unit, &authority, request).await?;
                if !events.is_empty() {
                    db.note(self.unit, &events).await?;
                }
                db.write_link(self.unit, &records).await?;
                self.send(correlation_id, Body::BlobUrls(answer), Keep::Connection);
            }
            Effect::Answer(body) => {
                db.write_link(self.unit, &records).await?;
                self.send(None, body, Keep::Durable);
            }
        }
        Ok(())
    }

    /// Puts a message into the outbox.
    fn send(&mut self, correlation_id: Option<String>, body: Body, keep: Keep) {
        let txn = Uuid::new_v4().to_string();
        let message = Message {
            header: self.header(txn.clone()),
            correlation_id,
            body,
        };
        let now = self.now();
        self.session.handle(
            now,
            Input::Send(aos_session::Message {
                txn,
                payload: message.encode().into(),
                priority: Priority::High,
                keep,
                topic: None,
            }),
        );
    }

    fn effect(&self, incoming: Incoming) -> Effect {
        let protocol =
            |text: String| Happening::new(TimelineKind::Protocol, Severity::Warning, text);
        let (message, unreadable) = match incoming {
            Incoming::Useless(error) => {
                self.shared.counts.add("unreadable");
                let cause = std::error::Error::source(&error.reason)
                    .map_or_else(String::new, |cause| format!(": {cause}"));
                return Effect::Events(vec![protocol(format!("{error}{cause}"))]);
            }
            Incoming::Message {
                message,
                unreadable,
            } => (*message, unreadable),
        };
        let kind = message.body.message_type();
        self.shared.counts.add(kind.as_str());
        if !kind.is_from_unit() {
            return Effect::Events(vec![protocol(format!(
                "the Unit sent a `{kind}`, which only a cloud sends; it was ignored"
            ))]);
        }
        let parts = |kind: MessageType, unreadable: &[Unreadable]| -> Vec<Happening> {
            unreadable
                .iter()
                .map(|part| protocol(format!("a part of a `{kind}` could not be read: {part}")))
                .collect()
        };
        match message.body {
            Body::UnitStatus(status) => Effect::Status {
                full: !status.is_delta,
                reports: status::reports(status, &unreadable),
            },
            Body::RequestBlobUrls(request) => Effect::Urls {
                correlation_id: message.correlation_id,
                request,
                events: parts(kind, &unreadable),
            },
            Body::Alerts(list) => {
                let mut events = parts(kind, &unreadable);
                events.extend(list.items.into_iter().filter_map(alerts::happening));
                Effect::Events(events)
            }
            // State of a group's instances stays on the Unit: whatever it writes is right.
            Body::NewState(state) => Effect::Answer(Body::StateAcceptance(StateAcceptance {
                instance: state.instance,
                checksum: state.checksum,
                result: StateResult::Accepted,
                reason: String::new(),
            })),
            // Counted above; nothing in the cloud asks for them yet.
            _ if unreadable.is_empty() => Effect::Nothing,
            _ => Effect::Events(parts(kind, &unreadable)),
        }
    }

    /// After the first full status of a connection: a Unit that took its desired state over, but is not so, gets it again.
    async fn full_status(&mut self) -> Result<(), LinkError> {
        let fresh = self
            .online
            .as_mut()
            .is_some_and(|online| std::mem::take(&mut online.fresh));
        if !fresh {
            return Ok(());
        }
        let unit = self
            .shared
            .options
            .db
            .unit(&Actor::system(self.tenant), &self.unit.to_string())
            .await?;
        let differs = !matches!(
            unit.update_phase,
            UpdatePhase::Installed | UpdatePhase::WaitingForUnit | UpdatePhase::None
        );
        if differs {
            self.queue_desired(Sending::Anyway).await?;
        }
        Ok(())
    }

    /// Composes the desired state anew, and sends it if there is a link; else it goes out with the next one.
    async fn recompose(&mut self) -> Result<(), LinkError> {
        let send = if self.online.is_some() {
            Sending::Unacknowledged
        } else {
            Sending::No
        };
        self.queue_desired(send).await?;
        self.carry_out().await
    }

    /// Composes and stores the desired state, and puts it into the outbox if it is to be sent.
    async fn queue_desired(&mut self, send: Sending) -> Result<(), LinkError> {
        let shared = self.shared.clone();
        // It is never closed; without a place it would only be less patient.
        let _place = shared.composing.acquire().await.ok();
        let db = &shared.options.db;
        let known = db.unit_for_compose(self.unit).await?;
        let (desired, new) = desired::compose(&known, &shared.trust)?;
        db.store_desired(self.unit, &new).await?;
        let Some(newest) = db.newest_desired(self.unit).await? else {
            return Ok(());
        };
        let waits = newest.txn.is_some() && newest.txn == self.desired_txn;
        let wanted = match send {
            Sending::No => false,
            Sending::Unacknowledged => newest.acked_at.is_none() && !waits,
            Sending::Anyway => true,
        };
        if !wanted {
            return Ok(());
        }
        let txn = Uuid::new_v4().to_string();
        let message = Message {
            header: self.header(txn.clone()),
            correlation_id: None,
            body: Body::DesiredStatus(desired),
        };
        let now = self.now();
        self.session.handle(
            now,
            Input::Send(aos_session::Message {
                txn: txn.clone(),
                payload: message.encode().into(),
                priority: Priority::High,
                keep: Keep::Durable,
                topic: Some(DESIRED_TOPIC.into()),
            }),
        );
        let records = self.records_ahead();
        db.desired_sent(self.unit, newest.number, &txn, &records)
            .await?;
        self.desired_txn = Some(txn);
        Ok(())
    }
}

async fn receive(online: Option<&mut Online>) -> Option<Result<ws::Message, axum::Error>> {
    match online {
        Some(online) => online.socket.recv().await,
        None => std::future::pending().await,
    }
}

async fn sleep(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}

fn record_of(record: LinkRecord) -> Record {
    match record {
        LinkRecord::Outgoing {
            seq,
            txn,
            priority,
            topic,
            payload,
        } => Record::Outgoing(aos_session::Outgoing {
            seq,
            txn,
            priority: Priority::from_number(priority),
            topic,
            payload,
        }),
        LinkRecord::Seen { seq, txn } => Record::Seen { seq, txn },
    }
}

fn link_record(record: Record) -> LinkRecord {
    match record {
        Record::Outgoing(message) => LinkRecord::Outgoing {
            seq: message.seq,
            txn: message.txn,
            priority: message.priority.as_number(),
            topic: message.topic,
            payload: message.payload,
        },
        Record::Seen { seq, txn } => LinkRecord::Seen { seq, txn },
    }
}

const fn link_key(key: RecordKey) -> LinkKey {
    match key {
        RecordKey::Outgoing(seq) => LinkKey::Outgoing(seq),
        RecordKey::Seen(seq) => LinkKey::Seen(seq),
    }
}
