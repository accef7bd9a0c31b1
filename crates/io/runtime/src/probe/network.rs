use std::{fs::File, io, net::Ipv4Addr, time::Duration};

use nix::sched::{CloneFlags, setns};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::oneshot,
    time,
};

use super::Unhealthy;

/// Longest first line of an answer.
const MAX_LINE: usize = 1_024;
/// How much of the rest is read, so that a server does not see its client leave in the middle of a usual page.
const MAX_REST: usize = 64 << 10;
const REST: Duration = Duration::from_millis(200);

/// Connects to a port of the network namespace in which the process `pid` is.
pub(crate) async fn tcp(pid: u32, port: u16, timeout: Duration) -> Result<(), Unhealthy> {
    within(timeout, connect(pid, port)).await.map(drop)
}

/// Gets a page over plain HTTP from that namespace; only the status of the answer counts.
pub(crate) async fn http(
    pid: u32,
    port: u16,
    path: &str,
    timeout: Duration,
) -> Result<(), Unhealthy> {
    let get = async {
        let mut stream = connect(pid, port).await?;
        let broken = |source| Unhealthy::Connection { port, source };
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nUser-Agent: aos-health-check\r\n\
             Accept: */*\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.map_err(broken)?;
        let mut answer = Vec::new();
        while !answer.contains(&b'\n') && answer.len() < MAX_LINE {
            let mut some = [0; MAX_LINE];
            match stream.read(&mut some).await.map_err(broken)? {
                0 => break,
                count => answer.extend_from_slice(some.get(..count).unwrap_or_default()),
            }
        }
        let status = status(&answer).ok_or(Unhealthy::NotHttp)?;
        // What is missing of the page is no fault.
        let _ = time::timeout(REST, rest(&mut stream)).await;
        match status {
            200..=399 => Ok(()),
            other => Err(Unhealthy::Status(other)),
        }
    };
    within(timeout, get).await
}

async fn within<T>(
    timeout: Duration,
    work: impl Future<Output = Result<T, Unhealthy>>,
) -> Result<T, Unhealthy> {
    time::timeout(timeout, work)
        .await
        .unwrap_or(Err(Unhealthy::Timeout(timeout)))
}

async fn rest(stream: &mut TcpStream) {
    let mut some = [0; 4_096];
    let mut seen = 0;
    while seen < MAX_REST {
        match stream.read(&mut some).await {
            Ok(0) | Err(_) => return,
            Ok(count) => seen += count,
        }
    }
}

async fn connect(pid: u32, port: u16) -> Result<TcpStream, Unhealthy> {
    let socket = socket_at(pid).await.map_err(Unhealthy::Untried)?;
    socket
        .connect((Ipv4Addr::LOCALHOST, port).into())
        .await
        .map_err(|source| Unhealthy::Connection { port, source })
}

/// A socket in the network namespace of a process. A socket stays in the namespace in which it was made, so only a
/// short-lived thread has to enter it, and no rule of a firewall lies between.
async fn socket_at(pid: u32) -> io::Result<TcpSocket> {
    let (give, socket) = oneshot::channel();
    std::thread::Builder::new()
        .name("aos-probe".into())
        .spawn(move || {
            // Whoever asked may have given up.
            let _ = give.send(enter(pid));
        })?;
    socket
        .await
        .unwrap_or_else(|_| Err(io::Error::other("the thread of a probe has failed")))
}

fn enter(pid: u32) -> io::Result<TcpSocket> {
    let namespace = File::open(format!("/proc/{pid}/ns/net"))?;
    setns(namespace, CloneFlags::CLONE_NEWNET)?;
    TcpSocket::new_v4()
}

/// The status of an HTTP/1 answer.
fn status(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|&byte| byte == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.split_ascii_whitespace();
    words.next()?.strip_prefix("HTTP/1.")?;
    let status = words.next()?;
    (status.len() == 3).then(|| status.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_status_line_counts() {
        for (answer, wanted) in [
            ("HTTP/1.1 200 OK\r\nServer: x\r\n", Some(200)),
            ("HTTP/1.0 503\n", Some(503)),
            ("HTTP/2 200\r\n", None),
            ("HTTP/1.1 20000 OK\r\n", None),
            ("HTTP/1.1 abc\r\n", None),
            ("SSH-2.0-OpenSSH\r\n", None),
            ("HTTP/1.1", None),
            ("", None),
        ] {
            assert_eq!(status(answer.as_bytes()), wanted, "{answer}");
        }
        assert_eq!(status(&[0xff; 20]), None);
    }

    #[tokio::test]
    async fn a_process_that_is_gone_says_nothing_about_health() {
        let error = tcp(u32::MAX, 80, Duration::from_secs(1)).await.unwrap_err();
        assert!(error.is_untried(), "{error}");
    }
}
