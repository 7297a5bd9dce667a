//! `rename` and `drop`: columns get other names, or are left out.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::Result;

use super::rows::{Context, Rows};
use super::scope::Scope;
use super::{Fault, Lineage, Step, Transform};

/// New names, by old name. All at once: names can be swapped.
pub(super) struct Rename {
    names: BTreeMap<String, String>,
}

/// Names of columns that are left out.
pub(super) struct Drop {
    names: Vec<String>,
}

/// Nothing happens to values.
struct Nothing;

/// Positions that stay.
struct Kept {
    columns: Vec<usize>,
}

impl Rename {
    /// Reads the operator.
    pub fn new(config: &BTreeMap<String, String>) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        if config.is_empty() {
            faults.push(Fault::new("rename", "there is no column to rename"));
        }
        let mut targets = BTreeSet::new();
        for (old, new) in config {
            if new.trim().is_empty() {
                faults.push(Fault::new(format!("rename.{old}"), "the new name is empty"));
            } else if !targets.insert(new) {
                faults.push(Fault::new(format!("rename.{old}"), format!("two columns would be called `{new}`")));
            }
        }
        if faults.is_empty() { Ok(Self { names: config.clone() }) } else { Err(faults) }
    }
}

impl Transform for Rename {
    fn bind(&self, scope: &mut Scope) -> Result<Box<dyn Step>, Fault> {
        let mut renamed = Vec::with_capacity(self.names.len());
        for (old, new) in &self.names {
            let path = format!("rename.{old}");
            let index = scope.find(old, &path)?;
            if scope.names().any(|name| name == new) && !self.names.contains_key(new) {
                return Err(Fault::new(path, format!("there is a column `{new}` already"))
                    .help(format!("drop or rename it as well; the columns here are {}", scope.list())));
            }
            renamed.push((index, new));
        }
        for (index, new) in renamed {
            scope.columns[index].column.name.clone_from(new);
            scope.columns[index].named = true;
        }
        Ok(Box::new(Nothing))
    }

    fn trace(&self, names: &mut Lineage, _masked: &mut BTreeSet<String>) {
        let before = names.clone();
        for (old, new) in &self.names {
            if !self.names.values().any(|target| target == old) {
                names.remove(old);
            }
            names.insert(new.clone(), before.get(old).cloned().unwrap_or_else(|| BTreeSet::from([old.clone()])));
        }
    }
}

impl Drop {
    /// Reads the operator.
    pub fn new(config: &[String]) -> Result<Self, Vec<Fault>> {
        if config.is_empty() {
            return Err(vec![Fault::new("drop", "there is no column to drop")]);
        }
        Ok(Self { names: config.to_vec() })
    }
}

impl Transform for Drop {
    fn bind(&self, scope: &mut Scope) -> Result<Box<dyn Step>, Fault> {
        let mut dropped = BTreeSet::new();
        for name in &self.names {
            let index = scope.find(name, "drop")?;
            if scope.is_key(index) {
                return Err(Fault::new("drop", format!("`{name}` is part of the key and cannot be dropped"))
                    .help("mask it with hmac instead: rows keep their identity"));
            }
            dropped.insert(index);
            if let Some(source) = scope.columns[index].source {
                scope.disclosures[source].dropped = true;
            }
        }
        let columns: Vec<usize> = (0..scope.columns.len()).filter(|index| !dropped.contains(index)).collect();
        scope.key = scope.key.iter().filter_map(|key| columns.iter().position(|c| c == key)).collect();
        scope.columns = columns.iter().map(|index| scope.columns[*index].clone()).collect();
        Ok(Box::new(Kept { columns }))
    }

    fn trace(&self, names: &mut Lineage, _masked: &mut BTreeSet<String>) {
        for name in &self.names {
            names.insert(name.clone(), BTreeSet::new());
        }
    }
}

impl Step for Nothing {
    fn apply(&self, _rows: &mut Rows, _context: &Context<'_>) -> Result<()> {
        Ok(())
    }
}

impl Step for Kept {
    fn apply(&self, rows: &mut Rows, _context: &Context<'_>) -> Result<()> {
        rows.columns = self.columns.iter().map(|index| rows.columns[*index].clone()).collect();
        rows.unchanged = self.columns.iter().map(|index| rows.unchanged[*index].clone()).collect();
        Ok(())
    }
}
