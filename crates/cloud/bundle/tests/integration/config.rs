use std::fs;

use aos_bundle::{Config, Problem, Severity, check, init, sign};
use aos_types::StoragePolicy;

use crate::folder::{CONFIG, folder, put, signer};

/// The problems of a configuration in which one text is replaced.
fn problems(from: &str, to: &str) -> Vec<String> {
    assert!(CONFIG.contains(from), "{from}");
    match Config::parse(&CONFIG.replacen(from, to, 1)) {
        Ok((_, warnings)) => warnings.0.iter().map(ToString::to_string).collect(),
        Err(problems) => problems.0.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn a_configuration_is_read_in_full() {
    let (config, warnings) = Config::parse(CONFIG).unwrap();
    assert_eq!(
        warnings
            .0
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        [
            "config.yaml line 19, `items[0].configuration.publishedPorts`: a host port goes to one instance a Node: further instances need further Nodes"
        ]
    );
    let item = &config.items[0];
    assert_eq!(item.version.to_string(), "1.2.3");
    assert_eq!(item.instances.labels, ["edge"]);
    assert_eq!((item.instances.min, item.instances.priority), (2, 7));
    let unit = &item.item_config;
    assert_eq!(unit.quotas.ram_limit, Some(16 << 20));
    assert_eq!(unit.quotas.cpu_dmips_limit, Some(100));
    assert_eq!(unit.quotas.upload_speed, Some(5));
    assert_eq!(unit.allowed_connections[0].to_string(), "db/5432:5433/tcp");
    assert_eq!(unit.published_ports[0].host_port, 8080);
    assert!(!unit.base_layer_is_node_rootfs);
    let rules = unit.alert_rules.as_ref().unwrap();
    assert_eq!(rules.partitions[0].name, "storages");
}

#[test]
fn a_storage_policy_reaches_the_unit() {
    let with = |policy: &str| {
        let text = format!("hostname: web\n      storagePolicy: {policy}");
        Config::parse(&CONFIG.replacen("hostname: web", &text, 1))
    };
    let (config, warnings) = with("expendable").unwrap();
    assert_eq!(warnings.0.len(), 1, "{warnings:?}");
    let unit = &config.items[0].item_config;
    assert_eq!(unit.storage_policy, StoragePolicy::Expendable);
    let told = serde_json::to_value(unit).unwrap();
    assert_eq!(told["storagePolicy"], "expendable");
    let error = with("movable").unwrap_err().to_string();
    assert!(error.contains("storagePolicy"), "{error}");
}

#[test]
fn what_a_native_service_cannot_have_is_refused_by_field() {
    let with = |runtimes: &str| {
        let text = format!(
            "hostname: web\n      egress: []\n      runtimes: {runtimes}\n      sysctl: {{net.core.somaxconn: \"64\"}}"
        );
        Config::parse(&CONFIG.replacen("hostname: web", &text, 1))
    };
    let error = with("[native]").unwrap_err().to_string();
    for field in ["hostname", "egress", "sysctl"] {
        let told = format!("configuration.{field}`: needs a network");
        assert!(error.contains(&told), "{error}");
    }
    // Elsewhere it may have them.
    let told = |runtimes: &str| {
        let (_, warnings) = with(runtimes).unwrap();
        let native = |problem: &&Problem| problem.message.contains("or `native` from `runtimes`");
        warnings.0.iter().filter(native).count()
    };
    // Those three, and what the bundle has besides.
    assert_eq!((told("[crun, native]"), told("[crun]")), (6, 0));
}

#[test]
fn a_health_check_is_taken_over_and_its_errors_are_named() {
    let with = |check: &str| {
        let text = format!("hostname: web\n      healthCheck: {check}");
        CONFIG.replacen("hostname: web", &text, 1)
    };
    let (config, warnings) =
        Config::parse(&with("{http: {port: 80, path: /up}, startPeriod: 30s}")).unwrap();
    assert_eq!(warnings.0.len(), 1, "{warnings:?}");
    let check = config.items[0].item_config.health_check.as_ref().unwrap();
    assert_eq!(check.probe.to_string(), "http :80/up");
    assert_eq!(check.start_period.as_secs(), 30);
    for (check, expected) in [
        (
            "{http: {port: 80}, tcp: {port: 80}}",
            "line 18, `items[0].configuration.healthCheck`: needs exactly one of `exec`",
        ),
        (
            "{http: {port: 80, path: up}}",
            "`items[0].configuration.healthCheck.http.path`: must begin with `/`",
        ),
        (
            "{exec: [/bin/check], interval: 10ms}",
            "`items[0].configuration.healthCheck.interval`: must be from 1s to 3600 s",
        ),
        ("yes", "`items[0].configuration.healthCheck`: expected"),
    ] {
        let problems = Config::parse(&with(check)).unwrap_err().to_string();
        assert!(problems.contains(expected), "{problems}");
    }
    let (_, warnings) = Config::parse(&with("{tcp: {port: 80}, retry: 3}")).unwrap();
    let retry = |field: &str| field.ends_with("healthCheck.retry");
    assert!(
        warnings.0.iter().any(|one| retry(&one.field)),
        "{warnings:?}"
    );
}

/// A bundle of two services.
fn two(of_db: &str, needs: &str) -> Result<Config, String> {
    let text = format!(
        r#"schemaVersion: 2
items:
  - identity: {{codename: db}}
    version: "1.2.0"
    images: [{{archInfo: {{architecture: amd64}}}}]
    configuration: {{cmd: ["/db"]{of_db}}}
  - identity: {{codename: web}}
    version: "1.0.0"
    images: [{{archInfo: {{architecture: amd64}}}}]
    configuration: {{cmd: ["/web"]}}
    dependencies:
{needs}
"#
    );
    Config::parse(&text)
        .map(|(config, _)| config)
        .map_err(|problems| problems.to_string())
}

#[test]
fn dependencies_are_read_and_wrong_ones_explained() {
    let job = ", runParameters: {restartPolicy: on-failure}";
    let needs = "      - {identity: {codename: db}, versions: \">=1\"}\n      - {identity: {codename: log}, condition: after}";
    let config = two(job, needs).unwrap();
    let [db, log] = &config.items[1].dependencies[..] else {
        panic!("two are read")
    };
    assert_eq!(db.condition, aos_types::Condition::Completed);
    assert_eq!(log.condition, aos_types::Condition::After);
    assert!(
        config.items[0]
            .item_config
            .run_parameters
            .restart_policy
            .ends()
    );
    for (of_db, needs, expected) in [
        (
            "",
            "      - identity: {codename: db}",
            "line 12, `items[1].dependencies[0].condition`: waits until `db` has completed (that is meant when nothing is said), which it never does: write `condition: started`",
        ),
        (
            "",
            "      - {identity: {codename: db}, condition: ready}",
            "`items[1].dependencies[0].condition`: must be one of started, healthy, completed, before, after",
        ),
        (
            "",
            "      - {identity: {codename: db}, condition: started, versions: \">=2\"}",
            "`items[1].dependencies[0].versions`: `>=2` does not take in version 1.2.0 of `db` in this bundle",
        ),
        (
            "",
            "      - {identity: {codename: web}, condition: started}",
            "`items[1].dependencies[0].identity.codename`: is the item itself",
        ),
        (
            "",
            "      - {condition: started}",
            "`items[1].dependencies[0].identity`: is missing",
        ),
        (
            "",
            "      - {identity: {codename: x}, condition: after}\n      - {identity: {codename: x}, condition: after}",
            "`items[1].dependencies[1]`: says the same of `x` twice",
        ),
        (
            "}\n    dependencies: [{identity: {codename: web}, condition: after}]\n    x: {y: 1",
            "      - {identity: {codename: db}, condition: started}",
            "`items[0].dependencies`: lead back to the item itself: db \u{2192} web \u{2192} db",
        ),
        (
            ", runParameters: {restartPolicy: sometimes}",
            "      - {identity: {codename: db}, condition: started}",
            "`items[0].configuration.runParameters.restartPolicy`: must be `always`, `on-failure` or `never`",
        ),
    ] {
        let problems = two(of_db, needs).unwrap_err();
        assert!(problems.contains(expected), "{problems}");
    }
}

#[test]
fn errors_name_line_and_field() {
    for (from, to, expected) in [
        (
            "schemaVersion: 2",
            "schemaVersion: 3",
            "config.yaml line 1, `schemaVersion`: version 3 is not known: this program reads version 2",
        ),
        (
            "\"1.2.3\"",
            "1.2",
            "config.yaml line 5, `items[0].version`: expected a text, found the number 1.2: write it in quotes",
        ),
        (
            "\"1.2.3\"",
            "\"1.2\"",
            "config.yaml line 5, `items[0].version`: `1.2` is not a semantic version",
        ),
        (
            "codename: web",
            "codename: ../x",
            "config.yaml line 4, `items[0].identity.codename`: may hold only",
        ),
        (
            "codename: web",
            "name: web",
            "config.yaml line 4, `items[0].identity.codename`: is missing",
        ),
        (
            "16MiB",
            "16 apples",
            "config.yaml line 22, `items[0].configuration.quotas.ramLimit`: `16 apples` is not a size",
        ),
        (
            "16MiB",
            "-3",
            "config.yaml line 22, `items[0].configuration.quotas.ramLimit`: expected a whole number",
        ),
        (
            "minInstances: 2",
            "minInstances: 101",
            "`items[0].configuration.instances.minInstances`: is 101: it must be from 1 to 100",
        ),
        (
            "sourceFolder: web-arm",
            "sourceFolder: ../web",
            "config.yaml line 10, `items[0].images[1].sourceFolder`: `../web` leaves the bundle's folder",
        ),
        (
            "sourceFolder: web-arm",
            "sourceFolder: /etc",
            "leaves the bundle's folder",
        ),
        (
            "architecture: arm64",
            "architecture: amd64",
            "names a platform that another image",
        ),
        (
            "architecture: arm64",
            "architecture: aarch64",
            "is not an OCI name",
        ),
        (
            "hostPort: 8080",
            "hostPort: 0",
            "`items[0].configuration.publishedPorts[0].hostPort`: a port is a number from 1 to 65535",
        ),
        (
            "80/tcp",
            "http",
            "`items[0].configuration.exposedPorts[0]`: `http` is not a port",
        ),
        (
            "mode: rw}",
            "mode: rx}",
            "`items[0].configuration.resources[0].mode`: is made of the letters",
        ),
        ("speed: r}", "speed: x}", "`x` must be `r`, `w` or `rw`"),
        (
            "minThreshold: 10",
            "minThreshold: 95",
            "`items[0].configuration.alertRules.ram.minThreshold`: is above",
        ),
        ("maxThreshold: 90", "maxThreshold: 190", "is a percentage"),
        ("hostname: web", "hostname: web", ""),
        (
            "hostname: web",
            "hostname: \"-web\"",
            "`-web` is not a host name",
        ),
        (
            "hostname: web",
            "skipResourceLimits: true",
            "is for pre-releases only",
        ),
        (
            "workingDir: /srv",
            "workingDir: srv",
            "must be an absolute path",
        ),
        (
            "B=1",
            "=1",
            "`items[0].configuration.env[1]`: is not NAME=value",
        ),
        (
            "stateLimit: 4KiB",
            "stateLimit: 0",
            "`items[0].configuration.state.required`: needs room",
        ),
        ("start.dat", "../start.dat", "is the plain name of a file"),
        (
            "type: service",
            "type: gadget",
            "must be `service`, `component` or `layer`",
        ),
        (
            "schemaVersion: 2",
            "schemaVersion: 2\nschemaVersion: 2",
            "config.yaml line 2: this is not valid YAML: ",
        ),
        (
            "items:",
            "itmes:",
            "config.yaml line 3, `itmes`: is not a known field and has no effect: is `items` meant?",
        ),
        (
            "hostname: web",
            "hostnam: web",
            "`items[0].configuration.hostnam`: is not a known field and has no effect: is `hostname` meant?",
        ),
        (
            "cmd: [\"/bin/web\", \"-v\"]",
            "cmd: []",
            "`items[0].configuration.cmd`: is missing: name the program",
        ),
        (
            "cmd: [\"/bin/arm\"]",
            "encryption: {algorithm: AES256-GCM}",
            "is not supported yet",
        ),
        (
            "env: [\"A=item\", \"B=1\"]",
            "env: {A: {}}",
            "`items[0].configuration.env.A`: expected a text",
        ),
    ] {
        let found = problems(from, to);
        assert!(
            found.iter().any(|problem| problem.contains(expected)),
            "{from} -> {to}\nexpected {expected}\nfound {found:#?}"
        );
    }
}

#[test]
fn bad_yaml_is_refused_with_its_line() {
    for text in [
        "",
        "schemaVersion: 2\nitems: [",
        "- 1",
        "schemaVersion: 2\n\titems:",
        &format!("a: &a [x]\n{}", "b: *c\n"),
        &"[".repeat(100_000),
        &"x".repeat(2 << 20),
    ] {
        let problems = Config::parse(text).unwrap_err();
        assert!(problems.has_errors());
    }
    let error = Config::parse("schemaVersion: 2\nitems:\n  - a: [1\n  - b").unwrap_err();
    assert!(error.0[0].line.is_some_and(|line| line > 1), "{error}");
}

#[test]
fn aliases_cannot_blow_up() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for i in 1..12 {
        let list = format!("*a{}, ", i - 1).repeat(9);
        text += &format!("a{i}: &a{i} [{list}]\n");
    }
    assert!(Config::parse(&text).is_err());
}

#[test]
fn files_are_checked_too() {
    type Spoil = fn(&std::path::Path);
    let cases: &[(&str, Spoil)] = &[
        ("there is no web-arm", |dir| {
            fs::remove_dir_all(dir.join("web-arm")).unwrap();
        }),
        ("web-arm is empty", |dir| {
            fs::remove_dir_all(dir.join("web-arm")).unwrap();
            fs::create_dir(dir.join("web-arm")).unwrap();
        }),
        ("`/bin/web` is not among its files", |dir| {
            fs::remove_file(dir.join("web/amd64/bin/web")).unwrap();
        }),
        ("may not be executed: chmod +x it", |dir| {
            put(dir, "web/amd64/bin/web", b"", 0o644);
        }),
        ("which leaves the image", |dir| {
            std::os::unix::fs::symlink("../../etc", dir.join("web/amd64/out")).unwrap();
        }),
        ("has a name that means a deletion", |dir| {
            put(dir, "web/amd64/.wh.x", b"", 0o644);
        }),
        ("is not a file, folder or link", |dir| {
            std::os::unix::net::UnixListener::bind(dir.join("web/amd64/s")).unwrap();
        }),
        ("has 5000 bytes, but `quotas.stateLimit` is 4096", |dir| {
            put(dir, "web/start.dat", &[0; 5000], 0o644);
        }),
        ("cannot be read as text in UTF-8", |dir| {
            put(dir, "web/start.dat", b"\xff\xfe", 0o644);
        }),
        ("there is no default state web/start.dat", |dir| {
            fs::remove_file(dir.join("web/start.dat")).unwrap();
        }),
        ("make a bundle folder with `aos bundle init`", |dir| {
            fs::remove_file(dir.join("config.yaml")).unwrap();
        }),
    ];
    for (expected, change) in cases {
        let dir = folder();
        assert!(check(dir.path()).is_ok());
        change(dir.path());
        let problems = check(dir.path()).unwrap_err();
        assert!(
            problems.to_string().contains(expected),
            "{expected}: {problems}"
        );
        let out = dir.path().join("out.tar.gz");
        assert!(sign(dir.path(), signer(), &out).is_err());
        assert!(!out.exists());
    }
}

#[test]
fn services_and_components_do_not_mix() {
    let component = r#"
  - identity: {type: component, codename: fw}
    version: "1.0.0"
    images:
      - archInfo: {architecture: amd64}
        path: fw.img
        mediaType: application/vnd.aos.image.component.full.v1+gzip
"#;
    let error = Config::parse(&format!("{CONFIG}{component}")).unwrap_err();
    assert!(error.to_string().contains("services cannot share a bundle"));
    let alone = format!("schemaVersion: 2\nitems:{component}");
    Config::parse(&alone).unwrap();
}

#[test]
fn what_init_makes_can_be_signed() {
    let dir = tempfile::tempdir().unwrap();
    let made = init(dir.path(), "hello", "amd64").unwrap();
    assert_eq!(made.len(), 2);
    let checked = check(dir.path()).unwrap();
    let warnings: Vec<_> = checked.warnings.warnings().collect();
    assert!(warnings.is_empty(), "{warnings:?}");
    assert!(
        checked
            .warnings
            .0
            .iter()
            .all(|p| p.severity == Severity::Warning)
    );
    let again = init(dir.path(), "hello", "amd64").unwrap_err();
    assert!(again.to_string().contains("nothing was changed"));
}

#[test]
fn the_examples_say_nothing_wrong() {
    for text in [
        include_str!("../../../../../examples/hello/config.yaml"),
        include_str!("../../../../../examples/counter/config.yaml"),
    ] {
        let (config, warnings) = Config::parse(text).unwrap();
        assert!(warnings.0.is_empty(), "{:?}", warnings.0);
        assert_eq!(config.items[0].cmd.len(), 1);
    }
}
