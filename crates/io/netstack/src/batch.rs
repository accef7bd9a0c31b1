//! Several requests to the kernel in one go, by a thread that waits for the answers.

use std::io;

use rtnetlink::{
    packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    packet_route::{
        RouteNetlinkMessage,
        link::{LinkAttribute, LinkMessage},
    },
    sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE},
};

/// One request, and its flags beside those that every request has.
pub(crate) type Request = (RouteNetlinkMessage, u16);

/// Room for the answers to one go.
const ROOM: usize = 64 * 1024;

/// Messages begin at multiples of this (netlink(7)).
const ALIGN: usize = 4;

/// A way to the kernel's networks.
pub(crate) struct Kernel {
    socket: Socket,
    number: u32,
    buffer: Vec<u8>,
}

impl Kernel {
    /// Leads into the network namespace of the calling thread, also when that has left it.
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // An answer need not repeat the request.
        let _ = socket.set_cap_ack(true);
        // The kernel has answered when it has taken a request.
        socket.set_non_blocking(true)?;
        Ok(Self {
            socket,
            number: 0,
            buffer: Vec::with_capacity(ROOM),
        })
    }

    /// Has these carried out in this order. The first failure counts; what comes after it is tried all the same.
    pub(crate) fn say(&mut self, requests: Vec<Request>) -> io::Result<()> {
        let expected = requests.len();
        let mut bytes = Vec::new();
        for (request, flags) in requests {
            self.put(request, NLM_F_ACK | flags, &mut bytes);
        }
        self.socket.send(&bytes, 0)?;
        let mut answered = 0;
        let mut failure = None;
        while answered < expected {
            for answer in self.receive()? {
                let NetlinkPayload::Error(error) = answer else {
                    continue;
                };
                answered += 1;
                if error.code.is_some() && failure.is_none() {
                    failure = Some(error.to_io());
                }
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// The number of an interface.
    pub(crate) fn index_of(&mut self, name: &str) -> io::Result<u32> {
        let mut question = LinkMessage::default();
        question.attributes = vec![LinkAttribute::IfName(name.to_owned())];
        let mut bytes = Vec::new();
        self.put(RouteNetlinkMessage::GetLink(question), 0, &mut bytes);
        self.socket.send(&bytes, 0)?;
        for answer in self.receive()? {
            match answer {
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => {
                    return Ok(link.header.index);
                }
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                _ => {}
            }
        }
        Err(io::Error::other("the kernel did not name the interface"))
    }

    fn put(&mut self, request: RouteNetlinkMessage, flags: u16, bytes: &mut Vec<u8>) {
        let mut message = NetlinkMessage::from(request);
        self.number = self.number.wrapping_add(1);
        message.header.sequence_number = self.number;
        message.header.flags = NLM_F_REQUEST | flags;
        message.finalize();
        let mut one = vec![0; message.buffer_len().next_multiple_of(ALIGN)];
        message.serialize(&mut one);
        bytes.extend(one);
    }

    /// The answers of one datagram.
    fn receive(&mut self) -> io::Result<Vec<NetlinkPayload<RouteNetlinkMessage>>> {
        self.buffer.clear();
        self.socket.recv(&mut self.buffer, 0)?;
        let mut answers = Vec::new();
        let mut rest = self.buffer.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            let length = usize::try_from(message.header.length).unwrap_or(usize::MAX);
            let next = length.max(1).checked_next_multiple_of(ALIGN);
            rest = next.and_then(|next| rest.get(next..)).unwrap_or_default();
            answers.push(message.payload);
        }
        Ok(answers)
    }
}
