use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use futures::TryStreamExt;
use rtnetlink::{
    Handle, LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVlan, LinkVxlan,
    RouteMessageBuilder,
    packet_core::{NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST, NetlinkMessage},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        link::{InfoBridge, LinkAttribute, LinkFlags, State as LinkState},
        neighbour::{
            NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
        },
        route::{RouteAttribute, RouteMessage},
    },
};

use crate::{Endpoint, Limit, Network, netns::Namespace, rate, rules::VXLAN_PORT};

type Result<T> = std::result::Result<T, Failure>;

/// What the kernel said, as an error number where there is one.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(crate) struct Failure(#[from] std::io::Error);

impl From<rtnetlink::Error> for Failure {
    fn from(error: rtnetlink::Error) -> Self {
        Self(match error {
            rtnetlink::Error::NetlinkError(message) => message.to_io(),
            other => std::io::Error::other(other),
        })
    }
}

impl Failure {
    /// There was nothing of the kind.
    pub(crate) fn is_none_there(&self) -> bool {
        self.0.raw_os_error() == Some(nix::libc::ENOENT)
    }

    /// Somebody else on this machine has it.
    pub(crate) fn is_taken(&self) -> bool {
        self.0.raw_os_error() == Some(nix::libc::EEXIST)
    }
}

impl From<Failure> for std::io::Error {
    fn from(failure: Failure) -> Self {
        failure.0
    }
}

/// An interface of the Node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    /// The bridge it is a port of.
    pub(crate) controller: Option<u32>,
    /// What we noted on it when we made it.
    pub(crate) note: String,
    pub(crate) up: bool,
    /// Packets pass: the kernel has noticed that the other end is up too.
    pub(crate) carries: bool,
}

/// The hardware address of whoever has `ip`: the same wherever and however often its interface is made, so that others
/// need not learn a new one.
pub(crate) const fn mac(ip: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = ip.octets();
    // Locally administered (RFC 7042); `a` for aos.
    [0x02, b'a', a, b, c, d]
}

/// The address that the kernel gives an interface of this hardware address (RFC 4291, modified EUI-64).
pub(crate) const fn link_local(mac: [u8; 6]) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac;
    Ipv6Addr::from_octets([
        0xfe,
        0x80,
        0,
        0,
        0,
        0,
        0,
        0,
        a ^ 2,
        b,
        c,
        0xff,
        0xfe,
        d,
        e,
        f,
    ])
}

/// All interfaces by name.
pub(crate) async fn all(netlink: &Handle) -> Result<HashMap<String, Link>> {
    let mut links = HashMap::new();
    let mut stream = std::pin::pin!(netlink.link().get().execute());
    while let Some(message) = stream.try_next().await? {
        let mut name = String::new();
        let mut link = Link {
            index: message.header.index,
            controller: None,
            note: String::new(),
            up: message.header.flags.contains(LinkFlags::Up),
            carries: false,
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(text) => name = text,
                LinkAttribute::Controller(index) => link.controller = Some(index),
                LinkAttribute::IfAlias(text) => link.note = text,
                LinkAttribute::OperState(state) => link.carries = state == LinkState::Up,
                _ => {}
            }
        }
        links.insert(name, link);
    }
    Ok(links)
}

/// Removes an interface; one that is gone is fine.
pub(crate) async fn remove(netlink: &Handle, index: u32) -> Result<()> {
    match netlink.link().del(index).execute().await {
        Err(error) if is(&error, nix::libc::ENODEV) => Ok(()),
        result => Ok(result?),
    }
}

/// Removes interfaces at once: the kernel waits some 20 ms for each removal, or once for a group.
pub(crate) async fn remove_all(netlink: &Handle, indices: &[u32]) -> Result<()> {
    if let [_, _, ..] = indices {
        let group = unused_group(netlink).await?;
        for &index in indices {
            let message = LinkUnspec::new_with_index(index).link_group(group).build();
            match netlink.link().set(message).execute().await {
                Err(error) if is(&error, nix::libc::ENODEV) => {}
                result => result?,
            }
        }
        let message = LinkMessageBuilder::<LinkUnspec>::new()
            .link_group(group)
            .build();
        if netlink
            .link()
            .del_with_message(message)
            .execute()
            .await
            .is_ok()
        {
            return Ok(());
        }
        // One of them cannot go, so none did: find out which.
    }
    for &index in indices {
        remove(netlink, index).await?;
    }
    Ok(())
}

/// A group number that no interface has. Our own number with the process in it, then the ones after it.
async fn unused_group(netlink: &Handle) -> Result<u32> {
    let mut taken = std::collections::HashSet::new();
    let mut stream = std::pin::pin!(netlink.link().get().execute());
    while let Some(message) = stream.try_next().await? {
        taken.extend(
            message
                .attributes
                .iter()
                .filter_map(|attribute| match attribute {
                    LinkAttribute::Group(group) => Some(*group),
                    _ => None,
                }),
        );
    }
    let mut group = 0x4000_0000 | std::process::id();
    while taken.contains(&group) {
        group += 1;
    }
    Ok(group)
}

/// What is noted on a bridge that is as it should be.
pub(crate) fn bridge_note(network: &Network, mtu: u32) -> String {
    let mut note = format!("{}/{} mtu {mtu}", network.ip, network.subnet.length());
    if let Some(ip) = network.ip6 {
        note.push_str(&format!(" {ip}"));
    }
    note
}

/// What is noted on a cable that is as it should be, but for its rate.
pub(crate) fn cable_note(endpoint: &Endpoint, network: &Network, mtu: u32) -> String {
    let mut note = format!(
        "{}/{} via {} mtu {mtu}",
        endpoint.ip,
        network.subnet.length(),
        network.ip
    );
    if let Some(ip) = endpoint.ip6 {
        note.push_str(&format!(" {ip}"));
    }
    note
}

/// The last part of a cable's note: the rate it is held to.
pub(crate) fn rate_note(rate: Option<Limit>) -> String {
    let rate = rate.unwrap_or_default();
    let word = |limit: Option<u64>| limit.map_or_else(|| "-".to_owned(), |n| n.to_string());
    format!(" rate {}/{}", word(rate.down), word(rate.up))
}

/// Makes a bridge with the Node's address; returns its index. The note comes last: without it the bridge is made anew.
pub(crate) async fn make_bridge(
    netlink: &Handle,
    name: &str,
    network: &Network,
    mtu: u32,
) -> Result<u32> {
    // The rules work either way; without this a bridge costs a second walk through them where the kernel allows it.
    let message = LinkBridge::new(name)
        .append_info_data(InfoBridge::NfCallIpTables(false))
        .append_info_data(InfoBridge::NfCallIp6Tables(false))
        .address(mac(network.ip).to_vec())
        .mtu(mtu)
        .build();
    netlink.link().add(message).execute().await?;
    index_of(netlink, name).await
}

/// The Node's addresses on a bridge, and the note that it is whole.
pub(crate) async fn finish_bridge(
    netlink: &Handle,
    index: u32,
    network: &Network,
    mtu: u32,
) -> Result<()> {
    let length = network.subnet.length();
    let addresses = [
        Some((IpAddr::V4(network.ip), length)),
        network.ip6.map(|ip| (IpAddr::V6(ip), 64)),
    ];
    for (ip, length) in addresses.into_iter().flatten() {
        netlink
            .address()
            .add(index, ip, length)
            .replace()
            .execute()
            .await?;
    }
    note(netlink, index, bridge_note(network, mtu)).await
}

/// Holds a cable that is there to another rate.
pub(crate) async fn change_rate(
    netlink: &Handle,
    index: u32,
    namespace: &Namespace,
    endpoint: &Endpoint,
    text: String,
) -> Result<()> {
    hold(netlink, index, namespace, endpoint.bounds.rate).await?;
    note(netlink, index, text).await
}

/// What goes to the endpoint is held back at the Node's end, what comes from it inside: the instance cannot reach either.
async fn hold(
    netlink: &Handle,
    index: u32,
    namespace: &Namespace,
    rate: Option<Limit>,
) -> Result<()> {
    let rate = rate.unwrap_or_default();
    let eth0 = index_of(&namespace.inside, "eth0").await?;
    rate::set(netlink, index, rate.down).await?;
    rate::set(&namespace.inside, eth0, rate.up).await?;
    Ok(())
}

/// Makes the way of a network to other Nodes by VXLAN; returns its index.
pub(crate) async fn make_vxlan(
    netlink: &Handle,
    name: &str,
    vni: u32,
    bridge: u32,
    mtu: u32,
) -> Result<u32> {
    let message = LinkVxlan::new(name, vni)
        .port(VXLAN_PORT)
        .learning(true)
        .controller(bridge)
        .mtu(mtu)
        .up()
        .build();
    netlink.link().add(message).execute().await?;
    index_of(netlink, name).await
}

/// Makes the way of a network to other Nodes by VLAN.
pub(crate) async fn make_vlan(
    netlink: &Handle,
    name: &str,
    vlan: u16,
    uplink: u32,
    bridge: u32,
    mtu: u32,
) -> Result<()> {
    let message = LinkVlan::new(name, uplink, vlan)
        .controller(bridge)
        .mtu(mtu)
        .up()
        .build();
    Ok(netlink.link().add(message).execute().await?)
}

/// Whether the kernel has VLAN interfaces: one on an interface that is not there fails for that reason, or because the
/// kernel does not know what it is.
pub(crate) async fn knows_vlan(netlink: &Handle) -> bool {
    let nowhere = i32::MAX.unsigned_abs();
    let message = LinkVlan::new("aosvl-probe", nowhere, 1).build();
    let made = netlink.link().add(message).execute().await;
    matches!(made, Err(error) if is(&error, nix::libc::ENODEV))
}

/// The interface of the Node's default route.
pub(crate) async fn uplink(netlink: &Handle) -> Result<Option<u32>> {
    let question: RouteMessage = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let mut stream = std::pin::pin!(netlink.route().get(question).execute());
    let mut best: Option<(u32, u32)> = None;
    while let Some(route) = stream.try_next().await? {
        if route.header.destination_prefix_length != 0 {
            continue;
        }
        let mut metric = 0;
        let mut out = None;
        for attribute in route.attributes {
            match attribute {
                RouteAttribute::Priority(number) => metric = number,
                RouteAttribute::Oif(index) => out = Some(index),
                _ => {}
            }
        }
        if let Some(out) = out
            && best.is_none_or(|(least, _)| metric < least)
        {
            best = Some((metric, out));
        }
    }
    Ok(best.map(|(_, out)| out))
}

/// Whoever is not known yet is asked for at every peer.
const EVERYBODY: [u8; 6] = [0; 6];

/// Makes these, and no others, the peers of a VXLAN interface.
pub(crate) async fn set_peers(
    netlink: &Handle,
    index: u32,
    wanted: &BTreeSet<IpAddr>,
) -> Result<()> {
    let mut question = netlink.neighbours().get();
    question.message_mut().header.family = AddressFamily::Bridge;
    let mut there = BTreeSet::new();
    {
        let mut stream = std::pin::pin!(question.execute());
        while let Some(message) = stream.try_next().await? {
            if message.header.ifindex != index {
                continue;
            }
            let mut everybody = false;
            let mut peer = None;
            for attribute in message.attributes {
                match attribute {
                    NeighbourAttribute::LinkLayerAddress(address) => {
                        everybody = address == EVERYBODY;
                    }
                    NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => {
                        peer = Some(IpAddr::V4(ip));
                    }
                    NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => {
                        peer = Some(IpAddr::V6(ip));
                    }
                    _ => {}
                }
            }
            there.extend(peer.filter(|_| everybody));
        }
    }
    for peer in there.difference(wanted) {
        let gone = netlink.neighbours().del(entry(index, *peer)).execute();
        match gone.await {
            Err(error) if is(&error, nix::libc::ENOENT) => {}
            result => result?,
        }
    }
    for peer in wanted.difference(&there) {
        let mut request =
            NetlinkMessage::from(RouteNetlinkMessage::NewNeighbour(entry(index, *peer)));
        // Several entries of one address: each gets a copy.
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_APPEND;
        send(netlink, request).await?;
    }
    Ok(())
}

fn entry(index: u32, peer: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.header.flags = NeighbourFlags::Own;
    message.attributes = vec![
        NeighbourAttribute::LinkLayerAddress(EVERYBODY.to_vec()),
        NeighbourAttribute::Destination(match peer {
            IpAddr::V4(ip) => NeighbourAddress::Inet(ip),
            IpAddr::V6(ip) => NeighbourAddress::Inet6(ip),
        }),
    ];
    message
}

/// Sends a request that `rtnetlink` has no words for.
pub(crate) async fn send(
    netlink: &Handle,
    request: NetlinkMessage<RouteNetlinkMessage>,
) -> Result<()> {
    let mut netlink = netlink.clone();
    let mut answers = std::pin::pin!(netlink.request(request)?);
    while let Some(answer) = futures::StreamExt::next(&mut answers).await {
        if let rtnetlink::packet_core::NetlinkPayload::Error(error) = answer.payload
            && error.code.is_some()
        {
            return Err(rtnetlink::Error::NetlinkError(error).into());
        }
    }
    Ok(())
}

/// Makes a cable that is there a port of a bridge.
pub(crate) async fn plug_in(
    netlink: &Handle,
    index: u32,
    bridge: u32,
    endpoint: &Endpoint,
    network: &Network,
) -> Result<()> {
    let message = LinkUnspec::new_with_index(index).controller(bridge).build();
    netlink.link().set(message).execute().await?;
    // Where bridged packets pass the translation, an instance's way to its own published port goes out where it came in.
    let port = LinkBridgePort::new(index).hairpin(true).build();
    netlink.link().set_port(port).execute().await?;
    // Another Node on this machine may have a bridge for the same addresses: say which one leads to this endpoint.
    let way = way_here(bridge, endpoint, network);
    Ok(netlink.route().add(way).replace().execute().await?)
}

/// The way to an endpoint.
pub(crate) fn way_here(bridge: u32, endpoint: &Endpoint, network: &Network) -> RouteMessage {
    RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(endpoint.ip, 32)
        .output_interface(bridge)
        .pref_source(network.ip)
        .build()
}

/// Takes the route to an endpoint away; one that is gone is fine.
pub(crate) async fn forget_route(netlink: &Handle, bridge: u32, ip: Ipv4Addr) {
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(ip, 32)
        .output_interface(bridge)
        .build();
    let _ = netlink.route().del(route).execute().await;
}

pub(crate) async fn note(netlink: &Handle, index: u32, text: String) -> Result<()> {
    let message = LinkUnspec::new_with_index(index).alias(text).build();
    Ok(netlink.link().set(message).execute().await?)
}

async fn index_of(netlink: &Handle, name: &str) -> Result<u32> {
    let mut stream = std::pin::pin!(netlink.link().get().match_name(name).execute());
    match stream.try_next().await? {
        Some(message) => Ok(message.header.index),
        None => Err(rtnetlink::Error::RequestFailed.into()),
    }
}

fn is(error: &rtnetlink::Error, errno: i32) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(message) if message.raw_code() == -errno)
}
