use std::{sync::Arc, time::Duration};

use aos_cloud_protocol::{Caps, Secret};
use aos_pki::{ALPN_HTTP, CertSource, ClientTls, Trust, host_client};
use aos_types::SystemId;
use tokio::sync::watch;
use tokio_rustls::rustls::sign::CertifiedKey;

use super::{
    discovery,
    socket::{self, OpenError, Stream},
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
    first_wait: Option<Duration>,
}

/// A connection.
pub(crate) struct Opened {
    pub(crate) stream: Stream,
    /// The certificate it was made with, DER.
    pub(crate) shown: Vec<u8>,
    /// The first wait between attempts that the cloud asks for.
    pub(crate) first_wait: Option<Duration>,
}

/// Why there is no connection.
#[derive(Debug)]
pub(crate) struct Failed {
    /// For people.
    pub(crate) why: String,
    /// How long the cloud asked to wait.
    pub(crate) wait: Option<Duration>,
    /// The first wait between attempts that the cloud asks for from now on.
    pub(crate) first_wait: Option<Duration>,
}

impl Failed {
    fn because(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            wait: None,
            first_wait: None,
        }
    }
}

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

    /// Tells when another certificate is to be shown.
    pub(crate) fn certificate(&self) -> watch::Receiver<Option<Arc<CertifiedKey>>> {
        self.online.subscribe()
    }

    /// The certificate that is shown now, DER.
    pub(crate) fn own(&self) -> Option<Vec<u8>> {
        let own = self.online.current()?;
        Some(own.cert.first()?.as_ref().to_vec())
    }

    /// Connects, after a discovery if there is no address left to try. Gives itself back for the next time.
    pub(crate) async fn connect(mut self, system_id: SystemId) -> (Self, Result<Opened, Failed>) {
        let result = self.attempt(&system_id).await;
        (self, result)
    }

    async fn attempt(&mut self, system_id: &SystemId) -> Result<Opened, Failed> {
        let Some(shown) = self.own() else {
            return Err(Failed::because("there is no `online` certificate yet"));
        };
        let known = self.found.take().filter(|found| !found.urls.is_empty());
        let mut found = match known {
            Some(found) => found,
            None => self.discover(system_id, &shown).await?,
        };
        let mut why = String::new();
        while let Some(url) = found.urls.first().cloned() {
            let opened = socket::open(&url, found.token.expose(), &self.tls, &self.caps).await;
            match opened {
                Ok(stream) => {
                    let first_wait = found.first_wait;
                    // The address that works stays the first choice, with the same token.
                    self.found = Some(found);
                    return Ok(Opened {
                        stream,
                        shown,
                        first_wait,
                    });
                }
                Err(error) => {
                    why = discovery::chain(&error);
                    if let OpenError::Unauthorized { .. } = error {
                        break;
                    }
                    tracing::debug!(why, "an address of the cloud does not work");
                    found.urls.remove(0);
                }
            }
        }
        Err(Failed {
            first_wait: found.first_wait,
            ..Failed::because(why)
        })
    }

    async fn discover(&self, system_id: &SystemId, shown: &[u8]) -> Result<Found, Failed> {
        let urls = discovery::candidates(
            Some(shown),
            &self.endpoints.configured,
            self.endpoints.overriding.as_deref(),
        );
        let answer = discovery::discover(&urls, &self.tls, system_id).await;
        let answer = answer.map_err(|error| Failed {
            wait: error.wait(),
            ..Failed::because(discovery::chain(&error))
        })?;
        let delay = Duration::from_millis(answer.next_request_delay_ms);
        Ok(Found {
            urls: answer.connection_info,
            token: answer.auth_token,
            first_wait: Some(delay).filter(|delay| !delay.is_zero()),
        })
    }
}
