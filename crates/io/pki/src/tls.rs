use std::sync::Arc;

use rustls::{
    ClientConfig, ServerConfig, client::Resumption, server::NoServerSessionStorage, version,
};
use rustls_pki_types::ServerName;

use crate::{
    BOOTSTRAP_SERVER_NAME, CertSource, Expect, Fingerprint, Trust, provider,
    verifier::{Checker, ClientVerifier, HostVerifier, UnitServerVerifier},
};

/// What gRPC speaks.
pub const ALPN_GRPC: &[&str] = &["h2"];
/// What our HTTPS servers speak.
pub const ALPN_HTTP: &[&str] = &["h2", "http/1.1"];

/// How a server talks TLS. Certificate and roots may change behind it.
#[derive(Debug, Clone)]
pub struct ServerTls {
    /// For `tokio_rustls::TlsAcceptor`.
    pub config: Arc<ServerConfig>,
}

/// How a client talks TLS. Certificate and roots may change behind it.
#[derive(Debug, Clone)]
pub struct ClientTls {
    /// For `tokio_rustls::TlsConnector`.
    pub config: Arc<ClientConfig>,
    /// The name to ask for; nothing means the host connected to.
    pub server_name: Option<ServerName<'static>>,
}

impl ClientTls {
    /// Asks the server for its bootstrap certificate.
    pub fn bootstrap(mut self) -> Self {
        self.server_name = ServerName::try_from(BOOTSTRAP_SERVER_NAME).ok();
        self
    }

    /// The name to ask a server at `host` for.
    pub fn name_for(&self, host: &str) -> Option<ServerName<'static>> {
        match &self.server_name {
            Some(name) => Some(name.clone()),
            None => ServerName::try_from(host.to_owned()).ok(),
        }
    }
}

fn checker(source: &CertSource, trust: &Trust, expect: Expect) -> Checker {
    Checker {
        trust: trust.clone(),
        own: source.clone(),
        expect,
        provider: provider(),
    }
}

fn server(source: &CertSource, clients: Option<ClientVerifier>, alpn: &[&str]) -> ServerTls {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS13, &version::TLS12]);
    // The provider has both versions, so building cannot fail; an empty fallback would hide that, hence the default.
    let builder = match builder {
        Ok(builder) => builder,
        Err(_) => ServerConfig::builder(),
    };
    let builder = match clients {
        Some(verifier) => builder.with_client_cert_verifier(Arc::new(verifier)),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(source.clone()));
    config.alpn_protocols = alpn.iter().map(|one| one.as_bytes().to_vec()).collect();
    // A resumed session would outlive a change of certificates or roots.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    ServerTls {
        config: Arc::new(config),
    }
}

/// A server whose clients must be who `expect` says.
pub fn mutual_server(
    source: &CertSource,
    trust: &Trust,
    expect: Expect,
    alpn: &[&str],
) -> ServerTls {
    let clients = ClientVerifier {
        checker: checker(source, trust, expect),
        mandatory: true,
    };
    server(source, Some(clients), alpn)
}

/// A server whose clients may show a certificate; if they do it must be good. For people: browsers show none.
pub fn optional_client_server(
    source: &CertSource,
    trust: &Trust,
    expect: Expect,
    alpn: &[&str],
) -> ServerTls {
    let clients = ClientVerifier {
        checker: checker(source, trust, expect),
        mandatory: false,
    };
    server(source, Some(clients), alpn)
}

/// A server that does not ask who its clients are, such as the public port of IAM.
pub fn public_server(source: &CertSource, alpn: &[&str]) -> ServerTls {
    server(source, None, alpn)
}

fn client(
    source: &CertSource,
    verifier: Arc<dyn rustls::client::danger::ServerCertVerifier>,
    alpn: &[&str],
) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS13, &version::TLS12]);
    let builder = match builder {
        Ok(builder) => builder,
        Err(_) => ClientConfig::builder(),
    };
    let mut config = builder
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(source.clone()));
    config.alpn_protocols = alpn.iter().map(|one| one.as_bytes().to_vec()).collect();
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// A client inside a Unit: the server's chain, type, Unit and Node are checked, its host name is not. It shows the
/// certificate of `source`, if there is one.
pub fn unit_client(source: &CertSource, trust: &Trust, expect: Expect) -> ClientTls {
    let verifier = UnitServerVerifier(checker(source, trust, expect));
    ClientTls {
        config: client(source, Arc::new(verifier), ALPN_GRPC),
        server_name: ServerName::try_from("node.aos.internal").ok(),
    }
}

/// A client of the cloud: the usual check of the host name. It shows the certificate of `source`, if there is one.
///
/// With `pin` and no roots in `trust`, the certificate with that fingerprint in the server's chain is put into `trust`
/// and the rest is checked as usual: how a person's tool or a Unit meets a cloud for the first time.
pub fn host_client(
    source: &CertSource,
    trust: &Trust,
    pin: Option<Fingerprint>,
    alpn: &[&str],
) -> ClientTls {
    let verifier = HostVerifier {
        checker: checker(source, trust, Expect::any()),
        pin,
    };
    ClientTls {
        config: client(source, Arc::new(verifier), alpn),
        server_name: None,
    }
}
