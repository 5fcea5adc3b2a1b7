//! What was made, refused and said in the window, in two of core's.

use buttress_core::window::TimeWindow;
use std::{fmt, time::Duration};

/// Calls by when they were made, and so is what came of them: an answer is counted in the bucket of its call, and leaves the window with it.
///
/// Refusals, and calls of which nothing was said, are counted where there are no halves, as the one window does not know when the other one halves:
/// for the two others that takes a million calls a second of one stripe, for all of a bucket.
pub(super) struct Calls {
    /// Successes: calls that were sent. Slow: calls that were refused here.
    made: TimeWindow,
    /// Successes: "too much". Slow: nothing was said. Its epochs are those of `made`.
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

    /// A call is sent: in this epoch. True: [`advance`](Self::advance), please.
    #[inline]
    pub(super) fn sent(&self, stripe: usize) -> (u64, bool) {
        let epoch = self.made.current();
        (epoch, self.made.success_in(stripe, epoch))
    }

    /// Times are nanoseconds since the origin.
    pub(super) fn advance(&self, now: u64) {
        self.made.advance(now);
    }

    pub(super) fn refused(&self, stripe: usize, now: u64) {
        self.made.slow(stripe, 0, self.made.advance(now));
    }

    /// What was said of a call that was sent in `epoch`: that it was too much, or nothing.
    pub(super) fn said(&self, stripe: usize, epoch: u64, too_much: bool, now: u64) {
        let newest = self.said.advance_to(self.made.advance(now));
        if epoch < TimeWindow::oldest(newest) {
            return;
        }
        match too_much {
            true => _ = self.said.success_in(stripe, epoch),
            false => self.said.slow(stripe, epoch, epoch),
        }
    }

    pub(super) fn seen(&self, now: u64) -> Seen {
        let newest = self.made.advance(now);
        let (made, said) = (self.made.counts_to(0, newest), self.said.counts_to(0, newest));
        Seen { made: (made.total + made.slow).saturating_sub(said.slow), refused: made.slow, overloads: said.total }
    }

    /// How often the odds are worked out anew at most, in milliseconds.
    pub(super) fn every(&self) -> u64 {
        (self.made.length().as_millis() as u64 / 1000).max(1)
    }

    pub(super) fn resize(&self, window: Duration, now: u64) {
        self.made.resize(window, now);
    }
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calls").field("window", &self.made.length()).finish_non_exhaustive()
    }
}
