use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

use aos_image::{
    BlobStore, ImageConfig, ItemImage, Platform,
    build::{self, Image},
    graph::{Caps, media_type},
    tree,
    unpack::{LayerStore, Limits},
};
use aos_types::ItemConfig;
use tokio_util::sync::CancellationToken;

use crate::is_root;

fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("bin/deep")).unwrap();
    fs::write(dir.path().join("bin/tool"), b"#!tool").unwrap();
    fs::set_permissions(
        dir.path().join("bin/tool"),
        PermissionsExt::from_mode(0o700),
    )
    .unwrap();
    fs::write(dir.path().join("bin/deep/data"), vec![7; 70_000]).unwrap();
    let long = "n".repeat(200);
    fs::write(dir.path().join(long), b"").unwrap();
    symlink("bin/tool", dir.path().join("link")).unwrap();
    dir
}

fn store(root: &Path) -> BlobStore {
    BlobStore::open(root).unwrap()
}

#[test]
fn the_same_folder_gives_the_same_layer() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = store(dir.path());
    let (one, two) = (folder(), folder());
    let first = build::layer(&blobs, one.path()).unwrap();
    assert_eq!(build::layer(&blobs, two.path()).unwrap(), first);
    assert_eq!(first.tree, tree::digest_of_folder(one.path()).unwrap());
    assert_eq!(first.bytes, 70_006);
}

#[test]
fn what_is_not_a_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = store(dir.path());
    for (name, text) in [("a\nb", "line break"), (".wh.x", "deletion")] {
        let folder = folder();
        fs::write(folder.path().join(name), b"").unwrap();
        let error = build::layer(&blobs, folder.path()).unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
    }
    assert!(blobs.list().unwrap().is_empty());
}

#[test]
fn an_item_is_built_loaded_and_unpacked() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = store(dir.path());
    let folder = folder();
    let layer = build::layer(&blobs, folder.path()).unwrap();
    let image = |architecture: &str| Image {
        config: ImageConfig {
            platform: Platform {
                architecture: architecture.into(),
                os: "linux".into(),
                ..Platform::default()
            },
            cmd: vec!["/bin/tool".into()],
            ..ImageConfig::default()
        },
        item_config: Some(ItemConfig {
            hostname: Some("web".into()),
            ..ItemConfig::default()
        }),
        layers: vec![layer.clone()],
    };
    let images = [image("amd64"), image("arm64")];
    let item = build::item(&blobs, &images).unwrap();
    assert_eq!(build::item(&blobs, &images).unwrap(), item);
    // Index, two manifests, two configs, one item config and one layer that both share.
    assert_eq!(item.blobs.len(), 7);
    assert_eq!(item.blobs[0], item.index);
    assert_eq!(item.index.media_type, media_type::INDEX);
    assert_eq!(blobs.list().unwrap().len(), 7);

    let loaded = ItemImage::load_all(&blobs, &item.index.digest, &Caps::default()).unwrap();
    let loaded: Vec<_> = loaded.into_iter().map(Result::unwrap).collect();
    assert_eq!(loaded[1].platform.architecture, "arm64");
    let first = &loaded[0];
    assert_eq!(first.config.args(), ["/bin/tool"]);
    let item_config = first.item_config.as_ref().unwrap();
    assert_eq!(item_config.hostname.as_deref(), Some("web"));
    assert_eq!(first.layers[0].diff_id, layer.tree);

    if !is_root("an_item_is_built_loaded_and_unpacked (unpacking)") {
        return;
    }
    let layers = LayerStore::open(dir.path(), Limits::default()).unwrap();
    let stop = CancellationToken::new();
    let unpacked = layers.unpack(&blobs, &first.layers[0], &stop).unwrap();
    let tool = fs::metadata(unpacked.path.join("bin/tool")).unwrap();
    assert_eq!(tool.permissions().mode() & 0o777, 0o755);
    assert_eq!(unpacked.size, 70_006);
}
