//! Every version of a row, and from when to when it was valid.

use super::{Dialect, Merge};
use crate::warehouse::names::{CURRENT, END_SEQ, SEQ, SYNCED_AT, VALID_FROM, VALID_TO};

impl Merge<'_> {
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
        let (keys, apart, gone) = (self.key_list(""), self.apart(), self.gone());
        let (of_v, of_stage) = (self.key_list("v."), self.key_list(&format!("{s}.")));
        let (on_v, on_t) = (self.on_key("v", "k"), self.on_key(t, "n"));
        let of_target = &self.target;
        let ends = format!(
            "WITH k AS (SELECT {keys} FROM {stage} WHERE _df_op <> 'x' GROUP BY {apart}), \
             e AS (\
             SELECT {of_v}, v.{SEQ} AS seq_at, v.{VALID_FROM} AS time_at, 1 AS version FROM {of_target} AS v JOIN k ON {on_v} \
             UNION ALL SELECT {of_v}, v.{END_SEQ}, v.{VALID_TO}, 0 FROM {of_target} AS v JOIN k ON {on_v} \
             WHERE v.{END_SEQ} IS NOT NULL \
             UNION ALL SELECT {of_stage}, {s}.{SEQ}, {s}._df_time, 0 FROM {staged} \
             WHERE {gone})"
        );
        let next = |column: &str| format!("lead({column}) OVER (PARTITION BY {apart} ORDER BY seq_at, version)");
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
}
