//! Who is called how, who may ask, and who hears that a name is taken.

use std::net::IpAddr;

use aos_netstack::{
    Endpoint, Wanted,
    dns::{Asker, Zone},
};
use aos_types::InstanceIdent;

use super::{Networks, known::State, unit};
use crate::records::StoredEndpoint;

impl Networks {
    /// Gives everybody their names, and says who may ask for them.
    pub(super) fn name(
        &self,
        state: &State,
        endpoints: &[(InstanceIdent, Endpoint)],
        wanted: &Wanted,
    ) {
        let mut zone = Zone::default();
        // Who is here has its names also while CM has not told of it yet.
        for (ident, endpoint) in endpoints {
            let hostname = state
                .traits
                .get(ident)
                .and_then(|traits| traits.hostname.as_deref())
                .filter(|_| !state.refused.contains_key(ident));
            let owner = &endpoint.network;
            let host = unit::host(owner, endpoint.ip, self.options.ipv6);
            zone.add_host(&host, aos_network::names_of(ident, owner, hostname));
            let nowhere = endpoint.egress == aos_netstack::Egress::Only(Vec::new());
            zone.add_asker(Asker {
                addresses: [Some(IpAddr::V4(endpoint.ip)), endpoint.ip6.map(IpAddr::V6)]
                    .into_iter()
                    .flatten()
                    .collect(),
                network: owner.clone(),
                reaches: endpoint.allowed.iter().map(|flow| flow.to).collect(),
                // A question to the world leaves the Unit too.
                upstream: if nowhere {
                    Vec::new()
                } else {
                    self.upstream(state.endpoints.get(ident))
                },
            });
        }
        state.unit.add_to(&mut zone, self.options.ipv6);
        let places = wanted.networks.iter().map(|net| IpAddr::V4(net.ip));
        self.names.set(zone, places.collect());
    }

    /// Tells people of host names that instances here asked for and others have.
    pub(super) fn tell_refused(&self, state: &mut State) {
        let mut refused = state.unit.refused();
        refused.retain(|ident, _| state.endpoints.contains_key(ident));
        for (ident, (name, item)) in &refused {
            if state.refused.get(ident) != Some(&(name.clone(), item.clone())) {
                let why = format!(
                    "its host name `{name}` is used by item {item} of the same owner; it is reached by its other names. \
                     Give one of them another `hostname`"
                );
                self.alerts.instance(ident, "", why);
            }
        }
        state.refused = refused;
    }

    /// The name servers of the world for one instance.
    fn upstream(&self, stored: Option<&StoredEndpoint>) -> Vec<IpAddr> {
        match stored {
            Some(stored) if !stored.dns_servers.is_empty() => stored.dns_servers.clone(),
            _ if !self.dns_servers.is_empty() => self.dns_servers.clone(),
            _ => node_dns_servers(),
        }
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
