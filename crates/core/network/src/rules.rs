use std::net::Ipv4Addr;

use aos_types::Protocol;

use crate::{Allowed, ExposedPort, InstanceRecord};

/// A connection that the firewall lets pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// From here.
    pub src: Ipv4Addr,
    /// To here.
    pub dst: Ipv4Addr,
    /// First port.
    pub from: u16,
    /// Last port.
    pub to: u16,
    /// Protocol.
    pub protocol: Protocol,
}

impl Rule {
    /// The ports as they are written on the wire: one number, or `from:to`.
    pub fn ports(&self) -> String {
        if self.from == self.to {
            self.from.to_string()
        } else {
            format!("{}:{}", self.from, self.to)
        }
    }
}

/// What `requester` may reach: every instance of each allowed item, on the ports that are both allowed and exposed.
/// Inside one network no rule is needed.
pub(crate) fn rules_of<'a>(
    requester: &InstanceRecord,
    all: impl Iterator<Item = &'a InstanceRecord> + Clone,
) -> Vec<Rule> {
    let mut rules: Vec<Rule> = requester
        .allowed
        .iter()
        .flat_map(|allowed| {
            all.clone()
                .filter(|target| reaches(requester, allowed, target))
                .flat_map(|target| {
                    target.exposed.iter().filter_map(|exposed| {
                        let (from, to) = common(allowed.ports, *exposed)?;
                        Some(Rule {
                            src: requester.ip,
                            dst: target.ip,
                            from,
                            to,
                            protocol: exposed.protocol,
                        })
                    })
                })
        })
        .collect();
    rules.sort();
    rules.dedup();
    rules
}

fn reaches(requester: &InstanceRecord, allowed: &Allowed, target: &InstanceRecord) -> bool {
    target.ident.item == allowed.item && target.owner != requester.owner
}

fn common(a: ExposedPort, b: ExposedPort) -> Option<(u16, u16)> {
    let (from, to) = (a.from.max(b.from), a.to.min(b.to));
    (a.protocol == b.protocol && from <= to).then_some((from, to))
}
