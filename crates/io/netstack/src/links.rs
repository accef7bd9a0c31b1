use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    os::fd::AsRawFd,
};

use futures::TryStreamExt;
use rtnetlink::{
    Handle, LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth,
    RouteMessageBuilder,
    packet_route::link::{InfoBridge, InfoData, InfoVeth, LinkAttribute, LinkFlags},
};

use crate::{Endpoint, Network, netns::Namespace};

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
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(text) => name = text,
                LinkAttribute::Controller(index) => link.controller = Some(index),
                LinkAttribute::IfAlias(text) => link.note = text,
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
pub(crate) fn bridge_note(network: &Network) -> String {
    format!("{}/{}", network.ip, network.subnet.length())
}

/// What is noted on a cable that is as it should be.
pub(crate) fn cable_note(endpoint: &Endpoint, network: &Network) -> String {
    format!(
        "{}/{} via {}",
        endpoint.ip,
        network.subnet.length(),
        network.ip
    )
}

/// Makes a bridge with the Node's address; returns its index. The note comes last: without it the bridge is made anew.
pub(crate) async fn make_bridge(netlink: &Handle, name: &str, network: &Network) -> Result<u32> {
    // The rules work either way; without this a bridge costs a second walk through them where the kernel allows it.
    let message = LinkBridge::new(name)
        .append_info_data(InfoBridge::NfCallIpTables(false))
        .append_info_data(InfoBridge::NfCallIp6Tables(false))
        .build();
    netlink.link().add(message).execute().await?;
    let index = index_of(netlink, name).await?;
    netlink
        .address()
        .add(index, IpAddr::V4(network.ip), network.subnet.length())
        .replace()
        .execute()
        .await?;
    note(netlink, index, bridge_note(network)).await?;
    Ok(index)
}

/// Lays the cable between a bridge and a new namespace, and sets the address inside.
pub(crate) async fn make_cable(
    netlink: &Handle,
    name: &str,
    bridge: u32,
    namespace: &Namespace,
    endpoint: &Endpoint,
    network: &Network,
) -> Result<()> {
    let far = LinkMessageBuilder::<LinkUnspec>::new()
        .name("eth0")
        .setns_by_fd(namespace.file.as_raw_fd())
        .build();
    let near = LinkVeth::new(name, "eth0")
        .set_info_data(InfoData::Veth(InfoVeth::Peer(far)))
        .controller(bridge)
        .up()
        .build();
    netlink.link().add(near).execute().await?;
    let inside = &namespace.inside;
    let links = all(inside).await?;
    let eth0 = links.get("eth0").map_or(0, |link| link.index);
    let lo = links.get("lo").map_or(1, |link| link.index);
    for index in [lo, eth0] {
        let up = LinkUnspec::new_with_index(index).up().build();
        inside.link().set(up).execute().await?;
    }
    inside
        .address()
        .add(eth0, IpAddr::V4(endpoint.ip), network.subnet.length())
        .replace()
        .execute()
        .await?;
    let default = RouteMessageBuilder::<Ipv4Addr>::new()
        .gateway(network.ip)
        .output_interface(eth0)
        .build();
    inside.route().add(default).replace().execute().await?;
    let index = index_of(netlink, name).await?;
    port(netlink, index).await?;
    lead_here(netlink, bridge, endpoint, network).await?;
    note(netlink, index, cable_note(endpoint, network)).await
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
    port(netlink, index).await?;
    lead_here(netlink, bridge, endpoint, network).await
}

/// Where bridged packets pass the translation, an instance's way to its own published port goes out where it came in.
async fn port(netlink: &Handle, index: u32) -> Result<()> {
    let message = LinkBridgePort::new(index).hairpin(true).build();
    Ok(netlink.link().set_port(message).execute().await?)
}

/// Another Node on this machine may have a bridge for the same addresses: say which one leads to this endpoint.
async fn lead_here(
    netlink: &Handle,
    bridge: u32,
    endpoint: &Endpoint,
    network: &Network,
) -> Result<()> {
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(endpoint.ip, 32)
        .output_interface(bridge)
        .pref_source(network.ip)
        .build();
    Ok(netlink.route().add(route).replace().execute().await?)
}

/// Takes the route to an endpoint away; one that is gone is fine.
pub(crate) async fn forget_route(netlink: &Handle, bridge: u32, ip: Ipv4Addr) {
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(ip, 32)
        .output_interface(bridge)
        .build();
    let _ = netlink.route().del(route).execute().await;
}

async fn note(netlink: &Handle, index: u32, text: String) -> Result<()> {
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
