//! What is refused before anything is made, because no later step would name it well.

use super::wrong;
use crate::{Error, InstanceSpec, Isolation};

/// Checks what no later step would name well.
pub(crate) fn check(spec: &InstanceSpec, isolation: Isolation) -> Result<(), Error> {
    if isolation == Isolation::Native {
        let why = "needs a namespace of its own, which instances of the runtime `native` do not have: run it in a container";
        if spec.inside.is_some() {
            return Err(wrong(spec, "userNamespace", why));
        }
        if !spec.sysctl.is_empty() {
            return Err(wrong(spec, "sysctl", why));
        }
    }
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
    if let Some(files) = spec.limits.open_files
        && let Some(most) = most_open_files()
        && files > most
    {
        let why = format!(
            "is {files}, but the kernel of this Node lets a process have {most} at most (`fs.nr_open`)"
        );
        return Err(wrong(spec, "noFileLimit", why));
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
        if !aos_types::is_own_sysctl(key) {
            return Err(wrong(
                spec,
                "sysctl",
                format!("`{key}` is not a parameter of the instance alone"),
            ));
        }
    }
    Ok(())
}

/// The most open files that a process of this Node may be given.
fn most_open_files() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/sys/fs/nr_open").ok()?;
    text.trim().parse().ok()
}
