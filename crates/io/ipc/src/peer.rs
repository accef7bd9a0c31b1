use std::net::SocketAddr;

use aos_pki::{Expect, PeerIdentity};
use tonic::{Request, Status};

/// Who sent a request. It is in the extensions of each request that came through [`serve`](crate::serve).
#[derive(Debug, Clone)]
pub struct Peer {
    /// Who it is by its certificate; nothing on a port that asks for none.
    pub identity: Option<PeerIdentity>,
    /// From where.
    pub address: Option<SocketAddr>,
}

/// The peer's identity, or `UNAUTHENTICATED`.
pub fn peer<T>(request: &Request<T>) -> Result<&PeerIdentity, Status> {
    request
        .extensions()
        .get::<Peer>()
        .and_then(|peer| peer.identity.as_ref())
        .ok_or_else(|| Status::unauthenticated("a client certificate is needed for this call"))
}

/// Lets the request pass if its peer is who `expect` says, or answers `PERMISSION_DENIED` with the reason.
pub fn allow<T>(request: &Request<T>, expect: &Expect) -> Result<PeerIdentity, Status> {
    let identity = peer(request)?;
    expect
        .check(identity, None)
        .map_err(|refused| Status::permission_denied(refused.to_string()))?;
    Ok(identity.clone())
}
