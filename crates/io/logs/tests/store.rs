//! What instances wrote, on a real disk.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may fail loudly"
)]

use std::{fs, io::Write as _, path::PathBuf, time::Duration};

use aos_log::{Crash, Keep, Limits, Span};
use aos_logs::{InstanceLogs, Tail, gather, plain};
use aos_time::Timestamp;

const ID: &str = "6f0c4f3a-7c0e-5b9a-9d0e-3f1d2c4b5a69";

struct Place {
    folder: tempfile::TempDir,
    logs: InstanceLogs,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let keeper = folder.path().join("keeper");
        fs::create_dir(&keeper).unwrap();
        let logs = InstanceLogs::open(vec![keeper], folder.path().join("archive")).unwrap();
        Self { folder, logs }
    }

    fn keeper(&self, name: &str) -> PathBuf {
        self.folder.path().join("keeper").join(name)
    }

    /// Writes numbered lines, a second each, as the keeper does.
    fn write(&self, name: &str, seconds: std::ops::Range<i64>) {
        let text: String = seconds
            .map(|n| format!("{} stdout F line {n}\n", Timestamp::from_secs(n)))
            .collect();
        let mut file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.keeper(name))
            .unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    /// The numbers of the lines that are found, the newest first.
    fn found(&self, from: Option<i64>, till: Option<i64>) -> Vec<i64> {
        let span = Span {
            from: from.map(Timestamp::from_secs),
            till: till.map(Timestamp::from_secs),
        };
        let mut found = Vec::new();
        let mut visit = |line: aos_log::Line| {
            found.push(line.text.strip_prefix("line ").unwrap().parse().unwrap());
            true
        };
        self.logs.newest_first(ID, "i", &span, &mut visit).unwrap();
        found
    }
}

fn down(range: std::ops::Range<i64>) -> Vec<i64> {
    range.rev().collect()
}

#[test]
fn lines_are_found_wherever_they_are_kept_each_once() {
    let place = Place::new();
    place.write(&format!("{ID}.log.2"), 0..10);
    place.write(&format!("{ID}.log.1"), 10..20);
    place.write(&format!("{ID}.log"), 20..30);
    assert_eq!(place.found(None, None), down(0..30));
    assert_eq!(place.logs.take_rotated().unwrap(), 2);
    assert!(!place.keeper(&format!("{ID}.log.1")).exists());
    assert_eq!(place.found(None, None), down(0..30));
    assert_eq!(place.found(Some(5), Some(25)), down(5..25));
    assert!(place.found(Some(100), None).is_empty());
    // An archive that was being made when the power went is made again.
    let archive = place.folder.path().join("archive").join(ID);
    fs::rename(place.keeper(&format!("{ID}.log")), archive.join("taking-7")).unwrap();
    fs::write(archive.join("30-40.log.new"), "half").unwrap();
    assert_eq!(place.found(None, None), down(0..30));
    place.logs.take_rotated().unwrap();
    assert_eq!(place.found(None, None), down(0..30));
    assert_eq!(fs::read_dir(&archive).unwrap().count(), 3);
    // One that is damaged costs itself only.
    fs::write(archive.join("10000000-19000000.log.gz"), "no gzip").unwrap();
    assert_eq!(
        place.found(None, None),
        [down(20..30), down(0..10)].concat()
    );
    assert_eq!(place.logs.instances().unwrap(), [ID]);
    place.logs.forget(ID).unwrap();
    assert!(place.found(None, None).is_empty() && place.logs.instances().unwrap().is_empty());
}

#[test]
fn what_is_too_old_or_too_much_goes() {
    let place = Place::new();
    for number in 0..10 {
        place.write(&format!("{ID}.log.1"), number * 100..number * 100 + 100);
        place.logs.take_rotated().unwrap();
    }
    let size = |place: &Place| -> u64 {
        fs::read_dir(place.folder.path().join("archive").join(ID))
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .sum()
    };
    let all = size(&place);
    let keep = Keep {
        age: Duration::from_secs(10_000),
        instance_bytes: all / 2,
        bytes: u64::MAX,
    };
    place.logs.tidy(&keep, Timestamp::from_secs(1_000)).unwrap();
    assert!(size(&place) <= all / 2);
    let found = place.found(None, None);
    assert_eq!(found.first(), Some(&999));
    assert_eq!(
        found,
        down(1_000 - i64::try_from(found.len()).unwrap()..1_000)
    );
    place
        .logs
        .tidy(&keep, Timestamp::from_secs(20_000))
        .unwrap();
    assert!(place.found(None, None).is_empty());
}

#[test]
fn crashes_are_kept_with_the_last_output_and_found_by_time() {
    let place = Place::new();
    place.write(&format!("{ID}.log"), 0..1_000);
    for second in [100, 200] {
        let crash = Crash {
            source: "i".into(),
            version: "1.0.0".into(),
            code: Some(3),
            signal: None,
            oom: false,
            at: Timestamp::from_secs(second),
            core: vec![],
        };
        let output = place.logs.last_words(ID, "i", 200).unwrap();
        assert!(output.len() <= 200 && output.ends_with("line 999\n"));
        place.logs.put_crash(ID, &crash, &output).unwrap();
    }
    let found = |from: i64| {
        let span = Span {
            from: Some(Timestamp::from_secs(from)),
            till: None,
        };
        let mut found = Vec::new();
        let mut visit = |text: String| {
            found.push(text.lines().next().unwrap().to_owned());
            true
        };
        place.logs.crashes(ID, &span, &mut visit).unwrap();
        found
    };
    assert_eq!(found(0).len(), 2);
    assert_eq!(
        found(150),
        ["1970-01-01T00:03:20Z [i] # crash of i version 1.0.0"]
    );
    // They are no lines of the log.
    assert_eq!(place.found(None, None), down(0..1_000));
    let wrong = place.logs.put_crash(
        "../x",
        &Crash {
            source: "i".into(),
            version: String::new(),
            code: None,
            signal: None,
            oom: false,
            at: Timestamp::EPOCH,
            core: vec![],
        },
        "",
    );
    wrong.unwrap();
    assert!(!place.folder.path().join("x").exists());
}

#[test]
fn an_answer_is_gathered_in_parts_that_are_gzip_streams_of_their_own() {
    let place = Place::new();
    place.write(&format!("{ID}.log"), 0..100);
    let limits = Limits {
        part_bytes: 1_000,
        parts: 3,
    };
    let gathered = gather(place.folder.path(), limits, |take| {
        let mut visit = |line: aos_log::Line| take(line.render());
        place
            .logs
            .newest_first(ID, "i", &Span::default(), &mut visit)
    })
    .unwrap();
    assert_eq!(gathered.len(), 3);
    let text: Vec<String> = (0..3)
        .map(|n| {
            let content = gathered.part(n).unwrap();
            String::from_utf8(plain(&content[..], 10_000).unwrap()).unwrap()
        })
        .collect();
    assert!(text[0].starts_with("# older lines were left out"));
    assert!(text[2].ends_with("line 99\n") && text[1] < text[2]);
    assert!(gathered.part(3).unwrap().is_empty());
    // Their concatenation is one file that any tool reads.
    let file: Vec<u8> = (0..3).flat_map(|n| gathered.part(n).unwrap()).collect();
    let all = String::from_utf8(plain(&file[..], 10_000).unwrap()).unwrap();
    assert_eq!(all, text.concat());
}

#[test]
fn a_tail_follows_the_file_when_it_is_put_aside() {
    let place = Place::new();
    place.write(&format!("{ID}.log"), 0..10);
    let mut tail = Tail::new(place.keeper(&format!("{ID}.log")), "i".into(), false);
    let texts = |tail: &mut Tail| -> Vec<String> {
        let (lines, passed) = tail.read().unwrap();
        assert_eq!(passed, 0);
        lines.into_iter().map(|line| line.text).collect()
    };
    assert!(texts(&mut tail).is_empty());
    place.write(&format!("{ID}.log"), 10..12);
    assert_eq!(texts(&mut tail), ["line 10", "line 11"]);
    place.write(&format!("{ID}.log"), 12..13);
    fs::rename(
        place.keeper(&format!("{ID}.log")),
        place.keeper(&format!("{ID}.log.1")),
    )
    .unwrap();
    place.logs.take_rotated().unwrap();
    place.write(&format!("{ID}.log"), 13..14);
    assert_eq!(texts(&mut tail), ["line 12", "line 13"]);
    // More than may be told at once: the newest.
    place.write(&format!("{ID}.log"), 14..20_000);
    let (lines, passed) = tail.read().unwrap();
    assert!(passed > 0);
    assert_eq!(lines.last().unwrap().text, "line 19999");
}
