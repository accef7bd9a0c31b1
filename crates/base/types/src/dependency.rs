use std::{fmt, str::FromStr};

use semver::{Comparator, Op, Version, VersionReq};
use serde::Serialize;
use serde_json::Value;

use crate::{
    ItemId,
    tolerant::{FieldError, Fields, FromJson, word},
};

/// Most characters of a name that is shown to people.
const MAX_NAME: usize = 64;

/// What must be so with another item before an instance is started (`docs/protocol/items.md`, dependencies).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Dependency {
    /// The other item.
    pub identifier: ItemId,
    /// What must be so.
    pub condition: Condition,
    /// Which versions of it will do. Ours.
    #[serde(skip_serializing_if = "is_any")]
    pub versions: VersionReq,
    /// Whether pre-releases within `versions` will do. Ours.
    #[serde(skip_serializing_if = "is_false")]
    pub include_pre_release: bool,
    /// What people call the other item. Ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// The condition of a [`Dependency`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    /// The other's process has been started.
    Started,
    /// The other is active; with a health check, after its first success.
    Healthy,
    /// The other has ended with exit code 0.
    Completed,
    /// This one is started before the other, if both are there.
    Before,
    /// This one is started after the other, if both are there, however that went.
    After,
}

impl Condition {
    /// What is meant when nothing is said.
    pub const DEFAULT: Self = Self::Completed;
    /// The words, in the order of the variants.
    pub const WORDS: [&'static str; 5] = ["started", "healthy", "completed", "before", "after"];

    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Healthy => "healthy",
            Self::Completed => "completed",
            Self::Before => "before",
            Self::After => "after",
        }
    }

    /// Whether the other item must be there; `before` and `after` only order what is there.
    pub const fn requires(self) -> bool {
        matches!(self, Self::Started | Self::Healthy | Self::Completed)
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Condition {
    type Err = FieldError;

    fn from_str(word: &str) -> Result<Self, FieldError> {
        match word.to_ascii_lowercase().as_str() {
            "" => Ok(Self::DEFAULT),
            "started" => Ok(Self::Started),
            "healthy" => Ok(Self::Healthy),
            "completed" => Ok(Self::Completed),
            "before" => Ok(Self::Before),
            "after" => Ok(Self::After),
            _ => Err(FieldError::new(format!(
                "must be one of {}",
                Self::WORDS.join(", ")
            ))),
        }
    }
}

impl Dependency {
    /// On any version of an item.
    pub fn on(identifier: ItemId, condition: Condition) -> Self {
        Self {
            identifier,
            condition,
            versions: VersionReq::STAR,
            include_pre_release: false,
            name: None,
        }
    }

    /// What people call the other item.
    pub fn name(&self) -> &str {
        self.name
            .as_deref()
            .unwrap_or_else(|| self.identifier.as_str())
    }

    /// Whether this version of the other item will do.
    pub fn admits(&self, version: &str) -> bool {
        if is_any(&self.versions) {
            return true;
        }
        let Ok(version) = Version::parse(version) else {
            return false;
        };
        if self.versions.matches(&version) {
            return true;
        }
        if version.pre.is_empty() {
            return false;
        }
        let release = Version::new(version.major, version.minor, version.patch);
        // A pre-release of the lowest version of a range lies below the range.
        let lowest = |one: &Comparator| {
            !matches!(one.op, Op::Less | Op::LessEq)
                && one.pre.is_empty()
                && (one.major, one.minor.unwrap_or(0), one.patch.unwrap_or(0))
                    == (release.major, release.minor, release.patch)
        };
        self.include_pre_release
            && self.versions.matches(&release)
            && !self.versions.comparators.iter().any(lowest)
    }
}

fn is_any(versions: &VersionReq) -> bool {
    *versions == VersionReq::STAR
}

fn is_false(value: &bool) -> bool {
    !value
}

impl FromJson for Dependency {
    fn from_json(value: &Value) -> Result<Self, FieldError> {
        let fields = Fields::of(value)?;
        let read = |key: &str, text: Option<&Value>| {
            text.map(word::<VersionReq>)
                .transpose()
                .map_err(|error| error.at(key))
        };
        Ok(Self {
            identifier: fields.req("identifier")?,
            condition: fields
                .get("condition")
                .map(|value| word(value).map_err(|error: FieldError| error.at("condition")))
                .transpose()?
                .unwrap_or(Condition::DEFAULT),
            versions: read("versions", fields.get("versions"))?.unwrap_or(VersionReq::STAR),
            include_pre_release: fields.or_default("includePreRelease")?,
            name: fields
                .opt::<String>("name")?
                .map(|name| name.chars().take(MAX_NAME).collect::<String>())
                .filter(|name| !name.is_empty()),
        })
    }
}

/// When an instance that has ended is started again. Ours; peers ignore it and start it always.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// However it ended: it is a service, which runs.
    #[default]
    Always,
    /// If it failed. With exit code 0 it has completed.
    OnFailure,
    /// Never: it is run once, whatever comes of it.
    Never,
}

impl RestartPolicy {
    /// Whether it is one whose end is its purpose.
    pub const fn ends(self) -> bool {
        !matches!(self, Self::Always)
    }

    pub(crate) fn is_always(&self) -> bool {
        *self == Self::Always
    }
}

impl FromStr for RestartPolicy {
    type Err = FieldError;

    fn from_str(word: &str) -> Result<Self, FieldError> {
        match word.to_ascii_lowercase().as_str() {
            "" | "always" => Ok(Self::Always),
            "on-failure" => Ok(Self::OnFailure),
            "never" => Ok(Self::Never),
            _ => Err(FieldError::new("must be `always`, `on-failure` or `never`")),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn dependency(value: Value) -> Result<Dependency, FieldError> {
        Dependency::from_json(&value)
    }

    #[test]
    fn what_is_not_said_has_a_meaning_and_what_is_wrong_is_named() {
        let short = dependency(json!({"identifier": "db"})).unwrap();
        let id: ItemId = "db".parse().unwrap();
        assert_eq!(short, Dependency::on(id, Condition::Completed));
        assert_eq!(short.name(), "db");
        let written = serde_json::to_value(&short).unwrap();
        assert_eq!(
            written,
            json!({"identifier": "db", "condition": "completed"})
        );
        let full = json!({"identifier": "db", "condition": "HEALTHY", "versions": ">=1.2, <2",
                          "includePreRelease": true, "name": "database"});
        let full = dependency(full).unwrap();
        let again = dependency(serde_json::to_value(&full).unwrap()).unwrap();
        assert_eq!((full.name(), &again), ("database", &full));
        for (bad, text) in [
            (json!({}), "`identifier`: is missing"),
            (json!({"identifier": "../x"}), "`identifier`"),
            (
                json!({"identifier": "x", "condition": "ready"}),
                "`condition`: must be one of",
            ),
            (json!({"identifier": "x", "versions": "new"}), "`versions`"),
            (json!("x"), "expected an object"),
        ] {
            let error = dependency(bad).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }

    #[test]
    fn versions_are_held_against_the_range() {
        for (range, pre, version, wanted) in [
            ("*", false, "1.0.0", true),
            ("*", false, "1.0.0-rc.1", true),
            ("*", false, "seven", true),
            (">=1.2", false, "seven", false),
            (">=1.2", false, "1.2.0", true),
            (">=1.2", false, "1.1.9", false),
            (">=1.2", false, "1.3.0-rc.1", false),
            (">=1.2", true, "1.3.0-rc.1", true),
            (">=1.2", true, "1.2.0-rc.1", false),
            ("^1.2.3", true, "1.2.3-rc.1", false),
            (">=1.2.0-rc.1", false, "1.2.0-rc.2", true),
            (">=1, <2", true, "2.1.0-rc.1", false),
        ] {
            let one = Dependency {
                versions: range.parse().unwrap(),
                include_pre_release: pre,
                ..Dependency::on("db".parse().unwrap(), Condition::Started)
            };
            assert_eq!(one.admits(version), wanted, "{range} {pre} {version}");
        }
    }
}
