//! Addresses, asked of CM, kept for starts without it, and given back.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use aos_image::ItemImage;
use aos_ipc::{
    convert::{error_from_proto, ident_to_proto},
    proto::servicemanager::v5::{self as pb, network_service_client::NetworkServiceClient},
};
use aos_launch::Instance;
use aos_netstack::{Endpoint, EndpointId, Network};
use aos_runtime::InstanceId;
use aos_types::{AosCode, ErrorInfo, InstanceIdent, OwnerId};
use futures::{
    FutureExt, StreamExt,
    future::{BoxFuture, ready},
    stream,
};

use super::{Networks, rules};
use crate::{
    cm_handle::call_failed,
    records::{Kept, StoredEndpoint},
};

/// How long one question to CM may take.
const CALL: Duration = Duration::from_secs(10);
/// How long one question to CM may take while others wait for the answer.
pub(super) const SHORT_CALL: Duration = Duration::from_secs(3);

impl Networks {
    /// Gets the addresses of instances: from CM, or the kept ones if CM cannot be reached. Says which got none.
    pub(crate) async fn allocate(
        &self,
        instances: &[(&Instance, &ItemImage)],
        parallel: usize,
    ) -> BTreeMap<InstanceIdent, ErrorInfo> {
        // CM frees what it is not told of: nobody tells it while an answer is on its way.
        let _answers_come = self.asking.read().await;
        let owners: BTreeSet<&OwnerId> = instances.iter().map(|(i, _)| &i.owner).collect();
        let mut networks: BTreeMap<&OwnerId, Result<Network, ErrorInfo>> = BTreeMap::new();
        for owner in owners {
            networks.insert(owner, self.network(owner).await);
        }
        let asked: Vec<BoxFuture<'_, Result<StoredEndpoint, ErrorInfo>>> = instances
            .iter()
            .map(|(instance, image)| match networks.get(&instance.owner) {
                Some(Ok(_)) => self.endpoint(instance, image).boxed(),
                Some(Err(error)) => ready(Err(error.clone())).boxed(),
                None => ready(Err(unasked())).boxed(),
            })
            .collect();
        let answers: Vec<_> = stream::iter(asked).buffered(parallel).collect().await;
        let mut state = self.state.lock().await;
        let mut failed = BTreeMap::new();
        let mut endpoints = Vec::new();
        for ((instance, image), answer) in instances.iter().zip(answers) {
            let ident = &instance.ident;
            let traits = self.traits(image);
            state.traits.insert(ident.clone(), traits);
            match answer {
                Ok(endpoint) => endpoints.push((ident.clone(), endpoint)),
                // Offline is normal: the addresses of an instance stay the same.
                Err(error) if !state.knows(instance) => {
                    failed.insert(ident.clone(), error);
                }
                Err(_) => {}
            }
        }
        let networks: Vec<Network> = networks.into_values().filter_map(Result::ok).collect();
        if let Err(error) = self.store(&networks, &endpoints).await {
            // An address that is not stored would be another one after the next restart.
            let error = ErrorInfo::from_error(AosCode::Failed, &error);
            failed.extend(
                endpoints
                    .into_iter()
                    .map(|(ident, _)| (ident, error.clone())),
            );
            return failed;
        }
        let named = networks
            .into_iter()
            .map(|network| (network.id.clone(), network));
        state.networks.extend(named);
        state.endpoints.extend(endpoints);
        if self.cm.is_attached() {
            self.allocated.notify_one();
        }
        failed
    }

    pub(super) async fn store(
        &self,
        networks: &[Network],
        endpoints: &[(InstanceIdent, StoredEndpoint)],
    ) -> Result<(), aos_store::Error> {
        let changes = networks
            .iter()
            .map(|network| (Kept::owner_key(&network.id), Some(network.clone())));
        self.kept
            .networks
            .apply(changes.collect::<Vec<_>>())
            .await?;
        let changes = endpoints
            .iter()
            .map(|(ident, endpoint)| (Kept::key(ident), Some(endpoint.clone())));
        self.kept.endpoints.apply(changes.collect::<Vec<_>>()).await
    }

    pub(super) async fn network(&self, owner: &OwnerId) -> Result<Network, ErrorInfo> {
        let request = pb::GetNodeNetworkParamsRequest {
            network_id: owner.to_string(),
            node_id: self.cm.node().to_string(),
        };
        let answer = NetworkServiceClient::new(self.cm.channel_now()?)
            .get_node_network_params(aos_ipc::within(CALL, request))
            .await
            .map_err(|status| call_failed("give this Node an address", &status))?
            .into_inner();
        error_from_proto(answer.error).map_or(Ok(()), Err)?;
        Ok(Network {
            id: owner.clone(),
            subnet: read("subnet", &answer.subnet)?,
            ip: read("ip", &answer.ip)?,
            vlan_id: answer.vlan_id,
            ip6: None,
            link: Default::default(),
        })
    }

    async fn endpoint(
        &self,
        instance: &Instance,
        image: &ItemImage,
    ) -> Result<StoredEndpoint, ErrorInfo> {
        let item = image.item_config.clone().unwrap_or_default();
        let data = pb::UpdateItemNetworkParams {
            hosts: item.hostname.into_iter().collect(),
            allowed_connections: item
                .allowed_connections
                .iter()
                .map(ToString::to_string)
                .collect(),
            exposed_ports: image.config.exposed_ports.clone(),
        };
        let request = pb::AllocateInstanceNetworkRequest {
            instance: Some(ident_to_proto(&instance.ident)),
            network_id: instance.owner.to_string(),
            node_id: self.cm.node().to_string(),
            service_data: Some(data),
        };
        let answer = NetworkServiceClient::new(self.cm.channel_now()?)
            .allocate_instance_network(aos_ipc::within(CALL, request))
            .await
            .map_err(|status| call_failed("give the instance an address", &status))?
            .into_inner();
        error_from_proto(answer.error).map_or(Ok(()), Err)?;
        let (id, ip) = (endpoint_id(&instance.ident)?, read("ip", &answer.ip)?);
        let mut endpoint = Endpoint::new(id, instance.owner.clone(), ip);
        endpoint.allowed = answer
            .firewall_rules
            .iter()
            .filter_map(rules::flow)
            .collect();
        Ok(StoredEndpoint {
            endpoint,
            dns_servers: answer
                .dns_servers
                .iter()
                .filter_map(|text| text.parse().ok())
                .collect(),
        })
    }

    /// Gives the addresses of instances that are gone back. CM learns what it misses at the next connection.
    pub(crate) async fn release(&self, gone: &[InstanceIdent]) {
        {
            let mut state = self.state.lock().await;
            for ident in gone {
                state.endpoints.remove(ident);
                state.traits.remove(ident);
                state.wanted.remove(ident);
                state.volumes.forget(ident);
            }
        }
        let changes = gone.iter().map(|ident| (Kept::key(ident), None));
        if let Err(error) = self.kept.volumes.apply(changes.collect::<Vec<_>>()).await {
            tracing::warn!(%error, "volumes of removed instances stay stored");
        }
        let changes = gone.iter().map(|ident| (Kept::key(ident), None));
        if let Err(error) = self.kept.endpoints.apply(changes.collect::<Vec<_>>()).await {
            tracing::warn!(%error, "addresses of removed instances stay stored");
        }
        let Ok(channel) = self.cm.channel_now() else {
            return;
        };
        let mut client = NetworkServiceClient::new(channel);
        for ident in gone {
            let request = pb::ReleaseInstanceNetworkRequest {
                instance: Some(ident_to_proto(ident)),
                node_id: self.cm.node().to_string(),
            };
            if let Err(status) = client
                .release_instance_network(aos_ipc::within(CALL, request))
                .await
            {
                tracing::info!(%ident, why = aos_ipc::reason(&status), "CM learns later that an address is free");
                return;
            }
        }
        self.leave_networks().await;
    }

    /// Leaves networks in which nobody lives here and that nobody here may connect to.
    async fn leave_networks(&self) {
        // One that is just asked for is about to be needed: CM would give away the Node's address in it. What is left over
        // goes another time.
        let Ok(_alone) = self.asking.try_write() else {
            return;
        };
        let Ok(channel) = self.cm.channel_now() else {
            return;
        };
        let mut client = NetworkServiceClient::new(channel);
        let mut state = self.state.lock().await;
        for owner in state.unneeded_networks() {
            let request = pb::ReleaseNodeNetworkRequest {
                network_id: owner.to_string(),
                node_id: self.cm.node().to_string(),
            };
            let left = client
                .release_node_network(aos_ipc::within(SHORT_CALL, request))
                .await;
            if let Err(status) = left {
                tracing::info!(%owner, why = aos_ipc::reason(&status), "CM learns later that a network is left");
                return;
            }
            let gone = [(Kept::owner_key(&owner), None)];
            if let Err(error) = self.kept.networks.apply(gone).await {
                tracing::warn!(%error, "a network that was left stays stored");
            }
            state.networks.remove(&owner);
        }
    }

    /// Tells CM what this Node has, so that it frees the rest and pushes rules that are others.
    pub(super) async fn sync(&self) {
        let Ok(channel) = self.cm.channel_now() else {
            return;
        };
        let answers_have_come = self.asking.write().await;
        let instances = {
            let state = self.state.lock().await;
            state
                .endpoints
                .iter()
                .map(|(ident, stored)| pb::InstanceNetworkStateInfo {
                    instance: Some(ident_to_proto(ident)),
                    network_id: stored.endpoint.network.to_string(),
                    ip: stored.endpoint.ip.to_string(),
                    firewall_rules: stored.endpoint.allowed.iter().map(rules::rule).collect(),
                })
                .collect()
        };
        let request = pb::SyncNetworkStateRequest {
            node_id: self.cm.node().to_string(),
            instances,
        };
        let answer = NetworkServiceClient::new(channel)
            .sync_network_state(aos_ipc::within(CALL, request))
            .await;
        drop(answers_have_come);
        if let Err(status) = answer {
            tracing::info!(
                why = aos_ipc::reason(&status),
                "CM was not told of the addresses"
            );
            return;
        }
        self.leave_networks().await;
        let mut state = self.state.lock().await;
        // What could not be asked while CM was away.
        if state.lacks_a_target() {
            self.make_again(&mut state).await;
        }
    }
}

fn unasked() -> ErrorInfo {
    ErrorInfo::new(AosCode::NotFound, "its network was not asked for")
}

fn endpoint_id(ident: &InstanceIdent) -> Result<EndpointId, ErrorInfo> {
    InstanceId::of(ident)
        .to_string()
        .parse()
        .map_err(|error| ErrorInfo::from_error(AosCode::InvalidArgument, &error))
}

fn read<T: std::str::FromStr>(field: &str, text: &str) -> Result<T, ErrorInfo> {
    text.parse().map_err(|_| {
        ErrorInfo::new(
            AosCode::InvalidArgument,
            format!("CM answered with `{field}` = `{text}`, which is none"),
        )
    })
}
