//! Changes through a file and back: every type, every state of a column, every kind of row.

use arrow::array::{
    Array, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Decimal256Array, Float32Array, Float64Array,
    Int16Array, Int32Array, Time64MicrosecondArray, TimestampMicrosecondArray,
};
use arrow::datatypes::i256;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use proptest::prelude::*;

use super::*;

pub(super) const TYPES: [Type; 19] = [
    Type::BigInt,
    Type::Boolean,
    Type::SmallInt,
    Type::Int,
    Type::Real,
    Type::Double,
    Type::Decimal { precision: 9, scale: 2 },
    Type::Decimal { precision: 38, scale: 10 },
    Type::Decimal { precision: 76, scale: 0 },
    Type::Numeric,
    Type::Date,
    Type::Time,
    Type::Duration,
    Type::Timestamp,
    Type::TimestampTz,
    Type::TEXT,
    Type::Binary,
    Type::Json,
    Type::Uuid,
];

fn all_types() -> TableSchema {
    let columns = TYPES.iter().enumerate().map(|(i, kind)| Column::new(format!("c{i}"), *kind)).collect();
    TableSchema { columns, key: vec!["c0".into(), "c15".into()] }
}

/// An array of a type with values made of numbers; `None` is null.
pub(super) fn array(kind: Type, values: &[Option<i64>]) -> ArrayRef {
    let small = |v: &Option<i64>| v.map(|v| v.rem_euclid(20_000));
    let values_of = values.iter();
    match kind {
        Type::Boolean => Arc::new(values_of.map(|v| v.map(|v| v % 2 == 0)).collect::<BooleanArray>()),
        Type::SmallInt => Arc::new(values_of.map(|v| v.map(|v| v as i16)).collect::<Int16Array>()),
        Type::Int => Arc::new(values_of.map(|v| v.map(|v| v as i32)).collect::<Int32Array>()),
        Type::BigInt | Type::Duration => Arc::new(values_of.copied().collect::<Int64Array>()),
        Type::Real => Arc::new(values_of.map(|v| v.map(|v| f32::from_bits(v as u32))).collect::<Float32Array>()),
        Type::Double => Arc::new(values_of.map(|v| v.map(|v| f64::from_bits(v as u64))).collect::<Float64Array>()),
        Type::Decimal { precision, scale } if precision <= 38 => {
            let digits = values_of.map(small).map(|v| v.map(i128::from)).collect::<Decimal128Array>();
            Arc::new(digits.with_precision_and_scale(precision, scale).unwrap())
        }
        Type::Decimal { precision, scale } => {
            let digits = values_of.map(|v| v.map(|v| i256::from(v).wrapping_mul(i256::from(v))));
            Arc::new(digits.collect::<Decimal256Array>().with_precision_and_scale(precision, scale).unwrap())
        }
        Type::Date => Arc::new(values_of.map(small).map(|v| v.map(|v| v as i32 - 9_000)).collect::<Date32Array>()),
        Type::Time => Arc::new(values_of.map(small).collect::<Time64MicrosecondArray>()),
        Type::Timestamp => Arc::new(values_of.copied().collect::<TimestampMicrosecondArray>()),
        Type::TimestampTz => Arc::new(values_of.copied().collect::<TimestampMicrosecondArray>().with_timezone("UTC")),
        Type::Binary => {
            let bytes: Vec<Option<Vec<u8>>> = values_of.map(|v| v.map(|v| v.to_le_bytes().to_vec())).collect();
            Arc::new(bytes.iter().map(Option::as_deref).collect::<BinaryArray>())
        }
        Type::Numeric | Type::Text { .. } | Type::Json | Type::Uuid => Arc::new(
            values_of
                .map(|v| v.map(|v| if v % 7 == 0 { String::new() } else { format!("é{v}") }))
                .collect::<StringArray>(),
        ),
    }
}

#[derive(Debug, Clone)]
struct Row {
    op: Op,
    values: Vec<Option<i64>>,
    unchanged: Vec<bool>,
    seq: (u32, u64, u64, u32),
    time: Option<i64>,
    partition: bool,
}

fn any_row() -> impl Strategy<Value = Row> {
    let op = prop_oneof![
        Just(Op::Read),
        Just(Op::Create),
        Just(Op::Update),
        Just(Op::Move),
        Just(Op::Delete),
        Just(Op::Truncate),
        Just(Op::Refused)
    ];
    let values = proptest::collection::vec(proptest::option::of(any::<i64>()), TYPES.len());
    let unchanged = proptest::collection::vec(any::<bool>(), TYPES.len());
    let time = proptest::option::of(-1_000_000_000_000i64..1_000_000_000_000);
    (op, values, unchanged, any::<(u32, u64, u64, u32)>(), time, any::<bool>())
        .prop_map(|(op, values, unchanged, seq, time, partition)| Row { op, values, unchanged, seq, time, partition })
}

fn build(contract: &Arc<Contract>, partition: &str, rows: &[Row]) -> TableChanges {
    let column = |i: usize| rows.iter().map(|row| row.values[i].filter(|_| !is_unchanged(row, i))).collect::<Vec<_>>();
    let arrays = TYPES.iter().enumerate().map(|(i, kind)| array(*kind, &column(i))).collect();
    let bits = (0..TYPES.len()).map(|i| {
        let bits = BooleanBuffer::from_iter(rows.iter().map(|row| is_unchanged(row, i)));
        (bits.count_set_bits() > 0).then_some(bits)
    });
    let moves = rows.iter().any(|row| row.op == Op::Move);
    let old = |i: usize, kind| {
        array(kind, &rows.iter().map(|r| r.values[i].filter(|_| r.op == Op::Move)).collect::<Vec<_>>())
    };
    let schema = contract.output.arrow();
    let key = Arc::new(schema.project(&[0, 15]).unwrap());
    TableChanges {
        contract: Arc::clone(contract),
        partition: Partition::new("shop", partition),
        rows: RecordBatch::try_new(schema, arrays).unwrap(),
        ops: rows.iter().map(|row| row.op).collect(),
        seqs: rows.iter().map(|row| seq(row.seq)).collect(),
        source_times_us: rows.iter().map(|row| row.time.unwrap_or(NO_TIME)).collect(),
        unchanged: bits.collect(),
        old_keys: moves.then(|| RecordBatch::try_new(key, vec![old(0, Type::BigInt), old(15, Type::TEXT)]).unwrap()),
    }
}

fn seq((generation, major, minor, ordinal): (u32, u64, u64, u32)) -> Seq {
    Seq { generation, major, minor, ordinal }
}

/// Only updates have columns whose value is unknown.
fn is_unchanged(row: &Row, column: usize) -> bool {
    matches!(row.op, Op::Update | Op::Move) && row.unchanged[column]
}

fn assert_same(back: &TableChanges, wrote: &TableChanges) {
    assert_eq!(back.partition, wrote.partition);
    assert_eq!(back.ops, wrote.ops);
    assert_eq!(back.seqs, wrote.seqs);
    assert_eq!(back.source_times_us, wrote.source_times_us);
    assert_eq!(back.unchanged, wrote.unchanged);
    assert_eq!(back.old_keys, wrote.old_keys);
    assert_eq!(back.rows.schema(), wrote.rows.schema());
    for (a, b) in back.rows.columns().iter().zip(wrote.rows.columns()) {
        // By total order: NaN is a value like others.
        let equal = arrow::compute::kernels::cmp::not_distinct(a, b).unwrap();
        assert_eq!(equal.true_count(), wrote.len(), "{:?}", a.data_type());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..Default::default() })]

    #[test]
    fn changes_of_all_types_come_back(rows in proptest::collection::vec(any_row(), 1..60), zstd: bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let compression = if zstd { config::Compression::Zstd } else { config::Compression::Snappy };
            let lake = Lake::open(&config::Lake { compression, ..local(folder.path()) }).unwrap();
            let contract = contract("orders", &all_types());
            // Runs of one partition, as ingest hands them over.
            let wrote: Vec<TableChanges> = rows.chunk_by(|a, b| a.partition == b.partition)
                .map(|run| build(&contract, if run[0].partition { "a" } else { "b" }, run)).collect();
            let mut writer = EpochWriter::begin(&lake);
            for changes in &wrote {
                writer.write(changes).unwrap();
            }
            let sealed = writer.finish().await.unwrap();
            let epoch = &sealed.tables["orders"].epoch;
            let mut back = Vec::new();
            for file in &epoch.files {
                back.extend(lake.read_changes(file, &contract).await.unwrap());
            }
            assert_eq!(back.len(), wrote.len());
            for (back, wrote) in back.iter().zip(&wrote) {
                assert_same(back, wrote);
            }
            let has = |op| rows.iter().any(|row| row.op == op);
            assert_eq!(epoch.truncate, has(Op::Truncate));
            let times: Vec<i64> = rows.iter().filter_map(|row| row.time).collect();
            assert_eq!((epoch.min_source_time_us, epoch.max_source_time_us), (times.iter().min().copied(), times.iter().max().copied()));
        });
    }
}

/// Writes changes as one epoch and commits it.
async fn commit(log: &Log, all: &[TableChanges]) -> Arc<Manifest> {
    let mut writer = EpochWriter::begin(log.lake());
    for changes in all {
        writer.write(changes).unwrap();
    }
    let attempt = writer.attempt();
    let tables = writer.finish().await.unwrap().tables;
    log.commit(Draft { tables, ..Draft::new(attempt, Utc::now()) }, &same).await.unwrap()
}

async fn fresh() -> (tempfile::TempDir, Log) {
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::open(&local(folder.path())).unwrap();
    let log = Log::open(lake, "sales", Access::Write).await.unwrap();
    (folder, log)
}

#[tokio::test]
async fn an_epoch_is_folded_unless_every_key_is_whole_and_once() {
    let (_folder, log) = fresh().await;
    let keyed = contract("orders", &orders());
    let free = contract("events", &TableSchema { key: vec![], ..orders() });
    let base = |ids: &[i64]| changes(&keyed, "0", 0, ids);
    let with_op = |op| TableChanges { ops: vec![Op::Create, op], ..base(&[1, 2]) };
    let partial = TableChanges {
        ops: vec![Op::Update; 2],
        unchanged: vec![None, Some(BooleanBuffer::from(vec![false, true]))],
        ..base(&[1, 2])
    };
    let none_partial =
        TableChanges { unchanged: vec![None, Some(BooleanBuffer::from(vec![false, false]))], ..base(&[1, 2]) };
    let cases = [
        ("distinct", vec![base(&[1, 2]), base(&[3, 4])], false),
        ("updates", vec![with_op(Op::Update), with_op(Op::Read)][..1].to_vec(), false),
        ("no bit set", vec![none_partial], false),
        ("repeated in a batch", vec![base(&[1, 2, 1])], true),
        ("repeated later", vec![base(&[1, 2]), base(&[5]), base(&[2])], true),
        ("delete", vec![with_op(Op::Delete)], true),
        ("refused", vec![with_op(Op::Refused)], true),
        ("truncate", vec![with_op(Op::Truncate)], true),
        ("partial", vec![partial], true),
        ("no key", vec![changes(&free, "0", 0, &[1, 1, 1])], false),
    ];
    for (name, all, fold) in cases {
        let manifest = commit(&log, &all).await;
        assert_eq!(manifest.tables.values().next().unwrap().fold, fold, "{name}");
    }
}

#[tokio::test]
async fn a_contract_that_grows_in_an_epoch_begins_another_file() {
    let (_folder, log) = fresh().await;
    let small = contract("orders", &orders());
    let mut wide = orders();
    wide.columns.push(Column::new("total", Type::Int));
    let wide = contract("orders", &wide);
    let update = TableChanges { ops: vec![Op::Update; 2], ..changes(&small, "0", 0, &[1, 2]) };
    let delete = TableChanges { ops: vec![Op::Delete], ..changes(&small, "0", 2, &[7]) };
    let manifest = commit(&log, &[update, delete, changes(&wide, "0", 3, &[3])]).await;
    let table = &manifest.tables["orders"];
    assert_eq!((table.files.len(), table.fold), (2, true));
    assert_eq!(manifest.contracts[0].output, wide.output);
    let old = log.lake().read_changes(&table.files[0], &wide).await.unwrap();
    assert_eq!(old.len(), 1);
    // The source had no such column then: the rows are whole without it.
    assert_eq!(old[0].unchanged[2], None);
    assert_eq!(old[0].rows.column(2).null_count(), 3);
    let new = log.lake().read_changes(&table.files[1], &wide).await.unwrap();
    assert!(new[0].unchanged.iter().all(Option::is_none));
}

#[tokio::test]
async fn a_first_move_begins_a_file_with_old_keys() {
    let (_folder, log) = fresh().await;
    let contract = contract("orders", &orders());
    let key = Arc::new(contract.output.arrow().project(&[0]).unwrap());
    let old = RecordBatch::try_new(key, vec![Arc::new(Int64Array::from(vec![Some(1), None]))]).unwrap();
    let moved = TableChanges {
        ops: vec![Op::Move, Op::Create],
        old_keys: Some(old.clone()),
        ..changes(&contract, "0", 2, &[10, 11])
    };
    let all = [changes(&contract, "0", 0, &[1, 2]), moved, changes(&contract, "0", 4, &[12])];
    let table = &commit(&log, &all).await.tables["orders"];
    assert_eq!((table.files.len(), table.fold), (2, true));
    let back = log.lake().read_changes(&table.files[1], &contract).await.unwrap();
    assert_eq!((back.len(), back[0].len()), (1, 3), "one partition is one element");
    let keys = back[0].old_keys.as_ref().unwrap().column(0).clone();
    assert_eq!(keys.as_ref(), &Int64Array::from(vec![Some(1), None, None]) as &dyn Array);
}

#[tokio::test]
async fn narrower_types_are_widened_and_lossy_ones_refused() {
    let (_folder, log) = fresh().await;
    let pairs = [
        (Type::SmallInt, Type::BigInt),
        (Type::Int, Type::Decimal { precision: 12, scale: 2 }),
        (Type::Decimal { precision: 9, scale: 2 }, Type::Decimal { precision: 40, scale: 4 }),
        (Type::Real, Type::Double),
        (Type::BigInt, Type::Numeric),
        (Type::Text { max_bytes: Some(9) }, Type::TEXT),
    ];
    for (i, (narrow, wide)) in pairs.into_iter().enumerate() {
        let table = format!("t{i}");
        let schema = |kind| columns(&[("id", Type::BigInt), ("note", Type::TEXT), ("v", kind)], &["id"]);
        let wrote = contract(&table, &schema(narrow));
        let mut rows = changes(&wrote, "0", 0, &[1, 2, 3]);
        let first = if narrow == Type::Real { i64::from(1.5f32.to_bits()) } else { 1234 };
        let values = array(narrow, &[Some(first), None, Some(250)]);
        let mut arrays = rows.rows.columns().to_vec();
        arrays[2] = Arc::clone(&values);
        rows.rows = RecordBatch::try_new(wrote.output.arrow(), arrays).unwrap();
        let manifest = commit(&log, &[rows]).await;
        let file = &manifest.tables[&table].files[0];
        let back = log.lake().read_changes(file, &contract(&table, &schema(wide))).await.unwrap();
        let got = back[0].rows.column(2);
        assert_eq!((got.data_type(), got.null_count()), (&wide.arrow(), 1), "{narrow} to {wide}");
        let text = |a: &dyn Array| arrow::util::display::array_value_to_string(a, 0).unwrap();
        let number = |a: &dyn Array| text(a).parse::<f64>().ok();
        assert_eq!(number(got), number(&values), "{narrow} to {wide}");
    }
    let text = contract("x", &columns(&[("id", Type::BigInt), ("note", Type::TEXT)], &["id"]));
    let manifest = commit(&log, &[changes(&text, "0", 0, &[1])]).await;
    let number = contract("x", &columns(&[("id", Type::BigInt), ("note", Type::Int)], &["id"]));
    let error = log.lake().read_changes(&manifest.tables["x"].files[0], &number).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::LogCorrupt);
    assert!(error.to_string().contains("column note"), "{error}");
}

#[tokio::test]
async fn the_parquet_form_is_what_other_readers_expect() {
    let (folder, log) = fresh().await;
    let contract = contract("orders", &all_types());
    let row = Row {
        op: Op::Move,
        values: vec![Some(5); TYPES.len()],
        unchanged: vec![false; TYPES.len()],
        seq: (1, 2, 3, 4),
        time: Some(7),
        partition: true,
    };
    let manifest = commit(&log, &[build(&contract, "a", &[row])]).await;
    let path = folder.path().join("lake").join(&manifest.tables["orders"].files[0].path);
    assert!(path.display().to_string().contains("/processed/orders/dt=20"));
    let reader = ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(path).unwrap()).unwrap();
    let meta = reader.metadata().file_metadata();
    assert_eq!((meta.version(), meta.created_by()), (1, Some(concat!("dataflow ", env!("CARGO_PKG_VERSION")))));
    let mut text = Vec::new();
    parquet::schema::printer::print_schema(&mut text, meta.schema());
    let golden = include_str!("../golden/processed-schema.txt");
    assert_eq!(String::from_utf8(text).unwrap().trim(), golden.trim());
    let group = reader.metadata().row_group(0);
    for column in group.columns() {
        assert_eq!(column.compression(), parquet::basic::Compression::SNAPPY);
        assert!(column.statistics().is_some(), "{}", column.column_path());
    }
}

#[tokio::test]
async fn a_column_name_that_the_lake_uses_parks_the_table() {
    let (_folder, log) = fresh().await;
    let schema = columns(&[("id", Type::BigInt), ("_seq", Type::TEXT)], &["id"]);
    let changes = changes(&contract("orders", &schema), "0", 0, &[1]);
    let error = EpochWriter::begin(log.lake()).write(&changes).unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Table("orders".into()));
}

#[tokio::test]
async fn many_rows_are_written_in_slices_and_held_compressed() {
    let (_folder, log) = fresh().await;
    let contract = contract("orders", &orders());
    let ids: Vec<i64> = (0..200_000).collect();
    let wrote = changes(&contract, "0", 0, &ids);
    let mut writer = EpochWriter::begin(log.lake());
    writer.write(&wrote).unwrap();
    assert!(writer.buffered_bytes() > 100_000);
    let sealed = writer.finish().await.unwrap();
    let file = &sealed.tables["orders"].epoch.files[0];
    assert!(file.bytes < file.memory_bytes, "{file:?}");
    let back = log.lake().read_changes(file, &contract).await.unwrap();
    assert_eq!(back.len(), 1);
    assert_eq!((&back[0].rows, &back[0].seqs), (&wrote.rows, &wrote.seqs));
}
