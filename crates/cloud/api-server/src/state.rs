use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
};

use aos_bundle::Caps;
use aos_db::Db;
use aos_image::BlobStore;
use aos_pki::Authority;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    limiter::Limiter,
    password::{PasswordError, Passwords},
};

/// What the API needs.
#[derive(Debug, Clone)]
pub struct ApiOptions {
    /// The store.
    pub db: Db,
    /// Issues certificates of Units and people.
    pub authority: Arc<Authority>,
    /// The blob folder.
    pub blobs: BlobStore,
    /// Where uploads are taken in and unpacked. Of mode 0700, on the file system of the blobs.
    pub scratch: PathBuf,
    /// Name of the organisation that the owner's set-up makes.
    pub organisation: String,
    /// The host people reach this cloud by; written into their certificates.
    pub domain: String,
    /// `https://host:10000`: where people and enrolling Units reach this cloud.
    pub people_url: String,
    /// `https://host:9000`, first choice first: where Units ask for a gateway. Written into `online` certificates.
    pub discovery_urls: Vec<String>,
    /// What bundles may be.
    pub caps: Caps,
}

/// The API's state. Clones are the same one.
#[derive(Clone)]
pub struct ApiState(Arc<Inner>);

struct Inner {
    options: ApiOptions,
    passwords: Passwords,
    limiter: Limiter,
    owner_link: Mutex<Option<PathBuf>>,
    /// One bundle at a time is unpacked and converted; the collection of orphan blobs takes a turn too.
    conversions: Semaphore,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl ApiState {
    /// Makes the state. Work in the background (bundles, event streams) ends when `stop` is cancelled; wait for that with
    /// [`ApiState::stopped`].
    pub fn new(options: ApiOptions, stop: CancellationToken) -> Result<Self, PasswordError> {
        Ok(Self(Arc::new(Inner {
            options,
            passwords: Passwords::new()?,
            limiter: Limiter::default(),
            owner_link: Mutex::default(),
            conversions: Semaphore::new(1),
            tasks: TaskTracker::new(),
            stop,
        })))
    }

    /// Waits until all work in the background has ended after the stop.
    pub async fn stopped(&self) {
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    pub(crate) fn options(&self) -> &ApiOptions {
        &self.0.options
    }

    pub(crate) fn db(&self) -> &Db {
        &self.0.options.db
    }

    pub(crate) fn passwords(&self) -> &Passwords {
        &self.0.passwords
    }

    pub(crate) fn limiter(&self) -> &Limiter {
        &self.0.limiter
    }

    pub(crate) fn owner_link(&self) -> &Mutex<Option<PathBuf>> {
        &self.0.owner_link
    }

    pub(crate) fn conversions(&self) -> &Semaphore {
        &self.0.conversions
    }

    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.0.tasks
    }

    pub(crate) fn stop(&self) -> &CancellationToken {
        &self.0.stop
    }
}
