//! What an item configuration must not say: values with which nothing can run, and values that contradict each other.
//!
//! They are refused when the configuration is read, so that nothing is stopped for an item that cannot start.

use std::{collections::BTreeSet, time::Duration};

use crate::{AlertRules, ItemConfig, RunParameters, tolerant::FieldError};

/// The longest an instance may ask to be waited for when it stops.
pub const MAX_STOP_GRACE: Duration = Duration::from_secs(300);
/// The longest pause between two starts that may be asked for, and the longest time in which it counts as starting.
const MAX_START: Duration = Duration::from_secs(24 * 3_600);
/// No kernel has more processes.
const MAX_PIDS: u64 = 1 << 22;
/// No kernel lets a process have more open files (`sysctl_nr_open_max`).
const MAX_FILES: u64 = 0x7fff_ffc0;
/// Kernel parameters of one item.
const MAX_SYSCTL: usize = 64;
/// Parameters that belong to an instance's own namespaces.
const OWN_SYSCTL: [&str; 5] = [
    "net.",
    "kernel.shm",
    "kernel.msg",
    "kernel.sem",
    "fs.mqueue.",
];

/// Whether a kernel parameter belongs to the namespaces of the instance alone.
pub fn is_own_sysctl(key: &str) -> bool {
    OWN_SYSCTL.iter().any(|own| key.starts_with(own))
        && key
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
        && !key.contains("..")
}

pub(crate) fn check(config: &ItemConfig) -> Result<(), FieldError> {
    quotas(config).map_err(|error| error.at("quotas"))?;
    sysctl(config).map_err(|error| error.at("sysctl"))?;
    run_parameters(&config.run_parameters).map_err(|error| error.at("runParameters"))?;
    if let Some(grace) = config.stop_grace_period
        && grace > MAX_STOP_GRACE
    {
        let most = MAX_STOP_GRACE.as_secs();
        return Err(FieldError::new(format!("is more than {most} s")).at("stopGracePeriod"));
    }
    if let Some(name) = &config.hostname
        && (name.len() > 64
            || !name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.')))
    {
        return Err(
            FieldError::new("must be at most 64 letters, digits, dots or dashes").at("hostname"),
        );
    }
    let mut names = BTreeSet::new();
    for (index, resource) in config.resources.iter().enumerate() {
        let wrong = |why: String, key: &str| {
            Err(FieldError::new(why).at(key).at_index(index).at("resources"))
        };
        if resource.name.is_empty() {
            return wrong("is empty".into(), "name");
        }
        if !names.insert(&resource.name) {
            return wrong(format!("`{}` is asked for twice", resource.name), "name");
        }
        let known = |letter| matches!(letter, 'r' | 'w' | 'm');
        if resource.mode.is_empty() || !resource.mode.chars().all(known) {
            return wrong("is made of the letters r, w and m".into(), "mode");
        }
    }
    if config
        .egress
        .as_ref()
        .is_some_and(|rules| rules.len() > crate::MAX_EGRESS)
    {
        let most = crate::MAX_EGRESS;
        return Err(FieldError::new(format!("has more than {most} destinations")).at("egress"));
    }
    let mut ports = BTreeSet::new();
    for (index, port) in config.published_ports.iter().enumerate() {
        if !ports.insert((port.host_port, port.protocol)) {
            return Err(
                FieldError::new(format!("{} is published twice", port.host_port))
                    .at("hostPort")
                    .at_index(index)
                    .at("publishedPorts"),
            );
        }
    }
    alert_rules(config).map_err(|error| error.at("alertRules"))
}

fn quotas(config: &ItemConfig) -> Result<(), FieldError> {
    let quotas = &config.quotas;
    // Without state or storage their limit may be 0; with any other limit of 0 nothing runs.
    for (key, value, may_be_zero) in [
        ("cpuDMIPSLimit", quotas.cpu_dmips_limit, false),
        ("ramLimit", quotas.ram_limit, false),
        ("pidsLimit", quotas.pids_limit, false),
        ("noFileLimit", quotas.no_file_limit, false),
        ("tmpLimit", quotas.tmp_limit, false),
        ("stateLimit", quotas.state_limit, true),
        ("storageLimit", quotas.storage_limit, true),
    ] {
        let Some(value) = value else { continue };
        if value == 0 && !may_be_zero {
            let why = "is 0, with which nothing can run: remove it for no limit";
            return Err(FieldError::new(why).at(key));
        }
        if i64::try_from(value).is_err() {
            return Err(FieldError::new("is more than any machine has").at(key));
        }
    }
    for (key, value, most) in [
        ("pidsLimit", quotas.pids_limit, MAX_PIDS),
        ("noFileLimit", quotas.no_file_limit, MAX_FILES),
    ] {
        if value.is_some_and(|value| value > most) {
            return Err(
                FieldError::new(format!("is more than {most}, the most of any kernel")).at(key),
            );
        }
    }
    Ok(())
}

fn run_parameters(run: &RunParameters) -> Result<(), FieldError> {
    if run.start_burst == 0 {
        let why = "is 0, with which nothing is ever started: 1 is the least";
        return Err(FieldError::new(why).at("startBurst"));
    }
    for (key, value) in [
        ("startInterval", run.start_interval),
        ("restartInterval", run.restart_interval),
    ] {
        if value > MAX_START {
            let most = MAX_START.as_secs() / 3_600;
            return Err(FieldError::new(format!("is more than {most} h")).at(key));
        }
    }
    Ok(())
}

fn sysctl(config: &ItemConfig) -> Result<(), FieldError> {
    if config.sysctl.len() > MAX_SYSCTL {
        return Err(FieldError::new(format!(
            "has more than {MAX_SYSCTL} entries"
        )));
    }
    for (key, value) in &config.sysctl {
        if !is_own_sysctl(key) {
            let shown: String = key.chars().take(80).collect();
            return Err(FieldError::new(format!(
                "`{shown}` is no parameter of the instance's own namespaces"
            )));
        }
        if value.len() > 256 || value.contains(['\0', '\n']) {
            return Err(FieldError::new("is no value of a kernel parameter").at(key));
        }
    }
    Ok(())
}

fn alert_rules(config: &ItemConfig) -> Result<(), FieldError> {
    config
        .alert_rules
        .as_ref()
        .map_or(Ok(()), AlertRules::check)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn refused(value: Value) -> String {
        match ItemConfig::from_slice(value.to_string().as_bytes()) {
            Ok(_) => panic!("taken: {value}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_field() {
        for (value, field) in [
            (json!({"quotas": {"ramLimit": 0}}), "`quotas.ramLimit`"),
            (json!({"quotas": {"pidsLimit": 0}}), "`quotas.pidsLimit`"),
            (
                json!({"quotas": {"storageLimit": u64::MAX}}),
                "`quotas.storageLimit`",
            ),
            (json!({"sysctl": {"kernel.panic": "1"}}), "`sysctl`"),
            (json!({"sysctl": {"net.../x": "1"}}), "`sysctl`"),
            (
                json!({"sysctl": {"net.core.somaxconn": "1\n2"}}),
                "`sysctl.net.core.somaxconn`",
            ),
            (json!({"stopGracePeriod": "PT5M1S"}), "`stopGracePeriod`"),
            (
                json!({"quotas": {"pidsLimit": 4_194_305}}),
                "`quotas.pidsLimit`",
            ),
            (
                json!({"quotas": {"noFileLimit": 1_u64 << 31}}),
                "`quotas.noFileLimit`",
            ),
            (
                json!({"runParameters": {"startBurst": 0}}),
                "`runParameters.startBurst`",
            ),
            (
                json!({"runParameters": {"restartInterval": "PT25H"}}),
                "`runParameters.restartInterval`",
            ),
            (
                json!({"resources": [{"name": "gps", "mode": "x"}]}),
                "`resources[0].mode`",
            ),
            (json!({"hostname": "a b"}), "`hostname`"),
            (json!({"resources": ["gps", "gps"]}), "`resources[1].name`"),
            (
                json!({"publishedPorts": [{"hostPort": 1, "port": 2}, {"hostPort": 1, "port": 3}]}),
                "`publishedPorts[1].hostPort`",
            ),
            (
                json!({"alertRules": {"ram": {"minThreshold": 9, "maxThreshold": 8}}}),
                "`alertRules.ram.minThreshold`",
            ),
            (
                json!({"capabilities": {"add": ["SYS_ADMIN"]}}),
                "`capabilities.add[0]`",
            ),
            (json!({"rootfs": "writable"}), "`rootfs`"),
            (json!({"userNamespace": "yes"}), "`userNamespace`"),
        ] {
            let text = refused(value);
            assert!(text.contains(field), "{text}");
        }
    }

    #[test]
    fn no_state_and_no_storage_may_be_said() {
        let text =
            json!({"quotas": {"stateLimit": 0, "storageLimit": 0}, "stopGracePeriod": "PT5M"});
        assert!(ItemConfig::from_slice(text.to_string().as_bytes()).is_ok());
    }
}
