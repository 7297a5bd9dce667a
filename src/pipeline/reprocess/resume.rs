//! Where a target log stands inside an old log: which spans it holds already, and where it goes on. Pure.

use std::collections::BTreeMap;

use super::{advances, is_own};
use crate::epoch::{EpochNumber, Manifest};
use crate::progress::{Advance, Partition, Position, Progress};

/// A place inside a span whose ends are in the source's own text: the raw record of epoch `n` with this offset is next.
pub fn inside_position(n: EpochNumber, offset: u64) -> Position {
    Position(format!("raw:{n}:{offset}"))
}

/// A place inside a span whose records only the file orders: `handed_out` of them. Never in a log, because an epoch that
/// ends there would show half of a transaction.
pub fn passing_position(n: EpochNumber, handed_out: u64) -> Position {
    Position(format!("raw:{n}+{handed_out}"))
}

fn parse_inside(position: &Position) -> Option<(EpochNumber, u64)> {
    let (n, offset) = position.0.strip_prefix("raw:")?.split_once(':')?;
    Some((n.parse().ok()?, offset.parse().ok()?))
}

/// What of an old span is still to be read.
#[derive(Debug, PartialEq, Eq)]
pub enum Rest {
    /// Nothing: the target is behind it.
    Nothing,
    /// From this position on: the records whose offset is at least `offset`.
    From { position: Position, offset: u64 },
}

/// The target's standings that no old span has reached yet. Old spans must come in the log's order.
#[derive(Debug, Clone)]
pub struct Resume(BTreeMap<Partition, Position>);

impl Resume {
    /// From what the target's log holds; the first span that is asked comes after `before`.
    pub fn at(target: &Progress, before: &Progress) -> Self {
        let own = target.iter().filter(|(partition, _)| !is_own(partition));
        let mut resume = Self(own.map(|(partition, at)| (partition.clone(), at.position.clone())).collect());
        resume.pass(before);
        resume
    }

    /// Spans up to `before` are not asked.
    pub fn pass(&mut self, before: &Progress) {
        self.0.retain(|partition, at| before.get(partition).is_none_or(|standing| standing.position != *at));
    }

    /// Whether anything of the epoch is still to be read.
    pub fn opens(&mut self, manifest: &Manifest) -> bool {
        // Every span is asked, because each answer moves the resumption on.
        advances(manifest).filter(|advance| self.rest(manifest.n, advance) != Rest::Nothing).count() > 0
    }

    /// What of the span that epoch `n` read is still to be read.
    pub fn rest(&mut self, n: EpochNumber, advance: &Advance) -> Rest {
        let whole = |position: &Position| Rest::From { position: position.clone(), offset: 0 };
        let Some(at) = self.0.get(&advance.partition).cloned() else { return whole(&advance.span.from) };
        let rest = if at == advance.span.from {
            whole(&at)
        } else if at == advance.span.to {
            Rest::Nothing
        } else if let Some(offset) = inside(n, &at, advance) {
            Rest::From { position: at, offset }
        } else {
            return Rest::Nothing;
        };
        self.0.remove(&advance.partition);
        rest
    }

    /// A standing that no old span has led to.
    pub fn stranger(&self) -> Option<(&Partition, &Position)> {
        self.0.first_key_value()
    }
}

/// The offset of the record that comes next, when `at` is inside the span.
fn inside(n: EpochNumber, at: &Position, advance: &Advance) -> Option<u64> {
    if let Some((epoch, offset)) = parse_inside(at) {
        return (epoch == n).then_some(offset);
    }
    let (from, to) = (advance.span.from.as_offset()?, advance.span.to.as_offset()?);
    at.as_offset().filter(|at| (from..to).contains(at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::{Span, Standing};

    fn advance(name: &str, from: &str, to: &str) -> Advance {
        let span = Span { from: Position(from.into()), to: Position(to.into()) };
        Advance { partition: Partition::new("shop", name), span, generation: 0, mark: None }
    }

    fn target(standings: &[(&str, &str)]) -> Resume {
        let mut progress = Progress::default();
        for (name, at) in standings {
            let standing = Standing { position: Position((*at).into()), generation: 0, mark: None };
            progress.set(Partition::new("shop", *name), standing);
        }
        Resume::at(&progress, &Progress::default())
    }

    fn from(position: &str, offset: u64) -> Rest {
        Rest::From { position: Position(position.into()), offset }
    }

    #[test]
    fn goes_on_exactly_where_the_target_stands() {
        let spans = [("0", "10"), ("10", "10"), ("10", "30"), ("30", "40")];
        let cases: [(&str, [Rest; 4]); 4] = [
            ("0", [from("0", 0), from("10", 0), from("10", 0), from("30", 0)]),
            ("10", [Rest::Nothing, from("10", 0), from("10", 0), from("30", 0)]),
            ("17", [Rest::Nothing, Rest::Nothing, from("17", 17), from("30", 0)]),
            ("40", [Rest::Nothing, Rest::Nothing, Rest::Nothing, Rest::Nothing]),
        ];
        for (at, wanted) in cases {
            let mut resume = target(&[("t", at)]);
            let rests: Vec<Rest> =
                spans.iter().zip(1..).map(|((from, to), n)| resume.rest(n, &advance("t", from, to))).collect();
            assert_eq!(rests, wanted, "at {at}");
            assert_eq!(resume.stranger(), None, "at {at}");
        }
        assert_eq!(target(&[]).rest(1, &advance("t", "5", "9")), from("5", 0), "never read");
    }

    #[test]
    fn positions_in_the_sources_own_text_are_found_by_epoch_and_offset() {
        let mut resume = target(&[("a.jsonl", "raw:2:700"), ("b.jsonl", "90:ff")]);
        assert_eq!(resume.rest(1, &advance("a.jsonl", "0", "500:aa")), Rest::Nothing);
        assert_eq!(resume.rest(2, &advance("a.jsonl", "500:aa", "900:bb")), from("raw:2:700", 700));
        assert_eq!(resume.rest(2, &advance("b.jsonl", "0", "90:ff")), Rest::Nothing);
        assert_eq!(resume.rest(3, &advance("b.jsonl", "90:ff", "95:ee")), from("90:ff", 0));
        assert_eq!(inside_position(2, 700).0, "raw:2:700");
    }

    #[test]
    fn a_standing_that_the_old_log_does_not_know_is_told() {
        let mut resume = target(&[("t", "50")]);
        assert_eq!(resume.rest(1, &advance("t", "0", "40")), Rest::Nothing);
        assert_eq!(resume.stranger().map(|(_, at)| at.0.as_str()), Some("50"));
    }
}
