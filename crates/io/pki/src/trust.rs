use std::{path::Path, sync::Arc};

use aos_time::{Clock, SystemClock, Timestamp};
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use tokio::sync::watch;
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter, KeyUsage};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{
    BootstrapKey, CertKind, Fingerprint, IdentityError, LoadError, PeerIdentity,
    certificates_from_pem, certificates_to_pem, provider, read_bounded,
};

const MAX_ROOTS_FILE: u64 = 1024 * 1024;

/// A certificate does not lead to a root we trust.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ChainError {
    /// The chain was refused.
    #[error("the certificate of `{subject}` is not accepted: {why}")]
    Refused {
        /// Subject of the leaf.
        subject: String,
        /// Why, for people.
        why: String,
        /// The validator's reason.
        #[source]
        source: webpki::Error,
    },
    /// No root is trusted yet.
    #[error("no root certificate is known yet, so `{subject}` cannot be checked")]
    NoRoots {
        /// Subject of the leaf.
        subject: String,
    },
    /// A root cannot be one.
    #[error("the certificate of `{subject}` cannot be a root: {why}")]
    NotARoot {
        /// Its subject.
        subject: String,
        /// Why.
        why: String,
    },
    /// The certificate does not say who its holder is.
    #[error("the peer cannot be named")]
    Identity(#[source] IdentityError),
    /// A certificate says `bootstrap` but is not made from the bootstrap key, or the other way round.
    #[error("the certificate of `{subject}` is of type {kind}, which its issuer may not give")]
    WrongIssuer {
        /// Subject of the leaf.
        subject: String,
        /// Its type.
        kind: CertKind,
    },
}

/// What the chain must be good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Server,
    Client,
    Any,
}

struct AnyPurpose;

impl ExtendedKeyUsageValidator for AnyPurpose {
    fn validate(&self, mut ids: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        ids.try_for_each(|id| id.map(|_| ()))
    }
}

/// Root certificates that are trusted together.
#[derive(Debug, Clone, Default)]
pub struct Roots {
    certificates: Vec<CertificateDer<'static>>,
    anchors: Vec<TrustAnchor<'static>>,
}

impl Roots {
    /// Takes certificates as roots. Each must be allowed to issue certificates.
    pub fn from_ders(
        certificates: impl IntoIterator<Item = CertificateDer<'static>>,
    ) -> Result<Self, ChainError> {
        let mut roots = Self::default();
        for certificate in certificates {
            let refuse = |why: String| ChainError::NotARoot {
                subject: subject_of(&certificate),
                why,
            };
            let (_, parsed) =
                X509Certificate::from_der(&certificate).map_err(|e| refuse(e.to_string()))?;
            if !parsed.is_ca() {
                return Err(refuse("it may not issue certificates".into()));
            }
            let anchor = webpki::anchor_from_trusted_cert(&certificate)
                .map_err(|error| refuse(error.to_string()))?
                .to_owned();
            roots.anchors.push(anchor);
            roots.certificates.push(certificate);
        }
        Ok(roots)
    }

    /// Takes all certificates of a PEM text as roots.
    pub fn from_pem(pem: &[u8]) -> Result<Self, LoadRootsError> {
        Ok(Self::from_ders(certificates_from_pem(pem)?)?)
    }

    /// Reads a file of PEM certificates, such as `ca_cert`. Blocks.
    pub fn from_file(path: &Path) -> Result<Self, LoadRootsError> {
        let pem = read_bounded(path, MAX_ROOTS_FILE).map_err(|source| LoadError::File {
            path: path.to_path_buf(),
            source,
        })?;
        Self::from_pem(&pem)
    }

    /// The certificates.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    /// The certificates as PEM.
    pub fn to_pem(&self) -> String {
        certificates_to_pem(&self.certificates)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.anchors.is_empty()
    }

    /// Checks by signatures that `chain` (leaf first, a root at its end does no harm) leads to one of these roots and is
    /// valid at `at`, whatever its leaf is for.
    pub fn verify_chain(
        &self,
        chain: &[CertificateDer<'_>],
        at: Timestamp,
    ) -> Result<(), ChainError> {
        let Some((leaf, intermediates)) = chain.split_first() else {
            return Err(ChainError::NoRoots {
                subject: "(no certificate)".into(),
            });
        };
        self.verify(leaf, intermediates, unix_time(at), Purpose::Any)
    }

    pub(crate) fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        at: UnixTime,
        purpose: Purpose,
    ) -> Result<(), ChainError> {
        if self.is_empty() {
            return Err(ChainError::NoRoots {
                subject: subject_of(leaf),
            });
        }
        let provider = provider();
        let algorithms = provider.signature_verification_algorithms.all;
        let check = |leaf: &EndEntityCert<'_>| match purpose {
            Purpose::Server => leaf
                .verify_for_usage(
                    algorithms,
                    &self.anchors,
                    intermediates,
                    at,
                    KeyUsage::server_auth(),
                    None,
                    None,
                )
                .map(|_| ()),
            Purpose::Client => leaf
                .verify_for_usage(
                    algorithms,
                    &self.anchors,
                    intermediates,
                    at,
                    KeyUsage::client_auth(),
                    None,
                    None,
                )
                .map(|_| ()),
            Purpose::Any => leaf
                .verify_for_usage(
                    algorithms,
                    &self.anchors,
                    intermediates,
                    at,
                    AnyPurpose,
                    None,
                    None,
                )
                .map(|_| ()),
        };
        EndEntityCert::try_from(leaf)
            .and_then(|leaf| check(&leaf))
            .map_err(|source| ChainError::Refused {
                subject: subject_of(leaf),
                why: explain(&source, purpose),
                source,
            })
    }
}

/// Roots cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadRootsError {
    /// The file or its text cannot be read.
    #[error("cannot load root certificates")]
    Load(#[from] LoadError),
    /// A certificate in it is no root.
    #[error("cannot trust what was loaded")]
    Root(#[from] ChainError),
}

/// Whom a component believes. Clones share the roots; they may be replaced while connections are made.
///
/// Certificates made from a bootstrap key are believed only for what they are: a holder of the bootstrap key can call
/// itself nothing but `bootstrap`, and no other root can give that type.
#[derive(Debug, Clone)]
pub struct Trust {
    roots: watch::Sender<Arc<Roots>>,
    bootstrap: watch::Sender<Arc<Roots>>,
}

impl Trust {
    /// Believes `roots`.
    pub fn new(roots: Roots) -> Self {
        Self {
            roots: watch::Sender::new(Arc::new(roots)),
            bootstrap: watch::Sender::default(),
        }
    }

    /// Also believes holders of a bootstrap key to be `bootstrap`; nothing stops that.
    pub fn set_bootstrap(&self, key: Option<&BootstrapKey>) {
        self.bootstrap
            .send_replace(Arc::new(key.map(BootstrapKey::roots).unwrap_or_default()));
    }

    /// Believes `roots` from now on.
    pub fn set_roots(&self, roots: Roots) {
        self.roots.send_replace(Arc::new(roots));
    }

    /// The present roots.
    pub fn roots(&self) -> Arc<Roots> {
        self.roots.borrow().clone()
    }

    /// Tells when the roots change.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Roots>> {
        self.roots.subscribe()
    }

    /// Verifies a peer's chain now and reads who it is; nothing if the certificate is another authority's and names
    /// nobody in our way.
    pub(crate) fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        at: UnixTime,
        purpose: Purpose,
    ) -> Result<Option<PeerIdentity>, ChainError> {
        let bootstrap = self.bootstrap.borrow().clone();
        let from_bootstrap =
            !bootstrap.is_empty() && bootstrap.verify(leaf, intermediates, at, purpose).is_ok();
        if !from_bootstrap {
            self.roots().verify(leaf, intermediates, at, purpose)?;
        }
        let identity = PeerIdentity::read(leaf).map_err(ChainError::Identity)?;
        match &identity {
            Some(peer) if (peer.kind == CertKind::Bootstrap) != from_bootstrap => {
                Err(ChainError::WrongIssuer {
                    subject: peer.common_name.clone(),
                    kind: peer.kind,
                })
            }
            None if from_bootstrap => Err(ChainError::Identity(IdentityError::NoKind {
                subject: subject_of(leaf),
            })),
            _ => Ok(identity),
        }
    }

    /// Verifies a client's chain (leaf first) at this moment and says who it is.
    pub fn identify(&self, chain: &[CertificateDer<'_>]) -> Result<PeerIdentity, ChainError> {
        let (leaf, intermediates) = chain.split_first().ok_or_else(|| ChainError::NoRoots {
            subject: "(no certificate)".into(),
        })?;
        let at = unix_time(SystemClock.now());
        self.verify(leaf, intermediates, at, Purpose::Client)?
            .ok_or_else(|| {
                ChainError::Identity(IdentityError::NoKind {
                    subject: subject_of(leaf),
                })
            })
    }

    /// Takes the certificate with this fingerprint from a peer's chain as the only root, if no root is known yet.
    pub(crate) fn adopt(&self, pin: &Fingerprint, intermediates: &[CertificateDer<'_>]) {
        let found = intermediates
            .iter()
            .find(|one| Fingerprint::of(one) == *pin)
            .and_then(|root| Roots::from_ders([root.clone().into_owned()]).ok());
        if let Some(roots) = found {
            self.roots.send_if_modified(|present| {
                let adopt = present.is_empty();
                if adopt {
                    *present = Arc::new(roots);
                }
                adopt
            });
        }
    }
}

pub(crate) fn unix_time(time: Timestamp) -> UnixTime {
    UnixTime::since_unix_epoch(std::time::Duration::from_secs(
        u64::try_from(time.as_secs()).unwrap_or(0),
    ))
}

pub(crate) fn subject_of(certificate: &[u8]) -> String {
    X509Certificate::from_der(certificate).map_or_else(
        |_| "(unreadable)".into(),
        |(_, parsed)| crate::identity::common_name(&parsed),
    )
}

fn explain(error: &webpki::Error, purpose: Purpose) -> String {
    use webpki::Error as E;
    match error {
        E::CertExpired { time, not_after } => format!(
            "it expired at {}, the clock says {}",
            at(*not_after),
            at(*time)
        ),
        E::CertNotValidYet { time, not_before } => format!(
            "it is valid from {}, the clock says {}; check the clock",
            at(*not_before),
            at(*time)
        ),
        E::UnknownIssuer => "it was issued by another authority than the trusted ones".into(),
        E::RequiredEkuNotFoundContext(_) => match purpose {
            Purpose::Server => "it may not be used by a server".into(),
            _ => "it may not be used by a client".into(),
        },
        E::InvalidSignatureForPublicKey => {
            "it names a trusted authority but was not signed by it".into()
        }
        E::CaUsedAsEndEntity => "it is an authority's certificate, not a peer's".into(),
        other => format!("{other:?}"),
    }
}

fn at(time: UnixTime) -> Timestamp {
    Timestamp::from_secs(i64::try_from(time.as_secs()).unwrap_or(i64::MAX))
}
