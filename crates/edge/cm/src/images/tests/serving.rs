//! How SMs get blobs.

use std::time::Duration;

use aos_image::{
    BlobStore,
    fetch::{Fetcher, Policy, Source},
};
use aos_pki::CertKind;
use aos_types::{Digest, NodeId};
use tokio_util::sync::CancellationToken;

use super::bench::{Bench, With, node_client};
use crate::contract::{BlobReader, Images};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_fetches_every_blob_with_the_same_code_as_cm() {
    let bench = Bench::new().await;
    let web = bench.publish("web", &["amd64"], &vec![3; 300_000]);
    bench.fetch(&web).await.unwrap();
    let absent = bench
        .library
        .blob_urls(
            &bench.reader(),
            &[web.index_digest, Digest::from_bytes([1; 32])],
        )
        .await
        .unwrap_err();
    assert!(absent.message.contains("0101"), "{absent}");
    let dir = tempfile::tempdir().unwrap();
    let fetcher = Fetcher::new(
        BlobStore::open(dir.path()).unwrap(),
        node_client(&bench, &bench.pki.unit(CertKind::Sm, "unit-1")),
        Policy::default(),
    );
    let stop = CancellationToken::new();
    for blob in bench.library.blobs().list().unwrap() {
        let (reader, wanted) = (bench.reader(), [blob.digest]);
        let urls = bench.library.blob_urls(&reader, &wanted).await;
        let source = Source {
            urls: urls.unwrap(),
            size: blob.size,
            checksum: None,
            key: None,
            signature: None,
        };
        fetcher
            .fetch(&blob.digest, &source, &|_| {}, &stop)
            .await
            .unwrap();
    }
}

/// A bench whose Node `old` can do plain HTTP only.
async fn with_legacy(life: u64) -> Bench {
    let mut with = With::default();
    with.options.legacy_blobs = vec![NodeId::new("old").unwrap()];
    with.options.legacy_listen = Some(([127, 0, 0, 1], 0).into());
    with.options.legacy_secs = life;
    Bench::with(with).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_marked_for_plain_http_gets_a_pass_for_itself_only() {
    let bench = with_legacy(60).await;
    let web = bench.publish("web", &["amd64"], &vec![3; 300_000]);
    bench.fetch(&web).await.unwrap();
    let layer = bench.largest();
    let urls = |node: &str, from: [u8; 4]| {
        let reader = BlobReader {
            node: NodeId::new(node).unwrap(),
            address: Some(from.into()),
        };
        let library = bench.library.clone();
        async move {
            library
                .blob_urls(&reader, &[layer])
                .await
                .unwrap()
                .remove(0)
        }
    };
    assert!(urls("main", [127, 0, 0, 1]).await.starts_with("https://"));
    let pass = urls("old", [127, 0, 0, 1]).await;
    assert!(pass.starts_with("http://127.0.0.1:"), "{pass}");
    let client = reqwest::Client::new();
    let get = |url: String| client.get(url).send();
    let whole = get(pass.clone()).await.unwrap();
    assert_eq!(whole.status(), 200);
    let whole = whole.bytes().await.unwrap();
    assert_eq!(whole, bench.library.blobs().read(&layer, u64::MAX).unwrap());
    let part = client.get(&pass).header("range", "bytes=5-9").send().await;
    assert_eq!(part.unwrap().bytes().await.unwrap(), whole[5..10]);

    // Another blob, another path, the path of the mutual door: nothing.
    let (base, _) = pass.split_once("/pass/").unwrap();
    for other in [
        pass.replace(&layer.hex(), &web.index_digest.hex()),
        format!("{base}/blobs/sha256/{}", layer.hex()),
        format!("{base}/pass/{}/{}", "0".repeat(64), layer.hex()),
        format!("{base}/pass/../{}", layer.hex()),
        base.to_owned(),
    ] {
        assert_eq!(get(other.clone()).await.unwrap().status(), 404, "{other}");
    }
    // Made for a Node at another address.
    let foreign = urls("old", [127, 0, 0, 2]).await;
    assert_eq!(get(foreign).await.unwrap().status(), 404);
    // A Node whose address is not known gets none.
    let unknown = BlobReader {
        node: NodeId::new("old").unwrap(),
        address: None,
    };
    let refused = bench.library.blob_urls(&unknown, &[layer]).await;
    assert!(refused.unwrap_err().message.contains("address of Node old"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pass_ends() {
    let bench = with_legacy(1).await;
    let web = bench.publish("web", &["amd64"], b"web");
    bench.fetch(&web).await.unwrap();
    let reader = BlobReader {
        node: NodeId::new("old").unwrap(),
        address: Some([127, 0, 0, 1].into()),
    };
    let wanted = [web.index_digest];
    let urls = bench.library.blob_urls(&reader, &wanted).await;
    let url = urls.unwrap().remove(0);
    assert_eq!(reqwest::get(&url).await.unwrap().status(), 200);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(reqwest::get(&url).await.unwrap().status(), 404);
}

#[test]
fn plain_http_is_off_unless_the_configuration_names_a_node() {
    let options: crate::images::ImageOptions = toml::from_str("").unwrap();
    assert!(options.legacy_blobs.is_empty());
    assert_eq!(options.legacy_listen, None);
    assert!(!options.allow_unsigned);
    let named: crate::images::ImageOptions = toml::from_str(
        "legacy_blobs = ['old']\nlegacy_listen = '10.0.0.1:8095'\nbandwidth_limit = 1000000\n",
    )
    .unwrap();
    assert_eq!(named.legacy_blobs.len(), 1);
    assert!(toml::from_str::<crate::images::ImageOptions>("legacy = true").is_err());
}
