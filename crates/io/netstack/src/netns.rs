use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    thread,
};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
    sys::statfs::{FsType, statfs},
};
use rtnetlink::Handle;
use tokio::{runtime, sync::oneshot};

/// The file system of namespace files (`NSFS_MAGIC` of magic.h).
const NSFS: FsType = FsType(0x6e73_6673);

/// A network namespace that is there.
pub(crate) struct Namespace {
    /// Talks to the kernel inside it.
    pub(crate) inside: Handle,
}

/// Whether `path` holds a network namespace.
pub(crate) fn exists(path: &Path) -> bool {
    statfs(path).is_ok_and(|facts| facts.filesystem_type() == NSFS)
}

async fn in_thread(
    work: impl FnOnce(&runtime::Handle) -> io::Result<Namespace> + Send + 'static,
) -> io::Result<Namespace> {
    let runtime = runtime::Handle::current();
    let (done, result) = oneshot::channel();
    thread::Builder::new()
        .name("netns".into())
        .stack_size(128 * 1024)
        .spawn(move || {
            let _ = done.send(work(&runtime));
        })?;
    result
        .await
        .unwrap_or_else(|_| Err(io::Error::other("the thread that makes namespaces ended")))
}

/// Makes a namespace that lasts until [`remove`]d, whoever dies, and takes the calling thread into it.
pub(crate) fn enter_new(path: &Path, ipv6: bool, joined: bool) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(folder)?;
    }
    remove(path)?;
    OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o444)
        .open(path)?;
    unshare(CloneFlags::CLONE_NEWNET)?;
    let nothing: Option<&str> = None;
    mount(
        Some("/proc/thread-self/ns/net"),
        path,
        nothing,
        MsFlags::MS_BIND,
        nothing,
    )?;
    let settings = if ipv6 { WITH_IPV6 } else { WITHOUT_IPV6 };
    let notify = joined.then_some(&ARP_NOTIFY);
    // What is not there need not be set.
    for (setting, value) in settings.iter().chain(notify) {
        let _ = fs::write(format!("/proc/sys/net/{setting}"), value);
    }
    File::open(path)
}

/// Says to others where an address is now, when it may have come from another Node. Each instance hears it, so that it is
/// not said where there are no other Nodes.
const ARP_NOTIFY: (&str, &str) = ("ipv4/conf/default/arp_notify", "1");
/// Nobody but we give an interface addresses and routes, and they are used at once: nobody else has them.
const WITH_IPV6: &[(&str, &str)] = &[
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
];
/// Without this each interface would make itself an address.
const WITHOUT_IPV6: &[(&str, &str)] = &[
    ("ipv6/conf/all/disable_ipv6", "1"),
    ("ipv6/conf/default/disable_ipv6", "1"),
];

/// Opens a namespace that is there.
pub(crate) async fn open(path: PathBuf) -> io::Result<Namespace> {
    in_thread(move |runtime| {
        setns(File::open(&path)?, CloneFlags::CLONE_NEWNET)?;
        inside(runtime)
    })
    .await
}

/// A way into the namespace in which the thread is.
fn inside(runtime: &runtime::Handle) -> io::Result<Namespace> {
    let _guard = runtime.enter();
    // The socket stays in the namespace in which it was opened.
    let (connection, inside, _) = rtnetlink::new_connection()?;
    runtime.spawn(connection);
    Ok(Namespace { inside })
}

/// Lets go of a namespace; it ends when nobody is in it any more.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    loop {
        match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::EINVAL | Errno::ENOENT) => break,
            Err(error) => return Err(error.into()),
        }
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
