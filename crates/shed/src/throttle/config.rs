use super::{Throttle, ThrottleLayer};
use buttress_core::{Clock, ConfigError, GateLayer, TokioClock};
use std::{borrow::Cow, time::Duration};

/// What a [`Throttle`] is made from, and what [`Throttle::update`] changes while it runs.
///
/// ```
/// use buttress_shed::throttle::ThrottleConfig;
///
/// let throttle = ThrottleConfig::default().k(1.5).min_calls(50).build()?;
/// # let _: buttress_shed::throttle::Throttle = throttle;
///
/// let error = ThrottleConfig::default().k(0.5).build().unwrap_err();
/// assert_eq!(error.to_string(), "`k` is 0.5, allowed: 1 to 100");
/// # Ok::<(), buttress_core::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct ThrottleConfig {
    /// So many times what is accepted may be sent: 1 (nothing more) to 100. What is sent in excess finds out that the service is better; more of
    /// it finds that out sooner, and costs the service more. Default: 2.
    pub k: f64,
    /// How long a call counts: 100 ms to 1 m. Default: 10 s.
    #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration"))]
    pub window: Duration,
    /// With fewer calls in the window nothing is refused: at least 1. Default: 20, which is two a second.
    pub min_calls: u32,
    /// The largest share that is refused: more than 0, at most 1. Less than 1 keeps some calls going to a service that refuses them all, so that the
    /// end of that is seen sooner. Default: 1.
    pub max_refused: f64,
    /// Where chance begins. Default `None`: differs from instance to instance.
    pub seed: Option<u64>,
    /// The name in log events, whatever a builder or a registry calls the layer. Default: `"throttle"`.
    pub name: Cow<'static, str>,
}

impl Default for ThrottleConfig {
    fn default() -> Self {
        Self {
            k: 2.0,
            window: Duration::from_secs(10),
            min_calls: 20,
            max_refused: 1.0,
            seed: None,
            name: Cow::Borrowed("throttle"),
        }
    }
}

impl ThrottleConfig {
    buttress_core::setters! {
        /// Sets [`k`](Self#structfield.k).
        k: f64 => k;
        /// Sets [`window`](Self#structfield.window).
        window: Duration => window;
        /// Sets [`min_calls`](Self#structfield.min_calls).
        min_calls: u32 => min_calls;
        /// Sets [`max_refused`](Self#structfield.max_refused).
        max_refused: f64 => max_refused;
        /// Sets [`seed`](Self#structfield.seed).
        seed: u64 => Some(seed);
        /// Sets [`name`](Self#structfield.name).
        name: impl Into<Cow<'static, str>> => name.into();
    }

    /// The throttle.
    ///
    /// # Errors
    ///
    /// The first field that is out of its range.
    pub fn build(self) -> Result<Throttle, ConfigError> {
        self.build_at(&TokioClock)
    }

    /// The same, by another clock; its moments must not lie before this one.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build).
    pub fn build_at(self, clock: &impl Clock) -> Result<Throttle, ConfigError> {
        self.validate()?;
        Ok(Throttle::with(self, clock.now()))
    }

    /// The layer.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build).
    pub fn layer(self) -> Result<ThrottleLayer, ConfigError> {
        self.build().map(GateLayer::new)
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        if !(1.0..=100.0).contains(&self.k) {
            return Err(ConfigError::new("k", self.k, "1 to 100"));
        }
        if !(Duration::from_millis(100)..=Duration::from_secs(60)).contains(&self.window) {
            return Err(ConfigError::duration("window", self.window, "100ms to 1m"));
        }
        if self.min_calls == 0 {
            return Err(ConfigError::new("min_calls", 0, "1 to 4294967295"));
        }
        if !(self.max_refused > 0.0 && self.max_refused <= 1.0) {
            return Err(ConfigError::new("max_refused", self.max_refused, "more than 0 and at most 1"));
        }
        Ok(())
    }
}

/// The layer's own defaults, which are right.
impl Default for Throttle {
    fn default() -> Self {
        Self::with(ThrottleConfig::default(), TokioClock.now())
    }
}
