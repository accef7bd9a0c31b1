use std::{fs, fs::File, os::unix::fs::MetadataExt, path::Path};

use nix::mount::MsFlags;

use super::{Place, making};
use crate::{plain, sys::loops};

/// Marks a btrfs (`BTRFS_SUPER_MAGIC`).
const MAGIC: u64 = 0x9123_683E;
/// Room that files leave is given back to the disk below; usage is never older than the commit interval, in seconds.
const OPTIONS: &str = "discard=async,commit=10";

/// Whether a btrfs is mounted there.
pub(super) fn is_mounted(mount: &Path) -> bool {
    let here = fs::metadata(mount);
    let above = mount.parent().map(fs::metadata);
    let (Ok(here), Some(Ok(above))) = (here, above) else {
        return false;
    };
    here.dev() != above.dev()
        && rustix::fs::statfs(mount).is_ok_and(|facts| facts.f_type as u64 == MAGIC)
}

/// Mounts the image; says why not.
pub(super) fn mount(place: &Place) -> Result<(), String> {
    let (image, mount) = (place.image(), place.mount());
    plain::folders(&mount).map_err(|error| format!("cannot make {}: {error}", mount.display()))?;
    let file = File::options()
        .read(true)
        .write(true)
        .open(&image)
        .map_err(|error| format!("it cannot be opened: {error}"))?;
    let device = loops::of(&file)
        .and_then(|found| found.map_or_else(|| loops::attach(&file), Ok))
        .map_err(|error| format!("no loop device can be had: {error}"))?;
    nix::mount::mount(
        Some(&device.path),
        &mount,
        Some("btrfs"),
        MsFlags::MS_NOATIME | MsFlags::MS_NODEV | MsFlags::MS_NOSUID,
        Some(OPTIONS),
    )
    .map_err(|error| format!("it cannot be mounted: {}", std::io::Error::from(error)))?;
    // A file system that has grown no further than its file: a power cut came between.
    File::open(&mount)
        .and_then(|top| {
            loops::grown(&device.device)?;
            crate::sys::btrfs::grow(&top)
        })
        .map_err(|error| format!("it cannot be made as large as its file: {error}"))?;
    making::furnish(&mount).map_err(|error| format!("it cannot be prepared: {error}"))
}
