use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, lchown},
    path::{Component, Path, PathBuf},
};

use aos_launch::Instance;
use aos_types::InstanceIdent;

/// The name of a state file inside its folder.
const STATE_FILE: &str = "state.dat";

/// Where instances keep what outlives them.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    pub(crate) storages: PathBuf,
    pub(crate) states: PathBuf,
}

impl Places {
    /// Makes the storage folder and the state file of an instance, owned by it. What is there already is kept.
    pub(crate) fn prepare(
        &self,
        instance: &Instance,
    ) -> Result<(Option<PathBuf>, Option<PathBuf>), String> {
        let storage = match instance.storage_path.as_str() {
            "" => None,
            path => {
                let path = beneath(&self.storages, path)?;
                folder(&path, instance).map_err(|error| failed("storage", &path, &error))?;
                Some(path)
            }
        };
        let state = self.state(&instance.state_path)?;
        if let Some(path) = &state {
            state_file(path, instance).map_err(|error| failed("state", path, &error))?;
        }
        Ok((storage, state))
    }

    /// The state file that CM's path means; nothing if the instance has no state.
    pub(crate) fn state(&self, path: &str) -> Result<Option<PathBuf>, String> {
        if path.is_empty() {
            return Ok(None);
        }
        let mut path = beneath(&self.states, path)?;
        // Some CMs name the folder, others the file.
        if path.is_dir() || path.extension().is_none() {
            path.push(STATE_FILE);
        }
        Ok(Some(path))
    }

    /// Gives a state file other content: after a power cut it holds the old or the new. The instance must not run, its
    /// mount would go on showing the old file.
    pub(crate) fn replace_state(path: &Path, content: &[u8], owner: (u32, u32)) -> io::Result<()> {
        use io::Write as _;
        parents(path)?;
        let next = path.with_extension("next");
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&next)?;
        file.write_all(content)?;
        chown(&next, Some(owner.0), Some(owner.1))?;
        file.sync_all()?;
        fs::rename(&next, path)?;
        match path.parent() {
            Some(parent) => fs::File::open(parent)?.sync_all(),
            None => Ok(()),
        }
    }

    /// Removes the storage folder and the state of an instance. That there is none is fine.
    pub(crate) fn remove(&self, ident: &InstanceIdent) -> Result<(), String> {
        let InstanceIdent {
            item,
            subject,
            index,
            ..
        } = ident;
        // CM names them so; ids are single path components.
        let relative = format!("{item}/{subject}/{index}");
        for (what, top) in [("storage", &self.storages), ("state", &self.states)] {
            let path = beneath(top, &relative)?;
            match fs::remove_dir_all(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed(what, &path, &error));
                }
                _ => {}
            }
            // Folders above it that are empty now; others are in use.
            for above in path.ancestors().skip(1).take(2) {
                let _ = fs::remove_dir(above);
            }
        }
        Ok(())
    }

    /// What is free for storages and for states, in bytes, and whether that is the same space; `None` if it cannot be told.
    pub(crate) fn space(&self) -> Option<(u64, u64, bool)> {
        let free = |path: &Path| {
            let facts = rustix::fs::statvfs(path).ok()?;
            Some(facts.f_bavail.saturating_mul(facts.f_frsize))
        };
        let device = |path: &Path| Some(fs::metadata(path).ok()?.dev());
        let shared = device(&self.storages)? == device(&self.states)?;
        Some((free(&self.storages)?, free(&self.states)?, shared))
    }
}

fn failed(what: &str, path: &Path, error: &io::Error) -> String {
    format!("its {what} {} cannot be changed: {error}", path.display())
}

/// A relative path of CM below one of our folders, and nowhere else.
fn beneath(top: &Path, relative: &str) -> Result<PathBuf, String> {
    let path = Path::new(relative);
    let plain = !relative.contains('\0')
        && path
            .components()
            .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if plain {
        Ok(top.join(path))
    } else {
        Err(format!("`{relative}` is no path below {}", top.display()))
    }
}

fn folder(path: &Path, instance: &Instance) -> io::Result<()> {
    parents(path)?;
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        result => result?,
    }
    let facts = fs::symlink_metadata(path)?;
    if !facts.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    if (facts.uid(), facts.gid()) != (instance.uid, instance.gid) {
        hand_over(path, instance.uid, instance.gid)?;
    }
    Ok(())
}

fn state_file(path: &Path, instance: &Instance) -> io::Result<()> {
    parents(path)?;
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

/// Folders on the way belong to us and let instances through only by their mounts.
fn parents(path: &Path) -> io::Result<()> {
    let Some(parent) = path.parent() else {
        return Ok(());
    };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(parent)
}

/// Gives a folder with all that is in it to a new owner, without following links.
fn hand_over(path: &Path, uid: u32, gid: u32) -> io::Result<()> {
    let mut queue = vec![path.to_path_buf()];
    while let Some(path) = queue.pop() {
        lchown(&path, Some(uid), Some(gid))?;
        if fs::symlink_metadata(&path)?.is_dir() {
            for entry in fs::read_dir(&path)? {
                queue.push(entry?.path());
            }
        }
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_cm_stay_below_our_folders() {
        let top = Path::new("/states");
        assert_eq!(
            beneath(top, "item/subject/0/state.dat").unwrap(),
            Path::new("/states/item/subject/0/state.dat")
        );
        for bad in ["../x", "/etc/passwd", "a/../../b", "a\0b"] {
            assert!(beneath(top, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_an_instance_kept_is_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places {
            storages: folder.path().join("storages"),
            states: folder.path().join("states"),
        };
        let kept = |index: u64| places.storages.join(format!("web/s/{index}"));
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
        assert!(!places.storages.join("web").exists());
        assert_eq!(places.space(), None, "there is no folder for states");
        fs::create_dir_all(&places.storages).unwrap();
        fs::create_dir_all(&places.states).unwrap();
        let (storage, _, shared) = places.space().unwrap();
        assert!(storage > 0 && shared);
    }
}
