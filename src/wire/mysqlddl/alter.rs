//! The clauses of `ALTER TABLE`.

use super::columns::{Definition, charset_option, column, literal, primary_key};
use super::words::{Place, Words};
use crate::wire::mysqltype::CatalogColumn;

/// A table while it is altered.
pub(super) struct Altered {
    pub charset: String,
    pub columns: Vec<CatalogColumn>,
    /// The columns of a primary key that was added.
    pub key: Option<Vec<String>>,
    /// The name that it has afterwards.
    pub to: Option<String>,
}

const NO_COLUMN: &str = "an ALTER names a column that it is not known to have";
const UNREAD: &str = "a column in an ALTER is not understood";

/// What changes no column: indexes, partitions, options.
const HARMLESS: [&str; 44] = [
    "ALGORITHM",
    "ANALYZE",
    "AUTO_INCREMENT",
    "AVG_ROW_LENGTH",
    "CHECK",
    "CHECKSUM",
    "COALESCE",
    "COMMENT",
    "COMPRESSION",
    "CONNECTION",
    "DATA",
    "DELAY_KEY_WRITE",
    "DISABLE",
    "DISCARD",
    "ENABLE",
    "ENCRYPTION",
    "ENGINE",
    "EXCHANGE",
    "FORCE",
    "IMPORT",
    "INDEX",
    "INSERT_METHOD",
    "KEY_BLOCK_SIZE",
    "LOCK",
    "MAX_ROWS",
    "MIN_ROWS",
    "NOWAIT",
    "OPTIMIZE",
    "ORDER",
    "PACK_KEYS",
    "PAGE_CHECKSUM",
    "PARTITION",
    "REBUILD",
    "REMOVE",
    "REORGANIZE",
    "REPAIR",
    "ROW_FORMAT",
    "STATS_AUTO_RECALC",
    "STATS_PERSISTENT",
    "STATS_SAMPLE_PAGES",
    "TABLESPACE",
    "TRUNCATE",
    "WAIT",
    "WITHOUT",
];
/// What can be added and dropped that is no column.
const NO_COLUMNS: [&str; 10] =
    ["INDEX", "KEY", "UNIQUE", "FULLTEXT", "SPATIAL", "FOREIGN", "CHECK", "PARTITION", "CONSTRAINT", "PERIOD"];

/// The name in `RENAME [TO | AS] name`.
pub(super) fn renamed_to(clause: &mut Words, database: &str) -> Option<String> {
    if !clause.take("RENAME") || clause.is_any(&["COLUMN", "INDEX", "KEY"]) {
        return None;
    }
    let _word = clause.take("TO") || clause.take("AS") || clause.take_sign("=");
    clause.name(database)
}

impl Altered {
    /// Takes one clause; says why it is not understood.
    pub fn apply(&mut self, mut clause: Words, database: &str) -> Result<(), &'static str> {
        if let Some(to) = renamed_to(&mut clause.clone(), database) {
            self.to = Some(to);
            return Ok(());
        }
        if clause.take("ADD") {
            return self.add(clause);
        }
        if clause.take("DROP") {
            return self.drop(clause);
        }
        if clause.take("MODIFY") {
            clause.take("COLUMN");
            clause.skip_if_exists();
            let name = clause.identifier().ok_or(UNREAD)?;
            return self.change(&name.clone(), name, clause);
        }
        if clause.take("CHANGE") {
            clause.take("COLUMN");
            clause.skip_if_exists();
            let (old, new) = clause.identifier().zip(clause.identifier()).ok_or(UNREAD)?;
            return self.change(&old, new, clause);
        }
        if clause.take("RENAME") {
            return self.rename(clause);
        }
        if clause.take("ALTER") {
            return self.set_default(clause);
        }
        if clause.is("DEFAULT") || clause.is_any(&["CHARACTER", "CHARSET", "COLLATE"]) {
            self.charset = charset_option(clause.rest()).unwrap_or_else(|| self.charset.clone());
            return Ok(());
        }
        // Without commas between them, options follow each other.
        if clause.is_any(&HARMLESS) && charset_option(clause.rest()).is_none() {
            return Ok(());
        }
        Err("a clause of an ALTER is not understood")
    }

    fn position(&self, name: &str) -> Result<usize, &'static str> {
        self.columns.iter().position(|column| column.name.eq_ignore_ascii_case(name)).ok_or(NO_COLUMN)
    }

    fn insert(&mut self, column: CatalogColumn, place: Option<Place>) -> Result<(), &'static str> {
        let at = match place {
            None => self.columns.len(),
            Some(Place::First) => 0,
            Some(Place::After(name)) => self.position(&name)? + 1,
        };
        self.columns.insert(at, column);
        Ok(())
    }

    fn add(&mut self, mut clause: Words) -> Result<(), &'static str> {
        if let Some(key) = primary_key(&clause) {
            self.key = Some(key);
            return Ok(());
        }
        let named = clause.take("COLUMN");
        if !named && clause.is_any(&NO_COLUMNS) {
            return Ok(());
        }
        let only_if_new = clause.skip_if_exists();
        if let Some(inside) = clause.parentheses() {
            for item in inside.split_commas() {
                match Definition::read(item, &self.charset).ok_or(UNREAD)? {
                    Definition::Column(column) => self.columns.push(*column),
                    Definition::PrimaryKey(key) => self.key = Some(key),
                    Definition::Other => {}
                }
            }
            return Ok(());
        }
        let place = clause.place();
        let name = clause.identifier().ok_or(UNREAD)?;
        if only_if_new && self.position(&name).is_ok() {
            return Ok(());
        }
        let added = column(name, &mut clause, &self.charset).ok_or(UNREAD)?;
        self.insert(added, place)
    }

    fn drop(&mut self, mut clause: Words) -> Result<(), &'static str> {
        if clause.take("PRIMARY") {
            self.columns.iter_mut().for_each(|column| column.key = false);
            return Ok(());
        }
        let named = clause.take("COLUMN");
        if !named && clause.is_any(&NO_COLUMNS) {
            return Ok(());
        }
        let if_there = clause.skip_if_exists();
        let name = clause.identifier().ok_or(UNREAD)?;
        match self.position(&name) {
            Ok(at) => {
                self.columns.remove(at);
                Ok(())
            }
            Err(_) if if_there => Ok(()),
            Err(why) => Err(why),
        }
    }

    fn change(&mut self, old: &str, new: String, mut clause: Words) -> Result<(), &'static str> {
        let at = self.position(old)?;
        let place = clause.place();
        let mut changed = column(new, &mut clause, &self.charset).ok_or(UNREAD)?;
        changed.key |= self.columns[at].key;
        changed.nullable &= !changed.key;
        self.columns[at] = changed;
        if place.is_some() {
            let moved = self.columns.remove(at);
            self.insert(moved, place)?;
        }
        Ok(())
    }

    fn rename(&mut self, mut clause: Words) -> Result<(), &'static str> {
        if !clause.take("COLUMN") {
            return Ok(());
        }
        clause.skip_if_exists();
        let old = clause.identifier().ok_or(UNREAD)?;
        clause.take("TO");
        let new = clause.identifier().ok_or(UNREAD)?;
        let at = self.position(&old)?;
        self.columns[at].name = new;
        Ok(())
    }

    fn set_default(&mut self, mut clause: Words) -> Result<(), &'static str> {
        if clause.is_any(&["INDEX", "KEY", "CHECK", "CONSTRAINT"]) {
            return Ok(());
        }
        clause.take("COLUMN");
        clause.skip_if_exists();
        let name = clause.identifier().ok_or(UNREAD)?;
        let at = self.position(&name)?;
        if clause.take("SET") && clause.take("DEFAULT") {
            self.columns[at].default = literal(&mut clause).flatten();
        } else if clause.take("DROP") {
            self.columns[at].default = None;
        }
        Ok(())
    }
}
