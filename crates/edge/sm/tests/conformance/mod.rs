//! Images that are not ours: built by `umoci`, run by SM.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink},
    path::Path,
    process::Command,
};

use aos_image::{
    build::{self, Image},
    graph::load_index,
    layout,
};
use aos_types::{Digest, ItemConfig, Quotas};
use tokio_util::sync::CancellationToken;

use super::pids;
use crate::unit::{Unit, run, until};

fn umoci(folder: &Path, args: &[&str]) {
    let output = Command::new("umoci")
        .args(args)
        .current_dir(folder)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "umoci {args:?}: {said}");
}

/// What the image starts: it says what it sees, and how it is asked to end.
const SCRIPT: &str = r#"#!/bin/sh
{ echo "is $(id -u):$(id -g) $(id -un) $(id -G)"
  echo "args $*"; echo "at $(pwd)"; echo "env $COLOUR $PATH"
  stat -c '%n %u:%g %a' /srv/own /srv/shared /opt/tool | sed 's/^/of /'
  echo "layers $(cat /data/both) $(ls /data | tr '\n' ' ')folder $(ls /folder | tr '\n' ' ')"
  echo "links $(cat /opt/hard) $(cat /opt/soft)"
} > /storage/report.new 2>&1
trap 'echo usr1 > /storage/bye; exit 0' USR1
trap '' TERM
mv /storage/report.new /storage/report
while :; do sleep 0.1; done
"#;

/// Two layers: the second takes away, replaces and adds.
fn build(folder: &Path) -> std::path::PathBuf {
    umoci(folder, &["init", "--layout", "layout"]);
    umoci(folder, &["new", "--image", "layout:app"]);
    umoci(folder, &["unpack", "--image", "layout:app", "made"]);
    let root = folder.join("made/rootfs");
    for name in [
        "bin", "etc", "srv", "data", "folder", "opt", "dev", "storage",
    ] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    for tool in [
        "sh", "id", "stat", "sed", "cat", "ls", "tr", "mv", "sleep", "pwd",
    ] {
        symlink("busybox", root.join("bin").join(tool)).unwrap();
    }
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0::/:/bin/sh\napp:x:1200:300::/srv:/bin/sh\n",
    )
    .unwrap();
    fs::write(
        root.join("etc/group"),
        "root:x:0:\nstaff:x:300:\nmore:x:400:app\n",
    )
    .unwrap();
    fs::write(root.join("srv/app.sh"), SCRIPT).unwrap();
    fs::set_permissions(root.join("srv/app.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    for (name, uid, gid, mode) in [
        ("srv/own", 1200, 300, 0o600),
        ("srv/shared", 33, 400, 0o640),
        ("opt/tool", 0, 0, 0o4711),
    ] {
        fs::write(root.join(name), name).unwrap();
        chown(root.join(name), Some(uid), Some(gid)).unwrap();
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    for name in ["data/both", "data/gone", "folder/old"] {
        fs::write(root.join(name), "below").unwrap();
    }
    fs::write(root.join("opt/file"), "content").unwrap();
    fs::hard_link(root.join("opt/file"), root.join("opt/hard")).unwrap();
    symlink("/opt/file", root.join("opt/soft")).unwrap();
    rustix::fs::setxattr(
        root.join("srv/own"),
        "user.note",
        b"kept",
        rustix::fs::XattrFlags::empty(),
    )
    .unwrap();
    umoci(
        folder,
        &[
            "repack",
            "--refresh-bundle",
            "--image",
            "layout:app",
            "made",
        ],
    );
    fs::write(root.join("data/both"), "above").unwrap();
    fs::remove_file(root.join("data/gone")).unwrap();
    fs::remove_dir_all(root.join("folder")).unwrap();
    fs::create_dir(root.join("folder")).unwrap();
    fs::write(root.join("folder/new"), "new").unwrap();
    umoci(folder, &["repack", "--image", "layout:app", "made"]);
    umoci(
        folder,
        &[
            "config",
            "--image",
            "layout:app",
            "--config.user",
            "app",
            "--config.workingdir",
            "/srv",
            "--config.entrypoint",
            "/srv/app.sh",
            "--config.entrypoint",
            "first",
            "--config.cmd",
            "second",
            "--config.env",
            "COLOUR=blue",
            "--config.env",
            "PATH=/bin",
            "--config.stopsignal",
            "SIGUSR1",
        ],
    );
    umoci(folder, &["gc", "--layout", "layout"]);
    folder.join("layout")
}

/// Its manifest, once the image is an item of ours.
fn publish(unit: &Unit, layout: &Path, change: impl FnOnce(&mut ItemConfig)) -> Digest {
    let stop = CancellationToken::new();
    let found = layout::find(layout, "amd64", "").unwrap();
    let layers = found
        .store(&unit.images, unit.folder.path(), &stop)
        .unwrap();
    assert_eq!(layers.len(), 2);
    let mut item = ItemConfig {
        base_layer_is_node_rootfs: false,
        quotas: Quotas {
            storage_limit: Some(1 << 20),
            ..Quotas::default()
        },
        ..ItemConfig::default()
    };
    change(&mut item);
    let image = Image {
        config: found.config,
        item_config: Some(item),
        layers,
    };
    let built = build::item(&unit.images, &[image]).unwrap();
    let index = load_index(&unit.images, &built.index.digest, &Default::default()).unwrap();
    index.manifests[0].descriptor.digest
}

#[test]
fn conformance_an_image_built_by_umoci_runs_as_it_says() {
    let test = "conformance_an_image_built_by_umoci_runs_as_it_says";
    for (tool, package) in [("umoci", "umoci"), ("/bin/busybox", "busybox-static")] {
        if Command::new(tool).arg("--help").output().is_err() {
            eprintln!("SKIPPED {test}: needs {package}");
            return;
        }
    }
    run(test, async |unit: Unit| {
        // Instances with a user namespace come through the folders of a Node.
        fs::set_permissions(unit.folder.path(), fs::Permissions::from_mode(0o711)).unwrap();
        let layout = build(unit.folder.path());
        let one = publish(&unit, &layout, |_| {});
        // Another version with the same layers.
        let two = publish(&unit, &layout, |item| item.author = "somebody".into());
        let sm = unit.start_sm();
        let cm = &unit.cm;
        cm.until("introduced", |seen| seen.complete > 0).await;
        let mut wanted = cm.instance("web", 0, "1.0.0", one);
        wanted.storage_path = "web/subject/0".into();
        cm.list(vec![wanted.clone()]).await;
        assert_eq!(cm.state("web"), ("active".into(), "1.0.0".into()));
        let storage = unit.storage("web/subject/0");
        until("it reports", || storage.join("report").exists()).await;
        let report = fs::read_to_string(storage.join("report")).unwrap();
        for line in [
            "is 1200:300 app 300 400",
            "args first second",
            "at /srv",
            "env blue /bin",
            "of /srv/own 1200:300 600",
            "of /srv/shared 33:400 640",
            "of /opt/tool 0:0 4711",
            "layers above both folder new",
            "links content content",
        ] {
            assert!(report.contains(line), "`{line}` is missing:\n{report}");
        }
        let pid = pids(&unit)[0];
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        assert!(status.contains("Uid:\t5000\t5000"), "{status}");
        let kept = fs::metadata(storage.join("report")).unwrap();
        assert_eq!(kept.uid(), 5_000);
        let layers = || {
            let folder = unit.path("sm/images/layers/sha256");
            let mut all: Vec<_> = fs::read_dir(folder)
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .collect();
            all.sort();
            all
        };
        let before = layers();
        assert_eq!(before.len(), 2);
        let noted = before.iter().any(|layer| {
            let mut value = [0; 8];
            let file = layer.join("layer/srv/own");
            rustix::fs::getxattr(file, "user.note", &mut value[..]) == Ok(4)
                && value.starts_with(b"kept")
        });
        assert!(noted, "extended attributes are kept");

        // The update stops it by the image's own signal; the layers are shared by both versions.
        let mut next = wanted.clone();
        next.version = "2.0.0".into();
        next.manifest_digest = two.to_string();
        cm.list(vec![next]).await;
        assert_eq!(cm.state("web"), ("active".into(), "2.0.0".into()));
        assert_eq!(fs::read_to_string(storage.join("bye")).unwrap(), "usr1\n");
        assert_eq!(layers(), before);
        cm.list(vec![]).await;
        sm.end().await;
    });
}
