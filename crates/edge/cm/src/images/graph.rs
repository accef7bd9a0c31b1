//! Which blobs an item needs on this Unit, as far as they are known already. Blocking.

use std::collections::BTreeSet;

use aos_image::{
    BlobStore, ItemImage, Platform,
    graph::{Caps, Descriptor, Manifest, load_config, load_index, load_item_config, load_manifest},
};
use aos_types::{Digest, ItemConfig, ItemType, RuntimeInfo};
use aos_update::DesiredItem;

use super::Error;

/// The next blobs an item needs, or all of them.
#[derive(Debug)]
pub(super) enum Need {
    /// These are missing before more can be said.
    More(Vec<Digest>),
    /// Everything else is here; these are all blobs, layers included, here or not.
    All(Vec<Digest>),
}

/// Walks an item's graph as far as it is in the store: index, manifests that may fit, their configs, the layers of those
/// that do fit. The documents it comes across are added to `documents`, here or not.
pub(super) fn needs(
    store: &BlobStore,
    item: &DesiredItem,
    runtimes: &[RuntimeInfo],
    documents: &mut BTreeSet<Digest>,
) -> Result<Need, Error> {
    let caps = Caps::default();
    documents.insert(item.index_digest);
    if !store.contains(&item.index_digest)? {
        return Ok(Need::More(vec![item.index_digest]));
    }
    let index = load_index(store, &item.index_digest, &caps)?;
    let mut why = "its index is empty".to_owned();
    let mut candidates = Vec::new();
    for entry in &index.manifests {
        let promised = entry.platform.clone().unwrap_or_default();
        match fits(&promised, None, runtimes) {
            Ok(()) => candidates.push((entry.descriptor.digest, promised)),
            Err(mismatch) => why = mismatch,
        }
    }
    let mut missing: Vec<Digest> = Vec::new();
    let mut manifests = Vec::new();
    for (digest, promised) in candidates {
        documents.insert(digest);
        if store.contains(&digest)? {
            manifests.push((digest, promised, load_manifest(store, &digest, &caps)?));
        } else {
            missing.push(digest);
        }
    }
    for (_, _, manifest) in &manifests {
        for config in configs(manifest) {
            documents.insert(config.digest);
            if !store.contains(&config.digest)? && !missing.contains(&config.digest) {
                missing.push(config.digest);
            }
        }
    }
    if !missing.is_empty() {
        return Ok(Need::More(missing));
    }
    let mut all = vec![item.index_digest];
    for (digest, promised, manifest) in &manifests {
        let item_config = load_item_config(store, manifest, &caps)?;
        if item_config.is_none() && item.item_type == ItemType::Service {
            return Err(Error::NoItemConfig { manifest: *digest });
        }
        let said = load_config(store, manifest, &caps)?.platform;
        let platform = if said == Platform::default() {
            promised.clone()
        } else {
            said
        };
        match fits(&platform, item_config.as_ref(), runtimes) {
            Ok(()) => {
                all.push(*digest);
                all.extend(manifest.digests());
            }
            Err(mismatch) => why = mismatch,
        }
    }
    if all.len() == 1 {
        return Err(Error::NoPlatform { why });
    }
    let mut seen = BTreeSet::new();
    all.retain(|digest| seen.insert(*digest));
    Ok(Need::All(all))
}

fn configs(manifest: &Manifest) -> impl Iterator<Item = &Descriptor> {
    std::iter::once(&manifest.config).chain(&manifest.item_config)
}

/// Whether some runtime can run an image of this platform. Without any runtime known, everything may fit.
fn fits(
    platform: &Platform,
    item_config: Option<&ItemConfig>,
    runtimes: &[RuntimeInfo],
) -> Result<(), String> {
    if runtimes.is_empty() {
        return Ok(());
    }
    let types = item_config.map(ItemConfig::runtime_types);
    let mut why = String::new();
    for runtime in runtimes {
        if let Some(types) = &types
            && !types.contains(&runtime.runtime_type.as_str())
        {
            why = format!(
                "it asks for a runtime of type {}, there is {}",
                types.join(" or "),
                runtime.runtime_type
            );
            continue;
        }
        match platform.check_runtime(runtime) {
            Ok(()) => return Ok(()),
            Err(mismatch) => why = mismatch.to_string(),
        }
    }
    Err(why)
}

/// The images of an item of which every blob is here, in the order of its index.
pub(super) fn images(
    store: &BlobStore,
    item: &DesiredItem,
) -> Result<Vec<aos_schedule::Image>, Error> {
    let mut images = Vec::new();
    let mut why = None;
    for loaded in ItemImage::load_all(store, &item.index_digest, &Caps::default())? {
        let image = match loaded {
            Ok(image) => image,
            // Manifests that nobody here can run were not fetched.
            Err(error) => {
                why = Some(error);
                continue;
            }
        };
        let mut whole = true;
        for layer in &image.layers {
            whole &= store.contains(&layer.descriptor.digest)?;
        }
        if whole {
            images.push(aos_schedule::Image {
                manifest: image.manifest,
                architecture: image.platform.architecture,
                variant: image.platform.variant,
                os: image.platform.os,
                os_version: image.platform.os_version,
                os_features: image.platform.os_features,
                config: image.item_config.unwrap_or_default().into(),
            });
        }
    }
    match (images.is_empty(), why) {
        (false, _) => Ok(images),
        (true, Some(error)) => Err(error.into()),
        (true, None) => Err(Error::Absent {
            digest: item.index_digest,
        }),
    }
}
