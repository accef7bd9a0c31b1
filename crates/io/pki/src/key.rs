use std::fmt;

use rcgen::{
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, PublicKeyData, RsaKeySize,
};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// A key cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The generator failed.
    #[error("cannot make a {algorithm:?} key")]
    Generate {
        /// What was asked for.
        algorithm: KeyAlgorithm,
        /// What the generator said.
        #[source]
        source: rcgen::Error,
    },
    /// The text holds no usable private key.
    #[error(
        "the private key cannot be read; a PEM block `PRIVATE KEY` with an RSA or ECDSA key is wanted"
    )]
    Read(#[source] rcgen::Error),
}

/// Which key to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyAlgorithm {
    /// ECDSA on P-256.
    #[default]
    EcP256,
    /// ECDSA on P-384.
    EcP384,
    /// RSA with 2048 bits.
    Rsa2048,
}

/// A private key with its public one. Its memory is not shown by `Debug`.
pub struct KeyPair(pub(crate) rcgen::KeyPair);

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPair({})", self.id())
    }
}

impl KeyPair {
    /// Makes a new key. RSA takes tens of milliseconds: call it where blocking is allowed.
    pub fn generate(algorithm: KeyAlgorithm) -> Result<Self, KeyError> {
        match algorithm {
            KeyAlgorithm::EcP256 => rcgen::KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
            KeyAlgorithm::EcP384 => rcgen::KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384),
            KeyAlgorithm::Rsa2048 => {
                rcgen::KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)
            }
        }
        .map(Self)
        .map_err(|source| KeyError::Generate { algorithm, source })
    }

    /// Reads a PEM private key (PKCS#8, PKCS#1 or SEC1).
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        rcgen::KeyPair::from_pem(pem)
            .map(Self)
            .map_err(KeyError::Read)
    }

    /// The private key as PEM. Its memory is wiped when dropped.
    pub fn to_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.serialize_pem())
    }

    /// The public key as DER `SubjectPublicKeyInfo`.
    pub fn public_key_der(&self) -> Vec<u8> {
        self.0.subject_public_key_info()
    }

    /// A name for the key: the first half of the SHA-256 of its public key, in hex.
    pub fn id(&self) -> String {
        key_name(&self.public_key_der())
    }

    /// Makes a certificate request (PEM) for `common_name` with DNS names or IP addresses.
    pub fn request(&self, common_name: &str, names: &[String]) -> Result<String, KeyError> {
        let mut params = rcgen::CertificateParams::new(names.to_vec()).map_err(KeyError::Read)?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, common_name);
        params
            .serialize_request(&self.0)
            .and_then(|request| request.pem())
            .map_err(KeyError::Read)
    }

    pub(crate) fn to_private_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.0.serialize_der()))
    }
}

/// Names a public key (DER `SubjectPublicKeyInfo`) for files and look-ups.
pub(crate) fn key_name(public_key_der: &[u8]) -> String {
    let digest = Sha256::digest(public_key_der);
    hex::encode(digest.get(..16).unwrap_or_default())
}
