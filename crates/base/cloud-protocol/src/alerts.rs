use aos_time::Timestamp;
use aos_types::{
    Digest, ErrorInfo, InstanceIdent, NodeId,
    tolerant::{FieldError, Fields},
};
use serde_json::Value;

use crate::{
    envelope::Data,
    identity::{self, WithInstance, codename_json},
    reading::{Element, Reader},
    writing::{Out, ToJson, bounded_text, words},
};

words! {
    /// How a download goes.
    DownloadState = "download state" {
        /// Begun.
        Started = "started",
        /// Waiting.
        Paused = "paused",
        /// Broken off; it goes on later.
        Interrupted = "interrupted",
        /// Done.
        Finished = "finished",
    }

    /// How the use of something stands towards its rule.
    QuotaState = "state of a quota alert" {
        /// The limit was reached.
        Raise = "raise",
        /// It is still too much.
        Continue = "continue",
        /// It is no longer too much: the alert is over.
        Fall = "fall",
    }

    /// The discriminator of an alert.
    Tag = "kind of alert" {
        /// From a Node's journal.
        System = "systemAlert",
        /// From a component of AosCore.
        Core = "coreAlert",
        /// A Node uses too much.
        SystemQuota = "systemQuotaAlert",
        /// An instance uses too much.
        InstanceQuota = "instanceQuotaAlert",
        /// A blob is being fetched.
        DownloadProgress = "downloadProgressAlert",
        /// An instance did not get a resource. AosCore calls it the other name.
        ResourceAllocate = "deviceAllocateAlert" | "resourceAllocateAlert",
        /// Starting an instance of a version failed.
        UpdateItemInstance = "updateItemInstanceAlert",
    }
}

/// Longest alert text the schema takes, in characters.
const MAX_MESSAGE_CHARS: usize = 32_768;
/// Longest parameter or component name the schema takes.
const MAX_NAME_CHARS: usize = 100;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AlertEvent {
    /// A line of a Node's journal.
    System {
        /// Where.
        node: NodeId,
        /// The line.
        message: String,
    },
    /// A line of a component of AosCore.
    Core {
        /// Where.
        node: NodeId,
        /// `CM`, `SM`, `IAM`, `MP`.
        component: String,
        /// The line.
        message: String,
    },
    /// A Node uses more than its rule allows.
    SystemQuota {
        /// Which.
        node: NodeId,
        /// Of what: `cpu`, `ram`, a partition, `download`, `upload`.
        parameter: String,
        /// How much.
        value: u64,
        /// Whether it begins, goes on or is over; AosCore does not say.
        state: Option<QuotaState>,
    },
    /// An instance uses more than its rule allows.
    InstanceQuota {
        /// Which.
        instance: InstanceIdent,
        /// Of what.
        parameter: String,
        /// How much.
        value: u64,
        /// Whether it begins, goes on or is over; AosCore does not say.
        state: Option<QuotaState>,
    },
    /// A blob is being fetched.
    DownloadProgress {
        /// Which.
        digest: Digest,
        /// Bytes so far.
        downloaded_bytes: u64,
        /// Bytes in all.
        total_bytes: u64,
        /// How it goes.
        state: DownloadState,
        /// From where.
        url: Option<String>,
        /// Why it waits or broke off.
        reason: Option<String>,
        /// Why it failed.
        error: Option<ErrorInfo>,
    },
    /// An instance did not get a resource of its Node.
    ResourceAllocate {
        /// Which.
        instance: InstanceIdent,
        /// Where.
        node: NodeId,
        /// The resource.
        device: String,
        /// Why.
        message: String,
    },
    /// Starting an instance of a version failed.
    UpdateItemInstance {
        /// Which.
        instance: InstanceIdent,
        /// Which version.
        version: String,
        /// Why.
        message: String,
    },
}

/// One alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// When.
    pub timestamp: Timestamp,
    /// What.
    pub event: AlertEvent,
}

/// Alerts of a Unit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Alerts {
    /// In the order they happened.
    pub items: Vec<Alert>,
}

impl Element for Alert {
    fn read(value: &Value, _: &mut Reader<'_>) -> Result<Self, FieldError> {
        let fields = Fields::of(value)?;
        let node = || identity::node(&fields, "node");
        let message = || fields.or_default("message");
        let event = match fields.req::<Tag>("tag")? {
            Tag::System => AlertEvent::System {
                node: node()?,
                message: message()?,
            },
            Tag::Core => AlertEvent::Core {
                node: node()?,
                component: fields.req("coreComponent")?,
                message: message()?,
            },
            Tag::SystemQuota => AlertEvent::SystemQuota {
                node: node()?,
                parameter: fields.req("parameter")?,
                value: fields.or_default("value")?,
                // Not in the schema: an unknown word costs the state, not the alert.
                state: fields.opt("state").unwrap_or_default(),
            },
            Tag::InstanceQuota => AlertEvent::InstanceQuota {
                instance: identity::instance(&fields)?,
                parameter: fields.req("parameter")?,
                value: fields.or_default("value")?,
                // Not in the schema: an unknown word costs the state, not the alert.
                state: fields.opt("state").unwrap_or_default(),
            },
            Tag::DownloadProgress => AlertEvent::DownloadProgress {
                digest: fields.req("digest")?,
                downloaded_bytes: fields.or_default("downloadedBytes")?,
                total_bytes: fields.or_default("totalBytes")?,
                state: fields.req("state")?,
                url: fields.opt("url")?,
                reason: fields.opt("reason")?,
                error: fields.opt("errorInfo")?,
            },
            Tag::ResourceAllocate => AlertEvent::ResourceAllocate {
                instance: identity::instance(&fields)?,
                node: node()?,
                device: fields.or_default("deviceId")?,
                message: message()?,
            },
            Tag::UpdateItemInstance => AlertEvent::UpdateItemInstance {
                instance: identity::instance(&fields)?,
                version: fields.or_default("version")?,
                message: message()?,
            },
        };
        Ok(Self {
            timestamp: fields.req("timestamp")?,
            event,
        })
    }
}

impl ToJson for Alert {
    fn to_json(&self) -> Value {
        let tagged = |tag: Tag| {
            Out::new()
                .time("timestamp", self.timestamp)
                .put("tag", tag.as_str())
        };
        let text = |message: &str| bounded_text(message, MAX_MESSAGE_CHARS);
        let name = |name: &str| bounded_text(name, MAX_NAME_CHARS);
        match &self.event {
            AlertEvent::System { node, message } => tagged(Tag::System)
                .put("node", codename_json(node.as_str()))
                .put("message", text(message)),
            AlertEvent::Core {
                node,
                component,
                message,
            } => tagged(Tag::Core)
                .put("node", codename_json(node.as_str()))
                .put("coreComponent", name(component))
                .put("message", text(message)),
            AlertEvent::SystemQuota {
                node,
                parameter,
                value,
                state,
            } => tagged(Tag::SystemQuota)
                .put("node", codename_json(node.as_str()))
                .put("parameter", name(parameter))
                .put("value", *value)
                .opt("state", state.map(QuotaState::as_str)),
            AlertEvent::InstanceQuota {
                instance,
                parameter,
                value,
                state,
            } => tagged(Tag::InstanceQuota)
                .instance(instance, "subject")
                .put("parameter", name(parameter))
                .put("value", *value)
                .opt("state", state.map(QuotaState::as_str)),
            AlertEvent::DownloadProgress {
                digest,
                downloaded_bytes,
                total_bytes,
                state,
                url,
                reason,
                error,
            } => tagged(Tag::DownloadProgress)
                .put("digest", digest.to_string())
                .put("downloadedBytes", *downloaded_bytes)
                .put("totalBytes", *total_bytes)
                .put("state", state.as_str())
                .opt("url", url.as_deref())
                .opt("reason", reason.as_deref())
                .error(error.as_ref()),
            AlertEvent::ResourceAllocate {
                instance,
                node,
                device,
                message,
            } => tagged(Tag::ResourceAllocate)
                .instance(instance, "subject")
                .put("node", codename_json(node.as_str()))
                .put("deviceId", device.as_str())
                .put("message", text(message)),
            AlertEvent::UpdateItemInstance {
                instance,
                version,
                message,
            } => tagged(Tag::UpdateItemInstance)
                .instance(instance, "subjectId")
                .put("version", version.as_str())
                .put("message", text(message)),
        }
        .into()
    }
}

impl Data for Alerts {
    fn read(fields: Fields<'_>, reader: &mut Reader<'_>) -> Result<Self, FieldError> {
        Ok(Self {
            items: reader.list_or_empty(&fields, "items"),
        })
    }

    fn write(&self, out: Out) -> Out {
        out.list("items", &self.items)
    }
}
