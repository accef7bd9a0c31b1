use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use aos_cloud_protocol::{Alert, AlertEvent, BlobUrls, Body, RequestBlobUrls};
use aos_session::{Keep, Priority};
use aos_time::{Clock, SystemClock};
use aos_types::{AosCode, Digest, ErrorInfo};
use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot, watch};

use super::alerts::Gate;
use crate::contract::{AlertSink, BlobSource};

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The cloud has it.
    Acked,
    /// It will not be sent any more.
    Dropped,
}

/// A message to send.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) body: Body,
    pub(crate) correlation_id: Option<String>,
    pub(crate) priority: Priority,
    pub(crate) keep: Keep,
    pub(crate) topic: Option<&'static str>,
}

impl Outgoing {
    /// Kept until the cloud has it.
    pub(crate) fn durable(body: Body, priority: Priority) -> Self {
        Self {
            body,
            correlation_id: None,
            priority,
            keep: Keep::Durable,
            topic: None,
        }
    }

    pub(crate) fn answering(mut self, correlation_id: Option<String>) -> Self {
        self.correlation_id = correlation_id;
        self
    }
}

/// What others ask of the driver.
#[derive(Debug)]
pub(crate) enum Command {
    Send(Box<Outgoing>, Option<oneshot::Sender<Answer>>),
    /// Sends a request and gives the answer with the same correlation id.
    Ask(Vec<Digest>, oneshot::Sender<BlobUrls>),
}

/// A handle to the cloud link.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) alerts: mpsc::Sender<Alert>,
    pub(super) gate: Arc<Gate>,
    /// Alerts that found no room since the last message that told of them.
    pub(super) alerts_dropped: Arc<AtomicU64>,
    pub(crate) connected: watch::Receiver<bool>,
    /// How long an answer may take.
    pub(super) patience: Duration,
}

impl Link {
    /// Hands a message over. It is durable, if it is to be, soon after; the order is kept.
    pub(crate) async fn send(&self, message: Outgoing) {
        // The driver has ended: the program is about to.
        let _ = self
            .commands
            .send(Command::Send(Box::new(message), None))
            .await;
    }

    /// Hands a message over and tells what became of it.
    pub(crate) async fn send_and_watch(&self, message: Outgoing) -> oneshot::Receiver<Answer> {
        let (done, answer) = oneshot::channel();
        let _ = self
            .commands
            .send(Command::Send(Box::new(message), Some(done)))
            .await;
        answer
    }

    pub(crate) fn is_connected(&self) -> bool {
        *self.connected.borrow()
    }
}

#[async_trait]
impl BlobSource for Link {
    async fn blob_urls(&self, digests: Vec<Digest>) -> Result<BlobUrls, ErrorInfo> {
        let offline = || ErrorInfo::new(AosCode::Failed, "the cloud is not connected");
        if !self.is_connected() {
            return Err(offline());
        }
        let (done, answer) = oneshot::channel();
        let asked = self.commands.send(Command::Ask(digests, done)).await;
        asked.map_err(|_| offline())?;
        match tokio::time::timeout(self.patience, answer).await {
            Ok(Ok(urls)) => Ok(urls),
            Ok(Err(_)) => Err(offline()),
            Err(_) => Err(ErrorInfo::new(
                AosCode::Timeout,
                "the cloud did not say in time where the blobs are",
            )),
        }
    }

    fn connected(&self) -> watch::Receiver<bool> {
        self.connected.clone()
    }
}

impl Link {
    /// An alert that arose at another moment than now.
    pub(crate) fn alert_of(&self, alert: Alert) {
        for alert in self.gate.admit(alert) {
            if self.alerts.try_send(alert).is_err() {
                self.alerts_dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl AlertSink for Link {
    fn alert(&self, event: AlertEvent) {
        self.alert_of(Alert {
            timestamp: SystemClock.now(),
            event,
        });
    }
}

/// The body of a request for the addresses of blobs.
pub(super) fn ask_for(digests: Vec<Digest>) -> Body {
    Body::RequestBlobUrls(RequestBlobUrls { digests })
}

/// A shared link as the traits want it.
pub(crate) fn shared(link: &Link) -> (Arc<dyn BlobSource>, Arc<dyn AlertSink>) {
    (Arc::new(link.clone()), Arc::new(link.clone()))
}
