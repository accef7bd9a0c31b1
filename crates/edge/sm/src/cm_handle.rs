use std::time::Duration;

use aos_types::{AosCode, ErrorInfo, NodeId};
use tokio::{sync::watch, time};
use tonic::transport::Channel;

/// How long somebody waits for a connection that is just being made.
const PATIENCE: Duration = Duration::from_secs(10);

/// The way to CM for those who ask it something. There may be none.
#[derive(Debug, Clone)]
pub(crate) struct CmHandle {
    channel: watch::Sender<Option<Channel>>,
    /// Whether CM speaks `aos.node.v1` too.
    attached: watch::Sender<bool>,
    node: NodeId,
}

impl CmHandle {
    pub(crate) fn new(node: NodeId) -> Self {
        Self {
            channel: watch::Sender::new(None),
            attached: watch::Sender::new(false),
            node,
        }
    }

    /// This Node, as it calls itself.
    pub(crate) fn node(&self) -> &NodeId {
        &self.node
    }

    pub(crate) fn set(&self, channel: Option<Channel>) {
        self.channel.send_replace(channel);
    }

    pub(crate) fn set_attached(&self, attached: bool) {
        self.attached.send_replace(attached);
    }

    pub(crate) fn is_attached(&self) -> bool {
        *self.attached.borrow()
    }

    /// The connection, waited for a while.
    pub(crate) async fn channel(&self) -> Result<Channel, ErrorInfo> {
        let mut watch = self.channel.subscribe();
        let found = time::timeout(PATIENCE, watch.wait_for(Option::is_some)).await;
        match found {
            Ok(Ok(channel)) => channel.clone().ok_or_else(away),
            _ => Err(away()),
        }
    }

    /// The connection, if there is one now.
    pub(crate) fn channel_now(&self) -> Result<Channel, ErrorInfo> {
        self.channel.borrow().clone().ok_or_else(away)
    }
}

fn away() -> ErrorInfo {
    ErrorInfo::new(
        AosCode::Timeout,
        "CM cannot be reached: check that it runs and that this Node's network reaches it",
    )
}

/// A failed call, as an error that travels.
pub(crate) fn call_failed(doing: &str, status: &tonic::Status) -> ErrorInfo {
    ErrorInfo::new(
        AosCode::Failed,
        format!("CM cannot {doing}: {}", aos_ipc::reason(status)),
    )
}
