//! Starting the OCI runtime with the container's ends of the FIFOs.
#![allow(
    unsafe_code,
    reason = "a mount namespace for the child alone needs code between fork and exec"
)]

use std::{
    ffi::CString,
    fs::File,
    io,
    os::unix::{ffi::OsStrExt, process::CommandExt},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use nix::{
    mount::{self, MntFlags, MsFlags},
    sched::{self, CloneFlags},
    sys::signal::SigSet,
};

/// Starts `argv` with the given output; without the mount points in `hide` if there are any.
pub(super) fn spawn(
    argv: &[String],
    hide: &[PathBuf],
    stdout: File,
    stderr: File,
) -> io::Result<Child> {
    let (program, arguments) = argv
        .split_first()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no program given"))?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr)
        .current_dir("/");
    let hidden: Vec<CString> = hide
        .iter()
        .map(|path| CString::new(path.as_os_str().as_bytes()))
        .collect::<Result<_, _>>()?;
    // SAFETY: the keeper has one thread, so the child may do what the parent may; the closure only makes system calls and
    // does not allocate on its way through.
    unsafe {
        command.pre_exec(move || {
            // The keeper blocks the signals it reads from a descriptor; a service must not inherit that.
            SigSet::empty().thread_set_mask()?;
            if hidden.is_empty() {
                Ok(())
            } else {
                without(&hidden)
            }
        });
    }
    command.spawn()
}

/// Gives the calling process a mount namespace of its own and takes `hidden` out of it.
fn without(hidden: &[CString]) -> io::Result<()> {
    sched::unshare(CloneFlags::CLONE_NEWNS)?;
    let nothing: Option<&str> = None;
    mount::mount(
        nothing,
        "/",
        nothing,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        nothing,
    )?;
    for path in hidden {
        mount::umount2(path.as_c_str(), MntFlags::MNT_DETACH)?;
    }
    Ok(())
}
