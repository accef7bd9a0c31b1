//! When a desired state is composed anew, and whether it is sent.

use aos_api::UpdatePhase;
use aos_cloud_protocol::{Body, Message};
use aos_db::Actor;
use aos_session::{Input, Keep, Priority};
use aos_time::Clock;
use uuid::Uuid;

use super::{Link, LinkError};
use crate::desired;

/// The newest desired state replaces an older one that still waits.
pub(super) const TOPIC: &str = "desired";

/// Whether a desired state that was just composed is to be sent.
pub(super) enum Sending {
    No,
    /// Unless the Unit has taken it over, or it waits in the outbox already.
    Unacknowledged,
    Anyway,
}

impl Link {
    /// After the first full status of a connection: a Unit that took its desired state over, but is not so, gets it again.
    pub(super) async fn full_status(&mut self) -> Result<(), LinkError> {
        let fresh = self
            .online
            .as_mut()
            .is_some_and(|online| std::mem::take(&mut online.fresh));
        if !fresh {
            return Ok(());
        }
        let unit = self
            .shared
            .options
            .db
            .unit(&Actor::system(self.tenant), &self.unit.to_string())
            .await?;
        let differs = !matches!(
            unit.update_phase,
            UpdatePhase::Installed | UpdatePhase::WaitingForUnit | UpdatePhase::None
        );
        if differs {
            self.queue_desired(Sending::Anyway).await?;
        }
        Ok(())
    }

    /// Composes the desired state anew, and sends it if there is a link; else it goes out with the next one.
    pub(super) async fn recompose(&mut self) -> Result<(), LinkError> {
        let send = if self.online.is_some() {
            Sending::Unacknowledged
        } else {
            Sending::No
        };
        self.queue_desired(send).await?;
        if self.online.is_some() {
            self.queue_env_vars().await?;
            self.queue_renewal().await?;
            self.queue_logs().await?;
        }
        self.carry_out().await
    }

    /// Composes and stores the desired state, and puts it into the outbox if it is to be sent.
    pub(super) async fn queue_desired(&mut self, send: Sending) -> Result<(), LinkError> {
        let shared = self.shared.clone();
        // It is never closed; without a place it would only be less patient.
        let _place = shared.composing.acquire().await.ok();
        let db = &shared.options.db;
        let known = db.unit_for_compose(self.unit).await?;
        let (desired, new) = desired::compose(&known, &shared.trust)?;
        db.store_desired(self.unit, &new).await?;
        let Some(newest) = db.newest_desired(self.unit).await? else {
            return Ok(());
        };
        let waits = newest.txn.is_some() && newest.txn == self.desired_txn;
        let wanted = match send {
            Sending::No => false,
            Sending::Unacknowledged => newest.acked_at.is_none() && !waits,
            Sending::Anyway => true,
        };
        if !wanted {
            return Ok(());
        }
        let txn = Uuid::new_v4().to_string();
        let message = Message {
            header: self.header(txn.clone()),
            correlation_id: None,
            body: Body::DesiredStatus(desired),
        };
        let now = self.steady.now();
        self.session.handle(
            now,
            Input::Send(aos_session::Message {
                txn: txn.clone(),
                payload: message.encode().into(),
                priority: Priority::High,
                keep: Keep::Durable,
                topic: Some(TOPIC.into()),
            }),
        );
        let records = self.records_ahead();
        db.desired_sent(self.unit, newest.number, &txn, &records)
            .await?;
        self.desired_txn = Some(txn);
        Ok(())
    }
}
