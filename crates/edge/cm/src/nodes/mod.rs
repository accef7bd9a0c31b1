//! CM towards the Nodes of its Unit: who is connected, what they run, and orders to them.
//!
//! Every Node's SM keeps a `RegisterSM` stream open, and ours a second one, `Attach` of `aos.node.v1`, for what the first
//! cannot say. [`Server`] is the one handle: it serves both and `NetworkService`, keeps the view of what each Node last
//! reported, and sends orders. What Nodes tell besides comes out of one bounded channel in the order of arrival, so a slow
//! reader slows the Nodes down and nothing is dropped.
//!
//! A Node is who its certificate says: type `sm`, its own id. A second stream of the same Node takes the place of the
//! first, because the first is then a dead one that nobody has noticed yet.

mod attach;
mod caller;
mod link;
mod logs;
mod messages;
mod network_service;
mod networks;
mod orders;
mod register;
mod telemetry;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aos_ipc::proto::{
    aos::node::v1::node_service_server::NodeServiceServer,
    servicemanager::v5::{
        network_service_server::NetworkServiceServer, sm_service_server::SmServiceServer,
    },
};
use aos_pki::{ALPN_GRPC, CertKind, CertSource, Expect, Trust};
use aos_store::{Records, Store};
use tokio::sync::{mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::service::Routes;

use self::{link::Links, networks::NetworkKeeper};
use crate::{
    NetworkOptions,
    contract::{Images, NodeEvent, NodesView},
    local,
};

/// Orders that may wait for a Node's stream.
const ORDERS: usize = 64;
/// How long a Node may take to answer about its configuration (wire contract: 5 s).
const ANSWER: Duration = Duration::from_secs(5);
/// How long a Node may leave an order in its stream.
const SEND: Duration = Duration::from_secs(10);

/// Why the Nodes cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is taken or not ours.
    #[error("cannot listen for Nodes at {listen}: change `listen` in the configuration of CM")]
    Listen {
        /// Where.
        listen: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Addresses of instances cannot be kept.
    #[error("the addresses of instances cannot be kept")]
    Store(#[from] aos_store::Error),
    /// The pool of addresses cannot be used.
    #[error("`network` in the configuration of CM cannot be used")]
    Pool(#[from] aos_network::ParsePoolError),
    /// The server ended by itself.
    #[error("the server for Nodes has ended")]
    Serve(#[from] aos_ipc::ServeError),
}

/// What the server for Nodes is made of.
pub struct Setup {
    /// Where SMs connect.
    pub listen: SocketAddr,
    /// Networks of the instances.
    pub network: NetworkOptions,
    /// Our certificate of type `cm`.
    pub source: CertSource,
    /// Whom we believe.
    pub trust: Trust,
    /// Where addresses are kept.
    pub store: Store,
    /// Where blobs are.
    pub images: Arc<dyn Images>,
    /// Who hears what Nodes tell besides their instances.
    pub events: mpsc::Sender<NodeEvent>,
    /// How long a Node may take to install, and to carry out its list.
    pub launch: Duration,
    /// Services for tools on the Unit itself, on the same port. Each checks by itself who calls.
    pub local: Routes,
}

/// What all streams and callers share.
pub(crate) struct Shared {
    links: Mutex<Links>,
    view: watch::Sender<Arc<NodesView>>,
    images: Arc<dyn Images>,
    networks: NetworkKeeper,
    events: mpsc::Sender<NodeEvent>,
    launch: Duration,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Shared {
    /// The links are plain data that every holder leaves whole, so a panic elsewhere does not spoil them.
    fn links(&self) -> MutexGuard<'_, Links> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the view. Readers that still hold the old one keep it.
    fn change<T>(&self, change: impl FnOnce(&mut NodesView) -> T) -> Option<T> {
        let mut answer = None;
        self.view
            .send_modify(|view| answer = Some(change(Arc::make_mut(view))));
        answer
    }

    async fn tell(&self, event: NodeEvent) {
        // Without a reader CM is stopping.
        let _ = self.events.send(event).await;
    }
}

/// Serves the Nodes and speaks to them. See the module.
pub struct Server {
    shared: Arc<Shared>,
    listen: SocketAddr,
    source: CertSource,
    trust: Trust,
    local: Routes,
}

impl Server {
    /// Reads the addresses that were given; serves nothing yet.
    pub async fn new(setup: Setup) -> Result<Self, Error> {
        let records = Records::new(setup.store, "network");
        let shared = Shared {
            links: Mutex::default(),
            view: watch::Sender::default(),
            images: setup.images,
            networks: NetworkKeeper::open(records, &setup.network).await?,
            events: setup.events,
            launch: setup.launch,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        Ok(Self {
            shared: Arc::new(shared),
            listen: setup.listen,
            source: setup.source,
            trust: setup.trust,
            local: setup.local,
        })
    }

    /// Serves until `stop`, then ends all streams.
    pub async fn run(&self, stop: CancellationToken) -> Result<(), Error> {
        let listener = tokio::net::TcpListener::bind(self.listen)
            .await
            .map_err(|source| Error::Listen {
                listen: self.listen,
                source,
            })?;
        self.serve(listener, stop).await
    }

    /// Like [`Server::run`], on a socket that is bound already.
    pub async fn serve(
        &self,
        listener: tokio::net::TcpListener,
        stop: CancellationToken,
    ) -> Result<(), Error> {
        let shared = &self.shared;
        let tls = aos_pki::mutual_server(
            &self.source,
            &self.trust,
            // Who may call what is checked again by each service.
            Expect::kinds([CertKind::Sm].into_iter().chain(local::CALLERS)).same_unit(),
            ALPN_GRPC,
        );
        let limit = aos_ipc::MAX_MESSAGE;
        let routes = self
            .local
            .clone()
            .add_service(
                SmServiceServer::new(register::Service::new(shared.clone()))
                    .max_decoding_message_size(limit),
            )
            .add_service(
                NetworkServiceServer::new(network_service::Service::new(shared.clone()))
                    .max_decoding_message_size(limit),
            )
            .add_service(
                NodeServiceServer::new(attach::Service::new(shared.clone()))
                    .max_decoding_message_size(limit),
            );
        // The streams end first: an open stream would hold the server up.
        let ended = shared.stop.clone();
        let streams = async {
            stop.cancelled().await;
            ended.cancel();
        };
        let (served, ()) = tokio::join!(
            async {
                let served = aos_ipc::serve(listener, tls, routes, stop.clone()).await;
                stop.cancel();
                served
            },
            streams
        );
        shared.tasks.close();
        shared.tasks.wait().await;
        Ok(served?)
    }
}
