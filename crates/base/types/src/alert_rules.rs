use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::tolerant::{FieldError, Fields, FromJson};

/// When usage counts as too high: above `max_threshold` for `min_timeout` raises, below `min_threshold` for that long
/// falls (`docs/protocol/items.md`, alert rules).
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AlertRule {
    /// How long the usage must stay beyond the threshold.
    #[serde(with = "crate::duration")]
    pub min_timeout: Duration,
    /// Percent, or bytes for traffic.
    pub min_threshold: f64,
    /// Percent, or bytes for traffic.
    pub max_threshold: f64,
}

/// The rule for one partition, in percent of its size.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PartitionAlertRule {
    /// The partition's name on the Node.
    pub name: String,
    /// The thresholds.
    #[serde(flatten)]
    pub rule: AlertRule,
}

/// Alert rules of an instance or of a Node.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AlertRules {
    /// Percent of the Node's processing power.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<AlertRule>,
    /// Percent of the Node's memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ram: Option<AlertRule>,
    /// Percent of the partitions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub partitions: Vec<PartitionAlertRule>,
    /// Bytes received.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub download: Option<AlertRule>,
    /// Bytes sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upload: Option<AlertRule>,
}

/// Partitions with rules, at most; a Node has few.
const MAX_PARTITIONS: usize = 64;

impl AlertRule {
    fn check(&self) -> Result<(), FieldError> {
        for (key, threshold) in [
            ("minThreshold", self.min_threshold),
            ("maxThreshold", self.max_threshold),
        ] {
            if !threshold.is_finite() || threshold < 0.0 {
                return Err(FieldError::new(format!("{threshold} is below 0")).at(key));
            }
        }
        if self.min_threshold > self.max_threshold {
            return Err(FieldError::new("is above `maxThreshold`").at("minThreshold"));
        }
        Ok(())
    }
}

impl AlertRules {
    /// Whether somebody can follow them: thresholds are numbers from 0 on and the lower one is not above the upper one.
    pub fn check(&self) -> Result<(), FieldError> {
        for (key, rule) in [
            ("cpu", self.cpu),
            ("ram", self.ram),
            ("download", self.download),
            ("upload", self.upload),
        ] {
            rule.map_or(Ok(()), |rule| rule.check())
                .map_err(|error| error.at(key))?;
        }
        if self.partitions.len() > MAX_PARTITIONS {
            let error = FieldError::new(format!("has more than {MAX_PARTITIONS} entries"));
            return Err(error.at("partitions"));
        }
        for (index, partition) in self.partitions.iter().enumerate() {
            partition
                .rule
                .check()
                .map_err(|error| error.at_index(index).at("partitions"))?;
        }
        Ok(())
    }
}

impl FromJson for AlertRule {
    fn from_json(value: &Value) -> Result<Self, FieldError> {
        let fields = Fields::of(value)?;
        Ok(Self {
            min_timeout: fields.or_default("minTimeout")?,
            min_threshold: fields.or_default("minThreshold")?,
            max_threshold: fields.or_default("maxThreshold")?,
        })
    }
}

impl FromJson for PartitionAlertRule {
    fn from_json(value: &Value) -> Result<Self, FieldError> {
        Ok(Self {
            name: Fields::of(value)?.req("name")?,
            rule: AlertRule::from_json(value)?,
        })
    }
}

impl FromJson for AlertRules {
    fn from_json(value: &Value) -> Result<Self, FieldError> {
        let fields = Fields::of(value)?;
        Ok(Self {
            cpu: fields.opt("cpu")?,
            ram: fields.opt("ram")?,
            partitions: fields.or_default("partitions")?,
            download: fields.opt("download")?,
            upload: fields.opt("upload")?,
        })
    }
}
