//! Addresses and rules of a Unit: what stays, what moves, what is told to whom.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may fail loudly"
)]

use std::collections::{BTreeMap, BTreeSet};

use aos_network::{Change, Error, Key, NetworkRecord, Networks, Pool, Record, Request, Rule};
use aos_types::{InstanceIdent, NodeId, OwnerId};
use proptest::prelude::*;

fn pool(prefix: u8) -> Pool {
    Pool::new(vec!["10.0.0.0/22".parse().unwrap()], prefix, vec![]).unwrap()
}

fn ident(item: &str, index: u64) -> InstanceIdent {
    InstanceIdent::service(item.parse().unwrap(), "s".parse().unwrap(), index)
}

fn node(name: &str) -> NodeId {
    name.parse().unwrap()
}

fn request(item: &str, index: u64, owner: &str, on: &str) -> Request {
    Request {
        ident: ident(item, index),
        owner: owner.parse().unwrap(),
        node: node(on),
        exposed: vec![],
        allowed: vec![],
        hostname: None,
    }
}

/// What a store would hold after all changes so far.
fn stored(records: &mut BTreeMap<Key, Record>, networks: &mut Networks) {
    for change in networks.take_changes() {
        match change {
            Change::Put(record) => {
                records.insert(record.key(), record);
            }
            Change::Forget(key) => {
                records.remove(&key);
            }
        }
    }
}

#[test]
fn an_instance_keeps_its_address_after_a_restart() {
    let mut records = BTreeMap::new();
    let mut networks = Networks::restore(pool(24), []);
    let gateway = networks
        .node(&"sp".parse().unwrap(), &node("main"))
        .unwrap();
    let first = networks.allocate(request("web", 0, "sp", "main")).unwrap();
    assert_ne!(gateway.ip, first.ip);
    assert_eq!(gateway.subnet, first.subnet);
    stored(&mut records, &mut networks);
    let mut networks = Networks::restore(pool(24), records.into_values());
    let again = networks.allocate(request("web", 0, "sp", "main")).unwrap();
    assert_eq!(again.ip, first.ip);
}

#[test]
fn gap_36_an_address_stays_with_the_node_that_may_still_have_it() {
    let mut records = BTreeMap::new();
    let mut networks = Networks::restore(pool(24), []);
    let on_main = networks.allocate(request("web", 0, "sp", "main")).unwrap();
    // Main is cut off; the instance starts elsewhere, with another address, also after a restart.
    stored(&mut records, &mut networks);
    let mut networks = Networks::restore(pool(24), records.clone().into_values());
    let on_second = networks
        .allocate(request("web", 0, "sp", "second"))
        .unwrap();
    assert_ne!(on_second.ip, on_main.ip);
    stored(&mut records, &mut networks);
    let mut networks = Networks::restore(pool(24), records.into_values());
    let other = networks.allocate(request("db", 0, "sp", "second")).unwrap();
    assert!(![on_main.ip, on_second.ip].contains(&other.ip));
    // It is back and still has it; then it has stopped it.
    networks.sync(&node("main"), &[(ident("web", 0), vec![])].into());
    let third = networks.allocate(request("db", 1, "sp", "second")).unwrap();
    assert_ne!(third.ip, on_main.ip);
    networks.release(&ident("web", 0), &node("main"));
    let fourth = networks.allocate(request("db", 2, "sp", "second")).unwrap();
    assert_eq!(fourth.ip, on_main.ip, "now it is free");
    let again = networks
        .allocate(request("web", 0, "sp", "second"))
        .unwrap();
    assert_eq!(again.ip, on_second.ip);
}

#[test]
fn a_node_that_is_none_any_more_gives_everything_back() {
    let mut networks = Networks::restore(pool(24), []);
    let owner = "sp".parse().unwrap();
    networks.node(&owner, &node("main")).unwrap();
    let on_main = networks.allocate(request("web", 0, "sp", "main")).unwrap();
    networks
        .allocate(request("web", 0, "sp", "second"))
        .unwrap();
    assert!(networks.known_nodes().contains(&node("main")));
    networks.forget_node(&node("main"));
    assert!(!networks.known_nodes().contains(&node("main")));
    let addresses: Vec<_> = (0..2)
        .map(|index| {
            networks
                .allocate(request("db", index, "sp", "second"))
                .unwrap()
                .ip
        })
        .collect();
    assert!(addresses.contains(&on_main.ip));
}

#[test]
fn owners_have_networks_of_their_own_and_the_end_of_the_pool_is_an_error() {
    let mut networks = Networks::restore(pool(24), []);
    let subnets: BTreeSet<_> = (0..4)
        .map(|n| {
            networks
                .node(&format!("o{n}").parse().unwrap(), &node("main"))
                .unwrap()
        })
        .map(|params| (params.subnet, params.vlan))
        .collect();
    assert_eq!(subnets.len(), 4);
    let fifth: OwnerId = "o5".parse().unwrap();
    assert_eq!(
        networks.node(&fifth, &node("main")),
        Err(Error::NoNetwork {
            owner: fifth.clone()
        })
    );
    networks.release_node(&"o1".parse().unwrap(), &node("main"));
    assert!(
        networks.node(&fifth, &node("main")).is_ok(),
        "a released network can be had again"
    );
}

#[test]
fn a_full_network_is_an_error() {
    let mut networks = Networks::restore(pool(29), []);
    for n in 0..6 {
        networks.allocate(request("web", n, "sp", "main")).unwrap();
    }
    assert!(matches!(
        networks.allocate(request("web", 6, "sp", "main")),
        Err(Error::NoAddress { .. })
    ));
}

#[test]
fn a_connection_follows_all_instances_of_its_target() {
    let mut networks = Networks::restore(pool(24), []);
    let mut client = request("client", 0, "a", "main");
    client.allowed = ["db/5432", "db/9000:9010/udp"]
        .map(|text| text.parse::<aos_types::AllowedConnection>().unwrap().into())
        .to_vec();
    assert!(networks.allocate(client.clone()).unwrap().rules.is_empty());
    let mut ips = Vec::new();
    for index in 0..2 {
        let mut target = request("db", index, "b", "secondary");
        target.exposed = vec![
            "5432".parse().unwrap(),
            "9005-9020/udp".parse().unwrap(),
            "80".parse().unwrap(),
        ];
        ips.push(networks.allocate(target).unwrap().ip);
    }
    let pushes = networks.take_pushes();
    let told = &pushes.last().unwrap();
    assert_eq!(
        (told.node.clone(), told.ident.clone()),
        (node("main"), ident("client", 0))
    );
    let rules: Vec<_> = told
        .rules
        .iter()
        .map(|r| format!("{} {} {}", r.dst, r.ports(), r.protocol))
        .collect();
    let expected: Vec<_> = ips
        .iter()
        .flat_map(|ip| [format!("{ip} 5432 tcp"), format!("{ip} 9005:9010 udp")])
        .collect();
    assert_eq!(rules, expected);

    networks.release(&ident("db", 0), &node("secondary"));
    assert_eq!(
        networks.take_pushes()[0].rules.len(),
        2,
        "the rules of the one that went are gone, the other's stay"
    );
    let now = networks.allocate(client).unwrap().rules;
    networks.sync(&node("main"), &[(ident("client", 0), now.clone())].into());
    assert!(
        networks.take_pushes().is_empty(),
        "who has the right rules is left alone"
    );
    networks.sync(&node("main"), &[(ident("client", 0), vec![])].into());
    assert_eq!(networks.take_pushes()[0].rules, now);
}

#[test]
fn what_a_node_does_not_report_is_released() {
    let mut networks = Networks::restore(pool(24), []);
    networks.allocate(request("web", 0, "sp", "main")).unwrap();
    networks
        .allocate(request("web", 1, "sp", "secondary"))
        .unwrap();
    networks.take_changes();
    networks.sync(&node("main"), &BTreeMap::new());
    assert_eq!(
        networks.take_changes(),
        [Change::Forget(Key::Instance(ident("web", 0)))]
    );
}

proptest! {
    /// Whatever is asked in whatever order: no address twice, and a restart gives the same answers.
    #[test]
    fn no_address_is_given_twice(steps in prop::collection::vec((0..5u8, 0..6u64, 0..3u8, 0..2u8), 1..60)) {
        let mut records = BTreeMap::new();
        let mut networks = Networks::restore(pool(28), []);
        for (what, index, owner, on) in steps {
            let owner = format!("o{owner}");
            let on = format!("n{on}");
            let item = format!("item-of-{owner}");
            match what {
                0 | 1 => { let _ = networks.allocate(request(&item, index, &owner, &on)); }
                2 => networks.release(&ident(&item, index), &node(&on)),
                3 => { let _ = networks.node(&owner.parse().unwrap(), &node(&on)); }
                _ => networks.release_node(&owner.parse().unwrap(), &node(&on)),
            }
            stored(&mut records, &mut networks);
            let ips: Vec<_> = records.values().filter_map(|r| match r {
                Record::Node(n) => Some(n.ip),
                Record::Instance(i) => Some(i.ip),
                Record::Left(left) => Some(left.ip),
                Record::Network(_) => None,
            }).collect();
            prop_assert_eq!(ips.iter().collect::<BTreeSet<_>>().len(), ips.len());
            let mut again = Networks::restore(pool(28), records.values().cloned());
            prop_assert!(again.take_changes().is_empty(), "a restart finds nothing wrong");
        }
    }
}

fn named(item: &str, index: u64, on: &str, hostname: &str) -> Request {
    Request {
        hostname: Some(hostname.into()),
        ..request(item, index, "sp", on)
    }
}

/// Who has which host name, by item and index.
fn holders(networks: &Networks) -> BTreeMap<String, Result<String, String>> {
    let views = networks.view();
    let residents = views.iter().flat_map(|view| &view.instances);
    residents
        .filter_map(|one| {
            let key = format!("{}{}", one.ident.item, one.ident.index);
            let held = match (&one.hostname, &one.taken) {
                (Some(name), _) => Ok(name.clone()),
                (None, Some((name, by))) => Err(format!("{name} {by}")),
                (None, None) => return None,
            };
            Some((key, held))
        })
        .collect()
}

#[test]
fn a_name_goes_to_the_item_that_asked_first_and_then_to_the_next() {
    let mut records = BTreeMap::new();
    let mut networks = Networks::restore(pool(24), []);
    for request in [
        named("web", 0, "main", "WWW"),
        named("web", 1, "second", "www"),
        named("copy", 0, "main", "www"),
        // A name that is somebody's own.
        named("thief", 0, "main", "s.web"),
    ] {
        networks.allocate(request).unwrap();
    }
    let taken = |by: &str| Err(format!("www {by}"));
    let all = holders(&networks);
    assert_eq!(all["web0"], Ok("www".into()));
    assert_eq!(all["web1"], Ok("www".into()), "replicas share it");
    assert_eq!(all["copy0"], taken("web"));
    assert_eq!(all["thief0"], Err("s.web web".into()));
    // Another owner has names of its own.
    networks
        .allocate(Request {
            hostname: Some("www".into()),
            ..request("web", 9, "other", "main")
        })
        .unwrap();
    assert_eq!(holders(&networks)["web9"], Ok("www".into()));
    networks.release(&ident("web", 0), &node("main"));
    assert_eq!(holders(&networks)["copy0"], taken("web"));
    stored(&mut records, &mut networks);
    let mut networks = Networks::restore(pool(24), records.into_values());
    assert_eq!(
        holders(&networks)["copy0"],
        taken("web"),
        "also after a restart"
    );
    networks.release(&ident("web", 1), &node("second"));
    assert_eq!(holders(&networks)["copy0"], Ok("www".into()));
}

fn rule(networks: &Networks, push: Option<Vec<Rule>>) -> Vec<String> {
    let _ = networks;
    let mut rules: Vec<String> = push
        .unwrap_or_default()
        .iter()
        .map(|rule| format!("{}:{}", rule.dst, rule.ports()))
        .collect();
    rules.sort();
    rules
}

/// A requester of owner `a` that may reach two items of owner `b`.
fn two_targets() -> (Networks, Vec<String>) {
    let mut networks = Networks::restore(pool(24), []);
    let asks = Request {
        allowed: ["web/80:90/tcp", "db/5432/tcp"]
            .into_iter()
            .map(|text| text.parse::<aos_types::AllowedConnection>().unwrap().into())
            .collect(),
        ..request("app", 0, "a", "main")
    };
    let rules = networks.allocate(asks).unwrap().rules;
    let rules = rule(&networks, Some(rules));
    (networks, rules)
}

fn target(item: &str, index: u64, on: &str, exposed: &[&str]) -> Request {
    Request {
        exposed: exposed.iter().map(|text| text.parse().unwrap()).collect(),
        ..request(item, index, "b", on)
    }
}

fn pushed(networks: &mut Networks) -> Vec<String> {
    let last = networks.take_pushes().pop().map(|push| push.rules);
    rule(networks, last)
}

#[test]
fn gap_42_a_rule_that_is_found_later_takes_no_other_away() {
    let (mut networks, none) = two_targets();
    assert!(none.is_empty(), "nothing is there yet");
    let web = networks
        .allocate(target("web", 0, "second", &["80"]))
        .unwrap();
    assert_eq!(pushed(&mut networks), [format!("{}:80", web.ip)]);
    let db = networks
        .allocate(target("db", 0, "second", &["5432"]))
        .unwrap();
    let both = pushed(&mut networks);
    assert_eq!(both.len(), 2, "{both:?}");
    assert!(both.contains(&format!("{}:80", web.ip)) && both.contains(&format!("{}:5432", db.ip)));
}

#[test]
fn gap_43_all_instances_of_a_target_are_reached_wherever_they_go() {
    let (mut networks, _) = two_targets();
    let first = networks
        .allocate(target("web", 0, "main", &["80"]))
        .unwrap();
    let second = networks
        .allocate(target("web", 1, "second", &["80"]))
        .unwrap();
    let both = pushed(&mut networks);
    assert_eq!(
        both,
        [format!("{}:80", first.ip), format!("{}:80", second.ip)]
    );
    // One moves: another address, another rule.
    let moved = networks
        .allocate(target("web", 1, "third", &["80"]))
        .unwrap();
    assert_ne!(moved.ip, second.ip);
    let now = pushed(&mut networks);
    assert!(
        now.contains(&format!("{}:80", moved.ip)) && now.len() == 2,
        "{now:?}"
    );
    // One goes.
    networks.release(&ident("web", 0), &node("main"));
    assert_eq!(pushed(&mut networks), [format!("{}:80", moved.ip)]);
    networks.release(&ident("web", 1), &node("third"));
    assert!(pushed(&mut networks).is_empty());
}

#[test]
fn gap_44_ports_that_are_exposed_later_or_no_more_change_the_rules() {
    let (mut networks, _) = two_targets();
    let web = networks
        .allocate(target("web", 0, "main", &["8080"]))
        .unwrap();
    assert!(pushed(&mut networks).is_empty(), "allowed is 80 to 90");
    networks
        .allocate(target("web", 0, "main", &["8080", "85:100"]))
        .unwrap();
    assert_eq!(pushed(&mut networks), [format!("{}:85:90", web.ip)]);
    networks
        .allocate(target("web", 0, "main", &["90"]))
        .unwrap();
    assert_eq!(pushed(&mut networks), [format!("{}:90", web.ip)]);
    networks.allocate(target("web", 0, "main", &[])).unwrap();
    let last = networks.take_pushes().pop().unwrap();
    assert!(last.rules.is_empty(), "the door is closed again");
}

#[test]
fn gap_46_every_network_has_a_vlan_of_its_own() {
    let pool = Pool::new(vec!["10.0.0.0/8".parse().unwrap()], 20, vec![]).unwrap();
    // All but four are given away.
    let known = (1..=4_090_u16).map(|vlan| {
        Record::Network(NetworkRecord {
            owner: format!("o{vlan}").parse().unwrap(),
            subnet: format!("10.{}.{}.0/20", vlan / 16, vlan % 16 * 16)
                .parse()
                .unwrap(),
            vlan,
        })
    });
    let mut networks = Networks::restore(pool, known);
    let mut give = |owner: &str| {
        let params = networks.node(&owner.parse().unwrap(), &node("main"));
        params.map(|params| (params.vlan, params.subnet.to_string()))
    };
    let last: BTreeSet<_> = ["a", "b", "c", "d"]
        .map(|owner| give(owner).unwrap())
        .into();
    let vlans: Vec<u16> = last.iter().map(|(vlan, _)| *vlan).collect();
    assert_eq!(vlans, [4_091, 4_092, 4_093, 4_094]);
    let subnets: BTreeSet<&String> = last.iter().map(|(_, subnet)| subnet).collect();
    assert_eq!(subnets.len(), 4);
    // There are no more, and that is said.
    assert!(matches!(give("more"), Err(Error::NoNetwork { .. })));
}

#[test]
fn gap_48_a_fifth_owner_has_a_network_too() {
    // The pool that CM has by default.
    let pool = Pool::new(vec!["172.28.0.0/14".parse().unwrap()], 20, vec![]).unwrap();
    let mut networks = Networks::restore(pool, []);
    let subnets: BTreeSet<String> = (0..64)
        .map(|n| {
            let place = networks.allocate(request("web", n, &format!("o{n}"), "main"));
            place.unwrap().subnet.to_string()
        })
        .collect();
    assert_eq!(subnets.len(), 64);
}
