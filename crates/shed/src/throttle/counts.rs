//! What was made, refused and said in the window, in two of core's.

use buttress_core::window::TimeWindow;
use std::{fmt, time::Duration};

/// Calls by when they were made, and what came of them by when that was known: a call leaves the one window sooner than its answer leaves the
/// other, by as long as it took.
pub(super) struct Calls {
    /// Successes: calls that were sent. Failures: calls that were refused here.
    made: TimeWindow,
    /// Failures: "too much". Slow: nothing was said.
    said: TimeWindow,
}

/// One look at the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Calls that were made, but for those that nothing was said of.
    pub(super) made: u64,
    /// Of these, those that were refused here.
    pub(super) refused: u64,
    /// Of these, those that the service called too many.
    pub(super) overloads: u64,
}

impl Seen {
    /// Calls that the service accepted, or may yet.
    pub(super) fn accepted(&self) -> u64 {
        self.made.saturating_sub(self.refused + self.overloads)
    }

    /// The probability with which the next call is refused.
    pub(super) fn probability(&self, k: f64) -> f64 {
        let excess = self.made as f64 - k * self.accepted() as f64;
        (excess / (self.made as f64 + 1.0)).max(0.0)
    }
}

impl Calls {
    pub(super) fn new(window: Duration, stripes: usize) -> Self {
        Self { made: TimeWindow::new(window, stripes), said: TimeWindow::new(window, stripes) }
    }

    /// A call is sent. True: [`advance`](Self::advance), please.
    #[inline]
    pub(super) fn sent(&self, stripe: usize) -> bool {
        self.made.success(stripe, 0)
    }

    /// Times are nanoseconds since the origin.
    pub(super) fn advance(&self, now: u64) {
        self.made.advance(now);
    }

    pub(super) fn refused(&self, stripe: usize, now: u64) {
        self.made.failure(stripe, 0, self.made.advance(now));
    }

    pub(super) fn overload(&self, stripe: usize, now: u64) {
        self.said.failure(stripe, 0, self.said.advance(now));
    }

    pub(super) fn nothing(&self, stripe: usize, now: u64) {
        self.said.slow(stripe, 0, self.said.advance(now));
    }

    pub(super) fn seen(&self, now: u64) -> Seen {
        let (made, said) = (self.made.counts(0, now), self.said.counts(0, now));
        Seen { made: made.total.saturating_sub(said.slow), refused: made.failures, overloads: said.failures }
    }

    pub(super) fn resize(&self, window: Duration, now: u64) {
        self.made.resize(window, now);
        self.said.resize(window, now);
    }
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calls").field("window", &self.made.length()).finish_non_exhaustive()
    }
}
