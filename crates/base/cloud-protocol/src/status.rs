use aos_types::{
    ArchInfo, CpuInfo, ErrorInfo, InstanceState, ItemState, NodeId, NodeInfo, NodeResource, OsInfo,
    PartitionInfo, RuntimeId, RuntimeInfo, SubjectId, UnitConfigState,
    tolerant::{FieldError, Fields, FromJson},
};
use serde_json::Value;

use crate::{
    envelope::Data,
    identity::{self, ItemIdentity, codename_json, subject_json},
    reading::{Element, Named, Reader},
    update::{PlacementStatus, UpdateStatus},
    writing::{Out, ToJson, bounded_text},
};

/// One unit configuration: the one in force, or a newer one that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitConfigStatus {
    /// Its version; empty when there is none.
    pub version: String,
    /// Its state.
    pub state: UnitConfigState,
    /// Why it failed.
    pub error: Option<ErrorInfo>,
}

/// One Node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStatus {
    /// What it is, with its state and error.
    pub info: NodeInfo,
    /// Where instances can run on it.
    pub runtimes: Vec<RuntimeInfo>,
    /// What instances can ask for.
    pub resources: Vec<NodeResource>,
    /// Whether the main Node has a link to it.
    pub is_connected: bool,
}

/// One version of one item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemStatus {
    /// The item.
    pub item: ItemIdentity,
    /// Its version.
    pub version: String,
    /// Its state.
    pub state: ItemState,
    /// Why it failed.
    pub error: Option<ErrorInfo>,
}

/// One running or failed instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceStatus {
    /// Where it is; `None` if it has no place. On the wire that is an empty codename, as AosCore writes it.
    pub node: Option<NodeId>,
    /// In which runtime.
    pub runtime: Option<RuntimeId>,
    /// From 0.
    pub index: u64,
    /// Its state.
    pub state: InstanceState,
    /// The checksum of its state file, if it has one.
    pub state_checksum: Option<String>,
    /// Why it failed.
    pub error: Option<ErrorInfo>,
}

/// The instances of one version of an item for one subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstancesStatus {
    /// The item.
    pub item: ItemIdentity,
    /// The subject: a codename if the item is preinstalled.
    pub subject: SubjectId,
    /// The version they run.
    pub version: String,
    /// The instances.
    pub instances: Vec<InstanceStatus>,
}

/// What a Unit has and runs. In a full status an absent list is an empty one; in a delta it is unchanged.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UnitStatus {
    /// Only what changed.
    pub is_delta: bool,
    /// Unit configurations.
    pub unit_config: Option<Vec<UnitConfigStatus>>,
    /// Nodes.
    pub nodes: Option<Vec<NodeStatus>>,
    /// Items.
    pub items: Option<Vec<ItemStatus>>,
    /// Instances.
    pub instances: Option<Vec<InstancesStatus>>,
    /// Subjects the Unit itself reports.
    pub subjects: Option<Vec<SubjectId>>,
    /// Where its update stands; ours.
    pub update: Option<UpdateStatus>,
    /// Instances without a place, or not where they might be: always all that are told; ours.
    pub placements: Option<Vec<PlacementStatus>>,
}

/// `state`, or `status` as the older protocol has it.
fn state<T: FromJson>(fields: &Fields<'_>) -> Result<T, FieldError> {
    fields.req_any(&["state", "status"])
}

fn error(fields: &Fields<'_>) -> Result<Option<ErrorInfo>, FieldError> {
    Ok(fields
        .opt::<ErrorInfo>("errorInfo")?
        .filter(|error| *error != ErrorInfo::default()))
}

impl Element for UnitConfigStatus {
    fn read(value: &Value, _: &mut Reader<'_>) -> Result<Self, FieldError> {
        let fields = Fields::of(value)?;
        Ok(Self {
            version: fields.or_default("version")?,
            state: state(&fields)?,
            error: error(&fields)?,
        })
    }
}

impl ToJson for UnitConfigStatus {
    fn to_json(&self) -> Value {
        Out::new()
            .text("version", &self.version)
            .put("state", self.state.as_str())
            .error(self.error.as_ref())
            .into()
    }
}

fn arch(fields: &Fields<'_>, key: &str) -> Result<ArchInfo, FieldError> {
    let Some(value) = fields.get(key) else {
        return Ok(ArchInfo::default());
    };
    let read = || {
        let fields = Fields::of(value)?;
        Ok(ArchInfo {
            architecture: fields.or_default("architecture")?,
            variant: fields
                .opt("variant")?
                .filter(|text: &String| !text.is_empty()),
        })
    };
    read().map_err(|error: FieldError| error.at(key))
}

fn arch_json(arch: &ArchInfo) -> Out {
    Out::new()
        .put("architecture", arch.architecture.as_str())
        .opt("variant", arch.variant.as_deref())
}

fn os(fields: &Fields<'_>, key: &str) -> Result<OsInfo, FieldError> {
    let Some(value) = fields.get(key) else {
        return Ok(OsInfo::default());
    };
    let read = || {
        let fields = Fields::of(value)?;
        Ok(OsInfo {
            os: fields.or_default("os")?,
            version: fields
                .opt("version")?
                .filter(|text: &String| !text.is_empty()),
            features: fields.or_default("features")?,
        })
    };
    read().map_err(|error: FieldError| error.at(key))
}

fn os_json(os: &OsInfo) -> Out {
    let out = Out::new()
        .put("os", os.os.as_str())
        .opt("version", os.version.as_deref());
    if os.features.is_empty() {
        out
    } else {
        out.put("features", os.features.clone())
    }
}

impl Element for CpuInfo {
    fn read(value: &Value, _: &mut Reader<'_>) -> Result<Self, FieldError> {
        let fields = Fields::of(value)?;
        Ok(Self {
            model_name: fields.or_default("modelName")?,
            num_cores: fields.or_default("totalNumCores")?,
            num_threads: fields.or_default("totalNumThreads")?,
            arch: arch(&fields, "archInfo")?,
            max_dmips: fields.opt("maxDmips")?,
        })
    }
}

impl ToJson for CpuInfo {
    fn to_json(&self) -> Value {
        Out::new()
            .put("modelName", self.model_name.as_str())
            .put("totalNumCores", self.num_cores)
            .put("totalNumThreads", self.num_threads)
            .put("archInfo", arch_json(&self.arch))
            .opt("maxDmips", self.max_dmips)
            .into()
    }
}

impl Element for PartitionInfo {
    fn read(value: &Value, _: &mut Reader<'_>) -> Result<Self, FieldError> {
        let fields = Fields::of(value)?;
        Ok(Self {
            name: fields.req("name")?,
            types: fields.or_default("types")?,
            total_size: fields.or_default("totalSize")?,
            // Where a partition is mounted is nobody's business outside the Unit; AosCore tells it all the same.
            path: String::new(),
        })
    }
}

impl ToJson for PartitionInfo {
    fn to_json(&self) -> Value {
        // The schema has no `path`.
        Out::new()
            .put("name", self.name.as_str())
            .put("types", self.types.clone())
            .put("totalSize", self.total_size)
            .into()
    }
}

impl Element for RuntimeInfo {
    fn read(value: &Value, _: &mut Reader<'_>) -> Result<Self, FieldError> {
        let fields = Fields::of(value)?;
        Ok(Self {
            id: identity::runtime(&fields, "identity")?,
            runtime_type: fields.req("runtimeType")?,
            arch: arch(&fields, "archInfo")?,
            os: os(&fields, "osInfo")?,
            max_dmips: fields.opt("maxDmips")?,
            allowed_dmips: fields.opt("allowedDmips")?,
            total_ram: fields.opt("totalRam")?,
            allowed_ram: fields.opt("allowedRam")?,
            max_instances: fields.or_default("maxInstances")?,
        })
    }
}

impl ToJson for RuntimeInfo {
    fn to_json(&self) -> Value {
        Out::new()
            .put("identity", codename_json(self.id.as_str()))
            .put("runtimeType", bounded_text(&self.runtime_type, 64))
            .put("archInfo", arch_json(&self.arch))
            .put("osInfo", os_json(&self.os))
            .opt("maxDmips", self.max_dmips)
            .opt("allowedDmips", self.allowed_dmips)
            .opt("totalRam", self.total_ram)
            .opt("allowedRam", self.allowed_ram)
            .put("maxInstances", self.max_instances)
            .into()
    }
}

impl Element for NodeResource {
    fn read(value: &Value, _: &mut Reader<'_>) -> Result<Self, FieldError> {
        let fields = Fields::of(value)?;
        Ok(Self {
            name: fields.req("name")?,
            shared_count: fields.or_default("sharedCount")?,
        })
    }
}

impl ToJson for NodeResource {
    fn to_json(&self) -> Value {
        Out::new()
            .put("name", self.name.as_str())
            .put("sharedCount", self.shared_count)
            .into()
    }
}

impl Element for NodeStatus {
    fn read(value: &Value, reader: &mut Reader<'_>) -> Result<Self, FieldError> {
        let fields = Fields::of(value)?;
        let id = identity::node(&fields, "identity")?;
        Ok(Self {
            info: NodeInfo {
                title: identity::title(&fields, "identity").unwrap_or_default(),
                id,
                node_type: identity::node_type(&fields, "nodeGroupSubject")?,
                max_dmips: fields.or_default("maxDmips")?,
                total_ram: fields.or_default("totalRam")?,
                physical_ram: fields.opt("physicalRam")?,
                os: os(&fields, "osInfo")?,
                cpus: reader.list_or_empty(&fields, "cpus"),
                partitions: reader.list_or_empty(&fields, "partitions"),
                attrs: fields.or_default("attrs")?,
                state: state(&fields)?,
                error: error(&fields)?,
            },
            runtimes: reader.list_or_empty(&fields, "runtimes"),
            resources: reader.list_or_empty(&fields, "resources"),
            is_connected: fields.or_default("isConnected")?,
        })
    }

    fn named(fields: Fields<'_>) -> Option<Named> {
        identity::node(&fields, "identity").ok().map(Named::Node)
    }
}

impl ToJson for NodeStatus {
    fn to_json(&self) -> Value {
        let info = &self.info;
        let identity = Out::new()
            .put("codename", info.id.as_str())
            .text("title", &info.title);
        let mut out = Out::new()
            .put("identity", identity)
            .put("nodeGroupSubject", codename_json(&info.node_type))
            .put("maxDmips", info.max_dmips)
            // The schema wants at least 1 where it wants a size.
            .put("totalRam", info.total_ram.max(1))
            .opt("physicalRam", info.physical_ram.filter(|&ram| ram > 0))
            .put("osInfo", os_json(&info.os))
            .filled_list("cpus", &info.cpus)
            .filled_list("partitions", &info.partitions)
            .filled_list("runtimes", &self.runtimes)
            .filled_list("resources", &self.resources)
            .put("isConnected", self.is_connected)
            .put("state", info.state.as_str())
            .error(info.error.as_ref());
        if !info.attrs.is_empty() {
            let attrs = info
                .attrs
                .iter()
                .fold(Out::new(), |out, (key, value)| out.put(key, value.as_str()));
            out = out.put("attrs", attrs);
        }
        out.into()
    }
}

impl Element for ItemStatus {
    fn read(value: &Value, _: &mut Reader<'_>) -> Result<Self, FieldError> {
        let fields = Fields::of(value)?;
        Ok(Self {
            item: fields.req("item")?,
            version: fields.or_default("version")?,
            state: state(&fields)?,
            error: error(&fields)?,
        })
    }

    fn named(fields: Fields<'_>) -> Option<Named> {
        identity::item(&fields, "item").ok().map(Named::Item)
    }
}

impl ToJson for ItemStatus {
    fn to_json(&self) -> Value {
        Out::new()
            .json("item", &self.item)
            .put("version", self.version.as_str())
            .put("state", self.state.as_str())
            .error(self.error.as_ref())
            .into()
    }
}

/// Whether an identity is there and names anything at all.
fn placed(fields: &Fields<'_>, key: &str) -> bool {
    let text = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
    match fields.get(key) {
        Some(Value::Object(identity)) => identity.values().any(text),
        None | Some(Value::Null) => false,
        // What is no identity is refused by whoever reads it.
        Some(_) => true,
    }
}

impl Element for InstanceStatus {
    fn read(value: &Value, _: &mut Reader<'_>) -> Result<Self, FieldError> {
        let fields = Fields::of(value)?;
        Ok(Self {
            node: placed(&fields, "node")
                .then(|| identity::node(&fields, "node"))
                .transpose()?,
            runtime: placed(&fields, "runtime")
                .then(|| identity::runtime(&fields, "runtime"))
                .transpose()?,
            index: fields.req("instance")?,
            state: state(&fields)?,
            state_checksum: fields
                .opt("stateChecksum")?
                .filter(|sum: &String| !sum.is_empty()),
            error: error(&fields)?,
        })
    }
}

impl ToJson for InstanceStatus {
    fn to_json(&self) -> Value {
        Out::new()
            .put(
                "node",
                codename_json(self.node.as_ref().map_or("", NodeId::as_str)),
            )
            .put(
                "runtime",
                codename_json(self.runtime.as_ref().map_or("", RuntimeId::as_str)),
            )
            .put("instance", self.index)
            .put("state", self.state.as_str())
            .text(
                "stateChecksum",
                self.state_checksum.as_deref().unwrap_or_default(),
            )
            .error(self.error.as_ref())
            .into()
    }
}

impl Element for InstancesStatus {
    fn read(value: &Value, reader: &mut Reader<'_>) -> Result<Self, FieldError> {
        let fields = Fields::of(value)?;
        Ok(Self {
            item: fields.req("item")?,
            subject: identity::subject(&fields, "subject")?,
            version: fields.or_default("version")?,
            instances: reader.list_or_empty(&fields, "instances"),
        })
    }

    fn named(fields: Fields<'_>) -> Option<Named> {
        Some(Named::Instances {
            item: identity::item(&fields, "item").ok()?,
            subject: identity::subject(&fields, "subject").ok(),
        })
    }
}

impl ToJson for InstancesStatus {
    fn to_json(&self) -> Value {
        Out::new()
            .json("item", &self.item)
            .put(
                "subject",
                subject_json(&self.subject, self.item.preinstalled),
            )
            .put("version", self.version.as_str())
            .list("instances", &self.instances)
            .into()
    }
}

/// A subject in the list a Unit reports.
struct Reported(SubjectId);

impl Element for Reported {
    fn read(value: &Value, _: &mut Reader<'_>) -> Result<Self, FieldError> {
        identity::subject_of(value, true).map(Self)
    }
}

impl Data for UnitStatus {
    fn read(fields: Fields<'_>, reader: &mut Reader<'_>) -> Result<Self, FieldError> {
        Ok(Self {
            is_delta: fields.or_default("isDeltaInfo")?,
            unit_config: reader.list(&fields, "unitConfig"),
            nodes: reader.list(&fields, "nodes"),
            items: reader.list(&fields, "items"),
            instances: reader.list(&fields, "instances"),
            subjects: reader
                .list::<Reported>(&fields, "subjects")
                .map(|subjects| subjects.into_iter().map(|subject| subject.0).collect()),
            update: reader.part(&fields, "update"),
            placements: reader.list(&fields, "placements"),
        })
    }

    fn write(&self, out: Out) -> Out {
        let out = out
            .put("isDeltaInfo", self.is_delta)
            .opt_list("unitConfig", self.unit_config.as_ref())
            .opt_list("nodes", self.nodes.as_ref())
            .opt_list("items", self.items.as_ref())
            .opt_list("instances", self.instances.as_ref())
            .opt("update", self.update.as_ref().map(ToJson::to_json))
            .opt_list("placements", self.placements.as_ref());
        match &self.subjects {
            Some(subjects) => {
                let list: Vec<Value> = subjects
                    .iter()
                    .map(|subject| codename_json(subject.as_str()))
                    .collect();
                out.put("subjects", list)
            }
            None => out,
        }
    }
}
