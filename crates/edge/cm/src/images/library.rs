use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aos_image::{
    BlobStore, blob,
    fetch::{Fetcher, Policy, Throttle},
};
use aos_pki::{ALPN_HTTP, CertKind, CertSource, Expect, Trust, host_client, mutual_server};
use aos_store::Store;
use aos_time::{Clock, SystemClock};
use aos_types::{Digest, ErrorInfo, ItemId, NodeId};
use aos_update::DesiredItem;
use async_trait::async_trait;
use tokio::{
    net::TcpListener,
    sync::{Notify, mpsc},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::{
    Error, ImageOptions, Tries,
    graph::images,
    keep::Keep,
    legacy::Passes,
    mend,
    request::{Run, blocking},
    server::{self, Door},
};
use crate::contract::{AlertSink, BlobReader, BlobSource, ContentKeys, DownloadRequest, Images};

/// What the library is made of.
pub struct Setup {
    /// Folder of the blobs.
    pub dir: PathBuf,
    /// Where SMs fetch blobs.
    pub listen: SocketAddr,
    /// The address of `listen` as SMs of all Nodes reach it, `https://host:port`. Empty: the address listened on.
    pub public_url: String,
    /// How long an unused item is kept.
    pub keep: Duration,
    /// What SMs are shown: the certificate of type `cm`.
    pub source: CertSource,
    /// Whom we believe, Nodes and cloud.
    pub trust: Trust,
    /// What the cloud is shown: the certificate of type `online`.
    pub online: CertSource,
    /// The database, with the schema of [`aos_store::Records`].
    pub store: Store,
    /// The cloud.
    pub cloud: Arc<dyn BlobSource>,
    /// Where progress is told.
    pub alerts: Arc<dyn AlertSink>,
    /// The Unit's keys for content that is encrypted for it.
    pub keys: Arc<dyn ContentKeys>,
    /// How images are fetched and served.
    pub options: ImageOptions,
    /// How long and how often one transfer is tried.
    pub policy: Policy,
    /// How often the cloud is asked.
    pub tries: Tries,
}

/// What all tasks of the library share.
pub(super) struct Shared {
    pub(super) dir: PathBuf,
    pub(super) blobs: BlobStore,
    pub(super) fetcher: Fetcher,
    pub(super) keep: Keep,
    pub(super) trust: Trust,
    pub(super) cloud: Arc<dyn BlobSource>,
    pub(super) alerts: Arc<dyn AlertSink>,
    pub(super) keys: Arc<dyn ContentKeys>,
    pub(super) options: ImageOptions,
    pub(super) tries: Tries,
    pub(super) seen: Seen,
    /// Told when something of an installed item is found missing.
    pub(super) damaged: Notify,
}

/// Longest sleep while something is to expire: the clock may be set meanwhile.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The images of the Unit. Clones share everything.
#[derive(Clone)]
pub struct Library {
    shared: Arc<Shared>,
    listener: Listening,
    tls: aos_pki::ServerTls,
    address: SocketAddr,
    public_url: String,
    legacy: Option<Legacy>,
    keep_for: Duration,
    /// Told when something became removable.
    changed: Arc<Notify>,
    /// One download at a time: a newer one waits until the older has ended.
    downloading: Arc<tokio::sync::Mutex<()>>,
}

/// A listener until it is served.
type Listening = Arc<Mutex<Option<TcpListener>>>;

/// The plain door for Nodes that have no other.
#[derive(Clone)]
struct Legacy {
    listener: Listening,
    passes: Passes,
    url: String,
}

impl Legacy {
    async fn open(options: &ImageOptions) -> Result<Option<Self>, Error> {
        if options.legacy_blobs.is_empty() {
            return Ok(None);
        }
        let listen = options.legacy_listen.ok_or(Error::NoLegacyListen)?;
        let (listener, address) = bind(listen).await?;
        tracing::warn!(
            %address,
            nodes = ?options.legacy_blobs,
            "blobs are served by plain HTTP to some Nodes, as the configuration says"
        );
        let url = match &options.legacy_url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => format!("http://{address}"),
        };
        Ok(Some(Self {
            listener,
            passes: Passes::default(),
            url,
        }))
    }
}

async fn bind(address: SocketAddr) -> Result<(Listening, SocketAddr), Error> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| Error::Listen { address, source })?;
    let address = listener.local_addr().unwrap_or(address);
    Ok((Arc::new(Mutex::new(Some(listener))), address))
}

impl Library {
    /// Opens the store and listens for SMs; nothing is served before [`run`](Self::run).
    pub async fn open(setup: Setup) -> Result<Self, Error> {
        let tls = host_client(&setup.online, &setup.trust, None, ALPN_HTTP);
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured((*tls.config).clone())
            .https_only(true)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::limited(3))
            .connect_timeout(Duration::from_secs(15))
            .build()
            .map_err(Error::Client)?;
        let dir = setup.dir.clone();
        let blobs = blocking(move || BlobStore::open(dir)).await??;
        let (listener, address) = bind(setup.listen).await?;
        let legacy = Legacy::open(&setup.options).await?;
        let throttle = Throttle::new(setup.options.bandwidth_limit);
        let public_url = match setup.public_url.trim_end_matches('/') {
            "" => format!("https://{address}"),
            given => given.to_owned(),
        };
        Ok(Self {
            shared: Arc::new(Shared {
                dir: setup.dir,
                fetcher: Fetcher::new(blobs.clone(), client, setup.policy).with_throttle(throttle),
                blobs,
                keep: Keep::new(setup.store),
                trust: setup.trust.clone(),
                cloud: setup.cloud,
                alerts: setup.alerts,
                keys: setup.keys,
                options: setup.options,
                tries: setup.tries,
                seen: Seen::default(),
                damaged: Notify::new(),
            }),
            listener,
            tls: mutual_server(
                &setup.source,
                &setup.trust,
                Expect::kinds([CertKind::Sm]).same_unit(),
                ALPN_HTTP,
            ),
            address,
            public_url,
            legacy,
            keep_for: setup.keep,
            changed: Arc::default(),
            downloading: Arc::default(),
        })
    }

    /// Where SMs are served.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The blobs themselves.
    pub fn blobs(&self) -> &BlobStore {
        &self.shared.blobs
    }

    /// Where an SM can fetch the blob, if it is here.
    pub fn url(&self, digest: &Digest) -> Option<String> {
        let here = self.shared.blobs.contains(digest).unwrap_or(false);
        here.then(|| format!("{}/blobs/sha256/{}", self.public_url, digest.hex()))
    }

    /// The address for one Node: a plain one, if the configuration says that it has no other way.
    fn url_for(&self, reader: &BlobReader, digest: &Digest, url: String) -> Result<String, Error> {
        let options = &self.shared.options;
        let Some(legacy) = self
            .legacy
            .as_ref()
            .filter(|_| is_legacy(options, &reader.node))
        else {
            return Ok(url);
        };
        let node = &reader.node;
        let address = reader
            .address
            .ok_or_else(|| Error::NoAddress { node: node.clone() })?;
        let life = Duration::from_secs(options.legacy_secs);
        let path = legacy.passes.issue(address, *digest, life);
        Ok(format!("{}{path}", legacy.url))
    }

    /// Serves SMs, looks after what is installed, and removes what was kept long enough, until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        let plain = self.legacy.as_ref().map(|legacy| {
            let door = Door::Plain(legacy.passes.clone());
            self.serve(&legacy.listener, door, &stop)
        });
        let plain = async {
            match plain {
                Some(serving) => serving.await,
                None => stop.cancelled().await,
            }
        };
        tokio::join!(
            self.serve(&self.listener, Door::Mutual(self.tls.clone()), &stop),
            plain,
            self.tidy(&stop),
            mend::keep_whole(&self.shared, &stop),
        );
    }

    async fn serve(&self, listener: &Listening, door: Door, stop: &CancellationToken) {
        let listener = listener
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        match listener {
            Some(listener) => {
                server::serve(listener, door, self.shared.blobs.clone(), stop).await;
            }
            None => stop.cancelled().await,
        }
    }

    /// Removes items whose time has come, and sleeps until the next one's. With nothing to expire it sleeps until something
    /// changes.
    async fn tidy(&self, stop: &CancellationToken) {
        loop {
            let next = match self.remove_expired().await {
                Ok(next) => next.map(|next| next.min(DAY)),
                Err(error) => {
                    tracing::warn!(error = %error.info(), "unused images cannot be removed now");
                    Some(Duration::from_secs(3600))
                }
            };
            // Every arm only waits: nothing is lost when another one wins.
            tokio::select! {
                () = sleep(next.unwrap_or(DAY)), if next.is_some() => {}
                () = self.changed.notified() => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn remove_expired(&self) -> Result<Option<Duration>, Error> {
        // A download has blobs that no record names yet. When it ends it tells.
        let Ok(_quiet) = self.downloading.try_lock() else {
            return Ok(None);
        };
        let next = self
            .shared
            .keep
            .expire(self.keep_for, SystemClock.now())
            .await?;
        let young = self
            .shared
            .keep
            .collect(&self.shared.blobs, &BTreeSet::new(), true)
            .await?;
        Ok(next.into_iter().chain(young).min())
    }
}

fn is_legacy(options: &ImageOptions, node: &NodeId) -> bool {
    options.legacy_blobs.contains(node)
}

#[async_trait]
impl Images for Library {
    async fn download(
        &self,
        request: DownloadRequest,
        progress: mpsc::Sender<(ItemId, Result<(), ErrorInfo>)>,
        cancel: CancellationToken,
    ) -> BTreeMap<ItemId, ErrorInfo> {
        let one = self.downloading.lock().await;
        if let Err(error) = self
            .shared
            .keep
            .supersede(&request.items, SystemClock.now())
            .await
        {
            tracing::warn!(error = %error.info(), "items of an earlier set stay pending");
        }
        let run = Run::new(&self.shared, &request, progress, cancel);
        let failed = run.items(request.items).await;
        drop(one);
        self.changed.notify_one();
        failed
    }

    async fn commit(&self, items: &[DesiredItem]) -> Result<(), ErrorInfo> {
        self.shared
            .keep
            .commit(items, SystemClock.now())
            .await
            .map_err(|error| error.info())?;
        self.changed.notify_one();
        Ok(())
    }

    async fn images_of(&self, item: &DesiredItem) -> Result<Vec<aos_schedule::Image>, ErrorInfo> {
        let (store, item) = (self.shared.blobs.clone(), item.clone());
        blocking(move || images(&store, &item))
            .await
            .and_then(|images| images)
            .map_err(|error| error.info())
    }

    async fn blob_urls(
        &self,
        reader: &BlobReader,
        digests: &[Digest],
    ) -> Result<Vec<String>, ErrorInfo> {
        let (library, digests, reader) = (self.clone(), digests.to_vec(), reader.clone());
        blocking(move || {
            digests
                .iter()
                .map(|digest| match library.url(digest) {
                    Some(url) => library.url_for(&reader, digest, url),
                    None => {
                        // If it belongs to an installed item it is fetched again.
                        library.shared.damaged.notify_one();
                        Err(Error::Absent { digest: *digest })
                    }
                })
                .collect::<Result<Vec<_>, _>>()
        })
        .await
        .and_then(|urls| urls)
        .map_err(|error| error.info())
    }
}

/// Which blobs were read and found intact by this process, so that they are not read again at every update. A file that
/// was touched since is read again.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen(Arc<Mutex<HashMap<Digest, Mark>>>);

type Mark = (u64, u64, i64, i64);

impl Seen {
    /// Whether the blob is here with the right content. A corrupt one is removed. Blocks.
    pub(super) fn is_intact(&self, store: &BlobStore, digest: &Digest) -> Result<bool, Error> {
        let Some(mark) = mark(store, digest) else {
            return Ok(false);
        };
        let known = self.lock().get(digest) == Some(&mark);
        if known {
            return Ok(true);
        }
        match store.verify(digest) {
            Ok(_) => {
                self.lock().insert(*digest, mark);
                Ok(true)
            }
            // The file is gone already: it is fetched again like one that never was here.
            Err(blob::Error::Corrupt { .. }) => {
                tracing::warn!(%digest, "a blob was corrupt on disk; it is fetched again");
                Ok(false)
            }
            Err(blob::Error::Absent { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Notes a blob that was just verified. Blocks.
    pub(super) fn note(&self, store: &BlobStore, digest: &Digest) {
        if let Some(mark) = mark(store, digest) {
            self.lock().insert(*digest, mark);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, Mark>> {
        let mut marks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Digests that are long gone need no memory; those still here are read once more.
        if marks.len() > 10_000 {
            marks.clear();
        }
        marks
    }
}

fn mark(store: &BlobStore, digest: &Digest) -> Option<Mark> {
    let meta = std::fs::metadata(store.path(digest)).ok()?;
    Some((meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec()))
}
