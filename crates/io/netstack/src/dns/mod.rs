//! The name server of a Node's instances.
//!
//! It listens on the Node's own address in each network, so an instance's gateway is its name server, and works without
//! CM and the cloud. [`Zone`] says who sees which name; what the Unit does not know goes to the name servers of the world
//! if the one who asks may. Everything is bounded: the questions of one asker, those under way, their connections, and
//! every wait.

mod answer;
mod ask;
mod bounds;
mod zone;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{OwnedSemaphorePermit, watch},
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use answer::Decision;
use bounds::Bounds;
pub use zone::{Asker, Host, Zone};

/// The port of DNS.
const PORT: u16 = 53;
/// Longest question; there is nothing longer.
const LONGEST: usize = 4_096;
/// How long a TCP connection may say nothing, and how long it may last.
const SILENCE: Duration = Duration::from_secs(5);
const LASTS: Duration = Duration::from_secs(30);
/// The pause before an address that could not be had is tried again.
const AGAIN: Duration = Duration::from_millis(500);

/// What the server answers with, and where it listens. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Names {
    zone: watch::Sender<Arc<Zone>>,
    places: watch::Sender<BTreeSet<IpAddr>>,
}

impl Names {
    /// Answers with these names from now on, on these addresses.
    pub fn set(&self, zone: Zone, places: BTreeSet<IpAddr>) {
        self.zone.send_replace(Arc::new(zone));
        self.places.send_if_modified(|now| {
            let differs = *now != places;
            *now = places;
            differs
        });
    }

    /// Serves until `stop`. An address that cannot be had is tried again and again; the others are served meanwhile.
    pub async fn serve(&self, stop: CancellationToken) {
        let mut places = self.places.subscribe();
        let mut served: BTreeMap<IpAddr, CancellationToken> = BTreeMap::new();
        let mut tasks = JoinSet::new();
        let bounds = Arc::new(Bounds::default());
        loop {
            let wanted = places.borrow_and_update().clone();
            served.retain(|place, token| {
                let stays = wanted.contains(place);
                if !stays {
                    token.cancel();
                }
                stays
            });
            for place in wanted {
                served.entry(place).or_insert_with(|| {
                    let token = stop.child_token();
                    let server = Server {
                        place,
                        zone: self.zone.clone(),
                        bounds: bounds.clone(),
                    };
                    tasks.spawn(Arc::new(server).keep(token.clone()));
                    token
                });
            }
            // Ended tasks are taken away; nothing is lost when another arm wins.
            tokio::select! {
                changed = places.changed() => if changed.is_err() { break },
                Some(_) = tasks.join_next() => {}
                () = stop.cancelled() => break,
            }
        }
        stop.cancel();
        tasks.shutdown().await;
    }
}

/// One address on which names are served.
struct Server {
    place: IpAddr,
    zone: watch::Sender<Arc<Zone>>,
    bounds: Arc<Bounds>,
}

impl Server {
    async fn keep(self: Arc<Self>, stop: CancellationToken) {
        let mut told = false;
        while !stop.is_cancelled() {
            let server = self.clone();
            let ended = tokio::select! {
                ended = server.serve() => ended,
                () = stop.cancelled() => return,
            };
            if let Err(error) = ended
                && !told
            {
                told = true;
                tracing::warn!(place = %self.place, %error, "names cannot be served here; it is tried again");
            }
            tokio::select! {
                () = tokio::time::sleep(AGAIN) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn serve(self: Arc<Self>) -> io::Result<()> {
        let place = SocketAddr::new(self.place, PORT);
        let socket = Arc::new(UdpSocket::bind(place).await?);
        let listener = TcpListener::bind(place).await?;
        // All end with this set.
        let mut tasks: JoinSet<()> = JoinSet::new();
        let mut buffer = vec![0; LONGEST];
        loop {
            // Cancel-safe: a datagram or connection is taken whole or stays in the socket.
            tokio::select! {
                received = socket.recv_from(&mut buffer) => match received {
                    Ok((length, asker)) => {
                        let query = buffer.get(..length).unwrap_or_default();
                        self.datagram(&socket, query, asker, &mut tasks).await;
                    }
                    // The last answer was for somebody who is gone.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                    Err(error) => return Err(error),
                },
                accepted = listener.accept() => {
                    let (stream, asker) = accepted?;
                    if let Some(turn) = self.bounds.connection(asker.ip())
                        && self.zone.borrow().knows_asker(asker.ip().to_canonical())
                    {
                        let server = self.clone();
                        tasks.spawn(async move {
                            let _ = timeout(LASTS, server.connection(stream, asker.ip())).await;
                            drop(turn);
                        });
                    }
                }
                Some(_) = tasks.join_next() => {}
            }
        }
    }

    async fn datagram(
        self: &Arc<Self>,
        socket: &Arc<UdpSocket>,
        query: &[u8],
        asker: SocketAddr,
        tasks: &mut JoinSet<()>,
    ) {
        if !self.bounds.question(asker.ip(), Instant::now()) {
            return;
        }
        let zone = self.zone.borrow().clone();
        match answer::decide(&zone, asker.ip().to_canonical(), query, false) {
            Decision::Drop => {}
            Decision::Reply(bytes) => {
                // A full socket drops it, as the network might.
                let _ = socket.try_send_to(&bytes, asker);
            }
            Decision::Ask(servers) => {
                let Some(turn) = self.bounds.under_way(asker.ip()) else {
                    return;
                };
                let (socket, query) = (socket.clone(), query.to_vec());
                tasks.spawn(async move {
                    let bytes = ask::udp(&servers, &query, turn).await;
                    if let Some(bytes) = bytes.or_else(|| answer::failed(&query)) {
                        let _ = socket.send_to(&bytes, asker).await;
                    }
                });
            }
        }
    }

    async fn connection(&self, mut stream: TcpStream, asker: IpAddr) -> io::Result<()> {
        loop {
            let deadline = Instant::now() + SILENCE;
            let length = timeout_at(deadline, stream.read_u16()).await??;
            let mut query = vec![0; usize::from(length)];
            timeout_at(deadline, stream.read_exact(&mut query)).await??;
            if !self.bounds.question(asker, Instant::now()) {
                return Ok(());
            }
            let zone = self.zone.borrow().clone();
            let bytes = match answer::decide(&zone, asker.to_canonical(), &query, true) {
                Decision::Drop => return Ok(()),
                Decision::Reply(bytes) => bytes,
                Decision::Ask(servers) => {
                    let answer = match self.bounds.under_way(asker) {
                        Some(turn) => ask::tcp(&servers, &query, turn).await,
                        None => None,
                    };
                    match answer.or_else(|| answer::failed(&query)) {
                        Some(bytes) => bytes,
                        None => return Ok(()),
                    }
                }
            };
            let Ok(length) = u16::try_from(bytes.len()) else {
                return Ok(());
            };
            let mut framed = length.to_be_bytes().to_vec();
            framed.extend(bytes);
            timeout(SILENCE, stream.write_all(&framed)).await??;
        }
    }
}

/// A place among those that are under way.
type Turn = (OwnedSemaphorePermit, OwnedSemaphorePermit);
