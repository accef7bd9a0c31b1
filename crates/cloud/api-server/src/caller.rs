use std::net::{IpAddr, SocketAddr};

use aos_api::paths::{CSRF_HEADER, SESSION_COOKIE};
use aos_db::{Actor, User, hash_secret};
use aos_pki::{CertKind, PeerIdentity};
use axum::{
    extract::{ConnectInfo, FromRequestParts, Request, State},
    middleware::Next,
    response::Response,
};
use http::{HeaderMap, Method, StatusCode, header, request::Parts};

use crate::{ApiError, ApiState};

/// Who asks, once that is known.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The user.
    pub user: User,
    /// How it was shown.
    pub credential: Credential,
}

/// How a caller showed who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// A session, by the hash of its token.
    Session(String),
    /// A client certificate, by its fingerprint in hex.
    Certificate(String),
}

impl Caller {
    /// The caller as the one who does something.
    pub fn actor(&self) -> Actor {
        self.user.actor()
    }

    /// Whether the credential is still good; asked again during long answers.
    pub(crate) async fn is_still_good(&self, state: &ApiState) -> bool {
        let user = match &self.credential {
            Credential::Session(hash) => state.db().user_of_session(hash).await,
            Credential::Certificate(fingerprint) => {
                state.db().user_of_certificate(fingerprint).await
            }
        };
        matches!(user, Ok(Some(user)) if user.id == self.user.id)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parts
            .extensions
            .get::<Self>()
            .cloned()
            .ok_or_else(no_credential)
    }
}

/// Lets only known callers through, and writes by cookie only from our own pages.
pub(crate) async fn known_callers_only(
    State(state): State<ApiState>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let peer = request.extensions().get::<PeerIdentity>().cloned();
    let token = session_token(request.headers()).map(str::to_owned);
    let caller = find(&state, peer.as_ref(), token.as_deref()).await?;
    if matches!(caller.credential, Credential::Session(_)) {
        own_pages_only(&request)?;
    }
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

async fn find(
    state: &ApiState,
    peer: Option<&PeerIdentity>,
    token: Option<&str>,
) -> Result<Caller, ApiError> {
    if let Some(peer) = peer.filter(|peer| peer.kind == CertKind::User) {
        let fingerprint = peer.fingerprint.to_string();
        if let Some(user) = state.db().user_of_certificate(&fingerprint).await? {
            return Ok(Caller {
                user,
                credential: Credential::Certificate(fingerprint),
            });
        }
    }
    if let Some(token) = token {
        let hash = hash_secret(token);
        if let Some(user) = state.db().user_of_session(&hash).await? {
            return Ok(Caller {
                user,
                credential: Credential::Session(hash),
            });
        }
    }
    Err(match peer {
        Some(peer) if peer.kind != CertKind::User => ApiError::unauthorised(format!(
            "a certificate of kind `{}` cannot use the API",
            peer.kind
        ))
        .hint("use a user certificate, or sign in"),
        _ => no_credential(),
    })
}

fn no_credential() -> ApiError {
    ApiError::unauthorised("not signed in").hint(
        "sign in with POST /api/v11/sign-in/, or use a client certificate of kind `user` (`aos login`)",
    )
}

/// The token of the session cookie.
pub(crate) fn session_token(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == SESSION_COOKIE)
        .map(|(_, token)| token)
        .filter(|token| !token.is_empty() && token.len() <= 128)
}

/// Against cross-site request forgery, beside `SameSite=Strict`: a write must carry a header that foreign pages cannot
/// add, and its origin, if it is told, must be ours.
fn own_pages_only(request: &Request) -> Result<(), ApiError> {
    if matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS
    ) {
        return Ok(());
    }
    let headers = request.headers();
    let refuse = |message: &str| {
        ApiError::new(StatusCode::FORBIDDEN, message.to_owned()).hint(format!(
            "send the header `{CSRF_HEADER}` from a page of this cloud"
        ))
    };
    if !headers.contains_key(CSRF_HEADER) {
        return Err(refuse(
            "a write by session cookie needs a header that only our own pages send",
        ));
    }
    if let Some(origin) = headers.get(header::ORIGIN) {
        let origin = origin.to_str().unwrap_or_default();
        // HTTP/2 says the host in the address, HTTP/1.1 in a header.
        let host = request
            .uri()
            .authority()
            .map(|authority| authority.as_str())
            .or_else(|| headers.get(header::HOST)?.to_str().ok())
            .unwrap_or_default();
        let ours = origin
            .split_once("://")
            .is_some_and(|(_, from)| !host.is_empty() && from.eq_ignore_ascii_case(host));
        if !ours {
            return Err(refuse("the request comes from a page of another origin"));
        }
    }
    Ok(())
}

/// Where a request comes from, for limits.
pub(crate) struct FromAddress(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for FromAddress {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self(
            parts
                .extensions
                .get::<ConnectInfo<SocketAddr>>()
                .map_or_else(|| "unknown".into(), |ConnectInfo(at)| holder_of(at.ip())),
        ))
    }
}

/// What one holder of addresses is counted by: an IPv4 address, or the first half of an IPv6 address, whose second half
/// everybody may choose.
fn holder_of(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_holder_count_as_one() {
        let of = |text: &str| holder_of(text.parse().unwrap());
        assert_eq!(of("192.0.2.7"), "192.0.2.7");
        assert_eq!(of("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), of("2001:db8:1:2::9"));
        assert_ne!(of("2001:db8:1:2::9"), of("2001:db8:1:3::9"));
    }
}
