//! Namespaces of endpoints and the cables to them, many at a time.
//!
//! A namespace belongs to a thread, so threads of their own make them, one after another, and end. Each request to the kernel
//! takes the lock of all networks, so what belongs together is said in one go.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsRawFd,
    path::PathBuf,
    sync::Arc,
    thread,
};

use rtnetlink::{
    AddressMessageBuilder, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth,
    RouteMessageBuilder,
    packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE},
    packet_route::{
        RouteNetlinkMessage,
        link::{
            AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoVeth, LinkAttribute,
            LinkMessage,
        },
        route::RouteMessage,
    },
};
use tokio::sync::oneshot;

use crate::{
    Endpoint, EndpointId, Error, Network, NodeLink,
    batch::{Kernel, Request},
    links, netns, rate,
};

/// Threads that lay cables. Most of the time they wait for the kernel.
const WORKERS: usize = 2;
/// The interfaces of a namespace, as they are made.
const LOOPBACK: u32 = 1;
const ETH0: u32 = 2;

/// What is to be made for one endpoint.
pub(crate) struct Cable {
    /// Of the Node's end.
    pub(crate) name: String,
    /// The file of the namespace.
    pub(crate) path: PathBuf,
    pub(crate) bridge: u32,
    pub(crate) endpoint: Endpoint,
    pub(crate) network: Arc<Network>,
    pub(crate) mtu: u32,
}

type Laid = Vec<(EndpointId, Result<(), Error>)>;

/// Lays all of them; says how each came out.
pub(crate) async fn lay(cables: Vec<Cable>) -> BTreeMap<EndpointId, Result<(), Error>> {
    let mut laid: BTreeMap<EndpointId, Result<(), Error>> = cables
        .iter()
        .map(|cable| {
            let ended = io::Error::other("the thread that lays it has ended");
            (cable.endpoint.id.clone(), Err(cable.link(ended)))
        })
        .collect();
    let workers = WORKERS.min(cables.len()).max(1);
    let mut shares: Vec<Vec<Cable>> = Vec::new();
    shares.resize_with(workers, Vec::new);
    for (n, cable) in cables.into_iter().enumerate() {
        if let Some(share) = shares.get_mut(n % workers) {
            share.push(cable);
        }
    }
    let working: Vec<_> = shares.into_iter().map(lay_share).collect();
    for share in working {
        laid.extend(share.await.unwrap_or_default());
    }
    laid
}

fn lay_share(share: Vec<Cable>) -> oneshot::Receiver<Laid> {
    let (done, result) = oneshot::channel();
    let work = move || {
        let mut node = Kernel::open();
        let lay = |cable: Cable| {
            let laid = match &mut node {
                Ok(node) => cable.lay(node),
                Err(error) => Err(cable.link(io::Error::new(error.kind(), error.to_string()))),
            };
            if laid.is_err() {
                // Half an endpoint is none; the next attempt starts anew.
                let _ = netns::remove(&cable.path);
            }
            (cable.endpoint.id, laid)
        };
        let _ = done.send(share.into_iter().map(lay).collect());
    };
    // Without a thread `done` is dropped, and nothing is laid.
    let _ = thread::Builder::new()
        .name("netns".into())
        .stack_size(256 * 1024)
        .spawn(work);
    result
}

impl Cable {
    fn link(&self, source: io::Error) -> Error {
        Error::Link {
            what: "connect endpoint",
            name: self.name.clone(),
            source,
        }
    }

    /// Makes the namespace, lays the cable between it and the bridge, and sets the addresses inside. The note comes last:
    /// without it all is made anew.
    fn lay(&self, node: &mut Kernel) -> Result<(), Error> {
        let joined = self.network.link != NodeLink::None;
        let namespace = netns::enter_new(&self.path, self.endpoint.ip6.is_some(), joined).map_err(
            |source| Error::Namespace {
                path: self.path.clone(),
                source,
            },
        )?;
        let laid = (|| {
            let mut inside = Kernel::open()?;
            node.say(vec![self.both_ends(namespace.as_raw_fd())])?;
            let index = node.index_of(&self.name)?;
            let mut near = vec![
                port(index),
                lead_here(self.bridge, &self.endpoint, &self.network),
            ];
            let bounds = self.endpoint.bounds.rate.unwrap_or_default();
            near.extend(bounds.down.map(|limit| rate::hold(index, limit)));
            node.say(near)?;
            inside.say(self.inside())?;
            let note = links::cable_note(&self.endpoint, &self.network, self.mtu)
                + &links::rate_note(self.endpoint.bounds.rate);
            let note = LinkUnspec::new_with_index(index).alias(note).build();
            node.say(vec![(RouteNetlinkMessage::SetLink(note), 0)])
        })();
        laid.map_err(|source| self.link(source))
    }

    fn both_ends(&self, namespace: i32) -> Request {
        let far = LinkMessageBuilder::<LinkUnspec>::new()
            .name("eth0")
            .index(ETH0)
            .address(links::mac(self.endpoint.ip).to_vec())
            .mtu(self.mtu)
            .setns_by_fd(namespace)
            .build();
        let near = LinkVeth::new(&self.name, "eth0")
            .set_info_data(InfoData::Veth(InfoVeth::Peer(far)))
            .controller(self.bridge)
            .mtu(self.mtu)
            .up()
            .build();
        made(near)
    }

    /// Addresses and ways inside the namespace.
    fn inside(&self) -> Vec<Request> {
        let (endpoint, network) = (&self.endpoint, &self.network);
        let mut requests: Vec<Request> = [LOOPBACK, ETH0]
            .into_iter()
            .map(|index| {
                let up = LinkUnspec::new_with_index(index).up().build();
                (RouteNetlinkMessage::SetLink(up), 0)
            })
            .collect();
        requests.push(address(endpoint.ip.into(), network.subnet.length()));
        let way = RouteMessageBuilder::<Ipv4Addr>::new().gateway(network.ip);
        requests.push(route(way.output_interface(ETH0).build()));
        if let (Some(own), Some(gateway)) = (endpoint.ip6, network.ip6) {
            requests.push(address(own.into(), 64));
            let way = RouteMessageBuilder::<Ipv6Addr>::new().gateway(gateway);
            requests.push(route(way.output_interface(ETH0).build()));
        }
        let bounds = endpoint.bounds.rate.unwrap_or_default();
        requests.extend(bounds.up.map(|limit| rate::hold(ETH0, limit)));
        requests
    }
}

fn made(link: LinkMessage) -> Request {
    (
        RouteNetlinkMessage::NewLink(link),
        NLM_F_CREATE | NLM_F_EXCL,
    )
}

/// Where bridged packets pass the translation, an instance's way to its own published port goes out where it came in. The
/// Node's end of a cable has no addresses of its own, so it says nothing either.
fn port(index: u32) -> Request {
    let silent = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
    let port = LinkBridgePort::new(index)
        .hairpin(true)
        .append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![silent]))
        .build();
    (RouteNetlinkMessage::NewLink(port), 0)
}

/// Another Node on this machine may have a bridge for the same addresses: says which one leads to this endpoint.
fn lead_here(bridge: u32, endpoint: &Endpoint, network: &Network) -> Request {
    route(links::way_here(bridge, endpoint, network))
}

fn route(route: RouteMessage) -> Request {
    (
        RouteNetlinkMessage::NewRoute(route),
        NLM_F_CREATE | NLM_F_REPLACE,
    )
}

fn address(ip: IpAddr, length: u8) -> Request {
    let message = match ip {
        IpAddr::V4(ip) => AddressMessageBuilder::<Ipv4Addr>::new()
            .index(ETH0)
            .address(ip, length)
            .build(),
        IpAddr::V6(ip) => AddressMessageBuilder::<Ipv6Addr>::new()
            .index(ETH0)
            .address(ip, length)
            .build(),
    };
    (
        RouteNetlinkMessage::NewAddress(message),
        NLM_F_CREATE | NLM_F_REPLACE,
    )
}
