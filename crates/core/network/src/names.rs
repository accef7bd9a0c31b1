use std::net::{Ipv4Addr, Ipv6Addr};

use aos_types::{InstanceIdent, OwnerId};

/// The names by which others find an instance: `<index>.<subject>.<item>`, for the first also `<subject>.<item>`, and its
/// host name if it has one; each alone and with the network after it.
pub fn names_of(ident: &InstanceIdent, owner: &OwnerId, hostname: Option<&str>) -> Vec<String> {
    let mut names: Vec<String> = hostname.map(str::to_owned).into_iter().collect();
    names.extend(own_names(ident));
    let with_network: Vec<String> = names.iter().map(|name| format!("{name}.{owner}")).collect();
    names.extend(with_network);
    names
}

/// The names that nobody else can have.
pub(crate) fn own_names(ident: &InstanceIdent) -> Vec<String> {
    let base = format!("{}.{}", ident.subject, ident.item);
    let mut names = vec![format!("{}.{base}", ident.index)];
    if ident.index == 0 {
        names.push(base);
    }
    names
}

/// The IPv6 address that goes with an address in the network of `owner`.
///
/// It is worked out, so that nobody has to be asked for it: a unique local /64 (RFC 4193) made of the owner's name, and the
/// IPv4 address at its end. All Nodes come to the same, with whatever CM.
pub fn ipv6_of(owner: &OwnerId, ip: Ipv4Addr) -> Ipv6Addr {
    // FNV-1a with 64 bits: stable across programs and versions.
    let hash = owner
        .as_str()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
    let prefix = (hash >> 8) | (0xfd << 56);
    Ipv6Addr::from_bits((u128::from(prefix) << 64) | u128::from(ip.to_bits()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may fail loudly")]
    use super::*;

    #[test]
    fn the_first_instance_has_the_short_name_too() {
        let owner = "sp".parse().unwrap();
        let ident =
            |index| InstanceIdent::service("web".parse().unwrap(), "car".parse().unwrap(), index);
        assert_eq!(
            names_of(&ident(0), &owner, Some("www")),
            [
                "www",
                "0.car.web",
                "car.web",
                "www.sp",
                "0.car.web.sp",
                "car.web.sp"
            ]
        );
        assert_eq!(
            names_of(&ident(1), &owner, None),
            ["1.car.web", "1.car.web.sp"]
        );
    }

    #[test]
    fn ipv6_addresses_are_local_and_told_apart_by_owner() {
        let ip = Ipv4Addr::new(172, 28, 0, 2);
        let a = ipv6_of(&"a".parse().unwrap(), ip);
        assert!(
            a.is_unique_local() && a.to_string().ends_with("ac1c:2"),
            "{a}"
        );
        assert_ne!(a, ipv6_of(&"b".parse().unwrap(), ip));
        assert_eq!(a, ipv6_of(&"a".parse().unwrap(), ip));
    }
}
