use std::{fmt, str::FromStr, time::Duration};

use aos_types::{NodeId, SystemId};
use serde::{Deserialize, Serialize};

/// The word is not a certificate type we know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{word}` is not a known certificate type")]
pub struct UnknownKind {
    word: String,
}

/// What a certificate is for. AosEdge calls it the certificate type; peers are authorised by it (`docs/protocol/trust.md`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CertKind {
    /// A Unit towards the cloud.
    Online,
    /// What the cloud may encrypt for while the Unit is away.
    Offline,
    /// IAM of a Node.
    Iam,
    /// The service manager of a Node.
    Sm,
    /// The communication manager of the main Node.
    Cm,
    /// An update manager.
    Um,
    /// A person, or a program acting for one.
    User,
    /// A server of the cloud.
    Server,
    /// Signs the blobs the cloud delivers.
    BlobSigner,
    /// A Node or tool that holds the bootstrap key of a Unit that is not provisioned.
    Bootstrap,
}

impl CertKind {
    /// Every kind.
    pub const ALL: [Self; 10] = [
        Self::Online,
        Self::Offline,
        Self::Iam,
        Self::Sm,
        Self::Cm,
        Self::Um,
        Self::User,
        Self::Server,
        Self::BlobSigner,
        Self::Bootstrap,
    ];

    /// The word used in certificates, folders and messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Offline => "offline",
            Self::Iam => "iam",
            Self::Sm => "sm",
            Self::Cm => "cm",
            Self::Um => "um",
            Self::User => "user",
            Self::Server => "server",
            Self::BlobSigner => "blob-signer",
            Self::Bootstrap => "bootstrap",
        }
    }

    /// Whether it is a server's certificate.
    pub(crate) const fn serves(self) -> bool {
        matches!(self, Self::Iam | Self::Cm | Self::Server | Self::Bootstrap)
    }

    /// Whether it is a client's certificate.
    pub(crate) const fn calls(self) -> bool {
        !matches!(self, Self::Server | Self::BlobSigner)
    }
}

impl fmt::Display for CertKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for CertKind {
    type Err = UnknownKind;

    fn from_str(word: &str) -> Result<Self, UnknownKind> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == word)
            .ok_or_else(|| UnknownKind {
                word: word.chars().take(64).collect(),
            })
    }
}

/// What an [`Authority`](crate::Authority) puts into a certificate. The request only contributes its public key and proves
/// that it holds the private one; who the holder is, the issuer decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertProfile {
    /// What it is for.
    pub kind: CertKind,
    /// Subject common name: `<system id>-<kind>` for a Unit, the user name for a person.
    pub common_name: String,
    /// The Unit, for certificates of a Unit.
    pub system_id: Option<SystemId>,
    /// The Node, for certificates of a Node.
    pub node_id: Option<NodeId>,
    /// The user's id in the cloud, for people.
    pub user_id: Option<String>,
    /// The cloud's host, for people: where their tools connect (`urn:aos:domain:`).
    pub domain: Option<String>,
    /// DNS names and IP addresses.
    pub names: Vec<String>,
    /// From now.
    pub validity: Duration,
    /// Service discovery base URLs, written as issuer alternative names into `online` certificates.
    pub discovery_urls: Vec<String>,
}

impl CertProfile {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

    fn of(kind: CertKind, common_name: String) -> Self {
        Self {
            kind,
            common_name,
            system_id: None,
            node_id: None,
            user_id: None,
            domain: None,
            names: Vec::new(),
            validity: Self::YEAR,
            discovery_urls: Vec::new(),
        }
    }

    /// A certificate of a Unit; with `node_id` of one of its Nodes. Valid a year unless changed.
    pub fn unit(kind: CertKind, system_id: &SystemId, node_id: Option<&NodeId>) -> Self {
        Self {
            system_id: Some(system_id.clone()),
            node_id: node_id.cloned(),
            ..Self::of(kind, format!("{system_id}-{kind}"))
        }
    }

    /// A person's certificate for the cloud at `domain`.
    pub fn user(user_id: impl Into<String>, user_name: &str, domain: impl Into<String>) -> Self {
        Self {
            user_id: Some(user_id.into()),
            domain: Some(domain.into()),
            ..Self::of(CertKind::User, user_name.to_owned())
        }
    }

    /// A server of the cloud that is reached by `names`.
    pub fn server(names: Vec<String>) -> Self {
        let first = names.first().cloned();
        Self {
            names,
            ..Self::of(CertKind::Server, first.unwrap_or_else(|| "AosCloud".into()))
        }
    }

    /// The cloud's signer of blobs. Valid ten years: Units check a signature at its timestamp.
    pub fn blob_signer() -> Self {
        Self {
            validity: 10 * Self::YEAR,
            ..Self::of(CertKind::BlobSigner, "AosCloud blob signer".into())
        }
    }
}
