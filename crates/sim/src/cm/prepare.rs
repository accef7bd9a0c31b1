//! Before lists go out, what they bring is installed: nothing is stopped for what cannot start.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use aos_time::Timestamp;
use aos_types::{ErrorInfo, InstanceState};

use super::{LAUNCH, Sending, Wanted, error};
use crate::{
    draw::{MIN, SEC},
    event::Event,
    words::{Inst, Item, Ver, inst, version_number},
    world::World,
};

/// For so long a Node is taken to have what it said it has installed.
const GOOD: Duration = MIN.saturating_mul(30);
/// The pause before lists that follow the Nodes ask again for what could not be installed.
pub(super) const PAUSE: Duration = SEC.saturating_mul(30);

/// What is known of the images on a Node, on this connection.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    conn: u64,
    here: BTreeMap<(Item, Ver), Timestamp>,
    failed: BTreeMap<(Item, Ver), Timestamp>,
}

impl Prepared {
    /// As it is on this connection.
    fn on(&mut self, conn: u64) -> &mut Self {
        if self.conn != conn {
            *self = Self {
                conn,
                ..Self::default()
            };
        }
        self
    }

    /// A Node has said how its installation went.
    pub(crate) fn note(&mut self, conn: u64, now: Timestamp, image: (Item, Ver), failed: bool) {
        let known = self.on(conn);
        if failed {
            known.here.remove(&image);
            known.failed.insert(image, now);
        } else {
            known.failed.remove(&image);
            known.here.insert(image, now);
        }
    }
}

impl World {
    /// Has everything installed that the lists bring to Nodes, and sends them then.
    pub(crate) fn prepares(&mut self, id: u64, mut sending: Sending) {
        let (now, life) = (self.now, self.cm.life);
        let insist = sending.retry && sending.connections.is_empty();
        sending.connections = self.connections();
        sending.missing.clear();
        let mut orders = Vec::new();
        for node in self.listeners() {
            let Some(run) = &mut self.cm.run else { return };
            let list = run.lists.on(node);
            let seen = &mut run.seen[node];
            let Some(view) = &seen.view else { continue };
            let reports = view.snapshot.as_ref().map(|snapshot| &snapshot.reports);
            let prepared = seen.prepared.on(view.conn);
            let mut new: Vec<(Inst, Ver)> = Vec::new();
            for order in list.iter() {
                let (which, ver) = (inst(&order.ident), version_number(&order.version));
                let runs = reports.and_then(|reports| reports.get(&which));
                // One that is on its way, or has failed, may still want for its image.
                if runs.is_some_and(|runs| runs.ver == ver && runs.state == InstanceState::Active) {
                    continue;
                }
                let image = (which.item, ver);
                let recent =
                    |at: Option<&Timestamp>, span| at.is_some_and(|at| now.since(*at) < span);
                if recent(prepared.here.get(&image), GOOD) {
                    continue;
                }
                if !insist && recent(prepared.failed.get(&image), PAUSE) {
                    let missing = sending.missing.entry(node).or_default();
                    missing.insert(which, error("its image cannot be installed"));
                } else {
                    new.push((which, ver));
                }
            }
            if !new.is_empty() {
                orders.push((node, new));
            }
        }
        for (node, new) in orders {
            let wanted: Wanted = new.iter().map(|(which, _)| *which).collect();
            let images = new.iter().map(|(which, ver)| (which.item, *ver));
            let order = self.orders_images(node, &wanted, images.collect());
            self.after(
                LAUNCH,
                Event::PrepareLate {
                    life,
                    id,
                    node,
                    order,
                },
            );
            sending.preparing.insert(node, (order, wanted));
        }
        let Some(run) = &mut self.cm.run else { return };
        run.sendings.insert(id, sending);
        self.prepared(id);
    }

    /// Goes on when all Nodes have answered.
    fn prepared(&mut self, id: u64) {
        let now = self.connections();
        let Some(run) = &mut self.cm.run else { return };
        let Some(sending) = run.sendings.get_mut(&id) else {
            return;
        };
        if !sending.preparing.is_empty() {
            return;
        }
        // A Node that has come meanwhile has nothing yet.
        if sending.connections != now
            && let Some(sending) = run.sendings.remove(&id)
        {
            self.prepares(id, sending);
            return;
        }
        self.sends(id);
    }

    /// A Node has installed what lists bring, or could not. False if nobody has asked for it.
    pub(crate) fn hears_prepared(&mut self, node: usize, order: u64, failed: &[Inst]) -> bool {
        let Some(run) = &mut self.cm.run else {
            return false;
        };
        let asked = run.sendings.iter().find_map(|(id, sending)| {
            let (known, _) = sending.preparing.get(&node)?;
            (*known == order).then_some(*id)
        });
        let Some(id) = asked else { return false };
        if let Some(sending) = run.sendings.get_mut(&id) {
            sending.preparing.remove(&node);
            let missing = failed
                .iter()
                .map(|which| (*which, error("its image cannot be installed")));
            let missing: BTreeMap<Inst, ErrorInfo> = missing.collect();
            if !missing.is_empty() {
                sending.missing.entry(node).or_default().extend(missing);
            }
        }
        self.prepared(id);
        true
    }

    pub(crate) fn preparing_is_late(&mut self, id: u64, node: usize, order: u64) {
        let Some(run) = &mut self.cm.run else { return };
        let Some(sending) = run.sendings.get_mut(&id) else {
            return;
        };
        let due = sending
            .preparing
            .get(&node)
            .is_some_and(|(known, _)| *known == order);
        if !due {
            return;
        }
        if let Some((_, wanted)) = sending.preparing.remove(&node) {
            let late = error("it took too long to install images");
            let missing = wanted.into_iter().map(|which| (which, late.clone()));
            sending.missing.entry(node).or_default().extend(missing);
        }
        self.prepared(id);
    }

    /// A Node is back in the middle of it: it is told again.
    pub(crate) fn prepares_again(&mut self, node: usize, conn: u64) {
        let life = self.cm.life;
        let Some(run) = &mut self.cm.run else { return };
        run.seen[node].prepared.on(conn);
        let lists = run.lists.on(node);
        let open: Vec<(u64, Wanted)> = run
            .sendings
            .iter()
            .filter_map(|(id, sending)| Some((*id, sending.preparing.get(&node)?.1.clone())))
            .collect();
        for (id, wanted) in open {
            let images: BTreeSet<(Item, Ver)> = lists
                .iter()
                .filter(|order| wanted.contains(&inst(&order.ident)))
                .map(|order| (inst(&order.ident).item, version_number(&order.version)))
                .collect();
            let order = self.orders_images(node, &wanted, images);
            self.after(
                LAUNCH,
                Event::PrepareLate {
                    life,
                    id,
                    node,
                    order,
                },
            );
            if let Some(run) = &mut self.cm.run
                && let Some(sending) = run.sendings.get_mut(&id)
            {
                sending.preparing.insert(node, (order, wanted));
            }
        }
    }
}
