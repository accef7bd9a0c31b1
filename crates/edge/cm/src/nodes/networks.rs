//! Keeps the address book: every change is stored before it is told.

use std::collections::BTreeMap;

use aos_network::{Change, Networks, Pool, Push, Record};
use aos_store::Records;
use aos_types::NodeId;
use tokio::sync::{Mutex, MutexGuard, mpsc};
use tonic::Status;

use aos_ipc::{convert::ident_to_proto, proto::servicemanager::v5 as sm};

use super::Error;
use crate::NetworkOptions;

pub(super) type Updates = mpsc::Sender<Result<sm::InstanceNetworkUpdateNotification, Status>>;

fn pool(options: &NetworkOptions) -> Result<Pool, Error> {
    Ok(Pool::new(
        vec![options.pool.parse()?],
        options.prefix,
        Vec::new(),
    )?)
}

/// The networks of the Unit and where they are stored.
pub(super) struct NetworkKeeper {
    networks: Mutex<Networks>,
    records: Records<Record>,
    subscribers: std::sync::Mutex<BTreeMap<NodeId, Updates>>,
    dns_servers: Vec<String>,
}

impl NetworkKeeper {
    pub async fn open(records: Records<Record>, options: &NetworkOptions) -> Result<Self, Error> {
        let pool = pool(options)?;
        let stored = records.all().await?;
        let mut networks = Networks::restore(pool, stored.into_iter().map(|(_, record)| record));
        store(&records, networks.take_changes()).await?;
        Ok(Self {
            networks: Mutex::new(networks),
            records,
            subscribers: std::sync::Mutex::default(),
            dns_servers: options.dns.iter().map(ToString::to_string).collect(),
        })
    }

    pub fn dns_servers(&self) -> Vec<String> {
        self.dns_servers.clone()
    }

    /// Applies `decide`, stores what it changed, then tells the Nodes whose rules became others.
    ///
    /// If storing fails the answer is an error; the address stays given in memory, so a repeated question stores it.
    pub async fn decide<T>(
        &self,
        decide: impl FnOnce(&mut Networks) -> T,
    ) -> Result<T, aos_store::Error> {
        let mut networks: MutexGuard<'_, Networks> = self.networks.lock().await;
        let answer = decide(&mut networks);
        let changes = networks.take_changes();
        let pushes = networks.take_pushes();
        store(&self.records, changes).await?;
        drop(networks);
        for push in pushes {
            self.tell(push);
        }
        Ok(answer)
    }

    /// The newest subscription of a Node replaces an older one.
    pub fn subscribe(&self, node: NodeId, updates: Updates) {
        self.subscribers
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .insert(node, updates);
    }

    /// A Node that is not there, or does not keep up, gets its rules when it next reports what it has.
    fn tell(&self, push: Push) {
        let subscribers = self
            .subscribers
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(updates) = subscribers.get(&push.node) {
            let update = sm::PendingFirewallUpdate {
                instance: Some(ident_to_proto(&push.ident)),
                firewall_rules: push.rules.iter().map(rule_to_proto).collect(),
            };
            let told = updates.try_send(Ok(sm::InstanceNetworkUpdateNotification {
                update: Some(
                    sm::instance_network_update_notification::Update::PendingFirewallUpdate(update),
                ),
            }));
            if told.is_err() {
                tracing::info!(node = %push.node, "a Node gets its firewall rules when it next reports its networks");
            }
        }
    }
}

async fn store(records: &Records<Record>, changes: Vec<Change>) -> Result<(), aos_store::Error> {
    if changes.is_empty() {
        return Ok(());
    }
    let changes = changes.into_iter().map(|change| match change {
        Change::Put(record) => (record.key().to_text(), Some(record)),
        Change::Forget(key) => (key.to_text(), None),
    });
    records.apply(changes).await
}

pub(super) fn rule_to_proto(rule: &aos_network::Rule) -> sm::FirewallRule {
    sm::FirewallRule {
        dst_ip: rule.dst.to_string(),
        dst_port: rule.ports(),
        proto: rule.protocol.to_string(),
        src_ip: rule.src.to_string(),
    }
}

/// A rule that a Node says it has; nothing if it is none that we would give.
pub(super) fn rule_from_proto(rule: &sm::FirewallRule) -> Option<aos_network::Rule> {
    let port: aos_network::ExposedPort =
        format!("{}/{}", rule.dst_port, rule.proto).parse().ok()?;
    Some(aos_network::Rule {
        src: rule.src_ip.parse().ok()?,
        dst: rule.dst_ip.parse().ok()?,
        from: port.from,
        to: port.to,
        protocol: port.protocol,
    })
}
