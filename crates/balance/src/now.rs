use buttress_core::{Clock, Origin};
use std::{cell::Cell, time::Instant};

/// The moment of a pick. Averages that decay over seconds need no exact one, and a clock takes longer than a pick: it is read
/// when something depends on it, and before that the moment is the last one that anybody read.
pub(crate) struct Now<C> {
    clock: C,
    origin: Origin,
    recent: u64,
    read: Cell<Option<Instant>>,
}

impl<C: Clock> Now<C> {
    #[inline]
    pub(crate) fn new(clock: C, origin: Origin, recent: u64) -> Self {
        Self { clock, origin, recent, read: Cell::new(None) }
    }

    /// The exact moment.
    pub(crate) fn exact(&self) -> Instant {
        self.read.get().unwrap_or_else(|| {
            let now = self.clock.now();
            self.read.set(Some(now));
            now
        })
    }

    /// The moment as it is known, in nanoseconds since the origin.
    #[inline]
    pub(crate) fn nanos(&self) -> u64 {
        self.read.get().map_or(self.recent, |now| self.origin.nanos(now))
    }

    /// The exact moment, in nanoseconds since the origin.
    pub(crate) fn exact_nanos(&self) -> u64 {
        self.origin.nanos(self.exact())
    }
}
