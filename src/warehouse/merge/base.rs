//! Partial rows: the row that each stands on, and what it takes from it.

use super::{Dialect, Merge, base_column, document_column};
use crate::epoch::DeleteMode;
use crate::warehouse::names::{DELETED, END_SEQ, SEQ, literal, quote};

impl Merge<'_> {
    /// The base of the staged row `s` as the alias `b`: older than the first change that stands on it. What the row's own
    /// key holds is older than the row, because the guard has been there.
    fn base(&self, s: &str) -> String {
        let (on_base, own) = (self.on_base(s), self.on_key("b", s));
        match self.mode {
            DeleteMode::History => format!(
                "{on_base} AND b.{SEQ} < {s}._df_base_seq AND (b.{END_SEQ} IS NULL OR b.{END_SEQ} >= {s}._df_base_seq)"
            ),
            DeleteMode::Hard => format!("{on_base} AND (b.{SEQ} < {s}._df_base_seq OR ({own}))"),
            // A deleted row is no base, but it can be deleted again.
            DeleteMode::Soft => format!(
                "{on_base} AND (b.{SEQ} < {s}._df_base_seq OR ({own})) \
                 AND (b.{DELETED} IS NOT TRUE OR ({s}._df_op IN ('d', 'm') AND {own}))"
            ),
        }
    }

    /// Whether the staged row has a base (with what else `and` says of the tables `more`); never, when `not`.
    fn based(&self, not: bool, more: &str, and: impl Fn(&str) -> String) -> String {
        let (stage, target, not) = (&self.stage, &self.target, if not { "NOT " } else { "" });
        if self.dialect == Dialect::Redshift {
            let (base, and) = (self.base("x"), and("x"));
            return format!(
                "{stage}._df_row {not}IN (SELECT x._df_row FROM {stage} AS x, {target} AS b{more} WHERE {base}{and})"
            );
        }
        format!("{not}EXISTS (SELECT 1 FROM {target} AS b{more} WHERE {}{})", self.base("s"), and("s"))
    }

    /// A row that moved stands on what its own key holds, if there is something: then the move came before. What was
    /// refused there does not matter to it. (Soft mode: what is deleted can be deleted again.)
    fn rebase(&self) -> Vec<String> {
        let ((stage, s), (target, t)) = (self.staged(), self.targeted());
        let (own, moved, partial) = (self.on_key(t, s), self.moved(), self.partial());
        let parts = self.schema.key.iter().enumerate();
        let sets = parts.map(|(i, name)| format!("{} = {s}.{}", base_column(i), quote(name))).collect::<Vec<_>>();
        let rebase = |there: &str| {
            format!(
                "UPDATE {stage} SET {}, _df_base_key = NULL FROM {target} \
                 WHERE {partial} AND {moved} AND {own} AND {there}",
                sets.join(", ")
            )
        };
        let arrived = format!("{t}.{SEQ} >= {s}._df_arrived");
        match self.mode {
            DeleteMode::Hard => vec![rebase(&arrived)],
            DeleteMode::Soft => vec![
                rebase(&format!("{arrived} AND {t}.{DELETED} IS NOT TRUE")),
                rebase(&format!("{s}._df_op IN ('d', 'm') AND {}", self.based(true, "", |_| String::new()))),
            ],
            DeleteMode::History => vec![rebase(&format!(
                "{arrived} AND {t}.{SEQ} < {s}._df_base_seq \
                 AND ({t}.{END_SEQ} IS NULL OR {t}.{END_SEQ} >= {s}._df_base_seq)"
            ))],
        }
    }

    /// Whether a staged row needs a base and is not superseded.
    fn partial(&self) -> String {
        let (_, s) = self.staged();
        format!("{s}._df_state <> 1 AND {s}._df_unchanged IS NOT NULL")
    }

    /// Fills partial rows that have a base, which are to be applied then. The others stay what they were staged as:
    /// incomplete, or (soft deletes) nothing to do. What stands on a refused version is incomplete, too; soft deletes take
    /// nothing from the changes after it. `moves`: some may have another key.
    pub(crate) fn fill(&self, marked: bool, moves: bool) -> Vec<String> {
        let ((stage, s), target, base) = (self.staged(), &self.target, self.base(self.staged().1));
        let partial = self.partial();
        let mut out = if moves { self.rebase() } else { Vec::new() };
        if marked {
            let (tombstones, marks) = (format!(", {} AS m", self.tombstones), self.marks("m", "refused"));
            let nothing = literal(&"1".repeat(self.schema.columns.len()));
            let stands_on_refused = self.based(false, &tombstones, |s| {
                format!(" AND {marks} AND m.key = {s}._df_base_key AND m.seq > b.{SEQ} AND m.seq < {s}._df_base_seq")
            });
            out.push(format!(
                "UPDATE {stage} SET _df_unchanged = CASE WHEN _df_op IN ('d', 'm') THEN {nothing} END \
                 WHERE {partial} AND {stands_on_refused}"
            ));
        }
        let values = self.schema.columns.iter().enumerate();
        let values = values.filter(|(_, column)| !self.schema.key.contains(&column.name));
        let again = if self.mode == DeleteMode::Soft { format!(" OR b.{DELETED} IS TRUE") } else { String::new() };
        let sets = values.map(|(i, column)| {
            let name = quote(&column.name);
            let taken = format!("CASE WHEN substr({s}._df_unchanged, {}, 1) = '1'{again} THEN", i + 1);
            if self.is_beside(column) {
                let beside = document_column(i);
                return format!("{name} = {taken} NULL ELSE {s}.{name} END, {beside} = {taken} b.{name} ELSE NULL END");
            }
            let old = (self.into_stage)(column.data_type, &format!("b.{name}"));
            format!("{name} = {taken} {old} ELSE {s}.{name} END")
        });
        let sets: Vec<String> = std::iter::once("_df_state = 0".to_owned()).chain(sets).collect();
        out.push(format!("UPDATE {stage} SET {} FROM {target} AS b WHERE {partial} AND {base}", sets.join(", ")));
        out
    }
}
