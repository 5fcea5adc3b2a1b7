use crate::{meter::End, shared::SharedLease};
use buttress_core::{Clock, Outcome, Pushback, Reason, Rejection, Settle, Status, TokioClock, sync::Ordering::Relaxed};
use std::fmt;

/// A call that was let in, until its end.
///
/// Three ends: the permit goes back when it is dropped (with [`Release::Head`](crate::Release::Head) at the head); the time it
/// took is over at the head, without what it was [paused](Settle::pause), and a good head is counted there; what others mean is known
/// when the call is concluded.
///
/// | outcome | what the limit learns |
/// |---|---|
/// | `Success` | its time |
/// | `Failure` | its time, unless it failed fast: in less than half of the usual time; at a deadline, that it would have taken longer |
/// | `Overload` | that it was too much; of gRPC's `RESOURCE_EXHAUSTED` without a pushback what a `Failure` says: it may mean a message that is too large |
/// | `Ignored`, or dropped | that it would have taken longer, unless it was given up at once |
#[must_use = "dropped at once, the call counts as given up"]
pub struct ShedPermit {
    lease: SharedLease,
    // Whole words only: a byte that was just written is waited for when the word around it is moved.
    /// Since when it takes time, or none any more, in nanoseconds since the origin.
    began: u64,
    /// What it took before that.
    spent: u64,
    marks: u64,
}

/// It has a permit.
const HELD: u64 = 1;
/// A mode let it pass, above the limit.
const PASSED: u64 = 2;
/// Its time is taken.
const TIMED: u64 = 4;
/// It takes time now.
const RUNNING: u64 = 8;
/// Its head is there.
const ANSWERED: u64 = 16;
/// A deadline of ours ended it.
const CUT: u64 = 32;
const CONCLUDED: u64 = 64;
/// The limit has its time.
const SAMPLED: u64 = 128;
/// gRPC said `RESOURCE_EXHAUSTED`.
const EXHAUSTED: u64 = 256;

impl ShedPermit {
    /// With a permit of the lease's stripe.
    #[inline]
    pub(crate) fn admitted(lease: SharedLease, clock: &impl Clock) -> Self {
        if lease.times_next(lease.stripe()) {
            let began = lease.nanos(clock);
            return Self { lease, began, spent: 0, marks: HELD | TIMED | RUNNING };
        }
        Self { lease, began: 0, spent: 0, marks: HELD }
    }

    /// With a permit, and nobody learns from it.
    pub(crate) fn unmeasured(lease: SharedLease) -> Self {
        Self { lease, began: 0, spent: 0, marks: HELD | CONCLUDED }
    }

    /// Without a permit; it was counted.
    pub(crate) fn passed(lease: SharedLease) -> Self {
        Self { lease, began: 0, spent: 0, marks: PASSED | CONCLUDED }
    }

    #[inline]
    fn is(&self, mark: u64) -> bool {
        self.marks & mark != 0
    }

    #[inline]
    pub(crate) fn pending_at(&mut self, clock: &impl Clock) {
        if self.marks & (TIMED | RUNNING | CONCLUDED) == TIMED {
            self.began = self.lease.nanos(clock);
            self.marks = self.marks & !ANSWERED | RUNNING;
        }
    }

    #[inline]
    pub(crate) fn pause_at(&mut self, clock: &impl Clock) {
        if self.is(RUNNING) {
            let now = self.lease.nanos(clock);
            self.stop(now);
        }
    }

    #[inline]
    pub(crate) fn head_at(&mut self, clock: &impl Clock) {
        self.pause_at(clock);
        self.marks |= ANSWERED;
        if self.lease.releases_at_head() {
            self.give_back(clock);
        }
    }

    #[inline]
    pub(crate) fn conclude_at(&mut self, outcome: Outcome, clock: &impl Clock) {
        if self.is(CONCLUDED) {
            return;
        }
        self.marks |= CONCLUDED;
        if outcome == Outcome::Overload {
            self.lease.meter.overload();
        }
        if self.marks & (TIMED | SAMPLED) == TIMED {
            self.record(outcome, clock);
        }
    }

    /// Ends without an outcome of its own.
    fn abandon_at(&mut self, clock: &impl Clock) {
        let outcome = buttress_core::abandoned();
        if outcome == Outcome::Failure && !std::thread::panicking() {
            self.marks |= CUT;
        }
        self.conclude_at(outcome, clock);
    }

    fn record(&mut self, outcome: Outcome, clock: &impl Clock) {
        let now = self.lease.nanos(clock);
        if self.is(RUNNING) {
            self.stop(now);
        }
        let slow = self.lease.meter.is_slow(self.spent);
        let end = match outcome {
            Outcome::Success => Some(End::Whole),
            Outcome::Failure if self.is(CUT) && !self.is(ANSWERED) => Some(End::TimedOut),
            Outcome::Failure if slow => Some(End::Whole),
            Outcome::Ignored if self.is(ANSWERED) => Some(End::Whole),
            Outcome::Ignored if slow => Some(End::Cut),
            _ => None,
        };
        self.lease.record(end, self.spent, now);
    }

    fn stop(&mut self, now: u64) {
        self.spent = self.spent.saturating_add(now.saturating_sub(self.began));
        self.began = now;
        self.marks &= !RUNNING;
    }

    #[inline]
    fn give_back(&mut self, clock: &impl Clock) {
        if self.is(HELD) {
            self.marks &= !HELD;
            self.lease.release(self.lease.stripe(), clock);
        } else if self.is(PASSED) {
            self.marks &= !PASSED;
            self.lease.over_limit.fetch_sub(1, Relaxed);
        }
    }
}

impl Settle for ShedPermit {
    #[inline]
    fn pending(&mut self) {
        self.pending_at(&TokioClock);
    }

    #[inline]
    fn pause(&mut self) {
        self.pause_at(&TokioClock);
    }

    #[inline]
    fn head(&mut self) {
        self.head_at(&TokioClock);
    }

    const HEEDS_REFUSALS: bool = true;

    fn refused(&mut self, rejection: Rejection) {
        if rejection.reason == Reason::DeadlinePassed {
            self.marks |= CUT;
        }
    }

    /// A good one is counted here, and not when the body is over: a stream may go on for hours, and a limit that hears of none of
    /// them until then never grows.
    #[inline]
    fn timed(&mut self, so_far: Outcome) {
        if so_far == Outcome::Success && self.marks & (TIMED | RUNNING | SAMPLED | CONCLUDED) == TIMED {
            self.marks |= SAMPLED;
            self.lease.record(Some(End::Whole), self.spent, self.began);
        }
    }

    const HEEDS_STATUS: bool = true;

    #[inline]
    fn status(&mut self, status: Status) {
        if status == Status::RESOURCE_EXHAUSTED {
            self.marks |= EXHAUSTED;
        }
    }

    #[inline]
    fn conclude(&mut self, outcome: Outcome, pushback: Option<Pushback>) {
        let is_unsure = outcome == Outcome::Overload && pushback.is_none() && self.is(EXHAUSTED);
        self.conclude_at(if is_unsure { Outcome::Failure } else { outcome }, &TokioClock);
    }
}

impl Drop for ShedPermit {
    #[inline]
    fn drop(&mut self) {
        if !self.is(CONCLUDED) {
            self.abandon_at(&TokioClock);
        }
        self.give_back(&TokioClock);
    }
}

impl fmt::Debug for ShedPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (held, timed) = (self.is(HELD), self.is(TIMED));
        f.debug_struct("ShedPermit").field("held", &held).field("timed", &timed).finish_non_exhaustive()
    }
}
