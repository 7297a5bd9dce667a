//! Locks, isolation, and what a transaction may not do.

use super::*;

const LEDGER: [&str; 2] = ["CREATE TABLE ledger (n BIGINT)", "CREATE TABLE ledger_lock (n BIGINT)"];

#[tokio::test(flavor = "multi_thread")]
async fn two_loaders_that_read_before_they_lock_collide_and_two_that_lock_first_do_not() {
    if !available("postgres") {
        return;
    }
    let redshift = Redshift::start().await;
    let (a, b) = (redshift.connect().await, redshift.connect().await);
    a.all(&LEDGER).await;
    // The second takes its snapshot before the first commits.
    b.all(&["BEGIN", "SELECT max(n) FROM ledger"]).await;
    load(&a, false).await.unwrap();
    a.all(&["COMMIT"]).await;
    let failure = b.refused("INSERT INTO ledger SELECT coalesce(max(n), 0) + 1 FROM ledger").await;
    assert_eq!((failure.code.as_str(), failure.message.as_str()), ("XX000", "1023"));
    assert!(failure.detail.starts_with("Serializable isolation violation on table - "), "{failure:?}");
    assert_eq!(b.refused("SELECT 1").await.code, "25P02");
    b.all(&["ROLLBACK"]).await;
    assert_eq!(redshift.sim.counters().serialization_failures, 1);
    // With the lock first, one waits for the other, and sees what it did.
    load(&a, true).await.unwrap();
    let waiting = {
        let b = b.clone();
        tokio::spawn(async move { load(&b, true).await })
    };
    wait_for_lock(&redshift).await;
    a.all(&["COMMIT"]).await;
    waiting.await.unwrap().unwrap();
    b.all(&["COMMIT"]).await;
    assert_eq!(a.rows("SELECT n FROM ledger ORDER BY n").await, ["1", "2", "3"]);
}

/// Until a session waits for a lock.
async fn wait_for_lock(redshift: &Redshift) {
    let watcher = redshift.connect().await;
    let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted";
    while watcher.rows(waits).await == ["0"] {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshot_isolation_lets_them_pass_unless_they_change_one_row() {
    if !available("postgres") {
        return;
    }
    let redshift = Redshift::with(|options| options.isolation = Isolation::Snapshot).await;
    let (a, b) = (redshift.connect().await, redshift.connect().await);
    a.all(&LEDGER).await;
    b.all(&["BEGIN", "SELECT max(n) FROM ledger"]).await;
    load(&a, false).await.unwrap();
    a.all(&["COMMIT"]).await;
    b.all(&["INSERT INTO ledger SELECT coalesce(max(n), 0) + 1 FROM ledger", "COMMIT"]).await;
    assert_eq!(a.rows("SELECT n FROM ledger").await, ["1", "1"], "both saw none");
    b.all(&["BEGIN", "SELECT 1 FROM ledger"]).await;
    a.all(&["UPDATE ledger SET n = 2"]).await;
    assert!(b.refused("UPDATE ledger SET n = 3").await.message.contains("conflict with concurrent transaction"));
    assert_eq!(
        a.rows("SELECT DISTINCT trim(isolation_level) FROM stv_db_isolation_level").await,
        ["Snapshot Isolation"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_not_enforced_truncate_commits_and_widening_stands_alone() {
    if !available("postgres") {
        return;
    }
    let redshift = Redshift::start().await;
    let session = redshift.connect().await;
    session
        .all(&[
            "CREATE TABLE t (id BIGINT PRIMARY KEY, v VARCHAR(3), k VARCHAR(3) UNIQUE)",
            "INSERT INTO t VALUES (1, 'a', 'k'), (1, 'b', 'k')",
        ])
        .await;
    assert_eq!(session.rows("SELECT count(*) FROM t").await, ["2"], "doubled rows show");
    assert_eq!(session.refused("INSERT INTO t VALUES (NULL, 'a', 'k')").await.code, "23502");
    let long = session.refused("INSERT INTO t VALUES (2, 'äö', 'k')").await;
    assert_eq!((long.code.as_str(), long.message.as_str()), ("22001", "value too long for type character varying(3)"));
    session
        .all(&["BEGIN", "INSERT INTO t VALUES (2, 'c', 'k')", "CREATE TABLE u (a int)", "TRUNCATE t", "ROLLBACK"])
        .await;
    assert_eq!(session.rows("SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM u)").await, ["0|0"]);
    session.all(&["BEGIN"]).await;
    let widen = "ALTER TABLE t ALTER COLUMN v TYPE VARCHAR(12)";
    assert_eq!(session.refused(widen).await.message, "ALTER TABLE ALTER COLUMN cannot run inside a transaction block");
    session.all(&["ROLLBACK", widen, "INSERT INTO t VALUES (3, 'zwölf bytes', 'k')"]).await;
    for (sql, why) in [
        (widen, "target column size should be different"),
        ("ALTER TABLE t ALTER COLUMN v TYPE VARCHAR(5)", "it holds values of 12 bytes"),
        ("ALTER TABLE t ALTER COLUMN k TYPE VARCHAR(12)", "constraint"),
        ("ALTER TABLE t ALTER COLUMN id TYPE VARCHAR(12)", "only the size of a VARCHAR"),
    ] {
        assert!(session.refused(sql).await.message.contains(why), "{sql}");
    }
    session.all(&["CREATE TEMP TABLE stage (LIKE t)"]).await;
    assert_eq!(
        session.refused("INSERT INTO stage VALUES (3, 'dreizehn Bytes', 'k')").await.code,
        "22001",
        "lengths come along"
    );
    session
        .all(&[
            "INSERT INTO stage VALUES (3, 'new', 'k')",
            "DELETE FROM t USING stage WHERE t.id = stage.id",
            "INSERT INTO t SELECT * FROM stage",
        ])
        .await;
    assert_eq!(session.rows("SELECT id, v FROM t").await, ["3|new"]);
}
