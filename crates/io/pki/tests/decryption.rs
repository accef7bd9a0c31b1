//! Decryption of blobs and unwrapping of their keys, beside other implementations.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests may fail loudly, and say why they are skipped"
)]

use std::{fs, path::Path, process::Command, sync::Arc};

use aos_pki::*;
use aws_lc_rs::{
    aead::{AES_128_GCM, AES_192_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    cipher::{
        AES_128, AES_192, AES_256, EncryptionContext, StreamingEncryptingKey, UnboundCipherKey,
    },
    iv::FixedLength,
    rsa::{
        OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey,
        Pkcs1PublicEncryptingKey, PublicEncryptingKey,
    },
};
use zeroize::Zeroizing;

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 7 % 251) as u8).collect()
}

fn key_of(name: &str, iv: &[u8]) -> Arc<BlobKey> {
    let cipher: BlobCipher = name.parse().unwrap();
    let length = match name.get(3..6) {
        Some("128") => 16,
        Some("192") => 24,
        _ => 32,
    };
    Arc::new(BlobKey::new(cipher, Zeroizing::new(content(length)), iv.to_vec()).unwrap())
}

/// What the library's own one-shot cipher makes of it.
fn gcm(bits: usize, nonce: [u8; 12], plain: &[u8]) -> Vec<u8> {
    let algorithm = match bits {
        128 => &AES_128_GCM,
        192 => &AES_192_GCM,
        _ => &AES_256_GCM,
    };
    let key = LessSafeKey::new(UnboundKey::new(algorithm, &content(bits / 8)).unwrap());
    let mut sealed = plain.to_vec();
    key.seal_in_place_append_tag(
        Nonce::assume_unique_for_key(nonce),
        Aad::empty(),
        &mut sealed,
    )
    .unwrap();
    sealed
}

fn cbc(bits: usize, iv: [u8; 16], plain: &[u8]) -> Vec<u8> {
    let algorithm = match bits {
        128 => &AES_128,
        192 => &AES_192,
        _ => &AES_256,
    };
    let key = UnboundCipherKey::new(algorithm, &content(bits / 8)).unwrap();
    let context = EncryptionContext::Iv128(FixedLength::from(iv));
    let mut key = StreamingEncryptingKey::less_safe_cbc_pkcs7(key, context).unwrap();
    let mut sealed = vec![0; plain.len() + 32];
    let mut done = key.update(plain, &mut sealed).unwrap().written().len();
    let (_, rest) = key.finish(sealed.get_mut(done..).unwrap()).unwrap();
    done += rest.written().len();
    sealed.truncate(done);
    sealed
}

fn open(key: &Arc<BlobKey>, file: &[u8], piece: usize) -> Result<Vec<u8>, DecryptError> {
    let mut decryptor = BlobDecryptor::new(key)?;
    let mut plain = Vec::new();
    for piece in file.chunks(piece) {
        decryptor.update(piece, &mut plain)?;
    }
    decryptor.finish(&mut plain)?;
    Ok(plain)
}

#[test]
fn gcm_is_the_librarys_gcm_whatever_the_pieces() {
    let nonce = [9; 12];
    for bits in [128, 192, 256] {
        for length in [0, 1, 15, 16, 17, 31, 32, 33, 1000, 70_001] {
            let plain = content(length);
            let sealed = gcm(bits, nonce, &plain);
            let with_nonce = [nonce.as_slice(), sealed.as_slice()].concat();
            let name = format!("AES{bits}/GCM/");
            for piece in [1, 5, 12, 16, 17, 100_000] {
                // The nonce in the file, in the message, in both.
                for (iv, file) in [
                    (&[][..], &with_nonce),
                    (&nonce, &with_nonce),
                    (&nonce, &sealed),
                ] {
                    let opened = open(&key_of(&name, iv), file, piece).unwrap();
                    assert!(opened == plain, "{name} {length} by {piece}");
                }
            }
        }
    }
}

#[test]
fn cbc_is_the_librarys_cbc_whatever_the_pieces() {
    let iv = [3; 16];
    for bits in [128, 192, 256] {
        for length in [0, 1, 15, 16, 17, 1000, 70_001] {
            let plain = content(length);
            let sealed = cbc(bits, iv, &plain);
            for piece in [1, 15, 16, 17, 100_000] {
                let key = key_of(&format!("aes{bits}/cbc/pkcs7"), &iv);
                assert!(
                    open(&key, &sealed, piece).unwrap() == plain,
                    "{bits} {length}"
                );
            }
        }
    }
}

#[test]
fn a_changed_file_is_refused() {
    let nonce = [9; 12];
    let sealed = gcm(256, nonce, &content(1000));
    let key = key_of("AES256/GCM", &nonce);
    for spoilt in [0, 500, 999, 1000, 1015] {
        let mut sealed = sealed.clone();
        sealed[spoilt] ^= 1;
        assert_eq!(open(&key, &sealed, 64), Err(DecryptError::Tag), "{spoilt}");
    }
    for short in [&sealed[..1000], &sealed[1..]] {
        assert_eq!(open(&key, short, 64), Err(DecryptError::Tag));
    }
    for short in [0, 5, 12, 15] {
        let outcome = open(&key, &sealed[..short], 64);
        assert!(
            matches!(outcome, Err(DecryptError::Length { .. })),
            "{short}"
        );
    }
    let iv = [3; 16];
    let sealed = cbc(256, iv, &content(1000));
    let key = key_of("AES256/CBC/PKCS7PADDING", &iv);
    let outcome = open(&key, &sealed[..999], 64);
    assert!(matches!(outcome, Err(DecryptError::Length { .. })));
    assert!(matches!(
        open(&key, &[], 64),
        Err(DecryptError::Length { .. })
    ));
    // Without its last block the end is no padding.
    let outcome = open(&key, &sealed[..sealed.len() - 16], 64);
    assert_eq!(outcome, Err(DecryptError::Padding));
}

#[test]
fn a_decryption_goes_on_after_a_restart() {
    let plain = content(5000);
    let (nonce, iv) = ([9; 12], [3; 16]);
    let in_file = [nonce.as_slice(), &gcm(256, nonce, &plain)].concat();
    for (key, file) in [
        (key_of("AES256/CBC/", &iv), cbc(256, iv, &plain)),
        (key_of("AES256/GCM", &[]), in_file.clone()),
        (key_of("AES256/GCM", &nonce), in_file),
        (key_of("AES256/GCM", &nonce), gcm(256, nonce, &plain)),
    ] {
        for cut in [16, 100, 3000] {
            let mut first = BlobDecryptor::new(&key).unwrap();
            let mut left = Vec::new();
            first.update(&file[..cut], &mut left).unwrap();
            let head = first.head().unwrap();
            left.truncate(left.len() / BlobReplay::UNIT * BlobReplay::UNIT);

            let mut replay = BlobReplay::new(&key, &head).unwrap();
            let mut again = replay.head().to_vec();
            replay.push(&left, &mut again).unwrap();
            assert!(file.starts_with(&again));
            let mut second = replay.into_decryptor().unwrap();
            second.update(&file[again.len()..], &mut left).unwrap();
            second.finish(&mut left).unwrap();
            assert!(left == plain, "{key:?} {cut}");
        }
    }
}

#[test]
fn what_is_not_known_is_refused_and_not_guessed() {
    for good in [
        "AES256/CBC/pkcs7",
        "aes128",
        "AES192/CBC",
        "AES256/CBC/PKCS7PADDING",
        "AES256/GCM/",
        "AES256/GCM",
    ] {
        good.parse::<BlobCipher>().unwrap();
    }
    for bad in [
        "",
        "AES512/CBC",
        "DES/CBC",
        "AES256/ECB",
        "AES256/CBC/ISO10126",
        "AES256/CBC/none",
        "AES256/GCM/pkcs7",
        "AES256/CBC/PKCS7/x",
    ] {
        assert!(bad.parse::<BlobCipher>().is_err(), "{bad}");
    }
    let key = |cipher: &str, key, iv| {
        let key = Zeroizing::new(vec![0; key]);
        BlobKey::new(cipher.parse().unwrap(), key, vec![0; iv]).is_ok()
    };
    assert!(key("AES128/CBC", 16, 16));
    assert!(key("AES256/GCM", 32, 0));
    for (cipher, length, iv) in [
        ("AES128/CBC", 32, 16),
        ("AES256/CBC", 16, 16),
        ("AES256/CBC", 32, 12),
        ("AES256/CBC", 32, 0),
        ("AES256/GCM", 32, 16),
    ] {
        assert!(!key(cipher, length, iv), "{cipher} {length} {iv}");
    }
    for bad in ["", "RSA/PSS", "RSA/OAEP-7", "EC/ECIES"] {
        assert!(bad.parse::<KeyWrap>().is_err(), "{bad}");
    }
}

#[test]
fn a_key_is_unwrapped_by_the_units_key() {
    let secret = content(32);
    let unit = KeyPair::generate(KeyAlgorithm::Rsa2048).unwrap();
    // As it is read from a file.
    let unit = KeyPair::from_pem(&unit.to_pem()).unwrap();
    let public = PublicEncryptingKey::from_der(&unit.public_key_der()).unwrap();
    let pkcs1 = Pkcs1PublicEncryptingKey::new(public.clone()).unwrap();
    let oaep = OaepPublicEncryptingKey::new(public).unwrap();
    let mut space = [0; 256];
    let cases = [
        (
            "RSA/PKCS1v1_5",
            pkcs1.encrypt(&secret, &mut space).unwrap().to_vec(),
        ),
        (
            "RSA/OAEP",
            oaep.encrypt(&OAEP_SHA1_MGF1SHA1, &secret, &mut space, None)
                .unwrap()
                .to_vec(),
        ),
        (
            "RSA/OAEP-256",
            oaep.encrypt(&OAEP_SHA256_MGF1SHA256, &secret, &mut space, None)
                .unwrap()
                .to_vec(),
        ),
    ];
    for (name, wrapped) in &cases {
        let wrap: KeyWrap = name.parse().unwrap();
        assert_eq!(wrap.to_string(), *name);
        assert_eq!(*unit.unwrap_key(wrap, wrapped).unwrap(), secret, "{name}");
    }
    let (_, wrapped) = &cases[2];
    let wrap: KeyWrap = "RSA/OAEP-256".parse().unwrap();
    let other = KeyPair::generate(KeyAlgorithm::Rsa2048).unwrap();
    assert_eq!(
        other.unwrap_key(wrap, wrapped).unwrap_err(),
        UnwrapError::Refused
    );
    let curve = KeyPair::generate(KeyAlgorithm::EcP256).unwrap();
    assert_eq!(
        curve.unwrap_key(wrap, wrapped).unwrap_err(),
        UnwrapError::NotRsa
    );
}

fn openssl(dir: &Path, arguments: &str) {
    let output = Command::new("openssl")
        .args(arguments.split_whitespace())
        .current_dir(dir)
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {arguments}: {complaint}");
}

#[test]
fn what_openssl_encrypts_for_a_unit_is_decrypted() {
    if Command::new("openssl").arg("version").output().is_err() {
        eprintln!(
            "SKIPPED what_openssl_encrypts_for_a_unit_is_decrypted: openssl is not installed"
        );
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let secret = content(32);
    fs::write(dir.join("key"), &secret).unwrap();
    fs::write(dir.join("plain"), content(40_000)).unwrap();
    openssl(dir, "genrsa -traditional -out offline.pem 2048");
    openssl(dir, "rsa -in offline.pem -pubout -out public.pem");
    openssl(
        dir,
        "pkeyutl -encrypt -pubin -inkey public.pem -in key -out wrapped -pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha256",
    );
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let iv = "05".repeat(16);
    openssl(
        dir,
        &format!("enc -aes-256-cbc -K {hex} -iv {iv} -in plain -out file"),
    );
    let url = format!("file://{}/offline.pem", dir.display());
    let unit = load_unwrapper(&url).unwrap();
    let wrapped = fs::read(dir.join("wrapped")).unwrap();
    let key = unit
        .unwrap_key("RSA/OAEP-256".parse().unwrap(), &wrapped)
        .unwrap();
    let key = BlobKey::new("AES256/CBC/pkcs7".parse().unwrap(), key, vec![5; 16]).unwrap();
    let opened = open(&Arc::new(key), &fs::read(dir.join("file")).unwrap(), 4096).unwrap();
    assert!(opened == content(40_000));
}
