//! The two streams to CM: what is told, what is ordered, and what happens when CM is away.
//!
//! One session is one connection: `RegisterSM` carries the contract of servicemanager.v5, `Attach` beside it what that
//! cannot say, and the updates of firewall rules come on a third. When any of the first ends the session ends, and after
//! a pause the next begins; instances do not notice.

mod attach;
mod messages;
mod register;

use std::{sync::Arc, time::Duration};

pub(crate) use messages::info;

use aos_ipc::proto::servicemanager::v5 as pb;
use aos_pki::{CertSource, ClientTls};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    alerts::Alerts, cm_handle::CmHandle, launcher::Launcher, logs::Logs, monitoring::Monitoring,
    networks::Networks, node_config::NodeConfigs, states::States,
};

/// The pause after the first failed connection; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(300);
/// A session that lasted so long was a good one: the next pause is short again.
const GOOD: Duration = Duration::from_secs(30);
/// The pause before the subscription to firewall rules is opened again.
const RULES_PAUSE: Duration = Duration::from_secs(3);

/// What a session works with.
pub(crate) struct Link {
    pub(crate) address: String,
    pub(crate) tls: ClientTls,
    pub(crate) source: CertSource,
    pub(crate) handle: CmHandle,
    pub(crate) launcher: Arc<Launcher>,
    pub(crate) networks: Arc<Networks>,
    pub(crate) states: Arc<States>,
    pub(crate) node_configs: Arc<NodeConfigs>,
    pub(crate) monitoring: Arc<Monitoring>,
    pub(crate) alerts: Arc<Alerts>,
    pub(crate) logs: Arc<Logs>,
    pub(crate) info: pb::SmInfo,
    /// Whether the cloud is linked, as CM says.
    pub(crate) online: watch::Sender<bool>,
    pub(crate) longest_pause: Duration,
}

impl Link {
    /// Keeps a session with CM until `stop`.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut pause = FIRST_PAUSE;
        let mut told = String::new();
        loop {
            let began = tokio::time::Instant::now();
            // A session that is dropped leaves nothing behind but what CM asks again.
            let why = tokio::select! {
                why = self.clone().session() => why,
                () = stop.cancelled() => "SM stops".to_owned(),
            };
            self.handle.set(None);
            self.handle.set_attached(false);
            self.launcher.cut_off();
            self.online.send_replace(false);
            if stop.is_cancelled() {
                return;
            }
            if began.elapsed() >= GOOD {
                pause = FIRST_PAUSE;
            }
            if told != why {
                tracing::info!(cm = self.address, why, "no connection to CM");
                told = why;
            }
            // Spread, so that the Nodes of a Unit do not all come at once.
            let spread = rand::random_range(0.75..1.25);
            tokio::select! {
                () = tokio::time::sleep(pause.mul_f64(spread)) => {}
                () = stop.cancelled() => return,
            }
            pause = (pause * 2).min(self.longest_pause);
        }
    }

    /// One session; gives the reason of its end.
    async fn session(self: Arc<Self>) -> String {
        let mut certificate = self.source.subscribe();
        if certificate.wait_for(Option::is_some).await.is_err() {
            return "there will be no certificate".into();
        }
        certificate.mark_unchanged();
        let channel = match aos_ipc::connect(&self.address, &self.tls).await {
            Ok(channel) => channel,
            Err(error) => return error.to_string(),
        };
        self.handle.set(Some(channel.clone()));
        // Each ends by itself when the connection does; dropping them is safe, CM asks again what was lost.
        tokio::select! {
            why = self.register(channel.clone()) => why,
            why = self.attach(channel) => why,
            why = self.rules() => why,
            _ = certificate.changed() => "the certificate has changed".into(),
        }
    }

    /// Follows the firewall rules for as long as the session lasts.
    async fn rules(&self) -> String {
        // CM frees every address that is not reported. Until the stored set is restored we do not know ours.
        let mut snapshots = self.launcher.snapshots();
        if snapshots
            .wait_for(|snapshot| snapshot.launches > 0)
            .await
            .is_err()
        {
            return "SM stops".into();
        }
        loop {
            if let Err(status) = self.networks.follow_rules().await {
                tracing::debug!(
                    why = aos_ipc::reason(&status),
                    "no updates of firewall rules"
                );
            }
            tokio::time::sleep(RULES_PAUSE).await;
        }
    }
}
