//! What CM tells the cloud of the Unit. The real one sends deltas too; here every status is a full one.

use std::time::Duration;

use aos_session::{Keep, Priority};
use aos_update::UpdateState;

use crate::{
    event::Event,
    words::{item_number, version_number},
    world::{Message, Status, World},
};

impl World {
    pub(crate) fn status_soon(&mut self, after: Duration) {
        let life = self.cm.life;
        let Some(run) = &mut self.cm.run else { return };
        if run.online && !run.status_planned {
            run.status_planned = true;
            self.after(after, Event::CmStatus { life });
        }
    }

    pub(crate) fn cm_sends_status(&mut self) {
        let Some(run) = &mut self.cm.run else { return };
        run.status_planned = false;
        if !run.online {
            return;
        }
        let status = status(&run.engine);
        self.unit_sends(
            Message::Status(Box::new(status)),
            Priority::High,
            Keep::Connection,
            Some("unitStatus"),
        );
    }
}

pub(crate) fn status(engine: &aos_update::Engine) -> Status {
    let record = engine.record();
    Status {
        committed: record
            .committed
            .items
            .iter()
            .map(|item| (item_number(&item.id), version_number(&item.version)))
            .collect(),
        failure: record
            .failure
            .as_ref()
            .map(|failure| failure.failures.summary().unwrap_or_default()),
        rollback: record
            .rollback
            .as_ref()
            .map(|rollback| rollback.failures.summary().unwrap_or_default()),
        busy: engine.state() != UpdateState::None,
    }
}
