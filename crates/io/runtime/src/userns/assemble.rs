//! Putting a root together, in a mount namespace that nobody else sees.

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::fs::chown,
    },
    path::{Path, PathBuf},
};

use aos_types::{Account, Capability, ImageUser};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
};
use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, openat2},
    mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree, unmount},
};

use super::{
    Parts, holder,
    map::{self, IdMaps, outside},
    names, setattr,
};
use crate::{
    Error, InstanceSpec, Mount, User,
    rootfs::{self, MAX_OPTIONS, Writable, file, stack},
};

/// Below which port listening needs a right; a namespace's right does not count for a network namespace made before it.
const FIRST_FREE_PORT: &str = "net.ipv4.ip_unprivileged_port_start";

pub(super) fn assemble(spec: &InstanceSpec, parts: &Parts<'_>) -> Result<(IdMaps, OwnedFd), Error> {
    let told = |what: &'static str| {
        let path = parts.root.to_path_buf();
        move |error: nix::Error| file(what, &path, error.into())
    };
    unshare(CloneFlags::CLONE_NEWNS).map_err(told("leave the mounts of the Node for"))?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(told("leave the mounts of the Node for"))?;
    let desk = Desk::new(parts.root)?;
    let maps = maps(spec, parts, &desk)?;
    let namespace = holder::namespace(parts.program, &maps)
        .map_err(|source| file("make a user namespace for", parts.root, source))?;
    let layers = spec
        .layers
        .iter()
        .enumerate()
        .map(|(index, layer)| desk.attach(layer, &index.to_string(), &namespace))
        .collect::<Result<Vec<_>, _>>()?;
    let base = desk.attach(parts.base, "base", &namespace)?;
    let mapped = InstanceSpec {
        layers,
        ..spec.clone()
    };
    overlay(&mapped, &base, parts, &maps, &desk.root)?;
    for mount in rootfs::host_mounts(&mapped)? {
        put(&desk.root, &mount)?;
    }
    if let Some(netns) = &spec.netns {
        let open = File::open(netns).map_err(|source| file("open", netns, source))?;
        setns(open, CloneFlags::CLONE_NEWNET)
            .map_err(|error| file("enter", netns, error.into()))?;
        system(&desk.root)?;
        parameters(spec)?;
    }
    let whole = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(CWD, &desk.root, whole)
        .map_err(|error| file("take up", &desk.root, error.into()))?;
    Ok((maps, tree))
}

/// Whom the instance runs as inside, which its image may know by a name only.
fn maps(spec: &InstanceSpec, parts: &Parts<'_>, desk: &Desk) -> Result<IdMaps, Error> {
    let bad = |why| rootfs::bad(spec, "user", why);
    let root = ImageUser {
        user: Account::Id(0),
        group: None,
    };
    let wanted = spec.inside.as_ref().unwrap_or(&root);
    let inside: User = match wanted {
        ImageUser {
            user: Account::Id(uid),
            group: Some(Account::Id(gid)),
        } => User {
            uid: *uid,
            gid: *gid,
            additional_gids: Vec::new(),
        },
        _ => {
            let root = desk.look(spec, parts.base)?;
            let found = names::resolve(wanted, &root).map_err(bad)?;
            drop(root);
            desk.put_away()?;
            found
        }
    };
    map::maps(&spec.user, &inside).map_err(bad)
}

/// A place for mounts that only this thread sees, on top of the folder where the root will be.
struct Desk {
    layers: PathBuf,
    root: PathBuf,
}

impl Desk {
    fn new(at: &Path) -> Result<Self, Error> {
        mount(
            Some("tmpfs"),
            at,
            Some("tmpfs"),
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
            Some("mode=700"),
        )
        .map_err(|error| Error::Mount {
            what: "a place for layers".into(),
            path: at.to_path_buf(),
            source: error.into(),
        })?;
        let desk = Self {
            layers: at.join("l"),
            root: at.join("r"),
        };
        for folder in [&desk.layers, &desk.root] {
            fs::create_dir(folder).map_err(|source| file("make", folder, source))?;
        }
        Ok(desk)
    }

    /// Mounts a layer once more, with the numbers of the namespace.
    fn attach(&self, layer: &Path, name: &str, namespace: &OwnedFd) -> Result<PathBuf, Error> {
        let place = self.layers.join(name);
        fs::create_dir(&place).map_err(|source| file("make", &place, source))?;
        let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree =
            open_tree(CWD, layer, clone).map_err(|error| file("open", layer, error.into()))?;
        setattr::map_ids(&tree, namespace).map_err(|source| {
            let why = format!(
                "{source}; an instance with a user namespace needs a kernel (5.19) and a file system for \
                 layers that can map owners: set `userNamespace` of the item to false"
            );
            file("map the owners of", layer, io::Error::new(source.kind(), why))
        })?;
        move_mount(
            &tree,
            c"",
            CWD,
            &place,
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
        )
        .map_err(|error| file("attach", layer, error.into()))?;
        Ok(place)
    }

    /// The root as the image has it, for a look at its files.
    fn look(&self, spec: &InstanceSpec, base: &Path) -> Result<OwnedFd, Error> {
        let all = spec.layers.iter().rev().map(PathBuf::as_path).chain([base]);
        let mut options = OsString::from("lowerdir=");
        // One alone is no overlay.
        let joined = stack(all.chain(spec.layers.is_empty().then_some(base)))
            .map_err(|why| rootfs::bad(spec, "layers", why))?;
        options.push(joined);
        let read_only = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(
            Some("overlay"),
            &self.root,
            Some("overlay"),
            read_only,
            Some(options.as_os_str()),
        )
        .map_err(|error| Error::Mount {
            what: format!("the layers of instance {}", spec.id),
            path: self.root.clone(),
            source: error.into(),
        })?;
        folder(&self.root)
    }

    fn put_away(&self) -> Result<(), Error> {
        unmount(&self.root, rustix::mount::UnmountFlags::DETACH)
            .map_err(|error| file("unmount", &self.root, error.into()))
    }
}

fn folder(path: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|error| file("open", path, error.into()))
}

/// The overlay. Its writable folder belongs to whoever is root inside.
fn overlay(
    spec: &InstanceSpec,
    base: &Path,
    parts: &Parts<'_>,
    maps: &IdMaps,
    at: &Path,
) -> Result<(), Error> {
    // Mounted for this thread alone: it needs no hiding.
    let Writable { upper, work, .. } = &Writable::mount(parts.writable, parts.bytes)?;
    chown(upper, outside(&maps.uids, 0), outside(&maps.gids, 0))
        .map_err(|source| file("make", upper, source))?;
    rootfs::overlay(spec, base, upper, work, at)
}

/// Mounts what of the Node lies below the layers.
fn put(root: &Path, wanted: &Mount) -> Result<(), Error> {
    let place = inside(root, &wanted.destination)?;
    let at = PathBuf::from(format!("/proc/self/fd/{}", place.as_raw_fd()));
    let failed = |error: nix::Error| Error::Mount {
        what: wanted.source.clone(),
        path: wanted.destination.clone(),
        source: error.into(),
    };
    let closed = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let none: Option<&str> = None;
    if wanted.kind == "bind" {
        let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
        mount(Some(wanted.source.as_str()), &at, none, bind, none).map_err(failed)?;
        drop(place);
        let place = inside(root, &wanted.destination)?;
        let at = PathBuf::from(format!("/proc/self/fd/{}", place.as_raw_fd()));
        let again = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | closed;
        return mount(none, &at, none, again, none).map_err(failed);
    }
    let options: Vec<&str> = wanted
        .options
        .iter()
        .map(String::as_str)
        .filter(|option| option.starts_with("lowerdir="))
        .collect();
    mount(
        Some("overlay"),
        &at,
        Some("overlay"),
        closed,
        Some(options.join(",").as_str()),
    )
    .map_err(failed)
}

/// A folder of the root, never through a link of the image.
fn inside(root: &Path, path: &Path) -> Result<OwnedFd, Error> {
    let top = folder(root)?;
    let relative = path.strip_prefix("/").unwrap_or(path);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    openat2(top.as_fd(), relative, flags, Mode::empty(), resolve)
        .map_err(|error| file("open in the root", path, error.into()))
}

/// `/sys` of the instance's network namespace: the instance may not mount that of a namespace older than its own.
fn system(root: &Path) -> Result<(), Error> {
    let place = inside(root, Path::new("/sys"))?;
    let at = PathBuf::from(format!("/proc/self/fd/{}", place.as_raw_fd()));
    let closed = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let none: Option<&str> = None;
    mount(Some("sysfs"), &at, Some("sysfs"), closed, none).map_err(|error| Error::Mount {
        what: "sysfs".into(),
        path: "/sys".into(),
        source: error.into(),
    })
}

/// Kernel parameters of the network namespace, which the instance may not set itself.
fn parameters(spec: &InstanceSpec) -> Result<(), Error> {
    let free = spec.capabilities.contains(&Capability::NetBindService)
        && !spec.sysctl.contains_key(FIRST_FREE_PORT);
    let own = free.then_some((FIRST_FREE_PORT, "0"));
    let asked = spec
        .sysctl
        .iter()
        .filter(|(key, _)| key.starts_with("net."))
        .map(|(key, value)| (key.as_str(), value.as_str()));
    for (key, value) in own.into_iter().chain(asked) {
        let path = Path::new("/proc/sys").join(key.replace('.', "/"));
        match fs::write(&path, value) {
            Ok(()) => {}
            // An old kernel: the right to low ports is missing then, nothing else.
            Err(error) if key == FIRST_FREE_PORT && error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(rootfs::bad(
                    spec,
                    "sysctl",
                    format!("`{key}` cannot be set to `{value}`: {error}"),
                ));
            }
        }
    }
    Ok(())
}

const _: () = assert!(MAX_OPTIONS < 4_096, "mount options are one page");
