//! Requests for logs, as the Unit is told of them and as it answers.

use aos_api::{LogKind, NodeLogState};
use aos_cloud_protocol::{
    Body, LogFilter, LogStatus, LogType, Message, PushLog, RequestLog, UploadOptions, UploadType,
};
use aos_db::{LogOrder, LogPart};
use aos_session::{Input, Keep, Priority};
use aos_time::Clock as _;
use aos_types::{ItemId, NodeId, SubjectId};
use uuid::Uuid;

use super::{Link, LinkError};

impl Link {
    /// Puts requests that the Unit was not told of into the outbox, and the ends of live logs.
    pub(super) async fn queue_logs(&mut self) -> Result<(), LinkError> {
        let db = self.shared.options.db.clone();
        let orders = db.logs_to_send(self.unit).await?;
        if orders.is_empty() {
            return Ok(());
        }
        for order in &orders {
            let message = Message {
                header: self.header(Uuid::new_v4().to_string()),
                correlation_id: Some(order.id.to_string()),
                body: Body::RequestLog(request(order)),
            };
            let now = self.steady.now();
            self.session.handle(
                now,
                Input::Send(aos_session::Message {
                    txn: message.header.txn.clone(),
                    payload: message.encode().into(),
                    priority: Priority::Normal,
                    keep: Keep::Durable,
                    topic: None,
                }),
            );
        }
        let records = self.records_ahead();
        Ok(db.logs_sent(self.unit, &orders, &records).await?)
    }
}

/// What the Unit is asked. An id that it could not read is left out: it names nothing there.
fn request(order: &LogOrder) -> RequestLog {
    let live = order.follow_until.is_some();
    RequestLog {
        log_type: match order.log_type {
            LogKind::System => LogType::System,
            LogKind::Instance => LogType::Instance,
            LogKind::Crash => LogType::Crash,
        },
        filter: LogFilter {
            from: order.date_from,
            till: order.follow_until.or(order.date_till),
            nodes: order
                .nodes
                .iter()
                .filter_map(|node| NodeId::new(node).ok())
                .collect(),
            item: order.item_id.as_ref().and_then(|id| ItemId::new(id).ok()),
            subject: order
                .subject_id
                .as_ref()
                .and_then(|id| SubjectId::new(id).ok()),
            instance: order.instance,
        },
        upload_options: live.then_some(UploadOptions {
            upload_type: UploadType::Wss,
            url: None,
            bearer_token: None,
            bearer_token_ttl: None,
        }),
    }
}

/// What a Unit said, in the words of the store; nothing if it answers no request of ours.
pub(super) fn part(correlation_id: Option<&str>, part: PushLog) -> Option<LogPart> {
    let request = Uuid::parse_str(correlation_id?).ok()?;
    Some(LogPart {
        request,
        node_id: part.node.to_string(),
        part: part.part,
        parts_count: part.parts_count,
        content: part.content,
        state: match part.status {
            LogStatus::Ok => NodeLogState::Ok,
            LogStatus::Failed => NodeLogState::Failed,
            LogStatus::Empty => NodeLogState::Empty,
            LogStatus::Absent => NodeLogState::Absent,
        },
        message: part.error.map(|error| error.message),
    })
}
