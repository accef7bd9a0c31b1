//! servicemanager.v5 `SMService`: the channel a Node's SM keeps open.

use std::sync::Arc;

use aos_ipc::{
    convert::{resource_from_proto, runtime_from_proto},
    proto::servicemanager::v5 as sm,
};
use aos_time::{Clock, SystemClock};
use aos_types::{Digest, NodeId};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{
    ORDERS, Shared, caller,
    messages::{config_report, report, text},
    telemetry,
};
use crate::contract::{Guarantee, NodeEvent, SmNode};

type Outgoing = sm::sm_outgoing_messages::SmOutgoingMessage;

pub(super) struct Service {
    shared: Arc<Shared>,
}

impl Service {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

#[tonic::async_trait]
impl sm::sm_service_server::SmService for Service {
    type RegisterSMStream = ReceiverStream<Result<sm::SmIncomingMessages, Status>>;

    async fn register_sm(
        &self,
        request: Request<Streaming<sm::SmOutgoingMessages>>,
    ) -> Result<Response<Self::RegisterSMStream>, Status> {
        let node = caller::node(&request)?;
        let (orders, stream) = mpsc::channel(ORDERS);
        let number = self.shared.links().open(&node, orders.clone());
        tracing::info!(%node, "a Node has connected");
        let reader = Reader {
            shared: self.shared.clone(),
            node,
            number,
        };
        self.shared
            .tasks
            .spawn(reader.run(request.into_inner(), orders));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn get_blobs_infos(
        &self,
        request: Request<sm::BlobsInfosRequest>,
    ) -> Result<Response<sm::BlobsInfos>, Status> {
        let reader = caller::reader(&request)?;
        let digests: Vec<Digest> = request
            .into_inner()
            .digests
            .iter()
            .map(|digest| digest.parse())
            .collect::<Result<_, _>>()
            .map_err(|error| Status::invalid_argument(text(&error)))?;
        let urls = self
            .shared
            .images
            .blob_urls(&reader, &digests)
            .await
            .map_err(|error| Status::internal(error.message))?;
        Ok(Response::new(sm::BlobsInfos { urls }))
    }
}

/// Reads one Node's stream to its end.
struct Reader {
    shared: Arc<Shared>,
    node: NodeId,
    number: u64,
}

impl Reader {
    async fn run(
        self,
        mut messages: Streaming<sm::SmOutgoingMessages>,
        orders: mpsc::Sender<Result<sm::SmIncomingMessages, Status>>,
    ) {
        let end = loop {
            // All arms are cancel-safe: a message is either taken whole or stays in the stream.
            let message = tokio::select! {
                () = self.shared.stop.cancelled() => break Status::unavailable("CM stops"),
                () = orders.closed() => break Status::cancelled("the Node has left"),
                message = messages.message() => message,
            };
            match message {
                Ok(Some(_)) if !self.shared.links().is_current(&self.node, self.number) => {
                    break Status::aborted("a newer stream of this Node has taken over");
                }
                Ok(Some(message)) => {
                    if let Err(refused) = self.take(message.sm_outgoing_message).await {
                        break refused;
                    }
                }
                Ok(None) => break Status::cancelled("the Node has closed its stream"),
                Err(error) => break error,
            }
        };
        tracing::info!(node = %self.node, reason = end.message(), "the stream of a Node has ended");
        // The Node may be gone already; then there is nobody to tell.
        let _ = orders.try_send(Err(end));
        if self.shared.links().close(&self.node, self.number) {
            self.shared.change(|view| view.remove(&self.node));
        }
    }

    async fn take(&self, message: Option<Outgoing>) -> Result<(), Status> {
        let node = &self.node;
        match message {
            Some(Outgoing::SmInfo(info)) => {
                caller::same(node, &info.node_id)?;
                self.info(info);
            }
            Some(Outgoing::NodeInstancesStatus(status)) => {
                self.instances(status.instances, true);
                self.shared.links().launched(node);
            }
            Some(Outgoing::UpdateInstancesStatus(status)) => {
                self.instances(status.instances, false)
            }
            Some(Outgoing::NodeConfigStatus(status)) => match config_report(status) {
                Ok(report) => self.shared.links().config_answered(node, report),
                Err(error) => self.unreadable(&error),
            },
            Some(Outgoing::Log(log)) => self.shared.tell(telemetry::log(node, log)).await,
            Some(Outgoing::Alert(alert)) => {
                match telemetry::alert(node, alert, SystemClock.now()) {
                    Ok(event) => self.shared.tell(event).await,
                    Err(error) => self.unreadable(&error),
                }
            }
            Some(Outgoing::InstantMonitoring(data)) => match telemetry::monitoring(node, data) {
                Ok(data) => self.shared.tell(NodeEvent::Monitoring(data)).await,
                Err(error) => self.unreadable(&error),
            },
            // Averages are asked for only by a peer that balances by load; ours places by requests.
            Some(Outgoing::AverageMonitoring(_)) => {}
            // A kind of message that a newer SM knows and we do not.
            None => {}
        }
        Ok(())
    }

    fn unreadable(&self, error: &(dyn std::error::Error + 'static)) {
        tracing::warn!(node = %self.node, why = text(error), "a Node sent something unreadable; it was left out");
    }

    fn info(&self, info: sm::SmInfo) {
        let mut runtimes = Vec::with_capacity(info.runtimes.len());
        for runtime in info.runtimes {
            match runtime_from_proto(runtime) {
                Ok(runtime) => runtimes.push(runtime),
                Err(error) => self.unreadable(&error),
            }
        }
        let resources = info
            .resources
            .into_iter()
            .map(resource_from_proto)
            .collect();
        let guarantee = match self.shared.links().is_attached(&self.node) {
            true => Guarantee::InstallFirst,
            false => Guarantee::PlainV5,
        };
        let (runs, needs, space) = {
            let links = self.shared.links();
            // It may have told these before it introduced itself.
            let space = links.space(&self.node);
            (links.runs(&self.node), links.needs(&self.node), space)
        };
        self.shared.change(|view| {
            let before = view.remove(&self.node);
            let space = space.or(before.as_ref().and_then(|known| known.space));
            let instances = before
                .filter(|known| known.connection == self.number)
                .and_then(|known| known.instances);
            let node = SmNode {
                runtimes,
                resources,
                guarantee,
                instances,
                runs,
                needs,
                space,
                connection: self.number,
            };
            view.insert(self.node.clone(), node);
        });
    }

    fn instances(&self, statuses: Vec<sm::InstanceStatus>, complete: bool) {
        let mut reports = Vec::with_capacity(statuses.len());
        for status in statuses {
            match report(status) {
                Ok(report) => reports.push((report.ident.clone(), report)),
                Err(error) => self.unreadable(&error),
            }
        }
        self.shared.change(|view| {
            let Some(node) = view
                .get_mut(&self.node)
                .filter(|node| node.connection == self.number)
            else {
                // sm_info comes first by contract; without it there is nothing to attach the instances to.
                return;
            };
            if complete {
                node.instances = Some(reports.into_iter().collect());
            } else if let Some(instances) = &mut node.instances {
                instances.extend(reports);
            }
        });
    }
}
