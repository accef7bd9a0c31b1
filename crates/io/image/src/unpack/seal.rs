//! What an unpacked layer looks like from outside: a digest over everything but the content of its files.
//!
//! The tree digest covers content only. Whether a link leads elsewhere, a file has become executable or belongs to somebody
//! else is told by this one, and it is quick: nothing is read but the folders.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

use aos_types::Digest;
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::Error;

/// Longest list of names and longest value of an extended attribute.
const MAX_ATTRIBUTE: usize = 64 << 10;

/// The seal of all that lies in `folder`, itself included.
pub(super) fn seal(folder: &Path) -> Result<Digest, Error> {
    let mut hasher = Sha256::new();
    let mut queue = vec![PathBuf::new()];
    while let Some(name) = queue.pop() {
        let path = folder.join(&name);
        let failed = |source| Error::io("look at", &path, source);
        let facts = fs::symlink_metadata(&path).map_err(failed)?;
        let size = if facts.is_file() { facts.size() } else { 0 };
        field(&mut hasher, name.as_os_str().as_bytes());
        for number in [
            u64::from(facts.mode()),
            u64::from(facts.uid()),
            u64::from(facts.gid()),
            facts.rdev(),
            size,
            facts.mtime().cast_unsigned(),
        ] {
            hasher.update(number.to_be_bytes());
        }
        if facts.is_symlink() {
            field(
                &mut hasher,
                fs::read_link(&path).map_err(failed)?.as_os_str().as_bytes(),
            );
        }
        for (name, value) in attributes(&path).map_err(failed)? {
            field(&mut hasher, name.as_bytes());
            field(&mut hasher, &value);
        }
        if facts.is_dir() {
            let mut inside = fs::read_dir(&path)
                .map_err(failed)?
                .map(|entry| Ok(name.join(entry?.file_name())))
                .collect::<io::Result<Vec<_>>>()
                .map_err(failed)?;
            // The last one is taken first.
            inside.sort_unstable_by(|a, b| b.cmp(a));
            queue.append(&mut inside);
        }
    }
    Ok(Digest::from_bytes(hasher.finalize().into()))
}

/// A length before each text, so that no two lists of them are alike.
fn field(hasher: &mut Sha256, text: &[u8]) {
    hasher.update((text.len() as u64).to_be_bytes());
    hasher.update(text);
}

/// Extended attributes in the order of their names; labels of the Node's own security module are none of the layer's.
fn attributes(path: &Path) -> io::Result<Vec<(OsString, Vec<u8>)>> {
    let mut names = vec![0; 1_024];
    let length = loop {
        match rustix::fs::llistxattr(path, names.as_mut_slice()) {
            Ok(length) => break length,
            Err(Errno::RANGE) if names.len() < MAX_ATTRIBUTE => names.resize(MAX_ATTRIBUTE, 0),
            // A file system without any.
            Err(Errno::NOTSUP) => break 0,
            Err(error) => return Err(error.into()),
        }
    };
    let mut found = Vec::new();
    let list = names.get(..length).unwrap_or_default();
    for name in list
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        if name.starts_with(b"security.") && name != b"security.capability" {
            continue;
        }
        let mut value = vec![0; MAX_ATTRIBUTE];
        let length = rustix::fs::lgetxattr(path, name, value.as_mut_slice())?;
        value.truncate(length);
        found.push((OsString::from_vec(name.to_vec()), value));
    }
    found.sort_unstable();
    Ok(found)
}
