use super::{Limit, Span, Window, check};
use buttress_core::{ConfigError, Draw};
use std::time::{Duration, Instant};

/// The config of [`EnvoyGradient`]. The defaults are Envoy's, or those of its documentation's example where it has none.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct EnvoyGradientConfig {
    /// The smallest limit, and the one at which the unloaded time is measured. Default: 3.
    pub min: u32,
    /// The largest limit, up to 10 000. Default: 1000.
    pub max: u32,
    /// How often the unloaded time is measured: 1 ms to 1 h. Default: 60 s.
    #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration"))]
    pub interval: Duration,
    /// By how much of it, at most, a measurement is put off by chance: 0 to 1. Default: 0.15.
    pub jitter: f64,
    /// How many calls a measurement takes, at least 1. Default: 50.
    pub requests: u32,
    /// By how much the unloaded time may be exceeded before the limit shrinks: 0 to 10. Default: 0.25.
    pub buffer: f64,
    /// How long a window is: 1 ms to 1 h. Default: 100 ms.
    #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration"))]
    pub window: Duration,
    /// What the jitter follows from. Default: 0.
    pub seed: u64,
}

impl Default for EnvoyGradientConfig {
    fn default() -> Self {
        Self {
            min: 3,
            max: 1000,
            interval: Duration::from_secs(60),
            jitter: 0.15,
            requests: 50,
            buffer: 0.25,
            window: Duration::from_millis(100),
            seed: 0,
        }
    }
}

impl EnvoyGradientConfig {
    buttress_core::setters! {
        /// Sets [`min`](Self#structfield.min).
        min: u32 => min;
        /// Sets [`max`](Self#structfield.max).
        max: u32 => max;
        /// Sets [`interval`](Self#structfield.interval).
        interval: Duration => interval;
        /// Sets [`jitter`](Self#structfield.jitter).
        jitter: f64 => jitter;
        /// Sets [`requests`](Self#structfield.requests).
        requests: u32 => requests;
        /// Sets [`buffer`](Self#structfield.buffer).
        buffer: f64 => buffer;
        /// Sets [`window`](Self#structfield.window).
        window: Duration => window;
        /// Sets [`seed`](Self#structfield.seed).
        seed: u64 => seed;
    }

    /// The algorithm; it begins with a measurement.
    ///
    /// # Errors
    ///
    /// The first field that is out of its range.
    pub fn build(self) -> Result<EnvoyGradient, ConfigError> {
        check::limits(self.min, self.min, self.max)?;
        check::span("interval", self.interval)?;
        check::number("jitter", self.jitter, 0.0, 1.0)?;
        check::positive("requests", self.requests)?;
        check::number("buffer", self.buffer, 0.0, 10.0)?;
        check::span("window", self.window)?;
        let (limit, draw) = (self.min, Draw::new(self.seed));
        Ok(EnvoyGradient { limit, unloaded: 0.0, phase: Phase::Measuring, at_least: 0, draw, config: self })
    }
}

/// Measures the unloaded time every minute, by letting three calls through at a time, and compares each window with it.
///
/// As the [gradient controller] of Envoy's adaptive concurrency filter does it:
/// `limit = limit * g + sqrt(limit * g)` with `g = clamp(unloaded * (1 + buffer) / time, 0.5, 2)`. Five windows in a row at the
/// smallest limit begin a measurement, too. The time of a window is its mean here, and its median there: for both sides of the
/// gradient alike. While it measures nearly everything is refused.
///
/// [gradient controller]: https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/adaptive_concurrency_filter
#[derive(Debug)]
pub struct EnvoyGradient {
    limit: u32,
    /// In seconds.
    unloaded: f64,
    phase: Phase,
    /// How many windows in a row it was the smallest.
    at_least: u32,
    draw: Draw,
    config: EnvoyGradientConfig,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Calls of before the measurement end; they say nothing of the unloaded time.
    Draining { kept: u32 },
    /// The limit is the smallest: for want of another one it is also the one to go on with.
    Measuring,
    /// The same, with a limit to go back to.
    Remeasuring { kept: u32 },
    /// Until the next measurement.
    Following { until: Instant },
}

impl EnvoyGradient {
    fn follow(&mut self, window: &Window, kept: u32) {
        if let Some(mean) = window.mean() {
            self.unloaded = mean.as_secs_f64();
        }
        self.limit = kept;
        let chance = self.draw.unit();
        let until = window.end + self.config.interval.mul_f64(1.0 + self.config.jitter * chance);
        self.phase = Phase::Following { until };
    }

    fn step(&mut self, mean: f64) {
        let EnvoyGradientConfig { min, max, buffer, .. } = self.config;
        let gradient = (self.unloaded * (1.0 + buffer) / mean).clamp(0.5, 2.0);
        let limit = f64::from(self.limit) * gradient;
        let next = ((limit + limit.sqrt()) as u32).clamp(min, max);
        self.at_least = if self.limit == min && next == min { self.at_least + 1 } else { 0 };
        self.limit = next;
    }
}

impl Limit for EnvoyGradient {
    fn limit(&self) -> u32 {
        self.limit
    }

    fn span(&self) -> Span {
        match self.phase {
            Phase::Draining { kept } => Span::of(kept),
            Phase::Measuring | Phase::Remeasuring { .. } => Span::of(self.config.requests),
            Phase::Following { .. } => Span::every(self.config.window, 1),
        }
    }

    fn observe(&mut self, window: &Window) {
        match self.phase {
            Phase::Draining { kept } => self.phase = Phase::Remeasuring { kept },
            Phase::Measuring => self.follow(window, self.limit),
            Phase::Remeasuring { kept } => self.follow(window, kept),
            Phase::Following { until } => {
                if let Some(mean) = window.mean().map(|mean| mean.as_secs_f64()).filter(|mean| *mean > 0.0) {
                    self.step(mean);
                }
                if window.end >= until || self.at_least >= 5 {
                    self.at_least = 0;
                    self.phase = Phase::Draining { kept: self.limit };
                    self.limit = self.config.min;
                }
            }
        }
    }

    fn name(&self) -> &'static str {
        "envoy_gradient"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::seen;

    fn measured() -> EnvoyGradient {
        let mut limit = EnvoyGradientConfig::default().build().unwrap();
        assert_eq!((limit.limit(), limit.span()), (3, Span::of(50)));
        limit.observe(&seen(10, 50, 3));
        limit
    }

    #[test]
    fn it_grows_with_headroom_while_times_are_the_unloaded_and_shrinks_beyond() {
        let mut limit = measured();
        limit.observe(&seen(10, 50, 3));
        assert_eq!(limit.limit(), 5, "3.75 + 1.9");
        for _ in 0..30 {
            limit.observe(&seen(10, 50, 100));
        }
        assert_eq!(limit.limit(), 1000);
        limit.observe(&seen(100, 50, 1000));
        assert_eq!(limit.limit(), 522, "halved at most, and the headroom");
    }

    #[test]
    fn it_measures_anew_each_minute_and_goes_back_to_its_limit() {
        let mut limit = measured();
        for _ in 0..5 {
            limit.observe(&seen(10, 50, 3));
        }
        let kept = limit.limit();
        let late = Duration::from_secs(70);
        let Window { start, end, .. } = seen(10, 50, 3);
        limit.observe(&Window { start: start + late, end: end + late, ..seen(12, 50, 3) });
        assert_eq!(limit.limit(), 3);
        let before = limit.unloaded;
        limit.observe(&seen(90, 50, 20));
        assert_eq!((limit.limit(), limit.unloaded), (3, before), "calls of before say nothing");
        limit.observe(&seen(20, 50, 3));
        assert!(limit.limit() >= kept, "{} {kept}", limit.limit());
        assert_eq!(limit.unloaded, 0.02);
    }

    #[test]
    fn five_windows_at_the_smallest_limit_begin_a_measurement() {
        let mut limit = measured();
        for _ in 0..5 {
            limit.observe(&seen(100, 50, 3));
        }
        assert!(matches!(limit.phase, Phase::Draining { .. }), "{limit:?}");
    }
}
