use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aos_alert::{Counters, Ledger, NodeCounters, Traffic};
use aos_cgroup::Layout;
use aos_launch::Instance;
use aos_telemetry::{Bytes, Node, interfaces};
use aos_time::{Clock, SystemClock};
use aos_types::{InstanceIdent, NodeInfo};

use super::book::{self, Counted};
use crate::{places::Places, records::TrafficBook};

/// Partition types, and names under which what an instance keeps is reported.
pub(super) const STORAGES: &str = "storages";
pub(super) const STATES: &str = "states";

/// What is to be read of one instance.
pub(super) struct Wanted {
    pub(super) ident: InstanceIdent,
    pub(super) cgroup: Option<String>,
    /// The Node's end of its cable.
    pub(super) cable: Option<String>,
    /// The instance, if what it keeps is to be looked at.
    pub(super) kept: Option<Instance>,
}

struct Sources {
    node: Node,
    cgroups: Layout,
    partitions: Vec<(String, PathBuf)>,
    places: Places,
    ledger: Mutex<Books>,
}

struct Books {
    ledger: Ledger<Counted>,
    /// Passes were made: who appears now began in our sight.
    opened: bool,
    /// What could not be read and was told.
    told: BTreeSet<String>,
}

/// The counters of one moment.
pub(super) struct Passed {
    pub(super) node: NodeCounters,
    /// Of the instances that run.
    pub(super) instances: BTreeMap<InstanceIdent, Counters>,
    /// How many of their processes the kernel has ended for want of memory so far.
    pub(super) oom_kills: BTreeMap<InstanceIdent, u64>,
}

/// Reads all counters in one pass.
pub(super) struct Reader(Arc<Sources>);

impl Reader {
    /// Goes on with the sums that an earlier SM has `noted`.
    pub(super) fn new(
        node: &NodeInfo,
        places: Places,
        traffic_period: Duration,
        noted: Option<TrafficBook>,
    ) -> Self {
        let partitions = node.partitions.iter();
        Self(Arc::new(Sources {
            node: Node::default(),
            cgroups: Layout::find(),
            partitions: partitions
                .filter(|one| !one.path.is_empty())
                .map(|one| (one.name.clone(), PathBuf::from(&one.path)))
                .collect(),
            places,
            ledger: Mutex::new(Books {
                ledger: book::ledger(traffic_period, noted),
                opened: false,
                told: BTreeSet::new(),
            }),
        }))
    }

    /// The sums of traffic, for another SM to go on with.
    pub(super) fn book(&self) -> TrafficBook {
        let books = self.0.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        book::noted(&books.ledger)
    }

    /// The counters of the Node and of the instances that run; nothing if even the Node cannot be read.
    pub(super) async fn read(
        &self,
        wanted: Vec<Wanted>,
        own: impl Fn(&str) -> bool + Send + 'static,
    ) -> Option<Passed> {
        let sources = self.0.clone();
        // Files of the kernel, and folders where nothing counts what they hold.
        let reading = tokio::task::spawn_blocking(move || sources.read(&wanted, &own));
        reading.await.ok().flatten()
    }
}

impl Sources {
    fn read(&self, wanted: &[Wanted], own: &dyn Fn(&str) -> bool) -> Option<Passed> {
        let node = match self.node.read() {
            Ok(node) => node,
            Err(error) => {
                self.complain(&error);
                return None;
            }
        };
        let (mut instances, mut oom_kills) = (BTreeMap::new(), BTreeMap::new());
        for one in wanted {
            let Some(cgroup) = &one.cgroup else { continue };
            match self.cgroups.usage(cgroup) {
                Ok(usage) => {
                    let counters = Counters {
                        cpu_nanos: usage.cpu_nanos,
                        ram: usage.ram,
                        partitions: one
                            .kept
                            .as_ref()
                            .map(|kept| self.kept(kept))
                            .unwrap_or_default(),
                        traffic: None,
                    };
                    instances.insert(one.ident.clone(), counters);
                    oom_kills.insert(one.ident.clone(), self.cgroups.oom_kills(cgroup));
                }
                // It has just ended.
                Err(error) if error.is_gone() => {}
                Err(error) => self.complain(&error),
            }
        }
        let mut traffic = self.traffic(wanted, own);
        for (ident, counters) in &mut instances {
            counters.traffic = traffic.remove(&Counted::Instance(ident.clone()));
        }
        let counters = NodeCounters {
            busy_nanos: node.ticks.busy.saturating_mul(Node::TICK_NANOS),
            all_nanos: node.ticks.all.saturating_mul(Node::TICK_NANOS),
            ram: node.ram,
            partitions: self.partitions(),
            traffic: traffic.remove(&Counted::Node),
        };
        Some(Passed {
            node: counters,
            instances,
            oom_kills,
        })
    }

    fn partitions(&self) -> BTreeMap<String, u64> {
        let filled = |(name, path): &(String, PathBuf)| match Node::partition(path) {
            Ok(filled) => Some((name.clone(), filled.used)),
            Err(error) => {
                self.complain(&error);
                None
            }
        };
        self.partitions.iter().filter_map(filled).collect()
    }

    fn kept(&self, instance: &Instance) -> BTreeMap<String, u64> {
        let mut kept = BTreeMap::new();
        for (name, usage) in [
            (STORAGES, self.places.storage_usage(instance)),
            (STATES, self.places.state_usage(instance)),
        ] {
            match usage {
                Ok(Some(used)) => {
                    kept.insert(name.to_owned(), used.used);
                }
                Ok(None) => {}
                Err(error) => tracing::debug!(ident = %instance.ident, error, "usage"),
            }
        }
        kept
    }

    fn traffic(&self, wanted: &[Wanted], own: &dyn Fn(&str) -> bool) -> BTreeMap<Counted, Traffic> {
        let all = match interfaces() {
            Ok(all) => all,
            Err(error) => {
                self.complain(&error);
                return BTreeMap::new();
            }
        };
        let mut counters = BTreeMap::new();
        for one in wanted {
            let found = one.cable.as_ref().and_then(|cable| all.get(cable));
            if let Some(bytes) = found {
                // What the Node's end of the cable receives the instance has sent.
                let traffic = Traffic {
                    download: bytes.sent,
                    upload: bytes.received,
                };
                counters.insert(Counted::Instance(one.ident.clone()), traffic);
            }
        }
        let outside = all.iter().filter(|(name, _)| *name != "lo" && !own(name));
        let mut node = Traffic::default();
        for (_, Bytes { received, sent }) in outside {
            node.download = node.download.saturating_add(*received);
            node.upload = node.upload.saturating_add(*sent);
        }
        counters.insert(Counted::Node, node);
        let mut books = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let opened = std::mem::replace(&mut books.opened, true);
        books.ledger.count(SystemClock.now(), &counters, |who| {
            opened && *who != Counted::Node
        })
    }

    /// Says once what cannot be read: it will not be better in the next pass.
    fn complain(&self, error: &(dyn std::error::Error + 'static)) {
        let text = aos_types::ErrorInfo::from_error(aos_types::AosCode::Failed, error).message;
        let mut books = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        if books.told.len() < 256 && books.told.insert(text.clone()) {
            tracing::warn!(why = text, "something cannot be measured");
        }
    }
}
