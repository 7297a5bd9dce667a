//! What a unit may not touch any more, because something newer is there.

use super::Merge;
use crate::batch::Seq;
use crate::epoch::DeleteMode;
use crate::warehouse::names::{END_SEQ, SEQ, literal};

impl Merge<'_> {
    /// Marks rows that the truncate floor, a newer row or a tombstone supersedes.
    pub(crate) fn guard(&self, floor: Option<Seq>, marked: bool) -> Vec<String> {
        let ((stage, s), (target, t)) = (self.staged(), self.targeted());
        let key = self.on_key(t, s);
        let mut out = Vec::new();
        if self.mode == DeleteMode::History {
            return vec![format!(
                "UPDATE {stage} SET _df_state = 1 FROM {target} WHERE {key} \
                 AND (({t}.{SEQ} = {s}.{SEQ} AND {s}._df_op IN ('r', 'c', 'u')) \
                 OR ({t}.{END_SEQ} = {s}.{SEQ} AND {s}._df_op IN ('d', 'm')))"
            )];
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
}
