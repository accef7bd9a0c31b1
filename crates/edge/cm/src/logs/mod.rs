//! Requests for logs, from the cloud to the Nodes and back: whoever asks is answered, within a deadline (`aos-log`
//! decides), and what is in hand when CM ends is answered for by the next one.
//!
//! Parts that were asked for are kept until the cloud has them. Lines of a live log are not: as long as some of them wait
//! for the cloud's acknowledgement, further ones are left out and counted, so that a slow link carries everything else.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use aos_cloud_protocol::{Body, PushLog, RequestLog};
use aos_log::{Output, Reach, Requests, Wait};
use aos_session::{Handled, Keep, Priority};
use aos_store::Records;
use aos_time::{Clock, SteadyClock, SystemClock};
use aos_types::{ErrorInfo, NodeId};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::{
    cloud::{Answer, Link, Outgoing},
    contract::{Guarantee, LogLines, Nodes, NodesView},
    world::World,
};

/// What may wait for the desk.
const WAITING: usize = 64;
/// Longest correlation id that is kept.
const MOST_ID: usize = 256;
/// Messages of one live log that may wait for the cloud.
const UNACKED: usize = 4;

/// What the desk is told.
#[derive(Debug)]
pub(crate) enum Heard {
    /// A request of the cloud, and whom to tell that it is taken over.
    Asked(String, Box<RequestLog>, oneshot::Sender<Handled>),
    /// A part that a Node sent.
    Part(String, Box<PushLog>),
    /// Lines of a live log.
    Lines(LogLines),
}

/// What the desk works with.
pub(crate) struct Desk {
    pub(crate) nodes: Arc<dyn Nodes>,
    pub(crate) world: Arc<World>,
    pub(crate) link: Link,
    pub(crate) records: Records<Vec<NodeId>>,
    pub(crate) own: NodeId,
    pub(crate) wait: Wait,
}

/// Where the desk hears.
pub(crate) fn channel() -> (mpsc::Sender<Heard>, mpsc::Receiver<Heard>) {
    mpsc::channel(WAITING)
}

/// A Node that could not be asked, and why.
type Unasked = Option<(String, NodeId, ErrorInfo)>;

struct Working {
    desk: Desk,
    requests: Requests,
    steady: SteadyClock,
    /// Orders on their way to Nodes.
    asking: FuturesUnordered<BoxFuture<'static, Unasked>>,
    live: HashMap<String, Live>,
}

/// What of a live log waits for the cloud.
#[derive(Default)]
struct Live {
    unacked: Vec<oneshot::Receiver<Answer>>,
    left_out: u64,
}

impl Desk {
    /// Answers until `stop`.
    pub(crate) async fn run(
        self,
        mut heard: mpsc::Receiver<Heard>,
        stop: CancellationToken,
    ) -> Result<(), aos_store::Error> {
        let mut view = self.nodes.view();
        let mut working = Working {
            requests: Requests::new(self.wait),
            desk: self,
            steady: SteadyClock::start(),
            asking: FuturesUnordered::new(),
            live: HashMap::new(),
        };
        for (id, nodes) in working.desk.records.all().await? {
            working
                .carry_out(Requests::interrupted(&id, &nodes))
                .await?;
        }
        let mut connected = connections(&view.borrow_and_update());
        loop {
            let wake = working.requests.next_wake();
            let wake = wake.map(|at| at.since(working.steady.now()));
            // All arms are cancel-safe: what is not taken stays where it is.
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                one = heard.recv() => match one {
                    Some(one) => working.hear(one).await?,
                    None => {
                        stop.cancelled().await;
                        return Ok(());
                    }
                },
                Some(unasked) = working.asking.next() => {
                    if let Some((id, node, error)) = unasked {
                        let out = working.requests.unasked(&id, &node, error);
                        working.carry_out(out).await?;
                    }
                }
                changed = view.changed() => {
                    if changed.is_err() {
                        stop.cancelled().await;
                        return Ok(());
                    }
                    let now = connections(&view.borrow_and_update());
                    for (node, connection) in &connected {
                        if now.get(node) != Some(connection) {
                            let out = working.requests.left(node);
                            working.carry_out(out).await?;
                        }
                    }
                    connected = now;
                }
                () = sleep(wake) => {
                    let out = working.requests.wake(working.steady.now());
                    working.carry_out(out).await?;
                }
            }
        }
    }
}

async fn sleep(span: Option<Duration>) {
    match span {
        Some(span) => tokio::time::sleep(span).await,
        None => std::future::pending().await,
    }
}

fn connections(view: &NodesView) -> BTreeMap<NodeId, u64> {
    view.iter()
        .map(|(node, sm)| (node.clone(), sm.connection))
        .collect()
}

impl Working {
    async fn hear(&mut self, one: Heard) -> Result<(), aos_store::Error> {
        match one {
            Heard::Asked(id, request, done) => {
                let id: String = id.chars().take(MOST_ID).collect();
                let known = self.known();
                let out = self.requests.asked(
                    self.steady.now(),
                    SystemClock.now(),
                    id,
                    *request,
                    &known,
                    &self.desk.own,
                );
                self.carry_out(out).await?;
                // From here on it is answered, whatever happens.
                let _ = done.send(Handled::Accept);
                Ok(())
            }
            Heard::Part(id, part) => {
                let out = self.requests.part(self.steady.now(), &id, *part);
                self.carry_out(out).await
            }
            Heard::Lines(lines) => {
                let LogLines {
                    node,
                    correlation_id: id,
                    content,
                    end,
                    error,
                } = lines;
                let out = self.requests.live(&id, &node, content, end, error);
                self.carry_out(out).await
            }
        }
    }

    fn known(&self) -> BTreeMap<NodeId, Reach> {
        let nodes = self.desk.world.nodes().into_iter();
        nodes
            .map(|(node, known)| {
                let reach = match known.sm {
                    Some(sm) => Reach::Connected {
                        follows: sm.guarantee != Guarantee::PlainV5,
                    },
                    None => Reach::Away,
                };
                (node, reach)
            })
            .collect()
    }

    async fn carry_out(&mut self, out: Vec<Output>) -> Result<(), aos_store::Error> {
        for output in out {
            match output {
                Output::Persist { id, nodes } => self.desk.records.put(id, &nodes).await?,
                Output::Forget { id } => {
                    self.live.remove(&id);
                    self.desk.records.remove(id).await?;
                }
                Output::Ask { id, node, request } => {
                    let nodes = self.desk.nodes.clone();
                    let asking = async move {
                        let asked = nodes.request_log(&node, id.clone(), *request).await;
                        asked.err().map(|error| (id, node, error))
                    };
                    self.asking.push(asking.boxed());
                }
                Output::Answer {
                    id,
                    part,
                    live: true,
                } => self.tell_live(id, part).await,
                Output::Answer { id, part, .. } => {
                    let message = Outgoing::durable(Body::PushLog(part), Priority::Low);
                    self.desk.link.send(message.answering(Some(id))).await;
                }
            }
        }
        Ok(())
    }

    async fn tell_live(&mut self, id: String, mut part: PushLog) {
        let live = self.live.entry(id.clone()).or_default();
        live.unacked
            .retain_mut(|answer| answer.try_recv() == Err(oneshot::error::TryRecvError::Empty));
        if live.unacked.len() >= UNACKED || !self.desk.link.is_connected() {
            live.left_out += 1;
            return;
        }
        if live.left_out > 0 {
            let note = format!(
                "{} [aos] # {} pieces of this log were left out: the link to the cloud is slower than the log\n",
                SystemClock.now(),
                live.left_out
            );
            // Streams of gzip in a row are one.
            if let Ok(mut content) = aos_logs::gzip(note.as_bytes()) {
                live.left_out = 0;
                content.extend_from_slice(&part.content);
                part.content = content;
            }
        }
        let mut message = Outgoing::durable(Body::PushLog(part), Priority::Low);
        message.keep = Keep::Connection;
        let message = message.answering(Some(id));
        live.unacked
            .push(self.desk.link.send_and_watch(message).await);
    }
}
