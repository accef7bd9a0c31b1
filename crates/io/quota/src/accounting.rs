use std::path::PathBuf;

use crate::{
    Backend, Bound, Error, Kind, Name, Quota, Space, Usage,
    plain::{self, Tops},
};

/// Plain folders that are measured and not bounded.
#[derive(Debug)]
pub(crate) struct Accounting {
    pub(crate) tops: Tops,
}

impl Quota for Accounting {
    fn backend(&self) -> Backend {
        Backend::Accounting
    }

    fn find(&self, kind: Kind, name: &Name) -> Result<PathBuf, Error> {
        Ok(name.below(self.tops.of(kind)))
    }

    fn make(&self, kind: Kind, name: &Name, bound: Bound) -> Result<PathBuf, Error> {
        let path = self.find(kind, name)?;
        plain::make(&path)?;
        plain::own(&path, bound.uid, bound.gid)?;
        Ok(path)
    }

    fn usage(&self, kind: Kind, name: &Name) -> Result<Usage, Error> {
        Ok(Usage {
            used: plain::measure(&self.find(kind, name)?)?,
            ..Usage::default()
        })
    }

    fn remove(&self, kind: Kind, name: &Name) -> Result<(), Error> {
        plain::remove(self.tops.of(kind), &self.find(kind, name)?)
    }

    fn space(&self) -> Result<Space, Error> {
        self.tops.space()
    }
}
