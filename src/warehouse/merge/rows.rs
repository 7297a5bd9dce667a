//! The staged rows that are to be shown come, and what they take away goes.

use super::{Dialect, Merge, base_column};
use crate::epoch::DeleteMode;
use crate::warehouse::names::{DELETED, SEQ, SYNCED_AT, quote};

impl Merge<'_> {
    /// Whether the staged row `s` is an incomplete move: what had its key before is gone, although what has it now
    /// cannot be shown.
    pub(super) fn unmoved(&self) -> String {
        format!("({}._df_state = 2 AND {})", self.staged().1, self.moved())
    }

    /// Whether the staged row `s` stands on another key than its own.
    pub(super) fn moved(&self) -> String {
        let (_, s) = self.staged();
        let differ = |(i, name): (usize, &String)| {
            let (own, base) = (format!("{s}.{}", quote(name)), format!("{s}.{}", base_column(i)));
            self.compared(name, " <> ", " OR ", &own, &base)
        };
        format!("({})", self.schema.key.iter().enumerate().map(differ).collect::<Vec<_>>().join(" OR "))
    }

    /// Whether the staged row `s` takes its key away.
    pub(super) fn gone(&self) -> String {
        let (_, s) = self.staged();
        format!("(({s}._df_state = 0 AND {s}._df_op IN ('d', 'm')) OR {})", self.unmoved())
    }

    /// Soft mode: what an incomplete move took away.
    pub(crate) fn hide(&self) -> String {
        let ((stage, s), (target, t)) = (self.staged(), self.targeted());
        let (key, now) = (self.on_key(t, s), self.dialect.now());
        format!(
            "UPDATE {target} SET {DELETED} = true, {SEQ} = {s}.{SEQ}, {SYNCED_AT} = {now} FROM {stage} \
             WHERE {key} AND {}",
            self.unmoved()
        )
    }

    /// Hard deletes.
    pub(crate) fn delete(&self) -> String {
        let gone = self.gone();
        match self.dialect {
            Dialect::Sqlite => format!(
                "DELETE FROM {target} WHERE rowid IN (SELECT t.rowid FROM {stage} AS s JOIN {target} AS t ON {key} \
                 WHERE {gone})",
                stage = self.stage,
                target = self.target,
                key = self.on_key("t", "s")
            ),
            _ => self.delete_those(&format!(" AND {gone}")),
        }
    }

    /// Deletes the target's rows with the key of a staged row, where `and` (` AND …`) holds too.
    fn delete_those(&self, and: &str) -> String {
        let ((stage, s), (target, t)) = (self.staged(), self.targeted());
        format!("DELETE FROM {target} USING {stage} WHERE {}{and}", self.on_key(t, s))
    }

    /// Takes whole upserts (a stage without [`StageColumn`]) that the target has newer out of the stage.
    #[cfg(feature = "redshift")]
    pub(crate) fn supersede(&self) -> String {
        let ((stage, s), (target, t)) = (self.staged(), self.targeted());
        format!("DELETE FROM {stage} USING {target} WHERE {} AND {t}.{SEQ} >= {s}.{SEQ}", self.on_key(t, s))
    }

    /// Inserts and updates without a unique key: what is there goes, what is staged comes. Needs the guard before it.
    /// `gone`: what the unit takes away goes with it. The second statement inserts.
    pub(crate) fn replace(&self, staged: bool, gone: bool) -> [String; 2] {
        let (_, s) = self.staged();
        let (filter, incomplete) = match (staged, self.mode, gone) {
            (false, ..) => (String::new(), String::new()),
            (_, DeleteMode::Soft, _) => (format!("{s}._df_state = 0 AND {s}._df_op <> 'x'"), String::new()),
            (_, _, false) => (format!("{s}._df_state = 0 AND {s}._df_op IN ('r', 'c', 'u')"), String::new()),
            (_, _, true) => (format!("{s}._df_state = 0 AND {s}._df_op <> 'x'"), format!(" OR {}", self.unmoved())),
        };
        let those = if staged { format!(" AND (({filter}){incomplete})") } else { String::new() };
        let insert = format!("INSERT INTO {} ({}) {}", self.target, self.target_columns(), self.staged_rows(staged));
        [self.delete_those(&those), insert]
    }

    /// Inserts and updates. `staged` says whether the stage has the columns of [`StageColumn`]; without them every row is
    /// a whole one, and the guard stands in the conflict clause alone.
    pub(crate) fn upsert(&self, staged: bool) -> String {
        self.upsert_from(&self.staged_rows(staged))
    }

    /// The staged rows that are to be shown, in the order of [`Merge::target_columns`].
    fn staged_rows(&self, staged: bool) -> String {
        let (stage, now) = (&self.stage, self.dialect.now());
        let (ops, deleted) = match self.mode {
            DeleteMode::Soft => ("('r', 'c', 'u', 'd', 'm')", "s._df_op IN ('d', 'm')"),
            _ => ("('r', 'c', 'u')", ""),
        };
        let deleted = match (self.mode, staged) {
            (DeleteMode::Soft, true) => format!(", {deleted}"),
            (DeleteMode::Soft, false) => ", false".to_owned(),
            _ => String::new(),
        };
        let filter = if staged { format!("s._df_state = 0 AND s._df_op IN {ops}") } else { "true".to_owned() };
        format!("SELECT {}, s.{SEQ}, {now}{deleted} FROM {stage} AS s WHERE {filter}", self.values("s."))
    }

    /// The same over any rows in the order of [`Merge::target_columns`].
    pub(crate) fn upsert_from(&self, rows: &str) -> String {
        let (target, columns) = (&self.target, self.target_columns());
        let values = self.schema.columns.iter().filter(|c| !self.schema.key.contains(&c.name));
        let mut sets: Vec<String> = values.map(|c| format!("{0} = excluded.{0}", quote(&c.name))).collect();
        sets.extend([SEQ, SYNCED_AT].map(|name| format!("{name} = excluded.{name}")));
        if self.mode == DeleteMode::Soft {
            sets.push(format!("{DELETED} = excluded.{DELETED}"));
        }
        format!(
            "INSERT INTO {target} AS t ({columns}) {rows} \
             ON CONFLICT ({key}) DO UPDATE SET {sets} WHERE t.{SEQ} < excluded.{SEQ}",
            key = self.key_list(""),
            sets = sets.join(", ")
        )
    }

    /// The columns that an upsert writes.
    pub(crate) fn target_columns(&self) -> String {
        let deleted = if self.mode == DeleteMode::Soft { format!(", {DELETED}") } else { String::new() };
        format!("{}, {SEQ}, {SYNCED_AT}{deleted}", self.columns(""))
    }
}
