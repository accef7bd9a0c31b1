//! The OCI bundle of an instance: a folder with `config.json` and the files it mounts.
//!
//! [`check`] refuses what cannot be carried out; [`write`] puts together what the modules below decide, one for each part
//! of the configuration.

mod check;
mod devices;
mod linux;
mod mounts;
mod names;
mod process;
mod seccomp;
#[cfg(test)]
mod tests;

use std::{
    fs::{self, DirBuilder},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use oci_spec::{
    OciSpecError,
    runtime::{LinuxDevice, Mount as OciMount, RootBuilder, Spec, SpecBuilder},
};

pub(crate) use check::check;

use self::mounts::{bind, default_mounts, kernel, oci};
use crate::{
    Error, InstanceSpec,
    rootfs::{self, file},
};

/// The version of the OCI runtime specification that is written.
const OCI_VERSION: &str = "1.0.2";

/// What of the Node goes into every bundle.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// Cgroup under which instances have theirs.
    pub(crate) cgroup_parent: String,
    /// Whether the kernel has cgroup v2 only.
    pub(crate) unified: bool,
    /// Whether system calls are filtered.
    pub(crate) seccomp: bool,
}

/// Writes `config.json` and the files it mounts into the bundle folder, which is made.
pub(crate) fn write(spec: &InstanceSpec, place: &Place, bundle: &Path) -> Result<(), Error> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(bundle)
        .map_err(|source| file("make", bundle, source))?;
    let hosts = write_file(bundle, "hosts", &names::hosts(spec))?;
    let resolv = write_file(bundle, "resolv.conf", &names::resolv(&spec.nameservers))?;
    let mut mounts = rootfs::host_mounts(spec)?
        .iter()
        .map(oci)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| odd(spec, &error))?;
    if !spec.host_base.is_empty() {
        for path in ["/etc/nsswitch.conf", "/etc/ssl"] {
            if Path::new(path).exists() && !rootfs::in_layers(&spec.layers, Path::new(path)) {
                mounts.push(
                    bind(path, path, &["ro", "nosuid", "nodev"])
                        .map_err(|error| odd(spec, &error))?,
                );
            }
        }
    }
    let devices = devices::devices(spec)?;
    let config =
        config(spec, place, &hosts, &resolv, mounts, devices).map_err(|error| odd(spec, &error))?;
    let path = bundle.join("config.json");
    let text = serde_json::to_string(&config).map_err(|source| Error::File {
        what: "write",
        path: path.clone(),
        source: source.into(),
    })?;
    write_file(bundle, "config.json", &text)?;
    Ok(())
}

fn odd(spec: &InstanceSpec, error: &OciSpecError) -> Error {
    Error::Spec {
        id: spec.id,
        field: "specification",
        why: format!("does not fit the OCI runtime specification: {error}"),
    }
}

fn wrong(spec: &InstanceSpec, field: &'static str, why: impl Into<String>) -> Error {
    Error::Spec {
        id: spec.id,
        field,
        why: why.into(),
    }
}

fn write_file(bundle: &Path, name: &str, text: &str) -> Result<PathBuf, Error> {
    let path = bundle.join(name);
    fs::write(&path, text)
        .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o644)))
        .map_err(|source| file("write", &path, source))?;
    Ok(path)
}

fn config(
    spec: &InstanceSpec,
    place: &Place,
    hosts: &Path,
    resolv: &Path,
    host_mounts: Vec<OciMount>,
    devices: Vec<LinuxDevice>,
) -> Result<Spec, OciSpecError> {
    let mut mounts = default_mounts(place)?;
    mounts.extend(host_mounts);
    mounts.push(bind(
        "/etc/hosts",
        hosts,
        &["ro", "nosuid", "nodev", "noexec"],
    )?);
    mounts.push(bind(
        "/etc/resolv.conf",
        resolv,
        &["ro", "nosuid", "nodev", "noexec"],
    )?);
    if let Some(bytes) = spec.limits.tmp {
        let size = format!("size={bytes}");
        mounts.push(kernel(
            "/tmp",
            "tmpfs",
            &["nosuid", "nodev", "mode=1777", &size],
        )?);
    }
    if let Some(path) = &spec.storage {
        mounts.push(bind("/storage", path, &["rw", "nosuid", "nodev"])?);
    }
    if let Some(path) = &spec.state {
        mounts.push(bind(
            "/state.dat",
            path,
            &["rw", "nosuid", "nodev", "noexec"],
        )?);
    }
    for mount in &spec.mounts {
        mounts.push(oci(mount)?);
    }
    let mut builder = SpecBuilder::default()
        .version(OCI_VERSION)
        .root(
            RootBuilder::default()
                .path("rootfs")
                .readonly(spec.read_only)
                .build()?,
        )
        .mounts(mounts)
        .process(process::process(spec)?)
        .linux(linux::linux(spec, place, devices)?);
    if let Some(name) = &spec.hostname {
        builder = builder.hostname(name.clone());
    }
    builder.build()
}
