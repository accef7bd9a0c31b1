use aos_api::paths;
use aos_api_server::collect_orphans;
use aos_bundle::Caps;
use aos_pki::{Authority, CertProfile, KeyAlgorithm, Signer};
use aos_time::Clock as _;
use http::Method;
use serde_json::Value;

use crate::bench::{As, Bench, bundle_folder, signed};

fn blobs(bench: &Bench) -> usize {
    fn count(folder: &std::path::Path) -> usize {
        std::fs::read_dir(folder)
            .map(|entries| {
                entries
                    .map(|entry| {
                        let path = entry.unwrap().path();
                        if path.is_dir() { count(&path) } else { 1 }
                    })
                    .sum()
            })
            .unwrap_or(0)
    }
    count(&bench.data.join("blobs"))
}

fn scratch(bench: &Bench) -> usize {
    std::fs::read_dir(bench.data.join("scratch"))
        .unwrap()
        .count()
}

fn stage<'a>(bundle: &'a Value, name: &str) -> &'a Value {
    bundle["stages"]
        .as_array()
        .unwrap()
        .iter()
        .find(|stage| stage["stage"] == name)
        .unwrap()
}

#[tokio::test]
async fn a_signed_bundle_becomes_services_and_shows_its_stages() {
    let bench = Bench::new().await;
    let owner = bench.owner().await;
    let (_, signer) = bench.certificate(&owner, KeyAlgorithm::Rsa2048).await;
    let folder = bundle_folder(&[("http", "1.0.0"), ("counter", "2.1.0")]);
    let bundle = signed(folder.path(), &signer);

    // A check finds it good and leaves nothing.
    let checked = bench
        .upload(&owner, "?check=true", &bundle)
        .await
        .expect(200);
    assert_eq!(checked["state"], "done", "{checked:#}");
    assert_eq!(stage(&checked, "publish")["state"], "skipped");
    assert_eq!(
        bench.get(&owner, paths::BUNDLES).await.expect(200)["total"],
        0
    );
    assert_eq!(
        bench.get(&owner, paths::SERVICES).await.expect(200)["total"],
        0
    );
    assert_eq!((blobs(&bench), scratch(&bench)), (0, 0));

    let shown = bench
        .upload(&owner, "?wait=true", &bundle)
        .await
        .expect(201);
    assert_eq!(shown["state"], "done", "{shown:#}");
    assert_eq!(shown["signed_by"], "ada");
    assert_eq!(shown["file_name"], "batch.tar.gz");
    for name in ["receive", "verify", "read", "convert", "publish"] {
        assert_eq!(stage(&shown, name)["state"], "done", "{shown:#}");
    }
    let id = shown["id"].as_str().unwrap();
    let again = bench
        .get(&owner, &paths::fill(paths::BUNDLE, &[id]))
        .await
        .expect(200);
    assert_eq!(again, shown);
    let service = bench
        .get(&owner, "/api/v11/services/http/")
        .await
        .expect(200);
    assert_eq!(service["latest_version"], "1.0.0");
    assert_eq!(service["title"], "The http");
    assert_eq!(service["id"], shown["items"][0]["service_id"]);
    let versions = bench
        .get(&owner, "/api/v11/services/http/service-versions/")
        .await
        .expect(200);
    assert_eq!(versions["items"][0]["platforms"][0], "linux/amd64");
    assert_eq!(versions["items"][0]["min_num_instances"], 2);
    assert_eq!(versions["items"][0]["bundle_id"], shown["id"]);
    assert!(blobs(&bench) >= 6);
    assert_eq!(scratch(&bench), 0);

    // The same version again is refused, with the reason where a person sees it.
    let twice = bench
        .upload(&owner, "?wait=true", &bundle)
        .await
        .expect(201);
    assert_eq!(twice["state"], "error");
    assert_eq!(stage(&twice, "read")["state"], "failed");
    assert!(twice["build_info"].as_str().unwrap().contains("not newer"));
    assert_eq!(stage(&twice, "convert")["state"], "skipped");
    assert_eq!(
        bench.get(&owner, paths::BUNDLES).await.expect(200)["total"],
        2
    );

    // A deleted service leaves blobs that are collected after a while.
    for name in ["http", "counter"] {
        bench
            .delete(&owner, &format!("/api/v11/services/{name}/"))
            .await
            .expect(204);
    }
    assert_eq!(collect_orphans(&bench.state).await.unwrap(), 0, "not yet");
    assert!(blobs(&bench) >= 6);
}

#[tokio::test]
async fn a_bundle_without_wait_is_worked_on_in_the_background() {
    let bench = Bench::new().await;
    let owner = bench.owner().await;
    let (tool, signer) = bench.certificate(&owner, KeyAlgorithm::EcP256).await;
    let folder = bundle_folder(&[("http", "1.0.0")]);
    let mut changes = bench.db.changes();
    let taken = bench
        .upload(&tool, "", &signed(folder.path(), &signer))
        .await
        .expect(201);
    assert_eq!(taken["state"], "uploaded");
    let path = paths::fill(paths::BUNDLE, &[taken["id"].as_str().unwrap()]);
    let done = tokio::time::timeout(std::time::Duration::from_secs(30), async {
        loop {
            let shown = bench.get(&tool, &path).await.expect(200);
            if shown["state"] == "done" {
                break shown;
            }
            assert_ne!(shown["state"], "error", "{shown:#}");
            changes.recv().await.unwrap();
        }
    })
    .await
    .unwrap();
    assert_eq!(stage(&done, "publish")["state"], "done");
}

#[tokio::test]
async fn what_is_not_signed_by_a_user_of_this_cloud_is_refused() {
    let bench = Bench::new().await;
    let owner = bench.owner().await;
    let (_, signer) = bench.certificate(&owner, KeyAlgorithm::Rsa2048).await;
    let folder = bundle_folder(&[("http", "1.0.0")]);
    let good = signed(folder.path(), &signer);

    let now = bench.clock.now();
    let other = Authority::in_memory("other", now).unwrap();
    let by = |authority: &Authority, profile: &CertProfile| {
        let pair = authority
            .issue_pair(KeyAlgorithm::Rsa2048, profile, now)
            .unwrap();
        let signer = Signer::new(&pair.key, vec![pair.issued.certificate]).unwrap();
        signed(folder.path(), &signer)
    };
    let user = CertProfile::user("x", "ada", "localhost");
    let mut tampered = good.clone();
    let middle = tampered.len() / 2;
    tampered[middle] ^= 0x55;
    let table: Vec<(&str, Vec<u8>)> = vec![
        ("empty", vec![]),
        ("no archive", b"hello".to_vec()),
        ("cut off", good[..good.len() / 2].to_vec()),
        ("tampered", tampered),
        ("another authority", by(&other, &user)),
        ("not on record", by(&bench.authority, &user)),
        (
            "not a person",
            by(&bench.authority, &CertProfile::blob_signer()),
        ),
    ];
    for (name, bundle) in table {
        for query in ["?check=true", "?wait=true"] {
            let answer = bench.upload(&owner, query, &bundle).await;
            let shown = answer.json();
            assert_eq!(shown["state"], "error", "{name}: {shown:#}");
            assert_eq!(stage(&shown, "verify")["state"], "failed", "{name}");
            assert!(!shown["build_info"].as_str().unwrap().is_empty(), "{name}");
            assert!(stage(&shown, "verify")["hint"].is_string(), "{name}");
        }
    }
    assert_eq!(
        bench.get(&owner, paths::SERVICES).await.expect(200)["total"],
        0
    );
    assert_eq!((blobs(&bench), scratch(&bench)), (0, 0));
}

#[tokio::test]
async fn an_over_long_bundle_and_a_wrong_form_are_refused_at_the_door() {
    let bench = Bench::with_caps(Caps {
        bundle: 1000,
        ..Caps::default()
    })
    .await;
    let owner = bench.owner().await;
    let said = bench.upload(&owner, "", &[7; 5000]).await.expect(413);
    assert_eq!(said["field"], "file");
    let form = bench.request(
        &owner,
        Method::POST,
        paths::BUNDLE_UPLOAD,
        Some("application/gzip"),
        axum::body::Body::from("x"),
    );
    bench.send(form).await.expect(400);
    let empty = bench.request(
        &owner,
        Method::POST,
        paths::BUNDLE_UPLOAD,
        Some("multipart/form-data; boundary=XX"),
        axum::body::Body::from("--XX--\r\n"),
    );
    assert_eq!(bench.send(empty).await.expect(400)["field"], "file");
    let cut = bench.request(
        &owner,
        Method::POST,
        paths::BUNDLE_UPLOAD,
        Some("multipart/form-data; boundary=XX"),
        axum::body::Body::from(
            "--XX\r\ncontent-disposition: form-data; name=\"file\"\r\n\r\nhalf of it",
        ),
    );
    bench.send(cut).await.expect(400);
    assert_eq!(scratch(&bench), 0);
    assert_eq!(
        bench.get(&owner, paths::BUNDLES).await.expect(200)["total"],
        0
    );
    bench.upload(&As::default(), "", &[7; 10]).await.expect(401);
}

#[tokio::test]
async fn a_fault_of_the_cloud_ends_a_bundle_too() {
    let bench = Bench::new().await;
    let owner = bench.owner().await;
    let (_, signer) = bench.certificate(&owner, KeyAlgorithm::Rsa2048).await;
    let folder = bundle_folder(&[("http", "1.0.0")]);
    // Where blobs are written first there is now a file.
    std::fs::remove_dir_all(bench.data.join("blobs")).unwrap();
    std::fs::write(bench.data.join("blobs"), "").unwrap();
    let shown = bench
        .upload(&owner, "?wait=true", &signed(folder.path(), &signer))
        .await
        .expect(201);
    assert_eq!(shown["state"], "error");
    assert_eq!(stage(&shown, "convert")["state"], "failed", "{shown:#}");
    assert_eq!(
        bench.get(&owner, paths::SERVICES).await.expect(200)["total"],
        0
    );
}
