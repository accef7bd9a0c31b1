//! A blob server of the cloud, over real TLS, that misbehaves as told.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use aos_image::BlobStore;
use aos_pki::ServerTls;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Barrier,
};
use tokio_rustls::TlsAcceptor;

/// How the server treats its n-th request.
#[derive(Debug, Clone)]
pub(super) enum Mood {
    /// Serves the range asked for.
    Fine,
    /// Ignores the range.
    NoRange,
    /// Closes the connection after this many bytes of the body.
    BreakAfter(usize),
    /// Sends this many bytes of the body, then nothing.
    StallAfter(usize),
    /// Answers with this status.
    Status(u16),
    /// Sends other bytes of the same length.
    Garbled,
    /// Serves a piece of this size every 20 ms.
    Trickle(usize),
    /// Serves when so many clients wait at the same time.
    Together(Arc<Barrier>),
}

/// One request: its method, and where it wanted to start.
pub(super) type Seen = (String, Option<u64>);

pub(super) struct Faulty {
    pub(super) url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Faulty {
    /// Serves the blobs of the cloud at `<url>/<hex>`; the last mood stays.
    pub(super) async fn start(tls: ServerTls, blobs: BlobStore, moods: &[Mood]) -> Self {
        let mut config = (*tls.config).clone();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (count, noted) = (AtomicUsize::new(0), seen.clone());
        let moods = moods.to_vec();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let turn = count.fetch_add(1, Ordering::SeqCst);
                let mood = moods[turn.min(moods.len() - 1)].clone();
                let (acceptor, blobs, seen) = (acceptor.clone(), blobs.clone(), noted.clone());
                connections.spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve(stream, &blobs, mood, &seen).await;
                    }
                });
            }
        });
        Self { url, seen, task }
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(super) fn requests(&self) -> usize {
        self.seen().len()
    }
}

async fn serve(
    mut stream: tokio_rustls::server::TlsStream<TcpStream>,
    blobs: &BlobStore,
    mood: Mood,
    seen: &Mutex<Vec<Seen>>,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).await.unwrap_or(0) == 0 {
            return;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    let mut first = head.lines().next().unwrap().split(' ');
    let method = first.next().unwrap().to_owned();
    let hex = first.next().unwrap().trim_start_matches('/').to_owned();
    let from: Option<u64> = head
        .lines()
        .find_map(|line| line.strip_prefix("range: bytes="))
        .map(|range| range.trim_end_matches('-').parse().unwrap());
    seen.lock().unwrap().push((method, from));
    let digest = format!("sha256:{hex}").parse().unwrap();
    let content = blobs.read(&digest, u64::MAX).unwrap();
    if let Mood::Together(barrier) = &mood {
        barrier.wait().await;
    }
    let total = content.len();
    let start = match mood {
        Mood::NoRange => 0,
        _ => usize::try_from(from.unwrap_or(0)).unwrap().min(total),
    };
    let status = match mood {
        Mood::Status(status) => status,
        _ if start > 0 => 206,
        _ => 200,
    };
    let mut body = content[start..].to_vec();
    match mood {
        Mood::Garbled => body.iter_mut().for_each(|byte| *byte ^= 1),
        Mood::Status(_) => body.clear(),
        _ => {}
    }
    let range = match status {
        206 => format!("Content-Range: bytes {start}-{}/{total}\r\n", total - 1),
        _ => String::new(),
    };
    let answer = format!(
        "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n{range}Connection: close\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all(answer.as_bytes()).await;
    let (piece, most) = match mood {
        Mood::Trickle(piece) => (piece, body.len()),
        Mood::BreakAfter(count) | Mood::StallAfter(count) => (usize::MAX, count.min(body.len())),
        _ => (usize::MAX, body.len()),
    };
    for part in body[..most].chunks(piece) {
        let sent = stream.write_all(part).await;
        if sent.is_err() || stream.flush().await.is_err() {
            return;
        }
        if piece < usize::MAX {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    if let Mood::StallAfter(_) = mood {
        std::future::pending::<()>().await;
    }
    let _ = stream.shutdown().await;
}
