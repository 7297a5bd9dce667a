//! What tells that rows of a table have got values without any event.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::leaf::Leaf;
use crate::config::{OnFilledColumn, PostgresSnapshot, SnapshotMode};

/// A table in the catalog, as far as DDL that changes rows leaves a trace there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TableState {
    /// The newest column that was added with a default.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub filled: i32,
    /// Its file; 0 where nothing is known, and of a table that has none but its partitions'.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub file: u32,
    /// A hash over what the catalog says of its columns. DDL renews that; TRUNCATE, VACUUM FULL and CLUSTER, which make
    /// new files too, do not.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub columns: u32,
    /// A hash over what shows it in the publication: the publication's own entry, and the oldest of those that bring the
    /// table in. What is taken out and put back has a new one; 0 where nothing is known.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub shown: u32,
    /// The partitions that hold its rows, by number; `None` of a table without any, and where nothing is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaves: Option<Vec<Leaf>>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &i32) -> bool {
    *number == 0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_nothing(number: &u32) -> bool {
    *number == 0
}

/// How rows have got values without any event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Silent {
    /// A column was added with a default.
    Filled,
    /// The table was written anew by DDL.
    Rewritten,
    /// The publication did not show it, or not all of its changes, for a while.
    Unpublished,
    /// Partitions with rows came, went, or were emptied by themselves.
    Partitions,
}

impl TableState {
    /// What has happened between `before` and now. `came`: partitions that were attached since hold rows.
    pub fn since(&self, before: &Self, came: bool) -> Option<Silent> {
        if before.shown != 0 && self.shown != before.shown {
            return Some(Silent::Unpublished);
        }
        let other_columns = before.columns != 0 && self.columns != before.columns;
        let new_file = before.file != 0 && self.file != 0 && self.file != before.file;
        if other_columns && (new_file || self.stayed(before).any(|(then, now)| then.file != now.file)) {
            return Some(Silent::Rewritten);
        }
        if came || self.has_lost(before) {
            return Some(Silent::Partitions);
        }
        (self.filled > before.filled).then_some(Silent::Filled)
    }

    fn leaves(&self) -> &[Leaf] {
        self.leaves.as_deref().unwrap_or_default()
    }

    /// The partitions that were there before and are now.
    fn stayed<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = (&'a Leaf, &'a Leaf)> {
        let now = |then: &Leaf| self.leaves().iter().find(|leaf| leaf.id == then.id);
        before.leaves().iter().filter_map(move |then| Some((then, now(then)?)))
    }

    fn has_lost(&self, before: &Self) -> bool {
        self.leaves.is_some() && self.stayed(before).count() < before.leaves().len()
    }

    /// Partitions that were attached since: whatever they held is among the rows now.
    pub fn attached_since(&self, before: &Self) -> Vec<u32> {
        let Some(known) = &before.leaves else { return Vec::new() };
        let new = |leaf: &&Leaf| leaf.attached && known.iter().all(|then| then.id != leaf.id);
        self.leaves().iter().filter(new).map(|leaf| leaf.id).collect()
    }

    /// The transactions that have emptied partitions since. The stream tells of it when they emptied the whole table.
    pub fn emptied_since(&self, before: &Self) -> BTreeSet<u32> {
        self.stayed(before).filter(|(then, now)| now.was_emptied(then)).map(|(_, now)| now.xid).collect()
    }
}

impl Silent {
    /// Says so; whether the table is to be read again. `unread`: it is being read, and always begins anew then.
    pub fn say(self, source: &str, table: &str, snapshot: &PostgresSnapshot, unread: bool) -> bool {
        let again = match self {
            _ if unread => true,
            // Rows may have come and gone: that is more than a value that is missing.
            Self::Unpublished => snapshot.mode == SnapshotMode::Initial,
            Self::Filled | Self::Rewritten | Self::Partitions => snapshot.on_filled_column == OnFilledColumn::ReadAgain,
        };
        let rest = match self {
            _ if unread => "its rows are read from the first on",
            _ if again => "the table is read again",
            Self::Unpublished => "`dataflow table resync` reads it again",
            Self::Filled | Self::Rewritten | Self::Partitions => {
                "rows stay as they were until they change. `dataflow table resync` reads them again, and \
                 `snapshot: { on_filled_column: read_again }` does so by itself"
            }
        };
        let why = match self {
            Self::Filled => "a column was added with a default, which gives rows a value without any event",
            Self::Rewritten => "DDL has written the table anew, which may change values without any event",
            Self::Partitions => {
                "partitions with rows were attached, detached, dropped or emptied, which no event tells of"
            }
            Self::Unpublished => {
                "somebody has changed what the publication shows of it, or taken it out and put it back: changes \
                 in between did not come"
            }
        };
        tracing::warn!(source, table, "{why}: {rest}");
        again
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_file_counts_when_the_columns_have_changed_too() {
        let before = TableState { filled: 2, file: 100, columns: 7, shown: 5, leaves: None };
        assert_eq!(before.since(&before, false), None);
        assert_eq!(TableState { file: 200, ..before.clone() }.since(&before, false), None, "TRUNCATE, VACUUM FULL");
        assert_eq!(TableState { columns: 8, ..before.clone() }.since(&before, false), None, "RENAME, SET STATISTICS");
        assert_eq!(TableState { filled: 3, columns: 8, ..before.clone() }.since(&before, false), Some(Silent::Filled));
        let rewritten = TableState { filled: 0, file: 200, columns: 8, ..before.clone() };
        assert_eq!(rewritten.since(&before, false), Some(Silent::Rewritten));
        assert_eq!(rewritten.since(&TableState::default(), false), None, "a place that knows nothing of it");
        for shown in [6, 0] {
            assert_eq!(TableState { shown, ..before.clone() }.since(&before, false), Some(Silent::Unpublished));
        }
        assert_eq!(before.since(&TableState { shown: 0, ..before.clone() }, false), None, "nor of what shows it");
    }

    fn leaf(id: u32, file: u32) -> Leaf {
        Leaf::from((id, file))
    }

    #[test]
    fn partitions_that_come_go_and_are_emptied_count_and_empty_ones_do_not() {
        let of = |leaves: &[Leaf]| {
            let leaves = Some(leaves.to_vec());
            TableState { columns: 7, shown: 5, leaves, ..TableState::default() }
        };
        let before = of(&[leaf(1, 10), leaf(2, 20)]);
        assert_eq!(before.since(&before, false), None);
        let more = of(&[leaf(1, 10), leaf(2, 20), leaf(3, 30)]);
        assert_eq!((more.since(&before, false), more.attached_since(&before)), (None, Vec::new()));
        let attached = of(&[leaf(1, 10), leaf(2, 20), Leaf { attached: true, ..leaf(3, 30) }]);
        assert_eq!(attached.attached_since(&before), [3]);
        assert_eq!(attached.attached_since(&attached), [0; 0]);
        assert_eq!(attached.since(&before, true), Some(Silent::Partitions));
        assert_eq!(of(&[leaf(1, 10)]).since(&before, false), Some(Silent::Partitions), "one is gone");
        assert_eq!(of(&[]).since(&TableState::default(), false), None, "a place that knows nothing of it");
        assert_eq!(attached.attached_since(&TableState::default()), [0; 0]);
        // TRUNCATE leaves nothing that was counted, VACUUM FULL does.
        let emptied = |leaves: &[Leaf]| of(leaves).emptied_since(&before).into_iter().collect::<Vec<u32>>();
        assert_eq!(emptied(&[leaf(1, 10), Leaf { xid: 9, fresh: true, ..leaf(2, 22) }]), [9]);
        assert_eq!(emptied(&[leaf(1, 11), Leaf { xid: 9, ..leaf(2, 22) }]), [0; 0]);
        let rewritten = TableState { columns: 8, ..of(&[leaf(1, 11), leaf(2, 22)]) };
        assert_eq!(rewritten.since(&before, false), Some(Silent::Rewritten));
        let renamed = TableState { columns: 8, ..more };
        assert_eq!(renamed.since(&before, false), None, "a new partition is no new file");
    }
}
