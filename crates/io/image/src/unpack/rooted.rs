//! Writes beneath one folder, never through a link.

use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{
        AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
    },
    io::Errno,
};

use super::{Error, Refusal, entry::Item};

/// An open folder with everything beneath it, and nothing else.
pub(super) struct Rooted {
    root: OwnedFd,
    /// The folder used last: archives list neighbours one after the other.
    last: Option<(PathBuf, OwnedFd)>,
    /// Folders made because an entry lies in them; the archive may name them later.
    pub(super) made: u64,
}

/// What a whiteout found in its place.
pub(super) enum Hidden {
    /// Nothing.
    Made,
    /// A folder of this layer.
    Folder,
    /// Something else of this layer.
    Other,
}

const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS);
const FOLDER: OFlags = OFlags::DIRECTORY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

impl Rooted {
    pub(super) fn open(folder: &Path) -> Result<Self, Error> {
        let root = rustix::fs::open(folder, FOLDER, Mode::empty())
            .map_err(|e| Error::io("open", folder, e.into()))?;
        Ok(Self {
            root,
            last: None,
            made: 0,
        })
    }

    /// Opens a folder that an entry lies in, making it (0755) if the archive did not name it.
    fn parent<'p>(&mut self, path: &'p Path) -> Result<(OwnedFd, &'p OsStr), Error> {
        let name = path.file_name().unwrap_or_default();
        let folder = path.parent().unwrap_or(Path::new(""));
        if let Some((_, fd)) = self.last.as_ref().filter(|(at, _)| at == folder) {
            let fd = fd.try_clone().map_err(|e| Error::io("open", folder, e))?;
            return Ok((fd, name));
        }
        let fd = match self.folder(folder) {
            Err(Errno::NOENT) => {
                self.make_all(folder)?;
                self.folder(folder)
            }
            other => other,
        }
        .map_err(|e| refuse_link(path, "open the folder of", e))?;
        self.last = fd.try_clone().ok().map(|copy| (folder.to_owned(), copy));
        Ok((fd, name))
    }

    fn folder(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        rustix::fs::openat2(&self.root, path, FOLDER, Mode::empty(), BENEATH)
    }

    fn make_all(&mut self, folder: &Path) -> Result<(), Error> {
        let mut at = self
            .folder(Path::new(""))
            .map_err(|e| refuse_link(folder, "open", e))?;
        for part in folder.components() {
            match rustix::fs::mkdirat(&at, part.as_os_str(), Mode::from_raw_mode(0o755)) {
                Ok(()) => self.made += 1,
                Err(Errno::EXIST) => {}
                Err(e) => return Err(refuse_link(folder, "make the folder", e)),
            }
            at = rustix::fs::openat2(&at, part.as_os_str(), FOLDER, Mode::empty(), BENEATH)
                .map_err(|e| refuse_link(folder, "open", e))?;
        }
        Ok(())
    }

    /// Makes a folder; one that is there already is fine. Its mode and times are set by [`finish_folder`](Self::finish_folder).
    pub(super) fn make_folder(&mut self, path: &Path) -> Result<(), Error> {
        if path.as_os_str().is_empty() {
            return Ok(());
        }
        let (parent, name) = self.parent(path)?;
        match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) => {
                let stat = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(|e| Error::io("look at", path, e.into()))?;
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                    Ok(())
                } else {
                    Err(refused(path, Refusal::Twice))
                }
            }
            Err(e) => Err(refuse_link(path, "make the folder", e)),
        }
    }

    /// Creates a file that was not there, writable by its owner only.
    pub(super) fn create(&mut self, path: &Path) -> Result<File, Error> {
        let (parent, name) = self.parent(path)?;
        rustix::fs::openat(
            &parent,
            name,
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::from_raw_mode(0o600),
        )
        .map(File::from)
        .map_err(|e| refuse_link(path, "create", e))
    }

    pub(super) fn symbolic_link(&mut self, path: &Path, target: &[u8]) -> Result<(), Error> {
        let (parent, name) = self.parent(path)?;
        rustix::fs::symlinkat(target, &parent, name)
            .map_err(|e| refuse_link(path, "make the link", e))
    }

    pub(super) fn hard_link(&mut self, path: &Path, target: &Path) -> Result<(), Error> {
        let (from, from_name) = self.parent(target)?;
        let (to, to_name) = self.parent(path)?;
        rustix::fs::linkat(&from, from_name, &to, to_name, AtFlags::empty())
            .map_err(|e| refuse_link(path, "make the hard link", e))
    }

    /// Hides `path` of the layers below, unless this one has it.
    pub(super) fn whiteout(&mut self, path: &Path) -> Result<Hidden, Error> {
        let (parent, name) = self.parent(path)?;
        let made = rustix::fs::mknodat(
            &parent,
            name,
            FileType::CharacterDevice,
            Mode::empty(),
            rustix::fs::makedev(0, 0),
        );
        match made {
            Ok(()) => Ok(Hidden::Made),
            Err(Errno::EXIST) => {
                let stat = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(|e| Error::io("look at", path, e.into()))?;
                Ok(match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Directory => Hidden::Folder,
                    _ => Hidden::Other,
                })
            }
            Err(e) => Err(refuse_link(path, "make the whiteout", e)),
        }
    }

    /// Takes a whiteout away that was made here.
    pub(super) fn remove_whiteout(&mut self, path: &Path) -> Result<(), Error> {
        let (parent, name) = self.parent(path)?;
        rustix::fs::unlinkat(&parent, name, AtFlags::empty())
            .map_err(|e| Error::io("take back the whiteout of", path, e.into()))
    }

    /// Hides everything of the layers below `folder`.
    pub(super) fn opaque(&mut self, folder: &Path) -> Result<(), Error> {
        let fd = match self.folder(folder) {
            Err(Errno::NOENT) => {
                self.make_all(folder)?;
                self.folder(folder)
            }
            other => other,
        }
        .map_err(|e| refuse_link(folder, "open", e))?;
        rustix::fs::fsetxattr(&fd, "trusted.overlay.opaque", b"y", XattrFlags::empty())
            .map_err(|e| Error::io("mark as opaque", folder, e.into()))
    }

    /// Owner, mode, attributes and time of an open file.
    pub(super) fn dress(&self, fd: impl AsFd, item: &Item, owners: bool) -> Result<(), Error> {
        let io = |action| {
            let path = item.path.clone();
            move |e: Errno| Error::io(action, path, e.into())
        };
        if owners {
            rustix::fs::fchown(
                &fd,
                Some(Uid::from_raw(item.uid)),
                Some(Gid::from_raw(item.gid)),
            )
            .map_err(io("set the owner of"))?;
            for (name, value) in &item.xattrs {
                rustix::fs::fsetxattr(&fd, name.as_slice(), value, XattrFlags::empty())
                    .map_err(io("set an extended attribute of"))?;
            }
        }
        // After the owner: changing that clears the set-id bits.
        let mode = if owners {
            item.mode
        } else {
            item.mode & 0o755 | 0o600
        };
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode)).map_err(io("set the mode of"))?;
        rustix::fs::futimens(&fd, &times(item.mtime)).map_err(io("set the time of"))
    }

    pub(super) fn dress_link(&mut self, item: &Item, owners: bool) -> Result<(), Error> {
        let (parent, name) = self.parent(&item.path)?;
        let io = |e: Errno| Error::io("set the owner of", &item.path, e.into());
        if owners {
            rustix::fs::chownat(
                &parent,
                name,
                Some(Uid::from_raw(item.uid)),
                Some(Gid::from_raw(item.gid)),
                AtFlags::SYMLINK_NOFOLLOW,
            )
            .map_err(io)?;
        }
        rustix::fs::utimensat(&parent, name, &times(item.mtime), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(io)
    }

    /// Owner, mode and time of a folder, once nothing more is written into it.
    pub(super) fn finish_folder(&self, item: &Item, owners: bool) -> Result<(), Error> {
        let fd = self
            .folder(&item.path)
            .map_err(|e| refuse_link(&item.path, "open", e))?;
        let mut item = Item {
            path: item.path.clone(),
            kind: super::entry::Kind::Folder,
            xattrs: item.xattrs.clone(),
            ..*item
        };
        if !owners {
            item.mode |= 0o700;
        }
        self.dress(&fd, &item, owners)
    }
}

fn times(mtime: i64) -> Timestamps {
    let at = Timespec {
        tv_sec: mtime,
        tv_nsec: 0,
    };
    Timestamps {
        last_access: at,
        last_modification: at,
    }
}

fn refused(path: &Path, refusal: Refusal) -> Error {
    use std::os::unix::ffi::OsStrExt;
    Error::refused(path.as_os_str().as_bytes(), refusal)
}

/// Tells an archive that plays with links from a file system that fails.
fn refuse_link(path: &Path, action: &'static str, error: Errno) -> Error {
    match error {
        Errno::LOOP | Errno::NOTDIR | Errno::XDEV | Errno::MLINK => {
            refused(path, Refusal::ThroughLink)
        }
        Errno::EXIST => refused(path, Refusal::Twice),
        other => Error::io(action, path, io::Error::from(other)),
    }
}
