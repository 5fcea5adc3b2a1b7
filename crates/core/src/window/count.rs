use super::Counts;
use crate::sync::{
    AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed},
};
use std::fmt;

// Every word: [ generation 24 | ... 40 ].
const TAG_SHIFT: u32 = 40;
const TAG_MASK: u64 = (1 << 24) - 1;
const BODY_MASK: u64 = (1 << TAG_SHIFT) - 1;
/// Outcomes per word of the ring: one bit for failed, one for slow.
const HALF: u32 = 20;
const HALF_MASK: u64 = (1 << HALF) - 1;

/// The outcomes of the last `size` calls, exactly.
///
/// A ring of bits and running totals. A success over a success changes nothing, so once the ring is full and without
/// failures a healthy call only loads two words: no contention at any number of cores.
///
/// Every word is tagged with the generation it was written in. A recorder of an older generation finds a newer tag and
/// goes away; an older tag reads as zeros. So a new generation begins empty with nothing swept. At rest the totals equal the
/// bits; while a failure is being recorded they may be ahead, never behind.
pub struct CountWindow {
    size: u64,
    /// [ tag | ticket ]: the next place. Runs through `0..size` once and through `size..2 * size` ever after.
    head: AtomicU64,
    /// [ tag | slow 20 | failures 20 ]
    totals: AtomicU64,
    /// [ tag | slow bits 20 | failed bits 20 ]
    ring: Box<[AtomicU64]>,
}

impl CountWindow {
    /// The most calls one can hold.
    pub const MAX: u32 = 1_000_000;

    /// The last `size` calls: at least 1, at most [`MAX`](Self::MAX); values outside are cut to that.
    pub fn new(size: u32) -> Self {
        let size = u64::from(size.clamp(1, Self::MAX));
        Self {
            size,
            head: AtomicU64::new(0),
            totals: AtomicU64::new(0),
            ring: (0..size.div_ceil(u64::from(HALF))).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Records a call of `generation` (its low 24 bits count).
    #[inline]
    pub fn record(&self, generation: u32, failed: bool, slow: bool) {
        let tag = u64::from(generation) & TAG_MASK;
        if !(failed || slow) && self.is_fixed_point(tag) {
            return;
        }
        self.push(tag, u64::from(failed) | u64::from(slow) << HALF);
    }

    /// What the window holds of `generation`.
    pub fn counts(&self, generation: u32) -> Counts {
        let tag = u64::from(generation) & TAG_MASK;
        let (head, totals) = (self.head.load(Relaxed), self.totals.load(Relaxed));
        let of = |word: u64| if word >> TAG_SHIFT == tag { word & BODY_MASK } else { 0 };
        Counts { total: of(head).min(self.size), failures: of(totals) & HALF_MASK, slow: of(totals) >> HALF }
    }

    /// How many calls it covers.
    pub fn size(&self) -> u32 {
        self.size as u32
    }

    /// A full ring without failures, which a success leaves as it is.
    #[inline]
    fn is_fixed_point(&self, tag: u64) -> bool {
        let (head, totals) = (self.head.load(Relaxed), self.totals.load(Relaxed));
        head >> TAG_SHIFT == tag
            && head & BODY_MASK >= self.size
            && (totals >> TAG_SHIFT != tag || totals & BODY_MASK == 0)
    }

    fn push(&self, tag: u64, outcome: u64) {
        let Some(ticket) =
            update(&self.head, tag, |ticket| if ticket + 1 == 2 * self.size { self.size } else { ticket + 1 })
        else {
            return;
        };
        let place = if ticket >= self.size { ticket - self.size } else { ticket };
        let (word, bit) = (&self.ring[(place / u64::from(HALF)) as usize], place % u64::from(HALF));
        let (mask, wanted) = ((1 | 1 << HALF) << bit, outcome << bit);
        // A failure is in the total before its bit is in the ring, so the total is never behind. An outcome that is already
        // there needs no write, and so does a success in a word of an older generation, which reads as zeros.
        let seen = word.load(Acquire);
        let present = if seen >> TAG_SHIFT == tag { seen & mask } else { 0 };
        if present == wanted {
            return;
        }
        self.count(tag, outcome, 0);
        let replaced = update(word, tag, |bits| bits & !mask | wanted).map_or(0, |bits| (bits & mask) >> bit);
        self.count(tag, 0, replaced);
    }

    /// Totals: both kinds are counted in one word, each with carry room (`size` is at most 2^20).
    fn count(&self, tag: u64, plus: u64, minus: u64) {
        if plus | minus != 0 {
            update(&self.totals, tag, |totals| totals + plus - minus);
        }
    }

    #[cfg(all(test, not(buttress_loom)))]
    pub(super) fn words(&self) -> Vec<u64> {
        let words = self.ring.iter().chain([&self.head, &self.totals]);
        words.map(|word| word.load(Relaxed)).collect()
    }

    #[cfg(test)]
    pub(super) fn bits(&self, generation: u32) -> (u64, u64) {
        let tag = u64::from(generation) & TAG_MASK;
        let words = self.ring.iter().map(|word| word.load(Relaxed)).filter(|word| word >> TAG_SHIFT == tag);
        words.fold((0, 0), |(failed, slow), word| {
            let ones = |bits: u64| u64::from((bits & HALF_MASK).count_ones());
            (failed + ones(word), slow + ones(word >> HALF))
        })
    }
}

impl fmt::Debug for CountWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CountWindow").field("size", &self.size).finish_non_exhaustive()
    }
}

/// Changes the body of a word of generation `tag` (an older one reads as 0) and returns the old body; `None`: a newer
/// generation owns the word. Who sees a bit also sees that it is in the total: hence acquire and release.
#[inline]
fn update(word: &AtomicU64, tag: u64, change: impl Fn(u64) -> u64) -> Option<u64> {
    let mut seen = word.load(Acquire);
    loop {
        let body = match seen >> TAG_SHIFT {
            same if same == tag => seen & BODY_MASK,
            other if tag.wrapping_sub(other) & TAG_MASK > TAG_MASK / 2 => return None,
            _ => 0,
        };
        match word.compare_exchange_weak(seen, tag << TAG_SHIFT | change(body), AcqRel, Acquire) {
            Ok(_) => return Some(body),
            Err(now) => seen = now,
        }
    }
}
