use std::{fmt, str::FromStr};

use sha2::{Digest as _, Sha256};

/// The SHA-256 of a certificate's DER form.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 32]);

/// The text is not a fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a fingerprint: 64 hex digits are wanted, with or without `sha256:` in front"
)]
pub struct InvalidFingerprint {
    text: String,
}

impl Fingerprint {
    /// The fingerprint of a certificate.
    pub fn of(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = InvalidFingerprint;

    /// Reads hex digits in any case, with colons or without, with `sha256:` in front or without.
    fn from_str(text: &str) -> Result<Self, InvalidFingerprint> {
        let refuse = || InvalidFingerprint {
            text: text.chars().take(80).collect(),
        };
        if text.len() > 128 {
            return Err(refuse());
        }
        let lower = text.trim().to_ascii_lowercase();
        let digits: String = lower
            .strip_prefix("sha256:")
            .unwrap_or(&lower)
            .chars()
            .filter(|c| *c != ':')
            .collect();
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| refuse())?;
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_and_other_tools_write() {
        let print = Fingerprint::of(b"certificate");
        let plain = print.to_string();
        assert_eq!(plain.parse::<Fingerprint>().unwrap(), print);
        assert_eq!(
            format!("sha256:{plain}").parse::<Fingerprint>().unwrap(),
            print
        );
        let colons = plain
            .to_uppercase()
            .as_bytes()
            .chunks(2)
            .map(|pair| std::str::from_utf8(pair).unwrap())
            .collect::<Vec<_>>()
            .join(":");
        assert_eq!(colons.parse::<Fingerprint>().unwrap(), print);
        for bad in ["", "sha256:", "abcd", &"g".repeat(64), &"0".repeat(65)] {
            assert!(bad.parse::<Fingerprint>().is_err(), "{bad}");
        }
    }
}
