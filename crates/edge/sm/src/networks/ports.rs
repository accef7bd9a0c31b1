//! Which instance has which port of the Node.

use std::collections::{BTreeMap, BTreeSet};

use aos_types::{InstanceIdent, Protocol, PublishedPort};

/// Who has which host port. Who has one keeps it for as long as it asks for it.
#[derive(Debug, Default)]
pub(super) struct Holders(BTreeMap<(Protocol, u16), InstanceIdent>);

impl Holders {
    /// Gives the ports away. An instance gets all it asks for or none; the reason is given then. `is_taken` says whether the
    /// Node itself listens on a port that nobody has had yet.
    pub(super) fn claim<'a>(
        &mut self,
        claims: impl Iterator<Item = (&'a InstanceIdent, &'a [PublishedPort])>,
        is_taken: impl Fn(Protocol, u16) -> bool,
    ) -> BTreeMap<InstanceIdent, String> {
        let claims: BTreeMap<&InstanceIdent, &[PublishedPort]> = claims.collect();
        let asks = |ident: &InstanceIdent, key: &(Protocol, u16)| {
            let ports = claims.get(ident).copied().unwrap_or_default();
            ports.iter().any(|port| key_of(port) == *key)
        };
        self.0.retain(|key, ident| asks(ident, key));
        let mut refused = BTreeMap::new();
        for (ident, ports) in claims {
            let why = ports.iter().find_map(|port| {
                let key = key_of(port);
                let (protocol, number) = key;
                match self.0.get(&key) {
                    Some(holder) if holder == ident => None,
                    Some(holder) => Some(format!(
                        "port {number}/{protocol} of the Node is published by instance {holder}: give one of them another `hostPort`"
                    )),
                    None => is_taken(protocol, number).then(|| format!(
                        "port {number}/{protocol} of the Node is in use by the Node itself: choose another `hostPort`"
                    )),
                }
            });
            match why {
                Some(why) => {
                    refused.insert(ident.clone(), why);
                }
                None => self
                    .0
                    .extend(ports.iter().map(|port| (key_of(port), ident.clone()))),
            }
        }
        let without: BTreeSet<&InstanceIdent> = refused.keys().collect();
        self.0.retain(|_, holder| !without.contains(holder));
        refused
    }
}

fn key_of(port: &PublishedPort) -> (Protocol, u16) {
    (port.protocol, port.host_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ident(item: &str) -> InstanceIdent {
        InstanceIdent::service(item.parse().unwrap(), "s".parse().unwrap(), 0)
    }

    fn port(host_port: u16) -> PublishedPort {
        PublishedPort {
            host_port,
            port: 80,
            protocol: Protocol::Tcp,
        }
    }

    #[test]
    fn a_port_stays_with_the_one_that_had_it_first() {
        let mut holders = Holders::default();
        let (a, b) = (ident("a"), ident("b"));
        let (two, one) = ([port(8_080), port(8_081)], [port(8_080)]);
        let free = |_, _| false;
        assert!(holders.claim([(&b, &one[..])].into_iter(), free).is_empty());
        let both = [(&a, &two[..]), (&b, &one[..])];
        let refused = holders.claim(both.into_iter(), free);
        assert_eq!(refused.keys().collect::<Vec<_>>(), [&a]);
        assert!(refused[&a].contains("b:s:0"), "{refused:?}");
        // When it goes the other one gets it.
        assert!(holders.claim([(&a, &two[..])].into_iter(), free).is_empty());
        let refused = holders.claim(both.into_iter(), free);
        assert_eq!(refused.keys().collect::<Vec<_>>(), [&b]);
    }

    #[test]
    fn the_nodes_own_ports_are_not_taken_away_from_it() {
        let mut holders = Holders::default();
        let a = ident("a");
        let ports = [port(8_093)];
        let refused = holders.claim([(&a, &ports[..])].into_iter(), |_, number| number == 8_093);
        assert!(refused[&a].contains("by the Node itself"), "{refused:?}");
    }
}
