use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use aos_launch::{Instance, Member, Stop, starts, stop_waves};
use aos_types::{InstanceIdent, InstanceState};
use futures::{StreamExt, stream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Launcher, entry::Entry, leaving::predecessor_ends};

impl Launcher {
    /// The instances that may start now, in order. What the others wait for is told.
    pub(super) fn ready(&self) -> Vec<Instance> {
        let held = |entry: &Entry| entry.held.is_some();
        if !self.entries().values().any(held) {
            return Vec::new();
        }
        let (elsewhere, since) = self.told();
        let leaving = self.leaving();
        self.change(|entries| {
            let members = entries.values().map(|entry| entry.member(since));
            let starts = starts(&members.collect::<Vec<Member>>(), &elsewhere);
            for (ident, why) in starts.still {
                if let Some(entry) = entries.get_mut(&ident) {
                    entry.stands_still(why);
                }
            }
            let (wait, go): (Vec<&InstanceIdent>, Vec<&InstanceIdent>) =
                starts.go.iter().partition(|ident| leaving.contains(*ident));
            for ident in wait {
                if let Some(entry) = entries.get_mut(ident) {
                    entry.state = InstanceState::Activating;
                    entry.error = Some(predecessor_ends());
                }
            }
            let go = go.into_iter().filter_map(|ident| entries.get(ident));
            go.map(|entry| entry.instance.clone()).collect()
        })
    }

    /// Starts what has waited for others, once that may start, until the stop.
    pub(super) async fn follow_order(self: &Arc<Self>) {
        let mut snapshots = self.snapshots();
        loop {
            snapshots.mark_unchanged();
            let patience = tokio::select! {
                // A launch starts what it can itself.
                _turn = self.switching.read() => self.start_ready(),
                () = self.stop.cancelled() => return,
            };
            let impatient = async {
                match patience {
                    Some(end) => tokio::time::sleep_until(end).await,
                    None => std::future::pending().await,
                }
            };
            // Waiting for a state or a notice is cancel-safe.
            tokio::select! {
                _ = snapshots.changed() => {}
                () = self.moved.notified() => {}
                () = impatient => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// Plans the starts that may be made now; gives when to look again even if nothing happens.
    fn start_ready(self: &Arc<Self>) -> Option<Instant> {
        let ready = self.ready();
        let planned: Vec<(InstanceIdent, CancellationToken)> = self.change(|entries| {
            let plan = |instance: Instance| {
                let entry = entries.get_mut(&instance.ident)?;
                entry.held = None;
                entry.give_up_retry();
                let token = self.stop.child_token();
                entry.retry = Some(token.clone());
                Some((instance.ident, token))
            };
            ready.into_iter().filter_map(plan).collect()
        });
        if !planned.is_empty() {
            let launcher = self.clone();
            self.tasks.spawn(async move {
                let start =
                    |(ident, token)| launcher.clone().start_again(ident, Duration::ZERO, token);
                stream::iter(planned.into_iter().map(start))
                    .buffered(launcher.parallel())
                    .collect::<Vec<()>>()
                    .await;
            });
        }
        let (_, since) = self.told();
        let entries = self.entries();
        let ends = entries.values().filter_map(|entry| entry.impatient(since));
        ends.min()
    }

    /// What is stopped, in the reverse order of starts: wave after wave.
    pub(super) fn waves<'a>(&self, stop: &'a [Stop]) -> Vec<Vec<&'a Stop>> {
        let members: Vec<Member> = self
            .entries()
            .values()
            .map(|one| one.member(None))
            .collect();
        let by_ident: BTreeMap<&InstanceIdent, &Stop> =
            stop.iter().map(|stop| (&stop.ident, stop)).collect();
        let stopped: BTreeSet<InstanceIdent> = by_ident.keys().map(|&one| one.clone()).collect();
        stop_waves(&members, &stopped)
            .into_iter()
            .map(|wave| {
                wave.iter()
                    .filter_map(|one| by_ident.get(one).copied())
                    .collect()
            })
            .collect()
    }
}
