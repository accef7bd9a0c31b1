//! A folder in a mount namespace of the test's own, and what goes on around an image.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::{FileExt, chown},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use aos_quota::{Choice, Chosen, Error, Quota, Setup, open};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};

/// The user of the folders.
pub const OWNER: u32 = 7_777;
/// Where btrfs keeps its first superblock, and the copy in an image of this size.
const SUPERBLOCKS: [u64; 2] = [64 << 10, 64 << 20];

pub struct World {
    folder: tempfile::TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = umount2(&self.folder.path().join("kept/mount"), MntFlags::MNT_DETACH);
    }
}

impl World {
    /// Nothing if the machine cannot, which is said.
    pub fn new(test: &str) -> Option<Self> {
        let skipped = |why: &str| {
            eprintln!("SKIPPED {test}: {why}");
            None
        };
        if !rustix::process::geteuid().is_root() {
            return skipped("needs root");
        }
        if Command::new("mkfs.btrfs")
            .arg("--version")
            .output()
            .is_err()
        {
            return skipped("needs mkfs.btrfs");
        }
        if !Path::new("/dev/loop-control").exists() {
            return skipped("needs loop devices (CONFIG_BLK_DEV_LOOP)");
        }
        if !fs::read_to_string("/proc/filesystems")
            .unwrap()
            .contains("btrfs")
        {
            return skipped("needs btrfs (CONFIG_BTRFS_FS)");
        }
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        Some(Self {
            folder: tempfile::tempdir().unwrap(),
        })
    }

    fn setup(&self, choice: Choice) -> Setup {
        Setup {
            storages: self.folder.path().join("storages"),
            states: self.folder.path().join("states"),
            image_dir: self.folder.path().join("kept"),
            image_max: Some(512 << 20),
            choice,
        }
    }

    pub fn try_open(&self, choice: Choice) -> Result<Chosen, Error> {
        open(&self.setup(choice))
    }

    pub fn open(&self, choice: Choice) -> Arc<dyn Quota> {
        let chosen = self.try_open(choice).unwrap();
        assert!(chosen.trouble.is_none(), "{:?}", chosen.trouble);
        chosen.quota
    }

    pub fn open_bounded(&self, max: u64) -> Arc<dyn Quota> {
        let setup = Setup {
            image_max: Some(max),
            ..self.setup(Choice::Btrfs)
        };
        open(&setup).unwrap().quota
    }

    pub fn image(&self) -> PathBuf {
        self.folder.path().join("kept/image")
    }

    /// Loop devices of the image.
    pub fn loops(&self) -> usize {
        let backing =
            |entry: fs::DirEntry| fs::read_to_string(entry.path().join("loop/backing_file"));
        let all = fs::read_dir("/sys/block").unwrap().flatten();
        all.filter_map(|entry| backing(entry).ok())
            .filter(|path| Path::new(path.trim()) == self.image())
            .count()
    }

    /// Mounts and their device are gone; what is on the disk stays.
    pub fn reboot(&self) {
        umount2(&self.folder.path().join("kept/mount"), MntFlags::empty()).unwrap();
        self.until("the device is gone", || self.loops() == 0);
    }

    /// Overwrites what tells that it is a btrfs; gives what was there.
    pub fn damage(&self) -> Vec<Vec<u8>> {
        let file = File::options()
            .read(true)
            .write(true)
            .open(self.image())
            .unwrap();
        let whole = SUPERBLOCKS.map(|at| {
            let mut block = vec![0; 4096];
            file.read_exact_at(&mut block, at).unwrap();
            file.write_all_at(&[0xAA; 4096], at).unwrap();
            block
        });
        file.sync_all().unwrap();
        whole.into()
    }

    pub fn repair(&self, whole: &[Vec<u8>]) {
        let file = File::options().write(true).open(self.image()).unwrap();
        for (at, block) in SUPERBLOCKS.into_iter().zip(whole) {
            file.write_all_at(block, at).unwrap();
        }
        file.sync_all().unwrap();
    }

    pub fn sync(&self) {
        self.run(
            "btrfs",
            &[
                "filesystem",
                "sync",
                self.folder.path().join("kept/mount").to_str().unwrap(),
            ],
        );
    }

    pub fn run(&self, program: &str, args: &[&str]) {
        let output = Command::new(program).args(args).output().unwrap();
        assert!(
            output.status.success(),
            "{program}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    pub fn until(&self, what: &str, mut reached: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !reached() {
            assert!(Instant::now() < deadline, "not reached: {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Writes a file as the owner of the folders would, and to the disk.
pub fn write_as(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    chown(path, Some(OWNER), Some(OWNER))?;
    file.write_all(content)?;
    file.sync_all()
}

/// Writes until it cannot; how much went in, and why no more.
pub fn fill(path: &Path) -> (u64, io::Error) {
    let mut file = File::create(path).unwrap();
    let mut written = 0;
    loop {
        match file.write(&[7; 64 << 10]) {
            Ok(bytes) => written += bytes as u64,
            Err(error) => return (written, error),
        }
        assert!(written < 1 << 30, "nothing stops it");
    }
}
