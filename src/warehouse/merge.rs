//! The merge: how a staged unit of one table becomes rows, as SQL text. Pure.
//!
//! The stage has the data columns, `_seq`, and the columns named in [`StageColumn`]. Every statement looks at the target
//! as it was before the unit (after its truncate), so bases are found before anything is deleted and keys may be swapped.
//! `_df_state`: 0 = to be applied, 1 = superseded, 2 = incomplete, 3 = nothing to do.

use super::names::{CURRENT, DELETED, END_SEQ, SEQ, SYNCED_AT, VALID_FROM, VALID_TO, literal, quote};
use crate::batch::Seq;
use crate::contract::{Column, TableSchema, Type};
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
}

impl StageColumn {
    pub(crate) const ALL: [Self; 8] =
        [Self::Row, Self::Op, Self::Time, Self::Unchanged, Self::Key, Self::BaseKey, Self::BaseSeq, Self::Arrived];

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
        }
    }
}

/// The name of the stage's column for part `part` of the base's key.
pub(crate) fn base_column(part: usize) -> String {
    format!("_df_base_{part}")
}

/// What a stage holds, so that what it does not need is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Needs {
    /// Rows that need a base.
    pub partial: bool,
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
        let same = |name: &String| format!("{left}.{0} = {right}.{0}", quote(name));
        let within = self
            .range
            .as_ref()
            .map(|Range { column, low, high }| format!("{left}.{} BETWEEN {low} AND {high}", quote(column)));
        self.schema.key.iter().map(same).chain(within).collect::<Vec<_>>().join(" AND ")
    }

    fn on_base(&self, s: &str) -> String {
        let parts = self.schema.key.iter().enumerate();
        parts.map(|(i, name)| format!("b.{} = {s}.{}", quote(name), base_column(i))).collect::<Vec<_>>().join(" AND ")
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
        let value = |c: &Column| (self.into_target)(c.data_type, &format!("{prefix}{}", quote(&c.name)));
        self.schema.columns.iter().map(value).collect::<Vec<_>>().join(", ")
    }

    fn marks(&self, alias: &str, kind: &str) -> String {
        let (topology, table) = (literal(self.topology), literal(self.table));
        format!("{alias}.topology = {topology} AND {alias}.table_name = {table} AND {alias}.kind = '{kind}'")
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

    /// Marks rows that the truncate floor, a newer row or a tombstone supersedes.
    pub(crate) fn guard(&self, floor: Option<Seq>, marked: bool) -> Vec<String> {
        let ((stage, s), (target, t)) = (self.staged(), self.targeted());
        let key = self.on_key(t, s);
        let mut out = Vec::new();
        if self.mode == DeleteMode::History {
            for (there, ops) in [(SEQ, "('r', 'c', 'u')"), (END_SEQ, "('d', 'm')")] {
                out.push(format!(
                    "UPDATE {stage} SET _df_state = 1 FROM {target} \
                     WHERE {key} AND {t}.{there} = {s}.{SEQ} AND {s}._df_op IN {ops}"
                ));
            }
            return out;
        }
        if let Some(floor) = floor {
            let (stage, floor) = (&self.stage, literal(&floor.to_string()));
            out.push(format!("UPDATE {stage} SET _df_state = 1 WHERE {SEQ} < {floor} AND _df_op <> 'x'"));
        }
        out.push(format!(
            "UPDATE {stage} SET _df_state = 1 FROM {target} \
             WHERE {key} AND {t}.{SEQ} >= {s}.{SEQ} AND {s}._df_op <> 'x'"
        ));
        if marked {
            let (tombstones, marks) = (&self.tombstones, self.marks("m", "deleted"));
            out.push(format!(
                "UPDATE {stage} SET _df_state = 1 FROM {tombstones} AS m \
                 WHERE {marks} AND m.key = {s}._df_key AND m.seq >= {s}.{SEQ} AND {s}._df_op <> 'x'"
            ));
        }
        out
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
        let (own, moved) = (self.on_key(t, s), self.moved());
        let parts = self.schema.key.iter().enumerate();
        let sets = parts.map(|(i, name)| format!("{} = {s}.{}", base_column(i), quote(name))).collect::<Vec<_>>();
        let rebase = |there: &str| {
            format!(
                "UPDATE {stage} SET {}, _df_base_key = NULL FROM {target} WHERE {s}._df_state = 0 \
                 AND {s}._df_unchanged IS NOT NULL AND {moved} AND {own} AND {there}",
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

    /// Marks partial rows without a base as incomplete, and fills the others. Soft deletes without one have nothing to do;
    /// those that stand on a refused version take nothing from the changes after it.
    pub(crate) fn fill(&self, marked: bool) -> Vec<String> {
        let ((stage, s), target, base) = (self.staged(), &self.target, self.base(self.staged().1));
        let mut out = self.rebase();
        out.push(format!(
            "UPDATE {stage} SET _df_state = CASE WHEN _df_op IN ('d', 'm') THEN 3 ELSE 2 END \
             WHERE _df_state = 0 AND _df_unchanged IS NOT NULL AND {}",
            self.based(true, "", |_| String::new())
        ));
        if marked {
            let (tombstones, marks) = (format!(", {} AS m", self.tombstones), self.marks("m", "refused"));
            let nothing = literal(&"1".repeat(self.schema.columns.len()));
            let stands_on_refused = self.based(false, &tombstones, |s| {
                format!(" AND {marks} AND m.key = {s}._df_base_key AND m.seq > b.{SEQ} AND m.seq < {s}._df_base_seq")
            });
            out.push(format!(
                "UPDATE {stage} SET _df_state = CASE WHEN _df_op IN ('d', 'm') THEN 0 ELSE 2 END, \
                 _df_unchanged = {nothing} WHERE _df_state = 0 AND _df_unchanged IS NOT NULL AND {stands_on_refused}"
            ));
        }
        let values = self.schema.columns.iter().enumerate();
        let values = values.filter(|(_, column)| !self.schema.key.contains(&column.name));
        let again = if self.mode == DeleteMode::Soft { format!(" OR b.{DELETED} IS TRUE") } else { String::new() };
        let sets: Vec<String> = values
            .map(|(i, column)| {
                let name = quote(&column.name);
                let old = (self.into_stage)(column.data_type, &format!("b.{name}"));
                let bit = format!("substr({s}._df_unchanged, {}, 1) = '1'", i + 1);
                format!("{name} = CASE WHEN {bit}{again} THEN {old} ELSE {s}.{name} END")
            })
            .collect();
        if !sets.is_empty() {
            out.push(format!(
                "UPDATE {stage} SET {} FROM {target} AS b \
                 WHERE {s}._df_state = 0 AND {s}._df_unchanged IS NOT NULL AND {base}",
                sets.join(", ")
            ));
        }
        out
    }

    /// Whether the staged row `s` is an incomplete move: what had its key before is gone, although what has it now
    /// cannot be shown.
    fn unmoved(&self) -> String {
        format!("({}._df_state = 2 AND {})", self.staged().1, self.moved())
    }

    /// Whether the staged row `s` stands on another key than its own.
    fn moved(&self) -> String {
        let (_, s) = self.staged();
        let parts = self.schema.key.iter().enumerate();
        let differ = parts.map(|(i, name)| format!("{s}.{} <> {s}.{}", quote(name), base_column(i)));
        format!("({})", differ.collect::<Vec<_>>().join(" OR "))
    }

    /// Whether the staged row `s` takes its key away.
    fn gone(&self) -> String {
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

    /// History: new versions come in, and every version of their keys ends where the next change of its key begins.
    pub(crate) fn versions(&self) -> Vec<String> {
        let (stage, now) = (&self.stage, self.dialect.now());
        let ((staged, s), (target, t)) = (self.staged(), self.targeted());
        // Without a unique key the guard is what keeps versions from coming twice.
        let again = if self.dialect == Dialect::Redshift { "" } else { " ON CONFLICT DO NOTHING" };
        let insert = format!(
            "INSERT INTO {target} ({names}, {SEQ}, {SYNCED_AT}, {VALID_FROM}, {CURRENT}) \
             SELECT {columns}, s.{SEQ}, {now}, s._df_time, true FROM {stage} AS s \
             WHERE s._df_state = 0 AND s._df_op IN ('r', 'c', 'u'){again}",
            names = self.columns(""),
            columns = self.values("s."),
            target = self.target
        );
        let (keys, gone) = (self.key_list(""), self.gone());
        let (of_v, of_stage) = (self.key_list("v."), self.key_list(&format!("{s}.")));
        let (on_v, on_t) = (self.on_key("v", "k"), self.on_key(t, "n"));
        let of_target = &self.target;
        let ends = format!(
            "WITH k AS (SELECT DISTINCT {keys} FROM {stage} WHERE _df_op <> 'x'), \
             e AS (\
             SELECT {of_v}, v.{SEQ} AS seq_at, v.{VALID_FROM} AS time_at, 1 AS version FROM {of_target} AS v JOIN k ON {on_v} \
             UNION ALL SELECT {of_v}, v.{END_SEQ}, v.{VALID_TO}, 0 FROM {of_target} AS v JOIN k ON {on_v} \
             WHERE v.{END_SEQ} IS NOT NULL \
             UNION ALL SELECT {of_stage}, {s}.{SEQ}, {s}._df_time, 0 FROM {staged} \
             WHERE {gone})"
        );
        let next = |column: &str| format!("lead({column}) OVER (PARTITION BY {keys} ORDER BY seq_at, version)");
        let (next_seq, next_time) = (next("seq_at"), next("time_at"));
        let follows =
            format!("SELECT {keys}, seq_at, version, {next_seq} AS next_seq, {next_time} AS next_time FROM e");
        let update = |n: &str| {
            format!(
                "UPDATE {target} SET {END_SEQ} = n.next_seq, {VALID_TO} = n.next_time, {CURRENT} = false FROM {n} \
                 WHERE {on_t} AND {t}.{SEQ} = n.seq_at AND n.version = 1 AND n.next_seq IS NOT NULL \
                 AND ({t}.{END_SEQ} IS NULL OR {t}.{END_SEQ} > n.next_seq)"
            )
        };
        if self.dialect == Dialect::Redshift {
            let follow = self.followers();
            let made = format!("CREATE TEMP TABLE {follow} AS {ends} {follows}");
            return vec![insert, made, update(&format!("{follow} AS n"))];
        }
        vec![insert, format!("{ends}, n AS ({follows}) {}", update("n"))]
    }

    /// History without updates from a query: the table in which each version's end is worked out, gone with the stage.
    pub(crate) fn followers(&self) -> String {
        format!("{}_n", self.stage)
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

    /// The whole merge of a stage, in order. `low`: the truncate floor (with its time as a literal) when a staged row is
    /// older than it.
    pub(crate) fn statements(&self, needs: Needs, low: Option<(Seq, String)>, keep: bool) -> Vec<String> {
        let marked = needs.marked;
        let mut out = if marked { self.refuse() } else { Vec::new() };
        out.extend(self.guard(low.as_ref().map(|(seq, _)| *seq), marked));
        if needs.partial {
            out.extend(self.fill(marked));
        }
        let unique = self.dialect != Dialect::Redshift;
        match self.mode {
            DeleteMode::Soft if needs.partial && !unique => {
                out.push(self.hide());
                out.extend(self.replace(true, true));
            }
            DeleteMode::Hard | DeleteMode::Soft if !unique => out.extend(self.replace(true, needs.gone)),
            DeleteMode::Hard if needs.gone => out.extend([self.delete(), self.upsert(true)]),
            DeleteMode::Hard => out.push(self.upsert(true)),
            DeleteMode::Soft if needs.partial => out.extend([self.hide(), self.upsert(true)]),
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

    /// How many counted rows are applied, superseded and incomplete.
    pub(crate) fn count(&self) -> String {
        let count = |states: &str| format!("count(CASE WHEN _df_state IN ({states}) THEN 1 END)");
        let (applied, superseded, incomplete) = (count("0, 3"), count("1"), count("2"));
        let stage = &self.stage;
        format!("SELECT {applied}, {superseded}, {incomplete} FROM {stage} WHERE _df_op NOT IN ('m', 'x')")
    }

    /// The numbers of the incomplete rows.
    pub(crate) fn incomplete(&self) -> String {
        format!("SELECT _df_row FROM {} WHERE _df_state = 2 ORDER BY _df_row", self.stage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{Column, Type};

    fn statements(dialect: Dialect, mode: DeleteMode, needs: Needs) -> String {
        let columns = vec![Column::new("id", Type::BigInt), Column::new("a b", Type::TEXT)];
        let schema = TableSchema { columns, key: vec!["id".into()] };
        let merge = Merge {
            dialect,
            schema: &schema,
            mode,
            range: None,
            target: "\"s\".\"t\"".into(),
            stage: "stage".into(),
            tombstones: "tombs".into(),
            topology: "top",
            table: "t",
            into_stage: |data_type, value| match data_type {
                Type::BigInt => format!("CAST({value} AS bigint)"),
                _ => format!("CAST({value} AS text)"),
            },
            into_target: |_, value| value.to_owned(),
        };
        merge.statements(needs, None, true).join(";\n")
    }

    const ALL: Needs = Needs { partial: true, gone: true, marked: true };

    #[test]
    fn hard_in_full() {
        insta::assert_snapshot!(statements(Dialect::Postgres, DeleteMode::Hard, ALL), @r#"
        INSERT INTO tombs (topology, table_name, key, kind, seq) SELECT 'top', 't', _df_key, 'refused', _seq FROM stage WHERE _df_op = 'x' ON CONFLICT DO NOTHING;
        UPDATE stage AS s SET _df_state = 1 FROM "s"."t" AS t WHERE t."id" = s."id" AND t._seq >= s._seq AND s._df_op <> 'x';
        UPDATE stage AS s SET _df_state = 1 FROM tombs AS m WHERE m.topology = 'top' AND m.table_name = 't' AND m.kind = 'deleted' AND m.key = s._df_key AND m.seq >= s._seq AND s._df_op <> 'x';
        UPDATE stage AS s SET _df_base_0 = s."id", _df_base_key = NULL FROM "s"."t" AS t WHERE s._df_state = 0 AND s._df_unchanged IS NOT NULL AND (s."id" <> s._df_base_0) AND t."id" = s."id" AND t._seq >= s._df_arrived;
        UPDATE stage AS s SET _df_state = CASE WHEN _df_op IN ('d', 'm') THEN 3 ELSE 2 END WHERE _df_state = 0 AND _df_unchanged IS NOT NULL AND NOT EXISTS (SELECT 1 FROM "s"."t" AS b WHERE b."id" = s._df_base_0 AND (b._seq < s._df_base_seq OR (b."id" = s."id")));
        UPDATE stage AS s SET _df_state = CASE WHEN _df_op IN ('d', 'm') THEN 0 ELSE 2 END, _df_unchanged = '11' WHERE _df_state = 0 AND _df_unchanged IS NOT NULL AND EXISTS (SELECT 1 FROM "s"."t" AS b, tombs AS m WHERE b."id" = s._df_base_0 AND (b._seq < s._df_base_seq OR (b."id" = s."id")) AND m.topology = 'top' AND m.table_name = 't' AND m.kind = 'refused' AND m.key = s._df_base_key AND m.seq > b._seq AND m.seq < s._df_base_seq);
        UPDATE stage AS s SET "a b" = CASE WHEN substr(s._df_unchanged, 2, 1) = '1' THEN CAST(b."a b" AS text) ELSE s."a b" END FROM "s"."t" AS b WHERE s._df_state = 0 AND s._df_unchanged IS NOT NULL AND b."id" = s._df_base_0 AND (b._seq < s._df_base_seq OR (b."id" = s."id"));
        DELETE FROM "s"."t" AS t USING stage AS s WHERE t."id" = s."id" AND ((s._df_state = 0 AND s._df_op IN ('d', 'm')) OR (s._df_state = 2 AND (s."id" <> s._df_base_0)));
        INSERT INTO "s"."t" AS t ("id", "a b", _seq, _synced_at) SELECT s."id", s."a b", s._seq, now() FROM stage AS s WHERE s._df_state = 0 AND s._df_op IN ('r', 'c', 'u') ON CONFLICT ("id") DO UPDATE SET "a b" = excluded."a b", _seq = excluded._seq, _synced_at = excluded._synced_at WHERE t._seq < excluded._seq;
        DELETE FROM tombs WHERE topology = 'top' AND table_name = 't' AND EXISTS (SELECT 1 FROM stage AS s WHERE s._df_key = tombs.key AND s._df_state = 0 AND s._df_op IN ('r', 'c', 'u') AND s._seq > tombs.seq);
        INSERT INTO tombs (topology, table_name, key, kind, seq) SELECT 'top', 't', _df_key, 'deleted', _seq FROM stage AS s WHERE ((s._df_state = 0 AND s._df_op IN ('d', 'm')) OR (s._df_state = 2 AND (s."id" <> s._df_base_0))) OR s._df_state = 3 ON CONFLICT DO NOTHING
        "#);
    }

    #[test]
    fn only_what_is_needed() {
        let needs = Needs { partial: false, gone: true, marked: false };
        insta::assert_snapshot!(statements(Dialect::Sqlite, DeleteMode::Hard, needs), @r#"
        UPDATE stage AS s SET _df_state = 1 FROM "s"."t" AS t WHERE t."id" = s."id" AND t._seq >= s._seq AND s._df_op <> 'x';
        DELETE FROM "s"."t" WHERE rowid IN (SELECT t.rowid FROM stage AS s JOIN "s"."t" AS t ON t."id" = s."id" WHERE ((s._df_state = 0 AND s._df_op IN ('d', 'm')) OR (s._df_state = 2 AND (s."id" <> s._df_base_0))));
        INSERT INTO "s"."t" AS t ("id", "a b", _seq, _synced_at) SELECT s."id", s."a b", s._seq, strftime('%Y-%m-%dT%H:%M:%fZ', 'now') FROM stage AS s WHERE s._df_state = 0 AND s._df_op IN ('r', 'c', 'u') ON CONFLICT ("id") DO UPDATE SET "a b" = excluded."a b", _seq = excluded._seq, _synced_at = excluded._synced_at WHERE t._seq < excluded._seq
        "#);
    }

    #[test]
    fn soft_rows_stay() {
        let needs = Needs { partial: true, gone: true, marked: false };
        insta::assert_snapshot!(statements(Dialect::Postgres, DeleteMode::Soft, needs), @r#"
        UPDATE stage AS s SET _df_state = 1 FROM "s"."t" AS t WHERE t."id" = s."id" AND t._seq >= s._seq AND s._df_op <> 'x';
        UPDATE stage AS s SET _df_base_0 = s."id", _df_base_key = NULL FROM "s"."t" AS t WHERE s._df_state = 0 AND s._df_unchanged IS NOT NULL AND (s."id" <> s._df_base_0) AND t."id" = s."id" AND t._seq >= s._df_arrived AND t._deleted IS NOT TRUE;
        UPDATE stage AS s SET _df_base_0 = s."id", _df_base_key = NULL FROM "s"."t" AS t WHERE s._df_state = 0 AND s._df_unchanged IS NOT NULL AND (s."id" <> s._df_base_0) AND t."id" = s."id" AND s._df_op IN ('d', 'm') AND NOT EXISTS (SELECT 1 FROM "s"."t" AS b WHERE b."id" = s._df_base_0 AND (b._seq < s._df_base_seq OR (b."id" = s."id")) AND (b._deleted IS NOT TRUE OR (s._df_op IN ('d', 'm') AND b."id" = s."id")));
        UPDATE stage AS s SET _df_state = CASE WHEN _df_op IN ('d', 'm') THEN 3 ELSE 2 END WHERE _df_state = 0 AND _df_unchanged IS NOT NULL AND NOT EXISTS (SELECT 1 FROM "s"."t" AS b WHERE b."id" = s._df_base_0 AND (b._seq < s._df_base_seq OR (b."id" = s."id")) AND (b._deleted IS NOT TRUE OR (s._df_op IN ('d', 'm') AND b."id" = s."id")));
        UPDATE stage AS s SET "a b" = CASE WHEN substr(s._df_unchanged, 2, 1) = '1' OR b._deleted IS TRUE THEN CAST(b."a b" AS text) ELSE s."a b" END FROM "s"."t" AS b WHERE s._df_state = 0 AND s._df_unchanged IS NOT NULL AND b."id" = s._df_base_0 AND (b._seq < s._df_base_seq OR (b."id" = s."id")) AND (b._deleted IS NOT TRUE OR (s._df_op IN ('d', 'm') AND b."id" = s."id"));
        UPDATE "s"."t" AS t SET _deleted = true, _seq = s._seq, _synced_at = now() FROM stage AS s WHERE t."id" = s."id" AND (s._df_state = 2 AND (s."id" <> s._df_base_0));
        INSERT INTO "s"."t" AS t ("id", "a b", _seq, _synced_at, _deleted) SELECT s."id", s."a b", s._seq, now(), s._df_op IN ('d', 'm') FROM stage AS s WHERE s._df_state = 0 AND s._df_op IN ('r', 'c', 'u', 'd', 'm') ON CONFLICT ("id") DO UPDATE SET "a b" = excluded."a b", _seq = excluded._seq, _synced_at = excluded._synced_at, _deleted = excluded._deleted WHERE t._seq < excluded._seq
        "#);
    }

    #[test]
    fn history_ends_versions() {
        let needs = Needs { partial: false, gone: true, marked: false };
        insta::assert_snapshot!(statements(Dialect::Sqlite, DeleteMode::History, needs), @r#"
        UPDATE stage AS s SET _df_state = 1 FROM "s"."t" AS t WHERE t."id" = s."id" AND t._seq = s._seq AND s._df_op IN ('r', 'c', 'u');
        UPDATE stage AS s SET _df_state = 1 FROM "s"."t" AS t WHERE t."id" = s."id" AND t._end_seq = s._seq AND s._df_op IN ('d', 'm');
        INSERT INTO "s"."t" ("id", "a b", _seq, _synced_at, _valid_from, _current) SELECT s."id", s."a b", s._seq, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), s._df_time, true FROM stage AS s WHERE s._df_state = 0 AND s._df_op IN ('r', 'c', 'u') ON CONFLICT DO NOTHING;
        WITH k AS (SELECT DISTINCT "id" FROM stage WHERE _df_op <> 'x'), e AS (SELECT v."id", v._seq AS seq_at, v._valid_from AS time_at, 1 AS version FROM "s"."t" AS v JOIN k ON v."id" = k."id" UNION ALL SELECT v."id", v._end_seq, v._valid_to, 0 FROM "s"."t" AS v JOIN k ON v."id" = k."id" WHERE v._end_seq IS NOT NULL UNION ALL SELECT s."id", s._seq, s._df_time, 0 FROM stage AS s WHERE ((s._df_state = 0 AND s._df_op IN ('d', 'm')) OR (s._df_state = 2 AND (s."id" <> s._df_base_0)))), n AS (SELECT "id", seq_at, version, lead(seq_at) OVER (PARTITION BY "id" ORDER BY seq_at, version) AS next_seq, lead(time_at) OVER (PARTITION BY "id" ORDER BY seq_at, version) AS next_time FROM e) UPDATE "s"."t" AS t SET _end_seq = n.next_seq, _valid_to = n.next_time, _current = false FROM n WHERE t."id" = n."id" AND t._seq = n.seq_at AND n.version = 1 AND n.next_seq IS NOT NULL AND (t._end_seq IS NULL OR t._end_seq > n.next_seq)
        "#);
    }
}
