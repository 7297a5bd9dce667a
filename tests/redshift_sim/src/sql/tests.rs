//! What statements become, and which are refused.

use super::*;
use crate::lex::statements;

fn planned(sql: &str) -> Result<Plan, Refusal> {
    let all = statements(sql, false)?;
    assert_eq!(all.len(), 1, "{sql}");
    plan(&all[0], &Settings::default())
}

fn sql(text: &str) -> String {
    planned(text).unwrap_or_else(|refusal| panic!("{text}: {refusal:?}")).sql
}

/// SQLSTATE and message of the refusal.
fn refused(text: &str) -> (String, String) {
    match planned(text) {
        Ok(plan) => panic!("{text} was taken: {plan:?}"),
        Err(refusal) => (refusal.code, refusal.message),
    }
}

#[test]
fn words_of_redshift_are_written_for_postgres() {
    assert_eq!(sql("SELECT NVL(a, 0) FROM t"), "select coalesce ( a , 0 ) from t");
    assert_eq!(sql("SELECT SYSDATE"), "select pg_catalog.sysdate()");
    assert_eq!(sql("select datediff(minute, a, b) from t"), "select datediff ( 'minute' , a , b ) from t");
    assert_eq!(sql("select 'x'::varchar(max)"), "select 'x' :: varchar ( 65535 )");
    assert_eq!(sql("select * from information_schema.columns"), "select * from sim . information_columns");
}

#[test]
fn top_becomes_a_limit_at_the_end_of_its_query() {
    assert_eq!(sql("SELECT TOP 5 a FROM t ORDER BY a"), "select a from t order by a LIMIT 5");
    assert_eq!(
        sql("select top 1000001 \"_\".\"c\" from (select top 3 \"c\" from \"s\".\"v\" \"$Table\") \"_\""),
        "select \"_\" . \"c\" from ( select \"c\" from \"s\" . \"v\" \"$table\" LIMIT 3 ) \"_\" LIMIT 1000001"
    );
    assert_eq!(sql("select top from t"), "select top from t", "a column may be called so to the translation");
}

#[test]
fn literals_and_names_are_read_as_redshift_reads_them() {
    assert_eq!(sql(r"SELECT 'it''s', 'a\'b', 'c\\d'"), r"select 'it''s' , 'a''b' , E'c\\d'");
    assert_eq!(sql("SELECT \"Mixed\" FROM T"), "select \"mixed\" from t");
    assert_eq!(sql("SELECT 1 -- why\n + /* so */ 2"), "select 1 + 2");
    assert_eq!(sql("SELECT 1.5e-3-2, a<-1"), "select 1.5e-3 - 2 , a < - 1");
    let sensitive = statements("SELECT \"Mixed\"", true).expect("lexes");
    assert_eq!(sensitive[0][1].value, "Mixed");
    for broken in ["SELECT 'a", "SELECT \"a", "SELECT /* a", r"SELECT 'a\'"] {
        assert!(statements(broken, false).is_err(), "{broken}");
    }
}

#[test]
fn tables_keep_what_postgres_has_and_remember_the_rest() {
    assert_eq!(
        sql(
            "CREATE TABLE s.t (id BIGINT NOT NULL PRIMARY KEY ENCODE az64 DISTKEY, v VARCHAR(10) DEFAULT 'x', j SUPER, d DECIMAL, \
             n VARCHAR(MAX), c TEXT) SORTKEY (id, v) BACKUP NO"
        ),
        "CREATE TABLE \"s\".\"t\" (\"id\" bigint NOT NULL, \"v\" varchar(10) DEFAULT 'x', \"j\" super, \"d\" numeric(18,0), \
         \"n\" varchar(65535), \"c\" varchar(256), CONSTRAINT sim_key_0 CHECK ((\"id\" IS NULL) IS NOT NULL)) \
         /*sim:{\"distkey\":\"id\",\"encode\":{\"id\":\"az64\"},\"sortkey\":[\"id\",\"v\"]}*/"
    );
    assert_eq!(
        sql("create temp table x (like s.t including defaults)"),
        "CREATE TEMPORARY TABLE \"x\" (LIKE \"s\".\"t\" INCLUDING DEFAULTS) /*sim:{\"like\":\"\\\"s\\\".\\\"t\\\"\"}*/"
    );
    assert_eq!(
        sql("CREATE TABLE x AS SELECT NVL(1, 2) AS a"),
        "CREATE TABLE \"x\" AS select coalesce ( 1 , 2 ) as a /*sim:{}*/"
    );
    assert_eq!(
        sql("CREATE TABLE IF NOT EXISTS t (a int, b int, PRIMARY KEY (a, b)) DISTSTYLE ALL"),
        "CREATE TABLE IF NOT EXISTS \"t\" (\"a\" int NOT NULL, \"b\" int NOT NULL, CONSTRAINT sim_key_0 CHECK ((\"a\" IS NULL) IS NOT NULL AND (\"b\" IS NULL) IS NOT NULL)) /*sim:{\"diststyle\":\"all\"}*/"
    );
    assert_eq!(
        sql("ALTER TABLE t ADD COLUMN c varchar(5) ENCODE lzo"),
        "ALTER TABLE \"t\" ADD COLUMN \"c\" varchar(5) /*sim:{\"add\":{\"c\":\"lzo\"}}*/"
    );
}

#[test]
fn columns_of_types_that_redshift_has_not_are_refused() {
    for (kind, name) in [
        ("json", "json"),
        ("uuid", "uuid"),
        ("int[]", "int[]"),
        ("serial", "serial"),
        ("bytea", "bytea"),
        ("bigint(3)", "bigint"),
    ] {
        let (code, message) = refused(&format!("CREATE TABLE t (c {kind})"));
        assert_eq!((code.as_str(), message), ("0A000", format!("Column \"t.c\" has unsupported type \"{name}\".")));
    }
    assert_eq!(
        refused("CREATE TABLE t (c VARCHAR(65536))").1,
        "Column length exceeds maximum allowed (maximum column length is 65535)"
    );
    assert_eq!(refused("CREATE TABLE t (c DECIMAL(39,2))").0, "22023");
    assert_eq!(refused("CREATE TABLE t (c int ENCODE gzip)").0, "42601");
    assert_eq!(refused("CREATE TABLE t (tag int)").0, "42601", "a reserved word");
    assert_eq!(refused("CREATE TABLE t (a int CHECK (a > 0))").0, "42601");
    assert_eq!(refused("CREATE TABLE t (a int) PARTITION BY RANGE (a)").0, "42601");
}

#[test]
fn what_postgres_takes_and_redshift_does_not_is_refused() {
    for (text, code) in [
        ("INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING", "42601"),
        ("INSERT INTO t VALUES (1) RETURNING a", "42601"),
        ("SELECT ARRAY[1, 2]", "0A000"),
        ("SELECT a::int[] FROM t", "0A000"),
        ("SELECT a::json FROM t", "42704"),
        ("SELECT CAST(a AS uuid) FROM t", "42704"),
        ("SELECT * FROM t FOR UPDATE", "0A000"),
        ("SELECT DISTINCT ON (a) a FROM t", "0A000"),
        ("SELECT count(*) FILTER (WHERE a > 1) FROM t", "42601"),
        ("SELECT * FROM t, LATERAL (SELECT 1) x", "42601"),
        ("WITH x AS (DELETE FROM t WHERE a = 1) SELECT 1", "42601"),
        ("SELECT a->'b' FROM t", "42883"),
        ("SELECT string_agg(a, ',') FROM t", "42883"),
        ("SELECT pg_advisory_lock(1)", "42883"),
        ("INSERT INTO t SELECT generate_series(1, 3)", "0A000"),
        ("SELECT generate_series(1, 3) FROM t", "0A000"),
        ("CREATE INDEX i ON t (a)", "0A000"),
        ("CREATE UNIQUE INDEX i ON t (a)", "0A000"),
        ("CREATE SEQUENCE s", "0A000"),
        ("CREATE EXTENSION x", "0A000"),
        ("CREATE TYPE x AS ENUM ('a')", "0A000"),
        ("CREATE TRIGGER x BEFORE INSERT ON t", "0A000"),
        ("SAVEPOINT a", "0A000"),
        ("ROLLBACK TO SAVEPOINT a", "0A000"),
        ("LISTEN a", "0A000"),
        ("DO 'x'", "0A000"),
        ("LOCK TABLE t IN SHARE MODE", "42601"),
        ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", "42601"),
        ("SET work_mem TO '1MB'", "42704"),
        ("SET extra_float_digits TO 3", "22023"),
        ("DELETE FROM t a WHERE a.b = 1", "42601"),
        ("DELETE FROM t USING (SELECT 1) s WHERE t.a = s.a", "42601"),
        ("DELETE FROM t USING s", "0A000"),
        ("UPDATE t SET (a, b) = (1, 2)", "42601"),
        ("UPDATE t SET a = 1 FROM s", "0A000"),
        ("FROBNICATE t", "42601"),
    ] {
        assert_eq!(refused(text).0, code, "{text}");
    }
    sql("SELECT generate_series(1, 3)");
    sql("SELECT substring(a for 3) FROM t");
}

#[test]
fn an_alter_is_one_action_and_widens_alone() {
    for (text, code) in [
        ("ALTER TABLE t ADD COLUMN a int, ADD COLUMN b int", "42601"),
        ("ALTER TABLE t ADD COLUMN IF NOT EXISTS a int", "42601"),
        ("ALTER TABLE t ADD COLUMN a int NOT NULL", "0A000"),
        ("ALTER TABLE t ADD COLUMN a int NOT NULL DEFAULT NULL", "0A000"),
        ("ALTER TABLE t ADD COLUMN a int UNIQUE", "0A000"),
        ("ALTER TABLE t ALTER COLUMN a TYPE bigint", "0A000"),
        ("ALTER TABLE t ALTER COLUMN a TYPE varchar(9) USING a", "0A000"),
        ("ALTER TABLE t ALTER COLUMN a SET NOT NULL", "0A000"),
        ("ALTER TABLE t ALTER COLUMN a DROP NOT NULL", "0A000"),
        ("ALTER TABLE t SET LOGGED", "42601"),
        ("ALTER INDEX i RENAME TO j", "0A000"),
    ] {
        assert_eq!(refused(text).0, code, "{text}");
    }
    let widened = planned("ALTER TABLE s.t ALTER COLUMN c TYPE VARCHAR(512)").expect("plans");
    assert_eq!(widened.sql, "CALL sim.widen('\"s\".\"t\"'::regclass, 'c', 512)");
    assert_eq!((widened.effect, widened.tag), (Effect::Alone("ALTER TABLE ALTER COLUMN"), Some("ALTER TABLE")));
    sql("ALTER TABLE t ADD COLUMN a int NOT NULL DEFAULT 0");
    sql("ALTER TABLE t RENAME COLUMN a TO b");
    sql("ALTER TABLE t DROP COLUMN a CASCADE");
}

#[test]
fn merge_keeps_within_its_restrictions() {
    let good = "MERGE INTO t USING s ON t.id = s.id WHEN MATCHED THEN UPDATE SET v = s.v WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.v)";
    assert_eq!(planned(good).expect("plans").effect, Effect::Write { table: "\"t\"".into(), reads: true });
    assert!(
        sql("MERGE INTO t USING s ON t.id = s.id REMOVE DUPLICATES")
            .contains("INSERT INTO \"t\" SELECT DISTINCT s.* FROM s")
    );
    for (text, code) in [
        (
            "MERGE INTO t a USING s ON a.id = s.id WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT VALUES (1)",
            "42601",
        ),
        ("MERGE INTO t USING s ON t.id = s.id WHEN MATCHED THEN DELETE", "0A000"),
        (
            "MERGE INTO t USING s ON t.id = s.id WHEN MATCHED AND s.x THEN DELETE WHEN NOT MATCHED THEN INSERT VALUES (1)",
            "42601",
        ),
        (
            "MERGE INTO t USING s ON t.id = s.id WHEN MATCHED THEN DELETE WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT VALUES (1)",
            "0A000",
        ),
        (
            "MERGE INTO t USING s ON t.id > s.id WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT VALUES (1)",
            "0A000",
        ),
        ("MERGE INTO t USING t ON t.id = t.id REMOVE DUPLICATES", "0A000"),
    ] {
        assert_eq!(refused(text).0, code, "{text}");
    }
}

fn copied(text: &str) -> Copy {
    match planned(text).map(|plan| plan.effect) {
        Ok(Effect::Copy(copy)) => *copy,
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn copy_takes_the_options_of_parquet_and_no_other() {
    let copy = copied(
        "COPY s.t (\"a\", b) FROM 's3://b/m.manifest' IAM_ROLE 'arn:x' FORMAT AS PARQUET SERIALIZETOJSON MANIFEST STATUPDATE OFF",
    );
    assert_eq!(
        (copy.table.as_str(), copy.columns.len(), copy.manifest, copy.serialize_to_json),
        ("\"s\".\"t\"", 2, true, true)
    );
    assert_eq!(copy.authorization, copy::Authorization::Role("arn:x".into()));
    let keys = copied(
        "copy t from 's3://b/k' access_key_id 'i' secret_access_key 's' session_token 'x' parquet fillrecord acceptinvchars as '^'",
    );
    assert_eq!(keys.authorization, copy::Authorization::Keys { id: "i".into(), secret: "s".into() });
    assert_eq!((keys.fill_record, keys.accept_invalid, keys.manifest), (true, Some('^'), false));
    let credentials =
        copied("COPY t FROM 's3://b/k' CREDENTIALS 'aws_access_key_id=i;aws_secret_access_key=s' FORMAT PARQUET");
    assert_eq!(credentials.authorization, keys.authorization);
    for option in [
        "REGION 'eu-west-3'",
        "MAXERROR 0",
        "COMPUPDATE OFF",
        "GZIP",
        "DELIMITER ','",
        "DATEFORMAT 'auto'",
        "TRUNCATECOLUMNS",
        "IGNOREHEADER 1",
    ] {
        let (code, message) = refused(&format!("COPY t FROM 's3://b/k' IAM_ROLE 'arn:x' FORMAT PARQUET {option}"));
        let name = option.split(' ').next().unwrap_or_default();
        assert_eq!(
            (code.as_str(), message),
            ("0A000", format!("{name} argument is not supported for PARQUET based COPY"))
        );
    }
    for (text, code) in [
        ("COPY t FROM STDIN", "0A000"),
        ("COPY t FROM 's3://b/k' IAM_ROLE 'arn:x' FORMAT PARQUET FROBNICATE", "42601"),
        ("COPY t TO 's3://b/k'", "42601"),
        ("COPY t FROM 's3://b/k' CREDENTIALS 'x' FORMAT PARQUET", "XX000"),
        ("COPY t FROM 's3://b/k' IAM_ROLE 'arn:x' FORMAT PARQUET ACCEPTINVCHARS 'ab'", "22023"),
    ] {
        assert_eq!(refused(text).0, code, "{text}");
    }
}

#[test]
fn a_late_binding_view_is_put_in_where_it_is_read() {
    let create = planned("CREATE OR REPLACE VIEW bi.v AS SELECT a FROM s.t WITH NO SCHEMA BINDING").expect("plans");
    assert_eq!(create.tag, Some("CREATE VIEW"));
    assert_eq!(create.sql, "CALL sim.make_late_view('bi', 'v', 'v', 'select a from s . t', true)");
    assert_eq!(refused("CREATE VIEW bi.v AS SELECT a FROM t WITH NO SCHEMA BINDING").0, "0A000");
    let settings = Settings { late_views: vec![("bi".into(), "v".into(), "select 1".into())], ..Settings::default() };
    let read = |text: &str| plan(&statements(text, false).expect("lexes")[0], &settings).expect("plans").sql;
    assert_eq!(read("SELECT * FROM bi.v"), "select * from (select 1) AS \"v\"");
    assert_eq!(read("SELECT * FROM \"bi\".\"v\" \"x\" WHERE 1=1"), "select * from (select 1) \"x\" where 1 = 1");
    assert_eq!(read("SELECT * FROM s.t JOIN bi.v ON 1=1"), "select * from s . t join (select 1) AS \"v\" on 1 = 1");
    assert_eq!(read("DROP VIEW IF EXISTS bi.v"), "CALL sim.drop_late_view('bi', 'v', 'v')");
    let view = |name: &str, sql: &str| ("bi".to_owned(), name.to_owned(), sql.to_owned());
    let both = vec![view("v", "select 1 as a"), view("w", "select a from \"bi\".\"v\"")];
    let settings = Settings { late_views: both, ..Settings::default() };
    let tokens = &statements("CREATE VIEW bi.x AS SELECT a FROM bi.w WITH NO SCHEMA BINDING", false).expect("lexes")[0];
    let create = plan(tokens, &settings).expect("plans").sql;
    assert_eq!(create, "CALL sim.make_late_view('bi', 'x', 'x', 'select a from bi . w', false)");
    let read = plan(&statements("SELECT * FROM bi.w", false).expect("lexes")[0], &settings).expect("plans").sql;
    assert_eq!(read, "select * from (select a from (select 1 as a) AS \"v\") AS \"w\"");
}

#[test]
fn effects_follow_the_statement() {
    let effect = |text: &str| planned(text).expect("plans").effect;
    assert_eq!(effect("BEGIN READ WRITE"), Effect::Begin);
    assert_eq!(effect("START TRANSACTION ISOLATION LEVEL SERIALIZABLE"), Effect::Begin);
    assert_eq!(effect("LOCK t"), Effect::Quiet);
    assert_eq!(effect("SET query_group TO 'x'"), Effect::Quiet);
    assert_eq!(effect("END"), Effect::Commit);
    assert_eq!(effect("TRUNCATE TABLE t"), Effect::Truncate("\"t\"".into()));
    assert_eq!(effect("INSERT INTO t SELECT 1"), Effect::Write { table: "\"t\"".into(), reads: false });
    assert_eq!(effect("DELETE t"), Effect::Write { table: "\"t\"".into(), reads: true });
    assert_eq!(effect("GRANT SELECT ON t TO GROUP x"), Effect::Nothing);
    assert_eq!(effect("VACUUM t"), Effect::Alone("VACUUM"));
    assert_eq!(sql("DELETE t WHERE a = 1"), "delete FROM t where a = 1");
}
