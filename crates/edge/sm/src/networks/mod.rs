//! Addresses from CM, kept for starts without it; the Node's network, its names and its limits, made of them.
//!
//! | module | decides |
//! |---|---|
//! | `asking` | which addresses instances have: from CM, or kept; when they are given back |
//! | `rules` | which connections CM allows |
//! | `unit` | what CM's picture of the Unit means here: links to other Nodes, names of everybody |
//! | `had` | what one that is not replaced after all goes on with |
//! | `known` | which networks are needed here |
//! | `traits` | what an item's image asks of the network |
//! | `ports` | who has which port of the Node |
//! | `volumes` | what was used of a day's volume, over restarts |
//! | `making` | what the Node's network shall be |
//! | `naming` | who is called how, and who may ask |

mod asking;
mod had;
mod known;
mod making;
mod naming;
mod ports;
mod rules;
mod traits;
mod unit;
mod volumes;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    sync::Arc,
};

use aos_image::ItemImage;
use aos_ipc::proto::aos::node::v1 as node_pb;
use aos_launch::Instance;
use aos_netstack::{EndpointId, NetworkStack, Prefix, Range, dns::Names};
use aos_network::ipv6_of;
use aos_runtime::InstanceId;
use aos_types::{AosCode, ErrorInfo, InstanceIdent};
use tokio::sync::{Mutex, Notify, RwLock};

use self::{known::State, traits::Traits, volumes::Volumes};
use crate::{
    alerts::Alerts,
    cm_handle::CmHandle,
    options::NetworkOptions,
    records::{Kept, StoredEndpoint},
};

pub(crate) use had::Had;
pub(crate) use unit::UnitNetwork;

/// The key of what there is one of.
const OWN: &str = "own";

/// Addresses from CM, kept for starts without it, and the Node's network made of them.
pub(crate) struct Networks {
    stack: Arc<dyn NetworkStack>,
    cm: CmHandle,
    kept: Kept,
    /// Name servers for the world when CM names none.
    dns_servers: Vec<IpAddr>,
    options: NetworkOptions,
    closed: Vec<Range>,
    can_vlan: bool,
    names: Names,
    /// Names of the interfaces that the stack makes.
    prefix: Prefix,
    alerts: Arc<Alerts>,
    state: Mutex<State>,
    /// Held by those who wait for addresses; whoever tells CM of all that are here waits for them.
    asking: RwLock<()>,
    /// Addresses were given.
    allocated: Notify,
}

/// An instance's place in the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) netns: PathBuf,
    pub(crate) ip: Ipv4Addr,
    pub(crate) ip6: Option<Ipv6Addr>,
    pub(crate) dns_servers: Vec<IpAddr>,
}

/// What a Node's networks are made with.
pub(crate) struct NetworkSetup {
    pub(crate) stack: Arc<dyn NetworkStack>,
    pub(crate) cm: CmHandle,
    pub(crate) kept: Kept,
    pub(crate) dns_servers: Vec<Ipv4Addr>,
    pub(crate) options: NetworkOptions,
    pub(crate) closed: Vec<Range>,
    pub(crate) prefix: Prefix,
    pub(crate) alerts: Arc<Alerts>,
}

impl Networks {
    pub(crate) async fn open(setup: NetworkSetup) -> Result<Self, aos_store::Error> {
        let NetworkSetup {
            stack,
            cm,
            kept,
            dns_servers,
            options,
            closed,
            prefix,
            alerts,
        } = setup;
        let state = State {
            unit: kept.unit_network.get(OWN).await?.unwrap_or_default(),
            volumes: Volumes::new(kept.volumes.all().await?),
            networks: kept
                .networks
                .all()
                .await?
                .into_iter()
                .map(|(_, network)| (network.id.clone(), network))
                .collect(),
            ..State::default()
        };
        Ok(Self {
            can_vlan: stack.can_vlan().await,
            stack,
            cm,
            kept,
            dns_servers: dns_servers.into_iter().map(IpAddr::V4).collect(),
            options,
            closed,
            names: Names::default(),
            prefix,
            alerts,
            state: Mutex::new(state),
            asking: RwLock::default(),
            allocated: Notify::new(),
        })
    }

    /// The name server of the instances; somebody has to serve it.
    pub(crate) fn names(&self) -> Names {
        self.names.clone()
    }

    /// How and where this Node can be joined with others, for CM.
    pub(crate) fn reachable(&self) -> (Vec<String>, String) {
        use crate::options::LinkOption as Kind;
        let links: &[&str] = match self.options.link {
            Kind::Auto if self.can_vlan => &["vlan", "vxlan"],
            Kind::Auto | Kind::Vxlan => &["vxlan"],
            Kind::Vlan => &["vlan"],
            Kind::None => &["none"],
        };
        let address = self.options.link_address;
        (
            links.iter().map(|&link| link.to_owned()).collect(),
            address.map(|ip| ip.to_string()).unwrap_or_default(),
        )
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

    /// Takes what CM tells of the Unit's networks.
    pub(crate) async fn take_unit(&self, told: node_pb::UnitNetwork, cm: Option<IpAddr>) {
        let mut state = self.state.lock().await;
        let unit = UnitNetwork::read(told, cm, &state.unit);
        if unit == state.unit {
            return;
        }
        if let Err(error) = self.kept.unit_network.put(OWN, &unit).await {
            tracing::warn!(%error, "what CM told of the Unit's networks is not stored");
        }
        state.unit = unit;
        self.tell_refused(&mut state);
        self.make_again(&mut state).await;
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

    fn traits(&self, image: &ItemImage) -> Traits {
        Traits::of(image.item_config.as_ref(), self.options.egress)
    }

    /// Notes what an image says; for instances whose addresses are known already.
    pub(crate) async fn note_traits(&self, ident: &InstanceIdent, image: &ItemImage) {
        let traits = self.traits(image);
        self.state.lock().await.traits.insert(ident.clone(), traits);
    }

    /// Makes the Node's network so that these instances, and no others, have their places.
    /// Says which could not be made.
    pub(crate) async fn apply(
        &self,
        wanted: BTreeSet<InstanceIdent>,
    ) -> BTreeMap<InstanceIdent, ErrorInfo> {
        let mut state = self.state.lock().await;
        state.wanted = wanted;
        let failed = self.make(&mut state).await;
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
        let traits = self.traits(image);
        let mut state = self.state.lock().await;
        // They were not known as long as the image was not here.
        let before = state.traits.insert(instance.ident.clone(), traits.clone());
        if known && !state.broken && before == Some(traits) {
            return Ok(());
        }
        state.wanted.insert(instance.ident.clone());
        let mut failed = self.make(&mut state).await;
        state.broken = !failed.is_empty();
        failed.remove(&instance.ident).map_or(Ok(()), Err)
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
        let network = state
            .networks
            .get(&stored.endpoint.network)
            .ok_or_else(|| {
                ErrorInfo::new(AosCode::NotFound, "its network is not known on this Node")
            })?;
        Ok(Place {
            netns: self.stack.netns(&stored.endpoint.id),
            ip: stored.endpoint.ip,
            ip6: self
                .options
                .ipv6
                .then(|| ipv6_of(&stored.endpoint.network, stored.endpoint.ip)),
            // The Node itself answers, and asks the world.
            dns_servers: vec![IpAddr::V4(network.ip)],
        })
    }
}
