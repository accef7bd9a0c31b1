//! Which connections CM allows: read, written and followed.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    time::Duration,
};

use aos_ipc::{
    convert::ident_from_proto,
    proto::servicemanager::v5::{self as pb, network_service_client::NetworkServiceClient},
};
use aos_netstack::AllowedFlow;

use super::Networks;
use crate::records::Kept;

/// Rules that come within this time are carried out together.
const GATHER: Duration = Duration::from_millis(20);

/// How long CM may take to answer to a subscription before it is told all the same.
const ANSWER: Duration = Duration::from_secs(2);

impl Networks {
    /// Takes firewall rules that CM pushes. Our CM sends all rules of an instance, others only the new ones.
    async fn take_rules(&self, updates: Vec<pb::PendingFirewallUpdate>) {
        let all = self.cm.is_attached();
        let mut state = self.state.lock().await;
        let mut changed = BTreeMap::new();
        for update in updates {
            let Ok(ident) = ident_from_proto(update.instance) else {
                tracing::warn!("CM sent firewall rules of an instance that cannot be one");
                continue;
            };
            let rules: BTreeSet<AllowedFlow> =
                update.firewall_rules.iter().filter_map(flow).collect();
            let Some(stored) = state.endpoints.get_mut(&ident) else {
                continue;
            };
            let mut allowed: BTreeSet<AllowedFlow> = if all {
                BTreeSet::new()
            } else {
                stored.endpoint.allowed.iter().copied().collect()
            };
            allowed.extend(rules);
            stored.endpoint.allowed = allowed.into_iter().collect();
            changed.insert(Kept::key(&ident), Some(stored.clone()));
        }
        if let Err(error) = self.kept.endpoints.apply(changed).await {
            tracing::warn!(%error, "firewall rules are not stored");
        }
        self.make_again(&mut state).await;
    }

    /// Tells CM what this Node has, and follows its pushes until the stream ends. What CM finds to be different it pushes,
    /// so that the stream has to be there first. After each allocation it is told again: what was pushed while an answer was
    /// on its way may have been lost on it.
    pub(crate) async fn follow_rules(&self) -> Result<(), tonic::Status> {
        let Ok(channel) = self.cm.channel_now() else {
            return Ok(());
        };
        let request = pb::SubscribeInstanceNetworkUpdatesRequest {
            node_id: self.cm.node().to_string(),
        };
        let mut client = NetworkServiceClient::new(channel);
        let mut subscribing = std::pin::pin!(client.subscribe_instance_network_updates(request));
        let subscribed = match tokio::time::timeout(ANSWER, &mut subscribing).await {
            Ok(subscribed) => subscribed,
            // A server of another make may answer with its first rule only, which may be because of what it is told.
            Err(_) => tokio::select! {
                subscribed = subscribing => subscribed,
                never = self.keep_telling() => match never {},
            },
        };
        let updates = match subscribed {
            Ok(updates) => updates.into_inner(),
            Err(status) => {
                self.sync().await;
                return Err(status);
            }
        };
        // What was told is told again with the next stream.
        tokio::select! {
            ended = self.read_rules(updates) => ended,
            never = self.keep_telling() => match never {},
        }
    }

    /// Tells CM what instances have, now and whenever something is allocated.
    async fn keep_telling(&self) -> Infallible {
        loop {
            self.sync().await;
            self.allocated.notified().await;
        }
    }

    async fn read_rules(
        &self,
        mut updates: tonic::Streaming<pb::InstanceNetworkUpdateNotification>,
    ) -> Result<(), tonic::Status> {
        use pb::instance_network_update_notification::Update;
        let rules = |message: pb::InstanceNetworkUpdateNotification| {
            let Update::PendingFirewallUpdate(rules) = message.update?;
            Some(rules)
        };
        while let Some(message) = updates.message().await? {
            let mut gathered = Vec::from_iter(rules(message));
            // One target that comes or goes changes the rules of many.
            let deadline = tokio::time::Instant::now() + GATHER;
            let mut ended = Ok(());
            while let Ok(next) = tokio::time::timeout_at(deadline, updates.message()).await {
                match next {
                    Ok(Some(message)) => gathered.extend(rules(message)),
                    Ok(None) => break,
                    Err(status) => {
                        ended = Err(status);
                        break;
                    }
                }
            }
            self.take_rules(gathered).await;
            ended?;
        }
        Ok(())
    }
}

/// A rule of CM; nothing if it is none, which then allows nothing.
pub(super) fn flow(rule: &pb::FirewallRule) -> Option<AllowedFlow> {
    let (first, last) = match rule.dst_port.split_once([':', '-']) {
        Some((first, last)) => (first.parse().ok()?, last.parse().ok()?),
        None => {
            let port = rule.dst_port.parse().ok()?;
            (port, port)
        }
    };
    Some(AllowedFlow {
        from: rule.src_ip.parse().ok()?,
        to: rule.dst_ip.parse().ok()?,
        first_port: first,
        last_port: last,
        protocol: rule.proto.parse().ok()?,
    })
}

pub(super) fn rule(flow: &AllowedFlow) -> pb::FirewallRule {
    let port = if flow.first_port == flow.last_port {
        flow.first_port.to_string()
    } else {
        format!("{}:{}", flow.first_port, flow.last_port)
    };
    pb::FirewallRule {
        dst_ip: flow.to.to_string(),
        dst_port: port,
        proto: flow.protocol.to_string(),
        src_ip: flow.from.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_survive_the_wire_and_nonsense_allows_nothing() {
        let wire = pb::FirewallRule {
            dst_ip: "172.30.0.2".into(),
            dst_port: "80:90".into(),
            proto: "udp".into(),
            src_ip: "172.31.0.2".into(),
        };
        let read = flow(&wire).unwrap();
        assert_eq!((read.first_port, read.last_port), (80, 90));
        assert_eq!(rule(&read), wire);
        let mut bad = wire;
        bad.dst_port = "all".into();
        assert_eq!(flow(&bad), None);
    }
}
