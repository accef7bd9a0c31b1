//! Usage from counters, alerts at the right second of virtual time, and what of it is told.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may fail loudly"
)]

use std::{collections::BTreeMap, time::Duration};

use aos_alert::{
    Admitted, Change, Counters, Flood, Grain, Ledger, Monitor, NodeCounters, Parameter, Point,
    Sizes, Thrift, Tide, Traffic, Uplink, Usage, Whose,
};
use aos_time::Timestamp;
use aos_types::{AlertRule, AlertRules, PartitionAlertRule};
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;
const MIB: u64 = 1 << 20;
const DMIPS: u64 = 10_000;
const PERIOD: i64 = 10;

fn at(second: i64) -> Timestamp {
    Timestamp::from_secs(second)
}

fn rule(seconds: u64, min: f64, max: f64) -> AlertRule {
    AlertRule {
        min_timeout: Duration::from_secs(seconds),
        min_threshold: min,
        max_threshold: max,
    }
}

fn sizes() -> Sizes {
    Sizes {
        cpu: DMIPS,
        ram: 1000 * MIB,
        partitions: [("storages".to_owned(), 1000 * MIB)].into(),
    }
}

/// A Node of two processors with one instance, in virtual time: what each does in a period is said, what is told is noted.
struct World {
    monitor: Monitor<&'static str>,
    ledger: Ledger<&'static str>,
    second: i64,
    all: u64,
    cpu: u64,
    sent: u64,
    told: Vec<(i64, String, Change)>,
    last: Usage,
}

#[derive(Clone, Copy, Default)]
struct Does {
    /// Processors kept busy.
    burns: f64,
    /// MiB.
    holds: u64,
    /// MiB.
    keeps: u64,
    /// MiB, each second.
    floods: u64,
}

impl World {
    fn new(rules: AlertRules) -> Self {
        let mut monitor = Monitor::new(sizes(), Duration::from_secs(60), at(0), []);
        let changed = monitor.instances(&[("it", Some(rules))].into());
        assert!(changed.alerts.is_empty() && changed.wrong.is_empty());
        let mut world = Self {
            monitor,
            ledger: Ledger::new(Duration::from_secs(86_400)),
            second: 0,
            all: 0,
            cpu: 0,
            sent: 0,
            told: Vec::new(),
            last: Usage::default(),
        };
        world.pass(Does::default());
        world
    }

    fn pass(&mut self, does: Does) {
        let spent = (does.burns * (PERIOD as u64 * SECOND) as f64) as u64;
        self.cpu += spent;
        self.all += 2 * PERIOD as u64 * SECOND;
        self.sent += does.floods * MIB * PERIOD as u64;
        let traffic = Traffic {
            download: 0,
            upload: self.sent,
        };
        let counted = self
            .ledger
            .count(at(self.second), &[("it", traffic)].into(), |_| true);
        let counters = Counters {
            cpu_nanos: self.cpu,
            ram: does.holds * MIB,
            partitions: [("storages".to_owned(), does.keeps * MIB)].into(),
            traffic: counted.get("it").copied(),
        };
        let node = NodeCounters {
            busy_nanos: self.cpu,
            all_nanos: self.all,
            ram: 100 * MIB,
            ..NodeCounters::default()
        };
        let measured = self
            .monitor
            .pass(at(self.second), &node, &[("it", counters)].into());
        for alert in measured.alerts {
            assert_eq!(alert.of, Whose::Instance("it"));
            self.told
                .push((self.second, alert.parameter.to_string(), alert.change));
        }
        self.last = measured.instances["it"].clone();
        self.second += PERIOD;
    }

    fn until(&mut self, second: i64, does: Does) {
        while self.second < second {
            self.pass(does);
        }
    }
}

#[test]
fn a_memory_hog_raises_goes_on_and_falls() {
    let mut world = World::new(AlertRules {
        ram: Some(rule(30, 50.0, 80.0)),
        ..AlertRules::default()
    });
    let hog = Does {
        holds: 850,
        ..Does::default()
    };
    world.until(100, Does::default());
    world.until(180, hog);
    world.until(300, Does::default());
    let wanted = [
        (130, Change::Raise),
        (160, Change::Continue),
        (210, Change::Fall),
    ];
    assert_eq!(
        world.told,
        wanted.map(|(at, change)| (at, "ram".to_owned(), change))
    );
}

#[test]
fn a_cpu_burner_is_measured_in_dmips_of_the_whole_node() {
    let mut world = World::new(AlertRules {
        cpu: Some(rule(20, 30.0, 45.0)),
        ..AlertRules::default()
    });
    let burns = |burns| Does {
        burns,
        ..Does::default()
    };
    // One of two processors is half the Node.
    world.until(100, burns(1.0));
    assert_eq!(world.last.cpu, DMIPS / 2);
    // Between the thresholds nothing new is said but that it goes on.
    world.until(140, burns(0.7));
    assert_eq!(world.last.cpu, 3_500);
    world.until(200, burns(0.1));
    assert_eq!(
        world.told,
        [
            (30, Change::Raise),
            (50, Change::Continue),
            (70, Change::Continue),
            (90, Change::Continue),
            (110, Change::Continue),
            (130, Change::Continue),
            (160, Change::Fall),
        ]
        .map(|(at, change)| (at, "cpu".to_owned(), change))
    );
    let (node, instances) = world.monitor.averages();
    assert_eq!(instances["it"].cpu, 500);
    assert_eq!(node.cpu, 500);
}

#[test]
fn a_disk_filler_raises_until_it_has_cleared_up() {
    let mut world = World::new(AlertRules {
        partitions: vec![PartitionAlertRule {
            name: "storages".into(),
            rule: rule(0, 60.0, 90.0),
        }],
        ..AlertRules::default()
    });
    let keeps = |keeps| Does {
        keeps,
        ..Does::default()
    };
    world.until(50, keeps(899));
    assert_eq!(world.told, []);
    world.until(70, keeps(900));
    world.until(90, keeps(700));
    world.until(120, keeps(599));
    let told: Vec<_> = world
        .told
        .iter()
        .map(|(at, _, change)| (*at, *change))
        .collect();
    assert_eq!(
        told,
        [
            (50, Change::Raise),
            (60, Change::Continue),
            (70, Change::Continue),
            (80, Change::Continue),
            (90, Change::Fall)
        ]
    );
}

#[test]
fn a_traffic_flooder_has_its_alert_until_the_day_is_over() {
    let day = 86_400;
    let mut world = World::new(AlertRules {
        upload: Some(rule(60, (500 * MIB) as f64, (1000 * MIB) as f64)),
        ..AlertRules::default()
    });
    world.until(40_000, Does::default());
    let floods = Does {
        floods: 5,
        ..Does::default()
    };
    world.until(40_300, floods);
    world.until(day + 600, Does::default());
    let first = &world.told[0];
    // 50 MiB a pass: beyond 1000 MiB with the 20th, which is at 40,190 s, and a minute later it is told.
    assert_eq!((first.0, first.2), (40_250, Change::Raise));
    let (at, _, change) = world.told.last().unwrap();
    assert_eq!((*at, *change), (day + 60, Change::Fall));
    let between = &world.told[1..world.told.len() - 1];
    assert!(
        between
            .iter()
            .all(|(_, _, change)| *change == Change::Continue)
    );
    assert_eq!(world.last.traffic.unwrap().upload, 0);
}

#[test]
fn an_instance_that_is_down_uses_nothing_and_one_that_is_gone_ends_its_alerts() {
    let rules = AlertRules {
        ram: Some(rule(20, 50.0, 80.0)),
        ..AlertRules::default()
    };
    let mut world = World::new(rules.clone());
    let hog = Does {
        holds: 850,
        ..Does::default()
    };
    world.until(40, hog);
    assert_eq!(world.told.len(), 1);
    // Crashed: its alert falls after its time.
    let node = NodeCounters::default();
    let mut fell = None;
    for second in [40, 50, 60, 70] {
        let measured = world.monitor.pass(at(second), &node, &BTreeMap::new());
        fell = fell.or(measured.alerts.first().map(|alert| (second, alert.change)));
    }
    assert_eq!(fell, Some((60, Change::Fall)));
    // Gone while raised: over at once.
    world.second = 80;
    world.until(130, hog);
    assert_eq!(
        world.monitor.raised(),
        [(Whose::Instance("it"), Parameter::Ram)]
    );
    let changed = world.monitor.instances(&BTreeMap::new());
    assert_eq!(changed.alerts[0].change, Change::Fall);
    assert!(world.monitor.raised().is_empty());
    // An unknown one has no rules.
    assert!(
        world
            .monitor
            .instances(&[("it", None)].into())
            .alerts
            .is_empty()
    );
}

#[test]
fn an_alert_outlives_the_program_that_told_it() {
    let raised = [
        (Whose::Instance("it"), Parameter::Ram),
        (Whose::Instance("gone"), Parameter::Cpu),
        (Whose::Node, Parameter::Cpu),
    ];
    let mut monitor = Monitor::new(sizes(), Duration::from_secs(60), at(0), raised);
    // The Node has no rule any more, and one instance is not there.
    let over = monitor.node_rules(&AlertRules::default()).alerts;
    assert_eq!(
        (over[0].of.clone(), over[0].change),
        (Whose::Node, Change::Fall)
    );
    let rules = AlertRules {
        ram: Some(rule(20, 50.0, 80.0)),
        ..AlertRules::default()
    };
    let over = monitor.instances(&[("it", Some(rules))].into()).alerts;
    assert_eq!(over.len(), 1);
    assert_eq!(over[0].of, Whose::Instance("gone"));
    // The other one is quiet by now: it is over after its time, and not raised anew.
    let mut told = Vec::new();
    for second in [0, 10, 20, 30] {
        let read = [("it", Counters::default())].into();
        told.extend(
            monitor
                .pass(at(second), &NodeCounters::default(), &read)
                .alerts,
        );
    }
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].change, Change::Fall);
}

#[test]
fn a_node_uses_at_least_what_its_instances_use() {
    let mut monitor: Monitor<u8> = Monitor::new(sizes(), Duration::from_secs(60), at(0), []);
    let read = |cpu_nanos| {
        let one = Counters {
            cpu_nanos,
            ram: 60 * MIB,
            ..Counters::default()
        };
        BTreeMap::from([(1, one.clone()), (2, one)])
    };
    let node = |all_nanos| NodeCounters {
        all_nanos,
        ram: 100 * MIB,
        ..NodeCounters::default()
    };
    monitor.pass(at(0), &node(0), &read(0));
    let measured = monitor.pass(at(10), &node(20 * SECOND), &read(5 * SECOND));
    assert_eq!(measured.node.ram, 120 * MIB);
    assert_eq!(measured.node.cpu, 5_000);
    // A counter that went back began anew.
    let measured = monitor.pass(at(20), &node(40 * SECOND), &read(SECOND));
    assert_eq!(measured.instances[&1].cpu, 500);
}

fn point(second: i64, cpu: u64) -> Point {
    Point {
        at: at(second),
        usage: Usage {
            cpu,
            ram: 100,
            ..Usage::default()
        },
    }
}

const GRAIN: Grain = Grain {
    cpu: 100,
    ram: 100,
    partition: 100,
    traffic: 100,
    percent: 0,
};

#[test]
fn what_does_not_change_is_told_with_the_heartbeat_only() {
    let mut uplink = Uplink::new(Thrift::default());
    let mut messages = Vec::new();
    for second in (0..3600).step_by(10) {
        for (name, cpu) in [("a", 500), ("b", 40)] {
            // Noise below a grain.
            let cpu = cpu + u64::from(second % 20 == 0) * 50;
            uplink.take(at(second), &name, point(second, cpu), GRAIN);
        }
        messages.extend(uplink.send(at(second)));
    }
    assert_eq!(messages.len(), 6, "{messages:?}");
    assert!(messages.iter().all(|points| points.len() == 2));
}

#[test]
fn a_jump_is_told_soon_with_the_level_before_it() {
    let mut uplink = Uplink::new(Thrift::default());
    let mut told = Vec::new();
    for second in (0..300).step_by(10) {
        let cpu = if second < 200 { 500 } else { 900 };
        uplink.take(at(second), &"a", point(second, cpu), GRAIN);
        let points = uplink.send(at(second)).unwrap_or_default();
        told.extend(points.into_iter().map(|(_, point)| (second, point)));
    }
    let told: Vec<_> = told
        .iter()
        .map(|(second, p)| (*second, p.at, p.usage.cpu))
        .collect();
    assert_eq!(
        told,
        [(30, at(0), 500), (230, at(190), 500), (230, at(200), 900)]
    );
}

#[test]
fn the_level_before_a_jump_is_told_if_it_differs() {
    let mut uplink = Uplink::new(Thrift::default());
    for (second, cpu) in [(0, 500), (10, 550), (20, 900)] {
        uplink.take(at(second), &"a", point(second, cpu), GRAIN);
    }
    let told: Vec<_> = uplink
        .send(at(30))
        .unwrap()
        .iter()
        .map(|(_, p)| p.usage.cpu)
        .collect();
    assert_eq!(told, [500, 550, 900]);
    assert_eq!(uplink.due(), Some(at(620)));
}

#[test]
fn what_was_lost_goes_again_and_before_the_rest() {
    let mut uplink = Uplink::new(Thrift::default());
    uplink.take(at(0), &"a", point(0, 500), GRAIN);
    let lost = uplink.send(at(30)).unwrap();
    uplink.take(at(40), &"a", point(40, 900), GRAIN);
    uplink.put_back(lost);
    let told: Vec<_> = uplink
        .send(at(70))
        .unwrap()
        .iter()
        .map(|(_, p)| p.usage.cpu)
        .collect();
    assert_eq!(told, [500, 900]);
}

#[test]
fn who_is_not_measured_any_more_is_not_told_of() {
    let mut uplink = Uplink::new(Thrift::default());
    uplink.take(at(0), &"gone", point(0, 1), GRAIN);
    assert_eq!(uplink.send(at(30)).unwrap().len(), 1);
    assert_eq!(uplink.send(at(1000)), None);
    assert_eq!(uplink.due(), None);
}

proptest! {
    /// Whatever is measured, points are bounded, and on the long run as many as agreed.
    #[test]
    fn the_uplink_is_bounded(usages in prop::collection::vec(0_u64..100_000, 1..600)) {
        let thrift = Thrift {
            most: 16,
            burst: 20,
            pause: Duration::from_secs(60),
            ..Thrift::default()
        };
        let mut uplink = Uplink::new(thrift);
        let mut sent = 0;
        let seconds = usages.len() as u64 * 10;
        for (n, cpu) in usages.into_iter().enumerate() {
            let second = n as i64 * 10;
            for series in 0..4 {
                uplink.take(at(second), &series, point(second, cpu * series), GRAIN);
            }
            if let Some(points) = uplink.send(at(second)) {
                prop_assert!(points.len() <= 16);
                sent += points.len() as u64;
            }
        }
        // The burst, the agreed rate with at most two points a token, and a point a series each half heartbeat.
        let most = 20 + 2 * (seconds / 60 + 4) + 4 * (seconds / 300 + 1);
        prop_assert!(sent <= most, "{sent} of {most}");
    }
}

#[test]
fn a_flood_is_cut_counted_and_told_of() {
    let tide = Tide {
        burst: 3,
        pause: Duration::from_secs(10),
    };
    let mut flood = Flood::new(tide);
    let mut told = 0;
    for n in 0..1000 {
        let admitted = flood.admit(at(n / 1000), &"noisy");
        told += u64::from(matches!(admitted, Admitted::Tell { .. }));
    }
    assert_eq!(told, 3);
    // Others are heard.
    assert_eq!(flood.admit(at(1), &"quiet"), Admitted::Tell { left_out: 0 });
    assert!(flood.owes());
    // Later it may speak again, and says how much was left out.
    assert_eq!(
        flood.admit(at(10), &"noisy"),
        Admitted::Tell { left_out: 997 }
    );
    assert_eq!(flood.admit(at(11), &"noisy"), Admitted::LeaveOut);
    // If it stays silent that is found out.
    assert_eq!(flood.ebbed(at(30)), [("noisy", 1)]);
    assert!(!flood.owes());
}

#[test]
fn the_first_word_of_a_counter_is_no_traffic_of_today() {
    let mut ledger = Ledger::new(Duration::from_secs(60));
    let counted = |ledger: &mut Ledger<u8>, second, bytes, began| {
        let counters = BTreeMap::from([(
            1,
            Traffic {
                download: bytes,
                upload: 0,
            },
        )]);
        ledger.count(at(second), &counters, |_| began)[&1].download
    };
    assert_eq!(counted(&mut ledger, 0, 1000, false), 0);
    assert_eq!(counted(&mut ledger, 10, 1500, false), 500);
    // The interface was made anew.
    assert_eq!(counted(&mut ledger, 20, 30, false), 530);
    // The next period.
    assert_eq!(counted(&mut ledger, 60, 40, false), 10);
    let mut ledger = Ledger::new(Duration::from_secs(60));
    assert_eq!(counted(&mut ledger, 0, 1000, true), 1000);
}

#[test]
fn the_sum_of_a_day_outlives_who_counts_and_pauses_of_who_is_counted() {
    let day = Duration::from_secs(60);
    let counters = |bytes| {
        let traffic = Traffic {
            download: bytes,
            upload: 0,
        };
        BTreeMap::from([(1_u8, traffic)])
    };
    let mut ledger = Ledger::new(day);
    ledger.count(at(0), &counters(100), |_| true);
    // It is not there for a while, and its interface stays.
    assert!(ledger.count(at(5), &BTreeMap::new(), |_| true).is_empty());
    let sums = ledger.count(at(10), &counters(150), |_| true);
    assert_eq!(sums[&1].download, 150);
    // Somebody else goes on counting, after a time in which nobody did.
    let (current, accounts) = ledger.kept();
    let mut other = Ledger::restore(day, current, accounts.clone());
    let sums = other.count(at(30), &counters(250), |_| false);
    assert_eq!(sums[&1].download, 250);
    // After a power cut the counter begins anew.
    let (current, accounts) = other.kept();
    let mut other = Ledger::restore(day, current, accounts.clone());
    let sums = other.count(at(50), &counters(20), |_| false);
    assert_eq!(sums[&1].download, 270);
    // The next day what was is no sum of it.
    let (current, accounts) = other.kept();
    let mut other = Ledger::restore(day, current, accounts.clone());
    let sums = other.count(at(70), &counters(25), |_| false);
    assert_eq!(sums[&1].download, 5);
}
