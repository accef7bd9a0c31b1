use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aos_image::{BlobStore, blob, fetch::Fetcher};
use aos_pki::{ALPN_HTTP, CertKind, CertSource, Expect, Trust, host_client, mutual_server};
use aos_store::Store;
use aos_time::{Clock, SystemClock};
use aos_types::{Digest, ErrorInfo, ItemId};
use aos_update::DesiredItem;
use async_trait::async_trait;
use tokio::{
    net::TcpListener,
    sync::{Notify, mpsc},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::{
    Error,
    graph::images,
    keep::Keep,
    request::{Run, blocking},
    server,
};
use crate::contract::{AlertSink, BlobSource, DownloadRequest, Images};

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
    pub(super) seen: Seen,
}

/// The images of the Unit. Clones share everything.
#[derive(Clone)]
pub struct Library {
    shared: Arc<Shared>,
    listener: Arc<Mutex<Option<TcpListener>>>,
    tls: aos_pki::ServerTls,
    address: SocketAddr,
    public_url: String,
    keep_for: Duration,
    /// Told when something became removable.
    changed: Arc<Notify>,
    /// One download at a time: a newer one waits until the older has ended.
    downloading: Arc<tokio::sync::Mutex<()>>,
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
        let listener = TcpListener::bind(setup.listen)
            .await
            .map_err(|source| Error::Listen {
                address: setup.listen,
                source,
            })?;
        let address = listener.local_addr().unwrap_or(setup.listen);
        let public_url = match setup.public_url.trim_end_matches('/') {
            "" => format!("https://{address}"),
            given => given.to_owned(),
        };
        Ok(Self {
            shared: Arc::new(Shared {
                dir: setup.dir,
                fetcher: Fetcher::new(blobs.clone(), client, Default::default()),
                blobs,
                keep: Keep::new(setup.store),
                trust: setup.trust.clone(),
                cloud: setup.cloud,
                alerts: setup.alerts,
                seen: Seen::default(),
            }),
            listener: Arc::new(Mutex::new(Some(listener))),
            tls: mutual_server(
                &setup.source,
                &setup.trust,
                Expect::kinds([CertKind::Sm]).same_unit(),
                ALPN_HTTP,
            ),
            address,
            public_url,
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

    /// Serves SMs and removes what was kept long enough, until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        let listener = self
            .listener
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let serving = async {
            match listener {
                Some(listener) => {
                    server::serve(listener, self.tls.clone(), self.shared.blobs.clone(), &stop)
                        .await;
                }
                None => stop.cancelled().await,
            }
        };
        tokio::join!(serving, self.tidy(&stop));
    }

    /// Removes items whose time has come, and sleeps until the next one's.
    async fn tidy(&self, stop: &CancellationToken) {
        loop {
            let next = match self.remove_expired().await {
                Ok(next) => next.unwrap_or(Duration::MAX),
                Err(error) => {
                    tracing::warn!(error = %error.info(), "unused images cannot be removed now");
                    Duration::from_secs(3600)
                }
            };
            // Every arm only waits: nothing is lost when another one wins.
            tokio::select! {
                () = sleep(next.min(Duration::from_secs(24 * 3600))) => {}
                () = self.changed.notified() => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn remove_expired(&self) -> Result<Option<Duration>, Error> {
        let next = self
            .shared
            .keep
            .expire(self.keep_for, SystemClock.now())
            .await?;
        self.shared
            .keep
            .collect(&self.shared.blobs, &BTreeSet::new(), true)
            .await?;
        Ok(next)
    }
}

#[async_trait]
impl Images for Library {
    async fn download(
        &self,
        request: DownloadRequest,
        progress: mpsc::Sender<(ItemId, Result<(), ErrorInfo>)>,
        cancel: CancellationToken,
    ) -> BTreeMap<ItemId, ErrorInfo> {
        let _one = self.downloading.lock().await;
        let run = Run::new(&self.shared, &request, progress, cancel);
        run.items(request.items).await
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

    async fn blob_urls(&self, digests: &[Digest]) -> Result<Vec<String>, ErrorInfo> {
        let (library, digests) = (self.clone(), digests.to_vec());
        blocking(move || {
            digests
                .iter()
                .map(|digest| library.url(digest).ok_or(Error::Absent { digest: *digest }))
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
