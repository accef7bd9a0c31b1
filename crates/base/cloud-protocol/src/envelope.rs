use aos_time::Timestamp;
use aos_types::{
    SystemId,
    tolerant::{FieldError, Fields},
};
use serde_json::Value;

use crate::{
    Alerts, BlobUrls, Caps, DeprovisioningRequest, DeprovisioningResponse, DesiredStatus,
    FinishProvisioningRequest, FinishProvisioningResponse, InstallUnitCertificatesConfirmation,
    IssueUnitCertificates, IssuedUnitCertificates, MonitoringData, NewState, OverrideEnvVars,
    OverrideEnvVarsStatus, PushLog, RenewCertificatesNotification, RequestBlobUrls, RequestLog,
    StartProvisioningRequest, StartProvisioningResponse, StateAcceptance, StateRequest, UnitStatus,
    Unreadable, UpdateState, header,
    reading::Reader,
    writing::{Out, ToJson, words},
};

/// The protocol version of every message here.
pub const PROTOCOL_VERSION: u32 = 7;

/// What every message starts with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The Unit the message is from or for.
    pub system_id: SystemId,
    /// When it was made; a repeated message keeps the first value. Written in whole seconds.
    pub created_at: Timestamp,
    /// Names the transmission: an ack or nack carries the txn it answers, a repeated message keeps its own.
    pub txn: String,
}

/// One message.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Who, when, which.
    pub header: Header,
    /// Links an answer to its request.
    pub correlation_id: Option<String>,
    /// What it says.
    pub body: Body,
}

/// The peer is to send the message again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nack {
    /// How long to wait before that, in milliseconds.
    pub retry_after_ms: u64,
}

/// AosCore waits this long when a nack does not say.
const DEFAULT_RETRY_AFTER_MS: u64 = 500;

impl Default for Nack {
    fn default() -> Self {
        Self {
            retry_after_ms: DEFAULT_RETRY_AFTER_MS,
        }
    }
}

/// What part of a message a body is made of.
pub(crate) trait Data: Sized {
    fn read(fields: Fields<'_>, reader: &mut Reader<'_>) -> Result<Self, FieldError>;
    fn write(&self, out: Out) -> Out;
}

impl Data for Nack {
    fn read(fields: Fields<'_>, _: &mut Reader<'_>) -> Result<Self, FieldError> {
        Ok(Self {
            retry_after_ms: fields.opt("retryAfter")?.unwrap_or(DEFAULT_RETRY_AFTER_MS),
        })
    }

    fn write(&self, out: Out) -> Out {
        out.put("retryAfter", self.retry_after_ms)
    }
}

macro_rules! bodies {
    ($($(#[$doc:meta])* $variant:ident $(($data:ty))? = $word:literal $from:ident,)*) => {
        words! {
            /// The discriminator `messageType`.
            MessageType = "message type" { $($(#[$doc])* $variant = $word,)* }
        }

        /// What a message says.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Body { $($(#[$doc])* $variant $(($data))?,)* }

        impl Body {
            /// Its type.
            pub const fn message_type(&self) -> MessageType {
                match self { $(bodies!(@pattern $variant $($data)?) => MessageType::$variant,)* }
            }

            fn read(kind: MessageType, fields: Fields<'_>, reader: &mut Reader<'_>) -> Result<Self, FieldError> {
                Ok(match kind {
                    $(MessageType::$variant => bodies!(@read $variant $($data)?, fields, reader),)*
                })
            }

            fn write(&self, out: Out) -> Out {
                match self { $(bodies!(@bind $variant $($data)?, data) => bodies!(@write $($data)?, data, out),)* }
            }
        }

        impl MessageType {
            /// Whether a Unit may send it.
            pub const fn is_from_unit(self) -> bool {
                match self { $(Self::$variant => matches!(From::$from, From::Unit | From::Both),)* }
            }

            /// Whether the cloud may send it.
            pub const fn is_from_cloud(self) -> bool {
                match self { $(Self::$variant => matches!(From::$from, From::Cloud | From::Both),)* }
            }
        }
    };
    (@pattern $variant:ident) => { Self::$variant };
    (@pattern $variant:ident $data:ty) => { Self::$variant(_) };
    (@bind $variant:ident, $name:ident) => { Self::$variant };
    (@bind $variant:ident $data:ty, $name:ident) => { Self::$variant($name) };
    (@read $variant:ident, $fields:ident, $reader:ident) => { Self::$variant };
    (@read $variant:ident $data:ty, $fields:ident, $reader:ident) => { Self::$variant(<$data>::read($fields, $reader)?) };
    (@write , $name:ident, $out:ident) => { $out };
    (@write $data:ty, $name:ident, $out:ident) => { Data::write($name, $out) };
}

/// Who sends a message.
enum From {
    Unit,
    Cloud,
    Both,
}

bodies! {
    /// Received and durably kept by the receiver.
    Ack = "ack" Both,
    /// Not taken; to be sent again later.
    Nack(Nack) = "nack" Both,
    /// Things that went wrong or are worth noticing.
    Alerts(Alerts) = "alerts" Unit,
    /// Usage of Nodes and instances.
    MonitoringData(MonitoringData) = "monitoringData" Unit,
    /// What the Unit has and runs.
    UnitStatus(UnitStatus) = "unitStatus" Unit,
    /// What the Unit should have and run.
    DesiredStatus(DesiredStatus) = "desiredStatus" Cloud,
    /// Asks where blobs can be fetched.
    RequestBlobUrls(RequestBlobUrls) = "requestBlobUrls" Unit,
    /// Says where, with hashes and signatures.
    BlobUrls(BlobUrls) = "blobUrls" Cloud,
    /// An instance wrote a new state.
    NewState(NewState) = "newState" Unit,
    /// Asks for the state of an instance.
    StateRequest(StateRequest) = "stateRequest" Unit,
    /// Whether the cloud took a new state.
    StateAcceptance(StateAcceptance) = "stateAcceptance" Cloud,
    /// The state an instance is to have.
    UpdateState(UpdateState) = "updateState" Cloud,
    /// Asks for logs.
    RequestLog(RequestLog) = "requestLog" Cloud,
    /// A part of a log.
    PushLog(PushLog) = "pushLog" Unit,
    /// Environment variables to set on top of what items bring.
    OverrideEnvVars(OverrideEnvVars) = "overrideEnvVars" Cloud,
    /// How that went.
    OverrideEnvVarsStatus(OverrideEnvVarsStatus) = "overrideEnvVarsStatus" Unit,
    /// Certificates are to be renewed.
    RenewCertificatesNotification(RenewCertificatesNotification) = "renewCertificatesNotification" Cloud,
    /// The new certificates.
    IssuedUnitCertificates(IssuedUnitCertificates) = "issuedUnitCertificates" Cloud,
    /// Requests to sign.
    IssueUnitCertificates(IssueUnitCertificates) = "issueUnitCertificates" Unit,
    /// How installing them went.
    InstallUnitCertificatesConfirmation(InstallUnitCertificatesConfirmation) = "installUnitCertificatesConfirmation" Unit,
    /// A Node is to make its keys.
    StartProvisioningRequest(StartProvisioningRequest) = "startProvisioningRequest" Cloud,
    /// Its certificate requests.
    StartProvisioningResponse(StartProvisioningResponse) = "startProvisioningResponse" Unit,
    /// A Node's first certificates.
    FinishProvisioningRequest(FinishProvisioningRequest) = "finishProvisioningRequest" Cloud,
    /// How that went.
    FinishProvisioningResponse(FinishProvisioningResponse) = "finishProvisioningResponse" Unit,
    /// A Node is to forget its keys.
    DeprovisioningRequest(DeprovisioningRequest) = "deprovisioningRequest" Cloud,
    /// How that went.
    DeprovisioningResponse(DeprovisioningResponse) = "deprovisioningResponse" Unit,
}

impl Message {
    /// The bytes of one binary frame.
    pub fn encode(&self) -> Vec<u8> {
        let header = Out::new()
            .put("version", PROTOCOL_VERSION)
            .put("systemId", self.header.system_id.as_str())
            .time("createdAt", self.header.created_at)
            .put("txn", self.header.txn.as_str());
        let data = Out::new()
            .put("messageType", self.body.message_type().as_str())
            .opt("correlationId", self.correlation_id.as_deref());
        let message = Out::new()
            .put("header", header)
            .put("data", self.body.write(data));
        Value::from(message).to_string().into_bytes()
    }
}

/// A message that was read, and what of it could not be.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// The readable part.
    pub message: Message,
    /// Lists and elements that could not be read. They never mean "remove".
    pub unreadable: Vec<Unreadable>,
}

/// Why nothing of a message can be used.
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    /// Longer than the cap.
    #[error("it has {bytes} bytes, more than the {cap} this side is configured to take")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// [`Caps::message_bytes`].
        cap: usize,
    },
    /// Not JSON.
    #[error("it is not JSON")]
    NotJson(#[source] serde_json::Error),
    /// Another protocol version.
    #[error("it is of protocol version {found}, this side speaks {PROTOCOL_VERSION}")]
    Version {
        /// The version it says.
        found: u64,
    },
    /// A field without which the message has no meaning.
    #[error("its field {0}")]
    Field(FieldError),
}

/// A message cannot be used at all. What could be read of its header is here, so that the receiver can still answer.
#[derive(Debug, thiserror::Error)]
#[error("the message{} cannot be used: {reason}", .message_type.as_deref().map(|kind| format!(" `{kind}`")).unwrap_or_default())]
pub struct DecodeError {
    /// The txn to answer, if it was readable.
    pub txn: Option<String>,
    /// The Unit it names, if that was readable.
    pub system_id: Option<SystemId>,
    /// Its type as it was written, cut to 64 characters.
    pub message_type: Option<String>,
    /// What is wrong.
    pub reason: Reason,
}

/// Reads one frame.
pub fn decode(bytes: &[u8], caps: &Caps) -> Result<Decoded, DecodeError> {
    let blank = |reason| DecodeError {
        txn: None,
        system_id: None,
        message_type: None,
        reason,
    };
    if bytes.len() > caps.message_bytes {
        let header = header::skim(bytes);
        return Err(DecodeError {
            txn: header.txn.filter(|txn| is_usable(txn)),
            system_id: header.system_id.and_then(|id| SystemId::new(id).ok()),
            message_type: None,
            reason: Reason::TooLong {
                bytes: bytes.len(),
                cap: caps.message_bytes,
            },
        });
    }
    let value: Value =
        serde_json::from_slice(bytes).map_err(|error| blank(Reason::NotJson(error)))?;
    let hints = Hints::of(&value);
    let mut reader = Reader::new(caps);
    match read(&value, &mut reader) {
        Ok(message) => Ok(Decoded {
            message,
            unreadable: reader.finish(),
        }),
        Err(reason) => Err(DecodeError {
            txn: hints.txn,
            system_id: hints.system_id,
            message_type: hints.message_type,
            reason,
        }),
    }
}

/// What can be told about a message that may be broken.
struct Hints {
    txn: Option<String>,
    system_id: Option<SystemId>,
    message_type: Option<String>,
}

impl Hints {
    fn of(value: &Value) -> Self {
        let part = |key| {
            Fields::of(value)
                .ok()
                .and_then(|fields| fields.get(key))
                .and_then(|value| Fields::of(value).ok())
        };
        let header = part("header");
        Self {
            txn: header
                .and_then(|header| header.opt("txn").ok().flatten())
                .filter(|txn: &String| is_usable(txn)),
            system_id: header.and_then(|header| header.opt("systemId").ok().flatten()),
            message_type: part("data")
                .and_then(|data| data.opt::<String>("messageType").ok().flatten())
                .map(|kind| kind.chars().take(64).collect()),
        }
    }
}

/// Longest txn we remember and answer; a UUID has 36.
const MAX_TXN_BYTES: usize = 256;

fn is_usable(txn: &str) -> bool {
    !txn.is_empty() && txn.len() <= MAX_TXN_BYTES
}

fn read(value: &Value, reader: &mut Reader<'_>) -> Result<Message, Reason> {
    let message = Fields::of(value).map_err(Reason::Field)?;
    let object = |key: &str| {
        let value = message
            .get(key)
            .ok_or_else(|| FieldError::new("is missing").at(key))?;
        Fields::of(value).map_err(|error| error.at(key))
    };
    let header = object("header").map_err(Reason::Field)?;
    let in_header = |error: FieldError| Reason::Field(error.at("header"));
    let version: u64 = header.req("version").map_err(in_header)?;
    if version != u64::from(PROTOCOL_VERSION) {
        return Err(Reason::Version { found: version });
    }
    let txn: String = header.or_default("txn").map_err(in_header)?;
    if txn.len() > MAX_TXN_BYTES {
        return Err(in_header(
            FieldError::new(format!("is longer than {MAX_TXN_BYTES} bytes")).at("txn"),
        ));
    }
    let header = Header {
        system_id: header.req("systemId").map_err(in_header)?,
        // For people only: a wrong one is no reason to lose the message.
        created_at: header.opt("createdAt").ok().flatten().unwrap_or_default(),
        txn,
    };
    let data = object("data").map_err(Reason::Field)?;
    let in_data = |error: FieldError| Reason::Field(error.at("data"));
    let kind: MessageType = data.req("messageType").map_err(in_data)?;
    Ok(Message {
        header,
        correlation_id: data
            .opt("correlationId")
            .map_err(in_data)?
            .filter(|id: &String| !id.is_empty()),
        body: Body::read(kind, data, reader).map_err(in_data)?,
    })
}

impl ToJson for Value {
    fn to_json(&self) -> Value {
        self.clone()
    }
}
