//! The header of a message that is too long to be read as a whole.

use std::{fmt, marker::PhantomData};

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

/// What could be told.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) txn: Option<String>,
    pub(crate) system_id: Option<String>,
}

/// Reads the header and passes over all else without keeping it. What came before an error counts.
pub(crate) fn skim(bytes: &[u8]) -> Header {
    let mut header = Header::default();
    let mut json = serde_json::Deserializer::from_slice(bytes);
    // The error is of no interest: the message is refused in any case.
    let _ = Level::<Outer>(&mut header, PhantomData).deserialize(&mut json);
    header
}

/// The object that holds the header.
struct Outer;
/// The header itself.
struct Inner;

/// One JSON object on the way to the fields; anything else is passed over.
struct Level<'h, L>(&'h mut Header, PhantomData<L>);

trait Entry {
    fn entry<'de, A: MapAccess<'de>>(
        key: &str,
        map: &mut A,
        header: &mut Header,
    ) -> Result<(), A::Error>;
}

impl Entry for Outer {
    fn entry<'de, A: MapAccess<'de>>(
        key: &str,
        map: &mut A,
        header: &mut Header,
    ) -> Result<(), A::Error> {
        if key.eq_ignore_ascii_case("header") {
            map.next_value_seed(Level::<Inner>(header, PhantomData))
        } else {
            map.next_value::<IgnoredAny>().map(drop)
        }
    }
}

impl Entry for Inner {
    fn entry<'de, A: MapAccess<'de>>(
        key: &str,
        map: &mut A,
        header: &mut Header,
    ) -> Result<(), A::Error> {
        if key.eq_ignore_ascii_case("txn") {
            header.txn = Some(map.next_value()?);
        } else if key.eq_ignore_ascii_case("systemId") {
            header.system_id = Some(map.next_value()?);
        } else {
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}

impl<'de, L: Entry> DeserializeSeed<'de> for Level<'_, L> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de, L: Entry> Visitor<'de> for Level<'_, L> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            L::entry(&key, &mut map, self.0)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_txn_is_found_wherever_the_header_is_and_whatever_else_is_broken() {
        let found = |text: &str| skim(text.as_bytes()).txn;
        let txn = Some("t".to_owned());
        assert_eq!(
            found(r#"{"header":{"version":7,"txn":"t"},"data":{}}"#),
            txn
        );
        assert_eq!(found(r#"{"data":[[{}]],"HEADER":{"TXN":"t"}}"#), txn);
        assert_eq!(found(r#"{"header":{"txn":"t"},"data":{"cut"#), txn);
        assert_eq!(found(r#"{"header":{"txn":5}}"#), None);
        assert_eq!(found(r#"{"header":"txn"}"#), None);
        assert_eq!(found("[]"), None);
        assert_eq!(found(""), None);
    }
}
