use std::{
    collections::BTreeSet,
    fs::{self, File},
    hash::{DefaultHasher, Hash, Hasher},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use nix::libc;

use crate::{
    Backend, Bound, Error, Kind, Name, Quota, Space, Usage,
    plain::{self, Tops},
    sys::quotactl::{self, Whose},
};

/// The project ids we give; what people and tools number by hand begins at 1.
const FIRST_ID: u32 = 0x4100_0000;
const IDS: u32 = 0x0100_0000;

/// Plain folders, each a project of its own.
#[derive(Debug)]
pub(crate) struct Project {
    tops: Tops,
    /// Ids given since the start: a new one may not be known to the file system yet.
    given: Mutex<BTreeSet<u32>>,
}

impl Project {
    pub(crate) fn new(tops: Tops) -> Self {
        Self {
            tops,
            given: Mutex::default(),
        }
    }

    /// An id that nobody has on this file system. Begins at one that the path suggests, so that it is mostly the first.
    fn fresh(&self, folder: &File, path: &Path) -> Result<u32, Error> {
        let mut hasher = DefaultHasher::new();
        path.hash(&mut hasher);
        let start = (hasher.finish() % u64::from(IDS)) as u32;
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        for step in 0..IDS {
            let id = FIRST_ID + (start + step) % IDS;
            if given.contains(&id) {
                continue;
            }
            let held = quotactl::held(folder, Whose::Project, id)
                .map_err(Error::file("read the quota of", path))?;
            if held == quotactl::Held::default() {
                given.insert(id);
                return Ok(id);
            }
        }
        Err(Error::Unavailable {
            backend: Backend::Project,
            why: "all its ids are in use".into(),
        })
    }

    /// The project of a folder; what was put into it without one gets it too.
    fn project(&self, folder: &File, path: &Path) -> Result<u32, Error> {
        let has = quotactl::project(folder).map_err(Error::file("read the project of", path))?;
        if has != 0 {
            return Ok(has);
        }
        let id = self.fresh(folder, path)?;
        // The folder itself last: what was begun and not ended is begun again.
        plain::below(path, &mut |path, facts| {
            if facts.is_dir() || facts.is_file() {
                quotactl::set_project(&open(path)?, id, facts.is_dir())?;
            }
            Ok(())
        })
        .and_then(|()| quotactl::set_project(folder, id, true))
        .map_err(Error::file("make a project of", path))?;
        Ok(id)
    }
}

/// Opens a file or folder, never through a link, never waiting for a writer.
fn open(path: &Path) -> io::Result<File> {
    File::options()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
}

impl Quota for Project {
    fn backend(&self) -> Backend {
        Backend::Project
    }

    fn find(&self, kind: Kind, name: &Name) -> Result<PathBuf, Error> {
        Ok(name.below(self.tops.of(kind)))
    }

    fn make(&self, kind: Kind, name: &Name, bound: Bound) -> Result<PathBuf, Error> {
        let path = self.find(kind, name)?;
        plain::make(&path)?;
        let folder = open(&path).map_err(Error::file("open", &path))?;
        let id = self.project(&folder, &path)?;
        quotactl::limit(&folder, Whose::Project, id, bound.bytes.unwrap_or(0))
            .map_err(Error::file("limit", &path))?;
        plain::own(&path, bound.uid, bound.gid)?;
        Ok(path)
    }

    fn usage(&self, kind: Kind, name: &Name) -> Result<Usage, Error> {
        let path = self.find(kind, name)?;
        let folder = match open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Usage::default()),
            folder => folder.map_err(Error::file("open", &path))?,
        };
        let read = || -> io::Result<Usage> {
            match quotactl::project(&folder)? {
                0 => Ok(Usage::default()),
                id => Ok(quotactl::held(&folder, Whose::Project, id)?.usage(false)),
            }
        };
        read().map_err(Error::file("read the quota of", &path))
    }

    fn remove(&self, kind: Kind, name: &Name) -> Result<(), Error> {
        let (top, path) = (self.tops.of(kind), self.find(kind, name)?);
        let folder = match open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            folder => folder.map_err(Error::file("open", &path))?,
        };
        let id = quotactl::project(&folder).map_err(Error::file("read the project of", &path))?;
        plain::remove(top, &path)?;
        if id != 0 {
            let top = fs::File::open(top).map_err(Error::file("open", top))?;
            quotactl::limit(&top, Whose::Project, id, 0)
                .map_err(Error::file("forget the limit of", &path))?;
            let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
            given.remove(&id);
        }
        Ok(())
    }

    fn space(&self) -> Result<Space, Error> {
        self.tops.space()
    }
}
