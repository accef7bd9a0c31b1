//! The firewall of a Node as two tables, written as one transaction that replaces what is there.
//!
//! Table `inet <prefix>` decides what goes through the Node, table `bridge <prefix>` who may send as whom. Everything that
//! grows with the number of instances is in sets and maps, so a packet costs the same with one instance and with hundreds.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Display, Write as _},
    net::IpAddr,
};

use aos_types::Protocol;

use crate::{Egress, Endpoint, NodeLink, Prefix, Wanted, links};

/// New connections a second of one endpoint through the Node, and how many more may come at once.
const NEW_A_SECOND: u32 = 500;
const NEW_AT_ONCE: u32 = 1_000;
/// Connections of one endpoint through the Node at the same time. The kernel's table is shared by all.
const HELD: u32 = 8_192;
/// The UDP port of VXLAN (RFC 7348).
pub(crate) const VXLAN_PORT: u16 = 4_789;

/// The tables of a Node as one transaction.
pub(crate) fn tables(prefix: &Prefix, wanted: &Wanted) -> String {
    let mut text = no_tables(prefix);
    let name = prefix.as_str();
    line(&mut text, format_args!("table inet {name} {{"));
    if !wanted.networks.is_empty() {
        inet(&mut text, prefix, wanted);
    }
    line(&mut text, "}");
    line(&mut text, format_args!("table bridge {name} {{"));
    if !wanted.networks.is_empty() {
        bridge(&mut text, prefix, wanted);
    }
    line(&mut text, "}");
    text
}

/// The transaction that removes the tables. Adding first makes deleting safe when there are none.
pub(crate) fn no_tables(prefix: &Prefix) -> String {
    let name = prefix.as_str();
    let mut text = String::new();
    for family in ["inet", "bridge"] {
        line(
            &mut text,
            format_args!("table {family} {name} {{}}\ndelete table {family} {name}"),
        );
    }
    text
}

fn line(text: &mut String, what: impl Display) {
    // Writing to a text cannot fail.
    let _ = writeln!(text, "{what}");
}

/// A set or map of the table.
fn set<T: Display>(
    text: &mut String,
    kind: &str,
    name: &str,
    what: &str,
    elements: impl IntoIterator<Item = T>,
) {
    let elements: Vec<String> = elements.into_iter().map(|one| one.to_string()).collect();
    let _ = write!(text, "{kind} {name} {{ {what}; ");
    if !elements.is_empty() {
        let _ = write!(text, "elements = {{ {} }}; ", elements.join(", "));
    }
    line(text, "}");
}

/// What differs between the two kinds of addresses.
struct Family {
    /// At the end of names.
    digit: char,
    /// The protocol in expressions.
    ip: &'static str,
    /// The type in sets.
    kind: &'static str,
    loopback: &'static str,
}

const FAMILIES: [Family; 2] = [
    Family {
        digit: '4',
        ip: "ip",
        kind: "ipv4_addr",
        loopback: "127.0.0.0/8",
    },
    Family {
        digit: '6',
        ip: "ip6",
        kind: "ipv6_addr",
        loopback: "::1",
    },
];

impl Family {
    fn has(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() == (self.digit == '4')
    }

    fn of(&self, endpoint: &Endpoint) -> Option<IpAddr> {
        if self.digit == '4' {
            Some(endpoint.ip.into())
        } else {
            endpoint.ip6.map(IpAddr::V6)
        }
    }
}

fn inet(text: &mut String, prefix: &Prefix, wanted: &Wanted) {
    let bridge_of = |owner: &str| prefix.bridge(owner);
    let bridges: Vec<String> = wanted
        .networks
        .iter()
        .map(|network| bridge_of(network.id.as_str()))
        .collect();
    set(
        text,
        "set",
        "bridges",
        "type ifname",
        bridges.iter().map(quoted),
    );
    let same = bridges
        .iter()
        .map(|name| format!("{0} . {0}", quoted(name)));
    set(text, "set", "same", "type ifname . ifname", same);
    for family in &FAMILIES {
        addresses(text, family, prefix, wanted);
    }
    line(
        text,
        "chain refuse { reject with icmpx type admin-prohibited; }",
    );
    for family in &FAMILIES {
        egress(text, family, wanted);
    }
    forward(text);
    translate(text);
    input(text);
}

fn quoted(name: &String) -> String {
    format!("\"{name}\"")
}

/// The sets of one kind of addresses.
fn addresses(text: &mut String, family: &Family, prefix: &Prefix, wanted: &Wanted) {
    let Family { digit, kind, .. } = family;
    let subnets: BTreeMap<&str, String> = wanted
        .networks
        .iter()
        .filter_map(|network| {
            let subnet = if *digit == '4' {
                network.subnet.to_string()
            } else {
                format!("{}/64", network.ip6?)
            };
            Some((network.id.as_str(), subnet))
        })
        .collect();
    let interval = format!("type {kind}; flags interval");
    set(
        text,
        "set",
        &format!("subnets{digit}"),
        &interval,
        subnets.values(),
    );
    let home = subnets
        .iter()
        .map(|(owner, subnet)| format!("{} . {subnet}", quoted(&prefix.bridge(owner))));
    set(
        text,
        "set",
        &format!("home{digit}"),
        &format!("type ifname . {kind}; flags interval"),
        home,
    );
    let local = wanted.endpoints.iter().filter_map(|endpoint| {
        let bridge = prefix.bridge(endpoint.network.as_str());
        Some(format!("{} . {}", quoted(&bridge), family.of(endpoint)?))
    });
    set(
        text,
        "set",
        &format!("local{digit}"),
        &format!("type ifname . {kind}"),
        local,
    );
    set(
        text,
        "set",
        &format!("allowed{digit}"),
        &format!("type {kind} . {kind} . inet_proto . inet_service; flags interval"),
        allowed(family, wanted),
    );
    let published = wanted.endpoints.iter().flat_map(|endpoint| {
        let ip = family.of(endpoint);
        endpoint.published.iter().filter_map(move |port| {
            let (protocol, here) = (port.protocol, port.host_port);
            Some(format!("{protocol} . {here} : {} . {}", ip?, port.port))
        })
    });
    set(
        text,
        "map",
        &format!("publish{digit}"),
        &format!("type inet_proto . inet_service : {kind} . inet_service"),
        published,
    );
    let peers: BTreeSet<&IpAddr> = wanted
        .networks
        .iter()
        .filter_map(|network| match &network.link {
            NodeLink::Vxlan(peers) => Some(peers),
            _ => None,
        })
        .flatten()
        .filter(|peer| family.has(**peer))
        .collect();
    set(
        text,
        "set",
        &format!("peers{digit}"),
        &format!("type {kind}"),
        peers,
    );
    let closed = wanted
        .closed
        .iter()
        .filter(|range| family.has(range.address));
    set(
        text,
        "set",
        &format!("closed{digit}"),
        &format!("type {kind}; flags interval; auto-merge"),
        closed,
    );
    line(
        text,
        format_args!(
            "set flood{digit} {{ type {kind}; flags dynamic, timeout; timeout 10s; size 65535; }}\n\
             set held{digit} {{ type {kind}; flags dynamic; size 65535; }}"
        ),
    );
}

/// Allowed connections, with ports that touch or overlap taken together: a set takes no overlaps.
fn allowed(family: &Family, wanted: &Wanted) -> Vec<String> {
    let mut ports: BTreeMap<(IpAddr, IpAddr, Protocol), Vec<(u16, u16)>> = BTreeMap::new();
    let flows = wanted.endpoints.iter().flat_map(|endpoint| {
        // Nobody speaks for somebody else.
        let own = family.of(endpoint);
        let flows = endpoint.allowed.iter();
        flows.filter(move |flow| Some(flow.from) == own)
    });
    for flow in flows.filter(|flow| family.has(flow.to)) {
        ports
            .entry((flow.from, flow.to, flow.protocol))
            .or_default()
            .push((flow.first_port, flow.last_port));
    }
    ports
        .into_iter()
        .flat_map(|((from, to, protocol), ranges)| {
            joined(ranges).into_iter().map(move |(first, last)| {
                format!("{from} . {to} . {protocol} . {}", Ports(first, last))
            })
        })
        .collect()
}

fn joined(mut ranges: Vec<(u16, u16)>) -> Vec<(u16, u16)> {
    ranges.sort_unstable();
    let mut joined: Vec<(u16, u16)> = Vec::new();
    for (first, last) in ranges {
        match joined.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => joined.push((first, last)),
        }
    }
    joined
}

struct Ports(u16, u16);

impl Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == self.1 {
            write!(f, "{}", self.0)
        } else {
            write!(f, "{}-{}", self.0, self.1)
        }
    }
}

/// A chain for each endpoint that may not go everywhere, and the map that leads to it.
fn egress(text: &mut String, family: &Family, wanted: &Wanted) {
    let Family { digit, ip, .. } = family;
    let mut confined = Vec::new();
    for endpoint in &wanted.endpoints {
        let (Egress::Only(list), Some(from)) = (&endpoint.egress, family.of(endpoint)) else {
            continue;
        };
        let chain = format!("out{digit}_{}", Prefix::short(&endpoint.id));
        line(&mut *text, format_args!("chain {chain} {{"));
        for to in list.iter().filter(|to| family.has(to.range.address)) {
            let _ = write!(text, "{ip} daddr {} ", to.range);
            if let Some((protocol, first, last)) = to.ports {
                let _ = write!(text, "{protocol} dport {} ", Ports(first, last));
            }
            line(text, "accept");
        }
        line(text, "counter jump refuse\n}");
        confined.push(format!("{from} : jump {chain}"));
    }
    set(
        text,
        "map",
        &format!("confined{digit}"),
        &format!("type {} : verdict", family.kind),
        confined,
    );
}

/// Who may talk to whom through the Node.
fn forward(text: &mut String) {
    line(
        text,
        "chain forward {\n\
         type filter hook forward priority filter; policy accept;\n\
         iifname != @bridges oifname != @bridges accept\n\
         ct direction reply ct state established,related accept",
    );
    // Bridged packets of one network, where the kernel shows them to us.
    line(text, "iifname . oifname @same accept");
    // Packets of both directions are looked at, not only the first: what is taken back ends at once.
    for Family { digit, ip, .. } in &FAMILIES {
        line(
            text,
            format_args!(
                "iifname @bridges ct state new update @flood{digit} {{ {ip} saddr limit rate over {NEW_A_SECOND}/second burst {NEW_AT_ONCE} packets }} counter drop\n\
                 iifname @bridges ct state new add @held{digit} {{ {ip} saddr ct count over {HELD} }} counter drop\n\
                 oifname @bridges {ip} saddr . {ip} daddr . meta l4proto . th dport @allowed{digit} accept"
            ),
        );
    }
    // Published ports are reachable for everybody, who has passed the translation.
    line(
        text,
        "oifname @bridges ct status dnat accept\n\
         iifname @bridges oifname @bridges counter jump refuse\n\
         oifname @bridges counter drop",
    );
    for Family { digit, ip, .. } in &FAMILIES {
        line(
            text,
            format_args!(
                "{ip} daddr @closed{digit} counter jump refuse\n{ip} saddr vmap @confined{digit}"
            ),
        );
    }
    line(text, "}");
}

/// Addresses as others see them.
fn translate(text: &mut String) {
    line(text, "chain publish {");
    for Family { digit, ip, .. } in &FAMILIES {
        line(
            text,
            format_args!("dnat {ip} to meta l4proto . th dport map @publish{digit}"),
        );
    }
    line(
        text,
        "}\n\
         chain prerouting { type nat hook prerouting priority -100; fib daddr type local jump publish; }\n\
         chain output { type nat hook output priority -100; fib daddr type local jump publish; }\n\
         chain postrouting {\n\
         type nat hook postrouting priority 100;",
    );
    for Family {
        digit,
        ip,
        loopback,
        ..
    } in &FAMILIES
    {
        line(
            text,
            format_args!("{ip} saddr {loopback} oifname @bridges masquerade"),
        );
        // To a published port of the own network: the answer has to come back through the Node.
        line(
            text,
            format_args!("oifname . {ip} saddr @home{digit} ct status dnat masquerade"),
        );
        line(
            text,
            format_args!("oifname . {ip} saddr @home{digit} accept"),
        );
        // An instance on another Node answers to its own network only: this Node speaks for the one that asks.
        line(
            text,
            format_args!(
                "{ip} saddr @subnets{digit} oifname @bridges oifname . {ip} daddr != @local{digit} masquerade"
            ),
        );
        // Packets that leave the Unit carry the Node's address.
        line(
            text,
            format_args!(
                "{ip} saddr @subnets{digit} oifname != @bridges {ip} daddr != @subnets{digit} masquerade"
            ),
        );
    }
    line(text, "}");
}

/// What instances may do to the Node itself.
fn input(text: &mut String) {
    line(
        text,
        "chain input {\ntype filter hook input priority filter; policy accept;",
    );
    // Whoever sends frames of the Unit's networks has to be one of its Nodes.
    for Family { digit, ip, .. } in &FAMILIES {
        line(
            text,
            format_args!("udp dport {VXLAN_PORT} {ip} saddr != @peers{digit} counter drop"),
        );
    }
    line(
        text,
        "iifname != @bridges accept\n\
         ct direction reply ct state established,related accept",
    );
    // Published ports on 127.0.0.1 need `route_localnet`; nobody else may reach the Node's loopback by it.
    line(text, "ip daddr 127.0.0.0/8 counter drop");
    for Family { digit, ip, .. } in &FAMILIES {
        line(
            text,
            format_args!(
                "ct state new update @flood{digit} {{ {ip} saddr limit rate over {NEW_A_SECOND}/second burst {NEW_AT_ONCE} packets }} counter drop"
            ),
        );
    }
    line(text, "}");
}

/// Each cable carries packets of its own endpoint only.
fn bridge(text: &mut String, prefix: &Prefix, wanted: &Wanted) {
    let mut own4 = Vec::new();
    let mut own6 = Vec::new();
    let mut macs = BTreeSet::new();
    for endpoint in &wanted.endpoints {
        let cable = quoted(&prefix.cable(&endpoint.id));
        let mac = links::mac(endpoint.ip);
        let written = Mac(mac).to_string();
        own4.push(format!("{cable} . {written} . {}", endpoint.ip));
        if let Some(ip) = endpoint.ip6 {
            for ip in [ip, links::link_local(mac)] {
                own6.push(format!("{cable} . {written} . {ip}"));
            }
        }
        macs.insert(written);
    }
    set(
        text,
        "set",
        "own4",
        "type ifname . ether_addr . ipv4_addr",
        own4,
    );
    set(
        text,
        "set",
        "own6",
        "type ifname . ether_addr . ipv6_addr",
        own6,
    );
    set(text, "set", "macs", "type ether_addr", macs);
    let (cables, name) = (prefix.cables(), prefix.as_str());
    line(
        text,
        format_args!(
            "chain prerouting {{\n\
             type filter hook prerouting priority -300; policy accept;\n\
             iifname \"{name}vx-*\" ether saddr @macs counter drop\n\
             iifname \"{name}vl-*\" ether saddr @macs counter drop\n\
             iifname != \"{cables}*\" accept\n\
             ether type ip iifname . ether saddr . ip saddr @own4 accept\n\
             ether type arp iifname . arp saddr ether . arp saddr ip @own4 accept\n\
             icmpv6 type {{ nd-router-advert, nd-redirect }} counter drop\n\
             ether type ip6 iifname . ether saddr . ip6 saddr @own6 accept\n\
             icmpv6 type nd-neighbor-solicit ip6 saddr :: accept\n\
             counter drop\n\
             }}"
        ),
    );
}

struct Mac([u8; 6]);

impl Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_that_overlap_or_touch_become_one_range() {
        assert_eq!(
            joined(vec![(80, 80), (81, 90), (85, 95), (100, 110), (102, 103)]),
            [(80, 95), (100, 110)]
        );
        assert_eq!(joined(vec![(1, 65_535), (65_535, 65_535)]), [(1, 65_535)]);
        assert!(joined(Vec::new()).is_empty());
    }
}
