use std::{
    fs::{self, File},
    path::Path,
    process::Command,
};

use super::{create, destroy};
use crate::{Error, Kind, Name, plain, sys::btrfs};

/// Takes a plain folder over into the image: copied, flushed, and only then put in its place. The caller removes the plain
/// one. After a power cut it is either not in its place yet, and copied again, or whole.
pub(super) fn take_over(
    mount: &Path,
    kind: Kind,
    name: &Name,
    before: &Path,
    path: &Path,
) -> Result<(), Error> {
    let top = mount.join("coming").join(kind.to_string());
    let coming = name.below(&top);
    tracing::info!(from = %before.display(), to = %path.display(), "what an instance keeps moves into the image");
    if let Some(parent) = coming.parent() {
        plain::folders(parent).map_err(Error::file("make", parent))?;
    }
    destroy(&coming)?;
    create(&coming)?;
    let copied = Command::new("cp")
        .arg("--archive")
        .arg("--")
        .arg(before.join("."))
        .arg(&coming)
        .output()
        .map_err(Error::file("copy", before))?;
    if !copied.status.success() {
        return Err(Error::Program {
            program: "cp",
            why: String::from_utf8_lossy(&copied.stderr).trim().to_owned(),
        });
    }
    File::open(mount)
        .and_then(|top| btrfs::sync(&top))
        .and_then(|()| fs::rename(&coming, path))
        .and_then(|()| btrfs::sync(&File::open(mount)?))
        .map_err(Error::file("put in place", path))?;
    plain::prune(&top, &coming);
    Ok(())
}
