use aos_time::Timestamp;
use serde::{Serialize, de::DeserializeOwned};
use sqlx::{Row, any::AnyRow};
use uuid::Uuid;

use crate::{DbError, error::Doing};

/// Reads columns as the types we mean by them.
pub(crate) trait Columns {
    fn text(&self, name: &'static str) -> Result<String, DbError>;
    fn text_or_null(&self, name: &'static str) -> Result<Option<String>, DbError>;
    fn int(&self, name: &'static str) -> Result<i64, DbError>;
    fn int_or_null(&self, name: &'static str) -> Result<Option<i64>, DbError>;
    fn bytes(&self, name: &'static str) -> Result<Vec<u8>, DbError>;

    fn count(&self, name: &'static str) -> Result<u64, DbError> {
        Ok(u64::try_from(self.int(name)?).unwrap_or(0))
    }

    fn count_or_null(&self, name: &'static str) -> Result<Option<u64>, DbError> {
        Ok(self.int_or_null(name)?.and_then(|n| u64::try_from(n).ok()))
    }

    fn truth(&self, name: &'static str) -> Result<bool, DbError> {
        Ok(self.int(name)? != 0)
    }

    fn uuid(&self, name: &'static str) -> Result<Uuid, DbError> {
        parse_uuid(name, &self.text(name)?)
    }

    fn uuid_or_null(&self, name: &'static str) -> Result<Option<Uuid>, DbError> {
        self.text_or_null(name)?
            .map(|text| parse_uuid(name, &text))
            .transpose()
    }

    fn time(&self, name: &'static str) -> Result<Timestamp, DbError> {
        Ok(Timestamp::from_micros(self.int(name)?))
    }

    fn time_or_null(&self, name: &'static str) -> Result<Option<Timestamp>, DbError> {
        Ok(self.int_or_null(name)?.map(Timestamp::from_micros))
    }

    fn json<T: DeserializeOwned>(&self, name: &'static str) -> Result<T, DbError> {
        from_json(name, &self.text(name)?)
    }

    fn json_or_null<T: DeserializeOwned>(&self, name: &'static str) -> Result<Option<T>, DbError> {
        self.text_or_null(name)?
            .map(|text| from_json(name, &text))
            .transpose()
    }

    /// A word that serde knows, such as a unit enum.
    fn word<T: DeserializeOwned>(&self, name: &'static str) -> Result<T, DbError> {
        serde_json::from_value(serde_json::Value::String(self.text(name)?))
            .map_err(|source| DbError::corrupt(name, source))
    }
}

impl Columns for AnyRow {
    fn text(&self, name: &'static str) -> Result<String, DbError> {
        self.try_get(name).doing(name)
    }

    fn text_or_null(&self, name: &'static str) -> Result<Option<String>, DbError> {
        self.try_get(name).doing(name)
    }

    fn int(&self, name: &'static str) -> Result<i64, DbError> {
        self.try_get(name).doing(name)
    }

    fn int_or_null(&self, name: &'static str) -> Result<Option<i64>, DbError> {
        self.try_get(name).doing(name)
    }

    fn bytes(&self, name: &'static str) -> Result<Vec<u8>, DbError> {
        self.try_get(name).doing(name)
    }
}

fn parse_uuid(what: &'static str, text: &str) -> Result<Uuid, DbError> {
    Uuid::parse_str(text).map_err(|source| DbError::corrupt(what, source))
}

fn from_json<T: DeserializeOwned>(what: &'static str, text: &str) -> Result<T, DbError> {
    serde_json::from_str(text).map_err(|source| DbError::corrupt(what, source))
}

/// A value as JSON text for a column.
pub(crate) fn to_json<T: Serialize>(what: &'static str, value: &T) -> Result<String, DbError> {
    serde_json::to_string(value).map_err(|source| DbError::corrupt(what, source))
}

/// The serde word of a unit enum for a column.
pub(crate) fn to_word<T: Serialize>(what: &'static str, value: &T) -> Result<String, DbError> {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => Ok(word),
        Ok(other) => Ok(other.to_string()),
        Err(source) => Err(DbError::corrupt(what, source)),
    }
}

/// A number for a BIGINT column; saturates.
pub(crate) fn big(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
