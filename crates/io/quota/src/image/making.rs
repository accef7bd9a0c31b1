use std::{
    fs::{self, File},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
    process::Command,
};

use super::{Place, mounting, top};
use crate::{
    Error, Kind, plain,
    sys::{btrfs, loops},
};

/// The smallest image that is of use.
const LEAST: u64 = 256 << 20;
/// Sizes are whole numbers of this.
const STEP: u64 = 1 << 20;
/// Where `mkfs.btrfs` is, beside `PATH`.
const SYSTEM: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];
const MKFS: &str = "mkfs.btrfs";

/// Why there can be no image on this Node; nothing if there can.
pub(crate) fn missing() -> Option<String> {
    if !Path::new("/dev/loop-control").exists() {
        return Some("there is no /dev/loop-control (CONFIG_BLK_DEV_LOOP)".into());
    }
    let known = || {
        fs::read_to_string("/proc/filesystems").is_ok_and(|all| {
            all.lines()
                .any(|line| line.split_whitespace().last() == Some("btrfs"))
        })
    };
    if !known() {
        // A mount would load it too; here it is asked for so that it is known now.
        let _ = Command::new("modprobe").arg("btrfs").output();
    }
    if !known() {
        return Some("the kernel has no btrfs (CONFIG_BTRFS_FS)".into());
    }
    if program().is_none() {
        return Some(format!("`{MKFS}` is not installed (package btrfs-progs)"));
    }
    None
}

fn program() -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(SYSTEM.iter().map(Into::into))
        .map(|folder| folder.join(MKFS))
        .find(|program| program.is_file())
}

/// How large the image shall be: what it takes now and three quarters of what is free, but no more than `max`.
pub(super) fn size(place: &Place, max: Option<u64>) -> Result<u64, Error> {
    plain::folders(&place.folder).map_err(Error::file("make", &place.folder))?;
    let taken = fs::metadata(place.image()).map_or(0, |facts| facts.blocks() * 512);
    let free = plain::free(&place.folder)?;
    let wanted = taken.saturating_add(free / 4 * 3);
    Ok(wanted.min(max.unwrap_or(u64::MAX)) / STEP * STEP)
}

/// Makes an image. After a power cut there is a whole one or none.
pub(super) fn make(place: &Place, max: Option<u64>) -> Result<(), Error> {
    let size = size(place, max)?;
    if size < LEAST {
        return Err(Error::Room {
            path: place.folder.clone(),
            why: format!(
                "an image for what instances keep would have {} MiB and needs {} MiB at least",
                size >> 20,
                LEAST >> 20
            ),
        });
    }
    let mkfs = program().ok_or_else(|| Error::Program {
        program: MKFS,
        why: "it is not installed (package btrfs-progs)".into(),
    })?;
    let next = place.folder.join("image.new");
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&next)
        .and_then(|file| file.set_len(size).map(|()| file))
        .map_err(Error::file("make", &next))?;
    tracing::info!(image = %place.image().display(), megabytes = size >> 20, "an image for storages and states is made");
    let made = Command::new(mkfs)
        .args(["--quiet", "--label", "aos-kept"])
        .arg(&next)
        .output()
        .map_err(Error::file("run mkfs.btrfs for", &next))?;
    if !made.status.success() {
        return Err(Error::Program {
            program: MKFS,
            why: String::from_utf8_lossy(&made.stderr).trim().to_owned(),
        });
    }
    let finish = || -> io::Result<()> {
        file.sync_all()?;
        fs::rename(&next, place.image())?;
        File::create(place.marker())?.sync_all()?;
        for folder in place.folder.ancestors().take(2) {
            File::open(folder)?.sync_all()?;
        }
        Ok(())
    };
    finish().map_err(Error::file("put in place", place.image()))
}

/// What a freshly mounted image needs. Done each time, because it may have been interrupted.
pub(super) fn furnish(mount: &Path) -> io::Result<()> {
    for folder in Kind::ALL.map(|kind| top(mount, kind)) {
        plain::folders(&folder)?;
    }
    let file = File::open(mount)?;
    btrfs::enable(&file)?;
    if btrfs::recount(&file)? {
        tracing::warn!("usage of storages and states is counted anew; limits may be off meanwhile");
    }
    Ok(())
}

/// Lets a mounted image grow to what it may have. It never shrinks.
pub(super) fn grow(place: &Place, max: Option<u64>) -> Result<(), Error> {
    let wanted = size(place, max)?;
    let path = place.image();
    let grown = || -> io::Result<Option<u64>> {
        let file = File::options().read(true).write(true).open(&path)?;
        let now = file.metadata()?.len();
        // Not for a little: each time costs a moment.
        if wanted < now.saturating_add(now / 16) || !mounting::is_mounted(&place.mount()) {
            return Ok(None);
        }
        file.set_len(wanted)?;
        if let Some(device) = loops::of(&file)? {
            loops::grown(&device.device)?;
        }
        btrfs::grow(&File::open(place.mount())?)?;
        Ok(Some(wanted))
    };
    if let Some(size) = grown().map_err(Error::file("grow", &path))? {
        tracing::info!(
            megabytes = size >> 20,
            "the image for storages and states has grown"
        );
    }
    Ok(())
}
