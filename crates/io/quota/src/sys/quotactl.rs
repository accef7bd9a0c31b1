//! Quotas of the file system: `quotactl_fd`, in the form that ext4, xfs and f2fs share, and project ids of files.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd},
};

use nix::libc;
use rustix::ioctl::{self, Getter, Opcode, Setter, opcode};

use crate::Usage;

/// Whose quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    User = 0,
    Project = 2,
}

const GET_QUOTA: u32 = (b'X' as u32) << 8 | 3;
const SET_LIMITS: u32 = (b'X' as u32) << 8 | 4;
const GET_STATE: u32 = (b'X' as u32) << 8 | 8;

/// Blocks in which the kernel counts here.
const BLOCK: u64 = 512;
/// Bits of what is said of a file system: user and project quotas are enforced.
const USER_ENFORCED: u16 = 1 << 1;
const PROJECT_ENFORCED: u16 = 1 << 5;
/// The fields of [`DiskQuota`] that are set: both limits of inodes and both of blocks.
const LIMITS: u16 = 1 | 1 << 1 | 1 << 2 | 1 << 3;
/// So many bytes for each file, and so many files in any case: empty ones take an inode of the Node each.
const BYTES_A_FILE: u64 = 4_096;
const FEW_FILES: u64 = 256;

/// `struct fs_disk_quota` of the kernel.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct DiskQuota {
    version: i8,
    flags: i8,
    fields: u16,
    id: u32,
    block_hard: u64,
    block_soft: u64,
    inode_hard: u64,
    inode_soft: u64,
    blocks: u64,
    inodes: u64,
    inode_timer: i32,
    block_timer: i32,
    inode_warnings: u16,
    block_warnings: u16,
    timers_high: [i8; 4],
    realtime_hard: u64,
    realtime_soft: u64,
    realtime_blocks: u64,
    realtime_timer: i32,
    realtime_warnings: u16,
    padding: [u8; 10],
}

const _: () = assert!(size_of::<DiskQuota>() == 112);

/// `struct fs_quota_statv`, of which only the head is read. The kernel writes 160 bytes.
#[repr(C, align(8))]
struct State {
    version: u8,
    padding: u8,
    flags: u16,
    rest: [u8; 508],
}

fn call<T>(fs: &File, command: u32, whose: Whose, id: u32, argument: &mut T) -> io::Result<()> {
    let command = command << 8 | whose as u32;
    // SAFETY: the argument is a live structure of the size that the kernel reads and writes for this command, and the
    // descriptor is open for as long as the call lasts.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_quotactl_fd,
            fs.as_raw_fd(),
            command,
            id,
            std::ptr::from_mut(argument),
        )
    };
    if answer == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Whether the file system of an open folder enforces quotas of this sort.
pub(crate) fn enforced(fs: &File, whose: Whose) -> io::Result<bool> {
    let mut state = State {
        version: 1,
        padding: 0,
        flags: 0,
        rest: [0; 508],
    };
    call(fs, GET_STATE, whose, 0, &mut state)?;
    let bit = match whose {
        Whose::User => USER_ENFORCED,
        Whose::Project => PROJECT_ENFORCED,
    };
    Ok(state.flags & bit != 0)
}

/// What somebody uses and may use; both 0 for one of whom nothing is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Held {
    pub(crate) used: u64,
    pub(crate) limit: u64,
    pub(crate) files: u64,
    pub(crate) files_limit: u64,
}

impl Held {
    /// What is told of it.
    pub(crate) const fn usage(self, together: bool) -> Usage {
        Usage {
            used: self.used,
            files: self.files,
            files_limit: self.files_limit,
            together,
        }
    }
}

pub(crate) fn held(fs: &File, whose: Whose, id: u32) -> io::Result<Held> {
    let mut quota = DiskQuota::default();
    match call(fs, GET_QUOTA, whose, id, &mut quota) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Held::default()),
        result => {
            result?;
            Ok(Held {
                used: quota.blocks.saturating_mul(BLOCK),
                limit: quota.block_hard.saturating_mul(BLOCK),
                files: quota.inodes,
                files_limit: quota.inode_hard,
            })
        }
    }
}

/// Files that somebody may have who may use so many bytes; 0 is without limit.
pub(crate) const fn most_files(bytes: u64) -> u64 {
    match bytes {
        0 => 0,
        bytes => bytes / BYTES_A_FILE + FEW_FILES,
    }
}

/// Limits what somebody may use, in bytes, and how many files that may be; 0 is without limit.
pub(crate) fn limit(fs: &File, whose: Whose, id: u32, bytes: u64) -> io::Result<()> {
    let (blocks, files) = (bytes.div_ceil(BLOCK), most_files(bytes));
    let mut quota = DiskQuota {
        version: 1,
        flags: match whose {
            Whose::User => 1,
            Whose::Project => 2,
        },
        fields: LIMITS,
        id,
        inode_hard: files,
        inode_soft: files,
        block_hard: blocks,
        block_soft: blocks,
        ..DiskQuota::default()
    };
    call(fs, SET_LIMITS, whose, id, &mut quota)
}

/// `struct fsxattr` of the kernel.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Attributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    cow_extent_size: u32,
    padding: [u8; 8],
}

const GET_ATTRIBUTES: Opcode = opcode::read::<Attributes>(b'X', 31);
const SET_ATTRIBUTES: Opcode = opcode::write::<Attributes>(b'X', 32);
/// What is made in the folder belongs to its project.
const INHERIT: u32 = 0x200;

fn attributes(file: impl AsFd) -> io::Result<Attributes> {
    // SAFETY: the kernel writes one `struct fsxattr` for this number, which is what the getter holds.
    let attributes = unsafe { ioctl::ioctl(file, Getter::<GET_ATTRIBUTES, Attributes>::new()) };
    Ok(attributes?)
}

/// The project of a file; 0 if it has none.
pub(crate) fn project(file: impl AsFd) -> io::Result<u32> {
    Ok(attributes(file)?.project)
}

/// Puts a file into a project; a folder hands it on.
pub(crate) fn set_project(file: &File, id: u32, folder: bool) -> io::Result<()> {
    let mut now = attributes(file)?;
    let flags = if folder {
        now.flags | INHERIT
    } else {
        now.flags
    };
    if (now.project, now.flags) == (id, flags) {
        return Ok(());
    }
    now.project = id;
    now.flags = flags;
    // SAFETY: the kernel reads one `struct fsxattr` for this number, which is what the setter holds.
    unsafe { ioctl::ioctl(file, Setter::<SET_ATTRIBUTES, Attributes>::new(now)) }?;
    Ok(())
}
