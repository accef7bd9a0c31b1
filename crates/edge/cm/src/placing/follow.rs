use std::{future, panic, pin::Pin, sync::Arc, time::Duration};

use aos_time::{Clock, SystemClock};
use aos_types::NodeId;
use tokio::{sync::watch, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    Placing,
    turns::{Ended, Turn, Turns},
};
use crate::updates::InForce;

/// Changes are gathered this long before places are looked at again.
const GATHER: Duration = Duration::from_millis(200);
/// Cached instances are looked at again at least this often.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// What is under way to the Nodes: tasks of their own, as one may hold what the follower needs next.
struct Errands {
    placing: Arc<Placing>,
    turns: Turns,
    running: JoinSet<(NodeId, Result<Ended, aos_store::Error>)>,
    /// Ends them all: a launch does not wait behind them.
    over: CancellationToken,
}

impl Errands {
    fn of(placing: &Arc<Placing>) -> Self {
        let over = CancellationToken::new();
        placing.following.send_replace(over.clone());
        Self {
            placing: placing.clone(),
            turns: Turns::default(),
            running: JoinSet::new(),
            over,
        }
    }

    fn begin(&mut self, turns: Vec<Turn>) {
        for Turn { node, parting } in turns {
            let placing = self.placing.clone();
            self.running.spawn(async move {
                let ended = placing.errand(&node, parting).await;
                (node, ended)
            });
        }
    }

    fn look(&mut self) {
        let nodes = self.placing.world.nodes().into_iter();
        let nodes = nodes.filter(|(_, node)| node.takes_orders());
        let turns = self.turns.look(nodes.map(|(id, _)| id));
        self.begin(turns);
    }

    /// Waits for the next one to end; for ever if none runs.
    async fn ended(&mut self) -> Result<(), aos_store::Error> {
        let (node, how) = match self.running.join_next().await {
            Some(Ok(ended)) => ended,
            Some(Err(died)) => match died.try_into_panic() {
                Ok(why) => panic::resume_unwind(why),
                // It was ended with all others.
                Err(_) => return Ok(()),
            },
            None => future::pending().await,
        };
        let turns = self.turns.ended(&node, how?);
        self.begin(turns);
        Ok(())
    }
}

impl Placing {
    /// Follows the Nodes and whatever else decides about places, until `stop`: gives the Nodes their lists when they connect
    /// or something changes, and ends variables at their time. No Node that hangs holds up the others.
    pub(crate) async fn follow(
        self: Arc<Self>,
        mut in_force: watch::Receiver<InForce>,
        stop: CancellationToken,
    ) -> Result<(), aos_store::Error> {
        let mut changes = self.world.changes();
        let mut usages = self.usages.changes();
        let mut subjects = self.subjects.clone();
        let mut overrides = self.overrides.subscribe();
        let mut states = self.states.waiting();
        let mut errands = Errands::of(&self);
        loop {
            changes.borrow_and_update();
            usages.borrow_and_update();
            subjects.borrow_and_update();
            overrides.borrow_and_update();
            states.borrow_and_update();
            let next_end = self.end_overrides().await?;
            let nodes = self.world.nodes();
            if !nodes.is_empty() {
                self.nodes.keep_only(nodes.into_keys().collect()).await;
            }
            let now = in_force.borrow_and_update().clone();
            if !now.hold && self.reconcile(&now).await? {
                errands.look();
            }
            let left = next_end.map_or(DAY, |at| at.since(SystemClock.now()).min(DAY));
            let sleep = tokio::time::sleep(left);
            tokio::pin!(sleep);
            let again = again(self.next_attempt());
            tokio::pin!(again);
            // What is under way goes on while changes are waited for and gathered.
            let mut gathered = None;
            loop {
                let over = errands.over.clone();
                // Every arm waits for a state; nothing is lost when one is dropped.
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return Ok(()),
                    () = over.cancelled() => {
                        errands = Errands::of(&self);
                        gathered.get_or_insert_with(gather);
                    }
                    ended = errands.ended() => ended?,
                    () = until(&mut gathered) => break,
                    Ok(()) = changes.changed(), if gathered.is_none() => gathered = Some(gather()),
                    Ok(()) = usages.changed(), if gathered.is_none() => gathered = Some(gather()),
                    Ok(()) = subjects.changed(), if gathered.is_none() => gathered = Some(gather()),
                    Ok(()) = overrides.changed(), if gathered.is_none() => gathered = Some(gather()),
                    Ok(()) = in_force.changed(), if gathered.is_none() => gathered = Some(gather()),
                    Ok(()) = states.changed(), if gathered.is_none() => gathered = Some(gather()),
                    () = &mut again, if gathered.is_none() => gathered = Some(gather()),
                    () = &mut sleep, if gathered.is_none() => gathered = Some(gather()),
                }
            }
        }
    }
}

type Sleep = Pin<Box<tokio::time::Sleep>>;

fn gather() -> Sleep {
    Box::pin(tokio::time::sleep(GATHER))
}

async fn until(at: &mut Option<Sleep>) {
    match at {
        Some(at) => at.await,
        None => future::pending().await,
    }
}

async fn again(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => future::pending().await,
    }
}
