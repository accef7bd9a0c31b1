use std::{fmt, net::Ipv4Addr, str::FromStr};

use serde::{Deserialize, Serialize};

/// A range of IPv4 addresses in CIDR form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet {
    base: u32,
    prefix: u8,
}

/// A text is not a range, or not one that networks can be cut from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` {why}")]
pub struct ParsePoolError {
    text: String,
    why: &'static str,
}

impl Subnet {
    /// The range that `address` lies in.
    pub(crate) const fn around(address: u32, prefix: u8) -> Self {
        let mask = if prefix == 0 {
            0
        } else {
            u32::MAX << (32 - prefix)
        };
        Self {
            base: address & mask,
            prefix,
        }
    }

    /// Bits of the network part.
    pub const fn prefix(self) -> u8 {
        self.prefix
    }

    /// How many addresses it has, the two reserved ones included.
    const fn size(self) -> u64 {
        1 << (32 - self.prefix)
    }

    /// Whether an address lies in it.
    pub const fn contains(self, address: Ipv4Addr) -> bool {
        Self::around(address.to_bits(), self.prefix).base == self.base
    }

    /// Whether two ranges share an address.
    pub const fn overlaps(self, other: Self) -> bool {
        let prefix = if self.prefix < other.prefix {
            self.prefix
        } else {
            other.prefix
        };
        Self::around(self.base, prefix).base == Self::around(other.base, prefix).base
    }

    /// The addresses that can be given away, in order: all but the first and the last.
    pub(crate) fn hosts(self) -> impl Iterator<Item = Ipv4Addr> {
        let last = self.size().saturating_sub(1);
        (1..last).filter_map(move |n| {
            u32::try_from(n)
                .ok()
                .map(|n| Ipv4Addr::from_bits(self.base | n))
        })
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from_bits(self.base), self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = ParsePoolError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = |why| ParsePoolError {
            text: text.chars().take(64).collect(),
            why,
        };
        let (address, prefix) = text
            .split_once('/')
            .ok_or_else(|| bad("is not an address range such as 172.20.0.0/14"))?;
        let address: Ipv4Addr = address
            .parse()
            .map_err(|_| bad("does not start with an IPv4 address"))?;
        let prefix: u8 = prefix
            .parse()
            .ok()
            .filter(|p| *p <= 32)
            .ok_or_else(|| bad("does not end with 0 to 32 bits"))?;
        let subnet = Self::around(address.to_bits(), prefix);
        if subnet.base == address.to_bits() {
            Ok(subnet)
        } else {
            Err(bad("has address bits set beyond its length"))
        }
    }
}

impl TryFrom<String> for Subnet {
    type Error = ParsePoolError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> Self {
        subnet.to_string()
    }
}

/// Where networks are cut from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    ranges: Vec<Subnet>,
    network_prefix: u8,
    avoid: Vec<Subnet>,
}

impl Pool {
    /// Cuts networks of `network_prefix` bits from `ranges`, in order, leaving out what overlaps with `avoid` (the Node's
    /// own routes).
    pub fn new(
        ranges: Vec<Subnet>,
        network_prefix: u8,
        avoid: Vec<Subnet>,
    ) -> Result<Self, ParsePoolError> {
        let bad = |text: String, why| Err(ParsePoolError { text, why });
        if !(8..=29).contains(&network_prefix) {
            return bad(
                network_prefix.to_string(),
                "is not a network length: 8 to 29 bits can be used",
            );
        }
        if let Some(range) = ranges.iter().find(|range| range.prefix > network_prefix) {
            return bad(range.to_string(), "is smaller than one network");
        }
        Ok(Self {
            ranges,
            network_prefix,
            avoid,
        })
    }

    /// Bits of the network part of each network.
    pub(crate) const fn network_prefix(&self) -> u8 {
        self.network_prefix
    }

    /// The networks that can be given away.
    pub(crate) fn networks(&self) -> impl Iterator<Item = Subnet> + '_ {
        self.ranges
            .iter()
            .flat_map(|range| {
                let step = 1u64 << (32 - self.network_prefix);
                (0..range.size() / step)
                    .filter_map(move |n| u32::try_from(u64::from(range.base) + n * step).ok())
                    .map(|base| Subnet::around(base, self.network_prefix))
            })
            .filter(|network| !self.avoid.iter().any(|taken| taken.overlaps(*network)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may fail loudly")]
    use super::*;

    #[test]
    fn only_clean_ranges_are_read() {
        assert_eq!(
            "172.20.0.0/14".parse::<Subnet>().unwrap().to_string(),
            "172.20.0.0/14"
        );
        for bad in ["172.20.0.0", "172.20.0.1/14", "x/8", "1.2.3.4/33", ""] {
            assert!(bad.parse::<Subnet>().is_err(), "{bad}");
        }
    }

    #[test]
    fn networks_are_cut_around_what_is_taken() {
        let pool = Pool::new(
            vec!["10.0.0.0/22".parse().unwrap()],
            24,
            vec![
                "10.0.1.128/25".parse().unwrap(),
                "10.0.3.0/24".parse().unwrap(),
            ],
        )
        .unwrap();
        let networks: Vec<_> = pool.networks().map(|n| n.to_string()).collect();
        assert_eq!(networks, ["10.0.0.0/24", "10.0.2.0/24"]);
        let hosts: Vec<_> = "10.0.0.0/30".parse::<Subnet>().unwrap().hosts().collect();
        assert_eq!(
            hosts,
            [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)]
        );
    }
}
