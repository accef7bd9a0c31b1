//! The one system call that no library of ours wraps: mount_setattr(2).
#![allow(
    unsafe_code,
    reason = "mount_setattr(2) is not wrapped by the libraries used here"
)]

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

use nix::libc;

const AT_EMPTY_PATH: libc::c_uint = 0x1000;
const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;

/// `struct mount_attr` of linux/mount.h.
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Gives a mount that is attached nowhere the mapping of a user namespace.
pub(super) fn map_ids(mount: impl AsFd, namespace: impl AsFd) -> io::Result<()> {
    let attributes = MountAttr {
        set: MOUNT_ATTR_IDMAP,
        clear: 0,
        propagation: 0,
        userns_fd: u64::try_from(namespace.as_fd().as_raw_fd())
            .map_err(|_| io::ErrorKind::InvalidInput)?,
    };
    // SAFETY: both descriptors are open for the whole call; the path is an empty C string and the attributes are a
    // struct of the size that is given, neither of which the kernel keeps.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<MountAttr>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
