use std::borrow::Cow;

use aos_types::Protocol;
use nftables::{
    batch::Batch,
    expr::{
        CT, Expression, Fib, FibFlag, FibResult, Meta, MetaKey, NamedExpression, Payload,
        PayloadField, Prefix as NetPrefix, Range, SetItem,
    },
    schema::{Chain, NfListObject, Nftables, Rule, Table},
    stmt::{JumpTarget, Match, NAT, NATFamily, Operator, Statement},
    types::{NfChainPolicy, NfChainType, NfFamily, NfHook},
};

use crate::{Network, Prefix, Subnet, Wanted};

const FAMILY: NfFamily = NfFamily::INet;
/// Priorities of the hooks (nft(8), standard priorities).
const DSTNAT: i32 = -100;
const FILTER: i32 = 0;
const SRCNAT: i32 = 100;

/// The whole table of a Node as one transaction that replaces the one that is there.
pub(crate) fn table(prefix: &Prefix, wanted: &Wanted) -> Nftables<'static> {
    let mut rules = Rules {
        table: prefix.as_str().to_owned(),
        batch: Batch::new(),
    };
    // Adding first makes deleting safe when there is none.
    rules.add_table();
    rules.delete_table();
    rules.add_table();
    rules.chain("publish", None);
    let filter = NfChainType::Filter;
    let nat = NfChainType::NAT;
    rules.chain("forward", Some((filter, NfHook::Forward, FILTER)));
    rules.chain("input", Some((filter, NfHook::Input, FILTER)));
    rules.chain("prerouting", Some((nat, NfHook::Prerouting, DSTNAT)));
    rules.chain("output", Some((nat, NfHook::Output, DSTNAT)));
    rules.chain("postrouting", Some((nat, NfHook::Postrouting, SRCNAT)));
    let bridges: Vec<String> = wanted
        .networks
        .iter()
        .map(|network| prefix.bridge(network.id.as_str()))
        .collect();
    if !bridges.is_empty() {
        rules.forward(wanted, &bridges);
        rules.translate(prefix, wanted, &bridges);
    }
    rules.batch.to_nftables()
}

/// The transaction that removes the table.
pub(crate) fn no_table(prefix: &Prefix) -> Nftables<'static> {
    let mut rules = Rules {
        table: prefix.as_str().to_owned(),
        batch: Batch::new(),
    };
    rules.add_table();
    rules.delete_table();
    rules.batch.to_nftables()
}

struct Rules {
    table: String,
    batch: Batch<'static>,
}

impl Rules {
    fn table_object(&self) -> NfListObject<'static> {
        NfListObject::Table(Table {
            family: FAMILY,
            name: self.table.clone().into(),
            handle: None,
        })
    }

    fn add_table(&mut self) {
        let table = self.table_object();
        self.batch.add(table);
    }

    fn delete_table(&mut self) {
        let table = self.table_object();
        self.batch.delete(table);
    }

    fn chain(&mut self, name: &'static str, hook: Option<(NfChainType, NfHook, i32)>) {
        let mut chain = Chain {
            family: FAMILY,
            table: self.table.clone().into(),
            name: name.into(),
            ..Chain::default()
        };
        if let Some((kind, hook, priority)) = hook {
            chain._type = Some(kind);
            chain.hook = Some(hook);
            chain.prio = Some(priority);
            // Accept: a packet that is none of ours is none of our business. What is dropped is dropped by a rule.
            chain.policy = Some(NfChainPolicy::Accept);
        }
        self.batch.add(NfListObject::Chain(chain));
    }

    fn rule(&mut self, chain: &'static str, statements: Vec<Statement<'static>>) {
        self.batch.add(NfListObject::Rule(Rule {
            family: FAMILY,
            table: self.table.clone().into(),
            chain: chain.into(),
            expr: Cow::Owned(statements),
            ..Rule::default()
        }));
    }

    /// Who may talk to whom through the Node.
    fn forward(&mut self, wanted: &Wanted, bridges: &[String]) {
        let accept = || Statement::Accept(None);
        let drop = || Statement::Drop(None);
        self.rule("forward", vec![known(), accept()]);
        // Bridged packets of one network, where the kernel shows them to us.
        for bridge in bridges {
            self.rule(
                "forward",
                vec![
                    is(meta(MetaKey::Iifname), text(bridge)),
                    is(meta(MetaKey::Oifname), text(bridge)),
                    accept(),
                ],
            );
        }
        for flow in wanted.endpoints.iter().flat_map(|e| &e.allowed) {
            let ports = if flow.first_port == flow.last_port {
                number(flow.first_port)
            } else {
                Expression::Range(Box::new(Range {
                    range: [number(flow.first_port), number(flow.last_port)],
                }))
            };
            self.rule(
                "forward",
                vec![
                    is(ip("saddr"), text(flow.from.to_string())),
                    is(ip("daddr"), text(flow.to.to_string())),
                    is(destination_port(flow.protocol), ports),
                    accept(),
                ],
            );
        }
        let to_ours = || is(meta(MetaKey::Oifname), any_of(bridges));
        let from_ours = || is(meta(MetaKey::Iifname), any_of(bridges));
        // Published ports are reachable for everybody, who has passed the translation.
        self.rule(
            "forward",
            vec![to_ours(), is_set(ct("status"), "dnat"), accept()],
        );
        self.rule("forward", vec![from_ours(), to_ours(), drop()]);
        self.rule("forward", vec![to_ours(), drop()]);
        // Published ports on 127.0.0.1 need `route_localnet`; nobody else may reach the Node's loopback by it.
        self.rule("input", vec![known(), accept()]);
        self.rule(
            "input",
            vec![
                from_ours(),
                is(ip("daddr"), network("127.0.0.0", 8)),
                drop(),
            ],
        );
    }

    /// Addresses as others see them.
    fn translate(&mut self, prefix: &Prefix, wanted: &Wanted, bridges: &[String]) {
        for endpoint in &wanted.endpoints {
            for port in &endpoint.published {
                self.rule(
                    "publish",
                    vec![
                        is(destination_port(port.protocol), number(port.host_port)),
                        Statement::DNAT(Some(NAT {
                            addr: Some(text(endpoint.ip.to_string())),
                            family: Some(NATFamily::IP),
                            port: Some(number(port.port)),
                            flags: None,
                        })),
                    ],
                );
            }
        }
        for chain in ["prerouting", "output"] {
            self.rule(
                chain,
                vec![
                    is(to_this_machine(), text("local")),
                    Statement::Jump(JumpTarget {
                        target: "publish".into(),
                    }),
                ],
            );
        }
        let masquerade = || Statement::Masquerade(None);
        self.rule(
            "postrouting",
            vec![
                is(ip("saddr"), network("127.0.0.0", 8)),
                is(meta(MetaKey::Oifname), any_of(bridges)),
                masquerade(),
            ],
        );
        for network in &wanted.networks {
            // To a published port of the own network: the answer has to come back through the Node.
            self.rule(
                "postrouting",
                vec![
                    is(ip("saddr"), subnet(network.subnet)),
                    is(
                        meta(MetaKey::Oifname),
                        text(prefix.bridge(network.id.as_str())),
                    ),
                    is_set(ct("status"), "dnat"),
                    masquerade(),
                ],
            );
            self.leave(network, bridges);
        }
    }

    /// Packets that leave the Node carry its address.
    fn leave(&mut self, network: &Network, bridges: &[String]) {
        self.rule(
            "postrouting",
            vec![
                is(ip("saddr"), subnet(network.subnet)),
                is_not(meta(MetaKey::Oifname), any_of(bridges)),
                is_not(ip("daddr"), subnet(network.subnet)),
                Statement::Masquerade(None),
            ],
        );
    }
}

fn is(left: Expression<'static>, right: Expression<'static>) -> Statement<'static> {
    compare(left, right, Operator::EQ)
}

/// The packet belongs to a connection that was let through.
fn known() -> Statement<'static> {
    let states = ["established", "related"].map(text).to_vec();
    compare(ct("state"), Expression::List(states), Operator::IN)
}

fn is_not(left: Expression<'static>, right: Expression<'static>) -> Statement<'static> {
    compare(left, right, Operator::NEQ)
}

/// A flag is set.
fn is_set(left: Expression<'static>, flag: &'static str) -> Statement<'static> {
    compare(left, text(flag), Operator::IN)
}

fn compare(
    left: Expression<'static>,
    right: Expression<'static>,
    op: Operator,
) -> Statement<'static> {
    Statement::Match(Match { left, right, op })
}

fn text(value: impl Into<String>) -> Expression<'static> {
    Expression::String(Cow::Owned(value.into()))
}

fn number(value: u16) -> Expression<'static> {
    Expression::Number(value.into())
}

fn any_of(names: &[String]) -> Expression<'static> {
    Expression::Named(NamedExpression::Set(
        names.iter().map(|n| SetItem::Element(text(n))).collect(),
    ))
}

fn meta(key: MetaKey) -> Expression<'static> {
    Expression::Named(NamedExpression::Meta(Meta { key }))
}

fn ct(key: &'static str) -> Expression<'static> {
    Expression::Named(NamedExpression::CT(CT {
        key: key.into(),
        family: None,
        dir: None,
    }))
}

fn ip(field: &'static str) -> Expression<'static> {
    payload("ip", field)
}

fn destination_port(protocol: Protocol) -> Expression<'static> {
    match protocol {
        Protocol::Tcp => payload("tcp", "dport"),
        Protocol::Udp => payload("udp", "dport"),
    }
}

fn payload(protocol: &'static str, field: &'static str) -> Expression<'static> {
    Expression::Named(NamedExpression::Payload(Payload::PayloadField(
        PayloadField {
            protocol: protocol.into(),
            field: field.into(),
        },
    )))
}

fn to_this_machine() -> Expression<'static> {
    Expression::Named(NamedExpression::Fib(Fib {
        result: FibResult::Type,
        flags: [FibFlag::Daddr].into(),
    }))
}

fn network(address: &str, length: u8) -> Expression<'static> {
    Expression::Named(NamedExpression::Prefix(NetPrefix {
        addr: Box::new(text(address)),
        len: length.into(),
    }))
}

fn subnet(subnet: Subnet) -> Expression<'static> {
    network(&subnet.address().to_string(), subnet.length())
}
