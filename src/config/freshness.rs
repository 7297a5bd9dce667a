//! How long changes may wait in the lake until they are loaded.

use super::rules::{Draft, Findings};
use super::topology::{Topology, Warehouse};
use super::units::Span;

impl Topology {
    /// How old changes of the table may be when the warehouse shows them; `None`: they do not wait.
    pub fn fresh_within(&self, table: &str) -> Option<Span> {
        let own = self.tables.get(table).and_then(|table| table.fresh_within);
        own.or(self.fresh_within).or_else(|| self.warehouse.fresh_within())
    }
}

impl Warehouse {
    /// What holds where nothing is said.
    fn fresh_within(&self) -> Option<Span> {
        match self {
            Self::Sqlite(_) | Self::Postgres(_) => None,
            // Every load is a place in the queue of commits of the whole cluster.
            Self::Redshift(_) => Some(Span::seconds(60)),
        }
    }
}

/// Rows come to the warehouse an epoch at a time: nothing is fresher than that.
pub(super) fn check(draft: &Draft, found: &mut Findings<'_>) {
    let every = draft.epoch.clone().unwrap_or_default().every;
    let mut promise = |path: &str, fresh_within: Option<Span>| {
        if let Some(span) = fresh_within.filter(|span| *span < every) {
            let message = format!("`{span}` cannot be kept: an epoch may be open for {every} (`epoch.every`)");
            found.value(path, message, format!("write at least {every}, or a shorter `epoch: {{ every: … }}`"));
        }
    };
    promise("fresh_within", draft.fresh_within);
    for (name, table) in &draft.tables {
        promise(&format!("tables.{name}.fresh_within"), table.as_ref().and_then(|table| table.fresh_within));
    }
}
