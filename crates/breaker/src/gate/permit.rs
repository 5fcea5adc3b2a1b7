use super::{valve::Valve, word::Word};
use buttress_core::{Clock, Lease, Outcome, Pushback, Settle, Status, TokioClock};
use std::{fmt, sync::Arc};

/// A call that the gate let through, until its end.
///
/// Dropped without an outcome it means: a panic, or in flight for `hang_after` and no head yet: a failure; else nothing.
#[must_use = "dropped at once, the call counts as given up"]
pub struct RampedGatePermit {
    lease: Arc<Lease<Valve>>,
    ticket: Ticket,
}

/// An admitted call, as the gate knows it. Whole words only, as in the breaker's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket {
    generation: u64,
    /// When it was pending.
    began: u64,
    /// Its epoch in the ring of calls in flight; 0: it is not, and was not
    /// counted as one that hangs.
    hung: u64,
    marks: u64,
}

/// Let through against the decision, or not measured.
const FREE: u64 = 1;
/// In the ring.
const WAITING: u64 = 2;
/// gRPC said `RESOURCE_EXHAUSTED`.
const EXHAUSTED: u64 = 4;
const CONCLUDED: u64 = 8;
/// It counted as a good one with its head.
const GOOD: u64 = 16;
/// HTTP said 429.
const TOO_MANY: u64 = 32;

const TOO_MANY_REQUESTS: Status = Status::Http(429);

impl Ticket {
    #[inline]
    pub(super) fn new(word: Word) -> Self {
        Self { generation: word.generation(), began: 0, hung: 0, marks: 0 }
    }

    pub(super) fn free() -> Self {
        Self { generation: 0, began: 0, hung: 0, marks: FREE }
    }

    #[inline]
    fn is(&self, mark: u64) -> bool {
        self.marks & mark != 0
    }

    /// Whether its outcome was known already; from now on it is.
    #[inline]
    fn conclude(&mut self) -> bool {
        let before = self.is(CONCLUDED);
        self.marks |= CONCLUDED;
        before
    }
}

impl RampedGatePermit {
    #[inline]
    pub(super) fn new(lease: Arc<Lease<Valve>>, ticket: Ticket) -> Self {
        Self { lease, ticket }
    }

    /// [`Settle::pending`] by another clock.
    pub fn pending_at(&mut self, clock: &impl Clock) {
        if self.ticket.is(WAITING | FREE) {
            return;
        }
        let now = self.lease.nanos(clock);
        self.lease.look(now);
        self.ticket.marks |= WAITING;
        self.ticket.began = now;
        self.ticket.hung = self.lease.hung.enter(self.lease.stripe(), now);
    }

    /// [`Settle::timed`] by another clock.
    #[inline]
    pub fn timed_at(&mut self, so_far: Outcome, clock: &impl Clock) {
        if so_far == Outcome::Success && !self.ticket.is(FREE | GOOD | CONCLUDED) {
            self.ticket.marks |= GOOD;
            self.lease.succeed(self.ticket.generation, clock);
        }
    }

    /// [`Settle::settle`] by another clock.
    #[inline]
    pub fn settle_at(mut self, outcome: Outcome, pushback: Option<Pushback>, clock: &impl Clock) {
        self.conclude_at(outcome, pushback, clock);
    }

    /// A drop by another clock.
    pub fn abandon_at(mut self, clock: &impl Clock) {
        self.ticket.conclude();
        self.give_up(Outcome::Ignored, clock);
    }

    /// Nobody waits for its answer any more.
    #[inline]
    fn leave(&mut self) {
        if self.ticket.is(WAITING) {
            self.ticket.marks &= !WAITING;
            self.lease.hung.leave(self.lease.stripe(), self.ticket.hung);
            if !self.lease.hung.is_reported(self.ticket.hung) {
                self.ticket.hung = 0;
            }
        }
    }

    #[inline]
    fn conclude_at(&mut self, outcome: Outcome, pushback: Option<Pushback>, clock: &impl Clock) {
        if self.ticket.conclude() {
            return;
        }
        self.leave();
        if outcome == Outcome::Success && !self.ticket.is(FREE | GOOD) {
            self.lease.succeed(self.ticket.generation, clock);
        } else {
            self.judge(outcome, pushback, clock);
        }
    }

    #[inline(never)]
    fn judge(&self, outcome: Outcome, pushback: Option<Pushback>, clock: &impl Clock) {
        let is_bad = match outcome {
            Outcome::Failure => true,
            // A 429 is for who sent too much (RFC 6585, 4), often one client of many, and a wait that is told him does not change that: a
            // fleet that is itself too busy says 503. What gRPC calls exhausted may as well be a message that is too large, which a pushback
            // rules out.
            Outcome::Overload => !self.ticket.is(TOO_MANY) && (pushback.is_some() || !self.ticket.is(EXHAUSTED)),
            _ => false,
        };
        // One that hung has been counted.
        let is_known = self.ticket.hung != 0 && self.lease.hung.is_reported(self.ticket.hung);
        if is_bad && !is_known && !self.ticket.is(FREE) {
            let now = self.lease.nanos(clock);
            self.lease.fail(self.ticket.generation, now);
            self.lease.look(now);
        }
    }

    fn give_up(&mut self, outcome: Outcome, clock: &impl Clock) {
        let mut outcome = outcome;
        if self.ticket.is(WAITING) {
            let now = self.lease.nanos(clock);
            if now.saturating_sub(self.ticket.began) >= self.lease.hang_after() {
                outcome = Outcome::Failure;
            }
            self.leave();
        }
        self.judge(outcome, None, clock);
    }
}

impl Settle for RampedGatePermit {
    fn pending(&mut self) {
        self.pending_at(&TokioClock);
    }

    fn pause(&mut self) {
        self.leave();
    }

    #[inline]
    fn head(&mut self) {
        self.leave();
    }

    /// A stream that has begun well speaks for the service now, not when it ends. How it ends counts as well, if that is bad.
    #[inline]
    fn timed(&mut self, so_far: Outcome) {
        self.timed_at(so_far, &TokioClock);
    }

    const HEEDS_STATUS: bool = true;

    #[inline]
    fn status(&mut self, status: Status) {
        match status {
            TOO_MANY_REQUESTS => self.ticket.marks |= TOO_MANY,
            Status::RESOURCE_EXHAUSTED => self.ticket.marks |= EXHAUSTED,
            _ => {}
        }
    }

    #[inline]
    fn conclude(&mut self, outcome: Outcome, pushback: Option<Pushback>) {
        self.conclude_at(outcome, pushback, &TokioClock);
    }
}

impl Drop for RampedGatePermit {
    #[inline]
    fn drop(&mut self) {
        if !self.ticket.conclude() {
            self.give_up(buttress_core::abandoned(), &TokioClock);
        }
    }
}

impl fmt::Debug for RampedGatePermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RampedGatePermit").field("ticket", &self.ticket).finish_non_exhaustive()
    }
}
