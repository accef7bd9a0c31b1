//! Defects of the field's image managers that this one does not have, by what is seen from outside.

use std::{
    fs,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use aos_cloud_protocol::FileHash;
use aos_image::fetch::Checksum;
use aos_pki::{CertKind, CertSource};
use aos_types::{AosCode, Digest};
use tokio::{sync::Barrier, time::timeout};

use super::{
    bench::{Bench, Pki, With, node_client, raw_get},
    faulty::Mood,
    noise,
    room::{Disk, on},
};
use crate::contract::Images;

const MB: usize = 1_000_000;

/// Giving up unused items for room ends, and so does everything that waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gap_22_eviction_does_not_deadlock() {
    let Some(disk) = Disk::mount("gap_22_eviction_does_not_deadlock", 8) else {
        return;
    };
    let bench = on(&disk).await;
    for seed in 1..8 {
        let item = bench.publish(&format!("i{seed}"), &["amd64"], &noise(3 * MB, seed));
        // Others use the library meanwhile.
        let reads = async {
            for _ in 0..20 {
                let _ = bench.library.images_of(&item).await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let fetched = timeout(Duration::from_secs(30), bench.fetch(&item));
        let (fetched, ()) = tokio::join!(fetched, reads);
        fetched.expect("eviction ends").unwrap();
        bench.library.commit(&[item]).await.unwrap();
    }
}

/// No blob information, failing downloads, wrong checksums: each ends in a failed item, after pauses, soon.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gap_23_nothing_is_tried_for_ever() {
    let bench = Bench::new().await;
    let web = bench.publish("web", &["amd64"], b"web");
    let fetch = || timeout(Duration::from_secs(20), bench.fetch(&web));

    *bench.cloud.is_mute.lock().unwrap() = true;
    let error = fetch().await.expect("a mute cloud ends it").unwrap_err();
    assert_eq!(error.aos_code, AosCode::Timeout as i32, "{error}");
    assert_eq!(bench.cloud.questions.swap(0, Ordering::SeqCst), 3);
    *bench.cloud.is_mute.lock().unwrap() = false;

    let dead = bench.faulty(&[Mood::Status(500)]).await;
    bench.cloud.deliver_from(&[&dead]);
    let error = fetch().await.expect("a dead server ends it").unwrap_err();
    assert!(error.message.contains("500"), "{error}");
    assert_eq!(dead.requests(), 4);

    let good = bench.faulty(&[Mood::Fine]).await;
    let base = good.url.clone();
    bench.cloud.lie(move |url| {
        url.sha256 = FileHash([1; 32]);
        url.urls = vec![format!("{base}/{}", url.digest.hex())];
    });
    let start = Instant::now();
    let error = fetch()
        .await
        .expect("a wrong checksum ends it")
        .unwrap_err();
    assert!(error.message.contains("checksum"), "{error}");
    assert_eq!(good.requests(), 4);
    assert!(start.elapsed() >= Duration::from_millis(30), "with pauses");
}

/// An old item that was damaged holds up no new one: not offline, not with a cloud that no longer has it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gap_24_damage_in_an_installed_item_blocks_no_update() {
    let bench = Bench::new().await;
    let old = bench.publish("old", &["amd64"], &noise(50_000, 1));
    let new = bench.publish("new", &["amd64"], b"new");
    bench.install(&old).await;
    bench.fetch(&new).await.unwrap();
    let layer = bench.largest();
    let ours = bench.library.blobs().path(&layer);
    fs::remove_file(&ours).unwrap();

    // Offline: everything that is new is here, so the set is.
    bench.cloud.connected.send_replace(false);
    let both = bench.request(&[&old, &new]);
    let failed = timeout(Duration::from_secs(5), bench.download(both.clone())).await;
    assert!(failed.expect("it does not wait").is_empty());

    // Online, and the cloud has lost it too.
    let theirs = bench.cloud.blobs.path(&layer);
    let aside = bench.dir.path().join("aside");
    fs::rename(&theirs, &aside).unwrap();
    bench.cloud.connected.send_replace(true);
    let third = bench.publish("third", &["amd64"], b"third");
    let three = bench.request(&[&old, &new, &third]);
    let failed = timeout(Duration::from_secs(5), bench.download(three)).await;
    assert!(failed.expect("it does not wait").is_empty());

    // When the cloud has it again it is mended by itself.
    fs::rename(&aside, &theirs).unwrap();
    assert!(bench.download(both).await.is_empty());
    bench
        .until("the layer is back", |bench| {
            bench.library.blobs().contains(&layer).unwrap()
        })
        .await;
    bench.library.blobs().verify(&layer).unwrap();
}

/// Also damage that only reading shows is found and mended, after a start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gap_24_silent_damage_is_mended_after_a_start() {
    let mut bench = Bench::new().await;
    let old = bench.publish("old", &["amd64"], &noise(50_000, 1));
    bench.install(&old).await;
    let layer = bench.largest();
    let path = bench.library.blobs().path(&layer);
    let size = fs::metadata(&path).unwrap().len() as usize;
    fs::remove_file(&path).unwrap();
    fs::write(&path, vec![0; size]).unwrap();
    bench.restart().await;
    bench
        .until("the layer is whole", |bench| {
            let (ours, theirs) = (bench.library.blobs(), &bench.cloud.blobs);
            fs::read(ours.path(&layer)).ok() == fs::read(theirs.path(&layer)).ok()
        })
        .await;
}

/// All URLs count, blobs come side by side, all digests are asked for at once, a stall ends, and nobody sends HEAD.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gap_25_downloads_use_every_url_side_by_side() {
    let bench = Bench::new().await;
    let items: Vec<_> = (1..5)
        .map(|seed| bench.publish(&format!("i{seed}"), &["amd64"], &noise(5000, seed)))
        .collect();
    let stalling = bench.faulty(&[Mood::StallAfter(10)]).await;
    // Serves only when four clients are there at the same time: the four indexes, manifests, then of eight configs.
    let together = Arc::new(Barrier::new(4));
    let good = bench.faulty(&[Mood::Together(together)]).await;
    bench.cloud.deliver_from(&[&stalling, &good]);
    let all: Vec<_> = items.iter().collect();
    let failed = timeout(Duration::from_secs(60), bench.download(bench.request(&all)))
        .await
        .expect("a stalling server is left");
    assert!(failed.is_empty(), "{failed:?}");
    // Indexes, manifests, configs, layers: four questions for four items.
    assert_eq!(bench.cloud.questions.load(Ordering::SeqCst), 4);
    for server in [&stalling, &good] {
        assert!(server.requests() > 0);
        assert!(server.seen().iter().all(|(method, _)| method == "get"));
    }
    // What the first sent is not fetched again from the second.
    assert!(good.seen().iter().any(|(_, from)| *from == Some(10)));
}

/// Of an index only what some Node can run is fetched.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gap_26_other_platforms_are_not_downloaded() {
    let bench = Bench::new().await;
    let web = bench.publish("web", &["arm64", "amd64", "riscv64"], &noise(5000, 1));
    bench.fetch(&web).await.unwrap();
    // Index, one manifest, its configs, its layer.
    assert_eq!(bench.here(), 5);
    assert_eq!(bench.cloud.asked.lock().unwrap().len(), 5);
    assert!(bench.cloud.blobs.list().unwrap().len() > 8);
}

/// A digest that is none never becomes a path, wherever it comes from.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gap_27_a_digest_is_no_path() {
    for hostile in [
        "sha256:../../../../etc/passwd",
        "sha256:..%2f..%2fetc",
        "sha512:00",
        "sha256:",
        &format!("sha256:{}/", "0".repeat(63)),
        &format!("sha256:{}", "0".repeat(65)),
    ] {
        assert!(hostile.parse::<Digest>().is_err(), "{hostile}");
    }
    // In a document of an item: the item fails, nothing is asked for, nothing is written outside.
    let bench = Bench::new().await;
    let mut web = bench.publish("web", &["amd64"], b"web");
    let index = serde_json::json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": "sha256:../../../../../../../../tmp/outside",
            "size": 10,
        }],
    });
    let stored = bench.cloud.blobs.insert_bytes(index.to_string().as_bytes());
    web.index_digest = stored.unwrap().digest;
    let error = bench.fetch(&web).await.unwrap_err();
    assert_eq!(error.aos_code, AosCode::InvalidArgument as i32, "{error}");
    assert!(error.message.contains("digest"), "{error}");
    assert_eq!(bench.cloud.asked.lock().unwrap().len(), 1);
    assert_eq!(bench.here(), 1);
}

/// Blobs are served by mutual TLS to SMs of this Unit only, with ranges, and nothing but blobs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gap_28_blobs_are_for_this_units_nodes_only() {
    let bench = Bench::new().await;
    let web = bench.publish("web", &["amd64"], &vec![3; 300_000]);
    bench.fetch(&web).await.unwrap();
    let url = bench.library.url(&web.index_digest).unwrap();
    assert!(url.starts_with("https://"));
    let client = node_client(&bench, &bench.pki.unit(CertKind::Sm, "unit-1"));
    let whole = client.get(&url).send().await.unwrap();
    assert_eq!(whole.status(), 200);
    let whole = whole.bytes().await.unwrap();
    let part = client
        .get(&url)
        .header("range", "bytes=5-9")
        .send()
        .await
        .unwrap();
    assert_eq!(part.status(), 206);
    assert_eq!(part.bytes().await.unwrap(), whole[5..10]);
    let of = |path: &str| format!("https://{}{path}", bench.library.address());
    let known = format!("/blobs/sha256/{}", web.index_digest.hex());
    for (method, path, status) in [
        (http::Method::GET, "/blobs/partial/x".to_owned(), 404),
        (http::Method::GET, "/blobs/sha256/zz".into(), 404),
        (
            http::Method::GET,
            format!("/blobs/sha256/{}", "0".repeat(64)),
            404,
        ),
        (http::Method::POST, known.clone(), 405),
        (http::Method::HEAD, known, 200),
    ] {
        let answer = client.request(method, of(&path)).send().await.unwrap();
        assert_eq!(answer.status(), status, "{path}");
    }
    // As they stand here: a client would take the dots out before it asks. What lies beside the blobs is there.
    let outside = bench.library.blobs().path(&web.index_digest);
    let outside = outside.parent().unwrap().parent().unwrap().join("outside");
    fs::write(&outside, "secret").unwrap();
    for path in [
        "/blobs/sha256/../outside",
        "/blobs/sha256/../../blobs/outside",
        "/blobs/sha256/%2e%2e/outside",
        "/blobs/sha256/..%2foutside",
        "/blobs/../blobs/sha256/../outside",
        "//blobs/sha256/../outside",
    ] {
        let node = bench.pki.unit(CertKind::Sm, "unit-1");
        let answer = raw_get(&bench, &node, path).await;
        let refused = ["HTTP/1.1 404", "HTTP/1.1 400"];
        assert!(
            refused.iter().any(|line| answer.starts_with(line)),
            "{path}: {answer}"
        );
        assert!(!answer.contains("secret"), "{path}: {answer}");
    }
    let stranger = Pki::new();
    for wrong in [
        bench.pki.unit(CertKind::Sm, "unit-2"),
        bench.pki.unit(CertKind::Iam, "unit-1"),
        bench.pki.unit(CertKind::Online, "unit-1"),
        stranger.unit(CertKind::Sm, "unit-1"),
        CertSource::new(),
    ] {
        let answer = node_client(&bench, &wrong).get(&url).send().await;
        assert!(answer.is_err());
    }
    let plain = url.replace("https://", "http://");
    assert!(reqwest::get(plain).await.is_err());
}

/// Unsigned blobs, unknown paddings, false fingerprints and signers that may not sign are refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gap_29_signatures_are_checked_to_the_letter() {
    let bench = Bench::new().await;
    let web = bench.publish("web", &["amd64"], b"web");
    bench.cloud.lie(|url| url.sign_info = None);
    let error = bench.fetch(&web).await.unwrap_err();
    assert!(error.message.contains("without a signature"), "{error}");
    bench
        .cloud
        .lie(|url| url.sign_info.as_mut().unwrap().alg = "RSA/SHA256/PADDED".into());
    let error = bench.fetch(&web).await.unwrap_err();
    assert_eq!(error.aos_code, AosCode::NotSupported as i32, "{error}");
    // What its issuer says of the signer is looked at, and may be asked for.
    bench
        .cloud
        .lie(|url| url.sign_info.as_mut().unwrap().ocsp_values = vec!["AAAA".into()]);
    let error = bench.fetch(&web).await.unwrap_err();
    assert!(
        error.message.contains("an OCSP answer cannot be read"),
        "{error}"
    );
    bench.cloud.lie(|_| {});

    // The fingerprint of another certificate: it is computed again, so the certificate is not there.
    let other = Pki::new();
    let mut request = bench.request(&[&web]);
    request.certificates[0].der = other.der;
    let failed = bench.download(request).await;
    let error = failed.values().next().unwrap();
    assert!(error.message.contains("was not delivered"), "{error}");

    // A Unit's own certificate leads to the same root, and may not sign blobs.
    let node = bench.pki.unit(CertKind::Online, "unit-1");
    let der = node.current().unwrap().cert[0].to_vec();
    let mut request = bench.request(&[&web]);
    let fingerprint = aos_pki::Fingerprint::of(&der).to_string();
    request.certificates[0].der = der;
    request.certificates[0].fingerprint.clone_from(&fingerprint);
    request.certificate_chains[0].fingerprints = vec![fingerprint];
    let failed = bench.download(request).await;
    let error = failed.values().next().unwrap();
    assert!(error.message.contains("may not sign"), "{error}");

    // A chain that was not valid at the trusted timestamp.
    bench.cloud.lie(|url| {
        let long_ago = aos_time::Timestamp::from_secs(1_000_000_000);
        url.sign_info.as_mut().unwrap().trusted_timestamp = Some(long_ago);
    });
    let error = bench.fetch(&web).await.unwrap_err();
    assert!(error.message.contains("not accepted"), "{error}");
    assert_eq!(bench.here(), 0);
}

/// Room is counted and set aside once, for what is transferred; nothing lies on the disk twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gap_30_room_is_set_aside_before_and_only_once() {
    let Some(disk) = Disk::mount("gap_30_room_is_set_aside_before_and_only_once", 8) else {
        return;
    };
    let bench = on(&disk).await;
    // More than half of the disk: a second copy would not fit.
    let web = bench.publish("web", &["amd64"], &noise(5 * MB, 1));
    bench.install(&web).await;
    let server = bench.faulty(&[Mood::Fine]).await;
    bench.cloud.deliver_from(&[&server]);
    let next = bench.publish("next", &["amd64"], &noise(5 * MB, 2));
    let error = bench.fetch(&next).await.unwrap_err();
    assert_eq!(error.aos_code, AosCode::NoMemory as i32, "{error}");
    assert_eq!(
        server.requests(),
        4,
        "nothing of the layer was asked for before there was room"
    );
}

/// Two versions of an item are two things: when one goes the other stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gap_31_one_version_goes_and_not_the_other() {
    let bench = Bench::with(With {
        keep: Duration::from_millis(1500),
        ..With::default()
    })
    .await;
    let versions: Vec<_> = (1..4)
        .map(|number| {
            let mut item = bench.publish("web", &["amd64"], &noise(5000, number));
            item.version = format!("{number}.0.0");
            item
        })
        .collect();
    for version in &versions {
        bench.install(version).await;
        tokio::time::sleep(Duration::from_millis(900)).await;
    }
    let past = std::time::SystemTime::now() - Duration::from_secs(7200);
    for blob in bench.library.blobs().list().unwrap() {
        let file = fs::File::open(bench.library.blobs().path(&blob.digest)).unwrap();
        file.set_modified(past).unwrap();
    }
    // The first was removable from the second's commit on, the second from the third's: one goes by its own time.
    let index = |number: usize| versions[number].index_digest;
    let has =
        |bench: &Bench, number: usize| bench.library.blobs().contains(&index(number)).unwrap();
    bench
        .until("the first is gone", |bench| !has(bench, 0))
        .await;
    assert!(has(&bench, 2));
    bench
        .until("the second is gone", |bench| !has(bench, 1))
        .await;
    bench.library.images_of(&versions[2]).await.unwrap();
}

/// Both spellings of a checksum are understood, so no good file loops as a wrong one.
#[test]
fn gap_23_a_checksum_is_read_in_either_spelling() {
    let hex = "ab".repeat(32);
    let base64 = "q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s=";
    assert_eq!(
        hex.parse::<Checksum>().unwrap(),
        base64.parse::<Checksum>().unwrap()
    );
}
