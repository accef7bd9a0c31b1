use std::collections::BTreeMap;

use aos_bundle::{Caps, Config, SignerCertificate, convert, open};
use aos_image::{BlobStore, ItemImage, graph::Caps as GraphCaps};
use aos_pki::KeyAlgorithm;
use aos_time::{Clock, SystemClock};
use aos_types::{Condition, ItemId, ItemType};
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

/// What a Unit gets of the bundle `config`, whose images are one program each: by codename, for amd64.
fn delivered(
    config: &str,
    ids: &BTreeMap<String, ItemId>,
) -> Result<BTreeMap<String, ItemImage>, aos_bundle::ConvertError> {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "config.yaml", config.as_bytes(), 0o644);
    for item in Config::parse(config).unwrap().0.items {
        let program = format!("{}/amd64/run", item.codename);
        put(dir.path(), &program, b"#!/bin/sh", 0o755);
    }
    let opened = open_bytes(&signed(dir.path(), signer()), &Caps::default()).unwrap();
    let blobs = tempfile::tempdir().unwrap();
    let store = BlobStore::open(blobs.path()).unwrap();
    let items = convert(&opened, ids, &store, &CancellationToken::new())?;
    let read = |index| {
        let images = ItemImage::load_all(&store, index, &GraphCaps::default()).unwrap();
        images.into_iter().next().unwrap().unwrap()
    };
    Ok(items
        .iter()
        .map(|item| (item.codename.clone(), read(&item.index)))
        .collect())
}

/// One service with more in its `configuration`.
fn service(codename: &str, more: &str) -> String {
    format!(
        r#"  - identity: {{codename: {codename}}}
    version: "1.4.0"
    images: [{{archInfo: {{architecture: amd64}}}}]
    configuration: {{cmd: [/run]{more}}}
"#
    )
}

#[test]
fn user_and_stop_signal_reach_the_image_config() {
    for (more, user, signal) in [
        ("", "", ""),
        (
            ", user: \"1000:50\", stopSignal: SIGINT",
            "1000:50",
            "SIGINT",
        ),
        (", user: app, stopSignal: SIGRTMIN+3", "app", "SIGRTMIN+3"),
        // Numbers need no quotes.
        (", user: 7, stopSignal: 15", "7", "15"),
    ] {
        let config = format!("schemaVersion: 2\nitems:\n{}", service("web", more));
        let units = delivered(&config, &BTreeMap::new()).unwrap();
        let image = &units["web"].config;
        assert_eq!(
            (image.user.as_str(), image.stop_signal.as_str()),
            (user, signal)
        );
    }
    for (more, field) in [
        (", user: \"a:b:c\"", "user"),
        (", user: -1", "user"),
        (", user: [app]", "user"),
        (", user: \"\"", "user"),
        (", stopSignal: SIGNONE", "stopSignal"),
        (", stopSignal: 0", "stopSignal"),
        (", stopSignal: 100", "stopSignal"),
        (", stopSignal: {}", "stopSignal"),
    ] {
        let config = format!("schemaVersion: 2\nitems:\n{}", service("web", more));
        let problems = Config::parse(&config).unwrap_err();
        let named = format!("items[0].configuration.{field}");
        assert_eq!(problems.0.len(), 1, "{more}: {problems}");
        assert_eq!(problems.0[0].field, named, "{more}: {problems}");
    }
}

#[test]
fn dependencies_reach_the_unit_with_the_id_of_the_other_item() {
    let config = format!(
        "schemaVersion: 2\nitems:\n{}{}    dependencies:\n{}\n{}\n",
        service("db", ""),
        service("web", ""),
        "      - {identity: {codename: db}, versions: \">=1.2, <2\", includePreRelease: true, condition: healthy}",
        "      - {identity: {codename: log}, condition: after}"
    );
    let id = |text: &str| ItemId::new(text).unwrap();
    let ids = BTreeMap::from([
        ("db".to_owned(), id("0190-db")),
        ("log".to_owned(), id("0190-log")),
        ("other".to_owned(), id("0190-other")),
    ]);
    let units = delivered(&config, &ids).unwrap();
    let of = |name: &str| {
        units[name]
            .item_config
            .as_ref()
            .unwrap()
            .dependencies
            .clone()
    };
    assert!(of("db").is_empty());
    let [db, log] = &of("web")[..] else {
        panic!("both are there")
    };
    assert_eq!(
        (&db.identifier, db.condition),
        (&ids["db"], Condition::Healthy)
    );
    // For people it keeps its name.
    assert_eq!(db.name(), "db");
    let admitted = ["1.4.0", "1.5.0-rc.1", "1.1.0", "2.0.0"].map(|version| db.admits(version));
    assert_eq!(admitted, [true, true, false, false]);
    assert_eq!(
        (&log.identifier, log.condition),
        (&ids["log"], Condition::After)
    );
    assert!(log.admits("0.1.0"));

    let error =
        delivered(&config, &BTreeMap::from([("db".to_owned(), id("0190-db"))])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`web` depends on `log`, which is not known here; publish that first, or in the same bundle"
    );
}
