use super::{Limit, Span, Window, check};
use buttress_core::{ConfigError, Draw};
use std::time::Duration;

/// The config of [`Vegas`].
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct VegasConfig {
    /// The limit at the beginning. Default: 20.
    pub initial: u32,
    /// The smallest limit. Default: 1.
    pub min: u32,
    /// The largest limit, up to 10 000. Default: 1000.
    pub max: u32,
    /// Grows while fewer than `alpha` times log10 of the limit wait: 1 to 100. Default: 3.
    pub alpha: u32,
    /// Shrinks when more than `beta` times log10 of the limit wait: `alpha` to 100. Default: 6.
    pub beta: u32,
    /// How much of a step is taken: 0.01 to 1. Default: 1.
    pub smoothing: f64,
    /// The unloaded time is forgotten after about so many windows times the limit (a half to all of it, by chance), at least 1. Default: 30.
    pub probe_multiplier: u32,
    /// How long a window is: 1 ms to 1 h. Default: 100 ms.
    #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration"))]
    pub window: Duration,
    /// What the times of forgetting follow from. Default: 0.
    pub seed: u64,
}

impl Default for VegasConfig {
    fn default() -> Self {
        Self {
            initial: 20,
            min: 1,
            max: 1000,
            alpha: 3,
            beta: 6,
            smoothing: 1.0,
            probe_multiplier: 30,
            window: Duration::from_millis(100),
            seed: 0,
        }
    }
}

impl VegasConfig {
    buttress_core::setters! {
        /// Sets [`initial`](Self#structfield.initial).
        initial: u32 => initial;
        /// Sets [`min`](Self#structfield.min).
        min: u32 => min;
        /// Sets [`max`](Self#structfield.max).
        max: u32 => max;
        /// Sets [`alpha`](Self#structfield.alpha).
        alpha: u32 => alpha;
        /// Sets [`beta`](Self#structfield.beta).
        beta: u32 => beta;
        /// Sets [`smoothing`](Self#structfield.smoothing).
        smoothing: f64 => smoothing;
        /// Sets [`probe_multiplier`](Self#structfield.probe_multiplier).
        probe_multiplier: u32 => probe_multiplier;
        /// Sets [`window`](Self#structfield.window).
        window: Duration => window;
        /// Sets [`seed`](Self#structfield.seed).
        seed: u64 => seed;
    }

    /// The algorithm.
    ///
    /// # Errors
    ///
    /// The first field that is out of its range.
    pub fn build(self) -> Result<Vegas, ConfigError> {
        check::limits(self.initial, self.min, self.max)?;
        check::number("alpha", self.alpha.into(), 1.0, 100.0)?;
        check::number("beta", self.beta.into(), self.alpha.into(), 100.0)?;
        check::number("smoothing", self.smoothing, 0.01, 1.0)?;
        check::positive("probe_multiplier", self.probe_multiplier)?;
        check::span("window", self.window)?;
        let draw = Draw::new(self.seed);
        let patience = patience(&draw);
        Ok(Vegas { limit: self.initial.into(), unloaded: None, windows: 0, patience, draw, config: self })
    }
}

/// Counts how many calls seem to wait behind the limit, and keeps that number between two bounds.
///
/// As `VegasLimit` of Netflix's [concurrency-limits] does it, after TCP Vegas (Brakmo and Peterson, *TCP Vegas: end to end
/// congestion avoidance on a global Internet*, 1995): of `limit` calls, `limit * (1 - unloaded / mean)` wait, where `unloaded` is the
/// least mean time of a window. Windowed, as that project advises where times vary: fed with single calls it takes the shortest
/// for the unloaded time and stays at a handful of calls, whatever the capacity.
///
/// [concurrency-limits]: https://github.com/Netflix/concurrency-limits
#[derive(Debug)]
pub struct Vegas {
    limit: f64,
    /// The least mean of a window, in seconds.
    unloaded: Option<f64>,
    /// Since it was last forgotten.
    windows: u32,
    /// Which part of the full time passes before that.
    patience: f64,
    draw: Draw,
    config: VegasConfig,
}

/// A half to one.
fn patience(draw: &Draw) -> f64 {
    0.5 + 0.5 * draw.unit()
}

impl Vegas {
    fn next(&self, unloaded: f64, mean: f64, window: &Window) -> f64 {
        let step = self.limit.log10().floor().max(1.0);
        let waiting = (self.limit * (1.0 - unloaded / mean)).ceil();
        if window.lost() {
            self.limit - step
        } else if f64::from(window.in_flight) * 2.0 < self.limit {
            self.limit
        } else if waiting <= step {
            self.limit + f64::from(self.config.beta) * step
        } else if waiting < f64::from(self.config.alpha) * step {
            self.limit + step
        } else if waiting > f64::from(self.config.beta) * step {
            self.limit - step
        } else {
            self.limit
        }
    }
}

impl Limit for Vegas {
    fn limit(&self) -> u32 {
        self.limit as u32
    }

    fn span(&self) -> Span {
        Span::every(self.config.window, 10)
    }

    fn observe(&mut self, window: &Window) {
        let Some(mean) = window.mean().map(|mean| mean.as_secs_f64()).filter(|mean| *mean > 0.0) else { return };
        self.windows += 1;
        if f64::from(self.windows) >= self.patience * f64::from(self.config.probe_multiplier) * self.limit {
            self.windows = 0;
            self.patience = patience(&self.draw);
            self.unloaded = Some(mean);
            return;
        }
        match self.unloaded {
            Some(unloaded) if unloaded <= mean => {
                let next = self.next(unloaded, mean, window).clamp(self.config.min.into(), self.config.max.into());
                self.limit += self.config.smoothing * (next - self.limit);
            }
            _ => self.unloaded = Some(mean),
        }
    }

    fn name(&self) -> &'static str {
        "vegas"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::seen;

    #[test]
    fn it_grows_while_nobody_waits_and_shrinks_when_many_do() {
        let mut limit = VegasConfig::default().build().unwrap();
        limit.observe(&seen(10, 50, 20));
        assert_eq!(limit.limit(), 20, "the first window only says what unloaded is");
        limit.observe(&seen(10, 50, 20));
        assert_eq!(limit.limit(), 26, "nobody waits: by beta");
        limit.observe(&seen(11, 50, 26));
        assert_eq!(limit.limit(), 26, "3 wait: neither few nor many");
        limit.observe(&seen(20, 50, 26));
        assert_eq!(limit.limit(), 25, "13 wait");
        limit.observe(&seen(10, 50, 12));
        assert_eq!(limit.limit(), 25, "the limit was not used");
        limit.observe(&Window { censored: 1, ..seen(10, 50, 25) });
        assert_eq!(limit.limit(), 24, "one was lost");
    }

    #[test]
    fn what_unloaded_is_gets_forgotten_in_time() {
        let mut limit = VegasConfig::default().initial(4).max(4).build().unwrap();
        limit.observe(&seen(10, 50, 4));
        for _ in 0..120 {
            limit.observe(&seen(30, 50, 4));
        }
        assert_eq!(limit.unloaded, Some(0.03));
    }
}
