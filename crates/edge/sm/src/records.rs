use std::time::Duration;

use aos_launch::Instance;
use aos_netstack::{Endpoint, Network, Traffic};
use aos_store::{Error, Records, Store};
use aos_time::Timestamp;
use aos_types::{Digest, ErrorInfo, InstanceIdent, NodeInfo, OwnerId};
use serde::{Deserialize, Serialize};

use crate::{networks::UnitNetwork, permissions::Registered};

/// The scripts of SM's database.
pub(crate) const SCHEMA: &[&str] = &[Records::<()>::SCHEMA];
/// Ends of instances kept for a CM that is away; the oldest go first.
const MAX_ENDS: usize = 500;

/// What survives a restart of SM and a power cut.
#[derive(Clone)]
pub(crate) struct Kept {
    /// The set that shall run: started by itself after a reboot.
    pub(crate) instances: Records<Instance>,
    /// What is to take the place of processes that are being stopped. While it is the stored instance, a process of that
    /// name is still the old one.
    pub(crate) replacing: Records<Instance>,
    /// The Node's addresses in the networks of owners.
    pub(crate) networks: Records<Network>,
    /// The addresses of instances.
    pub(crate) endpoints: Records<StoredEndpoint>,
    /// The part of the unit configuration that is this Node's.
    pub(crate) node_config: Records<StoredConfig>,
    /// When images were last in use.
    pub(crate) images: Records<ImageUse>,
    /// Ends of instances that CM has not heard of.
    pub(crate) ends: Records<End>,
    /// This Node as IAM knew it last.
    pub(crate) node: Records<NodeInfo>,
    /// The checksum of each instance's state that CM has.
    pub(crate) states: Records<String>,
    /// Since when the Unit is offline.
    pub(crate) offline: Records<Timestamp>,
    /// The process of each instance whose health check has succeeded.
    pub(crate) healthy: Records<u32>,
    /// Instances that have ended and are not started again by themselves.
    pub(crate) finished: Records<Finished>,
    /// Instances that have, or had, a log here.
    pub(crate) logs: Records<crate::logs::KnownLog>,
    /// Quota alerts that were told and have not ended.
    pub(crate) raised: Records<Raised>,
    /// How far the journal was looked through for alerts.
    pub(crate) journal: Records<String>,
    /// The whole Unit's networks, as CM told them last.
    pub(crate) unit_network: Records<UnitNetwork>,
    /// What was used of each instance's volume of a day.
    pub(crate) volumes: Records<Volume>,
    /// The sums of traffic that are told and that alert rules look at.
    pub(crate) traffic: Records<TrafficBook>,
    /// Instances that have rights at IAM, or may have.
    pub(crate) registered: Records<Registered>,
}

/// A quota alert that was told and has not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Raised {
    /// Whose; nothing for the Node itself.
    pub(crate) instance: Option<InstanceIdent>,
    pub(crate) parameter: String,
}

/// The sums of traffic of one period.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TrafficBook {
    /// How long a period is.
    pub(crate) period_secs: u64,
    /// Which it is, counted from 1970.
    pub(crate) current: i64,
    pub(crate) entries: Vec<TrafficEntry>,
}

/// One whose traffic is counted; bytes received and sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TrafficEntry {
    /// Who; nothing for the Node itself.
    pub(crate) instance: Option<InstanceIdent>,
    pub(crate) counter: (u64, u64),
    pub(crate) sum: (u64, u64),
}

/// What an instance sent and received on one day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Volume {
    /// Days since 1970, UTC.
    pub(crate) day: u32,
    pub(crate) used: Traffic,
    /// People were told that it is used up.
    #[serde(default)]
    pub(crate) told: bool,
}

/// How an instance that was meant to end did so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Finished {
    pub(crate) at: Timestamp,
    /// Nothing if it has completed.
    pub(crate) failed: Option<ErrorInfo>,
}

/// An instance's place in the network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredEndpoint {
    pub(crate) endpoint: Endpoint,
    pub(crate) dns_servers: Vec<std::net::IpAddr>,
}

/// A node configuration, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct StoredConfig {
    pub(crate) version: String,
    pub(crate) json: String,
    pub(crate) error: Option<ErrorInfo>,
}

/// An image on the Node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageUse {
    pub(crate) manifest: Digest,
    pub(crate) last: Timestamp,
}

/// How an instance ended, as CM is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct End {
    pub(crate) ident: InstanceIdent,
    pub(crate) version: String,
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) oom: bool,
    pub(crate) at: Timestamp,
}

impl Kept {
    pub(crate) fn new(store: &Store) -> Self {
        Self {
            instances: Records::new(store.clone(), "instance"),
            replacing: Records::new(store.clone(), "replacing"),
            networks: Records::new(store.clone(), "network"),
            endpoints: Records::new(store.clone(), "endpoint"),
            node_config: Records::new(store.clone(), "node_config"),
            images: Records::new(store.clone(), "image"),
            ends: Records::new(store.clone(), "end"),
            node: Records::new(store.clone(), "node"),
            states: Records::new(store.clone(), "state"),
            offline: Records::new(store.clone(), "offline"),
            healthy: Records::new(store.clone(), "healthy"),
            finished: Records::new(store.clone(), "finished"),
            raised: Records::new(store.clone(), "raised"),
            journal: Records::new(store.clone(), "journal"),
            logs: Records::new(store.clone(), "log"),
            unit_network: Records::new(store.clone(), "unit_network"),
            volumes: Records::new(store.clone(), "volume"),
            traffic: Records::new(store.clone(), "traffic"),
            registered: Records::new(store.clone(), "registered"),
        }
    }

    /// These are gone, or shall run anew: what is known of their runs counts no more.
    pub(crate) async fn begin_anew<'a>(
        &self,
        idents: impl Iterator<Item = &'a InstanceIdent> + Clone,
    ) -> Result<(), Error> {
        let healthy = idents.clone().map(|ident| (Self::key(ident), None));
        self.healthy.apply(healthy.collect::<Vec<_>>()).await?;
        let finished = idents.map(|ident| (Self::key(ident), None));
        self.finished.apply(finished.collect::<Vec<_>>()).await
    }

    /// Stores an end and forgets the oldest if there are too many.
    pub(crate) async fn add_end(&self, end: &End) -> Result<(), Error> {
        let key = format!("{:020}-{}", end.at.as_micros().max(0), end.ident);
        let all = self.ends.all().await?;
        let surplus = (all.len() + 1).saturating_sub(MAX_ENDS);
        let gone = all.into_iter().take(surplus).map(|(key, _)| (key, None));
        let changes: Vec<(String, Option<End>)> = gone.chain([(key, Some(end.clone()))]).collect();
        self.ends.apply(changes).await
    }

    pub(crate) fn key(ident: &InstanceIdent) -> String {
        ident.to_string()
    }

    pub(crate) fn owner_key(owner: &OwnerId) -> String {
        owner.to_string()
    }
}

/// How long an image that nobody uses may still be needed in any case: an update may be about to start it.
pub(crate) const IMAGE_GRACE: Duration = Duration::from_secs(3_600);
