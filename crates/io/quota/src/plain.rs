//! Plain folders: making, giving to an owner, measuring, removing. Links are never followed.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, lchown},
    path::{Path, PathBuf},
};

use crate::{Error, Kind, Space};

/// The folders above all storages and above all states.
#[derive(Debug, Clone)]
pub(crate) struct Tops {
    pub(crate) storages: PathBuf,
    pub(crate) states: PathBuf,
}

impl Tops {
    pub(crate) fn of(&self, kind: Kind) -> &Path {
        match kind {
            Kind::Storage => &self.storages,
            Kind::State => &self.states,
        }
    }

    pub(crate) fn make(&self) -> Result<(), Error> {
        for kind in Kind::ALL {
            let top = self.of(kind);
            folders(top).map_err(Error::file("make", top))?;
        }
        Ok(())
    }

    pub(crate) fn space(&self) -> Result<Space, Error> {
        self.make()?;
        let device = |path: &Path| {
            fs::metadata(path)
                .map(|facts| facts.dev())
                .map_err(Error::file("look at", path))
        };
        Ok(Space {
            storage: free(&self.storages)?,
            state: free(&self.states)?,
            shared: device(&self.storages)? == device(&self.states)?,
        })
    }
}

/// What is free on the file system of a folder.
pub(crate) fn free(path: &Path) -> Result<u64, Error> {
    let facts =
        rustix::fs::statvfs(path).map_err(|error| Error::file("measure", path)(error.into()))?;
    Ok(facts.f_bavail.saturating_mul(facts.f_frsize))
}

/// Folders on the way belong to us and let instances through only by their mounts.
pub(crate) fn folders(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}

/// Makes a folder with those above it; whether it is new.
pub(crate) fn make(path: &Path) -> Result<bool, Error> {
    let made = || -> io::Result<bool> {
        if let Some(parent) = path.parent() {
            folders(parent)?;
        }
        match fs::DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        if !fs::symlink_metadata(path)?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(false)
    };
    made().map_err(Error::file("make", path))
}

/// Gives a folder with all that is in it to its owner, if it is not the owner's yet.
pub(crate) fn own(path: &Path, uid: u32, gid: u32) -> Result<(), Error> {
    let facts = fs::symlink_metadata(path).map_err(Error::file("look at", path))?;
    if (facts.uid(), facts.gid(), facts.mode() & 0o7777) == (uid, gid, 0o700) {
        return Ok(());
    }
    // The folder itself last: what was begun and not ended is begun again.
    below(path, &mut |path, _| lchown(path, Some(uid), Some(gid)))
        .and_then(|()| lchown(path, Some(uid), Some(gid)))
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o700)))
        .map_err(Error::file("give to its owner", path))
}

/// Calls `each` with all that is below a folder.
pub(crate) fn below(
    top: &Path,
    each: &mut dyn FnMut(&Path, &fs::Metadata) -> io::Result<()>,
) -> io::Result<()> {
    let mut queue = vec![top.to_path_buf()];
    while let Some(folder) = queue.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let (path, facts) = (entry.path(), entry.metadata()?);
            each(&path, &facts)?;
            if facts.is_dir() {
                queue.push(path);
            }
        }
    }
    Ok(())
}

/// The bytes that a folder takes on the disk. Files that go meanwhile are not counted.
pub(crate) fn measure(path: &Path) -> Result<u64, Error> {
    let mut used = 0u64;
    let mut queue = vec![path.to_path_buf()];
    while let Some(folder) = queue.pop() {
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries.map_err(Error::file("measure", &folder))?,
        };
        for entry in entries.flatten() {
            let Ok(facts) = entry.metadata() else {
                continue;
            };
            used = used.saturating_add(facts.blocks().saturating_mul(512));
            if facts.is_dir() {
                queue.push(entry.path());
            }
        }
    }
    Ok(used)
}

/// Removes a folder, and folders above it up to `top` that are empty then.
pub(crate) fn remove(top: &Path, path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Error::file("remove", path)(error));
        }
        _ => {}
    }
    prune(top, path);
    Ok(())
}

/// Removes empty folders above `path`, below `top`. Others are in use.
pub(crate) fn prune(top: &Path, path: &Path) {
    for above in path.ancestors().skip(1).take_while(|above| *above != top) {
        if fs::remove_dir(above).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_empty_folders_go_with_the_last_one() {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path().join("storages");
        for index in ["0", "1"] {
            make(&top.join("web/s").join(index)).unwrap();
        }
        remove(&top, &top.join("web/s/0")).unwrap();
        assert!(top.join("web/s/1").is_dir());
        remove(&top, &top.join("web/s/1")).unwrap();
        remove(&top, &top.join("web/s/1")).unwrap();
        assert!(!top.join("web").exists() && top.is_dir());
    }
}
