use crate::{
    BulkheadPermit,
    bulkhead::{Held, Shared, WAITED},
    line::Place,
};
use buttress_core::{Lease, Rejection};
use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};
use tokio::time::Sleep;

/// A call that waits for a permit: it ends with one, or with [`Reason::QueueTimeout`](buttress_core::Reason::QueueTimeout).
///
/// Dropped, it leaves the queue; a permit it was granted meanwhile goes to the next.
pub struct Waiting {
    /// Taken when the wait is over.
    seat: Option<(Arc<Lease<Shared>>, Place)>,
    until: Option<Instant>,
    /// Boxed, as calls that do not wait (nearly all) carry its place, too.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Waiting {
    pub(crate) fn new(lease: Arc<Lease<Shared>>, place: Place, until: Option<Instant>) -> Self {
        Self { seat: Some((lease, place)), until, timer: None }
    }

    /// Leaves the queue: with what was granted before it could.
    fn leave(&mut self) -> Option<BulkheadPermit> {
        let (lease, place) = self.seat.take()?;
        lease.permits.leave(&place, || ()).map(|verdict| BulkheadPermit::new(lease, verdict.into()))
    }

    fn poll_grant(&mut self, cx: &mut Context<'_>) -> Poll<Held> {
        let (_, place) = self.seat.as_mut().expect("a future was polled after it had completed");
        place.poll(cx).map(Held::from)
    }
}

impl Future for Waiting {
    type Output = Result<BulkheadPermit, Rejection>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(held) = self.poll_grant(cx) {
            self.timer = None;
            return Poll::Ready(match self.seat.take() {
                Some((lease, _)) => Ok(BulkheadPermit::new(lease, held)),
                None => Err(WAITED),
            });
        }
        let Some(until) = self.until else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until.into())));
        if timer.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.timer = None;
        let lease = self.seat.as_ref().map(|(lease, _)| lease.clone());
        Poll::Ready(self.leave().ok_or_else(|| {
            if let Some(lease) = lease {
                lease.count_time_out();
            }
            WAITED
        }))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        drop(self.leave());
    }
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiting").field("until", &self.until).finish_non_exhaustive()
    }
}
