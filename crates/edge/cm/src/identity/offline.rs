//! The key of the `offline` certificate: what content may be encrypted for.

use aos_cloud_protocol::KeyReceiver;
use aos_ipc::proto::iamanager::v6::{
    CertInfo, GetCertRequest, iam_public_cert_service_client::IamPublicCertServiceClient,
};
use aos_pki::{CertKind, KeyWrap, load_unwrapper};
use aos_types::{AosCode, ErrorInfo};
use async_trait::async_trait;
use zeroize::Zeroizing;

use super::{IamClient, iam::CALL};
use crate::contract::ContentKeys;

impl IamClient {
    async fn offline(&self, receiver: Option<&KeyReceiver>) -> Result<CertInfo, String> {
        let channel = self.channel(&self.public).await?;
        let receiver = receiver.cloned().unwrap_or_default();
        let ask = GetCertRequest {
            r#type: CertKind::Offline.as_str().into(),
            serial: receiver.serial,
            issuer: receiver.issuer,
        };
        IamPublicCertServiceClient::new(channel)
            .get_cert(aos_ipc::within(CALL, ask))
            .await
            .map(tonic::Response::into_inner)
            .map_err(|status| aos_ipc::reason(&status))
    }
}

#[async_trait]
impl ContentKeys for IamClient {
    async fn unwrap_key(
        &self,
        wrap: KeyWrap,
        wrapped: &[u8],
        receiver: Option<&KeyReceiver>,
    ) -> Result<Zeroizing<Vec<u8>>, ErrorInfo> {
        let failed = |why: String| {
            let why = format!("the Unit's offline key cannot be used: {why}");
            ErrorInfo::new(AosCode::Failed, why)
        };
        let found = self.offline(receiver).await.map_err(failed)?;
        let wrapped = wrapped.to_vec();
        // Reading the key, or asking a token, blocks.
        tokio::task::spawn_blocking(move || {
            let key = load_unwrapper(&found.key_url)
                .map_err(|error| ErrorInfo::from_error(AosCode::Failed, &error))?;
            key.unwrap_key(wrap, &wrapped)
                .map_err(|error| ErrorInfo::from_error(AosCode::InvalidArgument, &error))
        })
        .await
        .map_err(|error| failed(error.to_string()))?
    }
}
