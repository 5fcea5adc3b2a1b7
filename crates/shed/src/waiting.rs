use crate::{
    line::Why,
    permit::ShedPermit,
    shared::{Cause, SharedLease},
    waiters::Waiters,
};
use buttress_core::{
    Clock, Priority, Rejection, TokioClock,
    permits::{Place, Verdict},
};
use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::time::Sleep;

/// A call that waits for room: it ends with a permit, or with a refusal.
///
/// Dropped, it leaves the queue; a permit it was granted meanwhile goes to the next.
pub struct Waiting {
    /// Taken when the wait is over.
    seat: Option<(SharedLease, Place<Waiters>)>,
    priority: Priority,
    until: u64,
    /// Boxed, as calls that do not wait (nearly all) carry its place, too.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Waiting {
    pub(crate) fn new(lease: SharedLease, place: Place<Waiters>, priority: Priority, until: u64) -> Self {
        Self { seat: Some((lease, place)), priority, until, timer: None }
    }

    /// What a verdict means.
    fn end(
        lease: SharedLease,
        priority: Priority,
        verdict: Verdict<Why>,
        clock: &impl Clock,
    ) -> Result<ShedPermit, Rejection> {
        match verdict {
            Verdict::Permit => Ok(ShedPermit::admitted(lease, clock)),
            Verdict::Pass => Ok(ShedPermit::passed(lease)),
            Verdict::Refused(why) => Err(lease.turn_away(lease.stripe(), priority, why.into())),
        }
    }

    /// Leaves the queue: with what was said before it could.
    fn leave(&mut self, clock: &impl Clock) -> Option<Result<ShedPermit, Rejection>> {
        let (lease, place) = self.seat.take()?;
        let verdict = lease.permits.leave(&place, || lease.moment(lease.nanos(clock)))?;
        Some(Self::end(lease, self.priority, verdict, clock))
    }
}

impl Future for Waiting {
    type Output = Result<ShedPermit, Rejection>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let (lease, place) = this.seat.as_mut().expect("a future was polled after it had completed");
        if let Poll::Ready(verdict) = place.poll(cx) {
            let lease = lease.clone();
            (this.seat, this.timer) = (None, None);
            return Poll::Ready(Self::end(lease, this.priority, verdict, &TokioClock));
        }
        let until = lease.meter.at(this.until);
        let timer = this.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until.into())));
        if timer.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        this.timer = None;
        let lease = lease.clone();
        let said = this.leave(&TokioClock);
        Poll::Ready(said.unwrap_or_else(|| Err(lease.turn_away(lease.stripe(), this.priority, Cause::Waited))))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        drop(self.leave(&TokioClock));
    }
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiting").field("priority", &self.priority).finish_non_exhaustive()
    }
}
