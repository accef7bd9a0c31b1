use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    str::FromStr,
};

use aos_time::Timestamp;
use aws_lc_rs::{
    digest::{self, Digest},
    signature::{self, UnparsedPublicKey, VerificationAlgorithm},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use rustls_pki_types::CertificateDer;
use x509_parser::{
    prelude::{FromDer, X509Certificate},
    public_key::PublicKey,
};

use crate::{CertKind, ChainError, OcspError, PeerIdentity, Roots, ocsp, trust::subject_of};

/// A signature is not accepted or cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// The private key is of a kind we cannot sign with.
    #[error("the private key is neither RSA nor ECDSA on P-256 or P-384")]
    Key,
    /// Signing failed.
    #[error("signing failed")]
    Sign,
    /// The digest has another length than the hash gives.
    #[error("a digest of {length} bytes was given where {hash} is wanted")]
    Digest {
        /// Its length.
        length: usize,
        /// The hash.
        hash: Hash,
    },
    /// The chain is not known.
    #[error("the signature names the certificate chain `{name}`, which was not delivered")]
    UnknownChain {
        /// Its name.
        name: String,
    },
    /// A certificate of the chain is not there.
    #[error("the certificate {fingerprint} of the chain `{chain}` was not delivered")]
    MissingCertificate {
        /// The chain.
        chain: String,
        /// Which certificate.
        fingerprint: String,
    },
    /// A delivered certificate has another fingerprint than the one it came with.
    #[error("a certificate does not have the fingerprint {claimed} it was delivered with")]
    WrongFingerprint {
        /// What it should be.
        claimed: String,
    },
    /// The fingerprint is of no kind we can check.
    #[error("`{claimed}` is not a fingerprint: hex or base64 of a SHA-256 or SHA-1 is wanted")]
    UnknownFingerprint {
        /// The text.
        claimed: String,
    },
    /// The chain does not lead to a root.
    #[error("the signer is not accepted")]
    Chain(#[source] ChainError),
    /// What the issuer says of the certificate.
    #[error("the signer is not accepted")]
    Ocsp(#[source] OcspError),
    /// The certificate may not sign.
    #[error("the certificate of `{subject}` may not sign blobs: {why}")]
    NotASigner {
        /// Its subject.
        subject: String,
        /// Why.
        why: String,
    },
    /// The algorithm does not fit the key.
    #[error("the signature algorithm {algorithm} does not fit the signer's key")]
    Algorithm {
        /// The algorithm.
        algorithm: SignatureAlgorithm,
    },
    /// The signature is wrong.
    #[error("the signature by `{subject}` does not belong to this content")]
    Wrong {
        /// Who should have signed.
        subject: String,
    },
}

/// The name of a signature algorithm is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a known signature algorithm; `RSA/SHA256`, `RSA/SHA512/PSS` or `EC/SHA256` are"
)]
pub struct UnknownAlgorithm {
    text: String,
}

/// A hash function of signatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hash {
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl Hash {
    fn algorithm(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha384 => &digest::SHA384,
            Self::Sha512 => &digest::SHA512,
        }
    }

    pub(crate) fn import(self, bytes: &[u8]) -> Result<Digest, SignatureError> {
        Digest::import_less_safe(bytes, self.algorithm()).map_err(|_| SignatureError::Digest {
            length: bytes.len(),
            hash: self,
        })
    }

    /// Starts hashing content that is signed with this hash.
    pub fn context(self) -> HashContext {
        HashContext(digest::Context::new(self.algorithm()))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sha256 => "SHA256",
            Self::Sha384 => "SHA384",
            Self::Sha512 => "SHA512",
        })
    }
}

/// Hashes content piece by piece.
#[derive(Clone)]
pub struct HashContext(digest::Context);

impl fmt::Debug for HashContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashContext")
    }
}

impl HashContext {
    /// Takes the next piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    /// The digest.
    pub fn finish(self) -> Vec<u8> {
        self.0.finish().as_ref().to_vec()
    }
}

/// How a blob is signed: `signInfo.alg` (`docs/protocol/unit-cloud.md`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureAlgorithm {
    /// RSA with PKCS#1 v1.5 padding.
    RsaPkcs1(Hash),
    /// RSA with PSS padding.
    RsaPss(Hash),
    /// ECDSA on P-256 or P-384, DER or fixed length.
    Ecdsa(Hash),
}

impl SignatureAlgorithm {
    /// The hash to compute over the content.
    pub fn hash(self) -> Hash {
        match self {
            Self::RsaPkcs1(hash) | Self::RsaPss(hash) | Self::Ecdsa(hash) => hash,
        }
    }
}

impl fmt::Display for SignatureAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RsaPkcs1(hash) => write!(f, "RSA/{hash}"),
            Self::RsaPss(hash) => write!(f, "RSA/{hash}/PSS"),
            Self::Ecdsa(hash) => write!(f, "EC/{hash}"),
        }
    }
}

impl FromStr for SignatureAlgorithm {
    type Err = UnknownAlgorithm;

    /// Reads `<alg>/<hash>[/<padding>]` in any case.
    fn from_str(text: &str) -> Result<Self, UnknownAlgorithm> {
        let refuse = || UnknownAlgorithm {
            text: text.chars().take(64).collect(),
        };
        let upper = text.trim().to_ascii_uppercase();
        let mut parts = upper.split('/');
        let algorithm = parts.next().unwrap_or_default();
        let hash = match parts.next().unwrap_or("SHA256") {
            "SHA256" | "SHA-256" => Hash::Sha256,
            "SHA384" | "SHA-384" => Hash::Sha384,
            "SHA512" | "SHA-512" => Hash::Sha512,
            _ => return Err(refuse()),
        };
        let padding = parts.next();
        if parts.next().is_some() {
            return Err(refuse());
        }
        match (algorithm, padding) {
            ("RSA", None | Some("" | "PKCS1V1_5" | "PKCS1V15")) => Ok(Self::RsaPkcs1(hash)),
            ("RSA", Some("PSS")) => Ok(Self::RsaPss(hash)),
            ("EC" | "ECDSA", None | Some("")) => Ok(Self::Ecdsa(hash)),
            _ => Err(refuse()),
        }
    }
}

/// The signature of a blob as it was delivered.
#[derive(Debug, Clone)]
pub struct BlobSignature {
    /// Which delivered chain signed it.
    pub chain_name: String,
    /// How.
    pub algorithm: SignatureAlgorithm,
    /// The signature itself.
    pub value: Vec<u8>,
    /// The moment at which the chain must be valid; nothing means now.
    pub trusted_timestamp: Option<Timestamp>,
    /// OCSP answers in base64 (DER), about any certificates.
    pub ocsp_values: Vec<String>,
    /// Whether there must be a good one about the signing certificate.
    pub require_ocsp: bool,
}

/// The certificates and chains a desired state delivers, to check blob signatures with.
#[derive(Debug, Clone, Default)]
pub struct ChainBook {
    certificates: HashMap<String, CertificateDer<'static>>,
    chains: BTreeMap<String, Vec<String>>,
}

impl ChainBook {
    /// Knows nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a certificate (DER) under the fingerprint it was delivered with, which is computed again here.
    pub fn add_certificate(&mut self, fingerprint: &str, der: &[u8]) -> Result<(), SignatureError> {
        let claimed = canonical(fingerprint)?;
        let real = if claimed.len() == 40 {
            digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, der)
        } else {
            digest::digest(&digest::SHA256, der)
        };
        if hex::encode(real.as_ref()) != claimed {
            return Err(SignatureError::WrongFingerprint {
                claimed: fingerprint.chars().take(80).collect(),
            });
        }
        self.certificates
            .insert(claimed, CertificateDer::from(der.to_vec()));
        Ok(())
    }

    /// Adds a chain: fingerprints of the signing certificate and of intermediate ones.
    pub fn add_chain(
        &mut self,
        name: &str,
        fingerprints: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<(), SignatureError> {
        let fingerprints = fingerprints
            .into_iter()
            .map(|one| canonical(one.as_ref()))
            .collect::<Result<Vec<_>, _>>()?;
        self.chains.insert(name.to_owned(), fingerprints);
        Ok(())
    }

    /// Checks that `digest` (over the decrypted content, by the algorithm's hash) was signed by the named chain, that the
    /// chain leads to `roots` at its trusted timestamp, and that its leaf may sign.
    pub fn verify(
        &self,
        signature: &BlobSignature,
        digest: &[u8],
        roots: &Roots,
        now: Timestamp,
    ) -> Result<(), SignatureError> {
        let name = &signature.chain_name;
        let unknown = || SignatureError::UnknownChain {
            name: name.chars().take(80).collect(),
        };
        let chain = self
            .chains
            .get(name)
            .filter(|chain| !chain.is_empty())
            .ok_or_else(unknown)?
            .iter()
            .map(|fingerprint| {
                self.certificates.get(fingerprint).cloned().ok_or_else(|| {
                    SignatureError::MissingCertificate {
                        chain: name.chars().take(80).collect(),
                        fingerprint: fingerprint.clone(),
                    }
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let at = signature.trusted_timestamp.unwrap_or(now);
        roots
            .verify_chain(&chain, at)
            .map_err(SignatureError::Chain)?;
        let leaf = chain.first().ok_or_else(unknown)?;
        check_may_sign(leaf)?;
        let good = check_ocsp(&signature.ocsp_values, &chain, roots, at, now)
            .map_err(SignatureError::Ocsp)?;
        if signature.require_ocsp && !good {
            return Err(SignatureError::Ocsp(ocsp::absent(leaf)));
        }
        verify_digest(leaf, signature.algorithm, digest, &signature.value)
    }
}

/// What the answers say of the first certificate of the chain; whether there is a good one.
fn check_ocsp(
    values: &[String],
    chain: &[CertificateDer<'static>],
    roots: &Roots,
    at: Timestamp,
    now: Timestamp,
) -> Result<bool, OcspError> {
    let Some((leaf, intermediates)) = chain.split_first().filter(|_| !values.is_empty()) else {
        return Ok(false);
    };
    let answers = values
        .iter()
        .map(|value| ocsp::from_base64(value))
        .collect::<Result<Vec<_>, _>>()?;
    let issuers: Vec<CertificateDer<'_>> = intermediates
        .iter()
        .chain(roots.certificates())
        .cloned()
        .collect();
    ocsp::check(&answers, leaf, &issuers, at, now)
}

fn canonical(fingerprint: &str) -> Result<String, SignatureError> {
    let refuse = || SignatureError::UnknownFingerprint {
        claimed: fingerprint.chars().take(80).collect(),
    };
    if fingerprint.len() > 128 {
        return Err(refuse());
    }
    let hex_text: String = fingerprint
        .chars()
        .filter(|c| *c != ':')
        .collect::<String>()
        .to_ascii_lowercase();
    if matches!(hex_text.len(), 40 | 64) && hex_text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(hex_text);
    }
    match STANDARD.decode(fingerprint) {
        Ok(bytes) if matches!(bytes.len(), 20 | 32) => Ok(hex::encode(bytes)),
        _ => Err(refuse()),
    }
}

/// Key usage must allow signatures, and a certificate of ours must be a blob signer's: a Unit's or a person's certificate
/// under the same root signs nothing.
fn check_may_sign(leaf: &CertificateDer<'_>) -> Result<(), SignatureError> {
    let refuse = |why: String| SignatureError::NotASigner {
        subject: subject_of(leaf),
        why,
    };
    let (_, parsed) = X509Certificate::from_der(leaf).map_err(|error| refuse(error.to_string()))?;
    let usage = parsed
        .key_usage()
        .map_err(|error| refuse(error.to_string()))?;
    if usage.is_some_and(|usage| !usage.value.digital_signature() && !usage.value.non_repudiation())
    {
        return Err(refuse("its key usage does not name signatures".into()));
    }
    match PeerIdentity::read(leaf) {
        Ok(None) => Ok(()),
        Ok(Some(peer)) if peer.kind == CertKind::BlobSigner => Ok(()),
        Ok(Some(peer)) => Err(refuse(format!("it is of type {}", peer.kind))),
        Err(error) => Err(refuse(error.to_string())),
    }
}

pub(crate) fn verify_digest(
    leaf: &CertificateDer<'_>,
    algorithm: SignatureAlgorithm,
    digest: &[u8],
    value: &[u8],
) -> Result<(), SignatureError> {
    let misfit = || SignatureError::Algorithm { algorithm };
    let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| misfit())?;
    let key = parsed.public_key();
    let digest = algorithm.hash().import(digest)?;
    let verifier: &'static dyn VerificationAlgorithm = match (algorithm, key.parsed()) {
        (SignatureAlgorithm::RsaPkcs1(hash), Ok(PublicKey::RSA(_))) => match hash {
            Hash::Sha256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            Hash::Sha384 => &signature::RSA_PKCS1_2048_8192_SHA384,
            Hash::Sha512 => &signature::RSA_PKCS1_2048_8192_SHA512,
        },
        (SignatureAlgorithm::RsaPss(hash), Ok(PublicKey::RSA(_))) => match hash {
            Hash::Sha256 => &signature::RSA_PSS_2048_8192_SHA256,
            Hash::Sha384 => &signature::RSA_PSS_2048_8192_SHA384,
            Hash::Sha512 => &signature::RSA_PSS_2048_8192_SHA512,
        },
        (SignatureAlgorithm::Ecdsa(hash), Ok(PublicKey::EC(point))) => {
            ecdsa(hash, point.key_size(), value).ok_or_else(misfit)?
        }
        _ => return Err(misfit()),
    };
    UnparsedPublicKey::new(verifier, key.subject_public_key.data.as_ref())
        .verify_digest(&digest, value)
        .map_err(|_| SignatureError::Wrong {
            subject: subject_of(leaf),
        })
}

/// A DER signature starts with a sequence; one of fixed length is exactly two numbers of the curve's size.
fn ecdsa(hash: Hash, bits: usize, value: &[u8]) -> Option<&'static dyn VerificationAlgorithm> {
    Some(match (bits, hash) {
        (256, Hash::Sha256) if value.len() == 64 => &signature::ECDSA_P256_SHA256_FIXED,
        (384, Hash::Sha384) if value.len() == 96 => &signature::ECDSA_P384_SHA384_FIXED,
        (256, Hash::Sha256) => &signature::ECDSA_P256_SHA256_ASN1,
        (256, Hash::Sha384) => &signature::ECDSA_P256_SHA384_ASN1,
        (256, Hash::Sha512) => &signature::ECDSA_P256_SHA512_ASN1,
        (384, Hash::Sha256) => &signature::ECDSA_P384_SHA256_ASN1,
        (384, Hash::Sha384) => &signature::ECDSA_P384_SHA384_ASN1,
        (384, Hash::Sha512) => &signature::ECDSA_P384_SHA512_ASN1,
        _ => return None,
    })
}
