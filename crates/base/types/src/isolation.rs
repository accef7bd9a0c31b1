//! What an item asks of its isolation beyond the defaults: rights, its root, its user namespace. All keys are ours.

use std::{collections::BTreeSet, fmt, str::FromStr};

use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::tolerant::{FieldError, Fields, FromJson, word};

/// A right that an item may be given. Others are given to nobody: with them an instance could change the Node, see
/// others, or send under another's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Capability {
    /// Write to the audit log.
    AuditWrite,
    /// Change owners of files.
    Chown,
    /// Pass over permissions of files.
    DacOverride,
    /// Act on files of others as if they were its own.
    Fowner,
    /// Keep set-id bits when a file is changed.
    Fsetid,
    /// Lock memory.
    IpcLock,
    /// Signal processes of other users.
    Kill,
    /// Listen on ports below 1024. The only one that is given by default.
    NetBindService,
    /// Give files capabilities.
    Setfcap,
    /// Change groups.
    Setgid,
    /// Hand capabilities on.
    Setpcap,
    /// Change users.
    Setuid,
    /// Change the root folder.
    SysChroot,
    /// Raise priorities.
    SysNice,
}

impl Capability {
    /// All that may be given.
    pub const ALL: [Self; 14] = [
        Self::AuditWrite,
        Self::Chown,
        Self::DacOverride,
        Self::Fowner,
        Self::Fsetid,
        Self::IpcLock,
        Self::Kill,
        Self::NetBindService,
        Self::Setfcap,
        Self::Setgid,
        Self::Setpcap,
        Self::Setuid,
        Self::SysChroot,
        Self::SysNice,
    ];

    /// Its name in capabilities(7), without `CAP_`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AuditWrite => "AUDIT_WRITE",
            Self::Chown => "CHOWN",
            Self::DacOverride => "DAC_OVERRIDE",
            Self::Fowner => "FOWNER",
            Self::Fsetid => "FSETID",
            Self::IpcLock => "IPC_LOCK",
            Self::Kill => "KILL",
            Self::NetBindService => "NET_BIND_SERVICE",
            Self::Setfcap => "SETFCAP",
            Self::Setgid => "SETGID",
            Self::Setpcap => "SETPCAP",
            Self::Setuid => "SETUID",
            Self::SysChroot => "SYS_CHROOT",
            Self::SysNice => "SYS_NICE",
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Capability {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl FromStr for Capability {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, FieldError> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        Self::ALL
            .into_iter()
            .find(|known| known.name() == name)
            .ok_or_else(|| {
                let shown: String = text.chars().take(40).collect();
                let all = Self::ALL.map(Self::name).join(", ");
                FieldError::new(format!(
                    "`{shown}` cannot be given to an item; these can: {all}"
                ))
            })
    }
}

impl FromJson for Capability {
    fn from_json(value: &Value) -> Result<Self, FieldError> {
        word(value)
    }
}

/// What an item changes in the rights it has by default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Capabilities {
    /// Given besides.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub add: BTreeSet<Capability>,
    /// Taken away.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub drop: BTreeSet<Capability>,
}

impl Capabilities {
    /// Nothing is changed.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// What the instance has.
    pub fn granted(&self) -> BTreeSet<Capability> {
        let mut granted = BTreeSet::from([Capability::NetBindService]);
        granted.extend(&self.add);
        granted.retain(|one| !self.drop.contains(one));
        granted
    }
}

impl FromJson for Capabilities {
    fn from_json(value: &Value) -> Result<Self, FieldError> {
        let fields = Fields::of(value)?;
        let set = |key| {
            fields
                .or_default::<Vec<Capability>>(key)
                .map(BTreeSet::from_iter)
        };
        let (add, drop) = (set("add")?, set("drop")?);
        match add.intersection(&drop).next() {
            Some(both) => Err(FieldError::new(format!("{both} is added and dropped")).at("drop")),
            None => Ok(Self { add, drop }),
        }
    }
}

/// Whether an instance may write into its root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RootAccess {
    /// It may; what it writes is gone when it ends.
    #[default]
    Ephemeral,
    /// It may not; storage, state and `/tmp` are what it can write.
    ReadOnly,
}

impl RootAccess {
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl FromStr for RootAccess {
    type Err = FieldError;

    fn from_str(word: &str) -> Result<Self, FieldError> {
        match word.to_ascii_lowercase().as_str() {
            "" | "ephemeral" => Ok(Self::Ephemeral),
            "readonly" => Ok(Self::ReadOnly),
            _ => Err(FieldError::new("expected `ephemeral` or `readonly`")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rights_are_read_in_every_spelling_and_only_from_the_list() {
        let read = |value: Value| Capabilities::from_json(&value);
        let changed = read(json!({"add": ["CAP_CHOWN", "setuid"], "drop": ["NET_BIND_SERVICE"]}));
        assert_eq!(
            changed.unwrap().granted(),
            BTreeSet::from([Capability::Chown, Capability::Setuid])
        );
        assert_eq!(
            Capabilities::default().granted(),
            BTreeSet::from([Capability::NetBindService])
        );
        for (bad, field) in [
            (json!({"add": ["SYS_ADMIN"]}), "`add[0]`"),
            (json!({"add": ["NET_RAW"]}), "`add[0]`"),
            (json!({"add": ["KILL"], "drop": ["cap_kill"]}), "`drop`"),
            (json!({"add": "KILL"}), "`add`"),
        ] {
            let error = read(bad).unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        }
        for one in Capability::ALL {
            assert_eq!(one.name().parse::<Capability>().unwrap(), one);
        }
    }
}
