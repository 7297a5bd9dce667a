//! One table: digests of both sides, then the rows in the ranges that differ, then turns.

use std::collections::HashMap;

use super::digest::{Chosen, Digest, row_hash};
use super::excuse::Excuses;
use super::history::History;
use super::judge::{Shown, Turn, Verdict, judge};
use super::layout::Layout;
use super::report::{Difference, Outcome, TableReport};
use super::sides::{Reading, Refused, Sides};
use crate::epoch::EpochNumber;
use crate::error::Result;

/// Rows of each side that are looked at one by one.
const MOST_ROWS: u64 = 300_000;
/// Differing rows that are followed.
const MOST_FOLLOWED: usize = 10_000;
/// Turns after which what still moves is left.
const TURNS: usize = 12;
/// Turns after which the log is asked, too: most rows have come to rest by then.
const TURNS_ALONE: usize = 2;

/// What both sides show, by key.
type Turns = HashMap<Box<[u8]>, Turn>;

/// One reading of the keys on both sides.
struct Looked {
    layout: Layout,
    refused: Refused,
    turns: Turns,
    /// The epoch that the warehouse held then, if it was one alone.
    held: Option<EpochNumber>,
}

/// A table being compared.
pub struct Comparison<'a> {
    sides: Sides<'a>,
    excuses: &'a Excuses,
    show: usize,
    report: TableReport,
}

impl<'a> Comparison<'a> {
    /// Nothing has been read yet.
    pub fn new(sides: Sides<'a>, excuses: &'a Excuses, show: usize) -> Self {
        let report = TableReport::new(sides.table);
        Self { sides, excuses, show, report }
    }

    /// What is known so far.
    pub fn report(&self) -> TableReport {
        self.report.clone()
    }

    /// Compares to the end.
    pub async fn run(&mut self) -> Result<TableReport> {
        let Some(mut differing) = self.digests().await? else { return self.unread().await };
        let rows: u64 = differing.iter().map(|(_, rows)| rows).sum();
        if rows > MOST_ROWS {
            // Much differs, most likely because the warehouse is far behind.
            if let Some(why) = self.sides.meet().await? {
                return Ok(self.behind(&differing, &why));
            }
            match self.digests().await? {
                Some(found) => differing = found,
                None => return self.unread().await,
            }
        }
        if differing.is_empty() {
            return Ok(self.report());
        }
        let chosen = Chosen::among(&differing, MOST_ROWS);
        self.report.ranges_left_out = chosen.left_out;
        let Some(reading) = self.rows(&chosen).await? else { return self.unread().await };
        match reading {
            Err(why) => Ok(self.behind(&differing, &why)),
            Ok((layout, turns)) => self.follow(layout, turns).await,
        }
    }

    /// The log knows nothing of the table.
    async fn unread(&mut self) -> Result<TableReport> {
        let why = "nothing of the table has been read yet; is `dataflow run` running?";
        Ok(self.report().not_compared(why))
    }

    fn behind(&self, differing: &[(usize, u64)], why: &str) -> TableReport {
        let ranges = differing.len();
        self.report().not_compared(format!(
            "{ranges} ranges of keys differ, and it cannot be said whether that will pass: {why}"
        ))
    }

    /// Digests of both sides; the ranges that differ, with their rows.
    async fn digests(&mut self) -> Result<Option<Vec<(usize, u64)>>> {
        let mut expected = Digest::new();
        let mut take = |key: &[u8], row: &[u8]| {
            expected.add(key, row);
            Ok(())
        };
        let Some(reading) = self.sides.expected(None, &mut take).await? else { return Ok(None) };
        let (mut held, mut rows) = (Digest::new(), 0);
        let refused = &reading.refused;
        let take = &mut |key: &[u8], row: &[u8], _: Option<&str>| {
            rows += 1;
            if !refused.contains_key(key) {
                held.add(key, row);
            }
            Ok(())
        };
        self.sides.held(&reading.layout, None, take).await?;
        self.note(&reading, rows);
        Ok(Some(expected.differing(&held)))
    }

    fn note(&mut self, reading: &Reading, warehouse_rows: u64) {
        let report = &mut self.report;
        report.source_rows = reading.passed.read;
        report.filtered = reading.passed.filtered;
        report.warehouse_rows = warehouse_rows;
        report.columns_left_out.clone_from(&reading.layout.left_out);
        report.excused.clear();
        for rule in reading.refused.values() {
            *report.excused.entry(format!("refused ({rule})")).or_default() += 1;
        }
        if reading.passed.unknown > 0 {
            report.excused.insert("refused (no key)".to_owned(), reading.passed.unknown);
        }
    }

    /// The keys of the chosen ranges that differ, once the warehouse has come to the reading; `Err` says why it has not.
    async fn rows(&mut self, chosen: &Chosen) -> Result<Option<Result<(Layout, Turns), String>>> {
        let mut turns = Turns::new();
        let mut take = |key: &[u8], row: &[u8]| {
            if chosen.takes(key) {
                let turn = turns.entry(key.into()).or_default();
                add(&mut turn.source, row, None, false);
            }
            Ok(())
        };
        let Some(reading) = self.sides.expected(None, &mut take).await? else { return Ok(None) };
        if let Some(why) = self.sides.meet().await? {
            return Ok(Some(Err(why)));
        }
        let take = &mut |key: &[u8], row: &[u8], seq: Option<&str>| {
            if chosen.takes(key) {
                let turn = turns.entry(key.into()).or_default();
                add(&mut turn.warehouse, row, seq, false);
            }
            Ok(())
        };
        self.sides.held(&reading.layout, None, take).await?;
        turns.retain(|key, turn| !turn.source.same_rows(&turn.warehouse) && !reading.refused.contains_key(key));
        Ok(Some(Ok((reading.layout, turns))))
    }

    /// Reads the keys that differ again and again, until it is known of each whether it does.
    async fn follow(&mut self, layout: Layout, mut turns: Turns) -> Result<TableReport> {
        let (mut layout, mut found) = (layout, Vec::new());
        let more = turns.len().saturating_sub(MOST_FOLLOWED);
        if more > 0 {
            let mut keys: Vec<Box<[u8]>> = turns.keys().cloned().collect();
            keys.sort();
            keys.into_iter().skip(MOST_FOLLOWED).for_each(|key| drop(turns.remove(&key)));
        }
        let mut history: Option<History> = None;
        for number in 0..TURNS {
            if turns.is_empty() {
                break;
            }
            if number >= TURNS_ALONE && !history.as_ref().is_some_and(|history| history.fits(&layout)) {
                history = Some(History::new(&layout, self.sides.log.refresh().await?.n, turns.keys()));
            }
            match self.turn(&layout, &turns).await? {
                Err(why) => return Ok(self.unsettled(&layout, found, turns.len(), &why)),
                Ok(looked) => {
                    if let Some(history) = &mut history {
                        history.follow(self.sides.log).await?;
                    }
                    layout.clone_from(&looked.layout);
                    turns = self.settle(turns, looked, history.as_ref(), &mut found);
                }
            }
        }
        self.report.moving = turns.len() as u64;
        self.conclude(&layout, found);
        if !turns.is_empty() && self.report.outcome == Outcome::Equal {
            let why = format!(
                "{} rows change faster than they can be compared; compare again when it is quieter, or when epochs come \
                 more often (`epoch:`)",
                turns.len()
            );
            return Ok(self.report().not_compared(why));
        }
        if more > 0 {
            // Whatever the ones that were followed turned out to be.
            let why = format!(
                "{more} more rows differ and were not followed; compare again when the warehouse has come closer"
            );
            return Ok(self.report().not_compared(why));
        }
        Ok(self.report())
    }

    /// Reads the keys once on both sides.
    async fn turn(&mut self, layout: &Layout, turns: &Turns) -> Result<Result<Looked, String>> {
        let keys: Vec<&[u8]> = turns.keys().map(|key| &**key).collect();
        let mut now = Turns::new();
        let reading = self
            .sides
            .expected(Some((layout, &keys)), &mut |key, row| {
                if turns.contains_key(key) {
                    add(&mut now.entry(key.into()).or_default().source, row, None, true);
                }
                Ok(())
            })
            .await?;
        let Some(reading) = reading else { return Ok(Err("the log has forgotten the table".to_owned())) };
        if let Some(why) = self.sides.meet().await? {
            return Ok(Err(why));
        }
        let take = &mut |key: &[u8], row: &[u8], seq: Option<&str>| {
            if turns.contains_key(key) {
                add(&mut now.entry(key.into()).or_default().warehouse, row, seq, true);
            }
            Ok(())
        };
        let before = self.sides.holds().await?;
        self.sides.held(&reading.layout, Some(&keys), take).await?;
        let held = (self.sides.holds().await? == before).then_some(before);
        Ok(Ok(Looked { layout: reading.layout, refused: reading.refused, turns: now, held }))
    }

    /// Judges a turn: what differs for good goes to `found`, what is still open comes back.
    fn settle(
        &mut self,
        before: Turns,
        looked: Looked,
        history: Option<&History>,
        found: &mut Vec<(Box<[u8]>, Turn)>,
    ) -> Turns {
        let (mut open, mut now) = (Turns::new(), looked.turns);
        for (key, before) in before {
            let mut turn = now.remove(&key).unwrap_or_default();
            if let Some(rule) = looked.refused.get(&key) {
                *self.report.excused.entry(format!("refused meanwhile ({rule})")).or_default() += 1;
                continue;
            }
            let mut verdict = judge(&before, &mut turn);
            if let (Verdict::Again, Some(history), Some(held)) = (verdict, history, looked.held) {
                verdict = history.judge(&key, &turn, held);
            }
            match verdict {
                Verdict::Equal => {}
                Verdict::Differs => found.push((key, turn)),
                Verdict::Again => {
                    open.insert(key, turn);
                }
            }
        }
        open
    }

    fn unsettled(&mut self, layout: &Layout, found: Vec<(Box<[u8]>, Turn)>, open: usize, why: &str) -> TableReport {
        self.conclude(layout, found);
        self.report().not_compared(format!("{open} rows differ, and it cannot be said whether that will pass: {why}"))
    }

    /// Takes out what is excused, and reports the rest.
    fn conclude(&mut self, layout: &Layout, mut found: Vec<(Box<[u8]>, Turn)>) {
        let excuses = self.excuses.by_key(layout);
        found.retain(|(key, _)| match excuses.get(&**key) {
            Some(why) => {
                *self.report.excused.entry((*why).to_owned()).or_default() += 1;
                false
            }
            None => true,
        });
        found.sort_by(|a, b| a.0.cmp(&b.0));
        self.report.different = found.len() as u64;
        let shown = found.iter().take(self.show).map(|(key, turn)| Difference::new(layout, key, turn));
        self.report.differences = shown.collect();
        if !found.is_empty() || self.report.ranges_left_out > 0 {
            self.report.outcome = Outcome::Different;
        }
    }
}

fn add(shown: &mut Shown, row: &[u8], seq: Option<&str>, keep: bool) {
    shown.rows += 1;
    shown.sum = shown.sum.wrapping_add(row_hash(row));
    if seq > shown.seq.as_deref() {
        shown.seq = seq.map(str::to_owned);
    }
    if keep && shown.row.is_none() {
        shown.row = Some(row.into());
    }
}
