use std::collections::BTreeMap;

use aos_ipc::{
    convert::time_from_proto,
    proto::servicemanager::v5::{
        self as pb, sm_incoming_messages::SmIncomingMessage,
        sm_outgoing_messages::SmOutgoingMessage, sm_service_client::SmServiceClient,
    },
};
use aos_log::Span;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::{Link, messages};
use crate::{
    launcher::Snapshot,
    logs::{Ask, Selection, What, busy, queue_of_asks},
};

/// Messages that wait for CM.
const QUEUE: usize = 64;

type Out = mpsc::Sender<pb::SmOutgoingMessages>;

impl Link {
    /// The control channel; gives the reason of its end.
    pub(super) async fn register(&self, channel: Channel) -> String {
        let mut snapshots = self.launcher.snapshots();
        // What runs is known once the stored set was restored; before that CM would be told too little.
        let first = match snapshots.wait_for(|snapshot| snapshot.launches > 0).await {
            Ok(snapshot) => snapshot.clone(),
            Err(_) => return "SM stops".into(),
        };
        let (out, messages) = mpsc::channel(QUEUE);
        let introduction = [
            SmOutgoingMessage::SmInfo(self.info.clone()),
            messages::complete(&first),
        ];
        for message in introduction {
            if say(&out, message).await.is_err() {
                return "the stream to CM has ended".into();
            }
        }
        let mut client =
            SmServiceClient::new(channel).max_decoding_message_size(aos_ipc::MAX_MESSAGE);
        let mut orders = match client.register_sm(ReceiverStream::new(messages)).await {
            Ok(answer) => answer.into_inner(),
            Err(status) => return aos_ipc::reason(&status),
        };
        tracing::info!(cm = self.address, "connected to CM");
        let (asks, waiting) = queue_of_asks();
        let tell = self.tell(&out, snapshots, first);
        let listen = async {
            loop {
                match orders.message().await {
                    Ok(Some(order)) => {
                        if let Some(order) = order.sm_incoming_message
                            && self.obey(order, &out, &asks).await.is_err()
                        {
                            return "the stream to CM has ended".to_owned();
                        }
                    }
                    Ok(None) => return "CM has closed the stream".into(),
                    Err(status) => return aos_ipc::reason(&status),
                }
            }
        };
        let alert = async {
            self.alerts
                .follow(|alert| say(&out, SmOutgoingMessage::Alert(alert)))
                .await;
            "the stream to CM has ended".to_owned()
        };
        let measure = async {
            let mut latest = self.monitoring.latest();
            // What was measured before the session is of no interest.
            while latest.changed().await.is_ok() {
                let message = latest.borrow_and_update().as_deref().cloned();
                if let Some(message) = message
                    && say(&out, SmOutgoingMessage::InstantMonitoring(message))
                        .await
                        .is_err()
                {
                    return "the stream to CM has ended".to_owned();
                }
            }
            "SM stops".to_owned()
        };
        let answer = async {
            self.logs
                .serve(waiting, |part| say(&out, SmOutgoingMessage::Log(part)))
                .await;
            "the stream to CM has ended".to_owned()
        };
        // All end with the stream.
        tokio::select! {
            why = tell => why,
            why = measure => why,
            why = listen => why,
            why = alert => why,
            why = answer => why,
        }
    }

    /// Tells every change, and all instances when a list was carried out.
    async fn tell(
        &self,
        out: &Out,
        mut snapshots: tokio::sync::watch::Receiver<Snapshot>,
        first: Snapshot,
    ) -> String {
        let mut told: BTreeMap<_, _> = (*first.instances).clone();
        let mut launches = first.launches;
        loop {
            if snapshots.changed().await.is_err() {
                return "SM stops".into();
            }
            let now = snapshots.borrow_and_update().clone();
            let message = if now.launches != launches {
                Some(messages::complete(&now))
            } else {
                messages::changed(&told, &now.instances)
            };
            told.clone_from(&now.instances);
            launches = now.launches;
            if let Some(message) = message
                && say(out, message).await.is_err()
            {
                return "the stream to CM has ended".into();
            }
        }
    }

    /// Does what CM asks. Nothing here takes long: the list is only handed on.
    async fn obey(
        &self,
        order: SmIncomingMessage,
        out: &Out,
        asks: &mpsc::Sender<Ask>,
    ) -> Result<(), ()> {
        match order {
            SmIncomingMessage::UpdateInstances(list) => {
                self.launcher.want(messages::desired(list));
                Ok(())
            }
            SmIncomingMessage::GetNodeConfigStatus(_) => {
                let status = self.node_configs.status().await;
                say(out, messages::config_status(status)).await
            }
            SmIncomingMessage::CheckNodeConfig(ask) => {
                let status = self
                    .node_configs
                    .check(&ask.version, &ask.node_config)
                    .await;
                say(out, messages::config_status(status)).await
            }
            SmIncomingMessage::SetNodeConfig(set) => {
                let status = self.node_configs.set(&set.version, &set.node_config).await;
                say(out, messages::config_status(status)).await
            }
            SmIncomingMessage::ConnectionStatus(status) => {
                let online = status.cloud_status() == pb::ConnectionEnum::Connected;
                self.online.send_if_modified(|now| {
                    let changed = *now != online;
                    *now = online;
                    changed
                });
                Ok(())
            }
            SmIncomingMessage::SystemLogRequest(ask) => {
                let span = Span {
                    from: time_from_proto(ask.from),
                    till: time_from_proto(ask.till),
                };
                queue(out, asks, ask.correlation_id, What::System, span).await
            }
            SmIncomingMessage::InstanceLogRequest(ask) => {
                let span = Span {
                    from: time_from_proto(ask.from),
                    till: time_from_proto(ask.till),
                };
                let what = What::Instances(Selection::read(ask.filter));
                queue(out, asks, ask.correlation_id, what, span).await
            }
            SmIncomingMessage::InstanceCrashLogRequest(ask) => {
                let span = Span {
                    from: time_from_proto(ask.from),
                    till: time_from_proto(ask.till),
                };
                let what = What::Crashes(Selection::read(ask.filter));
                queue(out, asks, ask.correlation_id, what, span).await
            }
            SmIncomingMessage::GetAverageMonitoring(_) => {
                let answer = self.monitoring.average();
                say(out, SmOutgoingMessage::AverageMonitoring(answer)).await
            }
        }
    }
}

/// Has a request wait for its turn; one too many is answered at once.
async fn queue(
    out: &Out,
    asks: &mpsc::Sender<Ask>,
    correlation_id: String,
    what: What,
    span: Span,
) -> Result<(), ()> {
    let ask = Ask {
        correlation_id,
        what,
        span,
    };
    match asks.try_send(ask) {
        Ok(()) => Ok(()),
        Err(mpsc::error::TrySendError::Full(ask) | mpsc::error::TrySendError::Closed(ask)) => {
            say(out, SmOutgoingMessage::Log(busy(ask.correlation_id))).await
        }
    }
}

async fn say(out: &Out, message: SmOutgoingMessage) -> Result<(), ()> {
    out.send(pb::SmOutgoingMessages {
        sm_outgoing_message: Some(message),
    })
    .await
    .map_err(|_| ())
}
