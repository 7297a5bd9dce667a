//! Debezium JSON to Parquet (zstd level 1) on one core: decode and the lake's writer together, beside the sum of decode
//! alone and arrow-rs' `ArrowWriter` alone.
//!
//! `cargo bench --bench lake`. The sum is taken twice: with the writer on the decoded columns only, and with it on the same
//! columns that a lake file has (`_op`, `_seq`, `_partition`, `_source_time`, `_unchanged` as well). Before anything is
//! timed, the file read back must hold what was decoded. The lake's path includes CRC and writing the file to a folder.

#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

mod events;

use std::fs::File;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::compute::{cast, concat_batches};
use dataflow::batch::RawBatch;
use dataflow::config::{self, Compression};
use dataflow::decode::Decoder;
use dataflow::decode::debezium::DebeziumJson;
use dataflow::lake::{EpochWriter, Lake};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression as Codec, ZstdLevel};
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;

/// The process's allocator, for both.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Batches of about 1 MiB, as sources cut them.
const BATCH: u64 = 1_200;
const BATCHES: u64 = 100;
const ROUNDS: usize = 9;

fn lake(folder: &Path) -> Lake {
    let config =
        config::Lake { url: folder.display().to_string(), compression: Compression::Zstd, ..config::Lake::default() };
    Lake::open(&config).unwrap()
}

/// Ours: an epoch of all batches. Returns the path of its only file.
fn epoch(runtime: &tokio::runtime::Runtime, lake: &Lake, decoder: &mut DebeziumJson, raw: &[RawBatch]) -> String {
    let mut writer = EpochWriter::begin(lake);
    for batch in raw {
        for changes in &decoder.decode(batch).unwrap().tables {
            writer.write(changes).unwrap();
        }
    }
    let sealed = runtime.block_on(writer.finish()).unwrap();
    sealed.tables["orders"].epoch.files[0].path.clone()
}

fn decode(decoder: &mut DebeziumJson, raw: &[RawBatch]) -> Vec<RecordBatch> {
    raw.iter().flat_map(|batch| decoder.decode(batch).unwrap().tables).map(|changes| changes.rows).collect()
}

fn write(batches: &[RecordBatch]) -> Vec<u8> {
    let properties = WriterProperties::builder()
        .set_compression(Codec::ZSTD(ZstdLevel::try_new(1).unwrap()))
        // As in the lake's files: every value is another one. Does nothing where there is no such column.
        .set_column_dictionary_enabled(ColumnPath::from("_seq"), false)
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), batches[0].schema(), Some(properties)).unwrap();
    for batch in batches {
        writer.write(batch).unwrap();
    }
    writer.into_inner().unwrap()
}

/// The file's rows, in batches of the size of those that it was written in.
fn read(path: &Path) -> Vec<RecordBatch> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    reader.with_batch_size(BATCH as usize).build().unwrap().map(Result::unwrap).collect()
}

/// The first columns of the file are the decoded ones.
fn assert_same(decoded: &[RecordBatch], file: &[RecordBatch]) {
    let decoded = concat_batches(&decoded[0].schema(), decoded).unwrap();
    let file = concat_batches(&file[0].schema(), file).unwrap();
    assert_eq!(decoded.num_rows(), file.num_rows());
    for (at, column) in decoded.columns().iter().enumerate() {
        assert_eq!(column, &cast(file.column(at), column.data_type()).unwrap(), "column {at}");
    }
}

fn time<T>(run: impl FnOnce() -> T) -> Duration {
    let start = Instant::now();
    black_box(run());
    start.elapsed()
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let lake = lake(folder.path());
    let raw: Vec<RawBatch> = (0..BATCHES).map(|n| events::batch(n * BATCH, BATCH, false)).collect();
    let mut decoder = events::decoder();
    let rows = decode(&mut decoder, &raw);
    let whole = read(&folder.path().join(epoch(&runtime, &lake, &mut decoder, &raw)));
    assert_same(&rows, &whole);

    // Ours, decode alone, the writer on the decoded columns, the writer on the file's columns: in turns, the best of each.
    let mut best = [Duration::MAX; 4];
    for _ in 0..ROUNDS {
        let turn = [
            time(|| epoch(&runtime, &lake, &mut decoder, &raw)),
            time(|| decode(&mut decoder, &raw)),
            time(|| write(&rows)),
            time(|| write(&whole)),
        ];
        best = std::array::from_fn(|at| best[at].min(turn[at]));
    }
    let [ours, decode, narrow, wide] = best.map(|time| time.as_secs_f64());
    let events = (BATCH * BATCHES) as f64;
    println!("{events} events, best of {ROUNDS}; files are equal to what was decoded");
    println!("ours, JSON to a file in the lake:     {:>9.0} events/s", events / ours);
    println!("decode alone:                         {:>9.0} events/s", events / decode);
    println!("ArrowWriter alone, the file's columns:{:>9.0} events/s", events / wide);
    println!("ArrowWriter alone, decoded columns:   {:>9.0} events/s", events / narrow);
    println!("ratio to the sum, the file's columns: {:>9.2} (at least 0.8 wanted)", (decode + wide) / ours);
    println!("ratio to the sum, decoded columns:    {:>9.2}", (decode + narrow) / ours);
}
