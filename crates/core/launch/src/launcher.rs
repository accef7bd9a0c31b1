use std::collections::{BTreeMap, BTreeSet, VecDeque};

use aos_types::{Digest, ErrorInfo, InstanceIdent};

use crate::{Found, Plan, Wanted, plan};

/// Names one step; a result with another id is late and ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepId(pub u64);

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step<T> {
    /// Fetch, verify and unpack this image. Does nothing if that was done before.
    Install(Digest),
    /// Make the network of this instance ready. Does nothing if it is.
    PrepareNetwork(Wanted<T>),
    /// Stop this instance, gently first, and clear up after it. Does nothing if it does not run.
    Stop(InstanceIdent),
    /// Start this instance. It does not run at this moment.
    Start(Wanted<T>),
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input<T> {
    /// The complete list of what shall run.
    Wanted {
        /// The list.
        list: Vec<Wanted<T>>,
        /// Instances to start again even if they are as wanted.
        restart: BTreeSet<InstanceIdent>,
    },
    /// An instance ended by itself and will not be started again by its restart rules.
    Exited(InstanceIdent),
    /// A step has ended.
    Done {
        /// Which.
        step: StepId,
        /// Why it failed.
        result: Result<(), ErrorInfo>,
    },
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output<T> {
    /// Store the wanted list before anything that follows: after a restart the Node goes on with it by itself.
    Persist(Vec<Wanted<T>>),
    /// Do this and answer with its id. All that are given before the next answer may run side by side.
    Do(StepId, Step<T>),
    /// Give this install up. It is not answered.
    Cancel(StepId),
    /// This version of the instance is on its way: report it `activating`.
    Activating {
        /// Which.
        ident: InstanceIdent,
        /// Of which version.
        version: String,
    },
    /// This version of the instance could not be brought up: report it `failed`. An older one may still run.
    Failed {
        /// Which.
        ident: InstanceIdent,
        /// Of which version.
        version: String,
        /// Why.
        error: ErrorInfo,
    },
    /// The list is carried out, as far as it could be: report all instances.
    Finished,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Installing,
    Networks,
    Stopping,
    Starting,
}

/// The machine; see the crate's description.
#[derive(Debug)]
pub struct Launcher<T> {
    phase: Phase,
    wanted: Vec<Wanted<T>>,
    restart: BTreeSet<InstanceIdent>,
    plan: Plan<T>,
    found: BTreeMap<InstanceIdent, Found>,
    installed: BTreeSet<Digest>,
    steps: BTreeMap<StepId, Step<T>>,
    next_step: u64,
    /// A newer list came while steps ran that must end first.
    again: bool,
    outputs: VecDeque<Output<T>>,
}

impl<T: Clone + PartialEq> Launcher<T> {
    /// Starts from what was found on the Node. A list that was stored is given as the first [`Input::Wanted`].
    pub fn new(found: BTreeMap<InstanceIdent, Found>) -> Self {
        Self {
            phase: Phase::Idle,
            wanted: Vec::new(),
            restart: BTreeSet::new(),
            plan: plan(&[], &BTreeMap::new(), &BTreeSet::new(), &BTreeSet::new()),
            found,
            installed: BTreeSet::new(),
            steps: BTreeMap::new(),
            next_step: 0,
            again: false,
            outputs: VecDeque::new(),
        }
    }

    /// Takes in what happened; then [`Launcher::poll`] until it is empty.
    pub fn handle(&mut self, input: Input<T>) {
        match input {
            Input::Wanted { list, restart } => {
                if list != self.wanted {
                    self.outputs.push_back(Output::Persist(list.clone()));
                }
                self.wanted = list;
                self.restart.extend(restart);
                match self.phase {
                    Phase::Stopping | Phase::Starting => self.again = true,
                    _ => self.begin(),
                }
            }
            Input::Exited(ident) => {
                self.found.remove(&ident);
            }
            Input::Done { step, result } => {
                if let Some(what) = self.steps.remove(&step) {
                    self.done(what, result);
                    self.advance();
                }
            }
        }
    }

    /// The next thing to do, or nothing until the next input.
    pub fn poll(&mut self) -> Option<Output<T>> {
        self.outputs.pop_front()
    }

    /// What runs, as far as this machine started, stopped or found it.
    pub fn running(&self) -> &BTreeMap<InstanceIdent, Found> {
        &self.found
    }

    /// Whether a list is being carried out.
    pub fn is_busy(&self) -> bool {
        self.phase != Phase::Idle
    }

    fn begin(&mut self) {
        self.again = false;
        // Images may have been damaged or evicted since: each list has all of its new ones checked again.
        self.installed.clear();
        self.plan = plan(&self.wanted, &self.found, &self.installed, &self.restart);
        self.restart.clear();
        self.phase = Phase::Installing;
        for (wanted, _) in &self.plan.start {
            self.outputs.push_back(Output::Activating {
                ident: wanted.ident.clone(),
                version: wanted.version.clone(),
            });
        }
        let mut needed: BTreeSet<Digest> = self.plan.install.keys().copied().collect();
        let in_hand = std::mem::take(&mut self.steps);
        for (id, step) in in_hand {
            match step {
                Step::Install(digest) if needed.remove(&digest) => {
                    self.steps.insert(id, Step::Install(digest));
                }
                Step::Install(_) => self.outputs.push_back(Output::Cancel(id)),
                // A network that is not needed any more is cleared up with its instance.
                _ => {}
            }
        }
        for digest in needed {
            self.ask(Step::Install(digest));
        }
        self.advance();
    }

    fn ask(&mut self, step: Step<T>) {
        self.next_step += 1;
        let id = StepId(self.next_step);
        self.steps.insert(id, step.clone());
        self.outputs.push_back(Output::Do(id, step));
    }

    fn done(&mut self, step: Step<T>, result: Result<(), ErrorInfo>) {
        match (step, result) {
            (Step::Install(digest), Ok(())) => {
                self.installed.insert(digest);
            }
            (Step::Install(digest), Err(error)) => {
                for ident in self.plan.install.get(&digest).cloned().unwrap_or_default() {
                    self.give_up(&ident, &error);
                }
            }
            (Step::PrepareNetwork(_), Ok(())) => {}
            (Step::PrepareNetwork(wanted), Err(error)) => self.give_up(&wanted.ident, &error),
            (Step::Stop(ident), Ok(())) => {
                self.found.remove(&ident);
            }
            // It may still run: a second one beside it would be worse.
            (Step::Stop(ident), Err(error)) => self.give_up(&ident, &error),
            (Step::Start(wanted), Ok(())) => {
                self.found.insert(
                    wanted.ident,
                    Found {
                        version: wanted.version,
                        fingerprint: wanted.fingerprint,
                    },
                );
            }
            (Step::Start(wanted), Err(error)) => self.outputs.push_back(Output::Failed {
                ident: wanted.ident,
                version: wanted.version,
                error,
            }),
        }
    }

    fn give_up(&mut self, ident: &InstanceIdent, error: &ErrorInfo) {
        if let Some((wanted, _)) = self
            .plan
            .start
            .iter()
            .find(|(wanted, _)| wanted.ident == *ident)
        {
            self.outputs.push_back(Output::Failed {
                ident: ident.clone(),
                version: wanted.version.clone(),
                error: error.clone(),
            });
        }
        self.plan.leave_as_is(ident);
    }

    /// Goes through the phases as long as nothing is in hand.
    fn advance(&mut self) {
        while self.steps.is_empty() && self.phase != Phase::Idle {
            if self.again {
                self.begin();
                return;
            }
            match self.phase {
                Phase::Idle => {}
                Phase::Installing => {
                    self.phase = Phase::Networks;
                    let starts = self.plan.start.clone();
                    for (wanted, _) in starts {
                        self.ask(Step::PrepareNetwork(wanted));
                    }
                }
                Phase::Networks => {
                    self.phase = Phase::Stopping;
                    let stops = self.plan.stop.clone();
                    for (ident, _) in stops {
                        self.ask(Step::Stop(ident));
                    }
                }
                Phase::Stopping => {
                    self.phase = Phase::Starting;
                    let starts = std::mem::take(&mut self.plan.start);
                    for (wanted, _) in starts {
                        // Whatever happened meanwhile: two of one instance never run.
                        if !self.found.contains_key(&wanted.ident) {
                            self.ask(Step::Start(wanted));
                        }
                    }
                }
                Phase::Starting => {
                    self.phase = Phase::Idle;
                    self.outputs.push_back(Output::Finished);
                }
            }
        }
    }
}
