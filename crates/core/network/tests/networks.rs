//! Addresses and rules of a Unit: what stays, what moves, what is told to whom.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may fail loudly"
)]

use std::collections::{BTreeMap, BTreeSet};

use aos_network::{Change, Error, Key, Networks, Pool, Record, Request};
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
