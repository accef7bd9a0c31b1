//! Holds an interface to a rate with the kernel's token bucket filter (`tc-tbf`).

use rtnetlink::{
    Handle,
    packet_core::{
        DefaultNla, NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage,
    },
    packet_route::{
        RouteNetlinkMessage,
        tc::{TcAttribute, TcHandle, TcMessage, TcOption},
    },
};

use crate::links::{self, Failure};

/// Attributes of `tc-tbf` (linux/pkt_sched.h).
const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
const TCA_TBF_BURST: u16 = 6;
/// Ethernet frames, so that the kernel needs no table of sizes.
const LINKLAYER_ETHERNET: u8 = 1;
/// How long a packet may wait before it is dropped.
const PATIENCE_MS: u64 = 100;
/// Least that may go at once: one packet as large as the kernel makes them would wait for ever otherwise.
const LEAST_BURST: u64 = 16 * 1024;

/// The request that holds an interface to so many bytes a second.
pub(crate) fn hold(index: u32, rate: u64) -> (RouteNetlinkMessage, u16) {
    let mut message = root(index);
    message.header.handle = TcHandle { major: 1, minor: 0 };
    message.attributes = vec![
        TcAttribute::Kind("tbf".into()),
        TcAttribute::Options(
            [
                (TCA_TBF_PARMS, parameters(rate)),
                (TCA_TBF_RATE64, rate.to_ne_bytes().to_vec()),
                (TCA_TBF_BURST, burst(rate).to_ne_bytes().to_vec()),
            ]
            .into_iter()
            .map(|(kind, value)| TcOption::Other(DefaultNla::new(kind, value)))
            .collect(),
        ),
    ];
    (
        RouteNetlinkMessage::NewQueueDiscipline(message),
        NLM_F_CREATE | NLM_F_REPLACE,
    )
}

fn root(index: u32) -> TcMessage {
    let mut message = TcMessage::default();
    message.header.index = i32::try_from(index).unwrap_or(i32::MAX);
    message.header.parent = TcHandle::ROOT;
    message
}

/// Bytes a second that leave an interface at most; nothing takes the limit away.
pub(crate) async fn set(netlink: &Handle, index: u32, limit: Option<u64>) -> Result<(), Failure> {
    let Some(rate) = limit else {
        let request = NetlinkMessage::from(RouteNetlinkMessage::DelQueueDiscipline(root(index)));
        return match links::send(netlink, acknowledged(request, 0)).await {
            // There was none.
            Err(failure) if failure.is_none_there() => Ok(()),
            result => result,
        };
    };
    let (request, flags) = hold(index, rate);
    links::send(netlink, acknowledged(NetlinkMessage::from(request), flags)).await
}

fn acknowledged(
    mut request: NetlinkMessage<RouteNetlinkMessage>,
    flags: u16,
) -> NetlinkMessage<RouteNetlinkMessage> {
    request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    request
}

/// What may go at once: 20 ms of the rate.
fn burst(rate: u64) -> u32 {
    u32::try_from((rate / 50).max(LEAST_BURST)).unwrap_or(u32::MAX)
}

/// `struct tc_tbf_qopt`.
fn parameters(rate: u64) -> Vec<u8> {
    let waiting = (rate * PATIENCE_MS / 1_000).max(LEAST_BURST) + u64::from(burst(rate));
    let short = u32::try_from(rate).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(36);
    // The rate: cell_log, linklayer, overhead, cell_align, mpu, rate.
    bytes.extend([0, LINKLAYER_ETHERNET, 0, 0, 0xff, 0xff, 0, 0]);
    bytes.extend(short.to_ne_bytes());
    // No peak rate.
    bytes.extend([0; 12]);
    bytes.extend(u32::try_from(waiting).unwrap_or(u32::MAX).to_ne_bytes());
    // The burst comes in an attribute of its own, the peak's does not count.
    bytes.extend([0; 8]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameters_have_the_size_of_the_kernel_structure() {
        for rate in [1, 125_000, 10_000_000_000] {
            assert_eq!(parameters(rate).len(), 36);
            assert!(u64::from(burst(rate)) >= LEAST_BURST);
        }
    }
}
