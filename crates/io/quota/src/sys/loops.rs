//! Loop devices: a file as a disk.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsRawFd, RawFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

use nix::libc;
use rustix::ioctl::{self, Getter, NoArg, Opcode, Setter};

/// Attempts to get a device that nobody else takes meanwhile.
const ATTEMPTS: usize = 16;

const SET_CAPACITY: Opcode = 0x4C07;
const GET_STATUS: Opcode = 0x4C05;
const CONFIGURE: Opcode = 0x4C0A;
const GET_FREE: libc::c_ulong = 0x4C82;

/// The device goes when nobody uses it any more.
const AUTOCLEAR: u32 = 4;
/// Its pages are not kept twice.
const DIRECT_IO: u32 = 16;

/// `struct loop_info64`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Info {
    device: u64,
    inode: u64,
    real_device: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encryption: u32,
    key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

const _: () = assert!(size_of::<Info>() == 232 && size_of::<Config>() == 304);

const EMPTY: Info = Info {
    device: 0,
    inode: 0,
    real_device: 0,
    offset: 0,
    size_limit: 0,
    number: 0,
    encryption: 0,
    key_size: 0,
    flags: 0,
    file_name: [0; 64],
    crypt_name: [0; 64],
    key: [0; 32],
    init: [0; 2],
};

/// A device, kept open so that it does not go before it is mounted.
#[derive(Debug)]
pub(crate) struct Loop {
    pub(crate) device: File,
    pub(crate) path: PathBuf,
}

/// The device of a file, if it has one. Two for one file would each change it without the other's knowledge.
pub(crate) fn of(file: &File) -> io::Result<Option<Loop>> {
    let facts = file.metadata()?;
    for entry in fs::read_dir("/sys/block")?.flatten() {
        let in_use = entry.path().join("loop/backing_file").exists();
        if !in_use {
            continue;
        }
        let path = Path::new("/dev").join(entry.file_name());
        let Ok(device) = open(&path) else {
            continue;
        };
        // SAFETY: the kernel writes one `struct loop_info64` for this number, which is what the getter holds.
        let info = unsafe { ioctl::ioctl(&device, Getter::<GET_STATUS, Info>::new()) };
        let Ok(info) = info else {
            // Freed meanwhile.
            continue;
        };
        if (info.device, info.inode) == (facts.dev(), facts.ino()) {
            return Ok(Some(Loop { device, path }));
        }
    }
    Ok(None)
}

/// Makes a file a device.
pub(crate) fn attach(file: &File) -> io::Result<Loop> {
    let control = open(Path::new("/dev/loop-control"))?;
    let mut last = io::Error::from(io::ErrorKind::ResourceBusy);
    for _ in 0..ATTEMPTS {
        // SAFETY: this number takes no argument and answers a number.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), GET_FREE as _) };
        if number < 0 {
            return Err(io::Error::last_os_error());
        }
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = open(&path)?;
        for flags in [AUTOCLEAR | DIRECT_IO, AUTOCLEAR] {
            match configure(&device, file.as_raw_fd(), flags) {
                Ok(()) => return Ok(Loop { device, path }),
                Err(error) => last = error,
            }
            // Not every file system lets its pages be passed by.
            if last.raw_os_error() != Some(libc::EINVAL) {
                break;
            }
        }
        if last.kind() != io::ErrorKind::ResourceBusy {
            break;
        }
    }
    Err(last)
}

/// Tells a device that its file has grown.
pub(crate) fn grown(device: &File) -> io::Result<()> {
    // SAFETY: this number takes no argument.
    unsafe { ioctl::ioctl(device, NoArg::<SET_CAPACITY>::new()) }?;
    Ok(())
}

fn configure(device: &File, file: RawFd, flags: u32) -> io::Result<()> {
    let config = Config {
        fd: u32::try_from(file).map_err(|_| io::ErrorKind::InvalidInput)?,
        block_size: 0,
        info: Info { flags, ..EMPTY },
        reserved: [0; 8],
    };
    // SAFETY: the kernel reads one `struct loop_config` for this number, which is what the setter holds.
    unsafe { ioctl::ioctl(device, Setter::<CONFIGURE, Config>::new(config)) }?;
    Ok(())
}

fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).open(path)
}
