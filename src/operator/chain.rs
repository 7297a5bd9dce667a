//! All operators of a table as one thing: checked once, bound to columns once per schema, applied to every batch.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{Field, Schema};

use crate::batch::{Op, Reject, TableChanges};
use crate::config;
use crate::config::{OnMismatch, Operator};
use crate::contract::{Column, Contract, Limits, TableSchema, Type};
use crate::error::{Error, ErrorKind, Result};

use super::compute::Compute;
use super::filter::Filter;
use super::loads;
use super::mask::MaskColumns;
use super::naming::output_names;
use super::rename::{Drop, Rename};
use super::row_json::Shown;
use super::rows::{Context, Refusal, Rows};
use super::scope::{Disclosure, Scope};
use super::validate::Validate;
use super::{Fault, Lineage, Output, Step, Transform};

/// The column that `otherwise: tag` fills.
const TAGS: &str = "tags";

/// Schemas that stay bound. A table has few at a time: those of the partitions that learn at different speed.
const BOUND_SCHEMAS: usize = 16;

/// All operators of one table, in order.
pub struct Chain {
    table: String,
    transforms: Vec<Box<dyn Transform>>,
    limits: Option<&'static Limits>,
    /// `on_mismatch: ignore`
    ignore: bool,
    bound: Mutex<Vec<(TableSchema, Arc<Bound>)>>,
}

/// A mistake in one operator of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainMistake {
    /// Which operator of the table, from 0.
    pub operator: usize,
    /// The field inside the operator, e.g. `validate.rule`.
    pub path: String,
    /// The byte in the text of an expression.
    pub offset: Option<usize>,
    /// What is wrong.
    pub message: String,
    /// What a person can do.
    pub help: Option<String>,
}

impl ChainMistake {
    fn new(operator: usize, fault: Fault) -> Self {
        Self { operator, path: fault.path, offset: fault.offset, message: fault.message, help: fault.help }
    }
}

impl fmt::Display for ChainMistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "operators[{}].{}", self.operator, self.path)?;
        if let Some(offset) = self.offset {
            write!(f, " (byte {offset})")?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for ChainMistake {}

/// A chain over the columns of one schema.
struct Bound {
    steps: Vec<Box<dyn Step>>,
    output: TableSchema,
    /// Positions of the key in the columns behind the last step.
    key: Vec<usize>,
    tags: bool,
    disclosures: Vec<Disclosure>,
    restricted: Vec<bool>,
    /// Name before the naming rule (the source's where it is a source column) and after it.
    names: Vec<(String, String)>,
}

impl Chain {
    /// Reads the operators of `table`: syntax, functions, keys, options. Every mistake that can be seen without columns.
    pub fn build(table: &str, config: &config::Table) -> Result<Self, Vec<ChainMistake>> {
        let mut transforms: Vec<Box<dyn Transform>> = Vec::with_capacity(config.operators.len());
        let mut mistakes = duplicate_names(&config.operators);
        for (index, operator) in config.operators.iter().enumerate() {
            match read(operator) {
                Ok(transform) => transforms.push(transform),
                Err(faults) => mistakes.extend(faults.into_iter().map(|fault| ChainMistake::new(index, fault))),
            }
        }
        if mistakes.is_empty() {
            let ignore = config.on_mismatch == OnMismatch::Ignore;
            return Ok(Self { table: table.to_owned(), transforms, limits: None, ignore, bound: Mutex::default() });
        }
        mistakes.sort_by_key(|mistake| mistake.operator);
        Err(mistakes)
    }

    /// The same for a warehouse that cannot hold everything: what it cannot is refused behind the operators.
    pub fn limited(self, limits: Option<&'static Limits>) -> Self {
        Self { limits, ..self }
    }

    /// The columns behind the chain, given those before it; checks every name and type. Pure.
    pub fn output(&self, input: &TableSchema) -> Result<TableSchema, ChainMistake> {
        Ok(self.bound(input)?.output.clone())
    }

    /// Where each output column comes from: the source's name (or the topology's, for what it adds) and the output's, in
    /// output order.
    pub fn names(&self, input: &TableSchema) -> Result<Vec<(String, String)>, ChainMistake> {
        Ok(self.bound(input)?.names.clone())
    }

    /// The source columns that are masked anywhere, as far as names tell (also those that a masked computed column
    /// reads). A topology that masks must say what its raw zone keeps.
    pub fn masked_columns(&self) -> BTreeSet<String> {
        let (mut names, mut masked) = (Lineage::new(), BTreeSet::new());
        for transform in &self.transforms {
            transform.trace(&mut names, &mut masked);
        }
        masked
    }

    /// Works on `changes`, whose rows follow their contract's `input`. The returned rows follow `contract.output`; what
    /// left is in `output`. The account's `decoded` and `written` are the caller's.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::RuleHalt`] when a rule says so; [`ErrorKind::Table`] when the operators do not fit the columns.
    pub fn apply(&self, changes: TableChanges, contract: &Arc<Contract>, output: &mut Output) -> Result<TableChanges> {
        let bound = self.bound(&changes.contract.input).map_err(|mistake| self.park(&mistake))?;
        let context = Context {
            table: &self.table,
            partition: &changes.partition,
            changes: &changes,
            restricted: &bound.restricted,
        };
        let mut rows = Rows::new(&changes, !bound.key.is_empty());
        for step in &bound.steps {
            step.apply(&mut rows, &context)?;
        }
        if bound.tags {
            rows.columns.push(rows.tag_column());
            rows.unchanged.push(None);
        }
        if let Some(limits) = self.limits {
            loads::refuse(limits, &bound.output, &bound.key, self.ignore, &mut rows);
            if self.ignore {
                output.left_out = loads::leave_out(limits, &bound.output, &bound.key, &mut rows)?;
            }
        }
        let rejects = self.rejects(&changes, &bound, std::mem::take(&mut rows.refusals))?;
        let kept = rows.settle(&bound.key)?;
        output.rejects.extend(rejects);
        count(&mut rows, output);
        bound.assemble(rows, kept.as_ref(), changes, contract)
    }

    fn bound(&self, input: &TableSchema) -> Result<Arc<Bound>, ChainMistake> {
        let mut cache = self.bound.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, bound)) = cache.iter().find(|(schema, _)| schema == input) {
            return Ok(Arc::clone(bound));
        }
        let bound = Arc::new(self.bind(input)?);
        if cache.len() == BOUND_SCHEMAS {
            cache.remove(0);
        }
        cache.push((input.clone(), Arc::clone(&bound)));
        Ok(bound)
    }

    fn bind(&self, input: &TableSchema) -> Result<Bound, ChainMistake> {
        let mut scope = Scope::new(input);
        let mut steps = Vec::with_capacity(self.transforms.len());
        let mut tagging = 0;
        for (index, transform) in self.transforms.iter().enumerate() {
            let tagged = scope.tags;
            steps.push(transform.bind(&mut scope).map_err(|fault| ChainMistake::new(index, fault))?);
            if scope.tags && !tagged {
                tagging = index;
            }
        }
        if scope.tags && scope.names().any(|name| name == TAGS) {
            let fault = Fault::new("validate.otherwise", format!("there is a column `{TAGS}` already"))
                .help("rename it: `tag` writes the names of broken rules into a column of that name");
            return Err(ChainMistake::new(tagging, fault));
        }
        Ok(Bound::new(scope, steps, input))
    }

    fn park(&self, mistake: &ChainMistake) -> Error {
        let error = Error::new(
            ErrorKind::Table(self.table.clone()),
            format!("the operators of table {} do not fit its columns: {mistake}", self.table),
        );
        match &mistake.help {
            Some(help) => error.help(help.clone()),
            None => error.help("correct the operator, or give the table a contract"),
        }
    }

    fn rejects(&self, changes: &TableChanges, bound: &Bound, mut refusals: Vec<Refusal>) -> Result<Vec<Reject>> {
        // A row is refused at most once: whatever refuses it also takes it out.
        refusals.sort_by_key(|refusal| refusal.row);
        let rows: Vec<usize> = refusals.iter().map(|refusal| refusal.row).collect();
        let shown = Shown::new(changes, &bound.disclosures, &rows)?;
        let reject = |(index, refusal): (usize, Refusal)| Reject {
            table: Some(self.table.clone()),
            partition: changes.partition.clone(),
            seq: changes.seqs[refusal.row],
            op: Some(changes.ops[refusal.row]),
            key: shown.key(&changes.contract.input, index),
            values: Some(shown.values(changes, index, refusal.row)),
            source_time_us: changes.source_times_us[refusal.row],
            rule: refusal.rule,
            reason: refusal.reason,
        };
        Ok(refusals.into_iter().enumerate().map(reject).collect())
    }
}

fn read(operator: &Operator) -> Result<Box<dyn Transform>, Vec<Fault>> {
    Ok(match operator {
        Operator::Validate(config) => Box::new(Validate::new(config)?),
        Operator::Mask(config) => Box::new(MaskColumns::new(config)?),
        Operator::Rename(config) => Box::new(Rename::new(config)?),
        Operator::Drop(config) => Box::new(Drop::new(config)?),
        Operator::Filter(config) => Box::new(Filter::new(config)?),
        Operator::Compute(config) => Box::new(Compute::new(config)?),
    })
}

/// Rules and filters are counted by name.
fn duplicate_names(operators: &[Operator]) -> Vec<ChainMistake> {
    let mut seen = BTreeSet::new();
    let mut mistakes = Vec::new();
    for (index, operator) in operators.iter().enumerate() {
        let (path, name) = match operator {
            Operator::Validate(config) => ("validate.name", &config.name),
            Operator::Filter(config) => ("filter.name", &config.name),
            _ => continue,
        };
        if !seen.insert(name) {
            let fault = Fault::new(path, format!("another rule or filter is called `{name}` too"))
                .help("they are counted by name");
            mistakes.push(ChainMistake::new(index, fault));
        }
    }
    mistakes
}

/// Moves the counts of a batch to the caller.
fn count(rows: &mut Rows, output: &mut Output) {
    for (name, rows) in std::mem::take(&mut rows.filtered) {
        *output.account.filtered.entry(name).or_default() += rows;
    }
    for (name, rows) in std::mem::take(&mut rows.rejected) {
        *output.account.rejected.entry(name).or_default() += rows;
    }
    output.account.replaced += rows.replaced;
}

impl Bound {
    fn new(mut scope: Scope, steps: Vec<Box<dyn Step>>, input: &TableSchema) -> Self {
        for (source, disclosure) in scope.disclosures.iter_mut().enumerate() {
            // What the output shows anyway, the quarantine may show.
            disclosure.hidden &= !scope.columns.iter().any(|column| column.source == Some(source));
        }
        let mut given: Vec<(&str, bool)> = scope.columns.iter().map(|c| (c.column.name.as_str(), c.named)).collect();
        if scope.tags {
            given.push((TAGS, true));
        }
        let safe = output_names(&given);
        let mut names: Vec<(String, String)> = Vec::with_capacity(safe.len());
        let mut columns = Vec::with_capacity(safe.len());
        for (column, name) in scope.columns.iter().zip(&safe) {
            let source = column.source.map_or(&column.column.name, |source| &input.columns[source].name);
            names.push((source.clone(), name.clone()));
            columns.push(Column { name: name.clone(), ..column.column.clone() });
        }
        if let Some(name) = safe.get(scope.columns.len()) {
            names.push((TAGS.into(), name.clone()));
            columns.push(Column::new(name.clone(), Type::TEXT));
        }
        let key = scope.key.iter().map(|index| safe[*index].clone()).collect();
        Self {
            steps,
            output: TableSchema { columns, key },
            key: scope.key,
            tags: scope.tags,
            restricted: scope.disclosures.iter().map(Disclosure::is_restricted).collect(),
            disclosures: scope.disclosures,
            names,
        }
    }

    /// Rows behind the last step to changes in the columns of `contract.output`.
    fn assemble(
        &self,
        rows: Rows,
        kept: Option<&BooleanArray>,
        changes: TableChanges,
        contract: &Arc<Contract>,
    ) -> Result<TableChanges> {
        if let Some(lost) = self.output.columns.iter().find(|c| contract.output.column(&c.name).is_none()) {
            return Err(Error::new(
                ErrorKind::Internal,
                format!(
                    "version {} of the contract of {} lacks column {}",
                    contract.version, contract.table, lost.name
                ),
            ));
        }
        let len = rows.ops.len();
        let mut columns = Vec::with_capacity(contract.output.columns.len());
        let mut unchanged = Vec::with_capacity(contract.output.columns.len());
        for column in &contract.output.columns {
            // A column that these rows do not know was added while they were on their way.
            let Some(index) = self.output.index(&column.name) else {
                columns.push(new_null_array(&column.data_type.arrow(), len));
                unchanged.push(None);
                continue;
            };
            columns.push(widen(&rows.columns[index], column)?);
            unchanged.push(rows.unchanged[index].clone());
        }
        let options = RecordBatchOptions::new().with_row_count(Some(len));
        let batch = RecordBatch::try_new_with_options(contract.output.arrow(), columns, &options).map_err(internal)?;
        Ok(TableChanges {
            contract: Arc::clone(contract),
            partition: changes.partition,
            rows: batch,
            old_keys: old_keys(&rows, contract)?,
            ops: rows.ops,
            seqs: pick(changes.seqs, kept),
            source_times_us: pick(changes.source_times_us, kept),
            unchanged,
        })
    }
}

/// Old keys in the contract's types; `None` when no row moves any more.
fn old_keys(rows: &Rows, contract: &Contract) -> Result<Option<RecordBatch>> {
    let Some(old) = &rows.old_keys else { return Ok(None) };
    if !rows.ops.contains(&Op::Move) {
        return Ok(None);
    }
    let (mut fields, mut columns) = (Vec::new(), Vec::new());
    for (name, values) in contract.output.key.iter().zip(old) {
        let Some(column) = contract.output.column(name) else { continue };
        fields.push(Field::new(name, column.data_type.arrow(), true));
        columns.push(widen(values, column)?);
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map(Some).map_err(internal)
}

/// Values in the layout of the contract's column, which may be wider than what these rows were read as.
fn widen(values: &ArrayRef, column: &Column) -> Result<ArrayRef> {
    let wanted = column.data_type.arrow();
    if *values.data_type() == wanted {
        return Ok(Arc::clone(values));
    }
    let options = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(values, &wanted, &options)
        .map_err(|error| internal(error).doing(format!("widen column {} to {}", column.name, column.data_type)))
}

fn pick<T: Copy>(values: Vec<T>, kept: Option<&BooleanArray>) -> Vec<T> {
    match kept {
        None => values,
        Some(kept) => values.into_iter().zip(kept.values()).filter_map(|(value, kept)| kept.then_some(value)).collect(),
    }
}

fn internal(error: arrow::error::ArrowError) -> Error {
    Error::new(ErrorKind::Internal, "put the rows of a chain together").because(error)
}
