use std::{collections::BTreeSet, fmt, time::Duration};

use aos_time::{Timestamp, Zone};
use aos_types::{Schedule, ScheduleRule};
use serde::{Deserialize, Serialize};

use super::{UpdatePart, Verdict, evaluate, expiry};

/// How this Unit gates updates, whatever the cloud says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatePolicy {
    /// The local time that timetables mean.
    pub zone: Zone,
    /// How long an update may wait if its schedule does not say.
    pub ttl: Duration,
    /// The parts that need the user's consent.
    pub consent: BTreeSet<UpdatePart>,
    /// The condition for changing anything, if there is one.
    pub readiness: Option<ReadinessPolicy>,
}

impl Default for GatePolicy {
    fn default() -> Self {
        Self {
            zone: Zone::utc(),
            ttl: Duration::from_secs(30 * 24 * 3600),
            consent: BTreeSet::new(),
            readiness: None,
        }
    }
}

/// How the Unit's readiness is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadinessPolicy {
    /// The pause before it is asked again. An answer that is not given by then counts as "not ready".
    pub interval: Duration,
    /// How long an update may wait for it from the first time it is asked.
    pub deadline: Duration,
}

/// What the Unit says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// It may be changed now.
    Ready,
    /// Not now, and why, for people.
    NotReady(String),
}

/// What the user said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Consent {
    /// Yes or no.
    pub given: bool,
    /// When.
    pub at: Timestamp,
    /// Why not, as the user put it; may be empty.
    #[serde(default)]
    pub reason: String,
}

/// What is kept of one gate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gate {
    /// When the update was asked for by this schedule: its TTL counts from here.
    pub since: Timestamp,
    /// Somebody on the Unit has started it.
    #[serde(default)]
    pub triggered: bool,
    /// What the user said, once he did.
    #[serde(default)]
    pub consent: Option<Consent>,
}

/// What is kept of the gates of one update: it outlives restarts and retries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gates {
    /// Names the update, so that a consent is never taken for another one.
    pub update: u64,
    /// Of the software part.
    pub software: Gate,
    /// Of the firmware part.
    pub firmware: Gate,
    /// When the Unit was first asked whether it is ready.
    #[serde(default)]
    pub asked_since: Option<Timestamp>,
}

/// What a gate waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaitReason {
    /// Somebody has to start it.
    Trigger,
    /// The next slot.
    Slot {
        /// When it begins.
        at: Timestamp,
        /// The same by the local clock.
        local: String,
    },
    /// The clock shows a time before the update came: it says nothing about slots.
    Clock,
    /// The user's consent.
    Consent,
    /// The user has refused; he may change his mind.
    Refused {
        /// Why, as the user put it.
        reason: String,
    },
    /// The Unit is being asked whether it is ready.
    Asking,
    /// The Unit is not ready.
    NotReady {
        /// Why, for people.
        reason: String,
    },
}

impl fmt::Display for WaitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trigger => f.write_str("somebody has to start it: `aos update start`"),
            Self::Slot { local, .. } => write!(f, "the next time slot begins at {local}"),
            Self::Clock => f.write_str("the clock is not set: it is behind the update's arrival"),
            Self::Consent => f.write_str("the user has to consent: `aos unit consent give`"),
            Self::Refused { reason } if reason.is_empty() => f.write_str("the user has refused"),
            Self::Refused { reason } => write!(f, "the user has refused: {reason}"),
            Self::Asking => f.write_str("the Unit is being asked whether it is ready"),
            Self::NotReady { reason } => write!(f, "the Unit is not ready: {reason}"),
        }
    }
}

/// How one gate stands, readiness aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stand {
    /// Open.
    Open,
    /// Shut.
    Waits {
        /// For what.
        reason: WaitReason,
        /// When it may open by itself.
        until: Option<Timestamp>,
    },
    /// It waited as long as it may.
    Expired {
        /// For what, at the end; `None`: it would be open by now.
        reason: Option<WaitReason>,
    },
}

impl Gate {
    /// A gate that nobody has touched.
    pub const fn new(since: Timestamp) -> Self {
        Self {
            since,
            triggered: false,
            consent: None,
        }
    }

    /// How it stands at `now`. Deterministic, so asking again is free.
    ///
    /// A TTL that the schedule names ends the update even if its gate is open by then; the Unit's own one only ends waiting,
    /// so that an update without a schedule still happens on a Unit that was switched off for months.
    pub fn stand(
        &self,
        part: UpdatePart,
        schedule: Option<&Schedule>,
        policy: &GatePolicy,
        now: Timestamp,
    ) -> Stand {
        let shut = self.shut(part, schedule, policy, now);
        let strict = schedule.is_some_and(|schedule| schedule.ttl.is_some());
        if now >= expiry(schedule, self.since, policy.ttl) && (strict || shut.is_some()) {
            let reason = shut.map(|(reason, _)| reason);
            return Stand::Expired { reason };
        }
        match shut {
            Some((reason, until)) => Stand::Waits { reason, until },
            None => Stand::Open,
        }
    }

    /// What holds it shut, and until when if that is known.
    fn shut(
        &self,
        part: UpdatePart,
        schedule: Option<&Schedule>,
        policy: &GatePolicy,
        now: Timestamp,
    ) -> Option<(WaitReason, Option<Timestamp>)> {
        let timed =
            schedule.is_some_and(|schedule| matches!(schedule.rule, ScheduleRule::Timetable(_)));
        if timed && !self.triggered && now < self.since {
            return Some((WaitReason::Clock, Some(self.since)));
        }
        match evaluate(schedule, self.triggered, None, now, &policy.zone) {
            Verdict::NeedsTrigger => return Some((WaitReason::Trigger, None)),
            Verdict::ClosedUntil(at) => {
                let local = policy.zone.local(at).to_string();
                return Some((WaitReason::Slot { at, local }, Some(at)));
            }
            Verdict::Open | Verdict::Expired => {}
        }
        match &self.consent {
            _ if !policy.consent.contains(&part) => None,
            Some(consent) if consent.given => None,
            Some(consent) => {
                let reason = consent.reason.clone();
                Some((WaitReason::Refused { reason }, None))
            }
            None => Some((WaitReason::Consent, None)),
        }
    }
}

impl Gates {
    /// The gates of an update that came at `now`.
    pub const fn new(update: u64, now: Timestamp) -> Self {
        Self {
            update,
            software: Gate::new(now),
            firmware: Gate::new(now),
            asked_since: None,
        }
    }

    /// One of the two.
    pub const fn of(&self, part: UpdatePart) -> &Gate {
        match part {
            UpdatePart::Software => &self.software,
            UpdatePart::Firmware => &self.firmware,
        }
    }

    /// One of the two, to change.
    pub const fn of_mut(&mut self, part: UpdatePart) -> &mut Gate {
        match part {
            UpdatePart::Software => &mut self.software,
            UpdatePart::Firmware => &mut self.firmware,
        }
    }
}
