//! Instances that are somebody else in their own eyes.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
};

use aos_runtime::{Device, Error, ExitCause, InstanceSpec, Runtime, StopPolicy};
use aos_types::Capability;

use super::said;
use crate::{
    Host, next,
    node::{skip, until},
};

/// A layer that knows a few people and has files of theirs.
fn layer(host: &Host) -> PathBuf {
    let layer = host.node.path("people");
    for folder in ["etc", "data", "private"] {
        fs::create_dir_all(layer.join(folder)).unwrap();
    }
    fs::write(
        layer.join("etc/passwd"),
        "root:x:0:0::/:/bin/sh\napp:x:1000:50::/:/bin/sh\n",
    )
    .unwrap();
    fs::write(
        layer.join("etc/group"),
        "root:x:0:\nstaff:x:50:\naudio:x:63:app\n",
    )
    .unwrap();
    for (name, uid, gid, mode) in [
        ("data", 1_000, 50, 0o755),
        ("data/own", 1_000, 50, 0o600),
        ("data/root", 0, 0, 0o644),
        ("data/www", 33, 33, 0o640),
        ("private", 0, 0, 0o700),
    ] {
        let path = layer.join(name);
        if !path.exists() {
            fs::write(&path, name).unwrap();
        }
        chown(&path, Some(uid), Some(gid)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    layer
}

fn as_user(host: &Host, index: u64, user: &str, script: &str) -> InstanceSpec {
    let mut spec = host.spec(index, script);
    spec.layers = vec![layer(host)];
    spec.inside = Some(user.parse().unwrap());
    spec
}

/// Whether this kernel and file system can do it; if not, it is said.
fn cannot(test: &str, result: &Result<aos_runtime::Started, Error>) -> bool {
    let Err(error) = result else { return false };
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if error.to_string().contains("can map owners") {
            eprintln!("SKIPPED {test}: needs idmapped mounts (mount_setattr, overlay): {error}");
            return true;
        }
        cause = error.source();
    }
    false
}

#[tokio::test]
async fn gap_54_a_user_of_the_image_is_itself_inside_and_the_instance_outside() {
    let test = "gap_54_a_user_of_the_image_is_itself_inside_and_the_instance_outside";
    if skip(test) {
        return;
    }
    let host = Host::new();
    let (runtime, mut exits) = host.open().await;
    let script = r#"
        echo "is $(id -u):$(id -g) groups $(id -G)"
        stat -c '%n %u:%g' /data /data/own /data/root /data/www /private /etc/hosts | sed 's/^/of /'
        cat /data/own >/dev/null && echo own readable; cat /data/www 2>/dev/null || echo www refused
        echo x > /data/new && echo new $(stat -c %u:%g /data/new); echo x 2>/dev/null > /etc/new || echo etc refused
        ls /private 2>/dev/null || echo private refused
        echo mine > /storage/mine; echo kept $(stat -c %u:%g /storage/mine)
        cat /state.dat; echo state > /state.dat
        echo > /dev/mine && echo device written
        grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status; echo END; sleep 100"#;
    let mut spec = as_user(&host, 1, "app", script);
    let state = host.node.path("state.dat");
    fs::write(&state, "given\n").unwrap();
    chown(&state, Some(5_000), Some(5_000)).unwrap();
    spec.state = Some(state.clone());
    spec.devices = vec![Device {
        host_path: "/dev/null".into(),
        path: "/dev/mine".into(),
        access: "rw".into(),
    }];
    // A group of a Node resource.
    spec.user.additional_gids = vec![44];
    let started = runtime.start(&spec).await;
    if cannot(test, &started) {
        return;
    }
    let started = started.unwrap();
    let log = said(&host, &spec).await;
    for line in [
        "is 1000:50 groups 50 65580 63",
        "of /data 1000:50",
        "of /data/own 1000:50",
        "of /data/root 0:0",
        "of /data/www 33:33",
        "of /private 0:0",
        "own readable",
        "www refused",
        "new 1000:50",
        "etc refused",
        "private refused",
        "kept 1000:50",
        "given",
        "device written",
        "CapEff:\t0000000000000400",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
    ] {
        assert!(log.contains(line), "`{line}` is missing:\n{log}");
    }
    let status = fs::read_to_string(format!("/proc/{}/status", started.pid)).unwrap();
    assert!(
        status.contains("Uid:\t5000\t5000") && status.contains("Gid:\t5000\t5000"),
        "{status}"
    );
    let kept = fs::metadata(host.node.path("storage-1/mine")).unwrap();
    assert_eq!((kept.uid(), kept.gid()), (5_000, 5_000));
    assert_eq!(fs::read_to_string(&state).unwrap(), "state\n");
    // The layer is as it was.
    let own = fs::metadata(layer(&host).join("data/own")).unwrap();
    assert_eq!((own.uid(), own.gid()), (1_000, 50));
    // A probe is the same person.
    let probe = aos_types::Probe::Exec(
        ["/bin/sh", "-c", "test $(id -u) = 1000"]
            .map(String::from)
            .into(),
    );
    let time = std::time::Duration::from_secs(5);
    runtime
        .probe(spec.id, started.pid, &probe, time)
        .await
        .unwrap();
    runtime.stop(spec.id, StopPolicy::KILL).await.unwrap();
    assert_eq!(host.mounts(), 0, "nothing stays mounted");

    // The same layer without a namespace, after it and beside it.
    let mut plain = host.spec(2, "stat -c '%n %u:%g' /data/own; id -u; echo END");
    plain.layers = vec![layer(&host)];
    runtime.start(&plain).await.unwrap();
    let log = said(&host, &plain).await;
    assert!(
        log.contains("/data/own 1000:50") && log.contains(" 5000"),
        "{log}"
    );
    next(&mut exits).await;
    runtime.stop(plain.id, StopPolicy::KILL).await.unwrap();
}

#[tokio::test]
async fn root_inside_is_nobody_outside() {
    let test = "root_inside_is_nobody_outside";
    if skip(test) {
        return;
    }
    let host = Host::new();
    let (runtime, mut exits) = host.open().await;
    let script = r#"
        echo "is $(id -u):$(id -g)"; echo x > /etc/new && echo root wrote
        chown 33:33 /etc/new && echo now $(stat -c %u:%g /etc/new)
        cat /usr/bin/env > /dev/null && echo node readable; touch /usr/x 2>/dev/null || echo node refused
        stat -c 'node %u' /usr/bin/env; mount -t tmpfs none /tmp 2>/dev/null || echo mount refused
        echo END; exit 7"#;
    for (index, rights, changed) in [
        (1, vec![], false),
        (2, vec![Capability::Chown, Capability::DacOverride], true),
    ] {
        let mut spec = as_user(&host, index, "0:0", script);
        spec.capabilities.extend(rights);
        let started = runtime.start(&spec).await;
        if cannot(test, &started) {
            return;
        }
        started.unwrap();
        let exit = next(&mut exits).await;
        let log = said(&host, &spec).await;
        assert_eq!(exit.cause, ExitCause::Code(7), "{log}");
        for line in [
            "is 0:0",
            "root wrote",
            "node readable",
            "node refused",
            "node 65534",
            "mount refused",
        ] {
            assert!(log.contains(line), "`{line}` is missing:\n{log}");
        }
        assert_eq!(log.contains("now 33:33"), changed, "{log}");
        let new = host
            .node
            .path(&format!("run/instances/{}/rootfs/etc/new", spec.id));
        let facts = fs::metadata(new).unwrap();
        let wanted = if changed { 5_000 * 65_536 + 33 } else { 5_000 };
        assert_eq!(facts.uid(), wanted, "on the Node");
        runtime.stop(spec.id, StopPolicy::KILL).await.unwrap();
    }
}

#[tokio::test]
async fn it_has_its_network_and_low_ports() {
    let test = "it_has_its_network_and_low_ports";
    if skip(test) {
        return;
    }
    let host = Host::new();
    let (runtime, mut exits) = host.open().await;
    let name = format!("aos-test-{}", std::process::id());
    let ip = |args: &[&str]| {
        Command::new("ip")
            .args(args)
            .status()
            .is_ok_and(|s| s.success())
    };
    if !ip(&["netns", "add", &name]) {
        eprintln!("SKIPPED {test}: needs ip");
        return;
    }
    let script = r#"
        perl -MIO::Socket::INET -e 'IO::Socket::INET->new(Listen=>1,LocalAddr=>"0.0.0.0",LocalPort=>80) or die $!' && echo port 80
        cat /proc/sys/net/core/somaxconn; echo nets $(ls /sys/class/net) END"#;
    let mut spec = as_user(&host, 1, "app", script);
    spec.netns = Some(Path::new("/run/netns").join(&name));
    spec.sysctl = [("net.core.somaxconn".to_owned(), "77".to_owned())].into();
    let started = runtime.start(&spec).await;
    if !cannot(test, &started) {
        started.unwrap();
        next(&mut exits).await;
        let log = said(&host, &spec).await;
        for line in ["port 80", " 77", "nets lo END"] {
            assert!(log.contains(line), "`{line}` is missing:\n{log}");
        }
        runtime.stop(spec.id, StopPolicy::KILL).await.unwrap();
    }
    assert!(ip(&["netns", "del", &name]));
}

#[tokio::test]
async fn a_user_nobody_knows_is_refused_and_nothing_stays() {
    let test = "a_user_nobody_knows_is_refused_and_nothing_stays";
    if skip(test) {
        return;
    }
    let host = Host::new();
    let (runtime, _exits) = host.open().await;
    for (user, word) in [("nobody", "`nobody`"), ("app:none", "`none`")] {
        let spec = as_user(&host, 1, user, "true");
        match runtime.start(&spec).await {
            Err(Error::Spec {
                field: "user", why, ..
            }) => assert!(why.contains(word), "{why}"),
            other => panic!("{other:?}"),
        }
    }
    // Links of the image lead nowhere on the Node.
    let mut spec = as_user(&host, 1, "daemon", "true");
    let evil = host.node.path("evil");
    fs::create_dir_all(evil.join("etc")).unwrap();
    std::os::unix::fs::symlink("/proc/self/root/etc/passwd", evil.join("etc/passwd")).unwrap();
    spec.layers.push(evil);
    assert!(matches!(
        runtime.start(&spec).await,
        Err(Error::Spec { field: "user", .. })
    ));
    until("nothing stays", || host.mounts() == 0).await;
}
