use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    sync::Arc,
};

use aos_types::{ItemConfig, NodeId, Protocol, ResourceRatios, RuntimeId, RuntimeInfo};

use crate::{
    Availability, Defaults, Input, Node, Overload, Rule, Space, Usage, amounts::Amounts,
    policy::Policy,
};

/// A Node and one of its runtimes, by their numbers on the [`Board`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Site(pub(crate) u32);

/// What an instance wants of a place.
pub(crate) struct Wanted<'a> {
    pub(crate) config: &'a ItemConfig,
    /// A component takes no CPU, memory, resources or ports.
    pub(crate) service: bool,
    /// By the Node's class of ratios.
    pub(crate) amounts: &'a [Amounts],
    /// It does not run there yet: there must be space, and the Node must not be overloaded.
    pub(crate) fresh: bool,
    /// The Node that has its storage, and how much it has written: that much is not asked for again there.
    pub(crate) home: Option<(u32, Usage)>,
}

/// What is left of a Node's space. What runs stays also where there is too little: then this is below zero.
#[derive(Debug, Clone, Copy)]
struct Room {
    storage: Option<i128>,
    state: Option<i128>,
    shared: bool,
}

impl Room {
    fn of(space: Space) -> Self {
        Self {
            storage: space.storage.map(i128::from),
            state: space.state.map(i128::from),
            shared: space.shared,
        }
    }

    /// What an instance still asks for, besides what it has here.
    fn wants(&self, amounts: &Amounts, kept: &Usage) -> (i128, i128) {
        let storage = i128::from(amounts.storage.saturating_sub(kept.storage));
        let state = i128::from(amounts.state.saturating_sub(kept.state));
        match self.shared {
            true => (storage + state, 0),
            false => (storage, state),
        }
    }

    fn change(&mut self, (storage, state): (i128, i128), sign: i128) {
        self.storage = self.storage.map(|left| left + sign * storage);
        self.state = self.state.map(|left| left + sign * state);
    }
}

/// All places with what is left of them. Reserving makes it less, releasing gives it back.
pub(crate) struct Board<'a> {
    pub(crate) nodes: Vec<&'a Node>,
    numbers: HashMap<&'a NodeId, u32>,
    sites: Vec<(u32, &'a RuntimeInfo)>,
    of_node: Vec<Range<usize>>,
    /// `u64::MAX`: not limited.
    cpu: Vec<u64>,
    ram: Vec<u64>,
    /// Own pools of runtimes.
    own_cpu: Vec<Option<u64>>,
    own_ram: Vec<Option<u64>>,
    instances: Vec<u64>,
    space: Vec<Room>,
    overload: Vec<Option<Overload>>,
    resources: HashMap<(u32, &'a str), u64>,
    ports: BTreeMap<(u32, u16, Protocol), Arc<str>>,
    class: Vec<usize>,
    ratios: Vec<&'a ResourceRatios>,
    defaults: Defaults,
    pub(crate) policy: &'a dyn Policy,
}

fn known(amount: u64) -> u64 {
    if amount == 0 { u64::MAX } else { amount }
}

fn less(pool: &mut u64, amount: u64) {
    if *pool != u64::MAX {
        *pool = pool.saturating_sub(amount);
    }
}

fn more(pool: &mut u64, amount: u64) {
    *pool = pool.saturating_add(amount);
}

#[allow(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "numbers of Nodes and sites are given out by `new` for tables of that length, which never change it"
)]
impl<'a> Board<'a> {
    pub(crate) fn new(input: &'a Input, policy: &'a dyn Policy) -> Self {
        let mut nodes: Vec<&Node> = input.nodes.iter().collect();
        nodes.sort_by(|one, other| {
            other
                .priority
                .cmp(&one.priority)
                .then_with(|| one.id.cmp(&other.id))
        });
        let (mut sites, mut of_node) = (Vec::new(), Vec::new());
        let mut ratios: Vec<&ResourceRatios> = Vec::new();
        let mut class = Vec::new();
        for (number, node) in nodes.iter().enumerate() {
            let mut runtimes: Vec<&RuntimeInfo> = node.runtimes.iter().collect();
            runtimes.sort_by(|one, other| {
                (&one.runtime_type, &one.id).cmp(&(&other.runtime_type, &other.id))
            });
            let first = sites.len();
            sites.extend(runtimes.into_iter().map(|runtime| (number as u32, runtime)));
            of_node.push(first..sites.len());
            let same = ratios.iter().position(|known| **known == node.ratios);
            class.push(same.unwrap_or_else(|| {
                ratios.push(&node.ratios);
                ratios.len() - 1
            }));
        }
        Self {
            numbers: nodes
                .iter()
                .enumerate()
                .map(|(number, node)| (&node.id, number as u32))
                .collect(),
            cpu: nodes.iter().map(|node| known(node.dmips)).collect(),
            ram: nodes.iter().map(|node| known(node.ram)).collect(),
            own_cpu: sites.iter().map(|(_, one)| one.allowed_dmips).collect(),
            own_ram: sites.iter().map(|(_, one)| one.allowed_ram).collect(),
            instances: vec![0; sites.len()],
            space: nodes.iter().map(|node| Room::of(node.space)).collect(),
            overload: nodes.iter().map(|node| node.overload).collect(),
            resources: HashMap::new(),
            ports: BTreeMap::new(),
            defaults: input.defaults,
            policy,
            nodes,
            sites,
            of_node,
            class,
            ratios,
        }
    }

    pub(crate) fn number(&self, node: &NodeId) -> Option<u32> {
        self.numbers.get(node).copied()
    }

    pub(crate) fn node(&self, number: u32) -> &'a Node {
        self.nodes[number as usize]
    }

    pub(crate) fn node_of(&self, site: Site) -> u32 {
        self.sites[site.0 as usize].0
    }

    pub(crate) fn runtime(&self, site: Site) -> &'a RuntimeInfo {
        self.sites[site.0 as usize].1
    }

    pub(crate) fn all_sites(&self) -> impl Iterator<Item = Site> + use<> {
        (0..self.sites.len() as u32).map(Site)
    }

    pub(crate) fn sites_of(&self, node: u32) -> impl Iterator<Item = Site> + use<> {
        self.of_node[node as usize]
            .clone()
            .map(|site| Site(site as u32))
    }

    pub(crate) fn site(&self, node: u32, runtime: &RuntimeId) -> Option<Site> {
        self.sites_of(node)
            .find(|site| self.runtime(*site).id == *runtime)
    }

    pub(crate) fn has_room_to_spare(&self, site: Site) -> (u64, u64) {
        let (number, node) = (site.0 as usize, self.node_of(site) as usize);
        (
            self.own_cpu[number].unwrap_or(self.cpu[node]),
            self.own_ram[number].unwrap_or(self.ram[node]),
        )
    }

    /// What an item takes on each class of Nodes.
    pub(crate) fn amounts(&self, config: &ItemConfig, service: bool) -> Vec<Amounts> {
        self.ratios
            .iter()
            .map(|ratios| match service {
                true => Amounts::of(config, ratios, &self.defaults),
                false => Amounts::default(),
            })
            .collect()
    }

    pub(crate) fn amounts_on(&self, node: u32, amounts: &[Amounts]) -> Amounts {
        let class = self.class[node as usize];
        amounts.get(class).copied().unwrap_or_default()
    }

    pub(crate) fn overloaded(&self, node: u32) -> bool {
        self.overload[node as usize].is_some()
    }

    /// Takes what an instance uses from what its overloaded Node may give; `false` if it does not fit.
    pub(crate) fn relieve(
        &mut self,
        node: u32,
        usage: &Usage,
        amounts: &Amounts,
        force: bool,
    ) -> bool {
        let Some(overload) = &mut self.overload[node as usize] else {
            return true;
        };
        let (cpu, ram) = (usage.cpu.max(amounts.cpu), usage.ram.max(amounts.ram));
        let fits = overload.cpu.is_none_or(|left| left >= cpu)
            && overload.ram.is_none_or(|left| left >= ram);
        if fits || force {
            overload.cpu = overload.cpu.map(|left| left.saturating_sub(cpu));
            overload.ram = overload.ram.map(|left| left.saturating_sub(ram));
        }
        fits
    }

    /// Takes what a newcomer asks for from what its overloaded Node may give, so that the next one does not get it too.
    pub(crate) fn burden(&mut self, node: u32, amounts: &Amounts) {
        self.relieve(node, &Usage::default(), amounts, true);
    }

    /// Why a Node takes nothing new.
    pub(crate) fn unusable(&self, node: &Node) -> Option<Rule> {
        match self.policy.availability(node) {
            Availability::Ready => None,
            Availability::Away => Some(Rule::Away),
            Availability::Paused => Some(Rule::Paused),
            Availability::Unusable(why) => Some(Rule::Unusable(why.as_str().into())),
        }
    }

    /// The first rule about what is left that stops an instance here.
    pub(crate) fn lacks(&self, site: Site, wanted: &Wanted<'_>) -> Option<Rule> {
        let rule = self.lacks_by_rule(site, wanted)?;
        self.policy.stops(&rule).then_some(rule)
    }

    fn lacks_by_rule(&self, site: Site, wanted: &Wanted<'_>) -> Option<Rule> {
        let (number, node) = (site.0 as usize, self.node_of(site));
        let place = node as usize;
        let config = wanted.config;
        if wanted.service {
            // Who is not counted is not refused for the others either.
            let counted = config.resources.iter();
            for resource in counted.filter(|_| !config.skip_resource_limits) {
                let count = self.shared_count(node, &resource.name);
                let used = self.resources.get(&(node, resource.name.as_str()));
                if count > 0 && used.is_some_and(|used| *used >= count) {
                    return Some(Rule::ResourceTaken(resource.name.as_str().into(), count));
                }
            }
            for (index, port) in config.published_ports.iter().enumerate() {
                let key = (node, port.host_port, port.protocol);
                let twice = config.published_ports[..index]
                    .iter()
                    .any(|one| (one.host_port, one.protocol) == (key.1, key.2));
                let why = match self.ports.get(&key) {
                    _ if twice => "is published twice by the item".to_owned(),
                    Some(holder) => format!("is held by {holder}"),
                    None => continue,
                };
                return Some(Rule::Port(key.1, key.2, why.into()));
            }
            let amounts = self.amounts_on(node, wanted.amounts);
            let cpu = self.own_cpu[number].unwrap_or(self.cpu[place]);
            if cpu < amounts.cpu {
                return Some(Rule::Cpu(amounts.cpu, cpu));
            }
            let ram = self.own_ram[number].unwrap_or(self.ram[place]);
            if ram < amounts.ram {
                return Some(Rule::Ram(amounts.ram, ram));
            }
            if wanted.fresh
                && let Some(rule) = self.lacks_for_newcomers(place, &amounts, wanted.home)
            {
                return Some(rule);
            }
        }
        let most = self.sites[number].1.max_instances;
        (most > 0 && self.instances[number] >= most).then_some(Rule::Instances(most))
    }

    fn lacks_for_newcomers(
        &self,
        place: usize,
        amounts: &Amounts,
        home: Option<(u32, Usage)>,
    ) -> Option<Rule> {
        if let Some(overload) = &self.overload[place]
            && (overload.cpu.is_some_and(|left| left < amounts.cpu)
                || overload.ram.is_some_and(|left| left < amounts.ram))
        {
            return Some(Rule::Overloaded);
        }
        let room = &self.space[place];
        let kept = home.filter(|(node, _)| *node as usize == place);
        let (storage, state) = room.wants(amounts, &kept.unwrap_or_default().1);
        let plain = |amount: i128| u64::try_from(amount.max(0)).unwrap_or(u64::MAX);
        let lacks = |wanted: i128, left: Option<i128>| {
            let left = left.filter(|left| wanted > 0 && *left < wanted)?;
            Some((plain(wanted), plain(left)))
        };
        lacks(storage, room.storage)
            .map(|(wanted, left)| Rule::Storage(wanted, left))
            .or_else(|| lacks(state, room.state).map(|(wanted, left)| Rule::State(wanted, left)))
    }

    fn shared_count(&self, node: u32, name: &str) -> u64 {
        let resources = &self.node(node).resources;
        resources
            .iter()
            .find(|have| have.name == name)
            .map_or(0, |have| have.shared_count)
    }

    /// Sets aside what one instance takes. `kept` is what it has on the Node's disk already: that is not free any more. A
    /// component has no `config` here: it takes no resources and no ports.
    pub(crate) fn reserve(
        &mut self,
        site: Site,
        config: Option<&'a ItemConfig>,
        amounts: &Amounts,
        kept: &Usage,
        name: impl Fn() -> String,
    ) {
        let (number, node) = (site.0 as usize, self.node_of(site));
        let place = node as usize;
        match &mut self.own_cpu[number] {
            Some(own) => less(own, amounts.cpu),
            None => less(&mut self.cpu[place], amounts.cpu),
        }
        match &mut self.own_ram[number] {
            Some(own) => less(own, amounts.ram),
            None => less(&mut self.ram[place], amounts.ram),
        }
        self.instances[number] += 1;
        let wants = self.space[place].wants(amounts, kept);
        self.space[place].change(wants, -1);
        let Some(config) = config else { return };
        if !config.skip_resource_limits {
            for resource in &config.resources {
                let key = (node, resource.name.as_str());
                *self.resources.entry(key).or_default() += 1;
            }
        }
        for port in &config.published_ports {
            let key = (node, port.host_port, port.protocol);
            self.ports.insert(key, name().into());
        }
    }

    /// Gives back what [`Board::reserve`] has set aside.
    pub(crate) fn release(
        &mut self,
        site: Site,
        config: Option<&'a ItemConfig>,
        amounts: &Amounts,
        kept: &Usage,
    ) {
        let (number, node) = (site.0 as usize, self.node_of(site));
        let place = node as usize;
        match &mut self.own_cpu[number] {
            Some(own) => more(own, amounts.cpu),
            None => more(&mut self.cpu[place], amounts.cpu),
        }
        match &mut self.own_ram[number] {
            Some(own) => more(own, amounts.ram),
            None => more(&mut self.ram[place], amounts.ram),
        }
        self.instances[number] = self.instances[number].saturating_sub(1);
        let wants = self.space[place].wants(amounts, kept);
        self.space[place].change(wants, 1);
        let Some(config) = config else { return };
        if !config.skip_resource_limits {
            for resource in &config.resources {
                if let Some(used) = self.resources.get_mut(&(node, resource.name.as_str())) {
                    *used = used.saturating_sub(1);
                }
            }
        }
        for port in &config.published_ports {
            self.ports.remove(&(node, port.host_port, port.protocol));
        }
    }
}
