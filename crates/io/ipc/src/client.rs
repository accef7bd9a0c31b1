use std::{io, time::Duration};

use aos_pki::{ClientTls, handshake_reason};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::{
    Request, Status,
    transport::{Channel, Endpoint, Uri},
};

use crate::{AddressError, with_host};

/// How long one attempt to connect may take, name look-up and handshake included.
const CONNECT: Duration = Duration::from_secs(5);

/// There is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address is not one.
    #[error("cannot connect")]
    Address(#[from] AddressError),
    /// Nobody answers, or one side refuses the other.
    #[error("cannot connect to {address}: {reason}")]
    Refused {
        /// Where.
        address: String,
        /// Why, for people.
        reason: String,
    },
}

/// Connects to `address` (`host:port`; `:port` is this host). The channel pings the server every 10 s, gives a dead one
/// up after 3 s and connects again by itself at the next call. Calls have no deadline of their own: use [`within`].
pub async fn connect(address: &str, tls: &ClientTls) -> Result<Channel, ConnectError> {
    let address = with_host(address, "127.0.0.1")?;
    let form = || AddressError::Form {
        address: address.clone(),
    };
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|_| form())?;
    let host = endpoint.uri().host().unwrap_or_default();
    let host = host.trim_matches(['[', ']']);
    let name = tls.name_for(host).ok_or_else(form)?;
    let connector = TlsConnector::from(tls.config.clone());
    let place = address.clone();
    let service = tower::service_fn(move |_: Uri| {
        let (connector, name, place) = (connector.clone(), name.clone(), place.clone());
        async move {
            let attempt = async {
                let stream = TcpStream::connect(&place).await?;
                stream.set_nodelay(true)?;
                Ok::<_, io::Error>(TokioIo::new(connector.connect(name, stream).await?))
            };
            tokio::time::timeout(CONNECT, attempt)
                .await
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        }
    });
    endpoint
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(3))
        .keep_alive_while_idle(true)
        .connect_with_connector(service)
        .await
        .map_err(|error| ConnectError::Refused {
            address,
            reason: deepest(&error),
        })
}

/// A request that must be answered within `deadline`; the caller gets `CANCELLED` or `DEADLINE_EXCEEDED` otherwise.
pub fn within<T>(deadline: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    request
}

/// Why a call failed, for people: the server's own words, or what is wrong with the connection.
pub fn reason(status: &Status) -> String {
    match std::error::Error::source(status) {
        Some(source) => deepest(source),
        None => format!("{} ({:?})", status.message(), status.code()),
    }
}

fn deepest(error: &(dyn std::error::Error + 'static)) -> String {
    let found = handshake_reason(error);
    if found != error.to_string() {
        return found;
    }
    let mut last = error;
    while let Some(inner) = last.source() {
        last = inner;
    }
    last.to_string()
}
