//! A publisher, a cloud, and bundle folders for tests.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, sync::OnceLock};

use aos_bundle::{Caps, OpenError, Opened, SignerCertificate, open, sign};
use aos_pki::{Authority, CertKind, CertProfile, KeyAlgorithm, Signer};
use aos_time::{Clock, SystemClock};
use tokio_util::sync::CancellationToken;

pub(crate) fn authority() -> &'static Authority {
    static ROOT: OnceLock<Authority> = OnceLock::new();
    ROOT.get_or_init(|| Authority::in_memory("test", SystemClock.now()).unwrap())
}

pub(crate) fn signer_of(authority: &Authority, profile: &CertProfile, key: KeyAlgorithm) -> Signer {
    let pair = authority
        .issue_pair(key, profile, SystemClock.now())
        .unwrap();
    Signer::new(&pair.key, vec![pair.issued.certificate]).unwrap()
}

pub(crate) fn user() -> CertProfile {
    CertProfile::user("u-1", "ann", "localhost")
}

pub(crate) fn signer() -> &'static Signer {
    static SIGNER: OnceLock<Signer> = OnceLock::new();
    SIGNER.get_or_init(|| signer_of(authority(), &user(), KeyAlgorithm::Rsa2048))
}

pub(crate) fn blob_signer() -> Signer {
    let profile = CertProfile::blob_signer();
    assert_eq!(profile.kind, CertKind::BlobSigner);
    signer_of(authority(), &profile, KeyAlgorithm::EcP256)
}

pub(crate) const CONFIG: &str = r#"schemaVersion: 2
publisher: {author: ann, company: acme}
items:
  - identity: {type: service, codename: web, title: Web}
    version: "1.2.3"
    images:
      - archInfo: {architecture: amd64}
        env: ["A=image"]
      - archInfo: {architecture: arm64}
        sourceFolder: web-arm
        cmd: ["/bin/arm"]
    configuration:
      cmd: ["/bin/web", "-v"]
      workingDir: /srv
      env: ["A=item", "B=1"]
      baseLayerIsNodeRootfs: false
      hostname: web
      exposedPorts: [80/tcp]
      publishedPorts: [{hostPort: 8080, port: 80}]
      allowedConnections: ["db/5432-5433/tcp"]
      instances: {minInstances: 2, priority: 7, labels: [edge]}
      quotas: {ramLimit: 16MiB, cpuLimit: 100, stateLimit: 4KiB, uploadSpeedLimit: 5}
      state: {filename: start.dat, required: true}
      resources: [{name: camera, mode: rw}]
      permissions: {vis: {speed: r}}
      alertRules:
        ram: {minTimeout: PT5S, minThreshold: 10, maxThreshold: 90}
        storage: {maxThreshold: 80}
"#;

pub(crate) fn put(folder: &Path, name: &str, content: &[u8], mode: u32) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
}

/// A folder that can be signed.
pub(crate) fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "config.yaml", CONFIG.as_bytes(), 0o644);
    put(dir.path(), "web/amd64/bin/web", b"#!amd64", 0o755);
    put(dir.path(), "web/amd64/data/x", &[7; 3000], 0o600);
    put(dir.path(), "web-arm/bin/arm", b"#!arm64", 0o755);
    put(dir.path(), "web/start.dat", b"first", 0o644);
    dir
}

/// The signed bundle of a folder.
pub(crate) fn signed(folder: &Path, signer: &Signer) -> Vec<u8> {
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("out.tar.gz");
    let signed = sign(folder, signer, &path).unwrap();
    let bytes = fs::read(&path).unwrap();
    assert_eq!(signed.size, bytes.len() as u64);
    assert_eq!(
        fs::read_dir(out.path()).unwrap().count(),
        1,
        "no left-overs"
    );
    bytes
}

pub(crate) fn open_bytes(bundle: &[u8], caps: &Caps) -> Result<Opened, OpenError> {
    let scratch = tempfile::tempdir().unwrap();
    let opened = open(
        bundle,
        caps,
        &authority().roots(),
        &|_: &str| None::<SignerCertificate>,
        SystemClock.now(),
        scratch.path(),
        &CancellationToken::new(),
    );
    match opened {
        Ok(opened) => {
            // The test needs the files longer than this function lives.
            let _kept = scratch.keep();
            Ok(opened)
        }
        Err(error) => {
            let left = fs::read_dir(scratch.path()).unwrap().count();
            assert_eq!(left, 0, "a refused bundle leaves nothing: {error}");
            Err(error)
        }
    }
}
