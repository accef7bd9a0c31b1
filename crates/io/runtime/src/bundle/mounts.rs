//! Mounts in the words of the OCI runtime specification.

use std::path::Path;

use oci_spec::{
    OciSpecError,
    runtime::{Mount as OciMount, MountBuilder},
};

use super::Place;

pub(super) fn default_mounts(place: &Place) -> Result<Vec<OciMount>, OciSpecError> {
    let mut mounts = vec![
        kernel("/proc", "proc", &["nosuid", "noexec", "nodev"])?,
        kernel(
            "/dev",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        )?,
        kernel(
            "/dev/pts",
            "devpts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
            ],
        )?,
        kernel(
            "/dev/shm",
            "tmpfs",
            &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
        )?,
        kernel("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"])?,
        kernel("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"])?,
    ];
    if place.unified {
        mounts.push(kernel(
            "/sys/fs/cgroup",
            "cgroup",
            &["nosuid", "noexec", "nodev", "relatime", "ro"],
        )?);
    }
    Ok(mounts)
}

pub(super) fn kernel(
    destination: &str,
    kind: &str,
    options: &[&str],
) -> Result<OciMount, OciSpecError> {
    MountBuilder::default()
        .destination(destination)
        .typ(kind)
        .source(kind)
        .options(options.iter().map(|&o| o.to_owned()).collect::<Vec<_>>())
        .build()
}

pub(super) fn bind(
    destination: &str,
    source: impl AsRef<Path>,
    options: &[&str],
) -> Result<OciMount, OciSpecError> {
    let options = ["rbind"].iter().chain(options).map(|&o| o.to_owned());
    MountBuilder::default()
        .destination(destination)
        .typ("bind")
        .source(source.as_ref())
        .options(options.collect::<Vec<_>>())
        .build()
}

pub(super) fn oci(mount: &crate::Mount) -> Result<OciMount, OciSpecError> {
    MountBuilder::default()
        .destination(&mount.destination)
        .typ(mount.kind.clone())
        .source(&mount.source)
        .options(mount.options.clone())
        .build()
}
