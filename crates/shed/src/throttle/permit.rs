use super::throttle::Shared;
use buttress_core::{Clock, Lease, Outcome, Pushback, Settle, Status, TokioClock};
use std::{fmt, sync::Arc};

/// A call that was sent, until what comes of it is known.
///
/// Dropped without an outcome it says nothing: a call that was given up was neither accepted nor refused.
#[must_use = "dropped at once, the call counts as given up"]
pub struct ThrottlePermit {
    lease: Arc<Lease<Shared>>,
    /// The bucket in which it was sent.
    epoch: u64,
    // Whole words only: a byte that was just written is waited for when the word around it is moved.
    marks: u64,
}

/// Its outcome is known, or not wanted.
const CONCLUDED: u64 = 1;
/// gRPC said `RESOURCE_EXHAUSTED`.
const EXHAUSTED: u64 = 2;

impl ThrottlePermit {
    #[inline]
    pub(super) fn new(lease: Arc<Lease<Shared>>, epoch: u64) -> Self {
        Self { lease, epoch, marks: 0 }
    }

    /// Of a call that is not counted.
    pub(super) fn unseen(lease: Arc<Lease<Shared>>) -> Self {
        Self { lease, epoch: 0, marks: CONCLUDED }
    }

    /// [`Settle::settle`] by another clock, without a pushback.
    pub fn settle_at(mut self, outcome: Outcome, clock: &impl Clock) {
        self.conclude_at(outcome, None, clock);
    }

    #[inline]
    fn conclude_at(&mut self, outcome: Outcome, pushback: Option<Pushback>, clock: &impl Clock) {
        if self.marks & CONCLUDED != 0 {
            return;
        }
        self.marks |= CONCLUDED;
        let too_much = match outcome {
            // What gRPC calls exhausted may as well be a message that is too large, which a pushback rules out.
            Outcome::Overload if pushback.is_some() || self.marks & EXHAUSTED == 0 => true,
            Outcome::Ignored => false,
            _ => return,
        };
        self.lease.said(self.lease.stripe(), self.epoch, too_much, clock);
    }
}

impl Settle for ThrottlePermit {
    const HEEDS_STATUS: bool = true;

    #[inline]
    fn status(&mut self, status: Status) {
        if status == Status::RESOURCE_EXHAUSTED {
            self.marks |= EXHAUSTED;
        }
    }

    #[inline]
    fn conclude(&mut self, outcome: Outcome, pushback: Option<Pushback>) {
        self.conclude_at(outcome, pushback, &TokioClock);
    }
}

impl Drop for ThrottlePermit {
    #[inline]
    fn drop(&mut self) {
        self.conclude_at(Outcome::Ignored, None, &TokioClock);
    }
}

impl fmt::Debug for ThrottlePermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_open = self.marks & CONCLUDED == 0;
        f.debug_struct("ThrottlePermit").field("is_open", &is_open).finish_non_exhaustive()
    }
}
