//! A Node that is not the main one keeps a stream open to the main Node's IAM: by its bootstrap certificate while it is
//! unprovisioned, by its `iam` certificate afterwards. It changes from one to the other by itself.

use std::{path::PathBuf, sync::Arc, time::Duration};

use aos_ipc::{
    convert::node_info_to_proto,
    proto::iamanager::v6::{
        self as pb, iam_outgoing_messages::IamOutgoingMessage as Answer,
        iam_public_nodes_service_client::IamPublicNodesServiceClient,
    },
};
use aos_pki::{BootstrapKey, CertKind, CertSource, ClientTls, Expect, Roots, Trust, unit_client};
use aos_time::{Chance, SystemChance};
use aos_types::NodeState;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::{MainIam, node::ThisNode, nodes::info_message};

/// First and longest wait before the next attempt.
const WAIT: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));
/// How long the main Node may take to close a stream that we have ended.
const CLOSE: Duration = Duration::from_secs(5);

/// What the stream needs.
pub(crate) struct Secondary {
    pub this: ThisNode,
    pub main: MainIam,
    pub bootstrap: PathBuf,
}

/// Why a stream ended.
enum Ended {
    /// This Node changed from unprovisioned to provisioned or back.
    Changed,
    Failed(String),
}

impl Secondary {
    /// Keeps the stream until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let this = Arc::new(self);
        let mut wait = WAIT.0;
        while !stop.is_cancelled() {
            // Cancel-safe: an order in hand is carried out to its end, because a Node handles it in one piece on the
            // blocking pool and stores each step; what is lost is its answer, as by a lost connection.
            let ended = tokio::select! {
                ended = this.stream(&mut wait) => ended,
                () = stop.cancelled() => return,
            };
            match ended {
                Ended::Changed => {
                    wait = WAIT.0;
                    continue;
                }
                Ended::Failed(reason) => {
                    tracing::warn!(
                        main = this.main.protected,
                        reason,
                        "no stream to the main Node's IAM"
                    );
                }
            }
            let jitter = SystemChance.below(u64::try_from(wait.as_millis()).unwrap_or(500) / 2);
            let pause = wait + Duration::from_millis(jitter);
            wait = (wait * 2).min(WAIT.1);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// How to talk to the main Node's IAM in the present state.
    fn tls(&self) -> Result<ClientTls, String> {
        let keys = &self.this.keys;
        if self.this.is_provisioned() {
            let expect = Expect::kinds([CertKind::Iam]).same_unit();
            return Ok(unit_client(&keys.source, &keys.trust, expect));
        }
        let node = self.this.info().id;
        let key = BootstrapKey::load(&self.bootstrap).map_err(|error| text(&error))?;
        keys.use_bootstrap(&key, &node)
            .map_err(|error| text(&error))?;
        let own = key.credentials(Some(&node)).map_err(|error| text(&error))?;
        let trust = Trust::new(Roots::default());
        trust.set_bootstrap(Some(&key));
        let expect = Expect::kinds([CertKind::Bootstrap]);
        Ok(unit_client(&CertSource::with(own), &trust, expect).bootstrap())
    }

    async fn stream(&self, wait: &mut Duration) -> Ended {
        match self.try_stream(wait).await {
            Ok(()) => Ended::Changed,
            Err(reason) => Ended::Failed(reason),
        }
    }

    async fn try_stream(&self, wait: &mut Duration) -> Result<(), String> {
        let mut info = self.this.subscribe();
        let first = info.borrow_and_update().clone();
        let provisioned = first.state != NodeState::Unprovisioned;
        let tls = self.tls()?;
        let channel = aos_ipc::connect(&self.main.protected, &tls)
            .await
            .map_err(|error| text(&error))?;
        let (answers, outgoing) = mpsc::channel(8);
        answers
            .send(info_message(&first))
            .await
            .map_err(|_| "the stream closed at once".to_owned())?;
        let mut client = IamPublicNodesServiceClient::new(channel);
        let opened = tokio::time::timeout(
            Duration::from_secs(10),
            client.register_node(ReceiverStream::new(outgoing)),
        );
        let mut orders = opened
            .await
            .map_err(|_| "the main Node's IAM does not answer".to_owned())?
            .map_err(|status| aos_ipc::reason(&status))?
            .into_inner();
        tracing::info!(
            main = self.main.protected,
            provisioned,
            "registered at the main Node's IAM"
        );
        let changed = |state: NodeState| (state != NodeState::Unprovisioned) != provisioned;
        loop {
            // Both arms are cancel-safe: a message not yet taken stays in the stream, a change stays in the watch.
            let order = tokio::select! {
                order = orders.message() => order.map_err(|status| aos_ipc::reason(&status))?,
                seen = info.changed() => {
                    seen.map_err(|_| "this Node is gone".to_owned())?;
                    let present = info.borrow_and_update().clone();
                    if changed(present.state) {
                        break;
                    }
                    self.tell(&answers, &present).await?;
                    continue;
                }
            };
            let Some(order) = order else {
                return Err("the main Node's IAM closed the stream".into());
            };
            *wait = WAIT.0;
            let Some(order) = order.iam_incoming_message else {
                tracing::warn!("the main Node's IAM sent an order that is not known here");
                continue;
            };
            let answer = self.this.handle(order).await;
            if info.has_changed().unwrap_or(false) {
                let present = info.borrow_and_update().clone();
                self.tell(&answers, &present).await?;
            }
            let leave = changed(self.this.info().state);
            send(&answers, answer).await?;
            if leave {
                break;
            }
        }
        // The answer must arrive before the stream ends: the main Node closes it after it has read our end.
        drop(answers);
        let _ = tokio::time::timeout(CLOSE, async {
            while let Ok(Some(_)) = orders.message().await {}
        })
        .await;
        Ok(())
    }

    async fn tell(
        &self,
        answers: &mpsc::Sender<pb::IamOutgoingMessages>,
        info: &aos_types::NodeInfo,
    ) -> Result<(), String> {
        send(answers, Answer::NodeInfo(node_info_to_proto(info))).await
    }
}

async fn send(
    answers: &mpsc::Sender<pb::IamOutgoingMessages>,
    answer: Answer,
) -> Result<(), String> {
    answers
        .send(pb::IamOutgoingMessages {
            iam_outgoing_message: Some(answer),
        })
        .await
        .map_err(|_| "the stream to the main Node's IAM ended".into())
}

fn text(error: &(dyn std::error::Error + 'static)) -> String {
    aos_types::ErrorInfo::from_error(aos_types::AosCode::Failed, error).message
}
