use std::{collections::BTreeSet, fs, io::Read, time::Duration};

use aos_image::blob::{BlobStore, Error};
use aos_types::Digest;
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

pub(crate) fn digest_of(bytes: &[u8]) -> Digest {
    Digest::from_bytes(Sha256::digest(bytes).into())
}

fn partials(root: &std::path::Path) -> usize {
    fs::read_dir(root.join("blobs/partial")).unwrap().count()
}

#[test]
fn what_goes_in_comes_out() {
    let dir = tempfile::tempdir().unwrap();
    let store = BlobStore::open(dir.path()).unwrap();
    let stored = store.insert_bytes(b"hello").unwrap();
    assert_eq!(stored.digest, digest_of(b"hello"));
    assert_eq!(stored.size, 5);
    assert_eq!(store.read(&stored.digest, 5).unwrap(), b"hello");
    assert!(matches!(
        store.read(&stored.digest, 4),
        Err(Error::TooLong { .. })
    ));
    let mut part = String::new();
    store
        .open_range(&stored.digest, 1, 3)
        .unwrap()
        .read_to_string(&mut part)
        .unwrap();
    assert_eq!(part, "ell");
    assert_eq!(store.verify(&stored.digest).unwrap(), 5);
    assert_eq!(
        BlobStore::open(dir.path()).unwrap().list().unwrap(),
        [stored]
    );
    assert_eq!(partials(dir.path()), 0);
}

#[test]
fn wrong_content_is_not_stored() {
    let dir = tempfile::tempdir().unwrap();
    let store = BlobStore::open(dir.path()).unwrap().with_max_blob(10);
    let wanted = digest_of(b"wanted");
    assert!(matches!(
        store.insert(&b"other"[..], Some(&wanted)),
        Err(Error::WrongDigest { .. })
    ));
    assert!(matches!(
        store.insert_bytes(&[0; 11]),
        Err(Error::TooLong { cap: 10, .. })
    ));
    assert!(store.list().unwrap().is_empty());
    assert_eq!(partials(dir.path()), 0);
    assert!(matches!(
        store.open_blob(&wanted),
        Err(Error::Absent { .. })
    ));
}

#[test]
fn bit_rot_is_found_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let store = BlobStore::open(dir.path()).unwrap();
    let stored = store.insert_bytes(b"content").unwrap();
    let path = store.path(&stored.digest);
    fs::remove_file(&path).unwrap();
    fs::write(&path, b"c0ntent").unwrap();
    assert!(matches!(
        store.verify(&stored.digest),
        Err(Error::Corrupt { .. })
    ));
    assert!(!store.contains(&stored.digest).unwrap());
}

#[test]
fn collection_keeps_what_it_is_told_and_what_is_young() {
    let dir = tempfile::tempdir().unwrap();
    let store = BlobStore::open(dir.path()).unwrap();
    let kept = store.insert_bytes(b"kept").unwrap();
    let gone = store.insert_bytes(b"gone").unwrap();
    fs::write(store.partial_path(&digest_of(b"half")), b"ha").unwrap();
    let keep = BTreeSet::from([kept.digest]);
    let young = store.collect(&keep, Duration::from_secs(60)).unwrap();
    assert_eq!(young.blobs, 0);
    let collected = store.collect(&keep, Duration::ZERO).unwrap();
    assert_eq!((collected.blobs, collected.bytes), (1, 6));
    assert!(!store.contains(&gone.digest).unwrap());
    assert_eq!(store.list().unwrap(), [kept]);
    assert_eq!(partials(dir.path()), 0);
    assert!(store.remove(&kept.digest).unwrap());
    assert!(!store.remove(&kept.digest).unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Any content, however it is cut into pieces, gets the name of its SHA-256 and reads back.
    #[test]
    fn any_pieces_make_the_same_blob(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..8)) {
        let dir = tempfile::tempdir().unwrap();
        let store = BlobStore::open(dir.path()).unwrap();
        let whole = pieces.concat();
        let mut writer = store.writer().unwrap();
        for piece in &pieces {
            writer.push(piece).unwrap();
        }
        let stored = writer.finish(None).unwrap();
        prop_assert_eq!(stored.digest, digest_of(&whole));
        prop_assert_eq!(store.read(&stored.digest, u64::MAX).unwrap(), whole);
    }
}

#[test]
fn a_large_blob_is_written_whole() {
    let dir = tempfile::tempdir().unwrap();
    let store = BlobStore::open(dir.path()).unwrap();
    let large: Vec<u8> = (0..5_000_000_u32).map(|i| (i % 253) as u8).collect();
    let stored = store.insert(large.as_slice(), None).unwrap();
    assert_eq!(stored.digest, digest_of(&large));
    assert_eq!(store.verify(&stored.digest).unwrap(), large.len() as u64);
    // Given up in the middle it leaves nothing.
    let mut writer = store.writer().unwrap();
    for piece in large.chunks(100_000) {
        writer.push(piece).unwrap();
    }
    drop(writer);
    let left = std::fs::read_dir(dir.path().join("blobs/partial")).unwrap();
    assert_eq!(left.count(), 0);
}
