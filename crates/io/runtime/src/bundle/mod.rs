//! The OCI bundle of an instance: a folder with `config.json` and the files it mounts.
//!
//! [`check`] refuses what cannot be carried out; [`write`] puts together what the modules below decide, one for each part
//! of the configuration.

mod check;
mod devices;
mod ioctls;
mod linux;
mod mounts;
mod names;
mod process;
mod seccomp;
#[cfg(test)]
mod tests;

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::Write as _,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use oci_spec::{
    OciSpecError,
    runtime::{LinuxDevice, Mount as OciMount, RootBuilder, Spec, SpecBuilder},
};

pub(crate) use check::check;
#[cfg(test)]
pub(crate) use tests::spec as example;

use self::mounts::{bind, default_mounts, kernel, oci};
use crate::{
    Error, InstanceSpec, Isolation,
    rootfs::{self, file},
    userns::IdMaps,
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
    /// Whether the kernel bounds swap beside memory.
    pub(crate) bounds_swap: bool,
    /// Whether system calls are filtered.
    pub(crate) seccomp: bool,
    /// How much of the Node is hidden.
    pub(crate) isolation: Isolation,
}

/// Makes the folder of the bundle. The first process of a user namespace goes through it as nobody in particular.
pub(crate) fn make(bundle: &Path, user_namespace: bool) -> Result<(), Error> {
    let mode = if user_namespace { 0o711 } else { 0o700 };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(bundle)
        .and_then(|()| fs::set_permissions(bundle, fs::Permissions::from_mode(mode)))
        .map_err(|source| file("make", bundle, source))
}

/// Writes `config.json` and the files it mounts into the bundle folder. `ids` are those of its user namespace, if it has
/// one.
pub(crate) fn write(
    spec: &InstanceSpec,
    place: &Place,
    ids: Option<&IdMaps>,
    bundle: &Path,
) -> Result<(), Error> {
    let (names_of_hosts, resolver) = match place.isolation {
        Isolation::Full => (names::hosts(spec), names::resolv(&spec.nameservers)),
        // It is in the Node's network, so the Node's names are right.
        Isolation::Native => (
            names::of_node("/etc/hosts")?,
            names::of_node("/etc/resolv.conf")?,
        ),
    };
    let hosts = write_file(bundle, "hosts", 0o644, &names_of_hosts)?;
    let resolv = write_file(bundle, "resolv.conf", 0o644, &resolver)?;
    // With a user namespace the root brings them along.
    let below = match ids {
        None => rootfs::host_mounts(spec)?,
        Some(_) => Vec::new(),
    };
    let mut mounts = below
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
    let config = config(spec, place, ids, &hosts, &resolv, mounts, devices)
        .map_err(|error| odd(spec, &error))?;
    let path = bundle.join("config.json");
    let text = serde_json::to_string(&config).map_err(|source| Error::File {
        what: "write",
        path: path.clone(),
        source: source.into(),
    })?;
    // It holds secrets of the environment.
    write_file(bundle, "config.json", 0o600, &text)?;
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

fn write_file(bundle: &Path, name: &str, mode: u32, text: &str) -> Result<PathBuf, Error> {
    let path = bundle.join(name);
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(text.as_bytes())
    };
    write().map_err(|source| file("write", &path, source))?;
    Ok(path)
}

fn config(
    spec: &InstanceSpec,
    place: &Place,
    ids: Option<&IdMaps>,
    hosts: &Path,
    resolv: &Path,
    host_mounts: Vec<OciMount>,
    devices: Vec<LinuxDevice>,
) -> Result<Spec, OciSpecError> {
    let mut mounts = default_mounts(place)?;
    if ids.is_some() && spec.netns.is_some() {
        // The root brings it along: it is that of a network namespace the instance has no say in.
        mounts.retain(|mount| mount.destination() != Path::new("/sys"));
    }
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
    if ids.is_some() {
        mounts.extend(devices::binds(spec)?);
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
        .process(process::process(
            spec,
            ids.map_or(&spec.user, |ids| &ids.user),
        )?)
        .linux(linux::linux(spec, place, ids, devices)?);
    if let Some(name) = &spec.hostname {
        builder = builder.hostname(name.clone());
    }
    let mut config = builder.build()?;
    if place.isolation == Isolation::Native {
        // The name is the Node's.
        config.set_hostname(None);
    }
    Ok(config)
}
