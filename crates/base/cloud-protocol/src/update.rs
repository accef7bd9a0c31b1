//! What a Unit says of its update as a whole, and of instances that are not where they might be. Ours: schema v7 has
//! neither, and a cloud that does not know them ignores them.

use aos_time::Timestamp;
use aos_types::{
    ErrorInfo, NodeId, SubjectId,
    tolerant::{FieldError, Fields, FromJson},
};
use serde_json::Value;

use crate::{
    identity::{self, ItemIdentity, codename_json, subject_json},
    reading::{Element, Named, Reader},
    writing::{Out, ToJson, bounded_text, words},
};

/// Longest text of one reason, in characters.
const MAX_REASON_CHARS: usize = 512;

words! {
    /// Where an update stands.
    UpdateStage = "stage of an update" {
        /// No update is under way.
        None = "none",
        /// Blobs are fetched and verified.
        Downloading = "downloading",
        /// Everything is here; gates are asked.
        Pending = "pending",
        /// Node states, unit configuration, images to the Nodes.
        Installing = "installing",
        /// The Nodes take over their lists.
        Launching = "launching",
        /// Changed instances become active.
        WaitingActive = "waitingActive",
        /// The new set becomes the committed one.
        Finalizing = "finalizing",
    }

    /// A part of an update that has a gate of its own.
    UpdatePart = "part of an update" {
        /// Services, unit configuration, Node states.
        Software = "software",
        /// Components.
        Firmware = "firmware",
    }
}

/// What one part of an update waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpdateWait {
    /// Which part.
    pub part: UpdatePart,
    /// For people.
    pub reason: String,
    /// How long it may wait.
    pub until: Option<Timestamp>,
}

/// An update, or the way back from one, that has failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpdateFailure {
    /// In which stage.
    pub stage: UpdateStage,
    /// When.
    pub at: Timestamp,
    /// Why.
    pub error: Option<ErrorInfo>,
    /// How often it was tried.
    pub attempts: u32,
    /// When it is tried again; `None`: not by itself, or it is being tried.
    pub next_try: Option<Timestamp>,
}

/// Where the update of a Unit stands, why the last one failed, and what keeps the committed set from coming back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpdateStatus {
    /// Where it stands.
    pub stage: UpdateStage,
    /// It leads back to the committed set.
    pub goes_back: bool,
    /// What its parts wait for.
    pub waits: Vec<UpdateWait>,
    /// Why the last update did not happen; there until one succeeds.
    pub failure: Option<UpdateFailure>,
    /// The committed set could not be brought back; there until it is, or another one is committed.
    pub rollback: Option<UpdateFailure>,
}

impl FromJson for UpdateWait {
    fn from_json(value: &Value) -> Result<Self, FieldError> {
        let fields = Fields::of(value)?;
        Ok(Self {
            part: fields.req("part")?,
            reason: reason(&fields)?,
            until: fields.opt("until")?,
        })
    }
}

impl ToJson for UpdateWait {
    fn to_json(&self) -> Value {
        let out = Out::new()
            .put("part", self.part.as_str())
            .put("reason", bounded_text(&self.reason, MAX_REASON_CHARS));
        time(out, "until", self.until).into()
    }
}

impl FromJson for UpdateFailure {
    fn from_json(value: &Value) -> Result<Self, FieldError> {
        let fields = Fields::of(value)?;
        Ok(Self {
            stage: fields.req("stage")?,
            at: fields.req("at")?,
            error: fields
                .opt::<ErrorInfo>("errorInfo")?
                .filter(|error| *error != ErrorInfo::default()),
            attempts: fields.or_default("attempts")?,
            next_try: fields.opt("nextTry")?,
        })
    }
}

impl ToJson for UpdateFailure {
    fn to_json(&self) -> Value {
        let out = Out::new()
            .put("stage", self.stage.as_str())
            .time("at", self.at)
            .put("attempts", self.attempts)
            .error(self.error.as_ref());
        time(out, "nextTry", self.next_try).into()
    }
}

impl FromJson for UpdateStatus {
    fn from_json(value: &Value) -> Result<Self, FieldError> {
        let fields = Fields::of(value)?;
        Ok(Self {
            stage: fields.req("stage")?,
            goes_back: fields.or_default("goesBack")?,
            waits: fields.or_default("waits")?,
            failure: fields.opt("failure")?,
            rollback: fields.opt("rollback")?,
        })
    }
}

impl ToJson for UpdateStatus {
    fn to_json(&self) -> Value {
        Out::new()
            .put("stage", self.stage.as_str())
            .opt("goesBack", self.goes_back.then_some(true))
            .filled_list("waits", &self.waits)
            .opt("failure", self.failure.as_ref().map(ToJson::to_json))
            .opt("rollback", self.rollback.as_ref().map(ToJson::to_json))
            .into()
    }
}

/// A Node that cannot be given an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExcludedNode {
    /// Which.
    pub node: NodeId,
    /// The rule that stopped it: a stable word.
    pub rule: String,
    /// What the rule found, for people.
    pub text: String,
}

/// An instance that has no place, or not the one it might have had, as the Unit's scheduler decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacementStatus {
    /// The item.
    pub item: ItemIdentity,
    /// For whom.
    pub subject: SubjectId,
    /// From 0.
    pub index: u64,
    /// Where it is; `None` if it has no place.
    pub node: Option<NodeId>,
    /// For people.
    pub reason: String,
    /// The Nodes that were not taken, some of them if there are many.
    pub excluded: Vec<ExcludedNode>,
}

impl Element for ExcludedNode {
    fn read(value: &Value, _: &mut Reader<'_>) -> Result<Self, FieldError> {
        let fields = Fields::of(value)?;
        Ok(Self {
            node: identity::node(&fields, "node")?,
            rule: text(&fields, "rule", 64)?,
            text: text(&fields, "text", MAX_REASON_CHARS)?,
        })
    }
}

impl ToJson for ExcludedNode {
    fn to_json(&self) -> Value {
        Out::new()
            .put("node", codename_json(self.node.as_str()))
            .put("rule", bounded_text(&self.rule, 64))
            .put("text", bounded_text(&self.text, MAX_REASON_CHARS))
            .into()
    }
}

impl Element for PlacementStatus {
    fn read(value: &Value, reader: &mut Reader<'_>) -> Result<Self, FieldError> {
        let fields = Fields::of(value)?;
        Ok(Self {
            item: fields.req("item")?,
            subject: identity::subject(&fields, "subject")?,
            index: fields.req("instance")?,
            node: fields
                .get("node")
                .map(|_| identity::node(&fields, "node"))
                .transpose()?,
            reason: reason(&fields)?,
            excluded: reader.list_or_empty(&fields, "excluded"),
        })
    }

    fn named(fields: Fields<'_>) -> Option<Named> {
        Some(Named::Instances {
            item: identity::item(&fields, "item").ok()?,
            subject: identity::subject(&fields, "subject").ok(),
        })
    }
}

impl ToJson for PlacementStatus {
    fn to_json(&self) -> Value {
        let node = self.node.as_ref();
        Out::new()
            .json("item", &self.item)
            .put(
                "subject",
                subject_json(&self.subject, self.item.preinstalled),
            )
            .put("instance", self.index)
            .opt("node", node.map(|node| codename_json(node.as_str())))
            .put("reason", bounded_text(&self.reason, MAX_REASON_CHARS))
            .filled_list("excluded", &self.excluded)
            .into()
    }
}

fn time(out: Out, key: &str, at: Option<Timestamp>) -> Out {
    match at {
        Some(at) => out.time(key, at),
        None => out,
    }
}

fn reason(fields: &Fields<'_>) -> Result<String, FieldError> {
    text(fields, "reason", MAX_REASON_CHARS)
}

/// What comes is shown to people and stored: it is cut to what we write ourselves.
fn text(fields: &Fields<'_>, key: &str, chars: usize) -> Result<String, FieldError> {
    let text: String = fields.or_default(key)?;
    Ok(text.chars().take(chars).collect())
}
