use std::marker::PhantomData;

use rusqlite::{OptionalExtension, Transaction, params};
use serde::{Serialize, de::DeserializeOwned};

use crate::{Error, Store};

/// One kind of record kept under a text key as JSON. For state that is always read and written whole; what is searched by
/// its parts deserves a table of its own.
///
/// The table is made by the script [`Records::SCHEMA`], once for all kinds.
#[derive(Debug, Clone)]
pub struct Records<T> {
    store: Store,
    kind: &'static str,
    of: PhantomData<fn() -> T>,
}

impl<T> Records<T> {
    /// The script to put in the schema of a [`Store`] that holds records.
    pub const SCHEMA: &'static str = "CREATE TABLE records (
        kind TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (kind, key)) WITHOUT ROWID;";

    /// The records called `kind` in `store`.
    pub fn new(store: Store, kind: &'static str) -> Self {
        Self {
            store,
            kind,
            of: PhantomData,
        }
    }
}

impl<T: Serialize + DeserializeOwned + Send + 'static> Records<T> {
    /// Stores `value` under `key`, replacing what was there.
    pub async fn put(&self, key: impl Into<String>, value: &T) -> Result<(), Error> {
        let (kind, key, text) = (self.kind, key.into(), self.text(value)?);
        self.store
            .write(move |transaction| put_text(transaction, kind, &key, &text))
            .await
    }

    /// Forgets `key`.
    pub async fn remove(&self, key: impl Into<String>) -> Result<(), Error> {
        let (kind, key) = (self.kind, key.into());
        self.store
            .write(move |transaction| forget(transaction, kind, &key))
            .await
    }

    /// Replaces all records of this kind by `all`, in one transaction.
    pub async fn replace(&self, all: impl IntoIterator<Item = (String, T)>) -> Result<(), Error> {
        let kind = self.kind;
        let rows = all
            .into_iter()
            .map(|(key, value)| Ok((key, self.text(&value)?)))
            .collect::<Result<Vec<_>, Error>>()?;
        self.store
            .write(move |transaction| {
                transaction.execute("DELETE FROM records WHERE kind = ?1", params![kind])?;
                rows.iter()
                    .try_for_each(|(key, text)| put_text(transaction, kind, key, text))
            })
            .await
    }

    /// Makes several changes in one transaction: `Some` stores, `None` forgets.
    pub async fn apply(
        &self,
        changes: impl IntoIterator<Item = (String, Option<T>)>,
    ) -> Result<(), Error> {
        let kind = self.kind;
        let rows = changes
            .into_iter()
            .map(|(key, value)| Ok((key, value.map(|value| self.text(&value)).transpose()?)))
            .collect::<Result<Vec<_>, Error>>()?;
        self.store
            .write(move |transaction| {
                rows.iter().try_for_each(|(key, text)| match text {
                    Some(text) => put_text(transaction, kind, key, text),
                    None => forget(transaction, kind, key),
                })
            })
            .await
    }

    /// The record under `key`, if there is one.
    pub async fn get(&self, key: impl Into<String>) -> Result<Option<T>, Error> {
        let (kind, key) = (self.kind, key.into());
        let text: Option<String> = self
            .store
            .read(move |connection| {
                let found = connection
                    .query_row(
                        "SELECT value FROM records WHERE kind = ?1 AND key = ?2",
                        params![kind, key],
                        |row| row.get(0),
                    )
                    .optional()?;
                Ok(found)
            })
            .await?;
        text.map(|text| self.parse(&text)).transpose()
    }

    /// All records of this kind, by key.
    pub async fn all(&self) -> Result<Vec<(String, T)>, Error> {
        let kind = self.kind;
        let rows: Vec<(String, String)> = self
            .store
            .read(move |connection| {
                let mut query = connection
                    .prepare("SELECT key, value FROM records WHERE kind = ?1 ORDER BY key")?;
                let rows = query.query_map(params![kind], |row| Ok((row.get(0)?, row.get(1)?)))?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await?;
        rows.into_iter()
            .map(|(key, text)| Ok((key, self.parse(&text)?)))
            .collect()
    }

    fn text(&self, value: &T) -> Result<String, Error> {
        serde_json::to_string(value).map_err(|source| Error::Record {
            table: self.kind.into(),
            source,
        })
    }

    fn parse(&self, text: &str) -> Result<T, Error> {
        serde_json::from_str(text).map_err(|source| Error::Record {
            table: self.kind.into(),
            source,
        })
    }
}

fn put_text(transaction: &Transaction<'_>, kind: &str, key: &str, text: &str) -> Result<(), Error> {
    transaction.execute(
        "INSERT INTO records (kind, key, value) VALUES (?1, ?2, ?3)
         ON CONFLICT (kind, key) DO UPDATE SET value = excluded.value",
        params![kind, key, text],
    )?;
    Ok(())
}

fn forget(transaction: &Transaction<'_>, kind: &str, key: &str) -> Result<(), Error> {
    transaction.execute(
        "DELETE FROM records WHERE kind = ?1 AND key = ?2",
        params![kind, key],
    )?;
    Ok(())
}
