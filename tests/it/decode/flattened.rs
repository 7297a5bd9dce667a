//! Flattened events, and topics that mix forms.

use super::*;

#[test]
fn schema_and_no_schema_and_flattened_mix_in_one_topic() {
    let mut d = decoder(vec![route()]);
    let text = r#""type":"string""#;
    let key = r#"{"schema":{"type":"struct","fields":[{"type":"int32","optional":false,"field":"id"}],"optional":false},"payload":{"id":1}}"#;
    let flat = r#"{"id":3,"v":"c","__op":"r","__table":"orders","__lsn":33832960,"__source_ts_ms":1596309876678,"__deleted":"false"}"#;
    let batch = decode(
        &mut d,
        &[
            rec(key, &with_schema(text, "c", r#"{"id":1,"v":"a"}"#)),
            rec(key, &with_schema(text, "c", r#"{"id":1,"v":"a2"}"#)),
            rec(r#"{"id":2}"#, &envelope("c", "null", r#"{"v":"b","id":2}"#)),
            rec(r#"{"id":3}"#, flat),
            rec(r#"{"id":3}"#, &flat.replace("\"false\"", "\"true\"")),
            rec(key, &with_schema(text, "d", "null")),
        ],
    );
    assert_eq!(batch.rejects.iter().map(|r| &r.reason).collect::<Vec<_>>(), Vec::<&String>::new());
    assert_eq!(
        rows(&batch),
        ["c id=1 v=a", "c id=1 v=a2", "c id=2 v=b", "r id=3 v=c", "d id=3 v=null", "d id=1 v=null"]
    );
    assert_eq!(batch.tables[0].source_times_us[3], 1_596_309_876_678_000);
}

#[test]
fn a_flattened_delete_is_a_null_payload() {
    let mut d = decoder(vec![route()]);
    let schema = r#"{"type":"struct","fields":[{"type":"int32","optional":false,"field":"id"},{"type":"string","optional":true,"field":"v"}],"optional":false,"name":"shop.public.orders.Value"}"#;
    let of = |payload: &str| format!(r#"{{"schema":{schema},"payload":{payload}}}"#);
    let batch = decode(
        &mut d,
        &[
            rec(r#"{"id":1}"#, &of(r#"{"id":1,"v":"a"}"#)),
            rec(r#"{"id":1}"#, &of("null")),
            rec(r#"{"id":2}"#, "null"),
            tombstone(r#"{"id":3}"#),
        ],
    );
    assert_eq!(rows(&batch), ["u id=1 v=a", "d id=1 v=null", "d id=2 v=null", "d id=3 v=null"]);
}

#[test]
fn flattened_rows_with_a_custom_prefix_and_without_operations() {
    let settings = Debezium {
        flattened_prefix: "cdc.".into(),
        flattened_deleted_field: "is_gone".into(),
        unavailable_value_placeholder: "hex:6e6f".into(),
    };
    let mut d = DebeziumJson::new("shop", &settings, vec![route()]).unwrap();
    let key = r#"{"id":1}"#;
    let batch = decode(
        &mut d,
        &[
            rec(key, r#"{"id":1,"__mine":"x","v":"a","cdc.op":"c","cdc.source_ts_ms":5,"is_gone":"false"}"#),
            rec(key, r#"{"id":1,"__mine":"y","v":"no","cdc.op":"u","is_gone":"false"}"#),
            rec(key, r#"{"id":1,"__mine":"y","v":"b"}"#),
            rec(key, r#"{"id":1,"__mine":null,"v":null,"cdc.op":"d","is_gone":"true"}"#),
        ],
    );
    assert_eq!(
        rows(&batch),
        ["c id=1 __mine=x v=a", "u id=1 __mine=y v=~", "u id=1 __mine=y v=b", "d id=1 __mine=null v=null"]
    );
    assert_eq!(batch.tables[0].source_times_us, [5_000, NO_TIME, NO_TIME, NO_TIME]);
    // Without a key and without operations every row is a new one.
    let mut d = decoder(vec![route()]);
    assert_eq!(rows(&decode(&mut d, &[keyless(r#"{"n":1}"#), keyless(r#"{"n":1}"#)])), ["c n=1", "c n=1"]);
}
