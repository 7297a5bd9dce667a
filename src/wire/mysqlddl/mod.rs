//! A schema history: what tables were at a place in the binary log, from the DDL in it; and what the log's statements are.
//!
//! With `binlog_row_metadata=FULL` a table map says what its columns are. Without it, the catalog says what a table is
//! *now*; a history that began with the catalog at some place and has seen every statement since says what it was *there*.
//! It is kept with the place, as its serialised form.
//!
//! | file | what it owns |
//! |---|---|
//! | `mod.rs` | the history, and what a statement does to it |
//! | `scope.rs` | which tables it follows |
//! | `lexer.rs`, `words.rs` | the words of a statement |
//! | `statement.rs` | which statement it is |
//! | `columns.rs` | column definitions |
//! | `alter.rs`, `altered.rs` | the clauses of `ALTER TABLE`, and what they make of a table |
//! | `silent.rs` | what that does to rows without any event |
//!
//! A statement that names a known table and is not understood makes that table *unknown*, never wrong. Online schema
//! changes need little of their own: the copy is created, altered, and takes its place by a rename.

mod alter;
mod altered;
mod columns;
mod lexer;
mod scope;
mod silent;
mod statement;
#[cfg(test)]
mod tests;
mod words;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::lexer::Mode;
pub use self::scope::{Scope, is_copy};
pub use self::silent::Silent;
pub use self::statement::{Ddl, Statement};

use self::alter::{Alteration, Step};
use self::altered::Altered;
use self::columns::{charset_name, charset_option};
use self::statement::Change;
use self::words::Words;
use super::mysqltype::CatalogColumn;

/// What tables are at a place in the log; names are `<database>.<table>`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// What a table has that names no character set, in a database that names none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    server_charset: String,
    /// A TIMESTAMP is never null unless it says so (`explicit_defaults_for_timestamp=OFF`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    own_timestamps: bool,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    database_charsets: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    tables: BTreeMap<String, Table>,
}

/// What is known of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Table {
    /// What it is.
    Known(Shape),
    /// Its columns are not known any more.
    Unknown {
        /// What they were lost by.
        why: String,
    },
}

/// A table whose columns are known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// What a column has that names no character set; empty when that is not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub charset: String,
    /// Its columns in their order.
    pub columns: Vec<CatalogColumn>,
    /// It has a primary key, and not only a unique index that stands for one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub primary: bool,
    /// It has unique indexes besides.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unique: bool,
}

/// What a statement did to a table that is followed, known or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// There is a table of that name now. `sure`: there was none before.
    Created {
        table: String,
        sure: bool,
    },
    /// Its definition is another now.
    Altered {
        table: String,
        /// What that did to rows that are there.
        silent: Option<Silent>,
        /// Whether its key is another, or compares in another way.
        key: bool,
    },
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
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// Says, the first time, what `character_set_server` and `explicit_defaults_for_timestamp` are.
    pub fn set_server(&mut self, charset: &str, plain_timestamps: bool) {
        if self.server_charset.is_empty() {
            self.server_charset = charset_name(charset);
            self.own_timestamps = !plain_timestamps;
        }
    }

    /// Says what a database's tables have that name no character set.
    pub fn set_database(&mut self, database: &str, charset: &str) {
        self.database_charsets.insert(database.to_owned(), charset_name(charset));
    }

    /// Takes over a table from the catalog, read at the place where the history stands.
    pub fn set_table(&mut self, table: &str, mut shape: Shape) {
        shape.charset = charset_name(&shape.charset);
        // It is not needed, and long.
        shape.columns.iter_mut().for_each(|column| column.collation = None);
        self.tables.insert(table.to_owned(), Table::Known(shape));
    }

    /// The columns of a table, where they are known.
    pub fn columns(&self, table: &str) -> Option<&[CatalogColumn]> {
        match self.tables.get(table)? {
            Table::Known(shape) => Some(&shape.columns),
            Table::Unknown { .. } => None,
        }
    }

    /// Why the columns of a table are not known any more.
    pub fn unknown(&self, table: &str) -> Option<&str> {
        match self.tables.get(table)? {
            Table::Known(_) => None,
            Table::Unknown { why } => Some(why),
        }
    }

    /// The columns of a table are not known any more.
    pub fn lose(&mut self, table: &str, why: &str) {
        self.tables.insert(table.to_owned(), Table::Unknown { why: why.to_owned() });
    }

    /// Leaves a table out.
    pub fn take(&mut self, table: &str) -> Option<Table> {
        self.tables.remove(table)
    }

    /// Puts back what was left out for a while.
    pub fn put_back(&mut self, table: String, known: Table) {
        self.tables.insert(table, known);
    }

    /// Takes a statement.
    pub fn apply(&mut self, ddl: &Ddl, scope: &Scope) -> Vec<Effect> {
        let effects = match &ddl.change {
            Change::Create { table, database, only_if_new, replace, body } => {
                let mut effects = Vec::new();
                if *replace {
                    self.tables.remove(table);
                    effects.push(Effect::Dropped(table.clone()));
                }
                effects.extend(self.create(ddl, table, *only_if_new, scope, database, body));
                effects
            }
            Change::Alter { table, database, clauses } => {
                let charset = match self.tables.get(table) {
                    Some(Table::Known(shape)) => shape.charset.clone(),
                    // What it does to rows can be said all the same.
                    _ => "utf8mb4".to_owned(),
                };
                let ground = ddl.ground(&charset, !self.own_timestamps);
                let inherited = self.charset_of(table);
                let alteration = Alteration::read(clauses.clone(), ground, scope, database, &inherited);
                self.alter(table, &alteration)
            }
            Change::Index { table, alteration } => self.alter(table, alteration),
            Change::Rename(pairs) => pairs.iter().map(|(from, to)| self.move_table(from.clone(), to.clone())).collect(),
            Change::Drop(tables) => tables.iter().map(|table| self.drop(table)).collect(),
            Change::Truncate(tables) => tables.iter().cloned().map(Effect::Truncated).collect(),
            Change::DropDatabase(database) => self.drop_database(database, scope),
            Change::Charset { database, charset } => {
                match charset {
                    Some(charset) => self.database_charsets.insert(database.clone(), charset.clone()),
                    None => self.database_charsets.remove(database),
                };
                Vec::new()
            }
            Change::Lost(text) => self.lost_in(text, scope),
        };
        self.database_charsets.retain(|database, _| scope.reads_from(database));
        self.tables.retain(|table, _| scope.follows(table));
        effects.into_iter().filter(|effect| effect.concerns(scope)).collect()
    }

    fn charset_of(&self, table: &str) -> String {
        let database = table.split_once('.').map_or("", |(database, _)| database);
        self.database_charsets.get(database).unwrap_or(&self.server_charset).clone()
    }

    fn create(
        &mut self,
        ddl: &Ddl,
        name: &str,
        only_if_new: bool,
        scope: &Scope,
        database: &str,
        body: &Words,
    ) -> Option<Effect> {
        if only_if_new && self.tables.contains_key(name) || !scope.follows(name) {
            return None;
        }
        let created = self.created(ddl, name, scope, database, body.clone());
        let table = created.unwrap_or_else(|why| Table::Unknown { why: why.to_owned() });
        self.tables.insert(name.to_owned(), table);
        Some(Effect::Created { table: name.to_owned(), sure: !only_if_new })
    }

    fn created(
        &self,
        ddl: &Ddl,
        name: &str,
        scope: &Scope,
        database: &str,
        mut words: Words,
    ) -> Result<Table, &'static str> {
        let mut like = words.clone();
        like.take_sign('(');
        if like.take("LIKE") {
            let other = like.name(scope, database).ok_or("it is created like a table without a name")?;
            return self.tables.get(&other).cloned().ok_or("it is created like a table that is not known");
        }
        let inside = words.parentheses().ok_or("it is created from a query")?;
        words.cut_at(&["PARTITION", "BY"]);
        if words.rest().iter().any(|word| word.is("SELECT") || word.is("AS") || word.is("TABLE") || word.is("VALUES")) {
            return Err("it is created from a query");
        }
        let charset = charset_option(words.rest()).filter(|charset| charset != "default");
        let charset = charset.unwrap_or_else(|| self.charset_of(name));
        let ground = ddl.ground(&charset, !self.own_timestamps);
        altered::defined(inside.split_commas(), ground).map(|table| Table::Known(Shape::from(table)))
    }

    fn alter(&mut self, name: &str, alteration: &Alteration) -> Vec<Effect> {
        let table = name.to_owned();
        let (silent, key) = (alteration.silent(), alteration.touches_key());
        let mut effects = match self.tables.get(name).cloned() {
            Some(Table::Known(shape)) => match shape.altered(alteration) {
                Ok((shape, silent, key)) => {
                    self.tables.insert(table.clone(), Table::Known(shape));
                    vec![Effect::Altered { table, silent, key }]
                }
                Err(why) => {
                    self.lose(name, why);
                    vec![
                        Effect::Altered { table: table.clone(), silent, key },
                        Effect::Unknown { table, why: why.to_owned() },
                    ]
                }
            },
            _ => vec![Effect::Altered { table, silent, key }],
        };
        effects.extend(alteration.steps.iter().filter_map(|step| self.other_table(name, step)));
        if let Some(to) = alteration.renamed_to().filter(|to| *to != name) {
            effects.push(self.move_table(name.to_owned(), to.to_owned()));
        }
        effects
    }

    /// What an ALTER of `name` does to another table, whose rows it takes or gives.
    fn other_table(&mut self, name: &str, step: &Step) -> Option<Effect> {
        match step {
            Step::Exchange(other) => {
                Some(Effect::Altered { table: other.clone(), silent: Some(Silent::Rewritten), key: false })
            }
            Step::TakeOut(other) => {
                match self.tables.get(name).cloned() {
                    Some(shape) => self.tables.insert(other.clone(), shape),
                    None => self.tables.remove(other),
                };
                Some(Effect::Created { table: other.clone(), sure: true })
            }
            Step::PutIn(other) => Some(self.drop(other)),
            _ => None,
        }
    }

    fn move_table(&mut self, from: String, to: String) -> Effect {
        match self.tables.remove(&from) {
            Some(table) => self.tables.insert(to.clone(), table),
            // What takes the name is not known.
            None => self.tables.remove(&to),
        };
        Effect::Renamed { from, to }
    }

    fn drop(&mut self, table: &str) -> Effect {
        self.tables.remove(table);
        Effect::Dropped(table.to_owned())
    }

    fn drop_database(&mut self, name: &str, scope: &Scope) -> Vec<Effect> {
        self.database_charsets.remove(name);
        let inside = |table: &&String| table.split_once('.').is_some_and(|(database, _)| database == name);
        let mut tables: Vec<String> = self.tables.keys().chain(scope.captured()).filter(inside).cloned().collect();
        tables.sort();
        tables.dedup();
        tables.iter().map(|table| self.drop(table)).collect()
    }

    /// A statement that cannot even be taken apart: every followed table whose name is in it is unknown.
    fn lost_in(&mut self, sql: &str, scope: &Scope) -> Vec<Effect> {
        const WHY: &str = "a statement that names it could not be read";
        let named = |table: &&String| table.split_once('.').is_some_and(|(_, table)| mentions(sql, table));
        let mut tables: Vec<String> = self.tables.keys().chain(scope.captured()).filter(named).cloned().collect();
        tables.sort();
        tables.dedup();
        let lose = |table: &String| {
            self.lose(table, WHY);
            let altered = Effect::Altered { table: table.clone(), silent: Some(Silent::Rewritten), key: true };
            [altered, Effect::Unknown { table: table.clone(), why: WHY.to_owned() }]
        };
        tables.iter().flat_map(lose).collect()
    }
}

/// Whether a text has that name in it as a whole word.
fn mentions(sql: &str, name: &str) -> bool {
    let inside = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$');
    let mut places = sql.match_indices(name);
    places.any(|(at, _)| !sql[..at].ends_with(inside) && !sql[at + name.len()..].starts_with(inside))
}

impl Effect {
    fn concerns(&self, scope: &Scope) -> bool {
        match self {
            Self::Created { table, .. } | Self::Altered { table, .. } | Self::Unknown { table, .. } => {
                scope.follows(table)
            }
            Self::Dropped(table) | Self::Truncated(table) => scope.follows(table),
            Self::Renamed { from, to } => scope.follows(from) || scope.follows(to),
        }
    }

    /// Whether it is about that table.
    pub fn is_about(&self, name: &str) -> bool {
        match self {
            Self::Created { table, .. } | Self::Altered { table, .. } | Self::Unknown { table, .. } => table == name,
            Self::Dropped(table) | Self::Truncated(table) => table == name,
            Self::Renamed { from, to } => from == name || to == name,
        }
    }
}

impl From<Altered> for Shape {
    fn from(table: Altered) -> Self {
        let Altered { charset, mut columns, primary, unique } = table;
        for (at, column) in columns.iter_mut().enumerate() {
            column.ordinal = at as u32 + 1;
        }
        Self { charset, columns, primary, unique }
    }
}

impl Shape {
    /// What an ALTER makes of it; what that does to its rows, and whether its key is another.
    fn altered(self, alteration: &Alteration) -> Result<(Self, Option<Silent>, bool), &'static str> {
        let key = |columns: &[CatalogColumn]| -> Vec<CatalogColumn> {
            columns.iter().filter(|c| c.key).map(|c| CatalogColumn { ordinal: 0, default: None, ..c.clone() }).collect()
        };
        let before = key(&self.columns);
        let Self { charset, columns, primary, unique } = self;
        let mut table = Altered { charset, columns, primary, unique };
        let silent = table.apply(alteration)?;
        let shape = Self::from(table);
        let key = key(&shape.columns) != before;
        Ok((shape, silent, key))
    }
}
