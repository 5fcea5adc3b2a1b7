use buttress_core::sync::{
    AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed},
};
use std::{array, time::Duration};

const SLOTS: usize = 32;
const NO_SLOT: u8 = u8::MAX;
// A mark: [ generation 24 | began, in ms, plus 1: 40 ]; 0: free.
const TIME_BITS: u32 = 40;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;
const MILLI: u64 = 1_000_000;

/// When each probe in flight began, so that one that hangs can be told from the rest. Whoever takes a probe's mark away (its
/// end or its expiry) settles it: that makes it once.
pub(crate) struct Probes([AtomicU64; SLOTS]);

impl Probes {
    pub(crate) fn new() -> Self {
        Self(array::from_fn(|_| AtomicU64::new(0)))
    }

    /// Marks a probe that has been admitted. There is a place: the state lets no more probes in than there are, gives their
    /// marks back before it counts them out, and marks of an earlier generation are taken over.
    pub(crate) fn take(&self, generation: u32, now: u64) -> (u8, u64) {
        let mark = u64::from(generation) << TIME_BITS | (now / MILLI + 1) & TIME_MASK;
        for (slot, word) in self.0.iter().enumerate() {
            let seen = word.load(Relaxed);
            let is_free = seen == 0 || seen >> TIME_BITS != u64::from(generation);
            if is_free && word.compare_exchange(seen, mark, AcqRel, Relaxed).is_ok() {
                return (slot as u8, mark);
            }
        }
        (NO_SLOT, mark)
    }

    /// True: the probe was still there, and is the caller's to settle.
    pub(crate) fn give_back(&self, slot: u8, mark: u64) -> bool {
        let Some(word) = self.0.get(usize::from(slot)) else { return slot == NO_SLOT };
        word.compare_exchange(mark, 0, AcqRel, Relaxed).is_ok()
    }

    /// A probe that has been in flight for `deadline` nanoseconds.
    pub(crate) fn expired(&self, generation: u32, now: u64, deadline: u64) -> Option<(u8, u64)> {
        let marks = self.0.iter().map(|word| word.load(Acquire)).enumerate();
        let mut mine = marks.filter(|(_, mark)| *mark != 0 && mark >> TIME_BITS == u64::from(generation));
        mine.find(|(_, mark)| began(*mark) + deadline <= now).map(|(slot, mark)| (slot as u8, mark))
    }

    /// How long until the first of them is past its deadline.
    pub(crate) fn wait(&self, generation: u32, now: u64, deadline: u64) -> Duration {
        let marks = self.0.iter().map(|word| word.load(Acquire));
        let mine = marks.filter(|mark| *mark != 0 && mark >> TIME_BITS == u64::from(generation));
        let first = mine.map(|mark| began(mark) + deadline).min().unwrap_or(now + deadline);
        Duration::from_nanos(first.saturating_sub(now).max(MILLI))
    }
}

/// The end of the millisecond in which a probe began: it never expires early.
fn began(mark: u64) -> u64 {
    (mark & TIME_MASK) * MILLI
}
