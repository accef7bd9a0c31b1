use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::Arc,
};

use aos_time::{Timestamp, Zone};
use aos_types::{AosCode, ErrorInfo, Schedule};

use super::{Engine, PartState, Step};
use crate::{
    Consent, Cycle, Direction, Effect, EffectId, Failures, Gates, PartChanges, Readiness, Report,
    Stand, Target, UpdatePart, UpdateState, WaitReason, changes_of, expiry, only,
};

/// Longest reason of a person or a program that is kept, in characters.
const REASON: usize = 256;

/// What is not stored about an update that waits, because looking again tells it anew.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// What each part waits for, as of the last look.
    pub(super) held: BTreeMap<UpdatePart, Held>,
    /// What the whole update changes, by part; parts that stay as they are are left out.
    pub(super) changes: BTreeMap<UpdatePart, Arc<PartChanges>>,
    asking: Asking,
    looked_at: Timestamp,
}

/// What one part waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) reason: WaitReason,
    pub(super) until: Option<Timestamp>,
    /// It waits no longer.
    pub(super) expired: bool,
}

/// Where asking for readiness stands.
#[derive(Debug, Default)]
enum Asking {
    #[default]
    Idle,
    /// An answer is awaited; `before` is the last one.
    Asked {
        until: Timestamp,
        before: Option<String>,
    },
    NotReady {
        reason: String,
        again_at: Timestamp,
    },
}

/// What somebody on the Unit wants of an update that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Open the schedule's gate of this part.
    Start {
        /// Which part.
        part: UpdatePart,
        /// If it has expired: try it once more.
        again: bool,
    },
    /// Consent to the update, or refuse it.
    Consent {
        /// The update that was shown to the user; `None`: whichever it is.
        update: Option<u64>,
        /// Which parts; empty: all that need it.
        parts: BTreeSet<UpdatePart>,
        /// Yes or no.
        given: bool,
        /// Why not, as the user put it.
        reason: String,
    },
}

/// An [`Order`] that does not fit the state of the update; nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The part does not wait at its gate.
    #[error("the {part} part is not ready to be updated: {state}")]
    NotReady {
        /// Which part.
        part: UpdatePart,
        /// What is going on instead.
        state: PartState,
    },
    /// The order was meant for another update.
    #[error("the update has changed meanwhile: it is number {present} now, not {meant}")]
    OtherUpdate {
        /// The one that was meant.
        meant: u64,
        /// The one that there is.
        present: u64,
    },
    /// Nothing needs consent.
    #[error("no update that waits needs consent")]
    NoConsentNeeded,
}

/// Pending: everything is here and verified. The gates are asked what may go on; what waits is looked at again when it is
/// told so and at the time its gate names.
impl Engine {
    pub(super) fn ask_gates(&mut self, now: Timestamp) {
        self.decide(now, false);
    }

    /// `ready`: the Unit has just said that it may be changed.
    fn decide(&mut self, now: Timestamp, ready: bool) {
        let Some(cycle) = &self.record.cycle else {
            return;
        };
        let parts: Vec<UpdatePart> = self.waiting.changes.keys().copied().collect();
        // What only repairs the committed set is nothing that anybody needs to be asked about.
        if parts.is_empty() || cycle.direction == Direction::Back {
            self.enter(now, UpdateState::Installing);
            return;
        }
        let schedules = parts
            .iter()
            .map(|part| schedule(&cycle.target, *part).cloned());
        let schedules: Vec<Option<Schedule>> = schedules.collect();
        self.waiting.looked_at = now;
        let gates = self.gates(now).clone();
        let stand = |(part, schedule): (&UpdatePart, &Option<Schedule>)| {
            let gate = gates.of(*part);
            let stand = gate.stand(*part, schedule.as_ref(), &self.config.gates, now);
            (*part, stand)
        };
        let mut stands: BTreeMap<UpdatePart, Stand> =
            parts.iter().zip(&schedules).map(stand).collect();
        if !ready
            && stands.values().any(|stand| *stand == Stand::Open)
            && let Some((reason, overdue)) = self.not_ready(now)
        {
            for (part, schedule) in parts.iter().zip(&schedules) {
                let over = now
                    >= expiry(
                        schedule.as_ref(),
                        gates.of(*part).since,
                        self.config.gates.ttl,
                    );
                let Some(stand) = stands.get_mut(part).filter(|stand| **stand == Stand::Open)
                else {
                    continue;
                };
                let reason = reason.clone();
                *stand = match over || overdue {
                    true => Stand::Expired {
                        reason: Some(reason),
                    },
                    false => Stand::Waits {
                        reason,
                        until: None,
                    },
                };
            }
        }
        let policy = self.config.policy;
        let open: BTreeSet<UpdatePart> = stands
            .iter()
            .filter(|(_, stand)| policy.lets_through(stand))
            .map(|(part, _)| *part)
            .collect();
        self.hold(stands);
        if !open.is_empty() {
            self.go(now, &open);
        } else if self.waiting.held.values().all(|held| held.expired) {
            self.expire(now);
        } else if self.is_half_done() {
            // An older update has touched the Nodes already: what waits, waits on the committed set.
            self.undo_first(now);
        }
    }

    /// Whether an older update has touched the Nodes.
    fn is_half_done(&self) -> bool {
        let cycle = self.record.cycle.as_ref();
        cycle.is_some_and(|cycle| cycle.undo.is_some()) && self.config.policy.undoes_first()
    }

    /// Keeps what the parts wait for and tells about what is new.
    fn hold(&mut self, stands: BTreeMap<UpdatePart, Stand>) {
        let held: BTreeMap<UpdatePart, Held> = stands
            .into_iter()
            .filter_map(|(part, stand)| {
                let (reason, until, expired) = match stand {
                    Stand::Open => return None,
                    Stand::Waits { reason, until } => (reason, until, false),
                    Stand::Expired { reason } => (reason.unwrap_or(WaitReason::Asking), None, true),
                };
                Some((
                    part,
                    Held {
                        reason,
                        until,
                        expired,
                    },
                ))
            })
            .collect();
        let before = mem::replace(&mut self.waiting.held, held);
        if before == self.waiting.held {
            return;
        }
        for (part, held) in &self.waiting.held {
            let known = before.get(part).map(|held| mem::discriminant(&held.reason));
            // Most often the answer comes at once.
            let asking = held.reason == WaitReason::Asking;
            if known != Some(mem::discriminant(&held.reason)) && !held.expired && !asking {
                self.outputs.push_back(crate::Output::Report(Report::Waits {
                    part: *part,
                    reason: held.reason.clone(),
                }));
            }
        }
        self.report(Report::Changed);
    }

    /// The parts whose gates are open go; the others follow when these are committed.
    fn go(&mut self, now: Timestamp, open: &BTreeSet<UpdatePart>) {
        let Some(cycle) = &mut self.record.cycle else {
            return;
        };
        if self.waiting.changes.keys().any(|part| !open.contains(part)) {
            let alone = only(open, &cycle.target, &self.record.committed);
            let whole = mem::replace(&mut cycle.target, alone);
            cycle.asked.get_or_insert(whole);
        }
        self.waiting.asking = Asking::Idle;
        if let Some(gates) = &mut self.record.gates {
            gates.asked_since = None;
        }
        self.enter(now, UpdateState::Installing);
    }

    /// Every gate stayed shut too long.
    fn expire(&mut self, now: Timestamp) {
        let held = mem::take(&mut self.waiting.held);
        let mut failures = Failures::default();
        for (part, held) in held {
            let error = ErrorInfo::new(
                AosCode::Timeout,
                format!(
                    "the {part} part has waited as long as it may: {}",
                    held.reason
                ),
            );
            let Some(changes) = self.waiting.changes.get(&part) else {
                continue;
            };
            if changes.unit_config.is_some() {
                failures.unit_config = Some(error.clone());
            }
            if changes.install.is_empty() && changes.unit_config.is_none() {
                failures.step = Some(error.clone());
            }
            let items = changes.install.iter();
            failures
                .items
                .extend(items.map(|item| (item.id.clone(), error.clone())));
        }
        self.cancel();
        self.give_up(now, failures, true);
    }

    /// Why the Unit is not ready, and whether it has been waited for long enough; `None` without a condition.
    fn not_ready(&mut self, now: Timestamp) -> Option<(WaitReason, bool)> {
        let policy = self.config.gates.readiness?;
        let because = |reason: &Option<String>| match reason {
            Some(reason) => WaitReason::NotReady {
                reason: reason.clone(),
            },
            None => WaitReason::Asking,
        };
        let (before, asked) = match &self.waiting.asking {
            Asking::Idle => (None, false),
            Asking::Asked { until, before } => (before.clone(), now < *until),
            Asking::NotReady { reason, again_at } => (Some(reason.clone()), now < *again_at),
        };
        let since = self.gates(now).asked_since;
        if since.is_some_and(|since| now >= since + policy.deadline) {
            return Some((because(&before), true));
        }
        let reason = because(&before);
        if !asked {
            // An answer that is still awaited is late.
            self.cancel();
            if since.is_none() {
                self.gates(now).asked_since = Some(now);
                self.persist();
            }
            self.waiting.asking = Asking::Asked {
                until: now + policy.interval,
                before,
            };
            self.ask(Step::Readiness, Effect::AskReadiness);
        }
        Some((reason, false))
    }

    pub(super) fn readiness(&mut self, now: Timestamp, effect: EffectId, readiness: Readiness) {
        if self.awaited != Some((effect, Step::Readiness)) {
            return;
        }
        self.awaited = None;
        match readiness {
            Readiness::Ready => {
                self.waiting.asking = Asking::Idle;
                self.decide(now, true);
            }
            Readiness::NotReady(reason) => {
                let interval = self.config.gates.readiness.map(|policy| policy.interval);
                self.waiting.asking = Asking::NotReady {
                    reason: bounded(&reason),
                    again_at: now + interval.unwrap_or_default(),
                };
                self.decide(now, false);
            }
        }
    }

    pub(super) fn look_again(&mut self, now: Timestamp) {
        if let Asking::NotReady { again_at, .. } = &mut self.waiting.asking {
            *again_at = now;
        }
        if self.state() == UpdateState::Pending {
            self.decide(now, false);
        }
    }

    /// The rules of local time have changed, as those of a vehicle do that crosses a border.
    pub fn set_zone(&mut self, now: Timestamp, zone: Zone) {
        if self.config.gates.zone != zone {
            self.config.gates.zone = zone;
            self.look_again(now);
            self.watch_time(now);
        }
    }

    /// Whether something waits for a local time, so that a change of the clock or of its rules matters.
    pub fn waits_for_the_clock(&self) -> bool {
        self.state() == UpdateState::Pending
            && self.waiting.held.values().any(|held| {
                matches!(held.reason, WaitReason::Slot { .. } | WaitReason::Clock) && !held.expired
            })
    }

    /// When to look at the gates again, without being told.
    pub(super) fn gates_wake(&self) -> Option<Timestamp> {
        let (gates, cycle) = (self.record.gates.as_ref()?, self.record.cycle.as_ref()?);
        let waits = self.waiting.held.iter().filter(|(_, held)| !held.expired);
        let parts = waits.flat_map(|(part, held)| {
            let schedule = schedule(&cycle.target, *part);
            let over = expiry(schedule, gates.of(*part).since, self.config.gates.ttl);
            [held.until, Some(over)]
        });
        let asking = match &self.waiting.asking {
            Asking::Idle => None,
            Asking::Asked { until, .. } => Some(*until),
            Asking::NotReady { again_at, .. } => Some(*again_at),
        };
        let deadline = self.config.gates.readiness.map(|policy| policy.deadline);
        let overdue = gates
            .asked_since
            .zip(deadline)
            .map(|(since, deadline)| since + deadline);
        parts
            .chain([asking, overdue])
            .flatten()
            .filter(|at| *at > self.waiting.looked_at)
            .min()
    }

    /// Whether the gates in the record are those of this target with the same schedules. If not they are made to be.
    pub(super) fn gates_for(&mut self, now: Timestamp, target: &Target) -> bool {
        let cycle = self.record.cycle.as_ref();
        let known = cycle
            .and_then(|cycle| cycle.next.as_ref().or_else(|| cycle.whole()))
            .or_else(|| self.record.failure.as_ref().map(|failure| &failure.target));
        let same = known.filter(|known| known.asks_the_same(target));
        let Some((known, gates)) = same.zip(self.record.gates.as_mut()) else {
            self.record.gates = Some(Gates::new(self.record.generation + 1, now));
            return false;
        };
        let mut unchanged = true;
        for part in UpdatePart::ALL {
            if schedule(known, part) != schedule(target, part) {
                gates.of_mut(part).since = now;
                gates.asked_since = None;
                unchanged = false;
            }
        }
        unchanged
    }

    /// Does what somebody on the Unit wants, then [`Engine::poll`] until it is empty.
    pub fn order(&mut self, now: Timestamp, order: Order) -> Result<(), Refused> {
        match order {
            Order::Start { part, again } => self.start_part(now, part, again)?,
            Order::Consent {
                update,
                parts,
                given,
                reason,
            } => {
                let consent = Consent {
                    given,
                    at: now,
                    reason: bounded(&reason),
                };
                self.consent(now, update, &parts, &consent)?;
            }
        }
        self.watch_time(now);
        Ok(())
    }

    fn start_part(&mut self, now: Timestamp, part: UpdatePart, again: bool) -> Result<(), Refused> {
        let state = self.part_state(part);
        let failure = self.record.failure.as_ref();
        let expired = failure.filter(|failure| failure.expired && self.record.cycle.is_none());
        if let Some(expired) = expired.filter(|_| again) {
            let target = expired.target.clone();
            if !changes_of(part, &target, &self.record.committed).is_empty() {
                let mut gates = Gates::new(self.record.generation + 1, now);
                gates.of_mut(part).triggered = true;
                self.record.gates = Some(gates);
                self.start(now, target, None, None);
                return Ok(());
            }
        }
        let expired = self.waiting.held.get(&part).is_some_and(|it| it.expired);
        if state != PartState::Ready || expired {
            return Err(Refused::NotReady { part, state });
        }
        let gate = self.gates(now).of_mut(part);
        if !gate.triggered {
            gate.triggered = true;
            self.persist();
            self.look_again(now);
        }
        Ok(())
    }

    fn consent(
        &mut self,
        now: Timestamp,
        update: Option<u64>,
        parts: &BTreeSet<UpdatePart>,
        consent: &Consent,
    ) -> Result<(), Refused> {
        let present = self.gates(now).update;
        if let Some(meant) = update.filter(|meant| *meant != present) {
            return Err(Refused::OtherUpdate { meant, present });
        }
        let needed: Vec<UpdatePart> = UpdatePart::ALL
            .into_iter()
            .filter(|part| self.config.gates.consent.contains(part))
            .filter(|part| parts.is_empty() || parts.contains(part))
            .filter(|part| {
                matches!(
                    self.part_state(*part),
                    PartState::Downloading | PartState::Ready
                )
            })
            .collect();
        if needed.is_empty() {
            return Err(Refused::NoConsentNeeded);
        }
        for part in needed {
            self.gates(now).of_mut(part).consent = Some(consent.clone());
        }
        self.persist();
        self.report(Report::Changed);
        self.look_again(now);
        Ok(())
    }

    /// The gates in the record; new ones if an older program stored none.
    fn gates(&mut self, now: Timestamp) -> &mut Gates {
        let update = self.record.generation + 1;
        self.record
            .gates
            .get_or_insert_with(|| Gates::new(update, now))
    }

    /// Notes what the update under way changes.
    pub(super) fn look_at_parts(&mut self) {
        let carried_out = [
            UpdateState::Installing,
            UpdateState::Launching,
            UpdateState::WaitingActive,
        ];
        let cycle = self.record.cycle.as_ref();
        // Neither set changes any more until the commit, and comparing large ones takes its time.
        let known = cycle.is_some_and(|cycle| {
            cycle.direction == Direction::Forward && carried_out.contains(&cycle.state)
        });
        if known && !self.waiting.changes.is_empty() {
            return;
        }
        // What was set aside waits for no gate.
        let aside = cycle.and_then(|cycle| cycle.aside.as_ref());
        let whole = cycle.and_then(Cycle::whole).map(|whole| match aside {
            Some(aside) => {
                let items = aside.failures.items.keys().cloned().collect();
                Cow::Owned(whole.without(&items, &self.record.committed))
            }
            None => Cow::Borrowed(whole),
        });
        let changes = UpdatePart::ALL.into_iter().filter_map(|part| {
            let changes = changes_of(part, whole.as_deref()?, &self.record.committed);
            (!changes.is_empty()).then(|| (part, Arc::new(changes)))
        });
        self.waiting.changes = changes.collect();
        if self.state() == UpdateState::Downloading {
            // What an older update waited for is over, and so is what the Unit said to it.
            self.waiting.held.clear();
            self.waiting.asking = Asking::Idle;
        }
        let changes = &self.waiting.changes;
        self.waiting
            .held
            .retain(|part, _| changes.contains_key(part));
    }
}

fn bounded(reason: &str) -> String {
    reason.chars().take(REASON).collect()
}

/// The schedule of one part.
pub(super) fn schedule(target: &Target, part: UpdatePart) -> Option<&Schedule> {
    match part {
        UpdatePart::Software => target.sota_schedule.as_ref(),
        UpdatePart::Firmware => target.fota_schedule.as_ref(),
    }
}
