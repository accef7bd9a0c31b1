//! Peers use OpenSSL: what it requests must be issued, and what is issued it must accept.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests may fail loudly, and say why they are skipped"
)]

use std::{fs, path::Path, process::Command};

use aos_pki::*;
use aos_time::{Clock, SystemClock};
use aos_types::{NodeId, SystemId};

fn openssl(dir: &Path, arguments: &str) -> String {
    let output = Command::new("openssl")
        .args(arguments.split_whitespace())
        .current_dir(dir)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "openssl {arguments}: {text}{complaint}"
    );
    text
}

#[test]
fn openssl_requests_are_issued_and_our_certificates_are_accepted() {
    if Command::new("openssl").arg("version").output().is_err() {
        eprintln!(
            "SKIPPED openssl_requests_are_issued_and_our_certificates_are_accepted: openssl is not installed"
        );
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let now = SystemClock.now();
    let root = Authority::load_or_create(&dir.join("pki"), "Cloud root", now).unwrap();
    fs::write(dir.join("root.pem"), root.root_pem()).unwrap();
    let (unit, node) = (SystemId::new("u 1").unwrap(), NodeId::new("n1").unwrap());
    let mut profile = CertProfile::unit(CertKind::Online, &unit, Some(&node));
    profile.discovery_urls = vec!["https://cloud.test:9000".into()];
    for key in [
        "-newkey rsa:2048",
        "-newkey ec -pkeyopt ec_paramgen_curve:secp384r1",
        "-newkey ec -pkeyopt ec_paramgen_curve:P-256",
    ] {
        openssl(
            dir,
            &format!(
                "req -new -nodes {key} -keyout key.pem -out csr.pem -subj /CN=x/O=y -addext extendedKeyUsage=clientAuth"
            ),
        );
        let csr = fs::read_to_string(dir.join("csr.pem")).unwrap();
        let issued = root.issue(&csr, &profile, now).unwrap();
        fs::write(dir.join("chain.pem"), &issued.chain_pem).unwrap();
        openssl(
            dir,
            "verify -x509_strict -purpose sslclient -CAfile root.pem chain.pem",
        );
        let text = openssl(dir, "x509 -in chain.pem -noout -text");
        for wanted in [
            "URI:urn:aos:unit:u%201",
            "URI:urn:aos:node:n1",
            "URI:urn:aos:cert:online",
            "URI:https://cloud.test:9000",
            "CN = u 1-online",
        ] {
            let without_spaces = text.replace("CN=", "CN = ");
            assert!(without_spaces.contains(wanted), "{wanted} is not in {text}");
        }
        // The key OpenSSL wrote is one we can use.
        let key = KeyPair::from_pem(&fs::read_to_string(dir.join("key.pem")).unwrap()).unwrap();
        certified_key(vec![issued.certificate], &key).unwrap();
    }
    // A detached signature of ours, by OpenSSL's hands.
    let pair = root
        .issue_pair(KeyAlgorithm::Rsa2048, &CertProfile::blob_signer(), now)
        .unwrap();
    let signer = Signer::new(&pair.key, vec![pair.issued.certificate.clone()]).unwrap();
    let mut hash = Hash::Sha256.context();
    hash.update(b"content");
    fs::write(dir.join("content"), b"content").unwrap();
    fs::write(dir.join("sig"), signer.sign_blob(&hash.finish()).unwrap()).unwrap();
    fs::write(
        dir.join("signer.pem"),
        certificates_to_pem([&pair.issued.certificate]),
    )
    .unwrap();
    let public = openssl(dir, "x509 -in signer.pem -noout -pubkey");
    fs::write(dir.join("public.pem"), public).unwrap();
    openssl(
        dir,
        "dgst -sha256 -verify public.pem -signature sig content",
    );
}
