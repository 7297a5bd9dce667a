//! Topics that change while they are read: made again under another id, or given more partitions.

use std::collections::BTreeMap;

use rdkafka::consumer::BaseConsumer;
use rdkafka::{Offset, TopicPartitionList};

use super::assigned::{Assigned, find, highest};
use super::context::{Context, lock};
use super::coordinator::Coordinator;
use super::plan::{Known, Topic};
use crate::batch::RawRecords;
use crate::progress::Generation;

impl Coordinator {
    /// The generation that what we read of the topic, but have not committed, asks for.
    pub(super) fn generation_floor(&self, topic: &Topic, renewed: bool) -> Generation {
        let state = lock(&self.state);
        let ours = state.assigned.iter().filter(|a| a.topic == topic.name);
        let asked = ours.map(|a| {
            let before = a.of < topic.partitions || (renewed && a.id != topic.id);
            if before { highest(a).saturating_add(1) } else { highest(a) }
        });
        asked.max().unwrap_or(0)
    }

    /// The client saw another id for a topic: what comes from now on is another topic.
    pub(super) fn topic_id_seen(&self, topic: &str, id: &str) {
        let mut state = lock(&self.state);
        if state.assigned.iter().any(|a| a.topic == topic && a.id != id && a.id != "none") {
            state.renewed.push((topic.to_owned(), id.to_owned()));
        }
    }

    /// Takes up topics that were made again and ones that grew. `look` asks the cluster; otherwise only what the
    /// client has already said is done.
    pub(super) fn follow_topics(&self, consumer: &BaseConsumer<Context>, look: bool) {
        let renewed = std::mem::take(&mut lock(&self.state).renewed);
        for (topic, _) in renewed {
            self.begin_again(consumer, &topic);
        }
        if !look {
            return;
        }
        let topics: BTreeMap<String, String> =
            lock(&self.state).assigned.iter().map(|a| (a.topic.clone(), a.id.clone())).collect();
        for (name, id) in topics {
            match self.probe.topic(&name) {
                Ok(Some(topic)) if topic.id != id => self.begin_again(consumer, &name),
                Ok(Some(topic)) => self.grow(&topic),
                // The client says by itself that a topic or the brokers are gone.
                Ok(None) => {}
                Err(_) => return,
            }
        }
    }

    fn begin_again(&self, consumer: &BaseConsumer<Context>, topic: &str) {
        let numbers: Vec<i32> = {
            let mut state = lock(&self.state);
            let ours = state.assigned.iter_mut().filter(|a| a.topic == topic);
            ours.map(|assigned| {
                // What was collected belongs to the old topic and is whole.
                self.flush(assigned);
                assigned.number
            })
            .collect()
        };
        if numbers.is_empty() {
            return;
        }
        let Some(resolved) = self.resolve_patiently(&BTreeMap::from([(topic.to_owned(), numbers)]), true) else {
            return;
        };
        let mut list = TopicPartitionList::new();
        {
            let mut state = lock(&self.state);
            for new in resolved {
                let Some(index) = find(&state, &new.topic, new.number) else { continue };
                if state.assigned[index].id == new.id {
                    continue;
                }
                tracing::warn!(partition = %new.partition, "the topic was made again; its new content is read from the start");
                let _outcome = list.add_partition_offset(&new.topic, new.number, Offset::Offset(new.next as i64));
                self.send_batch(&new, new.next, new.next, new.generation, RawRecords::default());
                state.assigned[index] = new;
            }
            state.caught_up_said = false;
        }
        self.assign_again(consumer, &list);
    }

    /// A topic that has more partitions than its generation was begun with: the partitions that we have go on in the
    /// next generation from their present end.
    fn grow(&self, topic: &Topic) {
        if !lock(&self.state).assigned.iter().any(|a| a.topic == topic.name && a.of < topic.partitions) {
            return;
        }
        let Ok(progress) = self.runtime.block_on(self.standings.latest()) else { return };
        let known = Known::of(&progress, &self.source, topic);
        let target = known.generation(topic.partitions).max(self.generation_floor(topic, false));
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
