use std::rc::Rc;

use aos_session::Frame;
use aos_types::InstanceIdent;

use crate::{
    cm::List,
    node::Snapshot,
    words::{Blob, Inst},
};

/// Everything that can happen. `life` tells the events of a process from those of its former lives.
#[derive(Debug)]
pub(crate) enum Event {
    /// The cloud makes another desired state.
    Wish,
    /// Something goes wrong from outside.
    Trouble,
    /// Something that went wrong is over.
    Over(Over),
    /// Trouble pauses; when it is over the Unit must be as it shall.
    CalmBegins(u32),
    CalmEnds(u32),
    /// The cloud sets variables.
    Override,
    /// The time of a variable may be over.
    CmEnds {
        life: u32,
    },
    /// An application on the Unit has something to tell the cloud.
    Alert,

    CmBoot {
        life: u32,
    },
    /// The time the engine asked for.
    CmWake {
        life: u32,
        serial: u64,
    },
    /// A desired state has reached the engine's task.
    CmTake {
        life: u32,
        txn: String,
        message: u32,
    },
    Job {
        life: u32,
        id: u64,
        step: Step,
    },
    CmFollow {
        life: u32,
    },
    /// Somebody on the Unit starts an update, consents to it, or refuses.
    Person {
        life: u32,
    },
    /// An answer to an effect of long ago.
    Stale {
        life: u32,
    },
    /// The Unit says that its readiness may have changed.
    LookAgain,
    /// A Node counts as lost, or an order is late: time to look.
    CmLook {
        life: u32,
    },
    /// An order or an install order to a Node is late.
    OrderLate {
        life: u32,
        node: usize,
        order: u64,
    },
    /// A Node takes too long to install what a list brings.
    PrepareLate {
        life: u32,
        id: u64,
        node: usize,
        order: u64,
    },
    CmInstalled {
        life: u32,
        conn: u64,
        node: usize,
        order: u64,
        failed: Vec<Inst>,
        images: Vec<(u8, u8)>,
    },
    CmReport {
        life: u32,
        conn: u64,
        node: usize,
        snapshot: Rc<Snapshot>,
    },
    CmStatus {
        life: u32,
    },
    CmTidy {
        life: u32,
    },

    LinkWake {
        life: u32,
        serial: u64,
    },
    CloudWake {
        life: u32,
        serial: u64,
    },
    CloudBoot {
        life: u32,
    },
    CloudTake {
        life: u32,
        txn: String,
        message: u32,
    },
    /// An attempt to reach the cloud has ended.
    Dialled {
        life: u32,
    },
    Packet {
        to_unit: bool,
        conn: u64,
        frame: Frame,
        corrupt: bool,
    },

    NodeBoot {
        node: usize,
        life: u32,
    },
    SmBoot {
        node: usize,
        life: u32,
    },
    NodeConnect {
        node: usize,
        life: u32,
    },
    NodeList {
        node: usize,
        conn: u64,
        order: u64,
        list: List,
        stop: Vec<InstanceIdent>,
    },
    NodeInstall {
        node: usize,
        conn: u64,
        order: u64,
        wanted: Vec<Inst>,
        images: Vec<(u8, u8)>,
    },
    Ordered {
        node: usize,
        life: u32,
        conn: u64,
        order: u64,
        wanted: Vec<Inst>,
        images: Vec<(u8, u8)>,
    },
    Installed {
        node: usize,
        life: u32,
        launch: u64,
    },
    Relaunch {
        node: usize,
        life: u32,
        launch: u64,
    },
    Switched {
        node: usize,
        life: u32,
        launch: u64,
    },
    Settled {
        node: usize,
        life: u32,
        inst: Inst,
        pid: u64,
    },
    ProcEnds {
        node: usize,
        pid: u64,
    },
    StartAgain {
        node: usize,
        life: u32,
        inst: Inst,
        token: u64,
    },
    NodeTells {
        node: usize,
        life: u32,
    },
    /// A Node that was started without a link must run its set by now.
    NodeCheck {
        node: usize,
        life: u32,
    },
}

/// How an effect of the engine goes on.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    Begin,
    Ready(bool),
    Ask,
    AskLate(u32),
    Fetched(Blob),
    Go,
    Late,
}

/// What is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    Link,
    Space,
    NodeLink(usize),
    NodeAway(usize),
}
