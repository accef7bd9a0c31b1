//! Disks that are full. They are small tmpfs mounts, so root is needed.

use std::{path::PathBuf, process::Command};

use aos_types::AosCode;

use super::{
    bench::{Bench, With},
    faulty::Mood,
    noise,
};
use crate::contract::Images;

/// A file system of a few megabytes; unmounted when dropped.
pub(super) struct Disk(tempfile::TempDir);

impl Disk {
    /// Nothing, and says so, if it cannot be mounted.
    #[allow(clippy::print_stderr, reason = "a test says that it was skipped")]
    pub(super) fn mount(test: &str, megabytes: u32) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = rustix::process::geteuid().is_root()
            && Command::new("mount")
                .args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "none"])
                .arg(dir.path())
                .status()
                .is_ok_and(|status| status.success());
        if !mounted {
            eprintln!("SKIPPED {test}: needs root to mount a small tmpfs");
            return None;
        }
        Some(Self(dir))
    }

    pub(super) fn folder(&self) -> PathBuf {
        self.0.path().join("unit")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

pub(super) async fn on(disk: &Disk) -> Bench {
    Bench::with(With {
        folder: Some(disk.folder()),
        ..With::default()
    })
    .await
}

const MB: usize = 1_000_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unused_items_give_way_the_oldest_first() {
    let Some(disk) = Disk::mount("unused_items_give_way_the_oldest_first", 8) else {
        return;
    };
    let bench = on(&disk).await;
    let items: Vec<_> = (1..4)
        .map(|seed| bench.publish(&format!("i{seed}"), &["amd64"], &noise(2 * MB, seed)))
        .collect();
    for item in &items {
        bench.install(item).await;
    }
    // The first two are unused by now; the next needs the room of one.
    let next = bench.publish("next", &["amd64"], &noise(3 * MB, 9));
    bench.fetch(&next).await.unwrap();
    assert!(bench.library.images_of(&items[0]).await.is_err());
    bench.library.images_of(&items[1]).await.unwrap();
    bench.library.images_of(&items[2]).await.unwrap();
    bench.library.images_of(&next).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn if_all_would_not_do_nothing_is_given_up() {
    let Some(disk) = Disk::mount("if_all_would_not_do_nothing_is_given_up", 8) else {
        return;
    };
    let bench = on(&disk).await;
    let unused = bench.publish("unused", &["amd64"], &noise(2 * MB, 1));
    let used = bench.publish("used", &["amd64"], &noise(3 * MB, 2));
    bench.install(&unused).await;
    bench.install(&used).await;
    let huge = bench.publish("huge", &["amd64"], &noise(6 * MB, 3));
    let server = bench.faulty(&[Mood::Fine]).await;
    bench.cloud.deliver_from(&[&server]);
    let error = bench.fetch(&huge).await.unwrap_err();
    assert_eq!(error.aos_code, AosCode::NoMemory as i32, "{error}");
    // Documents came; the layer was not even begun.
    assert_eq!(server.requests(), 4);
    bench.library.images_of(&unused).await.unwrap();
    bench.library.images_of(&used).await.unwrap();
    // And the Unit is not stuck: what fits still comes.
    let small = bench.publish("small", &["amd64"], &noise(MB, 4));
    bench.fetch(&small).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fills_up_meanwhile_fails_the_item_and_not_the_rest() {
    let test = "a_disk_that_fills_up_meanwhile_fails_the_item_and_not_the_rest";
    let Some(disk) = Disk::mount(test, 8) else {
        return;
    };
    let bench = on(&disk).await;
    let web = bench.publish("web", &["amd64"], &noise(4 * MB, 1));
    let fine = [Mood::Fine, Mood::Fine, Mood::Fine, Mood::Fine];
    let server = bench
        .faulty(&[fine.as_slice(), &[Mood::StallAfter(500_000), Mood::Fine]].concat())
        .await;
    bench.cloud.deliver_from(&[&server]);
    let filling = disk.folder().join("somebody");
    let fill = async {
        bench
            .until("the layer is on its way", |_| server.requests() == 5)
            .await;
        // Room for the layer is set aside already: somebody else gets the rest, and no more.
        let rest = std::fs::write(&filling, noise(8 * MB, 2)).unwrap_err();
        assert_eq!(rest.kind(), std::io::ErrorKind::StorageFull);
    };
    let (outcome, ()) = tokio::join!(bench.fetch(&web), fill);
    outcome.unwrap();
    bench.library.commit(&[web]).await.unwrap();
    let other = bench.publish("other", &["amd64"], &noise(MB, 3));
    let error = bench.fetch(&other).await.unwrap_err();
    assert_eq!(error.aos_code, AosCode::NoMemory as i32, "{error}");
    std::fs::remove_file(filling).unwrap();
    bench.fetch(&other).await.unwrap();
}
