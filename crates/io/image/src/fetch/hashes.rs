//! The hashes that are computed while a blob passes by.

use sha2::{Digest as _, Sha256, Sha384, Sha512};
use sha3::Sha3_256;

use super::source::HashAlgorithm;

/// Which are computed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    /// SHA3-256 of the transferred file.
    pub sha3: bool,
    /// SHA-256 of the transferred file, where it is not the content's.
    pub file: bool,
    /// A further hash of the content for its signature.
    pub signature: Option<HashAlgorithm>,
}

#[derive(Clone)]
enum Signed {
    No,
    Sha256,
    Sha384(Sha384),
    Sha512(Sha512),
}

/// Hashes of the transferred file, and of the content in it.
#[derive(Clone)]
pub(super) struct Hashes {
    content: Sha256,
    file: Option<Sha256>,
    sha3: Option<Sha3_256>,
    signed: Signed,
}

impl Hashes {
    pub(super) fn new(wanted: Wanted) -> Self {
        Self {
            content: Sha256::new(),
            file: wanted.file.then(Sha256::new),
            sha3: wanted.sha3.then(Sha3_256::new),
            signed: match wanted.signature {
                None => Signed::No,
                Some(HashAlgorithm::Sha256) => Signed::Sha256,
                Some(HashAlgorithm::Sha384) => Signed::Sha384(Sha384::new()),
                Some(HashAlgorithm::Sha512) => Signed::Sha512(Sha512::new()),
            },
        }
    }

    /// Takes bytes of the transferred file.
    pub(super) fn file(&mut self, bytes: &[u8]) {
        if let Some(hash) = &mut self.file {
            hash.update(bytes);
        }
        if let Some(hash) = &mut self.sha3 {
            hash.update(bytes);
        }
    }

    /// Takes bytes of the content.
    pub(super) fn content(&mut self, bytes: &[u8]) {
        self.content.update(bytes);
        match &mut self.signed {
            Signed::No | Signed::Sha256 => {}
            Signed::Sha384(hash) => hash.update(bytes),
            Signed::Sha512(hash) => hash.update(bytes),
        }
    }

    /// SHA-256 of the content.
    pub(super) fn digest(&self) -> [u8; 32] {
        self.content.clone().finalize().into()
    }

    /// Whether this is a checksum of the transferred file, by either hash.
    pub(super) fn is_file(&self, checksum: &[u8; 32]) -> bool {
        let sha256 = self.file.as_ref().unwrap_or(&self.content);
        let sha256: [u8; 32] = sha256.clone().finalize().into();
        let sha3: Option<[u8; 32]> = self.sha3.clone().map(|hash| hash.finalize().into());
        *checksum == sha256 || Some(*checksum) == sha3
    }

    /// The hash of the content that its signature is made over.
    pub(super) fn signed(&self) -> Vec<u8> {
        match &self.signed {
            Signed::No | Signed::Sha256 => self.digest().to_vec(),
            Signed::Sha384(hash) => hash.clone().finalize().to_vec(),
            Signed::Sha512(hash) => hash.clone().finalize().to_vec(),
        }
    }
}
