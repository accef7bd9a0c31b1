use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use aos_types::OwnerId;

/// The names of a Unit and who sees which.
///
/// Whoever asks is known by its address, which nobody can forge on a Node. It sees the names of its own network, and of
/// others those of hosts that its allowed connections lead to; where two hosts of different networks have one name, its
/// own network's counts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Zone {
    askers: HashMap<IpAddr, Asker>,
    /// By name in lower case, without a dot at the end.
    hosts: BTreeMap<String, Vec<Host>>,
    /// The first name of each address.
    names: BTreeMap<IpAddr, (Host, String)>,
}

/// One who may ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asker {
    /// The addresses it asks from.
    pub addresses: Vec<IpAddr>,
    /// Its network.
    pub network: OwnerId,
    /// Addresses in other networks that it may connect to.
    pub reaches: BTreeSet<IpAddr>,
    /// Name servers for everything else, in order; it learns nothing of the world outside if there are none.
    pub upstream: Vec<IpAddr>,
}

/// One that has names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Host {
    /// Its network.
    pub network: OwnerId,
    /// Its address.
    pub ip: Ipv4Addr,
    /// Its IPv6 address, if it has one.
    pub ip6: Option<Ipv6Addr>,
}

/// What is known of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// These have it.
    Hosts(Vec<Host>),
    /// The name of an address.
    Name(String),
    /// There is no such name for the one who asks.
    Nothing,
    /// It is none of the Unit's: these know.
    Ask(Vec<IpAddr>),
}

impl Zone {
    /// Adds one who may ask.
    pub fn add_asker(&mut self, asker: Asker) {
        for address in asker.addresses.clone() {
            self.askers.insert(address, asker.clone());
        }
    }

    /// Gives a host names; names that DNS cannot carry are left out.
    pub fn add_host(&mut self, host: &Host, names: impl IntoIterator<Item = String>) {
        for name in names {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            let fits =
                name.len() <= 253 && name.split('.').all(|label| (1..=63).contains(&label.len()));
            if !fits {
                continue;
            }
            let addresses = [Some(IpAddr::V4(host.ip)), host.ip6.map(IpAddr::V6)];
            for address in addresses.into_iter().flatten() {
                self.names
                    .entry(address)
                    .or_insert_with(|| (host.clone(), name.clone()));
            }
            let hosts = self.hosts.entry(name).or_default();
            if !hosts.contains(host) {
                hosts.push(host.clone());
            }
        }
    }

    pub(crate) fn knows_asker(&self, address: IpAddr) -> bool {
        self.askers.contains_key(&address)
    }

    /// What `asker` is told of a name; nothing if nobody with this address may ask.
    pub(crate) fn find(&self, asker: IpAddr, name: &str) -> Option<Found> {
        let asker = self.askers.get(&asker)?;
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        if let Some(address) = reverse(&name) {
            return Some(self.find_address(asker, address));
        }
        if let Some(hosts) = self.hosts.get(&name) {
            let own: Vec<Host> = hosts
                .iter()
                .filter(|host| host.network == asker.network)
                .cloned()
                .collect();
            let seen = if own.is_empty() {
                hosts
                    .iter()
                    .filter(|host| asker.reaches.contains(&IpAddr::V4(host.ip)))
                    .cloned()
                    .collect()
            } else {
                own
            };
            // A name of the Unit that it must not see is no business of the world's either.
            return Some(if seen.is_empty() {
                Found::Nothing
            } else {
                Found::Hosts(seen)
            });
        }
        // A single word is no name of the world.
        Some(if name.contains('.') && !asker.upstream.is_empty() {
            Found::Ask(asker.upstream.clone())
        } else {
            Found::Nothing
        })
    }

    fn find_address(&self, asker: &Asker, address: IpAddr) -> Found {
        if let Some((host, name)) = self.names.get(&address) {
            let seen =
                host.network == asker.network || asker.reaches.contains(&IpAddr::V4(host.ip));
            return if seen {
                Found::Name(name.clone())
            } else {
                Found::Nothing
            };
        }
        let private = match address {
            IpAddr::V4(ip) => ip.is_private() || ip.is_link_local() || ip.is_loopback(),
            IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local(),
        };
        if private || asker.upstream.is_empty() {
            Found::Nothing
        } else {
            Found::Ask(asker.upstream.clone())
        }
    }
}

/// The address that a name of `in-addr.arpa` or `ip6.arpa` stands for.
fn reverse(name: &str) -> Option<IpAddr> {
    if let Some(name) = name.strip_suffix(".in-addr.arpa") {
        let mut octets = [0; 4];
        let mut labels = name.split('.');
        for octet in octets.iter_mut().rev() {
            *octet = labels.next()?.parse().ok()?;
        }
        return labels.next().is_none().then(|| octets.into());
    }
    let name = name.strip_suffix(".ip6.arpa")?;
    let mut bits: u128 = 0;
    let mut count = 0;
    for label in name.split('.').rev() {
        let digit = u8::from_str_radix(label, 16)
            .ok()
            .filter(|_| label.len() == 1)?;
        bits = (bits << 4) | u128::from(digit);
        count += 1;
    }
    (count == 32).then(|| Ipv6Addr::from_bits(bits).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(network: &str, ip: &str) -> Host {
        Host {
            network: network.parse().unwrap(),
            ip: ip.parse().unwrap(),
            ip6: Some("fd00::2".parse().unwrap()),
        }
    }

    fn zone() -> Zone {
        let mut zone = Zone::default();
        for (ip, reaches) in [("10.0.0.9", vec!["10.1.0.3"]), ("10.0.0.8", vec![])] {
            zone.add_asker(Asker {
                addresses: vec![ip.parse().unwrap()],
                network: "red".parse().unwrap(),
                reaches: reaches.into_iter().map(|ip| ip.parse().unwrap()).collect(),
                upstream: vec!["192.0.2.53".parse().unwrap()],
            });
        }
        let name = |name: &str| [name.to_owned()];
        zone.add_host(&host("red", "10.0.0.2"), name("Web"));
        zone.add_host(&host("red", "10.0.0.3"), name("web"));
        zone.add_host(&host("blue", "10.1.0.2"), name("web"));
        zone.add_host(&host("blue", "10.1.0.3"), name("db"));
        zone.add_host(&host("blue", "10.1.0.3"), ["x".repeat(64), "a..b".into()]);
        zone
    }

    fn find(asker: &str, name: &str) -> Option<Found> {
        zone().find(asker.parse().unwrap(), name)
    }

    #[test]
    fn everybody_sees_the_own_network_and_what_it_may_reach() {
        let both = vec![host("red", "10.0.0.2"), host("red", "10.0.0.3")];
        assert_eq!(find("10.0.0.9", "WEB."), Some(Found::Hosts(both)));
        let db = vec![host("blue", "10.1.0.3")];
        assert_eq!(find("10.0.0.9", "db"), Some(Found::Hosts(db)));
        assert_eq!(find("10.0.0.8", "db"), Some(Found::Nothing));
        assert_eq!(find("10.0.0.7", "web"), None, "a stranger");
    }

    #[test]
    fn only_names_of_the_world_are_asked_there() {
        let upstream = vec!["192.0.2.53".parse().unwrap()];
        assert_eq!(find("10.0.0.9", "example.org"), Some(Found::Ask(upstream)));
        assert_eq!(find("10.0.0.9", "nobody"), Some(Found::Nothing));
        assert_eq!(
            find("10.0.0.9", "2.0.0.10.in-addr.arpa"),
            Some(Found::Name("web".into()))
        );
        assert_eq!(
            find("10.0.0.9", "2.0.1.10.in-addr.arpa"),
            Some(Found::Nothing)
        );
        assert!(find("10.0.0.9", "1.2.in-addr.arpa").is_some());
        assert!(matches!(
            find("10.0.0.9", "8.8.8.8.in-addr.arpa"),
            Some(Found::Ask(_))
        ));
    }

    #[test]
    fn reverse_names_are_read() {
        assert_eq!(reverse("4.3.2.1.in-addr.arpa"), "1.2.3.4".parse().ok());
        let name = "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa";
        assert_eq!(reverse(name), "fd00::2".parse().ok());
        for bad in [
            "3.2.1.in-addr.arpa",
            "5.4.3.2.1.in-addr.arpa",
            "f.ip6.arpa",
            "x",
        ] {
            assert_eq!(reverse(bad), None, "{bad}");
        }
    }
}
