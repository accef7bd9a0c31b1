use std::{sync::Arc, time::Duration};

use aos_cloud_protocol::{Alert, AlertEvent, Body, Caps, MonitoringData};
use aos_log::Wait;
use aos_session::{Handled, Priority};
use aos_store::{Records, Store};
use aos_time::{Chance, SystemChance};
use aos_types::{NodeId, SystemId};
use aos_update::{Config as UpdateConfig, Deadlines, Retry, UpdateState};
use tokio::{
    sync::{Mutex, Notify, mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Error, Options,
    cloud::{Connector, Driver, Endpoints, Incoming, Link, Outbox, Outgoing, Setup, gather_alerts},
    contract::{AlertSink, Iam, Images, NodeEvent, Nodes},
    elsewhere,
    gates::{self, Desk, UnitReadiness, ZoneSource},
    local::{Explainer, Local},
    logs::{self, Heard},
    monitoring,
    node_states::NodeStates,
    placing::{self, Placing, Usages},
    renewal::{self, Renewal},
    states::States,
    status::{EngineStatus, Keeper, Sources},
    unit_config::{ConfigRecords, UnitConfigs},
    updates::{Doer, InForce, Most, NewDesired, Updates},
    world::{Patience, World},
};

/// When the cloud may send what there was no room for again.
const RENEWAL_RETRY: Duration = Duration::from_secs(60);

/// The scripts of CM's database.
pub(crate) const SCHEMA: &[&str] = &[Records::<()>::SCHEMA, crate::cloud::SCHEMA];

/// The cloud link and what belongs to it, before the rest of CM is there.
pub(crate) struct CloudSide {
    pub(crate) link: Link,
    driver: Box<Driver>,
    alerts: mpsc::Receiver<Alert>,
    incoming: mpsc::Receiver<Incoming>,
}

/// Who this Unit is and how it reaches the cloud.
pub(crate) struct Own {
    pub(crate) system_id: SystemId,
    pub(crate) node: NodeId,
    pub(crate) online: aos_pki::CertSource,
    pub(crate) trust: aos_pki::Trust,
}

impl CloudSide {
    pub(crate) async fn open(
        options: &Options,
        store: &Store,
        own: &Own,
    ) -> Result<Self, aos_store::Error> {
        let caps = Caps::default();
        let endpoints = Endpoints {
            configured: options.service_discovery_url.clone(),
            overriding: options.override_service_discovery_url.clone(),
        };
        let (to, incoming) = mpsc::channel(16);
        let (link, alerts, driver) = Driver::restore(Setup {
            system_id: own.system_id.clone(),
            node: own.node.clone(),
            config: options.session(),
            caps,
            outbox: Outbox::new(store.clone()),
            connector: Connector::new(endpoints, own.online.clone(), &own.trust, caps),
            incoming: to,
            patience: options.cloud_response(),
        })
        .await?;
        Ok(Self {
            link,
            driver,
            alerts,
            incoming,
        })
    }
}

/// The other parts, whoever implements them.
pub(crate) struct Parts {
    pub(crate) store: Store,
    pub(crate) cloud: CloudSide,
    pub(crate) nodes: Arc<dyn Nodes>,
    pub(crate) images: Arc<dyn Images>,
    pub(crate) iam: Arc<dyn Iam>,
    pub(crate) events: mpsc::Receiver<NodeEvent>,
    pub(crate) node: NodeId,
    pub(crate) local: Local,
}

/// Runs everything between the cloud link and the Nodes until `stop`, or until the database fails.
pub(crate) async fn run(
    options: &Options,
    parts: Parts,
    stop: CancellationToken,
) -> Result<(), Error> {
    let Parts {
        store,
        cloud,
        nodes,
        images,
        iam,
        events,
        node,
        local,
    } = parts;
    let patience = Patience {
        lost: options.node_lost(),
        pause: Duration::from_secs(options.placing.pause_grace_secs),
    };
    let seen = Records::new(store.clone(), "nodes_seen");
    let world = World::open(iam.clone(), nodes.clone(), seen, patience);
    let world = world.await?;
    let world = Arc::new(world.marking(options.images.legacy_blobs.iter().cloned()));
    let configs = UnitConfigs::open(
        nodes.clone(),
        world.clone(),
        ConfigRecords {
            current: Records::new(store.clone(), "unit_config"),
            given: Records::new(store.clone(), "unit_config_given"),
        },
    );
    let configs = Arc::new(configs.await?);
    let states = States::open(
        Records::new(store.clone(), "state"),
        nodes.clone(),
        cloud.link.clone(),
        node.clone(),
        options.placing.state_wait(),
    );
    let states = Arc::new(states.await?);
    let (in_force, target) = watch::channel(InForce::default());
    let usages = Usages::new(Duration::from_secs(options.placing.usage_window_secs));
    let usages = Arc::new(usages);
    let placing = Placing::open(placing::Setup {
        nodes: nodes.clone(),
        images: images.clone(),
        world: world.clone(),
        configs: configs.clone(),
        states: states.clone(),
        in_force: target.clone(),
        subjects: iam.subjects(),
        usages: usages.clone(),
        alerts: Arc::new(cloud.link.clone()),
        store: store.clone(),
        options: options.placing.clone(),
    });
    let placing = Arc::new(placing.await?);
    let log_requests = Records::new(store.clone(), "log_request");
    let records = Records::new(store, "update");
    let zone = ZoneSource::open(options.gates.time_zone.as_deref())?;
    let engine = Updates::restore(&records, update_config(options, &zone)).await?;
    let (status, engine_status) = watch::channel(Arc::new(EngineStatus::default()));
    in_force.send_replace(InForce {
        target: Arc::new(engine.in_force().clone()),
        hold: engine.state() == UpdateState::Installing,
    });
    let (to_updates, desired) = mpsc::channel(4);
    let full = Arc::new(Notify::new());
    let readiness = Arc::new(UnitReadiness::new(options.gates.readiness.clone()));
    let (to_engine, orders) = mpsc::channel(4);
    let explainer = Explainer {
        world: world.clone(),
        lists: placing.lists(),
        states: states.waiting(),
        plan: placing.plans(),
        engine: engine_status.clone(),
        in_force: target.clone(),
        connected: cloud.link.connected.clone(),
    };
    let desk = Desk {
        orders: to_engine,
        status: engine_status.clone(),
        readiness: readiness.clone(),
        images: images.clone(),
    };
    local.open(explainer, desk);
    let link = cloud.link.clone();
    let updates = Updates {
        engine,
        records,
        doer: Arc::new(Doer {
            images,
            iam: iam.clone(),
            world: world.clone(),
            placing: placing.clone(),
            configs: configs.clone(),
            readiness,
            turn: Mutex::default(),
            nodes_wait: options.placing.nodes_wait(),
        }),
        world: world.clone(),
        placing: placing.clone(),
        configs: configs.clone(),
        states: states.waiting(),
        alerts: Arc::new(link.clone()),
        node: node.clone(),
        most: Most {
            of_entry: options.max_instances,
            in_all: options.max_instances_in_all,
        },
        desired,
        orders,
        zone,
        status,
        in_force,
        full: full.clone(),
        launching: None,
    };
    let node_states = NodeStates::new(iam.clone(), world.clone());
    let keeper = Keeper::new(
        Sources {
            world: world.clone(),
            lists: placing.lists(),
            states: states.waiting(),
            kept: states.clone(),
            engine: engine_status,
            config: configs.changes(),
            subjects: iam.subjects(),
            config_troubles: configs.troubles(),
            state_troubles: node_states.troubles(),
            full,
        },
        link.clone(),
        options.status_delay(),
    );

    // Owned here: each ends with `stop`, and the first that fails stops all.
    let mut tasks: JoinSet<Result<(), Error>> = JoinSet::new();
    let token = || stop.child_token();
    let (driver, token_driver) = (cloud.driver, token());
    tasks.spawn(async move { Ok(driver.run(token_driver).await?) });
    let token_updates = token();
    tasks.spawn(async move { Ok(updates.run(token_updates).await?) });
    tasks.spawn(plain(gather_alerts(
        link.clone(),
        node.clone(),
        cloud.alerts,
        token(),
    )));
    let (watching, token_world) = (world.clone(), token());
    tasks.spawn(async move { Ok(watching.run(token_world).await?) });
    tasks.spawn(plain(keeper.run(token())));
    let (to_logs, heard) = logs::channel();
    let desk = logs::Desk {
        nodes: nodes.clone(),
        world: world.clone(),
        link: link.clone(),
        records: log_requests,
        own: node.clone(),
        wait: Wait::default(),
    };
    let token_logs = token();
    tasks.spawn(async move { Ok(desk.run(heard, token_logs).await?) });
    let (to_renewals, renewals) = mpsc::channel(4);
    tasks.spawn(plain(renewal::run(
        renewals,
        iam.clone(),
        link.clone(),
        node.clone(),
        token(),
    )));
    let dispatching = dispatch(
        cloud.incoming,
        Concerned {
            updates: to_updates,
            logs: to_logs.clone(),
            placing: placing.clone(),
            states: states.clone(),
            renewals: to_renewals,
        },
        link.clone(),
        node,
        token(),
    );
    tasks.spawn(async move { Ok(dispatching.await?) });
    let (told, token_forward) = (states.clone(), token());
    let (to_cloud, (to_monitoring, measured)) = (link.clone(), mpsc::channel(64));
    let usages = Measured {
        usages,
        to_cloud: to_monitoring,
    };
    let to = Heeded {
        measured: usages,
        states: told,
        logs: to_logs,
    };
    tasks.spawn(async move { Ok(forward(events, to, to_cloud, token_forward).await?) });
    tasks.spawn(plain(monitoring::run(
        options.monitoring.clone(),
        measured,
        world.clone(),
        link.clone(),
        token(),
    )));
    tasks.spawn(plain({
        let (states, token) = (states.clone(), token());
        async move { states.remind(token).await }
    }));
    tasks.spawn(plain(elsewhere::run(
        world.clone(),
        nodes.clone(),
        placing.lists(),
        token(),
    )));
    let (around, lists, token_settle) = (world.clone(), placing.lists(), token());
    tasks.spawn(async move { Ok(states.settle(&around, lists, token_settle).await?) });
    tasks.spawn(plain(tell_nodes(nodes, link, token())));
    let (moved, token_states) = (target.clone(), token());
    tasks.spawn(plain(async move {
        node_states.follow(moved, token_states).await
    }));
    let token_configs = token();
    tasks.spawn(async move { Ok(configs.follow(token_configs).await?) });
    let token_follow = token();
    tasks.spawn(async move { Ok(placing.follow(target, token_follow).await?) });

    let mut result = Ok(());
    while let Some(ended) = tasks.join_next().await {
        let failed = match ended {
            Ok(Ok(())) if stop.is_cancelled() => continue,
            Ok(Ok(())) => Error::Ended,
            Ok(Err(error)) => error,
            Err(source) => Error::Task(source),
        };
        if result.is_ok() {
            result = Err(failed);
        }
        stop.cancel();
    }
    result
}

async fn plain(task: impl Future<Output = ()>) -> Result<(), Error> {
    task.await;
    Ok(())
}

fn update_config(options: &Options, zone: &ZoneSource) -> UpdateConfig {
    let default = UpdateConfig::default();
    let mut chance = SystemChance;
    let waits = options.node_lost().max(options.placing.nodes_wait());
    UpdateConfig {
        deadlines: Deadlines {
            waiting_active: Duration::from_secs(options.wait_active_secs),
            // The engine's own limit is only for a shell that hangs: the Nodes have theirs first. They may have to install
            // before two waves of lists.
            launching: options.launch() * 3 + waits + Duration::from_secs(60),
            installing: options.launch() * 2 + waits + Duration::from_secs(60),
            ..default.deadlines
        },
        settle: Duration::from_secs(options.settle_secs),
        gates: gates::policy(&options.gates, zone),
        retry: Retry {
            first: Duration::from_secs(options.update_retry_secs),
            most: Duration::from_secs(options.update_retry_most_secs),
            attempts: options.update_attempts,
        },
        seed: chance.below(u64::MAX),
        ..default
    }
}

/// Whom messages of the cloud concern.
struct Concerned {
    updates: mpsc::Sender<NewDesired>,
    logs: mpsc::Sender<Heard>,
    placing: Arc<Placing>,
    states: Arc<States>,
    renewals: mpsc::Sender<Renewal>,
}

/// Gives each message of the cloud to whom it concerns.
async fn dispatch(
    mut incoming: mpsc::Receiver<Incoming>,
    to: Concerned,
    link: Link,
    node: NodeId,
    stop: CancellationToken,
) -> Result<(), aos_store::Error> {
    loop {
        // Receiving is cancel-safe.
        let message = tokio::select! {
            message = incoming.recv() => message,
            () = stop.cancelled() => None,
        };
        let Some(message) = message else {
            return Ok(());
        };
        match message.body {
            Body::DesiredStatus(status) => {
                let new = NewDesired {
                    status,
                    unreadable: message.unreadable,
                    done: message.done,
                };
                if to.updates.send(new).await.is_err() {
                    return Ok(());
                }
            }
            Body::RequestLog(request) => {
                let id = message.correlation_id.unwrap_or_default();
                let asked = Heard::Asked(id, Box::new(request), message.done);
                if to.logs.send(asked).await.is_err() {
                    return Ok(());
                }
            }
            Body::StateAcceptance(answer) => {
                to.states.judged(answer).await?;
                let _ = message.done.send(Handled::Accept);
            }
            Body::UpdateState(order) => {
                to.states.ordered(order).await?;
                let _ = message.done.send(Handled::Accept);
            }
            Body::OverrideEnvVars(overrides) => {
                // Not stored is not acknowledged: the cloud sends it again.
                let status = to.placing.override_env(overrides).await?;
                let body = Body::OverrideEnvVarsStatus(status);
                let answer = Outgoing::durable(body, Priority::Normal);
                link.send(answer.answering(message.correlation_id)).await;
                let _ = message.done.send(Handled::Accept);
            }
            Body::RenewCertificatesNotification(order) => {
                let renewal = Renewal::Order(order, message.correlation_id);
                let _ = message.done.send(hand_over(&to.renewals, renewal));
            }
            Body::IssuedUnitCertificates(issued) => {
                let renewal = Renewal::Issued(issued, message.correlation_id);
                let _ = message.done.send(hand_over(&to.renewals, renewal));
            }
            other => {
                let kind = other.message_type().as_str();
                tracing::warn!(kind, "a message of a type this CM does not deal with");
                complain(
                    &link,
                    &node,
                    format!("messages of type `{kind}` are not dealt with by this Unit"),
                );
                let _ = message.done.send(Handled::Accept);
            }
        }
    }
}

/// More than a few at once are refused for the time being: the cloud sends them again.
fn hand_over(renewals: &mpsc::Sender<Renewal>, renewal: Renewal) -> Handled {
    match renewals.try_send(renewal) {
        Ok(()) => Handled::Accept,
        Err(_) => Handled::Refuse(RENEWAL_RETRY),
    }
}

fn complain(link: &Link, node: &NodeId, message: String) {
    link.alert(AlertEvent::Core {
        node: node.clone(),
        component: "CM".into(),
        message,
    });
}

/// Whom usage concerns.
struct Measured {
    usages: Arc<Usages>,
    to_cloud: mpsc::Sender<MonitoringData>,
}

/// Who heeds what Nodes tell.
struct Heeded {
    measured: Measured,
    states: Arc<States>,
    logs: mpsc::Sender<Heard>,
}

/// Passes on to the cloud what Nodes tell.
async fn forward(
    mut events: mpsc::Receiver<NodeEvent>,
    to: Heeded,
    link: Link,
    stop: CancellationToken,
) -> Result<(), aos_store::Error> {
    let Heeded {
        measured,
        states,
        logs,
    } = to;
    loop {
        // Receiving is cancel-safe.
        let event = tokio::select! {
            event = events.recv() => event,
            () = stop.cancelled() => return Ok(()),
        };
        match event {
            // Whoever tells has ended: wait for the stop.
            None => {
                stop.cancelled().await;
                return Ok(());
            }
            Some(NodeEvent::State {
                node,
                ident,
                content,
                first,
            }) => states.told(node, ident, content, first).await?,
            Some(NodeEvent::Alert { at, event }) => {
                if let AlertEvent::SystemQuota {
                    node,
                    parameter,
                    value,
                    ..
                } = &event
                {
                    measured.usages.take_alert(node, parameter, *value, at);
                }
                link.alert_of(Alert {
                    timestamp: monitoring::believable(at),
                    event,
                });
            }
            Some(NodeEvent::Monitoring(data)) => {
                measured.usages.take(&data);
                // While the cloud is slow the next measurement says the same.
                let _ = measured.to_cloud.try_send(data);
            }
            Some(NodeEvent::Log {
                correlation_id,
                part,
            }) => {
                // Without a desk CM is stopping.
                let _ = logs.send(Heard::Part(correlation_id, Box::new(part))).await;
            }
            Some(NodeEvent::LogLines(lines)) => {
                let _ = logs.send(Heard::Lines(lines)).await;
            }
            Some(NodeEvent::Exit {
                node,
                ident,
                version,
                how,
                ..
            }) => {
                tracing::info!(%node, %ident, version, how, "an instance ended");
                // It is started again and looks well the next moment: this is what people learn of it.
                link.alert(AlertEvent::UpdateItemInstance {
                    instance: ident,
                    version,
                    message: format!("it {how}"),
                });
            }
        }
    }
}

/// Tells the Nodes whether the cloud is connected.
async fn tell_nodes(nodes: Arc<dyn Nodes>, link: Link, stop: CancellationToken) {
    let mut connected = link.connected.clone();
    loop {
        let now = *connected.borrow_and_update();
        nodes.set_cloud_connected(now);
        // Waiting for a state is cancel-safe.
        tokio::select! {
            changed = connected.changed() => {
                if changed.is_err() {
                    stop.cancelled().await;
                    return;
                }
            }
            () = stop.cancelled() => return,
        }
    }
}
