//! Values as a session's settings and a client's protocol show them.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn one_name_twice_in_an_object_is_refused_unless_the_session_keeps_the_last() {
    if !available("postgres") {
        return;
    }
    let redshift = Redshift::start().await;
    let session = redshift.connect().await;
    let parse = |document: &str| format!("SELECT json_parse('{document}')");
    // In a literal two backslashes are one.
    for twice in [r#"{"a":1,"a":2}"#, r#"[{"b":{"a":1,"\\u0061":2}}]"#] {
        assert!(session.refused(&parse(twice)).await.message.contains("duplicate attribute"), "{twice}");
    }
    let nested = r#"{"a": {"a": ["a", "a"]}}"#;
    assert_eq!(session.rows(&parse(nested)).await, [nested], "in a nested object it is another name");
    session.all(&["CREATE TABLE t (j SUPER)", "SET json_parse_dedup_attributes TO on"]).await;
    assert_eq!(session.rows(&parse(r#"{"a":1,"a":2}"#)).await, [r#"{"a": 2}"#]);
    // Of COPY no page says so.
    let file = redshift.put_bytes("twice.parquet", &json(r#"{"a":1,"a":2}"#));
    let load = copy("t", &redshift.manifest("twice.manifest", &[&file]));
    assert!(session.refused(&load).await.detail.contains("duplicate attribute"));
    session.all(&["SET json_parse_dedup_attributes=OFF"]).await;
    session.refused(&parse(r#"{"a":1,"a":2}"#)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_date_is_the_sessions() {
    if !available("postgres") {
        return;
    }
    let redshift = Redshift::start().await;
    let session = redshift.connect().await;
    let hours = "SELECT datediff(minute, cast(getdate() AS timestamptz) AT TIME ZONE 'UTC', getdate()), \
                 datediff(minute, cast(sysdate AS timestamptz) AT TIME ZONE 'UTC', sysdate)";
    assert_eq!(session.rows(hours).await, ["0|0"]);
    session.all(&["SET timezone TO 'Asia/Kolkata'"]).await;
    assert_eq!(session.rows(hours).await, ["330|330"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_are_printed_as_digits_and_a_text_of_them_has_an_end() {
    if !available("postgres") {
        return;
    }
    let redshift = Redshift::start().await;
    let session = redshift.connect().await;
    let bytes = |count: usize| -> ArrayRef { Arc::new(BinaryArray::from_vec(vec![&vec![0xab; count][..]])) };
    session.all(&["CREATE TABLE short (b VARBYTE)", "CREATE TABLE long (b VARBYTE)"]).await;
    session.all(&[&redshift.staged("short", &batch(vec![("b", bytes(32_767))]), "short")]).await;
    session.all(&[&redshift.staged("long", &batch(vec![("b", bytes(32_768))]), "long")]).await;
    assert_eq!(session.rows("SELECT b, NULL, 1 FROM long").await, [format!("{}|~|1", "ab".repeat(32_768))]);
    assert_eq!(session.rows("SELECT cast('ab' AS varbyte)").await, ["6162"]);
    let text = |table: &str, prefix: &str| format!("SELECT {prefix}from_varbyte(b, 'hex') FROM {table}");
    assert_eq!(session.rows(&text("short", "")).await, ["ab".repeat(32_767)]);
    for refused in [text("long", ""), text("short", "chr(92) || 'x' || ")] {
        assert_eq!(session.refused(&refused).await.code, "22001", "{refused}");
    }
    assert_eq!(session.rows("SELECT 1").await, ["1"], "the session goes on");
}
