//! Subvolumes and qgroups.

use std::{ffi::OsStr, fs::File, io, os::fd::AsFd, os::unix::ffi::OsStrExt};

use rustix::ioctl::{self, NoArg, Opcode, Setter, Updater, opcode};

const MAGIC: u8 = 0x94;
/// The object that every subvolume begins with.
const FIRST: u64 = 256;
/// The tree of qgroups.
const QUOTA_TREE: u64 = 8;
const STATUS_ITEM: u32 = 240;
const INFO_ITEM: u32 = 242;
/// The qgroups do not count right.
const INCONSISTENT: u64 = 1 << 2;
/// Both limits below are given.
const MAX_REFERENCED: u64 = 1;

/// `struct btrfs_ioctl_vol_args`.
#[repr(C)]
struct Volume {
    fd: i64,
    name: [u8; 4088],
}

impl Volume {
    fn new(name: &OsStr) -> io::Result<Self> {
        let mut volume = Self {
            fd: 0,
            name: [0; 4088],
        };
        let bytes = name.as_bytes();
        // A file's name is at most 255 bytes; the kernel wants a NUL behind it.
        let room = volume
            .name
            .get_mut(..bytes.len())
            .filter(|_| bytes.len() <= 255)
            .ok_or(io::ErrorKind::InvalidFilename)?;
        room.copy_from_slice(bytes);
        Ok(volume)
    }
}

#[repr(C)]
struct QuotaControl {
    command: u64,
    status: u64,
}

#[repr(C)]
struct QgroupCreate {
    create: u64,
    id: u64,
}

#[repr(C)]
struct QgroupLimit {
    id: u64,
    flags: u64,
    max_referenced: u64,
    max_exclusive: u64,
    reserved_referenced: u64,
    reserved_exclusive: u64,
}

#[repr(C)]
#[derive(Default)]
struct Rescan {
    flags: u64,
    progress: u64,
    reserved: [u64; 6],
}

#[repr(C)]
struct InodeLookup {
    tree: u64,
    object: u64,
    name: [u8; 4080],
}

#[repr(C)]
struct Search {
    tree: u64,
    min_object: u64,
    max_object: u64,
    min_offset: u64,
    max_offset: u64,
    min_transaction: u64,
    max_transaction: u64,
    min_kind: u32,
    max_kind: u32,
    items: u32,
    unused: u32,
    unused_more: [u64; 4],
    found: [u8; 3992],
}

const _: () = assert!(size_of::<Volume>() == 4096 && size_of::<Search>() == 4096);

const RESIZE: Opcode = opcode::write::<Volume>(MAGIC, 3);
const SYNC: Opcode = opcode::none(MAGIC, 8);
const CREATE: Opcode = opcode::write::<Volume>(MAGIC, 14);
const DESTROY: Opcode = opcode::write::<Volume>(MAGIC, 15);
const SEARCH: Opcode = opcode::read_write::<Search>(MAGIC, 17);
const LOOKUP: Opcode = opcode::read_write::<InodeLookup>(MAGIC, 18);
const QUOTA: Opcode = opcode::read_write::<QuotaControl>(MAGIC, 40);
const QGROUP_CREATE: Opcode = opcode::write::<QgroupCreate>(MAGIC, 42);
const QGROUP_LIMIT: Opcode = opcode::read::<QgroupLimit>(MAGIC, 43);
const RESCAN: Opcode = opcode::write::<Rescan>(MAGIC, 44);

/// Hands a structure to the kernel, which only reads it.
fn give<const OPCODE: Opcode, T>(file: impl AsFd, argument: T) -> io::Result<()> {
    // SAFETY: every caller pairs the number with the structure that the kernel defines for it.
    unsafe { ioctl::ioctl(file, Setter::<OPCODE, T>::new(argument)) }?;
    Ok(())
}

/// Hands a structure to the kernel, which may write to it.
fn exchange<const OPCODE: Opcode, T>(file: impl AsFd, argument: &mut T) -> io::Result<()> {
    // SAFETY: every caller pairs the number with the structure that the kernel defines for it.
    unsafe { ioctl::ioctl(file, Updater::<OPCODE, T>::new(argument)) }?;
    Ok(())
}

/// Makes a subvolume in a folder.
pub(crate) fn create(parent: &File, name: &OsStr) -> io::Result<()> {
    give::<CREATE, _>(parent, Volume::new(name)?)
}

/// Removes a subvolume with all files in it; fails if there is another subvolume in it.
pub(crate) fn destroy(parent: &File, name: &OsStr) -> io::Result<()> {
    give::<DESTROY, _>(parent, Volume::new(name)?)
}

/// The number of the subvolume that a folder is in; its qgroup has the same.
pub(crate) fn subvolume(folder: &File) -> io::Result<u64> {
    let mut lookup = Box::new(InodeLookup {
        tree: 0,
        object: FIRST,
        name: [0; 4080],
    });
    exchange::<LOOKUP, _>(folder, &mut *lookup)?;
    Ok(lookup.tree)
}

/// Lets the file system fill its device.
pub(crate) fn grow(top: &File) -> io::Result<()> {
    give::<RESIZE, _>(top, Volume::new(OsStr::new("max"))?)
}

/// Brings everything to the disk, and the qgroups up to date.
pub(crate) fn sync(top: &File) -> io::Result<()> {
    // SAFETY: this number takes no argument.
    unsafe { ioctl::ioctl(top, NoArg::<SYNC>::new()) }?;
    Ok(())
}

/// Turns qgroups on. They stay on.
pub(crate) fn enable(top: &File) -> io::Result<()> {
    let mut control = QuotaControl {
        command: 1,
        status: 0,
    };
    match exchange::<QUOTA, _>(top, &mut control) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}

/// Limits a subvolume, or takes its limit away.
pub(crate) fn limit(top: &File, id: u64, bytes: Option<u64>) -> io::Result<()> {
    let mut limit = QgroupLimit {
        id,
        flags: MAX_REFERENCED,
        // This one value means: none.
        max_referenced: bytes.unwrap_or(u64::MAX),
        max_exclusive: 0,
        reserved_referenced: 0,
        reserved_exclusive: 0,
    };
    exchange::<QGROUP_LIMIT, _>(top, &mut limit)
}

/// Removes a qgroup whose subvolume is gone.
pub(crate) fn forget(top: &File, id: u64) -> io::Result<()> {
    give::<QGROUP_CREATE, _>(top, QgroupCreate { create: 0, id })
}

/// What a subvolume holds, of which others may share some.
pub(crate) fn referenced(top: &File, id: u64) -> io::Result<Option<u64>> {
    // Generation, then what is referenced.
    item(top, INFO_ITEM, id, 1)
}

/// Starts to count anew if the kernel says that the qgroups do not count right.
pub(crate) fn recount(top: &File) -> io::Result<bool> {
    // Version, generation, flags.
    let flags = item(top, STATUS_ITEM, 0, 2)?.unwrap_or_default();
    if flags & INCONSISTENT == 0 {
        return Ok(false);
    }
    match give::<RESCAN, _>(top, Rescan::default()) {
        // It counts already.
        Err(error) if error.raw_os_error() == Some(nix::libc::EINPROGRESS) => Ok(true),
        result => result.map(|()| true),
    }
}

/// A number of an item in the tree of qgroups.
fn item(top: &File, kind: u32, offset: u64, field: usize) -> io::Result<Option<u64>> {
    /// Transaction, object, offset, kind, length.
    const HEAD: usize = 32;
    let mut search = Box::new(Search {
        tree: QUOTA_TREE,
        min_object: 0,
        max_object: 0,
        min_offset: offset,
        max_offset: offset,
        min_transaction: 0,
        max_transaction: u64::MAX,
        min_kind: kind,
        max_kind: kind,
        items: 1,
        unused: 0,
        unused_more: [0; 4],
        found: [0; 3992],
    });
    match exchange::<SEARCH, _>(top, &mut *search) {
        // There is no tree of qgroups.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        result => result?,
    }
    if search.items == 0 {
        return Ok(None);
    }
    let start = HEAD + 8 * field;
    let bytes = search.found.get(start..start + 8);
    let bytes: Option<[u8; 8]> = bytes.and_then(|bytes| bytes.try_into().ok());
    Ok(bytes.map(u64::from_le_bytes))
}
