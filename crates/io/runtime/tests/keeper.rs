//! The keeper against real processes: what it starts, writes down, remembers, and survives.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests may fail loudly"
)]

mod node;

use std::{fs, path::Path, time::Duration};

use aos_runtime::{
    ExitCause,
    keeper::{Answer, Client, Events, ExitRecord, Kept, LogPolicy, Order, StartOrder, start_time},
};
use node::{TestNode, alive, kill, until};
use tokio::time::timeout;

/// An order whose "OCI runtime" is a shell that leaves `script` behind as an orphan and returns.
fn order(node: &TestNode, id: &str, script: &str) -> StartOrder {
    let bundle = node.path(id);
    fs::create_dir_all(&bundle).unwrap();
    let pid_file = bundle.join("pid");
    let launcher = format!(
        "sh -c '{script}' & echo $! > {}",
        pid_file.to_string_lossy()
    );
    StartOrder {
        id: id.into(),
        bundle,
        argv: vec!["sh".into(), "-c".into(), launcher],
        pid_file,
        hide: Vec::new(),
        deadline_ms: 5_000,
        log: LogPolicy::default(),
    }
}

async fn start(client: &Client, order: StartOrder) -> Kept {
    match client.tell(Order::Start(order)).await.unwrap() {
        Answer::Running { kept, .. } => kept,
        other => panic!("{other:?}"),
    }
}

async fn next(events: &mut Events) -> ExitRecord {
    timeout(Duration::from_secs(10), events.next())
        .await
        .expect("an exit within 10 s")
        .expect("the connection holds")
}

fn log(node: &TestNode, id: &str) -> String {
    fs::read_to_string(node.path("keeper").join(format!("logs/{id}.log"))).unwrap_or_default()
}

#[tokio::test]
async fn exits_are_told_with_their_code_until_acknowledged() {
    let node = TestNode::new();
    let (client, mut events) = node.connect().await;
    let kept = start(
        &client,
        order(&node, "a", "echo hello; echo oops >&2; sleep 0.1; exit 7"),
    )
    .await;
    assert!(kept.child && kept.started > 0, "{kept:?}");
    let exit = next(&mut events).await;
    assert_eq!(
        (exit.id.as_str(), exit.pid, exit.cause),
        ("a", kept.pid, ExitCause::Code(7))
    );
    let text = log(&node, "a");
    assert!(
        text.contains("stdout F hello") && text.contains("stderr F oops"),
        "{text}"
    );

    // A caller that comes back hears it again; one that acknowledged does not.
    drop((client, events));
    let (client, mut events) = node.connect().await;
    assert_eq!(next(&mut events).await, exit);
    client
        .tell(Order::Ack {
            seqs: vec![exit.seq],
        })
        .await
        .unwrap();
    match client.tell(Order::Exits { since: 0 }).await.unwrap() {
        Answer::Exits { exits } => assert!(exits.is_empty()),
        other => panic!("{other:?}"),
    }
    client
        .tell(Order::Forget {
            id: "a".into(),
            logs: true,
        })
        .await
        .unwrap();
    assert_eq!(log(&node, "a"), "");
}

#[tokio::test]
async fn the_caller_may_die_and_nothing_is_lost() {
    let node = TestNode::new();
    let (client, events) = node.connect().await;
    let kept = start(&client, order(&node, "a", "exec sleep 60")).await;
    let keeper = node.keeper_pid().unwrap();
    drop((client, events));

    kill(kept.pid, "-TERM");
    until("the service has ended", || !alive(kept.pid)).await;
    let (client, mut events) = node.connect().await;
    assert_eq!(next(&mut events).await.cause, ExitCause::Signal(15));
    assert_eq!(node.keeper_pid(), Some(keeper), "the same keeper all along");

    // It is nobody's child here, in a session of its own.
    let stat = fs::read_to_string(format!("/proc/{keeper}/stat")).unwrap();
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .collect();
    assert_ne!(fields[1], std::process::id().to_string(), "its parent");
    assert_eq!(fields[3], keeper.to_string(), "its session");
    client.tell(Order::StopKeeper).await.unwrap();
    until("the keeper has ended", || !alive(keeper)).await;
}

#[tokio::test]
async fn a_dead_keeper_does_not_hurt_the_service() {
    let node = TestNode::new();
    let (client, mut events) = node.connect().await;
    let script = "n=0; while :; do n=$((n+1)); echo line $n; sleep 0.02; done";
    let kept = start(&client, order(&node, "a", script)).await;
    until("it talks", || log(&node, "a").contains("line 3")).await;

    let keeper = node.keeper_pid().unwrap();
    kill(keeper, "-KILL");
    assert_eq!(events.next().await, None, "the caller notices");
    assert!(client.tell(Order::List).await.is_err());
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(alive(kept.pid), "no SIGPIPE, no hang-up");

    let (client, mut events, new) = node.starter.connect().await.unwrap();
    assert!(new);
    let adopt = |started| Order::Adopt {
        id: "a".into(),
        pid: kept.pid,
        started,
        bundle: node.path("a"),
        log: LogPolicy::default(),
    };
    // A process of that number which started at another time is another process.
    assert_eq!(
        client.tell(adopt(kept.started + 1)).await.unwrap(),
        Answer::Gone
    );
    match client.tell(adopt(kept.started)).await.unwrap() {
        Answer::Running {
            kept: again,
            already,
        } => {
            assert_eq!((again.pid, again.child, already), (kept.pid, false, false));
        }
        other => panic!("{other:?}"),
    }
    let before = log(&node, "a").len();
    until("its output is taken again", || {
        log(&node, "a").len() > before
    })
    .await;

    let signal = Order::Signal {
        id: "a".into(),
        signal: 9,
    };
    assert_eq!(client.tell(signal).await.unwrap(), Answer::Done);
    let exit = next(&mut events).await;
    assert_eq!((exit.pid, exit.cause), (kept.pid, ExitCause::Unknown));
}

#[tokio::test]
async fn what_the_runtime_does_is_answered() {
    let node = TestNode::new();
    let (client, mut events) = node.connect().await;

    let mut failing = order(&node, "f", "true");
    failing.argv = vec!["sh".into(), "-c".into(), "exit 4".into()];
    assert_eq!(
        client.tell(Order::Start(failing.clone())).await.unwrap(),
        Answer::Failed {
            cause: ExitCause::Code(4)
        }
    );
    failing.argv = vec!["/no/such/program".into()];
    let error = client
        .tell(Order::Start(failing.clone()))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("/no/such/program"), "{error}");
    failing.argv = vec!["sleep".into(), "60".into()];
    failing.deadline_ms = 50;
    assert_eq!(
        client.tell(Order::Start(failing.clone())).await.unwrap(),
        Answer::TooLate
    );
    failing.id = "../f".into();
    assert!(client.tell(Order::Start(failing)).await.is_err());

    let kept = start(&client, order(&node, "a", "exec sleep 60")).await;
    match client
        .tell(Order::Start(order(&node, "a", "exec sleep 60")))
        .await
        .unwrap()
    {
        Answer::Running {
            kept: same,
            already,
        } => {
            assert_eq!((same.pid, already), (kept.pid, true));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(
        client
            .tell(Order::Signal {
                id: "x".into(),
                signal: 9
            })
            .await
            .unwrap(),
        Answer::Gone
    );
    client
        .tell(Order::Signal {
            id: "a".into(),
            signal: 9,
        })
        .await
        .unwrap();
    assert_eq!(next(&mut events).await.cause, ExitCause::Signal(9));
}

#[tokio::test]
async fn many_short_lives_are_all_told_once() {
    let node = TestNode::new();
    let (client, mut events) = node.connect().await;
    let mut starts = tokio::task::JoinSet::new();
    for number in 0..40 {
        let client = client.clone();
        let order = order(
            &node,
            &format!("s{number}"),
            &format!("sleep 0.1; exit {number}"),
        );
        starts.spawn(async move { start(&client, order).await });
    }
    let mut pids = Vec::new();
    while let Some(kept) = starts.join_next().await {
        pids.push(kept.unwrap().pid);
    }
    let mut codes: Vec<i32> = Vec::new();
    for _ in 0..40 {
        let exit = next(&mut events).await;
        assert!(pids.contains(&exit.pid));
        match exit.cause {
            ExitCause::Code(code) if exit.id == format!("s{code}") => codes.push(code),
            other => panic!("{} ended by {other}", exit.id),
        }
    }
    codes.sort_unstable();
    assert_eq!(codes, (0..40).collect::<Vec<_>>());
}

#[tokio::test]
async fn only_one_keeper_works_in_a_folder_and_it_is_small() {
    let node = TestNode::new();
    let (client, _events) = node.connect().await;
    let keeper = node.keeper_pid().unwrap();
    let again = std::process::Command::new(&node.starter.program)
        .arg("keeper")
        .arg("--socket")
        .arg(node.path("run/other.sock"))
        .arg("--state-dir")
        .arg(&node.starter.state_dir)
        .output()
        .unwrap();
    assert_eq!(again.status.code(), Some(3));
    let kept = start(&client, order(&node, "a", "exec sleep 60")).await;

    let mode = fs::metadata(&node.starter.socket).unwrap();
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(mode.permissions().mode() & 0o777, 0o600);
    let rollup = fs::read_to_string(format!("/proc/{keeper}/smaps_rollup")).unwrap();
    let private: u64 = rollup
        .lines()
        .filter(|line| line.starts_with("Anonymous:"))
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
        .sum();
    eprintln!("keeper: {private} KiB private");
    assert!(private < 1_024, "{private} KiB");
    let threads = fs::read_dir(Path::new("/proc").join(keeper.to_string()).join("task"))
        .unwrap()
        .count();
    assert_eq!(threads, 1);
    kill(kept.pid, "-KILL");
    assert_eq!(start_time(u32::MAX), None);
}

#[tokio::test]
async fn a_keeper_that_keeps_nothing_ends_by_itself() {
    let node = TestNode::new();
    let started = std::process::Command::new(&node.starter.program)
        .arg("keeper")
        .arg("--socket")
        .arg(&node.starter.socket)
        .arg("--state-dir")
        .arg(&node.starter.state_dir)
        .args(["--idle", "1"])
        .output()
        .unwrap();
    assert!(started.status.success(), "{started:?}");
    let (client, mut events) = node.connect().await;
    let kept = start(&client, order(&node, "a", "exec sleep 60")).await;
    drop((client, events));
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert!(node.keeper_pid().is_some(), "it has a container to keep");

    kill(kept.pid, "-KILL");
    until("the keeper gone", || node.keeper_pid().is_none()).await;
    let client;
    (client, events) = node.connect().await;
    assert_eq!(
        next(&mut events).await.id,
        "a",
        "the exit is told by the next"
    );
    drop(client);
}
