use buttress_core::sync::{
    AtomicU64,
    Ordering::{AcqRel, Acquire},
};

/// The share of calls, whether it was given up, and since which decision of an operator: one word, so that a verdict on what was
/// seen before never undoes what was decided after.
#[derive(Debug)]
pub(super) struct Word(AtomicU64);

/// `[ generation 31 | tripped 1 | share 32 ]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen(u64);

const SHARE_MASK: u64 = (1 << 32) - 1;
const TRIPPED: u64 = 1 << 32;
const GENERATION_SHIFT: u32 = 33;

/// All calls.
const WHOLE: u64 = 1 << 31;

impl Seen {
    #[inline]
    pub(super) fn generation(self) -> u32 {
        (self.0 >> GENERATION_SHIFT) as u32
    }

    #[inline]
    pub(super) fn is_tripped(self) -> bool {
        self.0 & TRIPPED != 0
    }

    /// Whether a call with this draw belongs to the share.
    #[inline]
    pub(super) fn takes(self, draw: u64) -> bool {
        draw >> 33 < self.0 & SHARE_MASK
    }
}

/// A weight in percent as a share of [`WHOLE`]. The least weight there is, is one: none is only 0.
fn share(weight: f64) -> u64 {
    let share = (weight / 100.0 * WHOLE as f64).round() as u64;
    if weight > 0.0 { share.max(1) } else { 0 }
}

impl Word {
    pub(super) fn new(weight: f64) -> Self {
        Self(AtomicU64::new(share(weight)))
    }

    /// Whoever sees a generation sees what was written before it began.
    #[inline]
    pub(super) fn load(&self) -> Seen {
        Seen(self.0.load(Acquire))
    }

    /// Gives the share up, if `generation` is the present one. True for the one who did.
    pub(super) fn trip(&self, generation: u32) -> bool {
        let mut seen = self.load();
        while seen.generation() == generation && !seen.is_tripped() {
            match self.0.compare_exchange_weak(seen.0, seen.0 | TRIPPED, AcqRel, Acquire) {
                Ok(_) => return true,
                Err(now) => seen = Seen(now),
            }
        }
        false
    }

    /// Another generation with this weight. One at a time: under the lock of the config.
    pub(super) fn renew(&self, weight: f64) {
        let generation = self.load().generation().wrapping_add(1);
        // Not a bare store: it takes its place among the verdicts, which are exchanges.
        self.0.swap(u64::from(generation) << GENERATION_SHIFT | share(weight), AcqRel);
    }
}

#[cfg(all(test, not(buttress_loom)))]
mod tests {
    use super::*;

    #[test]
    fn all_none_and_the_least_are_what_they_say() {
        let takes = |weight| {
            let seen = Word::new(weight).load();
            [0, (1 << 33) - 1, 1 << 33, u64::MAX / 2, u64::MAX].map(|draw| seen.takes(draw))
        };
        assert_eq!(takes(0.0), [false; 5]);
        assert_eq!(takes(100.0), [true; 5]);
        assert_eq!(takes(1e-12), [true, true, false, false, false]);
        assert_eq!(takes(50.0), [true, true, true, true, false]);
    }

    #[test]
    fn generations_come_round_and_keep_out_of_the_share() {
        let word = Word(AtomicU64::new(u64::MAX));
        assert!(word.load().is_tripped());
        word.renew(100.0);
        let seen = word.load();
        assert!(seen.generation() == 0 && !seen.is_tripped() && seen.takes(u64::MAX));
        assert!(!word.trip(1) && word.trip(0) && !word.trip(0) && word.load().is_tripped());
    }
}
