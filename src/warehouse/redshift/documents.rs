//! Documents that are too long for a text.
//!
//! Most documents are staged as text, and `JSON_PARSE` makes of them what they say, or fails. A column of text ends at 65,535
//! bytes. Beyond, COPY itself must make the document: `FORMAT PARQUET SERIALIZETOJSON` from a column that the file marks as
//! JSON (<https://docs.aws.amazon.com/redshift/latest/dg/copy_json.html#copy_json-from-parquet-orc>,
//! <https://github.com/duckdb/duckdb/pull/14747>). No page promises what a cluster makes of that mark, and without it the
//! document becomes one string. So only rows with such a document go that way, in a stage of their own where they can, and
//! what the stage holds afterwards is compared with what was written.
//!
//! Redshift fails where it makes a text of a long document on the way, as a window, a sub-query or a join may
//! (<https://github.com/artie-labs/transfer/pull/1760>). What is known to go well is DELETE … USING, and INSERT from one
//! table whose rows stay where they lie. That is all that whole rows need: their stage lies as the table does. A partial row
//! takes the document from the row that it stands on, as a document, which is a join; what is soft deleted, or ends in a
//! history, is updated by one; and so is a stage that is not of whole rows alone. `dataflow check --connect` tries that.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use parquet::basic::{LogicalType, Repetition, Type as Physical};
use parquet::errors::ParquetError;
use parquet::schema::types::{SchemaDescriptor, Type as ParquetType};

use super::types::LIMITS;
use crate::batch::{Op, TableChanges};
use crate::contract::{TableSchema, Type};
use crate::epoch::{LoadAccount, TableLoad};
use crate::warehouse::shape::StageRows;

fn document_columns(schema: &TableSchema) -> impl Iterator<Item = usize> {
    schema.columns.iter().enumerate().filter(|(_, column)| column.data_type == Type::Json).map(|(index, _)| index)
}

/// Whether a table may hold documents.
pub(super) fn has_documents(schema: &TableSchema) -> bool {
    document_columns(schema).next().is_some()
}

/// Whether a row brings a document that is too long for a text.
fn is_large(changes: &TableChanges, columns: &[usize], row: usize) -> bool {
    columns.iter().any(|column| {
        let documents = changes.rows.column(*column).as_string::<i32>();
        documents.is_valid(row) && LIMITS.is_large(documents.value(row))
    })
}

/// Whether a row of the load brings a document that is too long for a text.
pub(super) fn any_large(load: &TableLoad) -> bool {
    let columns: Vec<usize> = document_columns(&load.contract.output).collect();
    !columns.is_empty()
        && load.rows.iter().any(|changes| (0..changes.len()).any(|row| is_large(changes, &columns, row)))
}

/// Takes the whole upserts with such a document out of a load: they need nothing of the other rows, and can be merged when
/// those have been. `None`: there are none.
pub(super) fn take_large(load: &mut TableLoad) -> Option<TableLoad> {
    let columns: Vec<usize> = document_columns(&load.contract.output).collect();
    if columns.is_empty() {
        return None;
    }
    let (mut large, mut rest) = (Vec::new(), Vec::new());
    for changes in &load.rows {
        let rows = StageRows::new(load, changes, false);
        let goes = |row: usize| {
            is_large(changes, &columns, row)
                && matches!(changes.ops[row], Op::Read | Op::Create | Op::Update)
                && rows.unchanged(row).is_none()
        };
        let mut from = 0;
        while from < changes.len() {
            let first = goes(from);
            let len = (from..changes.len()).take_while(|row| goes(*row) == first).count();
            if first { &mut large } else { &mut rest }.push(whole(changes.slice(from, len), first));
            from += len;
        }
    }
    if large.is_empty() {
        return None;
    }
    load.rows.clear();
    let large = TableLoad {
        truncate: None,
        earlier_truncates: Vec::new(),
        rows: large,
        later: Vec::new(),
        incomplete: Vec::new(),
        folded: LoadAccount::default(),
        ..load.clone()
    };
    load.rows = rest;
    Some(large)
}

/// Rows of which it is known that they need no base.
fn whole(mut changes: TableChanges, is_whole: bool) -> TableChanges {
    if is_whole {
        changes.old_keys = None;
        changes.unchanged = vec![None; changes.rows.num_columns()];
    }
    changes
}

/// The schema of a file, with its documents marked as JSON.
pub(super) fn marked_as_json(file: &SchemaDescriptor, schema: &TableSchema) -> Result<SchemaDescriptor, ParquetError> {
    let is_document = |index: usize| schema.columns.get(index).is_some_and(|column| column.data_type == Type::Json);
    let field = |(index, field): (usize, &Arc<ParquetType>)| match is_document(index) {
        false => Ok(Arc::clone(field)),
        true => ParquetType::primitive_type_builder(field.name(), Physical::BYTE_ARRAY)
            .with_repetition(Repetition::OPTIONAL)
            .with_logical_type(Some(LogicalType::Json))
            .build()
            .map(Arc::new),
    };
    let root = file.root_schema();
    let fields = root.get_fields().iter().enumerate().map(field).collect::<Result<Vec<_>, _>>()?;
    let root = ParquetType::group_type_builder(root.name()).with_fields(fields).build()?;
    Ok(SchemaDescriptor::new(Arc::new(root)))
}

/// How many documents of each column are an object, an array, or a string.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Kinds {
    columns: Vec<usize>,
    counts: Vec<[u64; 3]>,
}

impl Kinds {
    pub(super) fn of(schema: &TableSchema) -> Self {
        let columns: Vec<usize> = document_columns(schema).collect();
        Self { counts: vec![[0; 3]; columns.len()], columns }
    }

    /// Adds what another part of the same rows holds.
    pub(super) fn add(&mut self, other: &Self) {
        for (counts, more) in self.counts.iter_mut().zip(&other.counts) {
            counts.iter_mut().zip(more).for_each(|(count, more)| *count += more);
        }
    }

    /// Counts rows, whose first columns are the table's.
    pub(super) fn count(&mut self, rows: &RecordBatch) {
        for (column, counts) in self.columns.iter().zip(&mut self.counts) {
            for document in rows.column(*column).as_string::<i32>().iter().flatten() {
                match document.trim_ascii_start().as_bytes().first() {
                    Some(b'{') => counts[0] += 1,
                    Some(b'[') => counts[1] += 1,
                    Some(b'"') => counts[2] += 1,
                    _ => {}
                }
            }
        }
    }

    /// The first column, by its index, of which a row of counts (three a column) says something else; and how many of its
    /// documents are strings that were none.
    pub(super) fn difference(&self, found: &[Option<String>]) -> Option<(usize, u64)> {
        let number = |at: usize| found.get(at).and_then(Option::as_deref).and_then(|n| n.trim().parse::<u64>().ok());
        self.columns.iter().zip(&self.counts).enumerate().find_map(|(n, (column, counts))| {
            let there = [0, 1, 2].map(|kind| number(3 * n + kind));
            let strings = there[2].unwrap_or_default().saturating_sub(counts[2]);
            (there != counts.map(Some)).then_some((*column, strings))
        })
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use arrow::buffer::BooleanBuffer;
    use parquet::file::reader::{FileReader, SerializedFileReader};

    use super::super::parts::Part;
    use super::super::sql::{Documents, StageForm, StageKind};
    use super::super::stage::encode;
    use super::*;
    use crate::batch::{NO_TIME, Seq};
    use crate::contract::{Column, Contract};
    use crate::epoch::DeleteMode;
    use crate::progress::Partition;

    /// A row for each document; a row without is partial.
    fn load(documents: &[Option<String>]) -> TableLoad {
        let columns = vec![Column::new("id", Type::BigInt), Column::new("doc", Type::Json)];
        let schema = TableSchema { columns, key: vec!["id".into()] };
        let contract = Arc::new(Contract { table: "t".into(), version: 1, input: schema.clone(), output: schema });
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..documents.len() as i64));
        let values: ArrayRef = Arc::new(StringArray::from(documents.to_vec()));
        let rows = TableChanges {
            contract: Arc::clone(&contract),
            partition: Partition::new("s", "t/0"),
            rows: RecordBatch::try_new(contract.output.arrow(), vec![ids, values]).expect("a batch"),
            ops: vec![Op::Update; documents.len()],
            seqs: (0..documents.len() as u64).map(|major| Seq { major, ..Seq::default() }).collect(),
            source_times_us: vec![NO_TIME; documents.len()],
            unchanged: vec![None, Some(documents.iter().map(Option::is_none).collect::<BooleanBuffer>())],
            old_keys: None,
        };
        TableLoad {
            contract,
            mode: DeleteMode::Hard,
            truncate: None,
            truncated_at_us: NO_TIME,
            earlier_truncates: Vec::new(),
            rows: vec![rows],
            later: Vec::new(),
            incomplete: Vec::new(),
            keep_tombstones: false,
            folded: LoadAccount::default(),
            max_source_time_us: NO_TIME,
        }
    }

    fn ids(load: &TableLoad) -> Vec<i64> {
        let ids = |changes: &TableChanges| {
            let ids = changes.rows.column(0).as_primitive::<arrow::datatypes::Int64Type>();
            ids.values().to_vec()
        };
        load.rows.iter().flat_map(ids).collect()
    }

    fn long(first: char, last: char) -> Option<String> {
        Some(format!("{first}{}{last}", " ".repeat(70_000)))
    }

    #[test]
    fn whole_rows_with_a_long_document_go_by_themselves() {
        let mut all = load(&[Some("1".into()), long('[', ']'), long('{', '}'), None, Some("2".into()), long('[', ']')]);
        assert!(any_large(&all));
        let large = take_large(&mut all).expect("some");
        assert_eq!((ids(&large), ids(&all)), (vec![1, 2, 5], vec![0, 3, 4]));
        assert!(large.rows.iter().all(|changes| changes.unchanged.iter().all(Option::is_none)));
        assert!(!any_large(&all) && take_large(&mut all).is_none());
    }

    #[test]
    fn a_file_of_long_documents_says_that_they_are_json() {
        let load = load(&[long('{', '}'), Some(" [1]".into()), Some("\"text\"".into()), Some("7".into())]);
        let marks = |documents: Documents| {
            let part = Part { first: 0, rows: load.rows.clone() };
            let form = StageForm::new(StageKind::Plain, documents);
            let staged = encode(&load, &part, form, false, None).expect("a file");
            let file = SerializedFileReader::new(staged.body).expect("Parquet");
            let schema = file.metadata().file_metadata().schema_descr_ptr();
            let mark = (0..schema.num_columns()).map(|at| schema.column(at).logical_type_ref().cloned());
            (mark.collect::<Vec<_>>(), staged.documents)
        };
        let (found, kinds) = marks(Documents::Whole);
        assert_eq!(found, [None, Some(LogicalType::Json), Some(LogicalType::String)]);
        assert_eq!(kinds.counts, [[1, 1, 1]]);
        let (found, kinds) = marks(Documents::Text);
        assert_eq!(found, [None, Some(LogicalType::String), Some(LogicalType::String)]);
        assert_eq!(kinds.counts, [[0, 0, 0]]);
    }

    #[test]
    fn what_became_a_string_is_noticed() {
        let kinds = Kinds { columns: vec![1, 4], counts: vec![[1, 2, 0], [5, 0, 1]] };
        let found = |counts: [&str; 6]| kinds.difference(&counts.map(|n| Some(n.to_owned())));
        assert_eq!(found(["1", "2", "0", "5", "0", "1"]), None);
        assert_eq!(found(["1", "2", "0", "0", "0", "6"]), Some((4, 5)));
        assert_eq!(found(["0", "2", "0", "5", "0", "1"]), Some((1, 0)));
        assert_eq!(kinds.difference(&[]), Some((1, 0)));
    }
}
