//! Which of the places that fit is the best, and whose place a more important instance takes if none does.

use aos_types::{InstanceIdent, ItemType};

use crate::{Excluded, Exclusions, Rule, Usage, board::Site, plan::Spoke, planner::Planner};

/// A place that was chosen.
pub(crate) struct Selection {
    pub(crate) site: Site,
    pub(crate) spoke: Spoke,
    pub(crate) excluded: Exclusions,
}

/// A place that less important instances would have to leave.
struct PushOut {
    /// The highest priority among them, and how many they are.
    cost: (u64, usize),
    image: usize,
    site: Site,
    victims: Vec<usize>,
}

/// What speaks for a place: the smallest is the best.
type Key = (u32, u64, u64);

#[allow(
    clippy::indexing_slicing,
    reason = "ranks, images, Nodes and places are numbers of entries in tables that only grow"
)]
impl Planner<'_> {
    /// The best place for an instance by one image: the highest priority of the Node, the fewest replicas, the most free
    /// CPU, the most free memory, the first by name. With `only` on no other Node; with `leaving` not on that one, and on no
    /// other one that is overloaded.
    pub(crate) fn select(
        &mut self,
        rank: usize,
        image: usize,
        (only, leaving): (Option<u32>, Option<u32>),
        home: Option<(u32, Usage)>,
    ) -> Result<Selection, Exclusions> {
        let Some(fit) = self.fit(rank, image) else {
            return Err([].into());
        };
        let Some(wanted) = self.wanted_anew(rank, image, home) else {
            return Err([].into());
        };
        let mut replicas = vec![0; self.board.nodes.len()];
        for (node, count) in &self.wishes[rank].replicas {
            replicas[*node as usize] = *count;
        }
        let mut best: Option<(u32, Key, Site)> = None;
        let mut second: Option<Key> = None;
        let mut lower = false;
        let mut gone: Vec<Excluded> = Vec::new();
        for site in &fit.sites {
            let node = self.board.node_of(*site);
            if only.is_some_and(|only| only != node) {
                continue;
            }
            let priority = self.board.node(node).priority;
            if best.is_some_and(|(have, ..)| self.board.node(have).priority > priority) {
                lower = true;
                break;
            }
            let relieves = leaving.is_some() && self.board.overloaded(node);
            let rule = match relieves {
                true => Some(Rule::Overloaded),
                false => self.board.lacks(*site, &wanted),
            };
            if let Some(rule) = rule {
                match gone.last_mut().filter(|last| last.node == node) {
                    Some(last) if last.rule.rank() <= rule.rank() => last.rule = rule,
                    Some(_) => {}
                    None => gone.push(Excluded { node, rule }),
                }
                continue;
            }
            let (cpu, ram) = self.board.has_room_to_spare(*site);
            let key = (replicas[node as usize], u64::MAX - cpu, u64::MAX - ram);
            match best {
                Some((have, known, _)) if key >= known => {
                    if have != node && second.is_none_or(|second| key < second) {
                        second = Some(key);
                    }
                }
                Some((have, known, _)) => {
                    if have != node {
                        second = Some(known);
                    }
                    best = Some((node, key, *site));
                }
                None => best = Some((node, key, *site)),
            }
        }
        // A Node one of whose runtimes fits is not excluded.
        let fits = best.map(|(node, ..)| node);
        gone.retain(|one| Some(one.node) != fits);
        let excluded = match (only, gone.is_empty()) {
            (None, true) => fit.gone.clone(),
            _ => self.all_exclusions(&fit.gone, gone, only, fits),
        };
        let Some((_, key, site)) = best else {
            return Err(excluded);
        };
        let spoke = match second {
            None if lower => Spoke::Priority(self.board.node(self.board.node_of(site)).priority),
            None => Spoke::Only,
            Some(second) if second.0 != key.0 => Spoke::Spread,
            Some(second) if second.1 != key.1 => Spoke::Cpu,
            Some(second) if second.2 != key.2 => Spoke::Ram,
            Some(_) => Spoke::Name,
        };
        Ok(Selection {
            site,
            spoke,
            excluded,
        })
    }

    fn all_exclusions(
        &self,
        fixed: &[Excluded],
        found: Vec<Excluded>,
        only: Option<u32>,
        chosen: Option<u32>,
    ) -> Exclusions {
        let mut all: Vec<Excluded> = fixed.iter().cloned().chain(found).collect();
        if let Some(home) = only {
            let name = self.board.node(home).id.as_str();
            all.retain(|one| one.node == home);
            let others = (0..self.board.nodes.len()).filter_map(|node| u32::try_from(node).ok());
            all.extend(
                others
                    .filter(|node| *node != home && Some(*node) != chosen)
                    .map(|node| Excluded {
                        node,
                        rule: Rule::Elsewhere(name.into()),
                    }),
            );
        }
        all.sort_by_key(|one| one.node);
        all.into()
    }

    /// A place that fits if less important instances leave it: on the Node where the least important ones, and the fewest,
    /// must leave. Components stay where they are.
    pub(crate) fn push_out(
        &mut self,
        rank: usize,
        ident: &InstanceIdent,
    ) -> Option<(usize, Site, Vec<usize>)> {
        let priority = self.wishes[rank].request.priority;
        let lowest = self.wishes.last()?.request.priority;
        if lowest >= priority || !self.board.policy.pushes_out() {
            return None;
        }
        let (pinned, home) = (self.pin(rank, ident), self.kept(rank, ident));
        let mut best: Option<PushOut> = None;
        for image in 0..self.images(rank) {
            let Some(fit) = self.fit(rank, image) else {
                continue;
            };
            for site in &fit.sites {
                let node = self.board.node_of(*site);
                if pinned.is_some_and(|home| home != node) {
                    continue;
                }
                let Some((highest, victims)) = self.victims((rank, image), *site, priority, home)
                else {
                    continue;
                };
                let cost = (highest, victims.len());
                if best.as_ref().is_none_or(|known| cost < known.cost) {
                    best = Some(PushOut {
                        cost,
                        image,
                        site: *site,
                        victims,
                    });
                }
            }
            if best.is_some() {
                break;
            }
        }
        best.map(|best| (best.image, best.site, best.victims))
    }

    /// Who would have to leave, and the highest priority among them. Everything is as before afterwards.
    fn victims(
        &mut self,
        (rank, image): (usize, usize),
        site: Site,
        priority: u64,
        home: Option<(u32, Usage)>,
    ) -> Option<(u64, Vec<usize>)> {
        let node = self.board.node_of(site) as usize;
        let less = |place: &usize| {
            let held = self.held[*place].as_ref()?;
            let request = self.wishes[held.rank].request;
            let service = request.item_type != ItemType::Component;
            (service && request.priority < priority).then_some((held.rank, *place))
        };
        // The higher the rank, the less important.
        let mut candidates: Vec<(usize, usize)> =
            self.on_node[node].iter().filter_map(less).collect();
        candidates.sort_by(|one, other| other.cmp(one));
        let fits = |this: &Self| {
            let wanted = this.wanted_anew(rank, image, home);
            wanted.is_some_and(|wanted| this.board.lacks(site, &wanted).is_none())
        };
        let mut gone: Vec<usize> = Vec::new();
        for (_, place) in candidates {
            if fits(self) {
                break;
            }
            self.release(place);
            gone.push(place);
        }
        let enough = fits(self);
        let mut victims = Vec::new();
        // Whoever need not leave stays after all, the most important first.
        for place in gone.iter().rev() {
            self.take_back(*place);
            if enough && !fits(self) {
                self.release(*place);
                victims.push(*place);
            }
        }
        for place in &victims {
            self.take_back(*place);
        }
        let highest = victims
            .iter()
            .filter_map(|place| self.held[*place].as_ref())
            .map(|held| self.wishes[held.rank].request.priority)
            .max();
        (enough && !victims.is_empty()).then_some((highest?, victims))
    }
}
