#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may fail loudly"
)]

use std::time::Duration;

use aws_lc_rs::digest::{SHA256 as SHA256_OF, digest as hash};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    PKCS_ECDSA_P256_SHA256, SigningKey as _, date_time_ymd,
};

use super::*;
use crate::{BlobSignature, ChainBook, Roots, SignatureError, der::tagged};

/// ecdsa-with-SHA256.
const ECDSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
const DAY: Duration = Duration::from_secs(24 * 3600);

struct Ca {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
}

fn key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2040, 1, 1);
    params
}

fn ca(name: &str) -> Ca {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = key();
    let der = params.self_signed(&key).unwrap().der().clone();
    Ca {
        issuer: Issuer::new(params, key),
        der,
    }
}

impl Ca {
    fn issue(
        &self,
        name: &str,
        usage: &[ExtendedKeyUsagePurpose],
    ) -> (CertificateDer<'static>, KeyPair) {
        let mut params = params(name);
        params.extended_key_usages = usage.to_vec();
        let key = key();
        let der = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        (der, key)
    }

    fn sign(&self, content: &[u8]) -> Vec<u8> {
        self.issuer.key().sign(content).unwrap()
    }
}

fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tagged(SEQUENCE, &parts.concat())
}

fn generalized(time: Timestamp) -> Vec<u8> {
    let text: String = time
        .to_string()
        .chars()
        .filter(char::is_ascii_digit)
        .take(14)
        .collect();
    tagged(TIME, format!("{text}Z").as_bytes())
}

enum Says {
    Good,
    Revoked,
    Unknown,
}

/// What an answer says.
struct Answer {
    says: Says,
    this_update: Timestamp,
    next_update: Option<Timestamp>,
}

fn at() -> Timestamp {
    "2030-06-01T12:00:00Z".parse().unwrap()
}

fn good() -> Answer {
    Answer {
        says: Says::Good,
        this_update: at() - DAY,
        next_update: Some(at() + DAY),
    }
}

/// The basic response of `answer` about `leaf`, by whoever signs.
fn basic(
    answer: &Answer,
    leaf: &CertificateDer<'_>,
    issuer: &CertificateDer<'_>,
    certificates: &[&CertificateDer<'_>],
    sign: impl Fn(&[u8]) -> Vec<u8>,
) -> Vec<u8> {
    let (_, issuer) = X509Certificate::from_der(issuer).unwrap();
    let (_, leaf) = X509Certificate::from_der(leaf).unwrap();
    let digest = |content: &[u8]| tagged(OCTETS, hash(&SHA256_OF, content).as_ref());
    let id = sequence(&[
        &sequence(&[&tagged(OID, SHA256)]),
        &digest(issuer.subject().as_raw()),
        &digest(&issuer.public_key().subject_public_key.data),
        &tagged(INTEGER, leaf.raw_serial()),
    ]);
    let status = match answer.says {
        Says::Good => tagged(0x80, &[]),
        Says::Revoked => {
            let reason = tagged(0xa0, &tagged(ENUMERATED, &[1]));
            tagged(0xa1, &[generalized(at() - DAY * 30), reason].concat())
        }
        Says::Unknown => tagged(0x82, &[]),
    };
    let next = answer
        .next_update
        .map(|time| tagged(0xa0, &generalized(time)));
    let single = sequence(&[
        &id,
        &status,
        &generalized(answer.this_update),
        &next.unwrap_or_default(),
    ]);
    let signed = sequence(&[
        &tagged(0xa1, issuer.subject().as_raw()),
        &generalized(answer.this_update),
        &sequence(&[&single]),
    ]);
    let signature = [&[0], sign(&signed).as_slice()].concat();
    let certificates: Vec<u8> = certificates.iter().flat_map(|one| one.to_vec()).collect();
    let certificates = match certificates.is_empty() {
        true => Vec::new(),
        false => tagged(0xa0, &tagged(SEQUENCE, &certificates)),
    };
    sequence(&[
        &signed,
        &sequence(&[&tagged(OID, ECDSA)]),
        &tagged(0x03, &signature),
        &certificates,
    ])
}

/// The same as it comes from a responder.
fn whole(basic: &[u8]) -> Vec<u8> {
    let bytes = sequence(&[&tagged(OID, BASIC), &tagged(OCTETS, basic)]);
    sequence(&[&tagged(ENUMERATED, &[0]), &tagged(0xa0, &bytes)])
}

/// A blob, its signer, and what comes with the signature.
struct Scene {
    ca: Ca,
    leaf: CertificateDer<'static>,
    key: KeyPair,
}

impl Scene {
    fn new() -> Self {
        let ca = ca("root");
        let (leaf, key) = ca.issue("signer", &[]);
        Self { ca, leaf, key }
    }

    fn by_issuer(&self, answer: &Answer) -> Vec<u8> {
        let sign = |content: &[u8]| self.ca.sign(content);
        whole(&basic(answer, &self.leaf, &self.ca.der, &[], sign))
    }

    /// Verifies a blob's signature with these answers; `at` is its trusted timestamp.
    fn verify(
        &self,
        answers: &[Vec<u8>],
        at: Timestamp,
        require: bool,
    ) -> Result<(), SignatureError> {
        let mut book = ChainBook::new();
        let fingerprint = hex::encode(hash(&SHA256_OF, &self.leaf));
        book.add_certificate(&fingerprint, &self.leaf).unwrap();
        book.add_chain("c", [&fingerprint]).unwrap();
        let signature = BlobSignature {
            chain_name: "c".into(),
            algorithm: "EC/SHA256".parse().unwrap(),
            value: self.key.sign(b"blob").unwrap(),
            trusted_timestamp: Some(at),
            ocsp_values: answers.iter().map(|one| STANDARD.encode(one)).collect(),
            require_ocsp: require,
        };
        let roots = Roots::from_ders([self.ca.der.clone()]).unwrap();
        let digest = hash(&SHA256_OF, b"blob");
        book.verify(&signature, digest.as_ref(), &roots, super::tests::at())
    }

    fn refused(&self, answer: Vec<u8>, at: Timestamp) -> OcspError {
        match self.verify(&[answer], at, false) {
            Err(SignatureError::Ocsp(error)) => error,
            other => panic!("not refused by OCSP: {other:?}"),
        }
    }
}

#[test]
fn a_good_answer_by_the_issuer_or_its_responder_is_taken() {
    let scene = Scene::new();
    let answer = scene.by_issuer(&good());
    scene.verify(&[answer], at(), true).unwrap();
    // As CAdES has it, and without a next update.
    let sign = |content: &[u8]| scene.ca.sign(content);
    let answer = Answer {
        next_update: None,
        ..good()
    };
    let answer = basic(&answer, &scene.leaf, &scene.ca.der, &[], sign);
    scene.verify(&[answer], at(), true).unwrap();
    // One that was asked for after the signature was made is as good.
    let answer = scene.by_issuer(&good());
    scene.verify(&[answer], at() - DAY * 100, true).unwrap();
    let (responder, key) = scene
        .ca
        .issue("responder", &[ExtendedKeyUsagePurpose::OcspSigning]);
    let sign = |content: &[u8]| key.sign(content).unwrap();
    let answer = basic(&good(), &scene.leaf, &scene.ca.der, &[&responder], sign);
    scene.verify(&[whole(&answer)], at(), true).unwrap();
}

#[test]
fn a_revoked_certificate_signs_nothing() {
    let scene = Scene::new();
    let revoked = Answer {
        says: Says::Revoked,
        ..good()
    };
    let error = scene.refused(scene.by_issuer(&revoked), at());
    assert_eq!(
        error.to_string(),
        "the certificate of `signer` was revoked at 2030-05-02T12:00:00Z (key compromise)"
    );
    // However old the answer, and whatever else says the contrary.
    let old = Answer {
        this_update: at() - DAY * 29,
        next_update: Some(at() - DAY * 28),
        ..revoked
    };
    let answers = [scene.by_issuer(&good()), scene.by_issuer(&old)];
    let refused = scene.verify(&answers, at(), false).unwrap_err();
    assert!(matches!(
        refused,
        SignatureError::Ocsp(OcspError::Revoked { .. })
    ));
    let unknown = Answer {
        says: Says::Unknown,
        ..good()
    };
    let error = scene.refused(scene.by_issuer(&unknown), at());
    assert!(matches!(error, OcspError::Unknown { .. }), "{error}");
}

#[test]
fn an_answer_counts_only_for_its_time() {
    let scene = Scene::new();
    let until = |next_update| {
        scene.by_issuer(&Answer {
            this_update: at() - DAY * 20,
            next_update,
            ..good()
        })
    };
    for answer in [until(Some(at() - DAY)), until(None)] {
        let error = scene.refused(answer.clone(), at());
        assert!(matches!(error, OcspError::TooOld { .. }), "{error}");
        // The signature counts at its trusted timestamp, not now.
        scene.verify(&[answer], at() - DAY * 15, true).unwrap();
    }
    let answer = scene.by_issuer(&Answer {
        this_update: at() + DAY,
        next_update: Some(at() + DAY * 2),
        ..good()
    });
    let error = scene.refused(answer, at());
    assert!(matches!(error, OcspError::NotYet { .. }), "{error}");
}

#[test]
fn nobody_but_the_issuer_or_its_responder_may_answer() {
    let scene = Scene::new();
    let other = ca("root");
    let (no_responder, key) = scene
        .ca
        .issue("somebody", &[ExtendedKeyUsagePurpose::ClientAuth]);
    let (foreign, foreign_key) = other.issue("responder", &[ExtendedKeyUsagePurpose::OcspSigning]);
    let about = |certificates: &[&CertificateDer<'_>], sign: &dyn Fn(&[u8]) -> Vec<u8>| {
        whole(&basic(
            &good(),
            &scene.leaf,
            &scene.ca.der,
            certificates,
            sign,
        ))
    };
    for answer in [
        about(&[], &|content| other.sign(content)),
        about(&[&no_responder], &|content| key.sign(content).unwrap()),
        about(&[&foreign], &|content| foreign_key.sign(content).unwrap()),
        about(&[&scene.leaf], &|content| scene.key.sign(content).unwrap()),
    ] {
        let error = scene.refused(answer, at());
        assert!(matches!(error, OcspError::NotByIssuer { .. }), "{error}");
    }
    // One that is named after the issuer and is not: it says nothing about this certificate.
    let sign = |content: &[u8]| other.sign(content);
    let answer = whole(&basic(&good(), &scene.leaf, &other.der, &[], sign));
    let issuers = [other.der.clone(), scene.ca.der.clone()];
    assert_eq!(
        check(&[answer], &scene.leaf, &issuers, at(), at()),
        Ok(false)
    );
}

#[test]
fn without_an_answer_about_the_signer_it_is_accepted_unless_one_is_asked_for() {
    let scene = Scene::new();
    let (other, _) = scene.ca.issue("another", &[]);
    let sign = |content: &[u8]| scene.ca.sign(content);
    let of_another = whole(&basic(&good(), &other, &scene.ca.der, &[], sign));
    for answers in [vec![], vec![of_another]] {
        scene.verify(&answers, at(), false).unwrap();
        let error = scene.verify(&answers, at(), true).unwrap_err();
        assert!(matches!(
            error,
            SignatureError::Ocsp(OcspError::Absent { .. })
        ));
    }
}

#[test]
fn what_cannot_be_read_is_refused_and_bounded() {
    let scene = Scene::new();
    let error = scene.refused(b"nonsense".to_vec(), at());
    assert!(matches!(error, OcspError::Unreadable { .. }), "{error}");
    let error = scene.refused(sequence(&[&tagged(ENUMERATED, &[3])]), at());
    assert_eq!(error, OcspError::Failed { status: 3 });
    let many = vec![scene.by_issuer(&good()); MOST + 1];
    let refused = scene.verify(&many, at(), false).unwrap_err();
    assert!(matches!(
        refused,
        SignatureError::Ocsp(OcspError::TooMany { count: 17 })
    ));
    assert!(from_base64(&"A".repeat(LONGEST * 3)).is_err());
    assert!(from_base64("%%%").is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Bytes that are changed or cut off never pass for an answer, and never panic.
    #[test]
    fn damage_is_never_a_good_answer(place in any::<prop::sample::Index>(), bit in 0_u8..8, cut in any::<bool>()) {
        let scene = Scene::new();
        let mut answer = scene.by_issuer(&good());
        let place = place.index(answer.len());
        if cut {
            answer.truncate(place);
        } else {
            answer[place] ^= 1 << bit;
        }
        let outcome = check(&[answer], &scene.leaf, std::slice::from_ref(&scene.ca.der), at(), at());
        // Some bits of the frame mean nothing; what is signed cannot be touched.
        if let Ok(true) = outcome {
            prop_assert!(!cut);
        }
    }
}
