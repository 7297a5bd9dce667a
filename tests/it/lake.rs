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
use dataflow::lake::{
    Access, Draft, DraftTable, EpochWriter, Lake, Log, Payload, SealedFiles, sweep, sweep_as_of, sweep_everything,
};
use dataflow::progress::{Advance, Partition, Position, Span, Standings};
use ulid::Ulid;

use crate::support::s3::{Fault, S3Server};

mod forms;
mod payloads;
mod sweep;

fn local(folder: &std::path::Path) -> config::Lake {
    config::Lake { url: folder.join("lake").display().to_string(), ..config::Lake::default() }
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

fn raw_batch() -> RawBatch {
    let mut records = RawRecords::default();
    records.push(10, 5_000_000, Some(b"k"), Some(b"{\"a\":1}"));
    records.push_header("trace", Some(b"abc"));
    records.push_header("bytes", Some(&[0xff, 0x00]));
    records.push_header("null", None);
    records.push(12, NO_TIME, None, Some(b""));
    records.push(13, 6_000_000, Some(&[0xfe]), None);
    RawBatch {
        partition: Partition::new("shop", "orders#id/0"),
        generation: 3,
        span: Span { from: Position::offset(10), to: Position::offset(14) },
        stream: Some("shop.public.orders".into()),
        records,
        inside_transaction: false,
    }
}

type Record = (u64, i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(Vec<u8>, Option<Vec<u8>>)>);

fn all_records(batch: &RawBatch) -> Vec<Record> {
    let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
    let records = batch.records.iter();
    records
        .map(|r| {
            let headers = r.headers().map(|(name, value)| (name.to_vec(), owned(value))).collect();
            (r.offset(), r.timestamp_us(), owned(r.key()), owned(r.value()), headers)
        })
        .collect()
}

fn reject(offset: u64) -> Reject {
    Reject {
        table: (offset != 12).then(|| "orders".to_owned()),
        partition: Partition::new("shop", "orders#id/0"),
        seq: Seq { generation: 3, major: offset, ..Seq::default() },
        rule: "positive_amount".into(),
        reason: "amount is -1".into(),
        op: (offset == 10).then_some(Op::Update),
        key: (offset == 10).then(|| "{\"id\":1}".to_owned()),
        values: None,
        source_time_us: if offset == 13 { NO_TIME } else { 77 },
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

#[tokio::test]
async fn of_two_writers_on_one_partition_exactly_one_wins() {
    let folder = tempfile::tempdir().unwrap();
    let server = S3Server::start().await;
    for config in [local(folder.path()), server.lake("sales")] {
        let lake = Lake::open(&config).unwrap();
        let contract = contract("orders", &orders());
        let one = Log::open(lake.clone(), "sales", Access::Write).await.unwrap();
        let two = Log::open(lake.clone(), "sales", Access::Write).await.unwrap();
        let (a, b) = (seal(&lake, &contract, "0", 0, 10).await, seal(&lake, &contract, "0", 0, 7).await);
        let (a, b) = tokio::join!(one.commit(a, &same), two.commit(b, &same));
        let (won, lost) = if a.is_ok() { (a, b) } else { (b, a) };
        assert_eq!(won.unwrap().n, 1);
        assert_eq!(lost.unwrap_err().kind(), &ErrorKind::Fenced);
        assert_eq!(one.refresh().await.unwrap(), two.refresh().await.unwrap());
        assert_eq!(one.state().n, 1);
    }
}

#[tokio::test]
async fn writers_on_different_partitions_both_land_and_their_contracts_converge() {
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::open(&local(folder.path())).unwrap();
    let one = Log::open(lake.clone(), "sales", Access::Write).await.unwrap();
    let two = Log::open(lake.clone(), "sales", Access::Write).await.unwrap();
    let with_a = columns(&[("id", Type::BigInt), ("note", Type::TEXT), ("a", Type::Int)], &["id"]);
    let with_b = columns(&[("id", Type::BigInt), ("note", Type::TEXT), ("b", Type::Date)], &["id"]);
    let a = seal(&lake, &contract("orders", &with_a), "0", 0, 10).await;
    let b = seal(&lake, &contract("orders", &with_b), "1", 100, 103).await;
    let (a, b) = tokio::join!(one.commit(a, &same), two.commit(b, &same));
    let (a, b) = (a.unwrap(), b.unwrap());
    let (first, second) = if a.n == 1 { (a, b) } else { (b, a) };
    assert_eq!((first.n, second.n), (1, 2));
    assert_eq!(one.refresh().await.unwrap(), two.refresh().await.unwrap());

    let newest = Arc::clone(&one.state().contracts["orders"]);
    let names: std::collections::BTreeSet<_> = newest.output.columns.iter().map(|c| c.name.clone()).collect();
    assert_eq!((newest.version, names.len()), (2, 4));
    assert_eq!(second.contracts.len(), 1);
    // The first file is the first contract's as it stands; the second lacks a column of its own.
    assert!(!first.tables["orders"].fold && second.tables["orders"].fold);
    for manifest in [first, second] {
        let back = lake.read_changes(&manifest.tables["orders"].files[0], &newest).await.unwrap();
        assert_eq!(back[0].rows.schema(), newest.output.arrow());
        assert!(back[0].unchanged.iter().all(Option::is_none), "a created row has no unknown column");
    }
}

#[tokio::test]
async fn a_clash_of_contracts_is_fenced() {
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::open(&local(folder.path())).unwrap();
    let log = Log::open(lake.clone(), "sales", Access::Write).await.unwrap();
    let with = |kind| columns(&[("id", Type::BigInt), ("note", Type::TEXT), ("a", kind)], &["id"]);
    log.commit(seal(&lake, &contract("orders", &with(Type::Date)), "0", 0, 1).await, &same).await.unwrap();
    let clash = seal(&lake, &contract("orders", &with(Type::Boolean)), "0", 1, 2).await;
    let error = log.commit(clash, &same).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Fenced);
    assert!(error.to_string().contains("column `a` is date"), "{error}");
}

#[tokio::test]
async fn operators_that_change_make_a_new_version() {
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::open(&local(folder.path())).unwrap();
    let log = Log::open(lake.clone(), "sales", Access::Write).await.unwrap();
    let plain = contract("orders", &orders());
    log.commit(seal(&lake, &plain, "0", 0, 1).await, &same).await.unwrap();
    let renamed = |_: &str, input: &TableSchema| -> Result<TableSchema> {
        let mut output = input.clone();
        output.columns[1].name = "remark".into();
        Ok(output)
    };
    let committed = log.commit(seal(&lake, &plain, "0", 1, 2).await, &renamed).await.unwrap();
    assert_eq!((committed.contracts[0].version, committed.tables["orders"].fold), (2, true));
    assert_eq!(committed.tables["orders"].files[0].contract, 2);
    let again = log.commit(seal(&lake, &plain, "0", 2, 3).await, &renamed).await.unwrap();
    assert_eq!(again.contracts, []);
}

#[tokio::test]
async fn a_lost_answer_commits_once() {
    let server = S3Server::start().await;
    let lake = Lake::open(&server.lake("sales")).unwrap();
    let log = Log::open(lake.clone(), "sales", Access::Write).await.unwrap();
    let contract = contract("orders", &orders());
    // Once: the client's own second try is refused, and what is there is recognised.
    server.fault(Fault::AnswerLost, "PUT", "_log/0000", 1);
    let first = log.commit(seal(&lake, &contract, "0", 0, 5).await, &same).await.unwrap();
    assert_eq!((first.n, server.heal()), (1, 0));
    // The read-back finds it although no answer ever came.
    server.fault(Fault::AnswerLost, "PUT", "_log/0000", usize::MAX);
    let second = log.commit(seal(&lake, &contract, "0", 5, 9).await, &same).await.unwrap();
    server.heal();
    assert_eq!(second.n, 2);
    // Data files as well.
    server.fault(Fault::AnswerLost, "PUT", "processed/", 1);
    let third = log.commit(seal(&lake, &contract, "0", 9, 12).await, &same).await.unwrap();
    assert_eq!((third.n, server.heal()), (3, 0));
    assert_eq!(Log::open(lake, "sales", Access::Read).await.unwrap().state().tables["orders"].rows, 12);
}

#[tokio::test]
async fn a_draft_whose_commit_is_unknown_can_be_committed_again() {
    let server = S3Server::start().await;
    let lake = Lake::open(&server.lake("sales")).unwrap();
    let log = Log::open(lake.clone(), "sales", Access::Write).await.unwrap();
    let draft = seal(&lake, &contract("orders", &orders()), "0", 0, 5).await;
    server.fault(Fault::AnswerLost, "PUT", "_log/0000", usize::MAX);
    server.fault(Fault::Unavailable, "GET", "_log/0000", usize::MAX);
    let unknown = log.commit(draft.clone(), &same).await.unwrap_err();
    assert_eq!(unknown.kind(), &ErrorKind::StoreUnavailable);
    server.heal();
    // Somebody looks at the log in between: the manifest is in the state before its writer knows.
    assert_eq!(log.refresh().await.unwrap().n, 1);
    let committed = log.commit(draft.clone(), &same).await.unwrap();
    assert_eq!((committed.n, committed.attempt), (1, draft.attempt));
    assert_eq!(log.refresh().await.unwrap().n, 1);
}

#[tokio::test]
async fn a_store_that_overwrites_is_refused() {
    let server = S3Server::start().await;
    let lake = Lake::open(&server.lake("sales")).unwrap();
    server.fault(Fault::Overwrite, "PUT", "_log/probe", usize::MAX);
    let error = Log::open(lake.clone(), "sales", Access::Write).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::StoreBroken);
    assert!(error.to_string().contains("If-None-Match"), "{error}");
    server.heal();
    Log::open(lake, "sales", Access::Write).await.unwrap();
}

#[tokio::test]
async fn refusals_of_the_store_say_what_to_do() {
    let server = S3Server::start().await;
    let kind = async |config: &config::Lake| {
        let error = Log::open(Lake::open(config).unwrap(), "sales", Access::Write).await.unwrap_err();
        (error.kind().clone(), error.help_text().unwrap_or_default().to_owned())
    };
    let wrong_key = config::Lake { secret_access_key: Some("wrong".into()), ..server.lake("sales") };
    let (refused, help) = kind(&wrong_key).await;
    assert_eq!(refused, ErrorKind::Config);
    assert!(help.contains("credentials"), "{help}");
    let no_bucket = config::Lake { url: "s3://nowhere/sales".into(), ..server.lake("sales") };
    let (missing, help) = kind(&no_bucket).await;
    assert_eq!(missing, ErrorKind::Config, "{help}");
    assert!(help.contains("bucket"), "{help}");
    let unknown = Lake::open(&config::Lake { url: "ftp://x/y".into(), ..server.lake("x") }).unwrap_err();
    assert_eq!(unknown.kind(), &ErrorKind::Config);
    let denied = server.lake("denied");
    server.fault(Fault::Denied, "PUT", "", usize::MAX);
    assert_eq!(kind(&denied).await.0, ErrorKind::Config);
}

#[tokio::test]
async fn gaps_overlaps_and_old_generations_are_fenced() {
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::open(&local(folder.path())).unwrap();
    let log = Log::open(lake.clone(), "sales", Access::Write).await.unwrap();
    let commit = async |from, to, generation| {
        let spans = vec![Advance { generation, ..advance("0", from, to) }];
        log.commit(Draft { spans, ..Draft::new(Ulid::new(), Utc::now()) }, &same).await
    };
    commit(5, 10, 2).await.unwrap();
    for (from, generation) in [(11, 2), (9, 2), (5, 2), (10, 1)] {
        assert_eq!(commit(from, 20, generation).await.unwrap_err().kind(), &ErrorKind::Fenced, "{from} {generation}");
    }
    commit(10, 20, 2).await.unwrap();
    assert_eq!(log.state().n, 2);
}

#[tokio::test]
async fn an_attempt_gives_up_after_an_hour() {
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::open(&local(folder.path())).unwrap();
    let log = Log::open(lake.clone(), "sales", Access::Write).await.unwrap();
    let draft = seal(&lake, &contract("orders", &orders()), "0", 0, 5).await;
    let old = Draft { sealed_at: Utc::now() - TimeDelta::minutes(61), ..draft.clone() };
    assert_eq!(log.commit(old, &same).await.unwrap_err().kind(), &ErrorKind::Fenced);
    let younger = Draft { sealed_at: Utc::now() - TimeDelta::minutes(59), ..draft };
    assert_eq!(log.commit(younger, &same).await.unwrap().n, 1);
}

#[tokio::test]
async fn an_account_that_does_not_balance_is_not_committed() {
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::open(&local(folder.path())).unwrap();
    let log = Log::open(lake.clone(), "sales", Access::Write).await.unwrap();
    let mut draft = seal(&lake, &contract("orders", &orders()), "0", 0, 5).await;
    draft.account.tables.get_mut("orders").unwrap().written -= 1;
    assert_eq!(log.commit(draft, &same).await.unwrap_err().kind(), &ErrorKind::Internal);
    assert_eq!(log.refresh().await.unwrap().n, 0);
}

/// The path that an attempt's first file of a table will have.
fn own_path(table: &str, attempt: Ulid) -> String {
    let began = chrono::DateTime::from_timestamp_millis(attempt.timestamp_ms() as i64).unwrap();
    format!("processed/{table}/{}/{attempt}.parquet", began.format("dt=%Y-%m-%d/hour=%H"))
}

#[tokio::test]
async fn a_resurrected_file_name_is_refused_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let server = S3Server::start().await;
    for (config, root) in
        [(local(folder.path()), folder.path().join("lake")), (server.lake("sales"), server.folder().join("sales"))]
    {
        let lake = Lake::open(&config).unwrap();
        let contract = contract("orders", &orders());
        let mut writer = EpochWriter::begin(&lake);
        writer.write(&changes(&contract, "0", 0, &[1, 2])).unwrap();
        let old = root.join(own_path("orders", writer.attempt()));
        std::fs::create_dir_all(old.parent().unwrap()).unwrap();
        std::fs::write(&old, "an old file").unwrap();
        assert_eq!(writer.finish().await.unwrap_err().kind(), &ErrorKind::Fenced);
        assert_eq!(std::fs::read(&old).unwrap(), b"an old file");
    }
}

#[tokio::test]
async fn damaged_and_missing_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::open(&local(folder.path())).unwrap();
    let contract = contract("orders", &orders());
    let draft = seal(&lake, &contract, "0", 0, 50).await;
    let file = &draft.tables["orders"].epoch.files[0];
    let path = folder.path().join("lake").join(&file.path);
    let whole = std::fs::read(&path).unwrap();
    let mut bent = whole.clone();
    bent[whole.len() / 2] ^= 1;
    for damage in [Some(&bent[..]), Some(&whole[1..]), None] {
        match damage {
            Some(bytes) => std::fs::write(&path, bytes).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        let error = lake.read_changes(file, &contract).await.unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::LogCorrupt);
        assert!(error.to_string().contains(&file.path), "{error}");
    }
}

#[test]
fn tasks_can_hold_the_lake_across_threads() {
    fn send<T: Send>(_: T) {}
    let _never_run = |log: Log, writer: EpochWriter, draft: Draft| {
        send(async move {
            log.commit(draft, &same).await?;
            log.refresh().await?;
            sweep(&log).await?;
            log.manifest(1).await?;
            writer.finish().await
        });
    };
}

fn any_draft() -> impl proptest::strategy::Strategy<Value = (u8, u64, bool, bool)> {
    use proptest::prelude::any;
    (0u8..4, 1u64..100, any::<bool>(), any::<bool>())
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 4, ..Default::default() })]

    #[test]
    fn a_checkpoint_start_is_a_full_replay(drafts in proptest::collection::vec(any_draft(), 60..200)) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let lake = Lake::open(&local(folder.path())).unwrap();
            let log = Log::open(lake.clone(), "sales", Access::Write).await.unwrap();
            for (i, (partition, count, has_table, has_control)) in drafts.iter().enumerate() {
                let draft = random_draft(&log.state(), i, *partition, *count, *has_table, *has_control);
                log.commit(draft, &same).await.unwrap();
            }
            let resumed = Log::open(lake.clone(), "sales", Access::Write).await.unwrap();
            let checkpoints = folder.path().join("lake/_log/checkpoint");
            assert_eq!(checkpoints.is_dir(), drafts.len() >= 64);
            let _none_if_short = std::fs::remove_dir_all(checkpoints);
            let replayed = Log::open(lake, "sales", Access::Read).await.unwrap();
            assert_eq!(replayed.state().n, drafts.len() as u64);
            assert_eq!(resumed.state(), log.state());
            assert_eq!(replayed.state(), log.state());
        });
    }
}

fn random_draft(
    state: &dataflow::lake::LogState,
    i: usize,
    partition: u8,
    count: u64,
    has_table: bool,
    has_control: bool,
) -> Draft {
    let name = format!("p{partition}");
    let standing = state.progress.get(&Partition::new("shop", name.as_str()));
    let from = standing.and_then(|s| s.position.as_offset()).unwrap_or(7);
    let mut draft = Draft::new(Ulid::new(), Utc::now());
    draft.spans.push(Advance { mark: has_table.then(|| format!("m{i}")), ..advance(&name, from, from + count) });
    if has_table {
        let kind = if i.is_multiple_of(17) { Type::BigInt } else { Type::Int };
        let extra = format!("c{}", i % 5);
        let input = columns(&[("id", Type::BigInt), (extra.as_str(), kind)], &["id"]);
        let max_source_time_us = Some(count as i64 * 10);
        let epoch = TableEpoch { max_source_time_us, ..TableEpoch::default() };
        draft.tables.insert(format!("t{}", i % 3), DraftTable { epoch, input, outputs: vec![] });
        let rows = TableAccount { decoded: count, written: count, ..TableAccount::default() };
        draft.account.tables.insert(format!("t{}", i % 3), rows);
    }
    if has_control {
        let table = format!("t{}", i % 3);
        let epoch = i as u64;
        draft.control.push(match i % 4 {
            0 => Control::Pause { table, why: "why".into(), parked: false },
            1 => Control::Resume { table },
            2 => Control::Resync { table },
            _ => Control::Dropped { epoch, rows: vec![1], table },
        });
    }
    draft
}

#[path = "lake_files.rs"]
mod files;
#[path = "lake_readers.rs"]
mod readers;
#[path = "lake_s3.rs"]
mod s3;

/// Four writers that each own a partition, while answers are lost: every epoch lands once, in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_land_every_epoch_once() {
    let server = S3Server::start().await;
    let lake = Lake::open(&server.lake("sales")).unwrap();
    Log::open(lake.clone(), "sales", Access::Write).await.unwrap();
    server.fault(Fault::AnswerLost, "PUT", "_log/0000", 7);
    server.fault(Fault::Unavailable, "PUT", "_log/0000", 5);
    server.fault(Fault::Unavailable, "GET", "_log/0000", 3);
    let writers = (0..4).map(|partition| {
        let lake = lake.clone();
        tokio::spawn(async move {
            let log = Log::open(lake, "sales", Access::Write).await.unwrap();
            for i in 0..20 {
                let spans = vec![advance(&format!("p{partition}"), i * 10, i * 10 + 10)];
                log.commit(Draft { spans, ..Draft::new(Ulid::new(), Utc::now()) }, &same).await.unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    assert_eq!(server.heal(), 0, "all faults happened");
    let log = Log::open(lake, "sales", Access::Read).await.unwrap();
    assert_eq!(log.state().n, 80);
    for (_, standing) in log.state().progress.iter() {
        assert_eq!(standing.position, Position::offset(200));
    }
}

#[tokio::test]
async fn a_checkpoint_that_fails_is_made_up_for() {
    let server = S3Server::start().await;
    let lake = Lake::open(&server.lake("sales")).unwrap();
    let log = Log::open(lake.clone(), "sales", Access::Write).await.unwrap();
    for _ in 1..64 {
        log.commit(Draft::new(Ulid::new(), Utc::now()), &same).await.unwrap();
    }
    server.fault(Fault::Denied, "PUT", "_log/checkpoint", usize::MAX);
    assert_eq!(log.commit(Draft::new(Ulid::new(), Utc::now()), &same).await.unwrap().n, 64);
    server.heal();
    let checkpoint = server.folder().join("sales/_log/checkpoint/00000000000000000064.json");
    assert!(!checkpoint.exists());
    Log::open(lake.clone(), "sales", Access::Read).await.unwrap();
    assert!(!checkpoint.exists(), "a reader writes nothing");
    let resumed = Log::open(lake, "sales", Access::Write).await.unwrap();
    assert!(checkpoint.exists());
    assert_eq!(resumed.state(), log.state());
}
