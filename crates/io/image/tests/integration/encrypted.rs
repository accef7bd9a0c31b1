//! Encrypted blobs over HTTP: decrypted while they arrive, never half trusted.

use std::{sync::Arc, time::Duration};

use aos_image::{
    BlobStore,
    fetch::{Checksum, Error, Fetcher, Policy, Source},
};
use aos_pki::{BlobKey, DecryptError};
use aos_types::Digest;
use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    cipher::{AES_256, EncryptionContext, StreamingEncryptingKey, UnboundCipherKey},
    iv::FixedLength,
};
use sha3::{Digest as _, Sha3_256};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::{
    blob::digest_of,
    server::{Mood, Server},
};

const SECRET: [u8; 32] = [7; 32];
const NONCE: [u8; 12] = [9; 12];
const IV: [u8; 16] = [3; 16];

fn content() -> Vec<u8> {
    // Long enough for the thread that writes large files.
    (0..1_200_003).map(|i| (i % 241) as u8).collect()
}

fn gcm(nonce_in_file: bool) -> (Vec<u8>, Arc<BlobKey>) {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &SECRET).unwrap());
    let mut sealed = content();
    let nonce = Nonce::assume_unique_for_key(NONCE);
    key.seal_in_place_append_tag(nonce, Aad::empty(), &mut sealed)
        .unwrap();
    let (file, iv) = if nonce_in_file {
        ([NONCE.as_slice(), &sealed].concat(), vec![])
    } else {
        (sealed, NONCE.to_vec())
    };
    (file, key_of("AES256/GCM/", iv))
}

fn cbc() -> (Vec<u8>, Arc<BlobKey>) {
    let key = UnboundCipherKey::new(&AES_256, &SECRET).unwrap();
    let context = EncryptionContext::Iv128(FixedLength::from(IV));
    let mut key = StreamingEncryptingKey::less_safe_cbc_pkcs7(key, context).unwrap();
    let mut file = vec![0; content().len() + 32];
    let done = key.update(&content(), &mut file).unwrap().written().len();
    let (_, last) = key.finish(&mut file[done..]).unwrap();
    let length = done + last.written().len();
    file.truncate(length);
    (file, key_of("AES256/CBC/pkcs7", IV.to_vec()))
}

fn key_of(cipher: &str, iv: Vec<u8>) -> Arc<BlobKey> {
    let secret = Zeroizing::new(SECRET.to_vec());
    Arc::new(BlobKey::new(cipher.parse().unwrap(), secret, iv).unwrap())
}

fn source(server: &Server, file: &[u8], key: &Arc<BlobKey>) -> Source {
    Source {
        urls: vec![server.url.clone()],
        size: file.len() as u64,
        checksum: Some(Checksum(Sha3_256::digest(file).into())),
        key: Some(key.clone()),
        signature: None,
    }
}

struct Bench {
    dir: tempfile::TempDir,
    digest: Digest,
}

impl Bench {
    fn new() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        Self {
            dir: tempfile::tempdir().unwrap(),
            digest: digest_of(&content()),
        }
    }

    fn store(&self) -> BlobStore {
        BlobStore::open(self.dir.path()).unwrap()
    }

    async fn fetch(&self, source: &Source, attempts: u32) -> Result<u64, Error> {
        let policy = Policy {
            connect: Duration::from_millis(400),
            stall: Duration::from_millis(400),
            attempts,
            first_pause: Duration::from_millis(5),
            ..Policy::default()
        };
        let fetcher = Fetcher::new(self.store(), reqwest::Client::new(), policy);
        let stop = CancellationToken::new();
        fetcher
            .fetch(&self.digest, source, &|_| {}, &stop)
            .await
            .map(|stored| stored.size)
    }

    fn has_it(&self) -> bool {
        self.store().contains(&self.digest).unwrap()
    }
}

#[tokio::test]
async fn every_cipher_gives_the_plain_blob() {
    for (file, key) in [cbc(), gcm(true), gcm(false)] {
        let server = Server::start(
            file.clone(),
            vec![Mood::BreakAfter(100_001), Mood::BreakAfter(7), Mood::Fine],
        )
        .await;
        let bench = Bench::new();
        let size = bench.fetch(&source(&server, &file, &key), 4).await.unwrap();
        assert_eq!(size, content().len() as u64);
        assert_eq!(bench.store().verify(&bench.digest).unwrap(), size);
        let from = server.ranges();
        assert_eq!(from, [None, Some(100_001), Some(100_008)], "{key:?}");
    }
}

#[tokio::test]
async fn a_transfer_of_an_earlier_process_goes_on() {
    for (file, key) in [cbc(), gcm(true), gcm(false)] {
        let server = Server::start(file.clone(), vec![Mood::BreakAfter(100_001), Mood::Fine]).await;
        let bench = Bench::new();
        let from = source(&server, &file, &key);
        bench.fetch(&from, 1).await.unwrap_err();
        bench.fetch(&from, 1).await.unwrap();
        bench.store().verify(&bench.digest).unwrap();
        let again = server.ranges()[1];
        // A file system that keeps no attributes makes it start over.
        assert!(
            again.is_none_or(|from| (99_900..=100_001).contains(&from)),
            "{again:?}"
        );
    }
}

#[tokio::test]
async fn what_does_not_authenticate_is_not_stored() {
    let (mut file, key) = gcm(false);
    *file.last_mut().unwrap() ^= 1;
    let server = Server::start(file.clone(), vec![Mood::Fine]).await;
    let bench = Bench::new();
    let mut from = source(&server, &file, &key);
    for checksum in [from.checksum, None] {
        from.checksum = checksum;
        let error = bench.fetch(&from, 2).await.unwrap_err();
        let Error::GaveUp {
            attempts: 2,
            source,
        } = error
        else {
            panic!("{error}")
        };
        assert!(
            matches!(*source, Error::Decrypt(DecryptError::Tag)),
            "{source}"
        );
        assert!(!bench.has_it());
        let left = std::fs::metadata(bench.store().partial_path(&bench.digest)).unwrap();
        assert_eq!(left.len(), 0, "the plain bytes are gone");
    }
}

#[tokio::test]
async fn a_wrong_key_gives_nothing() {
    let (file, _) = cbc();
    let server = Server::start(file.clone(), vec![Mood::Fine]).await;
    let other = key_of("AES256/CBC", vec![4; 16]);
    let bench = Bench::new();
    let error = bench.fetch(&source(&server, &file, &other), 1).await;
    let Err(Error::GaveUp { source: cause, .. }) = error else {
        panic!("{error:?}")
    };
    // The first block differs; the padding happens to be right.
    assert!(matches!(*cause, Error::WrongDigest { .. }), "{cause}");
    assert!(!bench.has_it());
    // And bytes that were changed on the way do not even come to that.
    let server = Server::start(file.clone(), vec![Mood::Garbled]).await;
    let (_, key) = cbc();
    let error = bench.fetch(&source(&server, &file, &key), 1).await;
    let Err(Error::GaveUp { source: cause, .. }) = error else {
        panic!("{error:?}")
    };
    assert!(matches!(*cause, Error::Checksum { .. }), "{cause}");
}
