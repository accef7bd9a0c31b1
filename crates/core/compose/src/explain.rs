use std::fmt;

use aos_types::{ItemId, SubjectId};

/// A rule that an assigned service must pass. The words are stable: UI and command line show them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RuleName {
    /// A version of it can be delivered.
    VersionReady,
    /// An image of that version runs on some Node of the Unit.
    PlatformFits,
    /// Some Node has all labels that are asked for.
    LabelsFit,
    /// It is in the desired state.
    InDesiredState,
}

impl RuleName {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::VersionReady => "version_ready",
            Self::PlatformFits => "platform_fits",
            Self::LabelsFit => "labels_fit",
            Self::InDesiredState => "in_desired_state",
        }
    }
}

impl fmt::Display for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a rule came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It holds.
    Pass,
    /// It does not.
    Fail,
    /// It cannot be told yet, or it will hold by itself.
    Waiting,
}

/// One rule as it was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Which.
    pub name: RuleName,
    /// How it came out.
    pub outcome: Outcome,
    /// What was found.
    pub text: String,
    /// What to do, if it does not hold.
    pub hint: Option<String>,
}

/// The rules of one service for one Subject, in the order they were looked at. After the first that fails, none follows
/// but the last one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceReport {
    /// The service.
    pub service: ItemId,
    /// For whom.
    pub subject: SubjectId,
    /// The version chosen, if one was.
    pub version: Option<String>,
    /// The rules.
    pub rules: Vec<Rule>,
}

impl ServiceReport {
    pub(crate) fn rule(
        &mut self,
        name: RuleName,
        outcome: Outcome,
        text: impl Into<String>,
        hint: Option<&str>,
    ) {
        self.rules.push(Rule {
            name,
            outcome,
            text: text.into(),
            hint: hint.map(str::to_owned),
        });
    }
}
