//! The merge: how a staged unit of one table becomes rows, as SQL text. Pure.
//!
//! The stage has the data columns, `_seq`, and the columns named in [`StageColumn`]. Every statement looks at the target
//! as it was before the unit (after its truncate), so bases are found before anything is deleted and keys may be swapped.
//! `_df_state`: 0 = to be applied, 1 = superseded, 2 = incomplete, 3 = nothing to do. What needs a base is staged as one of
//! the last two, which it stays unless a base is found.

mod base;
mod guard;
mod history;
mod rows;
mod tombstones;

use super::names::{CURRENT, END_SEQ, SEQ, VALID_TO, literal, quote};
use crate::batch::Seq;
use crate::contract::{Column, Limits, TableSchema, Type};
use crate::epoch::DeleteMode;

/// What differs between the warehouses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    #[allow(dead_code, reason = "only with its feature")]
    Postgres,
    Sqlite,
    /// No alias on what is changed, nothing on conflict, no sub-query that looks outside: what has no unique key and
    /// spreads its rows over nodes.
    #[allow(dead_code, reason = "only with its feature")]
    Redshift,
}

impl Dialect {
    pub(crate) fn now(self) -> &'static str {
        match self {
            Self::Postgres => "now()",
            Self::Sqlite => "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')",
            Self::Redshift => "getdate()",
        }
    }
}

/// A value's SQL, given as another type.
pub(crate) type Convert = fn(Type, &str) -> String;

/// The columns of a stage beside the data columns and `_seq`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StageColumn {
    /// The row's number in the unit's table.
    Row,
    /// The letter of its [`Op`](crate::batch::Op).
    Op,
    /// Commit time at the source, or null.
    Time,
    /// Null, or `0` and `1` per column (`1` = unchanged): the row needs a base.
    Unchanged,
    /// The key as text; null unless tombstones matter.
    Key,
    /// The base's key as text; null unless tombstones matter.
    BaseKey,
    /// The first change that stands on the base, or the move that left its key.
    BaseSeq,
    /// After a move: how new a row of the own key must be to be the base.
    Arrived,
    /// What the merge has decided on the row, so far.
    State,
}

impl StageColumn {
    pub(crate) const ALL: [Self; 9] = [
        Self::Row,
        Self::Op,
        Self::Time,
        Self::Unchanged,
        Self::Key,
        Self::BaseKey,
        Self::BaseSeq,
        Self::Arrived,
        Self::State,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Row => "_df_row",
            Self::Op => "_df_op",
            Self::Time => "_df_time",
            Self::Unchanged => "_df_unchanged",
            Self::Key => "_df_key",
            Self::BaseKey => "_df_base_key",
            Self::BaseSeq => "_df_base_seq",
            Self::Arrived => "_df_arrived",
            Self::State => "_df_state",
        }
    }
}

/// The name of the stage's column for part `part` of the base's key.
pub(crate) fn base_column(part: usize) -> String {
    format!("_df_base_{part}")
}

/// The name of the stage's column for what a partial row takes from the document in column `column` of its base.
pub(crate) fn document_column(column: usize) -> String {
    format!("_df_doc_{column}")
}

/// What a stage holds, so that what it does not need is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Needs {
    /// Rows that need a base.
    pub partial: bool,
    /// Rows that moved to another key.
    pub moves: bool,
    /// Deletes, or moves that may turn out to be incomplete.
    pub gone: bool,
    /// Tombstones or refused versions matter: `_df_key` is filled.
    pub marked: bool,
}

/// Between which literals a column's values are, in every staged row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Range {
    pub column: String,
    pub low: String,
    pub high: String,
}

/// The merge of one table with a key.
#[derive(Debug, Clone)]
pub(crate) struct Merge<'a> {
    pub dialect: Dialect,
    pub schema: &'a TableSchema,
    pub mode: DeleteMode,
    /// Where the target need not be looked at outside of it: said beside every comparison of keys, from which it follows.
    pub range: Option<Range>,
    /// Quoted and qualified names.
    pub target: String,
    pub stage: String,
    pub tombstones: String,
    /// The topology and the table, as the tombstones name them.
    pub topology: &'a str,
    pub table: &'a str,
    /// A value of the target as the stage's type, and the reverse.
    pub into_stage: Convert,
    pub into_target: Convert,
    /// Documents of the target are no texts and may be too long for one: what a partial row takes of them stands in a
    /// column beside its own, which is null then (see [`document_column`]).
    pub documents_beside: bool,
}

impl Merge<'_> {
    /// The stage where it is changed or joined, and its name in conditions.
    fn staged(&self) -> (String, &str) {
        match self.dialect {
            Dialect::Redshift => (self.stage.clone(), &self.stage),
            _ => (format!("{} AS s", self.stage), "s"),
        }
    }

    /// The same of the target.
    fn targeted(&self) -> (String, &str) {
        match self.dialect {
            Dialect::Redshift => (self.target.clone(), &self.target),
            _ => (format!("{} AS t", self.target), "t"),
        }
    }

    fn on_key(&self, left: &str, right: &str) -> String {
        let of = |side: &str, name: &str| format!("{side}.{}", quote(name));
        let same = |name: &String| self.compared(name, " = ", " AND ", &of(left, name), &of(right, name));
        let within = self
            .range
            .as_ref()
            .map(|Range { column, low, high }| format!("{left}.{} BETWEEN {low} AND {high}", quote(column)));
        self.schema.key.iter().map(same).chain(within).collect::<Vec<_>>().join(" AND ")
    }

    fn on_base(&self, s: &str) -> String {
        let base = |(i, name): (usize, &String)| {
            self.compared(name, " = ", " AND ", &format!("b.{}", quote(name)), &format!("{s}.{}", base_column(i)))
        };
        self.schema.key.iter().enumerate().map(base).collect::<Vec<_>>().join(" AND ")
    }

    /// Compares two values of a key's column.
    fn compared(&self, name: &str, with: &str, and: &str, left: &str, right: &str) -> String {
        let bare = format!("{left}{with}{right}");
        if self.ignores_blanks(name) {
            return format!("{bare}{and}octet_length({left}){with}octet_length({right})");
        }
        bare
    }

    /// Whether blanks at the end of this column's values do not count where they are compared, grouped or made distinct.
    /// They do for the length, which is therefore looked at too. (A key as text, as tombstones have it, ends in a bracket.)
    fn ignores_blanks(&self, name: &str) -> bool {
        let as_text = |column: &Column| Limits::REDSHIFT.bytes_of(column.data_type).is_some();
        self.dialect == Dialect::Redshift && self.schema.column(name).is_some_and(as_text)
    }

    /// What keeps keys apart, in a list.
    fn apart(&self) -> String {
        let part = |name: &String| match (quote(name), self.ignores_blanks(name)) {
            (column, true) => format!("{column}, octet_length({column})"),
            (column, false) => column,
        };
        self.schema.key.iter().map(part).collect::<Vec<_>>().join(", ")
    }

    fn key_list(&self, prefix: &str) -> String {
        self.schema.key.iter().map(|name| format!("{prefix}{}", quote(name))).collect::<Vec<_>>().join(", ")
    }

    fn columns(&self, prefix: &str) -> String {
        let names = self.schema.columns.iter().map(|c| format!("{prefix}{}", quote(&c.name)));
        names.collect::<Vec<_>>().join(", ")
    }

    /// The staged columns as the target takes them.
    pub(crate) fn values(&self, prefix: &str) -> String {
        let value = |(index, column): (usize, &Column)| {
            let staged = format!("{prefix}{}", quote(&column.name));
            let value = (self.into_target)(column.data_type, &staged);
            match self.is_beside(column) {
                true => {
                    format!("CASE WHEN {staged} IS NULL THEN {prefix}{} ELSE {value} END", document_column(index))
                }
                false => value,
            }
        };
        self.schema.columns.iter().enumerate().map(value).collect::<Vec<_>>().join(", ")
    }

    fn is_beside(&self, column: &Column) -> bool {
        self.documents_beside && column.data_type == Type::Json
    }

    /// Empties the table up to `floor`; in history mode ends what is valid (at `time`, a literal or `NULL`).
    pub(crate) fn truncate(&self, floor: Seq, time: &str) -> String {
        let (target, floor) = (&self.target, literal(&floor.to_string()));
        if self.mode == DeleteMode::History {
            return format!(
                "UPDATE {target} SET {END_SEQ} = {floor}, {VALID_TO} = {time}, {CURRENT} = false \
                 WHERE {SEQ} < {floor} AND ({END_SEQ} IS NULL OR {END_SEQ} > {floor})"
            );
        }
        format!("DELETE FROM {target} WHERE {SEQ} < {floor}")
    }

    /// The whole merge of a stage, in order. `low`: the truncate floor (with its time as a literal) when a staged row is
    /// older than it.
    pub(crate) fn statements(&self, needs: Needs, low: Option<(Seq, String)>, keep: bool) -> Vec<String> {
        let marked = needs.marked;
        let mut out = if marked { self.refuse() } else { Vec::new() };
        out.extend(self.guard(low.as_ref().map(|(seq, _)| *seq), marked));
        if needs.partial {
            out.extend(self.fill(marked, needs.moves));
        }
        let unique = self.dialect != Dialect::Redshift;
        match self.mode {
            DeleteMode::Soft if needs.moves && !unique => {
                out.push(self.hide());
                out.extend(self.replace(true, true));
            }
            DeleteMode::Hard | DeleteMode::Soft if !unique => out.extend(self.replace(true, needs.gone)),
            DeleteMode::Hard if needs.gone => out.extend([self.delete(), self.upsert(true)]),
            DeleteMode::Hard => out.push(self.upsert(true)),
            DeleteMode::Soft if needs.moves => out.extend([self.hide(), self.upsert(true)]),
            DeleteMode::Soft => out.push(self.upsert(true)),
            DeleteMode::History => {
                out.extend(self.versions());
                out.extend(low.map(|(seq, time)| self.truncate(seq, &time)));
            }
        }
        if marked {
            out.extend(self.bury(keep));
        }
        out
    }

    /// How many counted rows are applied, superseded and incomplete, and how many rows there are: four numbers.
    pub(crate) fn count(&self) -> String {
        let count =
            |states: &str| format!("count(CASE WHEN _df_op NOT IN ('m', 'x') AND _df_state IN ({states}) THEN 1 END)");
        let (applied, superseded, incomplete) = (count("0, 3"), count("1"), count("2"));
        format!("SELECT {applied}, {superseded}, {incomplete}, count(*) FROM {}", self.stage)
    }

    /// The numbers of the incomplete rows.
    pub(crate) fn incomplete(&self) -> String {
        format!("SELECT _df_row FROM {} WHERE _df_state = 2 ORDER BY _df_row", self.stage)
    }

    /// [`Merge::count`], and a row for each number of [`Merge::incomplete`], of which the other columns are null.
    #[cfg(feature = "redshift")]
    pub(crate) fn count_and_incomplete(&self) -> String {
        let none = "CAST(NULL AS bigint)";
        format!(
            "{} UNION ALL SELECT _df_row, {none}, {none}, {none} FROM {} WHERE _df_state = 2",
            self.count(),
            self.stage
        )
    }
}

#[cfg(test)]
mod tests;
