use std::{
    fs, io,
    os::unix::fs::{OpenOptionsExt, chown},
    path::{Path, PathBuf},
    sync::Arc,
};

use aos_launch::Instance;
use aos_quota::{Backend, Below, Bound, Kind, Name, Quota, Space, Usage};
use aos_types::{InstanceIdent, Quotas};

/// The name of a state file inside its folder.
const STATE_FILE: &str = "state.dat";
/// Room for a state beside its successor, and for what the file system needs.
const STATE_SPARE: u64 = 64 << 10;

/// Where instances keep what outlives them, within the limits of their items.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    quota: Arc<dyn Quota>,
}

impl Places {
    pub(crate) fn new(quota: Arc<dyn Quota>) -> Self {
        Self { quota }
    }

    pub(crate) fn backend(&self) -> Backend {
        self.quota.backend()
    }

    /// Makes the storage folder and the state file of an instance, owned by it, with the limits of this version of its
    /// item. What is there already is kept.
    pub(crate) fn prepare(
        &self,
        instance: &Instance,
        quotas: &Quotas,
    ) -> Result<(Option<PathBuf>, Option<PathBuf>), String> {
        let bound = |bytes: Option<u64>| Bound {
            uid: instance.uid,
            gid: instance.gid,
            bytes,
        };
        let storage = match instance.storage_path.as_str() {
            "" => None,
            path => {
                let made = Name::new(path).and_then(|name| {
                    self.quota
                        .make(Kind::Storage, &name, bound(limit(quotas.storage_limit)))
                });
                Some(made.map_err(|error| failed(Kind::Storage, &error))?)
            }
        };
        let state = match state_name(&instance.state_path)? {
            None => None,
            Some((name, file)) => {
                let room = limit(quotas.state_limit).map(room_for_state);
                let folder = self
                    .quota
                    .make(Kind::State, &name, bound(room))
                    .map_err(|error| failed(Kind::State, &error))?;
                let path = folder.join(file);
                state_file(&path, instance).map_err(|error| failed(Kind::State, &error))?;
                Some(path)
            }
        };
        Ok((storage, state))
    }

    /// The state file that CM's path means; nothing if the instance has no state.
    pub(crate) fn state(&self, path: &str) -> Result<Option<PathBuf>, String> {
        let Some((name, file)) = state_name(path)? else {
            return Ok(None);
        };
        let folder = self.quota.find(Kind::State, &name);
        Ok(Some(
            folder
                .map_err(|error| failed(Kind::State, &error))?
                .join(file),
        ))
    }

    /// Gives a state file other content: after a power cut it holds the old or the new. The instance must not run, its
    /// mount would go on showing the old file.
    pub(crate) fn replace_state(
        &self,
        path: &str,
        content: &[u8],
        (uid, gid): (u32, u32),
        bytes: Option<u64>,
    ) -> Result<(), String> {
        let Some((name, file)) = state_name(path)? else {
            return Err("it has no state".into());
        };
        let bound = Bound {
            uid,
            gid,
            // Without its item nothing is known of its limit; its next start sets it.
            bytes: bytes.map(room_for_state),
        };
        let folder = self
            .quota
            .make(Kind::State, &name, bound)
            .map_err(|error| failed(Kind::State, &error))?;
        replace(&folder.join(file), content, (uid, gid))
            .map_err(|error| failed(Kind::State, &error))
    }

    /// Removes the storage folder and the state of an instance. That there is none is fine.
    pub(crate) fn remove(&self, ident: &InstanceIdent) -> Result<(), String> {
        let InstanceIdent {
            item,
            subject,
            index,
            ..
        } = ident;
        for kind in Kind::ALL {
            // CM names them so; ids are single path components.
            Name::new(format!("{item}/{subject}/{index}"))
                .and_then(|name| self.quota.remove(kind, &name))
                .map_err(|error| failed(kind, &error))?;
        }
        Ok(())
    }

    /// What the storage of an instance holds; nothing if it has none.
    pub(crate) fn storage_usage(&self, instance: &Instance) -> Result<Option<Usage>, String> {
        if instance.storage_path.is_empty() {
            return Ok(None);
        }
        Name::new(&instance.storage_path)
            .and_then(|name| self.quota.usage(Kind::Storage, &name))
            .map(Some)
            .map_err(|error| failed(Kind::Storage, &error))
    }

    /// How the disk is on which the file grows that all of it is in; nothing if there is no such file.
    pub(crate) fn below(&self) -> Option<Below> {
        self.quota
            .below()
            .inspect_err(
                |error| tracing::warn!(%error, "the disk below the storages cannot be looked at"),
            )
            .ok()
            .flatten()
    }

    /// What the state of an instance holds; nothing if it has none.
    pub(crate) fn state_usage(&self, instance: &Instance) -> Result<Option<Usage>, String> {
        let Some((name, _)) = state_name(&instance.state_path)? else {
            return Ok(None);
        };
        self.quota
            .usage(Kind::State, &name)
            .map(Some)
            .map_err(|error| failed(Kind::State, &error))
    }

    /// What is free for storages and for states; `None` if it cannot be told.
    pub(crate) fn space(&self) -> Option<Space> {
        self.quota
            .space()
            .inspect_err(|error| tracing::warn!(%error, "free space cannot be told"))
            .ok()
    }
}

/// A limit of 0 is what a CM says that knows none; then there is no folder, or it is of no use.
fn limit(bytes: Option<u64>) -> Option<u64> {
    bytes.filter(|&bytes| bytes > 0)
}

/// A state is exchanged for the next by writing that beside it.
fn room_for_state(bytes: u64) -> u64 {
    bytes.saturating_mul(2).saturating_add(STATE_SPARE)
}

fn failed(kind: Kind, error: &dyn std::fmt::Display) -> String {
    format!("its {kind} cannot be had: {error}")
}

/// The folder of a state and the file in it. Some CMs name the folder, others the file.
fn state_name(path: &str) -> Result<Option<(Name, PathBuf)>, String> {
    if path.is_empty() {
        return Ok(None);
    }
    let path = Path::new(path);
    let (folder, file) = match (path.extension(), path.parent(), path.file_name()) {
        (Some(_), Some(parent), Some(file)) => (parent, Path::new(file)),
        _ => (path, Path::new(STATE_FILE)),
    };
    let name = Name::new(folder).map_err(|error| failed(Kind::State, &error))?;
    Ok(Some((name, file.to_path_buf())))
}

fn state_file(path: &Path, instance: &Instance) -> io::Result<()> {
    match fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
    {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        result => {
            result?;
        }
    }
    if !fs::symlink_metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"));
    }
    chown(path, Some(instance.uid), Some(instance.gid))
}

fn replace(path: &Path, content: &[u8], (uid, gid): (u32, u32)) -> io::Result<()> {
    use io::Write as _;
    let next = path.with_extension("next");
    // What the instance may have put there is not written through.
    match fs::remove_file(&next) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&next)?;
    file.write_all(content)?;
    std::os::unix::fs::fchown(&file, Some(uid), Some(gid))?;
    file.sync_all()?;
    fs::rename(&next, path)?;
    match path.parent() {
        Some(parent) => fs::File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(folder: &Path) -> Places {
        let chosen = aos_quota::open(&aos_quota::Setup {
            storages: folder.join("storages"),
            states: folder.join("states"),
            image_dir: folder.join("kept"),
            image_max: None,
            choice: aos_quota::Choice::Accounting,
        });
        Places::new(chosen.unwrap().quota)
    }

    #[test]
    fn a_state_is_named_by_its_folder_or_its_file_and_stays_below_ours() {
        let folder = tempfile::tempdir().unwrap();
        let places = places(folder.path());
        let expected = folder.path().join("states/item/subject/0/state.dat");
        for path in ["item/subject/0/state.dat", "item/subject/0"] {
            assert_eq!(
                places.state(path).unwrap(),
                Some(expected.clone()),
                "{path}"
            );
        }
        assert_eq!(places.state("").unwrap(), None);
        for bad in ["../x", "/etc/passwd", "a/../../b", "a\0b", "state.dat"] {
            assert!(places.state(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_an_instance_kept_is_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let places = places(folder.path());
        let kept = |index: u64| folder.path().join(format!("storages/web/s/{index}"));
        for index in 0..2 {
            fs::create_dir_all(kept(index)).unwrap();
            fs::write(kept(index).join("file"), "data").unwrap();
        }
        let ident =
            |index| InstanceIdent::service("web".parse().unwrap(), "s".parse().unwrap(), index);
        places.remove(&ident(0)).unwrap();
        assert!(!kept(0).exists() && kept(1).exists());
        places.remove(&ident(1)).unwrap();
        places.remove(&ident(1)).unwrap();
        assert!(!folder.path().join("storages/web").exists());
        let space = places.space().unwrap();
        assert!(space.storage > 0 && space.shared);
    }

    #[test]
    fn a_state_that_is_replaced_is_not_written_through_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let places = places(folder.path());
        let own = rustix::process::geteuid().as_raw();
        places
            .replace_state("w/s/0", b"one", (own, own), None)
            .unwrap();
        let victim = folder.path().join("victim");
        fs::write(&victim, "whole").unwrap();
        let state = folder.path().join("states/w/s/0");
        std::os::unix::fs::symlink(&victim, state.join("state.next")).unwrap();
        places
            .replace_state("w/s/0", b"two", (own, own), None)
            .unwrap();
        assert_eq!(fs::read(state.join("state.dat")).unwrap(), b"two");
        assert_eq!(fs::read(victim).unwrap(), b"whole");
    }
}
