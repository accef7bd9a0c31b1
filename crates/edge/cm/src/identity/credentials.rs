use aos_pki::{CertKind, CertSource, ClientTls, Expect, Roots, Trust, unit_client};
use tokio_util::sync::CancellationToken;

/// What CM shows to others and whom it believes. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Credentials {
    /// Towards the Nodes.
    pub(crate) cm: CertSource,
    /// Towards the cloud.
    pub(crate) online: CertSource,
    /// The Unit's root.
    pub(crate) trust: Trust,
    iam_public: String,
}

impl Credentials {
    pub(crate) fn new(roots: Roots, iam_public: String) -> Self {
        Self {
            cm: CertSource::new(),
            online: CertSource::new(),
            trust: Trust::new(roots),
            iam_public,
        }
    }

    /// How to talk to IAM. Its public port asks for no certificate; the protected one wants ours.
    pub(crate) fn iam_tls(&self) -> ClientTls {
        let expect = Expect::kinds([CertKind::Iam]).same_unit();
        unit_client(&self.cm, &self.trust, expect)
    }

    /// Gets both certificates from IAM, waits for those that are not there yet, and takes over new ones, until `stop`.
    pub(crate) async fn keep(&self, stop: CancellationToken) {
        let tls = self.iam_tls();
        let keep =
            |kind, source| aos_ipc::keep_certificate(kind, source, &self.iam_public, &tls, &stop);
        tokio::join!(
            keep(CertKind::Cm, &self.cm),
            keep(CertKind::Online, &self.online),
        );
    }

    /// Waits until there is a certificate for the Nodes. `false` if `stop` comes first.
    pub(crate) async fn ready(&self, stop: &CancellationToken) -> bool {
        let mut changes = self.cm.subscribe();
        tokio::select! {
            there = changes.wait_for(Option::is_some) => there.is_ok(),
            () = stop.cancelled() => false,
        }
    }
}
