//! Names and numbers of every field, RPC and enum value, held against the table below. A wrong number would still compile
//! and still talk to itself.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may fail loudly"
)]

use std::collections::BTreeSet;

use prost::Message;
use prost_types::{
    DescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};

const TABLE: &str = include_str!("contract.txt");

/// What was compiled, one fact a line: `package.Message.field number type`, `package.Service.Method Request -> Response`,
/// `package.Enum.VALUE number`.
fn compiled() -> BTreeSet<String> {
    let set = FileDescriptorSet::decode(aos_ipc::proto::DESCRIPTORS).unwrap();
    let mut facts = BTreeSet::new();
    for file in &set.file {
        let package = file.package();
        if package.starts_with("google") {
            continue;
        }
        for message in &file.message_type {
            add_message(package, message, &mut facts);
        }
        for one in &file.enum_type {
            for value in &one.value {
                facts.insert(format!(
                    "{package}.{}.{} {}",
                    one.name(),
                    value.name(),
                    value.number()
                ));
            }
        }
        for service in &file.service {
            for method in &service.method {
                let stream = |yes: bool| if yes { "stream " } else { "" };
                facts.insert(format!(
                    "{package}.{}.{} {}{} -> {}{}",
                    service.name(),
                    method.name(),
                    stream(method.client_streaming()),
                    short(package, method.input_type()),
                    stream(method.server_streaming()),
                    short(package, method.output_type()),
                ));
            }
        }
    }
    facts
}

fn short(package: &str, name: &str) -> String {
    let name = name.trim_start_matches('.');
    let name = name.strip_prefix("google.protobuf.").unwrap_or(name);
    name.strip_prefix(&format!("{package}."))
        .unwrap_or(name)
        .to_owned()
}

fn add_message(package: &str, message: &DescriptorProto, facts: &mut BTreeSet<String>) {
    if message.field.is_empty() {
        facts.insert(format!("{package}.{} empty", message.name()));
    }
    for field in &message.field {
        let map = message.nested_type.iter().find(|nested| {
            nested.options.as_ref().is_some_and(|o| o.map_entry())
                && field.type_name().ends_with(&format!(".{}", nested.name()))
        });
        let kind = |kind: Type, name: &str| match kind {
            Type::String => "string".to_owned(),
            Type::Uint64 => "uint64".to_owned(),
            Type::Int64 => "int64".to_owned(),
            Type::Uint32 => "uint32".to_owned(),
            Type::Int32 => "int32".to_owned(),
            Type::Double => "double".to_owned(),
            Type::Bool => "bool".to_owned(),
            Type::Bytes => "bytes".to_owned(),
            _ => short(package, name),
        };
        let text = if let Some(map) = map {
            let value = &map.field[1];
            format!("map string {}", kind(value.r#type(), value.type_name()))
        } else {
            let repeated = if field.label() == Label::Repeated {
                "repeated "
            } else {
                ""
            };
            format!("{repeated}{}", kind(field.r#type(), field.type_name()))
        };
        facts.insert(format!(
            "{package}.{}.{} {} {text}",
            message.name(),
            field.name(),
            field.number()
        ));
    }
}

/// Unfolds the table: a line `== package` sets the package, `Message: field number type, …` gives a message's fields.
fn expected() -> BTreeSet<String> {
    let mut facts = BTreeSet::new();
    let mut package = "";
    for line in TABLE.lines() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix("== ") {
            package = name;
            continue;
        }
        let (owner, rest) = line.split_once(": ").unwrap();
        for fact in rest.split(", ") {
            facts.insert(if fact == "empty" {
                format!("{package}.{owner} empty")
            } else {
                format!("{package}.{owner}.{fact}")
            });
        }
    }
    facts
}

#[test]
fn names_and_numbers_are_those_of_the_documented_contracts() {
    let (compiled, expected) = (compiled(), expected());
    let missing: Vec<_> = expected.difference(&compiled).collect();
    let surplus: Vec<_> = compiled.difference(&expected).collect();
    assert!(
        missing.is_empty() && surplus.is_empty(),
        "in the table only: {missing:#?}\ncompiled only: {surplus:#?}"
    );
    assert!(compiled.len() > 280, "the table covers everything");
}
