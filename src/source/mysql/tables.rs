//! Which table an event is about, and its rows as records.

use super::catalog;
use super::stream::{Open, Stream};
use crate::error::{Error, ErrorKind, Result};
use crate::wire::binlog::{Malformed, RowsEvent, TableMap, TableMapEvent, describe_key, fits, shape};
use crate::wire::mysqltype::Form;

/// A table that the log has announced.
pub(super) struct Known {
    /// What it was announced with: the same bytes say the same.
    map: Vec<u8>,
    /// Its name, and how its rows stand; `None` when nobody reads it.
    read: Option<Read>,
}

struct Read {
    name: String,
    forms: Vec<Form>,
    /// Whether the decoder has been told of it.
    described: bool,
    key: Vec<u8>,
}

impl Stream {
    /// A table map: most of them say again what is known.
    pub(super) async fn table_map(&mut self, map: &TableMapEvent<'_>) -> Result<()> {
        if let Some(open) = &mut self.open {
            open.begun = true;
        }
        if self.tables.get(&map.table_id).is_some_and(|known| known.map == map.bytes) {
            return Ok(());
        }
        let (database, table) = map.name().map_err(|malformed| self.malformed(&malformed))?;
        let name = format!("{database}.{table}");
        let read = if self.job.captured.contains(&name) { Some(self.describe(map, name).await?) } else { None };
        self.tables.insert(map.table_id, Known { map: map.bytes.to_vec(), read });
        Ok(())
    }

    /// What the columns of a captured table are, at this place of the log: the log's own names decide, or the history,
    /// which must agree with what the log says of types.
    async fn describe(&mut self, map: &TableMapEvent<'_>, name: String) -> Result<Read> {
        if !self.counts(&name) {
            // Its rows are passed over, whatever they are.
            return Ok(Read { name, forms: Vec::new(), described: true, key: Vec::new() });
        }
        let map = map.parse_columns().map_err(|malformed| self.malformed(&malformed))?;
        let known = self.place.history.columns(&name);
        if map.metadata.names.is_some() {
            if known.is_some_and(|known| !fits(&map, known)) {
                self.place.history.lose(&name, "the log names other columns than the statements before it give");
            }
            return self.describe_named(&map, name).await;
        }
        match shape(&map, known) {
            Ok(shape) => Ok(read(name, &shape)),
            Err(misfit) => {
                self.unknown_columns(&name, &misfit)?;
                Ok(Read { name, forms: Vec::new(), described: true, key: Vec::new() })
            }
        }
    }

    /// Where the log names columns, only their defaults and a few types are known from elsewhere.
    async fn describe_named(&mut self, map: &TableMap, name: String) -> Result<Read> {
        let known = match self.place.history.columns(&name) {
            Some(known) => Some(known),
            None => {
                if !self.catalog.contains_key(&name) {
                    let doing = || format!("source {}: look up the columns of {name}", self.job.name);
                    let table = catalog::table(&mut self.side, self.job.server.flavour, &name).await;
                    let table = table.map_err(|trouble| trouble.error(doing()))?;
                    self.catalog.insert(name.clone(), table);
                }
                self.catalog.get(&name).map(|table| table.columns.as_slice())
            }
        };
        match shape(map, known) {
            Ok(shape) => Ok(read(name, &shape)),
            Err(misfit) => Err(Error::new(ErrorKind::SourceRefused, self.doing()).because(misfit)),
        }
    }

    /// What was announced of that table holds no longer.
    pub(super) fn forget_maps(&mut self, table: &str) {
        self.tables.retain(|_, known| known.read.as_ref().is_none_or(|read| read.name != table));
    }

    /// The rows of an event, as records, unless they were handed out before.
    pub(super) fn rows(&mut self, rows: &RowsEvent<'_>, begins: u64) -> Result<()> {
        let Some(open) = &mut self.open else {
            return Err(self.malformed(&Malformed::Other("rows stand outside of a transaction")));
        };
        open.begun = true;
        if open.known {
            return Ok(());
        }
        let Some(known) = self.tables.get_mut(&rows.table_id) else {
            // A statement that has changed nothing ends with an event for no table.
            let nothing = rows.width == 0 || rows.split(&[]).is_ok();
            let lost = Malformed::Other("rows stand without the map of their table");
            return if nothing { Ok(()) } else { Err(self.malformed(&lost)) };
        };
        let Some(read) = &mut known.read else { return Ok(()) };
        if !self.place.tables.contains_key(&read.name) {
            return Ok(());
        }
        let major = super::place::file_number(&self.file);
        if !read.described {
            let within = next(open, begins);
            self.records.push_within(major, within, open.time_us, Some(&read.key), None);
            read.described = true;
        }
        let handed = open.before.get(&read.name).copied().unwrap_or(0);
        let mut count = open.rows.get(&read.name).copied().unwrap_or(0);
        let mut record = Vec::new();
        let split = rows.split(&read.forms).and_then(|split| {
            for row in split {
                let row = row?;
                count += 1;
                let within = next(open, begins);
                if count > handed {
                    rows.record(rows.table_id, row, &mut record);
                    self.records.push_within(major, within, open.time_us, None, Some(&record));
                    open.pushed = true;
                }
            }
            Ok(())
        });
        match open.rows.get_mut(&read.name) {
            Some(rows) => *rows = count,
            None => {
                open.rows.insert(read.name.clone(), count);
            }
        }
        split.map_err(|malformed| self.malformed(&malformed))
    }
}

fn read(name: String, shape: &crate::wire::mysqltype::TableShape) -> Read {
    let forms = shape.columns.iter().map(|column| column.form).collect();
    Read { name, forms, described: false, key: describe_key(shape) }
}

/// The place of the next record of this event.
pub(super) fn next(open: &mut Open, begins: u64) -> (u64, u32) {
    open.last = if open.last.0 == begins { (begins, open.last.1 + 1) } else { (begins, 0) };
    open.last
}
