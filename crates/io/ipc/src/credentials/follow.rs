use std::time::Duration;

use aos_pki::{CertKind, CertSource, ClientTls, load_certified_key};
use tokio_util::sync::CancellationToken;

use crate::proto::iamanager::v6::{
    CertInfo, GetCertRequest, SubscribeCertChangedRequest,
    iam_public_cert_service_client::IamPublicCertServiceClient,
};

/// How long one call to IAM may take.
const CALL: Duration = Duration::from_secs(10);
/// The pause between attempts to reach IAM.
const PAUSE: Duration = Duration::from_secs(2);

/// Gets the certificate of one kind from the IAM at `iam_public`, waits for it if it is not there yet, and takes over each
/// new one into `source`, until `stop`.
pub async fn keep_certificate(
    kind: CertKind,
    source: &CertSource,
    iam_public: &str,
    iam_tls: &ClientTls,
    stop: &CancellationToken,
) {
    let mut told = String::new();
    loop {
        // Dropping the call in the middle leaves nothing behind.
        let why = tokio::select! {
            why = follow(kind, source, iam_public, iam_tls) => why,
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
async fn follow(
    kind: CertKind,
    source: &CertSource,
    iam_public: &str,
    iam_tls: &ClientTls,
) -> String {
    let channel = match crate::connect(iam_public, iam_tls).await {
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
        Err(status) => return crate::reason(&status),
    };
    let ask = GetCertRequest {
        r#type: kind.as_str().into(),
        ..GetCertRequest::default()
    };
    match client.get_cert(crate::within(CALL, ask)).await {
        Ok(answer) => take_over(kind, source, &answer.into_inner()),
        // There is none yet: the subscription tells when it comes.
        Err(status) => tracing::info!(
            kind = kind.as_str(),
            why = crate::reason(&status),
            "there is no certificate yet"
        ),
    }
    loop {
        match changes.message().await {
            Ok(Some(info)) => take_over(kind, source, &info),
            Ok(None) => return "IAM ended the subscription".into(),
            Err(status) => return crate::reason(&status),
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
