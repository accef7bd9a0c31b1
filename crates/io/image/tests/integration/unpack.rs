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
fn gap_53_a_layer_keeps_owners_modes_links_and_deletions() {
    if !is_root("gap_53_a_layer_keeps_owners_modes_links_and_deletions") {
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
    assert_eq!(store.get(&layer).unwrap(), Some(unpacked.clone()));

    assert!(store.is_intact(&layer).unwrap());
    fs::write(unpacked.path.join("tmp/tool"), b"evil").unwrap();
    assert!(!store.is_intact(&layer).unwrap());

    assert_eq!(store.list().unwrap(), [layer.diff_id.hex()]);
    assert_eq!(store.collect(&Default::default()).unwrap(), 1);
    assert_eq!(store.get(&layer).unwrap(), None);
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

/// A header with a mode and an owner.
fn header(kind: EntryType, mode: u32, id: u64, size: usize) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(id);
    header.set_gid(id);
    header.set_size(size as u64);
    header
}

fn unpacked(
    dir: &Path,
    tar: &[u8],
    limits: Limits,
) -> (
    LayerStore,
    Layer,
    Result<aos_image::unpack::UnpackedLayer, Error>,
) {
    let blobs = BlobStore::open(dir).unwrap();
    let store = LayerStore::open(dir, limits).unwrap();
    let layer = layer(&blobs, &gzip(tar), digest_of(tar));
    let result = store.unpack(&blobs, &layer, &CancellationToken::new());
    (store, layer, result)
}

#[test]
fn gap_58_changes_of_links_modes_and_owners_are_noticed() {
    if !is_root("gap_58_changes_of_links_modes_and_owners_are_noticed") {
        return;
    }
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 7] = [
        ("mode", |at| {
            fs::set_permissions(at.join("tmp/tool"), fs::Permissions::from_mode(0o755)).unwrap();
        }),
        ("owner", |at| {
            std::os::unix::fs::chown(at.join("tmp/tool"), Some(0), None).unwrap();
        }),
        ("link", |at| {
            fs::remove_file(at.join("abs")).unwrap();
            std::os::unix::fs::symlink("/elsewhere", at.join("abs")).unwrap();
        }),
        ("whiteout", |at| {
            fs::remove_file(at.join("etc/hosts")).unwrap()
        }),
        ("one more", |at| fs::create_dir(at.join("more")).unwrap()),
        ("attribute", |at| {
            let file = fs::File::open(at.join("tmp/tool")).unwrap();
            rustix::fs::fremovexattr(&file, "user.note").unwrap();
        }),
        ("all", |at| fs::remove_dir_all(at).unwrap()),
    ];
    for (name, damage) in damages {
        let dir = tempfile::tempdir().unwrap();
        let (store, layer, result) = unpacked(dir.path(), &layer_tar(), Limits::default());
        let path = result.unwrap().path;
        assert!(store.looks_intact(&layer).unwrap() && store.is_intact(&layer).unwrap());
        damage(&path);
        assert!(!store.looks_intact(&layer).unwrap_or(false), "{name}");
        assert!(store.remove(&layer).unwrap());
        assert_eq!(store.get(&layer).unwrap(), None);
    }
}

#[test]
fn layers_with_the_same_files_and_other_links_are_two() {
    if !is_root("layers_with_the_same_files_and_other_links_are_two") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let blobs = BlobStore::open(dir.path()).unwrap();
    let store = LayerStore::open(dir.path(), Limits::default()).unwrap();
    let stop = CancellationToken::new();
    let tree = digest_of(format!("{}  a\n", digest_of(b"A").hex()).as_bytes());
    // A new version in which nothing but a link changed: its tree digest is that of the old one.
    let mut paths = Vec::new();
    for target in ["one", "two"] {
        let tar = archive(&[
            (EntryType::Regular, "a", "", b"A"),
            (EntryType::Symlink, "l", target, b""),
        ]);
        let layer = layer(&blobs, &gzip(&tar), tree);
        for _ in 0..2 {
            let unpacked = store.unpack(&blobs, &layer, &stop).unwrap();
            assert_eq!(
                fs::read_link(unpacked.path.join("l")).unwrap(),
                Path::new(target)
            );
            paths.push(unpacked.path);
        }
    }
    assert_eq!(paths[0], paths[1], "one that is here is not unpacked again");
    assert_eq!(store.list().unwrap().len(), 2);
}

#[test]
fn capabilities_of_files_are_kept_and_labels_of_another_machine_are_not() {
    if !is_root("capabilities_of_files_are_kept_and_labels_of_another_machine_are_not") {
        return;
    }
    let mut tar = Builder::new(Vec::new());
    // VFS_CAP_REVISION_2, effective, NET_BIND_SERVICE.
    let right = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    tar.append_pax_extensions([
        ("SCHILY.xattr.security.capability", &right[..]),
        (
            "SCHILY.xattr.security.selinux",
            &b"system_u:object_r:bin_t:s0\0"[..],
        ),
    ])
    .unwrap();
    let mut head = header(EntryType::Regular, 0o755, 0, 1);
    tar.append_data(&mut head, "ping", &b"x"[..]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (_, _, result) = unpacked(dir.path(), &tar.into_inner().unwrap(), Limits::default());
    let file = fs::File::open(result.unwrap().path.join("ping")).unwrap();
    let mut value = [0; 64];
    let length = rustix::fs::fgetxattr(&file, "security.capability", &mut value[..]).unwrap();
    assert_eq!(value[..length], right);
    assert!(rustix::fs::fgetxattr(&file, "security.selinux", &mut value[..]).is_err());
}

#[test]
fn a_whiteout_beside_what_it_hides_speaks_of_the_layers_below() {
    if !is_root("a_whiteout_beside_what_it_hides_speaks_of_the_layers_below") {
        return;
    }
    let file = EntryType::Regular;
    for whiteouts_first in [true, false] {
        let mut entries = vec![
            (file, "a/.wh.file", "", &b""[..]),
            (file, "a/.wh.folder", "", b""),
            (file, "a/.wh.gone", "", b""),
        ];
        let own = [
            (file, "a/file", "", &b"new"[..]),
            (file, "a/folder/in", "", b"new"),
        ];
        let at = if whiteouts_first { entries.len() } else { 0 };
        entries.splice(at..at, own);
        let dir = tempfile::tempdir().unwrap();
        let (_, _, result) = unpacked(dir.path(), &archive(&entries), Limits::default());
        let at = result.unwrap().path.join("a");
        assert_eq!(fs::read(at.join("file")).unwrap(), b"new");
        assert_eq!(fs::read(at.join("folder/in")).unwrap(), b"new");
        let folder = fs::File::open(at.join("folder")).unwrap();
        let mut value = [0; 8];
        let opaque = rustix::fs::fgetxattr(&folder, "trusted.overlay.opaque", &mut value[..]);
        assert_eq!(opaque, Ok(1), "nothing of the layers below shows through");
        assert!(
            fs::symlink_metadata(at.join("gone"))
                .unwrap()
                .file_type()
                .is_char_device()
        );
    }
}

#[test]
fn devices_are_left_out_of_dev_and_refused_elsewhere() {
    if !is_root("devices_are_left_out_of_dev_and_refused_elsewhere") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let tar = archive(&[
        (EntryType::Directory, "dev", "", b""),
        (EntryType::Char, "dev/null", "", b""),
        (EntryType::Block, "dev/block/sda", "", b""),
        (EntryType::Fifo, "dev/initctl", "", b""),
        (EntryType::Regular, "etc/motd", "", b"hi"),
    ]);
    let (_, _, result) = unpacked(dir.path(), &tar, Limits::default());
    let path = result.unwrap().path;
    assert_eq!(fs::read_dir(path.join("dev")).unwrap().count(), 0);
    for name in ["null", "developer/null", "etc/dev/null"] {
        let refused = refusal(&[(EntryType::Char, name, "", b"")]);
        assert_eq!(refused, Refusal::Kind("device"), "{name}");
    }
}

#[test]
fn a_million_files_and_a_hundred_gigabytes_end_soon_and_leave_nothing() {
    if !is_root("a_million_files_and_a_hundred_gigabytes_end_soon_and_leave_nothing") {
        return;
    }
    let left = |dir: &Path| fs::read_dir(dir.join("layers/sha256")).unwrap().count();
    let limits = Limits {
        entries: 2_000,
        ..Limits::default()
    };
    // A million empty files, each a block of 512 bytes: half a gigabyte that packs to almost nothing. Folders that are
    // only implied count too.
    let mut many = Builder::new(flate2::write::GzEncoder::new(
        Vec::new(),
        flate2::Compression::fast(),
    ));
    for number in 0..1_000_000_u32 {
        let mut head = header(EntryType::Regular, 0o644, 0, 0);
        let name = format!("d{}/f{number}", number % 7);
        head.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        head.set_cksum();
        many.append(&head, &b""[..]).unwrap();
    }
    let packed = many.into_inner().unwrap().finish().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let blobs = BlobStore::open(dir.path()).unwrap();
    let store = LayerStore::open(dir.path(), limits).unwrap();
    let bomb = layer(&blobs, &packed, digest_of(b"whatever"));
    let error = store
        .unpack(&blobs, &bomb, &CancellationToken::new())
        .unwrap_err();
    assert!(
        error.to_string().contains("more than 2000 entries"),
        "{error}"
    );
    assert_eq!(left(dir.path()), 0);

    // One file that says it has 100 GB, and one that has them as a hole.
    for sparse in [false, true] {
        let mut head = header(EntryType::Regular, 0o644, 0, 0);
        let tar = if sparse {
            let mut tar = Builder::new(Vec::new());
            tar.append_pax_extensions([
                ("GNU.sparse.major", &b"1"[..]),
                ("GNU.sparse.realsize", b"107374182400"),
            ])
            .unwrap();
            tar.append_data(&mut head, "big", &b""[..]).unwrap();
            tar.into_inner().unwrap()
        } else {
            head.set_size(100 << 30);
            head.as_old_mut().name[..3].copy_from_slice(b"big");
            head.set_cksum();
            head.as_bytes().to_vec()
        };
        let (_, _, result) = unpacked(dir.path(), &tar, limits);
        let error = result.unwrap_err().to_string();
        let word = if sparse {
            "sparse file"
        } else {
            "bytes when unpacked"
        };
        assert!(error.contains(word), "{error}");
        assert_eq!(left(dir.path()), 0);
    }

    // Zeros that pack to a thousandth: refused for what they are packed, long before a disk is full.
    let mut zeros = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let mut head = header(EntryType::Regular, 0o644, 0, 0);
    head.set_size(300 << 20);
    head.as_old_mut().name[..1].copy_from_slice(b"z");
    head.set_cksum();
    zeros.write_all(head.as_bytes()).unwrap();
    for _ in 0..300 {
        zeros.write_all(&vec![0; 1 << 20]).unwrap();
    }
    let bomb = layer(&blobs, &zeros.finish().unwrap(), digest_of(b"whatever"));
    let error = store
        .unpack(&blobs, &bomb, &CancellationToken::new())
        .unwrap_err();
    assert!(error.to_string().contains("bytes when unpacked"), "{error}");
    assert_eq!(left(dir.path()), 0);
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
