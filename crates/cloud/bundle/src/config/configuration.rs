//! `items[].configuration`: turned into the item config that Units read, and what only the cloud needs.

use std::collections::BTreeSet;

use aos_types::{ConfigError, ImageUser, ItemConfig, ItemType, StopSignal};
use serde_json::{Map, Value, json};

use super::{Image, Instances, State, item::working_dir, keys, section::Section};

/// What was read.
#[derive(Default)]
pub(super) struct Configuration {
    pub item_config: ItemConfig,
    pub state: Option<State>,
    pub instances: Instances,
    pub env: Vec<String>,
    pub working_dir: String,
    pub user: Option<String>,
    pub stop_signal: Option<String>,
    pub cmd: Vec<String>,
    pub exposed_ports: Vec<String>,
}

/// The runtime whose services share the network and the names of their Node.
const NATIVE: &str = "native";

/// Fields that a Unit reads as they are.
const AS_IS: [&str; 20] = [
    "created",
    "author",
    "egress",
    "stopGracePeriod",
    "rootfs",
    "capabilities",
    "userNamespace",
    "skipResourceLimits",
    "balancingPolicy",
    "storagePolicy",
    "baseLayerIsNodeRootfs",
    "hostname",
    "runParameters",
    "healthCheck",
    "offlineTTL",
    "publishedPorts",
    "sysctl",
    "resources",
    "permissions",
    "requestedResources",
];

pub(super) fn read(
    section: Option<&Section<'_>>,
    item: &Section<'_>,
    item_type: ItemType,
    version: Option<&semver::Version>,
    images: &[Image],
) -> Configuration {
    let Some(section) = section else {
        let bare = |image: &Image| image.cmd.is_none() && !image.is_layout();
        if item_type == ItemType::Service && images.iter().any(bare) {
            item.error(
                "configuration",
                "is missing: a service needs at least `cmd`",
            );
        }
        let mut configuration = Configuration::default();
        configuration.item_config.base_layer_is_node_rootfs = !brings_all(images);
        return configuration;
    };
    let known = keys::known(section);
    let Some(section) = &Section::of(section.notes, section.path().to_owned(), &known) else {
        return Configuration::default();
    };
    let read = Configuration {
        item_config: item_config(section, brings_all(images)),
        state: state(section),
        instances: instances(section),
        env: section.env("env"),
        working_dir: working_dir(section).unwrap_or_default(),
        user: user(section),
        stop_signal: stop_signal(section),
        cmd: section.texts("cmd"),
        exposed_ports: exposed_ports(section),
    };
    let startable = |image: &Image| {
        // What such an image starts is in its own config, unless something is said here.
        image.cmd.as_ref().unwrap_or(&read.cmd).is_empty() && !image.is_layout()
    };
    if item_type == ItemType::Service && images.iter().any(startable) {
        section.error("cmd", "is missing: name the program that the service runs");
    }
    rules(section, &read, version);
    read
}

/// Images that other tools have built bring everything they need.
fn brings_all(images: &[Image]) -> bool {
    !images.is_empty() && images.iter().all(Image::is_layout)
}

fn item_config(section: &Section<'_>, brings_all: bool) -> ItemConfig {
    let mut json = Map::new();
    if brings_all {
        json.insert("baseLayerIsNodeRootfs".into(), false.into());
    }
    for key in AS_IS {
        if let Some(value) = section.get(key) {
            json.insert(key.into(), value.clone());
        }
    }
    // As a bundle writes them, or as an item config does.
    let runtimes = section.texts_or("runtimes", |value| value.get("codename")?.as_str());
    if !runtimes.is_empty() {
        json.insert("runtimes".into(), json!(runtimes));
    }
    if let Some(connections) = connections(section) {
        json.insert("allowedConnections".into(), connections);
    }
    if let Some(quotas) = quotas(section) {
        json.insert("quotas".into(), quotas);
    }
    if let Some(rules) = alert_rules(section) {
        json.insert("alertRules".into(), rules);
    }
    let text = Value::Object(json).to_string();
    match ItemConfig::from_slice(text.as_bytes()) {
        Ok(config) => config,
        Err(ConfigError::Field { field, .. }) => {
            let path = field.path().to_owned();
            let message = field.to_string();
            let why = message
                .strip_prefix(&format!("`{path}`: "))
                .unwrap_or(&message);
            section.error(&path, why);
            ItemConfig::default()
        }
        Err(other) => {
            section.error("", other.to_string());
            ItemConfig::default()
        }
    }
}

/// A list of texts, as a bundle writes it, or a mapping with such keys, as an item config does.
fn connections(section: &Section<'_>) -> Option<Value> {
    if let Value::Object(map) = section.get("allowedConnections")? {
        let keys = map.keys().map(|key| (connection(key), json!({})));
        return Some(Value::Object(keys.collect()));
    }
    let list = section.texts("allowedConnections");
    Some(list.iter().map(|text| connection(text)).collect())
}

/// The bundle writes a range of ports with `-`, an item config with `:`.
fn connection(text: &str) -> String {
    let mut parts: Vec<String> = text.split('/').map(str::to_owned).collect();
    if let Some(port) = parts.get_mut(1) {
        *port = port.replace('-', ":");
    }
    parts.join("/")
}

/// Sizes may carry a unit; the processor limit has another name on the Unit.
fn quotas(section: &Section<'_>) -> Option<Value> {
    let quotas = section.section("quotas")?;
    const SIZES: [&str; 6] = [
        "ramLimit",
        "storageLimit",
        "stateLimit",
        "tmpLimit",
        "uploadLimit",
        "downloadLimit",
    ];
    const COUNTS: [(&str, &str); 8] = [
        ("cpuLimit", "cpuDMIPSLimit"),
        ("cpuDMIPSLimit", "cpuDMIPSLimit"),
        ("pidsLimit", "pidsLimit"),
        ("noFileLimit", "noFileLimit"),
        ("uploadSpeedLimit", "uploadSpeed"),
        ("downloadSpeedLimit", "downloadSpeed"),
        ("uploadSpeed", "uploadSpeed"),
        ("downloadSpeed", "downloadSpeed"),
    ];
    let mut json = Map::new();
    for key in SIZES {
        let bytes = match quotas.get(key) {
            None => continue,
            Some(Value::String(text)) => match bytes(text) {
                Some(bytes) => bytes,
                None => {
                    quotas.error(
                        key,
                        format!("`{text}` is not a size: write bytes, or a number with KB, MB, GB (1000) or KiB, MiB, GiB (1024)"),
                    );
                    continue;
                }
            },
            Some(_) => match quotas.unsigned(key) {
                Some(bytes) => bytes,
                None => continue,
            },
        };
        json.insert(key.into(), bytes.into());
    }
    for (from, to) in COUNTS {
        let Some(count) = quotas.unsigned(from) else {
            continue;
        };
        let before = json.insert(to.into(), count.into());
        if before.is_some_and(|before| before != count) {
            quotas.error(
                from,
                "says something else than its other name in `quotas`: keep one of them",
            );
        }
    }
    for (key, value) in &json {
        if value.as_u64() == Some(0) && !["stateLimit", "storageLimit"].contains(&key.as_str()) {
            quotas.error(
                key,
                "is 0, with which nothing can run: remove it for no limit",
            );
        }
    }
    Some(Value::Object(json))
}

/// Bytes of a text such as `64MiB`.
fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// `storage` of the bundle is the partition `storages` of the Node.
fn alert_rules(section: &Section<'_>) -> Option<Value> {
    let rules = section.section("alertRules")?;
    let mut json = Map::new();
    let mut storages = None;
    for key in ["ram", "cpu", "storage", "upload", "download"] {
        let Some(rule) = rules.section(key) else {
            continue;
        };
        let threshold = |name: &str| rules.section(key).and_then(|r| r.get(name)?.as_f64());
        let (low, high) = (threshold("minThreshold"), threshold("maxThreshold"));
        if let (Some(low), Some(high)) = (low, high)
            && low > high
        {
            rule.error("minThreshold", "is above `maxThreshold`");
        }
        let percent = !["upload", "download"].contains(&key);
        if percent && high.is_some_and(|high| !(0.0..=100.0).contains(&high)) {
            rule.error("maxThreshold", "is a percentage: from 0 to 100");
        }
        let Some(value) = rules.get(key) else {
            continue;
        };
        if key == "storage" {
            let mut partition = value.as_object().cloned().unwrap_or_default();
            partition.insert("name".into(), "storages".into());
            storages = Some(Value::Object(partition));
        } else {
            json.insert(key.into(), value.clone());
        }
    }
    let mut partitions = match rules.get("partitions") {
        None => Vec::new(),
        Some(Value::Array(list)) => list.clone(),
        Some(_) => {
            rules.error("partitions", "expected a list");
            Vec::new()
        }
    };
    let is_storages = |one: &Value| one.get("name") == Some(&json!("storages"));
    if storages.is_some() && partitions.iter().any(is_storages) {
        rules.error(
            "storage",
            "is the partition `storages`, which `partitions` has too: keep one of them",
        );
    }
    // After the others, so that an error in one of those names it by its place.
    partitions.extend(storages);
    if !partitions.is_empty() {
        json.insert("partitions".into(), partitions.into());
    }
    Some(Value::Object(json))
}

fn state(section: &Section<'_>) -> Option<State> {
    let state = section.section("state")?;
    let filename = state.text("filename").unwrap_or_else(|| "state.dat".into());
    if filename.contains('/') || !crate::layout::is_inside(&filename) {
        state.error(
            "filename",
            "is the plain name of a file in the item's folder",
        );
    }
    Some(State {
        filename,
        required: state.boolean("required").unwrap_or(false),
    })
}

fn instances(section: &Section<'_>) -> Instances {
    let Some(instances) = section.section("instances") else {
        return Instances::default();
    };
    let min = instances.unsigned("minInstances").unwrap_or(1);
    if !(1..=100).contains(&min) {
        instances.error(
            "minInstances",
            format!("is {min}: it must be from 1 to 100"),
        );
    }
    let priority = instances.unsigned("priority").unwrap_or(0);
    if priority > 999_999 {
        instances.error("priority", "must be from 0 to 999999");
    }
    let labels = instances.texts("labels");
    for (i, label) in labels.iter().enumerate() {
        if label.is_empty() || label.len() > 64 {
            instances.error(&format!("labels[{i}]"), "must have 1 to 64 characters");
        }
    }
    if labels.len() > 4 {
        instances.warn(
            "labels",
            "has more than 4 entries, which AosCore 9 does not take",
        );
    }
    Instances {
        min,
        priority,
        labels,
    }
}

/// A user in the image's own eyes: a number may stand in YAML without quotes.
fn user(section: &Section<'_>) -> Option<String> {
    let user = match section.get("user")? {
        Value::Number(number) => number.to_string(),
        _ => section.text("user")?,
    };
    if let Err(why) = user.parse::<ImageUser>() {
        section.error("user", why.to_string());
    }
    Some(user)
}

fn stop_signal(section: &Section<'_>) -> Option<String> {
    let text = match section.get("stopSignal")? {
        Value::Number(number) => number.to_string(),
        _ => section.text("stopSignal")?,
    };
    if let Err(why) = text.parse::<StopSignal>() {
        section.error("stopSignal", why.to_string());
    }
    Some(text)
}

fn exposed_ports(section: &Section<'_>) -> Vec<String> {
    let ports = section.texts("exposedPorts");
    for (i, text) in ports.iter().enumerate() {
        let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let (first, last) = port.split_once('-').unwrap_or((port, port));
        let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
        let fits = matches!((number(first), number(last)), (Some(a), Some(b)) if a <= b);
        if !fits || !["tcp", "udp"].contains(&protocol) {
            section.error(
                &format!("exposedPorts[{i}]"),
                format!("`{text}` is not a port such as 80 or 5000-5010/udp"),
            );
        }
    }
    ports
}

/// Rules over what was read.
/// A native service has the network and the names of its Node, and nothing of its own there.
fn native(section: &Section<'_>, config: &ItemConfig) {
    let types = config.runtime_types();
    if !types.contains(&NATIVE) {
        return;
    }
    for field in config.own_network() {
        let why = "needs a network and names of its own, which the runtime `native` does not give: remove it";
        if types.iter().all(|&one| one == NATIVE) {
            section.error(field, why);
        } else {
            section.warn(
                field,
                format!("{why}, or `native` from `runtimes`: there it is refused"),
            );
        }
    }
}

fn rules(section: &Section<'_>, read: &Configuration, version: Option<&semver::Version>) {
    let config = &read.item_config;
    if config.skip_resource_limits && version.is_some_and(|version| version.pre.is_empty()) {
        section.error(
            "skipResourceLimits",
            "is for pre-releases only: remove it, or give the version a suffix such as 1.2.3-rc.1",
        );
    }
    if let Some(name) = &config.hostname {
        let label = |part: &str| {
            (1..=63).contains(&part.len())
                && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
                && !part.starts_with('-')
                && !part.ends_with('-')
        };
        if name.len() > 253 || !name.split('.').all(label) {
            section.error("hostname", format!("`{name}` is not a host name"));
        }
    }
    native(section, config);
    let mut taken = BTreeSet::new();
    for (i, port) in config.published_ports.iter().enumerate() {
        if !taken.insert((port.host_port, port.protocol)) {
            section.error(
                &format!("publishedPorts[{i}].hostPort"),
                format!("{} is published twice", port.host_port),
            );
        }
    }
    if !config.published_ports.is_empty() && read.instances.min > 1 {
        section.warn(
            "publishedPorts",
            "a host port goes to one instance a Node: further instances need further Nodes",
        );
    }
    for (i, resource) in config.resources.iter().enumerate() {
        if resource.name.is_empty() {
            section.error(&format!("resources[{i}].name"), "is empty");
        }
        let known = |c| matches!(c, 'r' | 'w' | 'm');
        if resource.mode.is_empty() || !resource.mode.chars().all(known) {
            section.error(
                &format!("resources[{i}].mode"),
                "is made of the letters r, w and m",
            );
        }
    }
    for (server, functions) in &config.permissions {
        for (function, rights) in functions {
            if !["r", "w", "rw"].contains(&rights.as_str()) {
                section.error(
                    &format!("permissions.{server}.{function}"),
                    format!("`{rights}` must be `r`, `w` or `rw`"),
                );
            }
        }
    }
    if let Some(state) = &read.state
        && state.required
        && config.quotas.state_limit.unwrap_or_default() == 0
    {
        section.error(
            "state.required",
            "needs room for the state: set `quotas.stateLimit`",
        );
    }
}
