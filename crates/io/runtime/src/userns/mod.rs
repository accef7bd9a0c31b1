//! User namespaces: an instance may be root, or anybody its image knows, in its own eyes, and nobody on the Node.
//!
//! ```text
//!   layers ──open_tree, idmap──┐
//!                              ├── overlay ── Node's folders, /sys ── open_tree ──► rootfs of the bundle
//!   writable, owned by "root" ─┘
//! ```
//!
//! Files of the layers keep their owners inside: the layers are attached by mounts that map their numbers as the namespace
//! does, so that one unpacked layer serves instances with and without a namespace. All of it is put together in a mount
//! namespace of one thread and handed over whole, so that nothing but the finished root is ever seen, whatever fails.

mod assemble;
mod holder;
mod map;
mod names;
mod setattr;

use std::{
    fs, io,
    os::fd::OwnedFd,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::Path,
};

use rustix::mount::{MoveMountFlags, move_mount};

pub(crate) use holder::hold;
pub(crate) use map::{IdMaps, Range};

use crate::{Error, InstanceSpec, rootfs::file};

/// Where a root is made from and what.
pub(crate) struct Parts<'a> {
    /// The lowest layer.
    pub(crate) base: &'a Path,
    /// Where the root is mounted.
    pub(crate) root: &'a Path,
    /// The place for the part that may be written into.
    pub(crate) writable: &'a Path,
    /// Most bytes of that.
    pub(crate) bytes: u64,
    /// The program that understands `keeper --user-namespace`.
    pub(crate) program: &'a Path,
}

/// Mounts the root of an instance with a user namespace and says how its numbers are mapped. Blocks.
pub(crate) fn mount_root(spec: &InstanceSpec, parts: &Parts<'_>) -> Result<IdMaps, Error> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(parts.root)
        .map_err(|source| file("make", parts.root, source))?;
    passable(parts.root)?;
    // The thread's mount namespace goes with the thread.
    let (maps, tree) = std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("aos-root".into())
            .spawn_scoped(scope, || assemble::assemble(spec, parts))
            .map_err(|source| file("start a thread for", parts.root, source))?
            .join()
            .unwrap_or_else(|_| {
                let source = io::Error::other("the thread that mounts it has failed");
                Err(file("mount", parts.root, source))
            })
    })?;
    attach(&tree, parts.root)?;
    Ok(maps)
}

/// The first process of a user namespace has no rights over the Node's folders on its way.
fn passable(root: &Path) -> Result<(), Error> {
    for folder in root.ancestors().skip(1) {
        let facts = fs::metadata(folder).map_err(|source| file("look at", folder, source))?;
        if facts.permissions().mode() & 0o001 == 0 {
            let why = "an instance with a user namespace must get through it: chmod o+x it";
            let source = io::Error::new(io::ErrorKind::PermissionDenied, why);
            return Err(file("pass through", folder, source));
        }
    }
    Ok(())
}

fn attach(tree: &OwnedFd, root: &Path) -> Result<(), Error> {
    move_mount(
        tree,
        c"",
        rustix::fs::CWD,
        root,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
    .map_err(|error| file("attach a root to", root, error.into()))
}
