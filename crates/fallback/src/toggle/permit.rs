use super::machine::{Machine, Ticket, Told};
use buttress_core::{Clock, Lease, Outcome, Pushback, Settle, TokioClock, abandoned};
use std::{fmt, sync::Arc};

/// A call that a [`Toggle`](super::Toggle) let pass: it tells the toggle how the call came out, and gives a probe's place back.
pub struct TogglePermit {
    /// `None`: nothing follows from the call.
    lease: Option<Arc<Lease<Machine>>>,
    ticket: Ticket,
    waited: bool,
    /// A probe's place.
    holds: bool,
}

impl TogglePermit {
    #[inline]
    pub(super) fn new(lease: impl FnOnce() -> Arc<Lease<Machine>>, ticket: Ticket) -> Self {
        let lease = (ticket != Ticket::Free).then(lease);
        Self { lease, ticket, waited: false, holds: matches!(ticket, Ticket::Probe(_)) }
    }

    /// Whether this call decides, as a probe, if the toggle is switched on again.
    pub fn is_probe(&self) -> bool {
        matches!(self.ticket, Ticket::Probe(_))
    }

    /// [`conclude`](Settle::conclude) by another clock.
    #[inline]
    pub fn conclude_at(&mut self, outcome: Outcome, clock: &impl Clock) {
        if let Some(lease) = self.lease.take() {
            let told = Told { stripe: lease.stripe(), waited: self.waited };
            lease.conclude(self.ticket, self.holds, outcome, told, clock);
        }
    }
}

impl Settle for TogglePermit {
    #[inline]
    fn pending(&mut self) {
        self.waited = true;
    }

    #[inline]
    fn head(&mut self) {
        if self.holds
            && let Some(lease) = &self.lease
        {
            self.holds = false;
            lease.answered(self.ticket);
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
