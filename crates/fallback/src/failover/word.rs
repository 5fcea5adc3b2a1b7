use buttress_core::sync::{
    AtomicU64,
    Ordering::{AcqRel, Acquire},
};

/// Where calls go, how many results in a row speak against it, and since which decision: one word, so that a result of what was
/// before never moves what is now.
#[derive(Debug)]
pub(super) struct Word(AtomicU64);

/// `[ generation 43 | preferred 4 | failed over 1 | run 16 ]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen(u64);

/// How many results in a row it takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) fail_after: u32,
    pub(super) return_after: u32,
}

/// What a result, or an operator, changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Calls go to the first backup at once.
    Over,
    /// They go to the primary again.
    Back,
}

const RUN: u64 = (1 << 16) - 1;
const OVER: u64 = 1 << 16;
const PREFERRED_SHIFT: u32 = 17;
const PREFERRED: u64 = 15;
const GENERATION_SHIFT: u32 = 21;

impl Seen {
    pub(super) fn generation(self) -> u64 {
        self.0 >> GENERATION_SHIFT
    }

    pub(super) fn is_over(self) -> bool {
        self.0 & OVER != 0
    }

    /// The tier that an operator chose.
    pub(super) fn preferred(self) -> Option<u8> {
        ((self.0 >> PREFERRED_SHIFT & PREFERRED) as u8).checked_sub(1)
    }

    /// Calls go to the primary, and nothing was bad lately: what every call asks first.
    #[inline]
    pub(super) fn is_calm(self) -> bool {
        self.0 & (PREFERRED << PREFERRED_SHIFT | OVER) == 0
    }

    fn run(self) -> u32 {
        (self.0 & RUN) as u32
    }

    fn with_run(self, run: u32) -> Self {
        Self(self.0 & !RUN | u64::from(run))
    }

    fn next(self, over: bool, preferred: Option<u8>) -> Self {
        let generation = self.generation().wrapping_add(1) << GENERATION_SHIFT;
        let preferred = preferred.map_or(0, |tier| u64::from(tier) + 1) << PREFERRED_SHIFT;
        Self(generation | preferred | if over { OVER } else { 0 })
    }

    /// After a result of the primary.
    pub(super) fn after(self, good: bool, terms: Terms) -> (Self, Option<Turn>) {
        let over = self.is_over();
        let limit = if over { terms.return_after } else { terms.fail_after };
        // What speaks for staying as it is ends the run.
        if good != over {
            return (self.with_run(0), None);
        }
        match self.run() + 1 {
            run if run >= limit => (self.next(!over, None), Some(if over { Turn::Back } else { Turn::Over })),
            run => (self.with_run(run), None),
        }
    }
}

impl Word {
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Whoever sees a generation sees what was written before it began.
    #[inline]
    pub(super) fn load(&self) -> Seen {
        Seen(self.0.load(Acquire))
    }

    /// A call of this generation ended so. `before` is run before a turn is made known; it may be run though another result makes
    /// it.
    pub(super) fn told(&self, generation: u64, good: bool, terms: Terms, mut before: impl FnMut()) -> Option<Turn> {
        let mut seen = self.load();
        while seen.generation() == generation {
            let (next, turn) = seen.after(good, terms);
            if next == seen {
                return None;
            }
            if turn.is_some() {
                before();
            }
            match self.0.compare_exchange_weak(seen.0, next.0, AcqRel, Acquire) {
                Ok(_) => return turn,
                Err(now) => seen = Seen(now),
            }
        }
        None
    }

    /// An operator's word: a generation in which this tier comes first, or in which the results of the primary decide anew.
    pub(super) fn prefer(&self, tier: Option<u8>) -> Seen {
        let mut seen = self.load();
        loop {
            match self.0.compare_exchange_weak(seen.0, seen.next(false, tier).0, AcqRel, Acquire) {
                Ok(_) => return seen,
                Err(now) => seen = Seen(now),
            }
        }
    }
}

#[cfg(all(test, not(buttress_loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_word_leave_each_other_alone() {
        let seen = Seen(u64::MAX).next(true, Some(8));
        assert_eq!((seen.generation(), seen.preferred(), seen.is_over(), seen.run()), (0, Some(8), true, 0));
        let seen = seen.with_run(1000);
        assert_eq!((seen.generation(), seen.preferred(), seen.is_over(), seen.run()), (0, Some(8), true, 1000));
        assert!(!seen.is_calm() && !seen.next(true, None).is_calm() && !seen.next(false, Some(0)).is_calm());
        assert!(seen.next(false, None).with_run(9).is_calm());
    }
}
