//! The service that is measured: the demo's HTTP service with another configuration.

use std::time::Duration;

/// The pause before an instance of [`persistent`] is started again.
pub(super) const PAUSE: Duration = Duration::from_millis(100);

/// As the demo has it, but started again after a short pause however often it is killed.
pub(super) fn persistent(config: &str) -> String {
    let mut text = without(config, &["runParameters"]);
    text.push_str(&format!(
        "      runParameters:\n        startInterval: PT5S\n        startBurst: 1000\n        restartInterval: {}ms\n",
        PAUSE.as_millis()
    ));
    text
}

/// Without what would keep hundreds of them from running on one Node: this measures the way, not the fitting.
pub(super) fn many(config: &str) -> String {
    let mut text = without(config, &["publishedPorts", "hostname", "quotas"]);
    text.push_str(
        "      quotas:\n        pidsLimit: 64\n      requestedResources:\n        cpu: 1\n        ram: 65536\n",
    );
    text
}

/// Leaves out keys with all that is indented below them.
fn without(config: &str, keys: &[&str]) -> String {
    let mut text = String::new();
    let mut dropped: Option<usize> = None;
    for line in config.lines() {
        let indent = line.len() - line.trim_start().len();
        if dropped.is_some_and(|above| indent > above && !line.trim().is_empty()) {
            continue;
        }
        dropped = None;
        let key = line.trim_start().split(':').next().unwrap_or_default();
        if keys.contains(&key) {
            dropped = Some(indent);
        } else {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_go_with_all_below_them() {
        let config = "a: 1\nb:\n  - c: 2\n    d: 3\ne: 4\n";
        assert_eq!(without(config, &["b"]), "a: 1\ne: 4\n");
        assert_eq!(without(config, &["a", "e"]), "b:\n  - c: 2\n    d: 3\n");
    }
}
