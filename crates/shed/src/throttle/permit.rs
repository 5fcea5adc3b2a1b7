use super::throttle::Shared;
use buttress_core::{Clock, Lease, Outcome, Pushback, Settle, TokioClock};
use std::{fmt, sync::Arc};

/// A call that was sent, until what comes of it is known.
///
/// Dropped without an outcome it says nothing: a call that was given up was neither accepted nor refused.
#[must_use = "dropped at once, the call counts as given up"]
pub struct ThrottlePermit {
    lease: Arc<Lease<Shared>>,
    is_open: bool,
}

impl ThrottlePermit {
    #[inline]
    pub(super) fn new(lease: Arc<Lease<Shared>>) -> Self {
        Self { lease, is_open: true }
    }

    /// Of a call that is not counted.
    pub(super) fn unseen(lease: Arc<Lease<Shared>>) -> Self {
        Self { lease, is_open: false }
    }

    /// [`Settle::settle`] by another clock.
    pub fn settle_at(mut self, outcome: Outcome, clock: &impl Clock) {
        self.conclude_at(outcome, clock);
    }

    #[inline]
    fn conclude_at(&mut self, outcome: Outcome, clock: &impl Clock) {
        if std::mem::take(&mut self.is_open) && matches!(outcome, Outcome::Overload | Outcome::Ignored) {
            self.lease.said(self.lease.stripe(), outcome, clock);
        }
    }
}

impl Settle for ThrottlePermit {
    #[inline]
    fn conclude(&mut self, outcome: Outcome, _: Option<Pushback>) {
        self.conclude_at(outcome, &TokioClock);
    }
}

impl Drop for ThrottlePermit {
    #[inline]
    fn drop(&mut self) {
        self.conclude_at(Outcome::Ignored, &TokioClock);
    }
}

impl fmt::Debug for ThrottlePermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThrottlePermit").field("is_open", &self.is_open).finish_non_exhaustive()
    }
}
