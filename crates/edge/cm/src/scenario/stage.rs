use std::sync::Arc;

use aos_cloud_protocol::{
    DesiredInstances, DesiredItem, DesiredNode, DesiredNodeState, DesiredStatus, UnitStatus,
};
use aos_pki::{
    ALPN_GRPC, Authority, CertKind, CertProfile, CertSource, Expect, KeyAlgorithm, Trust,
    certificates_from_pem, certified_key, mutual_server, unit_client,
};
use aos_store::Store;
use aos_time::{Clock, SystemClock};
use aos_types::{
    Digest, InstanceState, ItemId, ItemState, ItemType, NodeConfig, NodeId, OwnerId, SubjectId,
    SystemId, UnitConfig,
};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use super::{
    cloud::Cloud,
    fakes::{FakeIam, FakeImages, FakeNodes},
};
use crate::{
    Error, Options,
    app::{self, CloudSide, Own, Parts, SCHEMA},
    contract::NodeEvent,
    local::{CALLERS, Local},
};

/// CM with its database on a disk that outlives it, and everything around it.
pub(super) struct Stage {
    pub(super) cloud: Cloud,
    pub(super) nodes: Arc<FakeNodes>,
    pub(super) images: Arc<FakeImages>,
    pub(super) iam: Arc<FakeIam>,
    pub(super) options: Options,
    authority: Authority,
    online: CertSource,
    trust: Trust,
    pub(super) local: Local,
    folder: tempfile::TempDir,
    running: Option<(JoinHandle<Result<(), Error>>, CancellationToken)>,
    events: Vec<mpsc::Sender<NodeEvent>>,
}

fn source(authority: &Authority, profile: CertProfile) -> CertSource {
    let pair = authority
        .issue_pair(KeyAlgorithm::EcP256, &profile, SystemClock.now())
        .unwrap();
    CertSource::with(
        certified_key(
            certificates_from_pem(pair.issued.chain_pem.as_bytes()).unwrap(),
            &pair.key,
        )
        .unwrap(),
    )
}

impl Stage {
    pub(super) async fn new(names: &[&str]) -> Self {
        aos_pki::install_provider();
        let authority = Authority::in_memory("test", SystemClock.now()).unwrap();
        let trust = Trust::new(authority.roots());
        let unit = SystemId::new("unit").unwrap();
        let main = NodeId::new("main").unwrap();
        let online = source(
            &authority,
            CertProfile::unit(CertKind::Online, &unit, Some(&main)),
        );
        let server = source(&authority, CertProfile::server(vec!["localhost".into()]));
        let cloud = Cloud::start(server, trust.clone()).await;
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "state_dir = {:?}\nca_cert = \"/none\"\nstatus_delay_secs = 0\n\
             override_service_discovery_url = \"https://localhost:{}/sd/v7/\"\n\
             node_lost_secs = 30\nwait_active_secs = 10\nsettle_secs = 0",
            folder.path(),
            cloud.discovery.port()
        );
        Self {
            cloud,
            nodes: Arc::new(FakeNodes::new(names)),
            images: Arc::default(),
            iam: Arc::new(FakeIam::new(names)),
            options: toml::from_str(&text).unwrap(),
            authority,
            online,
            trust,
            local: Local::new(main),
            folder,
            running: None,
            events: Vec::new(),
        }
    }

    pub(super) async fn start(&mut self) {
        let store = Store::open(self.folder.path().join("cm.db"), SCHEMA).unwrap();
        let node = NodeId::new("main").unwrap();
        self.local = Local::new(node.clone());
        let own = Own {
            system_id: SystemId::new("unit").unwrap(),
            node: node.clone(),
            online: self.online.clone(),
            trust: self.trust.clone(),
        };
        let cloud = CloudSide::open(&self.options, &store, &own).await.unwrap();
        let (tell, events) = mpsc::channel(16);
        self.events.push(tell);
        let parts = Parts {
            store,
            cloud,
            nodes: self.nodes.clone(),
            images: self.images.clone(),
            iam: self.iam.clone(),
            events,
            local: self.local.clone(),
            node,
        };
        let stop = CancellationToken::new();
        let (options, token) = (self.options.clone(), stop.clone());
        let task = tokio::spawn(async move { app::run(&options, parts, token).await });
        self.running = Some((task, stop));
    }

    /// Connects a program of the main Node, with a certificate of this type, to the services for tools.
    pub(super) async fn tools(&self, kind: CertKind) -> Channel {
        let listener = aos_ipc::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let of = |kind| {
            let (unit, main) = (SystemId::new("unit").unwrap(), NodeId::new("main").unwrap());
            source(&self.authority, CertProfile::unit(kind, &unit, Some(&main)))
        };
        let expect = Expect::kinds([CertKind::Sm].into_iter().chain(CALLERS)).same_unit();
        let tls = mutual_server(&of(CertKind::Cm), &self.trust, expect, ALPN_GRPC);
        let routes = self.local.routes();
        let stop = self.running.as_ref().unwrap().1.clone();
        tokio::spawn(aos_ipc::serve(listener, tls, routes, stop));
        let expect = Expect::kinds([CertKind::Cm]).same_unit();
        let tls = unit_client(&of(kind), &self.trust, expect);
        aos_ipc::connect(&address, &tls).await.unwrap()
    }

    /// A Node tells something.
    pub(super) async fn node_tells(&self, event: NodeEvent) {
        self.events.last().unwrap().send(event).await.unwrap();
    }

    /// Ends it gently.
    pub(super) async fn stop(&mut self) {
        let (task, stop) = self.running.take().unwrap();
        stop.cancel();
        task.await.unwrap().unwrap();
    }

    /// Ends it in the middle of whatever it does.
    pub(super) async fn kill(&mut self) {
        let (task, _) = self.running.take().unwrap();
        task.abort();
        let _ = task.await;
    }

    /// Desires and waits until all of it is installed and active. Gives the full status at the end.
    pub(super) async fn settle(&mut self, wish: DesiredStatus) -> UnitStatus {
        let items = wish.items.clone().unwrap();
        let counts = wish.instances.clone().unwrap();
        self.cloud.desire(wish).await;
        self.cloud
            .whole(|status| {
                !status.is_delta
                    && items.iter().all(|item| {
                        item_state(status, item.item.as_str(), &item.version)
                            == Some(ItemState::Installed)
                    })
                    && counts.iter().all(|entry| {
                        let states = states(status, entry.item.as_str());
                        states.len() as u64 == entry.num_instances
                            && states.iter().all(|state| *state == InstanceState::Active)
                    })
            })
            .await
    }
}

/// The items with as many instances each, for one subject.
pub(super) fn desired(services: &[(&str, &str, u64)]) -> DesiredStatus {
    let item = |name: &str, version: &str| {
        let mut bytes = [0; 32];
        for (place, byte) in bytes.iter_mut().zip(format!("{name}{version}").bytes()) {
            *place = byte;
        }
        DesiredItem {
            item: ItemId::new(name).unwrap(),
            item_type: ItemType::Service,
            version: version.into(),
            owner: OwnerId::new("owner").unwrap(),
            index_digest: Digest::from_bytes(bytes),
            independent: false,
        }
    };
    DesiredStatus {
        items: Some(
            services
                .iter()
                .map(|(name, version, _)| item(name, version))
                .collect(),
        ),
        instances: Some(
            services
                .iter()
                .map(|(name, _, count)| DesiredInstances {
                    item: ItemId::new(name).unwrap(),
                    subject: SubjectId::new("s").unwrap(),
                    priority: 0,
                    num_instances: *count,
                    labels: vec![],
                })
                .collect(),
        ),
        ..DesiredStatus::default()
    }
}

pub(super) fn paused(node: &str) -> DesiredNode {
    DesiredNode {
        node: NodeId::new(node).unwrap(),
        state: DesiredNodeState::Paused,
    }
}

pub(super) fn provisioned(node: &str) -> DesiredNode {
    DesiredNode {
        node: NodeId::new(node).unwrap(),
        state: DesiredNodeState::Provisioned,
    }
}

/// A configuration that gives each Node its own name as a label.
pub(super) fn config(version: &str, preferred: &str) -> UnitConfig {
    let node = |name: &str| NodeConfig {
        version: None,
        node: Some(NodeId::new(name).unwrap()),
        node_type: format!("{name}-type"),
        alert_rules: None,
        resource_ratios: None,
        labels: vec![name.into()],
        priority: i64::from(name == preferred),
    };
    UnitConfig {
        format_version: "7".into(),
        version: version.into(),
        nodes: vec![node("main"), node("second")],
    }
}

pub(super) fn item_state(status: &UnitStatus, item: &str, version: &str) -> Option<ItemState> {
    let items = status.items.iter().flatten();
    items
        .filter(|one| one.item.item.as_str() == item && one.version == version)
        .map(|one| one.state)
        .next()
}

/// The states of all instances of an item, of any version.
pub(super) fn states(status: &UnitStatus, item: &str) -> Vec<InstanceState> {
    let groups = status.instances.iter().flatten();
    groups
        .filter(|group| group.item.item.as_str() == item)
        .flat_map(|group| group.instances.iter().map(|one| one.state))
        .collect()
}
