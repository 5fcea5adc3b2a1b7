use crate::{machine::Machine, ticket::Ticket};
use buttress_core::{Clock, Lease, Outcome, Pushback, Settle, TokioClock};
use std::{fmt, sync::Arc};

/// A call that the breaker let in, until its end.
///
/// Its latency is counted from the first [`pending`](Settle::pending) to [`head`](Settle::head), or else to its end, without the
/// time in which it is [paused](Settle::pause).
/// Dropped without an outcome it means: a panic, or in flight for `hang_after` and no head yet: a failure; else nothing.
#[must_use = "dropped at once, the call counts as given up"]
pub struct BreakerPermit {
    lease: Arc<Lease<Machine>>,
    ticket: Ticket,
}

impl BreakerPermit {
    #[inline]
    pub(crate) fn new(lease: Arc<Lease<Machine>>, ticket: Ticket) -> Self {
        Self { lease, ticket }
    }

    /// [`Settle::pending`] by another clock.
    pub fn pending_at(&mut self, clock: &impl Clock) {
        self.lease.pending(&mut self.ticket, self.lease.stripe(), clock);
    }

    /// [`Settle::pause`] by another clock.
    pub fn pause_at(&mut self, clock: &impl Clock) {
        self.lease.pause(&mut self.ticket, self.lease.stripe(), clock);
    }

    /// [`Settle::head`] by another clock.
    pub fn head_at(&mut self, clock: &impl Clock) {
        self.lease.answered(&mut self.ticket, self.lease.stripe(), clock);
    }

    /// [`Settle::settle`] by another clock.
    #[inline]
    pub fn settle_at(mut self, outcome: Outcome, pushback: Option<Pushback>, clock: &impl Clock) {
        self.conclude_at(outcome, pushback, clock);
    }

    /// A drop by another clock.
    pub fn abandon_at(mut self, clock: &impl Clock) {
        self.ticket.conclude();
        self.lease.abandon(&mut self.ticket, self.lease.stripe(), Outcome::Ignored, clock);
    }

    #[inline]
    fn conclude_at(&mut self, outcome: Outcome, pushback: Option<Pushback>, clock: &impl Clock) {
        if !self.ticket.conclude() {
            self.lease.conclude(&mut self.ticket, self.lease.stripe(), outcome, pushback, clock);
        }
    }
}

impl Settle for BreakerPermit {
    fn pending(&mut self) {
        self.pending_at(&TokioClock);
    }

    fn pause(&mut self) {
        self.pause_at(&TokioClock);
    }

    #[inline]
    fn head(&mut self) {
        self.head_at(&TokioClock);
    }

    #[inline]
    fn conclude(&mut self, outcome: Outcome, pushback: Option<Pushback>) {
        self.conclude_at(outcome, pushback, &TokioClock);
    }
}

impl Drop for BreakerPermit {
    #[inline]
    fn drop(&mut self) {
        if !self.ticket.conclude() {
            let outcome = buttress_core::abandoned();
            self.lease.abandon(&mut self.ticket, self.lease.stripe(), outcome, &TokioClock);
        }
    }
}

impl fmt::Debug for BreakerPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BreakerPermit").field("ticket", &self.ticket).finish_non_exhaustive()
    }
}
