//! The decision, by `governor`: its arithmetic around our word, our time and our numbers.
//!
//! Time is counted in sixteenths of a nanosecond ("ticks"; 18 years fit, and a full bucket on top), so that a rate like 7 000 000/s is not cut to whole nanoseconds.

use buttress_core::sync::{
    AtomicU32, AtomicU64,
    Ordering::{AcqRel, Relaxed},
};
use governor::{
    NotUntil, Quota, RateLimiter, clock,
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::{NotKeyed, StateStore},
};
use std::{cell::Cell, num::NonZeroU32, time::Duration};

/// Ticks of a nanosecond, as a shift.
const FINE: u32 = 4;

/// More ticks than any bucket of a config takes to fill (nine years), and so few that the end of time and they fit in 64 bits.
const LONGEST: u64 = 1 << 62;

/// How fast a bucket fills, and what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    /// Ticks from one permit to the next: rounded up, so that no more pass than were allowed.
    pub(super) every: u64,
    pub(super) burst: u32,
}

impl Rate {
    /// `permits` is not 0.
    pub(super) fn new(permits: u32, period: Duration, burst: u32) -> Self {
        let every = (period.as_nanos() << FINE).div_ceil(u128::from(permits));
        Self { every: u64::try_from(every).unwrap_or(u64::MAX).max(1), burst: burst.max(1) }
    }

    /// How long `permits` take to come.
    pub(super) fn time_of(self, permits: u32) -> Duration {
        from_ticks(self.full().min(self.every.saturating_mul(permits.into())))
    }

    /// Ticks from an empty bucket to a full one.
    fn full(self) -> u64 {
        self.every.saturating_mul(self.burst.into())
    }

    /// The burst, or what of it stays in 64 bits: half of a slow rate and half of a fast one, read while they change, can be a bucket that takes
    /// centuries.
    #[inline]
    fn bounded_burst(self) -> u32 {
        if self.full() <= LONGEST { self.burst } else { u32::try_from(LONGEST / self.every).unwrap_or(u32::MAX) }
    }
}

/// The bucket: a word that calls change, and the rate, which an operator changes.
#[derive(Debug)]
pub(super) struct Bucket {
    /// When it will be full again (the theoretical arrival time), in ticks. Full: any moment that has passed.
    full_at: AtomicU64,
    // Two words that are read one after the other: a call that comes while they change is held to one number of either.
    every: AtomicU64,
    burst: AtomicU32,
}

impl Bucket {
    pub(super) fn new(rate: Rate) -> Self {
        Self { full_at: AtomicU64::new(0), every: AtomicU64::new(rate.every), burst: AtomicU32::new(rate.burst) }
    }

    #[inline]
    pub(super) fn rate(&self) -> Rate {
        Rate { every: self.every.load(Relaxed), burst: self.burst.load(Relaxed) }
    }

    /// Takes a permit at `now`, nanoseconds since the origin; or says how long it is until there is one.
    #[inline]
    pub(super) fn take(&self, now: u64) -> Result<(), Duration> {
        let (now, rate) = (ticks(now), self.rate());
        let burst = NonZeroU32::new(rate.bounded_burst()).unwrap_or(NonZeroU32::MIN);
        // Never 0, so it is always `Some`.
        let quota = Quota::with_period(Duration::from_nanos(rate.every)).map(|quota| quota.allow_burst(burst));
        let quota = quota.unwrap_or_else(|| Quota::per_second(burst));
        // It asks the clock once when it is made, which is when its time begins, and once for each call.
        let limiter: Limiter<'_> = RateLimiter::new(quota, Word(&self.full_at), Told(Cell::new(0)));
        limiter.clock().0.set(now);
        limiter.check().map_err(|not_until| wait(&not_until, now))?;
        // Who wrote after an update has changed the word sees its rate here. By the slower one of before the bucket would be full so late that
        // it refused calls for as long as that rate took. Only then: by a clock that lags, the bound would give permits back.
        let present = self.rate();
        if present != rate {
            self.full_at.fetch_min(now.saturating_add(present.full()), AcqRel);
        }
        Ok(())
    }

    /// The permits there are at `now`, and how long it is until there is one more.
    pub(super) fn look(&self, now: u64) -> (u32, Duration) {
        let (now, rate) = (ticks(now), self.rate());
        let missing = self.full_at.load(Relaxed).saturating_sub(now).min(rate.full());
        let taken = missing.div_ceil(rate.every);
        let left = rate.burst - u32::try_from(taken).unwrap_or(rate.burst).min(rate.burst);
        let until_next = missing.saturating_sub(taken.saturating_sub(1) * rate.every);
        (left, from_ticks(until_next))
    }

    /// Changes the rate at `now`. What was taken stays taken: as many permits, not as much time.
    pub(super) fn set_rate(&self, next: Rate, now: u64) {
        let now = ticks(now);
        let before = self.rate();
        self.every.store(next.every, Relaxed);
        self.burst.store(next.burst, Relaxed);
        let mut full_at = self.full_at.load(Relaxed);
        loop {
            let missing = u128::from(full_at.saturating_sub(now).min(before.full()));
            let scaled = (missing * u128::from(next.every)).div_ceil(u128::from(before.every));
            let rescaled = now + u64::try_from(scaled).unwrap_or(u64::MAX).min(next.full());
            // Whoever changes the word after this sees the rate.
            match self.full_at.compare_exchange_weak(full_at, rescaled, AcqRel, Relaxed) {
                Ok(_) => return,
                Err(seen) => full_at = seen,
            }
        }
    }
}

type Limiter<'a> = RateLimiter<NotKeyed, Word<'a>, Told, NoOpMiddleware<Nanos>>;

/// The word as `governor` wants it.
struct Word<'a>(&'a AtomicU64);

impl StateStore for Word<'_> {
    type Key = NotKeyed;

    #[inline]
    fn measure_and_replace<T, F, E>(&self, _: &NotKeyed, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut seen = self.0.load(Relaxed);
        loop {
            let (decided, next) = decide(Some(seen.into()))?;
            match self.0.compare_exchange_weak(seen, next.into(), AcqRel, Relaxed) {
                Ok(_) => return Ok(decided),
                Err(now) => seen = now,
            }
        }
    }
}

/// A clock that says what it was told.
#[derive(Clone)]
struct Told(Cell<u64>);

impl clock::Clock for Told {
    type Instant = Nanos;

    #[inline]
    fn now(&self) -> Nanos {
        self.0.get().into()
    }
}

fn wait(not_until: &NotUntil<Nanos>, now: u64) -> Duration {
    from_ticks(not_until.earliest_possible().as_u64().saturating_sub(now))
}

/// 18 years after the origin time stands still, and with it the bucket.
#[inline]
fn ticks(nanos: u64) -> u64 {
    nanos.min(u64::MAX >> (FINE + 1)) << FINE
}

/// Rounded up: a nanosecond too early is too early.
fn from_ticks(ticks: u64) -> Duration {
    Duration::from_nanos(ticks.div_ceil(1 << FINE))
}

#[cfg(all(test, not(buttress_loom)))]
mod tests {
    use super::*;

    #[test]
    fn half_of_two_rates_is_no_rate_that_overflows() {
        // A call that comes while a day's rate follows on a fast one may read the day, and the burst of before.
        let day = Rate::new(1, Duration::from_secs(86_400), 1);
        let torn = Bucket::new(Rate { every: day.every, burst: 100_000 });
        assert!(torn.take(5).is_ok());
        let (left, next) = torn.look(5);
        assert!(left < 100_000 && next == Duration::from_secs(86_400));
        assert!(torn.take(u64::MAX).is_ok(), "nor at the end of time");
        torn.set_rate(day, 5);
        assert!(torn.take(5).is_err());
    }
}
