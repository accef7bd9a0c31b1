use std::sync::Arc;

use aos_pki::PeerIdentity;
use axum::{
    Extension,
    extract::{State, ws::WebSocketUpgrade},
    response::Response,
};
use http::{HeaderMap, header};

use crate::{
    caller::{Refusal, caller},
    discovery::authority,
    gateway::Shared,
    link::Attached,
};

/// What a connection buffers while reading. The default of the library is 128 KiB for each, allocated at once.
const READ_BUFFER: usize = 4096;

/// `GET /ws/v7/`: the link of a Unit.
pub(crate) async fn upgrade(
    State(shared): State<Arc<Shared>>,
    peer: Option<Extension<PeerIdentity>>,
    uri: http::Uri,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Result<Response, Refusal> {
    let caller = caller(&shared, peer.map(|Extension(peer)| peer)).await?;
    let token = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim())
        .ok_or(Refusal::Token)?;
    if shared
        .options
        .tokens
        .open_link(token, shared.options.db.now())
        != Some(caller.unit.id)
    {
        return Err(Refusal::Token);
    }
    let authority = authority(&headers, &uri)?;
    let longest = shared.options.caps.frame_bytes();
    Ok(upgrade
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_message_size(longest)
        .max_frame_size(longest)
        .on_upgrade(move |socket| async move {
            let attached = Attached {
                socket,
                system_id: caller.system_id,
                authority,
                certificate: caller.certificate,
            };
            if !shared.attach(caller.unit, attached) {
                tracing::warn!(
                    "a link was dropped: too many at once for one Unit, or the cloud is stopping"
                );
            }
        }))
}
