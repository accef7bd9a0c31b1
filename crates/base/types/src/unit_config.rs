use semver::Version;
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::Value;

use crate::{
    AlertRules, NodeId,
    item_config::{ConfigError, MAX_CONFIG_BYTES, read_config},
    tolerant::{FieldError, Fields, FromJson},
};

/// The share of an item's quota that the scheduler sets aside when the item asks for nothing, in percent.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceRatios {
    /// Of the DMIPS quota; 50 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<f64>,
    /// Of the memory quota; 50 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ram: Option<f64>,
    /// Of the storage quota; 50 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<f64>,
    /// Of the state quota; 50 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<f64>,
}

/// A codename inside an identity object, the only part of it that configurations use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Codename<T> {
    codename: T,
}

impl<T: FromJson> FromJson for Codename<T> {
    fn from_json(value: &Value) -> Result<Self, FieldError> {
        let codename = match value {
            Value::String(_) => T::from_json(value)?,
            other => Fields::of(other)?.req("codename")?,
        };
        Ok(Self { codename })
    }
}

/// How one Node, or all Nodes of a type, take part (`docs/protocol/items.md`, unit configuration).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NodeConfig {
    /// The version of the unit configuration it comes from; only when it travels alone.
    pub version: Option<String>,
    /// The Node it is for; absent: every Node of the type.
    pub node: Option<NodeId>,
    /// The node type (node group) it is for.
    pub node_type: String,
    /// When the Node's usage raises an alert.
    pub alert_rules: Option<AlertRules>,
    /// Shares of quotas to set aside.
    pub resource_ratios: Option<ResourceRatios>,
    /// What instances can ask for.
    pub labels: Vec<String>,
    /// Higher is preferred.
    pub priority: i64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeConfigOut<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<Codename<&'a NodeId>>,
    node_group_subject: Codename<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alert_rules: Option<&'a AlertRules>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_ratios: Option<&'a ResourceRatios>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    labels: &'a [String],
    priority: i64,
}

impl Serialize for NodeConfig {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        NodeConfigOut {
            version: self.version.as_deref(),
            node: self.node.as_ref().map(|codename| Codename { codename }),
            node_group_subject: Codename {
                codename: &self.node_type,
            },
            alert_rules: self.alert_rules.as_ref(),
            resource_ratios: self.resource_ratios.as_ref(),
            labels: &self.labels,
            priority: self.priority,
        }
        .serialize(serializer)
    }
}

/// The configuration of a whole Unit; the cloud sends it, versions only grow.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UnitConfig {
    /// A word about the form; not checked by anyone.
    pub format_version: String,
    /// Semantic version; a Unit takes only a greater one than it has.
    pub version: String,
    /// By node type, and by Node.
    pub nodes: Vec<NodeConfig>,
}

impl NodeConfig {
    /// Reads the configuration of one Node as it travels from CM to SM.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, ConfigError> {
        read_config("node configuration", bytes, MAX_CONFIG_BYTES)
    }

    /// Whether a Node can follow it. What is stored is read without this, so that an older one stays readable.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.sound().map_err(|field| ConfigError::Field {
            what: "node configuration",
            field,
        })
    }

    fn sound(&self) -> Result<(), FieldError> {
        let rules = self.alert_rules.as_ref();
        rules
            .map_or(Ok(()), AlertRules::check)
            .map_err(|error| error.at("alertRules"))
    }
}

impl UnitConfig {
    /// Whether it may take the place of `before`: it is the same, or its version is greater. A version that is no semantic
    /// one cannot be compared and only has to differ.
    pub fn may_follow(&self, before: &Self) -> bool {
        if self == before {
            return true;
        }
        let versions = (
            Version::parse(&before.version),
            Version::parse(&self.version),
        );
        match versions {
            (Ok(before), Ok(new)) => new > before,
            _ => self.version != before.version,
        }
    }

    /// Reads a unit configuration of at most [`MAX_CONFIG_BYTES`].
    pub fn from_slice(bytes: &[u8]) -> Result<Self, ConfigError> {
        read_config("unit configuration", bytes, MAX_CONFIG_BYTES)
    }

    /// Whether all Nodes can follow their parts. What is stored is read without this, so that an older one stays readable.
    pub fn check(&self) -> Result<(), ConfigError> {
        for (index, node) in self.nodes.iter().enumerate() {
            node.sound().map_err(|field| ConfigError::Field {
                what: "unit configuration",
                field: field.at_index(index).at("nodes"),
            })?;
        }
        Ok(())
    }

    /// The part for one Node: its own entry, else that of its type, else an empty one; always with this version.
    pub fn for_node(&self, node: &NodeId, node_type: &str) -> NodeConfig {
        let own = self
            .nodes
            .iter()
            .find(|config| config.node.as_ref() == Some(node));
        let of_type = || {
            self.nodes
                .iter()
                .find(|config| config.node.is_none() && config.node_type == node_type)
        };
        let mut config = own.or_else(of_type).cloned().unwrap_or_default();
        config.version = Some(self.version.clone());
        config.node = Some(node.clone());
        config.node_type = node_type.into();
        config
    }
}

impl FromJson for ResourceRatios {
    fn from_json(value: &Value) -> Result<Self, FieldError> {
        let fields = Fields::of(value)?;
        let percent = |key: &str| match fields.opt::<f64>(key)? {
            Some(share) if !(0.0..=100.0).contains(&share) => {
                Err(FieldError::new(format!("{share} is not a percentage from 0 to 100")).at(key))
            }
            share => Ok(share),
        };
        Ok(Self {
            cpu: percent("cpu")?,
            ram: percent("ram")?,
            storage: percent("storage")?,
            state: percent("state")?,
        })
    }
}

impl FromJson for NodeConfig {
    fn from_json(value: &Value) -> Result<Self, FieldError> {
        let fields = Fields::of(value)?;
        let node: Option<Codename<NodeId>> = fields.opt_any(&["node", "nodeId"])?;
        let node_type: Option<Codename<String>> =
            fields.opt_any(&["nodeGroupSubject", "nodeType"])?;
        if node.is_none() && node_type.is_none() {
            return Err(FieldError::new("is missing").at("nodeGroupSubject"));
        }
        Ok(Self {
            version: fields.opt("version")?,
            node: node.map(|node| node.codename),
            node_type: node_type
                .map(|node_type| node_type.codename)
                .unwrap_or_default(),
            alert_rules: fields.opt("alertRules")?,
            resource_ratios: fields.opt("resourceRatios")?,
            labels: fields.or_default("labels")?,
            priority: fields.or_default("priority")?,
        })
    }
}

impl FromJson for UnitConfig {
    fn from_json(value: &Value) -> Result<Self, FieldError> {
        let fields = Fields::of(value)?;
        Ok(Self {
            format_version: fields.or_default("formatVersion")?,
            version: fields.req("version")?,
            nodes: fields.or_default("nodes")?,
        })
    }
}

impl<'de> Deserialize<'de> for NodeConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_json(&Value::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for UnitConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_json(&Value::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn example() -> Value {
        json!({
            "formatVersion": "7", "Version": "1.2.0",
            "nodes": [
                {"nodeGroupSubject": {"codename": "main"}, "labels": ["main"], "priority": 10,
                 "alertRules": {"ram": {"minTimeout": "1m", "minThreshold": 70, "maxThreshold": 90}},
                 "resourceRatios": {"cpu": 25, "ram": 12.5}},
                {"node": {"codename": "n2"}, "nodeGroupSubject": {"codename": "main"}, "labels": ["special"]}
            ]
        })
    }

    #[test]
    fn a_nodes_own_entry_wins_over_its_types() {
        let config = UnitConfig::from_slice(example().to_string().as_bytes()).unwrap();
        let node = |id: &str, node_type| config.for_node(&NodeId::new(id).unwrap(), node_type);
        assert_eq!(node("n1", "main").labels, ["main"]);
        assert_eq!(node("n2", "main").labels, ["special"]);
        assert_eq!(node("n2", "main").version.as_deref(), Some("1.2.0"));
        assert_eq!(node("n3", "other").labels, Vec::<String>::new());
    }

    #[test]
    fn what_is_written_reads_back() {
        let config = UnitConfig::from_slice(example().to_string().as_bytes()).unwrap();
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<UnitConfig>(&text).unwrap(), config);
        assert!(text.contains(r#""minTimeout":"PT1M""#), "{text}");
        assert!(text.contains(r#""nodeGroupSubject":{"codename":"main"}"#));
    }

    #[test]
    fn rules_that_nobody_can_follow_are_refused_by_name() {
        let config = |rules: Value| {
            let json = json!({"version": "1", "nodes": [{"nodeType": "x", "alertRules": rules}]});
            UnitConfig::from_slice(json.to_string().as_bytes()).unwrap()
        };
        for (rules, text) in [
            (
                json!({"cpu": {"minThreshold": 90, "maxThreshold": 80}}),
                "`nodes[0].alertRules.cpu.minThreshold`",
            ),
            (
                json!({"partitions": [{"name": "a", "minThreshold": -1, "maxThreshold": 80}]}),
                "`nodes[0].alertRules.partitions[0].minThreshold`",
            ),
        ] {
            let config = config(rules);
            let error = config.check().unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
            assert!(config.nodes[0].check().is_err());
        }
        let good = config(json!({"cpu": {"minThreshold": 80, "maxThreshold": 80}}));
        assert!(good.check().is_ok() && good.nodes[0].check().is_ok());
    }

    #[test]
    fn versions_only_grow() {
        let config = |version: &str| UnitConfig {
            version: version.into(),
            ..UnitConfig::default()
        };
        let may_follow = |new, before| config(new).may_follow(&config(before));
        assert!(may_follow("1.10.0", "1.9.0"));
        assert!(!may_follow("1.9.0", "1.10.0"));
        assert!(may_follow("1.0.0", "1.0.0"), "it is there already");
        assert!(may_follow("one", "two"));
        let other = |version: &str| UnitConfig {
            format_version: "7".into(),
            ..config(version)
        };
        assert!(!other("1.0.0").may_follow(&config("1.0.0")));
        assert!(!other("one").may_follow(&config("one")));
    }

    #[test]
    fn errors_name_the_field() {
        for (bad, text) in [
            (json!({"nodes": []}), "`version`"),
            (
                json!({"version": "1", "nodes": [{}]}),
                "`nodes[0].nodeGroupSubject`",
            ),
            (
                json!({"version": "1", "nodes": [{"nodeType": "x", "resourceRatios": {"cpu": 101}}]}),
                "`nodes[0].resourceRatios.cpu`",
            ),
        ] {
            let error = UnitConfig::from_slice(bad.to_string().as_bytes()).unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
        }
    }
}
