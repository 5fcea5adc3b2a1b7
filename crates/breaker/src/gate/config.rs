use crate::RampedGate;
use buttress_core::ConfigError;
use std::time::Duration;

/// The config of a [`RampedGate`].
///
/// ```
/// use buttress_breaker::RampedGateConfig;
/// use std::time::Duration;
///
/// let gate = RampedGateConfig::default().hang_after(Duration::from_secs(2)).build()?;
/// # Ok::<(), buttress_breaker::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct RampedGateConfig {
    /// The `name` in log events. Default `"gate"`.
    pub name: String,
    /// A call in flight for longer counts as a failure: 1 ms to 1 h. Default 5 s.
    #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration"))]
    pub hang_after: Duration,
    /// The share never falls below this, 0.001 to 0.25. Default 0.01.
    pub min_share: f64,
    /// Nor below a call per this time, on an average, up to a quarter of the calls; and when none has passed for this long, the
    /// next one does: 10 ms to 1 min. Default 500 ms.
    #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration"))]
    pub probe_every: Duration,
    /// Where the draws come from. Default `None`: differs from instance to instance.
    pub seed: Option<u64>,
}

impl Default for RampedGateConfig {
    fn default() -> Self {
        Self {
            name: "gate".to_owned(),
            hang_after: Duration::from_secs(5),
            min_share: 0.01,
            probe_every: Duration::from_millis(500),
            seed: None,
        }
    }
}

impl RampedGateConfig {
    buttress_core::setters! {
        /// Sets [`name`](Self#structfield.name).
        name: impl Into<String> => name.into();
        /// Sets [`hang_after`](Self#structfield.hang_after).
        hang_after: Duration => hang_after;
        /// Sets [`min_share`](Self#structfield.min_share).
        min_share: f64 => min_share;
        /// Sets [`probe_every`](Self#structfield.probe_every).
        probe_every: Duration => probe_every;
        /// Sets [`seed`](Self#structfield.seed).
        seed: u64 => Some(seed);
    }

    /// A gate with this config, wide open.
    ///
    /// # Errors
    ///
    /// The first field with a value it cannot have.
    pub fn build(self) -> Result<RampedGate, ConfigError> {
        RampedGate::new(self)
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        if self.hang_after < Duration::from_millis(1) || self.hang_after > Duration::from_secs(3600) {
            return Err(ConfigError::duration("hang_after", self.hang_after, "1ms to 1h"));
        }
        if !(0.001..=0.25).contains(&self.min_share) {
            return Err(ConfigError::new("min_share", self.min_share, "0.001 to 0.25"));
        }
        if self.probe_every < Duration::from_millis(10) || self.probe_every > Duration::from_secs(60) {
            return Err(ConfigError::duration("probe_every", self.probe_every, "10ms to 1m"));
        }
        Ok(())
    }
}
