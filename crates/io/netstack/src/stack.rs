use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fs, io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use aos_types::OwnerId;
use async_trait::async_trait;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use rtnetlink::Handle;
use tokio::{sync::Mutex, task::JoinHandle};

use crate::{
    Counted, Endpoint, EndpointId, Network, NodeLink, Prefix, Wanted,
    cable::{self, Cable},
    counting::{self, Counting},
    links::{self, Link},
    netns, nft, rules,
};

/// Endpoints that are looked after at the same time.
const PARALLEL: usize = 8;
/// How long new cables may take until packets pass.
const CARRIES: Duration = Duration::from_millis(500);

/// Why the network is not as wanted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel's network interface cannot be reached.
    #[error("cannot talk to the kernel about networks")]
    Netlink(#[source] io::Error),
    /// An interface, address or route.
    #[error("cannot {what} {name}")]
    Link {
        /// What was being done.
        what: &'static str,
        /// With which interface.
        name: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A network namespace.
    #[error("cannot make the network namespace {path}")]
    Namespace {
        /// Its file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// What was asked for contradicts itself.
    #[error("endpoint {endpoint} {why}")]
    Endpoint {
        /// Which.
        endpoint: EndpointId,
        /// What is wrong.
        why: String,
    },
    /// A network contradicts itself.
    #[error("network {network} {why}")]
    Network {
        /// Whose.
        network: OwnerId,
        /// What is wrong.
        why: String,
    },
    /// There is no way to the other Nodes.
    #[error(
        "networks cannot be joined with those of other Nodes: {why}; name an interface in `network.uplink` of SM's options"
    )]
    Uplink {
        /// What is wrong.
        why: String,
    },
    /// `nft` refused; nothing of the table was changed.
    #[error("`{program}` did not take the firewall rules: {why}")]
    Nft {
        /// The program.
        program: PathBuf,
        /// What it said.
        why: String,
    },
}

/// What came of one [`NetworkStack::apply`].
#[derive(Debug, Default)]
pub struct Applied {
    /// Endpoints that could not be made, with the reason. All others are there.
    pub failed: BTreeMap<EndpointId, Error>,
    /// Networks that could not be made; their endpoints are in `failed` too.
    pub failed_networks: BTreeMap<OwnerId, String>,
    /// Networks that are there but are not joined with those of other Nodes, with the reason.
    pub alone: BTreeMap<OwnerId, String>,
}

/// Makes the Node's network as it is wanted.
#[async_trait]
pub trait NetworkStack: Send + Sync {
    /// Makes what is missing and removes what is not wanted. Repeatable; what is right already is not touched, so running
    /// instances keep their connections.
    async fn apply(&self, wanted: &Wanted) -> Result<Applied, Error>;

    /// The namespace file of an endpoint, for the container that lives in it.
    fn netns(&self, id: &EndpointId) -> PathBuf;

    /// What the endpoints that are there have received and sent.
    async fn traffic(&self) -> Result<BTreeMap<EndpointId, Counted>, Error>;

    /// Whether networks can be joined with those of other Nodes by VLAN.
    async fn can_vlan(&self) -> bool;

    /// Removes everything of this Node.
    async fn clear(&self) -> Result<(), Error>;
}

/// How a [`KernelStack`] names things.
#[derive(Debug, Clone)]
pub struct KernelOptions {
    /// First letters of all it makes.
    pub prefix: Prefix,
    /// Folder of the namespace files; `/run/netns` lets `ip netns` list them.
    pub netns_dir: PathBuf,
    /// The `nft` program.
    pub nft: PathBuf,
    /// The interface on which VLANs go to other Nodes; that of the default route if absent.
    pub uplink: Option<String>,
    /// Largest packet of the networks, in bytes. VXLAN takes 50 bytes of what the Nodes' own network carries, 70 with IPv6.
    pub mtu: u32,
    /// Whether networks have an IPv6 side.
    pub ipv6: bool,
}

impl KernelOptions {
    /// The usual names and sizes.
    pub fn new(prefix: Prefix) -> Self {
        Self {
            prefix,
            netns_dir: "/run/netns".into(),
            nft: "nft".into(),
            uplink: None,
            mtu: DEFAULT_MTU,
            ipv6: true,
        }
    }
}

/// Fits into VXLAN over IPv4 on Ethernet.
pub const DEFAULT_MTU: u32 = 1_450;

/// The network of the machine, or of the network namespace in which it is made.
pub struct KernelStack {
    options: KernelOptions,
    netlink: Handle,
    connection: JoinHandle<()>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The rules in the kernel, as far as we put them there.
    rules: Option<String>,
    /// What the kernel counts, as far as we know.
    counting: Option<Counting>,
    /// Where the routes of endpoints lead, to take them back.
    routes: HashMap<EndpointId, (u32, std::net::Ipv4Addr)>,
}

impl KernelStack {
    /// Opens the kernel's interface in the network namespace of the calling thread.
    pub fn open(options: KernelOptions) -> Result<Self, Error> {
        let (connection, netlink, _) = rtnetlink::new_connection().map_err(Error::Netlink)?;
        Ok(Self {
            options,
            netlink,
            connection: tokio::spawn(connection),
            state: Mutex::default(),
        })
    }

    fn prefix(&self) -> &Prefix {
        &self.options.prefix
    }

    async fn links(&self) -> Result<HashMap<String, Link>, Error> {
        links::all(&self.netlink)
            .await
            .map_err(|failure| Error::Link {
                what: "list",
                name: "interfaces".into(),
                source: failure.into(),
            })
    }

    async fn remove_link(&self, name: &str, index: u32) -> Result<(), Error> {
        links::remove(&self.netlink, index)
            .await
            .map_err(|failure| Error::Link {
                what: "remove",
                name: name.into(),
                source: failure.into(),
            })
    }

    /// The bridge of a network, made or repaired if need be.
    async fn bridge(&self, network: &Network, links: &HashMap<String, Link>) -> Result<u32, Error> {
        let name = self.prefix().bridge(network.id.as_str());
        let mtu = self.options.mtu;
        if let Some(link) = links.get(&name) {
            if link.up && link.note == links::bridge_note(network, mtu) {
                return Ok(link.index);
            }
            self.remove_link(&name, link.index).await?;
        }
        let failed = |failure: links::Failure| Error::Link {
            what: "make bridge",
            name: name.clone(),
            source: failure.into(),
        };
        let index = links::make_bridge(&self.netlink, &name, network, mtu)
            .await
            .map_err(failed)?;
        // Published ports answer on 127.0.0.1 too; the rules keep everybody else from the loopback.
        setting(&format!("net/ipv4/conf/{name}/route_localnet"), "1");
        if network.ip6.is_some() {
            setting(&format!("net/ipv6/conf/{name}/accept_dad"), "0");
            setting(&format!("net/ipv6/conf/{name}/accept_ra"), "0");
        } else {
            setting(&format!("net/ipv6/conf/{name}/disable_ipv6"), "1");
        }
        links::finish_bridge(&self.netlink, index, network, mtu)
            .await
            .map_err(failed)?;
        Ok(index)
    }

    /// Joins a network with those of other Nodes, or takes it apart.
    async fn join(
        &self,
        network: &Network,
        bridge: u32,
        links: &HashMap<String, Link>,
    ) -> Result<(), Error> {
        let owner = network.id.as_str();
        let (name, is_vxlan) = match &network.link {
            NodeLink::None => return Ok(()),
            NodeLink::Vlan => (self.prefix().vlan(owner), false),
            NodeLink::Vxlan(_) => (self.prefix().vxlan(owner), true),
        };
        let vlan = u16::try_from(network.vlan_id)
            .ok()
            .filter(|vlan| (1..=4094).contains(vlan))
            .ok_or_else(|| Error::Network {
                network: network.id.clone(),
                why: format!("has VLAN id {}, which is none", network.vlan_id),
            })?;
        let failed = |what: &'static str| {
            let name = name.clone();
            move |failure: links::Failure| Error::Link {
                what,
                name,
                source: failure.into(),
            }
        };
        let there = links.get(&name);
        let right = there.filter(|link| {
            link.up && link.controller == Some(bridge) && link.note == vlan.to_string()
        });
        let mut index = right.map(|link| link.index);
        if let (None, Some(wrong)) = (index, there) {
            self.remove_link(&name, wrong.index).await?;
        }
        let mtu = self.options.mtu;
        if index.is_none() && is_vxlan {
            let made = links::make_vxlan(&self.netlink, &name, vlan.into(), bridge, mtu).await;
            let made = made.map_err(|failure| {
                if failure.is_taken() {
                    let why = "cannot be joined with other Nodes: another Node on this machine has its number";
                    return Error::Network {
                        network: network.id.clone(),
                        why: why.into(),
                    };
                }
                failed("make")(failure)
            })?;
            index = Some(made);
        } else if index.is_none() {
            let uplink = self.uplink(links).await?;
            links::make_vlan(&self.netlink, &name, vlan, uplink, bridge, mtu)
                .await
                .map_err(failed("make"))?;
            index = self.links().await?.get(&name).map(|link| link.index);
        }
        let Some(index) = index else {
            return Ok(());
        };
        if let NodeLink::Vxlan(peers) = &network.link {
            links::set_peers(&self.netlink, index, peers)
                .await
                .map_err(failed("set the peers of"))?;
        }
        if right.is_none() {
            links::note(&self.netlink, index, vlan.to_string())
                .await
                .map_err(failed("note"))?;
        }
        Ok(())
    }

    /// The interface on which VLANs go to other Nodes.
    async fn uplink(&self, links: &HashMap<String, Link>) -> Result<u32, Error> {
        let failed = |why: &str| Error::Uplink { why: why.into() };
        if let Some(name) = &self.options.uplink {
            let link = links.get(name);
            return link
                .map(|link| link.index)
                .ok_or_else(|| failed(&format!("there is no interface `{name}`")));
        }
        links::uplink(&self.netlink)
            .await
            .map_err(|failure| failed(&failure.to_string()))?
            .ok_or_else(|| failed("the Node has no default route"))
    }

    /// Looks after an endpoint that is there; gives the cable of one that is not.
    async fn endpoint(
        &self,
        endpoint: &Endpoint,
        networks: &BTreeMap<&OwnerId, (Arc<Network>, u32)>,
        links: &HashMap<String, Link>,
    ) -> Result<Option<Cable>, Error> {
        let wrong = |why: String| Error::Endpoint {
            endpoint: endpoint.id.clone(),
            why,
        };
        let &(ref network, bridge) = networks.get(&endpoint.network).ok_or_else(|| {
            wrong(format!(
                "belongs to network {}, which is not there",
                endpoint.network
            ))
        })?;
        if !network.subnet.contains(endpoint.ip) || endpoint.ip == network.ip {
            return Err(wrong(format!(
                "has the address {}, which is not free in {}",
                endpoint.ip, network.subnet
            )));
        }
        let name = self.prefix().cable(&endpoint.id);
        let path = self.netns(&endpoint.id);
        let mtu = self.options.mtu;
        if let Some(link) = links.get(&name) {
            let note = links::cable_note(endpoint, network, mtu);
            let rate = links::rate_note(endpoint.bounds.rate);
            let known = link.note.strip_prefix(&note);
            let right = link.up
                && known.is_some_and(|rest| rest.starts_with(" rate "))
                && netns::exists(&path);
            if right {
                let failed = |failure: links::Failure| Error::Link {
                    what: "change",
                    name: name.clone(),
                    source: failure.into(),
                };
                if link.controller != Some(bridge) {
                    // Its bridge was made anew; the namespace and whoever lives in it stay.
                    links::plug_in(&self.netlink, link.index, bridge, endpoint, network)
                        .await
                        .map_err(failed)?;
                }
                if known != Some(rate.as_str()) {
                    let namespace = netns::open(path.clone())
                        .await
                        .map_err(|source| Error::Namespace { path, source })?;
                    let note = note + &rate;
                    links::change_rate(&self.netlink, link.index, &namespace, endpoint, note)
                        .await
                        .map_err(failed)?;
                }
                return Ok(None);
            }
            self.remove_link(&name, link.index).await?;
        }
        Ok(Some(Cable {
            name,
            path,
            bridge,
            endpoint: endpoint.clone(),
            network: network.clone(),
            mtu,
        }))
    }

    /// Waits until packets pass these interfaces: what is sent before the kernel has noticed that both ends are up is lost, and
    /// repeated only after a second.
    async fn until_carrying(&self, names: &HashSet<String>) -> Result<(), Error> {
        let began = Instant::now();
        loop {
            let links = self.links().await?;
            let carries = |name: &String| links.get(name).is_none_or(|link| link.carries);
            if names.iter().all(carries) || began.elapsed() > CARRIES {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// What the counting table has. Nothing if it is not there.
    async fn listed(&self) -> Result<Option<serde_json::Value>, Error> {
        let question = counting::question(self.prefix());
        let question: Vec<&str> = question.iter().map(String::as_str).collect();
        nft::list(&self.options.nft, &question).await
    }

    /// Makes the counting table count these.
    async fn count(&self, state: &mut State, wanted: &Wanted) -> Result<(), Error> {
        let next = Counting::of(wanted);
        let before = match state.counting.take() {
            Some(before) => Some(before),
            None => self.listed().await?.as_ref().map(Counting::read),
        };
        let changes = next.changes(self.prefix(), before.as_ref());
        if !changes.is_empty()
            && let Err(error) = nft::apply(&self.options.nft, &changes).await
        {
            // Somebody else has changed it, or its frame is an older one. What was counted is lost then.
            tracing::warn!(%error, "the table that counts traffic is made anew");
            let anew = next.changes(self.prefix(), None);
            nft::apply(&self.options.nft, &anew).await?;
        }
        state.counting = Some(next);
        Ok(())
    }

    /// Removes what carries our prefix and is not in `keep`.
    async fn remove_others(
        &self,
        keep: &HashSet<String>,
        endpoints: &BTreeSet<&EndpointId>,
    ) -> Result<(), Error> {
        let others: Vec<u32> = self
            .links()
            .await?
            .into_iter()
            .filter(|(name, _)| self.prefix().owns_link(name) && !keep.contains(name))
            .map(|(_, link)| link.index)
            .collect();
        links::remove_all(&self.netlink, &others)
            .await
            .map_err(|failure| Error::Link {
                what: "remove",
                name: format!("{} interfaces", others.len()),
                source: failure.into(),
            })?;
        let entries = fs::read_dir(&self.options.netns_dir).into_iter().flatten();
        for entry in entries.flatten() {
            let Some(id) = entry
                .file_name()
                .to_str()
                .and_then(|name| self.prefix().endpoint(name))
            else {
                continue;
            };
            if !endpoints.contains(&id) {
                let path = entry.path();
                netns::remove(&path).map_err(|source| Error::Namespace { path, source })?;
            }
        }
        Ok(())
    }
}

impl Drop for KernelStack {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

#[async_trait]
impl NetworkStack for KernelStack {
    async fn apply(&self, wanted: &Wanted) -> Result<Applied, Error> {
        let mut state = self.state.lock().await;
        let mut applied = Applied::default();
        let prefix = self.prefix();
        let names: HashSet<String> = wanted
            .networks
            .iter()
            .flat_map(|network| {
                let owner = network.id.as_str();
                let link = match network.link {
                    NodeLink::None => None,
                    NodeLink::Vlan => Some(prefix.vlan(owner)),
                    NodeLink::Vxlan(_) => Some(prefix.vxlan(owner)),
                };
                [Some(prefix.bridge(owner)), link].into_iter().flatten()
            })
            .chain(wanted.endpoints.iter().map(|e| self.prefix().cable(&e.id)))
            .collect();
        let endpoints: BTreeSet<&EndpointId> = wanted.endpoints.iter().map(|e| &e.id).collect();
        for (id, (bridge, ip)) in std::mem::take(&mut state.routes) {
            if endpoints.contains(&id) {
                state.routes.insert(id, (bridge, ip));
            } else {
                links::forget_route(&self.netlink, bridge, ip).await;
            }
        }
        // First away with the old: a new endpoint may have the address of a removed one.
        self.remove_others(&names, &endpoints).await?;
        let links = self.links().await?;
        if !wanted.networks.is_empty() {
            setting("net/ipv4/ip_forward", "1");
        }
        if wanted.networks.iter().any(|network| network.ip6.is_some()) {
            forward_ipv6();
        }
        let mut networks = BTreeMap::new();
        for network in &wanted.networks {
            match self.bridge(network, &links).await {
                Ok(bridge) => {
                    networks.insert(&network.id, (Arc::new(network.clone()), bridge));
                }
                Err(error) => {
                    let text = chain(&error);
                    applied.failed_networks.insert(network.id.clone(), text);
                }
            }
        }
        // The rules are there before anybody can send: no packet slips through meanwhile.
        let rules = rules::tables(prefix, wanted);
        if state.rules.as_ref() != Some(&rules) {
            state.rules = None;
            nft::apply(&self.options.nft, &rules).await?;
            state.rules = Some(rules);
        }
        self.count(&mut state, wanted).await?;
        for (network, bridge) in networks.values() {
            if let Err(error) = self.join(network, *bridge, &links).await {
                let text = chain(&error);
                tracing::warn!(network = %network.id, error = text, "a network is alone on this Node");
                applied.alone.insert(network.id.clone(), text);
            }
        }
        let work: Vec<BoxFuture<'_, Result<Option<Cable>, Error>>> = wanted
            .endpoints
            .iter()
            .map(|endpoint| self.endpoint(endpoint, &networks, &links).boxed())
            .collect();
        let looked_after: Vec<_> = stream::iter(work).buffered(PARALLEL).collect().await;
        let mut cables = Vec::new();
        for (endpoint, result) in wanted.endpoints.iter().zip(looked_after) {
            match result {
                Ok(cable) => cables.extend(cable),
                Err(error) => {
                    applied.failed.insert(endpoint.id.clone(), error);
                }
            }
        }
        let mut carrying = HashSet::new();
        for cable in &cables {
            carrying.insert(cable.name.clone());
            carrying.insert(prefix.bridge(cable.endpoint.network.as_str()));
        }
        for (id, laid) in cable::lay(cables).await {
            if let Err(error) = laid {
                carrying.remove(&prefix.cable(&id));
                applied.failed.insert(id, error);
            }
        }
        if !carrying.is_empty() {
            self.until_carrying(&carrying).await?;
        }
        for endpoint in &wanted.endpoints {
            if let Some((_, bridge)) = networks.get(&endpoint.network)
                && !applied.failed.contains_key(&endpoint.id)
            {
                let way = (*bridge, endpoint.ip);
                state.routes.insert(endpoint.id.clone(), way);
            }
        }
        Ok(applied)
    }

    fn netns(&self, id: &EndpointId) -> PathBuf {
        self.options.netns_dir.join(self.prefix().netns(id))
    }

    async fn traffic(&self) -> Result<BTreeMap<EndpointId, Counted>, Error> {
        let Some(listed) = self.listed().await? else {
            return Ok(BTreeMap::new());
        };
        let entries = fs::read_dir(&self.options.netns_dir).into_iter().flatten();
        let there: Vec<EndpointId> = entries
            .flatten()
            .filter_map(|entry| self.prefix().endpoint(entry.file_name().to_str()?))
            .collect();
        Ok(counting::counted(&listed, there.iter()))
    }

    async fn can_vlan(&self) -> bool {
        links::knows_vlan(&self.netlink).await
    }

    async fn clear(&self) -> Result<(), Error> {
        let mut state = self.state.lock().await;
        *state = State::default();
        self.remove_others(&HashSet::new(), &BTreeSet::new())
            .await?;
        let none = rules::no_tables(self.prefix()) + &counting::no_table(self.prefix());
        nft::apply(&self.options.nft, &none).await
    }
}

/// Writes a kernel setting. Where it cannot be written (a container with a read-only `/proc/sys`) it may be right already;
/// what does not work then is seen and reported where it does not work.
fn setting(name: &str, value: &str) {
    let path = PathBuf::from("/proc/sys").join(name);
    if fs::read_to_string(&path).is_ok_and(|now| now.trim() == value) {
        return;
    }
    if let Err(error) = fs::write(&path, value) {
        tracing::warn!(path = %path.display(), %error, "a kernel setting stays as it is");
    }
}

/// Lets IPv6 packets pass the Node. A Node that forwards does not listen to its router any more unless told to.
fn forward_ipv6() {
    let forwarding = "net/ipv6/conf/all/forwarding";
    let path = PathBuf::from("/proc/sys").join(forwarding);
    if fs::read_to_string(path).is_ok_and(|now| now.trim() == "1") {
        return;
    }
    let interfaces = fs::read_dir("/proc/sys/net/ipv6/conf");
    for interface in interfaces.into_iter().flatten().flatten() {
        let path = interface.path().join("accept_ra");
        if fs::read_to_string(&path).is_ok_and(|now| now.trim() == "1") {
            let _ = fs::write(path, "2");
        }
    }
    setting(forwarding, "1");
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
