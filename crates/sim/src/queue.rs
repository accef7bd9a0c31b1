use std::{cmp::Reverse, collections::BinaryHeap};

use aos_time::Timestamp;

use crate::event::Event;

/// What will happen, in the order of time; of things at the same time, what was planned first.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    heap: BinaryHeap<Reverse<(Timestamp, u64, Slot)>>,
    planned: u64,
    events: Vec<Option<Event>>,
    free: Vec<usize>,
}

type Slot = usize;

impl Queue {
    pub(crate) fn plan(&mut self, at: Timestamp, event: Event) {
        let slot = match self.free.pop() {
            Some(slot) => {
                self.events[slot] = Some(event);
                slot
            }
            None => {
                self.events.push(Some(event));
                self.events.len() - 1
            }
        };
        self.planned += 1;
        self.heap.push(Reverse((at, self.planned, slot)));
    }

    pub(crate) fn next(&mut self) -> Option<(Timestamp, Event)> {
        let Reverse((at, _, slot)) = self.heap.pop()?;
        self.free.push(slot);
        self.events[slot].take().map(|event| (at, event))
    }
}
