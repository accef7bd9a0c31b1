use std::{sync::Arc, time::Duration};

use aos_cloud_protocol::{DiscoveryRequest, DiscoveryResponse, PROTOCOL_VERSION, Secret};
use aos_pki::PeerIdentity;
use axum::{Extension, body::Bytes, extract::State, response::IntoResponse};
use http::{HeaderMap, header};

use crate::{
    caller::{Refusal, caller, claims_another},
    gateway::Shared,
};

/// How long a bearer token opens the link. A Unit that comes later is told 401 and asks for a new one.
const TOKEN_LIFE: Duration = Duration::from_secs(24 * 3600);

/// The host and port a Unit reached us by, which its TLS has checked against our certificate. URLs we give it use the same.
pub(crate) fn authority(headers: &HeaderMap, uri: &http::Uri) -> Result<String, Refusal> {
    let from_uri = uri.authority().map(http::uri::Authority::as_str);
    let host = headers
        .get(header::HOST)
        .and_then(|value| value.to_str().ok())
        .or(from_uri)
        .unwrap_or_default();
    let parsed: Result<http::uri::Authority, _> = host.parse();
    match parsed {
        Ok(authority) if !host.contains('@') => Ok(authority.to_string()),
        _ => Err(Refusal::Bad("it has no usable Host header".into())),
    }
}

/// `POST /sd/v7/`: where to connect, and the token that opens it.
pub(crate) async fn discover(
    State(shared): State<Arc<Shared>>,
    peer: Option<Extension<PeerIdentity>>,
    uri: http::Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Result<impl IntoResponse, Refusal> {
    let caller = caller(&shared, peer.map(|Extension(peer)| peer)).await?;
    let request =
        DiscoveryRequest::decode(&body).map_err(|error| Refusal::Bad(error.to_string()))?;
    if request.system_id != caller.system_id {
        return Err(claims_another(&shared, &caller, request.system_id.as_str()).await);
    }
    if request.version != PROTOCOL_VERSION {
        return Err(Refusal::Bad(format!(
            "it asks for protocol version {}, this cloud speaks {PROTOCOL_VERSION}",
            request.version
        )));
    }
    let url = format!("wss://{}/ws/v7/", authority(&headers, &uri)?);
    let expires = shared.options.db.now() + TOKEN_LIFE;
    let token = shared.options.tokens.link(caller.unit.id, expires);
    let answer = DiscoveryResponse::connect(&caller.system_id, vec![url], Secret::new(token));
    Ok((
        [(header::CONTENT_TYPE, "application/json")],
        answer.encode(),
    ))
}
