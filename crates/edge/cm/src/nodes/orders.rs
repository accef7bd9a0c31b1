//! What CM asks of Nodes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use aos_ipc::{
    convert::ident_to_proto,
    proto::{
        aos::node::v1 as node_pb,
        servicemanager::v5::{self as sm, sm_incoming_messages::SmIncomingMessage},
    },
};
use aos_launch::Elsewhere;
use aos_types::{
    AosCode, ErrorInfo, InstanceIdent, InstanceState, NodeConfig, NodeId, UnitConfigState,
};
use async_trait::async_trait;
use tokio::{
    sync::watch,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    ANSWER, SEND, Server,
    link::not_connected,
    logs,
    messages::{self, ConfigReport},
};
use crate::contract::{InstanceOrder, Nodes, NodesView};

fn late(node: &NodeId, what: &str) -> ErrorInfo {
    ErrorInfo::new(
        AosCode::Timeout,
        format!("Node {node} did not answer in time {what}"),
    )
}

/// How long a Node may take to remove what instances kept.
const REMOVE: Duration = Duration::from_secs(60);

/// How long a Node that left in the middle of an order may take to be back: its SM may only have been started again.
const BACK: Duration = Duration::from_secs(30);

/// How long a Node may take to replace a state: it stops the instance first, and waits for a launch in hand.
const STATE: Duration = Duration::from_secs(60);

fn has_left(error: &ErrorInfo) -> bool {
    error.aos_code == AosCode::NotFound as i32
}

fn canceled() -> ErrorInfo {
    ErrorInfo::new(AosCode::Canceled, "it was given up for something newer")
}

impl Server {
    /// Which stream a Node has now.
    fn stream_of(&self, node: &NodeId) -> Option<u64> {
        self.shared
            .view
            .borrow()
            .get(node)
            .map(|known| known.connection)
    }

    /// Whether a Node that left in the middle of an order is back in time, on another stream than `before`: then what was
    /// ordered can be repeated.
    async fn is_back(&self, node: &NodeId, before: Option<u64>) -> bool {
        let mut view = self.shared.view.subscribe();
        let back = view.wait_for(|view| {
            view.get(node)
                .is_some_and(|known| known.instances.is_some() && Some(known.connection) != before)
        });
        // Half of what a launch may take at the most, so that the caller still hears of it in time.
        let limit = BACK.min(self.shared.launch / 2);
        let back = timeout(limit, back).await.is_ok_and(|seen| seen.is_ok());
        if back {
            tracing::info!(%node, "a Node is back and is told again what was ordered");
        }
        back
    }

    /// Orders an installation, again whenever the Node has left in the middle of it and is back in time.
    async fn install_through_restarts(
        &self,
        node: &NodeId,
        instances: Vec<InstanceOrder>,
        request_id: &str,
        deadline: Instant,
    ) -> Result<BTreeMap<InstanceIdent, ErrorInfo>, ErrorInfo> {
        loop {
            let before = self.stream_of(node);
            let result = self
                .install_by(node, instances.clone(), request_id, deadline)
                .await;
            if !result.as_ref().is_err_and(has_left) || !self.is_back(node, before).await {
                return result;
            }
        }
    }

    async fn update_once(
        &self,
        node: &NodeId,
        order: sm::UpdateInstances,
        wanted: &BTreeMap<InstanceIdent, String>,
    ) -> Result<(), ErrorInfo> {
        let deadline = Instant::now() + self.shared.launch;
        let (mut ended, doubtful) = self.shared.links().expect_launch(node)?;
        self.send(node, SmIncomingMessage::UpdateInstances(order))
            .await?;
        loop {
            timeout_at(deadline, ended)
                .await
                .map_err(|_| late(node, "to carry out its list of instances"))?
                .map_err(|_| not_connected(node))?;
            if !doubtful || !self.runs_others(node, wanted) {
                return Ok(());
            }
            // That was the end of an earlier list: what it left running may be wanted elsewhere.
            ended = self.shared.links().expect_launch(node)?.0;
        }
    }

    /// Whether the Node runs what is not in this list.
    fn runs_others(&self, node: &NodeId, wanted: &BTreeMap<InstanceIdent, String>) -> bool {
        let view = self.shared.view.borrow();
        let instances = view.get(node).and_then(|node| node.instances.as_ref());
        let mut running = instances
            .into_iter()
            .flatten()
            .filter(|(ident, one)| !ident.preinstalled && one.state != InstanceState::Inactive);
        running.any(|(ident, one)| wanted.get(ident) != Some(&one.version))
    }

    async fn send(&self, node: &NodeId, order: SmIncomingMessage) -> Result<(), ErrorInfo> {
        let orders = self.shared.links().orders(node)?;
        let order = sm::SmIncomingMessages {
            sm_incoming_message: Some(order),
        };
        timeout(SEND, orders.send(Ok(order)))
            .await
            .map_err(|_| late(node, "to take an order"))?
            .map_err(|_| not_connected(node))
    }

    /// Asks something that is answered by a node configuration status. An answer about another version than the one
    /// asked about is a late one to an earlier question.
    async fn ask_config(
        &self,
        node: &NodeId,
        version: Option<&str>,
        question: SmIncomingMessage,
    ) -> Result<ConfigReport, ErrorInfo> {
        let turn = self.shared.links().config_turn(node)?;
        let deadline = Instant::now() + ANSWER;
        let what = "about its configuration";
        let _turn = timeout_at(deadline, turn.lock())
            .await
            .map_err(|_| late(node, what))?;
        let mut answers = self.shared.links().expect_config(node)?;
        self.send(node, question).await?;
        loop {
            let answer = timeout_at(deadline, answers.recv())
                .await
                .map_err(|_| late(node, what))?
                .ok_or_else(|| not_connected(node))?;
            if version.is_none_or(|version| answer.version.is_empty() || answer.version == version)
            {
                return Ok(answer);
            }
        }
    }

    async fn give_config(
        &self,
        node: &NodeId,
        config: &NodeConfig,
        question: impl FnOnce(String, String) -> SmIncomingMessage,
    ) -> Result<(), ErrorInfo> {
        let version = config.version.clone().unwrap_or_default();
        let json = serde_json::to_string(config)
            .map_err(|error| ErrorInfo::from_error(AosCode::InvalidArgument, &error))?;
        let report = self
            .ask_config(node, Some(&version), question(json, version.clone()))
            .await?;
        report.error.map_or(Ok(()), Err)
    }

    async fn install_by(
        &self,
        node: &NodeId,
        instances: Vec<InstanceOrder>,
        request_id: &str,
        deadline: Instant,
    ) -> Result<BTreeMap<InstanceIdent, ErrorInfo>, ErrorInfo> {
        let order = node_pb::node_order::Order::Install(node_pb::Install {
            request_id: request_id.to_owned(),
            instances: instances.into_iter().map(messages::order).collect(),
        });
        self.attached(node, order, request_id, deadline, "to install images")
            .await
    }

    /// Gives an order over `aos.node.v1` and waits for its answer. A Node that does not have it succeeds at once.
    async fn attached(
        &self,
        node: &NodeId,
        order: node_pb::node_order::Order,
        request_id: &str,
        deadline: Instant,
        what: &str,
    ) -> Result<BTreeMap<InstanceIdent, ErrorInfo>, ErrorInfo> {
        let Some((orders, answer)) = self.shared.links().expect_answer(node, request_id)? else {
            return Ok(BTreeMap::new());
        };
        let order = node_pb::NodeOrder { order: Some(order) };
        let gone = || not_connected(node);
        timeout_at(deadline, orders.send(Ok(order)))
            .await
            .map_err(|_| late(node, "to take an order"))?
            .map_err(|_| gone())?;
        timeout_at(deadline, answer)
            .await
            .map_err(|_| late(node, what))?
            .map_err(|_| gone())
    }
}

#[async_trait]
impl Nodes for Server {
    fn view(&self) -> watch::Receiver<Arc<NodesView>> {
        self.shared.view.subscribe()
    }

    async fn install(
        &self,
        node: &NodeId,
        instances: Vec<InstanceOrder>,
        cancel: CancellationToken,
    ) -> Result<BTreeMap<InstanceIdent, ErrorInfo>, ErrorInfo> {
        let request_id = Uuid::new_v4().to_string();
        let deadline = Instant::now() + self.shared.launch;
        // Dropping the wait loses nothing: the Node goes on, and an answer to a forgotten request is ignored.
        let result = tokio::select! {
            result = self.install_through_restarts(node, instances, &request_id, deadline) => result,
            () = cancel.cancelled() => Err(canceled()),
        };
        self.shared.links().forget_answer(node, &request_id);
        result
    }

    async fn update_instances(
        &self,
        node: &NodeId,
        start: Vec<InstanceOrder>,
        stop: Vec<InstanceIdent>,
    ) -> Result<(), ErrorInfo> {
        let wanted = start.iter();
        let wanted = wanted.map(|order| (order.ident.clone(), order.version.clone()));
        let wanted: BTreeMap<InstanceIdent, String> = wanted.collect();
        let order = sm::UpdateInstances {
            start_instances: start.into_iter().map(messages::order).collect(),
            stop_instances: stop.iter().map(ident_to_proto).collect(),
        };
        loop {
            let before = self.stream_of(node);
            let result = self.update_once(node, order.clone(), &wanted).await;
            if !result.as_ref().is_err_and(has_left) || !self.is_back(node, before).await {
                return result;
            }
        }
    }

    async fn set_state(
        &self,
        node: &NodeId,
        order: &InstanceOrder,
        state: &str,
    ) -> Result<bool, ErrorInfo> {
        let request_id = Uuid::new_v4().to_string();
        let deadline = Instant::now() + STATE;
        let Some((orders, answer)) = self.shared.links().expect_state(node, &request_id)? else {
            return Ok(false);
        };
        let order = node_pb::node_order::Order::SetState(node_pb::SetState {
            request_id,
            instance: Some(ident_to_proto(&order.ident)),
            state_path: order.state_path.clone(),
            uid: order.uid,
            gid: order.gid,
            content: state.as_bytes().to_vec(),
        });
        let order = node_pb::NodeOrder { order: Some(order) };
        timeout_at(deadline, orders.send(Ok(order)))
            .await
            .map_err(|_| late(node, "to take a state"))?
            .map_err(|_| not_connected(node))?;
        let error = timeout_at(deadline, answer)
            .await
            .map_err(|_| late(node, "to replace a state"))?
            .map_err(|_| not_connected(node))?;
        error.map_or(Ok(true), Err)
    }

    async fn state_kept(
        &self,
        node: &NodeId,
        ident: &InstanceIdent,
        checksum: String,
    ) -> Result<(), ErrorInfo> {
        let orders = self.shared.links().attach_orders(node);
        let orders = orders.ok_or_else(|| not_connected(node))?;
        let kept = node_pb::node_order::Order::StateKept(node_pb::StateKept {
            instance: Some(ident_to_proto(ident)),
            checksum,
        });
        let order = node_pb::NodeOrder { order: Some(kept) };
        timeout(SEND, orders.send(Ok(order)))
            .await
            .map_err(|_| late(node, "to take an order"))?
            .map_err(|_| not_connected(node))
    }

    async fn remove_data(
        &self,
        node: &NodeId,
        instances: Vec<InstanceIdent>,
    ) -> Result<BTreeMap<InstanceIdent, ErrorInfo>, ErrorInfo> {
        let request_id = Uuid::new_v4().to_string();
        let order = node_pb::node_order::Order::RemoveData(node_pb::RemoveData {
            request_id: request_id.clone(),
            instances: instances.iter().map(ident_to_proto).collect(),
        });
        let deadline = Instant::now() + REMOVE;
        let what = "to remove what instances kept";
        let result = self
            .attached(node, order, &request_id, deadline, what)
            .await;
        self.shared.links().forget_answer(node, &request_id);
        result
    }

    fn tell_elsewhere(&self, node: &NodeId, news: Elsewhere) -> Result<(), ErrorInfo> {
        let orders = self.shared.links().attach_orders(node);
        let orders = orders.ok_or_else(|| not_connected(node))?;
        let told = node_pb::node_order::Order::Elsewhere(messages::elsewhere(news));
        orders
            .try_send(Ok(node_pb::NodeOrder { order: Some(told) }))
            .map_err(|_| late(node, "to take what it was sent before"))
    }

    async fn keep_only(&self, nodes: BTreeSet<NodeId>) {
        let forgotten = self.shared.networks.decide(|networks| {
            for node in networks.known_nodes().difference(&nodes) {
                tracing::info!(%node, "addresses of a Node that is none any more are free");
                networks.forget_node(node);
            }
        });
        if let Err(error) = forgotten.await {
            tracing::error!(%error, "addresses of Nodes that are gone cannot be stored as free; it is tried again");
        }
    }

    async fn check_config(&self, node: &NodeId, config: &NodeConfig) -> Result<(), ErrorInfo> {
        self.give_config(node, config, |node_config, version| {
            SmIncomingMessage::CheckNodeConfig(sm::CheckNodeConfig {
                node_config,
                version,
            })
        })
        .await
    }

    async fn set_config(&self, node: &NodeId, config: &NodeConfig) -> Result<(), ErrorInfo> {
        self.give_config(node, config, |node_config, version| {
            SmIncomingMessage::SetNodeConfig(sm::SetNodeConfig {
                node_config,
                version,
            })
        })
        .await
    }

    async fn config_status(
        &self,
        node: &NodeId,
    ) -> Result<(UnitConfigState, String, Option<ErrorInfo>), ErrorInfo> {
        let question = SmIncomingMessage::GetNodeConfigStatus(sm::GetNodeConfigStatus {});
        let report = self.ask_config(node, None, question).await?;
        Ok((report.state, report.version, report.error))
    }

    fn set_cloud_connected(&self, connected: bool) {
        self.shared.links().set_cloud(connected);
    }

    async fn request_log(
        &self,
        node: &NodeId,
        correlation_id: String,
        request: aos_cloud_protocol::RequestLog,
    ) -> Result<(), ErrorInfo> {
        if !logs::is_live(&request) {
            return self
                .send(node, logs::order(&correlation_id, &request))
                .await;
        }
        let orders = self.shared.links().follows_logs(node)?;
        let order = node_pb::NodeOrder {
            order: Some(node_pb::node_order::Order::FollowLog(logs::follow(
                correlation_id,
                &request,
            ))),
        };
        match timeout(SEND, orders.send(Ok(order))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(not_connected(node)),
            Err(_) => Err(late(node, "when it was to follow a log")),
        }
    }
}
