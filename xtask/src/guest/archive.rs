//! The initial file system: a cpio archive in the format `newc`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::kernel::Kernel;

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;

/// What runs first: loads modules, waits for the disks, goes over to the root.
const INIT: &str = "#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
for module in $(/bin/busybox cat /modules/order); do
    /bin/busybox insmod /modules/$module || echo \"@@note module $module cannot be loaded\"
done
tries=0
while [ ! -b /dev/vdc ] && [ $tries -lt 100 ]; do /bin/busybox usleep 50000; tries=$((tries + 1)); done
/bin/busybox mount -t ext4 /dev/vda /root || echo '@@note no root'
/bin/busybox mount --move /dev /root/dev
exec /bin/busybox switch_root /root /guest/init
";

/// Writes the archive and gives its path.
pub(super) fn initrd(folder: &Path, kernel: &Kernel) -> Result<PathBuf> {
    let mut archive = Archive::default();
    for name in ["bin", "dev", "root", "modules"] {
        archive.add(name, FOLDER, &[]);
    }
    let busybox = super::root::which("busybox")?;
    archive.add("bin/busybox", PROGRAM, &read(&busybox)?);
    archive.add("init", PROGRAM, INIT.as_bytes());
    let mut order = String::new();
    for module in &kernel.modules {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        archive.add(&format!("modules/{name}"), PROGRAM, &read(module)?);
        order.push_str(&name);
        order.push('\n');
    }
    archive.add("modules/order", PROGRAM, order.as_bytes());
    let path = folder.join("initrd");
    std::fs::write(&path, archive.finish())
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let size = u32::try_from(content.len()).unwrap_or(u32::MAX);
        let name_size = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
        // Number, mode, owner and group, links, time, size, four device numbers, size of the name, checksum.
        let fields = [
            self.entries,
            mode,
            0,
            0,
            1,
            0,
            size,
            0,
            0,
            0,
            0,
            name_size,
            0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes
                .extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_begins_at_a_multiple_of_four() {
        let mut archive = Archive::default();
        archive.add("ab", PROGRAM, b"12345");
        let bytes = archive.finish();
        assert!(bytes.starts_with(b"07070100000001000081ed"));
        assert_eq!(bytes.get(110..113), Some(b"ab\0".as_slice()));
        assert_eq!(bytes.get(116..121), Some(b"12345".as_slice()));
        assert_eq!(bytes.get(124..130), Some(b"070701".as_slice()));
    }
}
