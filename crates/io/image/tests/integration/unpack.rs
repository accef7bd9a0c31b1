use std::{
    fs,
    io::Write,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::Path,
};

use aos_image::{
    BlobStore,
    graph::{Compression, Descriptor, Layer, media_type},
    tree,
    unpack::{Error, Extracted, Flavour, LayerStore, Limits, Refusal, extract},
};
use aos_types::Digest;
use proptest::prelude::*;
use tar::{Builder, EntryType, Header};
use tokio_util::sync::CancellationToken;

use crate::{blob::digest_of, is_root};

/// Adds an entry without the checks that the tar crate makes for well-meaning writers.
fn add(tar: &mut Builder<Vec<u8>>, kind: EntryType, name: &str, link: &str, content: &[u8]) {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(content.len() as u64);
    let old = header.as_old_mut();
    old.name[..name.len()].copy_from_slice(name.as_bytes());
    old.linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_cksum();
    tar.append(&header, content).unwrap();
}

fn archive(entries: &[(EntryType, &str, &str, &[u8])]) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    for (kind, name, link, content) in entries {
        add(&mut tar, *kind, name, link, content);
    }
    tar.into_inner().unwrap()
}

fn run(tar: &[u8], folder: &Path, limits: &Limits) -> Result<Extracted, Error> {
    extract(
        tar,
        Compression::None,
        folder,
        Flavour::Files,
        limits,
        &CancellationToken::new(),
    )
}

fn refusal(entries: &[(EntryType, &str, &str, &[u8])]) -> Refusal {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("in");
    fs::create_dir(&folder).unwrap();
    let error = run(&archive(entries), &folder, &Limits::default()).unwrap_err();
    assert_eq!(
        fs::read_dir(outer.path()).unwrap().count(),
        1,
        "something was written outside"
    );
    match error {
        Error::Refused { refusal, .. } => refusal,
        other => panic!("{other:?}"),
    }
}

#[test]
fn hostile_archives_are_refused() {
    use EntryType as T;
    let file = T::Regular;
    type Entry<'a> = (T, &'a str, &'a str, &'a [u8]);
    let cases: &[(&[Entry<'_>], Refusal)] = &[
        (&[(file, "/etc/x", "", b"")], Refusal::Absolute),
        (&[(file, "../x", "", b"")], Refusal::Escapes),
        (&[(file, "a/../../x", "", b"")], Refusal::Escapes),
        (&[(T::Char, "null", "", b"")], Refusal::Kind("device")),
        (&[(T::Block, "sda", "", b"")], Refusal::Kind("device")),
        (&[(T::Fifo, "p", "", b"")], Refusal::Kind("pipe")),
        (
            &[(T::GNUSparse, "s", "", b"")],
            Refusal::Kind("sparse file"),
        ),
        (
            &[(T::Symlink, "l", "/tmp", b""), (file, "l/x", "", b"")],
            Refusal::ThroughLink,
        ),
        (
            &[
                (T::Directory, "d", "", b""),
                (T::Symlink, "l", "d", b""),
                (file, "l/x", "", b""),
            ],
            Refusal::ThroughLink,
        ),
        (
            &[(file, "f", "", b""), (file, "f/x", "", b"")],
            Refusal::ThroughLink,
        ),
        (
            &[(T::Symlink, "a/l", "../../x", b"")],
            Refusal::LinkEscapes("../../x".into()),
        ),
        (
            &[(T::Symlink, "l", "/a/../../x", b"")],
            Refusal::LinkEscapes("/a/../../x".into()),
        ),
        (
            &[(T::Link, "l", "/etc/passwd", b"")],
            Refusal::HardLink("/etc/passwd".into()),
        ),
        (
            &[(T::Link, "l", "../x", b"")],
            Refusal::HardLink("../x".into()),
        ),
        (
            &[
                (T::Symlink, "s", "/etc/passwd", b""),
                (T::Link, "l", "s", b""),
            ],
            Refusal::HardLink("s".into()),
        ),
        (
            &[(file, "x", "", b"1"), (file, "./x", "", b"2")],
            Refusal::Twice,
        ),
        (
            &[(T::Symlink, "x", "/tmp/y", b""), (file, "x", "", b"2")],
            Refusal::Twice,
        ),
        (
            &[(file, "x", "", b"1"), (T::Directory, "x", "", b"")],
            Refusal::Twice,
        ),
        (&[(file, "./", "", b"1")], Refusal::Name("is empty")),
    ];
    for (entries, expected) in cases {
        assert_eq!(refusal(entries), *expected, "{entries:?}");
    }
}

#[test]
fn bombs_end_at_the_caps() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits {
        entries: 3,
        bytes: 1000,
        path: 50,
        depth: 3,
        header: 1024,
    };
    let refused = |tar: &[u8]| {
        let folder = tempfile::tempdir_in(dir.path()).unwrap();
        run(tar, folder.path(), &limits).unwrap_err().to_string()
    };
    let file = EntryType::Regular;
    let many: Vec<_> = ["a", "b", "c", "d"]
        .iter()
        .map(|name| (file, *name, "", &b""[..]))
        .collect();
    assert!(refused(&archive(&many)).contains("more than 3 entries"));
    let long = vec![0; 1001];
    assert!(refused(&archive(&[(file, "a", "", &long)])).contains("more than 1000 bytes"));
    let half = vec![0; 600];
    assert!(
        refused(&archive(&[(file, "a", "", &half), (file, "b", "", &half)]))
            .contains("more than 1000 bytes")
    );
    assert!(refused(&archive(&[(file, "a/b/c/d", "", b"")])).contains("too deep"));
    assert!(refused(&archive(&[(file, &"x/".repeat(26), "", b"")])).contains("too long"));
    // A long name that would fill the memory.
    let name = vec![b'x'; 5000];
    assert!(
        refused(&archive(&[(
            EntryType::GNULongName,
            "././@LongLink",
            "",
            &name
        )]))
        .contains("extended header")
    );
    let mut zeros = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..64 {
        zeros.write_all(&[0; 1 << 16]).unwrap();
    }
    let bomb = zeros.finish().unwrap();
    let folder = tempfile::tempdir_in(dir.path()).unwrap();
    let error = extract(
        &bomb[..],
        Compression::Gzip,
        folder.path(),
        Flavour::Files,
        &limits,
        &CancellationToken::new(),
    )
    .unwrap_err();
    assert!(matches!(error, Error::TooMuch { .. }), "{error:?}");
}

#[test]
fn damage_is_told_from_malice() {
    let dir = tempfile::tempdir().unwrap();
    let tar = archive(&[(EntryType::Regular, "a", "", &[7; 5000])]);
    for cut in [100, 600, 3000] {
        let folder = tempfile::tempdir_in(dir.path()).unwrap();
        let error = run(&tar[..cut], folder.path(), &Limits::default()).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{cut}: {error:?}");
    }
    let stop = CancellationToken::new();
    stop.cancel();
    let error = extract(
        &tar[..],
        Compression::None,
        dir.path(),
        Flavour::Files,
        &Limits::default(),
        &stop,
    )
    .unwrap_err();
    assert!(matches!(error, Error::Stopped), "{error:?}");
}

#[test]
fn forged_attributes_are_refused() {
    let mut tar = Builder::new(Vec::new());
    tar.append_pax_extensions([("SCHILY.xattr.trusted.overlay.opaque", &b"y"[..])])
        .unwrap();
    add(&mut tar, EntryType::Directory, "d", "", b"");
    let dir = tempfile::tempdir().unwrap();
    let error = run(&tar.into_inner().unwrap(), dir.path(), &Limits::default()).unwrap_err();
    assert!(
        error.to_string().contains("trusted.overlay.opaque"),
        "{error}"
    );
}

fn layer_tar() -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Directory);
    header.set_mode(0o1777);
    header.set_size(0);
    header.set_mtime(1_000_000);
    tar.append_data(&mut header, "tmp/", &b""[..]).unwrap();
    tar.append_pax_extensions([("SCHILY.xattr.user.note", &b"hi"[..])])
        .unwrap();
    let mut header = Header::new_gnu();
    header.set_mode(0o4755);
    header.set_uid(1234);
    header.set_gid(4321);
    header.set_size(4);
    header.set_mtime(2_000_000);
    tar.append_data(&mut header, "tmp/tool", &b"tool"[..])
        .unwrap();
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Link);
    header.set_size(0);
    tar.append_link(&mut header, "deep/down/hard", "tmp/tool")
        .unwrap();
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Symlink);
    header.set_uid(77);
    header.set_size(0);
    tar.append_link(&mut header, "abs", "/usr/bin/x").unwrap();
    add(&mut tar, EntryType::Regular, "etc/.wh.hosts", "", b"");
    add(&mut tar, EntryType::Regular, "var/.wh..wh..opq", "", b"");
    tar.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn layer(blobs: &BlobStore, packed: &[u8], diff_id: Digest) -> Layer {
    let stored = blobs.insert_bytes(packed).unwrap();
    Layer {
        descriptor: Descriptor {
            media_type: media_type::LAYER_TAR_GZIP.into(),
            digest: stored.digest,
            size: stored.size,
        },
        diff_id,
    }
}

#[test]
fn a_layer_keeps_owners_modes_links_and_deletions() {
    if !is_root("a_layer_keeps_owners_modes_links_and_deletions") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let blobs = BlobStore::open(dir.path()).unwrap();
    let store = LayerStore::open(dir.path(), Limits::default()).unwrap();
    let tar = layer_tar();
    let stop = CancellationToken::new();
    let layer = layer(&blobs, &gzip(&tar), digest_of(&tar));
    let unpacked = store.unpack(&blobs, &layer, &stop).unwrap();
    let at = |name: &str| fs::symlink_metadata(unpacked.path.join(name)).unwrap();
    let tool = at("tmp/tool");
    assert_eq!(
        (tool.uid(), tool.gid(), tool.mode() & 0o7777),
        (1234, 4321, 0o4755)
    );
    assert_eq!((tool.mtime(), tool.nlink()), (2_000_000, 2));
    assert_eq!(at("tmp").mode() & 0o7777, 0o1777);
    assert_eq!(at("tmp").mtime(), 1_000_000);
    assert_eq!(at("abs").uid(), 77);
    assert_eq!(
        fs::read_link(unpacked.path.join("abs")).unwrap(),
        Path::new("/usr/bin/x")
    );
    let whiteout = at("etc/hosts");
    assert!(whiteout.file_type().is_char_device());
    assert_eq!(whiteout.rdev(), 0);
    let mut value = [0; 8];
    let var = fs::File::open(unpacked.path.join("var")).unwrap();
    let length = rustix::fs::fgetxattr(&var, "trusted.overlay.opaque", &mut value[..]).unwrap();
    assert_eq!(&value[..length], b"y");
    let file = fs::File::open(unpacked.path.join("tmp/tool")).unwrap();
    let length = rustix::fs::fgetxattr(&file, "user.note", &mut value[..]).unwrap();
    assert_eq!(&value[..length], b"hi");
    assert_eq!(unpacked.size, 4);
    assert_eq!(store.get(&layer.diff_id).unwrap(), Some(unpacked.clone()));

    assert!(store.is_intact(&layer.diff_id).unwrap());
    fs::write(unpacked.path.join("tmp/tool"), b"evil").unwrap();
    assert!(!store.is_intact(&layer.diff_id).unwrap());

    assert_eq!(store.list().unwrap(), [layer.diff_id]);
    assert_eq!(store.collect(&Default::default()).unwrap(), 1);
    assert_eq!(store.get(&layer.diff_id).unwrap(), None);
}

#[test]
fn a_layer_is_known_by_either_digest_and_no_other() {
    if !is_root("a_layer_is_known_by_either_digest_and_no_other") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let blobs = BlobStore::open(dir.path()).unwrap();
    let store = LayerStore::open(dir.path(), Limits::default()).unwrap();
    let stop = CancellationToken::new();
    let tar = archive(&[
        (EntryType::Regular, "./b", "", b"B"),
        (EntryType::Regular, "a/x", "", b"A"),
    ]);
    let lines = format!(
        "{}  a/x\n{}  b\n",
        digest_of(b"A").hex(),
        digest_of(b"B").hex()
    );
    let tree_digest = digest_of(lines.as_bytes());
    let packed = gzip(&tar);
    for diff_id in [digest_of(&tar), tree_digest] {
        let unpacked = store
            .unpack(&blobs, &layer(&blobs, &packed, diff_id), &stop)
            .unwrap();
        assert_eq!(tree::digest_of_folder(&unpacked.path).unwrap(), tree_digest);
    }
    let wrong = layer(&blobs, &packed, digest_of(b"other"));
    let error = store.unpack(&blobs, &wrong, &stop).unwrap_err();
    assert!(matches!(error, Error::WrongDiffId { .. }), "{error}");

    let rotten = gzip(&archive(&[(EntryType::Regular, "c", "", b"C")]));
    let path = blobs.path(&wrong.descriptor.digest);
    fs::remove_file(&path).unwrap();
    fs::write(&path, rotten).unwrap();
    let error = store.unpack(&blobs, &wrong, &stop).unwrap_err();
    assert!(matches!(error, Error::WrongBlob { .. }), "{error}");

    let mut encrypted = wrong.clone();
    encrypted.descriptor.media_type = format!("{}+tar", media_type::LAYER_ENCRYPTED);
    let error = store.unpack(&blobs, &encrypted, &stop).unwrap_err();
    assert!(error.to_string().contains("encrypted by its publisher"));

    assert_eq!(store.list().unwrap().len(), 2, "nothing is left half");
    let left = fs::read_dir(dir.path().join("layers/sha256"))
        .unwrap()
        .count();
    assert_eq!(left, 2);
}

#[test]
fn what_a_crash_left_is_swept() {
    let dir = tempfile::tempdir().unwrap();
    let layers = dir.path().join("layers/sha256");
    fs::create_dir_all(layers.join(".new-abc/layer")).unwrap();
    fs::create_dir_all(layers.join(".old-abc/layer")).unwrap();
    LayerStore::open(dir.path(), Limits::default()).unwrap();
    assert_eq!(fs::read_dir(&layers).unwrap().count(), 0);
}

#[test]
fn plain_files_get_plain_modes() {
    let dir = tempfile::tempdir().unwrap();
    run(&layer_tar(), dir.path(), &Limits::default()).unwrap();
    let mode = |name: &str| {
        fs::metadata(dir.path().join(name))
            .unwrap()
            .permissions()
            .mode()
            & 0o7777
    };
    assert_eq!(mode("tmp/tool"), 0o755);
    assert_eq!(mode("tmp"), 0o755);
    assert!(dir.path().join("etc/.wh.hosts").exists());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever names and links an archive uses, nothing appears beside the folder it is unpacked into.
    #[test]
    fn nothing_escapes(entries in proptest::collection::vec(
        (0..4_u8, "(\\.\\./|/|a/|b/|\\./){0,4}(a|b|c|\\.\\.)", "(\\.\\./|/|a/|b/){0,4}(a|b|outside)"), 1..12)
    ) {
        let outer = tempfile::tempdir().unwrap();
        fs::write(outer.path().join("outside"), b"untouched").unwrap();
        let folder = outer.path().join("in");
        fs::create_dir(&folder).unwrap();
        let mut tar = Builder::new(Vec::new());
        for (kind, name, link) in &entries {
            let (kind, content) = match kind {
                0 => (EntryType::Regular, &b"evil"[..]),
                1 => (EntryType::Directory, &b""[..]),
                2 => (EntryType::Symlink, &b""[..]),
                _ => (EntryType::Link, &b""[..]),
            };
            add(&mut tar, kind, name, link, content);
        }
        let _ = run(&tar.into_inner().unwrap(), &folder, &Limits::default());
        prop_assert_eq!(fs::read(outer.path().join("outside")).unwrap(), b"untouched");
        prop_assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 2);
    }

    /// Damaged archives end with an error or a result, never otherwise.
    #[test]
    fn no_damage_panics(at in 0..2048_usize, byte in any::<u8>()) {
        let mut tar = archive(&[
            (EntryType::Regular, "a", "", b"A"),
            (EntryType::Symlink, "b", "a", b""),
        ]);
        let at = at % tar.len();
        tar[at] = byte;
        let dir = tempfile::tempdir().unwrap();
        let _ = run(&tar, dir.path(), &Limits::default());
    }
}
