//! How fast the keeper takes in what an instance writes, beside `cat` to a file.
//!
//! `log_throughput [MEGABYTES]` prints one JSON object: megabytes a second of text, the floor, the ratio. The same program
//! writes the same lines, into the keeper's pipe and into the pipe of `cat > FILE` in the same folder.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a program that prints a measurement, or fails loudly"
)]

use std::{
    fs,
    path::Path,
    process::{Command, ExitCode},
    time::Instant,
};

use aos_runtime::keeper::{self, Answer, LogPolicy, Order, StartOrder, Starter};

/// Each is measured so many times, in turn, so that other load meets both; the best counts.
const TURNS: usize = 5;
/// A line as services write them.
const LINE: &str = "GET /json HTTP/1.1 -> 200 OK, 0123456789 0123456789 0123456789";

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    if arguments.nth(1).is_some_and(|word| word == "keeper") {
        return keeper::run(std::env::args_os().skip(2));
    }
    let megabytes: u64 = std::env::args()
        .nth(1)
        .map_or(64, |text| text.parse().expect("a number of megabytes"));
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (mut value, mut floor) = (0_f64, 0_f64);
    for turn in 0..TURNS {
        value = value.max(runtime.block_on(kept(folder.path(), turn, megabytes)));
        floor = floor.max(copied(folder.path(), megabytes));
    }
    println!(
        "{{\"name\":\"log.throughput\",\"value\":{value:.1},\"unit\":\"MB/s\",\"floor\":{floor:.1},\"ratio\":{:.2}}}",
        value / floor
    );
    ExitCode::SUCCESS
}

/// Shell words that write so many megabytes of lines.
fn writer(megabytes: u64) -> String {
    format!("yes \"{LINE}\" | head -c {}", megabytes << 20)
}

async fn kept(folder: &Path, turn: usize, megabytes: u64) -> f64 {
    let starter = Starter {
        program: std::env::current_exe().unwrap(),
        socket: folder.join("keeper.sock"),
        state_dir: folder.join("keeper"),
    };
    let (client, mut events, _) = starter.connect().await.unwrap();
    let id = format!("writer-{turn}");
    let bundle = folder.join(&id);
    fs::create_dir_all(&bundle).unwrap();
    let pid_file = bundle.join("pid");
    let launcher = format!(
        "sh -c '{}' & echo $! > {}",
        writer(megabytes),
        pid_file.to_string_lossy()
    );
    let order = StartOrder {
        id: id.clone(),
        bundle,
        argv: vec!["sh".into(), "-c".into(), launcher],
        pid_file,
        hide: Vec::new(),
        deadline_ms: 5_000,
        log: LogPolicy::default(),
    };
    let began = Instant::now();
    match client.tell(Order::Start(order)).await.unwrap() {
        Answer::Running { .. } => {}
        other => panic!("{other:?}"),
    }
    // Its end is told when all that it wrote is written down.
    let exit = events.next().await.unwrap();
    let seconds = began.elapsed().as_secs_f64();
    assert_eq!(exit.id, id);
    let written = fs::read_to_string(folder.join(format!("keeper/logs/{id}.log"))).unwrap();
    assert!(written.ends_with(&format!("{}\n", LINE.get(..3).unwrap())) || written.contains(LINE));
    client
        .tell(Order::Ack {
            seqs: vec![exit.seq],
        })
        .await
        .unwrap();
    client.tell(Order::Forget { id, logs: true }).await.unwrap();
    if turn + 1 == TURNS {
        client.tell(Order::StopKeeper).await.unwrap();
    }
    megabytes as f64 / seconds
}

fn copied(folder: &Path, megabytes: u64) -> f64 {
    let file = folder.join("copied");
    let began = Instant::now();
    let status = Command::new("sh")
        .arg("-c")
        .arg(format!("{} | cat > {}", writer(megabytes), file.display()))
        .status()
        .unwrap();
    let seconds = began.elapsed().as_secs_f64();
    assert!(status.success());
    fs::remove_file(file).unwrap();
    megabytes as f64 / seconds
}
