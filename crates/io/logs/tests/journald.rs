//! The system's log from a real journald, in namespaces of the test's own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests may fail loudly"
)]

use std::{
    fs,
    os::unix::net::UnixDatagram,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use aos_log::{Line, Span};
use aos_logs::{SystemLog, SystemOptions};
use aos_time::{Clock, SystemClock};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

const JOURNALD: &str = "/lib/systemd/systemd-journald";

/// journald over an empty `/run`, or why there is none. The calling thread is in a mount namespace of its own then.
fn journald(test: &str) -> Option<Running> {
    let skipped = |why: &str| {
        eprintln!("SKIPPED {test}: {why}");
        None
    };
    if !rustix::process::geteuid().is_root() {
        return skipped("needs root");
    }
    if !Path::new(JOURNALD).exists()
        || Command::new("journalctl")
            .arg("--version")
            .output()
            .is_err()
    {
        return skipped("needs systemd-journald and journalctl");
    }
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none).unwrap();
    let child = Command::new(JOURNALD)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let running = Running(child);
    let until = Instant::now() + Duration::from_secs(10);
    while !Path::new("/run/systemd/journal/socket").exists() {
        if Instant::now() > until {
            return skipped("systemd-journald does not start without systemd here");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    // A machine id names the folder of the journal; a machine without one gets a journal without it.
    Some(running)
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn say(fields: &str) {
    let socket = UnixDatagram::unbound().unwrap();
    socket
        .send_to(fields.as_bytes(), "/run/systemd/journal/socket")
        .unwrap();
}

fn lines(log: &SystemLog, span: Span) -> Vec<Line> {
    let mut lines = Vec::new();
    log.newest_first(&span, &mut |line| {
        lines.push(line);
        true
    })
    .unwrap();
    lines.reverse();
    lines
}

#[test]
fn the_journal_is_read_backwards_within_a_time_and_followed() {
    let Some(_running) = journald("the_journal_is_read_backwards_within_a_time_and_followed")
    else {
        return;
    };
    let began = SystemClock.now();
    for number in 0..50 {
        say(&format!(
            "MESSAGE=line {number}\nSYSLOG_IDENTIFIER=tester\nPRIORITY=6\n"
        ));
    }
    let log = SystemLog::open(SystemOptions::default());
    if log.name() != "journald" {
        let there = fs::read_dir("/run/log/journal").is_ok();
        panic!("journald runs and is not found; its folder is there: {there}");
    }
    let ours = |lines: Vec<Line>| -> Vec<String> {
        let lines = lines.into_iter().filter(|line| line.source == "tester");
        lines.map(|line| line.text).collect()
    };
    let until = Instant::now() + Duration::from_secs(10);
    let all = loop {
        let found = ours(lines(&log, Span::default()));
        if found.len() == 50 || Instant::now() > until {
            break found;
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    let wanted: Vec<String> = (0..50).map(|number| format!("line {number}")).collect();
    assert_eq!(all, wanted);
    // In another time there was nothing.
    let before = Span {
        from: None,
        till: Some(began),
    };
    assert!(ours(lines(&log, before)).is_empty());
    // Whoever has enough is not shown more.
    let mut shown = Vec::new();
    log.newest_first(&Span::default(), &mut |line| {
        shown.push(line);
        shown.len() < 3
    })
    .unwrap();
    assert_eq!(shown.len(), 3);

    // This thread alone is in the namespace, so it runs everything.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut tail = log.follow().unwrap();
        // journalctl has to come up before it hears.
        tokio::time::sleep(Duration::from_millis(500)).await;
        say("MESSAGE=as it comes\nSYSLOG_IDENTIFIER=tester\n");
        let heard = async {
            loop {
                let lines = tail.next().await.unwrap();
                assert!(!lines.is_empty(), "journalctl has ended");
                if lines.iter().any(|line| line.text == "as it comes") {
                    return;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(10), heard)
            .await
            .expect("heard in time");
    });
}
