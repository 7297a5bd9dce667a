//! What tells that rows of a table have got values without any event.

use serde::{Deserialize, Serialize};

use crate::config::{OnFilledColumn, PostgresSnapshot, SnapshotMode};

/// A table in the catalog, as far as DDL that changes rows leaves a trace there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TableState {
    /// The newest column that was added with a default.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub filled: i32,
    /// The newest of its files; 0 where nothing is known.
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
}

impl TableState {
    /// What has happened between `before` and now.
    pub fn since(&self, before: &Self) -> Option<Silent> {
        if before.shown != 0 && self.shown != before.shown {
            return Some(Silent::Unpublished);
        }
        let known = before.file != 0 && before.columns != 0;
        if known && self.file != before.file && self.columns != before.columns {
            Some(Silent::Rewritten)
        } else {
            (self.filled > before.filled).then_some(Silent::Filled)
        }
    }
}

impl Silent {
    /// Says so; whether the table is to be read again.
    pub fn say(self, source: &str, table: &str, snapshot: &PostgresSnapshot) -> bool {
        let again = match self {
            // Rows may have come and gone: that is more than a value that is missing.
            Self::Unpublished => snapshot.mode == SnapshotMode::Initial,
            Self::Filled | Self::Rewritten => snapshot.on_filled_column == OnFilledColumn::ReadAgain,
        };
        let rest = match self {
            _ if again => "the table is read again",
            Self::Unpublished => "`dataflow table resync` reads it again",
            Self::Filled | Self::Rewritten => {
                "rows stay as they were until they change. `dataflow table resync` reads them again, and \
                 `snapshot: { on_filled_column: read_again }` does so by itself"
            }
        };
        let why = match self {
            Self::Filled => "a column was added with a default, which gives rows a value without any event",
            Self::Rewritten => "DDL has written the table anew, which may change values without any event",
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
        let before = TableState { filled: 2, file: 100, columns: 7, shown: 5 };
        assert_eq!(before.since(&before), None);
        assert_eq!(TableState { file: 200, ..before }.since(&before), None, "TRUNCATE, VACUUM FULL");
        assert_eq!(TableState { columns: 8, ..before }.since(&before), None, "RENAME, SET STATISTICS");
        assert_eq!(TableState { filled: 3, columns: 8, ..before }.since(&before), Some(Silent::Filled));
        let rewritten = TableState { filled: 0, file: 200, columns: 8, shown: 5 };
        assert_eq!(rewritten.since(&before), Some(Silent::Rewritten));
        assert_eq!(rewritten.since(&TableState::default()), None, "a place that knows nothing of it");
        for shown in [6, 0] {
            assert_eq!(TableState { shown, ..before }.since(&before), Some(Silent::Unpublished));
        }
        assert_eq!(before.since(&TableState { shown: 0, ..before }), None, "nor of what shows it");
    }
}
