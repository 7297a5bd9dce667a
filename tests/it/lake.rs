//! The lake: log, files, sweep, on a local folder and on a real S3 protocol server.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::buffer::BooleanBuffer;
use chrono::{TimeDelta, Utc};
use dataflow::batch::{NO_TIME, Op, RawBatch, RawRecords, RecordAccount, Reject, Seq, TableChanges};
use dataflow::config;
use dataflow::contract::{Column, Contract, TableSchema, Type};
use dataflow::epoch::{Account, Control, Manifest, TableAccount, TableEpoch};
use dataflow::error::{ErrorKind, Result};
use dataflow::lake::{Access, Draft, DraftTable, EpochWriter, Lake, Log, Payload, SealedFiles, sweep};
use dataflow::progress::{Advance, Partition, Position, Span, Standings};
use ulid::Ulid;

use crate::support::s3::{Fault, S3Server};

fn local(folder: &std::path::Path) -> config::Lake {
    config::Lake {
        url: folder.join("lake").display().to_string(),
        region: None,
        endpoint: None,
        access_key_id: None,
        secret_access_key: None,
        raw: None,
        quarantine: config::Quarantine::default(),
        compression: config::Compression::Snappy,
    }
}

fn same(_: &str, input: &TableSchema) -> Result<TableSchema> {
    Ok(input.clone())
}

fn columns(names: &[(&str, Type)], key: &[&str]) -> TableSchema {
    TableSchema {
        columns: names.iter().map(|(name, kind)| Column::new(*name, *kind)).collect(),
        key: key.iter().map(|k| (*k).to_owned()).collect(),
    }
}

fn contract(table: &str, schema: &TableSchema) -> Arc<Contract> {
    Arc::new(Contract { table: table.into(), version: 1, input: schema.clone(), output: schema.clone() })
}

fn orders() -> TableSchema {
    columns(&[("id", Type::BigInt), ("note", Type::TEXT)], &["id"])
}

fn changes(contract: &Arc<Contract>, partition: &str, first: i64, ids: &[i64]) -> TableChanges {
    let rows = ids.iter().enumerate();
    let notes: ArrayRef = Arc::new(StringArray::from_iter_values(ids.iter().map(|id| format!("note {id}"))));
    let mut arrays: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(ids.to_vec())), notes];
    for column in &contract.output.columns[2..] {
        arrays.push(arrow::array::new_null_array(&column.data_type.arrow(), ids.len()));
    }
    TableChanges {
        contract: Arc::clone(contract),
        partition: Partition::new("shop", partition),
        rows: RecordBatch::try_new(contract.output.arrow(), arrays).unwrap(),
        ops: vec![Op::Create; ids.len()],
        seqs: rows.map(|(i, _)| Seq { generation: 1, major: first as u64 + i as u64, ..Seq::default() }).collect(),
        source_times_us: ids.iter().map(|id| 1_000 + id).collect(),
        unchanged: vec![None; contract.output.columns.len()],
        old_keys: None,
    }
}

fn advance(partition: &str, from: u64, to: u64) -> Advance {
    Advance {
        partition: Partition::new("shop", partition),
        span: Span { from: Position::offset(from), to: Position::offset(to) },
        generation: 1,
        mark: None,
    }
}

/// An epoch of `partition` from offset `from`, a row of `orders` per offset.
async fn seal(lake: &Lake, contract: &Arc<Contract>, partition: &str, from: u64, to: u64) -> Draft {
    let mut writer = EpochWriter::begin(lake);
    let ids: Vec<i64> = (from as i64..to as i64).collect();
    writer.write(&changes(contract, partition, from as i64, &ids)).unwrap();
    let attempt = writer.attempt();
    let SealedFiles { tables, quarantine, raw } = writer.finish().await.unwrap();
    let count = to - from;
    let records = RecordAccount { read: count, rows: count, ..RecordAccount::default() };
    let rows = TableAccount { decoded: count, written: count, ..TableAccount::default() };
    let account = Account {
        records: BTreeMap::from([("shop".to_owned(), records)]),
        tables: BTreeMap::from([(contract.table.clone(), rows)]),
    };
    Draft {
        spans: vec![advance(partition, from, to)],
        tables,
        quarantine,
        raw,
        account,
        ..Draft::new(attempt, Utc::now())
    }
}

#[tokio::test]
async fn commits_refreshes_and_resumes_on_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    commit_refresh_resume(&local(folder.path())).await;
}

#[tokio::test]
async fn commits_refreshes_and_resumes_on_s3() {
    let server = S3Server::start().await;
    commit_refresh_resume(&server.lake("sales")).await;
}

async fn commit_refresh_resume(config: &config::Lake) {
    let lake = Lake::open(config).unwrap();
    let missing = Log::open(lake.clone(), "sales", Access::Read).await.unwrap_err();
    assert_eq!(missing.kind(), &ErrorKind::Config);
    let log = Log::open(lake.clone(), "sales", Access::Write).await.unwrap();
    let contract = contract("orders", &orders());
    let first = log.commit(seal(&lake, &contract, "0", 0, 10).await, &same).await.unwrap();
    assert_eq!((first.n, first.contracts.len(), first.tables["orders"].fold), (1, 1, false));

    let other = Log::open(lake.clone(), "sales", Access::Read).await.unwrap();
    assert_eq!(other.state(), log.state());
    log.commit(seal(&lake, &contract, "0", 10, 15).await, &same).await.unwrap();
    assert_eq!(other.state().n, 1);
    let seen = other.latest().await.unwrap();
    assert_eq!(seen.get(&Partition::new("shop", "0")).unwrap().position, Position::offset(15));
    assert_eq!(other.state(), log.state());

    let resumed = Log::open(lake.clone(), "sales", Access::Write).await.unwrap();
    assert_eq!(resumed.state(), log.state());
    assert_eq!(resumed.state().tables["orders"].rows, 15);
    let manifest = resumed.manifest(1).await.unwrap();
    let back = lake.read_changes(&manifest.tables["orders"].files[0], &contract).await.unwrap();
    assert_eq!(back.len(), 1);
    assert_eq!(back[0].rows, changes(&contract, "0", 0, &(0..10).collect::<Vec<_>>()).rows);

    let foreign = Log::open(lake, "other", Access::Write).await.unwrap_err();
    assert_eq!(foreign.kind(), &ErrorKind::Config);
}
