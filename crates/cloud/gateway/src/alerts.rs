//! What is kept of a Unit's alerts, and what people see of them in its timeline.

use aos_api::{AlertTag, Severity, TimelineKind};
use aos_cloud_protocol::{Alert, AlertEvent, DownloadState, QuotaState};
use aos_db::{DownloadReport, Happening, NewAlert, QuotaChange};
use aos_types::InstanceIdent;

/// Longest text taken into the timeline, in characters.
const MAX_CHARS: usize = 1000;

fn about(kind: TimelineKind, severity: Severity, text: &str) -> Happening {
    Happening::new(
        kind,
        severity,
        text.chars().take(MAX_CHARS).collect::<String>(),
    )
}

fn of_instance(instance: InstanceIdent, severity: Severity, text: &str) -> Happening {
    Happening {
        item_id: Some(instance.item.to_string()),
        subject_id: Some(instance.subject.to_string()),
        instance: Some(instance.index),
        ..about(TimelineKind::Instance, severity, text)
    }
}

const fn quota(state: Option<QuotaState>) -> (Severity, &'static str) {
    match state {
        Some(QuotaState::Fall) => (Severity::Info, "no longer uses too much"),
        Some(QuotaState::Continue) => (Severity::Warning, "still uses too much"),
        Some(QuotaState::Raise) | None => (Severity::Warning, "uses too much"),
    }
}

/// A quantity with its unit: DMIPS of a processor, else bytes.
fn amount(parameter: &str, value: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    if parameter == "cpu" {
        return format!("{value} DMIPS");
    }
    let (mut amount, mut unit) = (value as f64, 0);
    while amount >= 1024.0 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or_default();
    match unit {
        0 => format!("{value} B"),
        _ => format!("{amount:.1} {name}"),
    }
}

/// How far a blob is, if the alert tells it.
pub(crate) fn download(alert: &Alert) -> Option<DownloadReport> {
    let AlertEvent::DownloadProgress {
        digest,
        downloaded_bytes,
        total_bytes,
        state,
        reason,
        error,
        ..
    } = &alert.event
    else {
        return None;
    };
    let broke_off = || {
        let why = error.as_ref().map(ToString::to_string).or(reason.clone());
        let why = why.unwrap_or_else(|| "no reason was reported".to_owned());
        why.chars().take(MAX_CHARS).collect()
    };
    Some(DownloadReport {
        at: alert.timestamp,
        digest: *digest,
        here: *downloaded_bytes,
        total: *total_bytes,
        finished: *state == DownloadState::Finished && error.is_none(),
        hindrance: (error.is_some()
            || matches!(state, DownloadState::Interrupted | DownloadState::Paused))
        .then(broke_off),
    })
}

/// The alert as it is kept; nothing for a download that goes well, which item states tell already.
pub(crate) fn kept(alert: &Alert) -> Option<NewAlert> {
    let warning = Severity::Warning;
    let mut new = NewAlert {
        at: alert.timestamp,
        tag: AlertTag::System,
        severity: warning,
        quota: None,
        node: None,
        instance: None,
        parameter: String::new(),
        value: None,
        text: String::new(),
    };
    let change = |state: Option<QuotaState>| match state {
        None => QuotaChange::On,
        Some(QuotaState::Raise) => QuotaChange::Raise,
        Some(QuotaState::Continue) => QuotaChange::Continue,
        Some(QuotaState::Fall) => QuotaChange::Fall,
    };
    match &alert.event {
        AlertEvent::System { node, message } => {
            new.node = Some(node.to_string());
            new.text.clone_from(message);
        }
        AlertEvent::Core {
            node,
            component,
            message,
        } => {
            new.tag = AlertTag::Core;
            new.node = Some(node.to_string());
            new.text = format!("{component}: {message}");
        }
        AlertEvent::SystemQuota {
            node,
            parameter,
            value,
            state,
        } => {
            new.tag = AlertTag::SystemQuota;
            new.node = Some(node.to_string());
            new.quota = Some(change(*state));
            new.text = format!(
                "Node {node} uses too much {parameter}: {}",
                amount(parameter, *value)
            );
            new.parameter.clone_from(parameter);
            new.value = Some(*value);
        }
        AlertEvent::InstanceQuota {
            instance,
            parameter,
            value,
            state,
        } => {
            new.tag = AlertTag::InstanceQuota;
            new.quota = Some(change(*state));
            new.text = format!(
                "instance {} uses too much {parameter}: {}",
                instance.index,
                amount(parameter, *value)
            );
            new.instance = Some(instance.clone());
            new.parameter.clone_from(parameter);
            new.value = Some(*value);
        }
        AlertEvent::DownloadProgress { .. } => {
            let happening = happening(alert.clone())?;
            new.tag = AlertTag::DownloadProgress;
            new.text = happening.text;
        }
        AlertEvent::ResourceAllocate {
            instance,
            node,
            device,
            message,
        } => {
            new.tag = AlertTag::ResourceAllocate;
            new.node = Some(node.to_string());
            new.text = format!(
                "instance {} did not get {device}: {message}",
                instance.index
            );
            new.instance = Some(instance.clone());
        }
        AlertEvent::UpdateItemInstance {
            instance,
            version,
            message,
        } => {
            new.tag = AlertTag::Instance;
            new.severity = Severity::Error;
            new.text = match version.as_str() {
                "" => message.clone(),
                version => format!("version {version}: {message}"),
            };
            new.instance = Some(instance.clone());
        }
    }
    new.text = new.text.chars().take(MAX_CHARS).collect();
    new.parameter = new.parameter.chars().take(100).collect();
    Some(new)
}

/// The event for an alert; nothing for a download that goes well, which item states tell already, and for what only goes
/// on: the timeline tells of beginnings and ends.
pub(crate) fn happening(alert: Alert) -> Option<Happening> {
    let warning = Severity::Warning;
    Some(match alert.event {
        AlertEvent::SystemQuota {
            state: Some(QuotaState::Continue),
            ..
        }
        | AlertEvent::InstanceQuota {
            state: Some(QuotaState::Continue),
            ..
        } => return None,
        AlertEvent::System { node, message } => Happening {
            node_id: Some(node.to_string()),
            ..about(
                TimelineKind::Node,
                warning,
                &format!("Node {node}: {message}"),
            )
        },
        AlertEvent::Core {
            node,
            component,
            message,
        } => Happening {
            node_id: Some(node.to_string()),
            ..about(
                // CM speaks of the update: what it waits for, that the way back fails.
                if component == "CM" {
                    TimelineKind::Update
                } else {
                    TimelineKind::Node
                },
                warning,
                &format!("{component} on Node {node}: {message}"),
            )
        },
        AlertEvent::SystemQuota {
            node,
            parameter,
            value,
            state,
        } => {
            let (severity, uses) = quota(state);
            Happening {
                node_id: Some(node.to_string()),
                ..about(
                    TimelineKind::Node,
                    severity,
                    &format!(
                        "Node {node} {uses} {parameter}: {}",
                        amount(&parameter, value)
                    ),
                )
            }
        }
        AlertEvent::InstanceQuota {
            instance,
            parameter,
            value,
            state,
        } => {
            let (severity, uses) = quota(state);
            let text = format!(
                "instance {} {uses} {parameter}: {}",
                instance.index,
                amount(&parameter, value)
            );
            of_instance(instance, severity, &text)
        }
        AlertEvent::DownloadProgress {
            digest,
            state,
            reason,
            error,
            ..
        } => {
            if matches!(state, DownloadState::Started | DownloadState::Finished) && error.is_none()
            {
                return None;
            }
            let why = error
                .map(|error| error.to_string())
                .or(reason)
                .map_or_else(String::new, |why| format!(": {why}"));
            about(
                TimelineKind::Item,
                warning,
                &format!("fetching {digest} is {state}{why}"),
            )
        }
        AlertEvent::ResourceAllocate {
            instance,
            node,
            device,
            message,
        } => {
            let text = format!(
                "instance {} did not get {device} of Node {node}: {message}",
                instance.index
            );
            of_instance(instance, warning, &text)
        }
        AlertEvent::UpdateItemInstance {
            instance,
            version,
            message,
        } => {
            let text = match version.as_str() {
                "" => format!("instance {}: {message}", instance.index),
                version => format!(
                    "instance {} of version {version}: {message}",
                    instance.index
                ),
            };
            Happening {
                version: Some(version),
                ..of_instance(instance, Severity::Error, &text)
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use aos_time::Timestamp;
    use aos_types::NodeId;

    fn quota(state: Option<QuotaState>) -> Alert {
        Alert {
            timestamp: Timestamp::from_secs(1),
            event: AlertEvent::SystemQuota {
                node: NodeId::new("main").unwrap(),
                parameter: "ram".into(),
                value: 3 << 29,
                state,
            },
        }
    }

    #[test]
    fn a_quota_alert_says_how_much_and_the_timeline_has_its_ends_only() {
        let new = kept(&quota(Some(QuotaState::Raise))).unwrap();
        assert_eq!(new.text, "Node main uses too much ram: 1.5 GiB");
        assert_eq!(new.quota, Some(QuotaChange::Raise));
        assert_eq!(kept(&quota(None)).unwrap().quota, Some(QuotaChange::On));
        assert!(happening(quota(Some(QuotaState::Raise))).is_some());
        assert!(happening(quota(Some(QuotaState::Continue))).is_none());
        let end = happening(quota(Some(QuotaState::Fall))).unwrap();
        assert_eq!(
            (end.severity, end.text.as_str()),
            (
                Severity::Info,
                "Node main no longer uses too much ram: 1.5 GiB"
            )
        );
        assert_eq!(amount("cpu", 7), "7 DMIPS");
        assert_eq!(amount("storages", 7), "7 B");
    }

    #[test]
    fn a_download_is_counted_and_what_breaks_it_off_is_told() {
        let alert = |state, reason: Option<&str>| Alert {
            timestamp: Timestamp::from_secs(1),
            event: AlertEvent::DownloadProgress {
                digest: format!("sha256:{}", "a".repeat(64)).parse().unwrap(),
                downloaded_bytes: 7,
                total_bytes: 9,
                state,
                url: None,
                reason: reason.map(str::to_owned),
                error: None,
            },
        };
        let going = alert(DownloadState::Started, None);
        let told = download(&going).unwrap();
        assert_eq!((told.here, told.total, told.finished), (7, 9, false));
        assert_eq!(told.hindrance, None);
        assert_eq!((kept(&going), happening(going).is_none()), (None, true));
        let broken = alert(DownloadState::Interrupted, Some("no route"));
        assert_eq!(download(&broken).unwrap().hindrance.unwrap(), "no route");
        assert!(happening(broken).unwrap().text.ends_with(": no route"));
        assert!(
            download(&alert(DownloadState::Finished, None))
                .unwrap()
                .finished
        );
        assert_eq!(download(&quota(None)), None);
    }

    #[test]
    fn texts_are_cut() {
        let alert = Alert {
            timestamp: Timestamp::from_secs(1),
            event: AlertEvent::System {
                node: NodeId::new("main").unwrap(),
                message: "x".repeat(100_000),
            },
        };
        assert_eq!(kept(&alert).unwrap().text.len(), MAX_CHARS);
    }
}
