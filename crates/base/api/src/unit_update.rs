use aos_time::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::ReportedError;

/// The stage of an update on a Unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum UpdateStage {
    /// No update is under way.
    None,
    /// Blobs are fetched and verified.
    Downloading,
    /// Everything is there; gates are asked.
    Pending,
    /// Node states, unit configuration, images to the Nodes.
    Installing,
    /// The Nodes take over what they are to run.
    Launching,
    /// Changed instances become active.
    WaitingActive,
    /// What runs becomes the committed set.
    Finalizing,
}

/// A part of an update with a gate of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum UpdatePart {
    /// Services, unit configuration, Node states.
    Software,
    /// Components.
    Firmware,
}

/// What one part of an update waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UpdateWait {
    /// Which part.
    pub part: UpdatePart,
    /// For people.
    pub reason: String,
    /// How long it may wait.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub until: Option<Timestamp>,
}

/// An update, or the way back from one, that has failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UpdateFailure {
    /// In which stage.
    pub stage: UpdateStage,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Why.
    pub error: Option<ReportedError>,
    /// How often it was tried.
    pub attempts: u32,
    /// When it is tried again; none: not by itself, or it is being tried.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_try: Option<Timestamp>,
}

/// How far the downloads of an update are, added up over the blobs that the Unit told of so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UnitDownload {
    /// Bytes that are on the Unit.
    pub bytes_here: u64,
    /// Bytes of these blobs in all.
    pub bytes_total: u64,
    /// Blobs the Unit told of.
    pub blobs: u64,
    /// Of them, there whole.
    pub blobs_here: u64,
    /// What broke one of them off, until it goes on.
    pub hindrance: Option<String>,
}

impl UnitDownload {
    /// Whole per cent of the bytes, 100 only when nothing is left.
    pub const fn percent(&self) -> u64 {
        match self.bytes_total {
            0 => 100,
            total => (self.bytes_here as u128 * 100 / total as u128) as u64,
        }
    }

    /// For people: how much of what is here, and what hinders the rest.
    pub fn text(&self) -> String {
        let hindrance = self
            .hindrance
            .as_ref()
            .map_or_else(String::new, |why| format!("; broke off: {why}"));
        format!(
            "{} % of {:.1} MB{hindrance}",
            self.percent(),
            self.bytes_total as f64 / 1e6
        )
    }
}

/// Where the update of a Unit stands, as the Unit itself says. It is there as long as it is true.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UnitUpdate {
    /// Its stage.
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

impl UpdateFailure {
    fn text(&self, what: &str) -> String {
        let why = self.error.as_ref().map_or("", |error| &error.message);
        let why = if why.is_empty() { "" } else { ": " }.to_owned() + why;
        let next = self
            .next_try
            .map_or_else(String::new, |at| format!(", tried again at {at}"));
        format!("{what}{why} (attempt {}{next})", self.attempts)
    }
}

impl UnitUpdate {
    /// What is wrong with it or held up, for people.
    pub fn texts(&self) -> Vec<String> {
        let mut texts = Vec::new();
        if let Some(rollback) = &self.rollback {
            texts.push(rollback.text("what ran before could not be brought back"));
        }
        for wait in &self.waits {
            let part = match wait.part {
                UpdatePart::Software => "software",
                UpdatePart::Firmware => "firmware",
            };
            let until = wait
                .until
                .map_or_else(String::new, |at| format!(", until {at} at most"));
            texts.push(format!("the {part} part waits: {}{until}", wait.reason));
        }
        if let Some(failure) = &self.failure {
            texts.push(failure.text("the update did not happen"));
        }
        if self.goes_back {
            texts.push("the Unit goes back to what ran before".to_owned());
        }
        texts
    }
}
