//! The whole small world of one run: the Unit, its cloud, what lies between, and time.

use std::{collections::BTreeMap, time::Duration};

use aos_time::Timestamp;

use crate::{
    cloud::Cloud,
    cm::Cm,
    coverage::{Coverage, Fault},
    dice::Dice,
    draw::{DAY, HOUR, Intent, MIN, RUN, SEC, Scene},
    event::{Event, Over},
    mutation::Mutation,
    node::Node,
    oracle::{Broken, Oracle},
    overrides::Overrides,
    queue::Queue,
    wire::Wire,
    words::Names,
};

/// What a message says, in either direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    /// To the Unit: this desired state.
    Desired(usize),
    /// To the Unit: the blobs of a question that the cloud has.
    Urls(u32, Vec<crate::words::Blob>),
    /// To the cloud: where are these?
    Ask(u32, Vec<crate::words::Blob>),
    /// To the cloud: how the Unit is.
    Status(Box<Status>),
    /// To the cloud: something that must not be lost.
    Alert(u32),
    /// To the cloud: so many messages were dropped.
    Lost(u64),
    /// To the Unit: these variables.
    Override(usize),
    /// To the Unit: something nobody can use.
    Useless,
}

/// A full status, as far as the oracle wants to know.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Status {
    pub(crate) committed: BTreeMap<u8, u8>,
    pub(crate) failure: Option<String>,
    pub(crate) rollback: Option<String>,
    pub(crate) busy: bool,
}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    /// The promise that was broken, if one was.
    pub broken: Option<Broken>,
    /// What was met.
    pub coverage: Coverage,
    /// What happened, if it was asked for.
    pub trace: Vec<String>,
}

pub(crate) struct World {
    pub(crate) now: Timestamp,
    pub(crate) queue: Queue,
    pub(crate) dice: Dice,
    pub(crate) scene: Scene,
    pub(crate) names: Names,
    pub(crate) mutation: Option<Mutation>,
    pub(crate) cm: Cm,
    pub(crate) nodes: Vec<Node>,
    pub(crate) cloud: Cloud,
    pub(crate) wire: Wire,
    pub(crate) messages: Vec<Message>,
    pub(crate) wishes: Vec<Intent>,
    pub(crate) overrides: Vec<Overrides>,
    pub(crate) calm: bool,
    /// The trouble from outside was taken back for good.
    pub(crate) over: bool,
    pub(crate) oracle: Oracle,
    pub(crate) coverage: Coverage,
    pub(crate) trace: Option<Vec<String>>,
    pub(crate) pids: u64,
    pub(crate) alerts: u32,
}

/// Begin of all runs: a moment with a date that people recognise.
const BEGIN: Timestamp = Timestamp::from_secs(1_800_000_000);

impl World {
    /// Runs one seed to its end or to the first broken promise.
    pub(crate) fn run(seed: u64, mutation: Option<Mutation>, traced: bool) -> Outcome {
        let mut dice = Dice::new(seed);
        let scene = Scene::draw(&mut dice);
        let names = Names::new(&scene);
        let Some(names) = names else {
            return Outcome {
                broken: None,
                coverage: Coverage::default(),
                trace: Vec::new(),
            };
        };
        let nodes = (0..scene.nodes).map(Node::new).collect();
        let mut world = Self {
            now: BEGIN,
            queue: Queue::default(),
            cm: Cm::new(scene.space),
            nodes,
            cloud: Cloud::new(BEGIN, dice.split(), mutation),
            wire: Wire::default(),
            messages: Vec::new(),
            wishes: vec![Intent::default()],
            overrides: Vec::new(),
            calm: false,
            over: false,
            oracle: Oracle::new(BEGIN),
            coverage: Coverage::default(),
            trace: traced.then(Vec::new),
            pids: 0,
            alerts: 0,
            dice,
            scene,
            names,
            mutation,
        };
        world.begin(seed);
        world.go();
        world.coverage.runs = 1;
        Outcome {
            broken: world.oracle.broken,
            coverage: world.coverage,
            trace: world.trace.unwrap_or_default(),
        }
    }

    fn begin(&mut self, seed: u64) {
        self.note(|world| {
            format!(
                "seed {seed}: {} Nodes, {} items, space {}, {:?}",
                world.scene.nodes,
                world.scene.items.len(),
                world.scene.space,
                world.scene.rates
            )
        });
        for node in 1..self.scene.nodes {
            // One that appears later is not known to IAM yet.
            if self.dice.once_in(6) {
                self.nodes[node].known = false;
                let after = self.dice.time(HOUR, 15 * DAY);
                self.after(after, Event::NodeBoot { node, life: 0 });
            } else {
                self.nodes[node].known = true;
                self.after(SEC, Event::NodeBoot { node, life: 0 });
            }
        }
        self.nodes[0].known = true;
        self.after(SEC, Event::NodeBoot { node: 0, life: 0 });
        self.after(Duration::ZERO, Event::CloudBoot { life: 0 });
        self.after(10 * SEC, Event::Wish);
        let trouble = self.scene.rates.trouble;
        self.after(trouble, Event::Trouble);
        self.after(HOUR, Event::Alert);
        let after = self.dice.time(HOUR, 5 * DAY);
        self.after(after, Event::Override);
        self.after(HOUR, Event::LookAgain);
        self.after(10 * DAY, Event::CalmBegins(1));
        self.after(20 * DAY, Event::CalmBegins(2));
        self.after(RUN - 2 * DAY, Event::CalmBegins(3));
    }

    fn go(&mut self) {
        while self.oracle.broken.is_none() {
            let Some((at, event)) = self.queue.next() else {
                return;
            };
            self.now = at;
            self.coverage.events += 1;
            if let Event::CalmEnds(number) = event {
                self.calm_ends(number);
                if number == 3 {
                    return;
                }
                continue;
            }
            self.happen(event);
            self.check_stage();
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Wish => self.wish_comes(),
            Event::Trouble => self.trouble_comes(),
            Event::Over(over) => self.trouble_ends(over),
            Event::CalmBegins(number) => self.calm_begins(number),
            Event::CalmEnds(_) => {}
            Event::Alert => self.alert_comes(),
            Event::Override => self.override_comes(),
            Event::CmEnds { life } => {
                if life == self.cm.life {
                    self.follow_soon();
                }
            }
            Event::CmBoot { life } => self.cm_boots(life),
            Event::CmWake { life, serial } => self.cm_wakes(life, serial),
            Event::CmTake { life, txn, message } => self.cm_takes(life, txn, message),
            Event::Job { life, id, step } => {
                if life == self.cm.life {
                    self.job_goes_on(id, step);
                }
            }
            Event::CmFollow { life } => self.cm_follows(life),
            Event::Person { life } => {
                if life == self.cm.life {
                    self.person_acts();
                }
            }
            Event::Stale { life } => {
                if life == self.cm.life {
                    self.stale_answer();
                }
            }
            Event::LookAgain => {
                let after = self.dice.scale(MIN, 3 * DAY);
                self.after(after, Event::LookAgain);
                self.engine_input(aos_update::Input::LookAgain);
            }
            Event::CmLook { life } => {
                if life == self.cm.life {
                    self.world_changed();
                }
            }
            Event::OrderLate { life, node, order } => {
                if life == self.cm.life {
                    self.order_is_late(node, order);
                }
            }
            Event::CmInstalled {
                life,
                conn,
                node,
                order,
                failed,
                images,
            } => {
                if life == self.cm.life {
                    self.cm_hears_installed(node, conn, order, failed, &images);
                }
            }
            Event::PrepareLate {
                life,
                id,
                node,
                order,
            } => {
                if life == self.cm.life {
                    self.preparing_is_late(id, node, order);
                }
            }
            Event::CmReport {
                life,
                conn,
                node,
                snapshot,
            } => {
                if life == self.cm.life {
                    self.cm_hears_report(node, conn, snapshot);
                }
            }
            Event::CmStatus { life } => {
                if life == self.cm.life {
                    self.cm_sends_status();
                }
            }
            Event::CmTidy { life } => {
                if life == self.cm.life {
                    self.cm_tidies();
                }
            }
            Event::LinkWake { life, serial } => self.link_wakes(life, serial),
            Event::CloudWake { life, serial } => self.cloud_wakes(life, serial),
            Event::CloudBoot { life } => self.cloud_boots(life),
            Event::CloudTake { life, txn, message } => self.cloud_takes(life, txn, message),
            Event::Dialled { life } => self.dialled(life),
            Event::Packet {
                to_unit,
                conn,
                frame,
                corrupt,
            } => {
                self.packet_arrives(to_unit, conn, frame, corrupt);
            }
            Event::NodeBoot { node, life } => self.node_boots(node, life),
            Event::SmBoot { node, life } => self.sm_boots(node, life),
            Event::NodeConnect { node, life } => self.node_connects(node, life),
            Event::NodeList {
                node,
                conn,
                order,
                list,
                stop,
            } => {
                self.node_takes_list(node, conn, order, list, stop);
            }
            Event::NodeInstall {
                node,
                conn,
                order,
                wanted,
                images,
            } => {
                self.node_takes_install(node, conn, order, wanted, images);
            }
            Event::Ordered {
                node,
                life,
                conn,
                order,
                wanted,
                images,
            } => {
                self.node_has_installed(node, life, conn, order, wanted, images);
            }
            Event::Installed { node, life, launch } => self.node_installed(node, life, launch),
            Event::Relaunch { node, life, launch } => self.node_launches_again(node, life, launch),
            Event::Switched { node, life, launch } => self.node_switched(node, life, launch),
            Event::Settled {
                node,
                life,
                inst,
                pid,
            } => self.inst_settled(node, life, inst, pid),
            Event::ProcEnds { node, pid } => self.proc_ends(node, pid),
            Event::StartAgain {
                node,
                life,
                inst,
                token,
            } => {
                self.starts_again(node, life, inst, token);
            }
            Event::NodeTells { node, life } => self.node_tells(node, life),
            Event::NodeCheck { node, life } => self.check_offline(node, life),
        }
    }

    /// Plans an event.
    pub(crate) fn after(&mut self, span: Duration, event: Event) {
        self.queue.plan(self.now + span, event);
    }

    /// Writes into the trace, if there is one; the text is made only then.
    pub(crate) fn note(&mut self, text: impl FnOnce(&Self) -> String) {
        if self.trace.is_some() {
            let line = format!("{}  {}", clock(self.now), text(self));
            if let Some(trace) = &mut self.trace {
                trace.push(line);
            }
        }
    }

    pub(crate) fn has(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    /// Whether what goes wrong once in `rate` goes wrong now. In calm times nothing does.
    pub(crate) fn unlucky(&mut self, rate: u64, fault: Fault) -> bool {
        let bad = !self.calm && self.dice.once_in(rate);
        if bad {
            self.coverage.fault(fault);
            self.oracle.last_fault = self.now;
        }
        bad
    }

    pub(crate) fn message(&mut self, message: Message) -> u32 {
        self.messages.push(message);
        self.messages.len() as u32 - 1
    }

    fn alert_comes(&mut self) {
        if !self.over {
            let after = self.dice.scale(MIN, 2 * DAY);
            self.after(after, Event::Alert);
        }
        self.cm_alerts();
    }

    fn wish_comes(&mut self) {
        if self.over {
            return;
        }
        if (self.wishes.len() as u64) < self.scene.desires {
            // Close together now and then, so that every state sees a newer desired state.
            let after = match self.dice.to(10) {
                0..=3 => self.dice.scale(Duration::from_millis(5), 30 * SEC),
                4 | 5 => self.dice.scale(30 * SEC, HOUR),
                _ => self.dice.time(HOUR, 3 * DAY),
            };
            self.after(after, Event::Wish);
        }
        if !self.calm {
            self.make_wish(false);
        }
    }

    pub(crate) fn make_wish(&mut self, good: bool) {
        let before = self.wishes.last().cloned().unwrap_or_default();
        let number = self.wishes.len();
        let mut wish = self.scene.wish(&mut self.dice, &before, number, good);
        if good {
            self.make_feasible(&mut wish);
        }
        self.note(|_| format!("CLOUD wants #{number}: {}", say(&wish)));
        self.wishes.push(wish);
        self.cloud_sends_desired(number);
    }

    /// Takes out what no Node that is still there can run.
    fn make_feasible(&self, wish: &mut Intent) {
        wish.paused.retain(|node| *node != 0);
        let usable: Vec<usize> = (0..self.nodes.len())
            .filter(|node| self.nodes[*node].known && !self.nodes[*node].gone)
            .filter(|node| !wish.paused.contains(node))
            .collect();
        let fits = |item: u8| match self.scene.label(item) {
            None => true,
            Some(label) => usable
                .iter()
                .any(|node| self.scene.labels[*node] & (1 << label) != 0),
        };
        wish.items.retain(|item, _| fits(*item));
        let items = wish.items.clone();
        wish.instances
            .retain(|(item, _), _| items.contains_key(item));
    }

    fn trouble_comes(&mut self) {
        if self.over {
            return;
        }
        let mean = self.scene.rates.trouble;
        let after = self.dice.time(mean / 8, mean * 2);
        self.after(after, Event::Trouble);
        if self.calm {
            return;
        }
        self.oracle.last_fault = self.now;
        let node = self.dice.index(self.scene.nodes);
        match self.dice.to(20) {
            0 | 1 => {
                let weeks = self.dice.once_in(8);
                let (fault, span) = if weeks {
                    (Fault::LinkDownWeeks, self.dice.time(7 * DAY, 14 * DAY))
                } else {
                    (Fault::LinkDown, self.dice.scale(MIN, DAY))
                };
                self.coverage.fault(fault);
                self.link_goes_down(span);
            }
            2 | 3 => {
                self.coverage.fault(Fault::LinkBroken);
                self.connection_breaks();
            }
            4 => {
                self.coverage.fault(Fault::CloudRestart);
                self.cloud_restarts();
            }
            5 if self.dice.percent(50) => {
                if self.dice.percent(50) {
                    self.coverage.fault(Fault::Useless);
                    self.cloud_sends_useless();
                } else {
                    self.coverage.fault(Fault::Renew);
                    self.note(|_| "CM has new certificates".into());
                    self.unit_input(aos_session::Input::Renew);
                }
            }
            5 => {
                self.coverage.fault(Fault::DiskFull);
                self.note(|_| "the disk of CM is full".into());
                self.cm.disk.full = true;
                let span = self.dice.scale(MIN, DAY);
                self.after(span, Event::Over(Over::Space));
            }
            6 => {
                let (fault, micros) = if self.dice.percent(50) {
                    (
                        Fault::ClockForward,
                        self.dice.scale(SEC, 3 * DAY).as_micros() as i64,
                    )
                } else {
                    (
                        Fault::ClockBack,
                        -(self.dice.scale(SEC, 6 * HOUR).as_micros() as i64),
                    )
                };
                self.coverage.fault(fault);
                self.clock_jumps(micros);
            }
            7 => {
                self.coverage.fault(Fault::CmKilled);
                self.cm_dies(false);
            }
            8 => {
                self.coverage.fault(Fault::CmCut);
                self.node_loses_power(0);
            }
            9 | 10 => {
                self.coverage.fault(Fault::SmKilled);
                self.sm_dies(node);
            }
            11 | 12 => {
                self.coverage.fault(Fault::SmCut);
                self.node_loses_power(node);
            }
            13 | 14 => {
                let long = self.dice.percent(50);
                self.coverage.fault(if long {
                    Fault::NodeLost
                } else {
                    Fault::NodeAway
                });
                let span = if long {
                    self.dice.scale(2 * MIN, 5 * DAY)
                } else {
                    self.dice.time(SEC, 50 * SEC)
                };
                self.node_goes_away(node, span);
            }
            15 => {
                if node != 0 && self.dice.once_in(3) && !self.nodes[node].gone {
                    self.coverage.fault(Fault::NodeGone);
                    self.node_is_gone(node);
                }
            }
            16 | 17 => {
                self.coverage.fault(Fault::NodeLink);
                let span = self.dice.scale(SEC, 2 * DAY);
                self.node_link_goes_down(node, span);
            }
            18 => self.blob_rots(node),
            _ => {
                let procs = &self.nodes[node].procs;
                if !procs.is_empty() {
                    let at = self.dice.index(procs.len());
                    let pid = procs.values().nth(at).map_or(0, |proc| proc.pid);
                    self.coverage.fault(Fault::Crash);
                    self.proc_ends(node, pid);
                }
            }
        }
    }

    fn trouble_ends(&mut self, over: Over) {
        self.oracle.last_fault = self.now;
        match over {
            Over::Link => self.link_comes_up(),
            Over::Space => self.cm.disk.full = false,
            Over::NodeLink(node) => self.node_link_comes_up(node),
            Over::NodeAway(node) => self.node_comes_back(node),
        }
    }

    fn calm_begins(&mut self, number: u32) {
        self.note(|_| format!("CALM {number} begins: all that can be mended is mended"));
        self.calm = true;
        self.oracle.last_fault = self.now;
        self.link_comes_up();
        self.cm.disk.full = false;
        if number == 3 {
            self.over = true;
            // Nodes that were to appear later have appeared by now.
        }
        for node in 0..self.nodes.len() {
            if self.nodes[node].gone {
                continue;
            }
            // Also of one that appears during the calm time (seed 15676).
            self.node_link_comes_up(node);
            if self.nodes[node].known {
                self.node_comes_back(node);
            }
        }
        // Half of the last wishes come when all is well: those must be reached, without excuse.
        if number == 3 && self.dice.percent(50) {
            self.make_wish(true);
        }
        let span = if number == 3 {
            2 * DAY - HOUR
        } else {
            30 * HOUR
        };
        self.after(span, Event::CalmEnds(number));
    }

    fn calm_ends(&mut self, number: u32) {
        self.note(|_| format!("CALM {number} ends: all must be as it shall"));
        self.check_rest();
        if number != 3 {
            self.calm = false;
        }
    }
}

pub(crate) fn say(wish: &Intent) -> String {
    let items: Vec<String> = wish
        .items
        .iter()
        .map(|(i, v)| format!("i{i}v{v}"))
        .collect();
    let runs: Vec<String> = wish
        .instances
        .iter()
        .map(|((i, s), (n, p))| format!("i{i}/s{s}x{n}@{p}"))
        .collect();
    format!(
        "[{}] run [{}] paused {:?} config {:?}",
        items.join(" "),
        runs.join(" "),
        wish.paused,
        wish.config
    )
}

fn clock(at: Timestamp) -> String {
    let micros = at.since(BEGIN).as_micros();
    let secs = micros / 1_000_000;
    format!(
        "{:>2}d {:02}:{:02}:{:02}.{:06}",
        secs / 86_400,
        secs / 3600 % 24,
        secs / 60 % 60,
        secs % 60,
        micros % 1_000_000
    )
}
