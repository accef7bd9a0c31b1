//! What a Node does with a list, by examples and by search.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may fail loudly"
)]

use std::collections::{BTreeMap, BTreeSet};

use aos_launch::{Found, Instance, Run, StopReason, plan};
use aos_types::{AosCode, Digest, ErrorInfo, InstanceIdent};
use proptest::prelude::*;

fn ident(item: &str, index: u64) -> InstanceIdent {
    InstanceIdent::service(item.parse().unwrap(), "subject".parse().unwrap(), index)
}

fn instance(item: &str, index: u64, version: u8) -> Instance {
    Instance {
        ident: ident(item, index),
        version: format!("{version}.0.0"),
        manifest: Digest::from_bytes([version; 32]),
        owner: "owner".parse().unwrap(),
        runtime: "runtime".parse().unwrap(),
        uid: 5000,
        gid: 5000,
        priority: 0,
        storage_path: String::new(),
        state_path: String::new(),
        env: vec![],
    }
}

fn running(instance: Instance) -> Found {
    Found {
        instance,
        run: Run::Running,
    }
}

#[test]
fn the_same_list_again_does_nothing() {
    let list = [instance("a", 0, 1), instance("b", 0, 1)];
    let plan = plan(&list, &BTreeSet::new(), &list.clone().map(running));
    assert!(plan.is_empty());
    assert!(plan.install.is_empty());
    assert_eq!(plan.keep, [ident("a", 0), ident("b", 0)]);
}

#[test]
fn an_update_is_stopped_only_after_its_replacement_is_installed() {
    let old = [running(instance("a", 0, 1)), running(instance("b", 0, 1))];
    let plan = plan(&[instance("a", 0, 2)], &BTreeSet::new(), &old);
    assert_eq!(plan.install.len(), 1);
    let stop_a = plan.stop.iter().find(|s| s.ident == ident("a", 0)).unwrap();
    assert_eq!(
        stop_a.reason,
        StopReason::NewVersion {
            from: "1.0.0".into(),
            to: "2.0.0".into()
        }
    );
    assert_eq!(stop_a.after_install, Some(Digest::from_bytes([2; 32])));

    let broken = [(
        Digest::from_bytes([2; 32]),
        ErrorInfo::new(AosCode::InvalidChecksum, "bad image"),
    )]
    .into();
    let switch = plan.switch(&broken);
    assert_eq!(
        switch.stop.iter().map(|s| &s.ident).collect::<Vec<_>>(),
        [&ident("b", 0)],
        "only what nobody wants"
    );
    assert!(switch.start.is_empty());
    assert!(switch.kept[0].old_runs_on);
    assert_eq!(switch.kept[0].error.message, "bad image");
}

#[test]
fn a_wanted_instance_that_is_down_is_started_again_without_a_stop() {
    let down = Found {
        instance: instance("a", 0, 1),
        run: Run::Down,
    };
    let plan = plan(&[instance("a", 0, 1)], &BTreeSet::new(), &[down]);
    assert!(plan.stop.is_empty());
    assert_eq!(plan.start.len(), 1);
}

#[test]
fn an_ordered_stop_of_a_wanted_instance_restarts_it() {
    let list = [instance("a", 0, 1)];
    let plan = plan(&list, &[ident("a", 0)].into(), &list.clone().map(running));
    assert_eq!(plan.stop[0].reason, StopReason::Ordered);
    assert!(plan.start[0].replaces);
}

#[test]
fn higher_priority_starts_first_and_a_shared_image_is_installed_once() {
    let mut urgent = instance("z", 0, 1);
    urgent.priority = 9;
    let plan = plan(
        &[instance("a", 0, 1), instance("a", 1, 1), urgent],
        &BTreeSet::new(),
        &[],
    );
    let order: Vec<_> = plan
        .start
        .iter()
        .map(|s| s.instance.ident.clone())
        .collect();
    assert_eq!(order, [ident("z", 0), ident("a", 0), ident("a", 1)]);
    assert_eq!(plan.install.len(), 1);
    assert_eq!(plan.install[0].for_instances.len(), 3);
}

#[test]
fn a_change_of_priority_restarts_nothing_and_a_change_of_environment_does() {
    let old = [running(instance("a", 0, 1))];
    let mut wanted = instance("a", 0, 1);
    wanted.priority = 7;
    assert!(plan(std::slice::from_ref(&wanted), &BTreeSet::new(), &old).is_empty());
    wanted.env.push(("A".into(), "1".into()));
    assert_eq!(
        plan(&[wanted], &BTreeSet::new(), &old).stop[0].reason,
        StopReason::NewSettings
    );
}

fn any_list() -> impl Strategy<Value = Vec<Instance>> {
    prop::collection::vec((0..4u8, 0..3u64, 1..4u8, 0..3u64), 0..10).prop_map(|all| {
        all.into_iter()
            .map(|(item, index, version, priority)| {
                let mut one = instance(&format!("i{item}"), index, version);
                one.priority = priority;
                one
            })
            .collect()
    })
}

proptest! {
    /// Carrying out the switch leaves exactly the wanted set, except where an image is broken: there the old run stays.
    #[test]
    fn carrying_out_a_plan_gives_the_wanted_set_or_keeps_the_old(
        old in any_list(), new in any_list(), broken in prop::collection::btree_set(1..4u8, 0..3), down in any::<u16>(),
    ) {
        let mut before: BTreeMap<InstanceIdent, Found> = BTreeMap::new();
        for (n, one) in old.into_iter().enumerate() {
            let run = if down >> (n % 16) & 1 == 1 { Run::Down } else { Run::Running };
            before.insert(one.ident.clone(), Found { instance: one, run });
        }
        let found: Vec<Found> = before.values().cloned().collect();
        let plan = plan(&new, &BTreeSet::new(), &found);
        let failed: BTreeMap<_, _> = broken
            .iter()
            .map(|v| (Digest::from_bytes([*v; 32]), ErrorInfo::new(AosCode::Failed, "broken")))
            .collect();
        let switch = plan.switch(&failed);
        let mut running: BTreeMap<InstanceIdent, String> = found
            .iter()
            .filter(|f| f.run == Run::Running)
            .map(|f| (f.instance.ident.clone(), f.instance.version.clone()))
            .collect();
        for stop in &switch.stop {
            running.remove(&stop.ident);
        }
        for start in &switch.start {
            let there = running.insert(start.instance.ident.clone(), start.instance.version.clone());
            prop_assert!(there.is_none(), "started over a running one");
        }
        let wanted: BTreeMap<_, _> = new.iter().map(|i| (i.ident.clone(), i)).collect();
        for (ident, want) in &wanted {
            if !failed.contains_key(&want.manifest) {
                prop_assert_eq!(running.get(ident), Some(&want.version));
            } else if let Some(old) = before.get(ident).filter(|f| f.run == Run::Running) {
                prop_assert_eq!(running.get(ident), Some(&old.instance.version), "stranded");
            }
        }
        prop_assert!(running.keys().all(|ident| wanted.contains_key(ident)));
    }
}
