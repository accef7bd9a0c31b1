//! Reads YAML into JSON values, remembering the line of every field.

use std::{collections::BTreeMap, fmt};

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::Spanned;

use super::{Problem, Severity};

/// Longest `config.yaml`, in bytes.
pub(crate) const MAX_CONFIG: usize = 1 << 20;

/// Where each field stands, by its path.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lines(BTreeMap<String, u64>);

impl Lines {
    /// The line of the field, or of what it would stand in.
    pub(crate) fn of(&self, path: &str) -> Option<u64> {
        let mut path = path;
        loop {
            if let Some(line) = self.0.get(path) {
                return Some(*line);
            }
            path = path.get(..path.rfind(['.', '['])?)?;
        }
    }
}

/// The document and its lines.
pub(crate) fn parse(text: &str) -> Result<(Value, Lines), Problem> {
    let refuse = |line, message: String| Problem {
        severity: Severity::Error,
        line,
        field: String::new(),
        message,
    };
    if text.len() > MAX_CONFIG {
        return Err(refuse(
            None,
            format!(
                "it has {} bytes, more than the allowed {MAX_CONFIG}",
                text.len()
            ),
        ));
    }
    let node: Spanned<Node> = serde_saphyr::from_str(text).map_err(|error| {
        let error = error.without_snippet();
        let line = error
            .location()
            .map(|at| at.line())
            .filter(|line| *line > 0);
        let message = error.to_string();
        let message = message.lines().next().unwrap_or_default();
        refuse(line, format!("this is not valid YAML: {message}"))
    })?;
    let mut lines = Lines::default();
    let value = convert(node, String::new(), &mut lines);
    Ok((value, lines))
}

fn convert(node: Spanned<Node>, path: String, lines: &mut Lines) -> Value {
    let line = node.referenced.line();
    let value = match node.value {
        Node::Plain(value) => value,
        Node::List(list) => Value::Array(
            list.into_iter()
                .enumerate()
                .map(|(i, node)| convert(node, format!("{path}[{i}]"), lines))
                .collect(),
        ),
        Node::Map(map) => {
            let mut object = Map::new();
            for (key, node) in map {
                let inner = if path.is_empty() {
                    key.value.clone()
                } else {
                    format!("{path}.{}", key.value)
                };
                let value = convert(node, inner.clone(), lines);
                // The line of the key, not that of a value further down.
                lines.0.insert(inner, key.referenced.line());
                object.insert(key.value, value);
            }
            Value::Object(object)
        }
    };
    lines.0.entry(path).or_insert(line);
    value
}

enum Node {
    Plain(Value),
    List(Vec<Spanned<Node>>),
    Map(Vec<(Spanned<String>, Spanned<Node>)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Node;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Node, E> {
                Ok(Node::Plain(value.into()))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Node, E> {
                Ok(Node::Plain(value.into()))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Node, E> {
                Ok(Node::Plain(value.into()))
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Node, E> {
                Number::from_f64(value)
                    .map(|number| Node::Plain(Value::Number(number)))
                    .ok_or_else(|| E::custom("a number must be finite"))
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<Node, E> {
                Ok(Node::Plain(value.into()))
            }

            fn visit_unit<E: de::Error>(self) -> Result<Node, E> {
                Ok(Node::Plain(Value::Null))
            }

            fn visit_none<E: de::Error>(self) -> Result<Node, E> {
                Ok(Node::Plain(Value::Null))
            }

            fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<Node, D::Error> {
                Node::deserialize(inner)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
                let mut list = Vec::new();
                while let Some(node) = seq.next_element()? {
                    list.push(node);
                }
                Ok(Node::List(list))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Node::Map(entries))
            }
        }
        deserializer.deserialize_any(Any)
    }
}
