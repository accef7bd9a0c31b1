//! Device nodes of an instance, and what it may do with them.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt},
};

use oci_spec::{
    OciSpecError,
    runtime::{LinuxDevice, LinuxDeviceBuilder, LinuxDeviceType, Mount as OciMount},
};

use super::{mounts::bind, odd, wrong};
use crate::{Error, InstanceSpec, rootfs::file};

/// Device nodes taken from one folder at most.
const MAX_DEVICES: usize = 256;

/// The device nodes that the specification names, folders opened up.
pub(super) fn devices(spec: &InstanceSpec) -> Result<Vec<LinuxDevice>, Error> {
    let mut found = Vec::new();
    for device in &spec.devices {
        let mut queue = vec![(device.host_path.clone(), device.path.clone())];
        while let Some((host, inside)) = queue.pop() {
            let kind = fs::metadata(&host).map_err(|source| file("find device", &host, source))?;
            if kind.is_dir() {
                let entries =
                    fs::read_dir(&host).map_err(|source| file("read folder", &host, source))?;
                for entry in entries.flatten() {
                    queue.push((entry.path(), inside.join(entry.file_name())));
                }
                continue;
            }
            let typ = if kind.file_type().is_char_device() {
                LinuxDeviceType::C
            } else if kind.file_type().is_block_device() {
                LinuxDeviceType::B
            } else {
                let error = io::Error::new(io::ErrorKind::InvalidInput, "it is no device");
                return Err(file("use device", &host, error));
            };
            let major = i64::from(rustix::fs::major(kind.rdev()));
            let minor = i64::from(rustix::fs::minor(kind.rdev()));
            let built = LinuxDeviceBuilder::default()
                .path(inside)
                .typ(typ)
                .major(major)
                .minor(minor)
                .file_mode(kind.mode() & 0o777)
                .uid(kind.uid())
                .gid(kind.gid())
                .build()
                .map_err(|error| odd(spec, &error))?;
            found.push(built);
            if found.len() > MAX_DEVICES {
                return Err(wrong(
                    spec,
                    "devices",
                    format!("are more than {MAX_DEVICES}"),
                ));
            }
        }
    }
    Ok(found)
}

/// Devices of an instance that may make none itself: its own are those of the Node, mounted.
pub(super) fn binds(spec: &InstanceSpec) -> Result<Vec<OciMount>, OciSpecError> {
    spec.devices
        .iter()
        .map(|device| {
            bind(
                &device.path.to_string_lossy(),
                &device.host_path,
                &["nosuid", "noexec"],
            )
        })
        .collect()
}

/// The access of each device: that of the resource whose path it lies under, in letters the kernel knows.
pub(super) fn accesses<'a>(
    spec: &'a InstanceSpec,
    devices: &'a [LinuxDevice],
) -> impl Iterator<Item = String> + 'a {
    devices.iter().map(|device| {
        let access = spec
            .devices
            .iter()
            .find(|wanted| device.path().starts_with(&wanted.path))
            .map_or("r", |wanted| wanted.access.as_str());
        let letters: String = "rwm".chars().filter(|&c| access.contains(c)).collect();
        if letters.is_empty() {
            "r".into()
        } else {
            letters
        }
    })
}
