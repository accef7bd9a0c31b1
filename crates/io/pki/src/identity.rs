use std::str::FromStr;

use aos_types::{InvalidId, NodeId, SystemId};
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
};

use crate::{CertKind, CertProfile, Fingerprint, UnknownKind, der};

/// A verified certificate does not say who its holder is, or says it twice.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// It is not an X.509 certificate.
    #[error("the certificate cannot be read ({why})")]
    NotACertificate {
        /// What the parser said.
        why: String,
    },
    /// It has no certificate type.
    #[error(
        "the certificate of `{subject}` does not say its type (alternative name `urn:aos:cert:…`)"
    )]
    NoKind {
        /// Its subject.
        subject: String,
    },
    /// A name stands in it twice.
    #[error("the certificate of `{subject}` has more than one `urn:aos:{field}:…`")]
    Twice {
        /// Its subject.
        subject: String,
        /// Which name.
        field: &'static str,
    },
    /// Its type is not known.
    #[error("the certificate's type is not usable")]
    Kind(#[source] UnknownKind),
    /// An id in it is not valid.
    #[error("an id in the certificate is not usable")]
    Id(#[source] InvalidId),
    /// A name in it is encoded wrongly.
    #[error("the name `{urn}` in the certificate is encoded wrongly")]
    Encoding {
        /// The name.
        urn: String,
    },
}

/// Who is at the other end, as told by a certificate whose chain was verified (`docs/protocol/trust.md`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    /// What the certificate is for.
    pub kind: CertKind,
    /// The Unit, if it is one of a Unit.
    pub system_id: Option<SystemId>,
    /// The Node, if it is one of a Node.
    pub node_id: Option<NodeId>,
    /// The user's id in the cloud, if it is a person's.
    pub user_id: Option<String>,
    /// The cloud's host, if it is a person's.
    pub domain: Option<String>,
    /// Subject common name; for showing, not for deciding.
    pub common_name: String,
    /// Serial number in lower-case hex.
    pub serial: String,
    /// SHA-256 of the certificate.
    pub fingerprint: Fingerprint,
}

impl PeerIdentity {
    /// Reads a certificate (DER). It must have been verified: this only reads.
    pub fn from_der(certificate: &[u8]) -> Result<Self, IdentityError> {
        Self::read(certificate)?.ok_or_else(|| IdentityError::NoKind {
            subject: subject(certificate),
        })
    }

    /// Like [`PeerIdentity::from_der`], but nothing if the certificate has no name of ours at all: another authority's.
    pub fn read(certificate: &[u8]) -> Result<Option<Self>, IdentityError> {
        let (_, parsed) =
            X509Certificate::from_der(certificate).map_err(|error| not_readable(&error))?;
        let names = parsed
            .subject_alternative_name()
            .map_err(|error| IdentityError::NotACertificate {
                why: error.to_string(),
            })?
            .map(|san| san.value.general_names.as_slice())
            .unwrap_or_default();
        let mut found = Names::default();
        for name in names {
            if let GeneralName::URI(uri) = name
                && let Some(rest) = uri.strip_prefix("urn:aos:")
            {
                found.take(rest, uri, &parsed)?;
            }
        }
        if found.is_empty() {
            return Ok(None);
        }
        let common_name = common_name(&parsed);
        let kind = found.kind.ok_or(IdentityError::NoKind {
            subject: common_name.clone(),
        })?;
        Ok(Some(Self {
            kind: CertKind::from_str(&kind).map_err(IdentityError::Kind)?,
            system_id: found
                .unit
                .map(SystemId::new)
                .transpose()
                .map_err(IdentityError::Id)?,
            node_id: found
                .node
                .map(NodeId::new)
                .transpose()
                .map_err(IdentityError::Id)?,
            user_id: found.user,
            domain: found.domain,
            common_name,
            serial: serial(&parsed),
            fingerprint: Fingerprint::of(certificate),
        }))
    }
}

impl std::fmt::Display for PeerIdentity {
    /// `sm of node n1 of unit u1`, for messages.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.kind)?;
        if let Some(node) = &self.node_id {
            write!(f, " of node {node}")?;
        }
        if let Some(unit) = &self.system_id {
            write!(f, " of unit {unit}")?;
        }
        if let Some(user) = &self.user_id {
            write!(f, " {user}")?;
        }
        Ok(())
    }
}

#[derive(Default)]
struct Names {
    kind: Option<String>,
    unit: Option<String>,
    node: Option<String>,
    user: Option<String>,
    domain: Option<String>,
}

impl Names {
    fn take(
        &mut self,
        rest: &str,
        urn: &str,
        certificate: &X509Certificate<'_>,
    ) -> Result<(), IdentityError> {
        let Some((field, value)) = rest.split_once(':') else {
            return Ok(());
        };
        let (place, field) = match field {
            "cert" => (&mut self.kind, "cert"),
            "unit" => (&mut self.unit, "unit"),
            "node" => (&mut self.node, "node"),
            "user" => (&mut self.user, "user"),
            "domain" => (&mut self.domain, "domain"),
            _ => return Ok(()),
        };
        let value = der::percent_decode(value)
            .filter(|value| !value.is_empty() && value.len() <= 255)
            .ok_or_else(|| IdentityError::Encoding {
                urn: urn.chars().take(80).collect(),
            })?;
        if place.replace(value).is_some() {
            return Err(IdentityError::Twice {
                subject: common_name(certificate),
                field,
            });
        }
        Ok(())
    }

    /// Whether nothing but a domain is named: people's certificates of other clouds carry that too.
    fn is_empty(&self) -> bool {
        self.kind.is_none() && self.unit.is_none() && self.node.is_none() && self.user.is_none()
    }
}

/// The names a certificate of this profile carries.
pub(crate) fn urns(profile: &CertProfile) -> Vec<String> {
    let urn = |field: &str, value: &str| {
        format!("urn:aos:{field}:{}", der::percent_encode(value, |_| false))
    };
    let mut urns = vec![urn("cert", profile.kind.as_str())];
    urns.extend(
        profile
            .system_id
            .iter()
            .map(|id| urn("unit", id.as_str()))
            .chain(profile.node_id.iter().map(|id| urn("node", id.as_str())))
            .chain(profile.user_id.iter().map(|id| urn("user", id)))
            .chain(profile.domain.iter().map(|host| urn("domain", host))),
    );
    urns
}

/// Serial number in lower-case hex without leading zero bytes.
pub(crate) fn serial(certificate: &X509Certificate<'_>) -> String {
    let bytes = certificate.raw_serial();
    let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(0);
    hex::encode(bytes.get(start..).unwrap_or_default())
}

pub(crate) fn common_name(certificate: &X509Certificate<'_>) -> String {
    certificate
        .subject()
        .iter_common_name()
        .next()
        .and_then(|name| name.as_str().ok())
        .map_or_else(
            || certificate.subject().to_string(),
            |name| name.chars().take(128).collect(),
        )
}

fn subject(certificate: &[u8]) -> String {
    X509Certificate::from_der(certificate)
        .map(|(_, parsed)| common_name(&parsed))
        .unwrap_or_default()
}

fn not_readable(error: &dyn std::error::Error) -> IdentityError {
    IdentityError::NotACertificate {
        why: error.to_string(),
    }
}
