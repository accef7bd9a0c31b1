use std::{io, sync::Arc, time::Duration};

use aos_cloud_protocol::Caps;
use aos_pki::ClientTls;
use futures::{SinkExt, StreamExt};
use http::{HeaderValue, Request, StatusCode, Uri, header};
use tokio::{net::TcpStream, sync::mpsc};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{self, Message, handshake::client::generate_key, protocol::WebSocketConfig},
};
use tokio_util::sync::CancellationToken;

/// How long connecting, and separately the TLS handshake, may take.
const DIAL: Duration = Duration::from_secs(10);
/// How long one frame may take to leave.
const SEND: Duration = Duration::from_secs(30);
/// The read buffer of the socket: small, because it is there all the time.
const READ_BUFFER: usize = 8 * 1024;

/// Why there is no TLS connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("its address has no host that could be connected to")]
    Address,
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    #[error("cannot agree on TLS")]
    Tls(#[source] io::Error),
    #[error("it did not answer in {} s", DIAL.as_secs())]
    Timeout,
}

/// Why there is no WebSocket.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("`{url}` is not a wss address")]
    NotWss { url: String },
    #[error("cannot reach {url}")]
    Dial {
        url: String,
        #[source]
        source: DialError,
    },
    #[error("{url} does not accept our token any more")]
    Unauthorized { url: String },
    #[error("{url} does not open a WebSocket")]
    Handshake {
        url: String,
        #[source]
        source: Box<tungstenite::Error>,
    },
}

/// Connects by TCP and TLS to the host of `uri`.
pub(crate) async fn dial(uri: &Uri, tls: &ClientTls) -> Result<TlsStream<TcpStream>, DialError> {
    let host = uri.host().ok_or(DialError::Address)?;
    let host = host.trim_matches(['[', ']']);
    let port = uri.port_u16().unwrap_or(443);
    let name = tls.name_for(host).ok_or(DialError::Address)?;
    let stream = tokio::time::timeout(DIAL, TcpStream::connect((host, port)))
        .await
        .map_err(|_| DialError::Timeout)?
        .map_err(DialError::Connect)?;
    stream.set_nodelay(true).map_err(DialError::Connect)?;
    let connector = TlsConnector::from(Arc::clone(&tls.config));
    tokio::time::timeout(DIAL, connector.connect(name, stream))
        .await
        .map_err(|_| DialError::Timeout)?
        .map_err(DialError::Tls)
}

/// Opens a WebSocket with a bearer token.
pub(crate) async fn open(
    url: &str,
    token: &str,
    tls: &ClientTls,
    caps: &Caps,
) -> Result<WebSocketStream<TlsStream<TcpStream>>, OpenError> {
    let not_wss = || OpenError::NotWss { url: url.into() };
    let uri: Uri = url.parse().map_err(|_| not_wss())?;
    if !matches!(uri.scheme_str(), Some("wss" | "https")) {
        return Err(not_wss());
    }
    let authority = uri.authority().ok_or_else(not_wss)?.to_string();
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let target = format!("wss://{authority}{path}");
    let mut bearer = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| not_wss())?;
    bearer.set_sensitive(true);
    let request = Request::get(target)
        .header(header::HOST, authority.as_str())
        .header(header::AUTHORIZATION, bearer)
        .header(header::ACCEPT, "application/json")
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, generate_key())
        .body(())
        .map_err(|_| not_wss())?;
    let stream = dial(&uri, tls).await.map_err(|source| OpenError::Dial {
        url: url.into(),
        source,
    })?;
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .max_message_size(Some(caps.message_bytes))
        .max_frame_size(Some(caps.message_bytes));
    let shake = tokio_tungstenite::client_async_with_config(request, stream, Some(config));
    let shaken = tokio::time::timeout(DIAL, shake).await;
    let shaken = shaken.map_err(|_| OpenError::Dial {
        url: url.into(),
        source: DialError::Timeout,
    })?;
    match shaken {
        Ok((socket, _)) => Ok(socket),
        Err(tungstenite::Error::Http(answer)) if answer.status() == StatusCode::UNAUTHORIZED => {
            Err(OpenError::Unauthorized { url: url.into() })
        }
        Err(source) => Err(OpenError::Handshake {
            url: url.into(),
            source: Box::new(source),
        }),
    }
}

/// What a socket hears.
#[derive(Debug)]
pub(crate) enum Heard {
    /// A binary frame.
    Frame(Vec<u8>),
    /// A ping or pong.
    Alive,
    /// It is over; the text says why.
    Closed(String),
}

/// The socket of one connection. Dropping it closes the connection.
#[derive(Debug)]
pub(crate) struct Socket {
    frames: mpsc::Sender<Message>,
    closing: CancellationToken,
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.closing.cancel();
    }
}

impl Socket {
    /// Runs the socket in two tasks. What is heard goes to `heard` with `number`, which tells connections apart.
    pub(crate) fn start(
        stream: WebSocketStream<TlsStream<TcpStream>>,
        number: u64,
        heard: mpsc::Sender<(u64, Heard)>,
    ) -> Self {
        let (mut sink, mut source) = stream.split();
        let (frames, mut to_send) = mpsc::channel::<Message>(16);
        let closing = CancellationToken::new();
        let (reading, writing) = (closing.clone(), closing.clone());
        let tell = heard.clone();
        tokio::spawn(async move {
            loop {
                // Reading is cancel-safe; a frame that was read is always passed on.
                let next = tokio::select! {
                    next = source.next() => next,
                    () = reading.cancelled() => return,
                };
                let what = match next {
                    Some(Ok(Message::Binary(frame))) => Heard::Frame(frame.into()),
                    // The reference ignores text; a peer that sends it means the same.
                    Some(Ok(Message::Text(text))) => Heard::Frame(text.as_bytes().to_vec()),
                    Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {
                        Heard::Alive
                    }
                    Some(Ok(Message::Close(_))) => Heard::Closed("the cloud closed it".into()),
                    Some(Err(error)) => Heard::Closed(error.to_string()),
                    None => Heard::Closed("the cloud closed it".into()),
                };
                let over = matches!(what, Heard::Closed(_));
                if heard.send((number, what)).await.is_err() || over {
                    return;
                }
            }
        });
        tokio::spawn(async move {
            loop {
                let next = tokio::select! {
                    next = to_send.recv() => next,
                    () = writing.cancelled() => None,
                };
                let Some(frame) = next else {
                    let _ = tokio::time::timeout(Duration::from_secs(1), sink.close()).await;
                    return;
                };
                let sent = tokio::time::timeout(SEND, sink.send(frame)).await;
                let why = match sent {
                    Ok(Ok(())) => continue,
                    Ok(Err(error)) => error.to_string(),
                    Err(_) => format!("a frame did not leave in {} s", SEND.as_secs()),
                };
                let _ = tell.send((number, Heard::Closed(why))).await;
                return;
            }
        });
        Self { frames, closing }
    }

    /// Sends a frame. `false` if the connection is over or does not take any: it is not sent then.
    pub(crate) async fn send(&self, frame: Message) -> bool {
        let sent = tokio::time::timeout(SEND, self.frames.send(frame)).await;
        matches!(sent, Ok(Ok(())))
    }
}
