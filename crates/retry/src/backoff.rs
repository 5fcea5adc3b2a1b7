use buttress_core::{ConfigError, Draw, config::format_duration};
use std::time::Duration;

/// How long to wait before a further attempt, where the server does not say.
///
/// ```
/// use buttress_retry::Backoff;
/// use std::time::Duration;
///
/// let backoff = Backoff::full_jitter(Duration::from_millis(50), Duration::from_secs(1));
/// let waits: Vec<_> = backoff.delays(7).take(3).collect();
/// assert!(waits[0] <= Duration::from_millis(50) && waits[2] <= Duration::from_millis(200));
/// assert_eq!(waits, backoff.delays(7).take(3).collect::<Vec<_>>(), "the same seed, the same waits");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)
)]
#[non_exhaustive]
pub enum Backoff {
    /// Anything from 0 to `base` x 2^n, at most `cap`: the default, and what spreads clients best
    /// ([Brooker 2015](https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/)).
    FullJitter {
        /// The longest first wait: more than 0.
        #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration"))]
        base: Duration,
        /// The longest wait: `base` to 1 h.
        #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration"))]
        cap: Duration,
    },
    /// Anything from `base` to three times the wait before, at most `cap` (same source): never at once.
    DecorrelatedJitter {
        /// The shortest wait: more than 0.
        #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration"))]
        base: Duration,
        /// The longest wait: `base` to 1 h.
        #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration"))]
        cap: Duration,
    },
    /// Always the same; 0: at once. All clients that failed together come back together: for tests, or behind a balancer that
    /// takes another endpoint.
    Constant {
        /// The wait: up to 1 h.
        #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration"))]
        delay: Duration,
    },
}

/// As it is named in configs, with its times: `full_jitter 50ms..1s`.
impl std::fmt::Display for Backoff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (name, base, cap) = match self {
            Self::FullJitter { base, cap } => ("full_jitter", base, cap),
            Self::DecorrelatedJitter { base, cap } => ("decorrelated_jitter", base, cap),
            Self::Constant { delay } => return write!(f, "constant {}", format_duration(*delay)),
        };
        write!(f, "{name} {}..{}", format_duration(*base), format_duration(*cap))
    }
}

/// Full jitter, 50 ms doubling up to 1 s.
impl Default for Backoff {
    fn default() -> Self {
        Self::full_jitter(Duration::from_millis(50), Duration::from_secs(1))
    }
}

const MOST: Duration = Duration::from_secs(3600);

impl Backoff {
    /// [`Backoff::FullJitter`].
    pub const fn full_jitter(base: Duration, cap: Duration) -> Self {
        Self::FullJitter { base, cap }
    }

    /// [`Backoff::DecorrelatedJitter`].
    pub const fn decorrelated_jitter(base: Duration, cap: Duration) -> Self {
        Self::DecorrelatedJitter { base, cap }
    }

    /// [`Backoff::Constant`].
    pub const fn constant(delay: Duration) -> Self {
        Self::Constant { delay }
    }

    /// The waits of one call, without end; the same ones for the same seed.
    pub fn delays(self, seed: u64) -> Delays {
        Delays { backoff: self, draw: Draw::new(seed), step: Step::NEW }
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let (base, cap) = match *self {
            Self::FullJitter { base, cap } | Self::DecorrelatedJitter { base, cap } => (base, cap),
            Self::Constant { delay } if delay > MOST => {
                return Err(ConfigError::duration("backoff.delay", delay, "0s to 1h"));
            }
            Self::Constant { .. } => return Ok(()),
        };
        if base.is_zero() || base > MOST {
            return Err(ConfigError::duration("backoff.base", base, "more than 0, at most 1h"));
        }
        if cap < base || cap > MOST {
            let base = buttress_core::config::format_duration(base);
            return Err(ConfigError::duration("backoff.cap", cap, format!("`base`, {base}, to 1h")));
        }
        Ok(())
    }
}

/// Where a call is in its sequence of waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    taken: u32,
    last: Duration,
}

impl Step {
    pub(crate) const NEW: Self = Self { taken: 0, last: Duration::ZERO };

    /// The next wait, from a random number.
    pub(crate) fn next(&mut self, backoff: Backoff, draw: u64) -> Duration {
        let wait = match backoff {
            Backoff::FullJitter { base, cap } => {
                let doubled = base.checked_mul(1_u32.checked_shl(self.taken).unwrap_or(u32::MAX)).unwrap_or(cap);
                between(Duration::ZERO, doubled.min(cap), draw)
            }
            Backoff::DecorrelatedJitter { base, cap } => {
                let most = self.last.max(base).checked_mul(3).unwrap_or(cap);
                between(base, most, draw).min(cap)
            }
            Backoff::Constant { delay } => delay,
        };
        (self.taken, self.last) = (self.taken.saturating_add(1), wait);
        wait
    }

    /// Begins anew: the server has said how long to wait ([gRFC A6](https://github.com/grpc/proposal/blob/master/A6-client-retries.md)).
    pub(crate) fn restart(&mut self) {
        *self = Self::NEW;
    }
}

/// Evenly from `low` to `high`, both at most an hour.
fn between(low: Duration, high: Duration, draw: u64) -> Duration {
    let span = high.saturating_sub(low).as_nanos();
    // The upper 64 bits of a product: as even as 64 random bits can be, without a division.
    let share = (u128::from(draw) * (span + 1)) >> 64;
    low + Duration::from_nanos(u64::try_from(share).unwrap_or(u64::MAX))
}

/// The waits of one call: see [`Backoff::delays`].
#[derive(Debug)]
pub struct Delays {
    backoff: Backoff,
    draw: Draw,
    step: Step,
}

impl Iterator for Delays {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.step.next(self.backoff, self.draw.draw()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn full_jitter_is_even_up_to_a_bound_that_doubles_to_the_cap() {
        let backoff = Backoff::full_jitter(50 * MS, 1000 * MS);
        for (n, bound) in [(0, 50), (1, 100), (2, 200), (4, 800), (5, 1000), (40, 1000)] {
            let waits: Vec<_> = (0..2_000).map(|seed| backoff.delays(seed).nth(n).unwrap()).collect();
            let mean = waits.iter().sum::<Duration>().as_secs_f64() / 2.0;
            let longest = *waits.iter().max().unwrap();
            assert!(longest <= bound * MS && longest > (bound - bound / 20) * MS, "{n}: {longest:?}");
            assert!((f64::from(bound) * 0.45..f64::from(bound) * 0.55).contains(&mean), "{n}: {mean} ms");
            assert!(*waits.iter().min().unwrap() < (bound / 20) * MS, "{n}");
        }
    }

    #[test]
    fn decorrelated_jitter_is_never_shorter_than_its_base_nor_three_times_the_last_one() {
        let backoff = Backoff::decorrelated_jitter(50 * MS, 1000 * MS);
        let mut reached = false;
        for seed in 0..200 {
            let mut last = 50 * MS;
            for wait in backoff.delays(seed).take(20) {
                assert!((50 * MS..=1000 * MS).contains(&wait) && wait <= 3 * last, "{wait:?} after {last:?}");
                reached |= wait == 1000 * MS;
                last = wait;
            }
        }
        assert!(reached);
    }

    #[test]
    fn constant_is_constant_and_seeds_differ() {
        assert!(Backoff::constant(7 * MS).delays(1).take(9).all(|wait| wait == 7 * MS));
        let first = |seed| Backoff::default().delays(seed).next().unwrap();
        assert_ne!(first(1), first(2));
    }

    #[test]
    fn a_wrong_one_is_told_what_is_allowed() {
        let error = |backoff: Backoff| backoff.check().unwrap_err().to_string();
        assert_eq!(
            error(Backoff::full_jitter(Duration::ZERO, MS)),
            "`backoff.base` is 0s, allowed: more than 0, at most 1h"
        );
        assert_eq!(
            error(Backoff::decorrelated_jitter(2 * MS, MS)),
            "`backoff.cap` is 1ms, allowed: `base`, 2ms, to 1h"
        );
        assert_eq!(error(Backoff::constant(2 * MOST)), "`backoff.delay` is 2h, allowed: 0s to 1h");
        assert!(Backoff::constant(Duration::ZERO).check().is_ok());
        assert!(Backoff::full_jitter(Duration::MAX, Duration::MAX).check().is_err());
    }

    proptest! {
        #[test]
        fn no_numbers_overflow(base in 1_u64..=3_600_000_000_000, more: u64, seed: u64, decorrelated: bool) {
            let base = Duration::from_nanos(base);
            let cap = (base + Duration::from_nanos(more)).min(MOST);
            let backoff = if decorrelated { Backoff::decorrelated_jitter(base, cap) } else { Backoff::full_jitter(base, cap) };
            prop_assert!(backoff.check().is_ok());
            for wait in backoff.delays(seed).take(80) {
                prop_assert!(wait <= cap);
            }
        }
    }
}
