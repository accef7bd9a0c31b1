use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, File},
    io::{self, Read, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use aos_types::Digest;
use tokio_util::sync::CancellationToken;

use super::{Error, Flavour, Limits, extract, meter::Meter};
use crate::{
    blob::{BlobStore, sync_folder},
    graph::{Layer, LayerKind},
    tree,
};

const NEW: &str = ".new-";
const OLD: &str = ".old-";

/// Unpacked layers by diff id, each complete or absent.
///
/// ```text
/// <root>/layers/sha256/<diff id>/layer/    the files
///                               /digest    the tree digest
///                               /size      bytes of all files
/// ```
///
/// A layer is unpacked beside its place, flushed, and renamed there; the names are AosCore's. All calls block.
#[derive(Debug, Clone)]
pub struct LayerStore {
    layers: PathBuf,
    limits: Limits,
}

/// A layer that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnpackedLayer {
    /// The folder with its files, to be mounted.
    pub path: PathBuf,
    /// Bytes of all files.
    pub size: u64,
}

impl LayerStore {
    /// Opens the store under `root`, making its folder and sweeping what an earlier run left half done.
    pub fn open(root: impl AsRef<Path>, limits: Limits) -> Result<Self, Error> {
        let layers = root.as_ref().join("layers").join("sha256");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&layers)
            .map_err(|e| Error::io("make the folder", &layers, e))?;
        for entry in fs::read_dir(&layers).map_err(|e| Error::io("list", &layers, e))? {
            let entry = entry.map_err(|e| Error::io("list", &layers, e))?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(NEW) || name.starts_with(OLD) {
                fs::remove_dir_all(entry.path())
                    .map_err(|e| Error::io("remove", entry.path(), e))?;
            }
        }
        Ok(Self { layers, limits })
    }

    fn place(&self, diff_id: &Digest) -> PathBuf {
        self.layers.join(diff_id.hex())
    }

    /// The layer, if it is unpacked.
    pub fn get(&self, diff_id: &Digest) -> Result<Option<UnpackedLayer>, Error> {
        let place = self.place(diff_id);
        let size = match fs::read_to_string(place.join("size")) {
            Ok(text) => text.trim().parse().unwrap_or_default(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io("read", place.join("size"), e)),
        };
        Ok(Some(UnpackedLayer {
            path: place.join("layer"),
            size,
        }))
    }

    /// Unpacks a layer whose blob is in `blobs`, unless it is there. The blob is hashed again while it is read, and the
    /// result must carry the layer's diff id, as OCI or as AosCore computes it.
    pub fn unpack(
        &self,
        blobs: &BlobStore,
        layer: &Layer,
        stop: &CancellationToken,
    ) -> Result<UnpackedLayer, Error> {
        if let Some(there) = self.get(&layer.diff_id)? {
            return Ok(there);
        }
        let LayerKind::Tar(compression) = layer.kind() else {
            return Err(Error::NotSupported(layer.kind().to_string()));
        };
        let fresh = tempfile::Builder::new()
            .prefix(NEW)
            .tempdir_in(&self.layers)
            .map_err(|e| Error::io("make a folder in", &self.layers, e))?;
        let files = fresh.path().join("layer");
        DirBuilder::new()
            .mode(0o755)
            .create(&files)
            .map_err(|e| Error::io("make the folder", &files, e))?;
        let mut blob = Meter::new(blobs.open_blob(&layer.descriptor.digest)?, u64::MAX, stop);
        let extracted = extract(
            blob.by_ref(),
            compression,
            &files,
            Flavour::Layer,
            &self.limits,
            stop,
        )?;
        let found = blob.finish().map_err(super::extract::damaged)?;
        if found != layer.descriptor.digest {
            return Err(Error::WrongBlob {
                expected: layer.descriptor.digest,
                found,
            });
        }
        if layer.diff_id != extracted.tar && Some(layer.diff_id) != extracted.tree {
            return Err(Error::WrongDiffId {
                expected: layer.diff_id,
                tar: extracted.tar,
                tree: extracted.tree,
            });
        }
        write_small(
            &fresh.path().join("digest"),
            &extracted
                .tree
                .map(|tree| tree.to_string())
                .unwrap_or_default(),
        )?;
        write_small(&fresh.path().join("size"), &extracted.bytes.to_string())?;
        self.publish(fresh, &layer.diff_id)?;
        self.get(&layer.diff_id)?.ok_or_else(|| {
            Error::io(
                "find the unpacked layer",
                self.place(&layer.diff_id),
                io::ErrorKind::NotFound.into(),
            )
        })
    }

    /// Flushes the whole folder and gives it its name.
    fn publish(&self, fresh: tempfile::TempDir, diff_id: &Digest) -> Result<(), Error> {
        let place = self.place(diff_id);
        File::open(fresh.path())
            .and_then(|dir| rustix::fs::syncfs(&dir).map_err(io::Error::from))
            .map_err(|e| Error::io("flush", fresh.path(), e))?;
        match fs::rename(fresh.path(), &place) {
            Ok(()) => {
                // It has moved: there is nothing left to remove.
                let _moved = fresh.keep();
                sync_folder(&self.layers).map_err(Error::Blob)
            }
            // Somebody else unpacked the same layer meanwhile; ours goes with `fresh`.
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists
                ) =>
            {
                Ok(())
            }
            Err(e) => Err(Error::io("rename into place", &place, e)),
        }
    }

    /// Reads a layer's files again and compares them with the digest of when they were unpacked. Whether they are equal;
    /// a layer without a tree digest counts as equal.
    pub fn is_intact(&self, diff_id: &Digest) -> Result<bool, Error> {
        let place = self.place(diff_id);
        let recorded = fs::read_to_string(place.join("digest"))
            .map_err(|e| Error::io("read", place.join("digest"), e))?;
        let Ok(recorded) = recorded.trim().parse::<Digest>() else {
            return Ok(true);
        };
        match tree::digest_of_folder(&place.join("layer")) {
            Ok(found) => Ok(found == recorded),
            Err(tree::Error::LineBreak { .. }) => Ok(false),
            Err(tree::Error::Io { path, source }) => Err(Error::io("read", path, source)),
        }
    }

    /// Removes a layer. Whether it was there. A half-finished removal is ended when the store is next opened.
    pub fn remove(&self, diff_id: &Digest) -> Result<bool, Error> {
        let place = self.place(diff_id);
        let aside = self.layers.join(format!("{OLD}{}", diff_id.hex()));
        match fs::rename(&place, &aside) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(Error::io("rename", &place, e)),
        }
        fs::remove_dir_all(&aside).map_err(|e| Error::io("remove", &aside, e))?;
        Ok(true)
    }

    /// The diff ids of all unpacked layers.
    pub fn list(&self) -> Result<Vec<Digest>, Error> {
        let mut found: Vec<Digest> = fs::read_dir(&self.layers)
            .map_err(|e| Error::io("list", &self.layers, e))?
            .filter_map(|entry| {
                format!("sha256:{}", entry.ok()?.file_name().to_str()?)
                    .parse()
                    .ok()
            })
            .collect();
        found.sort();
        Ok(found)
    }

    /// Removes every layer that is not in `keep`; how many went.
    pub fn collect(&self, keep: &BTreeSet<Digest>) -> Result<usize, Error> {
        let mut gone = 0;
        for diff_id in self.list()? {
            if !keep.contains(&diff_id) && self.remove(&diff_id)? {
                gone += 1;
            }
        }
        Ok(gone)
    }
}

fn write_small(path: &Path, text: &str) -> Result<(), Error> {
    File::create_new(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|e| Error::io("write", path, e))
}
