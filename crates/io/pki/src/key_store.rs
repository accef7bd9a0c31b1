use std::{io, path::PathBuf, sync::Arc};

use aos_time::Timestamp;
use rustls::sign::CertifiedKey;
use tokio::sync::watch;

use crate::{CertKind, ChainError, IdentityError, KeyAlgorithm, KeyError, LoadError, Roots};

/// A key store refuses or fails.
#[derive(Debug, thiserror::Error)]
pub enum KeyStoreError {
    /// A file or token object cannot be used.
    #[error("cannot use {path} of the key store")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A key cannot be made or read.
    #[error("a {kind} key cannot be used")]
    Key {
        /// For which type.
        kind: CertKind,
        /// Why.
        #[source]
        source: KeyError,
    },
    /// The certificate given is not readable.
    #[error("the {kind} certificate chain cannot be read")]
    Certificate {
        /// For which type.
        kind: CertKind,
        /// Why.
        #[source]
        source: LoadError,
    },
    /// The chain is too long.
    #[error("the {kind} certificate chain has {length} certificates, at most {most} are accepted")]
    TooLong {
        /// For which type.
        kind: CertKind,
        /// How many were given.
        length: usize,
        /// How many are accepted.
        most: usize,
    },
    /// The chain does not lead to the root.
    #[error("the {kind} certificate is refused")]
    Chain {
        /// For which type.
        kind: CertKind,
        /// Why.
        #[source]
        source: ChainError,
    },
    /// The certificate does not say who its holder is.
    #[error("the {kind} certificate is refused")]
    Identity {
        /// For which type.
        kind: CertKind,
        /// Why.
        #[source]
        source: IdentityError,
    },
    /// The certificate is of another type.
    #[error("a certificate of type {found} was given where {wanted} is wanted")]
    WrongKind {
        /// What was given.
        found: CertKind,
        /// What is wanted.
        wanted: CertKind,
    },
    /// No key waits for this certificate.
    #[error(
        "no {kind} key belongs to this certificate; make a key and request a certificate for it first"
    )]
    NoKey {
        /// For which type.
        kind: CertKind,
    },
    /// The store has no such certificate.
    #[error("there is no {kind} certificate yet")]
    NotFound {
        /// For which type.
        kind: CertKind,
    },
    /// The store does not keep this type.
    #[error("this Node keeps no certificates of type {kind}")]
    NotKept {
        /// Which type.
        kind: CertKind,
    },
}

/// What a key is made for.
#[derive(Debug, Clone, Default)]
pub struct KeyRequest {
    /// Common name of the certificate request.
    pub common_name: String,
    /// DNS names or addresses to ask for.
    pub names: Vec<String>,
    /// Which key.
    pub algorithm: KeyAlgorithm,
}

/// Which certificate is wanted. Without a serial number: the one that lasts longest.
#[derive(Debug, Clone, Default)]
pub struct CertQuery {
    /// Issuer as a DER name; empty is any.
    pub issuer: Vec<u8>,
    /// Serial number in hex; empty is any.
    pub serial: String,
}

/// A certificate of a store and where a component finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertInfo {
    /// Its type.
    pub kind: CertKind,
    /// Where the chain is: `file:` or `pkcs11:` URL.
    pub cert_url: String,
    /// Where the key is.
    pub key_url: String,
    /// Serial number in lower-case hex.
    pub serial: String,
    /// Issuer as a DER name.
    pub issuer: Vec<u8>,
    /// Its last valid moment.
    pub not_after: Timestamp,
}

/// Where a Node keeps its private keys and certificates. Keys are made in it and never leave it except as something TLS can
/// sign with; files today, a PKCS#11 token later.
///
/// All calls block (key generation, disk, token): make them where blocking is allowed.
pub trait KeyStore: Send + Sync {
    /// Which types it keeps.
    fn kinds(&self) -> &[CertKind];

    /// Makes a key and returns a certificate request (PEM). A few keys may wait for their certificates at once; the oldest
    /// gives way.
    fn create_key(&self, kind: CertKind, request: &KeyRequest) -> Result<String, KeyStoreError>;

    /// Takes a certificate chain (PEM, leaf first) for the waiting key it belongs to. The chain is verified by signatures
    /// up to `roots` at `now`, and the type in it must be `kind`.
    fn apply_cert(
        &self,
        kind: CertKind,
        chain_pem: &str,
        roots: &Roots,
        now: Timestamp,
    ) -> Result<CertInfo, KeyStoreError>;

    /// Finds a certificate.
    fn find(&self, kind: CertKind, query: &CertQuery) -> Result<CertInfo, KeyStoreError>;

    /// The certificate that lasts longest with its key, for TLS.
    fn certified_key(&self, kind: CertKind) -> Result<Arc<CertifiedKey>, KeyStoreError>;

    /// Counts changes: a new value says that some certificate changed.
    fn changes(&self) -> watch::Receiver<u64>;

    /// Destroys all keys and certificates.
    fn wipe(&self) -> Result<(), KeyStoreError>;
}

/// Whether two serial numbers in hex are the same: case, leading zeros, `0x` and colons do not matter.
pub fn same_serial(one: &str, other: &str) -> bool {
    let digits = |text: &str| -> String {
        let lower = text.trim().to_ascii_lowercase();
        let lower = lower.strip_prefix("0x").unwrap_or(&lower);
        let digits: String = lower.chars().filter(|c| *c != ':').collect();
        digits.trim_start_matches('0').to_owned()
    };
    digits(one) == digits(other)
}
