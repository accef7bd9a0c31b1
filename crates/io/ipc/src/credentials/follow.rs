use std::{sync::Arc, time::Duration};

use aos_pki::{CertKind, CertSource, ClientTls, load_certified_key};
use rustls::sign::CertifiedKey;
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
            if offer(source, key) {
                tracing::info!(kind = kind.as_str(), "certificate taken over");
            }
        }
        Err(error) => {
            tracing::warn!(kind = kind.as_str(), error = %error, "IAM's certificate cannot be used");
        }
    }
}

/// Presents `key` from now on. `false` if that is what is presented already: an IAM that was started again tells the same
/// once more, and whoever follows `source` would connect anew for nothing.
fn offer(source: &CertSource, key: Arc<CertifiedKey>) -> bool {
    if source.current().is_some_and(|have| have.cert == key.cert) {
        return false;
    }
    source.set(Some(key));
    true
}

#[cfg(test)]
mod tests {
    use aos_pki::{
        Authority, CertProfile, KeyAlgorithm, certificates_from_pem, certified_key,
        install_provider,
    };
    use aos_time::{Clock, SystemClock};

    use super::*;

    #[test]
    fn the_same_certificate_again_is_no_news() {
        install_provider();
        let authority = Authority::in_memory("test", SystemClock.now()).unwrap();
        let profile = CertProfile::server(vec!["localhost".into()]);
        let issue = || {
            authority
                .issue_pair(KeyAlgorithm::EcP256, &profile, SystemClock.now())
                .unwrap()
        };
        let (first, second) = (issue(), issue());
        // Loaded anew each time, as after a message of IAM.
        let load = |pair: &aos_pki::IssuedPair| {
            let chain = certificates_from_pem(pair.issued.chain_pem.as_bytes()).unwrap();
            certified_key(chain, &pair.key).unwrap()
        };
        let source = CertSource::new();
        let mut changes = source.subscribe();
        assert!(offer(&source, load(&first)));
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        assert!(!offer(&source, load(&first)));
        assert!(!changes.has_changed().unwrap());
        assert!(offer(&source, load(&second)));
        assert!(changes.has_changed().unwrap());
    }
}
