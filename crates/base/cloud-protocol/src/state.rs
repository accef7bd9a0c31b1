use aos_types::{
    InstanceIdent,
    tolerant::{FieldError, Fields},
};

use crate::{
    envelope::Data,
    identity::{self, WithInstance},
    reading::Reader,
    writing::{Out, words},
};

words! {
    /// What the cloud says to a new state.
    StateResult = "state result" {
        /// Kept.
        Accepted = "accepted",
        /// Not kept: the Unit asks for the last good one.
        Rejected = "rejected",
    }
}

/// An instance wrote a new state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewState {
    /// Which instance.
    pub instance: InstanceIdent,
    /// Lower-case hex of the state's SHA3-224.
    pub checksum: String,
    /// The state file's text.
    pub state: String,
}

/// The state an instance is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpdateState {
    /// Which instance.
    pub instance: InstanceIdent,
    /// Lower-case hex of the state's SHA3-224.
    pub checksum: String,
    /// The state file's text.
    pub state: String,
}

/// Asks for an instance's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateRequest {
    /// Which instance.
    pub instance: InstanceIdent,
    /// The one its item came with, not the last one accepted.
    pub default: bool,
}

/// What the cloud says to a new state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateAcceptance {
    /// Which instance.
    pub instance: InstanceIdent,
    /// Of which state.
    pub checksum: String,
    /// Accepted or rejected.
    pub result: StateResult,
    /// Why rejected.
    pub reason: String,
}

impl Data for NewState {
    fn read(fields: Fields<'_>, _: &mut Reader<'_>) -> Result<Self, FieldError> {
        Ok(Self {
            instance: identity::instance(&fields)?,
            checksum: fields.req_any(&["stateChecksum", "checksum"])?,
            state: fields.or_default("state")?,
        })
    }

    fn write(&self, out: Out) -> Out {
        out.instance(&self.instance, "subject")
            .put("stateChecksum", self.checksum.as_str())
            .put("state", self.state.as_str())
    }
}

impl Data for UpdateState {
    fn read(fields: Fields<'_>, _: &mut Reader<'_>) -> Result<Self, FieldError> {
        Ok(Self {
            instance: identity::instance(&fields)?,
            checksum: fields.req_any(&["stateChecksum", "checksum"])?,
            state: fields.req("state")?,
        })
    }

    fn write(&self, out: Out) -> Out {
        out.instance(&self.instance, "subject")
            .put("stateChecksum", self.checksum.as_str())
            .put("state", self.state.as_str())
    }
}

impl Data for StateRequest {
    fn read(fields: Fields<'_>, _: &mut Reader<'_>) -> Result<Self, FieldError> {
        Ok(Self {
            instance: identity::instance(&fields)?,
            default: fields.or_default("default")?,
        })
    }

    fn write(&self, out: Out) -> Out {
        out.instance(&self.instance, "subject")
            .put("default", self.default)
    }
}

impl Data for StateAcceptance {
    fn read(fields: Fields<'_>, _: &mut Reader<'_>) -> Result<Self, FieldError> {
        Ok(Self {
            instance: identity::instance(&fields)?,
            checksum: fields.req_any(&["checksum", "stateChecksum"])?,
            result: fields.req("result")?,
            reason: fields.or_default("reason")?,
        })
    }

    fn write(&self, out: Out) -> Out {
        out.instance(&self.instance, "subject")
            .put("checksum", self.checksum.as_str())
            .put("result", self.result.as_str())
            .put("reason", self.reason.as_str())
    }
}
