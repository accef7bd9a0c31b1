use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use aos_netstack::{KernelOptions, KernelStack, NetworkStack, Prefix};
use aos_pki::{CertKind, CertSource, ClientTls, Expect, Roots, Trust, unit_client};
use aos_quota::Backend;
use aos_runtime::{
    CrunOptions, CrunRuntime, Isolation, Runtime, StopPolicy,
    keeper::{LogPolicy, Starter},
};
use aos_store::Store;
use aos_types::{NodeInfo, RuntimeInfo};
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    Error, Options,
    alerts::Alerts,
    cm::{self, Link},
    cm_handle::CmHandle,
    disk_below::DiskBelow,
    fullness::Fullness,
    images::Images,
    integrity::Integrity,
    launcher::{Launcher, Setup},
    logs::Logs,
    monitoring::{self, Monitoring},
    networks::{NetworkSetup, Networks},
    node,
    node_config::NodeConfigs,
    permissions::Permissions,
    places::Places,
    records::{self, Kept},
    resources::Resources,
    runtimes::{Offered, Runtimes},
    states::States,
};

/// How long one run of the OCI runtime may take.
const RUNTIME_DEADLINE: Duration = Duration::from_secs(30);
/// Folders of the keepers' records, in the state folder.
const KEEPER: &str = "keeper";
const KEEPER_NATIVE: &str = "keeper-native";
/// The one record's key.
const OWN: &str = "own";

/// Runs SM until `stop` is cancelled. The instances run on.
pub async fn run(options: Options, stop: CancellationToken) -> Result<(), Error> {
    aos_pki::install_provider();
    let store = Store::open(options.state_dir.join("sm.db"), records::SCHEMA)?;
    let kept = Kept::new(&store);
    let stop = stop.child_token();
    // Without a root nothing is trusted, and nothing was ever started.
    let Some(roots) = aos_ipc::wait_for_root(&options.ca_cert, &stop).await else {
        return Ok(());
    };
    let identity = Identity::new(&options, roots);
    let mut tasks: JoinSet<Result<(), Error>> = JoinSet::new();
    let (keeping, until) = (identity.clone(), stop.clone());
    tasks.spawn(async move {
        keeping.keep(&until).await;
        Ok(())
    });
    let result = serve(&options, kept, &identity, &mut tasks, &stop).await;
    stop.cancel();
    let ended = join(tasks, &stop).await;
    result.and(ended)
}

/// Who we are towards others.
#[derive(Clone)]
struct Identity {
    source: CertSource,
    trust: Trust,
    iam_public: String,
}

impl Identity {
    fn new(options: &Options, roots: Roots) -> Self {
        Self {
            source: CertSource::new(),
            trust: Trust::new(roots),
            iam_public: options.iam_public.clone(),
        }
    }

    fn tls(&self, kind: CertKind) -> ClientTls {
        unit_client(&self.source, &self.trust, Expect::kinds([kind]).same_unit())
    }

    /// Keeps the `sm` certificate up to date until `stop`.
    async fn keep(&self, stop: &CancellationToken) {
        let tls = self.tls(CertKind::Iam);
        aos_ipc::keep_certificate(CertKind::Sm, &self.source, &self.iam_public, &tls, stop).await;
    }
}

/// Starts all parts and waits for their end.
async fn serve(
    options: &Options,
    kept: Kept,
    identity: &Identity,
    tasks: &mut JoinSet<Result<(), Error>>,
    stop: &CancellationToken,
) -> Result<(), Error> {
    let Some(node) = this_node(options, &kept, identity, stop).await? else {
        return Ok(());
    };
    let offered = runtimes(options, &node, stop).await?;
    let infos: Vec<RuntimeInfo> = offered.iter().map(|one| one.info.clone()).collect();
    let resources = Resources::load(options.resources_file.as_deref())?;
    let info = cm::info(&node.id, &infos, &resources.list());
    let handle = CmHandle::new(node.id.clone());
    let alerts = Arc::new(Alerts::default());
    let prefix = prefix(options)?;
    let networks = Networks::open(NetworkSetup {
        stack: stack(options, prefix.clone())?,
        cm: handle.clone(),
        kept: kept.clone(),
        dns_servers: options.dns_servers.clone(),
        options: options.network.clone(),
        closed: options.closed()?,
        prefix,
        alerts: alerts.clone(),
    });
    let networks = Arc::new(networks.await?);
    let (names, until) = (networks.names(), stop.child_token());
    tasks.spawn(async move {
        names.serve(until).await;
        Ok(())
    });
    let (volumes, until) = (networks.clone(), stop.child_token());
    tasks.spawn(async move {
        volumes.keep_volumes(until).await;
        Ok(())
    });
    let folder = options.state_dir.join("images");
    let images = Images::open(
        &folder,
        &identity.source,
        &identity.trust,
        handle.clone(),
        kept.clone(),
        alerts.clone(),
    );
    let images = Arc::new(images.await?);
    let (runtimes, exits) = Runtimes::new(offered);
    let node_configs = Arc::new(NodeConfigs::open(kept.node_config.clone()).await?);
    let places = places(options, &alerts).await?;
    let keepers = [KEEPER, KEEPER_NATIVE].map(|name| options.state_dir.join(name));
    let folder = options.state_dir.join("logs");
    let logs = Logs::open(options, keepers.into(), folder, kept.logs.clone()).await?;
    let logs = Arc::new(logs);
    let (remembered, measured) = (kept.clone(), kept.clone());
    let this_node = node.clone();
    let launcher = Launcher::new(
        Setup {
            runtimes,
            images,
            networks: networks.clone(),
            permissions: Permissions::new(
                options.iam_protected.clone(),
                identity.tls(CertKind::Iam),
                kept.registered.clone(),
            ),
            kept,
            node,
            resources,
            logs: logs.clone(),
            places: places.clone(),
            host_base: options.host_base.clone(),
            stop_policy: stop_policy(options),
            parallel: options.parallel,
            keep_images: options.keep_images(),
        },
        stop.child_token(),
    );
    let states = States::new(
        launcher.clone(),
        places.clone(),
        remembered,
        alerts.clone(),
        Duration::from_secs(options.state_report_secs.max(1)),
    );
    let below = DiskBelow {
        places: places.clone(),
        alerts: alerts.clone(),
        interval: Duration::from_secs(options.quota.watch_secs.max(1)),
    };
    let fullness = Fullness {
        launcher: launcher.clone(),
        places,
        alerts: alerts.clone(),
        interval: Duration::from_secs(options.quota.watch_secs.max(1)),
    };
    let integrity = Integrity {
        launcher: launcher.clone(),
        alerts: alerts.clone(),
        interval: Duration::from_secs(options.check_images_secs),
    };
    let monitoring = Monitoring::open(monitoring::Setup {
        launcher: launcher.clone(),
        networks: networks.clone(),
        node_configs: node_configs.clone(),
        alerts: alerts.clone(),
        places: fullness.places.clone(),
        kept: measured.clone(),
        node: this_node,
        options: options.monitoring.clone(),
    });
    let monitoring = Arc::new(monitoring.await?);
    let (online, connected) = watch::channel(false);
    let link = Arc::new(Link {
        address: options.cm.clone(),
        tls: identity.tls(CertKind::Cm),
        source: identity.source.clone(),
        handle,
        launcher: launcher.clone(),
        networks,
        states: Arc::new(states),
        node_configs,
        monitoring: monitoring.clone(),
        alerts,
        logs: logs.clone(),
        info,
        online,
        longest_pause: Duration::from_secs(options.reconnect_max_secs.max(1)),
    });
    let launcher_of_ends = launcher.clone();
    let (snapshots, until) = (launcher.snapshots(), stop.child_token());
    tasks.spawn(logs.keep(snapshots, until));
    tasks.spawn(async move { Ok(launcher.run(exits, connected).await?) });
    let (until, checks) = (stop.child_token(), options.check_images_secs > 0);
    tasks.spawn(async move {
        // Files that are being read when it is dropped are read to their end.
        tokio::select! {
            () = integrity.run(), if checks => {}
            () = until.cancelled() => {}
        }
        Ok(())
    });
    let (ends, told) = (
        monitoring::tell_ends(launcher_of_ends, link.alerts.clone()),
        stop.child_token(),
    );
    let log = monitoring::watch_log(
        options.monitoring.clone(),
        link.alerts.clone(),
        measured.journal,
    );
    tasks.spawn(async move {
        // All of them can be dropped at any time.
        tokio::select! {
            () = monitoring.run() => {}
            () = log => {}
            () = until_stop(ends, &told) => {}
            () = told.cancelled() => {}
        }
        monitoring.note_traffic().await;
        Ok(())
    });
    let until = stop.child_token();
    tasks.spawn(async move {
        // Nothing has begun when the look is dropped.
        tokio::select! {
            () = fullness.run() => {}
            () = below.run() => {}
            () = until.cancelled() => {}
        }
        Ok(())
    });
    let until = stop.child_token();
    tasks.spawn(async move {
        Box::pin(link.run(until)).await;
        Ok(())
    });
    // Any part that ends by itself ends SM.
    tokio::select! {
        () = stop.cancelled() => Ok(()),
        Some(ended) = tasks.join_next() => ended.map_err(Error::Task)?,
    }
}

/// Does something for as long as there is something to do, and then waits for the stop.
async fn until_stop(work: impl Future<Output = ()>, stop: &CancellationToken) {
    work.await;
    stop.cancelled().await;
}

/// How the interfaces made for instances begin.
fn prefix(options: &Options) -> Result<Prefix, Error> {
    options
        .interface_prefix
        .parse()
        .map_err(|error: aos_netstack::InvalidName| Error::Option {
            field: "interface_prefix",
            why: error.to_string(),
        })
}

/// The kernel's networks.
fn stack(options: &Options, prefix: Prefix) -> Result<Arc<dyn NetworkStack>, Error> {
    if !(1_280..=65_000).contains(&options.network.mtu) {
        return Err(Error::Option {
            field: "network.mtu",
            why: "is none: IPv6 needs 1280 bytes, and no network carries more than 65000".into(),
        });
    }
    Ok(Arc::new(KernelStack::open(KernelOptions {
        netns_dir: options.netns_dir.clone(),
        uplink: options.network.uplink.clone(),
        mtu: options.network.mtu,
        ipv6: options.network.ipv6,
        ..KernelOptions::new(prefix)
    })?))
}

/// Waits for all parts; the first error counts.
async fn join(
    mut tasks: JoinSet<Result<(), Error>>,
    stop: &CancellationToken,
) -> Result<(), Error> {
    let mut result = Ok(());
    while let Some(ended) = tasks.join_next().await {
        result = result.and(ended.map_err(Error::Task).and_then(|ended| ended));
        stop.cancel();
    }
    result
}

/// What this Node is: as IAM says, or as it said last if there is a set to start and IAM is not there yet.
async fn this_node(
    options: &Options,
    kept: &Kept,
    identity: &Identity,
    stop: &CancellationToken,
) -> Result<Option<NodeInfo>, Error> {
    let stored = kept.node.get(OWN).await?;
    let tls = identity.tls(CertKind::Iam);
    let ask = node::ask(&options.iam_public, &tls, stop);
    let asked = match stored {
        None => ask.await,
        // Offline is normal, and the Node does not become another one: start at once.
        Some(stored) => match tokio::time::timeout(Duration::from_millis(500), ask).await {
            Ok(asked) => asked,
            Err(_) => return Ok(Some(stored)),
        },
    };
    if let Some(node) = &asked {
        kept.node.put(OWN, node).await?;
    }
    Ok(asked)
}

/// Finds out how storages and states can be bounded, and tells people if they cannot.
async fn places(options: &Options, alerts: &Alerts) -> Result<Places, Error> {
    let setup = options.quota_setup();
    let opening = tokio::task::spawn_blocking(move || aos_quota::open(&setup));
    let chosen = opening.await.map_err(Error::Task)??;
    let backend = chosen.quota.backend();
    tracing::info!(%backend, passed_over = ?chosen.passed_over, "what bounds storages and states");
    if backend == Backend::Accounting {
        alerts.own(format!(
            "limits of storages and states are not enforced on this Node, only measured: {}",
            chosen.passed_over.join("; ")
        ));
    }
    if let Some(trouble) = chosen.trouble {
        alerts.own(format!("storages and states cannot be had: {trouble}"));
    }
    Ok(Places::new(chosen.quota))
}

/// The ways to run instances that this Node offers.
async fn runtimes(
    options: &Options,
    node: &NodeInfo,
    stop: &CancellationToken,
) -> Result<Vec<Offered>, Error> {
    let unnamed = |field| Error::Option {
        field,
        why: "cannot name a runtime".into(),
    };
    let containers = crun(options)?;
    let below = |path: &Path| path.join(node::NATIVE);
    // The OCI runtime takes every folder in its root for a container.
    let beside = |path: &Path| {
        let mut name = path.as_os_str().to_owned();
        name.push("-native");
        PathBuf::from(name)
    };
    let native = CrunOptions {
        isolation: Isolation::Native,
        root: beside(&containers.root),
        runtime_dir: below(&containers.runtime_dir),
        writable_dir: options.state_dir.join("native"),
        cgroup_parent: format!("{}-native", containers.cgroup_parent.trim_end_matches('/')),
        seccomp: false,
        // A keeper of its own: each removes what it does not know.
        keeper: Starter {
            program: containers.keeper.program.clone(),
            socket: below(&containers.runtime_dir).join("keeper.sock"),
            state_dir: options.state_dir.join(KEEPER_NATIVE),
        },
        max_instances: options.native.max_instances,
        ..containers.clone()
    };
    let (was_there, enabled) = (native.runtime_dir.exists(), options.native.enabled);
    let (runtime, exits) = CrunRuntime::open(containers, stop.child_token()).await?;
    let mut offered = vec![Offered {
        info: node::runtime(node, &options.runtime).ok_or_else(|| unnamed("runtime.type"))?,
        runtime: Arc::new(runtime),
        exits,
        has_networks: true,
    }];
    if enabled {
        let (runtime, exits) = CrunRuntime::open(native, stop.child_token()).await?;
        offered.push(Offered {
            info: node::native(node, &options.native).ok_or_else(|| unnamed("native"))?,
            runtime: Arc::new(runtime),
            exits,
            has_networks: false,
        });
    } else if was_there {
        // It was switched off: what it ran ends.
        let (runtime, _) = CrunRuntime::open(native, stop.child_token()).await?;
        runtime.adopt(&[], stop_policy(options)).await?;
    }
    Ok(offered)
}

/// How an instance is asked to end whose image says nothing else.
fn stop_policy(options: &Options) -> StopPolicy {
    StopPolicy {
        grace: Duration::from_secs(options.stop_grace_secs).min(aos_types::MAX_STOP_GRACE),
        ..StopPolicy::default()
    }
}

fn crun(options: &Options) -> Result<CrunOptions, Error> {
    let program = match &options.keeper_program {
        Some(program) => program.clone(),
        None => keeper_program()?,
    };
    Ok(CrunOptions {
        isolation: Isolation::Full,
        program: options.runtime.executable.clone(),
        root: options.crun_root(),
        runtime_dir: options.runtime_dir.clone(),
        writable_dir: options.state_dir.join("instances"),
        root_limit: options.runtime.root_limit,
        cgroup_parent: options.cgroup_parent.clone(),
        seccomp: options.runtime.seccomp,
        keeper: Starter {
            program,
            socket: options.keeper_socket(),
            state_dir: options.state_dir.join(KEEPER),
        },
        deadline: RUNTIME_DEADLINE,
        max_instances: options.runtime.max_instances,
        log: LogPolicy {
            max_bytes: options.logs.file_bytes,
            files: options.logs.files,
        },
    })
}

/// The small program beside the running one, or the running one itself, which is the same keeper with more memory.
fn keeper_program() -> Result<PathBuf, Error> {
    let own = std::env::current_exe().map_err(|error| Error::Option {
        field: "keeper_program",
        why: format!("is not set and the running program cannot be found: {error}"),
    })?;
    let beside = own.with_file_name("aos-keeper");
    Ok(if beside.is_file() { beside } else { own })
}
