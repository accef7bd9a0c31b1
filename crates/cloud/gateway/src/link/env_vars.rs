//! When the set of environment variables of a Unit is sent.

use aos_cloud_protocol::{Body, EnvVar, EnvVarsOverride, InstanceFilter, Message, OverrideEnvVars};
use aos_db::{EnvReport, EnvRow, EnvSet};
use aos_session::{Input, Keep, Priority};
use aos_time::Clock as _;
use aos_types::{ItemId, SubjectId};
use uuid::Uuid;

use super::{Link, LinkError};

/// A newer set replaces an older one that still waits.
pub(super) const TOPIC: &str = "env-vars";

impl Link {
    /// Puts the set of variables into the outbox, unless the Unit has it or it waits there already.
    pub(super) async fn queue_env_vars(&mut self) -> Result<(), LinkError> {
        let db = self.shared.options.db.clone();
        let Some(set) = db.env_set(self.unit).await? else {
            return Ok(());
        };
        let waits = set.txn.is_some() && set.txn == self.env_txn;
        if set.acked_at.is_some() || waits {
            return Ok(());
        }
        let txn = Uuid::new_v4().to_string();
        let message = Message {
            header: self.header(txn.clone()),
            correlation_id: None,
            body: Body::OverrideEnvVars(message(&set)),
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
        db.env_sent(self.unit, &txn, &records).await?;
        self.env_txn = Some(txn);
        Ok(())
    }
}

/// The whole set; it replaces what the Unit has.
fn message(set: &EnvSet) -> OverrideEnvVars {
    let mut items: Vec<EnvVarsOverride> = Vec::new();
    for row in &set.variables {
        // An id that the Unit could not read would be refused there with the rest of its group.
        let Some(filter) = filter(row) else { continue };
        let variable = EnvVar {
            name: row.name.clone(),
            value: row.value.clone(),
            ttl: row.expires_at,
        };
        match items.last_mut().filter(|last| last.filter == filter) {
            Some(last) => last.variables.push(variable),
            None => items.push(EnvVarsOverride {
                filter,
                variables: vec![variable],
            }),
        }
    }
    OverrideEnvVars { items: Some(items) }
}

fn filter(row: &EnvRow) -> Option<InstanceFilter> {
    Some(InstanceFilter {
        item: match &row.item_id {
            Some(id) => Some(ItemId::new(id).ok()?),
            None => None,
        },
        subject: match &row.subject_id {
            Some(id) => Some(SubjectId::new(id).ok()?),
            None => None,
        },
        instance: row.instance,
    })
}

/// What the Unit says of its variables, in the words of the store.
pub(super) fn reports(status: aos_cloud_protocol::OverrideEnvVarsStatus) -> Vec<EnvReport> {
    status
        .statuses
        .into_iter()
        .map(|status| EnvReport {
            instance: status.instance,
            name: status.name,
            error: status.error,
        })
        .collect()
}
