//! How the engine goes about an update, beside what comes of it: it gives way at once, keeps its pauses, waits as long as it must
//! and no longer. Most of this heals by itself sooner or later, so no look at the end finds it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aos_time::Timestamp;
use aos_types::InstanceIdent;
use aos_update::{
    Config, Cycle, Direction, EffectId, Failure, InstanceView, Record, Target, UpdateState,
};

use crate::{cm::brief, draw::MIN, oracle::newest, world::World};

/// What is remembered to judge it.
#[derive(Default)]
pub(crate) struct Conduct {
    /// The download in hand.
    downloading: Option<EffectId>,
    cancelled: BTreeSet<u64>,
    /// What the engine was told last of an instance, and when.
    views: BTreeMap<InstanceIdent, (Timestamp, InstanceView)>,
    /// When the clock of CM jumped last.
    jumped: Option<Timestamp>,
}

impl Conduct {
    pub(crate) fn jumps(&mut self, now: Timestamp) {
        self.jumped = Some(now);
    }

    pub(crate) fn jumped_since(&self, since: Timestamp) -> Option<Timestamp> {
        self.jumped.filter(|at| *at >= since)
    }

    /// The download that has not ended.
    pub(crate) fn in_hand(&self) -> Option<EffectId> {
        self.downloading
    }

    pub(crate) fn downloads(&mut self, effect: EffectId) {
        self.downloading = Some(effect);
    }

    pub(crate) fn cancels(&mut self, effect: EffectId) {
        self.cancelled.insert(effect.0);
    }

    /// An effect has ended.
    pub(crate) fn ends(&mut self, effect: EffectId) {
        if self.downloading == Some(effect) {
            self.downloading = None;
        }
    }

    /// CM has ended, and with it all that it had in hand.
    pub(crate) fn dies(&mut self) {
        self.downloading = None;
        self.cancelled.clear();
        self.views.clear();
    }

    pub(crate) fn is_told(
        &mut self,
        now: Timestamp,
        views: &BTreeMap<InstanceIdent, InstanceView>,
    ) {
        self.views = views
            .iter()
            .map(|(ident, view)| (ident.clone(), (now, view.clone())))
            .collect();
    }

    fn is_up(&self, ident: &InstanceIdent, version: &str, since: Timestamp) -> bool {
        self.views.get(ident).is_some_and(|(at, view)| {
            use aos_types::InstanceState::{Active, Inactive};
            *at >= since && view.version == version && matches!(view.state, Active | Inactive)
        })
    }
}

/// Each instance of a set with its version, and whether its item may fail alone.
fn all(target: &Target) -> impl Iterator<Item = (InstanceIdent, &str, bool)> {
    target.instances.iter().flat_map(|entry| {
        let item = target.items.iter().find(|item| item.id == entry.item);
        (0..entry.num_instances).filter_map(move |index| {
            let ident = InstanceIdent::service(entry.item.clone(), entry.subject.clone(), index);
            item.map(|item| (ident, item.version.as_str(), item.independent))
        })
    })
}

fn is_forward(cycle: &&Cycle) -> bool {
    cycle.direction == Direction::Forward
}

impl World {
    /// A desired state was handed to the engine: whether it did with it what it has to do at once.
    pub(crate) fn check_desired(
        &mut self,
        number: usize,
        before: &Record,
        in_hand: Option<EffectId>,
    ) {
        let Some(run) = &self.cm.run else { return };
        let after = run.engine.record();
        let same = newest(after).asks_the_same(newest(before));
        let (was, is) = (before.cycle.as_ref(), after.cycle.as_ref());
        let wrong = match was {
            Some(was) if same && was.state != UpdateState::Pending => {
                // A deadline follows the clock when that has jumped meanwhile (seed 12183).
                let stage = self.oracle.stage_since();
                let jumped = self.oracle.conduct.jumped_since(stage).is_some();
                let goes_on = is.is_some_and(|is| {
                    (is.state, is.direction) == (was.state, was.direction)
                        && (jumped || is.deadline == was.deadline)
                });
                (!goes_on).then_some("is what is under way already, and it was begun anew")
            }
            None if same => {
                let pauses = |failure: &&Failure| failure.retry_at.is_some();
                let paused = before.failure.as_ref().filter(pauses);
                let kept = after.failure.as_ref().map(|failure| failure.attempts);
                let counted =
                    paused.is_some_and(|paused| kept.is_none_or(|n| n == paused.attempts));
                let begun = paused.is_some() && (is.is_some() || !counted);
                begun.then_some("has failed and waits for its next time, and it was begun anew")
            }
            Some(was) if !same && was.state == UpdateState::Finalizing && was.next.is_none() => {
                let finishes = is.is_some_and(|is| {
                    is.state == UpdateState::Finalizing && is.target.asks_the_same(&was.target)
                });
                (!finishes).then_some("came during a commit, and it was given up")
            }
            Some(was) if !same && is_forward(&was) && was.state == UpdateState::Downloading => {
                let old_goes_on = is
                    .filter(is_forward)
                    .is_some_and(|is| is.asked().asks_the_same(was.asked()));
                let cancelled =
                    in_hand.is_none_or(|id| self.oracle.conduct.cancelled.contains(&id.0));
                if old_goes_on {
                    Some("is newer, and what is fetched does not give way")
                } else {
                    (!cancelled).then_some("is newer, and the download in hand was not stopped")
                }
            }
            _ => None,
        };
        if let Some(wrong) = wrong {
            self.broken(5, |_| format!("desired state #{number} {wrong}"));
        }
    }

    /// The engine was told of all instances: what cannot recover is not waited for.
    pub(crate) fn check_awaited(&mut self) {
        let Some(run) = &self.cm.run else { return };
        let record = run.engine.record();
        let waits = record
            .cycle
            .as_ref()
            .filter(|cycle| is_forward(cycle) && cycle.state == UpdateState::WaitingActive);
        let Some(cycle) = waits else { return };
        let before: BTreeMap<InstanceIdent, &str> = all(&record.committed)
            .map(|(ident, version, _)| (ident, version))
            .collect();
        let lost = all(&cycle.target).find(|(ident, version, alone)| {
            let changed = before.get(ident) != Some(version);
            let view = self.oracle.conduct.views.get(ident).map(|(_, view)| view);
            let failed = view.is_some_and(|view| {
                view.version == **version
                    && view.state == aos_types::InstanceState::Failed
                    && !view.recovers
            });
            changed && failed && !alone
        });
        if let Some((ident, _, _)) = lost {
            self.broken(4, |_| {
                format!("`{ident}` has failed for good, and the update goes on waiting for it")
            });
        }
    }

    /// The way back has ended well: what it brings back is up.
    pub(crate) fn check_way_back(&mut self, items: &BTreeSet<aos_types::ItemId>) {
        let since = self.oracle.launched_at().max(self.oracle.cm_started);
        let Some(run) = &self.cm.run else { return };
        let record = run.engine.record();
        if record.rollback.is_some() {
            return;
        }
        let conduct = &self.oracle.conduct;
        let down = all(&record.committed).find(|(ident, version, _)| {
            items.contains(&ident.item) && !conduct.is_up(ident, version, since)
        });
        let down = down.map(|(ident, _, _)| ident);
        if let Some(ident) = down {
            self.broken(4, |_| {
                format!("the way back is over, and `{ident}` is not up again")
            });
        }
    }

    /// A set is about to be committed: it has stood the test. `since` is when the wait for it began.
    pub(crate) fn check_tested(
        &mut self,
        cycle: &Cycle,
        committed: &Target,
        launched: Timestamp,
        waited: Option<Timestamp>,
    ) {
        let whole = cycle.asked();
        let left_out = whole.items.iter().find(|item| {
            let taken = cycle
                .target
                .items
                .iter()
                .any(|one| (&one.id, &one.version) == (&item.id, &item.version));
            !taken && !item.independent
        });
        if let Some(item) = left_out {
            let text = format!(
                "{} is committed without `{}`, which may not fail alone",
                brief(&cycle.target),
                item.id
            );
            self.broken(2, |_| text);
            return;
        }
        // After a restart the wait begins anew; a clock that jumps shortens it.
        let begun = waited.map(|waited| waited.max(self.oracle.cm_started));
        if let Some(begun) = begun
            && self.oracle.conduct.jumped_since(begun).is_none()
            && self.now.since(begun) < settle()
        {
            self.broken(4, |world| {
                let moment = world.now.since(begun);
                format!("a set is committed that was active for {moment:?}")
            });
            return;
        }
        let before: BTreeMap<InstanceIdent, &str> = all(committed)
            .map(|(ident, version, _)| (ident, version))
            .collect();
        let since = launched.max(self.oracle.cm_started);
        let conduct = &self.oracle.conduct;
        let unseen = all(&cycle.target).find(|(ident, version, _)| {
            before.get(ident) != Some(version) && !conduct.is_up(ident, version, since)
        });
        if let Some((ident, _, _)) = unseen {
            self.broken(4, |_| {
                format!(
                    "a set is committed, and nobody has said since the launch that `{ident}` is up"
                )
            });
        }
    }

    /// What failed again counts its attempts.
    pub(crate) fn check_attempts(&mut self, before: &Failure, failure: &Failure) {
        let again = before.target.asks_the_same(&failure.target) && before.at != failure.at;
        if again && !failure.expired && failure.attempts <= before.attempts {
            self.broken(5, |_| {
                format!(
                    "an update failed after {} attempts, and counts {}",
                    before.attempts, failure.attempts
                )
            });
        }
    }

    /// An update that waits at its gates does so on the committed set, not on a half-done one.
    pub(crate) fn check_half_done(&mut self, most: Duration) {
        let Some(run) = &self.cm.run else { return };
        let cycle = run.engine.record().cycle.as_ref();
        let half = cycle.is_some_and(|cycle| {
            cycle.state == UpdateState::Pending && is_forward(&cycle) && cycle.undo.is_some()
        });
        let since = self.oracle.stage_since().max(self.oracle.cm_started);
        if half && self.now.since(since) > most + MIN {
            self.broken(4, |_| {
                "an update waits at its gates, and the Unit is left on a half-done set".into()
            });
        }
    }
}

fn settle() -> Duration {
    Config::default().settle
}
