//! The REST API of a cloud, as commands use it.

use std::pin::Pin;
use std::time::Duration;

use aos_api::{ErrorBody, ListQuery, Page, paths};
use futures::{Stream, StreamExt as _};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::failure::{Exit, Failure, OrFail as _};
use crate::home::Home;
use crate::trust::{self, Identity, Seen, Trust};

/// How long an ordinary request may take.
const REQUEST: Duration = Duration::from_secs(60);
/// How long a connection may take to come up.
const CONNECT: Duration = Duration::from_secs(10);
/// Longest answer that is read.
const ANSWER_LIMIT: usize = 64 << 20;

/// A connection to one cloud.
pub struct Client {
    http: reqwest::Client,
    base: String,
    cookie: Option<String>,
    seen: Seen,
}

/// A request without parameters.
pub const NOTHING: &ListQuery = &ListQuery {
    limit: None,
    offset: None,
    search: None,
};

impl Client {
    /// With the certificate that `aos login` left in `home`.
    pub fn signed_in(home: &Home) -> Result<Self, Failure> {
        let cloud = home.cloud()?;
        let chain = home.read(&home.certificate_file())?;
        let key = home.read(&home.key_file())?;
        let trust = Trust::pem(&home.read(&home.ca_file())?)?;
        Self::new(
            &cloud.url,
            &trust,
            Some(&Identity {
                chain: &chain,
                key: &key,
            }),
        )
    }

    /// To `url`, trusting `trust`, as `identity`.
    pub fn new(url: &str, trust: &Trust, identity: Option<&Identity<'_>>) -> Result<Self, Failure> {
        let base = url.trim_end_matches('/').to_owned();
        if !base.starts_with("https://") {
            return Err(
                Failure::new(format!("`{url}` is not the address of a cloud"))
                    .why("it does not begin with https://")
                    .hint("write it as https://<host>:10000"),
            );
        }
        let (tls, seen) = trust::configuration(trust, identity)?;
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .https_only(true)
            .no_proxy()
            .connect_timeout(CONNECT)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("aos/", env!("CARGO_PKG_VERSION")))
            .build()
            .or_fail(|| "cannot set up HTTP")?;
        Ok(Self {
            http,
            base,
            cookie: None,
            seen,
        })
    }

    /// The address, without a slash at the end.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The root certificate (DER) that the cloud was found to chain to.
    pub fn root(&self) -> Option<Vec<u8>> {
        self.seen.root()
    }

    /// From now on requests carry this session cookie.
    pub fn set_cookie(&mut self, cookie: String) {
        self.cookie = Some(cookie);
    }

    /// `GET`, the answer as JSON.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.get_with(path, NOTHING).await
    }

    /// `GET` with a query, the answer as JSON.
    pub async fn get_with<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &impl Serialize,
    ) -> Result<T, Failure> {
        let path = with_query(path, query)?;
        read(
            &self
                .send(self.request(Method::GET, &path).timeout(REQUEST))
                .await?
                .json_text()
                .await?,
        )
    }

    /// All elements of a list, page by page.
    pub async fn all<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>, Failure> {
        let mut all = Vec::new();
        loop {
            let query = ListQuery {
                limit: Some(1000),
                offset: Some(u32::try_from(all.len()).unwrap_or(u32::MAX)),
                search: None,
            };
            let page: Page<T> = self.get_with(path, &query).await?;
            let last = page.items.is_empty();
            all.extend(page.items);
            if last || all.len() as u64 >= page.total {
                return Ok(all);
            }
        }
    }

    /// `POST`, `PUT` or `PATCH` of JSON, the answer as JSON.
    pub async fn write<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        let request = self.request(method, path).timeout(REQUEST).json(body);
        read(&self.send(request).await?.json_text().await?)
    }

    /// `POST` of JSON, the answer as JSON.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        self.write(Method::POST, path, body).await
    }

    /// `POST` with a query and without a body, the answer as JSON.
    pub async fn post_query<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &impl Serialize,
    ) -> Result<T, Failure> {
        let path = with_query(path, query)?;
        let request = self.request(Method::POST, &path).timeout(REQUEST);
        read(&self.send(request).await?.json_text().await?)
    }

    /// `POST` without a body and without an interesting answer.
    pub async fn post_empty(&self, path: &str) -> Result<(), Failure> {
        self.send(self.request(Method::POST, path).timeout(REQUEST))
            .await?;
        Ok(())
    }

    /// `POST` of JSON: the answer's JSON and the session cookie that came with it.
    pub async fn post_for_session<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<(T, String), Failure> {
        let request = self.request(Method::POST, path).timeout(REQUEST).json(body);
        let answer = self.send(request).await?;
        let cookie = answer
            .response
            .headers()
            .get_all(reqwest::header::SET_COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok()?.split(';').next())
            .find(|pair| pair.starts_with(paths::SESSION_COOKIE))
            .map(str::to_owned)
            .ok_or_else(|| Failure::new("signing in gave no session"))?;
        Ok((read(&answer.json_text().await?)?, cookie))
    }

    /// `DELETE`.
    pub async fn delete(&self, path: &str) -> Result<(), Failure> {
        self.send(self.request(Method::DELETE, path).timeout(REQUEST))
            .await?;
        Ok(())
    }

    /// `POST` of a form with one file. It may take as long as it moves.
    pub async fn upload<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &impl Serialize,
        file: reqwest::multipart::Part,
    ) -> Result<T, Failure> {
        let path = with_query(path, query)?;
        let form = reqwest::multipart::Form::new().part("file", file);
        let request = self.request(Method::POST, &path).multipart(form);
        read(&self.send(request).await?.json_text().await?)
    }

    /// The cloud's changes as they happen. Ends when the connection does.
    pub async fn events(
        &self,
    ) -> Result<Pin<Box<dyn Stream<Item = aos_api::ChangeEvent> + Send>>, Failure> {
        let answer = self.send(self.request(Method::GET, paths::EVENTS)).await?;
        let lines = Lines {
            body: Box::pin(answer.response.bytes_stream()),
            rest: Vec::new(),
        };
        Ok(Box::pin(futures::stream::unfold(
            lines,
            |mut lines| async move {
                loop {
                    let line = lines.next().await?;
                    let Some(data) = line.strip_prefix("data:") else {
                        continue;
                    };
                    if let Ok(event) = serde_json::from_str(data.trim()) {
                        return Some((event, lines));
                    }
                }
            },
        )))
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let mut request = self
            .http
            .request(method, format!("{}{path}", self.base))
            .header(paths::CSRF_HEADER, "cli");
        if let Some(cookie) = &self.cookie {
            request = request.header(reqwest::header::COOKIE, cookie);
        }
        request
    }

    async fn send(&self, request: RequestBuilder) -> Result<Answer, Failure> {
        let response = request
            .send()
            .await
            .map_err(|error| self.no_answer(&error))?;
        if response.status().is_success() {
            return Ok(Answer { response });
        }
        Err(refusal(response).await)
    }

    /// Why there was no answer at all.
    fn no_answer(&self, error: &reqwest::Error) -> Failure {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(this) = cause {
            if let Some(broken) = this.downcast_ref::<rustls::Error>() {
                let why = aos_pki::handshake_reason(broken);
                return match broken {
                    rustls::Error::General(_) | rustls::Error::InvalidCertificate(_) => {
                        trust::not_trusted(&self.base, &why)
                    }
                    _ => Failure::new(format!("{} refused the connection", self.base))
                        .why(why)
                        .hint("your certificate may have run out: sign in again with `aos login`")
                        .exit(Exit::NotAllowed),
                };
            }
            // An error inside an `io::Error` is not its source but its content.
            if let Some(inner) = this
                .downcast_ref::<std::io::Error>()
                .and_then(|e| e.get_ref())
            {
                cause = Some(inner);
                continue;
            }
            cause = this.source();
        }
        Failure::because(
            format!("cannot reach the cloud at {}", self.base),
            &error.without_url_ref(),
        )
        .hint("check that `aos cloud serve` runs there and that the address is right")
        .exit(Exit::NotReachable)
    }
}

/// reqwest repeats the URL in each error's text; the failure says it already.
trait WithoutUrl {
    fn without_url_ref(&self) -> Chain;
}

impl WithoutUrl for reqwest::Error {
    fn without_url_ref(&self) -> Chain {
        let mut texts = Vec::new();
        let mut next = std::error::Error::source(self);
        while let Some(error) = next {
            texts.push(error.to_string());
            next = error.source();
        }
        if texts.is_empty() {
            texts.push(if self.is_timeout() {
                "it took too long".into()
            } else {
                self.to_string()
            });
        }
        Chain(texts.last().cloned().unwrap_or_default())
    }
}

/// The innermost cause of an error.
#[derive(Debug)]
struct Chain(String);

impl std::fmt::Display for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Chain {}

/// An answer with a good status.
struct Answer {
    response: Response,
}

impl Answer {
    async fn json_text(self) -> Result<String, Failure> {
        let mut body = Vec::new();
        let mut chunks = self.response.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.or_fail(|| "the answer broke off")?;
            if body.len() + chunk.len() > ANSWER_LIMIT {
                return Err(Failure::new(
                    "the answer is longer than 64 MiB and was not read",
                ));
            }
            body.extend_from_slice(&chunk);
        }
        String::from_utf8(body).or_fail(|| "the answer is not UTF-8")
    }
}

fn read<T: DeserializeOwned>(text: &str) -> Result<T, Failure> {
    serde_json::from_str(text)
        .or_fail(|| "the cloud answered in words this program does not know")
        .map_err(|failure| failure.hint("use the same version of `aos` on both sides"))
}

async fn refusal(response: Response) -> Failure {
    let status = response.status();
    let text = Answer { response }.json_text().await.unwrap_or_default();
    let body = serde_json::from_str::<ErrorBody>(&text).unwrap_or_else(|_| ErrorBody {
        message: if status.is_server_error() {
            "the cloud met an error of its own; its log says more".to_owned()
        } else {
            text.chars().take(200).collect()
        },
        ..ErrorBody::default()
    });
    let (what, exit) = match status {
        StatusCode::UNAUTHORIZED => ("the cloud does not know you", Exit::NotAllowed),
        StatusCode::FORBIDDEN => ("the cloud does not allow this", Exit::NotAllowed),
        StatusCode::NOT_FOUND => ("the cloud does not have this", Exit::NotFound),
        StatusCode::TOO_MANY_REQUESTS => ("the cloud asks to slow down", Exit::Refused),
        status if status.is_client_error() => ("the cloud refused this", Exit::Refused),
        _ => ("the cloud failed", Exit::Failed),
    };
    let mut failure = Failure::new(format!("{what} ({})", status.as_u16())).exit(exit);
    failure = match body.field {
        Some(field) => failure.why(format!("{field}: {}", body.message)),
        None => failure.why(body.message),
    };
    match body.hint {
        Some(hint) => failure.hint(hint),
        None if status == StatusCode::UNAUTHORIZED => failure.hint("sign in: `aos login …`"),
        None => failure,
    }
}

/// Appends the fields of `query` to `path`.
fn with_query(path: &str, query: &impl Serialize) -> Result<String, Failure> {
    let value = serde_json::to_value(query).or_fail(|| "cannot write down the query")?;
    let mut out = path.to_owned();
    let mut separator = '?';
    for (name, value) in value.as_object().into_iter().flatten() {
        let text = match value {
            serde_json::Value::Null => continue,
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        out.push(separator);
        separator = '&';
        out.push_str(name);
        out.push('=');
        out.push_str(&paths::fill("{v}", &[&text]));
    }
    Ok(out)
}

/// The lines of a body that never ends.
struct Lines<S> {
    body: Pin<Box<S>>,
    rest: Vec<u8>,
}

impl<S> Lines<S>
where
    S: Stream<Item = reqwest::Result<bytes::Bytes>>,
{
    async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=at).collect();
                return Some(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            // One event is a few hundred bytes: a longer line is not the protocol.
            if self.rest.len() > 1 << 20 {
                return None;
            }
            self.rest.extend_from_slice(&self.body.next().await?.ok()?);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_encoded() {
        let query = ListQuery {
            limit: Some(5),
            offset: None,
            search: Some("a b&c".into()),
        };
        assert_eq!(
            with_query("/x/", &query).unwrap(),
            "/x/?limit=5&search=a%20b%26c"
        );
        assert_eq!(with_query("/x/", NOTHING).unwrap(), "/x/");
    }

    #[test]
    fn only_https_is_an_address() {
        let Err(failure) = Client::new("http://localhost:10000", &Trust::Nobody, None) else {
            panic!("plain http was accepted");
        };
        assert!(
            failure.to_string().contains("https://<host>:10000"),
            "{failure}"
        );
    }

    #[tokio::test]
    async fn a_cloud_that_is_not_there_is_said_so() {
        // A port that was free a moment ago.
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let url = format!("https://127.0.0.1:{port}");
        let client = Client::new(&url, &Trust::Nobody, None).unwrap();
        let failure = client.get::<aos_api::Me>(paths::ME).await.unwrap_err();
        assert_eq!(failure.code(), Exit::NotReachable);
        let text = failure.to_string();
        assert!(
            text.starts_with("error: cannot reach the cloud at https://127.0.0.1:"),
            "{text}"
        );
        assert!(text.contains("refused"), "{text}");
    }
}
