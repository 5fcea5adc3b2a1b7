use super::state::Shared;
use buttress_core::{Lease, Outcome, Pushback, Settle, Token, TokioClock, abandoned};
use std::{fmt, sync::Arc};

/// A call to one tier, to its real end: its place among the calls of the tier, and what was paid for it.
///
/// What it tells of the primary: a bad head at once, a good one at the end of its body, as a body may yet fail. A good answer whose reader leaves in the middle
/// is good, or a service of long streams would never be trusted again; of a gRPC answer without a status it says nothing.
pub struct FailoverPermit {
    lease: Arc<Lease<Shared>>,
    generation: u64,
    token: Option<Token>,
    tier: u8,
    /// The result moves the state.
    measured: bool,
    told: bool,
    head_is_good: bool,
}

impl FailoverPermit {
    #[inline]
    pub(super) fn new(
        lease: Arc<Lease<Shared>>,
        tier: u8,
        token: Option<Token>,
        measured: bool,
        generation: u64,
    ) -> Self {
        Self { lease, generation, token, tier, measured, told: false, head_is_good: false }
    }

    pub(super) fn tier(&self) -> u8 {
        self.tier
    }

    pub(super) fn lease(&self) -> &Arc<Lease<Shared>> {
        &self.lease
    }

    #[inline]
    pub(super) fn head_is_good(&mut self) {
        self.head_is_good = true;
    }

    /// The tier has answered well, or not.
    #[inline]
    pub(super) fn tell(&mut self, good: bool) {
        if !std::mem::replace(&mut self.told, true) {
            let Self { lease, generation, tier, measured, .. } = self;
            lease.told(lease.stripe(), *tier, measured.then_some(*generation), good, &TokioClock);
        }
    }

    /// Nothing that follows says anything.
    pub(super) fn excuse(&mut self) {
        self.told = true;
    }
}

impl Settle for FailoverPermit {
    #[inline]
    fn conclude(&mut self, outcome: Outcome, _: Option<Pushback>) {
        match self.lease.is_bad(outcome) {
            Some(bad) => self.tell(!bad),
            None => self.excuse(),
        }
    }
}

impl Drop for FailoverPermit {
    #[inline]
    fn drop(&mut self) {
        if !self.told {
            match abandoned() {
                Outcome::Failure => self.tell(false),
                _ if self.head_is_good => self.tell(true),
                _ => {}
            }
        }
        self.lease.leave(self.tier);
    }
}

impl fmt::Debug for FailoverPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FailoverPermit")
            .field("tier", &self.tier)
            .field("paid", &self.token.is_some())
            .finish_non_exhaustive()
    }
}
