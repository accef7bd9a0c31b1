//! Whom a command trusts as the cloud: a root certificate it has, or one it only knows by its
//! fingerprint.

use std::sync::{Arc, Mutex, PoisonError};

use aos_pki::Fingerprint;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::failure::{Exit, Failure, OrFail as _};

/// Whom to trust.
#[derive(Debug, Clone)]
pub enum Trust {
    /// These roots.
    Roots(Vec<CertificateDer<'static>>),
    /// The root of this fingerprint; the cloud shows it in its chain.
    Pin(Fingerprint),
    /// Nobody: only look at what is shown.
    Nobody,
}

impl Trust {
    /// The roots of a PEM text.
    pub fn pem(text: &str) -> Result<Self, Failure> {
        let roots: Vec<_> = CertificateDer::pem_slice_iter(text.as_bytes())
            .collect::<Result<_, _>>()
            .or_fail(|| "cannot read the root certificate")?;
        if roots.is_empty() {
            return Err(Failure::new("cannot read the root certificate")
                .why("there is no `BEGIN CERTIFICATE` in it"));
        }
        Ok(Self::Roots(roots))
    }
}

/// The root that the other side was found to chain to.
#[derive(Debug, Clone, Default)]
pub struct Seen(Arc<Mutex<Option<CertificateDer<'static>>>>);

impl Seen {
    /// The root (DER), once a connection was made.
    pub fn root(&self) -> Option<CertificateDer<'static>> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set(&self, root: &CertificateDer<'_>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(root.clone().into_owned());
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
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let seen = Seen::default();
    let verifier = Verifier {
        trust: trust.clone(),
        seen: seen.clone(),
        provider: provider.clone(),
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .or_fail(|| "cannot set up TLS")?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let configuration = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let again = |failure: Failure| failure.hint("sign in again: `aos login …`");
            let chain: Vec<_> = CertificateDer::pem_slice_iter(identity.chain.as_bytes())
                .collect::<Result<_, _>>()
                .or_fail(|| "cannot read your certificate")
                .map_err(again)?;
            let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes())
                .or_fail(|| "cannot read your private key")
                .map_err(again)?;
            builder
                .with_client_auth_cert(chain, key)
                .or_fail(|| "your certificate and your private key do not belong together")
                .map_err(again)?
        }
    };
    Ok((configuration, seen))
}

/// Verifies chain, time, name and use with rustls' own verifier, after finding the root.
#[derive(Debug)]
struct Verifier {
    trust: Trust,
    seen: Seen,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn roots(&self, shown: &[&CertificateDer<'_>]) -> Result<RootCertStore, rustls::Error> {
        let mut store = RootCertStore::empty();
        match &self.trust {
            Trust::Roots(roots) => {
                for root in roots {
                    self.seen.set(root);
                    store.add(root.clone())?;
                }
            }
            Trust::Pin(pin) => {
                let root = shown
                    .iter()
                    .find(|certificate| Fingerprint::of(certificate) == *pin)
                    .ok_or_else(|| {
                        rustls::Error::General(format!(
                            "no certificate that the other side shows has the fingerprint sha256:{pin}"
                        ))
                    })?;
                store.add((*root).clone().into_owned())?;
                self.seen.set(root);
            }
            Trust::Nobody => {
                if let Some(root) = shown.last() {
                    self.seen.set(root);
                }
                return Err(rustls::Error::General(
                    "nobody said yet whom to trust".to_owned(),
                ));
            }
        }
        Ok(store)
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let shown: Vec<_> = std::iter::once(leaf).chain(others).collect();
        let roots = Arc::new(self.roots(&shown)?);
        WebPkiServerVerifier::builder_with_provider(roots, self.provider.clone())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?
            .verify_server_cert(leaf, others, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// PEM of one certificate.
pub fn pem(certificate: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(certificate);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
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
        let certificate = rcgen::CertificateParams::new(vec!["x".into()])
            .unwrap()
            .self_signed(&key)
            .unwrap();
        let Trust::Roots(roots) = Trust::pem(&pem(certificate.der())).unwrap() else {
            panic!("no roots");
        };
        assert_eq!(roots, [certificate.der().clone()]);
        assert!(Trust::pem("nothing").is_err());
    }
}
