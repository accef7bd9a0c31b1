//! The Node's network, made of what is known.

use std::collections::{BTreeMap, BTreeSet};

use aos_netstack::{Endpoint, Network, Wanted};
use aos_network::ipv6_of;
use aos_types::{AosCode, ErrorInfo, InstanceIdent, OwnerId};

use super::{Networks, asking::SHORT_CALL, known::State, traits::Traits, volumes};

impl Networks {
    /// Makes the network anew after something has changed; nobody waits for the outcome.
    pub(super) async fn make_again(&self, state: &mut State) {
        if state.wanted.is_empty() {
            return;
        }
        for (ident, error) in self.make(state).await {
            tracing::warn!(%ident, %error, "an instance lost its place in the network");
            state.broken = true;
        }
    }

    pub(super) async fn make(&self, state: &mut State) -> BTreeMap<InstanceIdent, ErrorInfo> {
        self.join_targets(state).await;
        let mut failed = self.claim_ports(state);
        let (endpoints, wanted) = self.plan(state, &failed);
        self.name(state, &endpoints, &wanted);
        match self.stack.apply(&wanted).await {
            Ok(applied) => {
                failed.extend(endpoints.into_iter().filter_map(|(ident, endpoint)| {
                    let error = applied.failed.get(&endpoint.id)?;
                    let mut info = ErrorInfo::from_error(AosCode::Failed, error);
                    if let Some(why) = applied.failed_networks.get(&endpoint.network) {
                        info.message = format!("{}: {why}", info.message);
                    }
                    Some((ident, info))
                }));
            }
            Err(error) => {
                let info = ErrorInfo::from_error(AosCode::Failed, &error);
                tracing::error!(error = %info, "the Node's network cannot be made");
                failed.extend(
                    endpoints
                        .into_iter()
                        .map(|(ident, _)| (ident, info.clone())),
                );
            }
        }
        failed
    }

    /// A network of another owner that something here may connect to is on this Node too, with nobody in it: the Node
    /// itself speaks there for the one that connects.
    async fn join_targets(&self, state: &mut State) {
        let missing: BTreeSet<OwnerId> = state
            .needed_owners()
            .into_iter()
            .filter(|owner| !state.networks.contains_key(owner))
            .collect();
        for owner in missing {
            let asked = tokio::time::timeout(SHORT_CALL, self.network(&owner)).await;
            let network = match asked {
                Ok(Ok(network)) => network,
                Ok(Err(error)) => {
                    tracing::info!(%owner, %error, "a network that may be connected to is not here yet");
                    continue;
                }
                // CM does not answer: not for the next one either.
                Err(_) => return,
            };
            if let Err(error) = self.store(std::slice::from_ref(&network), &[]).await {
                tracing::warn!(%error, "an address of this Node is not stored");
            }
            state.networks.insert(owner, network);
        }
    }

    /// Each host port goes to one instance: the one that had it first. Says who gets none of its ports.
    fn claim_ports(&self, state: &mut State) -> BTreeMap<InstanceIdent, ErrorInfo> {
        let claims = state
            .wanted
            .iter()
            .filter(|ident| state.endpoints.contains_key(*ident))
            .filter_map(|ident| Some((ident, state.traits.get(ident)?.published.as_slice())));
        let refused = state.holders.claim(claims, aos_netstack::is_listened_on);
        refused
            .into_iter()
            .map(|(ident, why)| (ident, ErrorInfo::new(AosCode::AlreadyExists, why)))
            .collect()
    }

    /// What the Node's network shall be.
    fn plan(
        &self,
        state: &State,
        refused: &BTreeMap<InstanceIdent, ErrorInfo>,
    ) -> (Vec<(InstanceIdent, Endpoint)>, Wanted) {
        let day = volumes::today();
        let ipv6 = self.options.ipv6;
        let endpoints: Vec<(InstanceIdent, Endpoint)> = state
            .wanted
            .iter()
            .filter(|ident| !refused.contains_key(*ident))
            .filter_map(|ident| {
                let mut endpoint = state.endpoints.get(ident)?.endpoint.clone();
                let silent = || Traits::of(None, self.options.egress);
                let traits = state.traits.get(ident).cloned().unwrap_or_else(silent);
                endpoint.published = traits.published;
                endpoint.egress = traits.egress;
                endpoint.bounds = traits.bounds;
                endpoint.bounds.used = state.volumes.used(ident, day);
                if ipv6 {
                    endpoint.ip6 = Some(ipv6_of(&endpoint.network, endpoint.ip));
                    let flows = endpoint.allowed.clone();
                    let also = flows
                        .iter()
                        .filter_map(|flow| state.in_ipv6(&endpoint, flow));
                    endpoint.allowed.extend(also.collect::<Vec<_>>());
                }
                Some((ident.clone(), endpoint))
            })
            .collect();
        let owners: BTreeSet<&OwnerId> = endpoints.iter().map(|(_, e)| &e.network).collect();
        let targets = state.needed_owners();
        let wanted = Wanted {
            networks: state
                .networks
                .values()
                .filter(|network| owners.contains(&network.id) || targets.contains(&network.id))
                .map(|network| Network {
                    ip6: ipv6.then(|| ipv6_of(&network.id, network.ip)),
                    link: state.unit.link(
                        &network.id,
                        self.cm.node(),
                        self.options.link,
                        self.can_vlan,
                    ),
                    ..network.clone()
                })
                .collect(),
            endpoints: endpoints.iter().map(|(_, e)| e.clone()).collect(),
            closed: self.closed.clone(),
            day,
        };
        (endpoints, wanted)
    }
}
