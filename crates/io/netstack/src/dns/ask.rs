use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use hickory_proto::op::{Message, MessageType};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use super::{PORT, Turn};

/// How long one name server may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many are asked before it is given up.
const SERVERS: usize = 3;
/// Longest answer over UDP.
const LONGEST: usize = 4_096;

/// Asks one after the other; the answer is that of the first that has one.
pub(super) async fn udp(servers: &[IpAddr], query: &[u8], turn: Turn) -> Option<Vec<u8>> {
    let _turn = turn;
    for server in servers.iter().take(SERVERS) {
        if let Ok(Ok(answer)) = timeout(PATIENCE, datagram(*server, query)).await {
            return Some(answer);
        }
    }
    None
}

/// The same over TCP.
pub(super) async fn tcp(servers: &[IpAddr], query: &[u8], turn: Turn) -> Option<Vec<u8>> {
    let _turn = turn;
    for server in servers.iter().take(SERVERS) {
        if let Ok(Ok(answer)) = timeout(PATIENCE, stream(*server, query)).await {
            return Some(answer);
        }
    }
    None
}

async fn datagram(server: IpAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let here: IpAddr = if server.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    // A port of its own for every question: an answer cannot be guessed from outside.
    let socket = UdpSocket::bind(SocketAddr::new(here, 0)).await?;
    socket.connect(SocketAddr::new(server, PORT)).await?;
    let (sent, id) = with_id(query)?;
    socket.send(&sent).await?;
    let mut buffer = vec![0; LONGEST];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let answer = buffer.get(..length).unwrap_or_default();
        if fits(answer, &sent) {
            return Ok(restored(answer, id));
        }
    }
}

async fn stream(server: IpAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(SocketAddr::new(server, PORT)).await?;
    let (sent, id) = with_id(query)?;
    let length = u16::try_from(sent.len()).map_err(io::Error::other)?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(&sent).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    if fits(&answer, &sent) {
        Ok(restored(&answer, id))
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}

/// The query under a number that the one who asks does not know, and the number it had.
fn with_id(query: &[u8]) -> io::Result<(Vec<u8>, [u8; 2])> {
    let mut sent = query.to_vec();
    let id = sent
        .first_chunk_mut::<2>()
        .ok_or(io::ErrorKind::InvalidData)?;
    let before = *id;
    *id = rand::random();
    Ok((sent, before))
}

fn restored(answer: &[u8], id: [u8; 2]) -> Vec<u8> {
    let mut answer = answer.to_vec();
    if let Some(place) = answer.first_chunk_mut::<2>() {
        *place = id;
    }
    answer
}

/// Whether it answers just this question.
fn fits(answer: &[u8], query: &[u8]) -> bool {
    let (Ok(answer), Ok(query)) = (Message::from_vec(answer), Message::from_vec(query)) else {
        return false;
    };
    answer.metadata.message_type == MessageType::Response
        && answer.metadata.id == query.metadata.id
        && answer.queries == query.queries
}
