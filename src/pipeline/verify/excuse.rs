//! Differences that are known: the row, or a version of it, waits in quarantine, or found no base.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use super::layout::Layout;
use super::value;
use crate::error::Result;
use crate::lake::{Lake, Log};
use crate::pipeline::quarantine::open_rejects;
use crate::warehouse::Inspect;

/// What is open, by table.
#[derive(Debug, Default)]
pub struct Excuses {
    entries: BTreeMap<String, Vec<Entry>>,
}

#[derive(Debug)]
struct Entry {
    /// As JSON text, by the source's names or the warehouse's.
    key: String,
    why: String,
}

impl Excuses {
    /// Everything that is open now.
    pub async fn gather(lake: &Lake, log: &Log, warehouse: &dyn Inspect) -> Result<Self> {
        let mut excuses = Self::default();
        for open in open_rejects(lake, log).await? {
            let reject = open.entry.reject;
            if let (Some(table), Some(key)) = (reject.table, reject.key) {
                excuses.add(table, key, format!("in quarantine ({})", reject.rule));
            }
        }
        for open in warehouse.open_incompletes().await? {
            excuses.add(open.row.table, open.row.key, "partial row without a base".to_owned());
        }
        Ok(excuses)
    }

    fn add(&mut self, table: String, key: String, why: String) {
        self.entries.entry(table).or_default().push(Entry { key, why });
    }

    /// The table's by key, as `layout` writes it.
    pub fn by_key(&self, layout: &Layout) -> HashMap<Vec<u8>, &str> {
        let entries = self.entries.get(&layout.table).map(Vec::as_slice).unwrap_or_default();
        entries.iter().filter_map(|entry| Some((key_of(layout, &entry.key)?, entry.why.as_str()))).collect()
    }
}

fn key_of(layout: &Layout, json: &str) -> Option<Vec<u8>> {
    let object: Value = serde_json::from_str(json).ok()?;
    let (mut key, mut text) = (Vec::new(), String::new());
    for (at, source) in layout.key.iter().zip(&layout.source_key) {
        let (name, data_type) = &layout.columns[*at];
        text.clear();
        match object.get(source).or_else(|| object.get(name))? {
            Value::String(stored) => value::write_stored(*data_type, stored, &mut text),
            other => value::write_stored(*data_type, &other.to_string(), &mut text),
        }
        value::push_cell(&mut key, Some(&text));
    }
    (!layout.key.is_empty()).then_some(key)
}
