//! Keys of a service's configuration that other tools write: taken over, or warned of by their full path.

use aos_bundle::{Config, Problem, Severity};
use aos_types::ItemConfig;
use serde_json::{Value, json};

/// A bundle with one service; `configuration` as JSON, which is YAML too.
fn read(configuration: &Value) -> Result<(ItemConfig, Vec<Problem>), String> {
    let text = format!(
        "schemaVersion: 2\nitems:\n  - identity: {{codename: web}}\n    version: \"1.0.0-rc.1\"\n    images: [{{archInfo: {{architecture: amd64}}}}]\n    configuration: {configuration}\n"
    );
    Config::parse(&text)
        .map(|(mut config, warnings)| (config.items.remove(0).item_config, warnings.0))
        .map_err(|problems| problems.to_string())
}

/// The configuration with `value` at `place` besides what a service needs.
fn with(place: &str, value: Value) -> Value {
    let mut configuration = json!({"cmd": ["/run"]});
    configuration[place] = value;
    configuration
}

/// Everything that the reference knows of an item config.
fn reference() -> Value {
    json!({
        "cmd": ["/run"],
        "created": "2026-01-31T12:00:00Z",
        "author": "ann",
        "skipResourceLimits": true,
        "hostname": "web",
        "balancingPolicy": "disabled",
        "runtimes": [{"codename": "crun"}, {"codename": "runc"}],
        "runParameters": {"startInterval": "PT10S", "startBurst": 7, "restartInterval": "2s"},
        "sysctl": {"net.core.somaxconn": "128"},
        "offlineTTL": "P1D",
        "quotas": {
            "cpuDMIPSLimit": 100, "ramLimit": 1_000_000, "pidsLimit": 9, "noFileLimit": 64, "tmpLimit": 4096,
            "stateLimit": 4096, "storageLimit": 8192, "uploadSpeed": 5, "downloadSpeed": 6,
            "uploadLimit": 7000, "downloadLimit": 8000
        },
        "requestedResources": {"cpu": 10, "ram": 1000, "storage": 100, "state": 10},
        "allowedConnections": {"db/5432": {}, "dns/53/udp": {}, "many/1000:1010/tcp": {}},
        "resources": [{"name": "camera", "mode": "rwm"}],
        "permissions": {"vis": {"Signal.*": "rw"}},
        "alertRules": {
            "cpu": {"minTimeout": "PT5S", "minThreshold": 10, "maxThreshold": 90},
            "ram": {"minTimeout": "PT5S", "minThreshold": 10, "maxThreshold": 90},
            "partitions": [{"name": "states", "minTimeout": "PT5S", "minThreshold": 10, "maxThreshold": 90}],
            "download": {"minTimeout": "PT5S", "minThreshold": 10, "maxThreshold": 90},
            "upload": {"minTimeout": "PT5S", "minThreshold": 10, "maxThreshold": 90}
        }
    })
}

#[test]
fn what_the_reference_knows_is_taken_over_without_a_warning() {
    let (config, warnings) = read(&reference()).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    // The Unit reads the same from it as from the item config itself.
    let direct = ItemConfig::from_slice(reference().to_string().as_bytes()).unwrap();
    assert_eq!(config, direct);
    assert_eq!(config.runtimes, ["crun", "runc"]);
    assert_eq!(config.allowed_connections.len(), 3);
}

/// The same mapping with every name in another case, but for those that the publisher chooses.
fn shouted(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| {
                let own = ["sysctl", "permissions", "allowedConnections"].contains(&key.as_str());
                let value = if own { value.clone() } else { shouted(value) };
                (key.to_uppercase(), value)
            })
            .collect(),
        Value::Array(list) => list.iter().map(shouted).collect(),
        other => other.clone(),
    }
}

#[test]
fn keys_match_whatever_their_case() {
    let (config, warnings) = read(&shouted(&reference())).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(config, read(&reference()).unwrap().0);
    // The spelling of the older schema.
    let (config, warnings) = read(&with("quotas", json!({"cpuDmipsLimit": 70}))).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(config.quotas.cpu_dmips_limit, Some(70));
    // Two that differ in nothing else: one counts, and the other is told.
    let twice = json!({"pidslimit": 4, "pidsLimit": 5});
    let (config, warnings) = read(&with("quotas", twice)).unwrap();
    assert_eq!(config.quotas.pids_limit, Some(5));
    assert_eq!(warnings[0].field, "items[0].configuration.quotas.pidslimit");
    assert!(
        warnings[0].message.contains("`pidsLimit` is there too"),
        "{warnings:?}"
    );
}

#[test]
fn unknown_keys_are_warned_of_at_every_depth() {
    for (place, value, field, hint) in [
        (
            "devices",
            json!([{"name": "camera", "permissions": "rw"}]),
            "devices",
            "name those in `resources`",
        ),
        ("runners", json!(["crun"]), "runners", "write `runtimes`"),
        (
            "dependencies",
            json!([{"identifier": "db"}]),
            "dependencies",
            "stands beside `configuration`",
        ),
        ("layers", json!(["base"]), "layers", "not a known field"),
        (
            "quotas",
            json!({"cpu": 100}),
            "quotas.cpu",
            "not a known field",
        ),
        (
            "quotas",
            json!({"pidLimit": 100}),
            "quotas.pidLimit",
            "is `pidsLimit` meant?",
        ),
        (
            "alertRules",
            json!({"disk": {"maxThreshold": 9}}),
            "alertRules.disk",
            "not a known field",
        ),
        (
            "alertRules",
            json!({"ram": {"minTimout": "1s", "maxThreshold": 9}}),
            "alertRules.ram.minTimout",
            "is `minTimeout` meant?",
        ),
        (
            "alertRules",
            json!({"storage": {"name": "x"}}),
            "alertRules.storage.name",
            "not a known field",
        ),
        (
            "alertRules",
            json!({"partitions": [{"name": "states"}, {"name": "logs", "path": "/var"}]}),
            "alertRules.partitions[1].path",
            "not a known field",
        ),
        (
            "resources",
            json!([{"name": "camera"}, {"name": "gps", "permissions": "rw"}]),
            "resources[1].permissions",
            "not a known field",
        ),
        (
            "runtimes",
            json!([{"codename": "crun", "version": "1"}]),
            "runtimes[0].version",
            "not a known field",
        ),
        (
            "runParameters",
            json!({"restartBurst": 3}),
            "runParameters.restartBurst",
            "is `startBurst` meant?",
        ),
        (
            "requestedResources",
            json!({"memory": 3}),
            "requestedResources.memory",
            "not a known field",
        ),
        (
            "healthCheck",
            json!({"http": {"port": 80, "host": "x"}}),
            "healthCheck.http.host",
            "not a known field",
        ),
        (
            "healthCheck",
            json!({"tcp": {"port": 80, "path": "/"}}),
            "healthCheck.tcp.path",
            "not a known field",
        ),
        (
            "publishedPorts",
            json!([{"hostPort": 80, "port": 80, "address": "::"}]),
            "publishedPorts[0].address",
            "not a known field",
        ),
        (
            "egress",
            json!([{"to": "10.0.0.0/8", "port": "80"}]),
            "egress[0].port",
            "is `ports` meant?",
        ),
        (
            "capabilities",
            json!({"add": ["CHOWN"], "keep": []}),
            "capabilities.keep",
            "not a known field",
        ),
        (
            "instances",
            json!({"minInstance": 2}),
            "instances.minInstance",
            "is `minInstances` meant?",
        ),
        (
            "state",
            json!({"filename": "a", "path": "b"}),
            "state.path",
            "not a known field",
        ),
        (
            "allowedConnections",
            json!({"db/5432": {"note": 1}}),
            "allowedConnections.db/5432.note",
            "not a known field",
        ),
    ] {
        let (_, warnings) = read(&with(place, value)).unwrap();
        let [warning] = &warnings[..] else {
            panic!("{field}: one is expected, found {warnings:?}")
        };
        assert_eq!(warning.field, format!("items[0].configuration.{field}"));
        assert_eq!(
            (warning.severity, warning.line),
            (Severity::Warning, Some(6))
        );
        assert!(warning.message.contains(hint), "{warning}");
        assert!(warning.message.contains("no effect"), "{warning}");
    }
}

#[test]
fn names_that_the_publisher_chooses_are_no_keys() {
    for (place, value) in [
        ("sysctl", json!({"net.ipv4.ip_forward": "1"})),
        ("permissions", json!({"Any server": {"any.function": "r"}})),
        ("env", json!({"ANYTHING": "x"})),
    ] {
        let (_, warnings) = read(&with(place, value)).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
    }
}

#[test]
fn two_names_of_one_thing_do_not_hide_each_other() {
    let quotas = |second: u64| {
        read(&with(
            "quotas",
            json!({"cpuLimit": 100, "cpuDMIPSLimit": second}),
        ))
    };
    assert_eq!(quotas(100).unwrap().0.quotas.cpu_dmips_limit, Some(100));
    let error = quotas(200).unwrap_err();
    assert!(
        error.contains("`items[0].configuration.quotas.cpuDMIPSLimit`: says something else"),
        "{error}"
    );
    let rules = |name: &str| {
        let partitions = json!([{"name": name, "maxThreshold": 70}]);
        let rules = json!({"storage": {"maxThreshold": 80}, "partitions": partitions});
        read(&with("alertRules", rules))
    };
    let (config, _) = rules("states").unwrap();
    let watched: Vec<_> = config.alert_rules.unwrap().partitions;
    let names: Vec<_> = watched.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["states", "storages"]);
    let error = rules("storages").unwrap_err();
    assert!(
        error.contains("`items[0].configuration.alertRules.storage`: is the partition `storages`"),
        "{error}"
    );
}

#[test]
fn what_is_not_of_the_expected_form_is_still_refused() {
    for (place, value, field) in [
        ("quotas", json!([]), "quotas"),
        ("runtimes", json!([{"type": "crun"}]), "runtimes[0]"),
        (
            "allowedConnections",
            json!([{"name": "db"}]),
            "allowedConnections[0]",
        ),
        (
            "allowedConnections",
            json!({"db": {}}),
            "allowedConnections",
        ),
        (
            "alertRules",
            json!({"partitions": {}}),
            "alertRules.partitions",
        ),
        ("created", json!("yesterday"), "created"),
    ] {
        let error = read(&with(place, value)).unwrap_err();
        assert!(
            error.contains(&format!("`items[0].configuration.{field}`: ")),
            "{error}"
        );
    }
}

#[test]
fn a_dependency_is_named_by_its_codename_alone() {
    let text = "schemaVersion: 2\nitems:\n  - identity: {codename: web}\n    version: \"1.0.0\"\n    images: [{archInfo: {architecture: amd64}}]\n    configuration: {cmd: [/run]}\n    dependencies:\n      - {identity: {type: service, codename: db, id: x}, condition: started}\n";
    let (_, warnings) = Config::parse(text).unwrap();
    let [warning] = &warnings.0[..] else {
        panic!("{warnings:?}")
    };
    assert_eq!(warning.field, "items[0].dependencies[0].identity.id");
}
