use buttress_core::ConfigError;
use std::time::Duration;

/// How a circuit closes again by degrees: after good probes it is [`Ramping`](crate::State::Ramping), and lets a share of the
/// calls through, which each good *tick* doubles, until all of them pass. A bad tick opens it again.
///
/// A tick ends with `calls` results, or a quarter of them after a quarter of `tick`, or any after `tick`. It is bad if as large a
/// share of them failed as `failure_rate` says (a half where there is none), or hang, or are slow where there is a `slow_rate`;
/// what ended by time is not called bad on less than three. Results of a tick count in the next one, if that is when they come.
///
/// Without a ramp the first thing that a server gets which has just come back, with cold caches and no connections, is all of
/// its calls at once.
///
/// ```
/// use buttress_breaker::{BreakerConfig, RampConfig};
/// use std::time::Duration;
///
/// let breaker = BreakerConfig::default().ramp(RampConfig::default().tick(Duration::from_secs(5))).build()?;
/// # Ok::<(), buttress_breaker::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct RampConfig {
    /// The share of calls that pass in the first tick: 0.01 to below 1. Default 0.1.
    pub share: f64,
    /// So many results make a tick, 1 to 100. Default 20.
    pub calls: u32,
    /// After this long any result makes one, 10 ms to 1 min. Default 1 s. Whatever the share, one call passes for certain when
    /// none has for a fifth of it (a tenth in the second tick, and so on), so a few calls are enough to come to the end.
    #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration"))]
    pub tick: Duration,
}

impl Default for RampConfig {
    fn default() -> Self {
        Self { share: 0.1, calls: 20, tick: Duration::from_secs(1) }
    }
}

impl RampConfig {
    buttress_core::setters! {
        /// Sets [`share`](Self#structfield.share).
        share: f64 => share;
        /// Sets [`calls`](Self#structfield.calls).
        calls: u32 => calls;
        /// Sets [`tick`](Self#structfield.tick).
        tick: Duration => tick;
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        if !(self.share >= 0.01 && self.share < 1.0) {
            return Err(ConfigError::new("ramp.share", self.share, "0.01 to below 1"));
        }
        if !(1..=100).contains(&self.calls) {
            return Err(ConfigError::new("ramp.calls", self.calls, "1 to 100"));
        }
        if self.tick < Duration::from_millis(10) || self.tick > Duration::from_secs(60) {
            return Err(ConfigError::duration("ramp.tick", self.tick, "10ms to 1m"));
        }
        Ok(())
    }
}
