//! Durations, counted in buckets: nothing is locked, allocated or forgotten.

use crate::sync::{AtomicU64, Ordering::Relaxed};
use std::{fmt, time::Duration};

/// Each power of two is cut into so many buckets.
const PARTS: u64 = 1 << PART_BITS;
const PART_BITS: u32 = 3;
/// Below 2^10 ns nothing is told apart, nor from 2^40 ns on.
const LOWEST: u32 = 10;
const HIGHEST: u32 = 40;
/// The first is below the range, the last above.
const BUCKETS: usize = (HIGHEST - LOWEST) as usize * PARTS as usize + 2;

/// Counts durations in log-linear buckets, eight to a power of two, as
/// [HdrHistogram](https://hdrhistogram.github.io/HdrHistogram/) does.
///
/// What it says of a duration between 1 µs and 18 minutes is wrong by at most [`RELATIVE_ERROR`](Self::RELATIVE_ERROR) of it;
/// shorter ones are all 1 µs at most, longer ones 18 minutes at least. Their count and sum are exact.
/// [`record`](Self::record) is two additions. It takes 2 KiB.
///
/// ```
/// use buttress_core::Histogram;
/// use std::time::Duration;
///
/// let histogram = Histogram::new();
/// for millis in 1..=100 {
///     histogram.record(Duration::from_millis(millis));
/// }
/// let seen = histogram.snapshot();
/// let median = seen.quantile(0.5).unwrap();
/// assert!((median - 0.050).abs() <= 0.050 * Histogram::RELATIVE_ERROR);
/// assert_eq!((seen.count(), seen.sum()), (100, 5.05));
/// ```
pub struct Histogram {
    buckets: Box<[AtomicU64]>,
    /// Nanoseconds.
    sum: AtomicU64,
}

impl Histogram {
    /// How far from the truth what it says may be: half of the widest bucket, which is an eighth of its lower end, over its middle.
    pub const RELATIVE_ERROR: f64 = 1.0 / 16.0;

    /// An empty one.
    pub fn new() -> Self {
        Self { buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(), sum: AtomicU64::new(0) }
    }

    /// Counts `duration`.
    #[inline]
    pub fn record(&self, duration: Duration) {
        // 584 years fit.
        let nanos = duration.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(duration.subsec_nanos()));
        self.record_nanos(nanos);
    }

    /// Counts a duration in nanoseconds.
    #[inline]
    pub fn record_nanos(&self, nanos: u64) {
        self.buckets[index(nanos)].fetch_add(1, Relaxed);
        self.sum.fetch_add(nanos, Relaxed);
    }

    /// What was counted until now. Calls that end meanwhile may stand in it or not, each in the count or the sum first.
    pub fn snapshot(&self) -> HistogramSnapshot {
        let mut seen = HistogramSnapshot::default();
        self.add_to(&mut seen);
        seen
    }

    /// Adds what was counted until now to `seen`: for one that is spread over stripes.
    pub fn add_to(&self, seen: &mut HistogramSnapshot) {
        for (count, bucket) in seen.counts.iter_mut().zip(&self.buckets) {
            *count += bucket.load(Relaxed);
        }
        seen.nanos = seen.nanos.wrapping_add(self.sum.load(Relaxed));
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.snapshot().fmt(f)
    }
}

/// The bucket of a duration.
#[inline]
fn index(nanos: u64) -> usize {
    if nanos < 1 << LOWEST {
        return 0;
    }
    let power = nanos.ilog2();
    if power >= HIGHEST {
        return BUCKETS - 1;
    }
    let part = nanos >> (power - PART_BITS) & (PARTS - 1);
    1 + (u64::from(power - LOWEST) * PARTS + part) as usize
}

/// The lower end of a bucket, which is the upper end of the one before.
fn lower(index: usize) -> u64 {
    match index.checked_sub(1) {
        None => 0,
        Some(at) => (PARTS + at as u64 % PARTS) << (LOWEST - PART_BITS + (at as u64 / PARTS) as u32),
    }
}

/// What a bucket says of its durations, in seconds: its middle.
fn middle(index: usize) -> f64 {
    let nanos = match index {
        0 => lower(1),
        last if last == BUCKETS - 1 => lower(last),
        _ => (lower(index) + lower(index + 1)) / 2,
    };
    nanos as f64 / 1e9
}

/// What a [`Histogram`] had counted at one moment. Times are seconds.
#[derive(Clone, PartialEq, Eq)]
pub struct HistogramSnapshot {
    counts: Box<[u64]>,
    nanos: u64,
}

impl Default for HistogramSnapshot {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS].into(), nanos: 0 }
    }
}

impl HistogramSnapshot {
    /// How many durations there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All of them together.
    pub fn sum(&self) -> f64 {
        self.nanos as f64 / 1e9
    }

    /// Their average; `None`: there were none.
    pub fn mean(&self) -> Option<f64> {
        let count = self.count();
        (count > 0).then(|| self.sum() / count as f64)
    }

    /// What the share `q` of them (0.99) did not exceed; `q` is cut to 0 to 1. `None`: there were none.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let rank = ((q.clamp(0.0, 1.0) * self.count() as f64).ceil() as u64).max(1);
        let mut seen = 0;
        let reached = |count: &u64| {
            seen += count;
            seen >= rank
        };
        self.counts.iter().position(reached).map(middle)
    }

    /// How many did not exceed `seconds`, each taken for the middle of its bucket. It grows with `seconds`.
    pub fn at_most(&self, seconds: f64) -> u64 {
        let within = self.counts.iter().enumerate().take_while(|(index, _)| middle(*index) <= seconds);
        within.map(|(_, count)| count).sum()
    }

    /// Adds what another one counted.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.nanos = self.nanos.wrapping_add(other.nanos);
    }
}

impl fmt::Debug for HistogramSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HistogramSnapshot")
            .field("count", &self.count())
            .field("sum", &self.sum())
            .field("p50", &self.quantile(0.5))
            .field("p99", &self.quantile(0.99))
            .finish()
    }
}

#[cfg(all(test, not(buttress_loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn buckets_meet_without_a_gap_and_each_holds_its_own_lower_end() {
        for at in 1..BUCKETS {
            assert!(lower(at - 1) < lower(at), "{at}");
            assert_eq!((index(lower(at)), index(lower(at) - 1)), (at, at - 1));
        }
        assert_eq!((lower(1), lower(BUCKETS - 1)), (1 << LOWEST, 1 << HIGHEST));
        assert_eq!((index(0), index(u64::MAX)), (0, BUCKETS - 1));
    }

    #[test]
    fn an_empty_one_has_no_quantiles() {
        let none = Histogram::new().snapshot();
        assert_eq!((none.quantile(0.5), none.mean(), none.count(), none.at_most(1e9)), (None, None, 0, 0));
    }

    #[test]
    fn two_that_are_merged_are_as_one() {
        let [a, b, both] = [(); 3].map(|()| Histogram::new());
        for n in 0..1000u32 {
            let span = Duration::from_micros(1) * n * n;
            if n % 3 == 0 {
                a.record(span)
            } else {
                b.record(span)
            }
            both.record(span);
        }
        let mut merged = a.snapshot();
        merged.merge(&b.snapshot());
        assert_eq!(merged, both.snapshot());
    }

    proptest! {
        #[test]
        fn a_quantile_is_as_far_from_the_truth_as_documented_at_most(
            mut nanos in proptest::collection::vec(1u64 << LOWEST..1 << HIGHEST, 1..200),
            q in 0.0..=1.0f64,
        ) {
            let histogram = Histogram::new();
            nanos.iter().for_each(|nanos| histogram.record_nanos(*nanos));
            nanos.sort_unstable();
            let rank = ((q * nanos.len() as f64).ceil() as usize).max(1);
            let truth = nanos[rank - 1] as f64 / 1e9;
            let said = histogram.snapshot().quantile(q).unwrap();
            prop_assert!((said - truth).abs() <= truth * Histogram::RELATIVE_ERROR, "{said} for {truth}");
        }

        #[test]
        fn what_is_at_most_so_long_grows_to_all_there_is(nanos in proptest::collection::vec(any::<u64>(), 0..100)) {
            let histogram = Histogram::new();
            nanos.iter().for_each(|nanos| histogram.record_nanos(*nanos));
            let seen = histogram.snapshot();
            let counts: Vec<u64> = [0.0, 1e-7, 1e-3, 0.5, 1.0, 100.0, f64::INFINITY].map(|at| seen.at_most(at)).into();
            prop_assert!(counts.is_sorted());
            prop_assert_eq!(*counts.last().unwrap(), nanos.len() as u64);
        }
    }
}
