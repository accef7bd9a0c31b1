//! The digest of an unpacked tree, as AosCore computes it (`docs/protocol/items.md`, tree digest).
//!
//! SHA-256 over one line a regular file, `<sha256 of the file><two spaces><path from the root of the tree>\n`, in the byte
//! order of the paths. Links, folders, modes and owners do not count. AosCore uses it in place of OCI's diff id (the
//! SHA-256 of the uncompressed tar); we write this one and accept either.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use aos_types::Digest;
use sha2::{Digest as _, Sha256};

use crate::blob::hash_reader;

/// Why a tree has no digest.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder could not be read.
    #[error("{path} cannot be read")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A name would break the line format.
    #[error("{path:?} has a line break in its name: rename it")]
    LineBreak {
        /// Which.
        path: PathBuf,
    },
}

/// Collects the regular files of a tree while it is written or read.
#[derive(Debug, Default, Clone)]
pub struct TreeDigest {
    files: BTreeMap<Vec<u8>, Digest>,
    others: usize,
}

impl TreeDigest {
    /// Adds a file: its path from the root of the tree, without a leading slash, and the SHA-256 of its content.
    pub fn add(&mut self, path: &Path, content: Digest) {
        self.files
            .insert(path.as_os_str().as_bytes().to_vec(), content);
    }

    /// Counts something that is there but is not part of the digest.
    pub fn note(&mut self) {
        self.others += 1;
    }

    /// Files added and other things noted.
    pub fn len(&self) -> usize {
        self.files.len() + self.others
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The SHA-256 of a file added before.
    pub fn get(&self, path: &Path) -> Option<Digest> {
        self.files.get(path.as_os_str().as_bytes()).copied()
    }

    /// The digest of the tree; none if a name holds a line break.
    pub fn finish(&self) -> Option<Digest> {
        let mut hasher = Sha256::new();
        for (path, content) in &self.files {
            if path.contains(&b'\n') {
                return None;
            }
            hasher.update(content.hex().as_bytes());
            hasher.update(b"  ");
            hasher.update(path);
            hasher.update(b"\n");
        }
        Some(Digest::from_bytes(hasher.finalize().into()))
    }
}

/// The digest of the tree under `root`, read from disk. Links are not followed.
pub fn digest_of_folder(root: &Path) -> Result<Digest, Error> {
    let mut tree = TreeDigest::default();
    let mut folders = vec![root.to_owned()];
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io { path, source }
    };
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).map_err(failed(&folder))? {
            let entry = entry.map_err(failed(&folder))?;
            let path = entry.path();
            let kind = entry.file_type().map_err(failed(&path))?;
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() {
                let mut file = File::open(&path).map_err(failed(&path))?;
                let (content, _) = hash_reader(&mut file, u64::MAX).map_err(failed(&path))?;
                let relative = path.strip_prefix(root).unwrap_or(&path);
                if relative.as_os_str().as_bytes().contains(&b'\n') {
                    return Err(Error::LineBreak { path });
                }
                tree.add(relative, content);
            }
        }
    }
    tree.finish().ok_or_else(|| Error::LineBreak {
        path: root.to_owned(),
    })
}
