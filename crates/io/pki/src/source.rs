use std::sync::Arc;

use rustls::{
    SignatureScheme,
    client::ResolvesClientCert,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::sync::watch;

use crate::{BOOTSTRAP_SERVER_NAME, PeerIdentity};

/// The certificate a component presents. Clones share it; it may be replaced at any time and the next connection uses the
/// new one.
#[derive(Debug, Clone, Default)]
pub struct CertSource {
    current: watch::Sender<Option<Arc<CertifiedKey>>>,
    bootstrap: watch::Sender<Option<Arc<CertifiedKey>>>,
}

impl CertSource {
    /// Presents nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Presents `key`.
    pub fn with(key: Arc<CertifiedKey>) -> Self {
        let source = Self::new();
        source.set(Some(key));
        source
    }

    /// Replaces what is presented.
    pub fn set(&self, key: Option<Arc<CertifiedKey>>) {
        self.current.send_replace(key);
    }

    /// What a server presents to a client that asks for [`BOOTSTRAP_SERVER_NAME`], and to all as long as there is nothing
    /// else.
    pub fn set_bootstrap(&self, key: Option<Arc<CertifiedKey>>) {
        self.bootstrap.send_replace(key);
    }

    /// What is presented now.
    pub fn current(&self) -> Option<Arc<CertifiedKey>> {
        self.current.borrow().clone()
    }

    /// Tells when it is replaced.
    pub fn subscribe(&self) -> watch::Receiver<Option<Arc<CertifiedKey>>> {
        self.current.subscribe()
    }

    /// Who the presented certificate says we are.
    pub fn identity(&self) -> Option<PeerIdentity> {
        let key = self.current()?;
        PeerIdentity::from_der(key.cert.first()?).ok()
    }

    fn bootstrap(&self) -> Option<Arc<CertifiedKey>> {
        self.bootstrap.borrow().clone()
    }
}

impl ResolvesServerCert for CertSource {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if hello.server_name() == Some(BOOTSTRAP_SERVER_NAME) {
            self.bootstrap().or_else(|| self.current())
        } else {
            self.current().or_else(|| self.bootstrap())
        }
    }
}

impl ResolvesClientCert for CertSource {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.current()
    }

    fn has_certs(&self) -> bool {
        true
    }
}
