//! The line as the permits see it: seats in order, and the news of those who were sent away.
use crate::line::{Ask, Line, Place, Rules, Why};
use buttress_core::{
    permits::{Seat, Told},
    sync::Arc,
};

/// What the line must know of the present.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// Nanoseconds since the origin.
    pub(crate) now: u64,
    /// How long a call takes, in nanoseconds; 0: nobody knows.
    pub(crate) service: u64,
}

type Waiter = Arc<Seat<Why>>;

pub(crate) struct Waiters {
    pub(crate) line: Line<Waiter>,
    /// Kept for its memory; empty between calls.
    out: Vec<(Waiter, Why)>,
}

impl Waiters {
    pub(crate) fn new(rules: Rules) -> Self {
        Self { line: Line::new(rules), out: Vec::new() }
    }

    pub(crate) fn push(
        &mut self,
        ask: Ask,
        at: Moment,
        pace: Option<u64>,
        seat: &mut dyn FnMut() -> Waiter,
        told: &mut Told,
    ) -> Result<Place, Why> {
        let pushed = self.line.push(ask, at.now, pace, at.service, seat, &mut self.out);
        tell(&mut self.out, told);
        pushed
    }
}

fn tell(out: &mut Vec<(Waiter, Why)>, told: &mut Told) {
    for (seat, why) in out.drain(..) {
        told.refuse(&seat, why);
    }
}

impl buttress_core::permits::Line for Waiters {
    type Id = u64;
    type Refusal = Why;
    type Now = Moment;

    fn peek(&mut self, at: Moment, told: &mut Told) -> Option<&Seat<Why>> {
        let next = self.line.peek(at.now, at.service, &mut self.out);
        tell(&mut self.out, told);
        next.map(|seat| &**seat)
    }

    fn pop(&mut self) -> Option<Waiter> {
        self.line.pop()
    }

    fn remove(&mut self, number: u64, at: Moment) -> bool {
        self.line.remove(number, at.now).is_some()
    }

    fn len(&self) -> usize {
        self.line.len() as usize
    }
}
