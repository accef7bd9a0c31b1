//! A log request of the cloud, in the words of servicemanager.v5.

use aos_cloud_protocol::{LogType, RequestLog, UploadType};
use aos_ipc::{
    convert::time_to_proto,
    proto::{
        aos::node::v1 as node_pb,
        common::v2 as common,
        servicemanager::v5::{self as sm, sm_incoming_messages::SmIncomingMessage},
    },
};

/// The order to a Node.
pub(super) fn order(correlation_id: &str, request: &RequestLog) -> SmIncomingMessage {
    let correlation_id = correlation_id.to_owned();
    let from = request.filter.from.map(time_to_proto);
    let till = request.filter.till.map(time_to_proto);
    let filter = Some(filter(request));
    match request.log_type {
        LogType::System => SmIncomingMessage::SystemLogRequest(sm::SystemLogRequest {
            correlation_id,
            from,
            till,
        }),
        LogType::Instance => SmIncomingMessage::InstanceLogRequest(sm::InstanceLogRequest {
            correlation_id,
            filter,
            from,
            till,
        }),
        LogType::Crash => SmIncomingMessage::InstanceCrashLogRequest(sm::InstanceCrashLogRequest {
            correlation_id,
            filter,
            from,
            till,
        }),
    }
}

/// Whether lines are wanted as they come.
pub(super) fn is_live(request: &RequestLog) -> bool {
    let options = request.upload_options.as_ref();
    options.is_some_and(|options| options.upload_type == UploadType::Wss)
}

/// The order to a Node to tell lines as they come.
pub(super) fn follow(correlation_id: String, request: &RequestLog) -> node_pb::FollowLog {
    node_pb::FollowLog {
        correlation_id,
        system: request.log_type == LogType::System,
        filter: Some(filter(request)),
        from: request.filter.from.map(time_to_proto),
        till: request.filter.till.map(time_to_proto),
    }
}

/// What the cloud leaves out matches any instance; on the wire that is an empty id and a negative index.
fn filter(request: &RequestLog) -> common::InstanceFilter {
    let filter = &request.filter;
    common::InstanceFilter {
        item_id: filter
            .item
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        subject_id: filter
            .subject
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        instance: filter
            .instance
            .and_then(|index| i64::try_from(index).ok())
            .unwrap_or(-1),
    }
}
