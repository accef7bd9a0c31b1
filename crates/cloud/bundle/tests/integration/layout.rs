//! Images that other tools have built, in a bundle.

use std::{fs, path::Path};

use aos_bundle::{Caps, check, convert};
use aos_image::{BlobStore, ItemImage, build, graph::Caps as GraphCaps};
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
    let files = tempfile::tempdir().unwrap();
    fs::create_dir(files.path().join("srv")).unwrap();
    fs::write(files.path().join("srv/app"), "#!/bin/sh\n").unwrap();
    let sources = [(files.path().to_owned(), Default::default())];
    let (tar, packed) = build::pack(Vec::new(), &sources).unwrap();
    let (layer, layer_size) = blob(at, &tar);
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "config": {
            "User": "1000:50", "Env": ["PATH=/bin", "COLOUR=red"], "Entrypoint": ["/srv/app"], "Cmd": ["-v"],
            "WorkingDir": "/srv", "StopSignal": "SIGINT", "ExposedPorts": {"80/tcp": {}}
        },
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
