//! The process of an instance: whom it runs as, with which rights, limits and environment.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
};

use oci_spec::{
    OciSpecError,
    runtime::{
        Capability, LinuxCapabilities, PosixRlimit, PosixRlimitBuilder, PosixRlimitType, Process,
        ProcessBuilder, UserBuilder,
    },
};

use crate::{InstanceSpec, User};

/// When the Node has no memory left the kernel ends an instance, and not the program that could say so.
const OOM_SCORE: i32 = 500;
/// Where programs are looked for when the image does not say.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub(super) fn process(spec: &InstanceSpec, user: &User) -> Result<Process, OciSpecError> {
    let granted: HashSet<Capability> = spec.capabilities.iter().copied().map(right).collect();
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
                .uid(user.uid)
                .gid(user.gid)
                .additional_gids(user.additional_gids.clone())
                .build()?,
        )
        .args(spec.args.clone())
        .env(environment(spec))
        .cwd(cwd)
        .capabilities(capabilities)
        .rlimits(rlimits)
        .oom_score_adj(OOM_SCORE)
        .no_new_privileges(true)
        .build()
}

/// The right in the words of the OCI runtime specification.
const fn right(one: aos_types::Capability) -> Capability {
    use aos_types::Capability as Ours;
    match one {
        Ours::AuditWrite => Capability::AuditWrite,
        Ours::Chown => Capability::Chown,
        Ours::DacOverride => Capability::DacOverride,
        Ours::Fowner => Capability::Fowner,
        Ours::Fsetid => Capability::Fsetid,
        Ours::IpcLock => Capability::IpcLock,
        Ours::Kill => Capability::Kill,
        Ours::NetBindService => Capability::NetBindService,
        Ours::Setfcap => Capability::Setfcap,
        Ours::Setgid => Capability::Setgid,
        Ours::Setpcap => Capability::Setpcap,
        Ours::Setuid => Capability::Setuid,
        Ours::SysChroot => Capability::SysChroot,
        Ours::SysNice => Capability::SysNice,
    }
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
