use aos_session::{Lost, Outgoing, Priority, Record, RecordKey};
use aos_store::{
    Error, Store,
    rusqlite::{OptionalExtension, params},
};

/// The session's tables.
pub(crate) const SCHEMA: &str = "
    CREATE TABLE cloud_outbox (
        seq INTEGER PRIMARY KEY, txn TEXT NOT NULL, priority INTEGER NOT NULL, topic TEXT, payload BLOB NOT NULL);
    CREATE TABLE cloud_seen (seq INTEGER PRIMARY KEY, txn TEXT NOT NULL);";

/// Where the count of dropped messages is kept: a record of CM's database (`aos_store::Records`).
const LOST: &str = "cloud_lost";

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
                let lost: Option<String> = connection
                    .query_row("SELECT value FROM records WHERE kind = ?1", [LOST], |row| {
                        row.get(0)
                    })
                    .optional()?;
                if let Some(counts) = lost.and_then(|text| serde_json::from_str(&text).ok()) {
                    let [low, normal, high] = counts;
                    records.push(Record::Lost(Lost { low, normal, high }));
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
                        Change::Put(Record::Lost(lost)) => transaction.execute(
                            "INSERT OR REPLACE INTO records (kind, key, value) VALUES (?1, '', ?2)",
                            params![
                                LOST,
                                format!("[{},{},{}]", lost.low, lost.normal, lost.high)
                            ],
                        )?,
                        Change::Delete(RecordKey::Lost) => transaction
                            .execute("DELETE FROM records WHERE kind = ?1", params![LOST])?,
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
    use aos_store::Records;

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
        let lost = Record::Lost(Lost {
            low: 5,
            normal: 0,
            high: 1,
        });
        let open = || Outbox::new(Store::open(&path, &[Records::<()>::SCHEMA, SCHEMA]).unwrap());
        {
            let changes = [message.clone(), seen.clone(), lost.clone()].map(Change::Put);
            open().apply(changes.into()).await.unwrap();
        }
        let outbox = open();
        assert_eq!(outbox.load().await.unwrap(), [message, seen, lost]);
        let changes = vec![
            Change::Delete(RecordKey::Outgoing(7)),
            Change::Delete(RecordKey::Seen(3)),
            Change::Delete(RecordKey::Lost),
        ];
        outbox.apply(changes).await.unwrap();
        assert_eq!(outbox.load().await.unwrap(), []);
    }
}
