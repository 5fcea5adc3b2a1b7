use super::{Limit, Span, Window, check};
use buttress_core::ConfigError;
use std::time::Duration;

/// The config of [`Aimd`].
///
/// ```
/// use buttress_shed::limit::{AimdConfig, Limit};
///
/// assert_eq!(AimdConfig::default().initial(20).build()?.limit(), 20);
///
/// let error = AimdConfig::default().backoff(1.5).build().unwrap_err();
/// assert_eq!(error.to_string(), "`backoff` is 1.5, allowed: 0.5 to 0.99");
/// # Ok::<(), buttress_core::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct AimdConfig {
    /// The limit at the beginning. Default: 20.
    pub initial: u32,
    /// The smallest limit. Default: 1.
    pub min: u32,
    /// The largest limit, up to 10 000. Default: 1000.
    pub max: u32,
    /// What the limit is multiplied by when a call was lost: 0.5 to 0.99. Default: 0.9.
    pub backoff: f64,
    /// A window whose mean time reaches this counts as one with a loss: 1 ms to 1 h. Default: 5 s.
    #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration"))]
    pub timeout: Duration,
    /// How long a window is: 1 ms to 1 h. Default: 100 ms.
    #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration"))]
    pub window: Duration,
}

impl Default for AimdConfig {
    fn default() -> Self {
        Self {
            initial: 20,
            min: 1,
            max: 1000,
            backoff: 0.9,
            timeout: Duration::from_secs(5),
            window: Duration::from_millis(100),
        }
    }
}

impl AimdConfig {
    buttress_core::setters! {
        /// Sets [`initial`](Self#structfield.initial).
        initial: u32 => initial;
        /// Sets [`min`](Self#structfield.min).
        min: u32 => min;
        /// Sets [`max`](Self#structfield.max).
        max: u32 => max;
        /// Sets [`backoff`](Self#structfield.backoff).
        backoff: f64 => backoff;
        /// Sets [`timeout`](Self#structfield.timeout).
        timeout: Duration => timeout;
        /// Sets [`window`](Self#structfield.window).
        window: Duration => window;
    }

    /// The algorithm.
    ///
    /// # Errors
    ///
    /// The first field that is out of its range.
    pub fn build(self) -> Result<Aimd, ConfigError> {
        check::limits(self.initial, self.min, self.max)?;
        check::number("backoff", self.backoff, 0.5, 0.99)?;
        check::span("timeout", self.timeout)?;
        check::span("window", self.window)?;
        Ok(Aimd { limit: self.initial, config: self })
    }
}

/// Additive increase, multiplicative decrease: one more per window as long as nothing is lost and the limit is used, a tenth less
/// when something is.
///
/// As `AIMDLimit` of Netflix's [concurrency-limits] does it, behind its window; the rule is that of TCP (Chiu and Jain, *Analysis of
/// the increase and decrease algorithms for congestion avoidance*, 1989). A loss is a call that was cut off or that the service
/// refused as too many. It needs losses to find the limit, so latency grows to the time-out first and the limit saw-tooths below it.
///
/// [concurrency-limits]: https://github.com/Netflix/concurrency-limits
#[derive(Clone, Debug)]
pub struct Aimd {
    limit: u32,
    config: AimdConfig,
}

impl Default for Aimd {
    fn default() -> Self {
        let config = AimdConfig::default();
        Self { limit: config.initial, config }
    }
}

impl Limit for Aimd {
    fn limit(&self) -> u32 {
        self.limit
    }

    fn span(&self) -> Span {
        Span::every(self.config.window, 1)
    }

    fn observe(&mut self, window: &Window) {
        let AimdConfig { min, max, backoff, timeout, .. } = self.config;
        if window.lost() || window.mean().is_some_and(|mean| mean >= timeout) {
            let less = (f64::from(self.limit) * backoff) as u32;
            self.limit = less.min(self.limit.saturating_sub(1)).max(min);
        } else if window.completed > 0 && window.in_flight >= self.limit.div_ceil(2) {
            self.limit = (self.limit + 1).min(max);
        }
    }

    fn name(&self) -> &'static str {
        "aimd"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::seen;

    #[test]
    fn it_grows_by_one_while_its_limit_is_used() {
        let mut limit = AimdConfig::default().initial(10).build().unwrap();
        limit.observe(&seen(10, 50, 5));
        assert_eq!(limit.limit(), 11);
        limit.observe(&seen(10, 50, 5));
        assert_eq!(limit.limit(), 11, "5 of 11 is less than a half");
        limit.observe(&seen(10, 0, 11));
        assert_eq!(limit.limit(), 11, "nothing was seen");
    }

    #[test]
    fn a_loss_takes_a_tenth_and_at_least_one_down_to_the_least() {
        let mut limit = AimdConfig::default().initial(100).min(2).build().unwrap();
        limit.observe(&Window { censored: 1, ..seen(10, 50, 100) });
        assert_eq!(limit.limit(), 90);
        limit.observe(&Window { overloads: 1, ..seen(10, 50, 90) });
        assert_eq!(limit.limit(), 81);
        limit.observe(&seen(5_000, 50, 81));
        assert_eq!(limit.limit(), 72, "too slow is lost");
        for _ in 0..40 {
            limit.observe(&Window { censored: 1, ..seen(10, 50, 9) });
        }
        assert_eq!(limit.limit(), 2);
    }
}
