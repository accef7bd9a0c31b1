//! What is known of the networks on this Node, and which of them are needed here.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use aos_launch::Instance;
use aos_netstack::{AllowedFlow, Endpoint, Network};
use aos_network::ipv6_of;
use aos_types::{InstanceIdent, OwnerId};

use super::{UnitNetwork, ports::Holders, traits::Traits, volumes::Volumes};
use crate::records::StoredEndpoint;

/// What the Node's networks are made of.
#[derive(Default)]
pub(super) struct State {
    pub(super) networks: BTreeMap<OwnerId, Network>,
    pub(super) endpoints: BTreeMap<InstanceIdent, StoredEndpoint>,
    /// What the images say.
    pub(super) traits: BTreeMap<InstanceIdent, Traits>,
    /// Whose endpoints shall be there.
    pub(super) wanted: BTreeSet<InstanceIdent>,
    /// Not all of that could be made.
    pub(super) broken: bool,
    /// The whole Unit's networks, as CM told them.
    pub(super) unit: UnitNetwork,
    pub(super) holders: Holders,
    pub(super) volumes: Volumes,
    /// Host names that others have, as people were told.
    pub(super) refused: BTreeMap<InstanceIdent, (String, String)>,
}

impl State {
    /// Whether an instance has addresses from an earlier time.
    pub(super) fn knows(&self, instance: &Instance) -> bool {
        self.networks.contains_key(&instance.owner)
            && self
                .endpoints
                .get(&instance.ident)
                .is_some_and(|known| known.endpoint.network == instance.owner)
    }

    /// Whose networks the instances here may connect to, besides their own.
    pub(super) fn needed_owners(&self) -> BTreeSet<OwnerId> {
        let stored = self
            .wanted
            .iter()
            .filter_map(|ident| self.endpoints.get(ident));
        stored
            .flat_map(|stored| {
                stored.endpoint.allowed.iter().filter_map(|flow| {
                    let IpAddr::V4(to) = flow.to else { return None };
                    let owner = self.unit.owner_of(to)?;
                    (*owner != stored.endpoint.network).then(|| owner.clone())
                })
            })
            .collect()
    }

    /// Whether a network that may be connected to is not here.
    pub(super) fn lacks_a_target(&self) -> bool {
        let mut needed = self.needed_owners().into_iter();
        needed.any(|owner| !self.networks.contains_key(&owner))
    }

    /// Networks that are here for nobody.
    pub(super) fn unneeded_networks(&self) -> Vec<OwnerId> {
        let needed = self.needed_owners();
        let lived_in: BTreeSet<&OwnerId> = self
            .endpoints
            .values()
            .map(|stored| &stored.endpoint.network)
            .collect();
        self.networks
            .keys()
            .filter(|owner| !needed.contains(*owner) && !lived_in.contains(*owner))
            .cloned()
            .collect()
    }

    /// The same connection between the IPv6 addresses of both.
    pub(super) fn in_ipv6(&self, endpoint: &Endpoint, flow: &AllowedFlow) -> Option<AllowedFlow> {
        let IpAddr::V4(to) = flow.to else { return None };
        let owner = self.unit.owner_of(to)?;
        (flow.from == IpAddr::V4(endpoint.ip)).then(|| AllowedFlow {
            from: ipv6_of(&endpoint.network, endpoint.ip).into(),
            to: ipv6_of(owner, to).into(),
            ..*flow
        })
    }
}
