//! Keys that were deleted, and versions that were refused: what later rows must know of them.

use super::{Dialect, Merge};
use crate::epoch::DeleteMode;
use crate::warehouse::names::{SEQ, literal};

impl Merge<'_> {
    pub(super) fn marks(&self, alias: &str, kind: &str) -> String {
        let (topology, table) = (literal(self.topology), literal(self.table));
        format!("{alias}.topology = {topology} AND {alias}.table_name = {table} AND {alias}.kind = '{kind}'")
    }

    /// Writes down the refused versions of this unit, so that later partial rows know of them.
    pub(crate) fn refuse(&self) -> Vec<String> {
        self.mark("refused", "_df_op = 'x'", &self.stage)
    }

    /// Writes down the key and order of the staged rows that `which` holds for.
    fn mark(&self, kind: &str, which: &str, stage: &str) -> Vec<String> {
        let tombstones = &self.tombstones;
        let (topology, table) = (literal(self.topology), literal(self.table));
        let insert = format!(
            "INSERT INTO {tombstones} (topology, table_name, key, kind, seq) \
             SELECT {topology}, {table}, _df_key, '{kind}', {SEQ} FROM {stage} WHERE {which}"
        );
        if self.dialect != Dialect::Redshift {
            return vec![format!("{insert} ON CONFLICT DO NOTHING")];
        }
        let (stage, marks) = (&self.stage, self.marks(tombstones, kind));
        let again = format!(
            "DELETE FROM {tombstones} USING {stage} WHERE {marks} AND {tombstones}.key = {stage}._df_key \
             AND {tombstones}.seq = {stage}.{SEQ} AND ({which})"
        );
        vec![again, insert]
    }

    /// Keeps tombstones for the deletes of this unit (`keep`), or drops those that are not needed any more.
    pub(crate) fn bury(&self, keep: bool) -> Vec<String> {
        let (stage, tombstones) = (&self.stage, &self.tombstones);
        let (topology, table) = (literal(self.topology), literal(self.table));
        let mut out = Vec::new();
        // A version of the past that comes late must still find in the history what was refused before it.
        if self.mode != DeleteMode::History || !keep {
            let (staged, s) = self.staged();
            let newer = format!(
                "{s}._df_key = {tombstones}.key AND {s}._df_state = 0 \
                 AND {s}._df_op IN ('r', 'c', 'u') AND {s}.{SEQ} > {tombstones}.seq"
            );
            out.push(match self.dialect {
                Dialect::Redshift => format!(
                    "DELETE FROM {tombstones} USING {stage} WHERE {tombstones}.topology = {topology} \
                     AND {tombstones}.table_name = {table} AND {newer}"
                ),
                _ => format!(
                    "DELETE FROM {tombstones} WHERE topology = {topology} AND table_name = {table} AND EXISTS (\
                     SELECT 1 FROM {staged} WHERE {newer})"
                ),
            });
        }
        if !keep {
            out.push(format!(
                "DELETE FROM {tombstones} WHERE topology = {topology} AND table_name = {table} AND kind = 'deleted'"
            ));
        } else if self.mode != DeleteMode::History {
            let (staged, s) = self.staged();
            out.extend(self.mark("deleted", &format!("{} OR {s}._df_state = 3", self.gone()), &staged));
        }
        out
    }
}
