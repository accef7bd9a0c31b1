use aos_time::Timestamp;
use aos_types::{
    InstanceIdent, InstanceState, NodeId, NodeState,
    tolerant::{FieldError, Fields},
};
use serde_json::Value;

use crate::{
    envelope::Data,
    identity::{self, WithInstance, codename_json},
    reading::{Element, Named, Reader},
    writing::{Out, ToJson},
};

/// How full a partition was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionUsage {
    /// Its name.
    pub name: String,
    /// Bytes.
    pub used_size: u64,
}

/// Usage at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Usage {
    /// When.
    pub timestamp: Timestamp,
    /// Bytes.
    pub ram: u64,
    /// DMIPS.
    pub cpu: u64,
    /// Bytes received, if it is counted.
    pub download: Option<u64>,
    /// Bytes sent, if it is counted.
    pub upload: Option<u64>,
    /// Partitions.
    pub partitions: Vec<PartitionUsage>,
}

/// A Node's state from one moment on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStateAt {
    /// When.
    pub timestamp: Timestamp,
    /// The state.
    pub state: NodeState,
    /// Whether the main Node had a link to it.
    pub connected: bool,
}

/// An instance's state from one moment on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceStateAt {
    /// When.
    pub timestamp: Timestamp,
    /// The state.
    pub state: InstanceState,
}

/// One Node over time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeMonitoring {
    /// The Node.
    pub node: NodeId,
    /// Its states.
    pub states: Vec<NodeStateAt>,
    /// Its usage.
    pub items: Vec<Usage>,
}

/// One instance over time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceMonitoring {
    /// The instance.
    pub instance: InstanceIdent,
    /// Where it was.
    pub node: NodeId,
    /// Its states.
    pub states: Vec<InstanceStateAt>,
    /// Its usage.
    pub items: Vec<Usage>,
}

/// Usage of Nodes and instances over time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MonitoringData {
    /// Nodes.
    pub nodes: Vec<NodeMonitoring>,
    /// Instances.
    pub instances: Vec<InstanceMonitoring>,
}

impl Element for PartitionUsage {
    fn read(value: &Value, _: &mut Reader<'_>) -> Result<Self, FieldError> {
        let fields = Fields::of(value)?;
        Ok(Self {
            name: fields.req("name")?,
            used_size: fields.or_default("usedSize")?,
        })
    }
}

impl ToJson for PartitionUsage {
    fn to_json(&self) -> Value {
        Out::new()
            .put("name", self.name.as_str())
            .put("usedSize", self.used_size)
            .into()
    }
}

/// AosCore keeps processor usage as a real number; DMIPS are whole.
fn dmips(fields: &Fields<'_>, key: &str) -> Result<u64, FieldError> {
    let dmips: f64 = fields.or_default(key)?;
    if !(0.0..1e18).contains(&dmips) {
        return Err(FieldError::new(format!("{dmips} is not a usage in DMIPS")).at(key));
    }
    Ok(dmips.round() as u64)
}

impl Element for Usage {
    fn read(value: &Value, reader: &mut Reader<'_>) -> Result<Self, FieldError> {
        let fields = Fields::of(value)?;
        Ok(Self {
            timestamp: fields.req("timestamp")?,
            ram: fields.or_default("ram")?,
            cpu: dmips(&fields, "cpu")?,
            download: fields.opt("download")?,
            upload: fields.opt("upload")?,
            partitions: reader.list_or_empty(&fields, "partitions"),
        })
    }
}

impl ToJson for Usage {
    fn to_json(&self) -> Value {
        Out::new()
            .time("timestamp", self.timestamp)
            .put("ram", self.ram)
            .put("cpu", self.cpu)
            .opt("download", self.download)
            .opt("upload", self.upload)
            .filled_list("partitions", &self.partitions)
            .into()
    }
}

impl Element for NodeStateAt {
    fn read(value: &Value, _: &mut Reader<'_>) -> Result<Self, FieldError> {
        let fields = Fields::of(value)?;
        Ok(Self {
            timestamp: fields.req("timestamp")?,
            state: fields.req("state")?,
            connected: fields
                .opt_any(&["connected", "isConnected"])?
                .unwrap_or_default(),
        })
    }
}

impl ToJson for NodeStateAt {
    fn to_json(&self) -> Value {
        Out::new()
            .time("timestamp", self.timestamp)
            .put("state", self.state.as_str())
            .put("connected", self.connected)
            .into()
    }
}

impl Element for InstanceStateAt {
    fn read(value: &Value, _: &mut Reader<'_>) -> Result<Self, FieldError> {
        let fields = Fields::of(value)?;
        Ok(Self {
            timestamp: fields.req("timestamp")?,
            state: fields.req("state")?,
        })
    }
}

impl ToJson for InstanceStateAt {
    fn to_json(&self) -> Value {
        Out::new()
            .time("timestamp", self.timestamp)
            .put("state", self.state.as_str())
            .into()
    }
}

impl Element for NodeMonitoring {
    fn read(value: &Value, reader: &mut Reader<'_>) -> Result<Self, FieldError> {
        let fields = Fields::of(value)?;
        Ok(Self {
            node: identity::node(&fields, "node")?,
            states: reader.list_or_empty(&fields, "nodeStates"),
            items: reader.list_or_empty(&fields, "items"),
        })
    }

    fn named(fields: Fields<'_>) -> Option<Named> {
        identity::node(&fields, "node").ok().map(Named::Node)
    }
}

impl ToJson for NodeMonitoring {
    fn to_json(&self) -> Value {
        Out::new()
            .put("node", codename_json(self.node.as_str()))
            .filled_list("nodeStates", &self.states)
            .list("items", &self.items)
            .into()
    }
}

impl Element for InstanceMonitoring {
    fn read(value: &Value, reader: &mut Reader<'_>) -> Result<Self, FieldError> {
        let fields = Fields::of(value)?;
        Ok(Self {
            instance: identity::instance(&fields)?,
            node: identity::node(&fields, "node")?,
            states: reader.list_or_empty(&fields, "itemStates"),
            items: reader.list_or_empty(&fields, "items"),
        })
    }
}

impl ToJson for InstanceMonitoring {
    fn to_json(&self) -> Value {
        Out::new()
            .instance(&self.instance, "subject")
            .put("node", codename_json(self.node.as_str()))
            .list("itemStates", &self.states)
            .list("items", &self.items)
            .into()
    }
}

impl Data for MonitoringData {
    fn read(fields: Fields<'_>, reader: &mut Reader<'_>) -> Result<Self, FieldError> {
        Ok(Self {
            nodes: reader.list_or_empty(&fields, "nodes"),
            instances: reader.list_or_empty(&fields, "instances"),
        })
    }

    fn write(&self, out: Out) -> Out {
        out.list("nodes", &self.nodes)
            .filled_list("instances", &self.instances)
    }
}
