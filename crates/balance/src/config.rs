use crate::Balancer;
use buttress_core::ConfigError;
use std::{borrow::Cow, time::Duration};

/// What a [`Balancer`] is made from, and what [`Balancer::update`] changes while it runs.
///
/// ```
/// use buttress_balance::{BalanceConfig, Balancer};
/// use std::time::Duration;
///
/// let balancer: Balancer = BalanceConfig::default().penalty(Duration::from_secs(2)).build()?;
///
/// let error = BalanceConfig::default().picks(0).build().unwrap_err();
/// assert_eq!(error.to_string(), "`picks` is 0, allowed: 1 to 16");
/// # let _ = balancer;
/// # Ok::<(), buttress_core::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct BalanceConfig {
    /// The time constant of the latency average: what was seen this long ago counts 1/e. 1 ms to 1 h. Default: 10 s, as in
    /// Finagle and linkerd.
    #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration"))]
    pub decay: Duration,
    /// What a failed call is taken to have lasted, if it did not last longer: the time-out of a call. Without it a replica that
    /// fails fast looks like the fastest of all and draws the traffic. More than 0, at most 1 h. Default: 5 s.
    #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration"))]
    pub penalty: Duration,
    /// How long an endpoint that said "too much" counts as busier than one that did not, where it did not say for how long,
    /// or for less. At most 1 h. Default: 1 s.
    #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration"))]
    pub overload: Duration,
    /// The same at most, whatever it said. At least `overload`, at most 1 h. Default: 30 s.
    #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration"))]
    pub max_overload: Duration,
    /// How many endpoints a call asks, by load, before it waits for any of them to become ready: 1 to 16. Default: 4.
    pub picks: u32,
    /// The seed of the random choices. `None` (the default): a random one. With a seed all threads draw from one sequence, on
    /// one cache line: for tests. Fixed once built.
    pub seed: Option<u64>,
    /// The name in log events, whatever a builder or a registry calls it. Default: `"balance"`.
    pub name: Cow<'static, str>,
}

impl Default for BalanceConfig {
    fn default() -> Self {
        Self {
            decay: Duration::from_secs(10),
            penalty: Duration::from_secs(5),
            overload: Duration::from_secs(1),
            max_overload: Duration::from_secs(30),
            picks: 4,
            seed: None,
            name: Cow::Borrowed("balance"),
        }
    }
}

const HOUR: Duration = Duration::from_secs(3600);

impl BalanceConfig {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    buttress_core::setters! {
        /// Sets [`decay`](Self#structfield.decay).
        decay: Duration => decay;
        /// Sets [`penalty`](Self#structfield.penalty).
        penalty: Duration => penalty;
        /// Sets [`overload`](Self#structfield.overload).
        overload: Duration => overload;
        /// Sets [`max_overload`](Self#structfield.max_overload).
        max_overload: Duration => max_overload;
        /// Sets [`picks`](Self#structfield.picks).
        picks: u32 => picks;
        /// Sets [`seed`](Self#structfield.seed).
        seed: impl Into<Option<u64>> => seed.into();
        /// Sets [`name`](Self#structfield.name).
        name: impl Into<Cow<'static, str>> => name.into();
    }

    /// The balancer, without endpoints.
    ///
    /// # Errors
    ///
    /// The first field that is out of its range.
    pub fn build(self) -> Result<Balancer, ConfigError> {
        Balancer::new(self)
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        if !(Duration::from_millis(1)..=HOUR).contains(&self.decay) {
            return Err(ConfigError::duration("decay", self.decay, "1ms to 1h"));
        }
        if self.penalty.is_zero() || self.penalty > HOUR {
            return Err(ConfigError::duration("penalty", self.penalty, "more than 0 and at most 1h"));
        }
        if self.overload > HOUR {
            return Err(ConfigError::duration("overload", self.overload, "at most 1h"));
        }
        if self.max_overload < self.overload || self.max_overload > HOUR {
            return Err(ConfigError::duration("max_overload", self.max_overload, "`overload` to 1h"));
        }
        if !(1..=16).contains(&self.picks) {
            return Err(ConfigError::new("picks", self.picks, "1 to 16"));
        }
        Ok(())
    }
}
