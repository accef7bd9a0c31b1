use std::{
    mem::{Discriminant, discriminant},
    time::Duration,
};

use aos_ipc::proto::iamanager::v6::{
    self as pb, iam_incoming_messages::IamIncomingMessage as Order,
    iam_outgoing_messages::IamOutgoingMessage as Answer,
};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tonic::Status;

type Outgoing = Result<pb::IamIncomingMessages, Status>;

/// The stream to one Node. Orders go out one at a time; the next message of the answering kind is its answer.
pub(crate) struct Link {
    outgoing: mpsc::Sender<Outgoing>,
    waiting: std::sync::Mutex<Option<Waiting>>,
    turn: Mutex<()>,
    deadline: fn(&Order) -> Duration,
    /// Ends the stream.
    pub cut: CancellationToken,
}

struct Waiting {
    kind: Discriminant<Answer>,
    answer: oneshot::Sender<Answer>,
}

/// The Node did not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    Gone,
    TooLate,
}

impl Link {
    pub fn new(outgoing: mpsc::Sender<Outgoing>, cut: CancellationToken) -> Self {
        Self {
            outgoing,
            waiting: std::sync::Mutex::default(),
            turn: Mutex::default(),
            deadline: deadline_of,
            cut,
        }
    }

    /// Sends an order and waits for its answer. If that does not come in time the stream is cut, so that a late answer
    /// cannot be taken for the next one's.
    pub async fn call(&self, order: Order) -> Result<Answer, NoAnswer> {
        let deadline = (self.deadline)(&order);
        let _turn = self.turn.lock().await;
        let (sender, answer) = oneshot::channel();
        self.wait_for(Some(Waiting {
            kind: answer_of(&order),
            answer: sender,
        }));
        let exchange = async {
            let message = pb::IamIncomingMessages {
                iam_incoming_message: Some(order),
            };
            self.outgoing
                .send(Ok(message))
                .await
                .map_err(|_| NoAnswer::Gone)?;
            answer.await.map_err(|_| NoAnswer::Gone)
        };
        // In this order: a Node may answer and end its stream in one breath, and the answer counts.
        let answered = tokio::select! {
            biased;
            answered = tokio::time::timeout(deadline, exchange) => answered,
            () = self.cut.cancelled() => Ok(Err(NoAnswer::Gone)),
        };
        self.wait_for(None);
        answered.unwrap_or_else(|_| {
            self.cut.cancel();
            Err(NoAnswer::TooLate)
        })
    }

    /// Who waits for this answer, if anybody does.
    pub fn waiting_for(&self, answer: &Answer) -> Option<oneshot::Sender<Answer>> {
        let mut waiting = self
            .waiting
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        match waiting.take() {
            Some(one) if one.kind == discriminant(answer) => Some(one.answer),
            other => {
                *waiting = other;
                None
            }
        }
    }

    /// Ends when the Node no longer reads.
    pub async fn gone(&self) {
        self.outgoing.closed().await;
    }

    fn wait_for(&self, one: Option<Waiting>) {
        *self
            .waiting
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = one;
    }
}

fn deadline_of(order: &Order) -> Duration {
    Duration::from_secs(match order {
        Order::StartProvisioningRequest(_)
        | Order::FinishProvisioningRequest(_)
        | Order::DeprovisionRequest(_) => 300,
        _ => 60,
    })
}

fn answer_of(order: &Order) -> Discriminant<Answer> {
    discriminant(&match order {
        Order::StartProvisioningRequest(_) => Answer::StartProvisioningResponse(Default::default()),
        Order::GetCertTypesRequest(_) => Answer::CertTypesResponse(Default::default()),
        Order::FinishProvisioningRequest(_) => {
            Answer::FinishProvisioningResponse(Default::default())
        }
        Order::DeprovisionRequest(_) => Answer::DeprovisionResponse(Default::default()),
        Order::PauseNodeRequest(_) => Answer::PauseNodeResponse(Default::default()),
        Order::ResumeNodeRequest(_) => Answer::ResumeNodeResponse(Default::default()),
        Order::CreateKeyRequest(_) => Answer::CreateKeyResponse(Default::default()),
        Order::ApplyCertRequest(_) => Answer::ApplyCertResponse(Default::default()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order() -> Order {
        Order::GetCertTypesRequest(pb::GetCertTypesRequest::default())
    }

    #[tokio::test]
    async fn an_answer_goes_to_its_order_and_a_late_one_to_nobody() {
        let (outgoing, mut incoming) = mpsc::channel(4);
        let mut link = Link::new(outgoing, CancellationToken::new());
        let types = Answer::CertTypesResponse(pb::CertTypes {
            types: vec!["sm".into()],
        });
        let node = async {
            incoming.recv().await.unwrap().unwrap();
            let other = Answer::PauseNodeResponse(Default::default());
            assert!(link.waiting_for(&other).is_none());
            link.waiting_for(&types)
                .unwrap()
                .send(types.clone())
                .unwrap();
        };
        let (answer, ()) = tokio::join!(link.call(order()), node);
        assert_eq!(answer, Ok(types.clone()));
        // The answer counts also if the stream ends right after it.
        for _ in 0..50 {
            let (outgoing, mut incoming) = mpsc::channel(4);
            let brief = Link::new(outgoing, CancellationToken::new());
            let node = async {
                incoming.recv().await.unwrap().unwrap();
                let asked = brief.waiting_for(&types).unwrap();
                asked.send(types.clone()).unwrap();
                brief.cut.cancel();
            };
            let (answer, ()) = tokio::join!(brief.call(order()), node);
            assert_eq!(answer, Ok(types.clone()));
        }
        link.deadline = |_| Duration::from_millis(20);
        assert_eq!(link.call(order()).await, Err(NoAnswer::TooLate));
        assert!(link.cut.is_cancelled());
        assert!(link.waiting_for(&types).is_none());
        assert_eq!(link.call(order()).await, Err(NoAnswer::Gone));
    }
}
