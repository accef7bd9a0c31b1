//! Sets of items: what arrives, what is refused, what goes.

use std::{fs, sync::atomic::Ordering, time::Duration};

use aos_cloud_protocol::{BlobUrl, DownloadState};
use aos_types::{Digest, ItemId};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    bench::{Bench, With},
    noise,
};
use crate::contract::Images;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_item_arrives_with_what_this_unit_can_run() {
    let mut bench = Bench::new().await;
    let (web, db) = (
        bench.publish("web", &["arm64", "amd64"], b"web"),
        bench.publish("db", &["amd64"], b"db"),
    );
    assert!(bench.download(bench.request(&[&web, &db])).await.is_empty());
    // Each item: index, manifest, image config, item config, layer. Nothing for arm64.
    assert_eq!(bench.here(), 10);
    // Indexes, manifests, configs, layers: one question each for both items.
    assert_eq!(bench.cloud.questions.load(Ordering::SeqCst), 4);
    let images = bench.library.images_of(&web).await.unwrap();
    assert_eq!(images.len(), 1);
    assert_eq!(images[0].architecture, "amd64");
    assert_eq!(images[0].config.hostname.as_deref(), Some("web"));
    let alerts = bench.alerts.states();
    let finished = alerts.iter().filter(|s| **s == DownloadState::Finished);
    assert_eq!(finished.count(), 10);

    // The second time nothing is asked, also not by a new process.
    assert!(bench.download(bench.request(&[&web, &db])).await.is_empty());
    bench.restart().await;
    assert!(bench.download(bench.request(&[&web])).await.is_empty());
    assert_eq!(bench.cloud.questions.load(Ordering::SeqCst), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bit_rot_is_mended() {
    let bench = Bench::new().await;
    let web = bench.publish("web", &["amd64"], b"web");
    bench.fetch(&web).await.unwrap();
    for blob in bench.library.blobs().list().unwrap() {
        let path = bench.library.blobs().path(&blob.digest);
        fs::remove_file(&path).unwrap();
        fs::write(&path, vec![0; blob.size as usize]).unwrap();
    }
    bench.fetch(&web).await.unwrap();
    for blob in bench.library.blobs().list().unwrap() {
        bench.library.blobs().verify(&blob.digest).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_item_does_not_hold_up_another() {
    let bench = Bench::new().await;
    let good = bench.publish("good", &["amd64"], b"good");
    let foreign = bench.publish("foreign", &["riscv64"], b"foreign");
    let mut unknown = good.clone();
    unknown.id = ItemId::new("unknown").unwrap();
    unknown.index_digest = Digest::from_bytes([7; 32]);
    let damaged = bench.publish("damaged", &["amd64"], b"damaged");
    bench
        .cloud
        .damaged
        .lock()
        .unwrap()
        .insert(damaged.index_digest);
    let failed = bench
        .download(bench.request(&[&unknown, &good, &foreign, &damaged]))
        .await;
    assert_eq!(failed.len(), 3);
    let message = |name: &str| failed[&ItemId::new(name).unwrap()].message.clone();
    assert!(message("unknown").contains("the cloud does not deliver"));
    assert!(
        message("damaged").ends_with("its record is damaged"),
        "what the cloud says is passed on: {}",
        message("damaged")
    );
    assert!(
        message("foreign").contains("needs architecture `riscv64`"),
        "{}",
        message("foreign")
    );
    bench.library.images_of(&good).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_signed_by_the_cloud_is_refused() {
    type Change = fn(&mut BlobUrl);
    let cases: [(Change, &str); 5] = [
        (|url| url.sign_info = None, "without a signature"),
        (
            |url| url.sign_info.as_mut().unwrap().value[9] ^= 1,
            "the signature of the blob is refused",
        ),
        (
            |url| url.sign_info.as_mut().unwrap().chain_name = "other".into(),
            "names the certificate chain `other`",
        ),
        (
            |url| url.sign_info.as_mut().unwrap().alg = "XOR/SHA256".into(),
            "is not a known signature algorithm",
        ),
        (
            |url| url.sign_info.as_mut().unwrap().alg = "RSA/SHA256/OTHER".into(),
            "is not a known signature algorithm",
        ),
    ];
    let bench = Bench::new().await;
    let web = bench.publish("web", &["amd64"], b"web");
    for (change, expected) in cases {
        bench.cloud.lie(change);
        let error = bench.fetch(&web).await.unwrap_err();
        assert!(error.message.contains(expected), "{expected}: {error}");
        assert_eq!(bench.here(), 0);
    }
    // A certificate that was delivered under a false name does not count.
    bench.cloud.lie(|_| {});
    let mut request = bench.request(&[&web]);
    request.certificates[0].der = b"other".to_vec();
    assert_eq!(bench.download(request).await.len(), 1);
    bench.fetch(&web).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unsigned_blobs_are_taken_only_where_the_configuration_says_so() {
    let mut with = With::default();
    with.options.allow_unsigned = true;
    let bench = Bench::with(with).await;
    let web = bench.publish("web", &["amd64"], b"web");
    bench.cloud.lie(|url| url.sign_info = None);
    bench.fetch(&web).await.unwrap();
    // A signature that is there must still be right.
    let db = bench.publish("db", &["amd64"], b"db");
    bench
        .cloud
        .lie(|url| url.sign_info.as_mut().unwrap().value[9] ^= 1);
    let error = bench.fetch(&db).await.unwrap_err();
    assert!(error.message.contains("signature"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_cloud_is_away_it_waits_and_can_be_ended() {
    let bench = Bench::new().await;
    bench.cloud.connected.send_replace(false);
    let web = bench.publish("web", &["amd64"], b"web");
    let (progress, _told) = mpsc::channel(16);
    let cancel = CancellationToken::new();
    let (library, request, end) = (
        bench.library.clone(),
        bench.request(&[&web]),
        cancel.clone(),
    );
    let waiting = tokio::spawn(async move { library.download(request, progress, end).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!waiting.is_finished());
    cancel.cancel();
    let failed = waiting.await.unwrap();
    assert_eq!(failed.len(), 1);

    let later = bench.cloud.connected.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        later.send_replace(true);
    });
    bench.fetch(&web).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_committed_any_more_goes() {
    let bench = Bench::with(With {
        keep: Duration::ZERO,
        ..With::default()
    })
    .await;
    let old = bench.publish("web", &["amd64"], b"old");
    let new = bench.publish("web", &["amd64"], b"new");
    for item in [&old, &new] {
        bench.install(item).await;
    }
    age(&bench);
    bench
        .library
        .commit(std::slice::from_ref(&new))
        .await
        .unwrap();
    // Index, manifest, image config and layer of the old one; the item config is the same.
    bench
        .until("the old one is gone", |bench| bench.here() == 5)
        .await;
    assert!(bench.library.images_of(&old).await.is_err());
    bench.library.images_of(&new).await.unwrap();
}

/// Blobs are young: makes them old, as they would be.
fn age(bench: &Bench) {
    let past = std::time::SystemTime::now() - Duration::from_secs(7200);
    for blob in bench.library.blobs().list().unwrap() {
        let file = fs::File::open(bench.library.blobs().path(&blob.digest)).unwrap();
        file.set_modified(past).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_that_never_was_committed_does_not_stay_for_ever() {
    let bench = Bench::with(With {
        keep: Duration::ZERO,
        ..With::default()
    })
    .await;
    let first = bench.publish("web", &["amd64"], b"first");
    let second = bench.publish("web", &["amd64"], b"second");
    bench.fetch(&first).await.unwrap();
    age(&bench);
    // A newer desired state came before the first was committed.
    bench.fetch(&second).await.unwrap();
    bench
        .until("the superseded one is gone", |bench| bench.here() == 5)
        .await;
    bench.library.images_of(&second).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_is_told_at_an_interval_with_bytes_and_total() {
    let mut with = With::default();
    with.options.progress_secs = 0;
    let bench = Bench::with(with).await;
    let web = bench.publish("web", &["amd64"], &noise(400_000, 1));
    bench.fetch(&web).await.unwrap();
    let layer = bench.largest();
    let size = bench.library.blobs().size(&layer).unwrap().unwrap();
    let notices = bench.alerts.0.lock().unwrap().clone();
    let notices: Vec<_> = notices
        .into_iter()
        .filter(|(digest, ..)| *digest == layer)
        .collect();
    assert!(notices.len() > 3, "{notices:?}");
    assert!(notices.iter().all(|(.., total)| *total == size));
    let bytes: Vec<u64> = notices.iter().map(|(_, _, done, _)| *done).collect();
    assert!(bytes.is_sorted());
    assert_eq!(
        notices.last().map(|(_, state, done, _)| (*state, *done)),
        Some((DownloadState::Finished, size))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_rest_nothing_is_written() {
    let bench = Bench::new().await;
    let web = bench.publish("web", &["amd64"], b"web");
    bench.install(&web).await;
    let again = bench.publish("web", &["amd64"], b"again");
    bench.install(&again).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let before = bench.files();
    // Identical sets, and time that passes.
    bench.fetch(&again).await.unwrap();
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(bench.files(), before);
}

impl Bench {
    /// All files of the Unit with their sizes and times.
    fn files(&self) -> Vec<(std::path::PathBuf, u64, std::time::SystemTime)> {
        let mut files = Vec::new();
        let mut folders = vec![self.dir.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let entry = entry.unwrap();
                let meta = entry.metadata().unwrap();
                if meta.is_dir() {
                    folders.push(entry.path());
                }
                files.push((entry.path(), meta.len(), meta.modified().unwrap()));
            }
        }
        files.sort();
        files
    }
}
