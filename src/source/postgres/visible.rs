//! Which transactions a reader of rows sees.
//!
//! A commit stands in the log, and the stream brings it, before its effect can be seen: while it waits for the disk or for
//! a standby. Rows that are read just then lack it, although it comes before them in the stream, and would undo it. So
//! rows are only read by a snapshot that shows every transaction that the stream has brought. Of what an earlier process
//! has handed out nothing is known but this: whatever ran when this one began to stream may have been among it.

use std::collections::VecDeque;

/// Transactions that are remembered. One that still cannot be seen so many commits after its own would be missed.
const REMEMBERED: usize = 1 << 16;

/// What `pg_current_snapshot()` says: transactions below `end` are seen, but for those that are `running`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    end: u64,
    running: Vec<u64>,
}

impl Seen {
    /// Reads `xmin:xmax:xid,xid`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, ':');
        let (_begin, end, running) = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?);
        let running = running.split(',').filter(|xid| !xid.is_empty()).map(|xid| xid.parse().ok());
        Some(Self { end, running: running.collect::<Option<_>>()? })
    }

    fn shows(&self, xid: u64) -> bool {
        xid < self.end && !self.running.contains(&xid)
    }

    /// Whether it shows a transaction of which the stream gives half the number.
    pub fn shows_recent(&self, xid: u32) -> bool {
        self.shows(self.widen(xid))
    }

    /// The number without the cut that the stream makes: the one of those that is next to `end`.
    fn widen(&self, xid: u32) -> u64 {
        const HALF: u64 = 1 << 31;
        let near = (self.end & !u64::from(u32::MAX)) | u64::from(xid);
        if near > self.end + HALF {
            near.saturating_sub(HALF * 2)
        } else if near + HALF < self.end {
            near + HALF * 2
        } else {
            near
        }
    }
}

/// What the stream has brought.
#[derive(Debug, Default)]
pub(super) struct Brought {
    recent: VecDeque<u32>,
    /// What ran when it began.
    before: Vec<u64>,
}

impl Brought {
    /// Nothing yet; `seen` was asked for when the stream began.
    pub fn begin(seen: Seen) -> Self {
        Self { recent: VecDeque::new(), before: seen.running }
    }

    /// A transaction was committed.
    pub fn note(&mut self, xid: u32) {
        if self.recent.len() == REMEMBERED {
            self.recent.pop_front();
        }
        self.recent.push_back(xid);
    }

    /// A transaction that was brought (or may have been) and cannot be seen.
    pub fn hidden_from(&mut self, seen: &Seen) -> Option<u64> {
        self.before.retain(|xid| !seen.shows(*xid));
        let recent = self.recent.iter().map(|xid| seen.widen(*xid));
        recent.chain(self.before.iter().copied()).find(|xid| !seen.shows(*xid))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn what_was_brought_must_be_seen() {
        let seen = |text: &str| Seen::parse(text).unwrap();
        let mut brought = Brought::begin(seen("90:95:91,93"));
        assert_eq!(brought.hidden_from(&seen("93:100:93")), Some(93));
        assert_eq!(brought.hidden_from(&seen("100:100:")), None);
        brought.note(100);
        assert_eq!(brought.hidden_from(&seen("100:100:")), Some(100), "it is not finished");
        assert_eq!(brought.hidden_from(&seen("100:102:100,101")), Some(100), "nor when a later one is");
        assert_eq!(brought.hidden_from(&seen("101:103:101")), None);
        assert!(Seen::parse("1:2").is_none() && Seen::parse("1:x:").is_none());
    }

    #[test]
    fn numbers_that_were_cut_are_near_the_end() {
        let seen = |end: u64| Seen { end, running: Vec::new() };
        assert_eq!(seen(0x5_0000_0010).widen(0x0f), 0x5_0000_000f);
        assert_eq!(seen(0x5_0000_0010).widen(0xffff_fff0), 0x4_ffff_fff0);
        assert_eq!(seen(0x5_ffff_fff0).widen(3), 0x6_0000_0003);
        assert_eq!(seen(700).widen(699), 699);
        assert!(seen(0x5_0000_0010).shows_recent(0x0f) && !seen(0x5_0000_0010).shows_recent(0x10));
    }

    #[test]
    fn only_so_many_are_remembered() {
        let mut brought = Brought::default();
        (0..REMEMBERED as u32 + 5).for_each(|xid| brought.note(xid));
        assert_eq!((brought.recent.len(), brought.recent[0]), (REMEMBERED, 5));
    }
}
