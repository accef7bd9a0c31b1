//! The cloud's own keys: what its listeners show, and what signs blobs.

use std::{path::Path, sync::Arc};

use aos_pki::{
    Authority, CertProfile, CertSource, KeyAlgorithm, KeyPair, Signer, certificates_from_pem,
    certified_key, read_bounded, write_private,
};
use aos_time::Timestamp;

use crate::Error;

const MAX_FILE: u64 = 64 * 1024;

/// Makes the certificate the listeners show and puts it into `source`. Its key lives in memory only. Blocks.
pub(crate) fn present(
    authority: &Authority,
    names: &[String],
    now: Timestamp,
    source: &CertSource,
) -> Result<(), Error> {
    let profile = CertProfile::server(names.to_vec());
    let pair = authority.issue_pair(KeyAlgorithm::EcP256, &profile, now)?;
    let chain = certificates_from_pem(pair.issued.chain_pem.as_bytes())?;
    source.set(Some(certified_key(chain, &pair.key)?));
    Ok(())
}

/// Loads the signer of blobs from `dir`, or makes it. RSA, because AosCore verifies nothing else. It stays the same over
/// restarts, so that desired states do not change by a restart. Blocks.
pub(crate) fn blob_signer(
    authority: &Authority,
    dir: &Path,
    now: Timestamp,
) -> Result<Arc<Signer>, Error> {
    let (key_path, cert_path) = (dir.join("blob-signer.key"), dir.join("blob-signer.pem"));
    let file = |path: &Path| {
        let path = path.to_path_buf();
        move |source| Error::File { path, source }
    };
    if cert_path.exists() {
        let key = read_bounded(&key_path, MAX_FILE).map_err(file(&key_path))?;
        let chain = read_bounded(&cert_path, MAX_FILE).map_err(file(&cert_path))?;
        let key = KeyPair::from_pem(&String::from_utf8_lossy(&key))?;
        return Ok(Arc::new(Signer::new(&key, certificates_from_pem(&chain)?)?));
    }
    let pair = authority.issue_pair(KeyAlgorithm::Rsa2048, &CertProfile::blob_signer(), now)?;
    write_private(&key_path, pair.key.to_pem().as_bytes()).map_err(file(&key_path))?;
    // Last, because it says that both are there.
    write_private(&cert_path, pair.issued.chain_pem.as_bytes()).map_err(file(&cert_path))?;
    let chain = certificates_from_pem(pair.issued.chain_pem.as_bytes())?;
    Ok(Arc::new(Signer::new(&pair.key, chain)?))
}
