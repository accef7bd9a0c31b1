use std::{collections::BTreeMap, sync::Arc};

use aos_runtime::{Exit, Runtime};
use aos_types::{AosCode, ErrorInfo, RuntimeId, RuntimeInfo};
use tokio::sync::mpsc;

/// Most exits that wait to be taken in.
const WAITING: usize = 256;

/// One way to run instances on this Node.
pub(crate) struct Offered {
    /// As CM is told of it.
    pub(crate) info: RuntimeInfo,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) exits: mpsc::Receiver<Exit>,
    /// Its instances have a network namespace each, with an address from CM.
    pub(crate) has_networks: bool,
}

/// All ways to run instances on this Node, by the ids under which CM knows them.
pub(crate) struct Runtimes(BTreeMap<RuntimeId, One>);

struct One {
    runtime: Arc<dyn Runtime>,
    has_networks: bool,
}

/// An exit, and the runtime it came from.
pub(crate) type Ended = (RuntimeId, Exit);

impl Runtimes {
    /// Exits of all of them come through one channel, until the last of them is gone.
    pub(crate) fn new(offered: Vec<Offered>) -> (Self, mpsc::Receiver<Ended>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        let mut all = BTreeMap::new();
        for one in offered {
            let (id, sender, mut exits) = (one.info.id.clone(), sender.clone(), one.exits);
            // Ends with its runtime, or with the one who takes exits in.
            tokio::spawn(async move {
                while let Some(exit) = exits.recv().await {
                    if sender.send((id.clone(), exit)).await.is_err() {
                        return;
                    }
                }
            });
            let known = One {
                runtime: one.runtime,
                has_networks: one.has_networks,
            };
            all.insert(one.info.id, known);
        }
        (Self(all), receiver)
    }

    pub(crate) fn knows(&self, id: &RuntimeId) -> bool {
        self.0.contains_key(id)
    }

    /// Whether its instances have a network namespace each.
    pub(crate) fn has_networks(&self, id: &RuntimeId) -> bool {
        self.0.get(id).is_some_and(|one| one.has_networks)
    }

    pub(crate) fn get(&self, id: &RuntimeId) -> Result<&dyn Runtime, ErrorInfo> {
        let unknown = || ErrorInfo::new(AosCode::NotSupported, "this Node has no such runtime");
        self.0.get(id).map(|one| &*one.runtime).ok_or_else(unknown)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (&RuntimeId, &dyn Runtime)> {
        self.0.iter().map(|(id, one)| (id, &*one.runtime))
    }
}
