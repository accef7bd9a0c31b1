//! From the cloud's word about a blob to what it is fetched and checked with.

use std::sync::Arc;

use aos_cloud_protocol::{BlobUrl, DecryptInfo};
use aos_image::fetch::{Checksum, SignatureCheck, Source};
use aos_pki::{BlobKey, ChainBook, KeyWrap};
use aos_types::Digest;
use zeroize::Zeroizing;

use super::{Error, library::Shared, signature::Check};

/// What shows that a blob may be used, beyond its digest.
#[derive(Debug, Clone)]
pub(super) enum Proof {
    /// Its signature, by the chains of the desired state.
    Signed(Arc<ChainBook>),
    /// This very digest was verified before, and is in the records of an installed item.
    Known,
}

impl Shared {
    pub(super) async fn source(&self, url: BlobUrl, proof: &Proof) -> Result<Source, Error> {
        let digest = url.digest;
        let signature: Option<Arc<dyn SignatureCheck>> = match (proof, &url.sign_info) {
            (Proof::Known, _) => None,
            (Proof::Signed(book), Some(info)) => {
                let require_ocsp = self.options.require_ocsp;
                Some(Arc::new(Check::new(
                    &digest,
                    info,
                    book,
                    &self.trust,
                    require_ocsp,
                )?))
            }
            (Proof::Signed(_), None) if self.options.allow_unsigned => {
                tracing::warn!(%digest, "a blob without a signature is taken, as `allow_unsigned` says");
                None
            }
            (Proof::Signed(_), None) => return Err(Error::Unsigned { digest }),
        };
        let key = match &url.decrypt_info {
            None => None,
            Some(info) => Some(Arc::new(self.key(digest, info).await?)),
        };
        Ok(Source {
            urls: url.urls,
            size: url.size,
            checksum: Some(Checksum(url.sha256.0)),
            key,
            signature,
        })
    }

    /// The key is plain as a rule; one that is wrapped is unwrapped by the Unit's `offline` key.
    async fn key(&self, digest: Digest, info: &DecryptInfo) -> Result<BlobKey, Error> {
        let cipher = info
            .block_alg
            .parse()
            .map_err(|source| Error::Cipher { digest, source })?;
        let wrap = match (&info.asym_alg, &info.receiver) {
            (Some(name), _) => Some(
                name.parse()
                    .map_err(|source| Error::KeyWrap { digest, source })?,
            ),
            (None, Some(_)) => Some(KeyWrap::RSA_PKCS1),
            (None, None) => None,
        };
        let key = match wrap {
            None => Zeroizing::new(info.block_key.clone()),
            Some(wrap) => self
                .keys
                .unwrap_key(wrap, &info.block_key, info.receiver.as_ref())
                .await
                .map_err(|why| Error::Unwrap { digest, why })?,
        };
        BlobKey::new(cipher, key, info.block_iv.clone())
            .map_err(|source| Error::Key { digest, source })
    }
}
