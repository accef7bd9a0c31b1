//! Deliberate bugs. A simulator that does not find them would not find others.

use std::collections::BTreeSet;

use aos_launch::{Found, Instance, policy as lists};
use aos_schedule::{Availability, KnownInstance, Rule, policy as places};
use aos_session::{Dropped, policy as link};
use aos_types::{Digest, InstanceIdent, InstanceState};
use aos_update::{
    Actual, Desired, DesiredItem, Difference, Failures, InstanceView, Note, Record, Stand, Target,
    UpdateState,
    policy::{Policy, Rules},
};

macro_rules! mutations {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// One deliberate bug.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Mutation { $($(#[$doc])* $variant,)* }

        impl Mutation {
            /// All of them with their names.
            pub const ALL: &[(Self, &'static str)] = &[$((Self::$variant, $name),)*];
        }

        /// Each of them as a policy of the engine.
        static PLANTED: &[Planted] = &[$(Planted(Mutation::$variant),)*];
    };
}

mutations! {
    /// CM takes blobs whose signature is bad.
    SkipSignatureCheck = "skip-signature-check",
    /// CM takes blobs whose bytes are not those of their digest.
    SkipDigestCheck = "skip-digest-check",
    /// A Node runs what CM served without looking at its digest.
    NodeSkipsDigest = "node-skips-digest",
    /// A Node runs what is on its disk without looking at it.
    NodeTrustsDisk = "node-trusts-disk",
    /// Images of the installed set are evicted when there is no space.
    EvictsInstalled = "evicts-installed",
    /// Places are given to the Nodes and not stored.
    PlacesNotStored = "places-not-stored",
    /// After a boot a Node waits for CM.
    NoRestoreWithoutCm = "no-restore-without-cm",
    /// A Node stops the old instance although the new image is not there.
    StopWithoutInstall = "stop-without-install",
    /// A Node stores its list after it was carried out.
    StoreAfterSwitch = "store-after-switch",
    /// A Node says that images are installed without having them.
    InstallSaysYes = "install-says-yes",
    /// SM takes an adopted process for a healthy one.
    AdoptedIsActive = "adopted-is-active",
    /// A paused Node that is away keeps every update from happening.
    AbsentNodeBlocks = "absent-node-blocks",
    /// CM acknowledges a desired state before it is stored.
    AckBeforeStored = "ack-before-stored",
    /// CM's record is written and not flushed.
    RecordNotFlushed = "record-not-flushed",
    /// What waits for the cloud is kept in memory only.
    OutboxInMemory = "outbox-in-memory",
    /// After a reconnection the cloud is told nothing.
    NoStatusOnConnect = "no-status-on-connect",
    /// A paused Node goes on running what it has.
    PausedNodeRunsOn = "paused-node-runs-on",
    /// Who gives an instance away and who gets it are told at the same time.
    AllNodesAtOnce = "all-nodes-at-once",
    /// A launch waits for Nodes that are lost.
    WaitsForLostNodes = "waits-for-lost-nodes",
    /// As long as a Node is lost nothing is placed anew.
    LostNodeStopsPlacing = "lost-node-stops-placing",
    /// A list that is absent removes all it had.
    AbsentListRemoves = "absent-list-removes",
    /// Instances are not compared.
    BlindForInstances = "blind-for-instances",
    /// The launch is begun before it is stored.
    LaunchNotStored = "launch-not-stored",
    /// After a restart the step in hand is not asked for again.
    NoResume = "no-resume",
    /// Whatever happens moves the deadline of the stage.
    DeadlineMoves = "deadline-moves",
    /// Gates are not asked.
    GatesIgnored = "gates-ignored",
    /// A failed download ends nothing.
    DownloadFailureIgnored = "download-failure-ignored",
    /// A refused configuration ends nothing.
    ConfigurationFailureIgnored = "configuration-failure-ignored",
    /// An instance that is about to start counts as active.
    StartingIsUp = "starting-is-up",
    /// A failed instance is waited for like others, and the deadline is all that is asked.
    FailedIsUp = "failed-is-up",
    /// A failed update is not undone.
    NoUndo = "no-undo",
    /// A failed update leads back to itself.
    BackToTheSame = "back-to-the-same",
    /// A failed update is not tried again.
    NoRetry = "no-retry",
    /// Nobody keeps why an update failed.
    CauseForgotten = "cause-forgotten",
    /// The same desired state again begins a new update.
    SameIsNew = "same-is-new",
    /// An update that is being fetched does not give way to a newer desired state.
    OldGoesOn = "old-goes-on",
    /// A commit gives way to a newer desired state.
    CommitGivesWay = "commit-gives-way",
    /// What is no longer wanted is not stopped.
    StepGoesOn = "step-goes-on",
    /// An instance that has failed for good is waited for until the deadline.
    LostIsAwaited = "lost-is-awaited",
    /// What was active for a moment is committed.
    NoSettling = "no-settling",
    /// The same desired state again takes a failed update out of its pause.
    PauseCutShort = "pause-cut-short",
    /// The pause after a failed update does not grow.
    AttemptsNotCounted = "attempts-not-counted",
    /// An item that may fail alone takes the others with it.
    NothingFailsAlone = "nothing-fails-alone",
    /// An item that fails is left out although the set is whole or nothing.
    AllFailAlone = "all-fail-alone",
    /// The way back is over when the Nodes have their lists.
    WayBackNotJudged = "way-back-not-judged",
    /// A way back that failed is not tried again.
    WayBackTriedOnce = "way-back-tried-once",
    /// Something newer does not wait until a half-done set is undone.
    NewerBeforeUndo = "newer-before-undo",
    /// A clock that was put back leaves the deadlines where they were.
    ClockNotFollowed = "clock-not-followed",
    /// An instance that ended is never started again.
    NoRestart = "no-restart",
    /// The time of a variable is not looked at.
    EndsIgnored = "ends-ignored",
    /// Variables that the cloud sets are kept in memory only.
    OverridesInMemory = "overrides-in-memory",
    /// The scheduler puts an instance where its storage is not.
    IgnoresPin = "ignores-pin",
    /// The scheduler does not count what Nodes have.
    IgnoresCapacity = "ignores-capacity",
    /// The scheduler places everything anew each time.
    MovesWithoutCause = "moves-without-cause",
    /// The scheduler gives instances to a paused Node.
    IgnoresPause = "ignores-pause",
    /// The scheduler lets the less important have the room of the more important.
    NeverPushesOut = "never-pushes-out",
    /// The scheduler gives user ids away again that somebody has.
    NumbersGivenTwice = "numbers-given-twice",
    /// The session takes a message that comes again for a new one.
    NoDeduplication = "no-deduplication",
    /// The session takes what follows a refused message before that one is back.
    OutOfOrder = "out-of-order",
    /// The session forgets on a new connection what was not acknowledged on the last one.
    DroppedOnReconnect = "dropped-on-reconnect",
    /// The session never repeats what is not acknowledged.
    NeverRepeated = "never-repeated",
    /// The session does not count what it drops.
    LossNotCounted = "loss-not-counted",
    /// The session waits for ever for a peer that says nothing.
    DeadPeerKept = "dead-peer-kept",
    /// The session does not try again after it could not connect.
    TriesOnce = "tries-once",
    /// The session does not store what must not be lost.
    NothingStored = "nothing-stored",
    /// The planner stops an instance before its replacement is installed.
    StopsBeforeInstall = "stops-before-install",
    /// The planner starts a replacement beside what it replaces.
    StartsBeforeStop = "starts-before-stop",
    /// The planner keeps what runs, whatever its version.
    KeepsOldVersion = "keeps-old-version",
    /// The planner leaves running what is not wanted any more.
    KeepsUnwanted = "keeps-unwanted",
    /// The planner replaces what runs as it shall.
    RestartsAll = "restarts-all",
}

impl Mutation {
    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(one, _)| *one == self)
            .map_or("", |(_, name)| name)
    }
}

/// The engine's policy for a run: the rules, or one of them broken on purpose.
pub(crate) fn planted(mutation: Option<Mutation>) -> &'static dyn Policy {
    let planted = mutation.and_then(|mutation| PLANTED.get(mutation as usize));
    planted.map_or(&Rules as &dyn Policy, |planted| planted as &dyn Policy)
}

fn planted_one(mutation: Option<Mutation>) -> Option<&'static Planted> {
    PLANTED.get(mutation? as usize)
}

/// The scheduler's.
pub(crate) fn planted_places(mutation: Option<Mutation>) -> &'static dyn places::Policy {
    planted_one(mutation).map_or(&places::Rules, |planted| planted)
}

/// The session's.
pub(crate) fn planted_link(mutation: Option<Mutation>) -> &'static dyn link::Policy {
    planted_one(mutation).map_or(&link::Rules, |planted| planted)
}

/// The launch planner's.
pub(crate) fn planted_lists(mutation: Option<Mutation>) -> &'static dyn lists::Policy {
    planted_one(mutation).map_or(&lists::Rules, |planted| planted)
}

/// The rules with one planted bug. Only the simulator makes one.
#[derive(Debug)]
struct Planted(Mutation);

impl Policy for Planted {
    fn resolve(&self, mut desired: Desired, newest: &Target) -> (Target, Vec<Note>) {
        if self.0 == Mutation::AbsentListRemoves {
            desired.items.get_or_insert_default();
            desired.instances.get_or_insert_default();
        }
        Rules.resolve(desired, newest)
    }

    fn differences(&self, target: &Target, committed: &Target, actual: &Actual) -> Vec<Difference> {
        let mut all = Rules.differences(target, committed, actual);
        if self.0 == Mutation::BlindForInstances {
            all.retain(|one| {
                !matches!(
                    one,
                    Difference::MissingInstance(_) | Difference::SurplusInstance(_)
                )
            });
        }
        all
    }

    fn stores(&self, record: &Record) -> bool {
        let state = record.cycle.as_ref().map(|cycle| cycle.state);
        self.0 != Mutation::LaunchNotStored || state != Some(UpdateState::Launching)
    }

    fn resumes(&self) -> bool {
        self.0 != Mutation::NoResume
    }

    fn keeps_deadline(&self, _state: UpdateState) -> bool {
        self.0 != Mutation::DeadlineMoves
    }

    fn lets_through(&self, stand: &Stand) -> bool {
        self.0 == Mutation::GatesIgnored || Rules.lets_through(stand)
    }

    fn ends_update(&self, state: UpdateState, failures: &Failures, relevant: bool) -> bool {
        let ignored = match self.0 {
            Mutation::DownloadFailureIgnored => state == UpdateState::Downloading,
            Mutation::ConfigurationFailureIgnored => failures.unit_config.is_some(),
            _ => false,
        };
        relevant && !ignored
    }

    fn is_up(&self, view: &InstanceView) -> bool {
        let taken = match self.0 {
            Mutation::StartingIsUp => view.state == InstanceState::Activating,
            Mutation::FailedIsUp => view.state == InstanceState::Failed,
            _ => false,
        };
        taken || Rules.is_up(view)
    }

    fn undoes(&self) -> bool {
        self.0 != Mutation::NoUndo
    }

    fn way_back(&self, record: &Record) -> Target {
        match (&record.launched, self.0) {
            (Some(launched), Mutation::BackToTheSame) => launched.clone(),
            _ => Rules.way_back(record),
        }
    }

    fn retries(&self) -> bool {
        self.0 != Mutation::NoRetry
    }

    fn keeps_cause(&self) -> bool {
        self.0 != Mutation::CauseForgotten
    }

    fn is_same(&self, target: &Target, newest: &Target) -> bool {
        self.0 != Mutation::SameIsNew && Rules.is_same(target, newest)
    }

    fn gives_way(&self, state: UpdateState) -> bool {
        match self.0 {
            Mutation::OldGoesOn => state != UpdateState::Downloading && Rules.gives_way(state),
            Mutation::CommitGivesWay => true,
            _ => Rules.gives_way(state),
        }
    }

    fn cancels(&self) -> bool {
        self.0 != Mutation::StepGoesOn
    }

    fn is_lost(&self, view: &InstanceView) -> bool {
        self.0 != Mutation::LostIsAwaited && Rules.is_lost(view)
    }

    fn settles(&self) -> bool {
        self.0 != Mutation::NoSettling
    }

    fn retries_at_once(&self) -> bool {
        self.0 == Mutation::PauseCutShort
    }

    fn counts_attempts(&self) -> bool {
        self.0 != Mutation::AttemptsNotCounted
    }

    fn may_fail_alone(&self, item: &DesiredItem) -> bool {
        match self.0 {
            Mutation::NothingFailsAlone => false,
            Mutation::AllFailAlone => true,
            _ => Rules.may_fail_alone(item),
        }
    }

    fn judges_back(&self) -> bool {
        self.0 != Mutation::WayBackNotJudged
    }

    fn retries_back(&self) -> bool {
        self.0 != Mutation::WayBackTriedOnce
    }

    fn undoes_first(&self) -> bool {
        self.0 != Mutation::NewerBeforeUndo
    }

    fn follows_clock(&self) -> bool {
        self.0 != Mutation::ClockNotFollowed
    }
}

impl places::Policy for Planted {
    fn stays(&self, _known: &KnownInstance) -> bool {
        self.0 != Mutation::MovesWithoutCause
    }

    fn availability<'a>(&self, node: &'a aos_schedule::Node) -> &'a Availability {
        match &node.availability {
            Availability::Unusable(why)
                if self.0 == Mutation::IgnoresPause && why == "is paused" =>
            {
                &Availability::Ready
            }
            as_it_is => as_it_is,
        }
    }

    fn stops(&self, rule: &Rule) -> bool {
        let counts = matches!(rule, Rule::Cpu(..) | Rule::Ram(..) | Rule::Instances(_));
        self.0 != Mutation::IgnoresCapacity || !counts
    }

    fn pins(&self) -> bool {
        self.0 != Mutation::IgnoresPin
    }

    fn pushes_out(&self) -> bool {
        self.0 != Mutation::NeverPushesOut
    }

    fn keeps_numbers(&self) -> bool {
        self.0 != Mutation::NumbersGivenTwice
    }
}

impl link::Policy for Planted {
    fn recognises(&self) -> bool {
        self.0 != Mutation::NoDeduplication
    }

    fn keeps_order(&self) -> bool {
        self.0 != Mutation::OutOfOrder
    }

    fn resends(&self) -> bool {
        self.0 != Mutation::DroppedOnReconnect
    }

    fn repeats(&self) -> bool {
        self.0 != Mutation::NeverRepeated
    }

    fn stores(&self, message: &aos_session::Message) -> bool {
        self.0 != Mutation::NothingStored && link::Rules.stores(message)
    }

    fn counts(&self, why: Dropped) -> bool {
        self.0 != Mutation::LossNotCounted && link::Rules.counts(why)
    }

    fn gives_up(&self) -> bool {
        self.0 != Mutation::DeadPeerKept
    }

    fn tries_again(&self) -> bool {
        self.0 != Mutation::TriesOnce
    }
}

impl lists::Policy for Planted {
    fn runs_on(&self, found: &Found, wanted: &Instance) -> bool {
        match self.0 {
            Mutation::KeepsOldVersion => true,
            Mutation::RestartsAll => false,
            _ => lists::Rules.runs_on(found, wanted),
        }
    }

    fn stops_unwanted(&self, _found: &Found) -> bool {
        self.0 != Mutation::KeepsUnwanted
    }

    fn stops_replaced(&self, _found: &Found) -> bool {
        self.0 != Mutation::StartsBeforeStop
    }

    fn stops_after(&self, next: &Instance) -> Option<Digest> {
        let rule = lists::Rules.stops_after(next);
        rule.filter(|_| self.0 != Mutation::StopsBeforeInstall)
    }

    fn is_ordered(&self, ident: &InstanceIdent, ordered: &BTreeSet<InstanceIdent>) -> bool {
        self.0 != Mutation::KeepsOldVersion && ordered.contains(ident)
    }
}
