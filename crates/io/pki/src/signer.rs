use aws_lc_rs::{
    digest,
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING,
        ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
    },
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rustls_pki_types::CertificateDer;
use serde::Serialize;

use crate::{Hash, JwtError, JwtHeader, KeyPair, SignatureAlgorithm, SignatureError, key_id};

/// A private key that signs blobs and bundles, with the certificate chain that proves whose it is.
#[derive(Debug)]
pub struct Signer {
    key: SigningKey,
    chain: Vec<CertificateDer<'static>>,
}

enum SigningKey {
    Rsa(RsaKeyPair),
    P256 {
        asn1: EcdsaKeyPair,
        fixed: EcdsaKeyPair,
    },
    P384(EcdsaKeyPair),
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Rsa(_) => "RSA",
            Self::P256 { .. } => "P-256",
            Self::P384(_) => "P-384",
        })
    }
}

impl Signer {
    /// Signs with `key`, on behalf of the leaf of `chain`.
    pub fn new(key: &KeyPair, chain: Vec<CertificateDer<'static>>) -> Result<Self, SignatureError> {
        let der = key.0.serialized_der();
        let ecdsa = |algorithm| {
            EcdsaKeyPair::from_pkcs8(algorithm, der)
                .or_else(|_| EcdsaKeyPair::from_private_key_der(algorithm, der))
        };
        let key =
            if let Ok(rsa) = RsaKeyPair::from_pkcs8(der).or_else(|_| RsaKeyPair::from_der(der)) {
                SigningKey::Rsa(rsa)
            } else if let (Ok(asn1), Ok(fixed)) = (
                ecdsa(&ECDSA_P256_SHA256_ASN1_SIGNING),
                ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING),
            ) {
                SigningKey::P256 { asn1, fixed }
            } else if let Ok(p384) = ecdsa(&ECDSA_P384_SHA384_ASN1_SIGNING) {
                SigningKey::P384(p384)
            } else {
                return Err(SignatureError::Key);
            };
        Ok(Self { key, chain })
    }

    /// The chain, leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The algorithm of [`Signer::sign_blob`]: what `signInfo.alg` says.
    pub fn algorithm(&self) -> SignatureAlgorithm {
        match &self.key {
            SigningKey::Rsa(_) => SignatureAlgorithm::RsaPkcs1(Hash::Sha256),
            SigningKey::P256 { .. } => SignatureAlgorithm::Ecdsa(Hash::Sha256),
            SigningKey::P384(_) => SignatureAlgorithm::Ecdsa(Hash::Sha384),
        }
    }

    /// Signs a digest that was computed with the hash of [`Signer::algorithm`].
    pub fn sign_blob(&self, digest: &[u8]) -> Result<Vec<u8>, SignatureError> {
        let hash = self.algorithm().hash();
        let digest = hash.import(digest)?;
        match &self.key {
            SigningKey::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign_digest(&RSA_PKCS1_SHA256, &digest, &mut signature)
                    .map_err(|_| SignatureError::Sign)?;
                Ok(signature)
            }
            SigningKey::P256 { asn1: key, .. } | SigningKey::P384(key) => key
                .sign_digest(&digest)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(|_| SignatureError::Sign),
        }
    }

    /// Makes a signed JWT of `claims` (RS256 or ES256). Its header names the certificate by issuer and serial number
    /// (`kid`) and carries the chain (`x5c`), so that a verifier needs no look-up.
    pub fn sign_jwt(&self, claims: &impl Serialize) -> Result<String, JwtError> {
        use base64::engine::general_purpose::STANDARD;
        let leaf = self.chain.first().ok_or(JwtError::NoCertificate)?;
        let header = JwtHeader {
            alg: match &self.key {
                SigningKey::Rsa(_) => "RS256".into(),
                SigningKey::P256 { .. } => "ES256".into(),
                SigningKey::P384(_) => {
                    return Err(JwtError::Algorithm {
                        alg: "ES384".into(),
                    });
                }
            },
            typ: Some("JWT".into()),
            kid: Some(key_id(leaf)?),
            x5c: self.chain.iter().map(|one| STANDARD.encode(one)).collect(),
        };
        let part = |value: &[u8]| URL_SAFE_NO_PAD.encode(value);
        let message = format!(
            "{}.{}",
            part(&serde_json::to_vec(&header).map_err(JwtError::Json)?),
            part(&serde_json::to_vec(claims).map_err(JwtError::Json)?)
        );
        let signature = match &self.key {
            SigningKey::P256 { fixed, .. } => fixed
                .sign(&SystemRandom::new(), message.as_bytes())
                .map(|signature| signature.as_ref().to_vec())
                .map_err(|_| JwtError::Sign(SignatureError::Sign))?,
            _ => self
                .sign_blob(digest::digest(&digest::SHA256, message.as_bytes()).as_ref())
                .map_err(JwtError::Sign)?,
        };
        Ok(format!("{message}.{}", part(&signature)))
    }
}
