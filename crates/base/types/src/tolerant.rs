//! Reading JSON that peers wrote: keys match whatever their case, unknown keys are ignored, `null` is the same as absent,
//! and an error says which field is wrong (`docs/protocol/unit-cloud.md`, reading).

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use aos_time::Timestamp;
use serde_json::{Map, Value};

use crate::{Digest, ErrorInfo, ItemId, NodeId, OwnerId, RuntimeId, SubjectId, SystemId, duration};

/// A field of a JSON document does not hold what it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    path: String,
    why: String,
}

impl FieldError {
    /// An error about the value at hand; [`FieldError::at`] adds where that is.
    pub fn new(why: impl Into<String>) -> Self {
        Self {
            path: String::new(),
            why: why.into(),
        }
    }

    /// The same error, one step further out: inside the field `key`.
    #[must_use]
    pub fn at(mut self, key: &str) -> Self {
        self.path = if self.path.is_empty() {
            key.into()
        } else if self.path.starts_with('[') {
            format!("{key}{}", self.path)
        } else {
            format!("{key}.{}", self.path)
        };
        self
    }

    /// The same error, one step further out: inside element `index` of a list.
    #[must_use]
    pub fn at_index(self, index: usize) -> Self {
        self.at(&format!("[{index}]"))
    }

    /// The path of the field, such as `items[2].version`; empty for the whole document.
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.why)
        } else {
            write!(f, "`{}`: {}", self.path, self.why)
        }
    }
}

impl std::error::Error for FieldError {}

/// What a JSON value is called in an error.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn expected(what: &str, value: &Value) -> FieldError {
    FieldError::new(format!("expected {what}, found {}", kind(value)))
}

/// A value that can be read from JSON tolerantly.
pub trait FromJson: Sized {
    /// Reads `value`.
    fn from_json(value: &Value) -> Result<Self, FieldError>;
}

/// A JSON object whose keys are looked up whatever their case.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a>(&'a Map<String, Value>);

impl<'a> Fields<'a> {
    /// The fields of `value`, which must be an object.
    pub fn of(value: &'a Value) -> Result<Self, FieldError> {
        match value {
            Value::Object(map) => Ok(Self(map)),
            other => Err(expected("an object", other)),
        }
    }

    /// The value of `key`; `None` if it is absent or null.
    pub fn get(&self, key: &str) -> Option<&'a Value> {
        self.0
            .get(key)
            .or_else(|| {
                self.0
                    .iter()
                    .find(|(name, _)| name.eq_ignore_ascii_case(key))
                    .map(|(_, value)| value)
            })
            .filter(|value| !value.is_null())
    }

    /// The value of the first of `keys` that is there, with its key: for fields that peers spell differently.
    pub fn any<'k>(&self, keys: &[&'k str]) -> Option<(&'k str, &'a Value)> {
        keys.iter()
            .find_map(|&key| self.get(key).map(|value| (key, value)))
    }

    /// Reads an optional field.
    pub fn opt<T: FromJson>(&self, key: &str) -> Result<Option<T>, FieldError> {
        self.get(key)
            .map(|value| T::from_json(value).map_err(|error| error.at(key)))
            .transpose()
    }

    /// Reads an optional field that is spelled like one of `keys`.
    pub fn opt_any<T: FromJson>(&self, keys: &[&str]) -> Result<Option<T>, FieldError> {
        self.any(keys)
            .map(|(key, value)| T::from_json(value).map_err(|error| error.at(key)))
            .transpose()
    }

    /// Reads a field that must be there.
    pub fn req<T: FromJson>(&self, key: &str) -> Result<T, FieldError> {
        self.opt(key)?
            .ok_or_else(|| FieldError::new("is missing").at(key))
    }

    /// Reads a field that must be there, spelled like one of `keys`.
    pub fn req_any<T: FromJson>(&self, keys: &[&str]) -> Result<T, FieldError> {
        self.opt_any(keys)?.ok_or_else(|| {
            FieldError::new("is missing").at(keys.first().copied().unwrap_or_default())
        })
    }

    /// Reads a field whose absence means its type's default.
    pub fn or_default<T: FromJson + Default>(&self, key: &str) -> Result<T, FieldError> {
        Ok(self.opt(key)?.unwrap_or_default())
    }

    /// All entries as they are written, for maps whose keys are data.
    pub fn entries(&self) -> impl Iterator<Item = (&'a str, &'a Value)> + use<'a> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }
}

/// Reads a text with its type's own parser.
pub fn word<T>(value: &Value) -> Result<T, FieldError>
where
    T: FromStr,
    T::Err: fmt::Display,
{
    match value {
        Value::String(text) => text
            .parse()
            .map_err(|error: T::Err| FieldError::new(error.to_string())),
        other => Err(expected("a text", other)),
    }
}

impl FromJson for Value {
    fn from_json(value: &Value) -> Result<Self, FieldError> {
        Ok(value.clone())
    }
}

impl FromJson for bool {
    fn from_json(value: &Value) -> Result<Self, FieldError> {
        value
            .as_bool()
            .ok_or_else(|| expected("true or false", value))
    }
}

impl FromJson for String {
    fn from_json(value: &Value) -> Result<Self, FieldError> {
        value
            .as_str()
            .map(Into::into)
            .ok_or_else(|| expected("a text", value))
    }
}

impl FromJson for f64 {
    fn from_json(value: &Value) -> Result<Self, FieldError> {
        value.as_f64().ok_or_else(|| expected("a number", value))
    }
}

/// The number as a whole one: `5` and `5.0` both are.
fn whole(value: &Value) -> Option<i128> {
    let Value::Number(number) = value else {
        return None;
    };
    if let Some(whole) = number.as_i128() {
        return Some(whole);
    }
    let real = number.as_f64()?;
    // 2^63 is exact as f64; beyond it no whole number of ours reaches.
    (real.fract() == 0.0 && real.abs() < 9.3e18).then_some(real as i128)
}

macro_rules! whole_numbers {
    ($($int:ty)*) => {$(
        impl FromJson for $int {
            fn from_json(value: &Value) -> Result<Self, FieldError> {
                let number = whole(value).ok_or_else(|| expected("a whole number", value))?;
                Self::try_from(number).map_err(|_| {
                    FieldError::new(format!("{number} is not between {} and {}", Self::MIN, Self::MAX))
                })
            }
        }
    )*};
}

whole_numbers!(u16 u32 u64 i32 i64);

impl FromJson for Duration {
    fn from_json(value: &Value) -> Result<Self, FieldError> {
        match value {
            Value::String(text) => {
                duration::parse(text).map_err(|error| FieldError::new(error.to_string()))
            }
            Value::Number(number) => duration::from_seconds(number.as_f64().unwrap_or(f64::NAN))
                .map_err(|error| FieldError::new(error.to_string())),
            other => Err(expected("a duration", other)),
        }
    }
}

impl<T: FromJson> FromJson for Vec<T> {
    fn from_json(value: &Value) -> Result<Self, FieldError> {
        let Value::Array(list) = value else {
            return Err(expected("a list", value));
        };
        list.iter()
            .enumerate()
            .map(|(index, element)| T::from_json(element).map_err(|error| error.at_index(index)))
            .collect()
    }
}

impl<T: FromJson> FromJson for BTreeMap<String, T> {
    fn from_json(value: &Value) -> Result<Self, FieldError> {
        Fields::of(value)?
            .entries()
            .map(|(key, value)| {
                T::from_json(value)
                    .map(|value| (key.to_owned(), value))
                    .map_err(|error| error.at(key))
            })
            .collect()
    }
}

impl FromJson for ErrorInfo {
    fn from_json(value: &Value) -> Result<Self, FieldError> {
        let fields = Fields::of(value)?;
        Ok(Self {
            aos_code: fields.or_default("aosCode")?,
            exit_code: fields.or_default("exitCode")?,
            message: fields.or_default("message")?,
        })
    }
}

macro_rules! words {
    ($($name:ty)*) => {$(
        impl FromJson for $name {
            fn from_json(value: &Value) -> Result<Self, FieldError> {
                word(value)
            }
        }
    )*};
}

words!(ItemId SubjectId NodeId RuntimeId OwnerId SystemId Digest Timestamp);
words!(crate::InstanceState crate::ItemState crate::NodeState crate::UnitConfigState crate::SubjectType);

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_match_whatever_their_case_and_null_is_absent() {
        let value = json!({ "RamLimit": 5.0, "none": null, "list": [1, "x"] });
        let fields = Fields::of(&value).unwrap();
        assert_eq!(fields.req::<u64>("ramlimit").unwrap(), 5);
        assert_eq!(fields.opt::<u64>("none").unwrap(), None);
        assert_eq!(fields.opt_any::<u64>(&["a", "ramLimit"]).unwrap(), Some(5));
        assert_eq!(
            fields.req::<Vec<u64>>("list").unwrap_err().to_string(),
            "`list[1]`: expected a whole number, found a text"
        );
        assert_eq!(
            fields
                .req::<u64>("gone")
                .unwrap_err()
                .at("outer")
                .to_string(),
            "`outer.gone`: is missing"
        );
    }

    #[test]
    fn numbers_out_of_range_say_so() {
        for (value, good) in [
            (json!(-1), false),
            (json!(1.5), false),
            (json!(1e300), false),
            (json!(65536), false),
            (json!(65535), true),
        ] {
            assert_eq!(u16::from_json(&value).is_ok(), good, "{value}");
        }
    }
}
