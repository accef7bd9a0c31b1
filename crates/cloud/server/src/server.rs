use std::{
    fs::{self, File, TryLockError},
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use aos_api_server::{ApiOptions, ApiState, collect_orphans, ensure_owner_link};
use aos_db::{Db, LogsKept, Retention};
use aos_gateway::{Gateway, GatewayOptions, TokenKey};
use aos_image::BlobStore;
use aos_pki::{
    ALPN_HTTP, Authority, CertKind, CertSource, Expect, Trust, optional_client_server, private_dir,
};
use aos_time::{Clock, SystemClock};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{Error, keys, listener};

/// The link is HTTP/1.1: WebSocket asks for an upgrade.
const ALPN_UNITS: &[&str] = &["http/1.1"];
/// How often the listeners' certificate is made anew; it is good for a year.
const RENEWAL: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long before its end a certificate of a Unit is renewed. A Unit may be away for weeks.
const RENEW_AHEAD: Duration = Duration::from_secs(90 * 24 * 3600);
/// How often that is looked at, and orders that were not followed are repeated.
const RENEW_LOOK: Duration = Duration::from_secs(3600);
/// Most connections of people at once.
const MOST_PEOPLE: usize = 4096;
/// Most connections of Units at once.
const MOST_UNITS: usize = 200_000;

/// How often it is looked for requests for logs that are late, and for old logs.
const LOGS_LOOK: Duration = Duration::from_secs(30);
/// How often blobs that nothing holds are deleted.
const TIDY: Duration = Duration::from_secs(3600);

/// How to serve a cloud.
#[derive(Debug, Clone)]
pub struct Options {
    /// The data folder: `aos.db`, `blobs/`, `pki/`, `owner-link.txt`.
    pub data: PathBuf,
    /// Where people, browsers and tools connect.
    pub people: SocketAddr,
    /// Where Units connect.
    pub units: SocketAddr,
    /// Names and addresses by which this cloud is reached, the first one being written into certificates and links. If
    /// there is none, the address of the listener, or `localhost` if that is any address.
    pub hosts: Vec<String>,
    /// Name of the organisation that the first user makes; it does not rename one that is there.
    pub organisation: String,
    /// How long what Units tell of their usage, and their alerts, are kept.
    pub retention: Retention,
}

/// A cloud that runs.
pub struct Server {
    people: SocketAddr,
    units: SocketAddr,
    authority: Arc<Authority>,
    db: Db,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Serves a cloud until `stop` is cancelled.
pub async fn run(options: Options, stop: CancellationToken) -> Result<(), Error> {
    let server = Server::start(options, stop).await?;
    server.stopped().await;
    Ok(())
}

/// The OpenAPI document of the REST API, as JSON text.
pub fn openapi() -> String {
    aos_api_server::openapi_json()
}

/// What is made from the data folder before anything listens.
struct Opened {
    lock: File,
    authority: Arc<Authority>,
    signer: Arc<aos_pki::Signer>,
    tokens: TokenKey,
    blobs: BlobStore,
    scratch: PathBuf,
}

impl Server {
    /// Starts a cloud. It serves when this returns, until `stop` is cancelled.
    pub async fn start(options: Options, stop: CancellationToken) -> Result<Self, Error> {
        aos_pki::install_provider();
        let clock = SystemClock;
        let data = options.data.clone();
        let opened = tokio::task::spawn_blocking(move || open(&data)).await??;
        let db = Db::open(&options.data.join("aos.db"), Arc::new(clock)).await?;
        db.set_all_links_down().await?;

        let people = bind("people", options.people).await?;
        let units = bind("Units", options.units).await?;
        let (people_at, units_at) = (local(&people)?, local(&units)?);
        let names = names(&options.hosts, &[people_at, units_at]);
        let host = public_host(&options.hosts, people_at);
        let url = |port| format!("https://{}:{port}", bracketed(&host));
        db.fail_interrupted_bundles().await?;
        let api = ApiState::new(
            ApiOptions {
                db: db.clone(),
                authority: opened.authority.clone(),
                blobs: opened.blobs.clone(),
                scratch: opened.scratch,
                organisation: options.organisation.clone(),
                domain: host.clone(),
                people_url: url(people_at.port()),
                // One only: AosCore fails on a certificate with more.
                discovery_urls: vec![url(units_at.port())],
                caps: aos_bundle::Caps::default(),
            },
            stop.child_token(),
        )
        .map_err(|error| Error::Passwords(error.into()))?;
        if let Some(path) = ensure_owner_link(&api, &options.data).await? {
            tracing::info!(file = %path.display(), "nobody can sign in yet: open the link in this file");
        }

        let source = CertSource::new();
        present(&opened.authority, &names, &source).await?;
        let trust = Trust::new(opened.authority.roots());
        let gateway = Gateway::start(
            GatewayOptions {
                db: db.clone(),
                blobs: opened.blobs,
                authority: opened.authority.clone(),
                discovery_urls: vec![url(units_at.port())],
                signer: opened.signer,
                tokens: opened.tokens,
                caps: aos_cloud_protocol::Caps::default(),
                retention: options.retention,
                session: aos_session::Config::default(),
            },
            stop.child_token(),
        );
        let tasks = TaskTracker::new();
        let of_people =
            optional_client_server(&source, &trust, Expect::kinds([CertKind::User]), ALPN_HTTP);
        // Optional here too: AosCore fetches blobs without its certificate. Discovery and link refuse those without one.
        let of_units = optional_client_server(
            &source,
            &trust,
            Expect::kinds([CertKind::Online]),
            ALPN_UNITS,
        );
        tasks.spawn(listener::serve(
            "people",
            people,
            of_people,
            aos_api_server::router(api.clone()),
            MOST_PEOPLE,
            stop.clone(),
        ));
        tasks.spawn(listener::serve(
            "Units",
            units,
            of_units,
            gateway.router(),
            MOST_UNITS,
            stop.clone(),
        ));
        tasks.spawn(renew(opened.authority.clone(), names, source, stop.clone()));
        tasks.spawn(tidy(api.clone(), stop.clone()));
        tasks.spawn(renew_units(db.clone(), stop.clone()));
        tasks.spawn(retain_logs(db.clone(), stop.clone()));
        let lock = opened.lock;
        let (ending, store) = (stop.clone(), db.clone());
        tasks.spawn(async move {
            ending.cancelled().await;
            gateway.stopped().await;
            api.stopped().await;
            store.close().await;
            drop(lock);
        });
        tasks.close();
        let fingerprint = format!("sha256:{}", opened.authority.fingerprint());
        tracing::info!(
            people = format!("https://{people_at}/"),
            units = %units_at,
            host,
            fingerprint,
            "the cloud serves"
        );
        Ok(Self {
            people: people_at,
            units: units_at,
            authority: opened.authority,
            db,
            tasks,
            stop,
        })
    }

    /// Where people connect.
    pub fn people(&self) -> SocketAddr {
        self.people
    }

    /// Where Units connect.
    pub fn units(&self) -> SocketAddr {
        self.units
    }

    /// The authority that issues all of this cloud's certificates.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The store behind it.
    pub fn db(&self) -> &Db {
        &self.db
    }

    /// Asks it to stop.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits until everything has ended after the stop.
    pub async fn stopped(&self) {
        self.tasks.wait().await;
    }
}

fn open(data: &Path) -> Result<Opened, Error> {
    let file = |path: &Path| {
        let path = path.to_path_buf();
        move |source| Error::File { path, source }
    };
    private_dir(data).map_err(file(data))?;
    let lock_path = data.join("lock");
    let lock = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&lock_path)
        .map_err(file(&lock_path))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(Error::InUse {
                path: data.to_path_buf(),
            });
        }
        Err(TryLockError::Error(error)) => return Err(file(&lock_path)(error)),
    }
    let scratch = data.join("scratch");
    // What an earlier run was unpacking is worth nothing.
    match fs::remove_dir_all(&scratch) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(file(&scratch)(error));
        }
        _ => private_dir(&scratch).map_err(file(&scratch))?,
    }
    let now = SystemClock.now();
    let pki = data.join("pki");
    let authority = Arc::new(Authority::load_or_create(&pki, "AosCloud root", now)?);
    Ok(Opened {
        lock,
        signer: keys::blob_signer(&authority, &pki, now)?,
        tokens: TokenKey::load_or_create(&pki.join("token.key"))?,
        blobs: BlobStore::open(data)?,
        authority,
        scratch,
    })
}

async fn bind(what: &'static str, address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address)
        .await
        .map_err(|source| Error::Listen {
            what,
            address,
            source,
        })
}

fn local(listener: &TcpListener) -> Result<SocketAddr, Error> {
    listener.local_addr().map_err(|source| Error::File {
        path: "socket".into(),
        source,
    })
}

async fn present(
    authority: &Arc<Authority>,
    names: &[String],
    source: &CertSource,
) -> Result<(), Error> {
    let (authority, names, source) = (authority.clone(), names.to_vec(), source.clone());
    tokio::task::spawn_blocking(move || {
        keys::present(&authority, &names, SystemClock.now(), &source)
    })
    .await?
}

async fn renew(
    authority: Arc<Authority>,
    names: Vec<String>,
    source: CertSource,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(RENEWAL) => {}
        }
        if let Err(error) = present(&authority, &names, &source).await {
            tracing::error!(%error, "the certificate of the listeners could not be renewed");
        }
    }
}

/// Has the certificates of Units renewed before they end.
async fn renew_units(db: Db, stop: CancellationToken) {
    loop {
        match db.renew_in_time(RENEW_AHEAD).await {
            Ok(0) => {}
            Ok(units) => tracing::info!(units, "certificates of Units are to be renewed"),
            Err(error) => tracing::error!(%error, "no certificate of a Unit could be renewed"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(RENEW_LOOK) => {}
        }
    }
}

/// Ends requests for logs that are not answered in time, and removes old logs.
async fn retain_logs(db: Db, stop: CancellationToken) {
    loop {
        match db.retain_logs().await {
            Ok(done) if done == LogsKept::default() => {}
            Ok(done) => tracing::info!(
                ended = done.ended,
                removed = done.removed,
                "requests for logs were ended or removed"
            ),
            Err(error) => tracing::error!(%error, "old logs could not be removed"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOGS_LOOK) => {}
        }
    }
}

/// Deletes now and then what nothing holds.
async fn tidy(api: ApiState, stop: CancellationToken) {
    loop {
        match collect_orphans(&api).await {
            Ok(0) => {}
            Ok(bytes) => tracing::info!(bytes, "blobs that nothing held were deleted"),
            // It has logged why.
            Err(_) => {
                tracing::warn!("orphan blobs could not be deleted; the next round tries again")
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(TIDY) => {}
        }
    }
}

/// What the listeners' certificate is good for: what the operator says, and this machine by itself.
fn names(hosts: &[String], addresses: &[SocketAddr]) -> Vec<String> {
    let mut names: Vec<String> = hosts.to_vec();
    names.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
    names.extend(
        addresses
            .iter()
            .map(SocketAddr::ip)
            .filter(|ip| !ip.is_unspecified())
            .map(|ip| ip.to_string()),
    );
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
}

/// The name that goes into links and certificates.
fn public_host(hosts: &[String], people: SocketAddr) -> String {
    match hosts.first() {
        Some(host) => host.clone(),
        None if people.ip().is_unspecified() => "localhost".into(),
        None => people.ip().to_string(),
    }
}

/// A host as URLs have it: an IPv6 address stands in brackets.
fn bracketed(host: &str) -> String {
    if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}
