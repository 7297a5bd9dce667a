//! One hour of one table: read, sorted by key, written as few files.
//!
//! Memory is bounded without a disk: when the hour is larger than [`CompactOptions::range_bytes`], a first reading samples the
//! order of its rows, and then each range of that order is a reading of its own. So an hour of `k` ranges is read `k + 1`
//! times.
//!
//! The order is: key columns (no key: the partition), `_seq`, `_epoch`, `_row`. No two rows are equal in it, so a key with
//! very many changes is cut like everything else.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, filter_record_batch, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::row::{RowConverter, Rows, SortField};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use tokio::task::block_in_place;
use ulid::Ulid;

use super::plan::{Job, Source};
use super::{CompactOptions, EPOCH, ROW, ZONE};
use crate::batch::TableChanges;
use crate::contract::{Contract, TableSchema};
use crate::epoch::DataFile;
use crate::error::{Error, ErrorKind, Result};
use crate::lake::read::{column, slices, split};
use crate::lake::table_writer::{LocalFile, OpenFile};
use crate::lake::{Lake, LogState, form, unreadable};

/// Rows of a sample.
const SAMPLE_ROWS: u64 = 20_000;
/// Rows that are decoded or encoded at once.
const SLICE_ROWS: usize = 64 << 10;
/// Files that are read ahead.
const READ_AHEAD: usize = 2;

/// Writes the job's rows and uploads the files; they count once an entry of the log names them.
pub(super) async fn rewrite(
    lake: &Lake,
    state: &LogState,
    job: &Job,
    attempt: Ulid,
    options: &CompactOptions,
) -> Result<Vec<DataFile>> {
    let mut versions: BTreeMap<u32, Vec<&Source>> = BTreeMap::new();
    for source in &job.sources {
        versions.entry(source.file.contract).or_default().push(source);
    }
    let mut files = Vec::new();
    for (version, sources) in versions {
        let contract = state.contract(&job.table, version).ok_or_else(|| {
            Error::new(ErrorKind::LogCorrupt, format!("no one knows version {version} of contract {}", job.table))
        })?;
        let folder = format!("{ZONE}/{}/{}/{attempt}", job.table, job.hour);
        let mut writing = Writing { lake, folder, form: Form::of(contract)?, files };
        writing
            .sorted(&sources, options)
            .await
            .map_err(|error| error.doing(format!("compact table {} in {}", job.table, job.hour)))?;
        files = writing.files;
    }
    Ok(files)
}

struct Writing<'a> {
    lake: &'a Lake,
    folder: String,
    form: Form,
    files: Vec<DataFile>,
}

impl Writing<'_> {
    async fn sorted(&mut self, sources: &[&Source], options: &CompactOptions) -> Result<()> {
        let bytes: u64 = sources.iter().map(|source| source.file.memory_bytes).sum();
        let bounds = match bytes.div_ceil(options.range_bytes.max(1)) {
            0 | 1 => Vec::new(),
            ranges => self.bounds(sources, ranges as usize).await?,
        };
        let mut open: Option<OpenFile> = None;
        for range in 0..=bounds.len() {
            let from = range.checked_sub(1).map(|before| bounds[before].as_slice());
            let to = bounds.get(range).map(Vec::as_slice);
            let mut kept = Vec::new();
            self.read(sources, |batch| {
                kept.extend(self.form.between(batch, from, to)?);
                Ok(())
            })
            .await?;
            if kept.is_empty() {
                continue;
            }
            let mut file = match open.take() {
                Some(file) => file,
                None => {
                    OpenFile::begin(Arc::clone(&self.form.layout), form::properties(self.lake.settings.compression))?
                }
            };
            block_in_place(|| write(&mut file, &self.form.sorted(kept)?))?;
            if file.buffered_bytes() < options.file_bytes {
                open = Some(file);
            } else {
                self.upload(block_in_place(|| file.finish())?).await?;
            }
        }
        match open {
            Some(last) => self.upload(block_in_place(|| last.finish())?).await,
            None => Ok(()),
        }
    }

    /// Where the order is cut so that the ranges are about equally large.
    async fn bounds(&self, sources: &[&Source], ranges: usize) -> Result<Vec<Vec<u8>>> {
        let total: u64 = sources.iter().map(|source| source.file.rows).sum();
        let every = (total / SAMPLE_ROWS).max(1) as usize;
        let mut sample = Vec::new();
        let mut passed = 0;
        self.read(sources, |batch| {
            let rows = self.form.order.rows(&batch)?;
            let wanted = rows.iter().enumerate().filter(|(at, _)| (passed + at).is_multiple_of(every));
            sample.extend(wanted.map(|(_, row)| row.as_ref().to_vec()));
            passed += batch.num_rows();
            Ok(())
        })
        .await?;
        sample.sort_unstable();
        let mut bounds: Vec<Vec<u8>> =
            (1..ranges).filter_map(|i| sample.get(i * sample.len() / ranges).cloned()).collect();
        bounds.dedup();
        Ok(bounds)
    }

    /// All rows of all sources in our layout, some at a time.
    async fn read(&self, sources: &[&Source], mut take: impl FnMut(RecordBatch) -> Result<()>) -> Result<()> {
        let lake = self.lake;
        let fetched = move |source: Source| async move {
            let body = lake.fetch(&source.file).await?;
            Ok::<_, Error>((source, body))
        };
        let owned: Vec<Source> = sources.iter().copied().cloned().collect();
        let mut bodies = futures::stream::iter(owned).map(fetched).buffered(READ_AHEAD);
        while let Some((source, body)) = bodies.try_next().await? {
            block_in_place(|| self.form.read(&source, body, &mut take))?;
        }
        Ok(())
    }

    async fn upload(&mut self, file: LocalFile) -> Result<()> {
        let path = format!("{}/v{}-{:04}.parquet", self.folder, self.form.contract.version, self.files.len());
        self.files.push(DataFile {
            path: path.clone(),
            contract: self.form.contract.version,
            rows: file.rows,
            bytes: file.body.len() as u64,
            memory_bytes: file.memory_bytes,
            crc32: crc32fast::hash(&file.body),
        });
        self.lake.store.create_own("compact.upload", &path, file.body).await
    }
}

fn write(file: &mut OpenFile, rows: &RecordBatch) -> Result<()> {
    for at in (0..rows.num_rows()).step_by(SLICE_ROWS) {
        file.write(&rows.slice(at, SLICE_ROWS.min(rows.num_rows() - at)))?;
    }
    file.end_group()
}

/// The columns of compacted files of one version of a contract, and their order.
struct Form {
    contract: Arc<Contract>,
    /// As a processed file with moves.
    processed: SchemaRef,
    /// The same, and where each row stood.
    layout: SchemaRef,
    order: Order,
}

impl Form {
    fn of(contract: &Arc<Contract>) -> Result<Self> {
        let processed = form::layout(&contract.output, true);
        let mut fields = processed.fields().to_vec();
        fields.extend([EPOCH, ROW].map(|name| Arc::new(Field::new(name, DataType::Int64, false))));
        let layout = Arc::new(Schema::new(fields));
        let order = Order::of(&contract.output, &layout)?;
        Ok(Self { contract: Arc::clone(contract), processed, layout, order })
    }

    /// Hands on a file's rows.
    fn read(&self, source: &Source, body: Bytes, take: &mut impl FnMut(RecordBatch) -> Result<()>) -> Result<()> {
        let file = &source.file;
        let mut rows = 0;
        for batch in slices(file, body, SLICE_ROWS)? {
            let batch = batch.map_err(|error| unreadable(file, error))?;
            let mut at = rows;
            rows += batch.num_rows() as u64;
            let Some((epoch, first)) = source.place else {
                take(self.compacted_before(file, &batch)?)?;
                continue;
            };
            for changes in split(file, &batch, &self.contract)? {
                take(self.placed(&changes, epoch as i64, (first + at) as i64)?)?;
                at += changes.len() as u64;
            }
        }
        if rows != file.rows {
            return Err(unreadable(file, format!("it has {rows} rows where the log says {}", file.rows)));
        }
        Ok(())
    }

    fn placed(&self, changes: &TableChanges, epoch: i64, first: i64) -> Result<RecordBatch> {
        let rows = changes.len() as i64;
        let mut columns = form::encode(changes, &self.processed)?.columns().to_vec();
        columns.push(Arc::new(Int64Array::from(vec![epoch; changes.len()])));
        columns.push(Arc::new((first..first + rows).collect::<Int64Array>()));
        RecordBatch::try_new(Arc::clone(&self.layout), columns).map_err(unsortable)
    }

    fn compacted_before(&self, file: &DataFile, batch: &RecordBatch) -> Result<RecordBatch> {
        let columns = self.layout.fields().iter().map(|field| column(file, batch, field.name()).cloned());
        let columns = columns.collect::<Result<Vec<_>>>()?;
        RecordBatch::try_new(Arc::clone(&self.layout), columns).map_err(|error| unreadable(file, error))
    }

    /// The rows of a range of the order.
    fn between(&self, batch: RecordBatch, from: Option<&[u8]>, to: Option<&[u8]>) -> Result<Option<RecordBatch>> {
        if from.is_none() && to.is_none() {
            return Ok(Some(batch));
        }
        let rows = self.order.rows(&batch)?;
        let inside = |row: &[u8]| from.is_none_or(|from| row >= from) && to.is_none_or(|to| row < to);
        let mask: BooleanArray = rows.iter().map(|row| Some(inside(row.as_ref()))).collect();
        let kept = filter_record_batch(&batch, &mask).map_err(unsortable)?;
        Ok((kept.num_rows() > 0).then_some(kept))
    }

    fn sorted(&self, kept: Vec<RecordBatch>) -> Result<RecordBatch> {
        let all = concat_batches(&self.layout, &kept).map_err(unsortable)?;
        drop(kept);
        let rows = self.order.rows(&all)?;
        let mut places: Vec<u32> = (0..all.num_rows() as u32).collect();
        places.sort_unstable_by(|a, b| rows.row(*a as usize).cmp(&rows.row(*b as usize)));
        take_record_batch(&all, &UInt32Array::from(places)).map_err(unsortable)
    }
}

/// How rows compare.
struct Order {
    columns: Vec<usize>,
    converter: RowConverter,
}

impl Order {
    fn of(output: &TableSchema, layout: &SchemaRef) -> Result<Self> {
        let mut names: Vec<&str> = output.key.iter().map(String::as_str).collect();
        if names.is_empty() {
            names.push(form::PARTITION);
        }
        names.extend([form::SEQ, EPOCH, ROW]);
        let columns =
            names.iter().map(|name| layout.index_of(name)).collect::<Result<Vec<_>, _>>().map_err(unsortable)?;
        let fields = columns.iter().map(|&at| SortField::new(layout.field(at).data_type().clone())).collect();
        Ok(Self { columns, converter: RowConverter::new(fields).map_err(unsortable)? })
    }

    fn rows(&self, batch: &RecordBatch) -> Result<Rows> {
        let columns: Vec<ArrayRef> = self.columns.iter().map(|&at| Arc::clone(batch.column(at))).collect();
        self.converter.convert_columns(&columns).map_err(unsortable)
    }
}

/// The numbers of a compacted file's column.
pub(super) fn numbers<'a>(file: &DataFile, batch: &'a RecordBatch, name: &str) -> Result<&'a Int64Array> {
    let found = column(file, batch, name)?.as_primitive_opt();
    found.ok_or_else(|| unreadable(file, format!("{name} is no number")))
}

fn unsortable(error: arrow::error::ArrowError) -> Error {
    Error::new(ErrorKind::Internal, "sort rows").because(error)
}
