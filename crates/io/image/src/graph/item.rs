use aos_types::{ConfigError, Digest, ItemConfig};

use super::{
    Caps, Error, ImageConfig, ImageIndex, Layer, LayerKind, Manifest, Platform, media_type,
};
use crate::blob::{self, BlobStore};

/// An item's image for one platform, with everything the scheduler and the runtime ask of it.
#[derive(Debug, Clone, PartialEq)]
pub struct ItemImage {
    /// The manifest it was read from; this is what a Node is told to run.
    pub manifest: Digest,
    /// Process and platform.
    pub config: ImageConfig,
    /// Quotas, resources, permissions; absent for some components.
    pub item_config: Option<ItemConfig>,
    /// From the lowest to the highest.
    pub layers: Vec<Layer>,
    /// The platform for matching: that of the image config, or the index's if the config says nothing.
    pub platform: Platform,
}

/// Why an image cannot be read from the store.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A blob is not there or unreadable.
    #[error("the {document} {digest} cannot be read from the store")]
    Blob {
        /// What it should be.
        document: &'static str,
        /// Which blob.
        digest: Digest,
        /// Why.
        #[source]
        source: blob::Error,
    },
    /// A document is malformed.
    #[error("blob {digest} is not usable: publish the item again")]
    Document {
        /// Which blob.
        digest: Digest,
        /// Why.
        #[source]
        source: Error,
    },
    /// The item config is malformed.
    #[error("the item config {digest} is not usable: publish the item again")]
    ItemConfig {
        /// Which blob.
        digest: Digest,
        /// Why.
        #[source]
        source: ConfigError,
    },
    /// Fewer diff ids than layers.
    #[error(
        "manifest {manifest} has {layers} layers but its image config names {diff_ids} in `rootfs.diff_ids`: publish the item again"
    )]
    DiffIds {
        /// The manifest.
        manifest: Digest,
        /// Its layers.
        layers: usize,
        /// The config's diff ids.
        diff_ids: usize,
    },
}

impl ItemImage {
    /// Reads an image whose manifest and configs are in the store. The layers need not be there.
    pub fn load(store: &BlobStore, manifest: &Digest, caps: &Caps) -> Result<Self, LoadError> {
        Self::load_named(store, manifest, None, caps)
    }

    /// Reads every image of an index; each by itself, so that a broken one does not hide the others.
    pub fn load_all(
        store: &BlobStore,
        index: &Digest,
        caps: &Caps,
    ) -> Result<Vec<Result<Self, LoadError>>, LoadError> {
        let index = load_index(store, index, caps)?;
        Ok(index
            .manifests
            .iter()
            .map(|entry| {
                Self::load_named(
                    store,
                    &entry.descriptor.digest,
                    entry.platform.as_ref(),
                    caps,
                )
            })
            .collect())
    }

    fn load_named(
        store: &BlobStore,
        digest: &Digest,
        platform: Option<&Platform>,
        caps: &Caps,
    ) -> Result<Self, LoadError> {
        let manifest = load_manifest(store, digest, caps)?;
        let config = load_config(store, &manifest, caps)?;
        let item_config = load_item_config(store, &manifest, caps)?;
        let containers = manifest
            .layers
            .iter()
            .any(|layer| matches!(LayerKind::of(&layer.media_type), LayerKind::Tar(_)));
        if containers && config.diff_ids.len() < manifest.layers.len() {
            return Err(LoadError::DiffIds {
                manifest: *digest,
                layers: manifest.layers.len(),
                diff_ids: config.diff_ids.len(),
            });
        }
        let layers = manifest
            .layers
            .iter()
            .enumerate()
            .map(|(i, layer)| Layer {
                descriptor: layer.clone(),
                // A component's image is not unpacked: its content is its own name.
                diff_id: config.diff_ids.get(i).copied().unwrap_or(layer.digest),
            })
            .collect();
        let said = config.platform.clone();
        Ok(Self {
            manifest: *digest,
            platform: match platform {
                Some(promised) if said == Platform::default() => promised.clone(),
                _ => said,
            },
            config,
            item_config,
            layers,
        })
    }
}

/// Reads an index from the store.
pub fn load_index(
    store: &BlobStore,
    digest: &Digest,
    caps: &Caps,
) -> Result<ImageIndex, LoadError> {
    let json = read(store, "image index", digest, caps)?;
    ImageIndex::parse(&json, caps).map_err(|source| LoadError::Document {
        digest: *digest,
        source,
    })
}

/// Reads a manifest from the store.
pub fn load_manifest(
    store: &BlobStore,
    digest: &Digest,
    caps: &Caps,
) -> Result<Manifest, LoadError> {
    let json = read(store, "image manifest", digest, caps)?;
    Manifest::parse(&json, caps).map_err(|source| LoadError::Document {
        digest: *digest,
        source,
    })
}

/// Reads the image config of a manifest from the store.
pub fn load_config(
    store: &BlobStore,
    manifest: &Manifest,
    caps: &Caps,
) -> Result<ImageConfig, LoadError> {
    let digest = manifest.config.digest;
    if manifest.config.media_type == media_type::EMPTY {
        return Ok(ImageConfig::default());
    }
    let json = read(store, "image config", &digest, caps)?;
    ImageConfig::parse(&json, caps).map_err(|source| LoadError::Document { digest, source })
}

/// Reads the item config of a manifest from the store, if it names one.
pub fn load_item_config(
    store: &BlobStore,
    manifest: &Manifest,
    caps: &Caps,
) -> Result<Option<ItemConfig>, LoadError> {
    let Some(descriptor) = &manifest.item_config else {
        return Ok(None);
    };
    let digest = descriptor.digest;
    if descriptor.media_type == media_type::EMPTY {
        return Ok(None);
    }
    let json = read(store, "item config", &digest, caps)?;
    ItemConfig::from_slice(&json)
        .map(Some)
        .map_err(|source| LoadError::ItemConfig { digest, source })
}

fn read(
    store: &BlobStore,
    document: &'static str,
    digest: &Digest,
    caps: &Caps,
) -> Result<Vec<u8>, LoadError> {
    store
        .read(digest, caps.document)
        .map_err(|source| LoadError::Blob {
            document,
            digest: *digest,
            source,
        })
}
