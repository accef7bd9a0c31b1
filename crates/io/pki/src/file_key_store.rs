use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use aos_time::Timestamp;
use rustls::sign::CertifiedKey;
use tokio::sync::watch;
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use crate::{
    CertInfo, CertKind, CertQuery, KeyPair, KeyRequest, KeyStore, KeyStoreError, LoadError,
    PeerIdentity, Roots, certificates_from_pem, certificates_to_pem, certified_key, identity,
    key::key_name, load::file_url, private_dir, read_bounded, same_serial, write_private,
};

/// Keys of one type that may wait for certificates at once.
const MAX_PENDING: usize = 5;
/// Certificates of one type that are kept.
const MAX_CERTIFICATES: usize = 4;
/// Longest chain accepted.
const MAX_CHAIN: usize = 8;
const MAX_FILE: u64 = 256 * 1024;

/// A [`KeyStore`] of files: `<dir>/<type>/<key>.key` and `.pem`, waiting keys in `<dir>/<type>/pending/`.
///
/// A certificate counts once its chain file is there; the key file is written before it, so a power cut between the two
/// leaves a key that still waits.
#[derive(Debug)]
pub struct FileKeyStore {
    dir: PathBuf,
    kinds: Vec<CertKind>,
    names: Mutex<()>,
    changed: watch::Sender<u64>,
}

struct Kept {
    key: PathBuf,
    chain: PathBuf,
    info: CertInfo,
}

impl FileKeyStore {
    /// Opens or makes the store in `dir`, for these types.
    pub fn open(
        dir: &Path,
        kinds: impl IntoIterator<Item = CertKind>,
    ) -> Result<Self, KeyStoreError> {
        private_dir(dir).map_err(at(dir))?;
        Ok(Self {
            dir: dir.to_path_buf(),
            kinds: kinds.into_iter().collect(),
            names: Mutex::new(()),
            changed: watch::Sender::new(0),
        })
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn folder(&self, kind: CertKind) -> Result<PathBuf, KeyStoreError> {
        if self.kinds.contains(&kind) {
            Ok(self.dir.join(kind.as_str()))
        } else {
            Err(KeyStoreError::NotKept { kind })
        }
    }

    fn kept(&self, kind: CertKind) -> Result<Vec<Kept>, KeyStoreError> {
        let folder = self.folder(kind)?;
        let mut kept: Vec<Kept> = files(&folder, "pem")?
            .into_iter()
            .filter_map(|chain| {
                let key = chain.with_extension("key");
                let info = read_info(kind, &chain, &key);
                if info.is_none() || !key.exists() {
                    tracing::warn!(file = %chain.display(), "ignoring a damaged certificate of the key store");
                    return None;
                }
                info.map(|info| Kept { key, chain, info })
            })
            .collect();
        kept.sort_by_key(|one| std::cmp::Reverse(one.info.not_after));
        Ok(kept)
    }
}

impl KeyStore for FileKeyStore {
    fn kinds(&self) -> &[CertKind] {
        &self.kinds
    }

    fn create_key(&self, kind: CertKind, request: &KeyRequest) -> Result<String, KeyStoreError> {
        let pending = self.folder(kind)?.join("pending");
        let key_error = |source| KeyStoreError::Key { kind, source };
        let key = KeyPair::generate(request.algorithm).map_err(key_error)?;
        let csr = key
            .request(&request.common_name, &request.names)
            .map_err(key_error)?;
        let _guard = self.lock();
        for dir in [self.folder(kind)?, pending.clone()] {
            private_dir(&dir).map_err(at(&dir))?;
        }
        let mut waiting = files(&pending, "key")?;
        waiting.sort_by_key(|path| fs::metadata(path).and_then(|meta| meta.modified()).ok());
        let surplus = (waiting.len() + 1).saturating_sub(MAX_PENDING);
        for path in waiting.into_iter().take(surplus) {
            fs::remove_file(&path).map_err(at(&path))?;
        }
        let path = pending.join(format!("{}.key", key.id()));
        write_private(&path, key.to_pem().as_bytes()).map_err(at(&path))?;
        Ok(csr)
    }

    fn apply_cert(
        &self,
        kind: CertKind,
        chain_pem: &str,
        roots: &Roots,
        now: Timestamp,
    ) -> Result<CertInfo, KeyStoreError> {
        let unreadable = |source| KeyStoreError::Certificate { kind, source };
        let chain = certificates_from_pem(chain_pem.as_bytes()).map_err(unreadable)?;
        if chain.len() > MAX_CHAIN {
            return Err(KeyStoreError::TooLong {
                kind,
                length: chain.len(),
                most: MAX_CHAIN,
            });
        }
        roots
            .verify_chain(&chain, now)
            .map_err(|source| KeyStoreError::Chain { kind, source })?;
        let leaf = chain
            .first()
            .ok_or_else(|| unreadable(LoadError::NoCertificate))?;
        let named =
            PeerIdentity::read(leaf).map_err(|source| KeyStoreError::Identity { kind, source })?;
        if let Some(named) = named
            && named.kind != kind
        {
            return Err(KeyStoreError::WrongKind {
                found: named.kind,
                wanted: kind,
            });
        }
        let id = match X509Certificate::from_der(leaf) {
            Ok((_, parsed)) => key_name(parsed.public_key().raw),
            Err(_) => return Err(unreadable(LoadError::NoCertificate)),
        };
        let folder = self.folder(kind)?;
        let (key, pem) = (
            folder.join(format!("{id}.key")),
            folder.join(format!("{id}.pem")),
        );
        let waiting = folder.join("pending").join(format!("{id}.key"));
        let _guard = self.lock();
        if !key.exists() {
            let text = match read_bounded(&waiting, MAX_FILE) {
                Ok(text) => Zeroizing::new(text),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(KeyStoreError::NoKey { kind });
                }
                Err(source) => return Err(at(&waiting)(source)),
            };
            write_private(&key, &text).map_err(at(&key))?;
        }
        write_private(&pem, certificates_to_pem(&chain).as_bytes()).map_err(at(&pem))?;
        remove_if_there(&waiting)?;
        for old in self.kept(kind)?.into_iter().skip(MAX_CERTIFICATES) {
            if old.chain != pem {
                remove_if_there(&old.chain)?;
                remove_if_there(&old.key)?;
            }
        }
        let info = read_info(kind, &pem, &key).ok_or(KeyStoreError::NotFound { kind })?;
        self.changed.send_modify(|count| *count += 1);
        Ok(info)
    }

    fn find(&self, kind: CertKind, query: &CertQuery) -> Result<CertInfo, KeyStoreError> {
        let _guard = self.lock();
        self.kept(kind)?
            .into_iter()
            .map(|kept| kept.info)
            .find(|info| {
                (query.issuer.is_empty() || query.issuer == info.issuer)
                    && (query.serial.is_empty() || same_serial(&query.serial, &info.serial))
            })
            .ok_or(KeyStoreError::NotFound { kind })
    }

    fn certified_key(&self, kind: CertKind) -> Result<Arc<CertifiedKey>, KeyStoreError> {
        let _guard = self.lock();
        let newest = self
            .kept(kind)?
            .into_iter()
            .next()
            .ok_or(KeyStoreError::NotFound { kind })?;
        let unreadable = |source| KeyStoreError::Certificate { kind, source };
        let chain = read_bounded(&newest.chain, MAX_FILE).map_err(at(&newest.chain))?;
        let chain = certificates_from_pem(&chain).map_err(unreadable)?;
        let key = Zeroizing::new(read_bounded(&newest.key, MAX_FILE).map_err(at(&newest.key))?);
        let text = Zeroizing::new(String::from_utf8_lossy(&key).into_owned());
        let key = KeyPair::from_pem(&text).map_err(|source| KeyStoreError::Key { kind, source })?;
        certified_key(chain, &key).map_err(unreadable)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn wipe(&self) -> Result<(), KeyStoreError> {
        let _guard = self.lock();
        for kind in &self.kinds {
            let folder = self.dir.join(kind.as_str());
            match fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(at(&folder)(error));
                }
                _ => {}
            }
        }
        fs::File::open(&self.dir)
            .and_then(|dir| dir.sync_all())
            .map_err(at(&self.dir))?;
        self.changed.send_modify(|count| *count += 1);
        Ok(())
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> KeyStoreError + use<> {
    let path = path.to_path_buf();
    move |source| KeyStoreError::Io { path, source }
}

fn remove_if_there(path: &Path) -> Result<(), KeyStoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(path)(error)),
        _ => Ok(()),
    }
}

fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>, KeyStoreError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(at(folder)(source)),
    };
    Ok(entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|one| one == extension))
        .collect())
}

fn read_info(kind: CertKind, chain: &Path, key: &Path) -> Option<CertInfo> {
    let pem = read_bounded(chain, MAX_FILE).ok()?;
    let certificates = certificates_from_pem(&pem).ok()?;
    let (_, parsed) = X509Certificate::from_der(certificates.first()?).ok()?;
    Some(CertInfo {
        kind,
        cert_url: file_url(chain),
        key_url: file_url(key),
        serial: identity::serial(&parsed),
        issuer: parsed.issuer().as_raw().to_vec(),
        not_after: Timestamp::from_secs(parsed.validity().not_after.timestamp()),
    })
}
