use std::{collections::BTreeSet, path::Path, time::Duration};

use aos_update::UpdatePart;
use serde::{Deserialize, Deserializer, de};

/// How updates are gated on this Unit: the table `[cm.gates]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GateOptions {
    /// The local time that timetables mean, as a name of the zone database; the machine's own by default.
    pub time_zone: Option<String>,
    /// How long an update may wait at its gate if its schedule does not say, in seconds; 30 days by default.
    pub ttl_secs: u64,
    /// The parts of an update that need the user's consent: `software`, `firmware`.
    pub consent: BTreeSet<UpdatePart>,
    /// A condition of the Unit for changing anything.
    pub readiness: Option<ReadinessOptions>,
}

impl Default for GateOptions {
    fn default() -> Self {
        Self {
            time_zone: None,
            ttl_secs: 30 * 24 * 3600,
            consent: BTreeSet::new(),
            readiness: None,
        }
    }
}

/// When the Unit is ready to be changed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadinessOptions {
    /// A program with its arguments, by its absolute path: exit code 0 means ready. Without one the Unit's own programs
    /// report readiness (`aos.unit.v1`, ReportReadiness).
    #[serde(default, deserialize_with = "program")]
    pub command: Option<Vec<String>>,
    /// How long the program may take, in seconds; then it is killed and the Unit is not ready.
    #[serde(default = "timeout_secs")]
    pub timeout_secs: u64,
    /// The pause before the Unit is asked again, in seconds.
    #[serde(default = "interval_secs")]
    pub interval_secs: u64,
    /// How long an update may wait for the Unit from the first time it is asked, in seconds; then it has failed.
    #[serde(default = "deadline_secs")]
    pub deadline_secs: u64,
}

impl ReadinessOptions {
    /// How long the program may take.
    pub const fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_secs)
    }

    /// The pause before the Unit is asked again: longer than asking may take, whatever is configured.
    pub fn interval(&self) -> Duration {
        Duration::from_secs(self.interval_secs).max(self.timeout() + Duration::from_secs(2))
    }
}

const fn timeout_secs() -> u64 {
    10
}

const fn interval_secs() -> u64 {
    60
}

const fn deadline_secs() -> u64 {
    30 * 24 * 3600
}

fn program<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    let words = Vec::<String>::deserialize(deserializer)?;
    match words.first() {
        Some(program) if Path::new(program).is_absolute() => Ok(Some(words)),
        Some(program) => Err(de::Error::custom(format!(
            "`{program}` is not an absolute path: nothing is searched for"
        ))),
        None => Err(de::Error::custom("the command is empty")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_named_by_its_absolute_path() {
        let read = toml::from_str::<GateOptions>;
        let good = read(
            "time_zone = 'Europe/Berlin'\nconsent = ['firmware']\nreadiness = { command = ['/bin/true', '-x'] }",
        )
        .unwrap();
        let readiness = good.readiness.unwrap();
        assert_eq!(
            readiness.command.as_deref(),
            Some(&["/bin/true".into(), "-x".into()][..])
        );
        assert_eq!(readiness.interval(), Duration::from_secs(60));
        assert_eq!(good.consent, [UpdatePart::Firmware].into());
        for (bad, why) in [
            ("readiness = { command = ['true'] }", "absolute path"),
            ("readiness = { command = [] }", "empty"),
            ("consent = ['hardware']", "hardware"),
            ("ttl = 5", "unknown field"),
        ] {
            let error = read(bad).unwrap_err().to_string();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }
}
