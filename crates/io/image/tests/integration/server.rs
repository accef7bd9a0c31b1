//! A small HTTP server that misbehaves as told.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// How the server treats its n-th request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mood {
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
    /// Says the body is one byte longer.
    WrongLength,
    /// Never answers.
    Silent,
    /// Serves a piece of this size every 20 ms.
    Trickle(usize),
}

pub(crate) struct Server {
    pub url: String,
    requests: Arc<AtomicUsize>,
    ranges: Arc<Mutex<Vec<Option<u64>>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// Serves `content` at every path; the last mood stays.
    pub(crate) async fn start(content: Vec<u8>, moods: Vec<Mood>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/token", listener.local_addr().unwrap());
        let requests = Arc::new(AtomicUsize::new(0));
        let ranges = Arc::new(Mutex::new(Vec::new()));
        let (count, seen) = (requests.clone(), ranges.clone());
        let content = Arc::new(content);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let turn = count.fetch_add(1, Ordering::SeqCst);
                let mood = moods[turn.min(moods.len() - 1)];
                connections.spawn(serve(stream, content.clone(), mood, seen.clone()));
            }
        });
        Self {
            url,
            requests,
            ranges,
            task,
        }
    }

    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    /// Where each request wanted to start.
    pub(crate) fn ranges(&self) -> Vec<Option<u64>> {
        self.ranges.lock().unwrap().clone()
    }
}

async fn serve(
    mut stream: TcpStream,
    content: Arc<Vec<u8>>,
    mood: Mood,
    seen: Arc<Mutex<Vec<Option<u64>>>>,
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
    let from: Option<u64> = head
        .lines()
        .find_map(|line| line.strip_prefix("range: bytes="))
        .map(|range| range.trim_end_matches('-').parse().unwrap());
    seen.lock().unwrap().push(from);
    let total = content.len();
    let start = match mood {
        Mood::NoRange | Mood::WrongLength => 0,
        _ => usize::try_from(from.unwrap_or(0)).unwrap(),
    };
    let status = match mood {
        Mood::Status(status) => status,
        _ if start > 0 => 206,
        _ => 200,
    };
    if let Mood::Silent = mood {
        std::future::pending::<()>().await;
    }
    let mut body = content[start..].to_vec();
    if let Mood::Garbled = mood {
        body.iter_mut().for_each(|byte| *byte ^= 1);
    }
    let length = match mood {
        Mood::Status(_) => 0,
        Mood::WrongLength => body.len() + 1,
        _ => body.len(),
    };
    let range = if status == 206 {
        format!("Content-Range: bytes {start}-{}/{total}\r\n", total - 1)
    } else {
        String::new()
    };
    let answer = format!(
        "HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n{range}Connection: close\r\n\r\n"
    );
    let _ = stream.write_all(answer.as_bytes()).await;
    let sent = match mood {
        Mood::Status(_) => 0,
        Mood::BreakAfter(count) | Mood::StallAfter(count) => count.min(body.len()),
        _ => body.len(),
    };
    if let Mood::Trickle(piece) = mood {
        for piece in body.chunks(piece) {
            if stream.write_all(piece).await.is_err() || stream.flush().await.is_err() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        return;
    }
    let _ = stream.write_all(&body[..sent]).await;
    let _ = stream.flush().await;
    if let Mood::StallAfter(_) = mood {
        std::future::pending::<()>().await;
    }
}
