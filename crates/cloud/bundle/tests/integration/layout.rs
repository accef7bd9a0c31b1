//! Images that other tools have built, in a bundle.

use std::{fs, path::Path};

use aos_bundle::{Caps, ConvertError, ConvertedItem, check, convert};
use aos_image::{BlobStore, ItemImage, build, graph::Caps as GraphCaps};
use flate2::{Compression, write::GzEncoder};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::folder::{open_bytes, signed, signer};

fn blob(layout: &Path, content: &[u8]) -> (String, usize) {
    let scratch = tempfile::tempdir().unwrap();
    let store = BlobStore::open(scratch.path()).unwrap();
    let digest = store.insert_bytes(content).unwrap().digest;
    let folder = layout.join("blobs/sha256");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(digest.hex()), content).unwrap();
    (digest.to_string(), content.len())
}

/// A layout with one image for amd64, as `skopeo copy … oci:` writes it.
fn layout(at: &Path) {
    layout_with(
        at,
        &json!({
            "User": "1000:50", "Env": ["PATH=/bin", "COLOUR=red"], "Entrypoint": ["/srv/app"], "Cmd": ["-v"],
            "WorkingDir": "/srv", "StopSignal": "SIGINT", "ExposedPorts": {"80/tcp": {}}
        }),
    );
}

/// The same with other words of its process.
fn layout_with(at: &Path, process: &serde_json::Value) {
    let files = tempfile::tempdir().unwrap();
    fs::create_dir(files.path().join("srv")).unwrap();
    fs::write(files.path().join("srv/app"), "#!/bin/sh\n").unwrap();
    let sources = [(files.path().to_owned(), Default::default())];
    let (tar, packed) = build::pack(Vec::new(), &sources).unwrap();
    let (layer, layer_size) = blob(at, &tar);
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "config": process,
        "rootfs": {"type": "layers", "diff_ids": [packed.tar.to_string()]}
    });
    let (config, config_size) = blob(at, config.to_string().as_bytes());
    let manifest = json!({
        "schemaVersion": 2,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": config_size},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": layer, "size": layer_size}]
    });
    let (manifest, size) = blob(at, manifest.to_string().as_bytes());
    let index = json!({"schemaVersion": 2, "manifests": [
        {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": manifest, "size": size}
    ]});
    fs::write(at.join("index.json"), index.to_string()).unwrap();
    fs::write(at.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

fn bundle(image: &str, configuration: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let config = format!(
        "schemaVersion: 2\npublisher: {{author: ann, company: c}}\nitems:\n  - identity: {{type: service, codename: web}}\n    version: \"1.0.0\"\n    images:\n      - archInfo: {{architecture: amd64}}\n        {image}\n    configuration: {configuration}\n"
    );
    fs::write(dir.path().join("config.yaml"), config).unwrap();
    dir
}

const FOLDER: &str = "{sourceFolder: image, mediaType: application/vnd.oci.image.layout.v1}";

#[test]
fn an_image_layout_is_taken_over_with_its_own_words() {
    let keys = FOLDER.trim_matches(['{', '}']).replace(", ", "\n        ");
    for (configuration, args, env) in [
        (
            "{instances: {minInstances: 1}}",
            vec!["/srv/app", "-v"],
            vec!["PATH=/bin", "COLOUR=red"],
        ),
        (
            "{cmd: [/srv/app, other], env: [COLOUR=blue]}",
            vec!["/srv/app", "other"],
            vec!["PATH=/bin", "COLOUR=blue"],
        ),
    ] {
        let dir = bundle(&keys, configuration);
        layout(&dir.path().join("image"));
        let opened = open_bytes(&signed(dir.path(), signer()), &Caps::default()).unwrap();
        let blobs = tempfile::tempdir().unwrap();
        let store = BlobStore::open(blobs.path()).unwrap();
        let items = convert(
            &opened,
            &Default::default(),
            &store,
            &CancellationToken::new(),
        )
        .unwrap();
        let images = ItemImage::load_all(&store, &items[0].index, &GraphCaps::default()).unwrap();
        let image = images.into_iter().next().unwrap().unwrap();
        let config = &image.config;
        assert_eq!(config.args(), args);
        assert_eq!(config.env, env);
        assert_eq!(
            (config.user.as_str(), config.stop_signal.as_str()),
            ("1000:50", "SIGINT")
        );
        assert_eq!(
            (config.working_dir.as_str(), &config.exposed_ports[..]),
            ("/srv", &["80/tcp".to_owned()][..])
        );
        assert_eq!(image.layers.len(), 1);
        // It brings everything it needs.
        assert!(!image.item_config.unwrap().base_layer_is_node_rootfs);
    }
}

#[test]
fn a_layout_that_cannot_be_used_is_refused_with_the_reason() {
    type Damage = fn(&Path);
    let cases: [(&str, Damage); 3] = [
        ("index.json", |at| {
            fs::remove_file(at.join("index.json")).unwrap()
        }),
        ("amd64", |at| {
            // Another architecture is in it.
            fs::remove_dir_all(at.join("blobs")).unwrap();
            let (config, size) = blob(at, br#"{"architecture":"arm64","rootfs":{"diff_ids":[]}}"#);
            let text = json!({"config": {"digest": config, "size": size}, "layers": []});
            let (digest, size) = blob(at, text.to_string().as_bytes());
            let index = json!({"manifests": [{"digest": digest, "size": size}]});
            fs::write(at.join("index.json"), index.to_string()).unwrap();
        }),
        ("missing", |at| {
            for entry in fs::read_dir(at.join("blobs/sha256")).unwrap() {
                let path = entry.unwrap().path();
                if fs::read(&path).unwrap().starts_with(&[0x1f, 0x8b]) {
                    fs::remove_file(path).unwrap();
                }
            }
        }),
    ];
    let keys = FOLDER.trim_matches(['{', '}']).replace(", ", "\n        ");
    for (word, damage) in cases {
        let dir = bundle(&keys, "{instances: {minInstances: 1}}");
        layout(&dir.path().join("image"));
        assert!(check(dir.path()).is_ok());
        damage(&dir.path().join("image"));
        let problems = check(dir.path()).unwrap_err().to_string();
        assert!(
            problems.contains(word) && problems.contains("items[0].images[0]"),
            "{problems}"
        );
    }
    // A layout that is not called one is not packed as if it were plain files.
    let dir = bundle("sourceFolder: image", "{cmd: [/x]}");
    layout(&dir.path().join("image"));
    assert!(
        check(dir.path())
            .unwrap_err()
            .to_string()
            .contains("OCI image layout")
    );
}

/// The files of `folder` as a tar, each name after `top`.
fn tar_of(folder: &Path, top: &str) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_dir_all(top, folder).unwrap();
    tar.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
    std::io::copy(&mut &bytes[..], &mut packer).unwrap();
    packer.finish().unwrap()
}

/// What the cloud makes of a bundle whose image is the file `packed`, with a store of its blobs.
fn packed(
    name: &str,
    packed: &[u8],
    configuration: &str,
) -> Result<(ConvertedItem, tempfile::TempDir), ConvertError> {
    let image = format!("path: {name}\n        mediaType: {}", aos_bundle::LAYOUT);
    let dir = bundle(&image, configuration);
    fs::write(dir.path().join(name), packed).unwrap();
    let opened = open_bytes(&signed(dir.path(), signer()), &Caps::default()).unwrap();
    let blobs = tempfile::tempdir().unwrap();
    let store = BlobStore::open(blobs.path()).unwrap();
    let stop = CancellationToken::new();
    let mut items = convert(&opened, &Default::default(), &store, &stop)?;
    Ok((items.remove(0), blobs))
}

fn told(error: &ConvertError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

#[test]
fn a_packed_layout_gives_what_its_folder_gives() {
    let folder = tempfile::tempdir().unwrap();
    layout(folder.path());
    let (plain, dotted) = (tar_of(folder.path(), ""), tar_of(folder.path(), "."));
    let mut digests = Vec::new();
    for (name, content) in [
        ("image.tar", &plain),
        ("dotted.tar", &dotted),
        ("image.tar.gz", &gzip(&plain)),
        // What it is called tells nothing.
        ("image.oci", &gzip(&dotted)),
    ] {
        let (item, blobs) = packed(name, content, "{env: [COLOUR=blue]}").unwrap();
        let store = BlobStore::open(blobs.path()).unwrap();
        let images = ItemImage::load_all(&store, &item.index, &GraphCaps::default()).unwrap();
        let image = images.into_iter().next().unwrap().unwrap();
        assert_eq!(image.config.args(), ["/srv/app", "-v"]);
        assert_eq!(image.config.env, ["PATH=/bin", "COLOUR=blue"]);
        assert_eq!(image.config.user, "1000:50");
        assert_eq!(image.config.stop_signal, "SIGINT");
        assert_eq!(image.layers.len(), 1);
        assert!(!item.item_config.base_layer_is_node_rootfs);
        digests.push(item.index);
    }
    digests.dedup();
    assert_eq!(digests.len(), 1, "however it is packed, it is the same");
}

#[test]
fn a_packed_layout_that_cannot_be_used_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    layout(folder.path());
    let whole = tar_of(folder.path(), "");
    let nested = tar_of(folder.path(), "image");
    let cut = gzip(&whole);
    let mute = tempfile::tempdir().unwrap();
    layout_with(mute.path(), &json!({}));
    let mute = tar_of(mute.path(), "");
    for (content, configuration, expected) in [
        (
            &b"no tar at all"[..],
            "{}",
            "the packed OCI image of `web` for amd64 cannot be unpacked",
        ),
        (
            &cut[..cut.len() / 2],
            "{}",
            "the packed OCI image of `web` for amd64 cannot be unpacked",
        ),
        (&nested[..], "{}", "has no `index.json` at its top"),
        (
            &mute[..],
            "{}",
            "names neither an entry point nor a command: write `cmd`",
        ),
    ] {
        let error = packed("image.tar", content, configuration).unwrap_err();
        assert!(told(&error).contains(expected), "{}", told(&error));
    }
    packed("image.tar", &mute, "{cmd: [/srv/app]}").unwrap();
}

#[test]
fn what_an_image_says_of_its_process_is_checked_where_the_bundle_says_nothing() {
    let keys = FOLDER.trim_matches(['{', '}']).replace(", ", "\n        ");
    let start = |key: &str, value: &str| json!({"Entrypoint": ["/srv/app"], key: value});
    for (key, value, instead, expected) in [
        (
            "User",
            "a:b:c",
            "user: \"7\"",
            "`User` in its config: `a:b:c` is no user",
        ),
        (
            "User",
            "4294967295",
            "user: app",
            "`User` in its config: `4294967295` is no user",
        ),
        (
            "StopSignal",
            "SIGNONE",
            "stopSignal: TERM",
            "`StopSignal` in its config: `SIGNONE` is no signal",
        ),
        (
            "WorkingDir",
            "srv",
            "workingDir: /srv",
            "`WorkingDir` in its config is `srv`",
        ),
    ] {
        let damaged = |configuration: &str| {
            let dir = bundle(&keys, configuration);
            layout_with(&dir.path().join("image"), &start(key, value));
            dir
        };
        let problems = check(damaged("{instances: {minInstances: 1}}").path()).unwrap_err();
        let problem = &problems.0[0];
        assert_eq!(problem.field, "items[0].images[0]");
        assert!(problem.message.starts_with(expected), "{problem}");
        // What the bundle says instead counts.
        check(damaged(&format!("{{{instead}}}")).path()).unwrap();
        // A packed one is looked at in the cloud.
        let image = tempfile::tempdir().unwrap();
        layout_with(image.path(), &start(key, value));
        let tar = tar_of(image.path(), "");
        let error = packed("image.tar", &tar, "{instances: {minInstances: 1}}").unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        packed("image.tar", &tar, &format!("{{{instead}}}")).unwrap();
    }
}
