use std::{
    collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap},
    rc::Rc,
    sync::Arc,
};

use aos_types::{BalancingPolicy, Digest, InstanceIdent, ItemConfig, ItemType, StoragePolicy};

use crate::{
    Availability, Cause, Disabled, Exclusions, Input, KnownInstance, Placement, Plan, Request,
    Rule, Unplaced, Usage, Why,
    amounts::Amounts,
    board::{Board, Site, Wanted},
    fit::{Fit, Fits, stops},
    identity::Identities,
    plan::reason,
    policy::{Policy, Rules},
    select::Selection,
};

/// Places all requested instances; see the crate's description.
pub fn plan(input: &Input) -> Plan {
    plan_by(&Rules, input)
}

/// The same by another policy than [`Rules`]; only a simulator has one.
pub fn plan_by(policy: &dyn Policy, input: &Input) -> Plan {
    let mut planner = Planner::new(input, policy);
    planner.keep_what_runs();
    planner.relieve_overloaded();
    planner.components_everywhere(false);
    planner.place_the_rest();
    // Who was pushed out may have left a place for one more.
    planner.components_everywhere(true);
    planner.finish()
}

/// An instance that holds a place.
pub(crate) struct Held {
    pub(crate) rank: usize,
    index: u64,
    pub(crate) image: usize,
    pub(crate) site: Site,
    why: Why,
    excluded: Exclusions,
    leaves_behind: Option<u32>,
    /// What it has on the Node's disk already.
    kept: Usage,
}

/// An instance that looks for a place. The greatest is taken first.
#[derive(Debug, PartialEq, Eq)]
struct Looking {
    priority: u64,
    /// It had a place: of equals it comes first, so that a newcomer never pushes it out.
    displaced: Option<String>,
    rank: usize,
    index: u64,
}

impl Ord for Looking {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let key = |one: &Self| (one.priority, one.displaced.is_some());
        key(self)
            .cmp(&key(other))
            .then_with(|| (other.rank, other.index).cmp(&(self.rank, self.index)))
    }
}

impl PartialOrd for Looking {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// One request with what is worked out for all of its instances.
pub(crate) struct Wish<'a> {
    pub(crate) request: &'a Request,
    pub(crate) service: bool,
    /// By image: what each class of Nodes sets aside, and where it fits as far as the fixed rules go.
    amounts: Vec<Vec<Amounts>>,
    fits: Vec<Option<Rc<Fit>>>,
    /// Instances on each Node that has some.
    pub(crate) replicas: Vec<(u32, u32)>,
    /// An instance of it has found no place, so no other will: less is left all the time.
    nowhere: Option<(Cause, Exclusions, Arc<str>)>,
    /// By image: the last exclusions that were worked out, as instances of one request mostly have the same.
    last: Vec<Option<Exclusions>>,
}

pub(crate) struct Planner<'a> {
    pub(crate) board: Board<'a>,
    fits: Fits<'a>,
    pub(crate) wishes: Vec<Wish<'a>>,
    known: HashMap<&'a InstanceIdent, &'a KnownInstance>,
    identities: Identities<'a>,
    pub(crate) held: Vec<Option<Held>>,
    pub(crate) on_node: Vec<Vec<usize>>,
    /// Instances that may leave their overloaded Node.
    relieve: Vec<usize>,
    looking: BinaryHeap<Looking>,
    plan: Plan,
}

#[allow(
    clippy::indexing_slicing,
    reason = "ranks, images, Nodes and places are numbers of entries in tables that only grow"
)]
impl<'a> Planner<'a> {
    fn new(input: &'a Input, policy: &'a dyn Policy) -> Self {
        let board = Board::new(input, policy);
        let mut requests: Vec<&Request> = input.requests.iter().collect();
        requests.sort_by(|one, other| {
            other
                .priority
                .cmp(&one.priority)
                .then_with(|| (&one.item, &one.subject).cmp(&(&other.item, &other.subject)))
        });
        let mut seen = BTreeSet::new();
        requests.retain(|one| seen.insert((&one.item, &one.subject, one.item_type)));
        let wishes = requests
            .into_iter()
            .map(|request| {
                let service = request.item_type != ItemType::Component;
                let images = request.images.as_deref().unwrap_or_default();
                Wish {
                    request,
                    service,
                    amounts: images
                        .iter()
                        .map(|image| board.amounts(&image.config, service))
                        .collect(),
                    fits: vec![None; images.len()],
                    replicas: Vec::new(),
                    nowhere: None,
                    last: vec![None; images.len()],
                }
            })
            .collect();
        Self {
            fits: Fits::default(),
            wishes,
            known: input
                .known
                .iter()
                .map(|known| (&known.ident, known))
                .collect(),
            identities: Identities::new(input, policy.keeps_numbers()),
            held: Vec::new(),
            on_node: vec![Vec::new(); board.nodes.len()],
            relieve: Vec::new(),
            looking: BinaryHeap::new(),
            plan: Plan {
                nodes: board.nodes.iter().map(|node| node.id.clone()).collect(),
                ..Plan::default()
            },
            board,
        }
    }

    fn ident(&self, rank: usize, index: u64) -> InstanceIdent {
        let request = self.wishes[rank].request;
        InstanceIdent {
            item: request.item.clone(),
            subject: request.subject.clone(),
            index,
            item_type: request.item_type,
            preinstalled: false,
        }
    }

    fn known(&self, ident: &InstanceIdent) -> Option<&'a KnownInstance> {
        self.known.get(ident).copied()
    }

    pub(crate) fn fit(&mut self, rank: usize, image: usize) -> Option<Rc<Fit>> {
        let wish = &mut self.wishes[rank];
        if let Some(fit) = &wish.fits[image] {
            return Some(fit.clone());
        }
        let of = wish.request.images.as_ref().ok()?.get(image)?;
        let fit = self.fits.of(&self.board, wish.request, of, wish.service);
        wish.fits[image] = Some(fit.clone());
        Some(fit)
    }

    pub(crate) fn images(&self, rank: usize) -> usize {
        self.wishes[rank].amounts.len()
    }

    /// What an instance that runs asks for where it runs.
    fn wanted(&self, rank: usize, image: usize) -> Option<Wanted<'_>> {
        let wish = &self.wishes[rank];
        Some(Wanted {
            config: &wish.request.images.as_ref().ok()?.get(image)?.config,
            service: wish.service,
            amounts: &wish.amounts[image],
            fresh: false,
            home: None,
        })
    }

    /// What an instance asks for where it does not run; it may have its storage there all the same.
    pub(crate) fn wanted_anew(
        &self,
        rank: usize,
        image: usize,
        home: Option<(u32, Usage)>,
    ) -> Option<Wanted<'_>> {
        Some(Wanted {
            fresh: true,
            home,
            ..self.wanted(rank, image)?
        })
    }

    /// The Node that has the storage of an instance, and what it uses there.
    pub(crate) fn kept(&self, rank: usize, ident: &InstanceIdent) -> Option<(u32, Usage)> {
        let usage = self.known(ident)?.usage;
        Some((self.home(rank, ident)?, usage))
    }

    fn every_runtime(request: &Request) -> bool {
        request.item_type == ItemType::Component && request.num_instances == 0
    }

    /// What has a place keeps it if it fits; the rest of what is wanted looks for one.
    fn keep_what_runs(&mut self) {
        let mut stays: Vec<(bool, usize, InstanceIdent, &'a KnownInstance)> = Vec::new();
        for rank in 0..self.wishes.len() {
            let request = self.wishes[rank].request;
            if let Some(why) = &request.disabled {
                for index in 0..request.num_instances {
                    self.plan.disabled.push(Disabled {
                        ident: self.ident(rank, index),
                        version: request.version.clone(),
                        reason: why.clone(),
                    });
                }
                continue;
            }
            let unusable = match &request.images {
                Ok(images) if images.is_empty() => Some("the item has no image".to_owned()),
                Ok(_) => None,
                Err(why) => Some(why.clone()),
            };
            if let Some(why) = unusable {
                for index in 0..request.num_instances.max(1) {
                    let cause = Cause::Unusable(why.clone());
                    self.leave_out(rank, index, cause, Arc::from([]), why.as_str().into());
                }
                continue;
            }
            for index in 0..request.num_instances {
                let ident = self.ident(rank, index);
                let keeps = |known: &&KnownInstance| {
                    known.place.is_some() && self.board.policy.stays(known)
                };
                match self.known(&ident).filter(keeps) {
                    Some(known) => {
                        let free = self.may_leave(rank, &ident, known);
                        stays.push((free, rank, ident, known));
                    }
                    None => self.looking.push(Looking {
                        priority: request.priority,
                        displaced: None,
                        rank,
                        index,
                    }),
                }
            }
            if Self::every_runtime(request) {
                let mut of_request: Vec<&KnownInstance> = self
                    .known
                    .values()
                    .copied()
                    .filter(|known| known.ident.item == request.item)
                    .filter(|known| known.ident.subject == request.subject)
                    .filter(|known| known.ident.item_type == ItemType::Component)
                    .filter(|known| known.place.is_some())
                    .collect();
                of_request.sort_by_key(|known| known.ident.index);
                stays.extend(
                    of_request
                        .into_iter()
                        .map(|known| (false, rank, known.ident.clone(), known)),
                );
            }
        }
        // What cannot leave an overloaded Node takes its share of it first.
        stays.sort_by_key(|(free, ..)| *free);
        for (free, rank, ident, known) in stays {
            self.stay(rank, &ident, known, free);
        }
    }

    /// Whether an instance may be moved away from a Node that is overloaded.
    fn may_leave(&self, rank: usize, ident: &InstanceIdent, known: &KnownInstance) -> bool {
        let wish = &self.wishes[rank];
        let overloaded = known
            .place
            .as_ref()
            .and_then(|(node, _)| self.board.number(node))
            .is_some_and(|node| self.board.overloaded(node));
        let policy = wish
            .request
            .images
            .iter()
            .flatten()
            .all(|image| image.config.balancing_policy == BalancingPolicy::Enabled);
        overloaded && wish.service && policy && self.pin(rank, ident).is_none()
    }

    fn stay(&mut self, rank: usize, ident: &InstanceIdent, known: &'a KnownInstance, free: bool) {
        let Some((id, runtime)) = &known.place else {
            return;
        };
        let request = self.wishes[rank].request;
        let looking = |lost: String| Looking {
            priority: request.priority,
            displaced: Some(lost),
            rank,
            index: ident.index,
        };
        let everywhere = Self::every_runtime(request);
        let Some(node) = self.board.number(id) else {
            if !everywhere {
                self.looking.push(looking(format!("{id} is gone")));
            }
            return;
        };
        let same = known.version == request.version;
        // A new version need not wait for where the old one was.
        let availability = self.board.policy.availability(self.board.node(node));
        if *availability == Availability::Paused && same {
            let text = format!("it waits for node {id}, which is paused, to be resumed");
            let cause = Cause::Waits(id.clone());
            self.leave_out(rank, ident.index, cause, Arc::from([]), text.into());
            return;
        }
        match self.find_stay(rank, node, runtime, known.manifest) {
            Ok((image, site)) => {
                let usage = known.usage;
                let amounts = self.amounts(rank, image, node);
                if !self.board.relieve(node, &usage, &amounts, !free) && free {
                    self.relieve.push(self.held.len());
                }
                self.hold(rank, ident.index, image, site, Why::Stays, Arc::from([]));
            }
            Err(rule) if !everywhere => self.looking.push(looking(format!("{id} {rule}"))),
            Err(_) => {}
        }
    }

    /// Its runtime, or another one of its Node: its files are there. First by the image it runs from, so that it is not
    /// started anew without cause; then any image that lets it stay is better than the first image on another Node.
    fn find_stay(
        &mut self,
        rank: usize,
        node: u32,
        runtime: &aos_types::RuntimeId,
        runs: Digest,
    ) -> Result<(usize, Site), Rule> {
        let here = self.board.site(node, runtime);
        let others = self.board.sites_of(node).filter(|site| Some(*site) != here);
        let sites: Vec<Site> = here.into_iter().chain(others).collect();
        let there = self.board.node(node);
        let away = *self.board.policy.availability(there) == Availability::Away;
        let mut stopped = self.board.unusable(there).unwrap_or(Rule::NoRuntime);
        let mut images: Vec<usize> = (0..self.images(rank)).collect();
        let of_rank = self.wishes[rank]
            .request
            .images
            .as_deref()
            .unwrap_or_default();
        images.sort_by_key(|image| of_rank.get(*image).is_none_or(|one| one.manifest != runs));
        for image in images {
            let Some(fit) = self.fit(rank, image) else {
                continue;
            };
            for site in &sites {
                let fixed = if away {
                    self.stops(rank, image, node, *site)
                } else if fit
                    .sites
                    .binary_search_by_key(&site.0, |site| site.0)
                    .is_ok()
                {
                    None
                } else {
                    let mut gone = fit.gone.iter();
                    Some(
                        gone.find(|one| one.node == node)
                            .map(|one| one.rule.clone())
                            .or_else(|| self.stops(rank, image, node, *site))
                            .unwrap_or(Rule::NoRuntime),
                    )
                };
                let lacks = || self.board.lacks(*site, &self.wanted(rank, image)?);
                match fixed.or_else(lacks) {
                    None => return Ok((image, *site)),
                    Some(rule) => stopped = rule,
                }
            }
        }
        Err(stopped)
    }

    fn stops(&self, rank: usize, image: usize, node: u32, site: Site) -> Option<Rule> {
        let wish = &self.wishes[rank];
        let image = wish.request.images.as_ref().ok()?.get(image)?;
        let (node, runtime) = (self.board.node(node), self.board.runtime(site));
        stops(node, runtime, wish.request, image, wish.service)
    }

    fn amounts(&self, rank: usize, image: usize, node: u32) -> Amounts {
        let amounts = &self.wishes[rank].amounts[image];
        self.board.amounts_on(node, amounts)
    }

    /// Moves what may move away from overloaded Nodes, the least important first, as far as others have room.
    fn relieve_overloaded(&mut self) {
        for place in std::mem::take(&mut self.relieve).into_iter().rev() {
            let Some((rank, index, site)) = self.held[place]
                .as_ref()
                .map(|held| (held.rank, held.index, held.site))
            else {
                continue;
            };
            let from = self.board.node_of(site);
            let ident = self.ident(rank, index);
            let found = self.find(rank, &ident, Some(from));
            if let Ok((image, found)) = found {
                self.let_go(place);
                let why = Why::Relieves(self.board.node(from).id.clone());
                self.hold(rank, index, image, found.site, why, found.excluded);
            }
        }
    }

    /// One instance of a component in every runtime that fits. Indexes stay with their place.
    fn components_everywhere(&mut self, at_last: bool) {
        for rank in 0..self.wishes.len() {
            let request = self.wishes[rank].request;
            if !Self::every_runtime(request) || request.disabled.is_some() {
                continue;
            }
            let here = self.held.iter().flatten().filter(|held| held.rank == rank);
            let mut done: BTreeMap<u32, u64> = here.map(|held| (held.site.0, held.index)).collect();
            let mut next = self
                .known
                .keys()
                .filter(|ident| ident.item == request.item && ident.subject == request.subject)
                .map(|ident| ident.index)
                .chain(done.values().copied())
                .map(|index| index.saturating_add(1))
                .max()
                .unwrap_or(0);
            let mut stopped: Exclusions = Arc::from([]);
            for image in 0..self.images(rank) {
                let Some(fit) = self.fit(rank, image) else {
                    continue;
                };
                stopped = fit.gone.clone();
                for site in &fit.sites {
                    let lacks = || {
                        self.board
                            .lacks(*site, &self.wanted_anew(rank, image, None)?)
                    };
                    if done.contains_key(&site.0) || lacks().is_some() {
                        continue;
                    }
                    done.insert(site.0, next);
                    self.hold(rank, next, image, *site, Why::EveryRuntime, stopped.clone());
                    next = next.saturating_add(1);
                }
            }
            let waits = |one: &Unplaced| one.ident.item == request.item;
            let none = done.is_empty() && self.images(rank) > 0;
            if at_last && none && !self.plan.unplaced.iter().any(waits) {
                self.leave_out_nowhere(rank, 0, stopped);
            }
        }
    }

    fn place_the_rest(&mut self) {
        while let Some(one) = self.looking.pop() {
            let (rank, index) = (one.rank, one.index);
            let ident = self.ident(rank, index);
            // One that has something of its own on a Node asks for less there than others.
            if self.kept(rank, &ident).is_none()
                && let Some((cause, excluded, text)) = self.wishes[rank].nowhere.clone()
            {
                self.leave_out(rank, index, cause, excluded, text);
                continue;
            }
            match self.find(rank, &ident, None) {
                Ok((image, found)) => {
                    let why = one.displaced.map_or(Why::Best(found.spoke), Why::Moves);
                    self.hold(rank, index, image, found.site, why, found.excluded);
                }
                Err(excluded) => match self.push_out(rank, &ident) {
                    Some((image, site, victims)) => {
                        for place in victims {
                            self.displace(place, &ident);
                        }
                        let why = one.displaced.map_or(Why::PushesOut, Why::Moves);
                        self.hold(rank, index, image, site, why, excluded);
                    }
                    None => self.leave_out_nowhere(rank, index, excluded),
                },
            }
        }
    }

    /// Takes the place of a less important instance, which looks for another one.
    fn displace(&mut self, place: usize, by: &InstanceIdent) {
        let Some((rank, index)) = self.held[place]
            .as_ref()
            .map(|held| (held.rank, held.index))
        else {
            return;
        };
        let node = self.let_go(place);
        let node = node.map_or(String::new(), |node| self.board.node(node).id.to_string());
        self.looking.push(Looking {
            priority: self.wishes[rank].request.priority,
            displaced: Some(format!("{node} is needed by {by}, which is more important")),
            rank,
            index,
        });
    }

    /// The best place for an instance by the first image that has one; the exclusions of the last image if none has.
    fn find(
        &mut self,
        rank: usize,
        ident: &InstanceIdent,
        leaving: Option<u32>,
    ) -> Result<(usize, Selection), Exclusions> {
        let mut excluded: Exclusions = Arc::from([]);
        // First where its files are, then anywhere it may go.
        let tries = match (self.home(rank, ident), self.pin(rank, ident)) {
            (_, Some(home)) => vec![Some(home)],
            (Some(home), None) => vec![Some(home), None],
            (None, None) => vec![None],
        };
        let home = self.kept(rank, ident);
        for only in tries {
            for image in 0..self.images(rank) {
                match self.select(rank, image, (only, leaving), home) {
                    Ok(mut found) => {
                        found.excluded = self.share(rank, image, found.excluded);
                        return Ok((image, found));
                    }
                    Err(gone) => excluded = self.share(rank, image, gone),
                }
            }
        }
        Err(excluded)
    }

    fn share(&mut self, rank: usize, image: usize, excluded: Exclusions) -> Exclusions {
        let last = &mut self.wishes[rank].last[image];
        match last {
            Some(last) if *last == excluded => last.clone(),
            _ => last.insert(excluded).clone(),
        }
    }

    /// The Node that has the storage or state of an instance that will have one.
    fn home(&self, rank: usize, ident: &InstanceIdent) -> Option<u32> {
        let known = self.known(ident)?;
        let home = self.board.number(known.home.as_ref()?)?;
        self.keeps_something(rank).then_some(home)
    }

    fn keeps_something(&self, rank: usize) -> bool {
        let images = self.wishes[rank].request.images.iter().flatten();
        images.into_iter().any(|image| {
            let quotas = &image.config.quotas;
            quotas.storage_limit.is_some_and(|limit| limit > 0)
                || quotas.state_limit.is_some_and(|limit| limit > 0)
        })
    }

    /// Its home, unless the item accepts that what it keeps is lost. A Node that is no longer one of the Unit holds nobody.
    pub(crate) fn pin(&self, rank: usize, ident: &InstanceIdent) -> Option<u32> {
        let mut images = self.wishes[rank].request.images.iter().flatten();
        let expendable =
            images.any(|image| image.config.storage_policy == StoragePolicy::Expendable);
        let holds = !expendable && self.board.policy.pins();
        self.home(rank, ident).filter(|_| holds)
    }

    fn hold(
        &mut self,
        rank: usize,
        index: u64,
        image: usize,
        site: Site,
        why: Why,
        excluded: Exclusions,
    ) {
        let ident = self.ident(rank, index);
        let known = self.known(&ident);
        let node = self.board.node_of(site);
        if why != Why::Stays && self.wishes[rank].service {
            let amounts = self.amounts(rank, image, node);
            self.board.burden(node, &amounts);
        }
        let home = known
            .and_then(|known| known.home.as_ref())
            .filter(|_| self.keeps_something(rank));
        let stays_home = home.is_some_and(|home| self.board.number(home) == Some(node));
        let kept = known.filter(|_| stays_home).map(|known| known.usage);
        let kept = kept.unwrap_or_default();
        let leaves_behind = home
            .filter(|_| !stays_home)
            .map(|home| self.board.number(home).unwrap_or(u32::MAX));
        self.reserve(rank, image, site, &kept, &ident);
        let place = self.held.len();
        self.held.push(Some(Held {
            rank,
            index,
            image,
            site,
            why,
            excluded,
            leaves_behind,
            kept,
        }));
        self.on_node[node as usize].push(place);
        let replicas = &mut self.wishes[rank].replicas;
        match replicas.iter_mut().find(|(have, _)| *have == node) {
            Some((_, count)) => *count += 1,
            None => replicas.push((node, 1)),
        }
    }

    pub(crate) fn reserve(
        &mut self,
        rank: usize,
        image: usize,
        site: Site,
        kept: &Usage,
        ident: &InstanceIdent,
    ) {
        let amounts = self.amounts(rank, image, self.board.node_of(site));
        let config = self.takes_by(rank, image);
        let name = || ident.to_string();
        self.board.reserve(site, config, &amounts, kept, name);
    }

    /// The configuration by which an instance takes resources and ports; a component takes none.
    fn takes_by(&self, rank: usize, image: usize) -> Option<&'a ItemConfig> {
        let wish = &self.wishes[rank];
        let images = wish.request.images.as_ref().ok().filter(|_| wish.service)?;
        Some(&images.get(image)?.config)
    }

    /// Gives the resources of a held place back; the place stays held.
    pub(crate) fn release(&mut self, place: usize) {
        if let Some(held) = &self.held[place] {
            let (rank, image, site, kept) = (held.rank, held.image, held.site, held.kept);
            let amounts = self.amounts(rank, image, self.board.node_of(site));
            let config = self.takes_by(rank, image);
            self.board.release(site, config, &amounts, &kept);
        }
    }

    /// Takes back the resources of a held place after [`Planner::release`].
    pub(crate) fn take_back(&mut self, place: usize) {
        if let Some(held) = &self.held[place] {
            let (rank, image, site, kept) = (held.rank, held.image, held.site, held.kept);
            let ident = self.ident(rank, held.index);
            self.reserve(rank, image, site, &kept, &ident);
        }
    }

    fn let_go(&mut self, place: usize) -> Option<u32> {
        self.release(place);
        let held = self.held[place].take()?;
        let node = self.board.node_of(held.site);
        self.on_node[node as usize].retain(|one| *one != place);
        let replicas = &mut self.wishes[held.rank].replicas;
        if let Some((_, count)) = replicas.iter_mut().find(|(have, _)| *have == node) {
            *count = count.saturating_sub(1);
        }
        Some(node)
    }

    fn leave_out_nowhere(&mut self, rank: usize, index: u64, excluded: Exclusions) {
        let furthest = excluded.iter().max_by_key(|one| one.rule.rank());
        let headline = furthest.map_or("no usable nodes", |one| one.rule.headline());
        let text: Arc<str> = reason(headline, &self.plan.nodes, &excluded).into();
        let cause = Cause::Nowhere(headline);
        let ident = self.ident(rank, index);
        if self.pin(rank, &ident).is_none() {
            self.wishes[rank].nowhere = Some((cause.clone(), excluded.clone(), text.clone()));
        }
        self.leave_out(rank, index, cause, excluded, text);
    }

    fn leave_out(
        &mut self,
        rank: usize,
        index: u64,
        cause: Cause,
        excluded: Exclusions,
        reason: Arc<str>,
    ) {
        self.plan.unplaced.push(Unplaced {
            ident: self.ident(rank, index),
            version: self.wishes[rank].request.version.clone(),
            cause,
            excluded,
            reason,
        });
    }

    fn finish(mut self) -> Plan {
        let mut held: Vec<Held> = std::mem::take(&mut self.held)
            .into_iter()
            .flatten()
            .collect();
        held.sort_by_key(|held| (held.rank, held.index));
        self.plan.placed.reserve(held.len());
        for held in held {
            let ident = self.ident(held.rank, held.index);
            let request = self.wishes[held.rank].request;
            let images = request.images.as_deref().unwrap_or_default();
            let Some(image) = images.get(held.image) else {
                continue;
            };
            let (uid, gid) = match self.identities.of(&ident) {
                Ok(ids) => ids,
                Err(why) => {
                    let cause = Cause::Unusable(why.clone());
                    self.leave_out(held.rank, held.index, cause, Arc::from([]), why.into());
                    continue;
                }
            };
            let gone = || self.known(&ident).and_then(|known| known.home.clone());
            self.plan.placed.push(Placement {
                version: request.version.clone(),
                owner: request.owner.clone(),
                priority: request.priority,
                node: self.board.node(self.board.node_of(held.site)).id.clone(),
                runtime: self.board.runtime(held.site).id.clone(),
                manifest: image.manifest,
                config: image.config.clone(),
                uid,
                gid,
                why: held.why,
                excluded: held.excluded,
                leaves_behind: held.leaves_behind.and_then(|_| gone()),
                ident,
            });
        }
        self.plan
            .unplaced
            .sort_by(|one, other| one.ident.cmp(&other.ident));
        self.plan
    }
}
