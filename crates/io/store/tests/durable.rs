//! What the store promises: schema steps once, whole transactions, private files, survival of a sudden end.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may fail loudly"
)]

use std::os::unix::fs::PermissionsExt;

use aos_store::{Error, Records, Store, rusqlite::params};

const SCHEMA: &[&str] = &["CREATE TABLE t (x INTEGER NOT NULL)", Records::<()>::SCHEMA];

#[tokio::test]
async fn schema_grows_and_a_newer_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/aos.db");
    drop(Store::open(&path, &SCHEMA[..1]).unwrap());
    let store = Store::open(&path, SCHEMA).unwrap();
    Records::<u32>::new(store, "n").put("a", &1).await.unwrap();
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert!(matches!(
        Store::open(&path, &SCHEMA[..1]),
        Err(Error::Newer {
            found: 2,
            known: 1,
            ..
        })
    ));
}

#[tokio::test]
async fn a_failed_transaction_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("aos.db"), SCHEMA).unwrap();
    let failed = store
        .write(|transaction| {
            transaction.execute("INSERT INTO t VALUES (?1)", params![1])?;
            transaction.execute("INSERT INTO t VALUES (NULL)", [])?;
            Ok(())
        })
        .await;
    assert!(matches!(failed, Err(Error::Sql(_))));
    let rows: i64 = store
        .read(|c| Ok(c.query_row("SELECT count(*) FROM t", [], |row| row.get(0))?))
        .await
        .unwrap();
    assert_eq!(rows, 0);
}

#[tokio::test]
async fn what_was_written_is_there_for_another_opener_while_the_first_still_runs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("aos.db");
    let first = Records::<String>::new(Store::open(&path, SCHEMA).unwrap(), "n");
    first.put("a", &"1".into()).await.unwrap();
    first.put("b", &"2".into()).await.unwrap();
    first.remove("a").await.unwrap();
    let second = Records::<String>::new(Store::open(&path, SCHEMA).unwrap(), "n");
    assert_eq!(
        second.all().await.unwrap(),
        [("b".to_owned(), "2".to_owned())]
    );
    second
        .replace([("c".to_owned(), "3".to_owned())])
        .await
        .unwrap();
    assert_eq!(first.get("b").await.unwrap(), None);
    assert_eq!(first.get("c").await.unwrap(), Some("3".to_owned()));
}
