use std::{fmt, sync::Arc};

use aos_types::{NodeId, SystemId};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::EndEntityCert;

use crate::{
    CertKind, CertSource, ChainError, Fingerprint, IdentityError, PeerIdentity, Trust,
    trust::{Purpose, subject_of},
};

/// The peer is known but is not who is wanted here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Its certificate is of another type.
    #[error("the peer is {peer}; a certificate of type {wanted} is wanted here")]
    Kind {
        /// Who it is.
        peer: String,
        /// What is wanted.
        wanted: String,
    },
    /// It belongs to another Unit.
    #[error("the peer is {peer}; unit {wanted} is wanted here")]
    Unit {
        /// Who it is.
        peer: String,
        /// Which Unit is wanted.
        wanted: SystemId,
    },
    /// It is not the host that was called.
    #[error(
        "the server's certificate of `{subject}` is not valid for `{wanted}`; use a name it was made for"
    )]
    Name {
        /// Its subject.
        subject: String,
        /// Which host was called.
        wanted: String,
    },
    /// It is another Node.
    #[error("the peer is {peer}; node {wanted} is wanted here")]
    Node {
        /// Who it is.
        peer: String,
        /// Which Node is wanted.
        wanted: NodeId,
    },
}

/// Which Unit a peer must belong to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum UnitRule {
    /// Any.
    #[default]
    Any,
    /// The one our own certificate names; any as long as we have none.
    Same,
    /// This one.
    Is(SystemId),
}

/// Who may be at the other end. A `bootstrap` peer belongs to no Unit yet, so the rule for Units does not touch it.
#[derive(Debug, Clone, Default)]
pub struct Expect {
    kinds: Vec<CertKind>,
    unit: UnitRule,
    node: Option<NodeId>,
}

impl Expect {
    /// Anyone with a certificate of a trusted authority.
    pub fn any() -> Self {
        Self::default()
    }

    /// A holder of one of these certificate types.
    pub fn kinds(kinds: impl IntoIterator<Item = CertKind>) -> Self {
        Self {
            kinds: kinds.into_iter().collect(),
            ..Self::default()
        }
    }

    /// Of our own Unit.
    pub fn same_unit(mut self) -> Self {
        self.unit = UnitRule::Same;
        self
    }

    /// Of this Unit.
    pub fn unit(mut self, system_id: SystemId) -> Self {
        self.unit = UnitRule::Is(system_id);
        self
    }

    /// Of this Node.
    pub fn node(mut self, node_id: NodeId) -> Self {
        self.node = Some(node_id);
        self
    }

    /// Checks a peer; `own` is who we are, if we know.
    pub fn check(&self, peer: &PeerIdentity, own: Option<&PeerIdentity>) -> Result<(), Refused> {
        if !self.kinds.is_empty() && !self.kinds.contains(&peer.kind) {
            return Err(Refused::Kind {
                peer: peer.to_string(),
                wanted: words(&self.kinds),
            });
        }
        let wanted = match &self.unit {
            UnitRule::Any => None,
            UnitRule::Same => own.and_then(|own| own.system_id.as_ref()),
            UnitRule::Is(id) => Some(id),
        };
        if let Some(wanted) = wanted
            && peer.kind != CertKind::Bootstrap
            && peer.system_id.as_ref() != Some(wanted)
        {
            return Err(Refused::Unit {
                peer: peer.to_string(),
                wanted: wanted.clone(),
            });
        }
        if let Some(wanted) = &self.node
            && peer.node_id.as_ref() != Some(wanted)
        {
            return Err(Refused::Node {
                peer: peer.to_string(),
                wanted: wanted.clone(),
            });
        }
        Ok(())
    }
}

fn words(kinds: &[CertKind]) -> String {
    let words: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
    words.join(" or ")
}

/// What both verifiers share: chain, identity, handshake signatures.
pub(crate) struct Checker {
    pub(crate) trust: Trust,
    pub(crate) own: CertSource,
    pub(crate) expect: Expect,
    pub(crate) provider: Arc<CryptoProvider>,
}

impl fmt::Debug for Checker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Checker({:?})", self.expect)
    }
}

impl Checker {
    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        purpose: Purpose,
    ) -> Result<(), rustls::Error> {
        let peer = self
            .trust
            .verify(leaf, intermediates, now, purpose)
            .map_err(chain_error)?
            .ok_or_else(|| {
                chain_error(ChainError::Identity(IdentityError::NoKind {
                    subject: subject_of(leaf),
                }))
            })?;
        self.expect
            .check(&peer, self.own.identity().as_ref())
            .map_err(other)
    }

    fn tls12(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn tls13(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> rustls::Error {
    rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

fn chain_error(error: ChainError) -> rustls::Error {
    other(error)
}

/// Why a handshake failed, for people. TLS libraries wrap what our verifiers say into something only programmers read;
/// this finds it again anywhere in the chain of causes.
pub fn handshake_reason(error: &(dyn std::error::Error + 'static)) -> String {
    let mut next = Some(error);
    while let Some(one) = next {
        if let Some(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(inner)))) =
            one.downcast_ref::<rustls::Error>()
        {
            return inner.to_string();
        }
        next = match one.downcast_ref::<std::io::Error>() {
            // The source of an `io::Error` skips the error it holds.
            Some(io) => io
                .get_ref()
                .map(|held| held as &(dyn std::error::Error + 'static)),
            None => one.source(),
        };
    }
    error.to_string()
}

/// Checks the servers of a Unit: chain, type, Unit and Node, but no host name.
#[derive(Debug)]
pub(crate) struct UnitServerVerifier(pub(crate) Checker);

impl ServerCertVerifier for UnitServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.0
            .check(end_entity, intermediates, now, Purpose::Server)
            .map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.tls12(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.tls13(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.schemes()
    }
}

/// Checks a server by its host name. A certificate of ours must be of type `server`: a Unit's certificate may carry names
/// its Unit asked for, and must never pass for the cloud.
#[derive(Debug)]
pub(crate) struct HostVerifier {
    pub(crate) checker: Checker,
    pub(crate) pin: Option<Fingerprint>,
}

impl ServerCertVerifier for HostVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(pin) = &self.pin {
            self.checker.trust.adopt(pin, intermediates);
        }
        let peer = self
            .checker
            .trust
            .verify(end_entity, intermediates, now, Purpose::Server)
            .map_err(chain_error)?;
        if let Some(peer) = peer {
            Expect::kinds([CertKind::Server])
                .check(&peer, None)
                .map_err(other)?;
        }
        EndEntityCert::try_from(end_entity)
            .and_then(|leaf| leaf.verify_is_valid_for_subject_name(server_name))
            .map_err(|_| {
                other(Refused::Name {
                    subject: subject_of(end_entity),
                    wanted: server_name.to_str().into_owned(),
                })
            })?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.checker.tls12(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.checker.tls13(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.checker.schemes()
    }
}

/// Checks clients.
#[derive(Debug)]
pub(crate) struct ClientVerifier {
    pub(crate) checker: Checker,
    pub(crate) mandatory: bool,
}

impl ClientCertVerifier for ClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.checker
            .check(end_entity, intermediates, now, Purpose::Client)
            .map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.checker.tls12(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.checker.tls13(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.checker.schemes()
    }
}
