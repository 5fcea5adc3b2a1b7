use super::Counts;
use crate::sync::{AtomicU64, Ordering::Relaxed};
use std::{array, fmt, time::Duration};

/// Words per ring: a power of two above [`BUCKETS`], so that a bucket that is still read is never written anew.
const RING: usize = 16;
/// Buckets that count.
const BUCKETS: u64 = 10;

// A word: [ epoch / 16 : 20 | failures 20 | successes 24 ]. The epoch's low four bits are the word's place.
const SUCCESS_BITS: u32 = 24;
const FAILURE_BITS: u32 = 20;
const COUNT_BITS: u32 = SUCCESS_BITS + FAILURE_BITS;
const TAG_MASK: u64 = (1 << (64 - COUNT_BITS)) - 1;
const SUCCESS_MASK: u64 = (1 << SUCCESS_BITS) - 1;
const FAILURE_MASK: u64 = (1 << FAILURE_BITS) - 1;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
const FAILURE: u64 = 1 << SUCCESS_BITS;

// Geometry: [ offset 38 | bucket length in ms 26 ].
const LENGTH_BITS: u32 = 26;
const LENGTH_MASK: u64 = (1 << LENGTH_BITS) - 1;

/// The outcomes of the last so many seconds, in ten buckets; the present one is being filled.
///
/// Each thread writes to the ring of its stripe; each word of a ring carries its own epoch, so the first write to a bucket
/// that is sixteen buckets old replaces it with one CAS: no sweeper, nothing from an old bucket ever counts in a new one.
///
/// **Clock.** Reading a clock costs as much as the rest of the call, so a success need not: it goes to the bucket that was
/// current when somebody last [advanced](Self::advance) the window, and every so often
/// [`success`](Self::success) asks its caller to advance it. A failure, and a call that took time, always should.
///
/// The loss: at a decision, so many successes that took no time sit in an older bucket than they belong to, or have left the
/// window with it. A stripe asks at every `p`th success of a bucket, `p = max(16 / stripes, 2)`, and who asks moves all stripes:
/// so each stripe has at most `p - 1` of them, and one has `p`.
///
/// | stripes | 1 | 2 | 4 | 8 | 16 | n |
/// |---|---|---|---|---|---|---|
/// | a success asks once in | 16 | 8 | 4 | 2 | 2 | 2 |
/// | misplaced at most | 16 | 15 | 13 | 9 | 17 | n + 1 |
///
/// It errs towards fewer successes. Keep the least number of calls that decides (a breaker's `min_calls`) above this bound: so
/// many failures are more than half of all calls then, even if every success was misplaced.
///
/// Counts that come near the end of their range (8 million successes, half a million failures in one bucket) are halved
/// together, so rates are kept.
pub struct TimeWindow {
    /// The current epoch, as far as anybody looked.
    current: AtomicU64,
    geometry: AtomicU64,
    /// The first epoch of the latest generation.
    begun: AtomicU64,
    /// A stripe asks for the clock when its bucket's successes are a multiple of this mask plus one.
    sample: u64,
    stripes: Box<[Stripe]>,
}

#[repr(align(128))]
struct Stripe {
    calls: [AtomicU64; RING],
    /// [ epoch / 16 : 20 | slow 44 ]; written by slow calls only.
    slow: [AtomicU64; RING],
}

impl Stripe {
    fn new() -> Self {
        Self { calls: array::from_fn(|_| AtomicU64::new(0)), slow: array::from_fn(|_| AtomicU64::new(0)) }
    }

    /// Adds [`FAILURE`] or 1, a success. Returns the successes in the bucket.
    #[inline]
    fn record(&self, epoch: u64, one: u64) -> u64 {
        let calls = add(&self.calls[place(epoch)], epoch, |calls| calls + one);
        if is_half_full(calls) {
            self.halve(epoch);
        }
        calls & SUCCESS_MASK
    }

    /// A count is half way to the end of its range (before it, as other threads go on counting): half of everything keeps
    /// the rates.
    #[cold]
    fn halve(&self, epoch: u64) {
        add(&self.calls[place(epoch)], epoch, |calls| {
            if is_half_full(calls) {
                (((calls >> SUCCESS_BITS) / 2) << SUCCESS_BITS) | ((calls & SUCCESS_MASK) / 2)
            } else {
                calls
            }
        });
        add(&self.slow[place(epoch)], epoch, |slow| slow / 2);
    }
}

impl TimeWindow {
    /// A window of `length` (rounded up to ten whole milliseconds, at most 7 days), for `stripes` groups of threads.
    pub fn new(length: Duration, stripes: usize) -> Self {
        let stripes = stripes.max(1);
        Self {
            current: AtomicU64::new(0),
            geometry: AtomicU64::new(bucket_millis(length)),
            begun: AtomicU64::new(0),
            sample: (16 / stripes.next_power_of_two()).max(2) as u64 - 1,
            stripes: (0..stripes).map(|_| Stripe::new()).collect(),
        }
    }

    /// The epoch at `now` (nanoseconds since the policy's origin), which becomes the current one if it is later.
    #[inline]
    pub fn advance(&self, now: u64) -> u64 {
        self.advance_to(self.epoch(now))
    }

    /// Makes `epoch` the current one if it is later, and returns that: for a window that takes its time from another one beside it.
    #[inline]
    pub fn advance_to(&self, epoch: u64) -> u64 {
        let current = self.current.load(Relaxed);
        if current >= epoch { current } else { self.rotate(current, epoch) }
    }

    /// The current epoch, as far as anybody looked.
    #[inline]
    pub fn current(&self) -> u64 {
        self.current.load(Relaxed)
    }

    /// The epoch from which a generation that begins at `now` counts: nothing recorded before is in it. It may lie ahead of
    /// the present bucket; until then the generation fills its first one.
    pub fn next_epoch(&self, now: u64) -> u64 {
        let current = self.advance(now);
        let mut begun = self.begun.load(Relaxed);
        loop {
            let next = current.max(begun) + 1;
            match self.begun.compare_exchange_weak(begun, next, Relaxed, Relaxed) {
                Ok(_) => return next,
                Err(seen) => begun = seen,
            }
        }
    }

    /// Counts a success in the current bucket, or in `start` if that is later. True: advance the window, please.
    #[inline]
    pub fn success(&self, stripe: usize, start: u64) -> bool {
        self.success_in(stripe, self.current().max(start))
    }

    /// The same in the bucket `epoch`, for who has to know which it is.
    #[inline]
    pub fn success_in(&self, stripe: usize, epoch: u64) -> bool {
        self.stripes[stripe].record(epoch, 1) & self.sample == 0
    }

    /// Counts a failure in the bucket `epoch`, or in `start` if that is later.
    #[inline]
    pub fn failure(&self, stripe: usize, start: u64, epoch: u64) {
        let epoch = epoch.max(start);
        self.stripes[stripe].record(epoch, FAILURE);
    }

    /// Counts one of the calls as slow.
    pub fn slow(&self, stripe: usize, start: u64, epoch: u64) {
        let epoch = epoch.max(start);
        add(&self.stripes[stripe].slow[place(epoch)], epoch, |slow| slow + 1);
    }

    /// What the window holds at `now`, of the generation that counts from `start`.
    pub fn counts(&self, start: u64, now: u64) -> Counts {
        self.counts_to(start, self.epoch(now))
    }

    /// The same as of the bucket `epoch`, or of the current one if that is later.
    pub fn counts_to(&self, start: u64, epoch: u64) -> Counts {
        let newest = self.advance_to(epoch).max(start);
        let oldest = start.max(Self::oldest(newest));
        let mut counts = Counts::default();
        for stripe in &self.stripes {
            for epoch in oldest..=newest {
                let calls = stripe.calls[place(epoch)].load(Relaxed);
                if calls >> COUNT_BITS == tag(epoch) {
                    let failures = calls >> SUCCESS_BITS & FAILURE_MASK;
                    counts.failures += failures;
                    counts.total += failures + (calls & SUCCESS_MASK);
                }
                let slow = stripe.slow[place(epoch)].load(Relaxed);
                if slow >> COUNT_BITS == tag(epoch) {
                    counts.slow += slow & COUNT_MASK;
                }
            }
        }
        counts
    }

    /// The oldest bucket that counts while `newest` is the current one.
    #[inline]
    pub fn oldest(newest: u64) -> u64 {
        (newest + 1).saturating_sub(BUCKETS)
    }

    /// Makes the window cover `length` from `now` on. Another length begins an empty window.
    pub fn resize(&self, length: Duration, now: u64) {
        let (old, millis) = (self.geometry.load(Relaxed), bucket_millis(length));
        if old & LENGTH_MASK == millis {
            return;
        }
        // Epochs only grow, and the new ones begin where no old bucket counts any more.
        let first = self.advance(now).max(self.begun.load(Relaxed)) + RING as u64;
        let offset = first.saturating_sub(now / (millis * 1_000_000));
        self.geometry.store(offset << LENGTH_BITS | millis, Relaxed);
        self.advance(now);
    }

    /// How much time it covers.
    pub fn length(&self) -> Duration {
        Duration::from_millis((self.geometry.load(Relaxed) & LENGTH_MASK) * BUCKETS)
    }

    #[inline]
    fn epoch(&self, now: u64) -> u64 {
        let geometry = self.geometry.load(Relaxed);
        now / ((geometry & LENGTH_MASK) * 1_000_000) + (geometry >> LENGTH_BITS)
    }

    #[cold]
    fn rotate(&self, current: u64, epoch: u64) -> u64 {
        // Tags repeat after 2^24 epochs. A quiet spell that long (months at one second) is the one time a sweep is needed.
        if epoch - current >= TAG_MASK * RING as u64 / 2 {
            for stripe in &self.stripes {
                for word in stripe.calls.iter().chain(&stripe.slow) {
                    word.store(tag(epoch).wrapping_sub(1) << COUNT_BITS, Relaxed);
                }
            }
        }
        self.current.fetch_max(epoch, Relaxed).max(epoch)
    }
}

impl fmt::Debug for TimeWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimeWindow").field("length", &self.length()).field("stripes", &self.stripes.len()).finish()
    }
}

#[inline]
fn is_half_full(calls: u64) -> bool {
    calls & (1 << (SUCCESS_BITS - 1) | 1 << (COUNT_BITS - 1)) != 0
}

/// Changes the counts of the bucket `epoch`, which replaces an older one in its word, and returns them. A bucket that has been
/// replaced itself is left alone.
#[inline]
fn add(word: &AtomicU64, epoch: u64, change: impl Fn(u64) -> u64) -> u64 {
    let tag = tag(epoch);
    let mut seen = word.load(Relaxed);
    loop {
        let counts = match seen >> COUNT_BITS {
            same if same == tag => seen & COUNT_MASK,
            other if is_older(tag, other) => return 1,
            _ => 0,
        };
        let next = change(counts);
        match word.compare_exchange_weak(seen, tag << COUNT_BITS | next, Relaxed, Relaxed) {
            Ok(_) => return next,
            Err(now) => seen = now,
        }
    }
}

#[inline]
fn place(epoch: u64) -> usize {
    epoch as usize % RING
}

#[inline]
fn tag(epoch: u64) -> u64 {
    (epoch / RING as u64) & TAG_MASK
}

/// Whether `tag` came before `other`, around the end of the range.
#[inline]
fn is_older(tag: u64, other: u64) -> bool {
    tag.wrapping_sub(other) & TAG_MASK > TAG_MASK / 2
}

fn bucket_millis(length: Duration) -> u64 {
    let millis = length.as_nanos().div_ceil(u128::from(BUCKETS) * 1_000_000).max(1);
    u64::try_from(millis).unwrap_or(LENGTH_MASK).min(LENGTH_MASK)
}
