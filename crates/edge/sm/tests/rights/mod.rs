//! What instances are granted beyond themselves: rights at functional servers, and resources of the Node.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
};

use aos_types::{ItemConfig, ItemResource};
use nix::sys::stat::{Mode, SFlag, mknod};

use crate::{
    bad::script,
    pids,
    unit::{Unit, iam, item, run, until},
};

fn with_rights(access: &'static str) -> impl FnOnce(&mut ItemConfig) {
    move |item| {
        let functions = BTreeMap::from([("door".to_owned(), access.to_owned())]);
        item.permissions = BTreeMap::from([("vis".to_owned(), functions)]);
    }
}

/// The secret in the environment of the only instance that runs: it has that when its program is executed, a moment after its
/// start.
fn secret(unit: &Unit) -> Option<String> {
    let [pid] = pids(unit)[..] else { return None };
    let env = fs::read(format!("/proc/{pid}/environ")).ok()?;
    env.split(|&byte| byte == 0).find_map(|entry| {
        let secret = entry.strip_prefix(b"AOS_SECRET=")?;
        Some(String::from_utf8_lossy(secret).into_owned())
    })
}

#[test]
fn a_secret_is_handed_in_and_rights_that_are_dropped_are_taken_back() {
    let test = "a_secret_is_handed_in_and_rights_that_are_dropped_are_taken_back";
    run(test, async |unit: Unit| {
        let (store, folder) = (&unit.images, unit.folder.path());
        let both = item::publish(store, folder, &["one"], with_rights("rw"));
        let less = item::publish(store, folder, &["two"], with_rights("r"));
        let none = item::publish(store, folder, &["three"], |_| {});
        let rights = |item: &str| {
            let seen = unit.iam.seen.lock().unwrap();
            seen.registered
                .get(item)
                .map(|rights| rights["vis"]["door"].clone())
        };
        let sm = unit.start_sm();
        let cm = &unit.cm;
        cm.until("introduced", |seen| seen.complete > 0).await;
        cm.list(vec![cm.instance("web", 0, "1.0.0", both)]).await;
        cm.until_state("web", "1.0.0", "active").await;
        until("it has it", || secret(&unit) == Some(iam::secret("web"))).await;
        assert_eq!(rights("web").as_deref(), Some("rw"));

        cm.list(vec![cm.instance("web", 0, "2.0.0", less)]).await;
        cm.until_state("web", "2.0.0", "active").await;
        until("it has it", || secret(&unit) == Some(iam::secret("web"))).await;
        assert_eq!(rights("web").as_deref(), Some("r"));

        // The next version has none. IAM is away then, and SM ends before it is back.
        unit.iam.seen.lock().unwrap().silent = true;
        cm.list(vec![cm.instance("web", 0, "3.0.0", none)]).await;
        cm.until_state("web", "3.0.0", "active").await;
        assert_eq!(secret(&unit), None);
        sm.end().await;
        assert_eq!(rights("web").as_deref(), Some("r"));
        unit.iam.seen.lock().unwrap().silent = false;
        let sm = unit.start_sm();
        until("they are taken back", || rights("web").is_none()).await;

        // So are those of one that is removed.
        cm.list(vec![cm.instance("web", 0, "2.0.0", less)]).await;
        assert_eq!(rights("web").as_deref(), Some("r"));
        unit.iam.seen.lock().unwrap().silent = true;
        cm.list(vec![]).await;
        unit.iam.seen.lock().unwrap().silent = false;
        until("they are taken back", || rights("web").is_none()).await;
        sm.end().await;
    });
}

#[test]
fn an_instance_gets_the_resources_it_names_and_as_much_of_them_as_it_says() {
    let test = "an_instance_gets_the_resources_it_names_and_as_much_of_them_as_it_says";
    run(test, async |mut unit: Unit| {
        let Ok(fuse) = fs::metadata("/dev/fuse") else {
            eprintln!("SKIPPED {test}: needs /dev/fuse (CONFIG_FUSE_FS)");
            return;
        };
        // One that everybody may open as far as its mode goes: what is refused is refused by the mode that was asked for.
        let device = unit.path("a-device");
        let (all, kind) = (Mode::from_bits_truncate(0o666), SFlag::S_IFCHR);
        mknod(&device, kind, all, fuse.rdev()).unwrap();
        fs::set_permissions(&device, fs::Permissions::from_mode(0o666)).unwrap();
        fs::create_dir(unit.path("maps")).unwrap();
        fs::write(unit.path("maps/town"), "a map\n").unwrap();
        let groups = fs::read_to_string("/etc/group").unwrap();
        let group = |line: &str| {
            let mut fields = line.split(':');
            Some((fields.next()?.to_owned(), fields.nth(1)?.to_owned()))
        };
        let (group, gid) = groups
            .lines()
            .filter_map(group)
            .find(|(_, gid)| gid != "0")
            .unwrap();
        let file = unit.path("resources.json");
        let resource = |name: &str, device: &str| {
            serde_json::json!({
                "name": name, "sharedCount": 2, "groups": [group],
                "mounts": [{"destination": "/maps", "source": unit.path("maps"), "options": ["ro"]}],
                "envs": ["MAPS=/maps"], "hosts": [{"ip": "10.9.8.7", "hostname": "charts"}],
                "devices": [device]
            })
        };
        let list = [
            resource("maps", &format!("{}:/dev/map", device.display())),
            serde_json::json!({"name": "broken", "devices": ["/dev/there-is-none"]}),
        ];
        fs::write(&file, serde_json::to_string(&list).unwrap()).unwrap();
        unit.options.resources_file = Some(file);

        let report = "exec 2>&1; id -G; echo env $MAPS; cat /etc/hosts /maps/town; \
            echo > /maps/other && echo map changed; \
            (exec 3</dev/map) && echo device read; (exec 3>/dev/map) && echo device written; \
            [ -e /dev/fuse ] && echo other name; echo end";
        let text = format!("({report}) > /storage/report; while :; do sleep 1; done");
        let asks = |name: &'static str, mode: &'static str, inside: bool| {
            move |item: &mut ItemConfig| {
                item.resources = vec![ItemResource {
                    name: name.into(),
                    mode: mode.into(),
                }];
                item.user_namespace = Some(inside);
            }
        };
        let reader = script(&unit, &text, asks("maps", "r", false));
        let writer = script(&unit, &text, asks("maps", "rw", false));
        let inside = script(&unit, &text, asks("maps", "r", true));
        let stranger = script(&unit, &text, |_| {});
        let absent = script(&unit, &text, asks("sonar", "r", false));
        let broken = script(&unit, &text, asks("broken", "r", false));
        let sm = unit.start_sm();
        let cm = &unit.cm;
        cm.until("introduced", |seen| seen.complete > 0).await;
        {
            let seen = cm.seen.lock().unwrap();
            let told = &seen.info.as_ref().unwrap().resources;
            let told: Vec<_> = told
                .iter()
                .map(|one| (&*one.name, one.shared_count))
                .collect();
            assert_eq!(told, [("broken", 0), ("maps", 2)]);
        }
        let all = [
            ("reader", reader),
            ("writer", writer),
            ("inside", inside),
            ("stranger", stranger),
            ("absent", absent),
            ("broken", broken),
        ];
        let list = all.iter().zip(5_000..).map(|((name, image), uid)| {
            let mut one = cm.instance(name, 0, "1.0.0", *image);
            one.storage_path = format!("{name}/subject/0");
            one.uid = uid;
            one
        });
        cm.list(list.collect()).await;
        let said = |name: &str| {
            let file = unit.storage(&format!("{name}/subject/0")).join("report");
            fs::read_to_string(file).unwrap_or_default()
        };
        for name in ["reader", "writer", "inside", "stranger"] {
            until("it reports", || said(name).ends_with("end\n")).await;
        }
        for (name, written) in [("reader", false), ("writer", true), ("inside", false)] {
            let said = said(name);
            for wanted in ["env /maps", "a map", "device read", "charts", "10.9.8.7"] {
                assert!(said.contains(wanted), "{name}: no `{wanted}` in\n{said}");
            }
            assert_eq!(said.contains("device written"), written, "{name}:\n{said}");
            for other in ["map changed", "other name"] {
                assert!(!said.contains(other), "{name}: `{other}` in\n{said}");
            }
            let ids: Vec<&str> = said.lines().next().unwrap().split(' ').collect();
            assert!(name == "inside" || ids.contains(&&*gid), "{name}: {ids:?}");
        }
        let stranger = said("stranger");
        for other in ["device read", "a map", "charts", "env /maps"] {
            assert!(!stranger.contains(other), "`{other}` in\n{stranger}");
        }
        // Who cannot have what it asks for is not run without it.
        for (name, why) in [
            ("absent", "no resource `sonar`"),
            ("broken", "there-is-none"),
        ] {
            cm.until_error(name, why).await;
        }
        cm.until_state("absent", "1.0.0", "failed").await;
        assert_eq!(pids(&unit).len(), 4);
        cm.list(vec![]).await;
        sm.end().await;
    });
}
