//! The network before the stops: what cannot have its place there does not cost the instance that runs in its stead.

use std::collections::{BTreeMap, BTreeSet};

use aos_launch::{Start, Stop};
use aos_types::{Digest, ErrorInfo, InstanceIdent, PublishedPort};

use super::Launcher;
use crate::{images::Installed, networks::Had};

impl Launcher {
    /// What those that are replaced have in the network.
    pub(super) async fn places_of(&self, start: &[Start]) -> BTreeMap<InstanceIdent, Had> {
        let mut all = BTreeMap::new();
        for Start { instance, .. } in start.iter().filter(|start| start.replaces) {
            let had = self.setup.networks.had(&instance.ident).await;
            all.insert(instance.ident.clone(), had);
        }
        all
    }

    /// Makes the network of what is about to start, beside that of what still runs. Gives those that cannot have their
    /// place and replace one that runs: it runs on.
    pub(super) async fn prepare(
        &self,
        stop: &[Stop],
        start: &[Start],
        installed: &BTreeMap<Digest, Installed>,
    ) -> BTreeMap<InstanceIdent, ErrorInfo> {
        if self.changes_hands(stop, start, installed).await {
            // It cannot be had before it is given up.
            return BTreeMap::new();
        }
        let mut all = self.networked();
        let runtimes = &self.setup.runtimes;
        let new = start.iter().map(|start| &start.instance);
        all.extend(
            new.filter(|instance| runtimes.has_networks(&instance.runtime))
                .map(|instance| instance.ident.clone()),
        );
        let mut failed = self.setup.networks.apply(all).await;
        let entries = self.entries();
        failed.retain(|ident, _| {
            let replaced = start
                .iter()
                .any(|start| start.replaces && start.instance.ident == *ident);
            replaced && entries.get(ident).is_some_and(|entry| entry.pid.is_some())
        });
        failed
    }

    /// Whether a port of the Node goes from one instance to another.
    async fn changes_hands(
        &self,
        stop: &[Stop],
        start: &[Start],
        installed: &BTreeMap<Digest, Installed>,
    ) -> bool {
        let ports = |image: &Installed| -> Vec<PublishedPort> {
            let item = image.image.item_config.as_ref();
            item.map(|item| item.published_ports.clone())
                .unwrap_or_default()
        };
        let mut given_up = BTreeSet::new();
        for Stop { ident, .. } in stop {
            let manifest = self.entries().get(ident).map(|one| one.instance.manifest);
            let image = match manifest {
                Some(manifest) => self.setup.images.get(manifest).await,
                None => None,
            };
            let own = image.iter().flat_map(ports);
            given_up.extend(own.map(|port| (port.host_port, port.protocol, ident)));
        }
        start.iter().any(|start| {
            let image = installed.get(&start.instance.manifest);
            image.into_iter().flat_map(ports).any(|port| {
                given_up.iter().any(|(host_port, protocol, ident)| {
                    (*host_port, *protocol) == (port.host_port, port.protocol)
                        && **ident != start.instance.ident
                })
            })
        })
    }
}
