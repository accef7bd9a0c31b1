//! Images that other tools have built: an OCI image layout, as a folder or as one tar.
//!
//! `umoci`, `buildah`, `podman`, `skopeo` and `docker` write them. Layers are taken over as they are, with their own diff
//! ids; entry point, variables, working directory, user, stop signal and ports come from the image's config unless the
//! caller says otherwise.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use aos_types::Digest;
use tokio_util::sync::CancellationToken;

use crate::{
    BlobStore, ImageConfig, ImageIndex, Manifest, blob,
    build::BuiltLayer,
    graph::{self, Caps, Compression, Descriptor, LayerKind, media_type},
    unpack::{self, Extracted, Flavour, Limits, extract},
};

/// Why a layout cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of it.
    #[error("{path} of the image layout cannot be read")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A document of it.
    #[error("{path} of the image layout is wrong")]
    Document {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: graph::Error,
    },
    /// It has nothing for the platform.
    #[error("the image layout has no image for {platform}; it has {found}")]
    NoImage {
        /// What was looked for.
        platform: String,
        /// What is there.
        found: String,
    },
    /// It has too much for the platform.
    #[error("the image layout has {count} images for {platform}: leave one in it")]
    ManyImages {
        /// What was looked for.
        platform: String,
        /// How many there are.
        count: usize,
    },
    /// Layers and diff ids do not fit together.
    #[error("the image has {layers} layers and {diff_ids} diff ids")]
    Count {
        /// In the manifest.
        layers: usize,
        /// In the config.
        diff_ids: usize,
    },
    /// A kind of layer that no Unit unpacks.
    #[error("layers of the kind `{0}` cannot be delivered: pack them as tar or tar+gzip")]
    Kind(String),
    /// A layer is damaged or hostile.
    #[error("layer {digest} cannot be used")]
    Layer {
        /// Which.
        digest: Digest,
        /// Why.
        #[source]
        source: Box<unpack::Error>,
    },
    /// A layer is not the one the config speaks of.
    #[error("layer {digest} unpacks to {found}, but the config says {wanted}")]
    DiffId {
        /// Which.
        digest: Digest,
        /// What it is.
        found: Digest,
        /// What was said.
        wanted: Digest,
    },
    /// The blob store.
    #[error("the layers cannot be stored")]
    Store(#[source] blob::Error),
}

/// An image of a layout: what it says of its process, and its layers from the lowest to the highest.
#[derive(Debug)]
pub struct Found {
    /// How its process is started, and on what.
    pub config: ImageConfig,
    layers: Vec<(Descriptor, Digest, Compression)>,
    folder: PathBuf,
}

/// The image for a platform in the layout at `folder`.
pub fn find(folder: &Path, architecture: &str, variant: &str) -> Result<Found, Error> {
    let mut found = Vec::new();
    let mut platforms = Vec::new();
    for manifest in manifests(folder)? {
        let config = document(folder, &manifest.config.digest, ImageConfig::parse)?;
        let platform = &config.platform;
        platforms.push(format!("{}{}", platform.architecture, platform.variant));
        let fits = platform.architecture == architecture
            && (variant.is_empty() || platform.variant == variant);
        if fits {
            found.push((manifest, config));
        }
    }
    let platform = format!("{architecture}{variant}");
    let count = found.len();
    let Some((manifest, config)) = found.pop() else {
        return Err(Error::NoImage {
            platform,
            found: if platforms.is_empty() {
                "none".into()
            } else {
                platforms.join(", ")
            },
        });
    };
    if count > 1 {
        return Err(Error::ManyImages { platform, count });
    }
    if manifest.layers.len() != config.diff_ids.len() {
        return Err(Error::Count {
            layers: manifest.layers.len(),
            diff_ids: config.diff_ids.len(),
        });
    }
    let layers = manifest
        .layers
        .into_iter()
        .zip(config.diff_ids.iter().copied())
        .map(|(descriptor, diff_id)| {
            let (media_type, compression) = kind(&descriptor.media_type)?;
            let descriptor = Descriptor {
                media_type: media_type.into(),
                ..descriptor
            };
            Ok((descriptor, diff_id, compression))
        })
        .collect::<Result<_, _>>()?;
    Ok(Found {
        config,
        layers,
        folder: folder.to_owned(),
    })
}

/// What a layer is called on a Unit. Docker's name stands for the same thing.
fn kind(media_type: &str) -> Result<(&'static str, Compression), Error> {
    let named = match media_type {
        "application/vnd.docker.image.rootfs.diff.tar.gzip" => media_type::LAYER_TAR_GZIP,
        other => other,
    };
    match LayerKind::of(named) {
        LayerKind::Tar(Compression::None) => Ok((media_type::LAYER_TAR, Compression::None)),
        LayerKind::Tar(Compression::Gzip) => Ok((media_type::LAYER_TAR_GZIP, Compression::Gzip)),
        other => Err(Error::Kind(other.to_string())),
    }
}

/// All manifests that the layout's index names, also through another index, as tools for several platforms write it.
fn manifests(folder: &Path) -> Result<Vec<Manifest>, Error> {
    let top = folder.join("index.json");
    let text = read(&top)?;
    let index = ImageIndex::parse(&text, &Caps::default())
        .map_err(|source| Error::Document { path: top, source })?;
    let mut digests = Vec::new();
    for entry in index.manifests {
        if is_index(&entry.descriptor.media_type) {
            let inner = document(folder, &entry.descriptor.digest, ImageIndex::parse)?;
            digests.extend(
                inner
                    .manifests
                    .into_iter()
                    .map(|entry| entry.descriptor)
                    .filter(|descriptor| !is_index(&descriptor.media_type))
                    .map(|descriptor| descriptor.digest),
            );
        } else {
            digests.push(entry.descriptor.digest);
        }
    }
    digests
        .iter()
        .map(|digest| document(folder, digest, Manifest::parse))
        .collect()
}

fn is_index(media_type: &str) -> bool {
    media_type == media_type::INDEX
        || media_type == "application/vnd.docker.distribution.manifest.list.v2+json"
}

fn document<T>(
    folder: &Path,
    digest: &Digest,
    parse: impl Fn(&[u8], &Caps) -> Result<T, graph::Error>,
) -> Result<T, Error> {
    let path = place(folder, digest);
    let text = read(&path)?;
    parse(&text, &Caps::default()).map_err(|source| Error::Document { path, source })
}

fn place(folder: &Path, digest: &Digest) -> PathBuf {
    folder.join("blobs").join("sha256").join(digest.hex())
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    let plain = fs::symlink_metadata(path).map_err(failed)?.is_file();
    if !plain {
        return Err(failed(io::Error::other("it is no file")));
    }
    let mut text = Vec::new();
    // The parser refuses what is longer than this.
    File::open(path)
        .and_then(|file| {
            file.take(Caps::default().document + 1)
                .read_to_end(&mut text)
        })
        .map_err(failed)?;
    Ok(text)
}

impl Found {
    /// Which layers are missing from the folder.
    pub fn missing(&self) -> impl Iterator<Item = PathBuf> + '_ {
        self.layers
            .iter()
            .map(|(descriptor, _, _)| place(&self.folder, &descriptor.digest))
            .filter(|path| !fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file()))
    }

    /// Puts the layers into `store`, each unpacked once in a folder below `scratch`, so that a broken or hostile one is
    /// refused here.
    pub fn store(
        &self,
        store: &BlobStore,
        scratch: &Path,
        stop: &CancellationToken,
    ) -> Result<Vec<BuiltLayer>, Error> {
        self.layers
            .iter()
            .map(|(descriptor, diff_id, compression)| {
                let digest = descriptor.digest;
                let path = place(&self.folder, &digest);
                let open = || {
                    File::open(&path).map_err(|source| Error::Read {
                        path: path.clone(),
                        source,
                    })
                };
                let stored = store.insert(open()?, Some(&digest)).map_err(Error::Store)?;
                let extracted =
                    try_out(open()?, *compression, scratch, stop).map_err(|source| {
                        Error::Layer {
                            digest,
                            source: Box::new(source),
                        }
                    })?;
                if extracted.tar != *diff_id {
                    return Err(Error::DiffId {
                        digest,
                        found: extracted.tar,
                        wanted: *diff_id,
                    });
                }
                Ok(BuiltLayer {
                    descriptor: Descriptor {
                        size: stored.size,
                        ..descriptor.clone()
                    },
                    // A tree digest does not tell whiteouts, links and owners apart, which such layers may consist of.
                    tree: extracted.tar,
                    tar: extracted.tar,
                    bytes: extracted.bytes,
                })
            })
            .collect()
    }
}

/// Unpacks a layer into a folder that is gone afterwards.
pub fn try_out(
    packed: File,
    compression: Compression,
    scratch: &Path,
    stop: &CancellationToken,
) -> Result<Extracted, unpack::Error> {
    let folder = tempfile::tempdir_in(scratch).map_err(|source| unpack::Error::Io {
        action: "make a folder in",
        path: scratch.to_owned(),
        source,
    })?;
    let limits = Limits::default();
    extract(
        packed,
        compression,
        folder.path(),
        Flavour::Files,
        &limits,
        stop,
    )
}
