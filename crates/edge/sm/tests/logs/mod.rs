//! Logs of real containers, asked for and followed over the real streams.

use std::{fs, time::Duration};

use aos_ipc::{
    convert::time_to_proto,
    proto::{
        aos::node::v1::{FollowLog, node_order::Order},
        common::v2::InstanceFilter,
        servicemanager::v5::{self as pb, sm_incoming_messages::SmIncomingMessage},
    },
};
use aos_time::{Clock, SystemClock};

use crate::{
    pids,
    unit::{Unit, item, run, signal, until},
};

/// A service of a few lines of shell, that is not started again soon.
fn script(unit: &Unit, text: &str) -> aos_types::Digest {
    let (store, folder) = (&unit.images, unit.folder.path());
    item::publish_as(
        store,
        folder,
        "/bin/sh",
        &["-c", text],
        text.as_bytes(),
        |item| {
            item.base_layer_is_node_rootfs = true;
            item.run_parameters.restart_interval = Duration::from_secs(60);
        },
    )
}

fn any() -> InstanceFilter {
    InstanceFilter {
        instance: -1,
        ..InstanceFilter::default()
    }
}

fn of(item: &str) -> InstanceFilter {
    InstanceFilter {
        item_id: item.into(),
        ..any()
    }
}

/// Asks, waits for the whole answer, and gives its words and its text.
async fn ask(unit: &Unit, id: &str, order: SmIncomingMessage) -> (Vec<pb::LogData>, String) {
    unit.cm.order(order).await;
    unit.cm
        .until(&format!("answered {id}"), |seen| {
            let parts: Vec<_> = seen
                .logs
                .iter()
                .filter(|part| part.correlation_id == id)
                .collect();
            parts
                .first()
                .is_some_and(|first| parts.len() as u64 >= first.part_count)
        })
        .await;
    let seen = unit.cm.seen.lock().unwrap();
    let parts: Vec<pb::LogData> = seen
        .logs
        .iter()
        .filter(|part| part.correlation_id == id)
        .cloned()
        .collect();
    let text = parts
        .iter()
        .map(|part| text_of(&part.data))
        .collect::<String>();
    (parts, text)
}

fn text_of(data: &[u8]) -> String {
    if data.is_empty() {
        return String::new();
    }
    String::from_utf8(aos_logs::plain(data, 64 << 20).unwrap()).unwrap()
}

fn log(id: &str, filter: InstanceFilter) -> SmIncomingMessage {
    SmIncomingMessage::InstanceLogRequest(pb::InstanceLogRequest {
        correlation_id: id.into(),
        filter: Some(filter),
        ..Default::default()
    })
}

fn crash(id: &str, filter: InstanceFilter) -> SmIncomingMessage {
    SmIncomingMessage::InstanceCrashLogRequest(pb::InstanceCrashLogRequest {
        correlation_id: id.into(),
        filter: Some(filter),
        ..Default::default()
    })
}

#[test]
fn gap_69_a_crash_log_has_the_exit_and_the_last_output_also_when_the_instance_is_gone() {
    let test = "gap_69_a_crash_log_has_the_exit_and_the_last_output_also_when_the_instance_is_gone";
    run(test, async |unit: Unit| {
        let fall = script(
            &unit,
            "echo before the fall; echo aside >&2; while :; do sleep 1; done",
        );
        let leave = script(&unit, "echo leaving; exit 3");
        let well = script(&unit, "echo well; exit 0");
        let sm = unit.start_sm();
        let cm = &unit.cm;
        cm.until("introduced", |seen| seen.complete > 0).await;
        cm.list(vec![
            cm.instance("fall", 0, "1.0.0", fall),
            cm.instance("leave", 1, "2.0.0", leave),
            cm.instance("well", 2, "1.0.0", well),
        ])
        .await;
        cm.until("two have ended", |seen| seen.exits.len() >= 2)
            .await;
        // The first process of a container hears of its own signals only what it handles: it is ended from outside.
        until("one runs on", || pids(&unit).len() == 1).await;
        for n in 0.. {
            let id = format!("said-{n}");
            let (_, said) = ask(&unit, &id, log(&id, of("fall"))).await;
            if said.contains("before the fall") && said.contains("aside") {
                break;
            }
            assert!(n < 100, "it says nothing");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        signal(pids(&unit)[0], "-KILL");
        cm.until("all have ended", |seen| seen.exits.len() >= 3)
            .await;
        let (parts, text) = ask(&unit, "a", crash("a", of("fall"))).await;
        assert_eq!(parts[0].status, "ok", "{parts:?}");
        for wanted in [
            "[fall:subject:0] # crash of fall:subject:0 version 1.0.0",
            "# ended by signal 9 (SIGKILL)",
            "[fall:subject:0] before the fall",
            "[fall:subject:0 stderr] aside",
        ] {
            assert!(text.contains(wanted), "`{wanted}` is missing in\n{text}");
        }
        let (_, text) = ask(&unit, "b", crash("b", any())).await;
        assert!(
            text.contains("# exit code 3") && text.contains("leaving"),
            "{text}"
        );
        assert!(
            text.contains("before the fall") && !text.contains("well"),
            "{text}"
        );
        // To end well is no crash.
        let (parts, _) = ask(&unit, "c", crash("c", of("well"))).await;
        assert_eq!(parts[0].status, "empty");

        // SM is started anew, the instance is removed: its crash is found all the same, and its log.
        cm.list(vec![]).await;
        sm.kill().await;
        let sm = unit.start_sm();
        cm.until("connected again", |seen| seen.connections > 1)
            .await;
        let (parts, text) = ask(&unit, "d", crash("d", of("fall"))).await;
        assert_eq!(parts[0].status, "ok");
        assert!(
            text.contains("SIGKILL") && text.contains("before the fall"),
            "{text}"
        );
        let (_, text) = ask(&unit, "e", log("e", of("leave"))).await;
        assert!(text.contains("[leave:subject:1] leaving\n"), "{text}");
        // In another time there was none.
        let long_ago = SmIncomingMessage::InstanceCrashLogRequest(pb::InstanceCrashLogRequest {
            correlation_id: "f".into(),
            filter: Some(of("fall")),
            till: Some(time_to_proto(
                SystemClock.now() - Duration::from_secs(3_600),
            )),
            ..Default::default()
        });
        let (parts, _) = ask(&unit, "f", long_ago).await;
        assert_eq!(parts[0].status, "empty");
        sm.end().await;
    });
}

#[test]
fn gap_70_without_an_index_all_instances_are_asked_and_an_unknown_one_is_explained() {
    let test = "gap_70_without_an_index_all_instances_are_asked_and_an_unknown_one_is_explained";
    run(test, async |unit: Unit| {
        let talker = script(&unit, "echo I am $AOS_INSTANCE_INDEX; exec sleep 1000");
        let sm = unit.start_sm();
        let cm = &unit.cm;
        cm.until("introduced", |seen| seen.complete > 0).await;
        let three = (0..3).map(|index| cm.instance("talker", index, "1.0.0", talker));
        cm.list(three.collect()).await;
        let said = |unit: &Unit| {
            let folder = fs::read_dir(unit.path("sm/keeper/logs")).unwrap().flatten();
            let lengths = folder.map(|entry| entry.metadata().unwrap().len());
            lengths.filter(|length| *length > 0).count()
        };
        until("all have spoken", || said(&unit) == 3).await;
        let (_, text) = ask(&unit, "a", log("a", of("talker"))).await;
        for index in 0..3 {
            let line = format!("[talker:subject:{index}] I am {index}\n");
            assert!(text.contains(&line), "{text}");
        }
        let one = InstanceFilter {
            instance: 1,
            ..of("talker")
        };
        let (_, text) = ask(&unit, "b", log("b", one)).await;
        assert!(
            text.contains("I am 1") && !text.contains("I am 0"),
            "{text}"
        );
        let (parts, _) = ask(&unit, "c", log("c", of("nobody"))).await;
        assert_eq!(parts[0].status, "absent");
        let why = parts[0].error.clone().unwrap().message;
        assert!(
            why.contains("nobody:*:*") && why.contains("talker:subject:0"),
            "{why}"
        );
        // Ten years, nothing, and the wrong way round: answered.
        let span = |id: &str, from, till| {
            SmIncomingMessage::InstanceLogRequest(pb::InstanceLogRequest {
                correlation_id: id.into(),
                filter: Some(any()),
                from: Some(time_to_proto(from)),
                till: Some(time_to_proto(till)),
            })
        };
        let now = SystemClock.now();
        let years = Duration::from_secs(10 * 365 * 24 * 3_600);
        let (_, text) = ask(&unit, "d", span("d", now - years, now + years)).await;
        assert_eq!(text.lines().count(), 3, "{text}");
        for (id, from, till) in [("e", now, now), ("f", now + years, now)] {
            let (parts, _) = ask(&unit, id, span(id, from, till)).await;
            assert_eq!(parts[0].status, "empty");
        }
        // More than can wait are answered too.
        for number in 0..40 {
            cm.order(log(&format!("many-{number}"), any())).await;
        }
        cm.until("all are answered", |seen| {
            let of = |part: &&pb::LogData| part.correlation_id.starts_with("many-");
            seen.logs.iter().filter(of).count() >= 40
        })
        .await;
        cm.list(vec![]).await;
        sm.end().await;
    });
}

#[test]
fn a_service_that_floods_its_log_is_bounded_and_its_neighbour_is_heard() {
    let test = "a_service_that_floods_its_log_is_bounded_and_its_neighbour_is_heard";
    run(test, async |mut unit: Unit| {
        unit.options.logs.file_bytes = 256 << 10;
        unit.options.logs.instance_bytes = 128 << 10;
        let flood = script(
            &unit,
            "n=0; while :; do n=$((n+1)); echo flood $n 0123456789012345678901234567890123456789; done",
        );
        let quiet = script(&unit, "while :; do echo still here; sleep 0.2; done");
        let sm = unit.start_sm();
        let cm = &unit.cm;
        cm.until("introduced", |seen| seen.complete > 0).await;
        cm.list(vec![
            cm.instance("flood", 0, "1.0.0", flood),
            cm.instance("quiet", 1, "1.0.0", quiet),
        ])
        .await;
        let archive = unit.path("sm/logs");
        let archived = || -> u64 {
            let folders = fs::read_dir(&archive).into_iter().flatten().flatten();
            let files =
                folders.flat_map(|folder| fs::read_dir(folder.path()).into_iter().flatten());
            files
                .flatten()
                .filter(|file| file.file_name().to_string_lossy().ends_with(".log.gz"))
                .filter_map(|file| Some(file.metadata().ok()?.len()))
                .sum()
        };
        until("something is archived", || archived() > 0).await;
        // Live: bounded, and it says what was left out.
        cm.node_order(Order::FollowLog(FollowLog {
            correlation_id: "live".into(),
            filter: Some(any()),
            till: Some(time_to_proto(SystemClock.now() + Duration::from_secs(4))),
            ..FollowLog::default()
        }))
        .await;
        cm.until("the live log has ended", |seen| {
            seen.lines.iter().any(|lines| lines.end)
        })
        .await;
        let text: String = {
            let seen = cm.seen.lock().unwrap();
            seen.lines
                .iter()
                .map(|lines| text_of(&lines.data))
                .collect()
        };
        assert!(text.len() < 1 << 20, "{} bytes in 4 s", text.len());
        assert!(
            text.contains("more came than"),
            "it says that lines are missing"
        );
        let (parts, text) = ask(&unit, "a", log("a", of("flood"))).await;
        assert!(parts.len() <= 80 && text.lines().count() > 1_000);
        // Of the newest there is no gap.
        let numbers: Vec<u64> = text
            .lines()
            .filter_map(|line| line.split("flood ").nth(1)?.split(' ').next()?.parse().ok())
            .collect();
        let newest = &numbers[numbers.len() - 1_000..];
        assert!(newest.windows(2).all(|two| two[0] + 1 == two[1]));
        let (_, text) = ask(&unit, "b", log("b", of("quiet"))).await;
        assert!(
            text.lines().count() >= 5 && text.contains("still here"),
            "{text}"
        );
        cm.list(vec![]).await;
        sm.end().await;
    });
}

#[test]
fn a_live_log_tells_lines_as_they_come_until_it_is_ended() {
    let test = "a_live_log_tells_lines_as_they_come_until_it_is_ended";
    run(test, async |unit: Unit| {
        let ticker = script(&unit, "while :; do echo tick $((n=n+1)); sleep 0.1; done");
        let sm = unit.start_sm();
        let cm = &unit.cm;
        cm.until("introduced", |seen| seen.complete > 0).await;
        cm.list(vec![cm.instance("ticker", 0, "1.0.0", ticker)])
            .await;
        let follow = |till: Duration| {
            Order::FollowLog(FollowLog {
                correlation_id: "live".into(),
                filter: Some(of("ticker")),
                from: Some(time_to_proto(SystemClock.now() - Duration::from_secs(60))),
                till: Some(time_to_proto(SystemClock.now() + till)),
                ..FollowLog::default()
            })
        };
        let text = || -> String {
            let seen = cm.seen.lock().unwrap();
            seen.lines
                .iter()
                .map(|lines| text_of(&lines.data))
                .collect()
        };
        cm.node_order(follow(Duration::from_secs(60))).await;
        until("what was said before is told", || {
            text().contains("] tick 1\n")
        })
        .await;
        until("and what comes", || text().contains("] tick 20\n")).await;
        // It is started again: the file goes on.
        signal(pids(&unit)[0], "-KILL");
        cm.until("it has ended", |seen| !seen.exits.is_empty())
            .await;
        cm.list(vec![]).await;
        let again = script(&unit, "while :; do echo tock $((n=n+1)); sleep 0.1; done");
        cm.list(vec![cm.instance("ticker", 0, "2.0.0", again)])
            .await;
        until("the next version is heard", || {
            text().contains("] tock 3\n")
        })
        .await;
        let told = text();
        let ticks: Vec<&str> = told.lines().filter(|line| line.contains("tick ")).collect();
        let mut once = ticks.clone();
        once.dedup();
        assert_eq!(ticks, once, "each line once");
        // Its end is moved to now.
        cm.node_order(follow(Duration::ZERO)).await;
        cm.until("ended", |seen| seen.lines.iter().any(|lines| lines.end))
            .await;
        let last = cm.seen.lock().unwrap().lines.last().cloned().unwrap();
        assert!(last.error.is_none(), "{last:?}");
        cm.list(vec![]).await;
        sm.end().await;
    });
}

#[test]
fn gap_72_the_systems_log_comes_in_parts_the_newest_first_to_be_kept() {
    let test = "gap_72_the_systems_log_comes_in_parts_the_newest_first_to_be_kept";
    run(test, async |mut unit: Unit| {
        // 30 MB of text: more than an answer may have.
        let own = unit.path("aos.log");
        let now = SystemClock.now();
        let line = |n: u64| {
            let at = now - Duration::from_millis(1_000_000 - n);
            format!("{at}  INFO line {n} {}\n", "x".repeat(60))
        };
        let lines = |range: std::ops::Range<u64>| range.map(line).collect::<String>();
        fs::write(unit.path("aos.log.1"), lines(0..150_000)).unwrap();
        fs::write(&own, lines(150_000..300_000)).unwrap();
        unit.options.logs.own = Some(own);
        let sm = unit.start_sm();
        unit.cm.until("introduced", |seen| seen.complete > 0).await;
        let order = SmIncomingMessage::SystemLogRequest(pb::SystemLogRequest {
            correlation_id: "a".into(),
            ..Default::default()
        });
        let (parts, text) = ask(&unit, "a", order).await;
        assert_eq!(parts.len(), 80);
        assert!(
            parts
                .iter()
                .all(|part| part.status == "ok" && part.part_count == 80)
        );
        let compressed: usize = parts.iter().map(|part| part.data.len()).sum();
        assert!(compressed < text.len() / 3);
        assert!(
            text.starts_with("# older lines were left out"),
            "{}",
            &text[..200]
        );
        assert!(text.contains("[aos] INFO line 299999 "));
        // A shorter time is whole.
        let order = SmIncomingMessage::SystemLogRequest(pb::SystemLogRequest {
            correlation_id: "b".into(),
            from: Some(time_to_proto(
                now - Duration::from_millis(1_000_000 - 299_000),
            )),
            till: Some(time_to_proto(
                now - Duration::from_millis(1_000_000 - 299_500),
            )),
        });
        let (_, text) = ask(&unit, "b", order).await;
        let ours = text.lines().filter(|line| line.contains("[aos] INFO line"));
        assert_eq!(ours.count(), 500);
        sm.end().await;
    });
}
