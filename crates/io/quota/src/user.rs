use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use crate::{
    Backend, Bound, Error, Kind, Name, Quota, Space, Usage,
    plain::{self, Tops},
    sys::quotactl::{self, Whose},
};

/// The limit of each folder by file system, owner and kind: the owner's is their sum.
type Limits = BTreeMap<(u64, u32), BTreeMap<Kind, Option<u64>>>;

/// Plain folders whose owners, one an instance, are limited. What an instance writes elsewhere on the same file system
/// counts too.
#[derive(Debug)]
pub(crate) struct User {
    tops: Tops,
    limits: Mutex<Limits>,
}

impl User {
    pub(crate) fn new(tops: Tops) -> Self {
        Self {
            tops,
            limits: Mutex::default(),
        }
    }

    /// Changes what an owner may hold in a folder of this kind; nothing if there is no such folder any more.
    fn limit(
        &self,
        folder: &File,
        uid: u32,
        kind: Kind,
        bytes: Option<Option<u64>>,
    ) -> io::Result<()> {
        // Root is not limited, and is not an instance's own.
        if uid == 0 {
            return Ok(());
        }
        let device = folder.metadata()?.dev();
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        let own = limits.entry((device, uid)).or_default();
        match bytes {
            Some(bytes) => own.insert(kind, bytes),
            None => own.remove(&kind),
        };
        // One folder without a limit is no limit; so is no folder.
        let sum = own
            .values()
            .try_fold(0u64, |sum, bytes| Some(sum.saturating_add((*bytes)?)));
        if own.is_empty() {
            limits.remove(&(device, uid));
        }
        quotactl::limit(folder, Whose::User, uid, sum.unwrap_or(0))
    }
}

impl Quota for User {
    fn backend(&self) -> Backend {
        Backend::User
    }

    fn find(&self, kind: Kind, name: &Name) -> Result<PathBuf, Error> {
        Ok(name.below(self.tops.of(kind)))
    }

    fn make(&self, kind: Kind, name: &Name, bound: Bound) -> Result<PathBuf, Error> {
        let path = self.find(kind, name)?;
        plain::make(&path)?;
        plain::own(&path, bound.uid, bound.gid)?;
        File::open(&path)
            .and_then(|folder| self.limit(&folder, bound.uid, kind, Some(bound.bytes)))
            .map_err(Error::file("limit", &path))?;
        Ok(path)
    }

    fn usage(&self, kind: Kind, name: &Name) -> Result<Usage, Error> {
        let path = self.find(kind, name)?;
        let read = || -> io::Result<Usage> {
            let folder = File::open(&path)?;
            match folder.metadata()?.uid() {
                0 => Ok(quotactl::Held::default().usage(true)),
                uid => Ok(quotactl::held(&folder, Whose::User, uid)?.usage(true)),
            }
        };
        match read() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Usage::default()),
            usage => usage.map_err(Error::file("read the quota of", &path)),
        }
    }

    fn remove(&self, kind: Kind, name: &Name) -> Result<(), Error> {
        let (top, path) = (self.tops.of(kind), self.find(kind, name)?);
        let owner = match path.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            facts => facts.map_err(Error::file("look at", &path))?.uid(),
        };
        plain::remove(top, &path)?;
        File::open(top)
            .and_then(|top| self.limit(&top, owner, kind, None))
            .map_err(Error::file("forget the limit of", &path))
    }

    fn space(&self) -> Result<Space, Error> {
        self.tops.space()
    }
}
