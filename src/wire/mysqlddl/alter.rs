//! The clauses of `ALTER TABLE`, one step each.

use super::altered::fills;
use super::columns::{Column, Definition, Ground, Part, charset_option, column, is_key, literal, parts};
use super::scope::Scope;
use super::silent::Silent;
use super::words::{Place, Words};
use crate::wire::mysqltype::{CatalogColumn, DefaultValue};

const UNREAD: &str = "a column in an ALTER is not understood";

/// One thing that an ALTER does.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Add {
        column: CatalogColumn,
        place: Option<Place>,
        only_if_new: bool,
    },
    Change {
        old: String,
        column: CatalogColumn,
        place: Option<Place>,
        only_if_there: bool,
    },
    Drop {
        column: String,
        only_if_there: bool,
    },
    Rename {
        old: String,
        new: String,
        only_if_there: bool,
    },
    Default {
        column: String,
        default: Option<DefaultValue>,
    },
    Invisible {
        column: String,
        invisible: bool,
    },
    Key(Vec<String>),
    DropKey,
    DropIndex,
    Unique(Vec<Part>),
    Charset(String),
    Convert(String),
    RenameTable(String),
    /// Rows come, go or change, and no event says so.
    Refill,
    /// The rows of a partition and those of that table change places.
    Exchange(String),
    /// A partition becomes that table.
    TakeOut(String),
    /// That table becomes a partition.
    PutIn(String),
    /// Indexes, partitions, options.
    Nothing,
}

/// An ALTER, read in a table of some character set.
#[derive(Debug, Clone, Default)]
pub(super) struct Alteration {
    pub steps: Vec<Step>,
    /// What is not understood.
    pub unread: Option<&'static str>,
    /// What does not fit its new type is an error.
    pub strict: bool,
}

/// What changes no column: indexes, partitions, options.
const HARMLESS: [&str; 42] = [
    "ALGORITHM",
    "ANALYZE",
    "AUTO_INCREMENT",
    "AUTOEXTEND_SIZE",
    "AVG_ROW_LENGTH",
    "CHECK",
    "CHECKSUM",
    "COMMENT",
    "COMPRESSION",
    "CONNECTION",
    "DATA",
    "DELAY_KEY_WRITE",
    "DISABLE",
    "ENABLE",
    "ENCRYPTED",
    "ENCRYPTION",
    "ENCRYPTION_KEY_ID",
    "ENGINE",
    "ENGINE_ATTRIBUTE",
    "FORCE",
    "INDEX",
    "INSERT_METHOD",
    "KEY_BLOCK_SIZE",
    "LOCK",
    "MAX_ROWS",
    "MIN_ROWS",
    "OPTIMIZE",
    "PACK_KEYS",
    "PAGE_CHECKSUM",
    "PAGE_COMPRESSED",
    "PAGE_COMPRESSION_LEVEL",
    "REBUILD",
    "REPAIR",
    "ROW_FORMAT",
    "SECONDARY_ENGINE",
    "SECONDARY_LOAD",
    "SECONDARY_UNLOAD",
    "STATS_AUTO_RECALC",
    "STATS_PERSISTENT",
    "STATS_SAMPLE_PAGES",
    "TABLESPACE",
    "WITHOUT",
];
/// What moves rows between tables or takes them away.
const REFILLING: [&str; 7] = ["DISCARD", "IMPORT", "EXCHANGE", "TRUNCATE", "COALESCE", "REORGANIZE", "CONVERT"];
/// What is done with partitions, which a list with commas may name: nothing else may follow.
const OF_PARTITIONS: [&str; 9] =
    ["DISCARD", "IMPORT", "TRUNCATE", "REORGANIZE", "DROP", "ANALYZE", "CHECK", "OPTIMIZE", "REPAIR"];

impl Alteration {
    /// Reads the clauses; a table's own character set counts where they name none.
    pub fn read(mut words: Words, ground: Ground, scope: &Scope, database: &str, inherited: &str) -> Self {
        let mut alteration = Self { strict: ground.mode.strict, ..Self::default() };
        // Only these two may follow without a comma, or have commas of their own.
        words.cut_at(&["ORDER", "BY"]);
        words.cut_at(&["PARTITION", "BY"]);
        words.cut_at(&["REMOVE", "PARTITIONING"]);
        let mut clauses = words.split_commas();
        if let Some(at) = clauses.iter().position(names_partitions) {
            clauses.truncate(at + 1);
        }
        let charsets: Vec<Option<String>> =
            clauses.iter().map(|clause| charset(clause, ground.charset, inherited)).collect();
        // What is added has the character set that the table has afterwards.
        let last = charsets.iter().flatten().next_back().cloned();
        let ground = Ground { charset: last.as_deref().unwrap_or(ground.charset), ..ground };
        for (clause, charset) in clauses.into_iter().zip(charsets) {
            let read = match charset {
                Some(charset) if converts(&clause) => {
                    alteration.steps.push(Step::Convert(charset));
                    Ok(())
                }
                Some(charset) => {
                    alteration.steps.push(Step::Charset(charset));
                    Ok(())
                }
                None => alteration.clause(clause, ground, scope, database),
            };
            alteration.unread = alteration.unread.or(read.err());
        }
        alteration
    }

    /// The name that the table has afterwards.
    pub fn renamed_to(&self) -> Option<&str> {
        self.steps.iter().rev().find_map(|step| match step {
            Step::RenameTable(to) => Some(to.as_str()),
            _ => None,
        })
    }

    /// What it does to the rows of a table that is not known.
    pub fn silent(&self) -> Option<Silent> {
        let silent = self.steps.iter().filter_map(|step| match step {
            Step::Add { column, .. } => fills(column).then_some(Silent::Filled),
            Step::Change { .. } | Step::Rename { .. } | Step::Convert(_) => Some(Silent::Rewritten),
            Step::Refill | Step::Exchange(_) | Step::TakeOut(_) | Step::PutIn(_) => Some(Silent::Rewritten),
            _ => None,
        });
        silent.chain(self.unread.map(|_| Silent::Rewritten)).max()
    }

    /// Whether the key of a table that is not known may be another afterwards.
    pub fn touches_key(&self) -> bool {
        let touches = |step: &Step| {
            let key =
                matches!(step, Step::Key(_) | Step::DropKey | Step::DropIndex | Step::Unique(_) | Step::Convert(_));
            key || matches!(step, Step::Change { .. } | Step::Rename { .. })
        };
        self.unread.is_some() || self.steps.iter().any(touches)
    }

    fn clause(&mut self, mut clause: Words, ground: Ground, scope: &Scope, database: &str) -> Result<(), &'static str> {
        if clause.take("ADD") {
            return self.add(clause, ground);
        }
        let step = if clause.take("DROP") {
            drop(clause)?
        } else if clause.take("MODIFY") {
            clause.take("COLUMN");
            let only_if_there = clause.skip_if_exists();
            let old = clause.identifier().ok_or(UNREAD)?;
            return self.change(old.clone(), old, only_if_there, clause, ground);
        } else if clause.take("CHANGE") {
            clause.take("COLUMN");
            let only_if_there = clause.skip_if_exists();
            let (old, new) = clause.identifier().zip(clause.identifier()).ok_or(UNREAD)?;
            return self.change(old, new, only_if_there, clause, ground);
        } else if clause.take("RENAME") {
            rename(clause, scope, database)?
        } else if clause.take("ALTER") {
            alter(clause)?
        } else if clause.is_any(&REFILLING) {
            refilled(clause, scope, database)?
        } else if clause.is_any(&HARMLESS) || clause.is_any(&["PARTITION", "COLLATE", "DEFAULT"]) {
            // A collation that has no character set of its own changes none.
            Step::Nothing
        } else {
            return Err("a clause of an ALTER is not understood");
        };
        self.steps.push(step);
        Ok(())
    }

    fn add(&mut self, mut clause: Words, ground: Ground) -> Result<(), &'static str> {
        let named = clause.take("COLUMN");
        let partition = clause.is("PARTITION") && clause.rest().len() > 1;
        if !named && (is_key(&clause) || partition) {
            self.define(Definition::read(clause, ground).unwrap_or(Definition::Other), None, false);
            return Ok(());
        }
        let only_if_new = clause.skip_if_exists();
        if let Some(inside) = clause.parentheses() {
            for item in inside.split_commas() {
                self.define(Definition::read(item, ground).ok_or(UNREAD)?, None, only_if_new);
            }
            return Ok(());
        }
        let place = clause.place();
        let name = clause.identifier().ok_or(UNREAD)?;
        let added = column(name, &mut clause, ground).ok_or(UNREAD)?;
        self.define(Definition::Column(Box::new(added)), place, only_if_new);
        Ok(())
    }

    pub fn define(&mut self, definition: Definition, place: Option<Place>, only_if_new: bool) {
        match definition {
            Definition::Column(defined) => {
                let Column { column, unique } = *defined;
                let indexes = indexes(&column, unique);
                self.steps.push(Step::Add { column, place, only_if_new });
                self.steps.extend(indexes);
            }
            Definition::PrimaryKey(key) => self.steps.push(Step::Key(key)),
            Definition::Unique(parts) => self.steps.push(Step::Unique(parts)),
            Definition::Other => self.steps.push(Step::Nothing),
        }
    }

    fn change(
        &mut self,
        old: String,
        new: String,
        only_if_there: bool,
        mut clause: Words,
        ground: Ground,
    ) -> Result<(), &'static str> {
        let place = clause.place();
        let Column { column, unique } = column(new, &mut clause, ground).ok_or(UNREAD)?;
        let indexes = indexes(&column, unique);
        self.steps.push(Step::Change { old, column, place, only_if_there });
        self.steps.extend(indexes);
        Ok(())
    }
}

/// The indexes that a column's own definition makes.
fn indexes(column: &CatalogColumn, unique: bool) -> Vec<Step> {
    let key = column.key.then(|| Step::Key(vec![column.name.clone()]));
    let part = || Part { column: column.name.clone(), whole: true };
    key.into_iter().chain(unique.then(|| Step::Unique(vec![part()]))).collect()
}

/// The character set that a table has after a clause, where the clause says one. Without commas between them, options
/// follow each other.
fn charset(clause: &Words, own: &str, inherited: &str) -> Option<String> {
    let option = clause.is_any(&["DEFAULT", "CHARACTER", "CHARSET", "COLLATE", "CONVERT"]) || clause.is_any(&HARMLESS);
    let found = charset_option(clause.rest()).filter(|_| option)?;
    Some(match found.as_str() {
        "default" if inherited.is_empty() => own.to_owned(),
        "default" => inherited.to_owned(),
        _ => found,
    })
}

/// `CONVERT TO CHARACTER SET`, and not MariaDB's `CONVERT PARTITION … TO TABLE`.
fn converts(clause: &Words) -> bool {
    let mut clause = clause.clone();
    clause.take("CONVERT") && clause.take("TO")
}

/// Whether a clause is about partitions by their names, whatever commas follow.
fn names_partitions(clause: &Words) -> bool {
    let mut clause = clause.clone();
    clause.is_any(&OF_PARTITIONS) && clause.next().is_some() && clause.is("PARTITION") && clause.rest().len() > 1
}

/// What moves rows, and the other table that it moves them from or to.
fn refilled(mut clause: Words, scope: &Scope, database: &str) -> Result<Step, &'static str> {
    const OTHER: &str = "the table that an ALTER moves rows from or to is not understood";
    let other = |clause: &mut Words| clause.name(scope, database).ok_or(OTHER);
    if clause.take("EXCHANGE") {
        clause.skip_past("TABLE");
        return other(&mut clause).map(Step::Exchange);
    }
    if clause.take("CONVERT") {
        if clause.take("TABLE") {
            clause.skip_if_exists();
            return other(&mut clause).map(Step::PutIn);
        }
        if clause.take("PARTITION") {
            clause.skip_past("TABLE");
            return other(&mut clause).map(Step::TakeOut);
        }
    }
    Ok(Step::Refill)
}

fn drop(mut clause: Words) -> Result<Step, &'static str> {
    let named = clause.take("COLUMN");
    let name_of = |at: usize| clause.rest().get(at).and_then(|word| word.name()).unwrap_or_default().to_owned();
    let primary = name_of(clause.rest().len().saturating_sub(1)).eq_ignore_ascii_case("PRIMARY");
    if !named && clause.is("PRIMARY") {
        return Ok(Step::DropKey);
    }
    if !named && clause.is_any(&["INDEX", "KEY", "CONSTRAINT"]) {
        return Ok(if primary { Step::DropKey } else { Step::DropIndex });
    }
    if !named && clause.is("PARTITION") && clause.rest().len() > 1 {
        return Ok(Step::Refill);
    }
    if !named && (clause.is_any(&["FOREIGN", "CHECK"]) || is_key(&clause)) {
        return Ok(Step::Nothing);
    }
    let only_if_there = clause.skip_if_exists();
    let column = clause.identifier().ok_or(UNREAD)?;
    Ok(Step::Drop { column, only_if_there })
}

fn rename(mut clause: Words, scope: &Scope, database: &str) -> Result<Step, &'static str> {
    if clause.is_any(&["INDEX", "KEY"]) {
        return Ok(Step::Nothing);
    }
    if clause.take("COLUMN") {
        let only_if_there = clause.skip_if_exists();
        let old = clause.identifier().ok_or(UNREAD)?;
        clause.take("TO");
        let new = clause.identifier().ok_or(UNREAD)?;
        return Ok(Step::Rename { old, new, only_if_there });
    }
    let _word = clause.take("TO") || clause.take("AS") || clause.take_sign('=');
    clause.name(scope, database).map(Step::RenameTable).ok_or("the name that an ALTER gives is not understood")
}

/// `ALTER [COLUMN] name SET DEFAULT … | DROP DEFAULT | SET VISIBLE`
fn alter(mut clause: Words) -> Result<Step, &'static str> {
    if clause.is_any(&["INDEX", "KEY", "CHECK", "CONSTRAINT"]) {
        return Ok(Step::Nothing);
    }
    clause.take("COLUMN");
    clause.skip_if_exists();
    let column = clause.identifier().ok_or(UNREAD)?;
    if clause.take("SET") {
        if clause.is_any(&["VISIBLE", "INVISIBLE"]) {
            return Ok(Step::Invisible { column, invisible: clause.is("INVISIBLE") });
        }
        if clause.take("DEFAULT") {
            return Ok(Step::Default { column, default: literal(&mut clause).flatten() });
        }
    } else if clause.take("DROP") {
        return Ok(Step::Default { column, default: None });
    }
    Err(UNREAD)
}

/// `CREATE UNIQUE INDEX`, from its parts on.
pub(super) fn unique_index(words: &mut Words) -> Alteration {
    Alteration { steps: parts(words).map(Step::Unique).into_iter().collect(), ..Alteration::default() }
}

/// The drop of an index.
pub(super) fn index_dropped() -> Alteration {
    Alteration { steps: vec![Step::DropIndex], ..Alteration::default() }
}

/// The drop of the index `PRIMARY`.
pub(super) fn key_dropped() -> Alteration {
    Alteration { steps: vec![Step::DropKey], ..Alteration::default() }
}
