//! The task of one Unit: what it waits for, and how its connection comes and goes.

mod carry_out;
mod desired;
mod effect;
mod ending;
mod env_vars;
mod logs;
mod records;
mod renewals;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use aos_api::{OnlineStatus, Severity, TimelineKind};
use aos_db::{ComposeInputError, DbError, Happening, LinkWrite};
use aos_session::{Input, Output, Record, Session};
use aos_time::{Clock, SteadyClock, SystemChance, Timestamp};
use aos_types::SystemId;
use axum::extract::ws::{self, CloseFrame, WebSocket, close_code};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::{desired::Sending, ending::ending, records::record_of};
use crate::{
    gateway::Shared,
    incoming::{Arrived, Incoming, arrived},
};

/// How long saying goodbye may take.
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);

/// A new connection of a Unit.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) socket: WebSocket,
    pub(crate) system_id: SystemId,
    /// Host and port by which the Unit reached us.
    pub(crate) authority: String,
    /// SHA-256 of the certificate it showed, in hex.
    pub(crate) certificate: String,
}

/// What the task of a Unit is told.
#[derive(Debug)]
pub(crate) enum Note {
    Attach(Box<Attached>),
    /// What the Unit should be may have changed.
    Recompose,
    /// It was asked for a log.
    Logs,
}

/// The task cannot go on: it ends, the link is closed, and what was not stored comes again.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error(transparent)]
    Db(#[from] DbError),
    #[error(transparent)]
    Compose(#[from] ComposeInputError),
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
    /// The session's waits go by this one: setting the machine's clock neither ends nor stretches them.
    steady: SteadyClock,
    /// Outputs of the session that are to be carried out, in order.
    outputs: VecDeque<Output<Incoming>>,
    mailbox: mpsc::Receiver<Note>,
    online: Option<Online>,
    wake: Option<Instant>,
    /// The desired state that is in the outbox.
    desired_txn: Option<String>,
    /// The set of environment variables that is in the outbox.
    env_txn: Option<String>,
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
        let newest_of = |topic: &str| {
            records.iter().rev().find_map(|record| match record {
                Record::Outgoing(message) if message.topic.as_deref() == Some(topic) => {
                    Some(message.txn.clone())
                }
                _ => None,
            })
        };
        let (desired_txn, env_txn) = (newest_of(desired::TOPIC), newest_of(env_vars::TOPIC));
        let steady = SteadyClock::start();
        let session = Session::restore(
            shared.options.session.clone(),
            Box::new(SystemChance),
            records,
            steady.now(),
        );
        Ok(Self {
            unit,
            tenant: known.tenant,
            system_id: SystemId::new(&known.system_uid)
                .map_err(|_| LinkError::Id(known.system_uid))?,
            session,
            steady,
            outputs: VecDeque::new(),
            mailbox,
            online: None,
            wake: None,
            desired_txn,
            env_txn,
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
                Next::Note(Some(Note::Logs)) => {
                    // Without a link it goes out with the next one.
                    if self.online.is_some() {
                        self.queue_logs().await?;
                        self.carry_out().await?;
                    }
                }
                Next::Note(None) => return Ok(Ended::Stopped),
                Next::Frame(Some(Ok(frame))) => self.frame(frame).await?,
                Next::Frame(Some(Err(error))) => {
                    let (code, reason) = ending(&error);
                    if let Some(code) = code {
                        self.close(code, "the message is too long").await;
                    }
                    self.lost(&reason).await?;
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
        self.queue_env_vars().await?;
        let db = self.shared.options.db.clone();
        db.online_shown(self.unit, &attached.certificate).await?;
        self.queue_renewal().await?;
        self.queue_logs().await?;
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

    async fn note_compose_error(&mut self, error: &ComposeInputError) -> Result<(), LinkError> {
        let event = Happening::new(TimelineKind::Desired, Severity::Error, error.to_string());
        let db = &self.shared.options.db;
        Ok(db.note(self.unit, &[event], &LinkWrite::default()).await?)
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
                    bytes: bytes.len(),
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
                let db = &self.shared.options.db;
                db.note(self.unit, &[event], &LinkWrite::default()).await?;
                self.close(
                    close_code::POLICY,
                    "the message names another system id than the certificate",
                )
                .await;
                self.lost("it claimed to be another Unit").await
            }
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
        let now = self.steady.now();
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
