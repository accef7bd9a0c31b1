//! Sources that fail in every way, over real TLS.

use std::time::{Duration, Instant};

use aos_cloud_protocol::{DownloadState, FileHash};
use aos_types::AosCode;

use super::{
    bench::{Bench, With},
    faulty::Mood,
    noise,
};

/// Longer than what a socket buffers, so that a break is seen where it is.
const SIZE: usize = 600_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_bad_source_does_not_keep_a_good_one_from_delivering() {
    for mood in [
        Mood::StallAfter(1000),
        Mood::BreakAfter(1000),
        Mood::Garbled,
        Mood::Status(404),
        Mood::Status(500),
        Mood::Trickle(200),
    ] {
        let bench = Bench::new().await;
        let web = bench.publish("web", &["amd64"], &noise(20_000, 1));
        let bad = bench.faulty(std::slice::from_ref(&mood)).await;
        let good = bench.faulty(&[Mood::Fine]).await;
        bench.cloud.deliver_from(&[&bad, &good]);
        let outcome = bench.fetch(&web).await;
        assert!(outcome.is_ok(), "{mood:?}: {outcome:?}");
        assert!(bad.requests() > 0, "{mood:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_keeps_failing_ends_in_a_failed_item() {
    for (mood, code) in [
        (Mood::StallAfter(0), AosCode::Failed),
        (Mood::BreakAfter(0), AosCode::Failed),
        (Mood::Garbled, AosCode::Failed),
        (Mood::Status(404), AosCode::Failed),
        (Mood::Status(503), AosCode::Failed),
    ] {
        let bench = Bench::new().await;
        let web = bench.publish("web", &["amd64"], &noise(20_000, 1));
        let bad = bench.faulty(std::slice::from_ref(&mood)).await;
        bench.cloud.deliver_from(&[&bad]);
        let outcome = tokio::time::timeout(Duration::from_secs(20), bench.fetch(&web)).await;
        let error = outcome.expect("it ends").unwrap_err();
        assert_eq!(error.aos_code, code as i32, "{mood:?}: {error}");
        // The index: attempts a round, and rounds; a 404 is not asked for twice in a round.
        assert!((2..=4).contains(&bad.requests()), "{mood:?}");
        assert_eq!(bench.here(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_transfer_goes_on_and_is_told() {
    let bench = Bench::new().await;
    let web = bench.publish("web", &["amd64"], &noise(SIZE, 1));
    // Index, manifest, two configs, then the layer.
    let fine = [Mood::Fine, Mood::Fine, Mood::Fine, Mood::Fine];
    let moods = [fine.as_slice(), &[Mood::BreakAfter(100_000), Mood::Fine]].concat();
    let server = bench.faulty(&moods).await;
    bench.cloud.deliver_from(&[&server]);
    bench.fetch(&web).await.unwrap();
    assert_eq!(server.seen().last().unwrap().1, Some(100_000));
    let layer = bench.largest();
    let notices = bench.alerts.0.lock().unwrap().clone();
    let told: Vec<(DownloadState, u64)> = notices
        .into_iter()
        .filter(|(digest, ..)| *digest == layer)
        .map(|(_, state, done, _)| (state, done))
        .collect();
    let size = bench.library.blobs().size(&layer).unwrap().unwrap();
    assert_eq!(
        told,
        [
            (DownloadState::Started, 0),
            (DownloadState::Interrupted, 100_000),
            (DownloadState::Started, 100_000),
            (DownloadState::Finished, size),
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_in_the_middle_of_a_transfer_goes_on_from_there() {
    let mut bench = Bench::new().await;
    let web = bench.publish("web", &["amd64"], &noise(SIZE, 1));
    let fine = [Mood::Fine, Mood::Fine, Mood::Fine, Mood::Fine];
    let moods = [fine.as_slice(), &[Mood::StallAfter(200_000), Mood::Fine]].concat();
    let server = bench.faulty(&moods).await;
    bench.cloud.deliver_from(&[&server]);
    let cut = tokio::time::timeout(Duration::from_millis(600), bench.fetch(&web)).await;
    assert!(cut.is_err(), "the power went in the middle");
    bench.restart().await;
    bench.fetch(&web).await.unwrap();
    let from = server.seen().last().unwrap().1;
    assert!(from.is_some_and(|from| from >= 100_000), "{from:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_ranges_starts_over() {
    let bench = Bench::new().await;
    let web = bench.publish("web", &["amd64"], &noise(SIZE, 1));
    let fine = [Mood::Fine, Mood::Fine, Mood::Fine, Mood::Fine];
    let moods = [fine.as_slice(), &[Mood::BreakAfter(100_000), Mood::NoRange]].concat();
    let server = bench.faulty(&moods).await;
    bench.cloud.deliver_from(&[&server]);
    bench.fetch(&web).await.unwrap();
    assert_eq!(server.requests(), 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_checksum_is_not_believed_and_not_tried_for_ever() {
    let bench = Bench::new().await;
    let web = bench.publish("web", &["amd64"], b"web");
    bench.cloud.lie(|url| url.sha256 = FileHash([1; 32]));
    let error = bench.fetch(&web).await.unwrap_err();
    assert!(error.message.contains("checksum"), "{error}");
    assert_eq!(bench.here(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_gone_for_a_while_is_waited_for() {
    let bench = Bench::new().await;
    let web = bench.publish("web", &["amd64"], b"web");
    // Nobody listens there, and the cloud goes away at the same time: while it is away nothing counts.
    let cloud = bench.cloud.clone();
    bench.cloud.lie(move |url| {
        url.urls = vec!["https://127.0.0.1:1/x".into()];
        cloud.connected.send_replace(false);
    });
    let cloud = bench.cloud.clone();
    let server = bench.faulty(&[Mood::Fine]).await;
    let base = server.url.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(1000)).await;
        cloud.lie(move |url| url.urls = vec![format!("{base}/{}", url.digest.hex())]);
        cloud.connected.send_replace(true);
    });
    bench.fetch(&web).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn downloads_together_keep_the_bound_of_the_rate() {
    let mut with = With::default();
    with.options.bandwidth_limit = 400_000;
    let bench = Bench::with(with).await;
    let items: Vec<_> = (1..4)
        .map(|seed| bench.publish(&format!("i{seed}"), &["amd64"], &noise(100_000, seed)))
        .collect();
    let start = Instant::now();
    let all: Vec<_> = items.iter().collect();
    assert!(bench.download(bench.request(&all)).await.is_empty());
    // 300,000 bytes at 400,000 a second, less the burst.
    assert!(start.elapsed() >= Duration::from_millis(480));
}
