use super::{RateLimit, RateLimitLayer, gcra::Rate};
use buttress_core::{Clock, ConfigError, GateLayer, TokioClock};
use std::{borrow::Cow, time::Duration};

/// What a [`RateLimit`] is made from, and what [`RateLimit::update`] changes while it runs.
///
/// ```
/// use buttress_shed::rate::RateLimitConfig;
/// use std::time::Duration;
///
/// let limit = RateLimitConfig::new(1, Duration::from_secs(2)).build()?; // 0.5 per second
/// # let _: buttress_shed::rate::RateLimit = limit;
///
/// let error = RateLimitConfig::per_second(0).build().unwrap_err();
/// assert_eq!(error.to_string(), "`permits` is 0, allowed: 1 to 4294967295");
/// # Ok::<(), buttress_core::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct RateLimitConfig {
    /// How many calls pass in a [`period`](Self::period), on average: at least 1. To let none pass is a mode
    /// ([`ForcedOpen`](buttress_core::Mode::ForcedOpen)). Default: 100.
    pub permits: u32,
    /// The period: more than 0, and at least 1 ns per permit. Default: 1 s.
    #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration"))]
    pub period: Duration,
    /// How many calls pass at once after a quiet time: at least 1, and no more than come anew in 365 days. Default `None`: as many as `permits`.
    pub burst: Option<u32>,
    /// The name in log events, whatever a builder or a registry calls the layer. Default: `"rate_limit"`.
    pub name: Cow<'static, str>,
}

impl Default for RateLimitConfig {
    fn default() -> Self {
        Self { permits: 100, period: Duration::from_secs(1), burst: None, name: Cow::Borrowed("rate_limit") }
    }
}

/// The longest time in which a bucket fills: with it all sums stay in 64 bits for decades.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);

impl RateLimitConfig {
    /// The defaults with so many calls in `period`.
    pub fn new(permits: u32, period: Duration) -> Self {
        Self { permits, period, ..Self::default() }
    }

    /// The defaults with so many calls per second.
    pub fn per_second(permits: u32) -> Self {
        Self::new(permits, Duration::from_secs(1))
    }

    /// The defaults with so many calls per minute, all of which may come at once: see [`burst`](Self::burst).
    pub fn per_minute(permits: u32) -> Self {
        Self::new(permits, Duration::from_secs(60))
    }

    buttress_core::setters! {
        /// Sets [`permits`](Self#structfield.permits).
        permits: u32 => permits;
        /// Sets [`period`](Self#structfield.period).
        period: Duration => period;
        /// Sets [`burst`](Self#structfield.burst).
        burst: u32 => Some(burst);
        /// Sets [`name`](Self#structfield.name).
        name: impl Into<Cow<'static, str>> => name.into();
    }

    /// The rate limit, with a full bucket.
    ///
    /// # Errors
    ///
    /// The first field that is out of its range.
    pub fn build(self) -> Result<RateLimit, ConfigError> {
        self.build_at(&TokioClock)
    }

    /// The same, by another clock; its moments must not lie before this one.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build).
    pub fn build_at(self, clock: &impl Clock) -> Result<RateLimit, ConfigError> {
        let rate = self.rate()?;
        Ok(RateLimit::with(self, rate, clock.now()))
    }

    /// The layer.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build).
    pub fn layer(self) -> Result<RateLimitLayer, ConfigError> {
        self.build().map(GateLayer::new)
    }

    /// What the config says, if it is right.
    pub(super) fn rate(&self) -> Result<Rate, ConfigError> {
        let burst = self.burst.unwrap_or(self.permits);
        if self.permits == 0 {
            return Err(ConfigError::new("permits", 0, "1 to 4294967295"));
        }
        if self.period.is_zero() || self.period > LONGEST {
            return Err(ConfigError::duration("period", self.period, "more than 0 and at most 8760h"));
        }
        if self.period.as_nanos() < u128::from(self.permits) {
            let allowed = format!("at least 1ns for each of {} permits", self.permits);
            return Err(ConfigError::duration("period", self.period, allowed));
        }
        if burst == 0 {
            return Err(ConfigError::new("burst", 0, "1 to 4294967295"));
        }
        let rate = Rate::new(self.permits, self.period, burst);
        let most = LONGEST.as_nanos() * u128::from(self.permits) / self.period.as_nanos();
        if u128::from(burst) > most {
            let allowed = format!("1 to {most}: what comes anew in 365 days");
            return Err(ConfigError::new("burst", burst, allowed));
        }
        Ok(rate)
    }
}
