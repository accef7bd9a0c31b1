use std::{
    fmt,
    path::{Component, Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::Error;

/// How folders are bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// Project quota of the file system.
    Project,
    /// User quota of the file system.
    User,
    /// Subvolumes with qgroups in an image file.
    Btrfs,
    /// Measured, not bounded.
    Accounting,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Project => "project quota",
            Self::User => "user quota",
            Self::Btrfs => "a btrfs image",
            Self::Accounting => "accounting",
        })
    }
}

/// What a folder is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Files of an instance.
    Storage,
    /// The state file of an instance.
    State,
}

impl Kind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Storage, Self::State];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Storage => "storage",
            Self::State => "state",
        })
    }
}

/// The name of a folder: a relative path that leads downwards only.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(PathBuf);

impl Name {
    /// Takes a relative path of at least one part.
    pub fn new(relative: impl AsRef<Path>) -> Result<Self, Error> {
        let relative = relative.as_ref();
        let wrong = || Error::Name {
            name: relative.display().to_string(),
        };
        let mut path = PathBuf::new();
        for part in relative.components() {
            match part {
                Component::Normal(part) if !part.as_encoded_bytes().contains(&0) => path.push(part),
                Component::CurDir => {}
                _ => return Err(wrong()),
            }
        }
        if path.as_os_str().is_empty() {
            return Err(wrong());
        }
        Ok(Self(path))
    }

    pub(crate) fn below(&self, top: &Path) -> PathBuf {
        top.join(&self.0)
    }
}

/// Whose a folder is and how much it may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Bytes; without limit if there are none.
    pub bytes: Option<u64>,
}

/// What a folder holds, in bytes and files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// What is used.
    pub used: u64,
    /// Files and folders there are, if they are counted.
    pub files: u64,
    /// Files and folders there may be; 0 if they are not bounded by themselves.
    pub files_limit: u64,
    /// It is used by the owner's storage and state together.
    pub together: bool,
}

/// What is free for folders, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// For storages.
    pub storage: u64,
    /// For states.
    pub state: u64,
    /// Both are the same room.
    pub shared: bool,
}

/// The disk below a file that all folders are in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Below {
    /// Where the file is.
    pub folder: PathBuf,
    /// Bytes that are free on its disk.
    pub free: u64,
    /// Bytes that the file may still take of it.
    pub growth: u64,
}

/// Folders of instances, each with its limit. Calls block; no folder is changed by two calls at a time.
pub trait Quota: fmt::Debug + Send + Sync {
    /// What stands behind it.
    fn backend(&self) -> Backend;

    /// Where a folder is, or will be once it is made.
    fn find(&self, kind: Kind, name: &Name) -> Result<PathBuf, Error>;

    /// Makes a folder, or takes the one that is there with all that is in it, and gives it its owner and limit. Its
    /// instance does not run.
    fn make(&self, kind: Kind, name: &Name, bound: Bound) -> Result<PathBuf, Error>;

    /// What a folder holds; nothing if there is none.
    fn usage(&self, kind: Kind, name: &Name) -> Result<Usage, Error>;

    /// Removes a folder and its limit. That there is none is fine.
    fn remove(&self, kind: Kind, name: &Name) -> Result<(), Error>;

    /// What is free.
    fn space(&self) -> Result<Space, Error>;

    /// How the disk is on which the file grows that all folders are in; nothing if they are in none.
    fn below(&self) -> Result<Option<Below>, Error> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_downwards_only() {
        let name = Name::new("./item/subject/0").unwrap();
        assert_eq!(
            name.below(Path::new("/top")),
            Path::new("/top/item/subject/0")
        );
        for bad in ["", ".", "../x", "/etc/passwd", "a/../../b", "a\0b"] {
            assert!(Name::new(bad).is_err(), "{bad}");
        }
    }
}
