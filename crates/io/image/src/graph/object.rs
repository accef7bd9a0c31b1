//! Reads a JSON object with keys in any case, knowing its path so that errors can name the field.

use aos_types::Digest;
use serde_json::{Map, Value};

use super::{Caps, Error};

/// A JSON object inside a document.
pub(super) struct Object<'a> {
    document: &'static str,
    path: String,
    map: &'a Map<String, Value>,
    caps: Caps,
}

/// Parses a whole document, checking its size first.
pub(super) fn parse(document: &'static str, json: &[u8], caps: &Caps) -> Result<Value, Error> {
    if json.len() as u64 > caps.document {
        return Err(Error::TooLong {
            document,
            size: json.len() as u64,
            cap: caps.document,
        });
    }
    serde_json::from_slice(json).map_err(|source| Error::Json { document, source })
}

impl<'a> Object<'a> {
    /// The outermost object of a document.
    pub(super) fn root(
        document: &'static str,
        value: &'a Value,
        caps: &Caps,
    ) -> Result<Self, Error> {
        Self::of(document, String::new(), value, caps)
    }

    fn of(
        document: &'static str,
        path: String,
        value: &'a Value,
        caps: &Caps,
    ) -> Result<Self, Error> {
        match value {
            Value::Object(map) => Ok(Self {
                document,
                path,
                map,
                caps: *caps,
            }),
            _ => Err(Error::Kind {
                document,
                field: if path.is_empty() {
                    "the document".into()
                } else {
                    path
                },
                expected: "an object",
            }),
        }
    }

    /// The value of `key`; the exact spelling wins over another case. `null` is absent.
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.map
            .get(key)
            .or_else(|| {
                self.map
                    .iter()
                    .find(|(name, _)| name.eq_ignore_ascii_case(key))
                    .map(|(_, value)| value)
            })
            .filter(|value| !value.is_null())
    }

    /// The path of `key` for errors.
    pub(super) fn field(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    fn kind(&self, key: &str, expected: &'static str) -> Error {
        Error::Kind {
            document: self.document,
            field: self.field(key),
            expected,
        }
    }

    pub(super) fn missing(&self, key: &str) -> Error {
        Error::Missing {
            document: self.document,
            field: self.field(key),
        }
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<String>, Error> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(self.kind(key, "a text")),
        }
    }

    pub(super) fn unsigned(&self, key: &str) -> Result<Option<u64>, Error> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => value
                .as_u64()
                .map(Some)
                .ok_or_else(|| self.kind(key, "a whole number from 0")),
        }
    }

    pub(super) fn digest(&self, key: &str) -> Result<Digest, Error> {
        self.text(key)?
            .ok_or_else(|| self.missing(key))?
            .parse()
            .map_err(|source| Error::Digest {
                document: self.document,
                field: self.field(key),
                source,
            })
    }

    pub(super) fn object(&self, key: &str) -> Result<Option<Object<'a>>, Error> {
        self.get(key)
            .map(|value| Self::of(self.document, self.field(key), value, &self.caps))
            .transpose()
    }

    fn list(&self, key: &str, cap: usize) -> Result<&'a [Value], Error> {
        match self.get(key) {
            None => Ok(&[]),
            Some(Value::Array(list)) if list.len() <= cap => Ok(list),
            Some(Value::Array(list)) => Err(Error::TooMany {
                document: self.document,
                field: self.field(key),
                count: list.len(),
                cap,
            }),
            Some(_) => Err(self.kind(key, "a list")),
        }
    }

    pub(super) fn objects(&self, key: &str, cap: usize) -> Result<Vec<Object<'a>>, Error> {
        self.list(key, cap)?
            .iter()
            .enumerate()
            .map(|(i, value)| {
                let path = format!("{}[{i}]", self.field(key));
                Self::of(self.document, path, value, &self.caps)
            })
            .collect()
    }

    pub(super) fn texts(&self, key: &str) -> Result<Vec<String>, Error> {
        self.list(key, self.caps.entries)?
            .iter()
            .enumerate()
            .map(|(i, value)| {
                value
                    .as_str()
                    .map(str::to_owned)
                    .ok_or_else(|| self.kind(&format!("{key}[{i}]"), "a text"))
            })
            .collect()
    }

    pub(super) fn digests(&self, key: &str) -> Result<Vec<Digest>, Error> {
        self.texts(key)?
            .iter()
            .enumerate()
            .map(|(i, text)| {
                text.parse().map_err(|source| Error::Digest {
                    document: self.document,
                    field: self.field(&format!("{key}[{i}]")),
                    source,
                })
            })
            .collect()
    }

    /// The keys of an object whose values carry nothing.
    pub(super) fn keys(&self, key: &str) -> Result<Vec<String>, Error> {
        let Some(object) = self.object(key)? else {
            return Ok(Vec::new());
        };
        if object.map.len() > self.caps.entries {
            return Err(Error::TooMany {
                document: self.document,
                field: self.field(key),
                count: object.map.len(),
                cap: self.caps.entries,
            });
        }
        Ok(object.map.keys().cloned().collect())
    }

    pub(super) fn bad_value(&self, key: &str, why: impl Into<String>) -> Error {
        Error::Value {
            document: self.document,
            field: self.field(key),
            why: why.into(),
        }
    }
}
