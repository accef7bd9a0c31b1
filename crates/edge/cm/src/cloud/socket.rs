use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use aos_cloud_protocol::Caps;
use aos_pki::ClientTls;
use futures::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use http::{HeaderValue, Request, StatusCode, Uri, header};
use tokio::{
    net::{TcpStream, lookup_host},
    sync::mpsc,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Message,
        error::ProtocolError,
        handshake::client::generate_key,
        protocol::{CloseFrame, WebSocketConfig, frame::coding::CloseCode},
    },
};
use tokio_util::sync::CancellationToken;

/// How long connecting, and separately the TLS handshake, may take.
const DIAL: Duration = Duration::from_secs(10);
/// How long one address of several may take.
const DIAL_ONE: Duration = Duration::from_secs(4);
/// How long one frame may take to leave.
const SEND: Duration = Duration::from_secs(30);
/// The read buffer of the socket: small, because it is there all the time.
const READ_BUFFER: usize = 8 * 1024;
/// Frames that may wait to leave. Far above what a session sends unanswered: a peer that lets so many wait does not read.
const UNSENT: usize = 256;
/// How long the last frames and the close frame may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// A WebSocket to the cloud.
pub(crate) type Stream = WebSocketStream<TlsStream<TcpStream>>;

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
    let stream = tokio::time::timeout(DIAL, connect(host, port))
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

/// Connects to the first address of a host that answers; one that swallows what is sent does not keep the others from
/// their turn.
async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let addresses: Vec<SocketAddr> = lookup_host((host, port)).await?.collect();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "its name has no address");
    for address in addresses {
        let tried = tokio::time::timeout(DIAL_ONE, TcpStream::connect(address)).await;
        match tried.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Opens a WebSocket with a bearer token.
pub(crate) async fn open(
    url: &str,
    token: &str,
    tls: &ClientTls,
    caps: &Caps,
) -> Result<Stream, OpenError> {
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
        .max_message_size(Some(caps.frame_bytes()))
        .max_frame_size(Some(caps.frame_bytes()));
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
    /// A frame is longer than anything that is read; it is over.
    TooLong(String),
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
    /// Runs the socket in two tasks, which end with it. What is heard goes to `heard` with `number`, which tells
    /// connections apart.
    pub(crate) fn start(stream: Stream, number: u64, heard: mpsc::Sender<(u64, Heard)>) -> Self {
        let (sink, source) = stream.split();
        let (frames, to_send) = mpsc::channel(UNSENT);
        let closing = CancellationToken::new();
        let tell = heard.clone();
        tokio::spawn(read(source, number, heard, frames.clone(), closing.clone()));
        tokio::spawn(write(sink, number, tell, to_send, closing.clone()));
        Self { frames, closing }
    }

    /// Sends a frame. `false` if the connection is over or so many wait already that the peer cannot be reading.
    pub(crate) fn send(&self, frame: Message) -> bool {
        self.frames.try_send(frame).is_ok()
    }
}

async fn read(
    mut source: SplitStream<Stream>,
    number: u64,
    heard: mpsc::Sender<(u64, Heard)>,
    frames: mpsc::Sender<Message>,
    closing: CancellationToken,
) {
    loop {
        // Reading is cancel-safe; a frame that was read is always passed on.
        let next = tokio::select! {
            next = source.next() => next,
            () = closing.cancelled() => return,
        };
        let what = match next {
            Some(Ok(Message::Binary(frame))) => Heard::Frame(frame.into()),
            // The reference ignores text; a peer that sends it means the same.
            Some(Ok(Message::Text(text))) => Heard::Frame(text.as_bytes().to_vec()),
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Heard::Alive,
            Some(Ok(Message::Close(_))) | None => Heard::Closed("the cloud closed it".into()),
            Some(Err(error @ tungstenite::Error::Capacity(_))) => {
                let close = CloseFrame {
                    code: CloseCode::Size,
                    reason: "the message is too long".into(),
                };
                // If there is no room the connection is closed without a word.
                let _ = frames.try_send(Message::Close(Some(close)));
                Heard::TooLong(error.to_string())
            }
            Some(Err(error)) => Heard::Closed(plain(&error)),
        };
        let over = matches!(what, Heard::Closed(_) | Heard::TooLong(_));
        // Whoever listened may have turned to another connection: then nobody takes this.
        let told = tokio::select! {
            told = heard.send((number, what)) => told.is_ok(),
            () = closing.cancelled() => false,
        };
        if over || !told {
            return;
        }
    }
}

async fn write(
    mut sink: SplitSink<Stream, Message>,
    number: u64,
    tell: mpsc::Sender<(u64, Heard)>,
    mut to_send: mpsc::Receiver<Message>,
    closing: CancellationToken,
) {
    loop {
        // Receiving is cancel-safe.
        let next = tokio::select! {
            biased;
            () = closing.cancelled() => None,
            next = to_send.recv() => next,
        };
        let Some(frame) = next else {
            let goodbye = async {
                while let Ok(frame) = to_send.try_recv() {
                    sink.send(frame).await?;
                }
                sink.close().await
            };
            // The peer may be gone already.
            let _ = tokio::time::timeout(GOODBYE, goodbye).await;
            return;
        };
        let sent = tokio::time::timeout(SEND, sink.send(frame)).await;
        let why = match sent {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => plain(&error),
            Err(_) => format!("a frame did not leave in {} s", SEND.as_secs()),
        };
        tokio::select! {
            _ = tell.send((number, Heard::Closed(why))) => {}
            () = closing.cancelled() => {}
        }
        return;
    }
}

/// Why a connection ended, without the advice that TLS libraries give to programmers.
fn plain(error: &tungstenite::Error) -> String {
    use io::ErrorKind as Kind;
    let broken = "the cloud broke it off";
    match error {
        tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => {
            "the cloud closed it".into()
        }
        tungstenite::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => broken.into(),
        tungstenite::Error::Io(error) => match error.kind() {
            Kind::UnexpectedEof
            | Kind::ConnectionReset
            | Kind::ConnectionAborted
            | Kind::BrokenPipe => broken.into(),
            Kind::TimedOut => "the cloud cannot be reached any more".into(),
            _ => error.to_string(),
        },
        error => error.to_string(),
    }
}
