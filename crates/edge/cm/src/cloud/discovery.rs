use std::{collections::VecDeque, io, time::Duration};

use aos_cloud_protocol::{DiscoveryError, DiscoveryRequest, DiscoveryResponse};
use aos_pki::{ClientTls, discovery_urls, handshake_reason, organisation};
use aos_types::SystemId;
use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;

use super::socket::{self, DialError};

/// Longest answer of a service discovery.
const MAX_ANSWER: usize = 256 * 1024;
/// How long one request may take, connecting included.
const REQUEST: Duration = Duration::from_secs(20);
/// How often a redirect may lead on.
const MAX_REDIRECTS: usize = 4;
/// How many addresses are asked in one discovery, redirects included.
const MAX_ASKED: usize = 16;
/// How many addresses of one answer are tried.
const MAX_ADDRESSES: usize = 16;
/// The port of a cloud's service discovery, if a certificate names only the host.
const PORT: u16 = 9000;

/// Why a service discovery did not say where to connect.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("there is no service discovery address: set `service_discovery_url`")]
    NoUrl,
    #[error("service discovery address `{url}` is not an https address")]
    NotHttps { url: String },
    #[error("cannot reach the service discovery at {url}")]
    Dial {
        url: String,
        #[source]
        source: DialError,
    },
    #[error("the service discovery at {url} broke off")]
    Exchange {
        url: String,
        #[source]
        source: hyper::Error,
    },
    #[error("the service discovery at {url} did not answer in {} s", REQUEST.as_secs())]
    Timeout { url: String },
    #[error("the service discovery at {url} answered {status}")]
    Status { url: String, status: StatusCode },
    #[error("the answer of the service discovery at {url} is longer than {MAX_ANSWER} bytes")]
    TooLong { url: String },
    #[error("the answer of the service discovery at {url} cannot be read")]
    Answer {
        url: String,
        #[source]
        source: DiscoveryError,
    },
    #[error("the cloud asks to come back in {} s", wait.as_secs_f64())]
    Later { wait: Duration },
    #[error("the service discovery at {url} refuses this Unit (error {code})")]
    Refused { url: String, code: u32 },
    #[error("the service discovery redirects in circles")]
    Redirects,
    #[error("the service discovery at {url} names no address to connect to")]
    NoConnection { url: String },
}

impl Error {
    /// How long the cloud asked to wait.
    pub(crate) fn wait(&self) -> Option<Duration> {
        match self {
            Self::Later { wait } => Some(*wait),
            _ => None,
        }
    }
}

/// Where service discoveries are, in the order to try them (`docs/protocol/unit-cloud.md`, service discovery).
pub(crate) fn candidates(
    certificate: Option<&[u8]>,
    configured: &str,
    overriding: Option<&str>,
) -> Vec<String> {
    if let Some(url) = overriding {
        return vec![url.to_owned()];
    }
    let path = configured
        .parse::<Uri>()
        .ok()
        .map_or_else(|| "/sd/v7/".to_owned(), |uri| uri.path().to_owned());
    let path = if path == "/" { "/sd/v7/".into() } else { path };
    let urls: Vec<String> = certificate
        .map(discovery_urls)
        .unwrap_or_default()
        .iter()
        .filter_map(|base| {
            let base: Uri = base.parse().ok()?;
            Some(format!("https://{}{path}", base.authority()?))
        })
        .collect();
    if !urls.is_empty() {
        return urls;
    }
    // An organisation's name may be anything; only one that looks like a domain is asked.
    let host = certificate.and_then(organisation).filter(|name| {
        name.contains('.')
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'))
    });
    host.map(|host| format!("https://{host}:{PORT}{path}"))
        .into_iter()
        .chain([configured.to_owned()])
        .collect()
}

/// Asks the service discoveries one after the other until one says where to connect. A redirect leads to other addresses,
/// which are asked first; an address that refuses or does not help leaves the next its turn. Only the wish to be asked
/// later ends it at once: that is the cloud's own.
pub(crate) async fn discover(
    urls: &[String],
    tls: &ClientTls,
    system_id: &SystemId,
) -> Result<DiscoveryResponse, Error> {
    let mut open: VecDeque<String> = urls.iter().cloned().collect();
    let (mut asked, mut redirects) = (0, 0);
    let mut last = Error::NoUrl;
    while let Some(url) = open.pop_front() {
        if asked >= MAX_ASKED {
            return Err(last);
        }
        asked += 1;
        let timeout = Error::Timeout { url: url.clone() };
        let answer = tokio::time::timeout(REQUEST, ask(&url, tls, system_id)).await;
        match answer
            .unwrap_or(Err(timeout))
            .and_then(|answer| act(url, answer))
        {
            Ok(Act::Connect(mut answer)) => {
                answer.connection_info.truncate(MAX_ADDRESSES);
                return Ok(answer);
            }
            Ok(Act::AskAt(others)) => {
                redirects += 1;
                if redirects > MAX_REDIRECTS {
                    return Err(Error::Redirects);
                }
                for other in others.into_iter().take(MAX_ADDRESSES).rev() {
                    open.push_front(other);
                }
            }
            Err(error @ Error::Later { .. }) => return Err(error),
            Err(error) => {
                tracing::debug!(error = %chain(&error), "a service discovery did not help");
                last = error;
            }
        }
    }
    Err(last)
}

/// What an answer asks for.
enum Act {
    Connect(DiscoveryResponse),
    AskAt(Vec<String>),
}

fn act(url: String, answer: DiscoveryResponse) -> Result<Act, Error> {
    let wait = Duration::from_millis(answer.next_request_delay_ms);
    match answer.error_code {
        0 | 1 if answer.connection_info.is_empty() => Err(Error::NoConnection { url }),
        0 => Ok(Act::Connect(answer)),
        1 => Ok(Act::AskAt(answer.connection_info)),
        2 => Err(Error::Later { wait }),
        code if wait.is_zero() => Err(Error::Refused { url, code }),
        _ => Err(Error::Later { wait }),
    }
}

async fn ask(url: &str, tls: &ClientTls, system_id: &SystemId) -> Result<DiscoveryResponse, Error> {
    let not_https = || Error::NotHttps { url: url.into() };
    let uri: Uri = url.parse().map_err(|_| not_https())?;
    if uri.scheme_str() != Some("https") {
        return Err(not_https());
    }
    let authority = uri.authority().ok_or_else(not_https)?.clone();
    let stream = socket::dial(&uri, tls)
        .await
        .map_err(|source| Error::Dial {
            url: url.into(),
            source,
        })?;
    let exchange = |source| Error::Exchange {
        url: url.into(),
        source,
    };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(exchange)?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let body = DiscoveryRequest::new(system_id.clone()).encode();
    let request = Request::post(path)
        .header(header::HOST, authority.as_str())
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json")
        .header(header::CONNECTION, "close")
        .body(Full::new(Bytes::from(body)))
        .map_err(|_| not_https())?;
    let talk = async move {
        let answer = sender.send_request(request).await.map_err(exchange)?;
        let status = answer.status();
        if status != StatusCode::OK {
            return Err(Error::Status {
                url: url.into(),
                status,
            });
        }
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|_| Error::TooLong { url: url.into() })?;
        DiscoveryResponse::decode(&body.to_bytes()).map_err(|source| Error::Answer {
            url: url.into(),
            source,
        })
    };
    tokio::pin!(talk);
    tokio::pin!(connection);
    // The connection must be driven for the exchange to go on; when it ends the exchange has its answer or an error.
    tokio::select! {
        answer = &mut talk => answer,
        _ = &mut connection => talk.await,
    }
}

/// An error with its causes, for logs.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        if inner.downcast_ref::<io::Error>().is_some() {
            text.push_str(": ");
            text.push_str(&handshake_reason(inner));
            break;
        }
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, sync::Mutex};

    use aos_cloud_protocol::Secret;
    use aos_pki::{
        ALPN_HTTP, Authority, CertKind, CertProfile, CertSource, Expect, KeyAlgorithm, Trust,
        certificates_from_pem, certified_key, host_client, mutual_server,
    };
    use aos_time::{Clock, SystemClock};
    use aos_types::NodeId;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    #[test]
    fn an_override_wins_then_the_certificate_then_the_configuration() {
        let configured = "https://configured:9000/sd/v7/";
        assert_eq!(
            candidates(None, configured, Some("https://other/x")),
            ["https://other/x"]
        );
        assert_eq!(candidates(None, configured, None), [configured]);
        assert_eq!(
            candidates(Some(b"not a certificate"), configured, None),
            [configured]
        );
    }

    fn source(authority: &Authority, profile: &CertProfile) -> CertSource {
        let pair = authority
            .issue_pair(KeyAlgorithm::EcP256, profile, SystemClock.now())
            .unwrap();
        let chain = certificates_from_pem(pair.issued.chain_pem.as_bytes()).unwrap();
        CertSource::with(certified_key(chain, &pair.key).unwrap())
    }

    fn unit() -> SystemId {
        SystemId::new("unit").unwrap()
    }

    fn answer(code: u32, delay: u64, urls: &[&str]) -> DiscoveryResponse {
        let urls = urls.iter().map(|url| (*url).to_owned()).collect();
        DiscoveryResponse {
            error_code: code,
            next_request_delay_ms: delay,
            ..DiscoveryResponse::connect(&unit(), urls, Secret::new("t"))
        }
    }

    /// A discovery that gives these answers, one a request. Gives its address and how to talk to it.
    async fn serve(answers: Vec<(&'static str, DiscoveryResponse)>) -> (String, ClientTls) {
        let authority = Authority::in_memory("test", SystemClock.now()).unwrap();
        let trust = Trust::new(authority.roots());
        let server = source(&authority, &CertProfile::server(vec!["localhost".into()]));
        let node = NodeId::new("main").unwrap();
        let online = source(
            &authority,
            &CertProfile::unit(CertKind::Online, &unit(), Some(&node)),
        );
        let expect = Expect::kinds([CertKind::Online]);
        let tls = mutual_server(&server, &trust, expect, &ALPN_HTTP[1..]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!(
            "https://localhost:{}/sd/v7/",
            listener.local_addr().unwrap().port()
        );
        let here = url.clone();
        let answers = Mutex::new(VecDeque::from(answers));
        tokio::spawn(async move {
            let acceptor = tokio_rustls::TlsAcceptor::from(tls.config);
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let mut stream = acceptor.accept(stream).await.unwrap();
                let mut request = vec![0; 4096];
                let mut have = 0;
                while !String::from_utf8_lossy(&request[..have]).ends_with('}') {
                    have += stream.read(&mut request[have..]).await.unwrap();
                }
                let (status, mut answer) = answers.lock().unwrap().pop_front().unwrap();
                for url in &mut answer.connection_info {
                    *url = url.replace("HERE", &here);
                }
                let body = answer.encode();
                let head = format!(
                    "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n",
                    body.len()
                );
                stream.write_all(head.as_bytes()).await.unwrap();
                stream.write_all(&body).await.unwrap();
                stream.shutdown().await.unwrap();
            }
        });
        let tls = host_client(&online, &trust, None, &ALPN_HTTP[1..]);
        (url, tls)
    }

    #[tokio::test]
    async fn a_redirect_is_followed_and_a_dead_address_is_passed_over() {
        let ok = answer(0, 0, &["wss://one/ws/v7/"]);
        let redirect = answer(1, 0, &["https://localhost:1/sd/v7/", "HERE"]);
        let (url, tls) = serve(vec![("200 OK", redirect), ("200 OK", ok)]).await;
        let found = discover(&[url], &tls, &unit()).await.unwrap();
        assert_eq!(found.connection_info, ["wss://one/ws/v7/"]);
    }

    #[tokio::test]
    async fn the_cloud_may_ask_to_wait_refuse_or_lead_in_circles() {
        let (url, tls) = serve(vec![("200 OK", answer(2, 90_000, &[]))]).await;
        let error = discover(&[url], &tls, &unit()).await.unwrap_err();
        assert_eq!(error.wait(), Some(Duration::from_secs(90)));

        let (url, tls) = serve(vec![("200 OK", answer(3, 0, &[]))]).await;
        let error = discover(&[url], &tls, &unit()).await.unwrap_err();
        assert!(matches!(error, Error::Refused { code: 3, .. }), "{error}");

        let circle = vec![("200 OK", answer(1, 0, &["HERE"])); 9];
        let (url, tls) = serve(circle).await;
        let error = discover(&[url], &tls, &unit()).await.unwrap_err();
        assert!(matches!(error, Error::Redirects), "{error}");

        let (url, tls) = serve(vec![("503 Busy", answer(0, 0, &["wss://one"]))]).await;
        let error = discover(&[url], &tls, &unit()).await.unwrap_err();
        assert!(matches!(error, Error::Status { .. }), "{error}");
    }

    #[tokio::test]
    async fn nothing_is_asked_in_plain_text() {
        let (_, tls) = serve(vec![]).await;
        let urls = ["http://localhost:9000/sd/v7/".to_owned()];
        let error = discover(&urls, &tls, &unit()).await.unwrap_err();
        assert!(matches!(error, Error::NotHttps { .. }), "{error}");
    }
}
