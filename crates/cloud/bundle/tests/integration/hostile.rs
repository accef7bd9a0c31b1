use std::{
    fs,
    io::{Read, Write},
    path::Path,
};

use aos_bundle::{BATCH, CONFIG, Caps, OpenError, SIGNATURE};
use aos_pki::{Authority, CertProfile, KeyAlgorithm, Signer};
use aos_time::{Clock, SystemClock};
use aos_types::SystemId;
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use proptest::prelude::*;
use sha3::{Digest, Sha3_512};

use crate::folder::{
    authority, blob_signer, folder, open_bytes, put, signed, signer, signer_of, user,
};

type Parts = Vec<(String, Vec<u8>)>;

fn take_apart(bundle: &[u8]) -> Parts {
    tar::Archive::new(GzDecoder::new(bundle))
        .entries()
        .unwrap()
        .map(|entry| {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().display().to_string();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            (name, content)
        })
        .collect()
}

fn put_together(parts: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (name, content) in parts {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        // Names as they are, however hostile.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        tar.append(&header, &content[..]).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

fn part<'a>(parts: &'a mut Parts, name: &str) -> &'a mut Vec<u8> {
    &mut parts.iter_mut().find(|(n, _)| n == name).unwrap().1
}

/// Signs what `parts` hold, whatever it is.
fn sign_again(parts: &mut Parts, signer: &Signer) {
    let data: Vec<_> = parts
        .iter()
        .filter(|(name, _)| name != SIGNATURE)
        .map(|(name, content)| {
            serde_json::json!({"name": name, "hash": hex::encode(Sha3_512::digest(content)), "size": content.len()})
        })
        .collect();
    let token = signer
        .sign_jwt(&serde_json::json!({ "data": data }))
        .unwrap();
    *part(parts, SIGNATURE) = token.into_bytes();
}

fn refused(parts: &[(String, Vec<u8>)]) -> OpenError {
    open_bytes(&put_together(parts), &Caps::default()).unwrap_err()
}

fn good() -> Parts {
    take_apart(&signed(folder().path(), signer()))
}

#[test]
fn what_is_taken_apart_and_put_together_still_opens() {
    open_bytes(&put_together(&good()), &Caps::default()).unwrap();
}

#[test]
fn a_missing_or_additional_file_is_refused() {
    for name in [BATCH, CONFIG, SIGNATURE] {
        let mut parts = good();
        parts.retain(|(n, _)| n != name);
        assert!(
            matches!(refused(&parts), OpenError::Missing { .. }),
            "{name}"
        );
    }
    let mut parts = good();
    parts.push(("extra".into(), vec![]));
    assert!(matches!(refused(&parts), OpenError::Unexpected { .. }));
    let mut parts = good();
    parts.push((CONFIG.into(), vec![]));
    assert!(matches!(refused(&parts), OpenError::Archive { .. }));
    let mut parts = good();
    parts.push(("../../etc/cron.d/x".into(), vec![]));
    assert!(matches!(refused(&parts), OpenError::Archive { .. }));
}

#[test]
fn an_unsigned_bundle_is_refused() {
    for token in ["", "no", "a.b.c", "e30.e30.", "eyJhbGciOiJub25lIn0.e30."] {
        let mut parts = good();
        *part(&mut parts, SIGNATURE) = token.into();
        let error = refused(&parts);
        assert!(
            matches!(
                error,
                OpenError::Signature(_) | OpenError::UnknownSigner { .. }
            ),
            "{token}: {error}"
        );
    }
}

#[test]
fn tampering_with_any_part_is_found() {
    let mut parts = good();
    part(&mut parts, CONFIG).extend(b"\n# more\n");
    assert!(matches!(
        refused(&parts),
        OpenError::Tampered { name: CONFIG, .. }
    ));

    let mut parts = good();
    part(&mut parts, BATCH)[30] ^= 1;
    assert!(matches!(
        refused(&parts),
        OpenError::Tampered { name: BATCH, .. }
    ));

    // Claims of another bundle.
    let mut parts = good();
    let other = {
        let dir = folder();
        put(dir.path(), "web/amd64/new", b"", 0o644);
        take_apart(&signed(dir.path(), signer()))
    };
    *part(&mut parts, SIGNATURE) = other
        .iter()
        .find(|(n, _)| n == SIGNATURE)
        .unwrap()
        .1
        .clone();
    assert!(matches!(refused(&parts), OpenError::Tampered { .. }));

    // A signature over other claims.
    let mut parts = good();
    let token = String::from_utf8(part(&mut parts, SIGNATURE).clone()).unwrap();
    let mut pieces: Vec<_> = token.split('.').map(str::to_owned).collect();
    pieces[1].insert(4, 'A');
    *part(&mut parts, SIGNATURE) = pieces.join(".").into_bytes();
    assert!(matches!(refused(&parts), OpenError::Signature(_)));

    // Claims that leave the archive out.
    let mut parts = good();
    let token = signer().sign_jwt(&serde_json::json!({"data": []})).unwrap();
    *part(&mut parts, SIGNATURE) = token.into_bytes();
    assert!(matches!(refused(&parts), OpenError::Tampered { .. }));
}

#[test]
fn a_second_config_inside_is_found() {
    let mut parts = good();
    let changed = String::from_utf8(part(&mut parts, CONFIG).clone())
        .unwrap()
        .replace("priority: 7", "priority: 9");
    *part(&mut parts, CONFIG) = changed.into_bytes();
    sign_again(&mut parts, signer());
    assert!(matches!(refused(&parts), OpenError::ConfigDiffers));
}

#[test]
fn an_unknown_schema_is_refused() {
    let dir = folder();
    let mut parts = take_apart(&signed(dir.path(), signer()));
    let config = String::from_utf8(part(&mut parts, CONFIG).clone())
        .unwrap()
        .replace("schemaVersion: 2", "schemaVersion: 9");
    let mut inner = take_apart(part(&mut parts, BATCH));
    inner.retain(|(name, _)| !name.ends_with('/'));
    *part(&mut inner, CONFIG) = config.clone().into_bytes();
    *part(&mut parts, CONFIG) = config.into_bytes();
    *part(&mut parts, BATCH) = put_together(&inner);
    sign_again(&mut parts, signer());
    let error = refused(&parts);
    assert!(
        error
            .to_string()
            .contains("line 1, `schemaVersion`: version 9 is not known"),
        "{error}"
    );
}

#[test]
fn a_path_outside_the_folder_is_refused() {
    for name in ["../evil", "/etc/evil", "web/amd64/../../../evil"] {
        let mut parts = good();
        let mut inner = take_apart(part(&mut parts, BATCH));
        inner.retain(|(name, _)| !name.ends_with('/'));
        inner.push((name.into(), b"evil".to_vec()));
        *part(&mut parts, BATCH) = put_together(&inner);
        sign_again(&mut parts, signer());
        let error = refused(&parts);
        assert!(
            matches!(
                error,
                OpenError::Archive {
                    which: "archive of files",
                    ..
                }
            ),
            "{name}: {error}"
        );
    }
}

#[test]
fn another_signer_is_refused() {
    let dir = folder();
    let unit = CertProfile::unit(
        aos_pki::CertKind::Online,
        &SystemId::new("unit-1").unwrap(),
        None,
    );
    for wrong in [
        blob_signer(),
        signer_of(authority(), &unit, KeyAlgorithm::EcP256),
    ] {
        let error = open_bytes(&signed(dir.path(), &wrong), &Caps::default()).unwrap_err();
        assert!(matches!(error, OpenError::NotAPerson { .. }), "{error}");
    }
    let stranger = Authority::in_memory("stranger", SystemClock.now()).unwrap();
    let stranger = signer_of(&stranger, &user(), KeyAlgorithm::Rsa2048);
    let error = open_bytes(&signed(dir.path(), &stranger), &Caps::default()).unwrap_err();
    assert!(matches!(error, OpenError::Untrusted(_)), "{error}");

    let past = SystemClock.now() - std::time::Duration::from_secs(900 * 24 * 3600);
    let pair = authority()
        .issue_pair(KeyAlgorithm::EcP256, &user(), past)
        .unwrap();
    let expired = Signer::new(&pair.key, vec![pair.issued.certificate]).unwrap();
    let error = open_bytes(&signed(dir.path(), &expired), &Caps::default()).unwrap_err();
    assert!(matches!(error, OpenError::Untrusted(_)), "{error}");
}

#[test]
fn caps_hold() {
    let bundle = signed(folder().path(), signer());
    let small = Caps {
        bundle: bundle.len() as u64 - 1,
        ..Caps::default()
    };
    let error = open_bytes(&bundle, &small).unwrap_err();
    assert!(matches!(error, OpenError::TooLong { .. }), "{error}");
    for caps in [
        Caps {
            unpacked: 1000,
            ..Caps::default()
        },
        Caps {
            entries: 3,
            ..Caps::default()
        },
    ] {
        let error = open_bytes(&bundle, &caps).unwrap_err();
        assert!(matches!(error, OpenError::Archive { .. }), "{error}");
    }
    // An archive that unpacks to far more than it has.
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    for _ in 0..2000 {
        gzip.write_all(&[0; 1 << 16]).unwrap();
    }
    let bomb = gzip.finish().unwrap();
    assert!(open_bytes(&bomb, &Caps::default()).is_err());
}

#[test]
fn nonsense_is_refused() {
    for bytes in [&b""[..], b"x", &[0x1f, 0x8b], &[0; 10_000]] {
        let error = open_bytes(bytes, &Caps::default()).unwrap_err();
        assert!(
            matches!(error, OpenError::Archive { .. } | OpenError::Missing { .. }),
            "{error}"
        );
    }
}

fn sample() -> &'static [u8] {
    static SAMPLE: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    SAMPLE.get_or_init(|| signed(folder().path(), signer()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// No change of any byte of a bundle gives another content: it is refused, or the byte did not matter (gzip's own
    /// header holds a few such).
    #[test]
    fn no_byte_can_be_changed(at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let mut bundle = sample().to_vec();
        let at = at.index(bundle.len());
        bundle[at] ^= 1 << bit;
        if let Ok(opened) = open_bytes(&bundle, &Caps::default()) {
            let original = open_bytes(sample(), &Caps::default()).unwrap();
            prop_assert_eq!(opened.config, original.config);
            prop_assert!(at < 10 || at >= bundle.len() - 8 || take_apart(&bundle) == take_apart(sample()));
        }
    }

    /// A bundle cut short is refused.
    #[test]
    fn no_part_can_be_left_out(at in any::<prop::sample::Index>()) {
        let cut = at.index(sample().len());
        prop_assert!(open_bytes(&sample()[..cut], &Caps::default()).is_err());
    }
}

#[test]
fn scratch_needs_to_be_there() {
    let missing = Path::new("/nonexistent/scratch");
    assert!(fs::metadata(missing).is_err());
    let error = aos_bundle::open(
        sample(),
        &Caps::default(),
        &authority().roots(),
        &|_: &str| None::<aos_bundle::SignerCertificate>,
        SystemClock.now(),
        missing,
        &tokio_util::sync::CancellationToken::new(),
    )
    .unwrap_err();
    assert!(matches!(error, OpenError::Io { .. }));
}
