use aos_types::{
    SystemId,
    tolerant::{FieldError, Fields},
};
use serde_json::Value;

use crate::{PROTOCOL_VERSION, Secret, writing::Out};

/// A discovery request or answer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// Not JSON.
    #[error("the service discovery message is not JSON")]
    NotJson(#[source] serde_json::Error),
    /// One field is wrong.
    #[error("the service discovery message has a wrong field: {0}")]
    Field(FieldError),
}

/// What a Unit posts to `/sd/v7/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscoveryRequest {
    /// 7.
    pub version: u32,
    /// The Unit.
    pub system_id: SystemId,
    /// `wss`.
    pub supported_protocols: Vec<String>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscoveryResponse {
    /// 7.
    pub version: u32,
    /// The Unit, as it called itself.
    pub system_id: String,
    /// If above 0: the delay before the next attempt, in milliseconds.
    pub next_request_delay_ms: u64,
    /// WebSocket URLs in order of preference, or discovery URLs for a redirect.
    pub connection_info: Vec<String>,
    /// Bearer token for the WebSocket.
    pub auth_token: Secret,
    /// 0 none, 1 ask at `connection_info`, 2 ask later, 3 error.
    pub error_code: u32,
}

impl DiscoveryRequest {
    /// A request of protocol 7 over WebSocket.
    pub fn new(system_id: SystemId) -> Self {
        Self {
            version: PROTOCOL_VERSION,
            system_id,
            supported_protocols: vec!["wss".into()],
        }
    }

    /// Its JSON.
    pub fn encode(&self) -> Vec<u8> {
        Value::from(
            Out::new()
                .put("version", self.version)
                .put("systemId", self.system_id.as_str())
                .put("supportedProtocols", self.supported_protocols.clone()),
        )
        .to_string()
        .into_bytes()
    }

    /// Reads it.
    pub fn decode(bytes: &[u8]) -> Result<Self, DiscoveryError> {
        let value: Value = serde_json::from_slice(bytes).map_err(DiscoveryError::NotJson)?;
        let read = || {
            let fields = Fields::of(&value)?;
            Ok(Self {
                version: fields.req("version")?,
                system_id: fields.req("systemId")?,
                supported_protocols: fields.or_default("supportedProtocols")?,
            })
        };
        read().map_err(DiscoveryError::Field)
    }
}

impl DiscoveryResponse {
    /// An answer that says: connect to one of these.
    pub fn connect(system_id: &SystemId, urls: Vec<String>, token: Secret) -> Self {
        Self {
            version: PROTOCOL_VERSION,
            system_id: system_id.to_string(),
            next_request_delay_ms: 0,
            connection_info: urls,
            auth_token: token,
            error_code: 0,
        }
    }

    /// Its JSON.
    pub fn encode(&self) -> Vec<u8> {
        Value::from(
            Out::new()
                .put("version", self.version)
                .put("systemId", self.system_id.as_str())
                .put("nextRequestDelay", self.next_request_delay_ms)
                .put("connectionInfo", self.connection_info.clone())
                .put("authToken", self.auth_token.expose())
                .put("errorCode", self.error_code),
        )
        .to_string()
        .into_bytes()
    }

    /// Reads it.
    pub fn decode(bytes: &[u8]) -> Result<Self, DiscoveryError> {
        let value: Value = serde_json::from_slice(bytes).map_err(DiscoveryError::NotJson)?;
        let read = || {
            let fields = Fields::of(&value)?;
            Ok(Self {
                version: fields.or_default("version")?,
                system_id: fields.or_default("systemId")?,
                next_request_delay_ms: fields.or_default("nextRequestDelay")?,
                connection_info: fields.or_default("connectionInfo")?,
                auth_token: fields
                    .opt("authToken")?
                    .unwrap_or_else(|| Secret::new(String::new())),
                error_code: fields.or_default("errorCode")?,
            })
        };
        read().map_err(DiscoveryError::Field)
    }
}
