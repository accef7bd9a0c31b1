use std::{io, path::Path, path::PathBuf, sync::Arc};

use aos_time::Timestamp;
use aos_types::NodeId;
use rustls::sign::CertifiedKey;
use rustls_pki_types::PrivatePkcs8KeyDer;
use zeroize::Zeroizing;

use crate::{
    Authority, AuthorityError, CertKind, CertProfile, KeyAlgorithm, KeyError, KeyPair, LoadError,
    Roots, certified_key, read_bounded, write_private,
};

/// The name a client asks a server for when it wants the certificate made from the bootstrap key.
pub const BOOTSTRAP_SERVER_NAME: &str = "bootstrap.aos.internal";

/// The bootstrap key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// Its file cannot be used.
    #[error("cannot use the bootstrap key {path}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Its file does not hold 64 hex digits.
    #[error("the bootstrap key {path} must hold 64 hex digits; copy it again from the main Node")]
    Text {
        /// Which file.
        path: PathBuf,
    },
    /// No certificate can be made from it.
    #[error("no certificate can be made from the bootstrap key")]
    Authority(#[source] AuthorityError),
    /// No key can be made from it.
    #[error("no key can be made from the bootstrap key")]
    Key(#[source] KeyError),
    /// TLS cannot use what was made from it.
    #[error("TLS cannot use the bootstrap certificate")]
    Tls(#[source] LoadError),
    /// The derivation failed.
    #[error("deriving from the bootstrap key failed")]
    Derive,
}

/// The 32 bytes that the Nodes of a Unit share before they have certificates (`docs/protocol/trust.md`).
///
/// Both sides derive the same authority from it and issue themselves certificates of type `bootstrap`, so provisioning
/// runs over mutual TLS. The certificates' dates say nothing: a Node may have no clock yet, and who holds the key can make
/// another. What limits a certificate is that its key lives in the memory of one process only.
#[derive(Clone)]
pub struct BootstrapKey {
    secret: Zeroizing<[u8; 32]>,
    roots: Roots,
}

impl std::fmt::Debug for BootstrapKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BootstrapKey")
    }
}

impl BootstrapKey {
    /// Uses these bytes.
    pub fn from_bytes(secret: [u8; 32]) -> Result<Self, BootstrapError> {
        let mut key = Self {
            secret: Zeroizing::new(secret),
            roots: Roots::default(),
        };
        key.roots = key.authority()?.roots();
        Ok(key)
    }

    /// Makes a new one.
    pub fn generate() -> Result<Self, BootstrapError> {
        let mut secret = [0; 32];
        aws_lc_rs::rand::fill(&mut secret).map_err(|_| BootstrapError::Derive)?;
        Self::from_bytes(secret)
    }

    /// Reads the file (64 hex digits). Blocks.
    pub fn load(path: &Path) -> Result<Self, BootstrapError> {
        let text = read_bounded(path, 1024)
            .map(Zeroizing::new)
            .map_err(|source| BootstrapError::File {
                path: path.to_path_buf(),
                source,
            })?;
        let mut secret = [0; 32];
        hex::decode_to_slice(text.trim_ascii(), &mut secret).map_err(|_| BootstrapError::Text {
            path: path.to_path_buf(),
        })?;
        Self::from_bytes(secret)
    }

    /// Reads the file, or makes a key and writes it there with mode 0600. Blocks.
    pub fn load_or_create(path: &Path) -> Result<Self, BootstrapError> {
        match Self::load(path) {
            Err(BootstrapError::File { source, .. })
                if source.kind() == io::ErrorKind::NotFound =>
            {
                let key = Self::generate()?;
                let text = Zeroizing::new(format!("{}\n", hex::encode(*key.secret)));
                write_private(path, text.as_bytes()).map_err(|source| BootstrapError::File {
                    path: path.to_path_buf(),
                    source,
                })?;
                Ok(key)
            }
            other => other,
        }
    }

    /// The root that all holders of the key derive.
    pub fn roots(&self) -> Roots {
        self.roots.clone()
    }

    /// A certificate of type `bootstrap` with a new key, for the Node `node_id` or for a tool.
    pub fn credentials(
        &self,
        node_id: Option<&NodeId>,
    ) -> Result<Arc<CertifiedKey>, BootstrapError> {
        let profile = CertProfile {
            node_id: node_id.cloned(),
            common_name: "Aos bootstrap".into(),
            ..CertProfile::blob_signer()
        };
        let profile = CertProfile {
            kind: CertKind::Bootstrap,
            ..profile
        };
        let key = KeyPair::generate(KeyAlgorithm::EcP256).map_err(BootstrapError::Key)?;
        let issued = self
            .authority()?
            .sign(&key.0, &profile, Timestamp::EPOCH, far())
            .map_err(BootstrapError::Authority)?;
        certified_key(vec![issued.certificate], &key).map_err(BootstrapError::Tls)
    }

    /// Derives the authority: HKDF-SHA256 gives the seed of an Ed25519 key, whose signatures are deterministic, so the
    /// root is the same everywhere.
    fn authority(&self) -> Result<Authority, BootstrapError> {
        let mut seed = Zeroizing::new([0; 32]);
        aws_lc_rs::hkdf::Salt::new(aws_lc_rs::hkdf::HKDF_SHA256, b"aos bootstrap v1")
            .extract(self.secret.as_ref())
            .expand(&[b"certificate authority"], aws_lc_rs::hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(seed.as_mut()))
            .map_err(|_| BootstrapError::Derive)?;
        let pkcs8 = aws_lc_rs::signature::Ed25519KeyPair::from_seed_unchecked(seed.as_ref())
            .ok()
            .and_then(|pair| pair.to_pkcs8v1().ok())
            .ok_or(BootstrapError::Derive)?;
        let key = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(
            &PrivatePkcs8KeyDer::from(pkcs8.as_ref()),
            &rcgen::PKCS_ED25519,
        )
        .map_err(|source| BootstrapError::Key(KeyError::Read(source)))?;
        Authority::make(
            key,
            "Aos bootstrap authority",
            Timestamp::EPOCH,
            far(),
            Some(vec![1]),
        )
        .map_err(BootstrapError::Authority)
    }
}

/// The last second of the year 9999.
fn far() -> Timestamp {
    Timestamp::from_secs(253_402_300_799)
}
