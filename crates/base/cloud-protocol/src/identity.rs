//! Identity objects: the same thing is named by `id` or by `codename`, depending on where it comes from
//! (`docs/protocol/unit-cloud.md`, identities).

use aos_types::{
    InstanceIdent, ItemId, ItemType, NodeId, OwnerId, RuntimeId, SubjectId,
    tolerant::{FieldError, Fields, FromJson, word},
};
use serde_json::Value;

use crate::writing::{Out, ToJson};

/// An item as status messages name it: by the cloud's id, or by the codename of something the Unit came with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemIdentity {
    /// Id or codename.
    pub item: ItemId,
    /// What kind it is.
    pub item_type: ItemType,
    /// Named by its codename: the cloud did not deliver it.
    pub preinstalled: bool,
}

impl ItemIdentity {
    /// A service the cloud delivered.
    pub fn service(item: ItemId) -> Self {
        Self {
            item,
            item_type: ItemType::Service,
            preinstalled: false,
        }
    }
}

impl From<&InstanceIdent> for ItemIdentity {
    fn from(ident: &InstanceIdent) -> Self {
        Self {
            item: ident.item.clone(),
            item_type: ident.item_type,
            preinstalled: ident.preinstalled,
        }
    }
}

pub(crate) fn item_type(value: &Value) -> Result<ItemType, FieldError> {
    let text = String::from_json(value)?;
    match text.to_ascii_lowercase().as_str() {
        "service" => Ok(ItemType::Service),
        "component" => Ok(ItemType::Component),
        "layer" => Ok(ItemType::Layer),
        _ => Err(FieldError::new(format!(
            "`{}` is not an item type; known are service, component, layer",
            text.chars().take(64).collect::<String>()
        ))),
    }
}

/// Reads `id`, else `codename`, and says whether it was the latter. A bare text is taken as the name itself.
fn name<T: FromJson>(value: &Value, keys: [&str; 2]) -> Result<(T, bool), FieldError> {
    if value.is_string() {
        return T::from_json(value).map(|name| (name, keys[0] == "codename"));
    }
    let fields = Fields::of(value)?;
    match fields.any(&keys) {
        Some((key, value)) => T::from_json(value)
            .map(|name| (name, key == "codename"))
            .map_err(|error| error.at(key)),
        None => Err(FieldError::new("is missing").at(keys[0])),
    }
}

const BY_ID: [&str; 2] = ["id", "codename"];
const BY_CODENAME: [&str; 2] = ["codename", "id"];

impl FromJson for ItemIdentity {
    fn from_json(value: &Value) -> Result<Self, FieldError> {
        let (item, preinstalled) = name(value, BY_ID)?;
        let item_type = match Fields::of(value).ok().and_then(|fields| fields.get("type")) {
            Some(value) => item_type(value).map_err(|error| error.at("type"))?,
            None => ItemType::Service,
        };
        Ok(Self {
            item,
            item_type,
            preinstalled,
        })
    }
}

impl ToJson for ItemIdentity {
    fn to_json(&self) -> Value {
        let key = if self.preinstalled { "codename" } else { "id" };
        Out::new()
            .put(key, self.item.as_str())
            .put("type", self.item_type.to_string())
            .into()
    }
}

/// A subject that is named by its id, or by its codename if the Unit came with it.
pub(crate) fn subject_json(subject: &SubjectId, by_codename: bool) -> Value {
    let key = if by_codename { "codename" } else { "id" };
    Out::new().put(key, subject.as_str()).into()
}

pub(crate) fn codename_json(name: &str) -> Value {
    Out::new().put("codename", name).into()
}

pub(crate) fn id_json(id: &str) -> Value {
    Out::new().put("id", id).into()
}

macro_rules! names {
    ($($(#[$doc:meta])* $reader:ident: $id:ty = $keys:ident;)*) => {$(
        $(#[$doc])*
        pub(crate) fn $reader(fields: &Fields<'_>, key: &str) -> Result<$id, FieldError> {
            let value = fields
                .get(key)
                .ok_or_else(|| FieldError::new("is missing").at(key))?;
            name::<$id>(value, $keys)
                .map(|(name, _)| name)
                .map_err(|error| error.at(key))
        }
    )*};
}

names! {
    /// A Node, named by its codename.
    node: NodeId = BY_CODENAME;
    /// A runtime, named by its codename.
    runtime: RuntimeId = BY_CODENAME;
    /// An owner, named by its id.
    owner: OwnerId = BY_ID;
    /// An item where its type does not matter, named by its id.
    item: ItemId = BY_ID;
    /// A subject, named by its id.
    subject: SubjectId = BY_ID;
}

/// A node type, which is the codename of a node group subject.
pub(crate) fn node_type(fields: &Fields<'_>, key: &str) -> Result<String, FieldError> {
    match fields.get(key) {
        Some(value) => name::<String>(value, BY_CODENAME)
            .map(|(name, _)| name)
            .map_err(|error| error.at(key)),
        None => Ok(String::new()),
    }
}

/// A subject identity that stands by itself in a list.
pub(crate) fn subject_of(value: &Value, by_codename: bool) -> Result<SubjectId, FieldError> {
    name(value, if by_codename { BY_CODENAME } else { BY_ID }).map(|(subject, _)| subject)
}

/// A Node identity that stands by itself in a list.
pub(crate) fn node_of(value: &Value) -> Result<NodeId, FieldError> {
    name(value, BY_CODENAME).map(|(node, _)| node)
}

/// One instance: `item`, `subject` (or `subjectId`, as the schema has it in places) and `instance`.
pub(crate) fn instance(fields: &Fields<'_>) -> Result<InstanceIdent, FieldError> {
    let identity: ItemIdentity = fields.req("item")?;
    let key = fields
        .any(&["subject", "subjectId"])
        .map_or("subject", |(key, _)| key);
    Ok(InstanceIdent {
        subject: subject(fields, key)?,
        index: fields.or_default("instance")?,
        item: identity.item,
        item_type: identity.item_type,
        preinstalled: identity.preinstalled,
    })
}

/// Writes the fields of one instance.
pub(crate) trait WithInstance {
    fn instance(self, ident: &InstanceIdent, subject_key: &str) -> Self;
}

impl WithInstance for Out {
    fn instance(self, ident: &InstanceIdent, subject_key: &str) -> Self {
        self.json("item", &ItemIdentity::from(ident))
            .put(
                subject_key,
                subject_json(&ident.subject, ident.preinstalled),
            )
            .put("instance", ident.index)
    }
}

/// A title beside the codename, for people.
pub(crate) fn title(fields: &Fields<'_>, key: &str) -> Option<String> {
    let identity = Fields::of(fields.get(key)?).ok()?;
    word(identity.get("title")?).ok()
}
