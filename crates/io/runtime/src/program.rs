use std::{fs, io::Read, path::Path};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};

use crate::{Error, InstanceSpec};

/// Where the kernel lists further formats of programs.
const MORE_FORMATS: &str = "/proc/sys/fs/binfmt_misc";

/// Looks whether the kernel can run the program of an instance. The OCI runtime counts one that it cannot run as started
/// and then ended, which looks as if the program itself had failed. What cannot be told is left to the OCI runtime.
pub(crate) fn check(spec: &InstanceSpec, root: &Path) -> Result<(), Error> {
    let Some(program) = spec.args.first().filter(|program| program.starts_with('/')) else {
        return Ok(());
    };
    if knows_more_formats() {
        return Ok(());
    }
    let (Some(head), Some(own)) = (head_inside(root, program), head("/proc/self/exe")) else {
        return Ok(());
    };
    match judge(&head, machine(&own)) {
        Ok(()) => Ok(()),
        Err(why) => Err(Error::Spec {
            id: spec.id,
            field: "args",
            why: format!("name `{program}`, which {why}"),
        }),
    }
}

fn knows_more_formats() -> bool {
    fs::read_dir(MORE_FORMATS).is_ok_and(|formats| {
        let own = ["register", "status"];
        let mut names = formats.flatten().map(|entry| entry.file_name());
        names.any(|name| !own.iter().any(|known| name == *known))
    })
}

/// The first bytes of a file as the instance sees it: links of the image lead nowhere outside.
fn head_inside(root: &Path, path: &str) -> Option<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let root = openat(CWD, root, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let file = openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT).ok()?;
    let file = fs::File::from(file);
    file.metadata().ok()?.is_file().then(|| first(file))?
}

fn head(path: &str) -> Option<Vec<u8>> {
    first(fs::File::open(path).ok()?)
}

fn first(file: fs::File) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(20).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// The machine of an ELF file (elf(5), `e_machine`, in the file's own byte order).
fn machine(head: &[u8]) -> Option<u16> {
    let bytes: [u8; 2] = head.get(18..20)?.try_into().ok()?;
    match head.get(..6)? {
        [0x7f, b'E', b'L', b'F', _, 1] => Some(u16::from_le_bytes(bytes)),
        [0x7f, b'E', b'L', b'F', _, 2] => Some(u16::from_be_bytes(bytes)),
        _ => None,
    }
}

/// Machines in the words of OCI.
const NAMES: [(u16, &str); 6] = [
    (3, "386"),
    (22, "s390x"),
    (40, "arm"),
    (62, "amd64"),
    (183, "arm64"),
    (243, "riscv64"),
];

fn judge(head: &[u8], own: Option<u16>) -> Result<(), String> {
    if head.starts_with(b"#!") {
        return Ok(());
    }
    let Some(theirs) = machine(head) else {
        return Err("is neither an ELF program nor a script that begins with `#!`".into());
    };
    // These run the programs of their smaller relatives too, if the kernel was built so.
    let related = matches!((own, theirs), (Some(62), 3) | (Some(183), 40));
    if own.is_none_or(|own| own == theirs) || related {
        return Ok(());
    }
    let name = |machine: u16| {
        let known = NAMES.iter().find(|(number, _)| *number == machine);
        known.map_or_else(
            || format!("ELF machine {machine}"),
            |(_, name)| (*name).into(),
        )
    };
    let ours = own.map(name).unwrap_or_default();
    Err(format!(
        "is a program for {}; this Node is {ours}",
        name(theirs)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elf(machine: u8) -> Vec<u8> {
        let mut head = b"\x7fELF\x02\x01".to_vec();
        head.resize(18, 0);
        head.extend([machine, 0]);
        head
    }

    #[test]
    fn formats_are_told_apart() {
        assert_eq!(judge(b"#!/bin/sh\n", Some(62)), Ok(()));
        assert_eq!(judge(&elf(62), Some(62)), Ok(()));
        assert_eq!(judge(&elf(3), Some(62)), Ok(()));
        assert_eq!(judge(&elf(40), Some(183)), Ok(()));
        assert_eq!(judge(&elf(183), None), Ok(()));
        assert_eq!(
            judge(&elf(183), Some(62)).unwrap_err(),
            "is a program for arm64; this Node is amd64"
        );
        assert!(
            judge(&elf(200), Some(183))
                .unwrap_err()
                .contains("ELF machine 200")
        );
        for junk in [&b""[..], b"\x7fELF", b"MZ some other program"] {
            assert!(judge(junk, Some(62)).is_err());
        }
    }

    #[test]
    fn links_lead_nowhere_outside() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("program"), "#!x").unwrap();
        for (link, to) in [("in", "/program"), ("out", "/proc/self/exe")] {
            std::os::unix::fs::symlink(to, root.path().join(link)).unwrap();
        }
        assert_eq!(head_inside(root.path(), "/in").unwrap(), b"#!x");
        assert_eq!(head_inside(root.path(), "/../in").unwrap(), b"#!x");
        assert_eq!(head_inside(root.path(), "/out"), None);
        assert_eq!(head_inside(root.path(), "/"), None);
    }
}
