use aos_store::Records;
use aos_types::{AlertRules, AosCode, ErrorInfo, NodeConfig, UnitConfigState};
use tokio::sync::{Mutex, watch};

use crate::records::StoredConfig;

/// The one record's key.
const KEY: &str = "own";

/// This Node's part of the unit configuration. Every question is answered, whatever is asked.
pub(crate) struct NodeConfigs {
    records: Records<StoredConfig>,
    current: Mutex<Option<StoredConfig>>,
    rules: watch::Sender<AlertRules>,
}

/// The answer to each question (servicemanager.v5 `NodeConfigStatus`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConfigStatus {
    pub(crate) state: UnitConfigState,
    pub(crate) version: String,
    pub(crate) error: Option<ErrorInfo>,
}

impl NodeConfigs {
    pub(crate) async fn open(records: Records<StoredConfig>) -> Result<Self, aos_store::Error> {
        let current = records.get(KEY).await?;
        // What was taken once is read again even if we would refuse it today.
        let stored = current
            .as_ref()
            .and_then(|stored| NodeConfig::from_slice(stored.json.as_bytes()).ok());
        let rules = stored.and_then(|config| config.alert_rules);
        Ok(Self {
            records,
            current: Mutex::new(current),
            rules: watch::Sender::new(rules.unwrap_or_default()),
        })
    }

    /// The Node's alert rules, and when they change.
    pub(crate) fn alert_rules(&self) -> watch::Receiver<AlertRules> {
        self.rules.subscribe()
    }

    /// What is in force.
    pub(crate) async fn status(&self) -> ConfigStatus {
        match &*self.current.lock().await {
            None => ConfigStatus {
                state: UnitConfigState::Absent,
                version: String::new(),
                error: None,
            },
            Some(stored) => ConfigStatus {
                state: if stored.error.is_some() {
                    UnitConfigState::Failed
                } else {
                    UnitConfigState::Installed
                },
                version: stored.version.clone(),
                error: stored.error.clone(),
            },
        }
    }

    /// Whether a configuration could be set. Which version may follow which is CM's to decide: it may also go back.
    pub(crate) async fn check(&self, version: &str, json: &str) -> ConfigStatus {
        let error = read(json).err();
        ConfigStatus {
            state: match error {
                Some(_) => UnitConfigState::Failed,
                None => self.status().await.state,
            },
            version: version.to_owned(),
            error,
        }
    }

    /// Puts a configuration in force. One that cannot be read leaves the present one as it is; one without a version takes
    /// the present one back.
    pub(crate) async fn set(&self, version: &str, json: &str) -> ConfigStatus {
        let answer = |error: Option<ErrorInfo>| ConfigStatus {
            state: if error.is_some() {
                UnitConfigState::Failed
            } else {
                UnitConfigState::Installed
            },
            version: version.to_owned(),
            error,
        };
        let config = match read(json) {
            Ok(config) => config,
            Err(error) => return answer(Some(error)),
        };
        if version.is_empty() {
            let mut current = self.current.lock().await;
            return match self.records.remove(KEY).await {
                Ok(()) => {
                    *current = None;
                    self.rules.send_replace(AlertRules::default());
                    ConfigStatus {
                        state: UnitConfigState::Absent,
                        ..answer(None)
                    }
                }
                Err(error) => answer(Some(ErrorInfo::from_error(AosCode::Failed, &error))),
            };
        }
        let stored = StoredConfig {
            version: version.to_owned(),
            json: json.to_owned(),
            error: None,
        };
        let mut current = self.current.lock().await;
        match self.records.put(KEY, &stored).await {
            Ok(()) => {
                *current = Some(stored);
                self.rules
                    .send_replace(config.alert_rules.unwrap_or_default());
                answer(None)
            }
            Err(error) => answer(Some(ErrorInfo::from_error(AosCode::Failed, &error))),
        }
    }
}

fn read(json: &str) -> Result<NodeConfig, ErrorInfo> {
    NodeConfig::from_slice(json.as_bytes())
        .and_then(|config| config.check().map(|()| config))
        .map_err(|error| ErrorInfo::from_error(AosCode::InvalidArgument, &error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use aos_store::Store;

    #[tokio::test]
    async fn every_question_is_answered_and_a_bad_one_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sm.db");
        let store = Store::open(&path, crate::records::SCHEMA).unwrap();
        let configs = NodeConfigs::open(Records::new(store.clone(), "node_config"))
            .await
            .unwrap();
        assert_eq!(configs.status().await.state, UnitConfigState::Absent);
        let good = r#"{"nodeGroupSubject":{"codename":"main"},"priority":1}"#;
        assert_eq!(configs.check("1.0.0", good).await.error, None);
        let set = configs.set("1.0.0", good).await;
        assert_eq!((set.state, set.error), (UnitConfigState::Installed, None));
        let bad = configs.set("2.0.0", "not json").await;
        assert_eq!(
            (bad.state, bad.version.as_str()),
            (UnitConfigState::Failed, "2.0.0")
        );
        assert!(bad.error.is_some());
        assert_eq!(configs.status().await.version, "1.0.0");
        // Rules that nobody can follow are refused, and the field is named.
        let reversed = r#"{"nodeGroupSubject":{"codename":"main"},"alertRules":{"cpu":{"minThreshold":9,"maxThreshold":8}}}"#;
        let refused = configs.check("2.0.0", reversed).await.error.unwrap();
        assert!(
            refused.message.contains("`alertRules.cpu.minThreshold`"),
            "{refused}"
        );
        assert!(configs.set("2.0.0", reversed).await.error.is_some());
        assert_eq!(configs.status().await.version, "1.0.0");
        // CM may go back, and the answer survives a restart.
        assert_eq!(configs.set("0.9.0", good).await.error, None);
        let again = NodeConfigs::open(Records::new(store, "node_config"))
            .await
            .unwrap();
        assert_eq!(again.status().await.version, "0.9.0");
        // The first one is taken back by one of no version.
        let gone = again.set("", good).await;
        assert_eq!((gone.state, gone.error), (UnitConfigState::Absent, None));
        assert_eq!(again.status().await.state, UnitConfigState::Absent);
    }
}
