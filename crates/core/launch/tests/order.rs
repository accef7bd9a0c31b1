//! In which order instances start and stop, by examples and by search.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

use std::collections::{BTreeMap, BTreeSet};

use aos_launch::{Elsewhere, Member, Peer, Progress, Standstill, Starts, starts, stop_waves};
use aos_types::{Condition, Dependency, InstanceIdent};
use proptest::prelude::*;

fn ident(item: &str, index: u64) -> InstanceIdent {
    InstanceIdent::service(item.parse().unwrap(), "subject".parse().unwrap(), index)
}

const HELD: Progress = Progress::Held { patient: true };

/// `db.healthy log.after`
fn dependencies(text: &str) -> Vec<Dependency> {
    text.split_whitespace()
        .map(|one| {
            let (item, condition) = one.split_once('.').unwrap();
            Dependency::on(item.parse().unwrap(), condition.parse().unwrap())
        })
        .collect()
}

fn member(item: &str, progress: Progress, needs: &str) -> Member {
    Member {
        ident: ident(item, 0),
        version: "1.2.0".into(),
        priority: 0,
        dependencies: dependencies(needs),
        ends: item.starts_with("job"),
        progress,
    }
}

fn told(starts: &Starts, item: &str) -> String {
    match starts.still.get(&ident(item, 0)) {
        None => "go".into(),
        Some(Standstill::Waits(why)) => why.clone(),
        Some(Standstill::InVain(why)) => format!("in vain: {why}"),
    }
}

#[test]
fn a_condition_looks_at_how_far_the_other_is() {
    use Progress::{Completed, Healthy, Resting, Started, Starting};
    let failed = || Progress::Failed("exit code 3".into());
    let table: &[(&str, &str, Progress, &str)] = &[
        (
            "db",
            "started",
            Starting,
            "waits for db to be started, which is being started",
        ),
        ("db", "started", Started, "go"),
        ("db", "started", Healthy, "go"),
        (
            "db",
            "started",
            failed(),
            "in vain: needs db to be started, but that has failed: exit code 3",
        ),
        (
            "db",
            "started",
            Resting,
            "waits for db to be started, which rests while the Unit is offline",
        ),
        (
            "db",
            "healthy",
            Starting,
            "waits for db to be healthy, which is being started",
        ),
        (
            "db",
            "healthy",
            Started,
            "waits for db to be healthy, which is not healthy yet",
        ),
        ("db", "healthy", Healthy, "go"),
        ("job", "healthy", Completed, "go"),
        ("job", "started", Completed, "go"),
        (
            "job",
            "completed",
            Starting,
            "waits for job to be completed, which is being started",
        ),
        (
            "job",
            "completed",
            Healthy,
            "waits for job to be completed, which still runs",
        ),
        ("job", "completed", Completed, "go"),
        (
            "job",
            "completed",
            failed(),
            "in vain: needs job to be completed, but that has failed: exit code 3",
        ),
        (
            "db",
            "completed",
            Healthy,
            "in vain: needs db to be completed, but that never completes: its `restartPolicy` is `always`",
        ),
        (
            "db",
            "after",
            Starting,
            "waits for db to be started first, which is being started",
        ),
        ("db", "after", Started, "go"),
        ("db", "after", failed(), "go"),
        ("db", "after", Resting, "go"),
        ("db", "before", Starting, "go"),
    ];
    for (item, condition, progress, wanted) in table {
        let members = [
            member(item, progress.clone(), ""),
            member("web", HELD, &format!("{item}.{condition}")),
        ];
        let starts = starts(&members, &Elsewhere::new());
        assert_eq!(told(&starts, "web"), *wanted, "{condition} {progress:?}");
    }
}

#[test]
fn the_whole_chain_is_told() {
    let members = [
        member("web", HELD, "db.healthy"),
        member("db", HELD, "job.completed"),
        member("job", Progress::Healthy, ""),
    ];
    let now = starts(&members, &Elsewhere::new());
    assert_eq!(
        told(&now, "web"),
        "waits for db to be healthy; db waits for job to be completed, which still runs"
    );
    let members = members.map(|mut one| {
        if one.ident.item.as_str() == "job" {
            one.progress = Progress::Failed("exit code 1".into());
        }
        one
    });
    let later = starts(&members, &Elsewhere::new());
    assert_eq!(
        told(&later, "web"),
        "in vain: needs db to be healthy, but db needs job to be completed, but that has failed: exit code 1"
    );
    assert_eq!(later.go, []);
}

#[test]
fn circles_are_told_to_all_in_them_and_behind_them() {
    let members = [
        member("a", HELD, "b.started"),
        member("b", HELD, "c.healthy"),
        member("c", HELD, "a.after"),
        member("web", HELD, "a.started"),
        member("own", HELD, "own.started"),
        member("free", HELD, "a.after"),
    ];
    let starts = starts(&members, &Elsewhere::new());
    for (item, wanted) in [
        ("a", "in vain: depends on itself: a → b → c → a"),
        ("b", "in vain: depends on itself: b → c → a → b"),
        ("own", "in vain: depends on itself: own → own"),
        (
            "web",
            "in vain: needs a to be started, but a depends on itself: a → b → c → a",
        ),
        ("free", "go"),
    ] {
        assert_eq!(told(&starts, item), wanted);
    }
}

#[test]
fn a_circle_that_is_running_already_holds_nobody() {
    let members = [
        member("a", Progress::Healthy, "b.started"),
        member("b", HELD, "a.started"),
    ];
    assert_eq!(starts(&members, &Elsewhere::new()).go, [ident("b", 0)]);
}

#[test]
fn before_is_after_seen_from_the_other_side_and_absent_items_order_nothing() {
    let members = [
        member("first", HELD, "web.before ghost.before ghost.after"),
        member("web", HELD, ""),
    ];
    let starts = starts(&members, &Elsewhere::new());
    assert_eq!(starts.go, [ident("first", 0)]);
    assert_eq!(
        told(&starts, "web"),
        "waits for first to be started first, which waits itself"
    );
}

#[test]
fn all_instances_of_an_item_count_and_so_do_their_versions() {
    let mut second = member("db", Progress::Started, "");
    second.ident.index = 1;
    let mut web = member("web", HELD, "db.healthy");
    let members = [
        member("db", Progress::Healthy, ""),
        second.clone(),
        web.clone(),
    ];
    assert_eq!(
        told(&starts(&members, &Elsewhere::new()), "web"),
        "waits for db to be healthy, which is not healthy yet"
    );
    web.dependencies[0].versions = ">=2".parse().unwrap();
    let members = [member("db", Progress::Healthy, ""), web];
    assert_eq!(
        told(&starts(&members, &Elsewhere::new()), "web"),
        "in vain: needs db to be healthy, but its version 1.2.0 is not within `>=2`"
    );
}

#[test]
fn what_is_not_here_is_asked_of_other_nodes_and_waited_for_only_so_long() {
    let web = |patient| [member("web", Progress::Held { patient }, "db.healthy")];
    let mut elsewhere = Elsewhere::new();
    assert_eq!(
        told(&starts(&web(true), &elsewhere), "web"),
        "waits for db to be healthy, which is not on this Node; CM has not told how it is doing"
    );
    assert_eq!(starts(&web(false), &elsewhere).go, [ident("web", 0)]);
    let db: aos_types::ItemId = "db".parse().unwrap();
    elsewhere.insert(db.clone(), vec![]);
    assert_eq!(
        told(&starts(&web(false), &elsewhere), "web"),
        "in vain: needs db to be healthy, but no instance of it is wanted on this Unit"
    );
    let mut peer = Peer {
        node: Some("n2".parse().unwrap()),
        version: "1.0.0".into(),
        ends: false,
        progress: Progress::Starting,
    };
    elsewhere.insert(db.clone(), vec![peer.clone()]);
    assert_eq!(
        told(&starts(&web(false), &elsewhere), "web"),
        "waits for db on Node n2 to be healthy, which is being started"
    );
    peer.progress = Progress::Healthy;
    elsewhere.insert(db, vec![peer]);
    assert_eq!(starts(&web(true), &elsewhere).go, [ident("web", 0)]);
}

#[test]
fn what_others_wait_for_has_their_priority() {
    let mut web = member("web", HELD, "db.started");
    web.priority = 9;
    let mut other = member("other", HELD, "");
    other.priority = 5;
    let members = [web, other, member("db", HELD, ""), member("a", HELD, "")];
    let starts = starts(&members, &Elsewhere::new());
    assert_eq!(
        starts.go,
        [ident("db", 0), ident("other", 0), ident("a", 0)]
    );
}

#[test]
fn stops_go_the_other_way_round() {
    let members = [
        member("web", Progress::Healthy, "db.healthy"),
        member("db", Progress::Healthy, "disk.started"),
        member("disk", Progress::Healthy, ""),
        member("log", Progress::Healthy, "web.before"),
        member("a", Progress::Healthy, "b.started"),
        member("b", Progress::Healthy, "a.started"),
    ];
    let all: BTreeSet<InstanceIdent> = members.iter().map(|one| one.ident.clone()).collect();
    let waves = |stopped: &BTreeSet<InstanceIdent>| -> Vec<Vec<String>> {
        let items = |wave: Vec<InstanceIdent>| wave.iter().map(|i| i.item.to_string()).collect();
        stop_waves(&members, stopped)
            .into_iter()
            .map(items)
            .collect()
    };
    assert_eq!(
        waves(&all),
        [vec!["web"], vec!["db", "log"], vec!["disk"], vec!["a", "b"]]
    );
    let two = BTreeSet::from([ident("disk", 0), ident("web", 0), ident("gone", 0)]);
    assert_eq!(waves(&two), [vec!["web", "disk"], vec!["gone"]]);
    assert_eq!(waves(&BTreeSet::new()), Vec::<Vec<String>>::new());
}

#[test]
fn texts_are_bounded() {
    let mut members = vec![member("end", Progress::Starting, "")];
    for index in 0..200 {
        let before = if index == 0 {
            "end".into()
        } else {
            format!("item{}", index - 1)
        };
        members.push(member(
            &format!("item{index}"),
            HELD,
            &format!("{before}.started"),
        ));
    }
    let starts = starts(&members, &Elsewhere::new());
    assert_eq!(starts.still.len(), 200);
    for why in starts.still.values() {
        let Standstill::Waits(why) = why else {
            panic!("{why:?}")
        };
        assert!(why.chars().count() <= 513);
    }
}

fn condition() -> impl Strategy<Value = Condition> {
    prop::sample::select(vec![
        Condition::Started,
        Condition::Healthy,
        Condition::Completed,
        Condition::Before,
        Condition::After,
    ])
}

/// Up to eight items, the first three of which end by themselves, with up to two instances each.
fn scene() -> impl Strategy<Value = Vec<Member>> {
    let needs = prop::collection::vec((0..9_usize, condition()), 0..3);
    let item = (needs, 1..3_u64, 0..5_u64, any::<bool>());
    prop::collection::vec(item, 1..8).prop_map(|items| {
        let name = |index: usize| format!("item{index}").parse().unwrap();
        let mut members = Vec::new();
        for (index, (needs, instances, priority, fails)) in items.into_iter().enumerate() {
            for instance in 0..instances {
                let mut one = member("x", HELD, "");
                one.ident = ident(&format!("item{index}"), instance);
                one.ends = index < 3;
                one.priority = priority;
                // A later use of the field: whether it fails when it is started.
                one.version = if fails {
                    "0.0.1".into()
                } else {
                    "1.0.0".into()
                };
                one.dependencies = needs
                    .iter()
                    .map(|(on, c)| Dependency::on(name(*on), *c))
                    .collect();
                members.push(one);
            }
        }
        members
    })
}

/// Whether this condition of `member` holds, said once more in the simplest words.
fn holds(dependency: &Dependency, members: &[Member]) -> bool {
    let of = |one: &&Member| one.ident.item == dependency.identifier;
    members
        .iter()
        .filter(of)
        .all(|one| match dependency.condition {
            Condition::Started => matches!(
                one.progress,
                Progress::Started | Progress::Healthy | Progress::Completed
            ),
            Condition::Healthy => matches!(one.progress, Progress::Healthy | Progress::Completed),
            Condition::Completed => one.progress == Progress::Completed,
            Condition::Before | Condition::After => true,
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Started one by one, in any way it may go, everything comes to an end: nothing starts before what it needs, nobody
    /// waits for ever, and what is told as in vain really has a reason.
    #[test]
    fn nothing_hangs_and_nothing_starts_too_early(mut members in scene(), dice in any::<u64>()) {
        let elsewhere: Elsewhere = (0..9)
            .map(|index| (format!("item{index}").parse().unwrap(), vec![]))
            .collect();
        let mut dice = dice;
        let mut rounds = 0;
        loop {
            rounds += 1;
            prop_assert!(rounds < 200, "it never ends");
            let now = starts(&members, &elsewhere);
            let held = members.iter().filter(|one| matches!(one.progress, Progress::Held { .. }));
            prop_assert_eq!(now.go.len() + now.still.len(), held.count());
            for ident in &now.go {
                let one = members.iter().find(|one| one.ident == *ident).unwrap();
                for dependency in &one.dependencies {
                    prop_assert!(holds(dependency, &members), "{:?} {:?}", one, dependency);
                    if dependency.condition.requires() {
                        let known = members.iter().any(|o| o.ident.item == dependency.identifier);
                        prop_assert!(known);
                    }
                }
            }
            // One of those that may go starts, or something that runs goes a step on.
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let moving: Vec<usize> = (0..members.len())
                .filter(|&index| match &members[index].progress {
                    Progress::Held { .. } => now.go.contains(&members[index].ident),
                    Progress::Starting | Progress::Started => true,
                    Progress::Healthy => members[index].ends,
                    _ => false,
                })
                .collect();
            if moving.is_empty() {
                for why in now.still.values() {
                    prop_assert!(matches!(why, Standstill::InVain(_)), "{why:?}");
                }
                prop_assert!(now.go.is_empty());
                break;
            }
            let one = &mut members[moving[(dice >> 33) as usize % moving.len()]];
            let fails = one.version == "0.0.1";
            one.progress = match &one.progress {
                Progress::Held { .. } => Progress::Starting,
                Progress::Starting if fails => Progress::Failed("it fails".into()),
                Progress::Starting => Progress::Started,
                Progress::Started => Progress::Healthy,
                _ => Progress::Completed,
            };
        }
    }

    /// Stops are complete, each once, and never before what depends on them. Circles are cut first.
    #[test]
    fn stops_are_whole_and_in_order(mut members in scene()) {
        for one in &mut members {
            let own = one.ident.item.clone();
            one.dependencies.retain(|on| on.identifier < own);
        }
        let stopped: BTreeSet<InstanceIdent> =
            members.iter().filter(|one| one.priority != 0).map(|one| one.ident.clone()).collect();
        let waves = stop_waves(&members, &stopped);
        let mut place = BTreeMap::new();
        for (number, wave) in waves.iter().enumerate() {
            for ident in wave {
                prop_assert!(place.insert(ident.clone(), number).is_none(), "stopped twice");
            }
        }
        let seen: BTreeSet<InstanceIdent> = place.keys().cloned().collect();
        prop_assert_eq!(seen, stopped);
        let before = |one: &Member| one.dependencies.iter().any(|d| d.condition == Condition::Before);
        if members.iter().any(before) {
            // Together with the others these may still make a circle.
            return Ok(());
        }
        for one in &members {
            for on in &members {
                let needs = one.dependencies.iter().any(|d| d.identifier == on.ident.item);
                if let (true, Some(own), Some(other)) = (needs, place.get(&one.ident), place.get(&on.ident)) {
                    prop_assert!(own < other, "{:?}", waves);
                }
            }
        }
    }
}
