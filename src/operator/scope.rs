//! The columns between two operators of a chain, and which source columns they come from.

use std::collections::BTreeSet;

use crate::contract::{Column, TableSchema, Type};

use super::mask::Mask;
use super::{Fault, nearest};

/// A column between two operators.
#[derive(Clone)]
pub(super) struct ScopeColumn {
    /// Its name, type and nullability here.
    pub column: Column,
    /// The source column that it *is*, when only its name changed or a mask was laid on it.
    pub source: Option<usize>,
    /// The source columns that its value depends on.
    pub from: BTreeSet<usize>,
    /// Whether the topology gave it its name. Such names win over names from the source, which may come at any time.
    pub named: bool,
}

/// What the quarantine may show of a source column.
#[derive(Clone, Default)]
pub(super) struct Disclosure {
    /// The masks that lie on it, in order.
    pub masks: Vec<Mask>,
    /// Something that was computed from it is masked, and the output does not show the column itself: nothing of it may
    /// be shown.
    pub hidden: bool,
    /// The topology drops it: it is left out.
    pub dropped: bool,
}

impl Disclosure {
    /// Whether anything keeps it from being shown as it is.
    pub fn is_restricted(&self) -> bool {
        !self.masks.is_empty() || self.hidden || self.dropped
    }
}

/// All columns between two operators.
#[derive(Clone)]
pub(super) struct Scope {
    /// The columns in order.
    pub columns: Vec<ScopeColumn>,
    /// Positions of the key columns, in key order.
    pub key: Vec<usize>,
    /// By source column.
    pub disclosures: Vec<Disclosure>,
    /// Whether a rule tags rows.
    pub tags: bool,
}

impl Scope {
    /// The columns before the first operator.
    pub fn new(input: &TableSchema) -> Self {
        let columns = input.columns.iter().enumerate().map(|(index, column)| ScopeColumn {
            column: column.clone(),
            source: Some(index),
            from: BTreeSet::from([index]),
            named: false,
        });
        Self {
            columns: columns.collect(),
            key: input.key_indices(),
            disclosures: vec![Disclosure::default(); input.columns.len()],
            tags: false,
        }
    }

    /// The position of the column `name`, or a mistake that says which name is near.
    pub fn find(&self, name: &str, path: &str) -> Result<usize, Fault> {
        self.columns.iter().position(|c| c.column.name == name).ok_or_else(|| {
            let fault = Fault::new(path, format!("there is no column `{name}`"));
            match nearest(name, self.names()) {
                Some(near) => fault.help(format!("did you mean `{near}`?")),
                None => fault.help(format!("the columns here are {}", self.list())),
            }
        })
    }

    /// The names in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|c| c.column.name.as_str())
    }

    /// The names as a list for a message.
    pub fn list(&self) -> String {
        self.names().collect::<Vec<_>>().join(", ")
    }

    /// Whether the column is part of the key.
    pub fn is_key(&self, index: usize) -> bool {
        self.key.contains(&index)
    }

    /// The type of a column.
    pub fn data_type(&self, index: usize) -> Type {
        self.columns[index].column.data_type
    }

    /// The source columns that these columns depend on.
    pub fn sources(&self, columns: &[usize]) -> BTreeSet<usize> {
        columns.iter().flat_map(|index| self.columns[*index].from.iter().copied()).collect()
    }
}
