use std::sync::Arc;

use aos_cloud_protocol::SignInfo;
use aos_image::fetch::{HashAlgorithm, SignatureCheck};
use aos_pki::{BlobSignature, ChainBook, Hash, Trust};
use aos_time::{Clock, SystemClock};
use aos_types::Digest;
use aos_update::{Certificate, CertificateChain};

use super::Error;

/// The certificates and chains of a desired state. One that is wrong is left out: a signature that needs it fails then,
/// and says so.
pub(super) fn book(certificates: &[Certificate], chains: &[CertificateChain]) -> ChainBook {
    let mut book = ChainBook::new();
    for one in certificates {
        if let Err(error) = book.add_certificate(&one.fingerprint, &one.der) {
            tracing::warn!(%error, "a certificate of the desired state is left out");
        }
    }
    for one in chains {
        if let Err(error) = book.add_chain(&one.name, &one.fingerprints) {
            tracing::warn!(%error, chain = one.name, "a certificate chain of the desired state is left out");
        }
    }
    book
}

/// Checks one blob's signature against the desired state's chains and the Unit's roots.
#[derive(Debug)]
pub(super) struct Check {
    book: Arc<ChainBook>,
    signature: BlobSignature,
    trust: Trust,
}

impl Check {
    pub(super) fn new(
        digest: &Digest,
        info: &SignInfo,
        book: &Arc<ChainBook>,
        trust: &Trust,
        require_ocsp: bool,
    ) -> Result<Self, Error> {
        let algorithm = info.alg.parse().map_err(|source| Error::Algorithm {
            digest: *digest,
            source,
        })?;
        Ok(Self {
            book: book.clone(),
            signature: BlobSignature {
                chain_name: info.chain_name.clone(),
                algorithm,
                value: info.value.clone(),
                trusted_timestamp: info.trusted_timestamp,
                ocsp_values: info.ocsp_values.clone(),
                require_ocsp,
            },
            trust: trust.clone(),
        })
    }
}

impl SignatureCheck for Check {
    fn algorithm(&self) -> HashAlgorithm {
        match self.signature.algorithm.hash() {
            Hash::Sha256 => HashAlgorithm::Sha256,
            Hash::Sha384 => HashAlgorithm::Sha384,
            Hash::Sha512 => HashAlgorithm::Sha512,
        }
    }

    fn check(&self, hash: &[u8]) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        self.book
            .verify(
                &self.signature,
                hash,
                &self.trust.roots(),
                SystemClock.now(),
            )
            .map_err(Into::into)
    }
}
