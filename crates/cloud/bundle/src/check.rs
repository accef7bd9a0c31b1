use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use aos_image::layout;
use aos_types::ItemType;

use crate::{
    CONFIG, Config, Image, Item, Problem, Problems, Severity,
    config::{MAX_CONFIG, Notes},
    convert::MAX_STATE,
    foreign,
    layout::{image_place, is_inside, item_folder},
};

/// A bundle folder that can be signed.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked {
    /// What it says.
    pub config: Config,
    /// The text it was read from.
    pub text: String,
    /// What is probably not meant.
    pub warnings: Problems,
    /// Files and folders to pack, each with its name in the bundle.
    pub(crate) sources: Vec<(PathBuf, PathBuf)>,
}

/// Checks a bundle folder: its `config.yaml` and the files it speaks of. Reports everything that is wrong at once.
pub fn check(folder: &Path) -> Result<Checked, Problems> {
    let text = read_config(&folder.join(CONFIG)).map_err(|message| {
        Problems(vec![Problem {
            severity: Severity::Error,
            line: None,
            field: String::new(),
            message,
        }])
    })?;
    let (config, notes) = Config::read(&text)?;
    if let Some(config) = &config {
        files(folder, config, &notes);
    }
    let problems = notes.take();
    match config {
        Some(config) if !problems.has_errors() => Ok(Checked {
            sources: sources(folder, &config),
            config,
            text,
            warnings: problems,
        }),
        _ => Err(problems),
    }
}

pub(crate) fn read_config(path: &Path) -> Result<String, String> {
    let told = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => format!(
            "there is no {}: make a bundle folder with `aos bundle init`",
            path.display()
        ),
        _ => format!("{} cannot be read: {error}", path.display()),
    };
    let size = fs::metadata(path).map_err(told)?.len();
    if size > MAX_CONFIG as u64 {
        return Err(format!(
            "it has {size} bytes, more than the allowed {MAX_CONFIG}"
        ));
    }
    fs::read_to_string(path).map_err(told)
}

/// Rules over the files of a bundle folder, at the publisher and again in the cloud.
pub(crate) fn files(folder: &Path, config: &Config, notes: &Notes) {
    for (i, item) in config.items.iter().enumerate() {
        for (j, image) in item.images.iter().enumerate() {
            let field = format!("items[{i}].images[{j}]");
            image_files(folder, item, image, &field, notes);
        }
        state_file(
            folder,
            item,
            &format!("items[{i}].configuration.state"),
            notes,
        );
    }
}

fn state_file(folder: &Path, item: &Item, field: &str, notes: &Notes) {
    let Some(state) = &item.state else { return };
    let own = item_folder(item).join(&state.filename);
    // In a signed bundle it lies under the name it travels by.
    let travelling = item_folder(item).join(crate::DEFAULT_STATE);
    let path = if folder.join(&travelling).is_file() && !folder.join(&own).is_file() {
        travelling
    } else {
        own
    };
    match fs::symlink_metadata(folder.join(&path)) {
        Ok(meta) if meta.is_file() => {
            let room = item.item_config.quotas.state_limit.unwrap_or_default();
            if meta.len() > room {
                notes.error(
                    field,
                    format!(
                        "the default state {} has {} bytes, but `quotas.stateLimit` is {room}",
                        path.display(),
                        meta.len()
                    ),
                );
            } else if meta.len() > MAX_STATE {
                notes.error(field, format!("is longer than {MAX_STATE} bytes"));
            } else if fs::read_to_string(folder.join(&path)).is_err() {
                let why = format!(
                    "the default state {} cannot be read as text in UTF-8: a state travels as text",
                    path.display()
                );
                notes.error(field, why);
            }
        }
        Ok(_) => notes.error(field, format!("{} is not a file", path.display())),
        Err(_) if state.required => notes.error(
            field,
            format!(
                "is required, but there is no default state {}",
                path.display()
            ),
        ),
        Err(_) => {}
    }
}

fn image_files(folder: &Path, item: &Item, image: &Image, field: &str, notes: &Notes) {
    let place = image_place(item, image);
    let shown = place.display();
    let Ok(meta) = fs::symlink_metadata(folder.join(&place)) else {
        notes.error(
            field,
            format!("there is no {shown} in the bundle's folder: put the image's files there"),
        );
        return;
    };
    if image.is_layout() {
        built_elsewhere(folder, &place, meta.is_file(), item, image, field, notes);
        return;
    }
    if meta.is_file() {
        if image.media_type.is_none() {
            notes.error(
                field,
                format!("{shown} is a single file: say what it is with `mediaType`"),
            );
        }
        return;
    }
    if !meta.is_dir() {
        notes.error(field, format!("{shown} is neither a file nor a folder"));
        return;
    }
    if item.item_type == ItemType::Component {
        notes.error(
            field,
            format!("{shown} is a folder: a component's image is a single file, named by `path`"),
        );
    }
    if folder.join(&place).join("oci-layout").is_file() && image.media_type.is_none() {
        notes.error(
            field,
            format!(
                "{shown} is an OCI image layout: say so with `mediaType: {}`",
                crate::LAYOUT
            ),
        );
        return;
    }
    let mut count = 0;
    walk(
        &folder.join(&place),
        Path::new(""),
        0,
        &mut count,
        &mut |name, why| {
            notes.error(field, format!("{}: {why}", place.join(name).display()));
        },
    );
    if count == 0 {
        notes.error(
            field,
            format!("{shown} is empty: put the image's files there"),
        );
    }
    program(folder, item, image, field, notes);
}

/// An image that another tool has built. A packed one is looked at where it is unpacked, in the cloud.
fn built_elsewhere(
    folder: &Path,
    place: &Path,
    packed: bool,
    item: &Item,
    image: &Image,
    field: &str,
    notes: &Notes,
) {
    if packed {
        return;
    }
    match layout::find(&folder.join(place), &image.architecture, &image.variant) {
        Ok(found) => {
            for missing in found.missing() {
                notes.error(field, format!("its layer {} is missing", missing.display()));
            }
            for why in foreign::wrong(&found.config, item, image) {
                notes.error(field, why);
            }
        }
        Err(error) => notes.error(field, error_text(&error)),
    }
}

fn error_text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Without the Node's own folders the program must be among the image's files.
fn program(folder: &Path, item: &Item, image: &Image, field: &str, notes: &Notes) {
    if item.item_config.base_layer_is_node_rootfs {
        return;
    }
    let cmd = image.cmd.as_ref().unwrap_or(&item.cmd);
    let Some(program) = cmd.first() else { return };
    let Some(inside) = program.strip_prefix('/') else {
        notes.error(
            field,
            format!(
                "`{program}` must be an absolute path, because `baseLayerIsNodeRootfs` is false"
            ),
        );
        return;
    };
    let place = image_place(item, image);
    if !is_inside(inside) {
        return;
    }
    match fs::symlink_metadata(folder.join(&place).join(inside)) {
        // A link may lead anywhere in the image: only the start tells.
        Ok(meta) if meta.is_symlink() => {}
        Ok(meta) if meta.is_file() => {
            if meta.permissions().mode() & 0o111 == 0 {
                notes.error(field, format!("{} may not be executed: chmod +x it", place.join(inside).display()));
            }
        }
        _ => notes.error(
            field,
            format!(
                "`{program}` is not among its files, and `baseLayerIsNodeRootfs` is false: put it at {}",
                place.join(inside).display()
            ),
        ),
    }
}

const MAX_DEPTH: usize = 100;

/// Tells `refuse` of everything that cannot be packed.
fn walk(
    folder: &Path,
    name: &Path,
    depth: usize,
    count: &mut u64,
    refuse: &mut dyn FnMut(&Path, String),
) {
    if depth > MAX_DEPTH {
        refuse(name, "lies too deep".into());
        return;
    }
    let entries = match fs::read_dir(folder.join(name)) {
        Ok(entries) => entries,
        Err(error) => {
            refuse(name, format!("cannot be read: {error}"));
            return;
        }
    };
    let mut names: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.file_name()))
        .collect();
    names.sort();
    for entry in names {
        *count += 1;
        let name = name.join(&entry);
        let text = entry.to_string_lossy();
        if text.contains('\n') {
            refuse(&name, "has a line break in its name: rename it".into());
        }
        if text.starts_with(".wh.") {
            refuse(
                &name,
                "has a name that means a deletion in a layer: rename it".into(),
            );
        }
        let Ok(meta) = fs::symlink_metadata(folder.join(&name)) else {
            refuse(&name, "cannot be read".into());
            continue;
        };
        if meta.is_dir() {
            walk(folder, &name, depth + 1, count, refuse);
        } else if meta.is_symlink() {
            let target = fs::read_link(folder.join(&name)).unwrap_or_default();
            if climbs_out(&name, &target) {
                refuse(
                    &name,
                    format!("is a link to {}, which leaves the image", target.display()),
                );
            }
        } else if !meta.is_file() {
            refuse(&name, "is not a file, folder or link: remove it".into());
        }
    }
}

/// Whether a link's target has more `..` than folders to leave.
fn climbs_out(name: &Path, target: &Path) -> bool {
    use std::path::Component;
    let mut depth = if target.is_absolute() {
        0
    } else {
        name.components().count().saturating_sub(1)
    };
    for part in target.components() {
        match part {
            Component::ParentDir => match depth.checked_sub(1) {
                Some(less) => depth = less,
                None => return true,
            },
            Component::Normal(_) => depth += 1,
            _ => {}
        }
    }
    false
}

/// What is packed: every image's place once, and the default states.
fn sources(folder: &Path, config: &Config) -> Vec<(PathBuf, PathBuf)> {
    let mut places: Vec<PathBuf> = config
        .items
        .iter()
        .flat_map(|item| item.images.iter().map(|image| image_place(item, image)))
        .map(|place| {
            place
                .components()
                .filter(|part| part.as_os_str() != ".")
                .collect()
        })
        .collect();
    places.sort();
    places.dedup();
    let outer = places.clone();
    places.retain(|place| {
        !outer
            .iter()
            .any(|other| other != place && place.starts_with(other))
    });
    let mut sources: Vec<_> = places
        .iter()
        .map(|place| (folder.join(place), place.clone()))
        .collect();
    for item in &config.items {
        let Some(state) = &item.state else { continue };
        let from = folder.join(item_folder(item)).join(&state.filename);
        let to = item_folder(item).join(crate::DEFAULT_STATE);
        let packed = sources.iter().any(|(_, name)| {
            *name == to || to.starts_with(name) && from.ends_with(crate::DEFAULT_STATE)
        });
        if from.is_file() && !packed {
            sources.push((from, to));
        }
    }
    sources
}
