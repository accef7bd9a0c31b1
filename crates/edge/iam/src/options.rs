use std::{collections::BTreeMap, path::PathBuf};

use serde::Deserialize;

/// How IAM of one Node is set up: the table `[iam]` of `node.toml`, or the whole of `iam.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Folder of the database, the keys and certificates (`certs/<type>/`) and the Unit's root (`ca.pem`).
    pub state_dir: PathBuf,
    /// Where anyone of the Unit may read: `host:port`, or `:port` for all addresses.
    #[serde(default = "public_listen")]
    pub public_listen: String,
    /// Where holders of a certificate may call.
    #[serde(default = "protected_listen")]
    pub protected_listen: String,
    /// The Unit's id towards the cloud, on the main Node; the machine id by default.
    #[serde(default)]
    pub system_id: Option<String>,
    /// The Unit's model as `name;version`, on the main Node.
    #[serde(default = "unit_model")]
    pub unit_model: String,
    /// The Unit's own Subjects, on the main Node.
    #[serde(default)]
    pub subjects: Vec<String>,
    /// The key that the Nodes share before they have certificates; `<state_dir>/bootstrap.key` by default. The main Node
    /// makes it if it is not there; copy it to the other Nodes.
    #[serde(default)]
    pub bootstrap_key: Option<PathBuf>,
    /// Where the main Node's IAM is, on any other Node.
    #[serde(default)]
    pub main_iam: Option<MainIam>,
    /// What this Node is.
    pub node: NodeOptions,
}

/// The addresses of the main Node's IAM.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MainIam {
    /// Its public port, `host:port`.
    pub public: String,
    /// Its protected port, `host:port`.
    pub protected: String,
}

/// What a Node is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeOptions {
    /// Its id; the machine id by default.
    #[serde(default)]
    pub id: Option<String>,
    /// Its type: the node group it belongs to.
    #[serde(rename = "type")]
    pub node_type: String,
    /// A name for people; the host name by default.
    #[serde(default)]
    pub title: Option<String>,
    /// Whether it is the main Node; by default it is if `main_iam` is not given.
    #[serde(default)]
    pub main: Option<bool>,
    /// Its computing power in DMIPS; 10 000 for each hardware thread by default.
    #[serde(default)]
    pub max_dmips: Option<u64>,
    /// Free attributes. `MainNode` and `AosComponents` are set by IAM unless they are given here.
    #[serde(default)]
    pub attrs: BTreeMap<String, String>,
    /// What it offers for services, storages and states; one partition `aos` at `state_dir` by default.
    #[serde(default)]
    pub partitions: Vec<PartitionOptions>,
}

/// A partition that the Node offers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartitionOptions {
    /// Name, as alert rules use it.
    pub name: String,
    /// What it holds: `services`, `storages`, `states`, …
    #[serde(default)]
    pub types: Vec<String>,
    /// Where it is mounted.
    pub path: PathBuf,
}

impl Options {
    /// Whether this is the main Node.
    pub fn is_main(&self) -> bool {
        self.node.main.unwrap_or(self.main_iam.is_none())
    }

    pub(crate) fn bootstrap_path(&self) -> PathBuf {
        self.bootstrap_key
            .clone()
            .unwrap_or_else(|| self.state_dir.join("bootstrap.key"))
    }
}

fn public_listen() -> String {
    "127.0.0.1:8090".into()
}

fn protected_listen() -> String {
    "127.0.0.1:8089".into()
}

fn unit_model() -> String {
    "aos;1.0".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_table_is_enough_and_a_misspelt_key_is_refused() {
        let main: Options =
            toml::from_str("state_dir = '/var/aos/iam'\n[node]\ntype = 'main'").unwrap();
        assert!(main.is_main());
        assert_eq!(
            main.bootstrap_path(),
            PathBuf::from("/var/aos/iam/bootstrap.key")
        );
        let other: Options = toml::from_str(
            "state_dir = '/x'\nmain_iam = { public = 'm:8090', protected = 'm:8089' }\n[node]\ntype = 'n'",
        )
        .unwrap();
        assert!(!other.is_main());
        let wrong = toml::from_str::<Options>("state_dir = '/x'\nnods = 1\n[node]\ntype = 'n'");
        assert!(wrong.unwrap_err().to_string().contains("nods"));
    }
}
