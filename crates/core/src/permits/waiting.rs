//! A line for tests: first or last in, first out; and one that is turned away if it is told to be.
use super::{Joined, Line, Permits, Seat, Told};
use crate::sync::Arc;
use std::collections::BTreeMap;

pub(super) type Fixed = Permits<Waiting>;

pub(super) struct Waiting {
    lifo: bool,
    next: u64,
    seats: BTreeMap<u64, Arc<Seat<&'static str>>>,
    /// Those who came before this are too late.
    pub(super) late: u64,
}

#[derive(Debug)]
pub(super) struct Full;

pub(super) fn permits(limit: u32, stripes: usize, lifo: bool) -> Fixed {
    Permits::new(limit, stripes, Waiting { lifo, next: 0, seats: BTreeMap::new(), late: 0 })
}

pub(super) fn join(permits: &Fixed, home: usize, max: usize) -> Result<Joined<Waiting>, Full> {
    permits.join(home, (), |line, seat, _| {
        if line.seats.len() >= max {
            return Err(Full);
        }
        line.next += 1;
        line.seats.insert(line.next, seat());
        Ok(line.next)
    })
}

impl Line for Waiting {
    type Id = u64;
    type Refusal = &'static str;
    type Now = ();

    fn peek(&mut self, (): (), told: &mut Told) -> Option<&Seat<&'static str>> {
        while let Some(late) = self.seats.first_entry().filter(|first| *first.key() < self.late) {
            told.refuse(&late.remove(), "too late");
        }
        let next = if self.lifo { self.seats.last_key_value() } else { self.seats.first_key_value() };
        next.map(|(_, seat)| &**seat)
    }

    fn pop(&mut self) -> Option<Arc<Seat<&'static str>>> {
        let next = if self.lifo { self.seats.pop_last() } else { self.seats.pop_first() };
        next.map(|(_, seat)| seat)
    }

    fn remove(&mut self, id: u64, (): ()) -> bool {
        self.seats.remove(&id).is_some()
    }

    fn len(&self) -> usize {
        self.seats.len()
    }
}
