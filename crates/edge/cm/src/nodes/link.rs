//! The open streams of each Node, and who waits for what on them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use aos_ipc::proto::{aos::node::v1 as node_pb, servicemanager::v5 as sm};
use aos_types::{AosCode, ErrorInfo, InstanceIdent, ItemId, NodeId};
use tokio::sync::{Mutex, mpsc, oneshot};
use tonic::Status;

use super::messages::ConfigReport;
use crate::contract::{InstanceRun, Needs};

pub(super) type Orders = mpsc::Sender<Result<sm::SmIncomingMessages, Status>>;
pub(super) type AttachOrders = mpsc::Sender<Result<node_pb::NodeOrder, Status>>;
/// How the runs of a Node's instances went.
pub(super) type Runs = Arc<BTreeMap<InstanceIdent, InstanceRun>>;
/// How an order about instances came out: an error for each for which it failed.
pub(super) type Installed = BTreeMap<InstanceIdent, ErrorInfo>;

/// Where to order something and its answer; nothing if the Node has no stream for it.
type Expected<T> = Option<(AttachOrders, oneshot::Receiver<T>)>;

/// One `RegisterSM` stream.
struct Link {
    /// Tells this stream from an older one of the same Node.
    stream: u64,
    orders: Orders,
    config_turn: Arc<Mutex<()>>,
    config_answers: Option<mpsc::Sender<ConfigReport>>,
    launches: Vec<oneshot::Sender<()>>,
}

/// One `Attach` stream.
struct Attached {
    stream: u64,
    orders: AttachOrders,
    asked: HashMap<String, oneshot::Sender<Installed>>,
    states: HashMap<String, oneshot::Sender<Option<ErrorInfo>>>,
    runs: Option<Runs>,
    needs: Option<Arc<Needs>>,
    space: Option<aos_schedule::Space>,
    protocol: u32,
}

#[derive(Default)]
pub(super) struct Links {
    links: BTreeMap<NodeId, Link>,
    attached: BTreeMap<NodeId, Attached>,
    cloud: bool,
    streams: u64,
}

/// From this protocol on an SM tells how the runs of its instances go.
const TELLS_RUNS: u32 = 2;
/// From this protocol on it tells lines of logs as they come.
const FOLLOWS_LOGS: u32 = 4;

pub(super) fn not_connected(node: &NodeId) -> ErrorInfo {
    ErrorInfo::new(
        AosCode::NotFound,
        format!("Node {node} is not connected: check that its SM runs and reaches CM"),
    )
}

fn connection_status(connected: bool) -> sm::SmIncomingMessages {
    let status = if connected {
        sm::ConnectionEnum::Connected
    } else {
        sm::ConnectionEnum::Disconnected
    };
    sm::SmIncomingMessages {
        sm_incoming_message: Some(
            sm::sm_incoming_messages::SmIncomingMessage::ConnectionStatus(sm::ConnectionStatus {
                cloud_status: status.into(),
            }),
        ),
    }
}

impl Links {
    /// A Node opened its stream; it is told at once whether the cloud is linked. Gives the stream's number.
    pub fn open(&mut self, node: &NodeId, orders: Orders) -> u64 {
        self.streams += 1;
        // The channel is new and empty, so this fits.
        let _ = orders.try_send(Ok(connection_status(self.cloud)));
        let link = Link {
            stream: self.streams,
            orders,
            config_turn: Arc::default(),
            config_answers: None,
            launches: Vec::new(),
        };
        self.links.insert(node.clone(), link);
        self.streams
    }

    /// A stream has ended. Says whether it was the one in use; whoever waits on it is let go.
    pub fn close(&mut self, node: &NodeId, stream: u64) -> bool {
        let current = self.is_current(node, stream);
        if current {
            self.links.remove(node);
        }
        current
    }

    /// Whether the stream is still the one in use.
    pub fn is_current(&self, node: &NodeId, stream: u64) -> bool {
        self.links
            .get(node)
            .is_some_and(|link| link.stream == stream)
    }

    fn link(&mut self, node: &NodeId) -> Result<&mut Link, ErrorInfo> {
        self.links.get_mut(node).ok_or_else(|| not_connected(node))
    }

    pub fn orders(&mut self, node: &NodeId) -> Result<Orders, ErrorInfo> {
        Ok(self.link(node)?.orders.clone())
    }

    /// v5 answers carry no request id, so one question about the configuration is under way for each Node at a time.
    pub fn config_turn(&mut self, node: &NodeId) -> Result<Arc<Mutex<()>>, ErrorInfo> {
        Ok(self.link(node)?.config_turn.clone())
    }

    pub fn expect_config(
        &mut self,
        node: &NodeId,
    ) -> Result<mpsc::Receiver<ConfigReport>, ErrorInfo> {
        let (asker, answers) = mpsc::channel(4);
        self.link(node)?.config_answers = Some(asker);
        Ok(answers)
    }

    pub fn config_answered(&mut self, node: &NodeId, report: ConfigReport) {
        if let Some(asker) = self
            .links
            .get(node)
            .and_then(|link| link.config_answers.as_ref())
        {
            // The asker has room for all that one question can bring; nobody waits for what comes later.
            let _ = asker.try_send(report);
        }
    }

    /// Prepares for the end of a launch. Says whether the next end may be that of an earlier list: one was sent that has not
    /// been answered, and v5 answers do not say to what.
    pub fn expect_launch(
        &mut self,
        node: &NodeId,
    ) -> Result<(oneshot::Receiver<()>, bool), ErrorInfo> {
        let (ended, wait) = oneshot::channel();
        let link = self.link(node)?;
        let earlier = !link.launches.is_empty();
        link.launches.retain(|waiter| !waiter.is_closed());
        link.launches.push(ended);
        Ok((wait, earlier))
    }

    /// A launch has ended. A list that supersedes another ends both, so everybody is told.
    pub fn launched(&mut self, node: &NodeId) {
        if let Some(link) = self.links.get_mut(node) {
            for waiter in link.launches.drain(..) {
                // Whoever gave up waiting does not need to know.
                let _ = waiter.send(());
            }
        }
    }

    pub fn set_cloud(&mut self, connected: bool) {
        if self.cloud != connected {
            self.cloud = connected;
            for link in self.links.values() {
                // A Node that does not take its orders is about to lose its stream and is told when it comes back.
                let _ = link.orders.try_send(Ok(connection_status(connected)));
            }
        }
    }

    pub fn is_attached(&self, node: &NodeId) -> bool {
        self.attached.contains_key(node)
    }

    /// `protocol`: what the Node can tell, as it says.
    pub fn attach(&mut self, node: &NodeId, orders: AttachOrders, protocol: u32) -> u64 {
        self.streams += 1;
        let attached = Attached {
            stream: self.streams,
            orders,
            asked: HashMap::new(),
            states: HashMap::new(),
            runs: (protocol >= TELLS_RUNS).then(Runs::default),
            protocol,
            needs: None,
            space: None,
        };
        self.attached.insert(node.clone(), attached);
        self.streams
    }

    /// Where a Node is told to follow a log.
    pub fn follows_logs(&self, node: &NodeId) -> Result<AttachOrders, ErrorInfo> {
        let attached = self.attached.get(node);
        match attached.filter(|attached| attached.protocol >= FOLLOWS_LOGS) {
            Some(attached) => Ok(attached.orders.clone()),
            None => Err(ErrorInfo::new(
                AosCode::NotSupported,
                format!(
                    "SM of Node {node} cannot tell lines as they come: ask for a time that is over"
                ),
            )),
        }
    }

    /// What the Node has told of the runs of its instances; nothing if it does not tell.
    pub fn runs(&self, node: &NodeId) -> Option<Runs> {
        self.attached.get(node)?.runs.clone()
    }

    /// The Node tells of runs: of all its instances, or of some. Gives what is known now.
    pub fn tell_runs(
        &mut self,
        node: &NodeId,
        told: BTreeMap<InstanceIdent, InstanceRun>,
        complete: bool,
    ) -> Option<Runs> {
        let known = self.attached.get_mut(node)?.runs.get_or_insert_default();
        if complete {
            *known = Arc::new(told);
        } else {
            Arc::make_mut(known).extend(told);
        }
        Some(known.clone())
    }

    /// Says whether the stream was the one in use.
    pub fn detach(&mut self, node: &NodeId, stream: u64) -> bool {
        let current = self
            .attached
            .get(node)
            .is_some_and(|attached| attached.stream == stream);
        if current {
            self.attached.remove(node);
        }
        current
    }

    /// Prepares for the answer to an order about instances; nothing if the Node is connected but cannot take one.
    pub fn expect_answer(
        &mut self,
        node: &NodeId,
        request_id: &str,
    ) -> Result<Expected<Installed>, ErrorInfo> {
        self.link(node)?;
        Ok(self.attached.get_mut(node).map(|attached| {
            let (answer, answered) = oneshot::channel();
            attached.asked.insert(request_id.to_owned(), answer);
            (attached.orders.clone(), answered)
        }))
    }

    /// Prepares for the answer to a state; nothing if the Node is connected but cannot take one.
    pub fn expect_state(
        &mut self,
        node: &NodeId,
        request_id: &str,
    ) -> Result<Expected<Option<ErrorInfo>>, ErrorInfo> {
        self.link(node)?;
        Ok(self.attached.get_mut(node).map(|attached| {
            let (answer, answered) = oneshot::channel();
            attached.states.retain(|_, waiter| !waiter.is_closed());
            attached.states.insert(request_id.to_owned(), answer);
            (attached.orders.clone(), answered)
        }))
    }

    pub fn state_set(&mut self, node: &NodeId, request_id: &str, error: Option<ErrorInfo>) {
        if let Some(asker) = self
            .attached
            .get_mut(node)
            .and_then(|attached| attached.states.remove(request_id))
        {
            // The asker may have given up; then nobody needs the answer.
            let _ = asker.send(error);
        }
    }

    /// The Node tells what its instances wait for elsewhere.
    pub fn tell_needs(&mut self, node: &NodeId, items: BTreeSet<ItemId>) {
        if let Some(attached) = self.attached.get_mut(node) {
            let stream = attached.stream;
            attached.needs = Some(Arc::new(Needs { stream, items }));
        }
    }

    /// What the Node's instances wait for elsewhere, if it has told.
    pub fn needs(&self, node: &NodeId) -> Option<Arc<Needs>> {
        self.attached.get(node)?.needs.clone()
    }

    /// The Node tells how much space is free.
    pub fn tell_space(&mut self, node: &NodeId, space: aos_schedule::Space) {
        if let Some(attached) = self.attached.get_mut(node) {
            attached.space = Some(space);
        }
    }

    /// What is free on the Node, if it has told.
    pub fn space(&self, node: &NodeId) -> Option<aos_schedule::Space> {
        self.attached.get(node)?.space
    }

    /// The stream beside `RegisterSM`, if the Node has one.
    pub fn attach_orders(&self, node: &NodeId) -> Option<AttachOrders> {
        self.attached
            .get(node)
            .map(|attached| attached.orders.clone())
    }

    pub fn forget_answer(&mut self, node: &NodeId, request_id: &str) {
        if let Some(attached) = self.attached.get_mut(node) {
            attached.asked.remove(request_id);
        }
    }

    pub fn answered(&mut self, node: &NodeId, request_id: &str, result: Installed) {
        if let Some(asker) = self
            .attached
            .get_mut(node)
            .and_then(|attached| attached.asked.remove(request_id))
        {
            // The asker may have given up; then nobody needs the answer.
            let _ = asker.send(result);
        }
    }
}
