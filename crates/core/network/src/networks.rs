use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use aos_types::{InstanceIdent, NodeId, OwnerId};

use crate::{
    Allowed, Error, ExposedPort, InstanceRecord, Key, LeftRecord, NetworkRecord, NodeRecord,
    OwnerView, Pool, Record, Rule, Subnet, names::own_names, rules::rules_of, view,
};

/// Highest VLAN id there is.
const MAX_VLAN: u16 = 4094;

/// A Node's own place in a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeParams {
    /// The network.
    pub subnet: Subnet,
    /// The Node's address: the gateway of its instances.
    pub ip: Ipv4Addr,
    /// Separates the network from others between Nodes.
    pub vlan: u16,
}

/// An instance asks for its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Which.
    pub ident: InstanceIdent,
    /// Whose network.
    pub owner: OwnerId,
    /// Where it will run.
    pub node: NodeId,
    /// What it offers.
    pub exposed: Vec<ExposedPort>,
    /// What it may reach.
    pub allowed: Vec<Allowed>,
    /// The host name it would like to have, in its owner's network.
    pub hostname: Option<String>,
}

/// The place of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allocation {
    /// The network.
    pub subnet: Subnet,
    /// Its address.
    pub ip: Ipv4Addr,
    /// All it may reach now in other networks.
    pub rules: Vec<Rule>,
}

/// What to store, in order, before an answer is given away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Store this under its key.
    Put(Record),
    /// Delete what is stored under this key.
    Forget(Key),
}

/// The complete rules of an instance have become others; its Node is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Push {
    /// Where it runs.
    pub node: NodeId,
    /// Which.
    pub ident: InstanceIdent,
    /// All of its rules, not only the new ones.
    pub rules: Vec<Rule>,
}

/// All networks of a Unit.
#[derive(Debug, Clone)]
pub struct Networks {
    pool: Pool,
    networks: BTreeMap<OwnerId, NetworkRecord>,
    nodes: BTreeMap<(OwnerId, NodeId), NodeRecord>,
    instances: BTreeMap<InstanceIdent, InstanceRecord>,
    /// Addresses that are still in use where their instances were before.
    left: BTreeMap<(NodeId, InstanceIdent), LeftRecord>,
    changes: Vec<Change>,
    pushes: Vec<Push>,
}

impl Networks {
    /// Goes on from what was stored. A record that contradicts another is dropped, and that is a change too.
    pub fn restore(pool: Pool, records: impl IntoIterator<Item = Record>) -> Self {
        let mut this = Self {
            pool,
            networks: BTreeMap::new(),
            nodes: BTreeMap::new(),
            instances: BTreeMap::new(),
            left: BTreeMap::new(),
            changes: Vec::new(),
            pushes: Vec::new(),
        };
        let mut later = Vec::new();
        for record in records {
            match record {
                Record::Network(network) => {
                    this.networks.insert(network.owner.clone(), network);
                }
                other => later.push(other),
            }
        }
        for record in later {
            let key = record.key();
            let (owner, ip) = match &record {
                Record::Node(node) => (node.owner.clone(), node.ip),
                Record::Instance(instance) => (instance.owner.clone(), instance.ip),
                Record::Left(left) => (left.owner.clone(), left.ip),
                Record::Network(_) => continue,
            };
            let fits = this
                .networks
                .get(&owner)
                .is_some_and(|network| network.subnet.contains(ip));
            if !fits || this.taken(&owner).contains(&ip) {
                this.changes.push(Change::Forget(key));
                continue;
            }
            match record {
                Record::Node(node) => {
                    this.nodes
                        .insert((node.owner.clone(), node.node.clone()), node);
                }
                Record::Instance(instance) => {
                    this.instances.insert(instance.ident.clone(), instance);
                }
                Record::Left(left) => {
                    this.left
                        .insert((left.node.clone(), left.ident.clone()), left);
                }
                Record::Network(_) => {}
            }
        }
        this
    }

    /// What to store since this was last asked.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// Whom to tell since this was last asked.
    pub fn take_pushes(&mut self) -> Vec<Push> {
        std::mem::take(&mut self.pushes)
    }

    /// The Node's place in the owner's network, which is made if there is none yet.
    pub fn node(&mut self, owner: &OwnerId, node: &NodeId) -> Result<NodeParams, Error> {
        let network = self.network(owner)?;
        let key = (owner.clone(), node.clone());
        let ip = match self.nodes.get(&key) {
            Some(known) => known.ip,
            None => {
                let ip = self.free_address(&network)?;
                let record = NodeRecord {
                    owner: owner.clone(),
                    node: node.clone(),
                    ip,
                };
                self.changes.push(Change::Put(Record::Node(record.clone())));
                self.nodes.insert(key, record);
                ip
            }
        };
        Ok(NodeParams {
            subnet: network.subnet,
            ip,
            vlan: network.vlan,
        })
    }

    /// The instance's place in its owner's network. A known instance keeps its address; what else it asks for now counts.
    ///
    /// One address is never on two Nodes: if the Node that had the instance has not released it, that Node may be cut off
    /// and run it still. It keeps the address, and the instance gets another one here.
    pub fn allocate(&mut self, request: Request) -> Result<Allocation, Error> {
        if let Some(known) = self
            .instances
            .get(&request.ident)
            .filter(|known| known.owner != request.owner)
        {
            return Err(Error::OtherOwner {
                ident: request.ident,
                owner: known.owner.clone(),
            });
        }
        let network = self.network(&request.owner)?;
        let here = (request.node.clone(), request.ident.clone());
        let moved = self
            .instances
            .get(&request.ident)
            .filter(|known| known.node != request.node)
            .cloned();
        let ip = match (self.instances.get(&request.ident), self.left.get(&here)) {
            (Some(known), _) if moved.is_none() => known.ip,
            // It is back where it was.
            (_, Some(left)) => left.ip,
            _ => self.free_address(&network)?,
        };
        if self.left.remove(&here).is_some() {
            self.changes.push(Change::Forget(Key::Left(here.0, here.1)));
        }
        if let Some(known) = moved {
            self.leave(known);
        }
        let Request {
            ident,
            owner,
            node,
            exposed,
            allowed,
            hostname,
        } = request;
        let hostname = hostname.map(|name| name.to_ascii_lowercase());
        let record = InstanceRecord {
            named: self.may_have(&ident, &owner, hostname.as_deref()),
            ident: ident.clone(),
            owner,
            node,
            ip,
            exposed,
            allowed,
            hostname,
        };
        let before = self.all_rules();
        let gave_up = self
            .instances
            .get(&ident)
            .filter(|known| known.named && known.hostname != record.hostname)
            .cloned();
        if self.instances.get(&ident) != Some(&record) {
            self.changes
                .push(Change::Put(Record::Instance(record.clone())));
            self.instances.insert(ident.clone(), record.clone());
        }
        if let Some(gone) = gave_up {
            self.pass_name_on(&gone);
        }
        self.push_differences(&before, Some(&ident));
        Ok(Allocation {
            subnet: network.subnet,
            ip,
            rules: rules_of(&record, self.instances.values()),
        })
    }

    /// The instance has another place; the address of this one stays taken until its Node says that it is free.
    fn leave(&mut self, known: InstanceRecord) {
        let left = LeftRecord {
            owner: known.owner,
            node: known.node,
            ident: known.ident,
            ip: known.ip,
            exposed: known.exposed,
            allowed: known.allowed,
        };
        self.changes.push(Change::Put(Record::Left(left.clone())));
        self.left
            .insert((left.node.clone(), left.ident.clone()), left);
    }

    /// Whether an instance gets the host name it asks for: if no other item of its network has it, and it is nobody's
    /// own name.
    fn may_have(&self, ident: &InstanceIdent, owner: &OwnerId, name: Option<&str>) -> bool {
        let Some(name) = name else {
            return false;
        };
        !self.instances.values().any(|known| {
            known.owner == *owner
                && known.ident.item != ident.item
                && (known.named && known.hostname.as_deref() == Some(name)
                    || own_names(&known.ident)
                        .iter()
                        .any(|own| own.eq_ignore_ascii_case(name)))
        })
    }

    /// If nobody has the name of one that is gone, the first item that would like to gets it.
    fn pass_name_on(&mut self, gone: &InstanceRecord) {
        let Some(name) = gone.hostname.as_deref().filter(|_| gone.named) else {
            return;
        };
        let waiting: Vec<InstanceIdent> = self
            .instances
            .values()
            .filter(|known| {
                known.owner == gone.owner && !known.named && known.hostname.as_deref() == Some(name)
            })
            .map(|known| known.ident.clone())
            .collect();
        for ident in waiting {
            if self.may_have(&ident, &gone.owner, Some(name))
                && let Some(known) = self.instances.get_mut(&ident)
            {
                known.named = true;
                let record = Record::Instance(known.clone());
                self.changes.push(Change::Put(record));
            }
        }
    }

    /// All networks, and who is in them.
    pub fn view(&self) -> Vec<OwnerView> {
        view::of(
            self.networks.values(),
            self.nodes.values(),
            self.instances.values(),
        )
    }

    /// `node` is not one of the Unit any more: what it had is free.
    pub fn forget_node(&mut self, node: &NodeId) {
        let idents: BTreeSet<InstanceIdent> = self
            .left
            .keys()
            .filter(|(of, _)| of == node)
            .map(|(_, ident)| ident.clone())
            .chain(
                self.instances
                    .values()
                    .filter(|known| known.node == *node)
                    .map(|known| known.ident.clone()),
            )
            .collect();
        for ident in idents {
            self.release(&ident, node);
        }
        let owners: Vec<OwnerId> = self
            .nodes
            .keys()
            .filter(|(_, of)| of == node)
            .map(|(owner, _)| owner.clone())
            .collect();
        for owner in owners {
            self.release_node(&owner, node);
        }
    }

    /// The Nodes that have something.
    pub fn known_nodes(&self) -> BTreeSet<NodeId> {
        let of_nodes = self.nodes.keys().map(|(_, node)| node);
        let of_instances = self.instances.values().map(|known| &known.node);
        let of_left = self.left.keys().map(|(node, _)| node);
        of_nodes
            .chain(of_instances)
            .chain(of_left)
            .cloned()
            .collect()
    }

    /// The instance is gone from `node`; its place on another Node, if it has moved meanwhile, is not touched.
    pub fn release(&mut self, ident: &InstanceIdent, node: &NodeId) {
        let key = (node.clone(), ident.clone());
        if self.left.remove(&key).is_some() {
            self.changes.push(Change::Forget(Key::Left(key.0, key.1)));
        }
        if self
            .instances
            .get(ident)
            .is_some_and(|known| known.node == *node)
        {
            let before = self.all_rules();
            let gone = self.instances.remove(ident);
            self.changes
                .push(Change::Forget(Key::Instance(ident.clone())));
            if let Some(gone) = gone {
                self.pass_name_on(&gone);
            }
            self.push_differences(&before, None);
        }
    }

    /// The Node has left the owner's network. The network itself goes with its last Node and instance.
    pub fn release_node(&mut self, owner: &OwnerId, node: &NodeId) {
        if self.nodes.remove(&(owner.clone(), node.clone())).is_some() {
            self.changes
                .push(Change::Forget(Key::Node(owner.clone(), node.clone())));
        }
        let used = self.nodes.keys().any(|(of, _)| of == owner)
            || self.instances.values().any(|i| i.owner == *owner)
            || self.left.values().any(|left| left.owner == *owner);
        if !used && self.networks.remove(owner).is_some() {
            self.changes
                .push(Change::Forget(Key::Network(owner.clone())));
        }
    }

    /// `node` says which instances it has. Others that were placed there are released; whoever has other rules than it
    /// reports is told.
    pub fn sync(&mut self, node: &NodeId, reported: &BTreeMap<InstanceIdent, Vec<Rule>>) {
        let gone: Vec<InstanceIdent> = self
            .instances
            .values()
            .filter(|known| known.node == *node && !reported.contains_key(&known.ident))
            .map(|known| known.ident.clone())
            .chain(
                self.left
                    .keys()
                    .filter(|(of, ident)| of == node && !reported.contains_key(ident))
                    .map(|(_, ident)| ident.clone()),
            )
            .collect();
        for ident in gone {
            self.release(&ident, node);
        }
        for (ident, has) in reported {
            if let Some(known) = self
                .instances
                .get(ident)
                .filter(|known| known.node == *node)
            {
                let rules = rules_of(known, self.instances.values());
                let has: BTreeSet<&Rule> = has.iter().collect();
                if has != rules.iter().collect() {
                    self.pushes.push(Push {
                        node: node.clone(),
                        ident: ident.clone(),
                        rules,
                    });
                }
            }
        }
    }

    fn network(&mut self, owner: &OwnerId) -> Result<NetworkRecord, Error> {
        if let Some(known) = self.networks.get(owner) {
            return Ok(known.clone());
        }
        let none_left = || Error::NoNetwork {
            owner: owner.clone(),
        };
        let taken: BTreeSet<Subnet> = self.networks.values().map(|net| net.subnet).collect();
        // Of another length than the pool has now: from before its options were changed.
        let odd: Vec<Subnet> = taken
            .iter()
            .filter(|subnet| subnet.prefix() != self.pool.network_prefix())
            .copied()
            .collect();
        let subnet = self
            .pool
            .networks()
            .find(|subnet| {
                !taken.contains(subnet) && !odd.iter().any(|taken| taken.overlaps(*subnet))
            })
            .ok_or_else(none_left)?;
        let vlans: BTreeSet<u16> = self.networks.values().map(|net| net.vlan).collect();
        let vlan = (1..=MAX_VLAN)
            .find(|vlan| !vlans.contains(vlan))
            .ok_or_else(none_left)?;
        let record = NetworkRecord {
            owner: owner.clone(),
            subnet,
            vlan,
        };
        self.changes
            .push(Change::Put(Record::Network(record.clone())));
        self.networks.insert(owner.clone(), record.clone());
        Ok(record)
    }

    fn taken(&self, owner: &OwnerId) -> BTreeSet<Ipv4Addr> {
        let nodes = self
            .nodes
            .values()
            .filter(|node| node.owner == *owner)
            .map(|node| node.ip);
        let instances = self
            .instances
            .values()
            .filter(|i| i.owner == *owner)
            .map(|i| i.ip);
        let left = self
            .left
            .values()
            .filter(|left| left.owner == *owner)
            .map(|left| left.ip);
        nodes.chain(instances).chain(left).collect()
    }

    fn free_address(&self, network: &NetworkRecord) -> Result<Ipv4Addr, Error> {
        let taken = self.taken(&network.owner);
        network
            .subnet
            .hosts()
            .find(|ip| !taken.contains(ip))
            .ok_or_else(|| Error::NoAddress {
                owner: network.owner.clone(),
            })
    }

    /// The rules of every instance that may reach something.
    fn all_rules(&self) -> BTreeMap<InstanceIdent, Vec<Rule>> {
        self.instances
            .values()
            .filter(|instance| !instance.allowed.is_empty())
            .map(|instance| {
                (
                    instance.ident.clone(),
                    rules_of(instance, self.instances.values()),
                )
            })
            .collect()
    }

    /// Pushes to everybody whose rules are no longer those of `before`, `except` the one that gets them as an answer.
    fn push_differences(
        &mut self,
        before: &BTreeMap<InstanceIdent, Vec<Rule>>,
        except: Option<&InstanceIdent>,
    ) {
        for (ident, rules) in self.all_rules() {
            if Some(&ident) == except || before.get(&ident) == Some(&rules) {
                continue;
            }
            if let Some(known) = self.instances.get(&ident) {
                self.pushes.push(Push {
                    node: known.node.clone(),
                    ident,
                    rules,
                });
            }
        }
    }
}
