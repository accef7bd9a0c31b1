use std::{io, net::SocketAddr};

use tokio::net::TcpListener;

/// A listen or peer address cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// It has no port.
    #[error("`{address}` is not an address: `host:port` or `:port` is wanted")]
    Form {
        /// The text.
        address: String,
    },
    /// Its host is not known.
    #[error("the host of `{address}` cannot be resolved")]
    Resolve {
        /// The text.
        address: String,
        /// What the resolver said.
        #[source]
        source: io::Error,
    },
    /// It cannot be listened on.
    #[error("cannot listen on {address}; is another program using the port?")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Completes an address of the form `:8090` with `host`; others stay as they are.
pub fn with_host(address: &str, host: &str) -> Result<String, AddressError> {
    let address = address.trim();
    let valid = address
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if !valid {
        return Err(AddressError::Form {
            address: address.chars().take(120).collect(),
        });
    }
    Ok(if address.starts_with(':') {
        format!("{host}{address}")
    } else {
        address.to_owned()
    })
}

/// Listens on `address`; `:8090` means all IPv4 addresses, as in AosCore.
pub async fn bind(address: &str) -> Result<TcpListener, AddressError> {
    let address = with_host(address, "0.0.0.0")?;
    let place = tokio::net::lookup_host(&address)
        .await
        .and_then(|mut found| found.next().ok_or_else(|| io::ErrorKind::NotFound.into()))
        .map_err(|source| AddressError::Resolve {
            address: address.clone(),
            source,
        })?;
    TcpListener::bind(place)
        .await
        .map_err(|source| AddressError::Listen {
            address: place,
            source,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_gets_a_host() {
        assert_eq!(with_host(":8090", "0.0.0.0").unwrap(), "0.0.0.0:8090");
        assert_eq!(with_host("main:8090", "x").unwrap(), "main:8090");
        assert_eq!(with_host("[::1]:8090", "x").unwrap(), "[::1]:8090");
        for bad in ["", "8090", "host", "host:", "host:99999", ":x"] {
            assert!(with_host(bad, "x").is_err(), "{bad}");
        }
    }
}
