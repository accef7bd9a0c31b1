//! Quotas of the file system itself, on the guest's disks (`cargo xtask test --guest`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests may fail loudly"
)]

use std::{
    fs,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use aos_quota::{Backend, Bound, Choice, Kind, Name, Quota, Setup, open};

const MIB: u64 = 1 << 20;

/// Opens what a disk offers; nothing outside the guest.
fn on(test: &str, disk: &str, folder: &str, choice: Choice) -> Option<Arc<dyn Quota>> {
    if std::env::var_os("AOS_GUEST").is_none() {
        eprintln!("SKIPPED {test}: runs in the guest (cargo xtask test --guest)");
        return None;
    }
    let top = Path::new("/data").join(disk).join(folder);
    let setup = Setup {
        storages: top.join("storages"),
        states: top.join("states"),
        image_dir: top.join("kept"),
        image_max: None,
        choice,
    };
    let chosen = open(&setup).unwrap();
    assert!(chosen.trouble.is_none());
    Some(chosen.quota)
}

fn bound(uid: u32, bytes: u64) -> Bound {
    Bound {
        uid,
        gid: uid,
        bytes: Some(bytes),
    }
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// Writes so many MiB as a user, who is limited where root is not; how many bytes are there then, and what was said.
fn write(uid: u32, path: &Path, mebibytes: u64) -> (u64, String) {
    let output = Command::new("dd")
        .args(["if=/dev/zero", "bs=65536"])
        .arg(format!("of={}", path.display()))
        .arg(format!("count={}", mebibytes * 16))
        .uid(uid)
        .gid(uid)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (fs::metadata(path).map_or(0, |facts| facts.len()), said)
}

fn open_to_all(path: &Path) {
    // Between the disk and the folder others must be let through, as a mount into a container does.
    for folder in path
        .ancestors()
        .skip(1)
        .take_while(|one| *one != Path::new("/data"))
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

fn make(quota: &dyn Quota, kind: Kind, text: &str, bound: Bound) -> PathBuf {
    let path = quota.make(kind, &name(text), bound).unwrap();
    open_to_all(&path);
    path
}

#[test]
fn guest_project_quota_bounds_each_folder() {
    let test = "guest_project_quota_bounds_each_folder";
    let Some(quota) = on(test, "project", "bounds", Choice::Auto) else {
        return;
    };
    assert_eq!(
        quota.backend(),
        Backend::Project,
        "the first choice where it works"
    );
    let one = make(&*quota, Kind::Storage, "web/s/0", bound(7_001, 4 * MIB));
    let other = make(&*quota, Kind::Storage, "web/s/1", bound(7_001, 4 * MIB));
    let (written, said) = write(7_001, &one.join("big"), 8);
    assert!((3 * MIB..=4 * MIB).contains(&written), "{written} {said}");
    assert!(
        said.contains("No space left") || said.contains("quota"),
        "{said}"
    );
    let used = quota.usage(Kind::Storage, &name("web/s/0")).unwrap().used;
    assert!((3 * MIB..=4 * MIB).contains(&used), "{used}");
    // Even of the same user: the folder is bounded.
    let (written, said) = write(7_001, &other.join("small"), 2);
    assert_eq!(written, 2 * MIB, "{said}");
    // A full folder can still be changed.
    let (written, said) = write(7_001, &one.join("big"), 1);
    assert_eq!(written, MIB, "{said}");

    // Another version has another limit, also across a restart.
    drop(quota);
    let quota = on(test, "project", "bounds", Choice::Project).unwrap();
    make(&*quota, Kind::Storage, "web/s/0", bound(7_001, 8 * MIB));
    let (written, said) = write(7_001, &one.join("more"), 6);
    assert_eq!(written, 6 * MIB, "{said}");
    let unlimited = Bound {
        bytes: None,
        ..bound(7_001, 0)
    };
    quota
        .make(Kind::Storage, &name("web/s/0"), unlimited)
        .unwrap();
    let (written, said) = write(7_001, &one.join("most"), 12);
    assert_eq!(written, 12 * MIB, "{said}");

    let before = quota.space().unwrap().storage;
    quota.remove(Kind::Storage, &name("web/s/0")).unwrap();
    assert!(quota.space().unwrap().storage >= before + 15 * MIB);
    assert_eq!(
        quota.usage(Kind::Storage, &name("web/s/0")).unwrap().used,
        0
    );
    // What comes back under the name begins anew.
    let again = make(&*quota, Kind::Storage, "web/s/0", bound(7_001, 2 * MIB));
    let (written, _) = write(7_001, &again.join("big"), 4);
    assert!((MIB..=2 * MIB).contains(&written), "{written}");
}

#[test]
fn guest_project_quota_takes_in_what_was_there() {
    let test = "guest_project_quota_takes_in_what_was_there";
    let Some(before) = on(test, "project", "takes-in", Choice::Accounting) else {
        return;
    };
    let path = make(&*before, Kind::State, "web/s/0", bound(7_002, MIB));
    fs::create_dir(path.join("folder")).unwrap();
    chown(path.join("folder"), Some(7_002), Some(7_002)).unwrap();
    let (written, said) = write(7_002, &path.join("folder/old"), 3);
    assert_eq!(written, 3 * MIB, "{said}");
    std::os::unix::fs::symlink("/etc", path.join("link")).unwrap();

    let quota = on(test, "project", "takes-in", Choice::Project).unwrap();
    make(&*quota, Kind::State, "web/s/0", bound(7_002, 4 * MIB));
    let used = quota.usage(Kind::State, &name("web/s/0")).unwrap().used;
    assert!((3 * MIB..4 * MIB).contains(&used), "{used}");
    let (written, _) = write(7_002, &path.join("folder/new"), 4);
    assert!(written <= MIB, "what was there counts: {written}");
    assert_eq!(
        fs::metadata(path.join("folder/old")).unwrap().len(),
        3 * MIB
    );
}

#[test]
fn guest_user_quota_bounds_storage_and_state_together() {
    let test = "guest_user_quota_bounds_storage_and_state_together";
    let Some(quota) = on(test, "user", "bounds", Choice::Auto) else {
        return;
    };
    assert_eq!(quota.backend(), Backend::User);
    let storage = make(&*quota, Kind::Storage, "web/s/0", bound(7_003, 3 * MIB));
    let state = make(&*quota, Kind::State, "web/s/0", bound(7_003, MIB));
    let other = make(&*quota, Kind::Storage, "web/s/1", bound(7_004, 4 * MIB));
    let (written, said) = write(7_003, &storage.join("big"), 8);
    assert!((3 * MIB..=4 * MIB).contains(&written), "{written} {said}");
    assert!(said.contains("quota"), "{said}");
    let (more, _) = write(7_003, &state.join("state.dat"), 1);
    assert!(more < MIB, "{more}");
    let usage = quota.usage(Kind::Storage, &name("web/s/0")).unwrap();
    assert!(usage.together && usage.used >= 3 * MIB, "{usage:?}");
    let (written, said) = write(7_004, &other.join("small"), 2);
    assert_eq!(written, 2 * MIB, "{said}");
    quota.remove(Kind::Storage, &name("web/s/0")).unwrap();
    quota.remove(Kind::State, &name("web/s/0")).unwrap();
    assert!(
        quota
            .find(Kind::Storage, &name("web/s/0"))
            .is_ok_and(|path| !path.exists())
    );
}

#[test]
fn guest_empty_files_are_bounded_too() {
    for (disk, choice) in [("project", Choice::Project), ("user", Choice::User)] {
        let test = "guest_empty_files_are_bounded_too";
        let Some(quota) = on(test, disk, "files", choice) else {
            return;
        };
        let folder = make(&*quota, Kind::Storage, "web/s/0", bound(7_050, MIB));
        let usage = || quota.usage(Kind::Storage, &name("web/s/0")).unwrap();
        let most = usage().files_limit;
        assert!((256..=2_048).contains(&most), "{most}");
        // Nothing in them, so no limit of bytes notices.
        let output = Command::new("sh")
            .args([
                "-c",
                "i=0; while [ $i -lt 4000 ] && : > $i; do i=$((i+1)); done; echo $i",
            ])
            .current_dir(&folder)
            .uid(7_050)
            .gid(7_050)
            .output()
            .unwrap();
        let made: u64 = String::from_utf8_lossy(&output.stdout)
            .trim()
            .parse()
            .unwrap_or(0);
        assert!(made < most, "{made} of {most} on {disk}");
        assert!(usage().files + 1 >= most, "{:?} on {disk}", usage());
        quota.remove(Kind::Storage, &name("web/s/0")).unwrap();
    }
}
