//! Unwraps content keys that were encrypted for this Unit's `offline` certificate.

use std::{fmt, str::FromStr};

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    error::KeyRejected,
    rsa::{
        OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OAEP_SHA384_MGF1SHA384, OAEP_SHA512_MGF1SHA512,
        OaepAlgorithm, OaepPrivateDecryptingKey, Pkcs1PrivateDecryptingKey, PrivateDecryptingKey,
    },
    signature::RsaKeyPair,
};
use zeroize::Zeroizing;

use crate::{KeyPair, LoadError, load_key_url};

/// The name of a way to wrap keys is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a known way to wrap a key; `RSA/PKCS1v1_5`, `RSA/OAEP` and `RSA/OAEP-256` are"
)]
pub struct UnknownKeyWrap {
    text: String,
}

/// A wrapped key cannot be unwrapped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnwrapError {
    /// The private key cannot decrypt.
    #[error("the Unit's key is no RSA key, so nothing can be encrypted for it")]
    NotRsa,
    /// It was wrapped for another key, or is damaged.
    #[error("the content key was not wrapped for the Unit's key, or is damaged")]
    Refused,
}

/// The hash of OAEP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OaepHash {
    Sha1,
    Sha256,
    Sha384,
    Sha512,
}

/// How a content key is wrapped: `decryptInfo.asymAlg`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyWrap(Option<OaepHash>);

impl KeyWrap {
    /// RSA with PKCS#1 v1.5 padding.
    pub const RSA_PKCS1: Self = Self(None);

    fn oaep(self) -> Option<&'static OaepAlgorithm> {
        Some(match self.0? {
            OaepHash::Sha1 => &OAEP_SHA1_MGF1SHA1,
            OaepHash::Sha256 => &OAEP_SHA256_MGF1SHA256,
            OaepHash::Sha384 => &OAEP_SHA384_MGF1SHA384,
            OaepHash::Sha512 => &OAEP_SHA512_MGF1SHA512,
        })
    }
}

impl fmt::Display for KeyWrap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            None => "RSA/PKCS1v1_5",
            Some(OaepHash::Sha1) => "RSA/OAEP",
            Some(OaepHash::Sha256) => "RSA/OAEP-256",
            Some(OaepHash::Sha384) => "RSA/OAEP-384",
            Some(OaepHash::Sha512) => "RSA/OAEP-512",
        })
    }
}

impl FromStr for KeyWrap {
    type Err = UnknownKeyWrap;

    /// Reads `RSA/<padding>` in any case; without a padding it is PKCS#1 v1.5.
    fn from_str(text: &str) -> Result<Self, UnknownKeyWrap> {
        match text.trim().to_ascii_uppercase().as_str() {
            "RSA" | "RSA/" | "RSA/PKCS1V1_5" | "RSA/PKCS1V15" => Ok(Self::RSA_PKCS1),
            "RSA/OAEP" | "RSA/OAEP-1" => Ok(Self(Some(OaepHash::Sha1))),
            "RSA/OAEP-256" | "RSA/OAEP/SHA256" => Ok(Self(Some(OaepHash::Sha256))),
            "RSA/OAEP-384" | "RSA/OAEP/SHA384" => Ok(Self(Some(OaepHash::Sha384))),
            "RSA/OAEP-512" | "RSA/OAEP/SHA512" => Ok(Self(Some(OaepHash::Sha512))),
            _ => Err(UnknownKeyWrap {
                text: text.chars().take(64).collect(),
            }),
        }
    }
}

/// A private key that can unwrap content keys, wherever it lives. Calls block: a token may take a while.
pub trait KeyUnwrapper: Send + Sync {
    /// The plain key. Its memory is wiped when dropped.
    fn unwrap_key(&self, wrap: KeyWrap, wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, UnwrapError>;
}

/// Opens the key behind a `key_url` of IAM for unwrapping. Blocks.
pub fn load_unwrapper(key_url: &str) -> Result<Box<dyn KeyUnwrapper>, LoadError> {
    Ok(Box::new(load_key_url(key_url)?))
}

/// A key that was kept in the older form, PKCS#1, in the newer one.
fn pkcs8(pkcs1: &[u8]) -> Result<Pkcs8V1Der<'static>, KeyRejected> {
    Ok(RsaKeyPair::from_der(pkcs1)?.as_der()?)
}

impl KeyUnwrapper for KeyPair {
    fn unwrap_key(&self, wrap: KeyWrap, wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, UnwrapError> {
        let der = self.0.serialized_der();
        let key = PrivateDecryptingKey::from_pkcs8(der)
            .or_else(|_| PrivateDecryptingKey::from_pkcs8(pkcs8(der)?.as_ref()))
            .map_err(|_| UnwrapError::NotRsa)?;
        let mut plain = Zeroizing::new(vec![0; key.key_size_bytes()]);
        let length = match wrap.oaep() {
            None => Pkcs1PrivateDecryptingKey::new(key)
                .and_then(|key| key.decrypt(wrapped, &mut plain).map(|plain| plain.len())),
            Some(algorithm) => OaepPrivateDecryptingKey::new(key).and_then(|key| {
                key.decrypt(algorithm, wrapped, &mut plain, None)
                    .map(|plain| plain.len())
            }),
        };
        let length = length.map_err(|_| UnwrapError::Refused)?;
        plain.truncate(length);
        Ok(plain)
    }
}
