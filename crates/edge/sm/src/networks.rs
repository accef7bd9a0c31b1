use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use aos_image::ItemImage;
use aos_ipc::{
    convert::{error_from_proto, ident_from_proto, ident_to_proto},
    proto::servicemanager::v5::{self as pb, network_service_client::NetworkServiceClient},
};
use aos_launch::Instance;
use aos_netstack::{
    AllowedFlow, Endpoint, EndpointId, Network, NetworkStack, NodeLink, Prefix, Wanted,
};
use aos_runtime::InstanceId;
use aos_types::{AosCode, ErrorInfo, InstanceIdent, OwnerId, PublishedPort};
use futures::{
    FutureExt, StreamExt,
    future::{BoxFuture, ready},
    stream,
};
use tokio::sync::Mutex;

use crate::{
    cm_handle::{CmHandle, call_failed},
    records::{Kept, StoredEndpoint},
};

/// How long one question to CM may take.
const CALL: Duration = Duration::from_secs(10);

/// Addresses from CM, kept for starts without it, and the Node's network made of them.
pub(crate) struct Networks {
    stack: Arc<dyn NetworkStack>,
    cm: CmHandle,
    kept: Kept,
    /// Name servers when CM names none.
    dns_servers: Vec<IpAddr>,
    /// Names of the interfaces that the stack makes.
    prefix: Prefix,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    networks: BTreeMap<OwnerId, Network>,
    endpoints: BTreeMap<InstanceIdent, StoredEndpoint>,
    /// What is published by whom; from the images, so not stored.
    published: BTreeMap<InstanceIdent, Vec<PublishedPort>>,
    /// Whose endpoints shall be there.
    wanted: BTreeSet<InstanceIdent>,
    /// Not all of that could be made.
    broken: bool,
}

impl State {
    /// Whether an instance has addresses from an earlier time.
    fn knows(&self, instance: &Instance) -> bool {
        self.networks.contains_key(&instance.owner)
            && self
                .endpoints
                .get(&instance.ident)
                .is_some_and(|known| known.endpoint.network == instance.owner)
    }
}

/// An instance's place in the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) netns: PathBuf,
    pub(crate) ip: Ipv4Addr,
    pub(crate) dns_servers: Vec<IpAddr>,
}

impl Networks {
    pub(crate) async fn open(
        stack: Arc<dyn NetworkStack>,
        cm: CmHandle,
        kept: Kept,
        dns_servers: Vec<Ipv4Addr>,
        prefix: Prefix,
    ) -> Result<Self, aos_store::Error> {
        let state = State {
            networks: kept
                .networks
                .all()
                .await?
                .into_iter()
                .map(|(_, network)| (network.id.clone(), network))
                .collect(),
            ..State::default()
        };
        let networks = Self {
            stack,
            cm,
            kept,
            dns_servers: dns_servers.into_iter().map(IpAddr::V4).collect(),
            prefix,
            state: Mutex::new(state),
        };
        Ok(networks)
    }

    /// The name of the Node's end of an instance's cable.
    pub(crate) fn cable(&self, ident: &InstanceIdent) -> Option<String> {
        let endpoint: EndpointId = InstanceId::of(ident).to_string().parse().ok()?;
        Some(self.prefix.cable(&endpoint))
    }

    /// Whether a network interface was made for instances.
    pub(crate) fn is_own(&self, interface: &str) -> bool {
        self.prefix.owns_link(interface)
    }

    /// Takes the stored addresses of these instances.
    pub(crate) async fn restore(&self, instances: &[Instance]) -> Result<(), aos_store::Error> {
        let mut stored: BTreeMap<String, StoredEndpoint> =
            self.kept.endpoints.all().await?.into_iter().collect();
        let mut state = self.state.lock().await;
        for instance in instances {
            if let Some(endpoint) = stored.remove(&Kept::key(&instance.ident)) {
                state.endpoints.insert(instance.ident.clone(), endpoint);
            }
        }
        Ok(())
    }

    /// Gets the addresses of instances: from CM, or the kept ones if CM cannot be reached. Says which got none.
    pub(crate) async fn allocate(
        &self,
        instances: &[(&Instance, &ItemImage)],
        parallel: usize,
    ) -> BTreeMap<InstanceIdent, ErrorInfo> {
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
            let published = image
                .item_config
                .as_ref()
                .map(|item| item.published_ports.clone())
                .unwrap_or_default();
            state.published.insert(ident.clone(), published);
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
        failed
    }

    async fn store(
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

    async fn network(&self, owner: &OwnerId) -> Result<Network, ErrorInfo> {
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
            link: NodeLink::None,
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
        endpoint.allowed = answer.firewall_rules.iter().filter_map(flow).collect();
        Ok(StoredEndpoint {
            endpoint,
            dns_servers: answer
                .dns_servers
                .iter()
                .filter_map(|text| text.parse().ok())
                .collect(),
        })
    }

    /// Notes what an instance publishes; for instances whose addresses are known already.
    pub(crate) async fn note_published(&self, ident: &InstanceIdent, image: &ItemImage) {
        if let Some(item) = &image.item_config {
            self.state
                .lock()
                .await
                .published
                .insert(ident.clone(), item.published_ports.clone());
        }
    }

    /// Makes the Node's network so that these instances, and no others, have their places.
    /// Says which could not be made.
    pub(crate) async fn apply(
        &self,
        wanted: BTreeSet<InstanceIdent>,
    ) -> BTreeMap<InstanceIdent, ErrorInfo> {
        let mut state = self.state.lock().await;
        state.wanted = wanted;
        let failed = self.make(&state).await;
        state.broken = !failed.is_empty();
        failed
    }

    /// Tries again what could not be made, before an instance is started again.
    pub(crate) async fn mend(
        &self,
        instance: &Instance,
        image: &ItemImage,
    ) -> Result<(), ErrorInfo> {
        let known = self
            .state
            .lock()
            .await
            .endpoints
            .contains_key(&instance.ident);
        if !known {
            let mut failed = self.allocate(&[(instance, image)], 1).await;
            failed.remove(&instance.ident).map_or(Ok(()), Err)?;
        }
        let ports = image
            .item_config
            .as_ref()
            .map(|item| item.published_ports.clone())
            .unwrap_or_default();
        let mut state = self.state.lock().await;
        // They were not known as long as the image was not here.
        let before = state
            .published
            .insert(instance.ident.clone(), ports.clone());
        if known && !state.broken && before.unwrap_or_default() == ports {
            return Ok(());
        }
        state.wanted.insert(instance.ident.clone());
        let mut failed = self.make(&state).await;
        state.broken = !failed.is_empty();
        failed.remove(&instance.ident).map_or(Ok(()), Err)
    }

    async fn make(&self, state: &State) -> BTreeMap<InstanceIdent, ErrorInfo> {
        let endpoints: Vec<(&InstanceIdent, Endpoint)> = state
            .wanted
            .iter()
            .filter_map(|ident| {
                let mut endpoint = state.endpoints.get(ident)?.endpoint.clone();
                endpoint.published = state.published.get(ident).cloned().unwrap_or_default();
                Some((ident, endpoint))
            })
            .collect();
        let owners: BTreeSet<&OwnerId> = endpoints.iter().map(|(_, e)| &e.network).collect();
        let wanted = Wanted {
            networks: state
                .networks
                .values()
                .filter(|network| owners.contains(&network.id))
                .cloned()
                .collect(),
            endpoints: endpoints.iter().map(|(_, e)| e.clone()).collect(),
            ..Wanted::default()
        };
        match self.stack.apply(&wanted).await {
            Ok(applied) => endpoints
                .into_iter()
                .filter_map(|(ident, endpoint)| {
                    let error = applied.failed.get(&endpoint.id)?;
                    let mut info = ErrorInfo::from_error(AosCode::Failed, error);
                    if let Some(why) = applied.failed_networks.get(&endpoint.network) {
                        info.message = format!("{}: {why}", info.message);
                    }
                    Some((ident.clone(), info))
                })
                .collect(),
            Err(error) => {
                let info = ErrorInfo::from_error(AosCode::Failed, &error);
                tracing::error!(error = %info, "the Node's network cannot be made");
                endpoints
                    .into_iter()
                    .map(|(ident, _)| (ident.clone(), info.clone()))
                    .collect()
            }
        }
    }

    /// The place of an instance, once it is applied.
    pub(crate) async fn place(&self, ident: &InstanceIdent) -> Result<Place, ErrorInfo> {
        let state = self.state.lock().await;
        let stored = state.endpoints.get(ident).ok_or_else(|| {
            ErrorInfo::new(
                AosCode::NotFound,
                "it has no network address, and CM could not be asked for one",
            )
        })?;
        Ok(Place {
            netns: self.stack.netns(&stored.endpoint.id),
            ip: stored.endpoint.ip,
            dns_servers: if !stored.dns_servers.is_empty() {
                stored.dns_servers.clone()
            } else if !self.dns_servers.is_empty() {
                self.dns_servers.clone()
            } else {
                node_dns_servers()
            },
        })
    }

    /// Gives the addresses of instances that are gone back. CM learns what it misses at the next connection.
    pub(crate) async fn release(&self, gone: &[InstanceIdent]) {
        {
            let mut state = self.state.lock().await;
            for ident in gone {
                state.endpoints.remove(ident);
                state.published.remove(ident);
                state.wanted.remove(ident);
            }
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
    }

    /// Tells CM what this Node has, so that it frees the rest.
    pub(crate) async fn sync(&self) {
        let Ok(channel) = self.cm.channel_now() else {
            return;
        };
        let instances = {
            let state = self.state.lock().await;
            state
                .endpoints
                .iter()
                .map(|(ident, stored)| pb::InstanceNetworkStateInfo {
                    instance: Some(ident_to_proto(ident)),
                    network_id: stored.endpoint.network.to_string(),
                    ip: stored.endpoint.ip.to_string(),
                    firewall_rules: stored.endpoint.allowed.iter().map(rule).collect(),
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
        if let Err(status) = answer {
            tracing::info!(
                why = aos_ipc::reason(&status),
                "CM was not told of the addresses"
            );
        }
    }

    /// Takes the firewall rules that CM pushes. Our CM sends all rules of an instance, others only the new ones.
    pub(crate) async fn take_rules(&self, update: pb::PendingFirewallUpdate) {
        let Ok(ident) = ident_from_proto(update.instance) else {
            tracing::warn!("CM sent firewall rules of an instance that cannot be one");
            return;
        };
        let rules: BTreeSet<AllowedFlow> = update.firewall_rules.iter().filter_map(flow).collect();
        let all = self.cm.is_attached();
        let mut state = self.state.lock().await;
        let Some(stored) = state.endpoints.get_mut(&ident) else {
            return;
        };
        let mut allowed: BTreeSet<AllowedFlow> = if all {
            BTreeSet::new()
        } else {
            stored.endpoint.allowed.iter().copied().collect()
        };
        allowed.extend(rules);
        stored.endpoint.allowed = allowed.into_iter().collect();
        let stored = stored.clone();
        if let Err(error) = self.kept.endpoints.put(Kept::key(&ident), &stored).await {
            tracing::warn!(%error, "firewall rules are not stored");
        }
        if state.wanted.contains(&ident) {
            for (ident, error) in self.make(&state).await {
                tracing::warn!(%ident, %error, "an instance lost its place in the network");
            }
        }
    }

    /// Follows the pushes of CM until the stream ends.
    pub(crate) async fn follow_rules(&self) -> Result<(), tonic::Status> {
        let Ok(channel) = self.cm.channel_now() else {
            return Ok(());
        };
        let request = pb::SubscribeInstanceNetworkUpdatesRequest {
            node_id: self.cm.node().to_string(),
        };
        let mut updates = NetworkServiceClient::new(channel)
            .subscribe_instance_network_updates(request)
            .await?
            .into_inner();
        while let Some(message) = updates.message().await? {
            if let Some(pb::instance_network_update_notification::Update::PendingFirewallUpdate(
                update,
            )) = message.update
            {
                self.take_rules(update).await;
            }
        }
        Ok(())
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

/// A rule of CM; nothing if it is none, which then allows nothing.
fn flow(rule: &pb::FirewallRule) -> Option<AllowedFlow> {
    let (first, last) = match rule.dst_port.split_once([':', '-']) {
        Some((first, last)) => (first.parse().ok()?, last.parse().ok()?),
        None => {
            let port = rule.dst_port.parse().ok()?;
            (port, port)
        }
    };
    Some(AllowedFlow {
        from: rule.src_ip.parse().ok()?,
        to: rule.dst_ip.parse().ok()?,
        first_port: first,
        last_port: last,
        protocol: rule.proto.parse().ok()?,
    })
}

fn rule(flow: &AllowedFlow) -> pb::FirewallRule {
    let port = if flow.first_port == flow.last_port {
        flow.first_port.to_string()
    } else {
        format!("{}:{}", flow.first_port, flow.last_port)
    };
    pb::FirewallRule {
        dst_ip: flow.to.to_string(),
        dst_port: port,
        proto: flow.protocol.to_string(),
        src_ip: flow.from.to_string(),
    }
}

/// The Node's own name servers, without those that are reachable on its loopback only.
fn node_dns_servers() -> Vec<IpAddr> {
    std::fs::read_to_string("/etc/resolv.conf")
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.strip_prefix("nameserver ")?.trim().parse().ok())
        .filter(|server: &IpAddr| !server.is_loopback())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_survive_the_wire_and_nonsense_allows_nothing() {
        let wire = pb::FirewallRule {
            dst_ip: "172.30.0.2".into(),
            dst_port: "80:90".into(),
            proto: "udp".into(),
            src_ip: "172.31.0.2".into(),
        };
        let read = flow(&wire).unwrap();
        assert_eq!((read.first_port, read.last_port), (80, 90));
        assert_eq!(rule(&read), wire);
        let mut bad = wire;
        bad.dst_port = "all".into();
        assert_eq!(flow(&bad), None);
    }
}
