//! What a run has met. A kind of trouble that never came proves nothing, so the sums are printed and zeros are failures.

macro_rules! counted {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum $name { $($variant,)* }

        impl $name {
            pub(crate) const ALL: &[(Self, &'static str)] = &[$((Self::$variant, $text),)*];
        }
    };
}

counted! {
    /// What can go wrong.
    Fault {
        FrameLost = "message lost",
        FrameTwice = "message repeated",
        FrameLate = "message overtaken by later ones",
        FrameCorrupt = "message corrupted",
        LinkDown = "link to the cloud down for hours",
        LinkDownWeeks = "link to the cloud down for a week or more",
        LinkBroken = "connection to the cloud broken",
        CloudRestart = "cloud started again",
        TakenLater = "Unit takes a message later",
        Useless = "cloud sends something useless",
        Renew = "certificates of CM are replaced",
        OutboxFull = "outbox full: messages dropped and counted",
        DialRefused = "cloud asks to come later",
        FetchSlow = "download slow",
        FetchFails = "download fails",
        FetchCorrupt = "download brings wrong bytes",
        UrlsMissing = "cloud does not know a blob",
        DiskFull = "disk of CM full",
        NoSpace = "no space for images",
        Evicted = "removable images evicted",
        WriteFails = "record of CM cannot be written",
        CommitFails = "commit of images fails",
        ClockForward = "clock jumps forward",
        ClockBack = "clock jumps back",
        CmKilled = "CM killed",
        CmCut = "power of the main Node cut",
        CutAfterPersist = "CM: power cut after a persist",
        CutAfterDo = "CM: power cut after an effect was begun",
        CutAfterWake = "CM: power cut after a wake was set",
        CutAfterReport = "CM: power cut after a report",
        CutInLink = "CM: power cut after an output of the session",
        CutInPlacing = "CM: power cut after places were stored",
        SmKilled = "SM killed",
        SmCut = "power of a Node cut",
        CutInSwitch = "SM: cut in the middle of a switch",
        NodeAway = "Node away for a short time",
        NodeLost = "Node away for long",
        NodeGone = "Node vanished for good",
        NodeNew = "Node appeared",
        NodeLink = "link between CM and a Node down",
        Paused = "Node paused by the desired state",
        IamFails = "IAM does not pause or resume a Node",
        ConfigRefused = "Node refuses the unit configuration",
        ConfigFails = "Node does not take the unit configuration",
        InstallFails = "image cannot be installed on a Node",
        InstallCorrupt = "image arrives corrupted on a Node",
        StartFails = "instance cannot be started this time",
        WontStart = "instance can never be started",
        Crash = "instance ends by itself",
        Hang = "instance never becomes active",
        BlobRots = "stored blob is damaged",
        ListSuperseded = "list superseded on a Node before its switch",
        LateAnswer = "effect answered after it was given up",
        Unsigned = "version with a bad signature",
        TooBig = "version larger than the disk",
        Superseded = "desired state superseded while in work",
        Repeated = "identical desired state",
        NotReady = "Unit not ready for an update",
        NoAnswer = "question for readiness not answered",
        Refused = "user refuses an update",
        Waits = "update waits at its gate",
        NoRoom = "instance without room on a Node",
        PushedOut = "less important instances pushed out",
        Moved = "instance moved to another Node",
        HeldByStorage = "instance held by its storage elsewhere",
        Overridden = "variables set by the cloud",
        OverrideEnds = "time of a variable over",
        OverrideEndsAway = "time of a variable over while CM was down",
        LeftBehind = "storage left behind",
    }
}

counted! {
    /// The rows of the failure table (`docs/simulator.md`), and what ends well.
    Row {
        Download = "download fails: the old set stays",
        Configuration = "configuration fails: the old set comes back",
        Launch = "launch fails on a Node: the old set comes back",
        Firmware = "image cannot be prepared on a Node: the old set comes back",
        Timeout = "not active in time: the old set comes back",
        Failed = "instance failed for good: the old set comes back",
        Late = "a stage took too long: the old set comes back",
        Alone = "independent item fails alone: the others are committed",
        Expired = "gate shut too long: the update is given up",
        Again = "failed update tried again",
        Rollback = "way back fails: reported, tried again",
        Committed = "committed",
        Nothing = "nothing to do",
    }
}

/// States of the engine, in the order of the table.
pub(crate) const STATES: [&str; 7] = [
    "none",
    "downloading",
    "pending",
    "installing",
    "launching",
    "waiting for active",
    "finalizing",
];
/// Inputs of the engine.
pub(crate) const INPUTS: [&str; 9] = [
    "desired",
    "item downloaded",
    "downloaded",
    "done",
    "instances",
    "wake",
    "readiness",
    "look again",
    "order",
];

/// Counts of one run or of many.
#[derive(Debug, Clone)]
pub struct Coverage {
    pub(crate) faults: Vec<u64>,
    pub(crate) rows: Vec<u64>,
    /// State by input, forward and back.
    pub(crate) pairs: Vec<u64>,
    pub(crate) events: u64,
    /// Seeds.
    pub runs: u64,
    pub(crate) desired: u64,
    pub(crate) commits: u64,
    pub(crate) rollbacks: u64,
}

impl Default for Coverage {
    fn default() -> Self {
        Self {
            faults: vec![0; Fault::ALL.len()],
            rows: vec![0; Row::ALL.len()],
            pairs: vec![0; STATES.len() * INPUTS.len() * 2],
            events: 0,
            runs: 0,
            desired: 0,
            commits: 0,
            rollbacks: 0,
        }
    }
}

impl Coverage {
    pub(crate) fn fault(&mut self, fault: Fault) {
        self.faults[fault as usize] += 1;
    }

    pub(crate) fn row(&mut self, row: Row) {
        self.rows[row as usize] += 1;
    }

    pub(crate) fn pair(&mut self, state: usize, input: usize, back: bool) {
        self.pairs[(state * INPUTS.len() + input) * 2 + usize::from(back)] += 1;
    }

    /// Adds another run's counts.
    pub fn add(&mut self, other: &Self) {
        let lists = [
            (&mut self.faults, &other.faults),
            (&mut self.rows, &other.rows),
            (&mut self.pairs, &other.pairs),
        ];
        for (mine, theirs) in lists {
            for (mine, theirs) in mine.iter_mut().zip(theirs) {
                *mine += theirs;
            }
        }
        self.events += other.events;
        self.runs += other.runs;
        self.desired += other.desired;
        self.commits += other.commits;
        self.rollbacks += other.rollbacks;
    }

    /// What never came although it should in a run of many seeds.
    pub fn zeros(&self) -> Vec<String> {
        let mut zeros: Vec<String> = Vec::new();
        for ((_, text), count) in Fault::ALL.iter().zip(&self.faults) {
            if *count == 0 {
                zeros.push(format!("fault: {text}"));
            }
        }
        for ((_, text), count) in Row::ALL.iter().zip(&self.rows) {
            if *count == 0 {
                zeros.push(format!("outcome: {text}"));
            }
        }
        for (state, name) in STATES.iter().enumerate() {
            for (input, event) in INPUTS.iter().enumerate() {
                let at = (state * INPUTS.len() + input) * 2;
                if self.pairs[at] + self.pairs[at + 1] == 0 {
                    zeros.push(format!("pair: {event} in {name}"));
                }
            }
        }
        zeros
    }

    /// The tables, for people.
    pub fn text(&self) -> String {
        let mut text = format!(
            "{} runs, {} events, {} desired states taken over, {} commits, {} ways back\n\nfaults\n",
            self.runs, self.events, self.desired, self.commits, self.rollbacks
        );
        for ((_, name), count) in Fault::ALL.iter().zip(&self.faults) {
            text.push_str(&format!("  {name:<48} {count:>12}\n"));
        }
        text.push_str("\noutcomes of updates\n");
        for ((_, name), count) in Row::ALL.iter().zip(&self.rows) {
            text.push_str(&format!("  {name:<64} {count:>12}\n"));
        }
        text.push_str("\nstate x event: forward / on the way back\n");
        text.push_str(&format!("  {:<19}", ""));
        for input in INPUTS {
            text.push_str(&format!("{input:>18}"));
        }
        text.push('\n');
        for (state, name) in STATES.iter().enumerate() {
            text.push_str(&format!("  {name:<19}"));
            for input in 0..INPUTS.len() {
                let at = (state * INPUTS.len() + input) * 2;
                let cell = format!("{} / {}", self.pairs[at], self.pairs[at + 1]);
                text.push_str(&format!("{cell:>18}"));
            }
            text.push('\n');
        }
        text
    }
}
