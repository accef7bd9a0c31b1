//! Content that the cloud encrypted.

use std::sync::Arc;

use aos_cloud_protocol::{DecryptInfo, FileHash, KeyReceiver};
use aos_pki::{KeyAlgorithm, KeyPair};
use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    cipher::{AES_256, EncryptionContext, StreamingEncryptingKey, UnboundCipherKey},
    digest::{SHA3_256, digest},
    iv::FixedLength,
    rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey},
};

use super::{bench::Bench, noise};

const SECRET: [u8; 32] = [7; 32];

fn gcm(plain: &[u8]) -> Vec<u8> {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &SECRET).unwrap());
    let mut sealed = plain.to_vec();
    let nonce = Nonce::assume_unique_for_key([9; 12]);
    key.seal_in_place_append_tag(nonce, Aad::empty(), &mut sealed)
        .unwrap();
    [[9; 12].as_slice(), &sealed].concat()
}

fn cbc(plain: &[u8]) -> Vec<u8> {
    let key = UnboundCipherKey::new(&AES_256, &SECRET).unwrap();
    let context = EncryptionContext::Iv128(FixedLength::from([3; 16]));
    let mut key = StreamingEncryptingKey::less_safe_cbc_pkcs7(key, context).unwrap();
    let mut file = vec![0; plain.len() + 32];
    let done = key.update(plain, &mut file).unwrap().written().len();
    let (_, last) = key.finish(&mut file[done..]).unwrap();
    let length = done + last.written().len();
    file.truncate(length);
    file
}

/// How one cloud delivers.
#[derive(Clone)]
struct Delivery {
    encrypt: fn(&[u8]) -> Vec<u8>,
    info: DecryptInfo,
}

fn plain_key(alg: &str, iv: &[u8]) -> DecryptInfo {
    DecryptInfo {
        block_alg: alg.into(),
        block_iv: iv.to_vec(),
        block_key: SECRET.to_vec(),
        asym_alg: None,
        receiver: None,
    }
}

/// Delivers every blob encrypted, from a folder of its own.
async fn deliver(bench: &Bench, delivery: Delivery) -> aos_image::BlobStore {
    let files = aos_image::BlobStore::open(bench.dir.path().join("encrypted")).unwrap();
    let (own, plain) = (files.clone(), bench.cloud.blobs.clone());
    let server = super::faulty::Faulty::start(
        bench.pki.cloud_tls(),
        files.clone(),
        &[super::faulty::Mood::Fine],
    )
    .await;
    let base = server.url.clone();
    // The server lives as long as the cloud's answers.
    let server = Arc::new(server);
    bench.cloud.lie(move |url| {
        let _ = &server;
        let file = (delivery.encrypt)(&plain.read(&url.digest, u64::MAX).unwrap());
        let stored = own.insert_bytes(&file).unwrap();
        url.size = stored.size;
        url.sha256 = FileHash(digest(&SHA3_256, &file).as_ref().try_into().unwrap());
        url.urls = vec![format!("{base}/{}", stored.digest.hex())];
        url.decrypt_info = Some(delivery.info.clone());
    });
    files
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn items_arrive_encrypted_by_either_cipher() {
    for (encrypt, info) in [
        (
            cbc as fn(&[u8]) -> Vec<u8>,
            plain_key("AES256/CBC/pkcs7", &[3; 16]),
        ),
        (gcm, plain_key("AES256/GCM/", &[])),
        (gcm, plain_key("AES256/GCM/", &[9; 12])),
    ] {
        let bench = Bench::new().await;
        let web = bench.publish("web", &["amd64"], &noise(200_000, 3));
        deliver(&bench, Delivery { encrypt, info }).await;
        bench.fetch(&web).await.unwrap();
        assert_eq!(bench.here(), 5);
        for blob in bench.library.blobs().list().unwrap() {
            bench.library.blobs().verify(&blob.digest).unwrap();
        }
        assert!(bench.offline.asked.lock().unwrap().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrapped_key_is_unwrapped_by_the_offline_certificate() {
    let mut bench = Bench::new().await;
    let key = KeyPair::generate(KeyAlgorithm::Rsa2048).unwrap();
    let public = PublicEncryptingKey::from_der(&key.public_key_der()).unwrap();
    let mut space = [0; 256];
    let wrapped = OaepPublicEncryptingKey::new(public)
        .unwrap()
        .encrypt(&OAEP_SHA256_MGF1SHA256, &SECRET, &mut space, None)
        .unwrap()
        .to_vec();
    let receiver = KeyReceiver {
        serial: "0a".into(),
        issuer: vec![],
    };
    let info = DecryptInfo {
        block_key: wrapped,
        asym_alg: Some("RSA/OAEP-256".into()),
        receiver: Some(receiver.clone()),
        ..plain_key("AES256/CBC/pkcs7", &[3; 16])
    };
    let web = bench.publish("web", &["amd64"], b"web");
    deliver(&bench, Delivery { encrypt: cbc, info }).await;

    // Our key is another one: the item fails and says why.
    let error = bench.fetch(&web).await.unwrap_err();
    assert!(error.message.contains("cannot be unwrapped"), "{error}");
    assert_eq!(bench.here(), 0);
    let asked = bench.offline.asked.lock().unwrap().clone();
    assert_eq!(asked.first(), Some(&Some(receiver)));

    bench.offline = Arc::new(super::bench::OfflineKey {
        key,
        asked: Default::default(),
    });
    bench.restart().await;
    bench.fetch(&web).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_decrypted_fails_with_its_reason_and_leaves_nothing() {
    let bench = Bench::new().await;
    let web = bench.publish("web", &["amd64"], b"web");
    for (encrypt, info, expected) in [
        (
            cbc as fn(&[u8]) -> Vec<u8>,
            plain_key("AES256/CBC/ISO10126", &[3; 16]),
            "is not a known block cipher",
        ),
        (
            cbc,
            plain_key("AES256/CBC/pkcs7", &[3; 12]),
            "initialisation vector has 12 bytes",
        ),
        (
            cbc,
            plain_key("AES128/CBC/pkcs7", &[3; 16]),
            "the key has 32 bytes",
        ),
        (
            gcm,
            DecryptInfo {
                block_key: vec![8; 32],
                ..plain_key("AES256/GCM/", &[])
            },
            "wrong authentication tag",
        ),
        (
            cbc,
            DecryptInfo {
                asym_alg: Some("RSA/PSS".into()),
                ..plain_key("AES256/CBC/pkcs7", &[3; 16])
            },
            "is not a known way to wrap a key",
        ),
    ] {
        deliver(&bench, Delivery { encrypt, info }).await;
        let error = bench.fetch(&web).await.unwrap_err();
        assert!(error.message.contains(expected), "{expected}: {error}");
        assert_eq!(bench.here(), 0);
    }
}
