//! Who calls: a Unit is what its certificate says, if that is one we issued and did not take back.

use aos_api::{Severity, TimelineKind};
use aos_db::{Happening, LinkWrite, LinkedUnit};
use aos_pki::{CertKind, PeerIdentity};
use aos_types::SystemId;
use axum::response::{IntoResponse, Response};
use http::StatusCode;

use crate::gateway::Shared;

/// A Unit that showed a good certificate.
pub(crate) struct Caller {
    pub(crate) unit: LinkedUnit,
    pub(crate) system_id: SystemId,
    /// SHA-256 of the certificate it showed, in hex.
    pub(crate) certificate: String,
}

/// Why a caller is turned away. The text goes to the caller.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("a client certificate of type `online` is needed here; enrol the Unit first")]
    NoCertificate,
    #[error("the certificate is of type `{0}`, a Unit needs one of type `online` here")]
    WrongType(CertKind),
    #[error(
        "no Unit of this cloud has this certificate; it was removed or enrolled again: enrol it anew"
    )]
    Unknown,
    #[error("the certificate is of Unit `{own}`, but the message claims to be of Unit `{claimed}`")]
    ClaimsAnother { own: SystemId, claimed: String },
    #[error("the message cannot be used: {0}")]
    Bad(String),
    #[error("the token is missing, wrong or expired; ask service discovery for a new one")]
    Token,
    #[error("there is no such blob, or the address has expired; ask for a new one")]
    NoBlob,
    #[error("something failed in the cloud; try again later")]
    Internal,
}

impl Refusal {
    const fn status(&self) -> StatusCode {
        match self {
            Self::NoCertificate | Self::Token => StatusCode::UNAUTHORIZED,
            Self::WrongType(_) | Self::Unknown | Self::ClaimsAnother { .. } => {
                StatusCode::FORBIDDEN
            }
            Self::Bad(_) => StatusCode::BAD_REQUEST,
            Self::NoBlob => StatusCode::NOT_FOUND,

            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status(), format!("{self}\n")).into_response()
    }
}

/// Logs why and tells the caller nothing of it.
pub(crate) fn internal(error: impl std::error::Error) -> Refusal {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    tracing::error!(error = text, "the gateway failed");
    Refusal::Internal
}

/// The Unit behind a connection.
pub(crate) async fn caller(shared: &Shared, peer: Option<PeerIdentity>) -> Result<Caller, Refusal> {
    let peer = peer.ok_or(Refusal::NoCertificate)?;
    if peer.kind != CertKind::Online {
        return Err(Refusal::WrongType(peer.kind));
    }
    let system_id = peer.system_id.ok_or(Refusal::Unknown)?;
    let certificate = peer.fingerprint.to_string();
    let unit = shared
        .options
        .db
        .unit_of_certificate(system_id.as_str(), &certificate)
        .await
        .map_err(internal)?
        .ok_or(Refusal::Unknown)?;
    Ok(Caller {
        unit,
        system_id,
        certificate,
    })
}

/// Turns a caller away who says it is another Unit, and notes it where people see it: at the Unit that did it.
pub(crate) async fn claims_another(shared: &Shared, caller: &Caller, claimed: &str) -> Refusal {
    let claimed: String = claimed.chars().take(64).collect();
    shared.counts.add("refused");
    tracing::warn!(unit = %caller.system_id, claimed, "a Unit claims to be another");
    let event = Happening::new(
        TimelineKind::Protocol,
        Severity::Error,
        format!(
            "refused: the Unit claimed to be Unit `{claimed}`, its certificate says `{}`",
            caller.system_id
        ),
    );
    let noted = shared
        .options
        .db
        .note(caller.unit.id, &[event], &LinkWrite::default())
        .await;
    if let Err(error) = noted {
        internal(error);
    }
    Refusal::ClaimsAnother {
        own: caller.system_id.clone(),
        claimed,
    }
}
