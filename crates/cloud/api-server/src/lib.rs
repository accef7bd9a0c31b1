//! The people's side of AosCloud: REST `/api/v11`, its OpenAPI document and Swagger UI, server-sent events, and the web UI
//! that is embedded in the binary.
//!
//! **Closed from day one.** Everything below `/api/` needs a session cookie or a client certificate of kind `user`, the
//! OpenAPI document and Swagger UI included. Open are only the UI's static files and the three posts that take a
//! credential: sign-in, owner set-up (one-time token) and enrolment (claim code). A test walks the OpenAPI document and
//! gets 401 from every operation.
//!
//! [`router`] makes the axum router. The listener that serves it puts into the extensions of each request an
//! `aos_pki::PeerIdentity` if the connection showed a verified client certificate, and an
//! `axum::extract::ConnectInfo<SocketAddr>`.
//!
//! ```text
//! request ─► security headers ─► /api/… ─► who is it? (401, CSRF 403) ─► handler ─► aos_db (tenancy) ─► answer
//!                              └► anything else: a file of the UI, or its index.html
//! ```
//!
//! First start: [`ensure_owner_link`] writes a file of mode 0600 with a link that works once.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests may fail loudly"
    )
)]

mod bundle_intake;
mod caller;
mod error;
mod extract;
mod first_start;
mod headers;
mod limiter;
mod log_lines;
mod openapi;
mod orphans;
mod password;
mod placement;
mod router;
mod routes;
mod secret;
mod state;
mod ui;
mod usage;
mod why;

pub use caller::{Caller, Credential};
pub use error::ApiError;
pub use first_start::{OwnerLinkError, ensure_owner_link};
pub use openapi::{openapi, openapi_json};
pub use orphans::collect_orphans;
pub use router::router;
pub use state::{ApiOptions, ApiState};
