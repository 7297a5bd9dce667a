//! Files of the lake as others read them: DuckDB and pyarrow must find what was written, row for row.

use std::path::{Path, PathBuf};
use std::process::Command;

use arrow::array::{Array, ArrayRef, AsArray, Float32Array, Float64Array};
use arrow::datatypes::{DataType, Decimal128Type, Decimal256Type, Float32Type, Float64Type, Int64Type};
use arrow::util::display::array_value_to_string;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::files::{TYPES, array};
use super::*;
use crate::support::process::{LIMIT, Launch, available, python};

const READERS: [&str; 2] = ["duckdb", "pyarrow"];

/// What a reader says of files: rows, and by column the nulls and the sum of the hashes.
fn read(reader: &str, files: &[PathBuf]) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/readers.py");
    let output = Command::new(python()).arg(script).arg(reader).args(files).output().unwrap();
    assert!(output.status.success(), "{reader}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn sum_of(values: impl Iterator<Item = String>) -> String {
    let hash = |text: String| u128::from_be_bytes(Sha256::digest(text.as_bytes())[..16].try_into().unwrap());
    format!("{:032x}", values.map(hash).fold(0u128, u128::wrapping_add))
}

/// The values of a column as the readers' script writes them.
fn texts(column: &ArrayRef) -> Vec<String> {
    let rows = (0..column.len()).filter(|&row| column.is_valid(row));
    let text = |row: usize| match column.data_type() {
        DataType::Float32 => format!("{:08x}", column.as_primitive::<Float32Type>().value(row).to_bits()),
        DataType::Float64 => format!("{:016x}", column.as_primitive::<Float64Type>().value(row).to_bits()),
        DataType::Decimal128(..) => column.as_primitive::<Decimal128Type>().value(row).to_string(),
        DataType::Decimal256(..) => column.as_primitive::<Decimal256Type>().value(row).to_string(),
        DataType::Binary => column.as_binary::<i32>().value(row).iter().map(|byte| format!("{byte:02x}")).collect(),
        DataType::Date32 | DataType::Time64(_) | DataType::Timestamp(..) => {
            let numbers: ArrayRef = arrow::compute::cast(column, &DataType::Int64)
                .or_else(|_| arrow::compute::cast(&arrow::compute::cast(column, &DataType::Int32)?, &DataType::Int64))
                .unwrap();
            numbers.as_primitive::<Int64Type>().value(row).to_string()
        }
        _ => array_value_to_string(column, row).unwrap(),
    };
    rows.map(text).collect()
}

/// As [`array`], with floats that every language hands on bit by bit.
fn ordinary(kind: Type, values: &[Option<i64>]) -> ArrayRef {
    match kind {
        Type::Real => Arc::new(values.iter().map(|v| v.map(|v| v as f32 / 7.0)).collect::<Float32Array>()),
        Type::Double => Arc::new(values.iter().map(|v| v.map(|v| v as f64 / 7.0)).collect::<Float64Array>()),
        _ => array(kind, values),
    }
}

#[tokio::test]
async fn others_find_every_value_of_every_type() {
    if !available("python") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let columns = TYPES.iter().enumerate().map(|(i, kind)| Column::new(format!("c{i}"), *kind)).collect();
    let schema = TableSchema { columns, key: vec!["c0".into()] };
    let contract = contract("t", &schema);
    let count = 500usize;
    let value = |row: usize, column: usize| {
        let value = (row as i64 - 250) * 7_919 + column as i64;
        (column == 0 || row % 11 != column % 11).then_some(value)
    };
    let values = |column: usize| (0..count).map(|row| value(row, column)).collect::<Vec<_>>();
    let arrays: Vec<ArrayRef> = TYPES.iter().enumerate().map(|(i, kind)| ordinary(*kind, &values(i))).collect();
    let rows = RecordBatch::try_new(schema.arrow(), arrays.clone()).unwrap();
    let changes = TableChanges { rows, unchanged: vec![None; TYPES.len()], ..changes_of(&contract, count) };
    for compression in [config::Compression::Snappy, config::Compression::Zstd] {
        let lake = Lake::open(&config::Lake { compression, ..local(folder.path()) }).unwrap();
        let mut writer = EpochWriter::begin(&lake);
        writer.write(&changes).unwrap();
        let file = writer.finish().await.unwrap().tables["t"].epoch.files[0].clone();
        let path = folder.path().join("lake").join(&file.path);
        for reader in READERS {
            let found = read(reader, std::slice::from_ref(&path));
            assert_eq!(found["rows"], count);
            for (i, array) in arrays.iter().enumerate() {
                // DuckDB has no decimals of more than 38 digits: it reads them as floats.
                if reader == "duckdb" && matches!(array.data_type(), DataType::Decimal256(..)) {
                    continue;
                }
                let found = &found["columns"][format!("c{i}")];
                assert_eq!(found["nulls"], array.null_count(), "{reader}: {:?}", TYPES[i]);
                assert_eq!(found["sum"], sum_of(texts(array).into_iter()), "{reader}: {:?}", TYPES[i]);
            }
            let seqs = changes.seqs.iter().map(Seq::to_string);
            assert_eq!(found["columns"]["_seq"]["sum"], sum_of(seqs), "{reader}");
        }
    }
}

fn changes_of(contract: &Arc<Contract>, count: usize) -> TableChanges {
    TableChanges {
        contract: Arc::clone(contract),
        partition: Partition::new("shop", "0"),
        rows: RecordBatch::new_empty(contract.output.arrow()),
        ops: vec![Op::Create; count],
        seqs: (0..count as u64).map(|i| Seq { generation: 1, major: i, ..Seq::default() }).collect(),
        source_times_us: vec![NO_TIME; count],
        unchanged: Vec::new(),
        old_keys: None,
    }
}

fn parquet_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(folder) else { return found };
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            found.extend(parquet_below(&path));
        } else if path.extension().is_some_and(|e| e == "parquet") {
            found.push(path);
        }
    }
    found
}

/// Reads what there is in the file of events.
async fn read_on(folder: &Path, lines: &[String]) {
    std::fs::write(folder.join("events.jsonl"), lines.join("\n") + "\n").unwrap();
    let topology = "version: 1\nname: sales\nsources:\n  shop: { kind: file, path: events.jsonl, stream: shop.public.t }\n\
                    tables:\n  t: { from: shop.public.t, key: [id] }\nlake: { url: lake, raw: { keep: plain } }\n\
                    warehouse: { kind: sqlite, path: w.db }\n";
    let mut process = Launch::new(folder, topology).arg("--until-caught-up").run();
    assert!(process.exit(LIMIT).await.success(), "{}", process.log());
}

fn event(op: char, id: usize, before: &str, after: &str) -> String {
    let source = r#"{"db":"d","schema":"public","table":"t","#;
    format!(r#"{{"op":"{op}","before":{before},"after":{after},"source":{source}"ts_ms":{id},"lsn":{id}}}}}"#)
}

/// Runs from a file to the lake, with a column that comes later: the rows and the raw payloads are those of the source.
#[tokio::test(flavor = "multi_thread")]
async fn others_find_every_record_of_a_run() {
    if !available("python") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let row = |id: usize| format!(r#"{{"id":{id},"note":"é {id}"}}"#);
    let mut lines: Vec<String> = (1..=700).map(|id| event('c', id, "null", &row(id))).collect();
    read_on(folder.path(), &lines).await;
    let newer = |id: usize| format!(r#"{{"id":{id},"note":"ü {id}","amount":{}}}"#, id * 3);
    lines.extend((1..=100).map(|id| event('u', id + 700, "null", &newer(id))));
    lines.extend((101..=150).map(|id| event('d', id + 700, &row(id), "null")));
    read_on(folder.path(), &lines).await;

    let lake = folder.path().join("lake");
    assert!(parquet_below(&lake.join("processed/t")).len() > 1, "two runs are two epochs at least");
    let texts = |from: usize, to: usize, text: &dyn Fn(usize) -> String| (from..=to).map(text).collect::<Vec<_>>();
    for reader in READERS {
        // As a whole, with its partitions.
        let found = read(reader, &[lake.join("processed/t")]);
        let sum = |column: &str| found["columns"][column]["sum"].as_str().unwrap_or_default().to_owned();
        assert_eq!(found["rows"], lines.len(), "{reader}");
        let ids = [texts(1, 700, &|id| id.to_string()), texts(1, 150, &|id| id.to_string())].concat();
        assert_eq!(sum("id"), sum_of(ids.into_iter()), "{reader}");
        let ops = [texts(1, 700, &|_| "c".into()), texts(1, 100, &|_| "u".into()), texts(1, 50, &|_| "d".into())];
        assert_eq!(sum("_op"), sum_of(ops.concat().into_iter()), "{reader}");
        assert_eq!(sum("amount"), sum_of((1..=100).map(|id| (id * 3).to_string())), "{reader}");
        assert_eq!(found["columns"]["amount"]["nulls"], 750, "{reader}");
        assert!(found["columns"]["dt"]["rows"] == lines.len() && found["columns"]["hour"]["rows"] == lines.len());
        let raw = read(reader, &parquet_below(&lake.join("raw")));
        let hex = |line: &String| line.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(raw["columns"]["value"]["sum"], sum_of(lines.iter().map(hex)), "{reader}");
    }
}
