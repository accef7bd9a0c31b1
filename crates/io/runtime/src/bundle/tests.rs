use std::{fs, path::PathBuf};

use super::*;
use crate::{CpuQuota, Device, HostEntry, InstanceId, Limits, User};
use aos_types::InstanceIdent;

pub(crate) fn spec() -> InstanceSpec {
    let ident = InstanceIdent::service("item".parse().unwrap(), "subject".parse().unwrap(), 2);
    InstanceSpec {
        id: InstanceId::of(&ident),
        ident,
        layers: Vec::new(),
        host_base: Vec::new(),
        args: vec!["/app".into(), "--x".into()],
        env: vec![
            ("A".into(), "1".into()),
            ("PATH".into(), "/bin".into()),
            ("A".into(), "2".into()),
        ],
        cwd: PathBuf::new(),
        user: User {
            uid: 5_000,
            gid: 5_001,
            additional_gids: vec![44],
        },
        inside: None,
        capabilities: aos_types::Capabilities::default().granted(),
        read_only: true,
        hostname: Some("box".into()),
        limits: Limits {
            cpu: CpuQuota::from_dmips(500, 1_000, 2),
            ram: Some(64 << 20),
            pids: Some(32),
            open_files: Some(100),
            tmp: Some(4_096),
        },
        sysctl: [("net.ipv4.ip_forward".to_owned(), "0".to_owned())].into(),
        netns: Some("/run/netns/x".into()),
        hosts: vec![HostEntry {
            ip: "172.31.0.2".parse().unwrap(),
            names: vec!["box".into(), "evil\n1.2.3.4 bank".into()],
        }],
        nameservers: vec!["9.9.9.9".parse().unwrap()],
        storage: Some("/data/storage".into()),
        state: Some("/data/state.dat".into()),
        mounts: Vec::new(),
        devices: vec![Device {
            host_path: "/dev/null".into(),
            path: "/dev/mine".into(),
            access: "rwx".into(),
        }],
    }
}

#[test]
fn the_kernel_ends_an_instance_before_anything_of_the_node() {
    let (config, _folder) = written(&spec());
    assert_eq!(config["process"]["oomScoreAdj"], 500);
}

fn written(spec: &InstanceSpec) -> (serde_json::Value, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let place = Place {
        cgroup_parent: "/aos-a".into(),
        unified: false,
        bounds_swap: true,
        seccomp: true,
        isolation: crate::Isolation::Full,
    };
    write(spec, &place, None, folder.path()).unwrap();
    let text = fs::read_to_string(folder.path().join("config.json")).unwrap();
    (serde_json::from_str(&text).unwrap(), folder)
}

#[test]
fn without_isolation_there_are_mounts_of_its_own_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place {
        cgroup_parent: "/aos-native".into(),
        unified: false,
        bounds_swap: false,
        seccomp: false,
        isolation: crate::Isolation::Native,
    };
    let mut spec = spec();
    spec.sysctl.clear();
    spec.inside = None;
    check(&spec, place.isolation).unwrap();
    write(&spec, &place, None, folder.path()).unwrap();
    let text = fs::read_to_string(folder.path().join("config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&text).unwrap();
    let namespaces = config["linux"]["namespaces"].as_array().unwrap();
    assert_eq!(namespaces.len(), 1);
    assert_eq!(namespaces[0]["type"], "mount");
    assert_eq!(config.get("hostname"), None);
    spec.sysctl.insert("net.core.somaxconn".into(), "1".into());
    let error = check(&spec, place.isolation).unwrap_err().to_string();
    assert!(
        error.contains("sysctl needs a namespace of its own"),
        "{error}"
    );
}

#[test]
fn limits_names_and_places_reach_the_oci_configuration() {
    let spec = spec();
    let (config, folder) = written(&spec);
    let at = |pointer: &str| config.pointer(pointer).unwrap().clone();
    assert_eq!(at("/linux/resources/memory/limit"), 64 << 20);
    assert_eq!(at("/linux/resources/memory/swap"), 64 << 20);
    assert_eq!(at("/linux/resources/cpu/quota"), 100_000);
    assert_eq!(at("/linux/resources/pids/limit"), 32);
    assert_eq!(at("/linux/cgroupsPath"), format!("/aos-a/{}", spec.id));
    assert_eq!(at("/process/user/uid"), 5_000);
    assert_eq!(at("/process/noNewPrivileges"), true);
    assert_eq!(at("/root/readonly"), true);
    for set in ["bounding", "effective", "permitted", "ambient"] {
        let rights = at(&format!("/process/capabilities/{set}"));
        assert_eq!(rights, serde_json::json!(["CAP_NET_BIND_SERVICE"]));
    }
    assert_eq!(at("/linux/seccomp/defaultAction"), "SCMP_ACT_ERRNO");
    assert_eq!(at("/linux/seccomp/defaultErrnoRet"), 1);
    assert_eq!(at("/process/cwd"), "/");
    assert_eq!(at("/linux/devices/0/path"), "/dev/mine");
    assert_eq!(at("/linux/resources/devices/0/allow"), false);
    assert_eq!(at("/linux/resources/devices/1/access"), "rw");
    let env = at("/process/env");
    assert_eq!(env[0], "PATH=/bin");
    assert_eq!(env[1], "AOS_ITEM_ID=item");
    assert_eq!(env[3], "AOS_INSTANCE_INDEX=2");
    assert_eq!(env[4], format!("AOS_INSTANCE_ID={}", spec.id));
    assert_eq!(env[5], "A=2");
    let mounts = at("/mounts");
    let has = |destination: &str| {
        mounts
            .as_array()
            .unwrap()
            .iter()
            .any(|mount| mount["destination"] == destination)
    };
    for destination in ["/proc", "/tmp", "/storage", "/state.dat", "/etc/hosts"] {
        assert!(has(destination), "{destination}");
    }
    assert!(!has("/sys/fs/cgroup"));
    let hosts = fs::read_to_string(folder.path().join("hosts")).unwrap();
    assert!(hosts.contains("172.31.0.2 box\n") && !hosts.contains("bank"));
    let resolv = fs::read_to_string(folder.path().join("resolv.conf")).unwrap();
    assert_eq!(resolv, "nameserver 9.9.9.9\n");
    let network = config["linux"]["namespaces"]
        .as_array()
        .unwrap()
        .iter()
        .find(|namespace| namespace["type"] == "network")
        .unwrap();
    assert_eq!(network["path"], "/run/netns/x");
}

#[test]
fn impossible_specifications_are_refused_by_field() {
    type Break = fn(&mut InstanceSpec);
    let cases: [(&str, Break); 7] = [
        ("args", |spec| spec.args.clear()),
        ("args", |spec| spec.args = vec!["a\0b".into()]),
        ("env", |spec| spec.env = vec![("A=B".into(), "c".into())]),
        ("cwd", |spec| spec.cwd = "relative".into()),
        ("hostname", |spec| spec.hostname = Some("a b".into())),
        ("sysctl", |spec| {
            spec.sysctl = [("kernel.panic".to_owned(), "1".to_owned())].into();
        }),
        ("mounts", |spec| {
            spec.mounts = vec![crate::Mount {
                destination: "/a/../../b".into(),
                source: "/x".into(),
                kind: "bind".into(),
                options: Vec::new(),
            }];
        }),
    ];
    assert!(check(&spec(), crate::Isolation::Full).is_ok());
    for (field, damage) in cases {
        let mut spec = spec();
        damage(&mut spec);
        match check(&spec, crate::Isolation::Full) {
            Err(Error::Spec { field: named, .. }) => assert_eq!(named, field),
            other => panic!("{field}: {other:?}"),
        }
    }
}
