//! What of a Unit's alerts people see in its timeline.

use aos_api::{Severity, TimelineKind};
use aos_cloud_protocol::{Alert, AlertEvent, DownloadState, QuotaState};
use aos_db::Happening;
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

/// The event for an alert; nothing for a download that goes well, which item states tell already.
pub(crate) fn happening(alert: Alert) -> Option<Happening> {
    let warning = Severity::Warning;
    Some(match alert.event {
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
                    &format!("Node {node} {uses} {parameter}: {value}"),
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
            let text = format!("instance {} {uses} {parameter}: {value}", instance.index);
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
            let text = format!(
                "instance {} of version {version} could not be started: {message}",
                instance.index
            );
            Happening {
                version: Some(version),
                ..of_instance(instance, Severity::Error, &text)
            }
        }
    })
}
