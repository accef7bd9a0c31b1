//! The plan in full, and a Node that is led through many lists with failing steps.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may fail loudly"
)]

use std::collections::{BTreeMap, BTreeSet};

use aos_launch::{Found, Input, Launcher, Output, Step, StepId, Wanted, plan};
use aos_types::{AosCode, Digest, ErrorInfo, InstanceIdent, ItemId, SubjectId};
use proptest::prelude::*;

fn ident(item: &str) -> InstanceIdent {
    InstanceIdent::service(ItemId::new(item).unwrap(), SubjectId::new("s").unwrap(), 0)
}

fn wanted(item: &str, version: u8) -> Wanted<()> {
    let mut digest = [0; 32];
    digest[0] = item.as_bytes()[0];
    digest[1] = version;
    Wanted {
        ident: ident(item),
        version: version.to_string(),
        manifest: Digest::from_bytes(digest),
        fingerprint: format!("{item}{version}"),
        spec: (),
    }
}

fn found(item: &str, version: u8) -> (InstanceIdent, Found) {
    let found = Found {
        version: version.to_string(),
        fingerprint: format!("{item}{version}"),
    };
    (ident(item), found)
}

fn error() -> ErrorInfo {
    ErrorInfo::new(AosCode::Failed, "no")
}

#[test]
fn the_plan_installs_then_connects_then_stops_then_starts() {
    let list = [
        wanted("kept", 1),
        wanted("new", 1),
        wanted("old", 2),
        wanted("again", 1),
    ];
    let runs = [
        found("kept", 1),
        found("old", 1),
        found("gone", 7),
        found("again", 1),
    ]
    .into();
    insta::assert_snapshot!(plan(&list, &runs, &BTreeSet::new(), &[ident("again")].into()), @r"
    keep kept:s:0
    1 install 61010000 for again:s:0
    1 install 6e010000 for new:s:0
    1 install 6f020000 for old:s:0
    2 network again:s:0
    2 network new:s:0
    2 network old:s:0
    3 stop again:s:0: is started again as asked
    3 stop old:s:0: takes the place of 1
    3 stop gone:s:0: is not wanted any more
    4 start again:s:0 1: is started again as asked
    4 start new:s:0 1: does not run yet
    4 start old:s:0 2: takes the place of 1
    ");
}

struct Node {
    launcher: Launcher<()>,
    in_hand: Vec<(StepId, Step<()>)>,
    running: BTreeMap<InstanceIdent, String>,
    images: BTreeSet<Digest>,
    networks: BTreeSet<InstanceIdent>,
    failed: Vec<(InstanceIdent, String)>,
    stored: Vec<Wanted<()>>,
    finished: bool,
}

impl Node {
    fn new(runs: &[(&str, u8)]) -> Self {
        let found: BTreeMap<_, _> = runs
            .iter()
            .map(|(item, version)| found(item, *version))
            .collect();
        Self {
            running: found
                .iter()
                .map(|(ident, found)| (ident.clone(), found.version.clone()))
                .collect(),
            launcher: Launcher::new(found),
            in_hand: Vec::new(),
            images: BTreeSet::new(),
            networks: BTreeSet::new(),
            failed: Vec::new(),
            stored: Vec::new(),
            finished: false,
        }
    }

    fn want(&mut self, list: &[(&str, u8)]) {
        self.finished = false;
        let list = list
            .iter()
            .map(|(item, version)| wanted(item, *version))
            .collect();
        self.input(Input::Wanted {
            list,
            restart: BTreeSet::new(),
        });
    }

    fn input(&mut self, input: Input<()>) {
        self.launcher.handle(input);
        while let Some(output) = self.launcher.poll() {
            match output {
                Output::Persist(list) => self.stored = list,
                Output::Do(id, step) => self.in_hand.push((id, step)),
                Output::Cancel(id) => self.in_hand.retain(|(have, _)| *have != id),
                Output::Failed { ident, version, .. } => self.failed.push((ident, version)),
                Output::Activating { .. } => {}
                Output::Finished => self.finished = true,
            }
        }
    }

    fn end(&mut self, index: usize, well: bool) {
        if self.in_hand.is_empty() {
            return;
        }
        let (step, what) = self.in_hand.remove(index % self.in_hand.len());
        if well {
            match &what {
                Step::Install(digest) => {
                    self.images.insert(*digest);
                }
                Step::PrepareNetwork(wanted) => {
                    self.networks.insert(wanted.ident.clone());
                }
                Step::Stop(ident) => {
                    if let Some(next) = self.stored.iter().find(|next| next.ident == *ident) {
                        assert!(
                            self.images.contains(&next.manifest),
                            "{ident} is stopped, and what takes its place is not installed"
                        );
                    }
                    self.running.remove(ident);
                }
                Step::Start(wanted) => {
                    assert!(self.images.contains(&wanted.manifest), "not verified");
                    assert!(self.networks.contains(&wanted.ident), "no network");
                    let before = self
                        .running
                        .insert(wanted.ident.clone(), wanted.version.clone());
                    assert_eq!(before, None, "two of one instance");
                }
            }
        }
        let result = if well { Ok(()) } else { Err(error()) };
        self.input(Input::Done { step, result });
    }

    fn settle(&mut self) {
        while !self.in_hand.is_empty() {
            self.end(0, true);
        }
    }

    fn runs(&self) -> Vec<String> {
        self.running
            .iter()
            .map(|(ident, version)| format!("{} {version}", ident.item))
            .collect()
    }
}

#[test]
fn a_list_is_carried_out_and_stored_first() {
    let mut node = Node::new(&[("a", 1), ("b", 1)]);
    node.want(&[("a", 2), ("c", 1)]);
    assert_eq!(node.stored.len(), 2);
    node.settle();
    assert_eq!(node.runs(), ["a 2", "c 1"]);
    assert!(node.finished && node.failed.is_empty());
    node.want(&[("a", 2), ("c", 1)]);
    assert!(node.finished, "the same again is finished at once");
}

#[test]
fn a_failed_install_leaves_the_old_one_running_and_the_others_go_on() {
    let mut node = Node::new(&[("a", 1), ("b", 1)]);
    node.want(&[("a", 2), ("b", 2)]);
    assert_eq!(node.in_hand.len(), 2, "only installs");
    node.end(0, false);
    node.settle();
    assert_eq!(node.runs(), ["a 1", "b 2"]);
    assert_eq!(node.failed, [(ident("a"), "2".into())]);
    assert!(node.finished);
}

#[test]
fn a_failed_network_or_stop_leaves_the_old_one_too() {
    let mut node = Node::new(&[("a", 1)]);
    node.want(&[("a", 2)]);
    node.end(0, true);
    node.end(0, false);
    assert_eq!(node.runs(), ["a 1"]);
    assert!(node.finished);
    node.want(&[("a", 3)]);
    node.end(0, true);
    node.end(0, true);
    node.end(0, false);
    assert_eq!(node.runs(), ["a 1"]);
    assert_eq!(node.failed.len(), 2);
}

#[test]
fn a_newer_list_cancels_installs_it_does_not_need_and_keeps_those_it_does() {
    let mut node = Node::new(&[("a", 1)]);
    node.want(&[("a", 2), ("b", 1)]);
    let before = node.in_hand.clone();
    node.want(&[("a", 3), ("b", 1)]);
    assert_eq!(node.in_hand.len(), 2);
    assert!(node.in_hand.contains(&before[1]) || node.in_hand.contains(&before[0]));
    node.settle();
    assert_eq!(node.runs(), ["a 3", "b 1"]);
}

#[test]
fn while_stopping_a_newer_list_waits_for_the_steps_in_hand() {
    let mut node = Node::new(&[("a", 1)]);
    node.want(&[("a", 2)]);
    node.end(0, true);
    node.end(0, true);
    assert!(matches!(node.in_hand[0].1, Step::Stop(_)));
    node.want(&[("a", 1)]);
    assert_eq!(node.in_hand.len(), 1);
    // The stop that was asked for before the newer list came is not held against it.
    node.images.insert(wanted("a", 1).manifest);
    node.settle();
    assert_eq!(node.runs(), ["a 1"]);
    assert!(node.finished);
}

#[test]
fn what_has_ended_by_itself_is_started_by_the_next_list() {
    let mut node = Node::new(&[("a", 1)]);
    node.input(Input::Exited(ident("a")));
    node.running.clear();
    node.want(&[("a", 1)]);
    node.settle();
    assert_eq!(node.runs(), ["a 1"]);
}

proptest! {
    #[test]
    fn a_node_never_stands_with_neither_and_comes_to_rest(
        script in prop::collection::vec(
            (prop::option::weighted(0.15, (0..3u8, 0..3u8, 0..3u8)), 0..4usize, prop::bool::weighted(0.8)),
            0..60,
        )
    ) {
        let mut node = Node::new(&[("a", 1), ("b", 1)]);
        let list = |(a, b, c): (u8, u8, u8)| -> Vec<(&'static str, u8)> {
            [("a", a), ("b", b), ("c", c)].into_iter().filter(|(_, version)| *version > 0).collect()
        };
        let mut last = vec![("a", 1), ("b", 1)];
        for (new, index, well) in script {
            if let Some(new) = new {
                // Steps in hand were asked for by the list before; they end first here.
                if node.in_hand.iter().any(|(_, step)| matches!(step, Step::Stop(_))) {
                    node.settle();
                }
                last = list(new);
                node.want(&last);
            }
            node.end(index, well);
        }
        node.settle();
        node.want(&last);
        node.settle();
        prop_assert!(node.finished && !node.launcher.is_busy());
        let wanted: Vec<String> = last.iter().map(|(item, version)| format!("{item} {version}")).collect();
        prop_assert_eq!(node.runs(), wanted);
    }
}
