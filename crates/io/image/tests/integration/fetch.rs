use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use aos_image::{
    BlobStore,
    fetch::{Checksum, Error, Fetcher, HashAlgorithm, Policy, SignatureCheck, Source, Throttle},
};
use aos_types::Digest;
use sha2::Sha512;
use sha3::{Digest as _, Sha3_256};
use tokio_util::sync::CancellationToken;

use crate::{
    blob::digest_of,
    server::{Mood, Server},
};

const SIZE: usize = 300_000;

fn content() -> Vec<u8> {
    (0..SIZE).map(|i| (i % 251) as u8).collect()
}

fn policy() -> Policy {
    Policy {
        connect: Duration::from_millis(400),
        stall: Duration::from_millis(400),
        total: Duration::from_secs(20),
        attempts: 4,
        first_pause: Duration::from_millis(5),
        longest_pause: Duration::from_millis(20),
        slowest: 1_000_000,
        watch: Duration::from_millis(200),
    }
}

struct Bench {
    _dir: tempfile::TempDir,
    fetcher: Fetcher,
    digest: Digest,
}

impl Bench {
    fn new() -> Self {
        Self::with(policy())
    }

    fn with(policy: Policy) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let store = BlobStore::open(dir.path()).unwrap();
        Self {
            _dir: dir,
            fetcher: Fetcher::new(store, reqwest::Client::new(), policy),
            digest: digest_of(&content()),
        }
    }

    async fn fetch(&self, source: &Source) -> Result<u64, Error> {
        let stop = CancellationToken::new();
        self.fetcher
            .fetch(&self.digest, source, &|_| {}, &stop)
            .await
            .map(|stored| stored.size)
    }
}

fn source(urls: &[&Server]) -> Source {
    Source {
        urls: urls.iter().map(|server| server.url.clone()).collect(),
        size: SIZE as u64,
        checksum: Some(Checksum(Sha3_256::digest(content()).into())),
        key: None,
        signature: None,
    }
}

#[tokio::test]
async fn a_blob_arrives_and_is_not_fetched_again() {
    let server = Server::start(content(), vec![Mood::Fine]).await;
    let bench = Bench::new();
    let seen = Mutex::new(Vec::new());
    let stop = CancellationToken::new();
    bench
        .fetcher
        .fetch(
            &bench.digest,
            &source(&[&server]),
            &|progress| seen.lock().unwrap().push(progress.done),
            &stop,
        )
        .await
        .unwrap();
    let seen = seen.into_inner().unwrap();
    assert_eq!(seen.last(), Some(&(SIZE as u64)));
    assert!(seen.is_sorted());
    bench.fetch(&source(&[&server])).await.unwrap();
    assert_eq!(server.requests(), 1);
    bench.fetcher.store().verify(&bench.digest).unwrap();
}

#[tokio::test]
async fn a_broken_transfer_goes_on_where_it_stopped() {
    let server = Server::start(
        content(),
        vec![
            Mood::BreakAfter(100_000),
            Mood::StallAfter(50_000),
            Mood::Fine,
        ],
    )
    .await;
    let bench = Bench::new();
    bench.fetch(&source(&[&server])).await.unwrap();
    assert_eq!(server.ranges(), [None, Some(100_000), Some(150_000)]);
}

#[tokio::test]
async fn a_later_call_goes_on_too() {
    let server = Server::start(content(), vec![Mood::BreakAfter(1000), Mood::Fine]).await;
    let bench = Bench::with(Policy {
        attempts: 1,
        ..policy()
    });
    let error = bench.fetch(&source(&[&server])).await.unwrap_err();
    assert!(
        matches!(error, Error::GaveUp { attempts: 1, .. }),
        "{error}"
    );
    bench.fetch(&source(&[&server])).await.unwrap();
    assert_eq!(server.ranges(), [None, Some(1000)]);
}

#[tokio::test]
async fn a_server_without_ranges_starts_over() {
    let server = Server::start(content(), vec![Mood::BreakAfter(1000), Mood::NoRange]).await;
    let bench = Bench::new();
    bench.fetch(&source(&[&server])).await.unwrap();
    assert_eq!(server.requests(), 2);
}

#[tokio::test]
async fn a_spoilt_partial_file_is_thrown_away() {
    let server = Server::start(content(), vec![Mood::Fine]).await;
    let bench = Bench::new();
    let partial = bench.fetcher.store().partial_path(&bench.digest);
    std::fs::write(partial, vec![9; 5000]).unwrap();
    bench.fetch(&source(&[&server])).await.unwrap();
    assert_eq!(server.ranges(), [Some(5000), None]);
}

#[tokio::test]
async fn another_url_takes_over() {
    for mood in [
        Mood::Status(404),
        Mood::Status(503),
        Mood::Garbled,
        Mood::WrongLength,
        Mood::Silent,
    ] {
        let bad = Server::start(content(), vec![mood]).await;
        let good = Server::start(content(), vec![Mood::Fine]).await;
        let bench = Bench::new();
        bench
            .fetch(&source(&[&bad, &good]))
            .await
            .unwrap_or_else(|e| panic!("{mood:?}: {e}"));
        assert_eq!(bad.requests(), 1, "{mood:?}");
    }
}

#[tokio::test]
async fn wrong_content_ends_after_the_attempts() {
    let server = Server::start(content(), vec![Mood::Garbled]).await;
    let bench = Bench::new();
    let error = bench.fetch(&source(&[&server])).await.unwrap_err();
    let Error::GaveUp {
        attempts: 4,
        source,
    } = error
    else {
        panic!("{error}")
    };
    assert!(matches!(*source, Error::Checksum { .. }));
    assert!(!bench.fetcher.store().contains(&bench.digest).unwrap());
    assert_eq!(server.requests(), 4);
}

#[tokio::test]
async fn checksums_come_in_every_spelling() {
    let sha3: [u8; 32] = Sha3_256::digest(content()).into();
    let sha2 = digest_of(&content());
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    for text in [
        hex::encode(sha3),
        hex::encode(sha3).to_uppercase(),
        STANDARD.encode(sha3),
        sha2.hex(),
        STANDARD.encode(sha2.as_bytes()),
    ] {
        let server = Server::start(content(), vec![Mood::Fine]).await;
        let bench = Bench::new();
        let mut source = source(&[&server]);
        source.checksum = Some(text.parse().unwrap());
        bench.fetch(&source).await.unwrap();
    }
    for bad in ["", "zz", &"g".repeat(64), "AAAA"] {
        assert!(bad.parse::<Checksum>().is_err(), "{bad}");
    }
}

#[derive(Debug)]
struct Accepts(HashAlgorithm, Vec<u8>);

impl SignatureCheck for Accepts {
    fn algorithm(&self) -> HashAlgorithm {
        self.0
    }

    fn check(&self, hash: &[u8]) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        if hash == self.1 {
            Ok(())
        } else {
            Err("not signed".into())
        }
    }
}

#[tokio::test]
async fn the_signature_is_checked_over_the_content() {
    let server = Server::start(content(), vec![Mood::Fine]).await;
    let bench = Bench::new();
    let mut source = source(&[&server]);
    source.signature = Some(Arc::new(Accepts(HashAlgorithm::Sha512, vec![0; 64])));
    let error = bench.fetch(&source).await.unwrap_err();
    assert!(matches!(error, Error::Signature(_)), "{error}");
    assert_eq!(server.requests(), 1, "a refused signature is not retried");
    assert!(!bench.fetcher.store().contains(&bench.digest).unwrap());
    let sha512 = Sha512::digest(content()).to_vec();
    source.signature = Some(Arc::new(Accepts(HashAlgorithm::Sha512, sha512)));
    bench.fetch(&source).await.unwrap();
}

#[tokio::test]
async fn what_cannot_work_is_refused_at_once() {
    let server = Server::start(content(), vec![Mood::Fine]).await;
    let bench = Bench::new();
    assert!(matches!(
        bench.fetch(&source(&[])).await,
        Err(Error::NoUrls)
    ));
    let mut huge = source(&[&server]);
    huge.size = u64::MAX;
    assert!(matches!(
        bench.fetch(&huge).await,
        Err(Error::TooLong { .. })
    ));
    assert_eq!(server.requests(), 0);
}

#[tokio::test]
async fn the_whole_has_a_deadline_and_can_be_stopped() {
    let server = Server::start(content(), vec![Mood::Silent]).await;
    let bench = Bench::with(Policy {
        total: Duration::from_millis(100),
        ..policy()
    });
    let error = bench.fetch(&source(&[&server])).await.unwrap_err();
    assert!(matches!(error, Error::Deadline { .. }), "{error}");
    let stop = CancellationToken::new();
    stop.cancel();
    let (wanted, from) = (bench.digest, source(&[&server]));
    let outcome = bench.fetcher.fetch(&wanted, &from, &|_| {}, &stop).await;
    assert!(outcome.is_err());
}

#[tokio::test]
async fn errors_do_not_show_the_token_of_a_url() {
    let bench = Bench::new();
    let mut nowhere = source(&[]);
    nowhere.urls = vec!["http://127.0.0.1:1/secret-token".into()];
    let error = bench.fetch(&nowhere).await.unwrap_err();
    assert!(!format!("{error:?} {error}").contains("secret-token"));
}

#[tokio::test]
async fn the_same_blob_is_not_fetched_twice_at_once() {
    let server = Server::start(content(), vec![Mood::StallAfter(10), Mood::Fine]).await;
    let bench = Bench::new();
    let from = source(&[&server]);
    let (first, second) = tokio::join!(bench.fetch(&from), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        bench.fetch(&from).await
    });
    first.unwrap();
    second.unwrap();
    assert_eq!(
        server.ranges(),
        [None, Some(10)],
        "the second waits for the first"
    );
}

#[tokio::test]
async fn a_dropped_transfer_can_be_taken_up_at_once() {
    let server = Server::start(content(), vec![Mood::StallAfter(1000), Mood::Fine]).await;
    let bench = Bench::new();
    let from = source(&[&server]);
    let _ = tokio::time::timeout(Duration::from_millis(200), bench.fetch(&from)).await;
    bench.fetch(&from).await.unwrap();
    assert_eq!(server.ranges(), [None, Some(1000)]);
}

#[tokio::test]
async fn a_slow_source_is_left_for_a_better_one() {
    let slow = Server::start(content(), vec![Mood::Trickle(2_000)]).await;
    let good = Server::start(content(), vec![Mood::Fine]).await;
    let bench = Bench::new();
    let start = std::time::Instant::now();
    bench.fetch(&source(&[&slow, &good])).await.unwrap();
    // At the pace of the slow one it would have taken 3 s.
    assert!(start.elapsed() < Duration::from_secs(2));
    assert!(
        good.ranges()[0].is_some_and(|from| from >= 2_000),
        "it goes on where the slow one was left: {:?}",
        good.ranges()
    );
    // Where there is no other, slow is better than nothing.
    let bench = Bench::new();
    bench.fetch(&source(&[&slow])).await.unwrap();
}

#[tokio::test]
async fn every_url_has_its_own_attempts() {
    let dead = Server::start(content(), vec![Mood::Status(500)]).await;
    let late = Server::start(
        content(),
        vec![Mood::Status(503), Mood::BreakAfter(10), Mood::Fine],
    )
    .await;
    let bench = Bench::new();
    bench.fetch(&source(&[&dead, &late])).await.unwrap();
    assert_eq!(late.requests(), 3);
    assert!((1..=3).contains(&dead.requests()), "{}", dead.requests());
}

#[tokio::test]
async fn transfers_share_one_bound_of_the_rate() {
    let server = Server::start(content(), vec![Mood::Fine]).await;
    let throttle = Throttle::new(600_000);
    let (one, two) = (Bench::new(), Bench::new());
    let start = std::time::Instant::now();
    let from = source(&[&server]);
    let bounded = |bench: &Bench| bench.fetcher.clone().with_throttle(throttle.clone());
    let (first, second) = (bounded(&one), bounded(&two));
    let stop = CancellationToken::new();
    let (first, second) = tokio::join!(
        first.fetch(&one.digest, &from, &|_| {}, &stop),
        second.fetch(&two.digest, &from, &|_| {}, &stop)
    );
    first.unwrap();
    second.unwrap();
    // Twice 300,000 bytes at 600,000 a second, less the burst at the start.
    assert!(start.elapsed() >= Duration::from_millis(700));
}

#[tokio::test]
async fn an_interruption_is_told_with_its_cause() {
    let server = Server::start(content(), vec![Mood::BreakAfter(1000), Mood::Fine]).await;
    let bench = Bench::new();
    let seen = Mutex::new(Vec::new());
    let stop = CancellationToken::new();
    let note = |progress: aos_image::fetch::Progress| {
        if let Some(why) = progress.broke_off {
            seen.lock().unwrap().push((progress.done, why));
        }
    };
    let from = source(&[&server]);
    let wanted = bench.digest;
    bench
        .fetcher
        .fetch(&wanted, &from, &note, &stop)
        .await
        .unwrap();
    let seen = seen.into_inner().unwrap();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].0, 1000);
    assert!(seen[0].1.contains("127.0.0.1"), "{seen:?}");
}

#[tokio::test]
async fn a_large_blob_is_whole_whatever_happens_on_the_way() {
    let large: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 253) as u8).collect();
    let mut bench = Bench::new();
    bench.digest = digest_of(&large);
    let server = Server::start(
        large.clone(),
        vec![
            Mood::BreakAfter(1_500_001),
            Mood::BreakAfter(999_999),
            Mood::Fine,
        ],
    )
    .await;
    let mut from = source(&[&server]);
    from.size = large.len() as u64;
    from.checksum = Some(Checksum(Sha3_256::digest(&large).into()));
    bench.fetch(&from).await.unwrap();
    assert_eq!(server.ranges(), [None, Some(1_500_001), Some(2_500_000)]);
    bench.fetcher.store().verify(&bench.digest).unwrap();

    // And one that is wrong only at its end starts over.
    let mut bench = Bench::new();
    bench.digest = digest_of(&large);
    let server = Server::start(large, vec![Mood::Garbled, Mood::Fine]).await;
    from.urls = vec![server.url.clone()];
    bench.fetch(&from).await.unwrap();
    bench.fetcher.store().verify(&bench.digest).unwrap();
}
