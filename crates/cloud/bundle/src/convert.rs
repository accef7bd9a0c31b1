use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use aos_image::{
    BlobStore, ImageConfig, Platform, blob,
    build::{self, BuiltLayer},
    graph::{Descriptor, LayerKind},
    layout, unpack,
};
use aos_types::{Digest, ItemConfig, ItemId, ItemType};
use sha3::{Digest as _, Sha3_256};
use tokio_util::sync::CancellationToken;

use crate::{
    DEFAULT_STATE, Image, Instances, Item, Opened, State, foreign,
    layout::{image_place, item_folder},
};

/// Longest default state that is taken over, in bytes.
pub(crate) const MAX_STATE: u64 = 1 << 20;

/// A blob as the cloud records and delivers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobRecord {
    /// SHA-256 of the content: its name.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// What it is.
    pub media_type: String,
    /// SHA3-256 of the file: what `blobUrls` says.
    pub sha3_256: [u8; 32],
}

/// One item of a bundle as blobs, with what the cloud records of it.
#[derive(Debug, Clone, PartialEq)]
pub struct ConvertedItem {
    /// Service, component or layer.
    pub item_type: ItemType,
    /// Its name among the items of its owner.
    pub codename: String,
    /// For people.
    pub title: String,
    /// For people.
    pub description: String,
    /// The cloud's id, if the publisher named one.
    pub id: Option<String>,
    /// Its version.
    pub version: semver::Version,
    /// The image index: what `desiredStatus` names.
    pub index: Digest,
    /// Every blob of the item, the index first, each once.
    pub blobs: Vec<BlobRecord>,
    /// The platforms it runs on, in order of preference.
    pub platforms: Vec<Platform>,
    /// How it is run.
    pub item_config: ItemConfig,
    /// How many, and where, unless an assignment says otherwise.
    pub instances: Instances,
    /// Its state file.
    pub state: Option<State>,
    /// What the state is at first.
    pub default_state: Option<String>,
}

/// Why a bundle could not be converted. Blobs written before are without a reference and go with the next collection.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// An image cannot be built.
    #[error("the image of `{codename}` for {architecture} cannot be made")]
    Build {
        /// The item.
        codename: String,
        /// The image.
        architecture: String,
        /// Why.
        #[source]
        source: build::Error,
    },
    /// Nobody knows an item that it depends on.
    #[error(
        "`{codename}` depends on `{on}`, which is not known here; publish that first, or in the same bundle"
    )]
    Dependency {
        /// The item.
        codename: String,
        /// What it depends on.
        on: String,
    },
    /// A layer that came packed is unusable.
    #[error("the layer of `{codename}` for {architecture} cannot be used")]
    Layer {
        /// The item.
        codename: String,
        /// The image.
        architecture: String,
        /// Why.
        #[source]
        source: Box<unpack::Error>,
    },
    /// An OCI image layout is unusable.
    #[error("the OCI image of `{codename}` for {architecture} cannot be used")]
    Layout {
        /// The item.
        codename: String,
        /// The image.
        architecture: String,
        /// Why.
        #[source]
        source: Box<layout::Error>,
    },
    /// A packed OCI image layout cannot be unpacked.
    #[error("the packed OCI image of `{codename}` for {architecture} cannot be unpacked")]
    Packed {
        /// The item.
        codename: String,
        /// The image.
        architecture: String,
        /// Why.
        #[source]
        source: Box<unpack::Error>,
    },
    /// An OCI image is not what it should be, or what it says of its process cannot be used.
    #[error("the OCI image of `{codename}` for {architecture} cannot be used: {why}")]
    Unusable {
        /// The item.
        codename: String,
        /// The image.
        architecture: String,
        /// What is wrong and what to do.
        why: String,
    },
    /// The media type of a single file is not one we deliver.
    #[error(
        "the image of `{codename}` has the media type `{media_type}`, which cannot be delivered"
    )]
    MediaType {
        /// The item.
        codename: String,
        /// What was said.
        media_type: String,
    },
    /// The blob store failed.
    #[error("the blobs of `{codename}` cannot be stored")]
    Store {
        /// The item.
        codename: String,
        /// Why.
        #[source]
        source: blob::Error,
    },
    /// A file cannot be read.
    #[error("{path} cannot be read")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Turns every item of a verified bundle into blobs in `store`. The same bundle always gives the same digests. `ids` are
/// those of all items that others of the bundle depend on, by codename.
pub fn convert(
    bundle: &Opened,
    ids: &BTreeMap<String, ItemId>,
    store: &BlobStore,
    stop: &CancellationToken,
) -> Result<Vec<ConvertedItem>, ConvertError> {
    bundle
        .config
        .items
        .iter()
        .map(|item| one(bundle, item, ids, store, stop))
        .collect()
}

fn one(
    bundle: &Opened,
    item: &Item,
    ids: &BTreeMap<String, ItemId>,
    store: &BlobStore,
    stop: &CancellationToken,
) -> Result<ConvertedItem, ConvertError> {
    let files = bundle.files();
    let mut item_config = item.item_config.clone();
    let author = &bundle.config.publisher.author;
    if !author.is_empty() {
        item_config.author.clone_from(author);
    }
    for dependency in &item.dependencies {
        let unknown = || ConvertError::Dependency {
            codename: item.codename.clone(),
            on: dependency.codename.clone(),
        };
        let on = dependency.on(ids.get(&dependency.codename).cloned());
        item_config.dependencies.push(on.ok_or_else(unknown)?);
    }
    let mut images = Vec::new();
    for image in &item.images {
        let place = files.join(image_place(item, image));
        if image.is_layout() {
            let mut built = foreign::take(bundle, item, image, &place, store, stop)?;
            built.item_config = Some(item_config.clone());
            images.push(built);
            continue;
        }
        let layer = if place.is_dir() {
            build::layer(store, &place).map_err(|source| ConvertError::Build {
                codename: item.codename.clone(),
                architecture: image.architecture.clone(),
                source,
            })?
        } else {
            single_file(item, image, &place, store, stop)?
        };
        images.push(build::Image {
            config: image_config(&bundle.config.publisher.author, item, image),
            item_config: Some(item_config.clone()),
            layers: vec![layer],
        });
    }
    let failed = |source| ConvertError::Build {
        codename: item.codename.clone(),
        architecture: "all architectures".into(),
        source,
    };
    let built = build::item(store, &images).map_err(failed)?;
    Ok(ConvertedItem {
        item_type: item.item_type,
        codename: item.codename.clone(),
        title: item.title.clone(),
        description: item.description.clone(),
        id: item.id.clone(),
        version: item.version.clone(),
        index: built.index.digest,
        blobs: built
            .blobs
            .into_iter()
            .map(|blob| record(item, blob, store))
            .collect::<Result<_, _>>()?,
        platforms: images
            .into_iter()
            .map(|image| image.config.platform)
            .collect(),
        item_config,
        instances: item.instances.clone(),
        state: item.state.clone(),
        default_state: default_state(&files, item)?,
    })
}

pub(crate) fn image_config(author: &str, item: &Item, image: &Image) -> ImageConfig {
    ImageConfig {
        platform: Platform {
            architecture: image.architecture.clone(),
            variant: image.variant.clone(),
            os: image.os.to_lowercase(),
            os_version: image.os_version.clone(),
            os_features: image.os_features.clone(),
        },
        created: String::new(),
        author: author.to_owned(),
        exposed_ports: item.exposed_ports.clone(),
        env: merged(&item.env, &image.env),
        entrypoint: Vec::new(),
        cmd: image.cmd.as_ref().unwrap_or(&item.cmd).clone(),
        working_dir: image
            .working_dir
            .as_ref()
            .unwrap_or(&item.working_dir)
            .clone(),
        user: item.user.clone().unwrap_or_default(),
        stop_signal: item.stop_signal.clone().unwrap_or_default(),
        diff_ids: Vec::new(),
    }
}

/// The item's variables, then the image's; a name of the image replaces the item's.
pub(crate) fn merged(item: &[String], image: &[String]) -> Vec<String> {
    let name = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    let own: BTreeSet<String> = image.iter().map(|entry| name(entry)).collect();
    item.iter()
        .filter(|entry| !own.contains(&name(entry)))
        .chain(image)
        .cloned()
        .collect()
}

/// An image that came as one file: a component's, or a layer that is packed already.
fn single_file(
    item: &Item,
    image: &Image,
    path: &Path,
    store: &BlobStore,
    stop: &CancellationToken,
) -> Result<BuiltLayer, ConvertError> {
    let media_type = image.media_type.clone().unwrap_or_default();
    let read = |source| ConvertError::Read {
        path: path.to_owned(),
        source,
    };
    let open = || File::open(path).map_err(read);
    let stored = store
        .insert(open()?, None)
        .map_err(|source| ConvertError::Store {
            codename: item.codename.clone(),
            source,
        })?;
    let (tree, tar, bytes) = match LayerKind::of(&media_type) {
        LayerKind::Tar(compression) => {
            let extracted = layout::try_out(
                open()?,
                compression,
                path.parent().unwrap_or(Path::new(".")),
                stop,
            )
            .map_err(|source| ConvertError::Layer {
                codename: item.codename.clone(),
                architecture: image.architecture.clone(),
                source: Box::new(source),
            })?;
            let tree = extracted.tree.unwrap_or(extracted.tar);
            (tree, extracted.tar, extracted.bytes)
        }
        LayerKind::Other(other) if other.starts_with("application/vnd.aos.image.component.") => {
            (stored.digest, stored.digest, stored.size)
        }
        _ => {
            return Err(ConvertError::MediaType {
                codename: item.codename.clone(),
                media_type,
            });
        }
    };
    Ok(BuiltLayer {
        descriptor: Descriptor {
            media_type,
            digest: stored.digest,
            size: stored.size,
        },
        tree,
        tar,
        bytes,
    })
}

fn record(item: &Item, blob: Descriptor, store: &BlobStore) -> Result<BlobRecord, ConvertError> {
    let failed = |source| ConvertError::Store {
        codename: item.codename.clone(),
        source,
    };
    let mut file = store.open_blob(&blob.digest).map_err(failed)?;
    let path = store.path(&blob.digest);
    let mut hasher = Sha3_256::new();
    let mut buffer = vec![0; 1 << 17];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => hasher.update(buffer.get(..count).unwrap_or_default()),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(ConvertError::Read { path, source }),
        }
    }
    Ok(BlobRecord {
        digest: blob.digest,
        size: blob.size,
        media_type: blob.media_type,
        sha3_256: hasher.finalize().into(),
    })
}

fn default_state(files: &Path, item: &Item) -> Result<Option<String>, ConvertError> {
    let Some(state) = &item.state else {
        return Ok(None);
    };
    let folder = files.join(item_folder(item));
    for name in [DEFAULT_STATE, &state.filename] {
        let path = folder.join(name);
        let is_file =
            fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_file() && meta.len() <= MAX_STATE);
        if is_file {
            return fs::read_to_string(&path)
                .map(Some)
                .map_err(|source| ConvertError::Read { path, source });
        }
    }
    Ok(None)
}
