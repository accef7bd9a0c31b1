//! A CM that has nothing to do writes nothing: flash wears out.

use std::time::Duration;

use super::stage::{Stage, desired};

/// How long it is watched: pings go by, deltas would, and the Nodes are looked at.
const WATCHED: Duration = Duration::from_secs(6);

/// Bytes that this process has had written to disks so far.
fn written() -> u64 {
    let told = std::fs::read_to_string("/proc/self/io").unwrap();
    let line = told
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes: "));
    line.unwrap().parse().unwrap()
}

#[tokio::test]
#[allow(clippy::print_stderr, reason = "a skipped test says so")]
async fn an_idle_cm_writes_nothing_to_disk() {
    let mut stage = Stage::new(&["main", "second"]).await;
    stage.options.ping_secs = 1;
    stage.options.silence_secs = 5;
    let before = written();
    stage.start().await;
    stage
        .settle(desired(&[("web", "1", 2), ("db", "1", 1)]))
        .await;
    if written() == before {
        let skipped = "the temporary folder is on no disk whose writes the kernel counts";
        eprintln!("SKIPPED an_idle_cm_writes_nothing_to_disk: {skipped}");
        return;
    }
    // What the update leaves to be written is written, on a busy machine later; then there is silence.
    let mut settled = before;
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let now = written();
        if std::mem::replace(&mut settled, now) == now {
            break;
        }
    }
    tokio::time::sleep(WATCHED).await;
    assert_eq!(
        written() - settled,
        0,
        "bytes written while nothing happened"
    );
    stage.stop().await;
}
