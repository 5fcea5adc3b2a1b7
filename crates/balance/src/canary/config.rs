use super::Canary;
use buttress_core::ConfigError;
use std::{borrow::Cow, time::Duration};

/// What a [`Canary`] is made from, and what [`Canary::update`] changes while it runs.
///
/// ```
/// use buttress_balance::{Canary, CanaryConfig};
///
/// let canary: Canary = CanaryConfig::new(2.5).margin(0.02).build()?;
///
/// let error = CanaryConfig::new(250.0).build().unwrap_err();
/// assert_eq!(error.to_string(), "`weight` is 250, allowed: 0 to 100 percent");
/// # let _ = canary;
/// # Ok::<(), buttress_core::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct CanaryConfig {
    /// How many of a hundred calls go to the canary: 0 to 100, fractions allowed. Default: 0.
    pub weight: f64,
    /// By how much the canary's share of failed calls may exceed the stable one's: 0 to 1. Default: 0.05, so that 6 % against 0.5 %
    /// is too much.
    pub margin: f64,
    /// Over how much time the shares are taken: 100 ms to 24 h. Default: 60 s.
    #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration"))]
    pub window: Duration,
    /// How many calls of each side the window must hold before they are compared: 1 to 1 000 000. Default: 100.
    ///
    /// Few calls tell little: of 100 with a tenth that fail, 4 to 16 do. Where both sides fail that often, a canary that is as good
    /// needs a wider margin, or ten times the calls.
    pub min_calls: u32,
    /// The seed of the draws. `None` (the default): a random one. With a seed all threads draw from one sequence, on one cache
    /// line: for tests. Fixed once built.
    pub seed: Option<u64>,
    /// The name in log events, whatever a builder or a registry calls it. Default: `"canary"`.
    pub name: Cow<'static, str>,
}

impl Default for CanaryConfig {
    fn default() -> Self {
        Self {
            weight: 0.0,
            margin: 0.05,
            window: Duration::from_secs(60),
            min_calls: 100,
            seed: None,
            name: Cow::Borrowed("canary"),
        }
    }
}

const DAY: Duration = Duration::from_secs(86_400);

impl CanaryConfig {
    /// The defaults with this weight, in percent.
    pub fn new(weight: f64) -> Self {
        Self { weight, ..Self::default() }
    }

    buttress_core::setters! {
        /// Sets [`weight`](Self#structfield.weight).
        weight: f64 => weight;
        /// Sets [`margin`](Self#structfield.margin).
        margin: f64 => margin;
        /// Sets [`window`](Self#structfield.window).
        window: Duration => window;
        /// Sets [`min_calls`](Self#structfield.min_calls).
        min_calls: u32 => min_calls;
        /// Sets [`seed`](Self#structfield.seed).
        seed: impl Into<Option<u64>> => seed.into();
        /// Sets [`name`](Self#structfield.name).
        name: impl Into<Cow<'static, str>> => name.into();
    }

    /// The policy.
    ///
    /// # Errors
    ///
    /// The first field that is out of its range.
    pub fn build(self) -> Result<Canary, ConfigError> {
        Canary::new(self)
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        validate_weight(self.weight)?;
        if !(0.0..=1.0).contains(&self.margin) {
            return Err(ConfigError::new("margin", self.margin, "0 to 1"));
        }
        if !(Duration::from_millis(100)..=DAY).contains(&self.window) {
            return Err(ConfigError::duration("window", self.window, "100ms to 24h"));
        }
        if !(1..=1_000_000).contains(&self.min_calls) {
            return Err(ConfigError::new("min_calls", self.min_calls, "1 to 1000000"));
        }
        Ok(())
    }
}

pub(super) fn validate_weight(weight: f64) -> Result<(), ConfigError> {
    if (0.0..=100.0).contains(&weight) {
        return Ok(());
    }
    Err(ConfigError::new("weight", weight, "0 to 100 percent"))
}
