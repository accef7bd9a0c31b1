//! Which keys `configuration` may hold, at every depth, so that nothing in it is ignored without a word.

use serde_json::{Map, Value};

use super::section::{Notes, Section, unknown};

/// What may stand in a place.
enum Shape {
    /// A mapping with these keys.
    Keys(&'static [(&'static str, Shape)]),
    /// A list whose mappings are all of this shape.
    List(&'static Shape),
    /// A mapping with keys of the publisher's own, whose values are all of this shape.
    Each(&'static Shape),
    /// Whatever it is; whoever reads the value judges it.
    Any,
    /// A key of other tools that has no effect here, and what has instead.
    Elsewhere(&'static str),
}

use Shape::{Any, Each, Elsewhere, Keys, List};

const CONFIGURATION: Shape = Keys(&[
    ("created", Any),
    ("author", Any),
    ("egress", List(&EGRESS)),
    ("stopGracePeriod", Any),
    ("rootfs", Any),
    ("capabilities", Keys(&[("add", Any), ("drop", Any)])),
    ("userNamespace", Any),
    ("user", Any),
    ("stopSignal", Any),
    ("skipResourceLimits", Any),
    ("balancingPolicy", Any),
    ("storagePolicy", Any),
    ("baseLayerIsNodeRootfs", Any),
    ("hostname", Any),
    ("runParameters", RUN_PARAMETERS),
    ("healthCheck", HEALTH_CHECK),
    ("offlineTTL", Any),
    ("publishedPorts", List(&PUBLISHED_PORT)),
    // The names are the kernel's.
    ("sysctl", Any),
    ("state", Keys(&[("filename", Any), ("required", Any)])),
    ("env", Any),
    ("workingDir", Any),
    ("cmd", Any),
    ("instances", INSTANCES),
    ("exposedPorts", Any),
    ("allowedConnections", Each(&Keys(&[]))),
    ("runtimes", List(&Keys(&[("codename", Any)]))),
    ("resources", List(&Keys(&[("name", Any), ("mode", Any)]))),
    ("quotas", QUOTAS),
    ("requestedResources", REQUESTED),
    ("alertRules", ALERT_RULES),
    // The names are those of functional servers and what they offer.
    ("permissions", Any),
    (
        "devices",
        Elsewhere("devices come with the resources of a Node: name those in `resources`"),
    ),
    ("runners", Elsewhere("write `runtimes`")),
    (
        "dependencies",
        Elsewhere(
            "`dependencies` stands beside `configuration` and names the other item by `identity`",
        ),
    ),
]);

const EGRESS: Shape = Keys(&[("to", Any), ("ports", Any), ("protocol", Any)]);

const RUN_PARAMETERS: Shape = Keys(&[
    ("startInterval", Any),
    ("startBurst", Any),
    ("restartInterval", Any),
    ("restartPolicy", Any),
]);

const HEALTH_CHECK: Shape = Keys(&[
    ("exec", Any),
    ("http", Keys(&[("port", Any), ("path", Any)])),
    ("tcp", Keys(&[("port", Any)])),
    ("startPeriod", Any),
    ("interval", Any),
    ("timeout", Any),
    ("retries", Any),
]);

const PUBLISHED_PORT: Shape = Keys(&[("hostPort", Any), ("port", Any), ("protocol", Any)]);

const INSTANCES: Shape = Keys(&[("minInstances", Any), ("priority", Any), ("labels", Any)]);

const QUOTAS: Shape = Keys(&[
    ("cpuLimit", Any),
    ("cpuDMIPSLimit", Any),
    ("ramLimit", Any),
    ("pidsLimit", Any),
    ("noFileLimit", Any),
    ("tmpLimit", Any),
    ("stateLimit", Any),
    ("storageLimit", Any),
    ("uploadLimit", Any),
    ("downloadLimit", Any),
    ("uploadSpeed", Any),
    ("uploadSpeedLimit", Any),
    ("downloadSpeed", Any),
    ("downloadSpeedLimit", Any),
]);

const REQUESTED: Shape = Keys(&[("cpu", Any), ("ram", Any), ("storage", Any), ("state", Any)]);

const ALERT_RULES: Shape = Keys(&[
    ("ram", RULE),
    ("cpu", RULE),
    ("storage", RULE),
    ("upload", RULE),
    ("download", RULE),
    ("partitions", List(&PARTITION)),
]);

const RULE: Shape = Keys(&[
    ("minTimeout", Any),
    ("minThreshold", Any),
    ("maxThreshold", Any),
]);

const PARTITION: Shape = Keys(&[
    ("name", Any),
    ("minTimeout", Any),
    ("minThreshold", Any),
    ("maxThreshold", Any),
]);

/// `configuration` with its known keys only, spelled as they are known: other tools match them whatever their case. Warns
/// of every other one.
pub(super) fn known(configuration: &Section<'_>) -> Value {
    let value = Value::Object(configuration.map().clone());
    sifted(
        configuration.notes,
        configuration.path(),
        value,
        &CONFIGURATION,
    )
}

fn sifted(notes: &Notes, path: &str, value: Value, shape: &Shape) -> Value {
    match (shape, value) {
        (Keys(known), Value::Object(map)) => Value::Object(mapping(notes, path, map, known)),
        (Each(shape), Value::Object(map)) => map
            .into_iter()
            .map(|(key, value)| {
                let value = sifted(notes, &format!("{path}.{key}"), value, shape);
                (key, value)
            })
            .collect(),
        (List(shape), Value::Array(list)) => list
            .into_iter()
            .enumerate()
            .map(|(i, value)| sifted(notes, &format!("{path}[{i}]"), value, shape))
            .collect(),
        (_, value) => value,
    }
}

fn mapping(
    notes: &Notes,
    path: &str,
    map: Map<String, Value>,
    known: &[(&'static str, Shape)],
) -> Map<String, Value> {
    let mut read = Map::new();
    // Whatever stands exactly as it is known comes first, and counts.
    let (exact, others): (Vec<_>, Vec<_>) = map
        .into_iter()
        .partition(|(key, _)| known.iter().any(|(name, _)| name == key));
    for (key, value) in exact.into_iter().chain(others) {
        let field = format!("{path}.{key}");
        let found = known
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(&key));
        match found {
            None => {
                let names = known
                    .iter()
                    .filter(|(_, shape)| !matches!(shape, Elsewhere(_)))
                    .map(|(name, _)| *name);
                notes.warn(&field, unknown(&key, names));
            }
            Some((_, Elsewhere(instead))) => {
                notes.warn(&field, format!("has no effect here: {instead}"));
            }
            Some((name, _)) if read.contains_key(*name) => {
                notes.warn(
                    &field,
                    format!("has no effect: `{name}` is there too, and counts"),
                );
            }
            Some((name, shape)) => {
                read.insert((*name).into(), sifted(notes, &field, value, shape));
            }
        }
    }
    read
}
