use std::sync::Arc;

use aos_api::{ChangeAction, ChangeTopic};
use aos_cloud_protocol::Caps;
use aos_compose::Trust;
use aos_db::{Db, LinkedUnit};
use aos_image::BlobStore;
use aos_pki::{Authority, Signer};
use axum::{
    Router,
    extract::DefaultBodyLimit,
    routing::{any, get, post},
};
use tokio::sync::{Semaphore, broadcast, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use crate::{
    Counts, TokenKey,
    blobs::blob,
    desired,
    discovery::discover,
    link::{self, Attached, Note},
    registry::Registry,
    upgrade::upgrade,
};

/// Longest body of a service discovery request.
const MAX_DISCOVERY_BYTES: usize = 64 * 1024;

/// Desired states composed at once. An assignment may touch very many Units.
const COMPOSING: usize = 8;

/// What a gateway needs.
#[derive(Clone)]
pub struct GatewayOptions {
    /// The store.
    pub db: Db,
    /// The blob folder.
    pub blobs: BlobStore,
    /// Issues certificates that renew others.
    pub authority: Arc<Authority>,
    /// Where Units ask for the cloud, as their `online` certificates say.
    pub discovery_urls: Vec<String>,
    /// Signs blobs; its chain goes to Units with their desired state.
    pub signer: Arc<Signer>,
    /// Seals tokens.
    pub tokens: TokenKey,
    /// Guards against hostile messages.
    pub caps: Caps,
    /// How links behave; the default is right outside tests.
    pub session: aos_session::Config,
    /// How long usage and alerts are kept.
    pub retention: aos_db::Retention,
}

/// The gateway. Clones are the same one.
#[derive(Clone)]
pub struct Gateway(Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) options: GatewayOptions,
    pub(crate) trust: Trust,
    pub(crate) counts: Counts,
    pub(crate) registry: Registry,
    pub(crate) composing: Semaphore,
    /// One blob at a time is encrypted.
    pub(crate) encrypting: tokio::sync::Mutex<()>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Gateway {
    /// Starts to follow the store: desired states are composed from now on. Ends when `stop` is cancelled; wait for that
    /// with [`Gateway::stopped`].
    pub fn start(options: GatewayOptions, stop: CancellationToken) -> Self {
        let changes = options.db.changes();
        let shared = Arc::new(Shared {
            trust: desired::trust(&options.signer),
            options,
            counts: Counts::default(),
            registry: Registry::default(),
            composing: Semaphore::new(COMPOSING),
            encrypting: tokio::sync::Mutex::default(),
            tasks: TaskTracker::new(),
            stop,
        });
        shared.tasks.spawn(follow(shared.clone(), changes));
        Self(shared)
    }

    /// The routes of the unit listener. The listener puts an `aos_pki::PeerIdentity` into the extensions of each request
    /// whose connection showed a certificate.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/sd/v7/", post(discover))
            .route("/sd/v7", post(discover))
            .layer(DefaultBodyLimit::max(MAX_DISCOVERY_BYTES))
            .route("/ws/v7/", any(upgrade))
            .route("/ws/v7", any(upgrade))
            .route("/blobs/v7/{token}", get(blob))
            .with_state(self.0.clone())
    }

    /// Figures since the start.
    pub fn counts(&self) -> &Counts {
        &self.0.counts
    }

    /// Waits until every link is closed after the stop.
    pub async fn stopped(&self) {
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }
}

impl Shared {
    /// Hands a new connection to the task of its Unit.
    pub(crate) fn attach(self: &Arc<Self>, unit: LinkedUnit, attached: Attached) -> bool {
        self.tell(unit.id, Note::Attach(Box::new(attached)))
    }

    fn tell(self: &Arc<Self>, unit: Uuid, note: Note) -> bool {
        if self.stop.is_cancelled() {
            return false;
        }
        let spawn = |mailbox: mpsc::Receiver<Note>| {
            let stop = self.stop.child_token();
            self.tasks
                .spawn(link::run(self.clone(), unit, mailbox, stop));
        };
        self.registry.tell(unit, note, spawn)
    }
}

/// Tells the task of a Unit whenever its desired state may have changed.
async fn follow(shared: Arc<Shared>, mut changes: broadcast::Receiver<aos_db::Change>) {
    loop {
        // Both are cancel-safe: a change that is not received stays in the bus.
        let change = tokio::select! {
            () = shared.stop.cancelled() => return,
            change = changes.recv() => change,
        };
        match change {
            Ok(change) if change.topic == ChangeTopic::Unit => match change.action {
                ChangeAction::Desired => {
                    // A full box already holds a note to compose that will see this change.
                    shared.tell(change.id, Note::Recompose);
                }
                ChangeAction::LogAsked => {
                    shared.registry.tell_if_there(change.id, Note::Logs);
                }
                ChangeAction::Deleted => {
                    shared.registry.tell_if_there(change.id, Note::Recompose);
                }
                _ => {}
            },
            Ok(_) => {}
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                tracing::warn!(
                    missed,
                    "changes were missed; every linked Unit is composed anew"
                );
                for unit in shared.registry.units() {
                    shared.registry.tell_if_there(unit, Note::Recompose);
                }
            }
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}
