use aos_types::Digest;
use serde::{Serialize, Serializer, ser::SerializeStruct};

use super::{Caps, Descriptor, Error, Object, Platform, media_type, object};

const DOCUMENT: &str = "image index";

/// The top of an item's graph: one manifest a platform, in the order in which they are tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageIndex {
    /// In the order of preference.
    pub manifests: Vec<ManifestRef>,
}

/// A manifest as the index names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestRef {
    /// Where the manifest is.
    pub descriptor: Descriptor,
    /// The platform the index promises. The platform of the image config is the one that counts.
    pub platform: Option<Platform>,
}

impl ImageIndex {
    /// Reads an index; one without any manifest, or with a manifest twice, is refused.
    pub fn parse(json: &[u8], caps: &Caps) -> Result<Self, Error> {
        let value = object::parse(DOCUMENT, json, caps)?;
        let root = Object::root(DOCUMENT, &value, caps)?;
        let mut manifests: Vec<ManifestRef> = Vec::new();
        for entry in root.objects("manifests", caps.manifests)? {
            let descriptor = Descriptor::read(&entry)?;
            if manifests
                .iter()
                .any(|other| other.descriptor.digest == descriptor.digest)
            {
                return Err(entry.bad_value("digest", "names a manifest a second time"));
            }
            manifests.push(ManifestRef {
                descriptor,
                platform: entry
                    .object("platform")?
                    .map(|platform| Platform::read(&platform))
                    .transpose()?,
            });
        }
        if manifests.is_empty() {
            return Err(root.missing("manifests"));
        }
        Ok(Self { manifests })
    }

    /// The document as it is stored.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The digests of the manifests, in order.
    pub fn digests(&self) -> impl Iterator<Item = Digest> + '_ {
        self.manifests
            .iter()
            .map(|manifest| manifest.descriptor.digest)
    }
}

impl Serialize for ImageIndex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Entry<'a> {
            #[serde(flatten)]
            descriptor: &'a Descriptor,
            #[serde(skip_serializing_if = "Option::is_none")]
            platform: Option<&'a Platform>,
        }
        let entries: Vec<_> = self
            .manifests
            .iter()
            .map(|manifest| Entry {
                descriptor: &manifest.descriptor,
                platform: manifest.platform.as_ref(),
            })
            .collect();
        let mut out = serializer.serialize_struct("ImageIndex", 3)?;
        out.serialize_field("schemaVersion", &2)?;
        out.serialize_field("mediaType", media_type::INDEX)?;
        out.serialize_field("manifests", &entries)?;
        out.end()
    }
}
