use std::{
    collections::{HashMap, HashSet},
    fmt::Write as _,
    fs::{self, DirBuilder},
    io,
    net::IpAddr,
    os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use oci_spec::{
    OciSpecError,
    runtime::{
        Capability, Linux, LinuxBuilder, LinuxCapabilities, LinuxCpuBuilder, LinuxDevice,
        LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType,
        LinuxMemoryBuilder, LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType,
        LinuxPidsBuilder, LinuxResourcesBuilder, Mount as OciMount, MountBuilder, PosixRlimit,
        PosixRlimitBuilder, PosixRlimitType, Process, ProcessBuilder, RootBuilder, Spec,
        SpecBuilder, UserBuilder,
    },
};

use crate::{
    Error, InstanceSpec,
    rootfs::{self, file},
};

/// The version of the OCI runtime specification that is written.
const OCI_VERSION: &str = "1.0.2";
/// Device nodes taken from one folder at most.
const MAX_DEVICES: usize = 256;
/// Where programs are looked for when the image does not say.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What of the Node goes into every bundle.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// Cgroup under which instances have theirs.
    pub(crate) cgroup_parent: String,
    /// Whether the kernel has cgroup v2 only.
    pub(crate) unified: bool,
}

/// Writes `config.json` and the files it mounts into the bundle folder, which is made.
pub(crate) fn write(spec: &InstanceSpec, place: &Place, bundle: &Path) -> Result<(), Error> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(bundle)
        .map_err(|source| file("make", bundle, source))?;
    let hosts = write_file(bundle, "hosts", &hosts(spec))?;
    let resolv = write_file(bundle, "resolv.conf", &resolv(&spec.nameservers))?;
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
    let devices = devices(spec)?;
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

/// Checks what no later step would name well.
pub(crate) fn check(spec: &InstanceSpec) -> Result<(), Error> {
    let no_nul = |field: &'static str, text: &str| {
        if text.contains('\0') {
            Err(wrong(spec, field, "holds a NUL character"))
        } else {
            Ok(())
        }
    };
    match spec.args.first() {
        None => {
            return Err(wrong(
                spec,
                "args",
                "are empty: the image names neither an entry point nor a command",
            ));
        }
        Some(program) if program.is_empty() => {
            return Err(wrong(spec, "args", "begin with an empty program name"));
        }
        Some(_) => {}
    }
    for arg in &spec.args {
        no_nul("args", arg)?;
    }
    for (name, value) in &spec.env {
        if name.is_empty() || name.contains('=') {
            return Err(wrong(
                spec,
                "env",
                format!("holds the impossible name `{name}`"),
            ));
        }
        no_nul("env", name)?;
        no_nul("env", value)?;
    }
    if !spec.cwd.as_os_str().is_empty() && !spec.cwd.is_absolute() {
        return Err(wrong(
            spec,
            "cwd",
            format!("must be an absolute path, not {}", spec.cwd.display()),
        ));
    }
    let name_char = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    if let Some(name) = &spec.hostname
        && (name.is_empty() || name.len() > 64 || !name.chars().all(name_char))
    {
        return Err(wrong(
            spec,
            "hostname",
            "must be 1 to 64 letters, digits, dots or dashes",
        ));
    }
    for mount in &spec.mounts {
        let climbs = mount
            .destination
            .components()
            .any(|part| part == std::path::Component::ParentDir);
        if !mount.destination.is_absolute() || climbs {
            return Err(wrong(
                spec,
                "mounts",
                format!("have a bad destination: {}", mount.destination.display()),
            ));
        }
    }
    for key in spec.sysctl.keys() {
        // Only what belongs to the instance's own namespaces.
        let own = [
            "net.",
            "kernel.shm",
            "kernel.msg",
            "kernel.sem",
            "fs.mqueue.",
        ];
        if key.contains('/') || !own.iter().any(|prefix| key.starts_with(prefix)) {
            return Err(wrong(
                spec,
                "sysctl",
                format!("`{key}` is not a parameter of the instance alone"),
            ));
        }
    }
    Ok(())
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
                .readonly(false)
                .build()?,
        )
        .mounts(mounts)
        .process(process(spec)?)
        .linux(linux(spec, place, devices)?);
    if let Some(name) = &spec.hostname {
        builder = builder.hostname(name.clone());
    }
    builder.build()
}

fn process(spec: &InstanceSpec) -> Result<Process, OciSpecError> {
    // Enough to listen on a low port; whatever else an item needs, it has to be granted.
    let granted: HashSet<Capability> = [Capability::NetBindService].into();
    let mut capabilities = LinuxCapabilities::default();
    capabilities
        .set_bounding(Some(granted.clone()))
        .set_effective(Some(granted.clone()))
        .set_permitted(Some(granted.clone()))
        .set_inheritable(Some(granted.clone()))
        .set_ambient(Some(granted));
    let mut rlimits: Vec<PosixRlimit> = Vec::new();
    for (kind, value) in [
        (PosixRlimitType::RlimitNofile, spec.limits.open_files),
        (PosixRlimitType::RlimitNproc, spec.limits.pids),
        (PosixRlimitType::RlimitCore, Some(0)),
    ] {
        if let Some(value) = value {
            rlimits.push(
                PosixRlimitBuilder::default()
                    .typ(kind)
                    .hard(value)
                    .soft(value)
                    .build()?,
            );
        }
    }
    let cwd = if spec.cwd.as_os_str().is_empty() {
        PathBuf::from("/")
    } else {
        spec.cwd.clone()
    };
    ProcessBuilder::default()
        .terminal(false)
        .user(
            UserBuilder::default()
                .uid(spec.user.uid)
                .gid(spec.user.gid)
                .additional_gids(spec.user.additional_gids.clone())
                .build()?,
        )
        .args(spec.args.clone())
        .env(environment(spec))
        .cwd(cwd)
        .capabilities(capabilities)
        .rlimits(rlimits)
        .no_new_privileges(true)
        .build()
}

/// The `AOS_…` variables, then the specification's; a later value of a name replaces the earlier one in its place.
fn environment(spec: &InstanceSpec) -> Vec<String> {
    let own = [
        ("PATH", DEFAULT_PATH.to_owned()),
        ("AOS_ITEM_ID", spec.ident.item.to_string()),
        ("AOS_SUBJECT_ID", spec.ident.subject.to_string()),
        ("AOS_INSTANCE_INDEX", spec.ident.index.to_string()),
        ("AOS_INSTANCE_ID", spec.id.to_string()),
    ];
    let mut order: Vec<&str> = Vec::new();
    let mut values: HashMap<&str, &str> = HashMap::new();
    let given = spec
        .env
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in own
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .chain(given)
    {
        if values.insert(name, value).is_none() {
            order.push(name);
        }
    }
    order
        .into_iter()
        .filter_map(|name| values.get(name).map(|value| format!("{name}={value}")))
        .collect()
}

fn linux(
    spec: &InstanceSpec,
    place: &Place,
    devices: Vec<LinuxDevice>,
) -> Result<Linux, OciSpecError> {
    let deny_all = LinuxDeviceCgroupBuilder::default()
        .allow(false)
        .access("rwm")
        .build()?;
    let mut rules: Vec<LinuxDeviceCgroup> = vec![deny_all];
    for (device, access) in devices.iter().zip(accesses(spec, &devices)) {
        rules.push(
            LinuxDeviceCgroupBuilder::default()
                .allow(true)
                .typ(device.typ())
                .major(device.major())
                .minor(device.minor())
                .access(access)
                .build()?,
        );
    }
    let mut resources = LinuxResourcesBuilder::default().devices(rules);
    if let Some(ram) = spec.limits.ram {
        let limit = i64::try_from(ram).unwrap_or(i64::MAX);
        resources = resources.memory(LinuxMemoryBuilder::default().limit(limit).build()?);
    }
    if let Some(cpu) = spec.limits.cpu {
        resources = resources.cpu(
            LinuxCpuBuilder::default()
                .quota(i64::try_from(cpu.quota).unwrap_or(i64::MAX))
                .period(cpu.period)
                .build()?,
        );
    }
    if let Some(pids) = spec.limits.pids {
        let limit = i64::try_from(pids).unwrap_or(i64::MAX);
        resources = resources.pids(LinuxPidsBuilder::default().limit(limit).build()?);
    }
    let cgroup = PathBuf::from(&place.cgroup_parent).join(spec.id.to_string());
    LinuxBuilder::default()
        .namespaces(namespaces(spec, place)?)
        .resources(resources.build()?)
        .cgroups_path(cgroup)
        .sysctl(
            spec.sysctl
                .iter()
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect::<HashMap<_, _>>(),
        )
        .devices(devices)
        .masked_paths(
            [
                "/proc/acpi",
                "/proc/asound",
                "/proc/kcore",
                "/proc/keys",
                "/proc/latency_stats",
                "/proc/timer_list",
                "/proc/timer_stats",
                "/proc/sched_debug",
                "/proc/scsi",
                "/sys/firmware",
                "/sys/devices/virtual/powercap",
            ]
            .map(String::from),
        )
        .readonly_paths(
            [
                "/proc/bus",
                "/proc/fs",
                "/proc/irq",
                "/proc/sys",
                "/proc/sysrq-trigger",
            ]
            .map(String::from),
        )
        .build()
}

fn namespaces(spec: &InstanceSpec, place: &Place) -> Result<Vec<LinuxNamespace>, OciSpecError> {
    let mut kinds = vec![
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Ipc,
        LinuxNamespaceType::Uts,
        LinuxNamespaceType::Mount,
    ];
    if place.unified {
        kinds.push(LinuxNamespaceType::Cgroup);
    }
    let mut namespaces = kinds
        .into_iter()
        .map(|kind| LinuxNamespaceBuilder::default().typ(kind).build())
        .collect::<Result<Vec<_>, _>>()?;
    let mut network = LinuxNamespaceBuilder::default().typ(LinuxNamespaceType::Network);
    if let Some(path) = &spec.netns {
        network = network.path(path.clone());
    }
    namespaces.push(network.build()?);
    Ok(namespaces)
}

fn default_mounts(place: &Place) -> Result<Vec<OciMount>, OciSpecError> {
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

fn kernel(destination: &str, kind: &str, options: &[&str]) -> Result<OciMount, OciSpecError> {
    MountBuilder::default()
        .destination(destination)
        .typ(kind)
        .source(kind)
        .options(options.iter().map(|&o| o.to_owned()).collect::<Vec<_>>())
        .build()
}

fn bind(
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

fn oci(mount: &crate::Mount) -> Result<OciMount, OciSpecError> {
    MountBuilder::default()
        .destination(&mount.destination)
        .typ(mount.kind.clone())
        .source(&mount.source)
        .options(mount.options.clone())
        .build()
}

fn hosts(spec: &InstanceSpec) -> String {
    let mut text = String::from("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n");
    for entry in &spec.hosts {
        let names: Vec<&str> = entry
            .names
            .iter()
            .map(String::as_str)
            .filter(|name| {
                !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c == '#')
            })
            .collect();
        if !names.is_empty() {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{} {}", entry.ip, names.join(" "));
        }
    }
    text
}

fn resolv(servers: &[IpAddr]) -> String {
    servers.iter().fold(String::new(), |mut text, server| {
        let _ = writeln!(text, "nameserver {server}");
        text
    })
}

/// The device nodes that the specification names, folders opened up.
fn devices(spec: &InstanceSpec) -> Result<Vec<LinuxDevice>, Error> {
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

/// The access of each device: that of the resource whose path it lies under, in letters the kernel knows.
fn accesses<'a>(
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CpuQuota, Device, HostEntry, InstanceId, Limits, User};
    use aos_types::InstanceIdent;

    fn spec() -> InstanceSpec {
        let ident = InstanceIdent::service("item".parse().unwrap(), "subject".parse().unwrap(), 2);
        InstanceSpec {
            id: InstanceId::of(&ident),
            ident,
            layers: Vec::new(),
            host_base: Vec::new(),
            args: vec!["/app".into(), "--x".into()],
            env: vec![
                ("A".into(), "1".into()),
                ("PATH".into(), "/bin".into()),
                ("A".into(), "2".into()),
            ],
            cwd: PathBuf::new(),
            user: User {
                uid: 5_000,
                gid: 5_001,
                additional_gids: vec![44],
            },
            hostname: Some("box".into()),
            limits: Limits {
                cpu: CpuQuota::from_dmips(500, 1_000, 2),
                ram: Some(64 << 20),
                pids: Some(32),
                open_files: Some(100),
                tmp: Some(4_096),
            },
            sysctl: [("net.ipv4.ip_forward".to_owned(), "0".to_owned())].into(),
            netns: Some("/run/netns/x".into()),
            hosts: vec![HostEntry {
                ip: "172.31.0.2".parse().unwrap(),
                names: vec!["box".into(), "evil\n1.2.3.4 bank".into()],
            }],
            nameservers: vec!["9.9.9.9".parse().unwrap()],
            storage: Some("/data/storage".into()),
            state: Some("/data/state.dat".into()),
            mounts: Vec::new(),
            devices: vec![Device {
                host_path: "/dev/null".into(),
                path: "/dev/mine".into(),
                access: "rwx".into(),
            }],
        }
    }

    fn written(spec: &InstanceSpec) -> (serde_json::Value, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let place = Place {
            cgroup_parent: "/aos-a".into(),
            unified: false,
        };
        write(spec, &place, folder.path()).unwrap();
        let text = fs::read_to_string(folder.path().join("config.json")).unwrap();
        (serde_json::from_str(&text).unwrap(), folder)
    }

    #[test]
    fn limits_names_and_places_reach_the_oci_configuration() {
        let spec = spec();
        let (config, folder) = written(&spec);
        let at = |pointer: &str| config.pointer(pointer).unwrap().clone();
        assert_eq!(at("/linux/resources/memory/limit"), 64 << 20);
        assert_eq!(at("/linux/resources/cpu/quota"), 100_000);
        assert_eq!(at("/linux/resources/pids/limit"), 32);
        assert_eq!(at("/linux/cgroupsPath"), format!("/aos-a/{}", spec.id));
        assert_eq!(at("/process/user/uid"), 5_000);
        assert_eq!(at("/process/noNewPrivileges"), true);
        assert_eq!(at("/process/cwd"), "/");
        assert_eq!(at("/linux/devices/0/path"), "/dev/mine");
        assert_eq!(at("/linux/resources/devices/0/allow"), false);
        assert_eq!(at("/linux/resources/devices/1/access"), "rw");
        let env = at("/process/env");
        assert_eq!(env[0], "PATH=/bin");
        assert_eq!(env[1], "AOS_ITEM_ID=item");
        assert_eq!(env[3], "AOS_INSTANCE_INDEX=2");
        assert_eq!(env[4], format!("AOS_INSTANCE_ID={}", spec.id));
        assert_eq!(env[5], "A=2");
        let mounts = at("/mounts");
        let has = |destination: &str| {
            mounts
                .as_array()
                .unwrap()
                .iter()
                .any(|mount| mount["destination"] == destination)
        };
        for destination in ["/proc", "/tmp", "/storage", "/state.dat", "/etc/hosts"] {
            assert!(has(destination), "{destination}");
        }
        assert!(!has("/sys/fs/cgroup"));
        let hosts = fs::read_to_string(folder.path().join("hosts")).unwrap();
        assert!(hosts.contains("172.31.0.2 box\n") && !hosts.contains("bank"));
        let resolv = fs::read_to_string(folder.path().join("resolv.conf")).unwrap();
        assert_eq!(resolv, "nameserver 9.9.9.9\n");
        let network = config["linux"]["namespaces"]
            .as_array()
            .unwrap()
            .iter()
            .find(|namespace| namespace["type"] == "network")
            .unwrap();
        assert_eq!(network["path"], "/run/netns/x");
    }

    #[test]
    fn impossible_specifications_are_refused_by_field() {
        type Break = fn(&mut InstanceSpec);
        let cases: [(&str, Break); 7] = [
            ("args", |spec| spec.args.clear()),
            ("args", |spec| spec.args = vec!["a\0b".into()]),
            ("env", |spec| spec.env = vec![("A=B".into(), "c".into())]),
            ("cwd", |spec| spec.cwd = "relative".into()),
            ("hostname", |spec| spec.hostname = Some("a b".into())),
            ("sysctl", |spec| {
                spec.sysctl = [("kernel.panic".to_owned(), "1".to_owned())].into();
            }),
            ("mounts", |spec| {
                spec.mounts = vec![crate::Mount {
                    destination: "/a/../../b".into(),
                    source: "/x".into(),
                    kind: "bind".into(),
                    options: Vec::new(),
                }];
            }),
        ];
        assert!(check(&spec()).is_ok());
        for (field, damage) in cases {
            let mut spec = spec();
            damage(&mut spec);
            match check(&spec) {
                Err(Error::Spec { field: named, .. }) => assert_eq!(named, field),
                other => panic!("{field}: {other:?}"),
            }
        }
    }
}
