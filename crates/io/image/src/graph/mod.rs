//! The documents an item is made of: image index, image manifest, image config (`docs/protocol/items.md`).
//!
//! Reading is tolerant where the field is: keys match without regard to case, unknown keys are passed over. It is strict
//! where it matters: documents have a size cap, lists have caps, a digest that is not 64 hex digits is refused, and every
//! error names the field it is about. Writing gives the spelling of the OCI image specification.

mod config;
mod error;
mod index;
mod item;
mod manifest;
mod object;

use aos_types::Digest;
use serde::Serialize;

pub use config::{ImageConfig, Mismatch, Platform};
pub use error::Error;
pub use index::{ImageIndex, ManifestRef};
pub use item::{ItemImage, LoadError, load_config, load_index, load_item_config, load_manifest};
pub use manifest::{Compression, Layer, LayerKind, Manifest};
use object::Object;

/// Media types that items use.
pub mod media_type {
    /// An image index.
    pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// An image manifest.
    pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// An image config.
    pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// An item config, the Aos part of an item.
    pub const ITEM_CONFIG: &str = "application/vnd.aos.item.config.v1+json";
    /// The blob `{}` that stands for "no config".
    pub const EMPTY: &str = "application/vnd.oci.empty.v1+json";
    /// A layer as a plain tar.
    pub const LAYER_TAR: &str = "application/vnd.oci.image.layer.v1.tar";
    /// A layer as a gzipped tar.
    pub const LAYER_TAR_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// The complete image of a component, a gzipped partition.
    pub const COMPONENT_FULL_GZIP: &str = "application/vnd.aos.image.component.full.v1+gzip";
    /// The complete root file system of a component.
    pub const COMPONENT_FULL_SQUASHFS: &str =
        "application/vnd.aos.image.component.full.v1+squashfs";
    /// Changes to the root file system of a component.
    pub const COMPONENT_INC_SQUASHFS: &str = "application/vnd.aos.image.component.inc.v1+squashfs";
    /// How the media types of layers that their publisher encrypted begin.
    pub const LAYER_ENCRYPTED: &str = "application/vnd.aos.image.layer.enc.v1.aes256gcm";
}

/// What one document may hold. The defaults are generous; a Unit with little memory may lower them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// Bytes of one JSON document.
    pub document: u64,
    /// Manifests of one index.
    pub manifests: usize,
    /// Layers of one manifest.
    pub layers: usize,
    /// Entries of any other list or map, such as environment variables.
    pub entries: usize,
}

impl Default for Caps {
    fn default() -> Self {
        Self {
            document: 4 << 20,
            manifests: 256,
            layers: 256,
            entries: 4096,
        }
    }
}

/// Points at a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the blob is.
    pub media_type: String,
    /// Its content.
    pub digest: Digest,
    /// Its bytes, as the writer of the document says.
    pub size: u64,
}

impl Descriptor {
    fn read(object: &Object<'_>) -> Result<Self, Error> {
        Ok(Self {
            media_type: object.text("mediaType")?.unwrap_or_default(),
            digest: object.digest("digest")?,
            size: object.unsigned("size")?.unwrap_or_default(),
        })
    }
}
