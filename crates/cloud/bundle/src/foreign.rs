//! Images that other tools have built: what of their own words counts, and whether a process can be started by them.

use std::{
    fs::File,
    io::{self, Read, Seek},
    path::Path,
};

use aos_image::{
    BlobStore, ImageConfig, build,
    graph::Compression,
    layout,
    unpack::{Flavour, Limits, extract},
};
use aos_types::{ImageUser, StopSignal};
use tokio_util::sync::CancellationToken;

use crate::{
    ConvertError, Image, Item, Opened,
    convert::{image_config, merged},
};

/// What is wrong with what the image's own config says of its process, where the bundle says nothing instead.
pub(crate) fn wrong(theirs: &ImageConfig, item: &Item, image: &Image) -> Vec<String> {
    let mut wrong = Vec::new();
    let cmd = image.cmd.as_ref().unwrap_or(&item.cmd);
    if cmd.is_empty() && theirs.args().is_empty() {
        wrong.push("its config names neither an entry point nor a command: write `cmd`".into());
    }
    let dir = image.working_dir.as_ref().unwrap_or(&item.working_dir);
    let relative = !theirs.working_dir.is_empty() && !theirs.working_dir.starts_with('/');
    if dir.is_empty() && relative {
        let theirs = &theirs.working_dir;
        wrong.push(format!(
            "`WorkingDir` in its config is `{theirs}`, which is no absolute path: write `workingDir`"
        ));
    }
    if item.user.is_none()
        && !theirs.user.is_empty()
        && let Err(why) = theirs.user.parse::<ImageUser>()
    {
        wrong.push(format!(
            "`User` in its config: {why}; there, or as `user` in the item's `configuration`"
        ));
    }
    if item.stop_signal.is_none()
        && !theirs.stop_signal.is_empty()
        && let Err(why) = theirs.stop_signal.parse::<StopSignal>()
    {
        wrong.push(format!(
            "`StopSignal` in its config: {why}; write `stopSignal` in the item's `configuration`"
        ));
    }
    wrong
}

/// The image's layers, and its config with what the bundle says instead.
pub(crate) fn take(
    bundle: &Opened,
    item: &Item,
    image: &Image,
    place: &Path,
    store: &BlobStore,
    stop: &CancellationToken,
) -> Result<build::Image, ConvertError> {
    let failed = |source| ConvertError::Layout {
        codename: item.codename.clone(),
        architecture: image.architecture.clone(),
        source: Box::new(source),
    };
    let scratch = place.parent().unwrap_or(Path::new("."));
    let unpacked;
    let folder = if place.is_dir() {
        place
    } else {
        unpacked = unpack(item, image, place, scratch, stop)?;
        unpacked.path()
    };
    let found = layout::find(folder, &image.architecture, &image.variant).map_err(failed)?;
    if let Some(why) = wrong(&found.config, item, image).into_iter().next() {
        return Err(unusable(item, image, why));
    }
    let layers = found.store(store, scratch, stop).map_err(failed)?;
    let theirs = found.config;
    let ours = image_config(&bundle.config.publisher.author, item, image);
    let said = |own: String, their: String| if own.is_empty() { their } else { own };
    let own_command = !ours.cmd.is_empty();
    Ok(build::Image {
        config: ImageConfig {
            env: merged(&theirs.env, &ours.env),
            // As with a plain folder: `cmd` of the bundle is the program with its arguments.
            entrypoint: if own_command {
                Vec::new()
            } else {
                theirs.entrypoint
            },
            cmd: if own_command { ours.cmd } else { theirs.cmd },
            working_dir: said(ours.working_dir, theirs.working_dir),
            user: said(ours.user, theirs.user),
            stop_signal: said(ours.stop_signal, theirs.stop_signal),
            exposed_ports: [theirs.exposed_ports, ours.exposed_ports].concat(),
            platform: ours.platform,
            author: ours.author,
            created: theirs.created,
            diff_ids: Vec::new(),
        },
        item_config: None,
        layers,
    })
}

/// A packed layout as a folder that is gone afterwards.
fn unpack(
    item: &Item,
    image: &Image,
    place: &Path,
    scratch: &Path,
    stop: &CancellationToken,
) -> Result<tempfile::TempDir, ConvertError> {
    let read = |source| ConvertError::Read {
        path: place.to_owned(),
        source,
    };
    let folder = tempfile::tempdir_in(scratch).map_err(read)?;
    let mut packed = File::open(place).map_err(read)?;
    let compression = compression(&mut packed).map_err(read)?;
    extract(
        packed,
        compression,
        folder.path(),
        Flavour::Files,
        &Limits::default(),
        stop,
    )
    .map_err(|source| ConvertError::Packed {
        codename: item.codename.clone(),
        architecture: image.architecture.clone(),
        source: Box::new(source),
    })?;
    if !folder.path().join("index.json").is_file() {
        let name = place.file_name().unwrap_or_default().to_string_lossy();
        let why = format!(
            "`{name}` has no `index.json` at its top: pack what is in the layout's folder, not the folder itself \
             (`tar -C FOLDER -cf {name} .`)"
        );
        return Err(unusable(item, image, why));
    }
    Ok(folder)
}

/// Told by the first bytes: the media type of a layout says nothing of how it is packed.
fn compression(packed: &mut File) -> io::Result<Compression> {
    let mut start = Vec::new();
    packed.by_ref().take(2).read_to_end(&mut start)?;
    packed.rewind()?;
    Ok(match start[..] {
        [0x1f, 0x8b] => Compression::Gzip,
        _ => Compression::None,
    })
}

fn unusable(item: &Item, image: &Image, why: String) -> ConvertError {
    ConvertError::Unusable {
        codename: item.codename.clone(),
        architecture: image.architecture.clone(),
        why,
    }
}
