use std::collections::BTreeMap;

use aos_bundle::{Caps, SignerCertificate, convert, open};
use aos_image::{BlobStore, ItemImage, graph::Caps as GraphCaps};
use aos_pki::KeyAlgorithm;
use aos_time::{Clock, SystemClock};
use aos_types::ItemType;
use sha3::{Digest, Sha3_256};
use tokio_util::sync::CancellationToken;

use crate::folder::{authority, folder, open_bytes, put, signed, signer, signer_of, user};

#[test]
fn a_bundle_goes_from_folder_to_blobs() {
    let dir = folder();
    let opened = open_bytes(&signed(dir.path(), signer()), &Caps::default()).unwrap();
    assert_eq!(opened.signer.user_id.as_deref(), Some("u-1"));
    assert_eq!(opened.config.items.len(), 1);

    let blobs = tempfile::tempdir().unwrap();
    let store = BlobStore::open(blobs.path()).unwrap();
    let stop = CancellationToken::new();
    let items = convert(&opened, &BTreeMap::new(), &store, &stop).unwrap();
    let item = &items[0];
    assert_eq!(
        (item.item_type, item.codename.as_str()),
        (ItemType::Service, "web")
    );
    assert_eq!(item.default_state.as_deref(), Some("first"));
    assert_eq!(item.blobs[0].digest, item.index);
    // Index, two manifests, two image configs, one item config, two layers.
    assert_eq!(item.blobs.len(), 8);
    for blob in &item.blobs {
        let content = store.read(&blob.digest, 1 << 20).unwrap();
        assert_eq!(content.len() as u64, blob.size);
        let sha3: [u8; 32] = Sha3_256::digest(&content).into();
        assert_eq!(sha3, blob.sha3_256);
    }

    let images = ItemImage::load_all(&store, &item.index, &GraphCaps::default()).unwrap();
    let images: Vec<_> = images.into_iter().map(Result::unwrap).collect();
    assert_eq!(images[0].platform.architecture, "amd64");
    assert_eq!(images[0].platform.os, "linux");
    assert_eq!(images[0].config.args(), ["/bin/web", "-v"]);
    assert_eq!(images[0].config.env, ["B=1", "A=image"]);
    assert_eq!(images[0].config.working_dir, "/srv");
    assert_eq!(images[0].config.exposed_ports, ["80/tcp"]);
    assert_eq!(images[1].config.args(), ["/bin/arm"]);
    let config = images[1].item_config.as_ref().unwrap();
    assert_eq!(config.published_ports[0].host_port, 8080);
    assert_eq!(config.author, "ann");

    let other = tempfile::tempdir().unwrap();
    let store = BlobStore::open(other.path()).unwrap();
    let again = open_bytes(&signed(folder().path(), signer()), &Caps::default()).unwrap();
    assert_eq!(
        convert(&again, &BTreeMap::new(), &store, &stop).unwrap(),
        items,
        "the same files give the same digests"
    );
}

#[test]
fn an_ecdsa_signature_will_do_too() {
    let ecdsa = signer_of(authority(), &user(), KeyAlgorithm::EcP256);
    let dir = folder();
    open_bytes(&signed(dir.path(), &ecdsa), &Caps::default()).unwrap();
}

#[test]
fn the_cloud_may_know_the_signer_by_serial() {
    let dir = folder();
    let bundle = signed(dir.path(), signer());
    let scratch = tempfile::tempdir().unwrap();
    let asked = std::cell::RefCell::new(String::new());
    let book = |serial: &str| {
        asked.replace(serial.to_owned());
        Some(SignerCertificate {
            chain: signer().chain().to_vec(),
        })
    };
    let opened = open(
        &bundle[..],
        &Caps::default(),
        &authority().roots(),
        &book,
        SystemClock.now(),
        scratch.path(),
        &CancellationToken::new(),
    )
    .unwrap();
    assert!(aos_pki::same_serial(&asked.borrow(), &opened.signer.serial));
}

#[test]
fn a_component_is_delivered_as_the_file_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let config = r#"schemaVersion: 2
items:
  - identity: {type: component, codename: fw}
    version: "2.0.0"
    sourceFolder: images
    images:
      - archInfo: {architecture: amd64}
        path: fw.img.gz
        mediaType: application/vnd.aos.image.component.full.v1+gzip
    configuration: {runtimes: [boot]}
"#;
    put(dir.path(), "config.yaml", config.as_bytes(), 0o644);
    put(dir.path(), "images/fw.img.gz", b"image", 0o644);
    let opened = open_bytes(&signed(dir.path(), signer()), &Caps::default()).unwrap();
    let blobs = tempfile::tempdir().unwrap();
    let store = BlobStore::open(blobs.path()).unwrap();
    let stop = CancellationToken::new();
    let item = convert(&opened, &BTreeMap::new(), &store, &stop)
        .unwrap()
        .remove(0);
    let images = ItemImage::load_all(&store, &item.index, &GraphCaps::default()).unwrap();
    let image = images.into_iter().next().unwrap().unwrap();
    assert_eq!(
        store.read(&image.layers[0].descriptor.digest, 10).unwrap(),
        b"image"
    );
    assert_eq!(image.item_config.unwrap().runtimes, ["boot"]);
}
