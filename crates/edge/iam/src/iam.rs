use std::{net::SocketAddr, path::Path};

use aos_ipc::ServeError;
use aos_pki::{ALPN_GRPC, BootstrapKey, Expect, mutual_server, public_server};
use aos_store::{Records, Store};
use aos_types::{SubjectId, SystemId};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Error, Options,
    node::{Keys, ThisNode, machine_id, node_info},
    nodes::Nodes,
    permissions::Permissions,
    secondary::Secondary,
    services::{Identity, Services},
};

/// IAM of one Node, listening but not yet serving.
pub struct Iam {
    services: Services,
    keys: Keys,
    secondary: Option<Secondary>,
    public: TcpListener,
    protected: TcpListener,
}

impl Iam {
    /// Opens what is stored and listens.
    pub async fn open(options: Options) -> Result<Self, Error> {
        let blocking = options.clone();
        let opened = tokio::task::spawn_blocking(move || open_files(&blocking)).await;
        let (keys, info, store) = opened.map_err(|error| Error::Option {
            field: "state_dir",
            why: error.to_string(),
        })??;
        let this = ThisNode::load(info, keys.clone(), Records::new(store.clone(), "state")).await?;
        let permissions = Permissions::load(Records::new(store.clone(), "permission")).await?;
        let main = if options.is_main() {
            let nodes = Nodes::load(this.clone(), Records::new(store, "node")).await?;
            Some((nodes, identity(&options)?))
        } else {
            None
        };
        let secondary = match (&main, &options.main_iam) {
            (Some(_), _) => None,
            (None, Some(main)) => Some(Secondary {
                this: this.clone(),
                main: main.clone(),
                bootstrap: options.bootstrap_path(),
            }),
            (None, None) => {
                return Err(Error::Option {
                    field: "main_iam",
                    why: "a Node that is not the main one must know where the main Node's IAM is"
                        .into(),
                });
            }
        };
        Ok(Self {
            services: Services::new(this, permissions, main),
            keys,
            secondary,
            public: aos_ipc::bind(&options.public_listen).await?,
            protected: aos_ipc::bind(&options.protected_listen).await?,
        })
    }

    /// Where the public port is.
    pub fn public_address(&self) -> Option<SocketAddr> {
        self.public.local_addr().ok()
    }

    /// Where the protected port is.
    pub fn protected_address(&self) -> Option<SocketAddr> {
        self.protected.local_addr().ok()
    }

    /// Serves until `stop`.
    pub async fn serve(self, stop: CancellationToken) -> Result<(), Error> {
        let tasks = TaskTracker::new();
        // Whatever ends first ends the rest too.
        let all = stop.child_token();
        if let Some(secondary) = self.secondary {
            tasks.spawn(secondary.run(all.clone()));
        }
        let services = self.services.running(tasks.clone(), all.clone());
        let (source, trust) = (&self.keys.source, &self.keys.trust);
        let protected = mutual_server(source, trust, Expect::any().same_unit(), ALPN_GRPC);
        let serve = |listener, tls, routes| {
            let all = all.clone();
            async move {
                let ended: Result<(), ServeError> =
                    aos_ipc::serve(listener, tls, routes, all.clone()).await;
                all.cancel();
                ended
            }
        };
        let (public, protected) = tokio::join!(
            serve(
                self.public,
                public_server(source, ALPN_GRPC),
                services.public()
            ),
            serve(self.protected, protected, services.protected()),
        );
        tasks.close();
        tasks.wait().await;
        public?;
        protected?;
        Ok(())
    }
}

/// Runs IAM of one Node until `stop`.
pub async fn run(options: Options, stop: CancellationToken) -> Result<(), Error> {
    let iam = Iam::open(options).await?;
    tracing::info!(public = ?iam.public_address(), protected = ?iam.protected_address(), "IAM is listening");
    iam.serve(stop).await
}

fn open_files(options: &Options) -> Result<(Keys, aos_types::NodeInfo, Store), Error> {
    let keys = Keys::open(options)?;
    let info = node_info(options)?;
    let bootstrap = options.bootstrap_path();
    if options.is_main() {
        keys.use_bootstrap(&BootstrapKey::load_or_create(&bootstrap)?, &info.id)?;
    } else {
        wait_for_bootstrap(&keys, &bootstrap, &info.id)?;
    }
    let store = Store::open(options.state_dir.join("iam.db"), &[Records::<()>::SCHEMA])?;
    Ok((keys, info, store))
}

/// Another Node may get its copy later: [`Secondary`] looks for it before each attempt.
fn wait_for_bootstrap(keys: &Keys, path: &Path, node: &aos_types::NodeId) -> Result<(), Error> {
    if path.exists() {
        keys.use_bootstrap(&BootstrapKey::load(path)?, node)?;
    } else if keys.trust.roots().is_empty() {
        tracing::warn!(path = %path.display(), "copy the bootstrap key of the main Node here");
    }
    Ok(())
}

fn identity(options: &Options) -> Result<Identity, Error> {
    let system_id = match &options.system_id {
        Some(id) => id.clone(),
        None => machine_id()?,
    };
    let refuse = |field: &'static str| {
        move |error: aos_types::InvalidId| Error::Option {
            field,
            why: error.to_string(),
        }
    };
    let (model, version) = match options.unit_model.split_once(';') {
        Some((model, version)) => (model.trim(), version.trim()),
        None => (options.unit_model.trim(), ""),
    };
    Ok(Identity {
        system_id: SystemId::new(system_id).map_err(refuse("system_id"))?,
        unit_model: model.to_owned(),
        version: version.to_owned(),
        subjects: options
            .subjects
            .iter()
            .map(|subject| SubjectId::new(subject).map_err(refuse("subjects")))
            .collect::<Result<_, _>>()?,
    })
}
