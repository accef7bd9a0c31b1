use std::{fmt, io, path::Path};

use aos_time::Timestamp;
use aos_types::Digest;
use aws_lc_rs::{hmac, rand};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use uuid::Uuid;

/// Makes and checks the tokens a Unit shows: the bearer token of the link, and the last part of a blob's URL. A token
/// carries what it allows and until when, sealed with HMAC-SHA256, so nothing needs to be stored for it.
#[derive(Clone)]
pub struct TokenKey(hmac::Key);

/// The key of the tokens cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TokenKeyError {
    /// Its file cannot be used.
    #[error("the file of the token key cannot be used")]
    File(#[source] io::Error),
    /// Its file does not hold 32 bytes.
    #[error(
        "the file of the token key is damaged; delete it: Units ask for new tokens by themselves"
    )]
    Damaged,
    /// There are no random numbers.
    #[error("the system gives no random numbers")]
    Random,
}

/// What a bearer token of the link allows.
const LINK: u8 = 1;
/// What a blob URL allows.
const BLOB: u8 = 2;
const TAG_BYTES: usize = 32;

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKey")
    }
}

impl TokenKey {
    /// A key of 32 secret bytes.
    pub fn new(secret: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// A key that lives as long as this process.
    pub fn ephemeral() -> Result<Self, TokenKeyError> {
        Ok(Self::new(&random()?))
    }

    /// Reads the key from a file of mode 0600, or makes it. Blocks.
    pub fn load_or_create(path: &Path) -> Result<Self, TokenKeyError> {
        match aos_pki::read_bounded(path, 64) {
            Ok(bytes) => bytes
                .as_slice()
                .try_into()
                .map(|secret: &[u8; 32]| Self::new(secret))
                .map_err(|_| TokenKeyError::Damaged),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let secret = random()?;
                aos_pki::write_private(path, &secret).map_err(TokenKeyError::File)?;
                Ok(Self::new(&secret))
            }
            Err(error) => Err(TokenKeyError::File(error)),
        }
    }

    /// A bearer token for the link of a Unit.
    pub(crate) fn link(&self, unit: Uuid, expires: Timestamp) -> String {
        self.seal(&Body {
            kind: LINK,
            unit,
            expires,
            digest: None,
        })
    }

    /// The last part of the URL of a blob, for one Unit.
    pub(crate) fn blob(&self, unit: Uuid, digest: &Digest, expires: Timestamp) -> String {
        self.seal(&Body {
            kind: BLOB,
            unit,
            expires,
            digest: Some(*digest),
        })
    }

    /// The Unit whose link this token opens.
    pub(crate) fn open_link(&self, token: &str, now: Timestamp) -> Option<Uuid> {
        let body = self.open(token)?;
        (body.kind == LINK && body.digest.is_none() && body.expires > now).then_some(body.unit)
    }

    /// The Unit and the blob of this token.
    pub(crate) fn open_blob(&self, token: &str, now: Timestamp) -> Option<(Uuid, Digest)> {
        let body = self.open(token)?;
        (body.kind == BLOB && body.expires > now)
            .then_some(body.unit)
            .zip(body.digest)
    }

    fn seal(&self, body: &Body) -> String {
        let mut bytes = body.to_bytes();
        let tag = hmac::sign(&self.0, &bytes);
        bytes.extend_from_slice(tag.as_ref());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn open(&self, token: &str) -> Option<Body> {
        if token.len() > 256 {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (body, tag) = bytes.split_at_checked(bytes.len().checked_sub(TAG_BYTES)?)?;
        hmac::verify(&self.0, body, tag).ok()?;
        Body::from_bytes(body)
    }
}

fn random() -> Result<[u8; 32], TokenKeyError> {
    let mut secret = [0; 32];
    rand::fill(&mut secret).map_err(|_| TokenKeyError::Random)?;
    Ok(secret)
}

struct Body {
    kind: u8,
    unit: Uuid,
    expires: Timestamp,
    digest: Option<Digest>,
}

impl Body {
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![self.kind];
        bytes.extend_from_slice(self.unit.as_bytes());
        bytes.extend_from_slice(&self.expires.as_micros().to_be_bytes());
        if let Some(digest) = &self.digest {
            bytes.extend_from_slice(digest.as_bytes());
        }
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        let (unit, rest) = rest.split_first_chunk::<16>()?;
        let (expires, rest) = rest.split_first_chunk::<8>()?;
        let digest = match rest {
            [] => None,
            rest => Some(Digest::from_bytes(rest.try_into().ok()?)),
        };
        Some(Self {
            kind: *kind,
            unit: Uuid::from_bytes(*unit),
            expires: Timestamp::from_micros(i64::from_be_bytes(*expires)),
            digest,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    #[test]
    fn a_token_opens_what_it_was_made_for_until_it_expires() {
        let key = TokenKey::ephemeral().unwrap();
        let unit = Uuid::new_v4();
        let digest = Digest::from_bytes([7; 32]);
        let link = key.link(unit, secs(10));
        let blob = key.blob(unit, &digest, secs(10));
        assert_eq!(key.open_link(&link, secs(9)), Some(unit));
        assert_eq!(key.open_link(&link, secs(10)), None);
        assert_eq!(key.open_blob(&blob, secs(9)), Some((unit, digest)));
        assert_eq!(key.open_blob(&blob, secs(11)), None);
        assert_eq!(key.open_blob(&link, secs(9)), None);
        assert_eq!(key.open_link(&blob, secs(9)), None);
    }

    #[test]
    fn nothing_else_opens() {
        let key = TokenKey::ephemeral().unwrap();
        let other = TokenKey::ephemeral().unwrap();
        let token = key.link(Uuid::new_v4(), secs(10));
        assert_eq!(other.open_link(&token, secs(0)), None);
        let mut bytes = URL_SAFE_NO_PAD.decode(&token).unwrap();
        for place in 0..bytes.len() {
            bytes[place] ^= 1;
            let forged = URL_SAFE_NO_PAD.encode(&bytes);
            assert_eq!(key.open_link(&forged, secs(0)), None);
            bytes[place] ^= 1;
        }
        for bad in ["", "a", "%%%", &"A".repeat(300), &"A".repeat(60)] {
            assert_eq!(key.open_link(bad, secs(0)), None);
        }
    }

    #[test]
    fn the_key_survives_a_restart_in_a_private_file() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token.key");
        let token = TokenKey::load_or_create(&path)
            .unwrap()
            .link(Uuid::nil(), secs(10));
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = TokenKey::load_or_create(&path).unwrap();
        assert_eq!(again.open_link(&token, secs(0)), Some(Uuid::nil()));
        std::fs::write(&path, b"short").unwrap();
        assert!(matches!(
            TokenKey::load_or_create(&path),
            Err(TokenKeyError::Damaged)
        ));
    }
}
