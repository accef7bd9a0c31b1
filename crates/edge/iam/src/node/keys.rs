use std::{fs, io, path::PathBuf, sync::Arc};

use aos_ipc::proto::iamanager::v6 as pb;
use aos_pki::{
    BootstrapKey, CertInfo, CertKind, CertQuery, CertSource, FileKeyStore, KeyAlgorithm,
    KeyRequest, KeyStore, KeyStoreError, Roots, Trust, certificates_from_pem, private_dir,
    write_private,
};
use aos_time::Timestamp;
use aos_types::{AosCode, ErrorInfo, NodeId};

use crate::{Error, Options};

/// The Node's keys and certificates, its root, and what its servers and its client present and believe.
///
/// Its calls that touch the disk run where blocking is allowed and end even if the caller does not wait.
#[derive(Clone)]
pub(crate) struct Keys {
    store: Arc<FileKeyStore>,
    root: PathBuf,
    /// What IAM presents: its `iam` certificate, and the bootstrap one to who asks for it.
    pub source: CertSource,
    /// The Unit's root, and the bootstrap authority.
    pub trust: Trust,
}

impl Keys {
    /// Opens the store; takes the certificates that are there into use. Blocks.
    pub fn open(options: &Options) -> Result<Self, Error> {
        private_dir(&options.state_dir).map_err(|source| Error::File {
            path: options.state_dir.clone(),
            source,
        })?;
        let mut kinds = vec![CertKind::Iam, CertKind::Sm];
        if options.is_main() {
            kinds.extend([CertKind::Online, CertKind::Offline, CertKind::Cm]);
        }
        let keys = Self {
            store: Arc::new(FileKeyStore::open(&options.state_dir.join("certs"), kinds)?),
            root: options.state_dir.join("ca.pem"),
            source: CertSource::new(),
            trust: Trust::new(Roots::default()),
        };
        if keys.root.exists() {
            keys.trust.set_roots(Roots::from_file(&keys.root)?);
        }
        keys.present();
        Ok(keys)
    }

    /// Believes and presents what the bootstrap key gives.
    pub fn use_bootstrap(&self, key: &BootstrapKey, node: &NodeId) -> Result<(), Error> {
        self.trust.set_bootstrap(Some(key));
        self.source
            .set_bootstrap(Some(key.credentials(Some(node))?));
        Ok(())
    }

    fn present(&self) {
        match self.store.certified_key(CertKind::Iam) {
            Ok(key) => self.source.set(Some(key)),
            Err(KeyStoreError::NotFound { .. }) => self.source.set(None),
            Err(error) => {
                tracing::error!(error = %ErrorInfo::from_error(AosCode::Failed, &error), "IAM's own certificate cannot be used");
                self.source.set(None);
            }
        }
    }

    /// The certificate types of this Node, in the order they are provisioned.
    pub fn kinds(&self) -> Vec<String> {
        self.store.kinds().iter().map(ToString::to_string).collect()
    }

    /// Tells when some certificate changed.
    pub fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.store.changes()
    }

    /// Finds a certificate.
    pub async fn find(&self, kind: &str, query: CertQuery) -> Result<CertInfo, ErrorInfo> {
        let kind = parse(kind)?;
        self.blocking(move |keys| keys.store.find(kind, &query).map_err(|e| info(&e)))
            .await
    }

    /// Makes a key and a request for it.
    pub async fn create(&self, kind: &str, common_name: String) -> Result<String, ErrorInfo> {
        let kind = parse(kind)?;
        let request = KeyRequest {
            common_name,
            names: Vec::new(),
            // Only for RSA keys can content be encrypted.
            algorithm: match kind {
                CertKind::Offline => KeyAlgorithm::Rsa2048,
                _ => KeyAlgorithm::EcP256,
            },
        };
        self.blocking(move |keys| keys.store.create_key(kind, &request).map_err(|e| info(&e)))
            .await
    }

    /// Takes a certificate. The first one brings the Unit's root at the end of its chain: whoever may call this on a Node
    /// without a root has shown that it holds the bootstrap key.
    pub async fn apply(
        &self,
        kind: &str,
        chain_pem: String,
        now: Timestamp,
    ) -> Result<CertInfo, ErrorInfo> {
        let kind = parse(kind)?;
        self.blocking(move |keys| {
            let known = keys.trust.roots();
            let roots = if known.is_empty() {
                root_of(&chain_pem)?
            } else {
                (*known).clone()
            };
            let applied = keys
                .store
                .apply_cert(kind, &chain_pem, &roots, now)
                .map_err(|e| info(&e))?;
            if known.is_empty() {
                write_private(&keys.root, roots.to_pem().as_bytes())
                    .map_err(|source| file(&keys.root, source))?;
                keys.trust.set_roots(roots);
            }
            if kind == CertKind::Iam {
                keys.present();
            }
            Ok(applied)
        })
        .await
    }

    /// Which types have no certificate yet.
    pub async fn missing(&self) -> Result<Vec<String>, ErrorInfo> {
        self.blocking(|keys| {
            let missing =
                |kind: &&CertKind| keys.store.find(**kind, &CertQuery::default()).is_err();
            let kinds = keys.store.kinds().iter();
            Ok(kinds.filter(missing).map(ToString::to_string).collect())
        })
        .await
    }

    /// Destroys keys, certificates and the root.
    pub async fn wipe(&self) -> Result<(), ErrorInfo> {
        self.blocking(|keys| {
            match fs::remove_file(&keys.root) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(file(&keys.root, error));
                }
                _ => {}
            }
            keys.trust.set_roots(Roots::default());
            keys.source.set(None);
            keys.store.wipe().map_err(|e| info(&e))
        })
        .await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, ErrorInfo> + Send + 'static,
    ) -> Result<T, ErrorInfo> {
        let keys = self.clone();
        tokio::task::spawn_blocking(move || work(&keys))
            .await
            .unwrap_or_else(|error| Err(ErrorInfo::from_error(AosCode::Runtime, &error)))
    }
}

/// The root at the end of a chain.
fn root_of(chain_pem: &str) -> Result<Roots, ErrorInfo> {
    let chain = certificates_from_pem(chain_pem.as_bytes())
        .map_err(|error| ErrorInfo::from_error(AosCode::InvalidArgument, &error))?;
    match chain.last() {
        Some(root) if chain.len() > 1 => Roots::from_ders([root.clone()])
            .map_err(|error| ErrorInfo::from_error(AosCode::InvalidArgument, &error)),
        _ => Err(ErrorInfo::new(
            AosCode::InvalidArgument,
            "the chain must end with the root: this Node has none yet",
        )),
    }
}

fn parse(kind: &str) -> Result<CertKind, ErrorInfo> {
    kind.parse()
        .map_err(|error| ErrorInfo::from_error(AosCode::InvalidArgument, &error))
}

fn file(path: &std::path::Path, source: io::Error) -> ErrorInfo {
    ErrorInfo {
        exit_code: source.raw_os_error().unwrap_or(0),
        ..ErrorInfo::new(
            AosCode::Runtime,
            format!("cannot use {}: {source}", path.display()),
        )
    }
}

fn info(error: &KeyStoreError) -> ErrorInfo {
    let code = match error {
        KeyStoreError::NotFound { .. } | KeyStoreError::NoKey { .. } => AosCode::NotFound,
        KeyStoreError::NotKept { .. } => AosCode::NotSupported,
        KeyStoreError::Io { .. } | KeyStoreError::Key { .. } => AosCode::Runtime,
        KeyStoreError::Certificate { .. }
        | KeyStoreError::TooLong { .. }
        | KeyStoreError::Chain { .. }
        | KeyStoreError::Identity { .. }
        | KeyStoreError::WrongKind { .. } => AosCode::InvalidArgument,
    };
    ErrorInfo::from_error(code, error)
}

/// Writes where a certificate is. The serial number goes as hex text, as peers do it.
pub(crate) fn cert_info_to_proto(info: CertInfo) -> pb::CertInfo {
    pb::CertInfo {
        r#type: info.kind.to_string(),
        cert_url: info.cert_url,
        key_url: info.key_url,
        serial: info.serial.into_bytes(),
        issuer: info.issuer,
    }
}
