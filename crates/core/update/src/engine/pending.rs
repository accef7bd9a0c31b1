use aos_time::Timestamp;

use super::Engine;
use crate::UpdateState;

/// Pending: everything is here and verified. The gates are asked what may go on; what waits is looked at again with every
/// input and at the time its gate names.
impl Engine {
    pub(super) fn ask_gates(&mut self, now: Timestamp) {
        self.enter(now, UpdateState::Installing);
    }
}
