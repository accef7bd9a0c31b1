//! Whom a command trusts as the cloud: a root certificate it has, or one it only knows by its
//! fingerprint.

use std::sync::{Arc, Mutex, PoisonError};

use aos_pki::{ALPN_HTTP, CertSource, Fingerprint, KeyPair, Roots};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};

use crate::failure::{Exit, Failure, OrFail as _};

/// Whom to trust.
#[derive(Debug, Clone)]
pub enum Trust {
    /// These roots.
    Roots(Roots),
    /// The root of this fingerprint; the cloud shows it in its chain.
    Pin(Fingerprint),
    /// Nobody: only look at what is shown, and do not go on.
    Nobody,
}

impl Trust {
    /// The roots of a PEM text.
    pub fn pem(text: &str) -> Result<Self, Failure> {
        Roots::from_pem(text.as_bytes())
            .map(Self::Roots)
            .or_fail(|| "cannot read the root certificate")
    }
}

/// The root that the other side was found to chain to, or (with nobody trusted) showed last.
#[derive(Debug, Clone)]
pub enum Seen {
    /// What is trusted.
    Trusted(aos_pki::Trust),
    /// What was shown.
    Shown(Arc<Mutex<Option<Vec<u8>>>>),
}

impl Seen {
    /// The root (DER), once a connection was made.
    pub fn root(&self) -> Option<Vec<u8>> {
        match self {
            Self::Trusted(trust) => trust
                .roots()
                .certificates()
                .first()
                .map(|root| root.to_vec()),
            Self::Shown(shown) => shown.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

/// A key and its chain, both PEM.
pub struct Identity<'a> {
    /// Chain, leaf first.
    pub chain: &'a str,
    /// Private key.
    pub key: &'a str,
}

/// The TLS configuration of a command, and where to see the root once it is connected.
pub fn configuration(
    trust: &Trust,
    identity: Option<&Identity<'_>>,
) -> Result<(ClientConfig, Seen), Failure> {
    let source = CertSource::new();
    if let Some(identity) = identity {
        let again = |failure: Failure| failure.hint("sign in again: `aos login …`");
        let chain = aos_pki::certificates_from_pem(identity.chain.as_bytes())
            .or_fail(|| "cannot read your certificate")
            .map_err(again)?;
        let key = KeyPair::from_pem(identity.key)
            .or_fail(|| "cannot read your private key")
            .map_err(again)?;
        let pair = aos_pki::certified_key(chain, &key)
            .or_fail(|| "your certificate and your private key do not belong together")
            .map_err(again)?;
        source.set(Some(pair));
    }
    let (roots, pin) = match trust {
        Trust::Roots(roots) => (roots.clone(), None),
        Trust::Pin(pin) => (Roots::default(), Some(*pin)),
        Trust::Nobody => return look(),
    };
    let trusted = aos_pki::Trust::new(roots);
    let tls = aos_pki::host_client(&source, &trusted, pin, ALPN_HTTP);
    Ok(((*tls.config).clone(), Seen::Trusted(trusted)))
}

/// A configuration that sees the other side's chain and refuses it.
fn look() -> Result<(ClientConfig, Seen), Failure> {
    let shown = Arc::new(Mutex::new(None));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .or_fail(|| "cannot set up TLS")?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Look(shown.clone())))
        .with_no_client_auth();
    Ok((config, Seen::Shown(shown)))
}

/// Remembers the last certificate of the chain and refuses it.
#[derive(Debug)]
struct Look(Arc<Mutex<Option<Vec<u8>>>>);

impl ServerCertVerifier for Look {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let last = others.last().unwrap_or(leaf);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(last.to_vec());
        Err(refused())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(refused())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(refused())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

fn refused() -> rustls::Error {
    rustls::Error::General("nobody said yet whom to trust".to_owned())
}

/// PEM of one certificate.
pub fn pem(certificate: &[u8]) -> String {
    aos_pki::certificates_to_pem([&CertificateDer::from(certificate.to_vec())])
}

/// What to say when the other side is not the one that was expected.
pub fn not_trusted(url: &str, why: &str) -> Failure {
    Failure::new(format!("{url} is not the cloud you trust"))
        .why(why)
        .hint(
            "compare the fingerprint with the one the cloud printed when it started; \
             do not go on if they differ",
        )
        .exit(Exit::NotReachable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pem_is_read_back() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut root = rcgen::CertificateParams::default();
        root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = root.self_signed(&key).unwrap();
        let Trust::Roots(roots) = Trust::pem(&pem(certificate.der())).unwrap() else {
            panic!("no roots");
        };
        assert_eq!(roots.certificates(), [certificate.der().clone()]);
        assert!(Trust::pem("nothing").is_err());
    }
}
