//! Topics that change while they are read: made again under another id, or given more partitions.

use std::collections::BTreeMap;

use super::assigned::{Assigned, find, highest};
use super::context::lock;
use super::coordinator::Coordinator;
use super::plan::{Known, Topic};
use crate::progress::Generation;

impl Coordinator {
    /// The generation that what we read of the topic, but have not committed, asks for.
    pub(super) fn generation_floor(&self, topic: &Topic) -> Generation {
        let state = lock(&self.state);
        let ours = state.assigned.iter().filter(|a| a.topic == topic.name);
        let asked = ours.map(|a| if a.of < topic.partitions { highest(a).saturating_add(1) } else { highest(a) });
        asked.max().unwrap_or(0)
    }

    /// A topic has another id than before: what comes from now on is another topic, which another client must read.
    pub(super) fn topic_was_made_again(&self) {
        lock(&self.state).made_again = true;
    }

    /// Whether a topic was made again since the client began.
    pub(super) fn was_made_again(&self) -> bool {
        lock(&self.state).made_again
    }

    /// Asks the cluster: takes up topics that grew, and notes whether one was made again.
    pub(super) fn follow_topics(&self) {
        let topics: BTreeMap<String, String> =
            lock(&self.state).assigned.iter().map(|a| (a.topic.clone(), a.id.clone())).collect();
        for (name, id) in topics {
            match self.probe.topic(&name) {
                Ok(Some(topic)) if topic.id != id => return self.topic_was_made_again(),
                Ok(Some(topic)) => self.grow(&topic),
                // The client says by itself that a topic or the brokers are gone.
                Ok(None) => {}
                Err(_) => return,
            }
        }
    }

    /// The client has left, and the next one knows nothing yet.
    pub(super) fn forget_assignment(&self) {
        let mut state = lock(&self.state);
        state.assigned.clear();
        state.assignment_seen = None;
        state.caught_up_said = false;
        state.caught_up_before = false;
        state.made_again = false;
        state.end_offset = None;
    }

    /// A topic that has more partitions than its generation was begun with: the partitions that we have go on in the
    /// next generation from their present end.
    fn grow(&self, topic: &Topic) {
        if !lock(&self.state).assigned.iter().any(|a| a.topic == topic.name && a.of < topic.partitions) {
            return;
        }
        let Ok(progress) = self.runtime.block_on(self.standings.latest()) else { return };
        let known = Known::of(&progress, &self.source, topic);
        let target = known.generation(topic.partitions).max(self.generation_floor(topic));
        let older = |a: &&mut Assigned| a.topic == topic.name && a.of < topic.partitions;
        let numbers: Vec<i32> = lock(&self.state).assigned.iter_mut().filter(older).map(|a| a.number).collect();
        for number in numbers {
            // Asked without the lock, which the next callback of the client may want.
            let Ok(marks) = self.probe.watermarks(&topic.name, number) else { continue };
            let mut state = lock(&self.state);
            let Some(index) = find(&state, &topic.name, number) else { continue };
            let assigned = &mut state.assigned[index];
            self.flush(assigned);
            let at = marks.high.max(assigned.next);
            tracing::info!(partition = %assigned.partition, generation = target, from = at,
                "the topic has more partitions: a new generation begins");
            assigned.base = assigned.generation;
            assigned.split = Some((at, target.max(assigned.generation)));
            assigned.generation = assigned.generation_at(assigned.next);
            assigned.of = topic.partitions;
        }
    }
}
