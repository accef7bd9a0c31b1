//! One file of the Node holds a btrfs in which every storage and every state is a subvolume with a limit.
//!
//! ```text
//!   <image_dir>/image        the file, sparse: what is removed is given back to the disk
//!   <image_dir>/mount/       where it is mounted
//!     storages/<name>, states/<name>   subvolumes
//!     coming/…                         what is being taken over from plain folders
//!   <image_dir>.made         there was an image: a lost one is not taken for one that was never made
//! ```
//!
//! It is made when the first folder is, mounted at start, and stays mounted: instances outlive their manager. Another
//! process of ours, in another mount namespace, mounts the same loop device.

mod making;
mod mounting;
mod moving;

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use nix::libc;
use rustix::fs::{IFlags, StatVfsMountFlags};

use crate::{
    Backend, Below, Bound, Error, Kind, Name, Quota, Space, Usage,
    plain::{self, Tops},
    sys::btrfs,
};

pub(crate) use making::missing;

/// What an empty subvolume takes.
const EMPTY: u64 = 16 << 10;
/// What the file system sets aside for a change, such as a new file: without it a small folder would be full when empty.
/// In a folder that is full to the brim files can be removed and nothing else.
const SLACK: u64 = 256 << 10;
/// The inode of a subvolume's own folder.
const SUBVOLUME: u64 = 256;

/// The files of an image.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    folder: PathBuf,
}

impl Place {
    pub(crate) fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_path_buf(),
        }
    }

    pub(crate) fn image(&self) -> PathBuf {
        self.folder.join("image")
    }

    fn mount(&self) -> PathBuf {
        self.folder.join("mount")
    }

    fn marker(&self) -> PathBuf {
        self.folder.with_extension("made")
    }

    /// Whether an image was ever made here.
    pub(crate) fn made(&self) -> bool {
        self.marker().exists() || self.image().exists()
    }
}

/// Folders in the image of a Node.
#[derive(Debug)]
pub(crate) struct Image {
    plain: Tops,
    place: Place,
    max: Option<u64>,
    /// Held while the image is made, mounted or grown.
    changing: Mutex<()>,
}

impl Image {
    pub(crate) const fn new(plain: Tops, place: Place, max: Option<u64>) -> Self {
        Self {
            plain,
            place,
            max,
            changing: Mutex::new(()),
        }
    }

    /// Mounts what was made before, and lets it grow with its disk.
    pub(crate) fn wake(&self) -> Result<(), Error> {
        if !self.place.made() {
            return Ok(());
        }
        self.mounted()?;
        self.grow()
    }

    /// Where the image is mounted; mounts it, and makes it if it was never made.
    fn mounted(&self) -> Result<PathBuf, Error> {
        let mount = self.place.mount();
        let _turn = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        if mounting::is_mounted(&mount) {
            return Ok(mount);
        }
        if !self.place.made() {
            making::make(&self.place, self.max)?;
        }
        mounting::mount(&self.place).map_err(|why| self.damaged(why))?;
        Ok(mount)
    }

    fn damaged(&self, why: impl Into<String>) -> Error {
        Error::Damaged {
            image: self.place.image(),
            marker: self.place.marker(),
            why: why.into(),
        }
    }

    /// Lets the image grow if its disk has become freer.
    fn grow(&self) -> Result<(), Error> {
        let _turn = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        making::grow(&self.place, self.max)
    }

    fn top(&self, kind: Kind) -> PathBuf {
        top(&self.place.mount(), kind)
    }

    /// Grows if a new limit does not fit into what is free.
    fn room(&self, mount: &Path, bytes: u64) -> Result<(), Error> {
        let facts = rustix::fs::statvfs(mount)
            .map_err(|error| Error::file("measure", mount)(error.into()))?;
        if facts.f_flag.contains(StatVfsMountFlags::RDONLY) {
            return Err(self.damaged("the kernel has made it read-only after an error"));
        }
        if facts.f_bavail.saturating_mul(facts.f_frsize) < bytes.saturating_add(SLACK) {
            self.grow()?;
        }
        Ok(())
    }

    /// The folder as it is in the image, which is mounted.
    fn subvolume(&self, kind: Kind, name: &Name) -> Result<PathBuf, Error> {
        let path = name.below(&self.top(kind));
        if path.symlink_metadata().is_err() {
            if let Some(parent) = path.parent() {
                plain::folders(parent).map_err(Error::file("make", parent))?;
            }
            let before = name.below(self.plain.of(kind));
            if before
                .symlink_metadata()
                .is_ok_and(|facts| facts.file_type().is_dir())
            {
                moving::take_over(&self.place.mount(), kind, name, &before, &path)?;
            } else {
                create(&path)?;
            }
        }
        Ok(path)
    }
}

/// Above all folders of a kind in a mounted image.
fn top(mount: &Path, kind: Kind) -> PathBuf {
    mount.join(match kind {
        Kind::Storage => "storages",
        Kind::State => "states",
    })
}

/// Makes an empty subvolume.
fn create(path: &Path) -> Result<(), Error> {
    let made = || -> io::Result<()> {
        let (parent, name) = split(path)?;
        match btrfs::create(&File::open(parent)?, name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            result => result?,
        }
        // Written in place: else a change of what is there would need its room a second time, for a moment.
        let folder = File::open(path)?;
        let flags = rustix::fs::ioctl_getflags(&folder)?;
        rustix::fs::ioctl_setflags(&folder, flags | IFlags::NOCOW)?;
        Ok(())
    };
    made().map_err(Error::file("make the subvolume", path))
}

/// Removes a subvolume with all that is in it. That there is none is fine.
fn destroy(path: &Path) -> Result<(), Error> {
    let gone = || -> io::Result<()> {
        let (parent, name) = split(path)?;
        let parent = match File::open(parent) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            parent => parent?,
        };
        match btrfs::destroy(&parent, name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            // Somebody made a subvolume inside, or it is a folder.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::ENOTEMPTY | libc::EINVAL | libc::EPERM)
                ) =>
            {
                fs::remove_dir_all(path)
            }
            result => result,
        }
    };
    gone().map_err(Error::file("remove the subvolume", path))
}

fn split(path: &Path) -> io::Result<(&Path, &OsStr)> {
    path.parent()
        .zip(path.file_name())
        .ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// How the disk is on which an image grows.
fn below(place: &Place) -> Result<Below, Error> {
    let image = place.image();
    let facts = fs::metadata(&image).map_err(Error::file("look at", &image))?;
    Ok(Below {
        free: plain::free(&place.folder)?,
        growth: facts.size().saturating_sub(facts.blocks() * 512),
        folder: place.folder.clone(),
    })
}

impl Quota for Image {
    fn backend(&self) -> Backend {
        Backend::Btrfs
    }

    fn below(&self) -> Result<Option<Below>, Error> {
        match self.place.made() {
            true => below(&self.place).map(Some),
            false => Ok(None),
        }
    }

    fn find(&self, kind: Kind, name: &Name) -> Result<PathBuf, Error> {
        let before = name.below(self.plain.of(kind));
        if !self.place.made() {
            return Ok(before);
        }
        self.mounted()?;
        let path = name.below(&self.top(kind));
        // An instance that was started before there was an image still has its plain folder.
        Ok(if !path.exists() && before.exists() {
            before
        } else {
            path
        })
    }

    fn make(&self, kind: Kind, name: &Name, bound: Bound) -> Result<PathBuf, Error> {
        let mount = self.mounted()?;
        self.room(&mount, bound.bytes.unwrap_or(0))?;
        let path = self.subvolume(kind, name)?;
        // It is complete in the image; what is left of it outside was left by a power cut.
        plain::remove(self.plain.of(kind), &name.below(self.plain.of(kind)))?;
        let limit = || -> io::Result<()> {
            let id = btrfs::subvolume(&File::open(&path)?)?;
            let bytes = bound.bytes.map(|bytes| bytes.saturating_add(EMPTY + SLACK));
            // Asked of the top: the change is charged to whom it is asked of, and a full folder cannot pay.
            btrfs::limit(&File::open(&mount)?, id, bytes)
        };
        limit().map_err(Error::file("limit", &path))?;
        plain::own(&path, bound.uid, bound.gid)?;
        Ok(path)
    }

    fn usage(&self, kind: Kind, name: &Name) -> Result<Usage, Error> {
        let path = self.find(kind, name)?;
        let read = || -> io::Result<Option<u64>> {
            let folder = match File::open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some(0)),
                folder => folder?,
            };
            if !path.starts_with(self.place.mount()) || folder.metadata()?.ino() != SUBVOLUME {
                return Ok(None);
            }
            let id = btrfs::subvolume(&folder)?;
            Ok(btrfs::referenced(&folder, id)?.map(|bytes| bytes.saturating_sub(EMPTY)))
        };
        let used = match read().map_err(Error::file("read the quota of", &path))? {
            Some(used) => used,
            None => plain::measure(&path)?,
        };
        Ok(Usage {
            used,
            ..Usage::default()
        })
    }

    fn remove(&self, kind: Kind, name: &Name) -> Result<(), Error> {
        plain::remove(self.plain.of(kind), &name.below(self.plain.of(kind)))?;
        if !self.place.made() {
            return Ok(());
        }
        let mount = self.mounted()?;
        let (top, path) = (self.top(kind), name.below(&self.top(kind)));
        let id = File::open(&path).and_then(|folder| btrfs::subvolume(&folder));
        destroy(&path)?;
        plain::prune(&top, &path);
        // Newer kernels do it by themselves, older ones once nothing of the subvolume is left; an empty one costs nothing.
        if let (Ok(id), Ok(top)) = (id, File::open(&mount)) {
            let _ = btrfs::forget(&top, id);
        }
        Ok(())
    }

    fn space(&self) -> Result<Space, Error> {
        let free = if self.place.made() {
            // What the image promises, and what the disk below it has.
            plain::free(&self.mounted()?)?.min(plain::free(&self.place.folder)?)
        } else {
            making::size(&self.place, self.max)?
        };
        Ok(Space {
            storage: free,
            state: free,
            shared: true,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_may_still_take_of_its_disk_is_what_it_has_not_taken_yet() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::new(folder.path());
        let file = File::create(place.image()).unwrap();
        file.set_len(8 << 20).unwrap();
        let before = below(&place).unwrap();
        assert_eq!(
            (before.growth, before.folder.as_path()),
            (8 << 20, folder.path())
        );
        io::Write::write_all(&mut &file, &[1; 2 << 20]).unwrap();
        file.sync_all().unwrap();
        let after = below(&place).unwrap();
        assert!(
            after.growth <= 6 << 20 && after.growth > 5 << 20,
            "{after:?}"
        );
        assert!(after.free > 0);
    }
}
