use std::net::IpAddr;

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{A, AAAA, PTR},
    },
};

use super::zone::{Found, Zone};

/// How long an answer may be kept, in seconds: instances move.
const TTL: u32 = 5;
/// Largest answer over UDP to one who did not say more (RFC 1035), and the most we send to one who did.
const PLAIN: u16 = 512;
const MOST: u16 = 1_232;

/// What becomes of a query.
#[derive(Debug)]
pub(super) enum Decision {
    /// It is answered.
    Reply(Vec<u8>),
    /// These are asked, in order.
    Ask(Vec<IpAddr>),
    /// It is none, or from nobody we know.
    Drop,
}

/// Decides about one query that came by UDP or TCP.
pub(super) fn decide(zone: &Zone, asker: IpAddr, query: &[u8], tcp: bool) -> Decision {
    if !zone.knows_asker(asker) {
        return Decision::Drop;
    }
    let Ok(query) = Message::from_vec(query) else {
        return Decision::Drop;
    };
    if query.metadata.message_type != MessageType::Query {
        return Decision::Drop;
    }
    if query.metadata.op_code != OpCode::Query {
        return reply(&query, ResponseCode::NotImp, Vec::new(), tcp);
    }
    let [question] = query.queries.as_slice() else {
        return reply(&query, ResponseCode::FormErr, Vec::new(), tcp);
    };
    if question.query_class() != DNSClass::IN {
        return reply(&query, ResponseCode::Refused, Vec::new(), tcp);
    }
    let name = question.name();
    // As bytes, so that a label with a dot in it is not taken for two.
    let plain = name.iter().all(|label| {
        label
            .iter()
            .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'.' | b'\\'))
    });
    let text = if plain {
        name.to_ascii()
    } else {
        String::new()
    };
    let record = |data| Record::from_rdata(name.clone(), TTL, data);
    let kind = question.query_type();
    match zone.find(asker, &text) {
        None => Decision::Drop,
        Some(Found::Ask(servers)) => Decision::Ask(servers),
        Some(Found::Nothing) => reply(&query, ResponseCode::NXDomain, Vec::new(), tcp),
        Some(Found::Name(target)) => {
            let target = Name::from_ascii(format!("{target}.")).ok();
            let answers = target
                .filter(|_| matches!(kind, RecordType::PTR | RecordType::ANY))
                .map(|target| record(RData::PTR(PTR(target))))
                .into_iter()
                .collect();
            reply(&query, ResponseCode::NoError, answers, tcp)
        }
        Some(Found::Hosts(mut hosts)) => {
            // Another order each time, so that replicas share the work.
            let turn = usize::from(query.metadata.id) % hosts.len().max(1);
            hosts.rotate_left(turn);
            let mut answers = Vec::new();
            for host in hosts {
                if matches!(kind, RecordType::A | RecordType::ANY) {
                    answers.push(record(RData::A(A(host.ip))));
                }
                if let Some(ip) = host
                    .ip6
                    .filter(|_| matches!(kind, RecordType::AAAA | RecordType::ANY))
                {
                    answers.push(record(RData::AAAA(AAAA(ip))));
                }
            }
            // The name is there even if it has nothing of this kind.
            reply(&query, ResponseCode::NoError, answers, tcp)
        }
    }
}

/// The answer to a query whose upstream servers do not answer.
pub(super) fn failed(query: &[u8]) -> Option<Vec<u8>> {
    let query = Message::from_vec(query).ok()?;
    match reply(&query, ResponseCode::ServFail, Vec::new(), true) {
        Decision::Reply(bytes) => Some(bytes),
        _ => None,
    }
}

fn reply(query: &Message, code: ResponseCode, answers: Vec<Record>, tcp: bool) -> Decision {
    let mut message = Message::response(query.metadata.id, query.metadata.op_code);
    message.metadata.response_code = code;
    message.metadata.authoritative = true;
    message.metadata.recursion_desired = query.metadata.recursion_desired;
    message.metadata.recursion_available = true;
    message.queries = query.queries.clone();
    message.answers = answers;
    let mut room = PLAIN;
    if let Some(asked) = &query.edns {
        room = asked.max_payload().clamp(PLAIN, MOST);
        let mut edns = Edns::new();
        edns.set_max_payload(MOST);
        message.edns = Some(edns);
    }
    let Ok(bytes) = message.to_vec() else {
        return Decision::Drop;
    };
    if tcp || bytes.len() <= usize::from(room) {
        return Decision::Reply(bytes);
    }
    // Too long for UDP: it is asked again over TCP.
    message.answers.clear();
    message.metadata.truncation = true;
    message.to_vec().map_or(Decision::Drop, Decision::Reply)
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::Query;

    use super::*;
    use crate::dns::{Asker, Host};

    fn zone(hosts: u8) -> Zone {
        let mut zone = Zone::default();
        zone.add_asker(Asker {
            addresses: vec!["10.0.0.9".parse().unwrap()],
            network: "red".parse().unwrap(),
            reaches: Default::default(),
            upstream: vec!["192.0.2.53".parse().unwrap()],
        });
        for n in 1..=hosts {
            let host = Host {
                network: "red".parse().unwrap(),
                ip: [10, 0, 0, n].into(),
                ip6: None,
            };
            zone.add_host(&host, ["web".to_owned()]);
        }
        zone
    }

    fn query(name: &str, kind: RecordType) -> Message {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        message
    }

    fn answer(zone: &Zone, message: &Message, tcp: bool) -> Message {
        let asker = "10.0.0.9".parse().unwrap();
        match decide(zone, asker, &message.to_vec().unwrap(), tcp) {
            Decision::Reply(bytes) => Message::from_vec(&bytes).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_name_has_the_addresses_of_all_that_have_it() {
        let got = answer(&zone(3), &query("Web.", RecordType::A), false);
        assert_eq!(got.answers.len(), 3);
        assert_eq!(got.metadata.id, 7);
        let none = answer(&zone(3), &query("web.", RecordType::AAAA), false);
        assert_eq!(none.metadata.response_code, ResponseCode::NoError);
        assert!(none.answers.is_empty());
        let nobody = answer(&zone(3), &query("nobody.", RecordType::A), false);
        assert_eq!(nobody.metadata.response_code, ResponseCode::NXDomain);
    }

    #[test]
    fn what_does_not_fit_is_asked_again_over_tcp() {
        let zone = zone(200);
        let short = answer(&zone, &query("web.", RecordType::A), false);
        assert!(short.metadata.truncation && short.answers.is_empty());
        assert_eq!(
            answer(&zone, &query("web.", RecordType::A), true)
                .answers
                .len(),
            200
        );
    }

    #[test]
    fn nonsense_and_strangers_get_no_answer() {
        let zone = zone(1);
        let asker = "10.0.0.9".parse().unwrap();
        for bad in [&b""[..], b"x", &[0xff; 600]] {
            assert!(matches!(decide(&zone, asker, bad, false), Decision::Drop));
        }
        let good = query("web.", RecordType::A).to_vec().unwrap();
        let stranger = "10.0.0.8".parse().unwrap();
        assert!(matches!(
            decide(&zone, stranger, &good, false),
            Decision::Drop
        ));
        // An answer is no question: no two servers talk to each other for ever.
        let mut response = query("web.", RecordType::A);
        response.metadata.message_type = MessageType::Response;
        let response = response.to_vec().unwrap();
        assert!(matches!(
            decide(&zone, asker, &response, false),
            Decision::Drop
        ));
    }
}
