//! Keys as comparable bytes.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::row::{RowConverter, Rows, SortField};

use super::internal;
use crate::batch::TableChanges;
use crate::contract::Contract;
use crate::error::Result;

/// A row of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct At {
    pub batch: u32,
    pub row: u32,
}

/// Only the warehouse knows the value.
pub(super) const UNKNOWN: At = At { batch: u32::MAX, row: u32::MAX };

/// A key: a row's own, or the old one of a move.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyAt {
    pub at: At,
    pub old: bool,
}

/// Keys of all batches as comparable bytes.
pub(super) struct Keys {
    own: Vec<Rows>,
    old: Vec<Option<Rows>>,
}

impl Keys {
    pub fn new(contract: &Contract, key: &[usize], changes: &[TableChanges]) -> Result<Self> {
        let fail = |e| internal("make keys comparable", &contract.table, e);
        let fields = key.iter().map(|&i| SortField::new(contract.output.columns[i].data_type.arrow())).collect();
        let converter = RowConverter::new(fields).map_err(fail)?;
        let mut keys = Self { own: Vec::with_capacity(changes.len()), old: Vec::with_capacity(changes.len()) };
        for batch in changes {
            let own: Vec<ArrayRef> = key.iter().map(|&i| Arc::clone(batch.rows.column(i))).collect();
            keys.own.push(converter.convert_columns(&own).map_err(fail)?);
            let old = batch.old_keys.as_ref().map(|old| converter.convert_columns(old.columns()));
            keys.old.push(old.transpose().map_err(fail)?);
        }
        Ok(keys)
    }

    pub fn bytes(&self, key: KeyAt) -> Option<&[u8]> {
        let rows = if key.old { self.old[key.at.batch as usize].as_ref()? } else { &self.own[key.at.batch as usize] };
        Some(rows.row(key.at.row as usize).data())
    }
}
