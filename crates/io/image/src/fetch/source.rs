use std::{fmt, str::FromStr, sync::Arc};

use aos_pki::BlobKey;
use aos_types::Digest;
use base64::{Engine as _, engine::general_purpose};

use super::{Error, hashes::Wanted};

/// Where a blob is and what its file must be like, as `blobUrls` says (`docs/protocol/unit-cloud.md`).
#[derive(Debug, Clone)]
pub struct Source {
    /// In order of preference; each has its own attempts.
    pub urls: Vec<String>,
    /// Bytes of the file.
    pub size: u64,
    /// Checksum of the file as it is transferred.
    pub checksum: Option<Checksum>,
    /// What the file is decrypted with, if it is the blob in encrypted form.
    pub key: Option<Arc<BlobKey>>,
    /// How the content is checked beyond its digest; nothing if the policy takes unsigned blobs.
    pub signature: Option<Arc<dyn SignatureCheck>>,
}

/// The hash a signature is made over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashAlgorithm {
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

/// Decides whether a blob's content is signed by somebody who is trusted.
pub trait SignatureCheck: fmt::Debug + Send + Sync {
    /// The hash of the content that [`check`](Self::check) wants.
    fn algorithm(&self) -> HashAlgorithm;

    /// Checks signature and chain over the hash of the content.
    fn check(&self, hash: &[u8]) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;
}

/// 32 bytes: SHA3-256 or SHA-256 of the transferred file; senders differ, so either is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checksum(pub [u8; 32]);

/// The text is not a checksum of 32 bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a checksum: expected 64 hex digits or the base64 of 32 bytes")]
pub struct ParseChecksumError(String);

impl FromStr for Checksum {
    type Err = ParseChecksumError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ParseChecksumError(text.chars().take(100).collect());
        let mut bytes = [0; 32];
        if text.len() == 64 {
            hex::decode_to_slice(text, &mut bytes).map_err(|_| bad())?;
            return Ok(Self(bytes));
        }
        let decoded = [
            &general_purpose::STANDARD,
            &general_purpose::STANDARD_NO_PAD,
            &general_purpose::URL_SAFE,
            &general_purpose::URL_SAFE_NO_PAD,
        ]
        .into_iter()
        .find_map(|engine| engine.decode(text).ok())
        .ok_or_else(bad)?;
        decoded.try_into().map(Self).map_err(|_| bad())
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl Source {
    pub(super) fn check(&self, max: u64) -> Result<(), Error> {
        if self.urls.is_empty() {
            return Err(Error::NoUrls);
        }
        if self.size > max {
            return Err(Error::TooLong {
                size: self.size,
                max,
            });
        }
        Ok(())
    }

    pub(super) fn hashes(&self, digest: &Digest) -> Wanted {
        Wanted {
            // A checksum equal to the digest is a SHA-256 of the plain file: that one is computed anyway.
            sha3: self
                .checksum
                .is_some_and(|checksum| checksum.0 != *digest.as_bytes()),
            file: self.key.is_some() && self.checksum.is_some(),
            signature: self.signature.as_ref().map(|check| check.algorithm()),
        }
    }
}
