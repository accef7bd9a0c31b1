use std::{
    ffi::OsString,
    fs, io,
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, symlink},
    },
    path::{Component, Path, PathBuf},
};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
};

use crate::{Error, InstanceSpec, Mount, RootUse};

/// Folders that every root has, so that mounts find their place.
const PLACES: [(&str, u32); 9] = [
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("var", 0o755),
];
/// Most bytes of mount options: the kernel copies one page.
pub(crate) const MAX_OPTIONS: usize = 4_000;

/// The least that can be written into a root, in bytes: what an overlay and an empty file or two need.
const LEAST_ROOT: u64 = 256 << 10;

/// Makes the lowest layer of all roots in `folder`: empty places, and for the host base the links (`/bin` → `usr/bin`) or
/// empty folders that its own mounts will cover. Repeatable.
pub(crate) fn write_base(folder: &Path, host_base: &[PathBuf]) -> Result<(), Error> {
    for (name, mode) in PLACES {
        let path = folder.join(name);
        fs::DirBuilder::new()
            .recursive(true)
            .create(&path)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(mode)))
            .map_err(|source| file("make", &path, source))?;
    }
    for host in host_base {
        let Some(name) = top_name(host) else { continue };
        let path = folder.join(&name);
        let made = match fs::symlink_metadata(host) {
            // What is there already is left alone: running instances have it as a layer.
            Ok(kind) if kind.is_symlink() && path.is_symlink() => Ok(()),
            Ok(kind) if kind.is_symlink() => {
                fs::read_link(host).and_then(|target| symlink(target, &path))
            }
            Ok(kind) if kind.is_dir() => fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(&path),
            _ => Ok(()),
        };
        made.map_err(|source| file("make", &path, source))?;
    }
    Ok(())
}

/// The part of a root that its instance may write into: memory, so that it is bounded on every Node whatever its disks
/// can, and gone when nobody uses the root any more.
#[derive(Debug)]
pub(crate) struct Writable {
    pub(crate) upper: PathBuf,
    pub(crate) work: PathBuf,
    place: PathBuf,
}

impl Writable {
    /// Mounts an empty one of at most `bytes` at `place`.
    pub(crate) fn mount(place: &Path, bytes: u64) -> Result<Self, Error> {
        // What an earlier start left.
        unmount_root(place)?;
        remove_tree(place)?;
        let made = |path: &Path, mode: u32| {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(mode)
                .create(path)
                .map_err(|source| file("make", path, source))
        };
        made(place, 0o700)?;
        // Files without content take memory too.
        let options = format!("mode=700,size={bytes},nr_inodes={}", most_files(bytes));
        mount(
            Some("tmpfs"),
            place,
            Some("tmpfs"),
            MsFlags::MS_NOSUID,
            Some(options.as_str()),
        )
        .map_err(|error| Error::Mount {
            what: "the writable part of a root".into(),
            path: place.to_path_buf(),
            source: error.into(),
        })?;
        let writable = Self {
            upper: place.join("upper"),
            work: place.join("work"),
            place: place.to_path_buf(),
        };
        made(&writable.upper, 0o755)?;
        made(&writable.work, 0o700)?;
        // The root folder itself takes its mode from the upper one, whatever the umask was.
        fs::set_permissions(&writable.upper, fs::Permissions::from_mode(0o755))
            .map_err(|source| file("make", &writable.upper, source))?;
        Ok(writable)
    }

    /// Takes it out of sight: a mounted root goes on using it, and it goes with the root.
    pub(crate) fn hide(&self) -> Result<(), Error> {
        unmount_root(&self.place)
    }
}

/// Files that a writable part of so many bytes may have.
const fn most_files(bytes: u64) -> u64 {
    bytes / 4_096 + 64
}

/// The bytes an instance may write into its root: what the Node gives, and never more than half of its own memory, so
/// that it sees a full disk before it is killed.
pub(crate) fn root_limit(spec: &InstanceSpec, node: u64) -> u64 {
    spec.limits
        .ram
        .map_or(node, |ram| node.min(ram / 2))
        .max(LEAST_ROOT)
}

/// How full a mounted root is; nothing if it has no writable part of its own.
pub(crate) fn root_use(root: &Path, node_limit: u64) -> Option<RootUse> {
    // An overlay tells of what its writes go to.
    let facts = rustix::fs::statvfs(root).ok()?;
    let limit = facts.f_blocks.saturating_mul(facts.f_frsize);
    // One that an older program made lies on a disk of the Node.
    (limit > 0 && limit <= node_limit.max(LEAST_ROOT)).then(|| RootUse {
        used: facts
            .f_blocks
            .saturating_sub(facts.f_bfree)
            .saturating_mul(facts.f_frsize),
        limit,
        files: facts.f_files.saturating_sub(facts.f_ffree),
        files_limit: facts.f_files,
    })
}

/// Mounts the root of an instance at `root`: base, then the layers in the image's order, then an empty part to write into
/// of at most `bytes`, for which `writable` is the place.
pub(crate) fn mount_root(
    spec: &InstanceSpec,
    base: &Path,
    root: &Path,
    writable: &Path,
    bytes: u64,
) -> Result<(), Error> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(root)
        .map_err(|source| file("make", root, source))?;
    let writable = Writable::mount(writable, bytes)?;
    let mounted = overlay(spec, base, &writable.upper, &writable.work, root);
    writable.hide().and(mounted)
}

/// Mounts the layers and what is written over them.
pub(crate) fn overlay(
    spec: &InstanceSpec,
    base: &Path,
    upper: &Path,
    work: &Path,
    root: &Path,
) -> Result<(), Error> {
    let lower = stack(spec.layers.iter().rev().map(PathBuf::as_path).chain([base]))
        .map_err(|why| bad(spec, "layers", why))?;
    let mut options = OsString::from("lowerdir=");
    options.push(lower);
    options.push(",upperdir=");
    options.push(option(upper).map_err(|why| bad(spec, "layers", why))?);
    options.push(",workdir=");
    options.push(option(work).map_err(|why| bad(spec, "layers", why))?);
    // What an instance writes into its root is gone with it, so it need not be synced when it is unmounted.
    options.push(",volatile");
    if options.len() > MAX_OPTIONS {
        return Err(bad(
            spec,
            "layers",
            format!("are too many: {} layers", spec.layers.len()),
        ));
    }
    mount(
        Some("overlay"),
        root,
        Some("overlay"),
        // Nobody gains rights by a file: not the instance, which could not anyway, and nobody who comes across its root.
        MsFlags::MS_NOSUID,
        Some(options.as_os_str()),
    )
    .map_err(|error| Error::Mount {
        what: format!("the root of instance {}", spec.id),
        path: root.to_path_buf(),
        source: error.into(),
    })
}

/// Takes the root away, however often it was mounted.
pub(crate) fn unmount_root(root: &Path) -> Result<(), Error> {
    loop {
        match umount2(root, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            Err(error) => return Err(file("unmount", root, error.into())),
        }
    }
}

/// Removes a folder with all that is in it, if it is there.
pub(crate) fn remove_tree(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file("remove", path, error)),
        _ => Ok(()),
    }
}

/// The mounts that put the Node's own folders below the layers: each is an overlay of the layers' folder of that name on
/// top of the Node's, read-only.
///
/// The whole of `/` is not used as a layer: an overlay whose upper folder lies inside a lower one is refused by the
/// kernel, and nothing else of the Node should be reachable.
pub(crate) fn host_mounts(spec: &InstanceSpec) -> Result<Vec<Mount>, Error> {
    let mut mounts = Vec::new();
    for host in &spec.host_base {
        let Some(name) = top_name(host) else { continue };
        if !fs::symlink_metadata(host).is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let Some(parts) = parts_over_host(&spec.layers, Path::new(&name)) else {
            continue;
        };
        let read_only = ["ro", "nosuid", "nodev"].map(String::from);
        if parts.is_empty() {
            mounts.push(Mount {
                destination: host.clone(),
                source: host.to_string_lossy().into_owned(),
                kind: "bind".into(),
                options: ["rbind".to_owned()].into_iter().chain(read_only).collect(),
            });
        } else {
            let lower = stack(parts.iter().map(PathBuf::as_path).chain([host.as_path()]))
                .map_err(|why| bad(spec, "layers", why))?;
            if lower.len() > MAX_OPTIONS {
                return Err(bad(spec, "layers", "are too many".into()));
            }
            mounts.push(Mount {
                destination: host.clone(),
                source: "overlay".into(),
                kind: "overlay".into(),
                options: [format!("lowerdir={}", lower.to_string_lossy())]
                    .into_iter()
                    .chain(read_only)
                    .collect(),
            });
        }
    }
    Ok(mounts)
}

/// Whether a layer has something at `path`.
pub(crate) fn in_layers(layers: &[PathBuf], path: &Path) -> bool {
    let relative = path.strip_prefix("/").unwrap_or(path);
    layers
        .iter()
        .any(|layer| fs::symlink_metadata(layer.join(relative)).is_ok())
}

/// The folders called `name` of the layers, topmost first, that lie over the Node's. Nothing if the layers hide the
/// Node's folder: by a whiteout, an opaque folder, or something that is no folder.
fn parts_over_host(layers: &[PathBuf], name: &Path) -> Option<Vec<PathBuf>> {
    let mut parts = Vec::new();
    for layer in layers.iter().rev() {
        let path = layer.join(name);
        match fs::symlink_metadata(&path) {
            Err(_) => {}
            Ok(kind) if kind.is_dir() => {
                if is_opaque(&path) {
                    return None;
                }
                parts.push(path);
            }
            Ok(kind) => {
                debug_assert!(!kind.file_type().is_char_device() || kind.rdev() == 0);
                return None;
            }
        }
    }
    Some(parts)
}

fn is_opaque(folder: &Path) -> bool {
    let mut value = [0_u8; 8];
    matches!(
        rustix::fs::lgetxattr(folder, "trusted.overlay.opaque", &mut value),
        Ok(1) if value.first() == Some(&b'y')
    )
}

/// `/usr` → `usr`; nothing for anything deeper or stranger.
fn top_name(path: &Path) -> Option<OsString> {
    let mut parts = path.components();
    match (parts.next(), parts.next(), parts.next()) {
        (Some(Component::RootDir), Some(Component::Normal(name)), None) => Some(name.to_owned()),
        _ => None,
    }
}

/// Joins folders for `lowerdir=`.
pub(crate) fn stack<'a>(folders: impl Iterator<Item = &'a Path>) -> Result<OsString, String> {
    let mut joined = OsString::new();
    for folder in folders {
        if !joined.is_empty() {
            joined.push(":");
        }
        joined.push(option(folder)?);
    }
    Ok(joined)
}

/// A path as part of a mount option: a few characters would be read as separators.
fn option(path: &Path) -> Result<&Path, String> {
    let bytes = path.as_os_str().as_bytes();
    if !path.is_absolute() || bytes.iter().any(|byte| b":,\\\"\n".contains(byte)) {
        return Err(format!(
            "the path {} must be absolute and without `:`, `,`, quotes and backslashes",
            path.display()
        ));
    }
    Ok(path)
}

pub(crate) fn bad(spec: &InstanceSpec, field: &'static str, why: String) -> Error {
    Error::Spec {
        id: spec.id,
        field,
        why,
    }
}

pub(crate) fn file(what: &'static str, path: &Path, source: io::Error) -> Error {
    Error::File {
        what,
        path: path.to_path_buf(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_top_folders_are_a_base() {
        assert_eq!(top_name(Path::new("/usr")), Some("usr".into()));
        for bad in ["/", "usr", "/usr/lib", "/../usr", ""] {
            assert_eq!(top_name(Path::new(bad)), None, "{bad}");
        }
    }

    #[test]
    fn layers_lie_over_the_host_unless_they_hide_it() {
        let folder = tempfile::tempdir().unwrap();
        let layer = |name: &str| folder.path().join(name);
        for path in ["a/usr/bin", "b/etc", "c/usr"] {
            fs::create_dir_all(folder.path().join(path)).unwrap();
        }
        fs::create_dir_all(layer("d")).unwrap();
        symlink("elsewhere", layer("d/usr")).unwrap();
        let layers = [layer("a"), layer("b"), layer("c")];
        let usr = Path::new("usr");
        assert_eq!(
            parts_over_host(&layers, usr),
            Some(vec![layer("c/usr"), layer("a/usr")])
        );
        assert_eq!(parts_over_host(&layers[1..2], usr), Some(vec![]));
        let hidden = [layer("a"), layer("d")];
        assert_eq!(parts_over_host(&hidden, usr), None);
        assert!(in_layers(&layers, Path::new("/etc")));
        assert!(!in_layers(&layers, Path::new("/etc/ssl")));
    }

    #[test]
    fn a_root_is_bounded_by_the_node_and_by_half_of_the_memory() {
        let with = |ram| {
            let mut spec = crate::bundle::example();
            spec.limits.ram = ram;
            root_limit(&spec, 64 << 20)
        };
        assert_eq!(with(None), 64 << 20);
        assert_eq!(with(Some(1 << 30)), 64 << 20);
        assert_eq!(with(Some(32 << 20)), 16 << 20);
        assert_eq!(with(Some(1)), LEAST_ROOT);
        // The root of an older program, on a disk that is larger than what the Node gives.
        assert_eq!(root_use(Path::new("/"), 1), None);
    }

    #[test]
    fn a_path_cannot_smuggle_mount_options() {
        for bad in ["/a:b", "/a,upperdir=/etc", "relative", "/a\\b"] {
            assert!(option(Path::new(bad)).is_err(), "{bad}");
        }
    }
}
