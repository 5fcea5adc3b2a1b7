use super::{
    Side,
    state::{Pick, Shared},
};
use buttress_core::{Clock, Lease, Outcome, Pushback, Reason, Rejection, Settle, TokioClock, abandoned};
use std::{fmt, sync::Arc};

/// A call to one of the two services, to its real end.
///
/// A success and a failure count; an overload, a client's fault and a call that was given up do not. An error that says that the
/// side takes no calls at all (every circuit is open, there is no endpoint) counts as a failure: a breaker further in would
/// otherwise hide a canary that is down. One that is dropped without a conclusion is what [`abandoned`] says: over
/// HTTP a good answer whose body nobody reads to its end counts for nobody, and callers that read none give the stable side no calls.
pub struct CanaryPermit {
    lease: Arc<Lease<Shared>>,
    pick: Pick,
    waited: bool,
    /// A layer further in lets nothing through to it.
    shut: bool,
    concluded: bool,
}

impl CanaryPermit {
    #[inline]
    pub(super) fn new(lease: Arc<Lease<Shared>>, pick: Pick) -> Self {
        Self { lease, pick, waited: false, shut: false, concluded: !pick.measured }
    }

    /// Where it goes.
    pub fn side(&self) -> Side {
        self.pick.side
    }

    #[inline]
    pub(super) fn conclude_at(&mut self, outcome: Outcome, clock: &impl Clock) {
        if std::mem::replace(&mut self.concluded, true) {
            return;
        }
        let failed = match outcome {
            Outcome::Success => false,
            Outcome::Failure => true,
            Outcome::Ignored if self.shut => true,
            _ => return,
        };
        self.lease.ended(self.lease.stripe(), self.pick, failed, self.waited, clock);
    }
}

impl Settle for CanaryPermit {
    #[inline]
    fn pending(&mut self) {
        self.waited = true;
    }

    const HEEDS_REFUSALS: bool = true;

    fn refused(&mut self, rejection: Rejection) {
        self.shut = matches!(rejection.reason, Reason::BreakerOpen | Reason::NoEndpoint);
    }

    #[inline]
    fn conclude(&mut self, outcome: Outcome, _: Option<Pushback>) {
        self.conclude_at(outcome, &TokioClock);
    }
}

impl Drop for CanaryPermit {
    #[inline]
    fn drop(&mut self) {
        if !self.concluded {
            self.conclude_at(abandoned(), &TokioClock);
        }
    }
}

impl fmt::Debug for CanaryPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CanaryPermit").field("side", &self.pick.side).finish_non_exhaustive()
    }
}
