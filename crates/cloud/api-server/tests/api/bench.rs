use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use aos_api::paths;
use aos_api_server::{ApiOptions, ApiState, ensure_owner_link, router};
use aos_bundle::Caps;
use aos_db::Db;
use aos_image::BlobStore;
use aos_pki::{Authority, KeyAlgorithm, KeyPair, PeerIdentity, Signer, certificates_from_pem};
use aos_time::{Clock, SimClock, SystemClock};
use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, Request},
};
use http::{HeaderMap, Method, StatusCode, header};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

pub(crate) const PASSWORD: &str = "correct horse battery";

/// A cloud's people side in a folder of its own.
pub(crate) struct Bench {
    pub(crate) state: ApiState,
    pub(crate) router: Router,
    pub(crate) db: Db,
    pub(crate) authority: Arc<Authority>,
    pub(crate) clock: SimClock,
    pub(crate) stop: CancellationToken,
    pub(crate) data: PathBuf,
    _folder: tempfile::TempDir,
}

/// An answer.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Value {
        assert_eq!(
            self.status.as_u16(),
            status,
            "{}",
            String::from_utf8_lossy(&self.body)
        );
        if self.body.is_empty() {
            Value::Null
        } else {
            self.json()
        }
    }

    /// The `name=value` of the cookie that was set.
    pub(crate) fn cookie(&self) -> String {
        let text = self.headers[header::SET_COOKIE].to_str().unwrap();
        text.split(';').next().unwrap().to_owned()
    }
}

/// Who asks.
#[derive(Clone, Default)]
pub(crate) struct As {
    pub(crate) cookie: Option<String>,
    pub(crate) csrf: bool,
    pub(crate) origin: Option<String>,
    pub(crate) peer: Option<PeerIdentity>,
}

impl As {
    pub(crate) fn session(cookie: &str) -> Self {
        Self {
            cookie: Some(cookie.into()),
            csrf: true,
            ..Self::default()
        }
    }

    pub(crate) fn peer(peer: PeerIdentity) -> Self {
        Self {
            peer: Some(peer),
            ..Self::default()
        }
    }
}

impl Bench {
    pub(crate) async fn new() -> Self {
        Self::with_caps(Caps::default()).await
    }

    pub(crate) async fn with_caps(caps: Caps) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().to_owned();
        let clock = SimClock::at(SystemClock.now());
        let db = Db::open(&data.join("aos.db"), Arc::new(clock.clone()))
            .await
            .unwrap();
        let authority = Arc::new(Authority::in_memory("test", clock.now()).unwrap());
        let scratch = data.join("scratch");
        std::fs::create_dir(&scratch).unwrap();
        let stop = CancellationToken::new();
        let state = ApiState::new(
            ApiOptions {
                db: db.clone(),
                authority: authority.clone(),
                blobs: BlobStore::open(data.join("blobs")).unwrap(),
                scratch,
                organisation: "Test".into(),
                domain: "localhost".into(),
                people_url: "https://localhost:10000".into(),
                discovery_urls: vec!["https://localhost:9000".into()],
                caps,
            },
            stop.clone(),
        )
        .unwrap();
        Self {
            router: router(state.clone()),
            state,
            db,
            authority,
            clock,
            stop,
            data,
            _folder: folder,
        }
    }

    pub(crate) async fn send(&self, request: Request) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: body.collect().await.unwrap().to_bytes().to_vec(),
        }
    }

    pub(crate) fn request(
        &self,
        who: &As,
        method: Method,
        path: &str,
        kind: Option<&str>,
        body: Body,
    ) -> Request {
        let mut request = http::Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost:10000");
        if let Some(kind) = kind {
            request = request.header(header::CONTENT_TYPE, kind);
        }
        if let Some(cookie) = &who.cookie {
            request = request.header(header::COOKIE, format!("theme=dark; {cookie}"));
        }
        if who.csrf {
            request = request.header(paths::CSRF_HEADER, "1");
        }
        if let Some(origin) = &who.origin {
            request = request.header(header::ORIGIN, origin);
        }
        let mut request = request.body(body).unwrap();
        let address: SocketAddr = "192.0.2.1:5000".parse().unwrap();
        request.extensions_mut().insert(ConnectInfo(address));
        if let Some(peer) = &who.peer {
            request.extensions_mut().insert(peer.clone());
        }
        request
    }

    pub(crate) async fn call(
        &self,
        who: &As,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Answer {
        let request = match body {
            Some(body) => self.request(
                who,
                method,
                path,
                Some("application/json"),
                Body::from(body.to_string()),
            ),
            None => self.request(who, method, path, None, Body::empty()),
        };
        self.send(request).await
    }

    pub(crate) async fn get(&self, who: &As, path: &str) -> Answer {
        self.call(who, Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, who: &As, path: &str, body: Value) -> Answer {
        self.call(who, Method::POST, path, Some(body)).await
    }

    pub(crate) async fn delete(&self, who: &As, path: &str) -> Answer {
        self.call(who, Method::DELETE, path, None).await
    }

    /// The token of the owner link that the first start writes.
    pub(crate) async fn owner_token(&self) -> String {
        let path = ensure_owner_link(&self.state, &self.data)
            .await
            .unwrap()
            .unwrap();
        let link = std::fs::read_to_string(path).unwrap();
        link.trim().split_once("#token=").unwrap().1.to_owned()
    }

    /// Sets the owner up and gives its session.
    pub(crate) async fn owner(&self) -> As {
        let token = self.owner_token().await;
        let answer = self
            .post(
                &As::default(),
                paths::OWNER_SETUP,
                json!({"token": token, "username": "ada", "password": PASSWORD}),
            )
            .await;
        assert_eq!(answer.status, 201, "{}", answer.json());
        As::session(&answer.cookie())
    }

    /// Gets a user certificate over a session: the identity a listener would see, and a signer of bundles.
    pub(crate) async fn certificate(&self, owner: &As, algorithm: KeyAlgorithm) -> (As, Signer) {
        let key = KeyPair::generate(algorithm).unwrap();
        let csr = key.request("whoever", &[]).unwrap();
        let issued = self
            .post(owner, paths::USER_CERTIFICATES, json!({"csr": csr}))
            .await
            .expect(201);
        let chain =
            certificates_from_pem(issued["certificate"].as_str().unwrap().as_bytes()).unwrap();
        let peer = PeerIdentity::from_der(&chain[0]).unwrap();
        (As::peer(peer), Signer::new(&key, chain).unwrap())
    }

    pub(crate) async fn upload(&self, who: &As, query: &str, bundle: &[u8]) -> Answer {
        let request = self.upload_request(who, query, bundle);
        self.send(request).await
    }

    pub(crate) fn upload_request(&self, who: &As, query: &str, bundle: &[u8]) -> Request {
        let mut body = Vec::new();
        body.extend_from_slice(
            b"--XX\r\ncontent-disposition: form-data; name=\"note\"\r\n\r\nhello\r\n",
        );
        body.extend_from_slice(
            b"--XX\r\ncontent-disposition: form-data; name=\"file\"; filename=\"batch.tar.gz\"\r\n\r\n",
        );
        body.extend_from_slice(bundle);
        body.extend_from_slice(b"\r\n--XX--\r\n");
        self.request(
            who,
            Method::POST,
            &format!("{}{query}", paths::BUNDLE_UPLOAD),
            Some("multipart/form-data; boundary=XX"),
            Body::from(body),
        )
    }

    /// Publishes services, each `(codename, version)`.
    pub(crate) async fn publish(&self, owner: &As, services: &[(&str, &str)]) -> Value {
        let (_, signer) = self.certificate(owner, KeyAlgorithm::Rsa2048).await;
        let folder = bundle_folder(services);
        let bundle = signed(folder.path(), &signer);
        let shown = self.upload(owner, "?wait=true", &bundle).await.expect(201);
        assert_eq!(shown["state"], "done", "{shown:#}");
        shown
    }
}

/// A bundle folder with these services, each `(codename, version)`.
pub(crate) fn bundle_folder(services: &[(&str, &str)]) -> tempfile::TempDir {
    use std::fmt::Write as _;
    let dir = tempfile::tempdir().unwrap();
    let mut config = String::from("schemaVersion: 2\nitems:\n");
    for (codename, version) in services {
        write!(
            config,
            "  - identity: {{type: service, codename: {codename}, title: The {codename}}}\n    version: \"{version}\"\n    \
             images: [{{archInfo: {{architecture: amd64}}}}]\n    configuration: {{cmd: [/bin/run], instances: {{minInstances: 2}}}}\n"
        )
        .unwrap();
        let bin = dir.path().join(codename).join("amd64/bin");
        std::fs::create_dir_all(&bin).unwrap();
        std::fs::write(bin.join("run"), format!("#!{codename} {version}")).unwrap();
    }
    std::fs::write(dir.path().join("config.yaml"), config).unwrap();
    dir
}

/// The signed bundle of a folder.
pub(crate) fn signed(folder: &Path, signer: &Signer) -> Vec<u8> {
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("out.tar.gz");
    aos_bundle::sign(folder, signer, &path).unwrap();
    std::fs::read(path).unwrap()
}
