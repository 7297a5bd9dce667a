//! What every warehouse does alike.

use super::*;

fn columns_of_every_type() -> Vec<(&'static str, Type)> {
    let decimal = |precision, scale| Type::Decimal { precision, scale };
    vec![
        ("id", Type::Int),
        ("yes", Type::Boolean),
        ("small", Type::SmallInt),
        ("big", Type::BigInt),
        ("f4", Type::Real),
        ("f8", Type::Double),
        ("dec", decimal(38, 10)),
        ("wide", decimal(76, 0)),
        ("num", Type::Numeric),
        ("day", Type::Date),
        ("clock", Type::Time),
        ("span", Type::Duration),
        ("ts", Type::Timestamp),
        ("tstz", Type::TimestampTz),
        ("word", Type::TEXT),
        ("short", Type::Text { max_bytes: Some(8) }),
        ("raw", Type::Binary),
        ("doc", Type::Json),
        ("uid", Type::Uuid),
        ("or\"der", Type::TEXT),
    ]
}

/// Values of every type at their ends: four rows.
fn values_of_every_type() -> Vec<ArrayRef> {
    let decimal = |precision, scale| Type::Decimal { precision, scale };
    let cast = |texts: [Option<&str>; 4], data_type: Type| -> ArrayRef {
        arrow::compute::cast(&(Arc::new(StringArray::from(texts.to_vec())) as ArrayRef), &data_type.arrow()).unwrap()
    };
    let max38 = "9999999999999999999999999999.9999999999";
    let max76 = "9".repeat(76);
    let us = |values: [Option<i64>; 4]| TimestampMicrosecondArray::from(values.to_vec());
    // 2000 years of microseconds: far, but inside what everybody prints.
    let far = 63_113_904_000_000_000;
    let times = [Some(0), Some(-1), Some(far), None];
    vec![
        Arc::new(arrow::array::Int32Array::from(vec![1, 2, i32::MIN, 4])),
        Arc::new(arrow::array::BooleanArray::from(vec![Some(true), Some(false), None, None])),
        Arc::new(arrow::array::Int16Array::from(vec![Some(i16::MIN), Some(i16::MAX), Some(0), None])),
        Arc::new(Int64Array::from(vec![Some(i64::MIN), Some(i64::MAX), Some(0), None])),
        Arc::new(arrow::array::Float32Array::from(vec![Some(f32::NAN), Some(f32::INFINITY), Some(0.1), None])),
        Arc::new(arrow::array::Float64Array::from(vec![Some(f64::NAN), Some(f64::NEG_INFINITY), Some(0.1), None])),
        cast([Some(max38), Some("-0.0000000001"), Some("0"), None], decimal(38, 10)),
        cast([Some(&max76), Some(&format!("-{max76}")), Some("10000"), None], decimal(76, 0)),
        Arc::new(StringArray::from(vec![Some("-12345678901234567890.0123450"), Some("NaN"), Some("0.0001"), None])),
        Arc::new(arrow::array::Date32Array::from(vec![Some(0), Some(-735_160), Some(2_932_896), None])),
        Arc::new(arrow::array::Time64MicrosecondArray::from(vec![
            Some(0),
            Some(86_399_999_999),
            Some(86_400_000_000),
            None,
        ])),
        Arc::new(Int64Array::from(vec![Some(0), Some(-90_061_000_001), Some(3_600_000_000_000), None])),
        Arc::new(us(times)),
        Arc::new(us(times).with_timezone("UTC")),
        Arc::new(StringArray::from(vec![Some(""), Some("it's \"quoted\" \\N \t\n"), Some("日本 🎉"), None])),
        Arc::new(StringArray::from(vec![Some(""), Some("12345678"), Some("日本"), None])),
        Arc::new(arrow::array::BinaryArray::from(vec![Some(&b""[..]), Some(b"\0\xff"), Some(b"abc"), None])),
        Arc::new(StringArray::from(vec![
            Some("{\"b\":1,  \"a\":[1.0,null]}"),
            Some("null"),
            Some("\"\\u0000\""),
            None,
        ])),
        Arc::new(StringArray::from(vec![
            Some("00000000-0000-0000-0000-000000000000"),
            Some("ffffffff-ffff-ffff-ffff-ffffffffffff"),
            Some("123e4567-e89b-12d3-a456-426614174000"),
            None,
        ])),
        Arc::new(StringArray::from(vec![Some("x"), None, Some(""), None])),
    ]
}

/// What the warehouse shows of them.
pub(super) async fn every_type_is_kept_exactly(under: Under) -> String {
    let (columns, values) = (columns_of_every_type(), values_of_every_type());
    let contract = table(&columns, true);
    under.warehouse().ensure(&contract, DeleteMode::Hard).await.unwrap();
    let account = try_load(&under, 0, created(&contract, 1, values)).await.unwrap();
    assert_eq!(account, LoadAccount { loaded: 4, applied: 4, ..LoadAccount::default() });
    let text = |name: &str| {
        let quoted = format!("\"{}\"", name.replace('"', "\"\""));
        let binary = if under.is_sqlite() { "hex(raw)" } else { "upper(encode(raw, 'hex'))" };
        if name == "raw" {
            format!("CASE WHEN raw IS NOT NULL THEN {binary} END")
        } else {
            format!("CAST({quoted} AS text)")
        }
    };
    let mut shown = Vec::new();
    for (name, _) in &columns[1..] {
        let rows = under.rows(&format!("SELECT {} FROM t ORDER BY _seq", text(name))).await;
        let values: Vec<String> =
            rows.into_iter().map(|r| r[0].as_ref().map_or("∅".into(), |v| v.escape_debug().to_string())).collect();
        shown.push(format!("{name}: {}", values.join(" | ")));
    }
    shown.join("\n")
}

pub(super) async fn a_table_that_is_gone_is_not_made_again_in_silence(under: Under) {
    let (contract, mode) = (contract(), DeleteMode::Hard);
    under.warehouse().ensure(&contract, mode).await.unwrap();
    // Nothing was in it: it is made again.
    under.execute("DROP TABLE things").await;
    under.warehouse().ensure(&contract, mode).await.unwrap();
    under.load(0, mode, false, &[put(1, 1, 10, "one")]).await;
    under.execute("DROP TABLE things").await;
    let load = fold(&contract, mode, vec![batch(&contract, &[put(2, 2, 20, "two")])], false).unwrap();
    let second = dataflow::warehouse::open(&under.config, "t", Arc::clone(&under.staging)).await.unwrap();
    let errors = [
        under.warehouse().apply(&unit(1, vec![load])).await.map(drop),
        under.warehouse().ensure(&contract, mode).await,
        under.warehouse().ensure(&contract, mode).await,
        second.ensure(&contract, mode).await,
    ];
    for error in errors.map(Result::unwrap_err) {
        assert_eq!(*error.kind(), ErrorKind::Table("things".into()), "{error}");
        assert!(error.help_text().is_some_and(|help| help.contains("table resync")), "{error}");
    }
    // Another topology has nothing to do with it.
    let other = dataflow::warehouse::open(&under.config, "other", Arc::clone(&under.staging)).await.unwrap();
    other.ensure(&contract, mode).await.unwrap();
    under.execute("DROP TABLE things").await;
    second.ensure_or(&contract, mode, Lost::MakeAnew).await.unwrap();
    second.ensure(&contract, mode).await.unwrap();
    assert_eq!(under.things(false).await, BTreeMap::new());
}

pub(super) async fn nul_in_text(under: Under) {
    let contract = table(&[("id", Type::Int), ("word", Type::TEXT)], true);
    under.warehouse().ensure(&contract, DeleteMode::Hard).await.unwrap();
    let id: ArrayRef = Arc::new(arrow::array::Int32Array::from(vec![1]));
    let word: ArrayRef = Arc::new(StringArray::from(vec!["a\0b"]));
    let result = try_load(&under, 0, created(&contract, 1, vec![id, word])).await;
    if under.is_sqlite() {
        assert_eq!(result.unwrap().applied, 1);
        assert_eq!(under.rows("SELECT hex(word) FROM t").await, [[Some("610062".to_owned())]]);
        return;
    }
    let error = result.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Table("t".into()));
    assert!(error.to_string().contains("t.word") && error.to_string().contains("NUL"), "{error}");
    // Nothing of the unit is there, and the connection is fit for the next one.
    assert_eq!(under.warehouse().applied("g").await.unwrap(), None);
    let id: ArrayRef = Arc::new(arrow::array::Int32Array::from(vec![1]));
    let word: ArrayRef = Arc::new(StringArray::from(vec!["ab"]));
    assert_eq!(try_load(&under, 0, created(&contract, 1, vec![id, word])).await.unwrap().applied, 1);
}

pub(super) async fn keys_move_and_swap(under: Under) {
    let mode = DeleteMode::Hard;
    under.warehouse().ensure(&contract(), mode).await.unwrap();
    under.load(0, mode, false, &[put(1, 1, 10, "one"), put(2, 2, 20, "two")]).await;
    // Through a third key, partial rows only: bases must be read before anything is deleted or overwritten.
    let account = under.load(1, mode, false, &[moved(3, 1, 9), moved(4, 2, 1), moved(5, 9, 2)]).await;
    // The third key was shown between two rounds of the transaction, so that move counts as applied.
    assert_eq!(account, LoadAccount { loaded: 3, applied: 3, superseded: 0, incomplete: 0 });
    let two_and_one = [(1, (4, 20, Some("two".into()), false)), (2, (5, 10, Some("one".into()), false))];
    assert_eq!(under.things(false).await, BTreeMap::from(two_and_one));
}

pub(super) async fn incomplete_rows_are_kept_apart(under: Under) {
    let mode = DeleteMode::Hard;
    under.warehouse().ensure(&contract(), mode).await.unwrap();
    let account =
        under.load(0, mode, false, &[put(1, 1, 10, "one"), partial(2, 7, 70), gone(3, 1), partial(4, 1, 11)]).await;
    assert_eq!(account, LoadAccount { loaded: 4, applied: 1, superseded: 1, incomplete: 2 });
    assert_eq!(under.things(false).await, BTreeMap::new());
    let mut found = under.warehouse().incompletes("g", 0).await.unwrap();
    found.sort_by(|a, b| a.seq.cmp(&b.seq));
    let keys: Vec<&str> = found.iter().map(|row| row.key.as_str()).collect();
    assert_eq!(keys, ["{\"id\":7}", "{\"id\":1}"]);
    assert_eq!(found[0].missing, ["b"]);
    assert_eq!(found[0].partition, "shop:things/0");
    assert_eq!(under.warehouse().incompletes("g", 1).await.unwrap(), []);
    let fresh = under.warehouse().freshness().await.unwrap();
    assert_eq!((fresh[0].rows, fresh[0].epoch, fresh[0].max_source_time_us), (1, 1, Some(4_000_000)));
    let view = under.rows("SELECT \"table\", CAST(rows AS text), CAST(epoch AS text) FROM freshness").await;
    assert_eq!(view, [[Some("things".to_owned()), Some("1".to_owned()), Some("1".to_owned())]]);
}

pub(super) async fn what_becomes_whole_is_not_incomplete_any_more(under: Under) {
    for mode in [DeleteMode::Hard, DeleteMode::Soft, DeleteMode::History] {
        under.reset().await;
        under.warehouse().ensure(&contract(), mode).await.unwrap();
        under.load(0, mode, false, &[1, 2, 3, 4, 5].map(|id| partial(id as u64, id, 1))).await;
        assert_eq!(under.open_incompletes().await, [1, 2, 3, 4, 5]);
        // A whole row, a delete, a move away; what is only partial, and what is older, settles nothing.
        under.load(1, mode, false, &[put(6, 1, 1, "whole"), gone(7, 2), moved(8, 3, 9), partial(9, 4, 2)]).await;
        assert_eq!(under.open_incompletes().await, [4, 5, 8, 9]);
        // In the unit itself, with an incomplete row after it.
        let deleted_then_updated = [put(10, 5, 1, ""), gone(11, 5), partial(12, 5, 1)];
        under.load(2, mode, false, &deleted_then_updated).await;
        assert_eq!(under.open_incompletes().await, [4, 8, 9, 12]);
        under.load(3, mode, false, &[put(13, 5, 1, "")]).await;
        assert_eq!(under.open_incompletes().await, [4, 8, 9]);
        let emptied = Change { op: Op::Truncate, ..gone(14, 0) };
        under.load(4, mode, false, &[emptied, partial(15, 4, 1)]).await;
        assert_eq!(under.open_incompletes().await, [15]);
    }
}

/// A connector that starts again repeats its last changes as newer ones.
pub(super) async fn partial_moves_come_again(under: Under) {
    for mode in [DeleteMode::Hard, DeleteMode::Soft] {
        let soft = mode == DeleteMode::Soft;
        under.reset().await;
        under.warehouse().ensure(&contract(), mode).await.unwrap();
        let live = async || {
            let rows = under.things(soft).await.into_iter().filter(|(_, row)| !row.3);
            rows.map(|(id, row)| (id, row.0, row.1, row.2.unwrap())).collect::<Vec<_>>()
        };
        let row = |id: i64, seq: u64, a: i64, b: &str| (id, seq, a, b.to_owned());
        under.load(0, mode, false, &[put(1, 1, 10, "one")]).await;
        under.load(1, mode, false, &[moved(2, 1, 5)]).await;
        under.load(2, mode, false, &[moved(3, 1, 5)]).await;
        assert_eq!(live().await, [row(5, 3, 10, "one")], "in a later unit");
        let twice = [moved(4, 5, 6), partial(5, 6, 11), moved(6, 5, 6), partial(7, 6, 11)];
        let account = under.load(3, mode, false, &twice).await;
        assert_eq!(account.incomplete, 0);
        assert_eq!(live().await, [row(6, 7, 11, "one")], "in the same unit, with an update in between");
        under.load(4, mode, false, &[partial(8, 6, 12), moved(9, 5, 6)]).await;
        assert_eq!(live().await, [row(6, 9, 12, "one")], "after an update of the unit");
        under.load(5, mode, false, &[moved(10, 6, 7), moved(11, 7, 8)]).await;
        under.load(6, mode, false, &[moved(12, 6, 7), moved(13, 7, 8)]).await;
        assert_eq!(live().await, [row(8, 13, 12, "one")], "one move after another");
        assert_eq!(under.open_incompletes().await, [0; 0], "the row has left the key that lacked a base");

        under.load(7, mode, false, &[gone(14, 8)]).await;
        assert_eq!(under.load(8, mode, false, &[moved(15, 7, 8)]).await.incomplete, 1);
        assert_eq!((live().await, under.open_incompletes().await), (vec![], vec![15]), "deleted at the source");
        under.load(9, mode, false, &[gone(16, 8)]).await;
        assert_eq!((live().await, under.open_incompletes().await), (vec![], vec![]));

        // The old key has another row by now, which has no part in the move.
        under.load(10, mode, false, &[put(17, 1, 1, "archived"), moved(18, 1, 2), put(19, 1, 3, "new")]).await;
        under.load(11, mode, false, &[moved(20, 1, 2), put(21, 1, 3, "new")]).await;
        assert_eq!(live().await, [row(1, 21, 3, "new"), row(2, 20, 1, "archived")]);
    }
}

pub(super) async fn tombstones_outlive_rows(under: Under) {
    let mode = DeleteMode::Hard;
    under.warehouse().ensure(&contract(), mode).await.unwrap();
    under.load(0, mode, true, &[put(1, 1, 10, "one"), put(2, 2, 20, "two")]).await;
    under.load(1, mode, true, &[gone(5, 1)]).await;
    let late = under.load(2, mode, true, &[put(3, 1, 10, "late"), put(1, 2, 0, "older")]).await;
    assert_eq!((late.applied, late.superseded), (0, 2));
    assert_eq!(under.things(false).await.keys().collect::<Vec<_>>(), [&2]);
    let newer = under.load(3, mode, true, &[put(6, 1, 11, "again")]).await;
    assert_eq!(newer.applied, 1);
    assert_eq!(under.tombstones().await, 0);
    under.load(4, mode, true, &[gone(7, 1)]).await;
    assert_eq!(under.tombstones().await, 1);
    under.load(5, mode, false, &[put(8, 3, 0, "")]).await;
    assert_eq!(under.tombstones().await, 0);
}

pub(super) async fn two_loaders_race(under: Under) {
    let mode = DeleteMode::Hard;
    under.warehouse().ensure(&contract(), mode).await.unwrap();
    let other = dataflow::warehouse::open(&under.config, "t", Arc::clone(&under.staging)).await.unwrap();
    for n in 0..5 {
        let load = |a| {
            let contract = contract();
            let rows = [put(n + 1, 1, a, "x"), put(n + 1, 2 + n as i64, a, "y")];
            unit(n, vec![fold(&contract, mode, vec![batch(&contract, &rows)], false).unwrap()])
        };
        let (first, second) = (load(1), load(1));
        let (first, second) = tokio::join!(under.warehouse().apply(&first), other.apply(&second));
        let (won, lost) = if first.is_ok() { (first, second) } else { (second, first) };
        assert_eq!(won.unwrap().accounts["things"].applied, 2);
        assert_eq!(*lost.unwrap_err().kind(), ErrorKind::LedgerMoved);
    }
    let applied = under.warehouse().applied("g").await.unwrap().unwrap();
    assert_eq!((applied.through, applied.accounts["things"].applied), (5, 10));
}

pub(super) async fn another_log_is_refused(under: Under) {
    under.warehouse().ensure(&contract(), DeleteMode::Hard).await.unwrap();
    under.load(0, DeleteMode::Hard, false, &[put(1, 1, 1, "")]).await;
    let foreign = LoadUnit { log: Uuid::max(), ..unit(1, Vec::new()) };
    let error = under.warehouse().apply(&foreign).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::LedgerForeign);
    assert!(error.help_text().is_some());
    let early = under.warehouse().apply(&unit(7, Vec::new())).await.unwrap_err();
    assert_eq!(*early.kind(), ErrorKind::LedgerMoved);
}

pub(super) async fn tables_grow(under: Under) {
    let first = table(&[("id", Type::Int), ("n", Type::Int), ("s", Type::Text { max_bytes: Some(3) })], true);
    let decimal = Type::Decimal { precision: 12, scale: 2 };
    let second = table(&[("id", Type::BigInt), ("n", decimal), ("s", Type::TEXT), ("new", Type::Boolean)], true);
    let ints = |values: Vec<i32>| -> ArrayRef { Arc::new(arrow::array::Int32Array::from(values)) };
    under.warehouse().ensure(&first, DeleteMode::Hard).await.unwrap();
    let abc: ArrayRef = Arc::new(StringArray::from(vec!["abc"]));
    try_load(&under, 0, created(&first, 1, vec![ints(vec![1]), ints(vec![7]), abc])).await.unwrap();
    for _ in 0..2 {
        under.warehouse().ensure(&second, DeleteMode::Hard).await.unwrap();
    }
    let big: ArrayRef = Arc::new(Int64Array::from(vec![i64::MAX]));
    let money = arrow::array::Decimal128Array::from(vec![123_456_789_012]).with_precision_and_scale(12, 2).unwrap();
    let long: ArrayRef = Arc::new(StringArray::from(vec!["longer than three"]));
    let new: ArrayRef = Arc::new(arrow::array::BooleanArray::from(vec![true]));
    try_load(&under, 1, created(&second, 2, vec![big, Arc::new(money), long, new])).await.unwrap();
    let rows = under.rows("SELECT CAST(id AS text), CAST(n AS text), s FROM t ORDER BY _seq").await;
    let seven = if under.is_sqlite() { "7" } else { "7.00" };
    let text = |text: &str| Some(text.to_owned());
    let expected = [
        [text("1"), text(seven), text("abc")],
        [text("9223372036854775807"), text("1234567890.12"), text("longer than three")],
    ];
    assert_eq!(rows, expected);
    // An older contract (a loader that has not seen the new one yet) changes nothing.
    under.warehouse().ensure(&first, DeleteMode::Hard).await.unwrap();
}

pub(super) async fn own_columns_stay(under: Under) {
    under.execute("CREATE TABLE t (note text DEFAULT 'mine', id bigint, extra integer)").await;
    under.execute("INSERT INTO t (id, extra) VALUES (1, 5)").await;
    let contract = table(&[("id", Type::Int), ("word", Type::TEXT)], true);
    under.warehouse().ensure(&contract, DeleteMode::Hard).await.unwrap();
    let ids: ArrayRef = Arc::new(arrow::array::Int32Array::from(vec![2, 3]));
    let words: ArrayRef = Arc::new(StringArray::from(vec!["b", "c"]));
    try_load(&under, 0, created(&contract, 1, vec![ids, words])).await.unwrap();
    let rows = under.rows("SELECT note, CAST(id AS text), CAST(extra AS text), word FROM t ORDER BY t.id").await;
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(rows[0], [text("mine"), text("1"), text("5"), None]);
    assert_eq!(rows[2], [text("mine"), text("3"), None, text("c")]);
    // A key that is not unique cannot be merged into, and the message says so.
    under.execute("CREATE TABLE things (id bigint, a bigint, b text); INSERT INTO things (id) VALUES (1), (1)").await;
    let error = under.warehouse().ensure(&self::contract(), DeleteMode::Hard).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Table("things".into()));
    assert!(error.help_text().unwrap().contains("unique"));
}

pub(super) async fn incompatible_columns_are_refused(under: Under) {
    under.execute("CREATE TABLE t (id integer PRIMARY KEY, word integer)").await;
    let contract = table(&[("id", Type::Int), ("word", Type::Binary)], true);
    let error = match under.is_sqlite() {
        // SQLite keeps bytes in any column, but no whole numbers as floats.
        true => {
            under.execute("CREATE TABLE things (id integer PRIMARY KEY, a real, b text)").await;
            under.warehouse().ensure(&self::contract(), DeleteMode::Hard).await.unwrap_err()
        }
        false => under.warehouse().ensure(&contract, DeleteMode::Hard).await.unwrap_err(),
    };
    assert!(matches!(error.kind(), ErrorKind::Table(_)), "{error}");
    assert!(error.help_text().is_some());
}

pub(super) async fn append_only_tables(under: Under) {
    let contract = table(&[("a", Type::Int), ("b", Type::TEXT)], false);
    under.warehouse().ensure(&contract, DeleteMode::Hard).await.unwrap();
    let columns = || -> Vec<ArrayRef> {
        let same: ArrayRef = Arc::new(StringArray::from(vec!["same", "same"]));
        vec![Arc::new(arrow::array::Int32Array::from(vec![1, 1])), same]
    };
    let account = try_load(&under, 0, created(&contract, 1, columns())).await.unwrap();
    assert_eq!(account, LoadAccount { loaded: 2, applied: 2, ..LoadAccount::default() });
    try_load(&under, 1, created(&contract, 3, columns())).await.unwrap();
    let rows = under.rows("SELECT _seq, _partition FROM t ORDER BY _seq").await;
    assert_eq!(rows.len(), 4);
    assert_eq!(rows[3], [Some(seq(4).to_string()), Some("shop:t/0".to_owned())]);
}

pub(super) async fn readers_are_not_blocked(under: Under) {
    let mode = DeleteMode::Hard;
    under.warehouse().ensure(&contract(), mode).await.unwrap();
    under.load(0, mode, false, &[put(1, 1, 1, "before")]).await;
    // A reader in the middle of its transaction sees what it saw, and the load does not wait for it.
    match &under.reader {
        Reader::Sqlite(pool) => {
            let mut reader = pool.begin().await.unwrap();
            let count = "SELECT count(*) FROM things";
            assert_eq!(sqlx::query_scalar::<_, i64>(count).fetch_one(&mut *reader).await.unwrap(), 1);
            under.load(1, mode, false, &[put(2, 2, 2, "after")]).await;
            assert_eq!(sqlx::query_scalar::<_, i64>(count).fetch_one(&mut *reader).await.unwrap(), 1);
        }
        #[cfg(feature = "postgres")]
        Reader::Postgres(pool) => {
            let mut reader = pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ").await.unwrap();
            let count = "SELECT count(*) FROM things";
            assert_eq!(sqlx::query_scalar::<_, i64>(count).fetch_one(&mut *reader).await.unwrap(), 1);
            under.load(1, mode, false, &[put(2, 2, 2, "after")]).await;
            assert_eq!(sqlx::query_scalar::<_, i64>(count).fetch_one(&mut *reader).await.unwrap(), 1);
        }
    }
    assert_eq!(under.things(false).await.len(), 2);
}

pub(super) async fn a_taken_view_name(under: Under) {
    under.execute("DROP VIEW freshness").await;
    under.execute("CREATE TABLE freshness (mine integer)").await;
    for _ in 0..2 {
        dataflow::warehouse::open(&under.config, "t", nowhere()).await.unwrap();
    }
    assert_eq!(under.rows("SELECT \"table\" FROM dataflow_freshness").await.len(), 0);
}
