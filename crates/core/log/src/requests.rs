use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use aos_cloud_protocol::{LogStatus, PushLog, RequestLog, UploadType};
use aos_time::Timestamp;
use aos_types::{AosCode, ErrorInfo, NodeId};

use crate::Span;

/// Most requests in hand; a further one is answered with an error.
const MOST_OPEN: usize = 16;
/// Most parts of one Node; a Node that sends more is not heard any further.
const MOST_PARTS: u64 = 256;

/// How a Node can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Its SM is connected.
    Connected {
        /// It can tell lines as they come.
        follows: bool,
    },
    /// It is of this Unit and its SM is not connected.
    Away,
}

/// How long a Node may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// Without a word.
    pub silent: Duration,
    /// In all.
    pub whole: Duration,
    /// The longest that lines are told as they come.
    pub live: Duration,
    /// After the end of that.
    pub farewell: Duration,
}

impl Default for Wait {
    fn default() -> Self {
        Self {
            silent: Duration::from_secs(60),
            whole: Duration::from_secs(600),
            live: Duration::from_secs(900),
            farewell: Duration::from_secs(30),
        }
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Keep over a restart that these Nodes owe an answer.
    Persist {
        /// Whose request.
        id: String,
        /// Which Nodes.
        nodes: Vec<NodeId>,
    },
    /// Ask a Node.
    Ask {
        /// Whose request.
        id: String,
        /// Which Node.
        node: NodeId,
        /// For what; for a live log also until when, as `till`.
        request: Box<RequestLog>,
    },
    /// Tell the cloud.
    Answer {
        /// Whose request.
        id: String,
        /// What.
        part: PushLog,
        /// A piece of a live log: it may get lost, what is asked for may not.
        live: bool,
    },
    /// The request has been answered.
    Forget {
        /// Whose.
        id: String,
    },
}

/// A request in hand.
#[derive(Debug, Clone, PartialEq)]
pub struct Open {
    request: RequestLog,
    live: bool,
    /// No Node may take longer.
    end: Timestamp,
    owing: BTreeMap<NodeId, Owing>,
}

/// What a Node still has to say.
#[derive(Debug, Clone, PartialEq, Default)]
struct Owing {
    seen: BTreeSet<u64>,
    live: u64,
    late: Timestamp,
}

/// CM's book of requests for logs: whoever is asked for answers, or is answered for, within a deadline.
///
/// ```text
///   asked ──► unknown Node: absent at once      away: failed at once      connected: asked
///   part, part, … ──► the last one, or a word that there is none ──► done
///   silent for a minute, the Node leaves, CM is started anew ──► failed, and why
/// ```
///
/// Of requests this says nothing twice: a repetition while it is in hand is passed over. A live one (`wss`, with `till`
/// ahead) that comes again has its end moved.
#[derive(Debug, Default)]
pub struct Requests {
    wait: Wait,
    open: BTreeMap<String, Open>,
}

impl Requests {
    /// An empty book.
    pub fn new(wait: Wait) -> Self {
        Self {
            wait,
            open: BTreeMap::new(),
        }
    }

    /// Answers for Nodes that were asked before a restart.
    pub fn interrupted(id: &str, nodes: &[NodeId]) -> Vec<Output> {
        let error = ErrorInfo::new(
            AosCode::Canceled,
            "CM was started anew while the log was fetched: ask for it again",
        );
        let mut out: Vec<Output> = nodes
            .iter()
            .map(|node| say(id, node, LogStatus::Failed, Some(error.clone())))
            .collect();
        out.push(Output::Forget { id: id.to_owned() });
        out
    }

    /// A request of the cloud. `known` are the Nodes of the Unit, `own` is the one that CM runs on. `utc` is the time of
    /// the world, in which spans are meant; `now` that of waits.
    pub fn asked(
        &mut self,
        now: Timestamp,
        utc: Timestamp,
        id: String,
        mut request: RequestLog,
        known: &BTreeMap<NodeId, Reach>,
        own: &NodeId,
    ) -> Vec<Output> {
        let options = request.upload_options.as_ref();
        let wss = options.is_some_and(|options| options.upload_type == UploadType::Wss);
        let till = request
            .filter
            .till
            .map(|till| till.min(utc + self.wait.live));
        if let (true, Some(till), Some(open)) = (wss, till, self.open.get_mut(&id))
            && open.live
        {
            open.end = now + till.since(utc) + self.wait.farewell;
            open.request.filter.till = Some(till);
            for owing in open.owing.values_mut() {
                owing.late = open.end;
            }
            let nodes = open.owing.keys();
            return nodes.map(|node| ask(&id, node, &open.request)).collect();
        }
        let live = wss && till.is_some_and(|till| till > utc);
        if live {
            request.filter.till = till;
        } else {
            // Whatever way was named, parts go by this link.
            request.upload_options = None;
        }
        if self.open.contains_key(&id) {
            return Vec::new();
        }
        let asked: Vec<NodeId> = if request.filter.nodes.is_empty() {
            known.keys().cloned().collect()
        } else {
            let listed: BTreeSet<NodeId> = request.filter.nodes.iter().cloned().collect();
            listed.into_iter().collect()
        };
        if asked.is_empty() {
            let error = ErrorInfo::new(AosCode::NotFound, "this Unit knows no Node of its own yet");
            return vec![say(&id, own, LogStatus::Failed, Some(error))];
        }
        let of_all = |status: LogStatus, error: &ErrorInfo| -> Vec<Output> {
            let answer = |node| say(&id, node, status, Some(error.clone()));
            asked.iter().map(answer).collect()
        };
        let span = Span {
            from: request.filter.from,
            till: request.filter.till,
        };
        if span.is_empty() {
            let why = "nothing can lie in the time that was asked for: `till` is not after `from`";
            return of_all(
                LogStatus::Empty,
                &ErrorInfo::new(AosCode::InvalidArgument, why),
            );
        }
        if self.open.len() >= MOST_OPEN {
            let why = format!(
                "this Unit answers {MOST_OPEN} requests for logs already: ask again when they are done"
            );
            return of_all(LogStatus::Failed, &ErrorInfo::new(AosCode::WrongState, why));
        }
        let end = match (live, request.filter.till) {
            (true, Some(till)) => now + till.since(utc) + self.wait.farewell,
            _ => now + self.wait.whole,
        };
        let late = if live { end } else { now + self.wait.silent };
        let mut out = Vec::new();
        let mut owing = BTreeMap::new();
        for node in asked {
            match known.get(&node) {
                Some(Reach::Connected { follows }) if *follows || !live => {
                    out.push(ask(&id, &node, &request));
                    let first = Owing {
                        late,
                        ..Owing::default()
                    };
                    owing.insert(node, first);
                }
                Some(Reach::Connected { .. }) => {
                    let why = format!(
                        "SM of Node {node} cannot tell lines as they come: ask for a time that is over"
                    );
                    let error = ErrorInfo::new(AosCode::NotSupported, why);
                    out.push(say(&id, &node, LogStatus::Failed, Some(error)));
                }
                Some(Reach::Away) => {
                    let error = ErrorInfo::new(AosCode::WrongState, away(&node));
                    out.push(say(&id, &node, LogStatus::Failed, Some(error)));
                }
                None => {
                    let why = format!("this Unit has no Node {node}");
                    let error = ErrorInfo::new(AosCode::NotFound, why);
                    out.push(say(&id, &node, LogStatus::Absent, Some(error)));
                }
            }
        }
        if !owing.is_empty() {
            let nodes = owing.keys().cloned().collect();
            out.insert(
                0,
                Output::Persist {
                    id: id.clone(),
                    nodes,
                },
            );
            let open = Open {
                request,
                live,
                end,
                owing,
            };
            self.open.insert(id, open);
        }
        out
    }

    /// A part that a Node sent. One that nobody waits for is passed over.
    pub fn part(&mut self, now: Timestamp, id: &str, mut part: PushLog) -> Vec<Output> {
        let Some(open) = self.open.get_mut(id).filter(|open| !open.live) else {
            return Vec::new();
        };
        let Some(owing) = open.owing.get_mut(&part.node) else {
            return Vec::new();
        };
        owing.late = (now + self.wait.silent).min(open.end);
        let node = part.node.clone();
        let repeated = !owing.seen.insert(part.part);
        if part.status == LogStatus::Ok && repeated {
            return Vec::new();
        }
        let count = u64::try_from(owing.seen.len()).unwrap_or(u64::MAX);
        let mut done = part.status != LogStatus::Ok || count >= part.parts_count;
        if !done && count > MOST_PARTS {
            let why =
                format!("Node {node} sends more than {MOST_PARTS} parts: the rest is left out");
            part = nothing(
                &node,
                LogStatus::Failed,
                Some(ErrorInfo::new(AosCode::OutOfRange, why)),
            );
            done = true;
        }
        let mut out = vec![Output::Answer {
            id: id.to_owned(),
            part,
            live: false,
        }];
        if done {
            out.extend(self.done(id, &node));
        }
        out
    }

    /// Lines as they come. `end`: there will be no more, because of `error` if there is one.
    pub fn live(
        &mut self,
        id: &str,
        node: &NodeId,
        content: Vec<u8>,
        end: bool,
        error: Option<ErrorInfo>,
    ) -> Vec<Output> {
        let Some(open) = self.open.get_mut(id).filter(|open| open.live) else {
            return Vec::new();
        };
        let Some(owing) = open.owing.get_mut(node) else {
            return Vec::new();
        };
        let mut out = Vec::new();
        if !content.is_empty() {
            owing.live += 1;
            out.push(Output::Answer {
                id: id.to_owned(),
                part: PushLog {
                    node: node.clone(),
                    part: owing.live,
                    parts_count: 0,
                    content,
                    status: LogStatus::Ok,
                    error: None,
                },
                live: true,
            });
        }
        if end {
            let last = owing.live + 1;
            let status = match error {
                Some(_) => LogStatus::Failed,
                None => LogStatus::Empty,
            };
            let part = PushLog {
                part: last,
                parts_count: last,
                ..nothing(node, status, error)
            };
            out.push(Output::Answer {
                id: id.to_owned(),
                part,
                live: false,
            });
            out.extend(self.done(id, node));
        }
        out
    }

    /// SM of a Node is gone: what it owed it will not give.
    pub fn left(&mut self, node: &NodeId) -> Vec<Output> {
        let owing = self.open.iter();
        let ids: Vec<String> = owing
            .filter(|(_, open)| open.owing.contains_key(node))
            .map(|(id, _)| id.clone())
            .collect();
        let mut out = Vec::new();
        for id in ids {
            let why = format!("Node {node} left before it had told all: ask again");
            let error = ErrorInfo::new(AosCode::Canceled, why);
            out.push(say(&id, node, LogStatus::Failed, Some(error)));
            out.extend(self.done(&id, node));
        }
        out
    }

    /// A Node could not be asked.
    pub fn unasked(&mut self, id: &str, node: &NodeId, error: ErrorInfo) -> Vec<Output> {
        let Some(open) = self.open.get(id) else {
            return Vec::new();
        };
        if !open.owing.contains_key(node) {
            return Vec::new();
        }
        let mut out = vec![say(id, node, LogStatus::Failed, Some(error))];
        out.extend(self.done(id, node));
        out
    }

    /// Answers for those who are late.
    pub fn wake(&mut self, now: Timestamp) -> Vec<Output> {
        let mut late = Vec::new();
        for (id, open) in &self.open {
            for (node, owing) in &open.owing {
                if owing.late <= now {
                    late.push((id.clone(), node.clone(), owing.seen.len()));
                }
            }
        }
        let mut out = Vec::new();
        for (id, node, seen) in late {
            let why = format!(
                "Node {node} did not tell its log in time; {seen} parts came: look at its SM, or ask for a shorter time"
            );
            let error = ErrorInfo::new(AosCode::Timeout, why);
            out.push(say(&id, &node, LogStatus::Failed, Some(error)));
            out.extend(self.done(&id, &node));
        }
        out
    }

    /// When somebody will be late.
    pub fn next_wake(&self) -> Option<Timestamp> {
        let owing = self.open.values().flat_map(|open| open.owing.values());
        owing.map(|owing| owing.late).min()
    }

    fn done(&mut self, id: &str, node: &NodeId) -> Option<Output> {
        let open = self.open.get_mut(id)?;
        open.owing.remove(node);
        if !open.owing.is_empty() {
            return None;
        }
        self.open.remove(id);
        Some(Output::Forget { id: id.to_owned() })
    }
}

fn away(node: &NodeId) -> String {
    format!("SM of Node {node} is not connected: ask again when it is")
}

fn ask(id: &str, node: &NodeId, request: &RequestLog) -> Output {
    Output::Ask {
        id: id.to_owned(),
        node: node.clone(),
        request: Box::new(request.clone()),
    }
}

fn nothing(node: &NodeId, status: LogStatus, error: Option<ErrorInfo>) -> PushLog {
    PushLog {
        node: node.clone(),
        part: 1,
        parts_count: 1,
        content: Vec::new(),
        status,
        error,
    }
}

fn say(id: &str, node: &NodeId, status: LogStatus, error: Option<ErrorInfo>) -> Output {
    Output::Answer {
        id: id.to_owned(),
        part: nothing(node, status, error),
        live: false,
    }
}
