//! The table that counts: what each endpoint sends to and receives from everybody outside, and what is left of its day.
//!
//! It is changed piece by piece and never replaced, so what was counted outlives every change and a restart of the caller.
//! The name of a quota carries its limit and its day: another limit or another day is another quota, which begins anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::IpAddr,
};

use serde_json::Value;

use crate::{Counted, EndpointId, Prefix, Traffic, Wanted};

/// What is in the table, or shall be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Counting {
    /// Name and definition of counters and quotas.
    objects: BTreeMap<(Kind, String), String>,
    /// Map, address, object.
    elements: BTreeSet<(String, IpAddr, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Counter,
    Quota,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Quota => "quota",
        }
    }
}

fn name(prefix: &Prefix) -> String {
    format!("{}_traffic", prefix.as_str())
}

/// What `nft list` is asked for.
pub(crate) fn question(prefix: &Prefix) -> [String; 3] {
    ["table".into(), "inet".into(), name(prefix)]
}

impl Counting {
    pub(crate) fn of(wanted: &Wanted) -> Self {
        let mut this = Self::default();
        for endpoint in &wanted.endpoints {
            let short = Prefix::short(&endpoint.id);
            let volume = endpoint.bounds.volume.unwrap_or_default();
            let used = endpoint.bounds.used;
            for (way, limit, used) in [("down", volume.down, used.down), ("up", volume.up, used.up)]
            {
                let addresses = [Some(IpAddr::V4(endpoint.ip)), endpoint.ip6.map(IpAddr::V6)];
                let mut add = |kind: Kind, object: String, definition: String| {
                    for address in addresses.into_iter().flatten() {
                        let digit = if address.is_ipv4() { 4 } else { 6 };
                        let map = format!("{way}_{}{digit}", kind.word());
                        this.elements.insert((map, address, object.clone()));
                    }
                    this.objects.insert((kind, object), definition);
                };
                add(Kind::Counter, format!("{way}_{short}"), String::new());
                if let Some(limit) = limit {
                    let object = format!("{way}_{short}_{limit}_{}", wanted.day);
                    let used = used.min(limit);
                    let definition = format!("over {limit} bytes used {used} bytes");
                    add(Kind::Quota, object, definition);
                }
            }
        }
        this
    }

    /// What the kernel has.
    pub(crate) fn read(listed: &Value) -> Self {
        let mut this = Self::default();
        for entry in entries(listed) {
            for (kind, object) in [(Kind::Counter, "counter"), (Kind::Quota, "quota")]
                .map(|(kind, word)| (kind, &entry[word]))
            {
                if let Some(name) = object["name"].as_str() {
                    this.objects.insert((kind, name.to_owned()), String::new());
                }
            }
            let map = &entry["map"];
            let Some(name) = map["name"].as_str() else {
                continue;
            };
            for element in map["elem"].as_array().into_iter().flatten() {
                if let (Some(address), Some(object)) = (element[0].as_str(), element[1].as_str())
                    && let Ok(address) = address.parse()
                {
                    this.elements
                        .insert((name.to_owned(), address, object.to_owned()));
                }
            }
        }
        this
    }

    /// The transaction that makes the kernel have this after `before`; nothing of it was there if `before` is none.
    pub(crate) fn changes(&self, prefix: &Prefix, before: Option<&Self>) -> String {
        let table = name(prefix);
        let mut text = String::new();
        let nothing = Self::default();
        if before.is_none() {
            frame(&mut text, prefix);
        }
        let before = before.unwrap_or(&nothing);
        // Writing to a text cannot fail.
        for (map, address, object) in before.elements.difference(&self.elements) {
            let _ = writeln!(
                text,
                "delete element inet {table} {map} {{ {address} : \"{object}\" }}"
            );
        }
        let new = |(key, _): &(&(Kind, String), &String)| !before.objects.contains_key(*key);
        let gone = |key: &&(Kind, String)| !self.objects.contains_key(*key);
        for (kind, object) in before.objects.keys().filter(gone) {
            let _ = writeln!(text, "delete {} inet {table} {object}", kind.word());
        }
        for ((kind, object), definition) in self.objects.iter().filter(new) {
            let kind = kind.word();
            let _ = writeln!(text, "add {kind} inet {table} {object} {{ {definition} }}");
        }
        let mut added: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (map, address, object) in self.elements.difference(&before.elements) {
            added
                .entry(map)
                .or_default()
                .push(format!("{address} : \"{object}\""));
        }
        for (map, elements) in added {
            let elements = elements.join(", ");
            let _ = writeln!(text, "add element inet {table} {map} {{ {elements} }}");
        }
        text
    }
}

/// The table without anything that is counted.
fn frame(text: &mut String, prefix: &Prefix) {
    let table = name(prefix);
    let bridges = format!("\"{}br-*\"", prefix.as_str());
    let mut maps = String::new();
    let mut chain = String::new();
    for (digit, ip) in [('4', "ip"), ('6', "ip6")] {
        for (way, end, inside, outside) in [
            ("down", "daddr", "oifname", "iifname"),
            ("up", "saddr", "iifname", "oifname"),
        ] {
            for kind in ["quota", "counter"] {
                let map = format!("{way}_{kind}{digit}");
                let _ = writeln!(maps, "map {map} {{ type ipv{digit}_addr : {kind}; }}");
                // A quota matches when it is used up.
                let verdict = if kind == "quota" { " drop" } else { "" };
                let _ = writeln!(
                    chain,
                    "{inside} {bridges} {outside} != {bridges} {kind} name {ip} {end} map @{map}{verdict}"
                );
            }
        }
    }
    // After the rules, so that only what passed them counts.
    let _ = writeln!(
        text,
        "table inet {table} {{}}\ndelete table inet {table}\ntable inet {table} {{\n{maps}\
         chain forward {{\ntype filter hook forward priority 10; policy accept;\n{chain}}}\n}}"
    );
}

/// The transaction that removes the table.
pub(crate) fn no_table(prefix: &Prefix) -> String {
    let table = name(prefix);
    format!("table inet {table} {{}}\ndelete table inet {table}\n")
}

/// What was counted for these endpoints.
pub(crate) fn counted<'a>(
    listed: &Value,
    endpoints: impl Iterator<Item = &'a EndpointId>,
) -> BTreeMap<EndpointId, Counted> {
    let mut counters: BTreeMap<&str, u64> = BTreeMap::new();
    let mut quotas: BTreeMap<&str, u64> = BTreeMap::new();
    for entry in entries(listed) {
        let counter = &entry["counter"];
        if let (Some(name), Some(bytes)) = (counter["name"].as_str(), counter["bytes"].as_u64()) {
            counters.insert(name, bytes);
        }
        let quota = &entry["quota"];
        if let (Some(name), Some(used)) = (quota["name"].as_str(), quota["used"].as_u64()) {
            // The same way of the same endpoint: `up_1234abcd_<limit>_<day>`.
            let end = name
                .match_indices('_')
                .nth(1)
                .map_or(name.len(), |(at, _)| at);
            quotas.insert(name.get(..end).unwrap_or(name), used);
        }
    }
    endpoints
        .filter_map(|id| {
            let short = Prefix::short(id);
            let (down, up) = (format!("down_{short}"), format!("up_{short}"));
            let all = Traffic {
                down: *counters.get(down.as_str())?,
                up: *counters.get(up.as_str())?,
            };
            let today = [&down, &up].map(|name| quotas.get(name.as_str()).copied());
            let today = today.iter().any(Option::is_some).then(|| Traffic {
                down: today[0].unwrap_or_default(),
                up: today[1].unwrap_or_default(),
            });
            Some((id.clone(), Counted { all, today }))
        })
        .collect()
}

fn entries(listed: &Value) -> impl Iterator<Item = &Value> {
    listed["nftables"].as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Bounds, Endpoint, Limit};

    fn wanted(limit: Option<u64>, day: u32) -> Wanted {
        let mut endpoint = Endpoint::new(
            "a".parse().unwrap(),
            "red".parse().unwrap(),
            "172.31.0.2".parse().unwrap(),
        );
        endpoint.bounds = Bounds {
            volume: Some(Limit {
                down: None,
                up: limit,
            }),
            used: Traffic { down: 1, up: 7 },
            rate: None,
        };
        Wanted {
            endpoints: vec![endpoint],
            day,
            ..Wanted::default()
        }
    }

    #[test]
    fn only_what_differs_is_changed() {
        let prefix: Prefix = "aos".parse().unwrap();
        let first = Counting::of(&wanted(Some(100), 5));
        let all = first.changes(&prefix, None);
        assert!(all.contains("over 100 bytes used 7 bytes"), "{all}");
        assert_eq!(first.changes(&prefix, Some(&first)), "");
        // Another day: the quota begins anew, the counters go on.
        let next = Counting::of(&wanted(Some(100), 6)).changes(&prefix, Some(&first));
        assert!(next.contains("delete quota") && next.contains("add quota"));
        assert!(!next.contains("counter"), "{next}");
        let none = Counting::of(&wanted(None, 6)).changes(&prefix, Some(&first));
        assert!(
            none.contains("delete quota") && !none.contains("add"),
            "{none}"
        );
    }

    #[test]
    fn what_the_kernel_lists_is_read() {
        let short = Prefix::short(&"a".parse().unwrap());
        let listed = serde_json::json!({"nftables": [
            {"counter": {"name": format!("down_{short}"), "packets": 1, "bytes": 10}},
            {"counter": {"name": format!("up_{short}"), "packets": 1, "bytes": 20}},
            {"quota": {"name": format!("up_{short}_100_5"), "bytes": 100, "used": 9, "inv": true}},
            {"map": {"name": "up_quota4", "elem": [["172.31.0.2", format!("up_{short}_100_5")]]}},
        ]});
        let id: EndpointId = "a".parse().unwrap();
        let counted = counted(&listed, [&id].into_iter());
        assert_eq!(counted[&id].all, Traffic { down: 10, up: 20 });
        assert_eq!(counted[&id].today, Some(Traffic { down: 0, up: 9 }));
        assert_eq!(Counting::read(&listed).objects.len(), 3);
        assert_eq!(Counting::read(&listed).elements.len(), 1);
    }
}
