//! Key store, authority and signatures on real files and real keys.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may fail loudly"
)]

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use aos_pki::*;
use aos_time::{Clock, SystemClock, Timestamp};
use aos_types::{NodeId, SystemId};
use serde_json::{Value, json};

fn now() -> Timestamp {
    SystemClock.now()
}

fn profile(kind: CertKind) -> CertProfile {
    let (unit, node) = (SystemId::new("u1").unwrap(), NodeId::new("n1").unwrap());
    CertProfile::unit(kind, &unit, Some(&node))
}

fn request(name: &str) -> KeyRequest {
    KeyRequest {
        common_name: name.into(),
        ..KeyRequest::default()
    }
}

fn chain_text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

#[test]
fn an_authority_is_the_same_after_a_restart_and_its_key_is_private() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pki");
    let first = Authority::load_or_create(&path, "Cloud root", now()).unwrap();
    let again = Authority::load_or_create(&path, "ignored", now()).unwrap();
    assert_eq!(first.fingerprint(), again.fingerprint());
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path.join("root.key")), 0o600);
    assert_eq!(mode(&path), 0o700);
    // What both issue is accepted by the same root.
    let issued = again
        .issue_pair(KeyAlgorithm::EcP256, &profile(CertKind::Sm), now())
        .unwrap();
    first
        .roots()
        .verify_chain(&[issued.issued.certificate], now())
        .unwrap();
    // A lost key is not silently replaced: every certificate of the fleet hangs on it.
    fs::remove_file(path.join("root.key")).unwrap();
    assert!(Authority::load_or_create(&path, "x", now()).is_err());
}

#[test]
fn the_profile_decides_who_the_holder_is() {
    let root = Authority::in_memory("root", now()).unwrap();
    let key = KeyPair::generate(KeyAlgorithm::EcP384).unwrap();
    let csr = key
        .request("someone-else", &["iam.unit".into(), "10.0.0.1".into()])
        .unwrap();
    let mut wanted = profile(CertKind::Online);
    wanted.discovery_urls = vec![
        "https://cloud.test:9000".into(),
        "https://b.test:9000".into(),
    ];
    let issued = root.issue(&csr, &wanted, now()).unwrap();
    let peer = PeerIdentity::from_der(&issued.certificate).unwrap();
    assert_eq!(peer.common_name, "u1-online");
    assert_eq!(peer.serial, issued.serial);
    assert_eq!(discovery_urls(&issued.certificate), wanted.discovery_urls);
    assert_eq!(discovery_urls(root.root()), Vec::<String>::new());

    let rsa = KeyPair::generate(KeyAlgorithm::Rsa2048).unwrap();
    let person = CertProfile::user("7", "Ada Lovelace", "cloud.test");
    let issued = root
        .issue(&rsa.request("x", &[]).unwrap(), &person, now())
        .unwrap();
    let peer = PeerIdentity::from_der(&issued.certificate).unwrap();
    assert_eq!(peer.user_id.as_deref(), Some("7"));
    assert_eq!(peer.common_name, "Ada Lovelace");

    let mut damaged = csr.into_bytes();
    let middle = damaged.len() / 2;
    damaged[middle] = if damaged[middle] == b'A' { b'B' } else { b'A' };
    for bad in [
        String::from_utf8(damaged).unwrap(),
        "no PEM".into(),
        "x".repeat(20_000),
    ] {
        let error = root.issue(&bad, &wanted, now()).unwrap_err();
        assert!(error.to_string().contains("refused"), "{error}");
    }
}

#[test]
fn names_of_any_script_survive_in_certificates() {
    let root = Authority::in_memory("root", now()).unwrap();
    let unit = SystemId::new("машина 1:a%2f").unwrap();
    let pair = root
        .issue_pair(
            KeyAlgorithm::EcP256,
            &CertProfile::unit(CertKind::Cm, &unit, None),
            now(),
        )
        .unwrap();
    let peer = PeerIdentity::from_der(&pair.issued.certificate).unwrap();
    assert_eq!(peer.system_id, Some(unit));
}

#[test]
fn a_key_waits_for_its_certificate_and_the_newest_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let root = Authority::in_memory("root", now()).unwrap();
    let store =
        FileKeyStore::open(&dir.path().join("certs"), [CertKind::Sm, CertKind::Iam]).unwrap();
    let mut changes = store.changes();
    assert!(matches!(
        store.find(CertKind::Sm, &CertQuery::default()),
        Err(KeyStoreError::NotFound { .. })
    ));
    let apply = |validity: u64| {
        let csr = store.create_key(CertKind::Sm, &request("u1-sm")).unwrap();
        let wanted = CertProfile {
            validity: Duration::from_secs(validity),
            ..profile(CertKind::Sm)
        };
        let issued = root.issue(&csr, &wanted, now()).unwrap();
        let info = store
            .apply_cert(CertKind::Sm, &issued.chain_pem, &root.roots(), now())
            .unwrap();
        assert!(same_serial(&info.serial, &issued.serial.to_uppercase()));
        info
    };
    let (long, short) = (apply(5000), apply(1000));
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    assert_eq!(
        store.find(CertKind::Sm, &CertQuery::default()).unwrap(),
        long
    );
    let by_serial = CertQuery {
        serial: format!("0x{}", short.serial.to_uppercase()),
        issuer: short.issuer.clone(),
    };
    assert_eq!(store.find(CertKind::Sm, &by_serial).unwrap(), short);
    let other_issuer = CertQuery {
        issuer: b"someone".to_vec(),
        ..by_serial
    };
    assert!(store.find(CertKind::Sm, &other_issuer).is_err());

    // A component finds the same by URL, another process sees the same store.
    let key = load_certified_key(&long.cert_url, &long.key_url).unwrap();
    assert_eq!(key.cert, store.certified_key(CertKind::Sm).unwrap().cert);
    let again = FileKeyStore::open(&dir.path().join("certs"), [CertKind::Sm]).unwrap();
    assert_eq!(
        again.find(CertKind::Sm, &CertQuery::default()).unwrap(),
        long
    );
    assert!(matches!(
        again.find(CertKind::Iam, &CertQuery::default()),
        Err(KeyStoreError::NotKept { .. })
    ));
    // Only a few are kept, the longest lasting.
    for validity in [6000, 7000, 8000, 9000] {
        apply(validity);
    }
    assert!(
        store
            .find(
                CertKind::Sm,
                &CertQuery {
                    serial: short.serial,
                    ..CertQuery::default()
                }
            )
            .is_err()
    );

    for entry in fs::read_dir(dir.path().join("certs/sm")).unwrap() {
        let meta = entry.unwrap().metadata().unwrap();
        let wanted = if meta.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(meta.permissions().mode() & 0o777, wanted);
    }
    store.wipe().unwrap();
    assert!(store.certified_key(CertKind::Sm).is_err());
    assert!(load_key_url(&long.key_url).is_err());
}

#[test]
fn a_certificate_is_taken_only_with_key_chain_and_type() {
    let dir = tempfile::tempdir().unwrap();
    let (root, stranger) = (
        Authority::in_memory("root", now()).unwrap(),
        // The same name: only signatures tell them apart.
        Authority::in_memory("root", now()).unwrap(),
    );
    let store = FileKeyStore::open(dir.path(), [CertKind::Sm]).unwrap();
    let csr = store.create_key(CertKind::Sm, &request("u1-sm")).unwrap();
    let apply = |pem: &str, at: Timestamp| {
        store
            .apply_cert(CertKind::Sm, pem, &root.roots(), at)
            .map_err(|error| chain_text(&error))
    };
    let forged = stranger.issue(&csr, &profile(CertKind::Sm), now()).unwrap();
    let said = apply(&forged.chain_pem, now()).unwrap_err();
    assert!(said.contains("refused"), "{said}");
    let wrong_type = root.issue(&csr, &profile(CertKind::Cm), now()).unwrap();
    let said = apply(&wrong_type.chain_pem, now()).unwrap_err();
    assert!(said.contains("type cm was given where sm"), "{said}");
    let other_key = root
        .issue_pair(KeyAlgorithm::EcP256, &profile(CertKind::Sm), now())
        .unwrap();
    let said = apply(&other_key.issued.chain_pem, now()).unwrap_err();
    assert!(said.contains("no sm key belongs"), "{said}");
    let good = root.issue(&csr, &profile(CertKind::Sm), now()).unwrap();
    let said = apply(&good.chain_pem, now() + Duration::from_secs(40_000_000)).unwrap_err();
    assert!(said.contains("it expired at"), "{said}");
    assert!(apply("garbage", now()).is_err());
    apply(&good.chain_pem, now()).unwrap();
    // Applied twice, as after a lost answer: no error.
    apply(&good.chain_pem, now()).unwrap();
}

#[test]
fn only_five_keys_wait() {
    let dir = tempfile::tempdir().unwrap();
    let root = Authority::in_memory("root", now()).unwrap();
    let store = FileKeyStore::open(dir.path(), [CertKind::Um]).unwrap();
    let requests: Vec<String> = (0..6)
        .map(|_| {
            std::thread::sleep(Duration::from_millis(15));
            store.create_key(CertKind::Um, &request("u1-um")).unwrap()
        })
        .collect();
    let mut results = requests.iter().map(|csr| {
        let issued = root.issue(csr, &profile(CertKind::Um), now()).unwrap();
        store.apply_cert(CertKind::Um, &issued.chain_pem, &root.roots(), now())
    });
    assert!(matches!(
        results.next(),
        Some(Err(KeyStoreError::NoKey { .. }))
    ));
    assert!(results.all(|result| result.is_ok()));
}

fn signer(root: &Authority, algorithm: KeyAlgorithm, profile: &CertProfile) -> Signer {
    let pair = root.issue_pair(algorithm, profile, now()).unwrap();
    let chain = certificates_from_pem(pair.issued.chain_pem.as_bytes()).unwrap();
    Signer::new(&pair.key, chain).unwrap()
}

fn hash(hash: Hash, content: &[u8]) -> Vec<u8> {
    let mut context = hash.context();
    context.update(content);
    context.finish()
}

#[test]
fn a_blob_is_accepted_only_from_a_signer_and_unchanged() {
    let root = Authority::in_memory("root", now()).unwrap();
    let stranger = Authority::in_memory("root", now()).unwrap();
    let check = |signer: &Signer, roots: &Roots, content: &[u8], at: Option<Timestamp>| {
        let leaf = &signer.chain()[0];
        let print = Fingerprint::of(leaf).to_string().to_uppercase();
        let mut book = ChainBook::new();
        book.add_certificate(&print, leaf).unwrap();
        book.add_chain("chain", [&print]).unwrap();
        let algorithm = signer.algorithm();
        let signature = BlobSignature {
            chain_name: "chain".into(),
            algorithm: algorithm.to_string().parse().unwrap(),
            value: signer
                .sign_blob(&hash(algorithm.hash(), b"content"))
                .unwrap(),
            trusted_timestamp: at,
            ocsp_values: Vec::new(),
            require_ocsp: false,
        };
        book.verify(&signature, &hash(algorithm.hash(), content), roots, now())
            .map_err(|error| chain_text(&error))
    };
    for algorithm in [
        KeyAlgorithm::Rsa2048,
        KeyAlgorithm::EcP256,
        KeyAlgorithm::EcP384,
    ] {
        let good = signer(&root, algorithm, &CertProfile::blob_signer());
        check(&good, &root.roots(), b"content", None).unwrap();
        check(&good, &root.roots(), b"content", Some(now())).unwrap();
        let said = check(&good, &root.roots(), b"changed", None).unwrap_err();
        assert!(said.contains("does not belong to this content"), "{said}");
        assert!(check(&good, &stranger.roots(), b"content", None).is_err());
        // At a moment before the certificate existed.
        let early = now() - Duration::from_secs(1_000_000);
        assert!(check(&good, &root.roots(), b"content", Some(early)).is_err());
    }
    let person = signer(
        &root,
        KeyAlgorithm::Rsa2048,
        &CertProfile::user("1", "eve", "cloud"),
    );
    let said = check(&person, &root.roots(), b"content", None).unwrap_err();
    assert!(
        said.contains("may not sign blobs: it is of type user"),
        "{said}"
    );
    // A signature that was good once stays good for content delivered later.
    let brief = CertProfile {
        validity: Duration::from_secs(1),
        ..CertProfile::blob_signer()
    };
    let then = now() - Duration::from_secs(100);
    let pair = root.issue_pair(KeyAlgorithm::EcP256, &brief, then).unwrap();
    let old = Signer::new(&pair.key, vec![pair.issued.certificate]).unwrap();
    check(&old, &root.roots(), b"content", Some(then)).unwrap();
    assert!(check(&old, &root.roots(), b"content", None).is_err());
}

#[test]
fn fingerprints_are_computed_and_never_believed() {
    let root = Authority::in_memory("root", now()).unwrap();
    let mut book = ChainBook::new();
    let print = Fingerprint::of(root.root());
    book.add_certificate(&print.to_string(), root.root())
        .unwrap();
    assert!(matches!(
        book.add_certificate(&Fingerprint::of(b"other").to_string(), root.root()),
        Err(SignatureError::WrongFingerprint { .. })
    ));
    assert!(matches!(
        book.add_certificate("SIGNER-1", root.root()),
        Err(SignatureError::UnknownFingerprint { .. })
    ));
}

#[test]
fn algorithm_names_are_read_in_the_spellings_of_the_field() {
    use SignatureAlgorithm as A;
    for (text, wanted) in [
        ("RSA/SHA256", A::RsaPkcs1(Hash::Sha256)),
        ("rsa/sha512/pkcs1v1_5", A::RsaPkcs1(Hash::Sha512)),
        ("RSA/SHA384/PSS", A::RsaPss(Hash::Sha384)),
        ("EC/SHA256", A::Ecdsa(Hash::Sha256)),
        ("RSA", A::RsaPkcs1(Hash::Sha256)),
    ] {
        assert_eq!(text.parse::<A>().unwrap(), wanted);
        assert_eq!(wanted.to_string().parse::<A>().unwrap(), wanted);
    }
    for bad in [
        "",
        "MD5",
        "RSA/MD5",
        "RSA/SHA256/OAEP",
        "EC/SHA256/PSS",
        "RSA/SHA256/PSS/x",
    ] {
        assert!(bad.parse::<A>().is_err(), "{bad}");
    }
}

#[test]
fn a_bundle_signature_names_its_signer_and_covers_every_byte() {
    let root = Authority::in_memory("root", now()).unwrap();
    let claims = json!({"data": [{"name": "batch.tar.gz", "hash": "00", "size": 1}]});
    for (algorithm, name) in [
        (KeyAlgorithm::Rsa2048, "RS256"),
        (KeyAlgorithm::EcP256, "ES256"),
    ] {
        let signer = signer(
            &root,
            algorithm,
            &CertProfile::user("1", "ada", "cloud.test"),
        );
        let token = signer.sign_jwt(&claims).unwrap();
        let header = read_jwt_header(&token).unwrap();
        assert_eq!(header.alg, name);
        let leaf = signer.chain()[0].clone();
        let serial = PeerIdentity::from_der(&leaf).unwrap().serial;
        assert!(same_serial(&header.serial().unwrap(), &serial));
        assert_eq!(header.chain(), signer.chain());
        assert_eq!(verify_jwt::<Value>(&token, &leaf).unwrap(), claims);

        let other = root
            .issue_pair(
                algorithm,
                &CertProfile::user("2", "eve", "cloud.test"),
                now(),
            )
            .unwrap();
        assert!(verify_jwt::<Value>(&token, &other.issued.certificate).is_err());
        let (head, rest) = token.split_once('.').unwrap();
        let (body, sign) = rest.split_once('.').unwrap();
        let changed = format!(
            "{head}.{}{}.{sign}",
            if body.starts_with('e') { "f" } else { "e" },
            &body[1..]
        );
        for bad in [
            changed,
            format!("{head}.{body}."),
            format!("{head}.{body}"),
            "a.b.c".into(),
            String::new(),
        ] {
            assert!(verify_jwt::<Value>(&bad, &leaf).is_err(), "{bad}");
        }
    }
}

#[test]
fn an_unsigned_token_is_refused() {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let root = Authority::in_memory("root", now()).unwrap();
    let token = format!(
        "{}.{}.",
        URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#),
        URL_SAFE_NO_PAD.encode("{}")
    );
    let said = verify_jwt::<Value>(&token, root.root()).unwrap_err();
    assert!(
        said.to_string().contains("RS256 or ES256 is wanted"),
        "{said}"
    );
}

#[test]
fn the_bootstrap_key_is_made_once_and_private() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bootstrap.key");
    let first = BootstrapKey::load_or_create(&path).unwrap();
    let again = BootstrapKey::load(&path).unwrap();
    assert_eq!(first.roots().to_pem(), again.roots().to_pem());
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert_eq!(fs::read_to_string(&path).unwrap().trim().len(), 64);
    fs::write(&path, "short").unwrap();
    assert!(BootstrapKey::load_or_create(&path).is_err());
}
