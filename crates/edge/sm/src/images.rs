use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aos_image::{
    BlobStore, ItemImage, Manifest,
    fetch::{Fetcher, Policy, Source},
    graph::{self, Caps, Descriptor, Layer, media_type},
    unpack::{LayerStore, Limits},
};
use aos_ipc::proto::servicemanager::v5::{BlobsInfosRequest, sm_service_client::SmServiceClient};
use aos_pki::{ALPN_HTTP, CertKind, CertSource, Expect, Trust, unit_client};
use aos_time::{Clock, SystemClock};
use aos_types::{AosCode, Digest, ErrorInfo};
use futures::StreamExt;
use tokio::task;
use tokio_util::sync::CancellationToken;

use crate::{
    Error,
    alerts::Alerts,
    cm_handle::{CmHandle, call_failed},
    image_room::Wanted,
    layers_in_use::{Disk, Layers},
    records::{IMAGE_GRACE, ImageUse, Kept},
};

/// How long CM may take to say where blobs are.
const ASK: Duration = Duration::from_secs(30);
/// How long a small document may take.
const SMALL: Duration = Duration::from_secs(60);
/// Layers of one image fetched at the same time.
const PARALLEL: usize = 3;

/// The images of this Node: fetched from CM, verified by digest, unpacked.
pub(crate) struct Images {
    pub(crate) blobs: BlobStore,
    pub(crate) layers: LayerStore,
    fetcher: Fetcher,
    client: reqwest::Client,
    cm: CmHandle,
    pub(crate) kept: Kept,
    pub(crate) caps: Caps,
    /// One turn an image: two instances of an item do not fetch it twice.
    turns: Mutex<BTreeMap<Digest, Arc<tokio::sync::Mutex<()>>>>,
    /// Nothing is removed while something is installed.
    pub(crate) installing: tokio::sync::RwLock<()>,
    /// What must stay when room is needed.
    pub(crate) wanted: Wanted,
    /// Who runs from which layers, and which of them are whole.
    pub(crate) in_use: Arc<Layers>,
    alerts: Arc<Alerts>,
}

/// An image that is ready to run.
#[derive(Debug, Clone)]
pub(crate) struct Installed {
    pub(crate) image: Arc<ItemImage>,
    /// From the lowest to the highest.
    pub(crate) layers: Vec<PathBuf>,
}

impl Images {
    pub(crate) async fn open(
        folder: &Path,
        source: &CertSource,
        trust: &Trust,
        cm: CmHandle,
        kept: Kept,
        alerts: Arc<Alerts>,
    ) -> Result<Self, Error> {
        let failed = |why: String| Error::Images {
            folder: folder.to_path_buf(),
            why,
        };
        let path = folder.to_path_buf();
        let (blobs, layers) = task::spawn_blocking(move || {
            let blobs = BlobStore::open(&path).map_err(|error| text(&error))?;
            let layers =
                LayerStore::open(&path, Limits::default()).map_err(|error| text(&error))?;
            Ok::<_, String>((blobs, layers))
        })
        .await
        .map_err(Error::Task)?
        .map_err(failed)?;
        let tls = unit_client(source, trust, Expect::kinds([CertKind::Cm]).same_unit());
        let mut config = (*tls.config).clone();
        config.alpn_protocols = ALPN_HTTP
            .iter()
            .map(|one| one.as_bytes().to_vec())
            .collect();
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(config)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(10))
            .pool_idle_timeout(Duration::from_secs(30))
            .build()
            .map_err(|error| failed(text(&error)))?;
        Ok(Self {
            fetcher: Fetcher::new(blobs.clone(), client.clone(), Policy::default()),
            blobs,
            layers,
            client,
            cm,
            kept,
            caps: Caps::default(),
            turns: Mutex::default(),
            installing: tokio::sync::RwLock::default(),
            wanted: Wanted::default(),
            in_use: Arc::default(),
            alerts,
        })
    }

    /// The image, if it is complete on this Node.
    pub(crate) async fn get(&self, manifest: Digest) -> Option<Installed> {
        let (blobs, layers, caps) = (self.blobs.clone(), self.layers.clone(), self.caps);
        let in_use = self.in_use.clone();
        blocking(move || {
            // The documents are read anew each time, so a rotten one is noticed: reading compares nothing.
            blobs.verify(&manifest).ok()?;
            let image = ItemImage::load(&blobs, &manifest, &caps).ok()?;
            let paths = image
                .layers
                .iter()
                .map(|layer| {
                    let unpacked = layers.get(layer).ok()??;
                    if !in_use.looks_whole(&layers, layer) {
                        tracing::warn!(layer = %layer.diff_id, "an unpacked layer is damaged");
                        return None;
                    }
                    Some(unpacked.path)
                })
                .collect::<Option<Vec<_>>>()?;
            Some(Installed {
                image: Arc::new(image),
                layers: paths,
            })
        })
        .await
        .ok()
        .flatten()
    }

    /// Brings an image to this Node unless it is here: documents, layers, all verified and unpacked. If the disk is full,
    /// images that nobody uses go, the oldest first.
    pub(crate) async fn install(
        &self,
        manifest: Digest,
        stop: &CancellationToken,
    ) -> Result<Installed, ErrorInfo> {
        let turn = self.turn(manifest);
        let _turn = turn.lock().await;
        self.wanted.ask(manifest);
        loop {
            match self.try_install(manifest, stop).await {
                Err(error) if error.aos_code == AosCode::NoMemory as i32 => {
                    if !self.give_up_oldest().await? {
                        return Err(error);
                    }
                    tracing::warn!(%manifest, %error, "an unused image was given up for room; installing again");
                }
                outcome => return outcome,
            }
        }
    }

    fn disk(&self) -> Disk {
        Disk {
            blobs: self.blobs.clone(),
            layers: self.layers.clone(),
            caps: self.caps,
            in_use: self.in_use.clone(),
        }
    }

    /// One at a time works on the same image or layer.
    fn turn(&self, digest: Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.entry(digest).or_default().clone()
    }

    async fn try_install(
        &self,
        manifest: Digest,
        stop: &CancellationToken,
    ) -> Result<Installed, ErrorInfo> {
        let _installing = self.installing.read().await;
        self.note_use([manifest]).await;
        if let Some(installed) = self.get(manifest).await {
            return Ok(installed);
        }
        self.documents(manifest).await?;
        let (blobs, caps) = (self.blobs.clone(), self.caps);
        let image = blocking(move || ItemImage::load(&blobs, &manifest, &caps))
            .await?
            .map_err(|error| ErrorInfo::from_error(AosCode::InvalidArgument, &error))?;
        if image.item_config.is_none() {
            return Err(ErrorInfo::new(
                AosCode::InvalidArgument,
                format!("image {manifest} has no item configuration, so it is no service"),
            ));
        }
        self.layers(&image, stop).await?;
        self.get(manifest).await.ok_or_else(|| {
            ErrorInfo::new(
                AosCode::Failed,
                format!("image {manifest} was installed but cannot be read back"),
            )
        })
    }

    /// Manifest and configurations: small, so they are held in memory while they are checked.
    async fn documents(&self, manifest: Digest) -> Result<(), ErrorInfo> {
        self.small(&[manifest]).await?;
        let (blobs, caps) = (self.blobs.clone(), self.caps);
        let document: Manifest = blocking(move || graph::load_manifest(&blobs, &manifest, &caps))
            .await?
            .map_err(|error| ErrorInfo::from_error(AosCode::InvalidArgument, &error))?;
        let wanted: Vec<Digest> = [Some(&document.config), document.item_config.as_ref()]
            .into_iter()
            .flatten()
            .filter(|descriptor| descriptor.media_type != media_type::EMPTY)
            .map(|descriptor| descriptor.digest)
            .collect();
        self.small(&wanted).await
    }

    async fn small(&self, digests: &[Digest]) -> Result<(), ErrorInfo> {
        let mut missing = Vec::new();
        for &digest in digests {
            let blobs = self.blobs.clone();
            // A damaged one is removed by this and fetched again.
            if blocking(move || blobs.verify(&digest)).await?.is_err() {
                missing.push(digest);
            }
        }
        for (digest, url) in self.urls(&missing).await? {
            let fetch = async {
                let answer = self.client.get(&url).send().await?.error_for_status()?;
                bounded(answer, self.caps.document).await
            };
            let bytes = tokio::time::timeout(SMALL, fetch)
                .await
                .map_err(|_| {
                    let why = format!("blob {digest} did not come within {} s", SMALL.as_secs());
                    ErrorInfo::new(AosCode::Timeout, why)
                })?
                .map_err(|error| not_fetched(&digest, &error.without_url()))?;
            let bytes = bytes.ok_or_else(|| {
                let why = format!("blob {digest} is longer than a document may be");
                ErrorInfo::new(AosCode::OutOfRange, why)
            })?;
            let blobs = self.blobs.clone();
            blocking(move || blobs.insert(bytes.as_slice(), Some(&digest)))
                .await?
                .map_err(|error| {
                    ErrorInfo::from_error(code(AosCode::InvalidChecksum, &error), &error)
                })?;
        }
        Ok(())
    }

    async fn layers(&self, image: &ItemImage, stop: &CancellationToken) -> Result<(), ErrorInfo> {
        let mut missing: Vec<&Layer> = Vec::new();
        for layer in &image.layers {
            let (layers, wanted) = (self.layers.clone(), layer.clone());
            let in_use = self.in_use.clone();
            if !blocking(move || in_use.looks_whole(&layers, &wanted)).await? {
                missing.push(layer);
            }
        }
        let digests: Vec<Digest> = missing.iter().map(|l| l.descriptor.digest).collect();
        let urls: BTreeMap<Digest, String> = self.urls(&digests).await?.into_iter().collect();
        let work = missing.into_iter().map(|layer| {
            let url = urls.get(&layer.descriptor.digest).cloned();
            self.layer(layer.clone(), url, stop)
        });
        let mut results =
            futures::stream::iter(work.collect::<Vec<_>>()).buffer_unordered(PARALLEL);
        // The first failure ends the rest: what arrived stays for the next attempt.
        while let Some(result) = results.next().await {
            result?;
        }
        Ok(())
    }

    async fn layer(
        &self,
        layer: Layer,
        url: Option<String>,
        stop: &CancellationToken,
    ) -> Result<(), ErrorInfo> {
        let Descriptor { digest, size, .. } = layer.descriptor.clone();
        let turn = self.turn(layer.diff_id);
        let _turn = turn.lock().await;
        let (layers, wanted, in_use) = (self.layers.clone(), layer.clone(), self.in_use.clone());
        let here = blocking(move || {
            let whole = in_use.looks_whole(&layers, &wanted);
            let there = layers.get(&wanted).is_ok_and(|there| there.is_some());
            (whole, there)
        });
        let (whole, there) = here.await?;
        if whole {
            // Another image that shares it has brought it meanwhile.
            return Ok(());
        }
        if there {
            self.alerts.own(format!(
                "files of layer {} have changed on this Node since they were installed; they are fetched again from CM. Look \
                 at the disk of the Node",
                layer.diff_id
            ));
        }
        let source = Source {
            urls: url.into_iter().collect(),
            size,
            checksum: None,
            key: None,
            signature: None,
        };
        self.fetcher
            .fetch(&digest, &source, &|_| {}, stop)
            .await
            .map_err(|error| not_fetched(&digest, &error))?;
        // Whatever is left of it is in the way.
        let (disk, wanted) = (self.disk(), layer.clone());
        blocking(move || disk.clear_damaged(&wanted))
            .await?
            .map_err(|error| ErrorInfo::from_error(AosCode::Failed, &error))?;
        let (blobs, layers, token) = (self.blobs.clone(), self.layers.clone(), stop.clone());
        blocking(move || {
            layers.unpack(&blobs, &layer, &token)?;
            // The unpacked layer is what runs; its archive can be fetched again.
            let _ = blobs.remove(&digest);
            Ok::<_, aos_image::unpack::Error>(())
        })
        .await?
        .map_err(|error| ErrorInfo::from_error(code(AosCode::InvalidChecksum, &error), &error))
    }

    /// Where CM offers blobs.
    async fn urls(&self, digests: &[Digest]) -> Result<Vec<(Digest, String)>, ErrorInfo> {
        if digests.is_empty() {
            return Ok(Vec::new());
        }
        let channel = self.cm.channel().await?;
        let request = BlobsInfosRequest {
            digests: digests.iter().map(Digest::to_string).collect(),
        };
        let answer = SmServiceClient::new(channel)
            .get_blobs_infos(aos_ipc::within(ASK, request))
            .await
            .map_err(|status| call_failed("say where blobs are", &status))?
            .into_inner();
        if answer.urls.len() != digests.len() {
            return Err(ErrorInfo::new(
                AosCode::Failed,
                "CM answered with another number of URLs than blobs were asked for",
            ));
        }
        Ok(digests.iter().copied().zip(answer.urls).collect())
    }

    /// Notes that these images are needed now.
    pub(crate) async fn note_use(&self, manifests: impl IntoIterator<Item = Digest>) {
        let last = SystemClock.now();
        let changes: Vec<(String, Option<ImageUse>)> = manifests
            .into_iter()
            .map(|manifest| (manifest.to_string(), Some(ImageUse { manifest, last })))
            .collect();
        if let Err(error) = self.kept.images.apply(changes).await {
            tracing::warn!(error = text(&error), "the use of images is not noted");
        }
    }

    /// Removes images that nobody uses and nobody used for `keep_for`.
    pub(crate) async fn collect(&self, used: BTreeSet<Digest>, keep_for: Duration) {
        self.wanted.use_now(used.clone());
        let Ok(_quiet) = self.installing.try_write() else {
            return;
        };
        if let Err(error) = self.try_collect(used, keep_for).await {
            tracing::warn!(%error, "unused images stay for now");
        }
    }

    async fn try_collect(
        &self,
        used: BTreeSet<Digest>,
        keep_for: Duration,
    ) -> Result<(), ErrorInfo> {
        let now = SystemClock.now();
        let stored = |error| ErrorInfo::from_error(AosCode::Failed, &error);
        let mut keep = used;
        let mut gone: Vec<(String, Option<ImageUse>)> = Vec::new();
        for (key, image) in self.kept.images.all().await.map_err(stored)? {
            if now.since(image.last) < keep_for.max(IMAGE_GRACE) {
                keep.insert(image.manifest);
            } else if !keep.contains(&image.manifest) {
                gone.push((key, None));
            }
        }
        self.sweep(keep, IMAGE_GRACE).await?;
        self.kept.images.apply(gone).await.map_err(stored)
    }

    /// Removes blobs and layers that no image of `keep` names.
    pub(crate) async fn sweep(
        &self,
        keep: BTreeSet<Digest>,
        grace: Duration,
    ) -> Result<(), ErrorInfo> {
        let (blobs, layers, caps) = (self.blobs.clone(), self.layers.clone(), self.caps);
        let running = self.in_use.running();
        let removed = blocking(move || {
            let mut digests = BTreeSet::new();
            let mut names = BTreeSet::new();
            let mut all_known = true;
            let unknown = |manifest: &Digest| running.contains(manifest);
            for manifest in &keep {
                digests.insert(*manifest);
                let Ok(document) = graph::load_manifest(&blobs, manifest, &caps) else {
                    all_known &= !unknown(manifest);
                    continue;
                };
                digests.extend(document.digests());
                match ItemImage::load(&blobs, manifest, &caps) {
                    Ok(image) => names.extend(image.layers.iter().flat_map(LayerStore::names)),
                    Err(_) => all_known &= !unknown(manifest),
                }
            }
            let collected = blobs
                .collect(&digests, grace)
                .map_err(|error| ErrorInfo::from_error(AosCode::Failed, &error))?;
            // Something runs from an image that cannot be read: nobody knows from which layers.
            let layers = match all_known {
                true => layers.collect(&names),
                false => Ok(0),
            };
            let layers = layers.map_err(|error| ErrorInfo::from_error(AosCode::Failed, &error))?;
            Ok::<_, ErrorInfo>((collected.blobs, layers))
        })
        .await??;
        let disk = self.disk();
        blocking(move || disk.clear_aside())
            .await?
            .map_err(|error| ErrorInfo::from_error(AosCode::Failed, &error))?;
        if removed != (0, 0) {
            tracing::info!(
                blobs = removed.0,
                layers = removed.1,
                "unused images removed"
            );
        }
        Ok(())
    }
}

/// The code of an error: a full disk has its own, whatever was tried.
fn code(otherwise: AosCode, error: &(dyn std::error::Error + 'static)) -> AosCode {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let full = error.downcast_ref::<io::Error>().is_some_and(|error| {
            matches!(
                error.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            )
        });
        if full {
            return AosCode::NoMemory;
        }
        cause = error.source();
    }
    otherwise
}

/// The body, or nothing if it is longer than `cap`.
async fn bounded(
    mut answer: reqwest::Response,
    cap: u64,
) -> Result<Option<Vec<u8>>, reqwest::Error> {
    let cap = usize::try_from(cap).unwrap_or(usize::MAX);
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        if bytes.len() + chunk.len() > cap {
            return Ok(None);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Some(bytes))
}

fn not_fetched(digest: &Digest, error: &(dyn std::error::Error + 'static)) -> ErrorInfo {
    let mut info = ErrorInfo::from_error(code(AosCode::Failed, error), error);
    info.message = format!("blob {digest} cannot be fetched from CM: {}", info.message);
    info
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ErrorInfo> {
    task::spawn_blocking(work)
        .await
        .map_err(|error| ErrorInfo::from_error(AosCode::Failed, &error))
}

fn text(error: &(dyn std::error::Error + 'static)) -> String {
    ErrorInfo::from_error(AosCode::Failed, error).message
}
