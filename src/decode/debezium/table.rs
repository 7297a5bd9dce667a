//! What is known of one table: its route, its contract so far, and how that grows.
//!
//! # What becomes of columns
//!
//! | seen | what happens |
//! |---|---|
//! | a value that its written column is too narrow for: a longer text, a larger number, more digits | the column becomes wider as [`growth`] says (unless the contract says `widen: false`: as another type) |
//! | a number without a fixed scale, where a decimal of up to 38 digits is declared | stays as declared, and is widened by its values |
//! | a new column | appended (unless a hand-written contract says `learn: false`) |
//! | a wider type | widened as [`join_schemas`] says |
//! | a declared type that the wire fits without being of that type (text into `uuid`, `MicroTime` into `duration`) | stays as declared |
//! | another type | `on_mismatch`: the row is refused with rule `contract`, or (`ignore`) the column is left out |
//! | a row without a column, written before the column was added | null |
//! | a row without a column, written after the column was dropped or renamed (see `shown.rs`) | `on_mismatch`: refused with rule `contract`, or (`ignore`) null |
//! | the same, with the column among the table's `gone:`, or left out of a contract that says `learn: false` | null |
//! | a row without a column that is declared `nullable: false` | refused with rule `contract` |
//!
//! Learned columns are nullable but for the key: what one process has not seen yet may be null.
//! Without a schema block whole numbers are learned as `bigint`, whatever they count; numbers with a fraction are not
//! learned.

use std::collections::HashMap;
use std::sync::Arc;

use super::builder::Room;
use super::row::{Layout, Target};
use super::rows::Rows;
use super::scan::{Token, fields};
use super::schema::WireColumn;
use super::wire::Wire;
use super::{FlatNames, TableRoute};
use crate::batch::TableChanges;
use crate::config::OnMismatch;
#[cfg(doc)]
use crate::contract::growth;
use crate::contract::{Column, Contract, Incompatible, TableSchema, Type, join_schemas, join_types};
use crate::error::{Error, ErrorKind, Result};
use crate::progress::Partition;

/// One table of a source.
pub(in crate::decode) struct Table {
    pub route: TableRoute,
    /// The key that people wrote; it is not compared with the message key then.
    pub fixed_key: Option<Vec<String>>,
    /// How columns are spelled where no schema block says it.
    declared: HashMap<String, Wire>,
    pub contract: Option<Arc<Contract>>,
    /// Grows with the contract, so that layouts know that they are old.
    pub epoch: u64,
    plain: Option<(u64, Layout)>,
    /// Whether its rows are flattened; not known before the first.
    pub flattened: Option<bool>,
    pub rows: Option<Rows>,
    /// How much the rows that were given out last held.
    room: Vec<Room>,
    pub done: Vec<TableChanges>,
}

impl Table {
    pub fn new(route: TableRoute) -> Result<Self> {
        let mut declared = HashMap::new();
        let mut contract = None;
        let mut fixed_key = route.key.clone();
        if let Some(file) = &route.contract {
            let key = fixed_key.get_or_insert_with(|| file.key.clone()).clone();
            let schema = TableSchema { columns: file.columns.clone(), key };
            declared = declarations(&route.table, file)?;
            if let Some(missing) = schema.key.iter().find(|k| schema.column(k).is_none()) {
                return Err(bad(
                    &route.table,
                    format!("its contract has no column `{missing}`, which is part of the key"),
                ));
            }
            contract = Some(fresh(&route.table, schema));
        }
        Ok(Self {
            route,
            fixed_key,
            declared,
            contract,
            epoch: 1,
            plain: None,
            flattened: None,
            rows: None,
            room: Vec::new(),
            done: Vec::new(),
        })
    }

    pub fn ignores(&self) -> bool {
        self.route.on_mismatch == OnMismatch::Ignore
    }

    /// Whether unknown columns are learned.
    pub fn learns(&self) -> bool {
        self.route.contract.as_ref().is_none_or(|file| file.learn)
    }

    /// Whether a value that a column does not hold makes the column wider. What was learned is as wide as the source says.
    fn widens(&self, name: &str) -> bool {
        self.route.contract.as_ref().is_some_and(|file| file.widen) && self.written(name).is_some()
    }

    /// Makes a column wider, so that it takes a value that was too large for it.
    #[cold]
    pub fn widen(&mut self, column: usize, wider: Type) -> Result<()> {
        let Some(mut seen) = self.contract.as_ref().map(|contract| contract.input.clone()) else { return Ok(()) };
        let Some(column) = seen.columns.get_mut(column) else { return Ok(()) };
        tracing::info!(
            table = self.route.table,
            column = column.name,
            "a value makes the column {wider} instead of {}; `widen: false` in the contract refuses it",
            column.data_type
        );
        column.data_type = wider;
        // It holds what the column did.
        self.grow(&seen).map(|_agreed| ())
    }

    pub fn key(&self) -> &[String] {
        self.contract.as_ref().map(|c| c.input.key.as_slice()).unwrap_or_default()
    }

    fn written(&self, name: &str) -> Option<&Column> {
        self.route.contract.as_ref()?.columns.iter().find(|c| c.name == name)
    }

    /// Takes over a contract from the log; what is known beyond it stays known.
    pub fn adopt(&mut self, from_log: &Arc<Contract>) -> Result<()> {
        let Some(known) = &self.contract else {
            if let Some(key) = self.fixed_key.as_ref().filter(|key| **key != from_log.input.key) {
                return Err(bad(&self.route.table, other_key(&from_log.input.key, key)));
            }
            self.set(from_log.clone());
            return Ok(());
        };
        let joined = join_schemas(&from_log.input, &known.input).map_err(|e| {
            let what = if e.column.is_empty() { "its key".to_owned() } else { format!("its column `{}`", e.column) };
            bad(&self.route.table, format!("{what} is {} in the log and {} in the topology or stream", e.known, e.seen))
                .help("take the older form back, or give the table another name to start it anew")
        })?;
        if joined == from_log.input {
            if known.input != from_log.input || known.version != from_log.version {
                self.set(from_log.clone());
            }
        } else if joined != known.input {
            self.set(fresh(&self.route.table, joined));
        }
        Ok(())
    }

    fn set(&mut self, contract: Arc<Contract>) {
        self.contract = Some(contract);
        self.epoch += 1;
    }

    /// Grows the contract to hold `seen`; rows so far go out under the old one.
    fn grow(&mut self, seen: &TableSchema) -> Result<Result<(), Incompatible>> {
        let joined = match &self.contract {
            None => seen.clone(),
            Some(known) => match join_schemas(&known.input, seen) {
                Ok(joined) if joined == known.input => return Ok(Ok(())),
                Ok(joined) => joined,
                Err(incompatible) => return Ok(Err(incompatible)),
            },
        };
        self.close()?;
        self.set(fresh(&self.route.table, joined));
        Ok(Ok(()))
    }

    /// Gives out the rows under construction.
    pub fn close(&mut self) -> Result<()> {
        let Some(rows) = self.rows.take() else { return Ok(()) };
        self.room = rows.room();
        self.done.extend(rows.finish()?);
        Ok(())
    }

    /// Rows under construction under the newest contract.
    pub fn open(&mut self, partition: &Partition) -> Option<&mut Rows> {
        let contract = self.contract.as_ref()?;
        if self.rows.is_none() {
            let columns = contract.input.columns.iter().enumerate();
            let required = columns.filter(|(_, c)| !self.may_lack(c)).map(|(index, _)| index).collect();
            let watched = contract.input.columns.iter().map(|c| !self.may_be_gone(&c.name)).collect();
            let widens: Vec<bool> = contract.input.columns.iter().map(|c| self.widens(&c.name)).collect();
            let (contract, partition) = (contract.clone(), partition.clone());
            self.rows = Some(Rows::new(contract, partition, required, watched, &widens, &self.room));
        }
        self.rows.as_mut()
    }

    /// Learns the columns of a schema block, and says how its rows are read.
    pub fn learn_block(
        &mut self,
        wires: &[WireColumn],
        key: &[String],
        key_wires: &[WireColumn],
    ) -> Result<Result<Layout, String>> {
        let mut seen = TableSchema { columns: Vec::new(), key: self.wanted_key(key) };
        let extra = key_wires.iter().filter(|k| !wires.iter().any(|w| w.name == k.name));
        for wire in wires.iter().chain(extra) {
            let known = self.contract.as_ref().and_then(|c| c.input.column(&wire.name)).cloned();
            match known {
                Some(known) => {
                    let data_type = self.agreed(&known, wire).unwrap_or(known.data_type);
                    seen.columns.push(Column { data_type, ..known });
                }
                None if self.learns() => seen.columns.push(Column {
                    name: wire.name.clone(),
                    data_type: wire.natural,
                    nullable: !seen.key.contains(&wire.name),
                }),
                None => {}
            }
        }
        self.complete(&mut seen);
        if let Some(missing) = seen.key.iter().find(|k| seen.column(k).is_none()) {
            return Ok(Err(no_key_column(missing)));
        }
        // Every column agrees by construction and the key is the known one.
        let _agreed = self.grow(&seen)?;
        Ok(Ok(self.block_layout(wires)))
    }

    /// The type that holds both what is known and what the wire says; `None` when there is none.
    fn agreed(&self, known: &Column, wire: &WireColumn) -> Option<Type> {
        let written = self.written(&known.name).is_some();
        let keeps = match (known.data_type, wire.natural) {
            (Type::Decimal { scale, .. }, Type::Decimal { scale: s, .. }) => !wire.narrow && scale >= s,
            (Type::Text { .. }, Type::Text { .. }) => written,
            // The source says nothing of the digits; who has written some wants a number of so many.
            (Type::Decimal { precision, .. }, Type::Numeric) => written && precision <= 38,
            _ => false,
        };
        if keeps {
            return Some(known.data_type);
        }
        let joined = join_types(known.data_type, wire.natural).filter(|joined| wire.wire.fits(*joined));
        joined.or_else(|| (written && self.wire_of(wire).fits(known.data_type)).then_some(known.data_type))
    }

    /// The wire of a schema block's column; a text is what the contract says about its spelling.
    fn wire_of(&self, wire: &WireColumn) -> Wire {
        match (wire.wire, self.declared.get(&wire.name)) {
            (Wire::Text, Some(declared)) => *declared,
            (wire, _) => wire,
        }
    }

    fn block_layout(&self, wires: &[WireColumn]) -> Layout {
        let Some(contract) = &self.contract else { return Layout::default() };
        let target = |wire: &WireColumn| {
            let Some(index) = contract.input.index(&wire.name) else { return Target::Skip };
            let column = &contract.input.columns[index];
            let spelled = self.wire_of(wire);
            if spelled.fits(column.data_type) && (spelled != Wire::Text || self.agreed(column, wire).is_some()) {
                return Target::Column { index, wire: spelled };
            }
            Target::Mismatch {
                index,
                why: format!(
                    "is {} in the contract and comes as {}; declare it in a hand-written contract, give the table \
                     `on_mismatch: ignore`, or start the table anew under another name",
                    column.data_type, wire.natural
                ),
            }
        };
        Layout::new(wires.iter().map(|wire| (wire.name.clone(), target(wire))).collect())
    }

    /// Learns what is certain from a row without a schema block.
    pub(super) fn learn_row(
        &mut self,
        row: &str,
        flat: Option<&FlatNames>,
        key: &[String],
        key_row: &str,
    ) -> Result<Result<(), String>> {
        let mut seen = TableSchema { columns: Vec::new(), key: self.wanted_key(key) };
        let mut trouble = None;
        for text in [row, key_row] {
            let _malformed_is_found_by_the_reader = fields(text, |name, token| {
                let mut scratch = String::new();
                let Some(name) = name.decode(&mut scratch) else { return };
                if seen.column(name).is_some() || flat.is_some_and(|flat| flat.is_meta(name)) {
                    return;
                }
                let known = self.contract.as_ref().and_then(|c| c.input.column(name));
                match (known, certain(token)) {
                    (Some(known), _) => seen.columns.push(known.clone()),
                    (None, _) if !self.learns() => {}
                    (None, Ok(None)) => {}
                    (None, Ok(Some(data_type))) => {
                        let nullable = !seen.key.iter().any(|k| k == name);
                        seen.columns.push(Column { name: name.to_owned(), data_type, nullable });
                    }
                    (None, Err(why)) => trouble = Some(format!("column `{name}`: {why}")),
                }
            });
        }
        if let Some(trouble) = trouble {
            return Ok(Err(trouble));
        }
        if let Some(missing) = seen.key.iter().find(|k| seen.column(k).is_none() && !self.knows(k)) {
            return Ok(Err(no_key_column(missing)));
        }
        self.complete(&mut seen);
        Ok(self.grow(&seen)?.map_err(|e| format!("column `{}` is {} and comes as {}", e.column, e.known, e.seen)))
    }

    fn knows(&self, name: &str) -> bool {
        self.contract.as_ref().is_some_and(|c| c.input.column(name).is_some())
    }

    fn wanted_key(&self, key: &[String]) -> Vec<String> {
        match (&self.contract, &self.fixed_key) {
            (Some(known), _) => known.input.key.clone(),
            (None, Some(fixed)) => fixed.clone(),
            (None, None) => key.to_vec(),
        }
    }

    /// Adds the known columns that are not in `seen`, so that a gap says nothing about them.
    fn complete(&self, seen: &mut TableSchema) {
        for column in self.contract.iter().flat_map(|c| &c.input.columns) {
            if seen.column(&column.name).is_none() {
                seen.columns.push(column.clone());
            }
        }
    }

    /// How rows without a schema block are read.
    pub fn plain_layout(&mut self) -> &Layout {
        let epoch = self.epoch;
        if self.plain.as_ref().is_none_or(|(of, _)| *of != epoch) {
            let columns = self.contract.iter().flat_map(|c| &c.input.columns).enumerate();
            let fields = columns.map(|(index, column)| {
                let wire = self.declared.get(&column.name).copied().unwrap_or(Wire::Plain);
                (column.name.clone(), Target::Column { index, wire })
            });
            self.plain = Some((epoch, Layout::new(fields.collect())));
        }
        &self.plain.get_or_insert_with(|| (epoch, Layout::default())).1
    }

    /// Splits the borrow: the plain layout to read with, the rows to read into.
    pub fn plain_parts(&mut self, partition: &Partition) -> Option<(&Layout, &mut Rows)> {
        self.plain_layout();
        self.open(partition)?;
        Some((&self.plain.as_ref()?.1, self.rows.as_mut()?))
    }

    /// Whether people have said that the source need not have this column any more.
    fn may_be_gone(&self, name: &str) -> bool {
        self.route.gone.iter().any(|gone| gone == name) || (!self.learns() && self.written(name).is_none())
    }

    /// Whether a row may lack this column.
    pub fn may_lack(&self, column: &Column) -> bool {
        self.written(&column.name).is_none_or(|written| written.nullable)
    }
}

fn fresh(table: &str, input: TableSchema) -> Arc<Contract> {
    Arc::new(Contract { table: table.to_owned(), version: 0, output: input.clone(), input })
}

fn bad(table: &str, what: String) -> Error {
    Error::new(ErrorKind::Table(table.to_owned()), format!("read the contract of table {table}: {what}"))
}

fn no_key_column(name: &str) -> String {
    format!("the key column `{name}` is neither in the row nor in the message key; correct the table's `key:`")
}

fn other_key(log: &[String], wanted: &[String]) -> String {
    format!("its key is ({}) in the log and ({}) in the topology", log.join(", "), wanted.join(", "))
}

/// The type that a value without a schema is certain to have; `None` for null.
fn certain(token: Token<'_>) -> std::result::Result<Option<Type>, &'static str> {
    match token {
        Token::Null => Ok(None),
        Token::Bool(_) => Ok(Some(Type::Boolean)),
        Token::Number(text) if text.bytes().all(|b| b.is_ascii_digit() || b == b'-') => Ok(Some(Type::BigInt)),
        Token::Number(_) => Err(
            "a number with a fraction does not say whether it is a decimal or a float; declare the column in a contract \
             file, or let the connector send schemas (`schemas.enable=true`)",
        ),
        Token::Text(_) => Ok(Some(Type::TEXT)),
        Token::Object(_) | Token::Array(_) => Ok(Some(Type::Json)),
    }
}

fn declarations(table: &str, file: &crate::config::ContractFile) -> Result<HashMap<String, Wire>> {
    let mut declared = HashMap::new();
    for (name, encoding) in &file.encodings {
        let Some(column) = file.columns.iter().find(|c| c.name == *name) else {
            return Err(Error::new(
                ErrorKind::Config,
                format!("contract of table {table}: `encodings` names `{name}`, which is not among its columns"),
            ));
        };
        let wire = Wire::declared(*encoding, column.data_type).ok_or_else(|| {
            Error::new(
                ErrorKind::Config,
                format!("contract of table {table}: a {} column `{name}` has no encoding `{encoding}`", column.data_type),
            )
            .help("dates: days, text; times: s, ms, us, ns, text; decimals: base64, text; binary: base64, base64_url, hex")
        })?;
        declared.insert(name.clone(), wire);
    }
    Ok(declared)
}
