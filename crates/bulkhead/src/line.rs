use crate::QueueOrder;
use buttress_core::{
    permits::{Seat, Told},
    sync::Arc,
};
use std::{collections::BTreeMap, convert::Infallible};

/// The permits of a bulkhead, and per stripe how many calls were refused.
pub(crate) type Permits = buttress_core::permits::Permits<Line, Refused>;
pub(crate) type Place = buttress_core::permits::Place<Line>;
pub(crate) type Refused = buttress_core::sync::AtomicU64;

/// Those who wait, in the order in which they came.
pub(crate) struct Line {
    pub(crate) order: QueueOrder,
    next: u64,
    waiting: BTreeMap<u64, Arc<Seat<Infallible>>>,
}

/// There is no room to wait.
pub(crate) struct Full;

impl Line {
    pub(crate) fn new(order: QueueOrder) -> Self {
        Self { order, next: 0, waiting: BTreeMap::new() }
    }

    /// A place in a line that is not longer than `max`.
    pub(crate) fn push(&mut self, seat: &mut dyn FnMut() -> Arc<Seat<Infallible>>, max: u32) -> Result<u64, Full> {
        if self.waiting.len() >= max as usize {
            return Err(Full);
        }
        let number = self.next;
        self.next += 1;
        self.waiting.insert(number, seat());
        Ok(number)
    }
}

impl buttress_core::permits::Line for Line {
    type Id = u64;
    /// Nobody is turned away who waits: each leaves by himself when his time is over.
    type Refusal = Infallible;
    type Now = ();

    fn peek(&mut self, (): (), _: &mut Told) -> Option<&Seat<Infallible>> {
        let next = match self.order {
            QueueOrder::Fifo => self.waiting.first_key_value(),
            QueueOrder::Lifo => self.waiting.last_key_value(),
        };
        next.map(|(_, seat)| &**seat)
    }

    fn pop(&mut self) -> Option<Arc<Seat<Infallible>>> {
        let next = match self.order {
            QueueOrder::Fifo => self.waiting.pop_first(),
            QueueOrder::Lifo => self.waiting.pop_last(),
        };
        next.map(|(_, seat)| seat)
    }

    fn remove(&mut self, number: u64, (): ()) -> bool {
        self.waiting.remove(&number).is_some()
    }

    fn len(&self) -> usize {
        self.waiting.len()
    }
}
