//! Where the files of an item lie beneath the bundle's folder.

use std::path::{Component, Path, PathBuf};

use crate::{Image, Item};

/// Whether a path from a configuration stays beneath the folder it starts from.
pub(crate) fn is_inside(path: &str) -> bool {
    !path.is_empty()
        && !path.contains(['\0', '\n'])
        && Path::new(path)
            .components()
            .all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
        && Path::new(path)
            .components()
            .any(|part| matches!(part, Component::Normal(_)))
}

/// The folder of an item: where its default state lies.
pub(crate) fn item_folder(item: &Item) -> PathBuf {
    PathBuf::from(item.source_folder.as_deref().unwrap_or(&item.codename))
}

/// The folder or file of an image: `<codename>/<architecture>` if the configuration names nothing, else the item's folder
/// and what the image names, or the architecture.
pub(crate) fn image_place(item: &Item, image: &Image) -> PathBuf {
    let own = image.path.as_deref().or(image.source_folder.as_deref());
    match (&item.source_folder, own) {
        (None, None) => Path::new(&item.codename).join(&image.architecture),
        (base, own) => {
            Path::new(base.as_deref().unwrap_or("")).join(own.unwrap_or(&image.architecture))
        }
    }
}
