use aos_time::Timestamp;
use aos_types::{
    ErrorInfo, ItemId, NodeId, SubjectId,
    tolerant::{FieldError, Fields, FromJson},
};
use serde_json::Value;

use crate::{
    Secret,
    binary::{self, to_base64},
    envelope::Data,
    identity::{self, codename_json, id_json},
    reading::{Element, Reader},
    writing::{Out, ToJson, words},
};

words! {
    /// Which logs.
    LogType = "log type" {
        /// Of a Node.
        System = "systemLog",
        /// Of an instance. The older protocol has the other name.
        Instance = "instanceLog" | "serviceLog",
        /// Of an instance around its last crash.
        Crash = "crashLog",
    }

    /// What came of a request for logs.
    LogStatus = "log status" {
        /// There is some.
        Ok = "ok",
        /// It failed. AosCore writes the other word.
        Failed = "failed" | "error",
        /// There is none in that span.
        Empty = "empty",
        /// The Node or instance is not known.
        Absent = "absent",
    }

    /// How a log is to be delivered.
    UploadType = "upload type" {
        /// In `pushLog` messages, as lines come.
        Wss = "wss" | "amqps",
        /// To a URL.
        Https = "https",
    }
}

/// Which lines are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogFilter {
    /// From this moment on.
    pub from: Option<Timestamp>,
    /// Before this moment.
    pub till: Option<Timestamp>,
    /// Of these Nodes; empty: of all. AosCore asks no Node then, so the cloud names them all.
    pub nodes: Vec<NodeId>,
    /// Of this item.
    pub item: Option<ItemId>,
    /// For this subject.
    pub subject: Option<SubjectId>,
    /// Of this instance.
    pub instance: Option<u64>,
}

/// Where a log is to be delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadOptions {
    /// How.
    pub upload_type: UploadType,
    /// Where.
    pub url: Option<String>,
    /// What opens it.
    pub bearer_token: Option<Secret>,
    /// Until when.
    pub bearer_token_ttl: Option<Timestamp>,
}

/// Asks for logs. Answers carry the same correlation id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestLog {
    /// Which logs.
    pub log_type: LogType,
    /// Which lines.
    pub filter: LogFilter,
    /// Where to; `None`: in `pushLog` messages. `wss`: in `pushLog` messages as lines come, until `till`.
    pub upload_options: Option<UploadOptions>,
}

/// A part of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushLog {
    /// Of which Node.
    pub node: NodeId,
    /// Which part. AosCore counts from 1, the schema's text from 0; a receiver only orders by it.
    pub part: u64,
    /// How many there are.
    pub parts_count: u64,
    /// A gzip stream of its own.
    pub content: Vec<u8>,
    /// What came of the request.
    pub status: LogStatus,
    /// Why it failed.
    pub error: Option<ErrorInfo>,
}

struct NodeName(NodeId);

impl Element for NodeName {
    fn read(value: &Value, _: &mut Reader<'_>) -> Result<Self, FieldError> {
        identity::node_of(value).map(Self)
    }
}

impl FromJson for UploadOptions {
    fn from_json(value: &Value) -> Result<Self, FieldError> {
        let fields = Fields::of(value)?;
        Ok(Self {
            upload_type: fields.req("type")?,
            url: fields.opt("url")?,
            bearer_token: fields.opt("bearerToken")?,
            bearer_token_ttl: fields.opt("bearerTokenTtl")?,
        })
    }
}

impl Data for RequestLog {
    fn read(fields: Fields<'_>, reader: &mut Reader<'_>) -> Result<Self, FieldError> {
        let filter = match fields.get("filter") {
            Some(value) => {
                let read = |reader: &mut Reader<'_>| {
                    let fields = Fields::of(value)?;
                    let named = |key: &str| fields.get(key).is_some();
                    Ok(LogFilter {
                        from: fields.opt("from")?,
                        till: fields.opt("till")?,
                        nodes: reader
                            .list_or_empty::<NodeName>(&fields, "nodeIds")
                            .into_iter()
                            .map(|node| node.0)
                            .collect(),
                        item: named("item")
                            .then(|| identity::item(&fields, "item"))
                            .transpose()?,
                        subject: named("subject")
                            .then(|| identity::subject(&fields, "subject"))
                            .transpose()?,
                        instance: fields.opt("instance")?,
                    })
                };
                read(reader).map_err(|error: FieldError| error.at("filter"))?
            }
            None => LogFilter::default(),
        };
        Ok(Self {
            log_type: fields.req("logType")?,
            filter,
            upload_options: fields.opt("uploadOptions")?,
        })
    }

    fn write(&self, out: Out) -> Out {
        let filter = &self.filter;
        let mut wanted = Out::new();
        if let Some(from) = filter.from {
            wanted = wanted.time("from", from);
        }
        if let Some(till) = filter.till {
            wanted = wanted.time("till", till);
        }
        let nodes: Vec<Value> = filter
            .nodes
            .iter()
            .map(|node| codename_json(node.as_str()))
            .collect();
        if !nodes.is_empty() {
            wanted = wanted.put("nodeIds", nodes);
        }
        let wanted = wanted
            .opt("item", filter.item.as_ref().map(|id| id_json(id.as_str())))
            .opt(
                "subject",
                filter.subject.as_ref().map(|id| id_json(id.as_str())),
            )
            .opt("instance", filter.instance);
        let out = out
            .put("logType", self.log_type.as_str())
            .put("filter", wanted);
        // AosCore refuses a message that names `wss`: whoever writes to one does not ask for it.
        let Some(options) = &self.upload_options else {
            return out;
        };
        let mut upload = Out::new()
            .put("type", options.upload_type.as_str())
            .opt("url", options.url.as_deref())
            .opt(
                "bearerToken",
                options.bearer_token.as_ref().map(Secret::expose),
            );
        if let Some(ttl) = options.bearer_token_ttl {
            upload = upload.time("bearerTokenTtl", ttl);
        }
        out.put("uploadOptions", upload)
    }
}

impl Data for PushLog {
    fn read(fields: Fields<'_>, _: &mut Reader<'_>) -> Result<Self, FieldError> {
        Ok(Self {
            node: identity::node(&fields, "node")?,
            part: fields.or_default("part")?,
            parts_count: fields.or_default("partsCount")?,
            content: binary::bytes(&fields, "content")?.unwrap_or_default(),
            status: fields.req("status")?,
            error: fields.opt("errorInfo")?,
        })
    }

    fn write(&self, out: Out) -> Out {
        let content = (!self.content.is_empty()).then(|| to_base64(&self.content));
        out.put("node", codename_json(self.node.as_str()))
            .put("part", self.part)
            .put("partsCount", self.parts_count)
            .opt("content", content)
            .put("status", self.status.as_str())
            .error(self.error.as_ref())
    }
}

impl ToJson for LogStatus {
    fn to_json(&self) -> Value {
        self.as_str().into()
    }
}
