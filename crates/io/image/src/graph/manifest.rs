use std::fmt;

use aos_types::Digest;
use serde::{Serialize, Serializer, ser::SerializeStruct};

use super::{Caps, Descriptor, Error, Object, media_type, object};

const DOCUMENT: &str = "image manifest";

/// One version of an item for one platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The image config; the empty blob for some components.
    pub config: Descriptor,
    /// The item config; services always have one.
    pub item_config: Option<Descriptor>,
    /// From the lowest to the highest, in the order of the image config's diff ids.
    pub layers: Vec<Descriptor>,
}

impl Manifest {
    /// Reads a manifest.
    pub fn parse(json: &[u8], caps: &Caps) -> Result<Self, Error> {
        let value = object::parse(DOCUMENT, json, caps)?;
        let root = Object::root(DOCUMENT, &value, caps)?;
        let config = root
            .object("config")?
            .ok_or_else(|| root.missing("config"))?;
        Ok(Self {
            config: Descriptor::read(&config)?,
            item_config: root
                .object("aosItemConfig")?
                .map(|item| Descriptor::read(&item))
                .transpose()?,
            layers: root
                .objects("layers", caps.layers)?
                .iter()
                .map(Descriptor::read)
                .collect::<Result<_, _>>()?,
        })
    }

    /// The document as it is stored.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Every blob the manifest points at: configs first, then layers.
    pub fn descriptors(&self) -> impl Iterator<Item = &Descriptor> {
        std::iter::once(&self.config)
            .chain(&self.item_config)
            .chain(&self.layers)
    }

    /// The digests of [`descriptors`](Self::descriptors).
    pub fn digests(&self) -> impl Iterator<Item = Digest> + '_ {
        self.descriptors().map(|descriptor| descriptor.digest)
    }
}

impl Serialize for Manifest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("Manifest", 5)?;
        out.serialize_field("schemaVersion", &2)?;
        out.serialize_field("mediaType", media_type::MANIFEST)?;
        out.serialize_field("config", &self.config)?;
        if let Some(item) = &self.item_config {
            out.serialize_field("aosItemConfig", item)?;
        } else {
            out.skip_field("aosItemConfig")?;
        }
        out.serialize_field("layers", &self.layers)?;
        out.end()
    }
}

/// How a layer's tar is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// With gzip.
    Gzip,
}

/// What a layer is, from its media type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LayerKind {
    /// Files for a container.
    Tar(Compression),
    /// Encrypted by its publisher; the cloud was expected to have unwrapped it.
    Encrypted,
    /// An image of a component, or something this version does not know.
    Other(String),
}

impl LayerKind {
    /// Reads a media type.
    pub fn of(media_type: &str) -> Self {
        match media_type {
            media_type::LAYER_TAR => Self::Tar(Compression::None),
            media_type::LAYER_TAR_GZIP => Self::Tar(Compression::Gzip),
            other if other.starts_with(media_type::LAYER_ENCRYPTED) => Self::Encrypted,
            other => Self::Other(other.to_owned()),
        }
    }
}

impl fmt::Display for LayerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tar(Compression::None) => f.write_str("tar"),
            Self::Tar(Compression::Gzip) => f.write_str("gzipped tar"),
            Self::Encrypted => f.write_str("layer encrypted by its publisher"),
            Self::Other(media_type) => f.write_str(media_type),
        }
    }
}

/// A layer with the digest its unpacked form must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// The packed layer.
    pub descriptor: Descriptor,
    /// What the unpacked layer is called: an OCI diff id or a tree digest, see [`crate::tree`].
    pub diff_id: Digest,
}

impl Layer {
    /// What the layer is.
    pub fn kind(&self) -> LayerKind {
        LayerKind::of(&self.descriptor.media_type)
    }
}
