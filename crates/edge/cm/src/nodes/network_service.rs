//! servicemanager.v5 `NetworkService`. As the contract wants it, failures travel in the answer's `error` field.

use std::sync::Arc;

use aos_ipc::{
    convert::{error_to_proto, ident_from_proto},
    proto::{common::v2 as common, servicemanager::v5 as sm},
};
use aos_network::{Allowed, BadPort, ExposedPort, Request as Wanted};
use aos_types::{AllowedConnection, AosCode, ErrorInfo, InvalidId, OwnerId};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{
    ORDERS, Shared, caller,
    networks::{rule_from_proto, rule_to_proto},
};

pub(super) struct Service {
    shared: Arc<Shared>,
}

impl Service {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

fn failed(code: AosCode, error: &(dyn std::error::Error + 'static)) -> Option<common::ErrorInfo> {
    error_to_proto(Some(&ErrorInfo::from_error(code, error)))
}

fn bad_request(error: &(dyn std::error::Error + 'static)) -> Status {
    Status::invalid_argument(ErrorInfo::from_error(AosCode::InvalidArgument, error).message)
}

fn owner(network_id: &str) -> Result<OwnerId, Status> {
    network_id
        .parse()
        .map_err(|error: InvalidId| bad_request(&error))
}

/// Reads what an instance offers and may reach. One text that cannot be read fails the whole request, because a rule that
/// is left out silently would be worse.
fn ports(
    data: &sm::UpdateItemNetworkParams,
) -> Result<(Vec<ExposedPort>, Vec<Allowed>), Box<dyn std::error::Error>> {
    let exposed: Result<Vec<ExposedPort>, BadPort> =
        data.exposed_ports.iter().map(|text| text.parse()).collect();
    let allowed: Result<Vec<AllowedConnection>, _> = data
        .allowed_connections
        .iter()
        .map(|text| text.parse())
        .collect();
    Ok((exposed?, allowed?.into_iter().map(Allowed::from).collect()))
}

/// Whether a text can be a host name (RFC 1123).
fn is_host_name(text: &str) -> bool {
    let label = |part: &str| {
        (1..=63).contains(&part.len())
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

#[tonic::async_trait]
impl sm::network_service_server::NetworkService for Service {
    type SubscribeInstanceNetworkUpdatesStream =
        ReceiverStream<Result<sm::InstanceNetworkUpdateNotification, Status>>;

    async fn get_node_network_params(
        &self,
        request: Request<sm::GetNodeNetworkParamsRequest>,
    ) -> Result<Response<sm::GetNodeNetworkParamsResponse>, Status> {
        let node = caller::node(&request)?;
        let request = request.into_inner();
        caller::same(&node, &request.node_id)?;
        let owner = owner(&request.network_id)?;
        let answer = match self
            .shared
            .networks
            .decide(|networks| networks.node(&owner, &node))
            .await
        {
            Ok(Ok(params)) => sm::GetNodeNetworkParamsResponse {
                subnet: params.subnet.to_string(),
                ip: params.ip.to_string(),
                vlan_id: params.vlan.into(),
                error: None,
            },
            Ok(Err(error)) => sm::GetNodeNetworkParamsResponse {
                error: failed(AosCode::NoMemory, &error),
                ..Default::default()
            },
            Err(error) => sm::GetNodeNetworkParamsResponse {
                error: failed(AosCode::Failed, &error),
                ..Default::default()
            },
        };
        Ok(Response::new(answer))
    }

    async fn allocate_instance_network(
        &self,
        request: Request<sm::AllocateInstanceNetworkRequest>,
    ) -> Result<Response<sm::AllocateInstanceNetworkResponse>, Status> {
        let node = caller::node(&request)?;
        let request = request.into_inner();
        caller::same(&node, &request.node_id)?;
        let ident = ident_from_proto(request.instance).map_err(|error| bad_request(&error))?;
        let owner = owner(&request.network_id)?;
        let data = request.service_data.unwrap_or_default();
        let refuse = |code, error: &(dyn std::error::Error + 'static)| {
            Ok(Response::new(sm::AllocateInstanceNetworkResponse {
                error: failed(code, error),
                ..Default::default()
            }))
        };
        let (exposed, allowed) = match ports(&data) {
            Ok(ports) => ports,
            Err(error) => return refuse(AosCode::InvalidArgument, error.as_ref()),
        };
        let wanted = Wanted {
            ident,
            owner,
            node,
            exposed,
            allowed,
            // An item has one; more would be another's message.
            hostname: data
                .hosts
                .into_iter()
                .next()
                .filter(|name| is_host_name(name)),
        };
        match self
            .shared
            .networks
            .decide(|networks| networks.allocate(wanted))
            .await
        {
            Ok(Ok(place)) => Ok(Response::new(sm::AllocateInstanceNetworkResponse {
                subnet: place.subnet.to_string(),
                ip: place.ip.to_string(),
                dns_servers: self.shared.networks.dns_servers(),
                error: None,
                firewall_rules: place.rules.iter().map(rule_to_proto).collect(),
            })),
            Ok(Err(error)) => refuse(AosCode::NoMemory, &error),
            Err(error) => refuse(AosCode::Failed, &error),
        }
    }

    async fn release_instance_network(
        &self,
        request: Request<sm::ReleaseInstanceNetworkRequest>,
    ) -> Result<Response<sm::ReleaseInstanceNetworkResponse>, Status> {
        let node = caller::node(&request)?;
        let request = request.into_inner();
        caller::same(&node, &request.node_id)?;
        let ident = ident_from_proto(request.instance).map_err(|error| bad_request(&error))?;
        let done = self
            .shared
            .networks
            .decide(|networks| networks.release(&ident, &node))
            .await;
        let error = done.err().and_then(|error| failed(AosCode::Failed, &error));
        Ok(Response::new(sm::ReleaseInstanceNetworkResponse { error }))
    }

    async fn release_node_network(
        &self,
        request: Request<sm::ReleaseNodeNetworkRequest>,
    ) -> Result<Response<sm::ReleaseNodeNetworkResponse>, Status> {
        let node = caller::node(&request)?;
        let request = request.into_inner();
        caller::same(&node, &request.node_id)?;
        let owner = owner(&request.network_id)?;
        let done = self
            .shared
            .networks
            .decide(|networks| networks.release_node(&owner, &node))
            .await;
        let error = done.err().and_then(|error| failed(AosCode::Failed, &error));
        Ok(Response::new(sm::ReleaseNodeNetworkResponse { error }))
    }

    async fn subscribe_instance_network_updates(
        &self,
        request: Request<sm::SubscribeInstanceNetworkUpdatesRequest>,
    ) -> Result<Response<Self::SubscribeInstanceNetworkUpdatesStream>, Status> {
        let node = caller::node(&request)?;
        caller::same(&node, &request.into_inner().node_id)?;
        let (updates, stream) = mpsc::channel(ORDERS);
        self.shared.networks.subscribe(node, updates);
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn sync_network_state(
        &self,
        request: Request<sm::SyncNetworkStateRequest>,
    ) -> Result<Response<sm::SyncNetworkStateResponse>, Status> {
        let node = caller::node(&request)?;
        let request = request.into_inner();
        caller::same(&node, &request.node_id)?;
        let reported = request
            .instances
            .into_iter()
            .map(|one| {
                let rules = one
                    .firewall_rules
                    .iter()
                    .filter_map(rule_from_proto)
                    .collect();
                Ok((
                    ident_from_proto(one.instance).map_err(|error| bad_request(&error))?,
                    rules,
                ))
            })
            .collect::<Result<_, Status>>()?;
        let done = self
            .shared
            .networks
            .decide(|networks| networks.sync(&node, &reported))
            .await;
        let error = done.err().and_then(|error| failed(AosCode::Failed, &error));
        Ok(Response::new(sm::SyncNetworkStateResponse { error }))
    }
}
