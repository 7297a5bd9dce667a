//! How the rows of a table lie in a Redshift cluster.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules::{Draft, Findings, column_list};
use super::topology::{Topology, Warehouse};

/// Which node has which row.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Distribution {
    /// Redshift decides, and changes its mind as the table grows.
    #[default]
    Auto,
    /// In turn.
    Even,
    /// Every node has all of them: for small tables that others are joined with.
    All,
    /// Rows with the same value of this column are together: the column that large tables are joined by.
    Key(String),
}

/// How a table's rows lie.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableLayout {
    /// Which node has which row.
    pub distribution: Distribution,
    /// The columns that rows are sorted by; none: Redshift decides.
    pub sort: Vec<String>,
}

impl Topology {
    /// The layouts of the tables that say something of it.
    pub fn layouts(&self) -> BTreeMap<String, TableLayout> {
        let tables = self.tables.iter().map(|(name, table)| {
            (name.clone(), TableLayout { distribution: table.distribution.clone(), sort: table.sort.clone() })
        });
        tables.filter(|(_, layout)| *layout != TableLayout::default()).collect()
    }
}

/// The most columns of a sort key.
const MOST_SORT_COLUMNS: usize = 400;

pub(super) fn check(draft: &Draft, found: &mut Findings<'_>) {
    let elsewhere = draft.warehouse.as_ref().is_some_and(|warehouse| !matches!(warehouse, Warehouse::Redshift(_)));
    for (name, table) in draft.tables.iter().filter_map(|(name, table)| Some((name, table.as_ref()?))) {
        let said = [("distribution", table.distribution != Distribution::Auto), ("sort", !table.sort.is_empty())];
        for (field, _) in said.into_iter().filter(|(_, said)| *said && elsewhere) {
            let message = format!("`{field}` means nothing here");
            found.key(&format!("tables.{name}.{field}"), message, "it belongs to `warehouse: { kind: redshift }`");
        }
        if matches!(&table.distribution, Distribution::Key(column) if column.is_empty()) {
            found.value(&format!("tables.{name}.distribution.key"), "the column's name is empty", "");
        }
        if !table.sort.is_empty() {
            column_list(found, &format!("tables.{name}.sort"), &table.sort);
        }
        if table.sort.len() > MOST_SORT_COLUMNS {
            let message = format!("a sort key has at most {MOST_SORT_COLUMNS} columns");
            found.key(&format!("tables.{name}.sort"), message, "");
        }
    }
}
