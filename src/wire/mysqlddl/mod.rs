//! A schema history: what tables were at a place in the binary log, from the DDL in it.
//!
//! With `binlog_row_metadata=FULL` a table map says what its columns are, and no history is needed. Without it, the
//! catalog says what a table is *now*; a history that began with the catalog at some place and has seen every statement
//! since says what it was *there*. It is kept with the place, as its serialised form.
//!
//! | file | what it owns |
//! |---|---|
//! | `mod.rs` | the history, and what a statement does to it |
//! | `alter.rs` | the clauses of `ALTER TABLE` |
//! | `columns.rs` | column definitions |
//! | `words.rs` | the words of a statement |
//!
//! A statement that names a known table and is not understood makes that table *unknown*, never wrong: the next table map
//! is then compared with the catalog of now, and a mismatch stops the table. Online schema changes need nothing of
//! their own: the copy is created `LIKE` the table, altered, and takes its place by a rename.

mod alter;
mod columns;
#[cfg(test)]
mod tests;
mod words;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use self::columns::{Definition, charset_option};
use self::words::Words;
use super::mysqltype::CatalogColumn;

/// What tables are at a place in the log; names are `<database>.<table>`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// What a table has that names no character set, in a database that names none.
    server_charset: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    database_charsets: BTreeMap<String, String>,
    tables: BTreeMap<String, Table>,
}

/// What is known of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Table {
    Known { charset: String, columns: Vec<CatalogColumn> },
    Unknown { why: String },
}

/// What a statement did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    Created(String),
    /// Its columns are others now.
    Altered(String),
    Dropped(String),
    Renamed {
        from: String,
        to: String,
    },
    Truncated(String),
    /// It was changed in a way that is not understood.
    Unknown {
        table: String,
        why: String,
    },
}

impl History {
    /// A history without tables, of a server with that `character_set_server`.
    pub fn new(server_charset: &str) -> Self {
        Self { server_charset: server_charset.to_ascii_lowercase(), ..Self::default() }
    }

    /// Says what a database's tables have that name no character set.
    pub fn set_database(&mut self, database: &str, charset: &str) {
        self.database_charsets.insert(database.to_owned(), charset.to_ascii_lowercase());
    }

    /// Takes over a table from the catalog, read at the place where the history stands.
    pub fn set_table(&mut self, table: &str, charset: &str, columns: Vec<CatalogColumn>) {
        let known = Table::Known { charset: charset.to_ascii_lowercase(), columns };
        self.tables.insert(table.to_owned(), known);
    }

    /// The columns of a table, where they are known.
    pub fn columns(&self, table: &str) -> Option<&[CatalogColumn]> {
        match self.tables.get(table)? {
            Table::Known { columns, .. } => Some(columns),
            Table::Unknown { .. } => None,
        }
    }

    /// Why the columns of a table are not known any more.
    pub fn unknown(&self, table: &str) -> Option<&str> {
        match self.tables.get(table)? {
            Table::Known { .. } => None,
            Table::Unknown { why } => Some(why),
        }
    }

    /// Takes a statement, which ran in `database`.
    pub fn apply(&mut self, database: &str, sql: &str) -> Vec<Effect> {
        let Some(mut words) = Words::of(sql) else { return self.lost_in(sql) };
        if words.take("CREATE") {
            if words.take("OR") {
                words.take("REPLACE");
            }
            if words.take("DATABASE") || words.take("SCHEMA") {
                self.database(&mut words);
            } else if words.take("TABLE") {
                return self.create(database, &mut words);
            }
        } else if words.take("ALTER") {
            while words.take("ONLINE") || words.take("IGNORE") {}
            if words.take("DATABASE") || words.take("SCHEMA") {
                self.database(&mut words);
            } else if words.take("TABLE") {
                return self.alter(database, &mut words);
            }
        } else if words.take("DROP") {
            if words.take("DATABASE") || words.take("SCHEMA") {
                return self.drop_database(&mut words);
            }
            if words.take("TABLE") || words.take("TABLES") {
                words.skip_if_exists();
                return words.names(database).into_iter().filter_map(|table| self.drop(table)).collect();
            }
        } else if words.take("RENAME") && (words.take("TABLE") || words.take("TABLES")) {
            return self.rename(database, &mut words);
        } else if words.take("TRUNCATE") {
            words.take("TABLE");
            return words.names(database).into_iter().map(Effect::Truncated).collect();
        }
        Vec::new()
    }

    fn database(&mut self, words: &mut Words) {
        words.skip_if_exists();
        let Some(name) = words.identifier() else { return };
        if let Some(charset) = charset_option(words.rest()) {
            self.database_charsets.insert(name, charset);
        }
    }

    fn charset_of(&self, table: &str) -> String {
        let database = table.split_once('.').map_or("", |(database, _)| database);
        self.database_charsets.get(database).unwrap_or(&self.server_charset).clone()
    }

    fn create(&mut self, database: &str, words: &mut Words) -> Vec<Effect> {
        let only_if_new = words.skip_if_exists();
        let Some(name) = words.name(database) else { return Vec::new() };
        if only_if_new && self.tables.contains_key(&name) {
            return Vec::new();
        }
        match self.created(database, &name, words) {
            Ok(table) => {
                self.tables.insert(name.clone(), table);
                vec![Effect::Created(name)]
            }
            Err(why) => vec![self.lose(name, why)],
        }
    }

    fn created(&self, database: &str, name: &str, words: &mut Words) -> Result<Table, &'static str> {
        let mut like = words.clone();
        like.take_sign("(");
        if like.take("LIKE") {
            let other = like.name(database).ok_or("it is created like a table without a name")?;
            return self.tables.get(&other).cloned().ok_or("it is created like a table that is not known");
        }
        let inside = words.parentheses().ok_or("it is created from a query")?;
        if words.rest().iter().any(|word| word.is("SELECT") || word.is("AS")) {
            return Err("it is created from a query");
        }
        let charset = charset_option(words.rest()).unwrap_or_else(|| self.charset_of(name));
        let mut columns: Vec<CatalogColumn> = Vec::new();
        let mut key = Vec::new();
        for item in inside.split_commas() {
            match Definition::read(item, &charset).ok_or("one of its columns is not understood")? {
                Definition::Column(column) => columns.push(*column),
                Definition::PrimaryKey(names) => key = names,
                Definition::Other => {}
            }
        }
        let mut table = Table::Known { charset, columns };
        table.set_key(&key);
        table.renumber();
        Ok(table)
    }

    fn alter(&mut self, database: &str, words: &mut Words) -> Vec<Effect> {
        words.skip_if_exists();
        let Some(name) = words.name(database) else { return Vec::new() };
        let Some(Table::Known { charset, columns }) = self.tables.get(&name).cloned() else {
            // Nothing is lost of what is not known; but its name may become another's.
            let to = words.split_commas().into_iter().find_map(|mut clause| alter::renamed_to(&mut clause, database));
            return to.map(|to| self.move_table(name, to)).into_iter().collect();
        };
        let mut table = alter::Altered { charset, columns, key: None, to: None };
        for clause in words.split_commas() {
            if let Err(why) = table.apply(clause, database) {
                return vec![self.lose(name, why)];
            }
        }
        let mut altered = Table::Known { charset: table.charset, columns: table.columns };
        if let Some(key) = &table.key {
            altered.set_key(key);
        }
        altered.renumber();
        self.tables.insert(name.clone(), altered);
        match table.to.filter(|to| *to != name) {
            Some(to) => vec![Effect::Altered(name.clone()), self.move_table(name, to)],
            None => vec![Effect::Altered(name)],
        }
    }

    fn rename(&mut self, database: &str, words: &mut Words) -> Vec<Effect> {
        let mut effects = Vec::new();
        words.skip_if_exists();
        while let Some(from) = words.name(database) {
            if !words.take("TO") {
                break;
            }
            let Some(to) = words.name(database) else { break };
            effects.push(self.move_table(from, to));
            if !words.take_sign(",") {
                break;
            }
        }
        effects
    }

    fn move_table(&mut self, from: String, to: String) -> Effect {
        match self.tables.remove(&from) {
            Some(table) => self.tables.insert(to.clone(), table),
            // What takes the name is not known.
            None => self.tables.remove(&to),
        };
        Effect::Renamed { from, to }
    }

    fn drop(&mut self, table: String) -> Option<Effect> {
        self.tables.remove(&table).map(|_| Effect::Dropped(table))
    }

    fn drop_database(&mut self, words: &mut Words) -> Vec<Effect> {
        words.skip_if_exists();
        let Some(name) = words.identifier() else { return Vec::new() };
        self.database_charsets.remove(&name);
        let inside = |table: &&String| table.split_once('.').is_some_and(|(database, _)| database == name);
        let tables: Vec<String> = self.tables.keys().filter(inside).cloned().collect();
        tables.into_iter().filter_map(|table| self.drop(table)).collect()
    }

    fn lose(&mut self, table: String, why: &str) -> Effect {
        self.tables.insert(table.clone(), Table::Unknown { why: why.to_owned() });
        Effect::Unknown { table, why: why.to_owned() }
    }

    /// A statement that cannot even be taken apart: every known table whose name is in it is unknown.
    fn lost_in(&mut self, sql: &str) -> Vec<Effect> {
        const WHY: &str = "a statement that names it could not be read";
        let first = sql.trim_start().split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
        if !["CREATE", "ALTER", "DROP", "RENAME"].iter().any(|word| first.eq_ignore_ascii_case(word)) {
            return Vec::new();
        }
        let named = |table: &&String| table.split_once('.').is_some_and(|(_, table)| mentions(sql, table));
        let tables: Vec<String> = self.tables.keys().filter(named).cloned().collect();
        tables.into_iter().map(|table| self.lose(table, WHY)).collect()
    }
}

/// Whether a text has that name in it as a whole word.
fn mentions(sql: &str, name: &str) -> bool {
    let inside = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$');
    let mut places = sql.match_indices(name);
    places.any(|(at, _)| !sql[..at].ends_with(inside) && !sql[at + name.len()..].starts_with(inside))
}

impl Table {
    /// Says which columns are the primary key.
    fn set_key(&mut self, names: &[String]) {
        let Self::Known { columns, .. } = self else { return };
        for column in columns.iter_mut() {
            let named = names.iter().any(|name| name.eq_ignore_ascii_case(&column.name));
            column.key |= named;
            column.nullable &= !column.key;
        }
    }

    fn renumber(&mut self) {
        let Self::Known { columns, .. } = self else { return };
        for (at, column) in columns.iter_mut().enumerate() {
            column.ordinal = at as u32 + 1;
        }
    }
}
