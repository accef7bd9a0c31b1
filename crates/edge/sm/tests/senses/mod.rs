//! What a Node feels, told at the right time: real memory, processors, disks and networks.

use std::{
    fs,
    time::{Duration, Instant},
};

use aos_ipc::proto::servicemanager::v5::{self as pb, sm_incoming_messages::SmIncomingMessage};
use aos_types::{AlertRule, AlertRules, ItemConfig, PartitionAlertRule, Quotas};

use crate::unit::{Unit, cm::Told, item, run, until};

const MIB: u64 = 1 << 20;
/// How long usage must be too high, or low again.
const HOLD: Duration = Duration::from_secs(2);
/// Measured so often.
const PERIOD: Duration = Duration::from_secs(1);
/// What a busy machine may take longer.
const SLACK: Duration = Duration::from_secs(8);
/// What it may take longer where storages have to be walked through, in each sixth pass only: it takes two of them.
const WALKS: Duration = Duration::from_secs(12);
/// Traffic is counted in periods of this length here; else it is a day.
const TRAFFIC: u64 = 40;

/// Percentages are of a Node of 10,000 DMIPS, 1 GiB of memory and a partition of 1 GiB.
fn watched(item: &mut ItemConfig) {
    let rule = |min_threshold, max_threshold| AlertRule {
        min_timeout: HOLD,
        min_threshold,
        max_threshold,
    };
    item.alert_rules = Some(AlertRules {
        // Low enough for a machine whose processors others want too.
        cpu: Some(rule(1.0, 2.0)),
        ram: Some(rule(3.0, 5.0)),
        partitions: vec![PartitionAlertRule {
            name: "storages".into(),
            rule: rule(0.4, 0.8),
        }],
        upload: Some(rule((MIB / 4) as f64, MIB as f64)),
        ..AlertRules::default()
    });
    item.quotas = Quotas {
        storage_limit: Some(64 * MIB),
        tmp_limit: Some(MIB),
        ..Quotas::default()
    };
}

fn instance(unit: &Unit, name: &str, image: aos_types::Digest) -> pb::InstanceInfo {
    let mut instance = unit.cm.instance(name, 0, "1.0.0", image);
    instance.storage_path = format!("{name}/subject/0");
    instance.uid = 5_001;
    instance
}

/// Says to the instance what to do from now on.
fn order(unit: &Unit, name: &str, on: bool) {
    let file = unit.storage("moody/subject/0").join(name);
    if on {
        fs::write(file, "").unwrap();
    } else {
        fs::remove_file(file).unwrap();
    }
}

/// The first word of this kind about a parameter.
fn word(unit: &Unit, parameter: &str, status: &str) -> Option<Told> {
    let seen = unit.cm.seen.lock().unwrap();
    let mut told = seen.quotas.iter();
    told.find(|told| told.parameter == parameter && told.status == status)
        .cloned()
}

/// The longest time from a change to the word about it.
fn longest(parameter: &str) -> Duration {
    let walks = if parameter == "storages" {
        WALKS
    } else {
        Duration::ZERO
    };
    HOLD + 3 * PERIOD + SLACK + walks
}

const ALL: [(&str, &str); 4] = [
    ("hog", "ram"),
    ("burn", "cpu"),
    ("fill", "storages"),
    ("flood", "upload"),
];

#[test]
fn hog_burner_filler_and_flooder_raise_continue_and_clear_their_alerts() {
    let test = "hog_burner_filler_and_flooder_raise_continue_and_clear_their_alerts";
    run(test, async |mut unit: Unit| {
        unit.options.monitoring.period_secs = PERIOD.as_secs();
        unit.options.monitoring.traffic_period_secs = TRAFFIC;
        let image = item::publish(&unit.images, unit.folder.path(), &["moody"], watched);
        let sm = unit.start_sm();
        unit.cm.until("introduced", |seen| seen.complete > 0).await;
        unit.cm.list(vec![instance(&unit, "moody", image)]).await;
        unit.cm.until_state("moody", "1.0.0", "active").await;
        // At rest it is measured, and quiet.
        unit.cm
            .until("measured", |seen| seen.measured.len() >= 3)
            .await;
        assert!(unit.cm.seen.lock().unwrap().quotas.is_empty());

        let began = Instant::now();
        for (name, _) in ALL {
            order(&unit, name, true);
        }
        for (_, parameter) in ALL {
            until(parameter, || word(&unit, parameter, "raise").is_some()).await;
            let raised = word(&unit, parameter, "raise").unwrap().at - began;
            assert!(raised >= HOLD, "{parameter} was raised after {raised:?}");
            assert!(
                raised <= longest(parameter),
                "{parameter} was raised after {raised:?}"
            );
        }
        for (_, parameter) in ALL {
            until(parameter, || word(&unit, parameter, "continue").is_some()).await;
            let (raised, goes_on) = (
                word(&unit, parameter, "raise").unwrap(),
                word(&unit, parameter, "continue").unwrap(),
            );
            // Not with every measurement: it costs the uplink.
            let pause = goes_on.at - raised.at;
            assert!(
                pause >= Duration::from_secs(9),
                "{parameter} went on after {pause:?}"
            );
        }
        {
            let seen = unit.cm.seen.lock().unwrap();
            let last = seen.measured.last().unwrap();
            let usage = last.instances_monitoring[0]
                .monitoring_data
                .as_ref()
                .unwrap();
            assert!(usage.ram >= 60 * MIB, "{usage:?}");
            // One of this machine's processors, as far as others leave it.
            assert!(usage.cpu >= 10_000 / 50, "{usage:?}");
            assert!(usage.upload >= MIB, "{usage:?}");
            let storage = usage
                .partitions
                .iter()
                .find(|one| one.name == "storages")
                .unwrap();
            assert!(storage.used_size >= 10 * MIB, "{usage:?}");
            let node = last.node_monitoring.as_ref().unwrap();
            assert!(node.cpu >= usage.cpu && node.ram >= usage.ram, "{node:?}");
            assert!(
                node.partitions.iter().any(|one| one.name == "aos"),
                "{node:?}"
            );
        }

        let ended = Instant::now();
        for (name, _) in ALL {
            order(&unit, name, false);
        }
        for (_, parameter) in ALL {
            // What was sent counts until the period is over.
            let patience = Duration::from_secs(TRAFFIC) + SLACK;
            while word(&unit, parameter, "fall").is_none() {
                assert!(ended.elapsed() < patience, "{parameter} does not fall");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            let fell = word(&unit, parameter, "fall").unwrap().at - ended;
            assert!(fell >= HOLD - PERIOD, "{parameter} fell after {fell:?}");
            if parameter != "upload" {
                assert!(
                    fell <= longest(parameter),
                    "{parameter} fell after {fell:?}"
                );
            }
        }
        // Each once, in this order.
        for (_, parameter) in ALL {
            let seen = unit.cm.seen.lock().unwrap();
            let told = seen
                .quotas
                .iter()
                .filter(|told| told.parameter == parameter);
            let mut words: Vec<&str> = told.map(|told| told.status.as_str()).collect();
            words.dedup();
            assert_eq!(words, ["raise", "continue", "fall"], "{parameter}");
        }
        sm.end().await;
    });
}

#[test]
fn a_process_that_is_lost_for_want_of_memory_is_told_though_the_instance_goes_on() {
    let test = "a_process_that_is_lost_for_want_of_memory_is_told_though_the_instance_goes_on";
    run(test, async |mut unit: Unit| {
        unit.options.monitoring.period_secs = PERIOD.as_secs();
        let image = item::publish(&unit.images, unit.folder.path(), &["moody"], |item| {
            watched(item);
            item.quotas.ram_limit = Some(48 * MIB);
        });
        let sm = unit.start_sm();
        unit.cm.until("introduced", |seen| seen.complete > 0).await;
        unit.cm.list(vec![instance(&unit, "moody", image)]).await;
        unit.cm.until_state("moody", "1.0.0", "active").await;
        unit.cm
            .until("measured", |seen| seen.measured.len() >= 3)
            .await;
        order(&unit, "child", true);
        let told = |text: &str| {
            let seen = unit.cm.seen.lock().unwrap();
            seen.alerts.iter().filter(|one| one.contains(text)).count()
        };
        let lost = "the kernel ended one of its processes";
        until("told", || told(lost) > 0).await;
        let count = unit.cm.seen.lock().unwrap().measured.len();
        unit.cm
            .until("measured again", |seen| seen.measured.len() > count + 2)
            .await;
        assert_eq!(told(lost), 1, "once");
        assert_eq!(told("more memory than `quotas.ramLimit` allows, after"), 0);
        unit.cm.until_state("moody", "1.0.0", "active").await;
        sm.end().await;
    });
}

#[test]
fn what_was_sent_today_is_counted_on_by_the_next_sm() {
    let test = "what_was_sent_today_is_counted_on_by_the_next_sm";
    run(test, async |mut unit: Unit| {
        unit.options.monitoring.period_secs = PERIOD.as_secs();
        let image = item::publish(&unit.images, unit.folder.path(), &["moody"], watched);
        let sm = unit.start_sm();
        unit.cm.until("introduced", |seen| seen.complete > 0).await;
        unit.cm.list(vec![instance(&unit, "moody", image)]).await;
        unit.cm.until_state("moody", "1.0.0", "active").await;
        let sent = || {
            let seen = unit.cm.seen.lock().unwrap();
            let last = seen.measured.last();
            last.and_then(|last| last.instances_monitoring.first()?.monitoring_data.clone())
                .map_or(0, |usage| usage.upload)
        };
        order(&unit, "flood", true);
        until("sent", || sent() > MIB).await;
        order(&unit, "flood", false);
        let count = || unit.cm.seen.lock().unwrap().measured.len();
        let before = count();
        until("measured", || count() > before + 2).await;
        let before = sent();
        sm.end().await;
        let told = count();
        let sm = unit.start_sm();
        until("measured again", || count() > told + 1).await;
        // Day by day; a test at midnight may see the next one.
        assert!(sent() >= before, "{} after {before}", sent());
        sm.end().await;
    });
}

#[test]
fn an_alert_survives_a_restart_of_sm_and_ends_with_its_instance() {
    let test = "an_alert_survives_a_restart_of_sm_and_ends_with_its_instance";
    run(test, async |mut unit: Unit| {
        unit.options.monitoring.period_secs = PERIOD.as_secs();
        let image = item::publish(&unit.images, unit.folder.path(), &["moody"], watched);
        let sm = unit.start_sm();
        unit.cm.until("introduced", |seen| seen.complete > 0).await;
        unit.cm.list(vec![instance(&unit, "moody", image)]).await;
        unit.cm.until_state("moody", "1.0.0", "active").await;
        order(&unit, "hog", true);
        until("raised", || word(&unit, "ram", "raise").is_some()).await;
        sm.end().await;
        let count = unit.cm.seen.lock().unwrap().measured.len();
        let sm = unit.start_sm();
        unit.cm
            .until("measured again", |seen| seen.measured.len() > count + 3)
            .await;
        let told = |status: &str| {
            let seen = unit.cm.seen.lock().unwrap();
            seen.quotas
                .iter()
                .filter(|told| told.status == status)
                .count()
        };
        assert_eq!((told("raise"), told("fall")), (1, 0), "it goes on");
        // Averages are there for who asks.
        let ask = SmIncomingMessage::GetAverageMonitoring(Default::default());
        unit.cm.order(ask).await;
        unit.cm
            .until("averages", |seen| !seen.averages.is_empty())
            .await;
        {
            let seen = unit.cm.seen.lock().unwrap();
            let average = &seen.averages[0];
            assert!(average.node_monitoring.as_ref().unwrap().ram > 0);
            let instance = average.instances_monitoring[0]
                .monitoring_data
                .as_ref()
                .unwrap();
            assert!(instance.ram >= 60 * MIB, "{instance:?}");
        }
        // It is taken away: its alert is over.
        unit.cm.list(vec![]).await;
        until("over", || told("fall") == 1).await;
        sm.end().await;
    });
}

#[test]
fn gap_71_an_instance_that_ends_by_itself_is_told_by_an_alert_of_its_own() {
    let test = "gap_71_an_instance_that_ends_by_itself_is_told_by_an_alert_of_its_own";
    run(test, async |unit: Unit| {
        let (store, folder) = (&unit.images, unit.folder.path());
        let fails = item::publish(store, folder, &["exit", "3", "300"], |_| {});
        let good = item::publish(store, folder, &["neighbour"], |_| {});
        let sm = unit.start_sm();
        unit.cm.until("introduced", |seen| seen.complete > 0).await;
        let list = vec![
            unit.cm.instance("fails", 0, "1.0.0", fails),
            unit.cm.instance("good", 0, "1.0.0", good),
        ];
        unit.cm.list(list).await;
        let of_fails = |text: &String| text.starts_with("fails: it ended with exit code 3");
        unit.cm
            .until("told", |seen| seen.alerts.iter().any(of_fails))
            .await;
        // Whoever is stopped because it is not wanted has not failed.
        unit.cm.until_state("good", "1.0.0", "active").await;
        unit.cm.list(vec![]).await;
        unit.cm
            .until("gone", |seen| seen.instances.is_empty())
            .await;
        let seen = unit.cm.seen.lock().unwrap().alerts.clone();
        assert!(
            !seen.iter().any(|text| text.starts_with("good:")),
            "{seen:?}"
        );
        sm.end().await;
    });
}

#[test]
fn rules_that_cannot_be_followed_are_explained() {
    let test = "rules_that_cannot_be_followed_are_explained";
    run(test, async |mut unit: Unit| {
        unit.options.monitoring.period_secs = PERIOD.as_secs();
        let image = item::publish(&unit.images, unit.folder.path(), &["web"], |item| {
            item.alert_rules = Some(AlertRules {
                partitions: vec![PartitionAlertRule {
                    name: "attic".into(),
                    rule: AlertRule {
                        min_timeout: HOLD,
                        min_threshold: 1.0,
                        max_threshold: 2.0,
                    },
                }],
                ..AlertRules::default()
            });
        });
        let sm = unit.start_sm();
        unit.cm.until("introduced", |seen| seen.complete > 0).await;
        unit.cm
            .list(vec![unit.cm.instance("web", 0, "1.0.0", image)])
            .await;
        let explained = |text: &String| {
            text.starts_with("web: its alert rule for `attic` is not followed: the size of what")
        };
        unit.cm
            .until("explained", |seen| seen.alerts.iter().any(explained))
            .await;
        sm.end().await;
    });
}
