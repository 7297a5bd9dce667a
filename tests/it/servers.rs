//! The test servers themselves: each kind starts, stops, dies and comes back, and is the version that it should be.

#[cfg(feature = "mysql")]
mod mysql {
    use mysql_async::prelude::Queryable;

    use crate::support::mysql::{Family, Server, server};
    use crate::support::process::available;

    async fn logs_rows_with_gtids(family: Family, version: &str) {
        if !available(family.component()) {
            return;
        }
        let url = server(family).database().await;
        let mut conn = mysql_async::Conn::from_url(&url).await.unwrap();
        let row: (String, String, String, u64) = conn
            .query_first("SELECT VERSION(), @@binlog_format, @@binlog_row_metadata, @@log_bin")
            .await
            .unwrap()
            .unwrap();
        assert!(row.0.contains(version), "{row:?}");
        assert_eq!((row.1.as_str(), row.2.as_str(), row.3), ("ROW", "FULL", 1));
        conn.query_drop("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)").await.unwrap();
        let position = match family {
            Family::MySql => "SELECT @@gtid_executed",
            Family::MariaDb => "SELECT @@gtid_binlog_pos",
        };
        let position: String = conn.query_first(position).await.unwrap().unwrap();
        assert!(!position.is_empty());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn mysql_logs_rows_with_gtids() {
        logs_rows_with_gtids(Family::MySql, "9.").await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn mariadb_logs_rows_with_gtids() {
        logs_rows_with_gtids(Family::MariaDb, "MariaDB").await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_server_of_ones_own_keeps_its_rows_through_a_kill_and_loses_them_to_a_restore() {
        for family in [Family::MySql, Family::MariaDb] {
            if !available(family.component()) {
                continue;
            }
            let server = Server::start(family, &["--binlog-row-image=MINIMAL", "--server-id=7001"]);
            let mut conn = server.connect("").await;
            let asked = "SELECT CONCAT(@@binlog_row_image, @@server_id)";
            assert_eq!(conn.query_first::<String, _>(asked).await.unwrap().unwrap(), "MINIMAL7001");
            conn.query_drop("CREATE DATABASE d; CREATE TABLE d.t (id int PRIMARY KEY)").await.unwrap();
            server.stop();
            server.save("before");
            server.start_again(&[]);
            let mut conn = server.connect("d").await;
            conn.query_drop("INSERT INTO t VALUES (1)").await.unwrap();
            server.kill();
            server.start_again(&[]);
            let count = "SELECT COUNT(*) FROM t";
            assert_eq!(server.connect("d").await.query_first::<u64, _>(count).await.unwrap(), Some(1));
            server.stop();
            server.put_back("before");
            server.start_again(&[]);
            assert_eq!(server.connect("d").await.query_first::<u64, _>(count).await.unwrap(), Some(0));
        }
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use sqlx::{Connection, Executor, PgConnection, Row};

    use crate::support::postgres::{Server, Version, newest, server};
    use crate::support::process::available;

    async fn asked(url: &str, query: &'static str) -> String {
        let mut conn = PgConnection::connect(url).await.unwrap();
        conn.fetch_one(query).await.unwrap().get(0)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_newest_postgres_is_newer_than_debians() {
        if !available("postgres") || !available("postgres-newest") {
            return;
        }
        let version = "SELECT current_setting('server_version_num')";
        let old = asked(&server().url("postgres"), version).await;
        let new = asked(&newest().database().await, version).await;
        assert!(new > old && new.as_str() >= "170000", "{old} {new}");
        assert_eq!(asked(&newest().url("postgres"), "SELECT current_setting('wal_level')").await, "logical");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_server_of_ones_own_is_killed_restored_followed_and_its_standby_promoted() {
        for version in [Version::Debian, Version::Newest] {
            if !available(version.component()) {
                continue;
            }
            let server = Server::start(version, &["max_slot_wal_keep_size=16MB"]);
            let url = server.database().await;
            assert_eq!(asked(&url, "SELECT current_setting('max_slot_wal_keep_size')").await, "16MB");
            server.stop("fast");
            server.save("before");
            server.start_again(&[]);
            let mut conn = PgConnection::connect(&url).await.unwrap();
            conn.execute("SET synchronous_commit = on; CREATE TABLE t AS SELECT 1 AS n").await.unwrap();
            server.kill();
            server.start_again(&[]);
            let count = "SELECT count(*)::text FROM pg_class WHERE relname = 't'";
            assert_eq!(asked(&url, count).await, "1");
            let standby = server.standby(&[]);
            let its_url = url.replace(&server.port().to_string(), &standby.port().to_string());
            assert_eq!(asked(&its_url, "SELECT pg_is_in_recovery()::text").await, "true");
            standby.promote();
            assert_eq!(asked(&its_url, "INSERT INTO t VALUES (2) RETURNING pg_is_in_recovery()::text").await, "false");
            server.stop("immediate");
            server.put_back("before");
            server.start_again(&[]);
            assert_eq!(asked(&url, count).await, "0");
        }
    }
}
