//! What an ALTER makes of a table.
//!
//! A server takes an ALTER as a whole: every clause names columns as they were before it, so two columns can change their
//! names with each other. Names and types change first, everything in its place; then, clause by clause, what is added or
//! moved finds its own.

use super::alter::{Alteration, Step};
use super::columns::{Definition, Ground, Part, fit_length, is_text, longest, settled, take_charset};
use super::silent::{Silent, keeps_values};
use super::words::{Place, Words};
use crate::wire::mysqlcharset::Charset;
use crate::wire::mysqltype::{CatalogColumn, DefaultValue};

const NO_COLUMN: &str = "an ALTER names a column that it is not known to have";
const TWICE: &str = "an ALTER adds a column that it is known to have already";

/// A table while it is altered.
#[derive(Debug, Clone)]
pub(super) struct Altered {
    pub charset: String,
    pub columns: Vec<CatalogColumn>,
    /// It has a primary key, and not only a unique index that stands for one.
    pub primary: bool,
    /// It has unique indexes besides.
    pub unique: bool,
}

/// Whether a new column has another value than null in the rows that are there.
pub(super) fn fills(column: &CatalogColumn) -> bool {
    column.generated || !column.nullable || column.default != Some(DefaultValue::Null)
}

fn same(one: &str, other: &str) -> bool {
    one.to_lowercase() == other.to_lowercase()
}

impl Altered {
    /// Does what an ALTER says; what it did to the rows that are there.
    pub fn apply(&mut self, alteration: &Alteration) -> Result<Option<Silent>, &'static str> {
        if let Some(why) = alteration.unread {
            return Err(why);
        }
        let before = std::mem::take(&mut self.columns);
        let mut silent = self.kept(&before, alteration)?;
        for step in &alteration.steps {
            match step {
                Step::Add { column, place, only_if_new } => {
                    if *only_if_new && before.iter().any(|known| same(&known.name, &column.name)) {
                        continue;
                    }
                    silent = silent.max(fills(column).then_some(Silent::Filled));
                    self.insert(column.clone(), place.as_ref())?;
                }
                Step::Change { column, place: Some(place), .. } => {
                    if let Some(at) = self.columns.iter().position(|known| same(&known.name, &column.name)) {
                        let moved = self.columns.remove(at);
                        self.insert(moved, Some(place))?;
                    }
                }
                Step::Refill | Step::Exchange(_) | Step::TakeOut(_) | Step::PutIn(_) => {
                    silent = silent.max(Some(Silent::Rewritten));
                }
                Step::Charset(charset) => self.charset.clone_from(charset),
                Step::Convert(charset) => self.charset.clone_from(charset),
                _ => {}
            }
        }
        let twice = |at: usize| self.columns[..at].iter().any(|known| same(&known.name, &self.columns[at].name));
        if (0..self.columns.len()).any(twice) {
            return Err(TWICE);
        }
        let given = alteration
            .steps
            .iter()
            .any(|step| matches!(step, Step::Charset(charset) if *charset != self.charset))
            || alteration.steps.iter().any(|step| matches!(step, Step::Convert(charset) if *charset != self.charset));
        if given {
            return Err("two character sets are given at once");
        }
        for step in &alteration.steps {
            // Of columns that come with it as well, whatever they say themselves.
            if let Step::Convert(charset) = step {
                silent = silent.max(self.convert(&before, charset)?);
            }
        }
        self.index(&before, alteration)?;
        Ok(silent)
    }

    /// What is not dropped, where it was, under its new name and in its new form.
    fn kept(&mut self, before: &[CatalogColumn], alteration: &Alteration) -> Result<Option<Silent>, &'static str> {
        let mut silent = None;
        let unkeyed = alteration.steps.iter().any(|step| matches!(step, Step::DropKey));
        for step in &alteration.steps {
            let (name, only_if_there) = match step {
                Step::Change { old: name, only_if_there, .. }
                | Step::Drop { column: name, only_if_there }
                | Step::Rename { old: name, only_if_there, .. } => (name, *only_if_there),
                Step::Default { column: name, .. } | Step::Invisible { column: name, .. } => (name, false),
                _ => continue,
            };
            if !only_if_there && !before.iter().any(|known| same(&known.name, name)) {
                return Err(NO_COLUMN);
            }
        }
        for known in before {
            let mut column = known.clone();
            let mut stays = true;
            let named = |step: &&Step| match step {
                Step::Drop { column: name, .. } | Step::Change { old: name, .. } | Step::Rename { old: name, .. } => {
                    same(name, &known.name)
                }
                _ => false,
            };
            if alteration.steps.iter().filter(named).count() > 1 {
                return Err("a column is dropped, changed or renamed more than once at once");
            }
            for step in &alteration.steps {
                match step {
                    Step::Drop { column: name, .. } if same(name, &known.name) => stays = false,
                    Step::Change { old, column: new, .. } if same(old, &known.name) => {
                        column = changed(known, new, unkeyed);
                        let kept = keeps_values(known, &column, alteration.strict);
                        silent = silent.max((!kept).then_some(Silent::Rewritten));
                    }
                    Step::Rename { old, new, .. } if same(old, &known.name) => {
                        silent = silent.max((*new != column.name).then_some(Silent::Rewritten));
                        column.name.clone_from(new);
                    }
                    Step::Default { column: name, default } if same(name, &known.name) => {
                        column.default = default.clone().and_then(|default| settled(default, &column));
                    }
                    Step::Invisible { column: name, invisible } if same(name, &known.name) => {
                        column.invisible = *invisible;
                    }
                    _ => {}
                }
            }
            if stays {
                self.columns.push(column);
            }
        }
        Ok(silent)
    }

    fn insert(&mut self, column: CatalogColumn, place: Option<&Place>) -> Result<(), &'static str> {
        if self.columns.iter().any(|known| same(&known.name, &column.name)) {
            return Err(TWICE);
        }
        let at = match place {
            None => self.columns.len(),
            Some(Place::First) => 0,
            Some(Place::After(name)) => {
                1 + self.columns.iter().position(|known| same(&known.name, name)).ok_or(NO_COLUMN)?
            }
        };
        self.columns.insert(at, column);
        Ok(())
    }

    /// Gives every text that character set, and a wider type where it would not hold as many characters.
    fn convert(&mut self, before: &[CatalogColumn], charset: &str) -> Result<Option<Silent>, &'static str> {
        const AT_ONCE: &str = "a text is defined and converted at once";
        const UNKNOWN: &str = "a character set that it is converted to or from is not known";
        let mut silent = None;
        // How long a text is that is defined and converted at once, servers do not agree on; nor how long bytes are.
        let is_new = |column: &CatalogColumn| {
            !before.iter().any(|known| known.name == column.name && known.column_type == column.column_type)
        };
        if self.columns.iter().any(|column| longest(&column.data_type).is_some() && is_new(column)) {
            return Err(AT_ONCE);
        }
        for column in self.columns.iter_mut().filter(|column| is_text(&column.data_type)) {
            // Bytes stay bytes.
            let Some(old) = column.charset.clone().filter(|charset| charset != "binary") else { continue };
            take_charset(column, charset).ok_or(UNKNOWN)?;
            if charset == "binary" {
                // Its default is one of bytes from then on.
                column.default = column.default.take().filter(|default| *default == DefaultValue::Null);
            }
            if let Some((bytes, _)) = longest(&column.data_type).filter(|_| old != charset) {
                let widest = Charset::widest(&old).ok_or(UNKNOWN)?;
                fit_length(column, bytes / u64::from(widest)).ok_or(UNKNOWN)?;
            }
            let kept = old == charset || matches!((old.as_str(), charset), (_, "utf8mb4") | ("ascii", "utf8mb3"));
            silent = silent.max((!kept).then_some(Silent::Rewritten));
        }
        Ok(silent)
    }

    /// Finds out which columns are the key now. Without a primary key the first unique index of columns that are never
    /// null stands for one.
    fn index(&mut self, before: &[CatalogColumn], alteration: &Alteration) -> Result<(), &'static str> {
        const OTHER_KEY: &str = "which of its unique indexes stands for its primary key is not known";
        let had = self.primary;
        let mut dropped = false;
        for step in &alteration.steps {
            match step {
                Step::DropKey => {
                    self.columns.iter_mut().for_each(|column| column.key = false);
                    self.primary = false;
                }
                Step::DropIndex => dropped = true,
                _ => {}
            }
        }
        let key = alteration.steps.iter().rev().find_map(|step| match step {
            Step::Key(names) => Some(names.clone()),
            _ => None,
        });
        if let Some(names) = key {
            self.primary = true;
            self.set_key(&names)?;
        }
        self.primary &= self.columns.iter().any(|column| column.key);
        // One that stands for the key goes on doing so unless it is touched itself.
        let stands = !had && before.iter().any(|column| column.key);
        let stands_in = |column: &CatalogColumn| (column.nullable, is_indexed_whole(&column.data_type));
        let touched = |known: &CatalogColumn| {
            alteration.steps.iter().any(|step| match step {
                Step::Drop { column, .. } => same(column, &known.name),
                Step::Change { old, column, .. } => same(old, &known.name) && stands_in(column) != stands_in(known),
                _ => false,
            })
        };
        let doubtful = dropped || had || before.iter().filter(|column| column.key || !stands).any(touched);
        if !self.primary && self.unique && doubtful {
            return Err(OTHER_KEY);
        }
        for step in &alteration.steps {
            if let Step::Unique(parts) = step {
                self.add_unique(parts);
            }
        }
        Ok(())
    }

    /// Says which columns are the primary key.
    pub fn set_key(&mut self, names: &[String]) -> Result<(), &'static str> {
        if names.iter().any(|name| !self.columns.iter().any(|column| same(&column.name, name))) {
            return Err(NO_COLUMN);
        }
        for column in &mut self.columns {
            column.key = names.iter().any(|name| same(name, &column.name));
            column.nullable &= !column.key;
            if column.key && column.default == Some(DefaultValue::Null) {
                column.default = None;
            }
        }
        Ok(())
    }

    /// A unique index more; it stands for the key where there is none yet.
    pub fn add_unique(&mut self, parts: &[Part]) {
        let never_null = |part: &Part| {
            let named = self.columns.iter().find(|column| same(&column.name, &part.column));
            part.whole && named.is_some_and(|column| !column.nullable && is_indexed_whole(&column.data_type))
        };
        let stands = !self.primary && !self.columns.iter().any(|column| column.key) && parts.iter().all(never_null);
        self.unique = true;
        if stands {
            for column in &mut self.columns {
                column.key = parts.iter().any(|part| same(&part.column, &column.name));
            }
        }
    }
}

/// Whether an index on a column of that type holds all of its values.
fn is_indexed_whole(data_type: &str) -> bool {
    longest(data_type).is_none()
        && !matches!(data_type, "json" | "geometry" | "point" | "linestring" | "polygon")
        && !data_type.starts_with("multi")
        && data_type != "geometrycollection"
}

/// The new form of a column, which stays in its key unless that is dropped.
fn changed(known: &CatalogColumn, new: &CatalogColumn, unkeyed: bool) -> CatalogColumn {
    let mut changed = new.clone();
    changed.key |= known.key && !unkeyed;
    if changed.key {
        changed.nullable = false;
        changed.default = changed.default.filter(|default| *default != DefaultValue::Null);
    }
    changed
}

/// What `CREATE TABLE` defines between its parentheses.
pub(super) fn defined(items: Vec<Words>, ground: Ground) -> Result<Altered, &'static str> {
    let mut alteration = Alteration::default();
    for item in items {
        alteration.define(Definition::read(item, ground).ok_or("one of its columns is not understood")?, None, false);
    }
    let mut table = Altered { charset: ground.charset.to_owned(), columns: Vec::new(), primary: false, unique: false };
    table.apply(&alteration)?;
    Ok(table)
}
