use std::time::Duration;

use aos_ipc::proto::iamanager::v6::{
    CertInfo, GetCertRequest, SubscribeCertChangedRequest,
    iam_public_cert_service_client::IamPublicCertServiceClient,
};
use aos_pki::{
    CertKind, CertSource, ClientTls, Expect, Roots, Trust, load_certified_key, unit_client,
};
use tokio_util::sync::CancellationToken;

/// How long one call to IAM may take.
const CALL: Duration = Duration::from_secs(10);
/// The pause between attempts to reach IAM.
const PAUSE: Duration = Duration::from_secs(2);

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
        tokio::join!(
            self.keep_one(CertKind::Cm, &self.cm, &stop),
            self.keep_one(CertKind::Online, &self.online, &stop),
        );
    }

    async fn keep_one(&self, kind: CertKind, source: &CertSource, stop: &CancellationToken) {
        let mut told = String::new();
        loop {
            // Dropping the call in the middle leaves nothing behind.
            let why = tokio::select! {
                why = self.follow(kind, source) => why,
                () = stop.cancelled() => return,
            };
            if told != why {
                tracing::info!(kind = kind.as_str(), why, "waiting for IAM's certificate");
                told = why;
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Follows one certificate until the stream ends. Gives the reason.
    async fn follow(&self, kind: CertKind, source: &CertSource) -> String {
        let channel = match aos_ipc::connect(&self.iam_public, &self.iam_tls()).await {
            Ok(channel) => channel,
            Err(error) => return error.to_string(),
        };
        let mut client = IamPublicCertServiceClient::new(channel);
        let subscribe = SubscribeCertChangedRequest {
            r#type: kind.as_str().into(),
        };
        // Subscribed before asking: a change in between is not missed.
        let mut changes = match client.subscribe_cert_changed(subscribe).await {
            Ok(answer) => answer.into_inner(),
            Err(status) => return aos_ipc::reason(&status),
        };
        let ask = GetCertRequest {
            r#type: kind.as_str().into(),
            ..GetCertRequest::default()
        };
        match client.get_cert(aos_ipc::within(CALL, ask)).await {
            Ok(answer) => take_over(kind, source, &answer.into_inner()),
            // There is none yet: the subscription tells when it comes.
            Err(status) => tracing::info!(
                kind = kind.as_str(),
                why = aos_ipc::reason(&status),
                "there is no certificate yet"
            ),
        }
        loop {
            match changes.message().await {
                Ok(Some(info)) => take_over(kind, source, &info),
                Ok(None) => return "IAM ended the subscription".into(),
                Err(status) => return aos_ipc::reason(&status),
            }
        }
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

fn take_over(kind: CertKind, source: &CertSource, info: &CertInfo) {
    match load_certified_key(&info.cert_url, &info.key_url) {
        Ok(key) => {
            tracing::info!(kind = kind.as_str(), "certificate taken over");
            source.set(Some(key));
        }
        Err(error) => {
            tracing::warn!(kind = kind.as_str(), error = %error, "IAM's certificate cannot be used");
        }
    }
}
