//! The library against a cloud and Nodes over real TLS.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use aos_cloud_protocol::{AlertEvent, BlobUrl, DownloadState, FileHash, SignInfo};
use aos_image::{
    BlobStore, ImageConfig, Platform,
    build::{self, Image},
    fetch::{Fetcher, Policy, Source},
};
use aos_pki::{
    ALPN_HTTP, Authority, CertKind, CertProfile, CertSource, Expect, KeyAlgorithm, Signer, Trust,
    certified_key, mutual_server, unit_client,
};
use aos_store::{Records, Store};
use aos_time::{Clock, SystemClock};
use aos_types::{
    AosCode, ArchInfo, Digest, ErrorInfo, ItemConfig, ItemId, ItemType, NodeId, OsInfo, OwnerId,
    RuntimeId, RuntimeInfo, SystemId,
};
use aos_update::{Certificate, CertificateChain, DesiredItem};
use async_trait::async_trait;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{Library, Setup, server};
use crate::contract::{AlertSink, BlobSource, DownloadRequest, Images};

/// A root, and certificates under it.
struct Pki {
    authority: Authority,
    signer: Signer,
    fingerprint: String,
    der: Vec<u8>,
}

impl Pki {
    fn new() -> Self {
        let authority = Authority::in_memory("test", SystemClock.now()).unwrap();
        let pair = authority
            .issue_pair(
                KeyAlgorithm::EcP256,
                &CertProfile::blob_signer(),
                SystemClock.now(),
            )
            .unwrap();
        let certificate = pair.issued.certificate.clone();
        Self {
            fingerprint: pair.issued.fingerprint.to_string(),
            der: certificate.to_vec(),
            signer: Signer::new(&pair.key, vec![certificate]).unwrap(),
            authority,
        }
    }

    fn source(&self, profile: &CertProfile) -> CertSource {
        let pair = self
            .authority
            .issue_pair(KeyAlgorithm::EcP256, profile, SystemClock.now())
            .unwrap();
        CertSource::with(certified_key(vec![pair.issued.certificate], &pair.key).unwrap())
    }

    fn unit(&self, kind: CertKind, unit: &str) -> CertSource {
        let node = NodeId::new("main").unwrap();
        let system = SystemId::new(unit).unwrap();
        self.source(&CertProfile::unit(kind, &system, Some(&node)))
    }

    fn trust(&self) -> Trust {
        Trust::new(self.authority.roots())
    }
}

/// The cloud: answers questions about blobs, and serves them to holders of an `online` certificate.
struct Cloud {
    blobs: BlobStore,
    address: SocketAddr,
    questions: AtomicUsize,
    asked: Mutex<BTreeSet<Digest>>,
    /// What the answer says instead of the truth.
    change: Mutex<Option<fn(&mut BlobUrl)>>,
    connected: watch::Sender<bool>,
    pki: Arc<Pki>,
}

#[async_trait]
impl BlobSource for Cloud {
    async fn blob_urls(&self, digests: Vec<Digest>) -> Result<Vec<BlobUrl>, ErrorInfo> {
        self.questions.fetch_add(1, Ordering::SeqCst);
        self.asked.lock().unwrap().extend(&digests);
        if !*self.connected.borrow() {
            return Err(ErrorInfo::new(AosCode::Failed, "offline"));
        }
        let found = digests.iter().filter_map(|digest| {
            let size = self.blobs.size(digest).ok()??;
            let signature = self.pki.signer.sign_blob(digest.as_bytes()).unwrap();
            let mut url = BlobUrl {
                digest: *digest,
                urls: vec![format!(
                    "https://{}/blobs/sha256/{}",
                    self.address,
                    digest.hex()
                )],
                sha256: FileHash(*digest.as_bytes()),
                size,
                decrypt_info: None,
                sign_info: Some(SignInfo {
                    chain_name: "cloud".into(),
                    alg: self.pki.signer.algorithm().to_string(),
                    value: signature,
                    trusted_timestamp: Some(SystemClock.now()),
                    ocsp_values: Vec::new(),
                }),
            };
            if let Some(change) = *self.change.lock().unwrap() {
                change(&mut url);
            }
            Some(url)
        });
        Ok(found.collect())
    }

    fn connected(&self) -> watch::Receiver<bool> {
        self.connected.subscribe()
    }
}

#[derive(Default)]
struct Alerts(Mutex<Vec<DownloadState>>);

impl AlertSink for Alerts {
    fn alert(&self, event: AlertEvent) {
        if let AlertEvent::DownloadProgress { state, .. } = event {
            self.0.lock().unwrap().push(state);
        }
    }
}

struct Bench {
    dir: tempfile::TempDir,
    pki: Arc<Pki>,
    cloud: Arc<Cloud>,
    alerts: Arc<Alerts>,
    library: Library,
    stop: CancellationToken,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Bench {
    async fn new() -> Self {
        Self::keeping(Duration::from_secs(3600)).await
    }

    async fn keeping(keep: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pki = Arc::new(Pki::new());
        let stop = CancellationToken::new();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let blobs = BlobStore::open(dir.path().join("cloud")).unwrap();
        let cloud = Arc::new(Cloud {
            blobs: blobs.clone(),
            address: listener.local_addr().unwrap(),
            questions: AtomicUsize::new(0),
            asked: Mutex::default(),
            change: Mutex::default(),
            connected: watch::Sender::new(true),
            pki: pki.clone(),
        });
        let tls = mutual_server(
            &pki.source(&CertProfile::server(vec!["127.0.0.1".into()])),
            &pki.trust(),
            Expect::kinds([CertKind::Online]),
            ALPN_HTTP,
        );
        let serving = stop.clone();
        tokio::spawn(async move { server::serve(listener, tls, blobs, &serving).await });
        let alerts = Arc::new(Alerts::default());
        let library = open(dir.path(), &pki, &cloud, &alerts, keep).await;
        let (running, ended) = (library.clone(), stop.clone());
        tokio::spawn(async move { running.run(ended).await });
        Self {
            dir,
            pki,
            cloud,
            alerts,
            library,
            stop,
        }
    }

    /// Publishes an item for some architectures; `files` is what its layer holds.
    fn publish(&self, name: &str, architectures: &[&str], content: &[u8]) -> DesiredItem {
        let folder = tempfile::tempdir().unwrap();
        let images: Vec<_> = architectures
            .iter()
            .map(|architecture| {
                let own = folder.path().join(architecture);
                fs::create_dir(&own).unwrap();
                fs::write(
                    own.join("data"),
                    [content, architecture.as_bytes()].concat(),
                )
                .unwrap();
                Image {
                    config: ImageConfig {
                        platform: Platform {
                            architecture: (*architecture).into(),
                            os: "linux".into(),
                            ..Platform::default()
                        },
                        cmd: vec!["/run".into()],
                        ..ImageConfig::default()
                    },
                    item_config: Some(ItemConfig {
                        hostname: Some(name.into()),
                        ..ItemConfig::default()
                    }),
                    layers: vec![build::layer(&self.cloud.blobs, &own).unwrap()],
                }
            })
            .collect();
        let built = build::item(&self.cloud.blobs, &images).unwrap();
        DesiredItem {
            id: ItemId::new(name).unwrap(),
            item_type: ItemType::Service,
            version: "1.0.0".into(),
            index_digest: built.index.digest,
            owner: OwnerId::new("owner").unwrap(),
            independent: false,
        }
    }

    fn request(&self, items: &[&DesiredItem]) -> DownloadRequest {
        DownloadRequest {
            items: items.iter().map(|item| (*item).clone()).collect(),
            certificates: vec![Certificate {
                der: self.pki.der.clone(),
                fingerprint: self.pki.fingerprint.clone(),
            }],
            certificate_chains: vec![CertificateChain {
                name: "cloud".into(),
                fingerprints: vec![self.pki.fingerprint.clone()],
            }],
            runtimes: vec![runtime("crun", "amd64")],
        }
    }

    async fn download(&self, request: DownloadRequest) -> BTreeMap<ItemId, ErrorInfo> {
        let count = request.items.len();
        let (progress, mut told) = mpsc::channel(16);
        let failed = self
            .library
            .download(request, progress, CancellationToken::new())
            .await;
        let mut ended = BTreeMap::new();
        while let Some((item, outcome)) = told.recv().await {
            assert!(ended.insert(item, outcome).is_none(), "an item ends once");
        }
        assert_eq!(ended.len(), count);
        let errors: BTreeMap<_, _> = ended
            .into_iter()
            .filter_map(|(item, outcome)| Some((item, outcome.err()?)))
            .collect();
        assert_eq!(errors, failed);
        failed
    }

    fn here(&self) -> usize {
        self.library.blobs().list().unwrap().len()
    }
}

async fn open(
    dir: &Path,
    pki: &Pki,
    cloud: &Arc<Cloud>,
    alerts: &Arc<Alerts>,
    keep: Duration,
) -> Library {
    Library::open(Setup {
        dir: dir.join("unit"),
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        public_url: String::new(),
        keep,
        source: pki.unit(CertKind::Cm, "unit-1"),
        trust: pki.trust(),
        online: pki.unit(CertKind::Online, "unit-1"),
        store: Store::open(dir.join("cm.db"), &[Records::<()>::SCHEMA]).unwrap(),
        cloud: cloud.clone(),
        alerts: alerts.clone(),
    })
    .await
    .unwrap()
}

fn runtime(kind: &str, architecture: &str) -> RuntimeInfo {
    RuntimeInfo {
        id: RuntimeId::new(format!("{kind}-{architecture}")).unwrap(),
        runtime_type: kind.into(),
        arch: ArchInfo {
            architecture: architecture.into(),
            variant: None,
        },
        os: OsInfo {
            os: "linux".into(),
            ..OsInfo::default()
        },
        max_dmips: None,
        allowed_dmips: None,
        total_ram: None,
        allowed_ram: None,
        max_instances: 0,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_item_arrives_with_what_this_unit_can_run() {
    let bench = Bench::new().await;
    let (web, db) = (
        bench.publish("web", &["arm64", "amd64"], b"web"),
        bench.publish("db", &["amd64"], b"db"),
    );
    assert!(bench.download(bench.request(&[&web, &db])).await.is_empty());
    // Each item: index, manifest, image config, item config, layer. Nothing for arm64.
    assert_eq!(bench.here(), 10);
    // Indexes, manifests, configs, layers: one question each for both items.
    assert_eq!(bench.cloud.questions.load(Ordering::SeqCst), 4);
    let images = bench.library.images_of(&web).await.unwrap();
    assert_eq!(images.len(), 1);
    assert_eq!(images[0].architecture, "amd64");
    assert_eq!(images[0].config.hostname.as_deref(), Some("web"));
    let alerts = bench.alerts.0.lock().unwrap().clone();
    let finished = alerts.iter().filter(|s| **s == DownloadState::Finished);
    assert_eq!(finished.count(), 10);

    // The second time nothing is asked, also not by a new process.
    assert!(bench.download(bench.request(&[&web, &db])).await.is_empty());
    let again = open(
        bench.dir.path(),
        &bench.pki,
        &bench.cloud,
        &bench.alerts,
        Duration::ZERO,
    )
    .await;
    let (progress, _told) = mpsc::channel(16);
    let failed = again
        .download(bench.request(&[&web]), progress, CancellationToken::new())
        .await;
    assert!(failed.is_empty());
    assert_eq!(bench.cloud.questions.load(Ordering::SeqCst), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bit_rot_is_mended() {
    let bench = Bench::new().await;
    let web = bench.publish("web", &["amd64"], b"web");
    assert!(bench.download(bench.request(&[&web])).await.is_empty());
    for blob in bench.library.blobs().list().unwrap() {
        let path = bench.library.blobs().path(&blob.digest);
        fs::remove_file(&path).unwrap();
        fs::write(&path, vec![0; blob.size as usize]).unwrap();
        // A corrupt document is an error of its own; take one of the others.
        let images = bench.library.images_of(&web).await;
        if images.is_ok() {
            break;
        }
        fs::copy(bench.cloud.blobs.path(&blob.digest), &path).unwrap();
    }
    assert!(bench.download(bench.request(&[&web])).await.is_empty());
    for blob in bench.library.blobs().list().unwrap() {
        bench.library.blobs().verify(&blob.digest).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_item_does_not_hold_up_another() {
    let bench = Bench::new().await;
    let good = bench.publish("good", &["amd64"], b"good");
    let foreign = bench.publish("foreign", &["riscv64"], b"foreign");
    let mut unknown = good.clone();
    unknown.id = ItemId::new("unknown").unwrap();
    unknown.index_digest = Digest::from_bytes([7; 32]);
    let failed = bench
        .download(bench.request(&[&unknown, &good, &foreign]))
        .await;
    assert_eq!(failed.len(), 2);
    let message = |name: &str| failed[&ItemId::new(name).unwrap()].message.clone();
    assert!(message("unknown").contains("the cloud does not deliver"));
    assert!(
        message("foreign").contains("needs architecture `riscv64`"),
        "{}",
        message("foreign")
    );
    bench.library.images_of(&good).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_signed_by_the_cloud_is_refused() {
    type Change = fn(&mut BlobUrl);
    let cases: [(Change, &str); 5] = [
        (|url| url.sign_info = None, "without a signature"),
        (
            |url| url.sign_info.as_mut().unwrap().value[9] ^= 1,
            "the signature of the blob is refused",
        ),
        (
            |url| url.sign_info.as_mut().unwrap().chain_name = "other".into(),
            "names the certificate chain `other`",
        ),
        (
            |url| url.sign_info.as_mut().unwrap().alg = "XOR/SHA256".into(),
            "is not a known signature algorithm",
        ),
        (
            |url| {
                url.decrypt_info = Some(aos_cloud_protocol::DecryptInfo {
                    block_alg: "AES256/CBC/pkcs7".into(),
                    block_iv: vec![],
                    block_key: vec![],
                });
            },
            "encrypted",
        ),
    ];
    let bench = Bench::new().await;
    let web = bench.publish("web", &["amd64"], b"web");
    for (change, expected) in cases {
        *bench.cloud.change.lock().unwrap() = Some(change);
        let failed = bench.download(bench.request(&[&web])).await;
        let error = failed.values().next().unwrap();
        assert!(error.message.contains(expected), "{expected}: {error}");
        assert_eq!(bench.here(), 0);
    }
    // A certificate that was delivered under a false name does not count.
    *bench.cloud.change.lock().unwrap() = None;
    let mut request = bench.request(&[&web]);
    request.certificates[0].der = b"other".to_vec();
    let failed = bench.download(request).await;
    assert_eq!(failed.len(), 1);
    assert!(bench.download(bench.request(&[&web])).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_cloud_is_away_it_waits_and_can_be_ended() {
    let bench = Bench::new().await;
    bench.cloud.connected.send_replace(false);
    let web = bench.publish("web", &["amd64"], b"web");
    let (progress, _told) = mpsc::channel(16);
    let cancel = CancellationToken::new();
    let (library, request, end) = (
        bench.library.clone(),
        bench.request(&[&web]),
        cancel.clone(),
    );
    let waiting = tokio::spawn(async move { library.download(request, progress, end).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!waiting.is_finished());
    cancel.cancel();
    let failed = waiting.await.unwrap();
    assert_eq!(failed.len(), 1);

    let later = bench.cloud.connected.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        later.send_replace(true);
    });
    assert!(bench.download(bench.request(&[&web])).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_committed_any_more_goes() {
    let bench = Bench::keeping(Duration::ZERO).await;
    let old = bench.publish("web", &["amd64"], b"old");
    let new = bench.publish("web", &["amd64"], b"new");
    for item in [&old, &new] {
        assert!(bench.download(bench.request(&[item])).await.is_empty());
        bench
            .library
            .commit(std::slice::from_ref(item))
            .await
            .unwrap();
    }
    // Blobs are young: make them old, as they would be.
    let past = std::time::SystemTime::now() - Duration::from_secs(7200);
    for blob in bench.library.blobs().list().unwrap() {
        let file = fs::File::open(bench.library.blobs().path(&blob.digest)).unwrap();
        file.set_modified(past).unwrap();
    }
    bench
        .library
        .commit(std::slice::from_ref(&new))
        .await
        .unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    // Index, manifest, image config and layer of the old one; the item config is the same.
    while bench.here() != 5 {
        assert!(
            tokio::time::Instant::now() < deadline,
            "{} left",
            bench.here()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(bench.library.images_of(&old).await.is_err());
    bench.library.images_of(&new).await.unwrap();
}

fn node_client(bench: &Bench, source: &CertSource) -> reqwest::Client {
    let tls = unit_client(
        source,
        &bench.pki.trust(),
        Expect::kinds([CertKind::Cm]).same_unit(),
    );
    let mut config = (*tls.config).clone();
    config.alpn_protocols = ALPN_HTTP
        .iter()
        .map(|one| one.as_bytes().to_vec())
        .collect();
    reqwest::Client::builder()
        .tls_backend_preconfigured(config)
        .build()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_of_this_unit_fetch_blobs_and_nobody_else() {
    let bench = Bench::new().await;
    let web = bench.publish("web", &["amd64"], &vec![3; 300_000]);
    assert!(bench.download(bench.request(&[&web])).await.is_empty());
    let urls = bench.library.blob_urls(&[web.index_digest]).await.unwrap();
    let url = &urls[0];
    assert!(
        bench
            .library
            .blob_urls(&[web.index_digest, Digest::from_bytes([1; 32])])
            .await
            .unwrap_err()
            .message
            .contains("0101"),
    );
    let client = node_client(&bench, &bench.pki.unit(CertKind::Sm, "unit-1"));
    let whole = client.get(url).send().await.unwrap();
    assert_eq!(whole.status(), 200);
    let whole = whole.bytes().await.unwrap();
    let part = client
        .get(url)
        .header("range", "bytes=5-9")
        .send()
        .await
        .unwrap();
    assert_eq!(part.status(), 206);
    assert_eq!(part.bytes().await.unwrap(), whole[5..10]);
    for (method, path, status) in [
        (
            http::Method::GET,
            "/blobs/sha256/../../cm.db".to_owned(),
            404,
        ),
        (http::Method::GET, "/blobs/sha256/zz".to_owned(), 404),
        (
            http::Method::GET,
            format!("/blobs/sha256/{}", "0".repeat(64)),
            404,
        ),
        (
            http::Method::POST,
            format!("/blobs/sha256/{}", web.index_digest.hex()),
            405,
        ),
        (
            http::Method::HEAD,
            format!("/blobs/sha256/{}", web.index_digest.hex()),
            200,
        ),
    ] {
        let url = format!("https://{}{path}", bench.library.address());
        let answer = client.request(method, &url).send().await.unwrap();
        assert_eq!(answer.status(), status, "{url}");
    }

    // A Node fetches every blob with the same code as CM.
    let dir = tempfile::tempdir().unwrap();
    let fetcher = Fetcher::new(
        BlobStore::open(dir.path()).unwrap(),
        client,
        Policy::default(),
    );
    let stop = CancellationToken::new();
    for blob in bench.library.blobs().list().unwrap() {
        let source = Source {
            urls: bench.library.blob_urls(&[blob.digest]).await.unwrap(),
            size: blob.size,
            checksum: None,
            encrypted: false,
            signature: None,
        };
        fetcher
            .fetch(&blob.digest, &source, &|_| {}, &stop)
            .await
            .unwrap();
    }

    let stranger = Pki::new();
    for wrong in [
        bench.pki.unit(CertKind::Sm, "unit-2"),
        bench.pki.unit(CertKind::Iam, "unit-1"),
        bench.pki.unit(CertKind::Online, "unit-1"),
        stranger.unit(CertKind::Sm, "unit-1"),
        CertSource::new(),
    ] {
        let answer = node_client(&bench, &wrong).get(url).send().await;
        assert!(answer.is_err());
    }
}
