//! Encrypts blobs as a stream, and wraps their keys for the holder of a certificate: the other side of the decryption.

use std::fmt;

use aws_lc_rs::{
    cipher::{AES_256, EncryptionContext, StreamingEncryptingKey, UnboundCipherKey},
    iv::FixedLength,
    rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey},
};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroizing;

/// Bytes of a block and of an initialisation vector.
const BLOCK: usize = 16;
/// Bytes of a key.
const KEY: usize = 32;

/// A blob cannot be encrypted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncryptError {
    /// The system gives no random bytes.
    #[error("no random bytes for a content key")]
    Random,
    /// A kept key or vector has the wrong length.
    #[error("a kept content key is damaged")]
    Damaged,
    /// The receiver's key is not RSA.
    #[error("the receiver's key is no RSA key, so nothing can be encrypted for it")]
    NotRsa,
    /// The library failed.
    #[error("the cipher failed")]
    Cipher,
}

/// The key that one blob is encrypted with, by AES-256 in CBC mode with PKCS#7 padding: what AosCore reads too. Its memory
/// is wiped when dropped; `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct ContentKey {
    key: Zeroizing<Vec<u8>>,
    iv: [u8; BLOCK],
}

impl fmt::Debug for ContentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ContentKey")
    }
}

impl ContentKey {
    /// How `decryptInfo.blockAlg` names the cipher.
    pub const BLOCK_ALG: &str = "AES256/CBC/pkcs7";
    /// How `decryptInfo.asymAlg` names the way [`ContentKey::wrap_for`] wraps.
    pub const WRAP_ALG: &str = "RSA/OAEP-256";

    /// A new one from the system's randomness.
    pub fn generate() -> Result<Self, EncryptError> {
        let mut key = Zeroizing::new(vec![0; KEY]);
        let mut iv = [0; BLOCK];
        aws_lc_rs::rand::fill(&mut key).map_err(|_| EncryptError::Random)?;
        aws_lc_rs::rand::fill(&mut iv).map_err(|_| EncryptError::Random)?;
        Ok(Self { key, iv })
    }

    /// One that was kept: its key of 32 bytes and its vector of 16.
    pub fn from_parts(key: Vec<u8>, iv: &[u8]) -> Result<Self, EncryptError> {
        let key = Zeroizing::new(key);
        let iv = iv.try_into().map_err(|_| EncryptError::Damaged)?;
        if key.len() != KEY {
            return Err(EncryptError::Damaged);
        }
        Ok(Self { key, iv })
    }

    /// The key itself, to be kept. It is a secret.
    pub fn expose(&self) -> &[u8] {
        &self.key
    }

    /// The initialisation vector.
    pub fn iv(&self) -> &[u8] {
        &self.iv
    }

    /// Begins to encrypt a blob with it.
    pub fn encryptor(&self) -> Result<BlobEncryptor, EncryptError> {
        let key = UnboundCipherKey::new(&AES_256, &self.key).map_err(|_| EncryptError::Cipher)?;
        let context = EncryptionContext::Iv128(FixedLength::from(self.iv));
        StreamingEncryptingKey::less_safe_cbc_pkcs7(key, context)
            .map(BlobEncryptor)
            .map_err(|_| EncryptError::Cipher)
    }

    /// The key wrapped for the holder of a public key (SubjectPublicKeyInfo, DER), by RSA-OAEP with SHA-256.
    pub fn wrap_for(&self, public_key_der: &[u8]) -> Result<Vec<u8>, EncryptError> {
        let key =
            PublicEncryptingKey::from_der(public_key_der).map_err(|_| EncryptError::NotRsa)?;
        let key = OaepPublicEncryptingKey::new(key).map_err(|_| EncryptError::NotRsa)?;
        let mut wrapped = vec![0; key.ciphertext_size()];
        key.encrypt(&OAEP_SHA256_MGF1SHA256, &self.key, &mut wrapped, None)
            .map(|wrapped| wrapped.to_vec())
            .map_err(|_| EncryptError::Cipher)
    }
}

/// A blob being encrypted, piece by piece.
pub struct BlobEncryptor(StreamingEncryptingKey);

impl fmt::Debug for BlobEncryptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BlobEncryptor")
    }
}

impl BlobEncryptor {
    /// Takes the next piece; afterwards `out` holds what it gives, and nothing else.
    pub fn update(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), EncryptError> {
        out.clear();
        out.resize(plain.len() + BLOCK, 0);
        let written = self.0.update(plain, out);
        let written = written.map_err(|_| EncryptError::Cipher)?.written().len();
        out.truncate(written);
        Ok(())
    }

    /// Ends the blob; gives its last bytes.
    pub fn finish(self) -> Result<Vec<u8>, EncryptError> {
        let mut last = vec![0; 2 * BLOCK];
        let (_, update) = self.0.finish(&mut last).map_err(|_| EncryptError::Cipher)?;
        let length = update.written().len();
        last.truncate(length);
        Ok(last)
    }
}

/// The public key of a certificate (SubjectPublicKeyInfo, DER); nothing if the certificate cannot be read.
pub fn public_key_of(certificate: &[u8]) -> Option<Vec<u8>> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some(parsed.public_key().raw.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{KeyAlgorithm, KeyPair};

    #[test]
    fn only_an_rsa_key_can_receive() {
        let content = ContentKey::generate().unwrap();
        let rsa = KeyPair::generate(KeyAlgorithm::Rsa2048).unwrap();
        let wrapped = content.wrap_for(&rsa.public_key_der()).unwrap();
        assert_eq!(wrapped.len(), 256);
        assert_ne!(wrapped, content.wrap_for(&rsa.public_key_der()).unwrap());
        let curve = KeyPair::generate(KeyAlgorithm::EcP256).unwrap();
        assert_eq!(
            content.wrap_for(&curve.public_key_der()),
            Err(EncryptError::NotRsa)
        );
    }

    #[test]
    fn a_kept_key_encrypts_the_same_whatever_the_pieces() {
        let content = ContentKey::generate().unwrap();
        let kept = ContentKey::from_parts(content.expose().to_vec(), content.iv()).unwrap();
        let plain: Vec<u8> = (0..1000_u32).map(|i| i as u8).collect();
        let encrypt = |key: &ContentKey, piece: usize| {
            let mut encryptor = key.encryptor().unwrap();
            let (mut file, mut out) = (Vec::new(), Vec::new());
            for piece in plain.chunks(piece) {
                encryptor.update(piece, &mut out).unwrap();
                file.extend_from_slice(&out);
            }
            file.extend(encryptor.finish().unwrap());
            file
        };
        let whole = encrypt(&content, 1000);
        assert_eq!(whole.len(), 1008);
        for piece in [1, 7, 16, 33] {
            assert_eq!(encrypt(&kept, piece), whole);
        }
        assert!(ContentKey::from_parts(vec![0; 16], &[0; 16]).is_err());
        assert_eq!(format!("{content:?}"), "ContentKey");
    }
}
