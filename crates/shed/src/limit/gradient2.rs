use super::{Limit, Span, Window, check};
use buttress_core::ConfigError;
use std::time::Duration;

/// The config of [`Gradient2`].
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct Gradient2Config {
    /// The limit at the beginning. Default: 20.
    pub initial: u32,
    /// The smallest limit. Default: 1. (The project's is 20: who knows that much needs no algorithm.)
    pub min: u32,
    /// The largest limit, up to 10 000. Default: 1000.
    pub max: u32,
    /// By how much the mean may exceed its long-term average before the limit shrinks: 1 to 10. Default: 1.5.
    pub tolerance: f64,
    /// How much of a step is taken: 0.01 to 1. Default: 0.2.
    pub smoothing: f64,
    /// Over about how many windows the long-term average goes: at least 1. Default: 600.
    pub long_window: u32,
    /// How many calls may wait; `None` (the default): the square root of the limit.
    pub queue: Option<u32>,
    /// How long a window is: 1 ms to 1 h. Default: 100 ms.
    #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration"))]
    pub window: Duration,
}

impl Default for Gradient2Config {
    fn default() -> Self {
        Self {
            initial: 20,
            min: 1,
            max: 1000,
            tolerance: 1.5,
            smoothing: 0.2,
            long_window: 600,
            queue: None,
            window: Duration::from_millis(100),
        }
    }
}

impl Gradient2Config {
    buttress_core::setters! {
        /// Sets [`initial`](Self#structfield.initial).
        initial: u32 => initial;
        /// Sets [`min`](Self#structfield.min).
        min: u32 => min;
        /// Sets [`max`](Self#structfield.max).
        max: u32 => max;
        /// Sets [`tolerance`](Self#structfield.tolerance).
        tolerance: f64 => tolerance;
        /// Sets [`smoothing`](Self#structfield.smoothing).
        smoothing: f64 => smoothing;
        /// Sets [`long_window`](Self#structfield.long_window).
        long_window: u32 => long_window;
        /// Sets [`queue`](Self#structfield.queue).
        queue: impl Into<Option<u32>> => queue.into();
        /// Sets [`window`](Self#structfield.window).
        window: Duration => window;
    }

    /// The algorithm.
    ///
    /// # Errors
    ///
    /// The first field that is out of its range.
    pub fn build(self) -> Result<Gradient2, ConfigError> {
        check::limits(self.initial, self.min, self.max)?;
        check::number("tolerance", self.tolerance, 1.0, 10.0)?;
        check::number("smoothing", self.smoothing, 0.01, 1.0)?;
        check::positive("long_window", self.long_window)?;
        check::span("window", self.window)?;
        Ok(Gradient2 { limit: self.initial.into(), long: 0.0, windows: 0, config: self })
    }
}

/// Compares the mean time of a window with its long-term average, and lets a few calls wait.
///
/// As `Gradient2Limit` of Netflix's [concurrency-limits] does it, behind its window:
/// `limit += smoothing * (limit * clamp(tolerance * long / mean, 0.5, 1) + queue - limit)`. The long-term average follows load
/// as well as it follows the service: under lasting overload the limit drifts up.
///
/// [concurrency-limits]: https://github.com/Netflix/concurrency-limits
#[derive(Clone, Debug)]
pub struct Gradient2 {
    limit: f64,
    /// The long-term average of the means, in seconds.
    long: f64,
    windows: u32,
    config: Gradient2Config,
}

/// So many windows are averaged plainly before they are smoothed.
const WARM_UP: u32 = 10;

impl Gradient2 {
    fn remember(&mut self, mean: f64) {
        self.windows = self.windows.saturating_add(1);
        let weight = if self.windows <= WARM_UP {
            1.0 / f64::from(self.windows)
        } else {
            2.0 / (f64::from(self.config.long_window) + 1.0)
        };
        self.long += weight * (mean - self.long);
        // Fast again after a long spell of load: the average is helped down.
        if self.long > 2.0 * mean {
            self.long *= 0.95;
        }
    }
}

impl Limit for Gradient2 {
    fn limit(&self) -> u32 {
        self.limit as u32
    }

    fn span(&self) -> Span {
        Span::every(self.config.window, 10)
    }

    fn observe(&mut self, window: &Window) {
        let Some(mean) = window.mean().map(|mean| mean.as_secs_f64()).filter(|mean| *mean > 0.0) else { return };
        self.remember(mean);
        if f64::from(window.in_flight) * 2.0 < self.limit {
            return;
        }
        let Gradient2Config { min, max, tolerance, smoothing, queue, .. } = self.config;
        let gradient = (tolerance * self.long / mean).clamp(0.5, 1.0);
        let queue = queue.map_or(self.limit.sqrt(), f64::from);
        self.limit += smoothing * (self.limit * gradient + queue - self.limit);
        self.limit = self.limit.clamp(min.into(), max.into());
    }

    fn name(&self) -> &'static str {
        "gradient2"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::seen;

    fn settled() -> Gradient2 {
        let mut limit = Gradient2Config::default().initial(100).build().unwrap();
        for _ in 0..20 {
            limit.observe(&seen(10, 50, 0));
        }
        assert_eq!(limit.limit(), 100, "the limit was not used");
        limit
    }

    #[test]
    fn it_grows_by_a_part_of_the_square_root_while_times_are_the_usual() {
        let mut limit = settled();
        limit.observe(&seen(10, 50, 100));
        assert_eq!(limit.limit(), 102);
        limit.observe(&seen(14, 50, 100));
        assert_eq!(limit.limit(), 104, "within the tolerance");
    }

    #[test]
    fn it_shrinks_when_times_are_long_and_at_most_by_half_of_a_step() {
        let mut limit = settled();
        limit.observe(&seen(1_000, 50, 100));
        assert_eq!(limit.limit(), 92, "100 + 0.2 * (50 + 10 - 100)");
    }

    #[test]
    fn the_average_comes_down_faster_than_it_went_up() {
        let mut limit = settled();
        limit.long = 0.1;
        for _ in 0..20 {
            limit.observe(&seen(10, 50, 0));
        }
        assert!(limit.long < 0.04, "{}", limit.long);
    }
}
