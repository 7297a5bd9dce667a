//! A warehouse that keeps every version holds what a model of a few lines says.

use super::model::{Script, scripts};
use super::*;

/// What history must show, from all that ever happened to a key: versions, and what ended them.
#[derive(Debug, Default)]
struct Past {
    versions: BTreeMap<(i64, u64), (i64, Option<String>)>,
    ends: std::collections::BTreeSet<(i64, u64)>,
    truncates: std::collections::BTreeSet<u64>,
    refused: std::collections::BTreeSet<(i64, u64)>,
}

impl Past {
    fn end(&self, id: i64, seq: u64) -> Option<u64> {
        let version = self.versions.range((id, seq + 1)..=(id, u64::MAX)).next().map(|((_, end), _)| *end);
        let end = self.ends.range((id, seq + 1)..=(id, u64::MAX)).next().map(|(_, end)| *end);
        let truncate = self.truncates.range(seq + 1..).next().copied();
        [version, end, truncate].into_iter().flatten().min()
    }

    fn filled(&self, change: &Change) -> Option<(i64, Option<String>)> {
        if let (Some(a), Some(b)) = (change.a, &change.b) {
            return Some((a, b.clone()));
        }
        let valid = |id: i64| {
            let newest = self.versions.range((id, 0)..(id, change.seq)).next_back();
            newest.filter(|((_, seq), _)| self.end(id, *seq).is_none_or(|end| end >= change.seq))
        };
        let base = change.old.unwrap_or(change.id);
        let refused = |seq: u64| self.refused.range((base, seq + 1)..(base, change.seq)).next().is_some();
        let own = change.old.and_then(|_| valid(change.id));
        let (_, (a, b)) = own.or_else(|| valid(base).filter(|((_, seq), _)| !refused(*seq)))?;
        Some((change.a.unwrap_or(*a), change.b.clone().unwrap_or_else(|| b.clone())))
    }

    fn change(&mut self, change: &Change) {
        let at = (change.id, change.seq);
        match change.op {
            Op::Truncate => drop(self.truncates.insert(change.seq)),
            Op::Refused => drop(self.refused.insert(at)),
            Op::Delete => drop(self.ends.insert(at)),
            _ => {
                let filled = self.filled(change);
                if let Some(old) = change.old {
                    self.ends.insert((old, change.seq));
                }
                match filled {
                    _ if self.versions.contains_key(&at) => {}
                    Some(values) => drop(self.versions.insert(at, values)),
                    None if change.old.is_some() => drop(self.ends.insert(at)),
                    None => {}
                }
            }
        }
    }

    fn rows(&self) -> Vec<Vec<Option<String>>> {
        let row = |((id, seq), (a, b)): (&(i64, u64), &(i64, Option<String>))| {
            let end = self.end(*id, *seq);
            let end_seq = end.map(|end| self::seq(end).to_string());
            let current = if end.is_none() { "1" } else { "0" };
            vec![
                Some(id.to_string()),
                Some(self::seq(*seq).to_string()),
                Some(a.to_string()),
                b.clone(),
                end_seq,
                Some(current.to_owned()),
                Some(clock(*seq)),
                end.map(clock),
            ]
        };
        self.versions.iter().map(row).collect()
    }
}

/// The commit time of change `seq`, to the minute and second.
fn clock(seq: u64) -> String {
    format!("{:02}:{:02}", seq / 60, seq % 60)
}

pub(super) async fn run_history(under: &Under, script: &Script, keys: Keys) {
    let contract = keys.contract();
    under.reset().await;
    under.warehouse().ensure(&contract, DeleteMode::History).await.unwrap();
    let mut past = Past::default();
    let clock = match &under.reader {
        Reader::Sqlite(_) => |column: &str| format!("strftime('%M:%S', {column})"),
        #[cfg(feature = "postgres")]
        Reader::Postgres(_) => |column: &str| format!("to_char({column} AT TIME ZONE 'UTC', 'MI:SS')"),
    };
    let query = format!(
        "SELECT CAST({id} AS text), _seq, CAST(a AS text), b, _end_seq, CASE WHEN _current THEN '1' ELSE '0' END, {}, {} \
         FROM things ORDER BY {id}, _seq",
        clock("_valid_from"),
        clock("_valid_to"),
        id = keys.number()
    );
    for (n, cut) in script.cuts.windows(2).enumerate() {
        let rows: Vec<Change> = script.delivered[cut[0]..cut[1]].iter().map(|i| script.changes[*i].clone()).collect();
        let batches = rows.chunks(7).map(|rows| batch(&contract, rows)).collect();
        let load = fold(&contract, DeleteMode::History, batches, true).unwrap();
        let applied = under.warehouse().apply(&unit(n as u64, vec![load])).await.unwrap();
        assert!(applied.accounts["things"].balances());
        rows.iter().for_each(|change| past.change(change));
        let (left, right) = (under.rows(&query).await, past.rows());
        let differ = left.iter().zip(&right).find(|(left, right)| left != right);
        assert!(left.len() == right.len() && differ.is_none(), "after unit {n}: {differ:?}");
    }
}

#[test]
fn sqlite_equals_the_model_history() {
    scripts(60, DeleteMode::History, Under::sqlite);
}

#[cfg(feature = "postgres")]
#[test]
fn postgres_equals_the_model_history() {
    scripts(16, DeleteMode::History, Under::postgres);
}

#[cfg(all(feature = "redshift", feature = "postgres"))]
#[test]
fn redshift_equals_the_model_history() {
    scripts(10, DeleteMode::History, Under::redshift);
}
