use std::fs;

use aos_types::Protocol;

/// States of sockets in `/proc/net`: TCP that listens, UDP that is not connected.
const TCP_LISTEN: &str = "0A";
const UDP_UNCONNECTED: &str = "07";

/// Whether somebody on the Node itself listens on a port, at whatever address.
pub fn is_listened_on(protocol: Protocol, port: u16) -> bool {
    let (names, state) = match protocol {
        Protocol::Tcp => (["tcp", "tcp6"], TCP_LISTEN),
        Protocol::Udp => (["udp", "udp6"], UDP_UNCONNECTED),
    };
    names.iter().any(|name| {
        // Of the thread: its network is not always that of the process.
        let table = fs::read_to_string(format!("/proc/thread-self/net/{name}"));
        table.is_ok_and(|table| has(&table, port, state))
    })
}

fn has(table: &str, port: u16, state: &str) -> bool {
    table.lines().skip(1).any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let local = fields.next().unwrap_or_default();
        let number = local.rsplit(':').next().unwrap_or_default();
        fields.nth(1) == Some(state) && u16::from_str_radix(number, 16) == Ok(port)
    })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn what_listens_here_is_found() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("[::1]:0").unwrap();
        let port = tcp.local_addr().unwrap().port();
        assert!(is_listened_on(Protocol::Tcp, port));
        assert!(is_listened_on(
            Protocol::Udp,
            udp.local_addr().unwrap().port()
        ));
        drop(tcp);
        assert!(!is_listened_on(Protocol::Tcp, port));
    }
}
