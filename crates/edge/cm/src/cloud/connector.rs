use std::time::Duration;

use aos_cloud_protocol::{Caps, Secret};
use aos_pki::{ALPN_HTTP, CertSource, ClientTls, Trust, host_client};
use aos_types::SystemId;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;

use super::{
    discovery,
    socket::{self, OpenError},
};

/// Where the cloud may be found, from the options.
#[derive(Debug, Clone)]
pub(crate) struct Endpoints {
    pub(crate) configured: String,
    pub(crate) overriding: Option<String>,
}

/// Makes connections. Remembers where the last one succeeded, so that a drop needs no new discovery.
#[derive(Debug, Clone)]
pub(crate) struct Connector {
    endpoints: Endpoints,
    online: CertSource,
    tls: ClientTls,
    caps: Caps,
    found: Option<Found>,
}

/// The result of a discovery.
#[derive(Debug, Clone)]
struct Found {
    urls: Vec<String>,
    token: Secret,
}

/// Why there is no connection.
#[derive(Debug)]
pub(crate) struct Failed {
    /// For people.
    pub(crate) why: String,
    /// How long the cloud asked to wait.
    pub(crate) wait: Option<Duration>,
}

type Stream = WebSocketStream<TlsStream<TcpStream>>;

impl Connector {
    pub(crate) fn new(endpoints: Endpoints, online: CertSource, trust: &Trust, caps: Caps) -> Self {
        // The WebSocket and the discovery are HTTP/1.1.
        let tls = host_client(&online, trust, None, &ALPN_HTTP[1..]);
        Self {
            endpoints,
            online,
            tls,
            caps,
            found: None,
        }
    }

    /// Connects, after a discovery if there is no address left to try. Gives itself back for the next time.
    pub(crate) async fn connect(mut self, system_id: SystemId) -> (Self, Result<Stream, Failed>) {
        let result = self.attempt(&system_id).await;
        (self, result)
    }

    async fn attempt(&mut self, system_id: &SystemId) -> Result<Stream, Failed> {
        let Some(own) = self.online.current() else {
            return Err(Failed {
                why: "there is no `online` certificate yet".into(),
                wait: None,
            });
        };
        let mut known = self.found.take().filter(|found| !found.urls.is_empty());
        if known.is_none() {
            let leaf = own.cert.first().map(AsRef::as_ref);
            let urls = discovery::candidates(
                leaf,
                &self.endpoints.configured,
                self.endpoints.overriding.as_deref(),
            );
            let answer = discovery::discover(&urls, &self.tls, system_id).await;
            let answer = answer.map_err(|error| Failed {
                wait: error.wait(),
                why: discovery::chain(&error),
            })?;
            known = Some(Found {
                urls: answer.connection_info,
                token: answer.auth_token,
            });
        }
        let Some(mut found) = known else {
            return Err(Failed {
                why: "no address to connect to".into(),
                wait: None,
            });
        };
        let mut why = String::new();
        while let Some(url) = found.urls.first().cloned() {
            let opened = socket::open(&url, found.token.expose(), &self.tls, &self.caps).await;
            match opened {
                Ok(stream) => {
                    // The address that works stays the first choice, with the same token.
                    self.found = Some(found);
                    return Ok(stream);
                }
                Err(error) => {
                    why = discovery::chain(&error);
                    if let OpenError::Unauthorized { .. } = error {
                        break;
                    }
                    found.urls.remove(0);
                }
            }
        }
        Err(Failed { why, wait: None })
    }
}
