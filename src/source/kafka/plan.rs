//! Where a partition is to be read from and in which generation: pure, from the log's standings and the watermarks.

use std::collections::BTreeMap;

use crate::config::Start;
use crate::error::{Error, ErrorKind, Result};
use crate::progress::{Generation, Progress, Standing};

/// A topic as the cluster has it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Topic {
    pub(super) name: String,
    /// The cluster's id of it, in base64; `none` where brokers are too old to have one.
    pub(super) id: String,
    pub(super) partitions: i32,
}

impl Topic {
    /// The name of a partition in the log.
    pub(super) fn partition_name(&self, number: i32) -> String {
        format!("{}#{}/{number}", self.name, self.id)
    }
}

/// What the log knows of a topic.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The standings of this topic id.
    pub(super) same: BTreeMap<i32, Standing>,
    /// The highest generation of the same name under other ids.
    older: Option<Generation>,
}

impl Known {
    pub(super) fn of(progress: &Progress, source: &str, topic: &Topic) -> Self {
        let mut known = Self::default();
        for (partition, standing) in progress.of_source(source) {
            let Some((name, rest)) = partition.name.split_once('#') else { continue };
            // An id in base64 may hold a slash; the partition's number is behind the last one.
            let Some((id, number)) = rest.rsplit_once('/') else { continue };
            if name != topic.name {
                continue;
            }
            match number.parse() {
                Ok(number) if id == topic.id => {
                    known.same.insert(number, standing.clone());
                }
                _ => known.older = known.older.max(Some(standing.generation)),
            }
        }
        known
    }

    /// Whether the topic was read under another id: it was deleted and made again.
    pub(super) fn recreated(&self) -> bool {
        self.older.is_some() && self.same.is_empty()
    }

    /// Whether the topic was ever read.
    fn is_known(&self) -> bool {
        self.older.is_some() || !self.same.is_empty()
    }

    /// The generation that new records of the topic belong to.
    ///
    /// A partition without an entry beside partitions with one means that the topic grew and keys changed their
    /// partition, so a new generation begins. One generation too many does no harm: inside one partition the order
    /// stays, and a key is in one partition at a time. One too few would let an old row win.
    pub(super) fn generation(&self, partitions: i32) -> Generation {
        let newest = self.same.values().map(|s| s.generation).max();
        let grew = newest.is_some() && (0..partitions).any(|number| !self.same.contains_key(&number));
        match (newest, self.older) {
            (Some(newest), _) if grew => newest.saturating_add(1),
            (Some(newest), _) => newest,
            (None, Some(older)) => older.saturating_add(1),
            (None, None) => 0,
        }
    }
}

/// What the broker has of a partition: `[low, high)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Watermarks {
    pub(super) low: u64,
    pub(super) high: u64,
}

/// Where reading begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begin {
    /// Where the log stands.
    At(u64),
    /// At the oldest record.
    Beginning,
    /// Where the topology's `start` says.
    Configured,
}

/// Where partition `number` begins.
pub(super) fn begin(known: &Known, topic: &Topic, number: i32) -> Result<Begin> {
    match known.same.get(&number) {
        Some(standing) => standing.position.as_offset().map(Begin::At).ok_or_else(|| {
            Error::new(
                ErrorKind::LogCorrupt,
                format!("the log's position `{}` of {} is no offset", standing.position, topic.partition_name(number)),
            )
            .help("a source keeps its kind: give the changed source another name in the topology")
        }),
        // Found while running, or made again: everything in it is new.
        None if known.is_known() => Ok(Begin::Beginning),
        None => Ok(Begin::Configured),
    }
}

/// Whether what comes next is still there.
pub(super) fn check_reachable(topic: &str, number: i32, next: u64, marks: Watermarks) -> Result<()> {
    if next < marks.low {
        return Err(Error::new(
            ErrorKind::PositionLost,
            format!(
                "topic {topic}, partition {number}: offsets [{next}, {}) were deleted by the broker before they were read \
                 ({} offsets, some of which may never have held a record)",
                marks.low,
                marks.low - next
            ),
        )
        .help(
            "make the topic's retention longer than the longest stop; to get the lost rows back, let Debezium snapshot \
             the tables again; to go on without them, give the source another name in the topology (it then starts at \
             `start:` with a log entry of its own)",
        ));
    }
    if next > marks.high {
        return Err(Error::new(
            ErrorKind::PositionLost,
            format!(
                "topic {topic}, partition {number}: the log has read up to offset {next} but the topic ends at {}: \
                 its end was lost (an unclean leader election, a restored broker) or it is another topic",
                marks.high
            ),
        )
        .help("find out what happened to the topic; then resync its tables, or give the source another name in the topology"));
    }
    Ok(())
}

/// The offset for [`Begin::Configured`], when it can be said without asking the broker.
pub(super) fn configured(start: &Start, marks: Watermarks) -> Option<u64> {
    match start {
        Start::Earliest => Some(marks.low),
        Start::Latest => Some(marks.high),
        Start::Timestamp(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::{Partition, Position};

    fn topic(id: &str, partitions: i32) -> Topic {
        Topic { name: "t".into(), id: id.into(), partitions }
    }

    type Entry = (&'static str, i32, u64, Generation);

    fn progress(entries: &[Entry]) -> Progress {
        let mut progress = Progress::default();
        for (id, number, offset, generation) in entries {
            let standing = Standing { position: Position::offset(*offset), generation: *generation, mark: None };
            progress.set(Partition::new("k", topic(id, 1).partition_name(*number)), standing);
        }
        progress
    }

    #[test]
    fn generations_grow_with_partitions_and_with_another_id() {
        let cases: [(&[Entry], i32, Generation, &str); 5] = [
            (&[], 2, 0, "never read"),
            (&[("a/b", 0, 5, 0), ("a/b", 1, 5, 0)], 2, 0, "as it was"),
            (&[("a/b", 0, 5, 3), ("a/b", 1, 5, 2)], 3, 4, "grew"),
            (&[("a/b", 0, 5, 3), ("a/b", 1, 5, 2)], 2, 3, "grew, one partition is not there yet"),
            (&[("old", 0, 5, 3), ("old", 1, 5, 7)], 2, 8, "made again"),
        ];
        for (entries, partitions, generation, why) in cases {
            let topic = topic("a/b", partitions);
            let known = Known::of(&progress(entries), "k", &topic);
            assert_eq!(known.generation(partitions), generation, "{why}");
        }
        assert!(Known::of(&progress(&[("old", 0, 5, 3)]), "k", &topic("new", 1)).recreated());
    }

    #[test]
    fn only_a_topic_that_was_never_read_starts_where_the_topology_says() {
        let t = topic("a", 2);
        let at = |entries: &[_], number| begin(&Known::of(&progress(entries), "k", &t), &t, number).expect("an offset");
        assert_eq!(at(&[], 0), Begin::Configured);
        assert_eq!(at(&[("a", 0, 9, 0)], 0), Begin::At(9));
        assert_eq!(at(&[("a", 0, 9, 0)], 1), Begin::Beginning);
        assert_eq!(at(&[("old", 0, 9, 0)], 0), Begin::Beginning);
    }

    #[test]
    fn a_position_outside_of_the_topic_is_lost_and_the_message_says_what() {
        let marks = Watermarks { low: 10, high: 20 };
        for next in 10..=20 {
            assert!(check_reachable("t", 3, next, marks).is_ok());
        }
        for (next, words) in [(4, "offsets [4, 10)"), (21, "up to offset 21 but the topic ends at 20")] {
            let error = check_reachable("t", 3, next, marks).expect_err("lost");
            assert_eq!(*error.kind(), ErrorKind::PositionLost);
            assert!(error.to_string().contains(words) && error.to_string().contains("partition 3"), "{error}");
        }
    }
}
