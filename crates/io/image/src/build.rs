//! Makes images: a deterministic layer from a folder, and the documents around it.
//!
//! The same folder always gives the same layer, byte for byte: names in order, no times, no owners, modes reduced to
//! "may be executed or not". So a version published twice has the same digests, and a Unit fetches only what changed.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Path, PathBuf},
};

use aos_types::{Digest, ItemConfig};
use flate2::{Compression, GzBuilder};
use sha2::{Digest as _, Sha256};

use crate::{
    blob::{self, BlobStore, Stored},
    graph::{Descriptor, ImageConfig, ImageIndex, Manifest, ManifestRef, media_type},
    tree::TreeDigest,
};

/// Why an image was not made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("{path} cannot be read")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something that does not belong into an image.
    #[error("{path} {why}")]
    Refused {
        /// Which.
        path: PathBuf,
        /// Why, and what to do.
        why: &'static str,
    },
    /// The archive could not be written.
    #[error("the layer cannot be written")]
    Write(#[source] io::Error),
    /// The store failed.
    #[error("the image cannot be stored")]
    Store(#[from] blob::Error),
    /// A document could not be written.
    #[error("the {document} cannot be written as JSON")]
    Json {
        /// Which.
        document: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// A layer made from a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltLayer {
    /// The packed layer, as a manifest names it.
    pub descriptor: Descriptor,
    /// AosCore's tree digest, to be used as the diff id.
    pub tree: Digest,
    /// SHA-256 of the uncompressed tar: OCI's diff id.
    pub tar: Digest,
    /// Bytes of all files.
    pub bytes: u64,
}

/// What went into an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// AosCore's tree digest.
    pub tree: Digest,
    /// SHA-256 of the uncompressed tar.
    pub tar: Digest,
    /// Bytes of all files.
    pub bytes: u64,
    /// Files, folders and links.
    pub entries: u64,
}

/// Packs files and folders into a gzipped tar; each source gets the name beside it, and an empty name means the content
/// of a folder itself. Symbolic links are kept as they are. Gives the writer back, flushed but not closed.
pub fn pack<W: Write>(out: W, sources: &[(PathBuf, PathBuf)]) -> Result<(W, Packed), Error> {
    let gzip = GzBuilder::new().mtime(0).write(out, Compression::new(6));
    let mut packer = Packer {
        tar: tar::Builder::new(Hashed {
            inner: gzip,
            hasher: Sha256::new(),
        }),
        tree: TreeDigest::default(),
        bytes: 0,
        entries: 0,
    };
    for (source, name) in sources {
        if name.as_os_str().is_empty() {
            packer.folder(source, name)?;
        } else {
            packer.entry(source, name)?;
        }
    }
    let hashed = packer.tar.into_inner().map_err(Error::Write)?;
    let tar = Digest::from_bytes(hashed.hasher.finalize().into());
    let mut out = hashed.inner.finish().map_err(Error::Write)?;
    out.flush().map_err(Error::Write)?;
    Ok((
        out,
        Packed {
            // Names with a line break were refused on the way.
            tree: packer.tree.finish().unwrap_or(tar),
            tar,
            bytes: packer.bytes,
            entries: packer.entries,
        },
    ))
}

/// Packs the content of `folder` into a gzipped layer in `store`.
pub fn layer(store: &BlobStore, folder: &Path) -> Result<BuiltLayer, Error> {
    let (writer, packed) = pack(store.writer()?, &[(folder.to_owned(), PathBuf::new())])?;
    let stored = writer.finish(None)?;
    Ok(BuiltLayer {
        descriptor: Descriptor {
            media_type: media_type::LAYER_TAR_GZIP.to_owned(),
            digest: stored.digest,
            size: stored.size,
        },
        tree: packed.tree,
        tar: packed.tar,
        bytes: packed.bytes,
    })
}

/// One image of an item: what runs on one platform.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// Platform and process; its diff ids are filled in from the layers.
    pub config: ImageConfig,
    /// Quotas, resources, permissions.
    pub item_config: Option<ItemConfig>,
    /// From the lowest to the highest.
    pub layers: Vec<BuiltLayer>,
}

/// An item whose blobs are all in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltItem {
    /// The image index: the digest that names this version of the item.
    pub index: Descriptor,
    /// Every blob of the item, the index first, each once.
    pub blobs: Vec<Descriptor>,
}

/// Writes the documents of an item around layers that are in the store.
pub fn item(store: &BlobStore, images: &[Image]) -> Result<BuiltItem, Error> {
    let mut blobs = Vec::new();
    let mut manifests = Vec::new();
    for image in images {
        let mut config = image.config.clone();
        config.diff_ids = image.layers.iter().map(|layer| layer.tree).collect();
        let config_type = if config == ImageConfig::default() {
            media_type::EMPTY
        } else {
            media_type::CONFIG
        };
        let manifest = Manifest {
            config: put(store, config_type, &config.to_json())?,
            item_config: match &image.item_config {
                None => None,
                Some(item) => {
                    let json = serde_json::to_vec(item).map_err(|source| Error::Json {
                        document: "item config",
                        source,
                    })?;
                    Some(put(store, media_type::ITEM_CONFIG, &json)?)
                }
            },
            layers: image
                .layers
                .iter()
                .map(|layer| layer.descriptor.clone())
                .collect(),
        };
        let descriptor = put(store, media_type::MANIFEST, &manifest.to_json())?;
        blobs.push(descriptor.clone());
        blobs.extend(manifest.descriptors().cloned());
        manifests.push(ManifestRef {
            descriptor,
            platform: Some(config.platform),
        });
    }
    let index = put(
        store,
        media_type::INDEX,
        &ImageIndex { manifests }.to_json(),
    )?;
    blobs.insert(0, index.clone());
    let mut seen = std::collections::BTreeSet::new();
    blobs.retain(|blob| seen.insert(blob.digest));
    Ok(BuiltItem { index, blobs })
}

fn put(store: &BlobStore, media_type: &str, content: &[u8]) -> Result<Descriptor, Error> {
    let Stored { digest, size } = store.insert_bytes(content)?;
    Ok(Descriptor {
        media_type: media_type.to_owned(),
        digest,
        size,
    })
}

struct Hashed<W> {
    inner: W,
    hasher: Sha256,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hasher.update(bytes.get(..count).unwrap_or_default());
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

struct Packer<W: Write> {
    tar: tar::Builder<W>,
    tree: TreeDigest,
    bytes: u64,
    entries: u64,
}

impl<W: Write> Packer<W> {
    fn folder(&mut self, folder: &Path, inside: &Path) -> Result<(), Error> {
        let failed = |e| read_error(folder, e);
        let mut entries = fs::read_dir(folder)
            .map_err(failed)?
            .collect::<Result<Vec<_>, _>>()
            .map_err(failed)?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            self.entry(&entry.path(), &inside.join(entry.file_name()))?;
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path, name: &Path) -> Result<(), Error> {
        let refuse = |why| {
            Err(Error::Refused {
                path: path.to_owned(),
                why,
            })
        };
        let last = name.file_name().unwrap_or_default();
        if name.as_os_str().as_bytes().contains(&b'\n') {
            return refuse("has a line break in its name: rename it");
        }
        if last.as_bytes().starts_with(b".wh.") {
            return refuse("has a name that means a deletion in a layer: rename it");
        }
        let meta = fs::symlink_metadata(path).map_err(|e| read_error(path, e))?;
        let kind = meta.file_type();
        let mut header = tar::Header::new_gnu();
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(0);
        self.entries += 1;
        if kind.is_dir() {
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(0o755);
            let mut named = name.as_os_str().to_owned();
            named.push("/");
            self.tar
                .append_data(&mut header, &named, io::empty())
                .map_err(Error::Write)?;
            self.folder(path, name)
        } else if kind.is_symlink() {
            let target = fs::read_link(path).map_err(|e| read_error(path, e))?;
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_mode(0o777);
            self.tar
                .append_link(&mut header, name, &target)
                .map_err(Error::Write)
        } else if kind.is_file() {
            self.file(path, name, header, &meta)
        } else {
            refuse("is not a file, folder or link: remove it")
        }
    }

    fn file(
        &mut self,
        path: &Path,
        name: &Path,
        mut header: tar::Header,
        meta: &fs::Metadata,
    ) -> Result<(), Error> {
        let file = File::open(path).map_err(|e| read_error(path, e))?;
        let executable = meta.permissions().mode() & 0o111 != 0;
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(if executable { 0o755 } else { 0o644 });
        header.set_size(meta.len());
        let mut content = HashedRead {
            inner: file.take(meta.len()),
            hasher: Sha256::new(),
            count: 0,
        };
        self.tar
            .append_data(&mut header, name, &mut content)
            .map_err(Error::Write)?;
        if content.count != meta.len() {
            return Err(Error::Refused {
                path: path.to_owned(),
                why: "changed while it was packed: try again",
            });
        }
        self.bytes = self.bytes.saturating_add(meta.len());
        self.tree
            .add(name, Digest::from_bytes(content.hasher.finalize().into()));
        Ok(())
    }
}

struct HashedRead<R> {
    inner: R,
    hasher: Sha256,
    count: u64,
}

impl<R: Read> Read for HashedRead<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(buffer.get(..count).unwrap_or_default());
        self.count += count as u64;
        Ok(count)
    }
}

fn read_error(path: &Path, source: io::Error) -> Error {
    Error::Read {
        path: path.to_owned(),
        source,
    }
}
