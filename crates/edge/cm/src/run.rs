use std::sync::Arc;

use aos_ipc::wait_for_root;
use aos_store::Store;
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    Error, Options,
    app::{self, CloudSide, Own, Parts, SCHEMA},
    cloud::shared,
    contract::Iam,
    identity::{Credentials, IamClient},
    images,
    local::Local,
    nodes,
};

/// Events of Nodes that may wait.
const EVENTS: usize = 256;

/// Runs CM until `stop`. Waits, as long as it takes, for the Unit to join a cloud; then goes on by itself. Needs
/// [`aos_pki::install_provider`] at process start.
pub async fn run(options: Options, stop: CancellationToken) -> Result<(), Error> {
    let Some(roots) = wait_for_root(&options.ca_cert, &stop).await else {
        return Ok(());
    };
    let credentials = Credentials::new(roots, options.iam_public.clone());
    // Whatever ends `serve`, the tasks around it end with it.
    let around = stop.child_token();
    let mut tasks = JoinSet::new();
    tasks.spawn({
        let (credentials, around) = (credentials.clone(), around.clone());
        async move { credentials.keep(around).await }
    });
    // On the heap: all of CM's state is in it.
    let result = Box::pin(serve(&options, credentials, &stop, &around, &mut tasks)).await;
    around.cancel();
    while tasks.join_next().await.is_some() {}
    result
}

async fn serve(
    options: &Options,
    credentials: Credentials,
    stop: &CancellationToken,
    around: &CancellationToken,
    tasks: &mut JoinSet<()>,
) -> Result<(), Error> {
    if !credentials.ready(stop).await {
        return Ok(());
    }
    let iam = Arc::new(IamClient::new(
        credentials.clone(),
        options.iam_public.clone(),
        options.iam_protected.clone(),
    ));
    let Some(own) = iam.own(stop).await else {
        return Ok(());
    };
    tracing::info!(unit = %own.system_id, node = %own.node, "CM starts");
    let own = Own {
        system_id: own.system_id,
        node: own.node,
        online: credentials.online.clone(),
        trust: credentials.trust.clone(),
    };
    let store = Store::open(options.state_dir.join("cm.db"), SCHEMA)?;
    let cloud = CloudSide::open(options, &store, &own).await?;
    let (source, alerts) = shared(&cloud.link);
    let library = images::Library::open(images::Setup {
        dir: options.state_dir.join("images"),
        listen: options.blob_listen,
        public_url: options.blob_url(),
        keep: std::time::Duration::from_secs(options.keep_items_secs),
        source: credentials.cm.clone(),
        trust: credentials.trust.clone(),
        online: credentials.online.clone(),
        store: store.clone(),
        cloud: source,
        alerts,
        keys: iam.clone(),
        options: options.images.clone(),
        policy: Default::default(),
        tries: Default::default(),
    })
    .await?;
    let (tell, events) = mpsc::channel(EVENTS);
    let local = Local::new(own.node.clone());
    let server = nodes::Server::new(nodes::Setup {
        listen: options.listen,
        network: options.network.clone(),
        source: credentials.cm.clone(),
        trust: credentials.trust.clone(),
        store: store.clone(),
        images: Arc::new(library.clone()),
        events: tell,
        launch: options.launch(),
        local: local.routes(),
    })
    .await?;
    let server = Arc::new(server);
    let following: Arc<IamClient> = iam.clone();
    let token = around.clone();
    tasks.spawn(async move { following.run(token).await });
    let (serving, token) = (library.clone(), around.clone());
    tasks.spawn(async move { serving.run(token).await });
    let (programs, token, options_of) = (local.clone(), around.clone(), options.clone());
    tasks.spawn(async move { programs.serve(&options_of, token).await });
    let iam: Arc<dyn Iam> = iam;
    let parts = Parts {
        store,
        cloud,
        nodes: server.clone(),
        images: Arc::new(library),
        iam,
        events,
        node: own.node,
        local,
    };
    // Both end with `inner`; if one ends by itself the other one is ended with it.
    let inner = stop.child_token();
    let serving = async {
        let ended = server.run(inner.clone()).await;
        inner.cancel();
        ended
    };
    let working = async {
        let ended = app::run(options, parts, inner.clone()).await;
        inner.cancel();
        ended
    };
    let (served, worked) = tokio::join!(serving, working);
    served?;
    worked
}
