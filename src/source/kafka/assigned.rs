//! What is known of each partition that this process reads.

use std::sync::Arc;
use std::time::Instant;

use crate::batch::RawRecords;
use crate::progress::{Generation, Partition};

/// One partition that is assigned to us.
pub(super) struct Assigned {
    pub(super) topic: String,
    pub(super) id: String,
    pub(super) number: i32,
    /// How many partitions the topic had when its generation was decided.
    pub(super) of: i32,
    pub(super) partition: Partition,
    pub(super) stream: Arc<str>,
    /// Where it began when it was assigned.
    pub(super) start: u64,
    /// The next offset to hand out.
    pub(super) next: u64,
    /// Where the next batch begins; `next` minus what is collected.
    pub(super) from: u64,
    /// The generation of what is collected now.
    pub(super) generation: Generation,
    /// The generation before the split.
    pub(super) base: Generation,
    /// From this offset on records belong to this generation.
    pub(super) split: Option<(u64, Generation)>,
    /// What was there when it was assigned ends here.
    pub(super) goal: u64,
    /// The end was reached and nothing came since.
    pub(super) ended: bool,
    /// A record came since reading began or was set back: before that the client's position may be one of old.
    pub(super) settled: bool,
    pub(super) records: RawRecords,
    pub(super) since: Option<Instant>,
}

impl Assigned {
    /// Begins the generation `target` at the present end, or at once where nothing was read before.
    pub(super) fn raise(&mut self, target: Generation) {
        if let Some((at, generation)) = &mut self.split {
            if *at == self.start {
                *generation = (*generation).max(target);
            }
        } else if self.base < target {
            self.split = Some((self.goal, target));
        }
        self.generation = self.generation_at(self.next);
    }

    pub(super) fn generation_at(&self, offset: u64) -> Generation {
        match self.split {
            Some((at, generation)) if offset >= at => generation,
            _ => self.base,
        }
    }
}

#[derive(Default)]
pub(super) struct State {
    pub(super) assigned: Vec<Assigned>,
    /// The partition of the last message: messages come in runs.
    pub(super) last: usize,
    /// When the group told us what is ours.
    pub(super) assignment_seen: Option<Instant>,
    pub(super) caught_up_said: bool,
    /// It was said at least once since the last assignment.
    pub(super) caught_up_before: bool,
    /// A topic's id changed.
    pub(super) made_again: bool,
    /// The offset in the last end-of-partition event.
    pub(super) end_offset: Option<u64>,
}

pub(super) fn highest(assigned: &Assigned) -> Generation {
    assigned.split.map_or(assigned.generation, |(_, generation)| generation.max(assigned.generation))
}

pub(super) fn find(state: &State, topic: &str, number: i32) -> Option<usize> {
    let is = |a: &Assigned| a.number == number && a.topic == topic;
    if state.assigned.get(state.last).is_some_and(is) {
        return Some(state.last);
    }
    state.assigned.iter().position(is)
}
