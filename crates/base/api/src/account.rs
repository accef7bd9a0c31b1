use aos_time::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// `POST /sign-in/`. The answer is a [`Session`] and the session cookie.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignIn {
    /// The user's name.
    pub username: String,
    /// The user's password.
    #[schema(format = Password)]
    pub password: String,
}

/// `POST /owner-setup/`: makes the first user. Works once; the answer is a [`Session`] and the session cookie.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OwnerSetup {
    /// The token of the one-time owner link.
    #[schema(format = Password)]
    pub token: String,
    /// Name of the new user: 1 to 64 characters, no spaces.
    pub username: String,
    /// Password of the new user: 10 to 1024 characters.
    #[schema(format = Password)]
    pub password: String,
}

/// A session that has just begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Session {
    /// Who is signed in.
    pub user: Me,
    /// When the session ends unless it is used.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
}

/// `GET /users/me/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Me {
    /// Id of the user.
    pub id: Uuid,
    /// Name.
    pub username: String,
    /// E-mail address; may be empty.
    pub email: String,
    /// `oem` for the owner of the installation.
    pub role: String,
    /// The organisation.
    pub oem: Organisation,
    /// The domain the cloud answers for.
    pub domain: String,
    /// Fleets the user is bound to; empty is all of the organisation.
    pub fleets: Vec<String>,
    /// Groups of permissions.
    pub permission_groups: Vec<String>,
    /// Single permissions.
    pub permissions: Vec<String>,
    /// All permissions the user has, one per operation.
    pub effective_permissions: Vec<String>,
    /// How this request was authorised: `session` or `certificate`.
    pub signed_in_by: String,
}

/// An organisation that owns Units and services.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Organisation {
    /// Id.
    pub id: Uuid,
    /// Name for people.
    pub title: String,
}

/// `POST /user-certificates/`: a signing request for the signed-in user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UserCertificateRequest {
    /// PKCS#10 in PEM. RSA of 2048 bits or more (bundle signatures are RS256), or P-256. Its subject is not used.
    pub csr: String,
}

/// Answer to [`UserCertificateRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UserCertificate {
    /// The chain in PEM, leaf first, root last.
    pub certificate: String,
    /// Serial of the leaf in hex.
    pub serial: String,
    /// When the leaf expires.
    #[schema(value_type = String, format = DateTime)]
    pub not_after: Timestamp,
}
