use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{Hash, SignatureAlgorithm, SignatureError, blob_signature::verify_digest, identity};

/// Longest token accepted, in bytes.
const MAX_TOKEN: usize = 8 * 1024 * 1024;

/// A signed token is not accepted or cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum JwtError {
    /// It does not have three parts.
    #[error(
        "the signature file is not a JWT: three parts of base64url with dots between are wanted"
    )]
    Form,
    /// It is too long.
    #[error("the JWT has {length} bytes, at most {most} are accepted")]
    TooLong {
        /// Its length.
        length: usize,
        /// What is accepted.
        most: usize,
    },
    /// A part of it is not the JSON that is wanted.
    #[error("a part of the JWT is not the JSON that is wanted")]
    Json(#[source] serde_json::Error),
    /// It is signed in a way we do not accept.
    #[error("the JWT is signed with `{alg}`; RS256 or ES256 is wanted")]
    Algorithm {
        /// What it says.
        alg: String,
    },
    /// The signature is wrong.
    #[error("the signature of the JWT is not accepted")]
    Signature(#[source] SignatureError),
    /// Signing failed.
    #[error("the JWT cannot be signed")]
    Sign(#[source] SignatureError),
    /// There is no certificate to name.
    #[error("the signer has no certificate")]
    NoCertificate,
}

/// The header of a JWT.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JwtHeader {
    /// `RS256` or `ES256`.
    pub alg: String,
    /// `JWT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub typ: Option<String>,
    /// base64 of `<issuer>:<serial in hex>`: which certificate signed (see [`key_id_serial`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kid: Option<String>,
    /// The signer's chain, base64 DER, leaf first. Ours carry it, other publishers' tools do not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub x5c: Vec<String>,
}

impl JwtHeader {
    /// The serial number (hex) of the signing certificate, from `kid`.
    pub fn serial(&self) -> Option<String> {
        key_id_serial(self.kid.as_deref()?)
    }

    /// The chain in it, if it carries one that can be decoded.
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.x5c
            .iter()
            .take(8)
            .map_while(|text| STANDARD.decode(text).ok().map(CertificateDer::from))
            .collect()
    }
}

/// Names a certificate as bundles do: base64 of `<issuer>:<serial in hex>`.
pub fn key_id(certificate: &CertificateDer<'_>) -> Result<String, JwtError> {
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|_| JwtError::NoCertificate)?;
    Ok(STANDARD.encode(format!("{}:{}", parsed.issuer(), identity::serial(&parsed))))
}

/// The serial number in a `kid`.
pub fn key_id_serial(kid: &str) -> Option<String> {
    let text = STANDARD
        .decode(kid)
        .or_else(|_| URL_SAFE_NO_PAD.decode(kid))
        .ok()?;
    let text = String::from_utf8(text).ok()?;
    let (_, serial) = text.rsplit_once(':')?;
    let serial = serial.trim().to_ascii_lowercase();
    let serial = serial.strip_prefix("0x").unwrap_or(&serial);
    (!serial.is_empty() && serial.bytes().all(|b| b.is_ascii_hexdigit())).then(|| serial.to_owned())
}

struct Parts<'a> {
    message: &'a str,
    header: Vec<u8>,
    claims: &'a str,
    signature: Vec<u8>,
}

fn parts(token: &str) -> Result<Parts<'_>, JwtError> {
    let token = token.trim();
    if token.len() > MAX_TOKEN {
        return Err(JwtError::TooLong {
            length: token.len(),
            most: MAX_TOKEN,
        });
    }
    let (message, signature) = token.rsplit_once('.').ok_or(JwtError::Form)?;
    let (header, claims) = message.split_once('.').ok_or(JwtError::Form)?;
    Ok(Parts {
        message,
        header: decode(header)?,
        claims,
        signature: decode(signature)?,
    })
}

fn decode(part: &str) -> Result<Vec<u8>, JwtError> {
    URL_SAFE_NO_PAD
        .decode(part.trim_end_matches('='))
        .map_err(|_| JwtError::Form)
}

/// Reads the header of a token, to find the certificate to verify it with. Nothing in it is believed yet.
pub fn read_jwt_header(token: &str) -> Result<JwtHeader, JwtError> {
    serde_json::from_slice(&parts(token)?.header).map_err(JwtError::Json)
}

/// Verifies a token by the key of `certificate` and returns its claims. Who the certificate belongs to and whether its
/// chain is trusted is the caller's to check.
pub fn verify_jwt<T: DeserializeOwned>(
    token: &str,
    certificate: &CertificateDer<'_>,
) -> Result<T, JwtError> {
    let parts = parts(token)?;
    let header: JwtHeader = serde_json::from_slice(&parts.header).map_err(JwtError::Json)?;
    let algorithm = match header.alg.as_str() {
        "RS256" => SignatureAlgorithm::RsaPkcs1(Hash::Sha256),
        "ES256" if parts.signature.len() == 64 => SignatureAlgorithm::Ecdsa(Hash::Sha256),
        other => {
            return Err(JwtError::Algorithm {
                alg: other.chars().take(32).collect(),
            });
        }
    };
    let mut hash = Hash::Sha256.context();
    hash.update(parts.message.as_bytes());
    verify_digest(certificate, algorithm, &hash.finish(), &parts.signature)
        .map_err(JwtError::Signature)?;
    serde_json::from_slice(&decode(parts.claims)?).map_err(JwtError::Json)
}
