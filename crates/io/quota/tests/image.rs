//! The btrfs image on the real kernel, each test in a mount namespace of its own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests may fail loudly"
)]

mod world;

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use aos_quota::{Backend, Bound, Choice, Kind, Name};
use world::{OWNER, World, fill, write_as};

const MIB: u64 = 1 << 20;

fn bound(bytes: u64) -> Bound {
    Bound {
        uid: OWNER,
        gid: OWNER,
        bytes: Some(bytes),
    }
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

#[test]
fn a_full_folder_is_stopped_at_its_limit_and_its_neighbour_writes_on() {
    let Some(world) =
        World::new("a_full_folder_is_stopped_at_its_limit_and_its_neighbour_writes_on")
    else {
        return;
    };
    let quota = world.open(Choice::Btrfs);
    assert_eq!(quota.backend(), Backend::Btrfs);
    let one = quota
        .make(Kind::Storage, &name("web/s/0"), bound(8 * MIB))
        .unwrap();
    let other = quota
        .make(Kind::Storage, &name("web/s/1"), bound(8 * MIB))
        .unwrap();
    let (written, error) = fill(&one.join("big"));
    assert_eq!(error.raw_os_error(), Some(nix::libc::EDQUOT), "{error}");
    assert!((8 * MIB..=9 * MIB).contains(&written), "{written}");
    let used = quota.usage(Kind::Storage, &name("web/s/0")).unwrap().used;
    assert!((8 * MIB..=9 * MIB).contains(&used), "{used}");
    write_as(&other.join("small"), &[1; 100_000]).unwrap();

    // Files can be taken away, and then there is room again.
    fs::remove_file(one.join("big")).unwrap();
    write_as(&one.join("again"), &vec![3; 4 << 20]).unwrap();

    // Another version allows more; an older one less, and takes nothing away.
    quota
        .make(Kind::Storage, &name("web/s/0"), bound(16 * MIB))
        .unwrap();
    let (written, _) = fill(&one.join("more"));
    assert!((11 * MIB..=13 * MIB).contains(&written), "{written}");
    quota
        .make(Kind::Storage, &name("web/s/0"), bound(MIB))
        .unwrap();
    assert_eq!(fs::read(one.join("again")).unwrap(), vec![3; 4 << 20]);
    assert!(write_as(&one.join("late"), &[4; 1 << 20]).is_err());

    // Without a limit it is not stopped.
    let free = Bound {
        bytes: None,
        ..bound(0)
    };
    quota.make(Kind::Storage, &name("web/s/0"), free).unwrap();
    write_as(&one.join("late"), &[4; 1 << 20]).unwrap();
}

#[test]
fn a_removed_folder_leaves_nothing() {
    let Some(world) = World::new("a_removed_folder_leaves_nothing") else {
        return;
    };
    let quota = world.open(Choice::Btrfs);
    let storage = quota
        .make(Kind::Storage, &name("web/s/0"), bound(64 * MIB))
        .unwrap();
    let state = quota
        .make(Kind::State, &name("web/s/0"), bound(MIB))
        .unwrap();
    write_as(&storage.join("big"), &vec![1; 32 << 20]).unwrap();
    // A subvolume that somebody made inside does not hold it.
    world.run(
        "btrfs",
        &[
            "subvolume",
            "create",
            storage.join("inner").to_str().unwrap(),
        ],
    );
    world.sync();
    let before = quota.space().unwrap();
    for _ in 0..2 {
        quota.remove(Kind::Storage, &name("web/s/0")).unwrap();
        quota.remove(Kind::State, &name("web/s/0")).unwrap();
    }
    assert!(!storage.exists() && !state.exists());
    assert!(
        !storage.parent().unwrap().exists(),
        "empty folders above go too"
    );
    assert_eq!(
        quota.usage(Kind::Storage, &name("web/s/0")).unwrap().used,
        0
    );
    world.sync();
    world.until("the room is free again", || {
        quota.space().unwrap().storage >= before.storage + 24 * MIB
    });
    // It comes back empty.
    let storage = quota
        .make(Kind::Storage, &name("web/s/0"), bound(64 * MIB))
        .unwrap();
    assert_eq!(fs::read_dir(storage).unwrap().count(), 0);
}

#[test]
fn what_was_kept_in_plain_folders_moves_into_the_image() {
    let Some(world) = World::new("what_was_kept_in_plain_folders_moves_into_the_image") else {
        return;
    };
    let before = world.open(Choice::Accounting);
    let plain = before
        .make(Kind::Storage, &name("web/s/0"), bound(MIB))
        .unwrap();
    write_as(&plain.join("file"), b"kept").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", plain.join("link")).unwrap();
    fs::create_dir(plain.join("folder")).unwrap();
    fs::hard_link(plain.join("file"), plain.join("folder/same")).unwrap();

    let quota = world.open(Choice::Btrfs);
    // An instance that runs from before keeps its folder until it is started again.
    assert_eq!(quota.find(Kind::Storage, &name("web/s/0")).unwrap(), plain);
    // A first attempt that a power cut ended leaves half of it.
    let neighbour = quota
        .make(Kind::Storage, &name("x/s/0"), bound(MIB))
        .unwrap();
    let mount = neighbour.ancestors().nth(4).unwrap();
    let half = mount.join("coming/storage/web/s/0");
    fs::create_dir_all(&half).unwrap();
    fs::write(half.join("file"), "ke").unwrap();

    let moved = quota
        .make(Kind::Storage, &name("web/s/0"), bound(MIB))
        .unwrap();
    assert_ne!(moved, plain);
    assert!(!plain.exists());
    assert_eq!(fs::read(moved.join("file")).unwrap(), b"kept");
    assert_eq!(
        fs::read_link(moved.join("link")).unwrap(),
        Path::new("/etc/passwd")
    );
    let facts = fs::metadata(moved.join("folder/same")).unwrap();
    assert_eq!((facts.uid(), facts.nlink()), (OWNER, 2));
    assert_eq!(quota.find(Kind::Storage, &name("web/s/0")).unwrap(), moved);

    // It was complete, and the plain one was not gone yet: the complete one counts.
    fs::create_dir_all(&plain).unwrap();
    fs::write(plain.join("file"), "old").unwrap();
    quota
        .make(Kind::Storage, &name("web/s/0"), bound(MIB))
        .unwrap();
    assert_eq!(fs::read(moved.join("file")).unwrap(), b"kept");
    assert!(!plain.exists());
    let (written, _) = fill(&moved.join("big"));
    assert!(written < 2 * MIB, "what moved is bounded: {written}");
}

#[test]
fn it_survives_a_reboot_and_grows_with_its_disk() {
    let Some(world) = World::new("it_survives_a_reboot_and_grows_with_its_disk") else {
        return;
    };
    let quota = world.open_bounded(300 * MIB);
    let one = quota
        .make(Kind::Storage, &name("web/s/0"), bound(4 * MIB))
        .unwrap();
    write_as(&one.join("file"), b"kept").unwrap();
    let small = quota.space().unwrap().storage;
    assert!(small < 300 * MIB);
    drop(quota);
    world.reboot();
    assert!(!one.exists());

    let quota = world.open_bounded(600 * MIB);
    assert_eq!(fs::read(one.join("file")).unwrap(), b"kept");
    assert!(quota.space().unwrap().storage > small + 200 * MIB);
    let (written, _) = fill(&one.join("big"));
    assert!(written < 5 * MIB, "the limit is still there: {written}");
    // Another process of ours, as after a crash, uses the same device.
    let again = world.open_bounded(600 * MIB);
    assert_eq!(again.find(Kind::Storage, &name("web/s/0")).unwrap(), one);
    assert_eq!(world.loops(), 1);
}

#[test]
fn a_damaged_or_lost_image_is_reported_and_never_made_anew() {
    let Some(world) = World::new("a_damaged_or_lost_image_is_reported_and_never_made_anew") else {
        return;
    };
    let quota = world.open(Choice::Auto);
    if quota.backend() != Backend::Btrfs {
        eprintln!("this file system has quotas of its own");
    }
    drop(quota);
    let quota = world.open(Choice::Btrfs);
    quota
        .make(Kind::Storage, &name("web/s/0"), bound(4 * MIB))
        .unwrap();
    drop(quota);
    world.reboot();
    let image = world.image();
    let whole = world.damage();
    let chosen = world.try_open(Choice::Btrfs).unwrap();
    let trouble = chosen.trouble.expect("it says so at once").to_string();
    assert!(
        trouble.contains("cannot be mounted") && trouble.contains("btrfs check"),
        "{trouble}"
    );
    let error = chosen
        .quota
        .make(Kind::Storage, &name("web/s/1"), bound(MIB))
        .unwrap_err();
    assert!(
        error.to_string().contains(image.to_str().unwrap()),
        "{error}"
    );
    let size = fs::metadata(&image).unwrap().len();

    // Repaired: the same process goes on.
    world.repair(&whole);
    chosen
        .quota
        .make(Kind::Storage, &name("web/s/1"), bound(MIB))
        .unwrap();

    world.reboot();
    assert_eq!(fs::metadata(&image).unwrap().len(), size);

    // Lost.
    fs::rename(&image, image.with_extension("away")).unwrap();
    let chosen = world.try_open(Choice::Auto).unwrap();
    assert_eq!(
        chosen.quota.backend(),
        Backend::Btrfs,
        "it is not given up by itself"
    );
    assert!(
        chosen
            .trouble
            .unwrap()
            .to_string()
            .contains("cannot be opened")
    );
    assert!(!image.exists());
    // And nobody is led past it by another setting.
    let error = world.try_open(Choice::Accounting).unwrap_err().to_string();
    assert!(error.contains("`btrfs` or `auto`"), "{error}");
}

#[test]
fn accounting_says_why_it_is_the_last_resort_and_measures() {
    let Some(world) = World::new("accounting_says_why_it_is_the_last_resort_and_measures") else {
        return;
    };
    let chosen = world.try_open(Choice::Accounting).unwrap();
    assert!(chosen.passed_over[0].contains("switched off"));
    let quota = chosen.quota;
    let path = quota
        .make(Kind::State, &name("web/s/0"), bound(MIB))
        .unwrap();
    write_as(&path.join("big"), &vec![1; 2 << 20]).unwrap();
    let used = quota.usage(Kind::State, &name("web/s/0")).unwrap().used;
    assert!(used >= 2 * MIB, "{used}");
}
