use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, File},
    io::{self, Read, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use aos_types::Digest;
use tokio_util::sync::CancellationToken;

use super::{Error, Flavour, Limits, extract, meter::Meter, room::Room, seal};
use crate::{
    blob::{BlobStore, sync_folder},
    graph::{Layer, LayerKind},
    tree,
};

const NEW: &str = ".new-";
const OLD: &str = ".old-";
const ASIDE: &str = ".aside-";

/// Unpacked layers, each complete or absent.
///
/// ```text
/// <root>/layers/sha256/<name>/layer/    the files
///                            /digest    the tree digest
///                            /seal      a digest of all but the content of files
///                            /size      bytes of all files
/// ```
///
/// The name is the diff id, if that is OCI's: the digest of the tar says all there is to say. A tree digest does not tell
/// layers apart that differ in links, modes or owners, so the digest of the packed layer stands behind it.
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

    /// The names under which a layer may lie here.
    pub fn names(layer: &Layer) -> [String; 2] {
        let diff_id = layer.diff_id.hex();
        let with_blob = format!("{diff_id}-{}", layer.descriptor.digest.hex());
        [diff_id, with_blob]
    }

    fn place(&self, layer: &Layer) -> Result<Option<PathBuf>, Error> {
        for name in Self::names(layer) {
            let place = self.layers.join(name);
            match fs::symlink_metadata(place.join("size")) {
                Ok(_) => return Ok(Some(place)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(Error::io("look at", place, e)),
            }
        }
        Ok(None)
    }

    /// The layer, if it is unpacked.
    pub fn get(&self, layer: &Layer) -> Result<Option<UnpackedLayer>, Error> {
        let Some(place) = self.place(layer)? else {
            return Ok(None);
        };
        let size = place.join("size");
        let text = fs::read_to_string(&size).map_err(|e| Error::io("read", &size, e))?;
        Ok(Some(UnpackedLayer {
            path: place.join("layer"),
            size: text.trim().parse().unwrap_or_default(),
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
        if let Some(there) = self.get(layer)? {
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
        let packed = blobs.open_blob(&layer.descriptor.digest)?;
        let bytes = packed
            .metadata()
            .map_err(|e| Error::io("look at the packed layer of", &files, e))?
            .len();
        let room = Room::find(&self.limits, &files, bytes);
        let mut blob = Meter::new(packed, u64::MAX, stop);
        let extracted = extract(
            blob.by_ref(),
            compression,
            &files,
            Flavour::Layer,
            &room.limits,
            stop,
        )
        .map_err(|error| room.explain(error))?;
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
        write_small(&fresh.path().join("seal"), &seal::seal(&files)?.to_string())?;
        let [plain, with_blob] = Self::names(layer);
        let name = if layer.diff_id == extracted.tar {
            plain
        } else {
            with_blob
        };
        let place = self.layers.join(name);
        self.publish(fresh, &place)?;
        self.get(layer)?.ok_or_else(|| {
            Error::io(
                "find the unpacked layer",
                place,
                io::ErrorKind::NotFound.into(),
            )
        })
    }

    /// Flushes the whole folder and gives it its name.
    fn publish(&self, fresh: tempfile::TempDir, place: &Path) -> Result<(), Error> {
        File::open(fresh.path())
            .and_then(|dir| rustix::fs::syncfs(&dir).map_err(io::Error::from))
            .map_err(|e| Error::io("flush", fresh.path(), e))?;
        match fs::rename(fresh.path(), place) {
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
            Err(e) => Err(Error::io("rename into place", place, e)),
        }
    }

    /// Whether links, modes, owners, sizes, times and attributes of a layer are as they were when it was unpacked. Quick:
    /// no file is read. One that is not here is not intact; one that was unpacked by an older version counts as intact.
    pub fn looks_intact(&self, layer: &Layer) -> Result<bool, Error> {
        let Some(place) = self.place(layer)? else {
            return Ok(false);
        };
        match fs::read_to_string(place.join("seal")) {
            Ok(text) => Ok(text.trim() == seal::seal(&place.join("layer"))?.to_string()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(e) => Err(Error::io("read", place.join("seal"), e)),
        }
    }

    /// [`looks_intact`](Self::looks_intact), and all files are read again and compared with the digest of when they were
    /// unpacked; a layer without a tree digest counts as equal.
    pub fn is_intact(&self, layer: &Layer) -> Result<bool, Error> {
        let Some(place) = self.place(layer)? else {
            return Ok(false);
        };
        if !self.looks_intact(layer)? {
            return Ok(false);
        }
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
    pub fn remove(&self, layer: &Layer) -> Result<bool, Error> {
        let mut gone = false;
        for name in Self::names(layer) {
            gone |= self.remove_named(&name)?;
        }
        Ok(gone)
    }

    fn remove_named(&self, name: &str) -> Result<bool, Error> {
        let place = self.layers.join(name);
        let aside = self.layers.join(format!("{OLD}{name}"));
        match fs::rename(&place, &aside) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(Error::io("rename", &place, e)),
        }
        fs::remove_dir_all(&aside).map_err(|e| Error::io("remove", &aside, e))?;
        Ok(true)
    }

    /// Puts a layer out of the way without touching its files, as something that runs still has them mounted. `mark` says
    /// when; it is given back by [`aside`](Self::aside).
    pub fn set_aside(&self, layer: &Layer, mark: &str) -> Result<(), Error> {
        for name in Self::names(layer) {
            let place = self.layers.join(&name);
            let aside = self.layers.join(format!("{ASIDE}{mark}-{name}"));
            match fs::rename(&place, &aside) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(Error::io("rename", &place, e)),
            }
        }
        sync_folder(&self.layers).map_err(Error::Blob)
    }

    /// The layers that were put out of the way, each with the mark and its name.
    pub fn aside(&self) -> Result<Vec<(String, String)>, Error> {
        let entries = fs::read_dir(&self.layers).map_err(|e| Error::io("list", &self.layers, e))?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut found: Vec<(String, String)> = names
            .filter_map(|name| {
                let (mark, name) = name.strip_prefix(ASIDE)?.split_once('-')?;
                Some((mark.to_owned(), name.to_owned()))
            })
            .collect();
        found.sort();
        Ok(found)
    }

    /// Removes a layer that was put out of the way.
    pub fn remove_aside(&self, mark: &str, name: &str) -> Result<(), Error> {
        let aside = self.layers.join(format!("{ASIDE}{mark}-{name}"));
        match fs::remove_dir_all(&aside) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", &aside, e)),
            _ => Ok(()),
        }
    }

    /// The names of all unpacked layers.
    pub fn list(&self) -> Result<Vec<String>, Error> {
        let mut found: Vec<String> = fs::read_dir(&self.layers)
            .map_err(|e| Error::io("list", &self.layers, e))?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| !name.starts_with('.'))
            .collect();
        found.sort();
        Ok(found)
    }

    /// Removes every layer whose name is not in `keep`; how many went.
    pub fn collect(&self, keep: &BTreeSet<String>) -> Result<usize, Error> {
        let mut gone = 0;
        for name in self.list()? {
            if !keep.contains(&name) && self.remove_named(&name)? {
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
