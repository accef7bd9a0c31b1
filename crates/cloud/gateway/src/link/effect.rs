//! What a message of the Unit does.

use aos_api::{Severity, TimelineKind};
use aos_cloud_protocol::{
    Body, IssueUnitCertificates, Message, MessageType, NewState, RequestBlobUrls, StateAcceptance,
    StateRequest, StateResult, Unreadable, UpdateState,
};
use aos_db::{
    Db, DbError, DownloadReport, EnvReport, Happening, Installed, LinkWrite, LogPart, NewAlert,
    NewPoint, StateVerdict, UnitStatusReport,
};
use aos_session::{Handled, Input, Keep, Priority};
use aos_time::Clock;
use aos_types::{InstanceIdent, state_checksum};
use uuid::Uuid;

use super::{Link, LinkError, env_vars, logs, renewals};
use crate::{alerts, blob_urls, incoming::Incoming, status, usage};

/// What a message does, apart from being acknowledged.
enum Effect {
    Nothing,
    Status {
        reports: Vec<UnitStatusReport>,
        full: bool,
    },
    Events(Vec<Happening>),
    Alerts {
        alerts: Vec<NewAlert>,
        downloads: Vec<DownloadReport>,
        events: Vec<Happening>,
    },
    Usage {
        points: Vec<NewPoint>,
        events: Vec<Happening>,
    },
    EnvVars {
        reports: Vec<EnvReport>,
        events: Vec<Happening>,
    },
    Urls {
        correlation_id: Option<String>,
        request: RequestBlobUrls,
        events: Vec<Happening>,
    },
    Log {
        part: Option<LogPart>,
        events: Vec<Happening>,
    },
    State(NewState),
    AskedState(StateRequest),
    Issue {
        correlation_id: Option<String>,
        request: IssueUnitCertificates,
        events: Vec<Happening>,
    },
    Installed {
        said: Vec<Installed>,
        events: Vec<Happening>,
    },
}

impl Link {
    /// Deals with one message: what it changes and that it was handled are stored together, then it is acknowledged.
    pub(super) async fn deliver(
        &mut self,
        txn: String,
        incoming: Incoming,
    ) -> Result<(), LinkError> {
        let effect = self.effect(incoming);
        let now = self.steady.now();
        let outcome = Handled::Accept;
        self.session.handle(now, Input::Handled { txn, outcome });
        let records = self.records_ahead();
        let db = self.shared.options.db.clone();
        match effect {
            Effect::Nothing => db.write_link(self.unit, &records).await?,
            Effect::Events(events) => db.note(self.unit, &events, &records).await?,
            Effect::Alerts {
                alerts,
                downloads,
                events,
            } => {
                let retention = &self.shared.options.retention;
                let told = (alerts.as_slice(), downloads.as_slice());
                db.keep_alerts(self.unit, told, &events, retention, &records)
                    .await?;
            }
            Effect::Usage { points, events } => {
                db.note(self.unit, &events, &LinkWrite::default()).await?;
                let retention = &self.shared.options.retention;
                db.keep_usage(self.unit, &points, retention, &records)
                    .await?;
            }
            Effect::EnvVars { reports, events } => {
                db.note(self.unit, &events, &LinkWrite::default()).await?;
                db.apply_env_statuses(self.unit, &reports, &records).await?;
            }
            Effect::Status { reports, full } => {
                let last = reports.len().saturating_sub(1);
                for (place, report) in reports.iter().enumerate() {
                    let none = LinkWrite::default();
                    let records = if place == last { &records } else { &none };
                    db.apply_status(self.unit, report, records).await?;
                }
                if full {
                    self.full_status().await?;
                }
            }
            Effect::Urls {
                correlation_id,
                request,
                events,
            } => {
                let authority = self
                    .online
                    .as_ref()
                    .map(|online| online.authority.clone())
                    .unwrap_or_default();
                let answer =
                    blob_urls::answer(&self.shared, self.unit, &authority, request).await?;
                db.note(self.unit, &events, &records).await?;
                self.send(correlation_id, Body::BlobUrls(answer), Keep::Connection);
            }
            Effect::Log { part, events } => {
                db.note(self.unit, &events, &LinkWrite::default()).await?;
                match part {
                    Some(part) => db.take_log_part(self.unit, &part, &records).await?,
                    None => db.write_link(self.unit, &records).await?,
                }
            }
            Effect::State(new) => {
                let verdict = db
                    .keep_state(
                        self.unit,
                        &new.instance,
                        &new.state,
                        &new.checksum,
                        &records,
                    )
                    .await?;
                let (result, reason) = match verdict {
                    StateVerdict::Accepted => (StateResult::Accepted, String::new()),
                    StateVerdict::Rejected(why) => (StateResult::Rejected, why),
                };
                let answer = StateAcceptance {
                    instance: new.instance,
                    checksum: new.checksum,
                    result,
                    reason,
                };
                self.send(None, Body::StateAcceptance(answer), Keep::Durable);
            }
            Effect::Issue {
                correlation_id,
                request,
                events,
            } => {
                db.note(self.unit, &events, &LinkWrite::default()).await?;
                self.issue(correlation_id, request, &records).await?;
            }
            Effect::Installed { said, events } => {
                db.note(self.unit, &events, &LinkWrite::default()).await?;
                db.renewal_confirmed(self.unit, &said, &records).await?;
            }
            Effect::AskedState(asked) => {
                db.write_link(self.unit, &records).await?;
                // Of a state that was never told there is the one that its version brings, or none to give.
                let kept = match asked.default {
                    false => db.kept_state(self.unit, &asked.instance).await?,
                    true => None,
                };
                let given = match kept {
                    Some(kept) => Some(kept),
                    None => begin_state(&db, self.unit, &asked.instance).await?,
                };
                if let Some((state, checksum)) = given {
                    let update = UpdateState {
                        instance: asked.instance,
                        checksum,
                        state,
                    };
                    self.send(None, Body::UpdateState(update), Keep::Durable);
                }
            }
        }
        Ok(())
    }

    /// Puts a message into the outbox.
    pub(super) fn send(&mut self, correlation_id: Option<String>, body: Body, keep: Keep) {
        let txn = Uuid::new_v4().to_string();
        let message = Message {
            header: self.header(txn.clone()),
            correlation_id,
            body,
        };
        let now = self.steady.now();
        self.session.handle(
            now,
            Input::Send(aos_session::Message {
                txn,
                payload: message.encode().into(),
                priority: Priority::High,
                keep,
                topic: None,
            }),
        );
    }

    fn effect(&self, incoming: Incoming) -> Effect {
        let protocol =
            |text: String| Happening::new(TimelineKind::Protocol, Severity::Warning, text);
        let (message, unreadable) = match incoming {
            Incoming::Useless(error) => {
                self.shared.counts.add("unreadable");
                let cause = std::error::Error::source(&error.reason)
                    .map_or_else(String::new, |cause| format!(": {cause}"));
                return Effect::Events(vec![protocol(format!("{error}{cause}"))]);
            }
            Incoming::Message {
                message,
                unreadable,
            } => (*message, unreadable),
        };
        let kind = message.body.message_type();
        self.shared.counts.add(kind.as_str());
        if !kind.is_from_unit() {
            return Effect::Events(vec![protocol(format!(
                "the Unit sent a `{kind}`, which only a cloud sends; it was ignored"
            ))]);
        }
        let parts = |kind: MessageType, unreadable: &[Unreadable]| -> Vec<Happening> {
            unreadable
                .iter()
                .map(|part| protocol(format!("a part of a `{kind}` could not be read: {part}")))
                .collect()
        };
        match message.body {
            Body::UnitStatus(status) => Effect::Status {
                full: !status.is_delta,
                reports: status::reports(status, &unreadable),
            },
            Body::RequestBlobUrls(request) => Effect::Urls {
                correlation_id: message.correlation_id,
                request,
                events: parts(kind, &unreadable),
            },
            Body::Alerts(list) => {
                let mut events = parts(kind, &unreadable);
                let kept = list.items.iter().filter_map(alerts::kept).collect();
                let downloads = list.items.iter().filter_map(alerts::download).collect();
                events.extend(list.items.into_iter().filter_map(alerts::happening));
                Effect::Alerts {
                    alerts: kept,
                    downloads,
                    events,
                }
            }
            Body::MonitoringData(data) => Effect::Usage {
                points: usage::points(data),
                events: parts(kind, &unreadable),
            },
            Body::OverrideEnvVarsStatus(status) => Effect::EnvVars {
                reports: env_vars::reports(status),
                events: parts(kind, &unreadable),
            },
            Body::IssueUnitCertificates(request) => Effect::Issue {
                correlation_id: message.correlation_id,
                request,
                events: parts(kind, &unreadable),
            },
            Body::InstallUnitCertificatesConfirmation(said) => Effect::Installed {
                said: renewals::installed(said),
                events: parts(kind, &unreadable),
            },
            Body::PushLog(part) => Effect::Log {
                part: logs::part(message.correlation_id.as_deref(), part),
                events: parts(kind, &unreadable),
            },
            Body::NewState(state) => Effect::State(state),
            Body::StateRequest(asked) => Effect::AskedState(asked),
            // Counted above; nothing in the cloud asks for them yet.
            _ if unreadable.is_empty() => Effect::Nothing,
            _ => Effect::Events(parts(kind, &unreadable)),
        }
    }
}

/// The state that an instance begins with, kept as if the Unit had told it, with its checksum.
async fn begin_state(
    db: &Db,
    unit: Uuid,
    instance: &InstanceIdent,
) -> Result<Option<(String, String)>, DbError> {
    let Some(state) = db.default_state(unit, instance).await? else {
        return Ok(None);
    };
    let (checksum, none) = (state_checksum(state.as_bytes()), LinkWrite::default());
    let verdict = db.keep_state(unit, instance, &state, &checksum, &none);
    Ok((verdict.await? == StateVerdict::Accepted).then_some((state, checksum)))
}
