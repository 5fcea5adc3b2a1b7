use super::machine::{Machine, Ticket, Told};
use buttress_core::{Clock, Lease, Outcome, Pushback, Settle, TokioClock, abandoned};
use std::{fmt, sync::Arc};

/// A call that a [`Toggle`](super::Toggle) let pass: it tells the toggle how the call came out, and gives a probe's place back.
pub struct TogglePermit {
    /// `None`: nothing follows from the call.
    lease: Option<Arc<Lease<Machine>>>,
    /// [ generation 32 | flags ], a whole word: single bytes of one that was just written are waited for when it is moved.
    word: u64,
}

const PROBE: u64 = 1;
/// The call was not ready at once.
const WAITED: u64 = 2;
/// It has a probe's place.
const HOLDS: u64 = 4;
const GENERATION_SHIFT: u32 = 32;

impl TogglePermit {
    #[inline]
    pub(super) fn new(lease: impl FnOnce() -> Arc<Lease<Machine>>, ticket: Ticket) -> Self {
        let (generation, flags) = match ticket {
            Ticket::Free => return Self { lease: None, word: 0 },
            Ticket::Counted(generation) => (generation, 0),
            Ticket::Probe(generation) => (generation, PROBE | HOLDS),
        };
        Self { lease: Some(lease()), word: u64::from(generation) << GENERATION_SHIFT | flags }
    }

    #[inline]
    fn is(&self, flag: u64) -> bool {
        self.word & flag != 0
    }

    #[inline]
    fn ticket(&self) -> Ticket {
        let generation = (self.word >> GENERATION_SHIFT) as u32;
        if self.is(PROBE) { Ticket::Probe(generation) } else { Ticket::Counted(generation) }
    }

    /// Whether this call decides, as a probe, if the toggle is switched on again.
    pub fn is_probe(&self) -> bool {
        self.is(PROBE)
    }

    /// [`conclude`](Settle::conclude) by another clock.
    #[inline]
    pub fn conclude_at(&mut self, outcome: Outcome, clock: &impl Clock) {
        if let Some(lease) = self.lease.take() {
            let told = Told { stripe: lease.stripe(), waited: self.is(WAITED) };
            lease.conclude(self.ticket(), self.is(HOLDS), outcome, told, clock);
        }
    }
}

impl Settle for TogglePermit {
    #[inline]
    fn pending(&mut self) {
        self.word |= WAITED;
    }

    #[inline]
    fn head(&mut self) {
        if self.is(HOLDS)
            && let Some(lease) = &self.lease
        {
            lease.answered(self.ticket());
            self.word &= !HOLDS;
        }
    }

    #[inline]
    fn conclude(&mut self, outcome: Outcome, _: Option<Pushback>) {
        self.conclude_at(outcome, &TokioClock);
    }
}

impl Drop for TogglePermit {
    #[inline]
    fn drop(&mut self) {
        if self.lease.is_some() {
            self.conclude_at(abandoned(), &TokioClock);
        }
    }
}

impl fmt::Debug for TogglePermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TogglePermit").field("probe", &self.is_probe()).finish_non_exhaustive()
    }
}
