use aos_session::{Outgoing, Priority, Record, RecordKey};
use aos_store::{Error, Store, rusqlite::params};

/// The session's tables.
pub(crate) const SCHEMA: &str = "
    CREATE TABLE cloud_outbox (
        seq INTEGER PRIMARY KEY, txn TEXT NOT NULL, priority INTEGER NOT NULL, topic TEXT, payload BLOB NOT NULL);
    CREATE TABLE cloud_seen (seq INTEGER PRIMARY KEY, txn TEXT NOT NULL);";

/// A change of what is stored.
#[derive(Debug)]
pub(crate) enum Change {
    Put(Record),
    Delete(RecordKey),
}

/// What the session must find again after a restart.
#[derive(Debug, Clone)]
pub(crate) struct Outbox(Store);

fn number(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

impl Outbox {
    pub(crate) fn new(store: Store) -> Self {
        Self(store)
    }

    /// All records.
    pub(crate) async fn load(&self) -> Result<Vec<Record>, Error> {
        self.0
            .read(|connection| {
                let mut records = Vec::new();
                let mut query = connection.prepare(
                    "SELECT seq, txn, priority, topic, payload FROM cloud_outbox ORDER BY seq",
                )?;
                let rows = query.query_map([], |row| {
                    let payload: Vec<u8> = row.get(4)?;
                    Ok(Record::Outgoing(Outgoing {
                        seq: u64::try_from(row.get::<_, i64>(0)?).unwrap_or(0),
                        txn: row.get(1)?,
                        priority: Priority::from_number(row.get(2)?),
                        topic: row.get(3)?,
                        payload: payload.into(),
                    }))
                })?;
                for row in rows {
                    records.push(row?);
                }
                let mut query =
                    connection.prepare("SELECT seq, txn FROM cloud_seen ORDER BY seq")?;
                let rows = query.query_map([], |row| {
                    Ok(Record::Seen {
                        seq: u64::try_from(row.get::<_, i64>(0)?).unwrap_or(0),
                        txn: row.get(1)?,
                    })
                })?;
                for row in rows {
                    records.push(row?);
                }
                Ok(records)
            })
            .await
    }

    /// Makes all changes durable, in order, or none.
    pub(crate) async fn apply(&self, changes: Vec<Change>) -> Result<(), Error> {
        self.0
            .write(move |transaction| {
                for change in changes {
                    match change {
                        Change::Put(Record::Outgoing(message)) => transaction.execute(
                            "INSERT OR REPLACE INTO cloud_outbox (seq, txn, priority, topic, payload)
                             VALUES (?1, ?2, ?3, ?4, ?5)",
                            params![
                                number(message.seq),
                                message.txn,
                                message.priority.as_number(),
                                message.topic,
                                message.payload.as_ref()
                            ],
                        )?,
                        Change::Put(Record::Seen { seq, txn }) => transaction.execute(
                            "INSERT OR REPLACE INTO cloud_seen (seq, txn) VALUES (?1, ?2)",
                            params![number(seq), txn],
                        )?,
                        Change::Delete(RecordKey::Outgoing(seq)) => transaction.execute(
                            "DELETE FROM cloud_outbox WHERE seq = ?1",
                            params![number(seq)],
                        )?,
                        Change::Delete(RecordKey::Seen(seq)) => transaction.execute(
                            "DELETE FROM cloud_seen WHERE seq = ?1",
                            params![number(seq)],
                        )?,
                    };
                }
                Ok(())
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn records_survive_and_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cm.db");
        let message = Record::Outgoing(Outgoing {
            seq: 7,
            txn: "t".into(),
            priority: Priority::High,
            topic: Some("status".into()),
            payload: b"{}".as_slice().into(),
        });
        let seen = Record::Seen {
            seq: 3,
            txn: "u".into(),
        };
        {
            let outbox = Outbox::new(Store::open(&path, &[SCHEMA]).unwrap());
            let changes = vec![Change::Put(message.clone()), Change::Put(seen.clone())];
            outbox.apply(changes).await.unwrap();
        }
        let outbox = Outbox::new(Store::open(&path, &[SCHEMA]).unwrap());
        assert_eq!(outbox.load().await.unwrap(), [message, seen]);
        let changes = vec![
            Change::Delete(RecordKey::Outgoing(7)),
            Change::Delete(RecordKey::Seen(3)),
        ];
        outbox.apply(changes).await.unwrap();
        assert_eq!(outbox.load().await.unwrap(), []);
    }
}
