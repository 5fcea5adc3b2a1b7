use crate::{Breaker, RampConfig};
use buttress_core::{ConfigError, config::format_duration, window::CountWindow};
use std::time::Duration;

/// Which calls the rates are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Window {
    /// The last so much time, in ten buckets. 100 ms to 7 days.
    Time(#[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration"))] Duration),
    /// The last so many calls, exactly. 1 to 1 000 000.
    Count(u32),
}

/// What a caller finds while the circuit is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Admission {
    /// A refusal, at once.
    #[default]
    Reject,
    /// A service that is not ready until the time of the next probe: for a caller that has other services to turn to
    /// while this one is pending (a balancer), or nothing better to do than to wait.
    BackPressure,
}

/// The config of a [`Breaker`]. Which condition trips it is up to you; each one set is enough by itself.
///
/// ```
/// use buttress_breaker::{BreakerConfig, Window};
/// use std::time::Duration;
///
/// let breaker = BreakerConfig::default()
///     .window(Window::Count(100))
///     .failure_rate(0.3)
///     .consecutive(10)
///     .slow_after(Duration::from_millis(200))
///     .slow_rate(0.8)
///     .build()?;
/// # Ok::<(), buttress_breaker::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct BreakerConfig {
    /// The `name` in log events, whatever a builder or a registry calls the layer. Default `"breaker"`.
    pub name: String,
    /// Opens after this many failures in a row. `None` (default): never for that reason.
    pub consecutive: Option<u32>,
    /// Opens when this share of the calls in the window failed: more than 0, at most 1. Default 0.5.
    pub failure_rate: Option<f64>,
    /// Opens when this share of the calls in the window was slow: more than 0, at most 1. Needs `slow_after`. Default `None`.
    pub slow_rate: Option<f64>,
    /// A call whose latency reaches this is slow, still in flight or not. Default `None`: no call is.
    #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration_opt"))]
    pub slow_after: Option<Duration>,
    /// A call in flight for longer counts as a failure. Default `None`: `slow_after`, or else 5 s.
    #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration_opt"))]
    pub hang_after: Option<Duration>,
    /// What the rates are made of. Default: the last 10 s.
    pub window: Window,
    /// Rates say nothing before the window holds this many calls. Default 20.
    pub min_calls: u32,
    /// Opens on a rate only when it is above the threshold with this confidence (the lower bound of Wilson's score
    /// interval, 1927): 0.5 to below 1. Default `None`: the plain rate decides.
    pub confidence: Option<f64>,
    /// Counts `Overload` ("too much") as a failure. Default false: the service works.
    pub overload_as_failure: bool,
    /// How long the circuit stays open the first time; it doubles each time after. Up to a half of it is random. Default 5 s.
    #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration"))]
    pub open_for: Duration,
    /// The longest it stays open, whatever a `Retry-After` says; closed for this long, doubling begins anew. Default 60 s.
    #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration"))]
    pub max_open: Duration,
    /// Half-open: how many probes may be in flight at once, 1 to 32. Default 3.
    pub probes: u32,
    /// Half-open: closes when this many of `probe_window` probes are good. Default 3.
    pub close_after: u32,
    /// Half-open: how many probes decide, 1 to 63. Reopens as soon as `close_after` is out of reach. Default 5.
    pub probe_window: u32,
    /// A probe that takes longer is a failure, and its place is free again. Default 10 s.
    #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration"))]
    pub probe_deadline: Duration,
    /// After good probes: closes by degrees. Default `None`: at once.
    pub ramp: Option<RampConfig>,
    /// What a caller finds while the circuit is open. Default: a refusal.
    pub admission: Admission,
    /// Where the jitter of the open times and the draws of a ramp come from. Default `None`: differs from instance to instance.
    pub seed: Option<u64>,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            name: "breaker".to_owned(),
            consecutive: None,
            failure_rate: Some(0.5),
            slow_rate: None,
            slow_after: None,
            hang_after: None,
            window: Window::Time(Duration::from_secs(10)),
            min_calls: 20,
            confidence: None,
            overload_as_failure: false,
            open_for: Duration::from_secs(5),
            max_open: Duration::from_secs(60),
            probes: 3,
            close_after: 3,
            probe_window: 5,
            probe_deadline: Duration::from_secs(10),
            ramp: None,
            admission: Admission::Reject,
            seed: None,
        }
    }
}

impl BreakerConfig {
    buttress_core::setters! {
        /// Sets [`consecutive`](Self#structfield.consecutive).
        consecutive: u32 => Some(consecutive);
        /// Sets [`failure_rate`](Self#structfield.failure_rate); `None` switches the condition off.
        failure_rate: impl Into<Option<f64>> => failure_rate.into();
        /// Sets [`slow_rate`](Self#structfield.slow_rate).
        slow_rate: f64 => Some(slow_rate);
        /// Sets [`slow_after`](Self#structfield.slow_after).
        slow_after: Duration => Some(slow_after);
        /// Sets [`hang_after`](Self#structfield.hang_after).
        hang_after: Duration => Some(hang_after);
        /// Sets [`window`](Self#structfield.window).
        window: Window => window;
        /// Sets [`min_calls`](Self#structfield.min_calls).
        min_calls: u32 => min_calls;
        /// Sets [`confidence`](Self#structfield.confidence).
        confidence: f64 => Some(confidence);
        /// Sets [`overload_as_failure`](Self#structfield.overload_as_failure).
        overload_as_failure: bool => overload_as_failure;
        /// Sets [`open_for`](Self#structfield.open_for).
        open_for: Duration => open_for;
        /// Sets [`max_open`](Self#structfield.max_open).
        max_open: Duration => max_open;
        /// Sets [`probes`](Self#structfield.probes).
        probes: u32 => probes;
        /// Sets [`close_after`](Self#structfield.close_after).
        close_after: u32 => close_after;
        /// Sets [`probe_window`](Self#structfield.probe_window).
        probe_window: u32 => probe_window;
        /// Sets [`probe_deadline`](Self#structfield.probe_deadline).
        probe_deadline: Duration => probe_deadline;
        /// Sets [`ramp`](Self#structfield.ramp); `None` takes it away.
        ramp: impl Into<Option<RampConfig>> => ramp.into();
        /// Sets [`admission`](Self#structfield.admission).
        admission: Admission => admission;
        /// Sets [`seed`](Self#structfield.seed).
        seed: u64 => Some(seed);
        /// Sets [`name`](Self#structfield.name).
        name: impl Into<String> => name.into();
    }

    /// A breaker with this config, closed.
    ///
    /// # Errors
    ///
    /// The first field with a value it cannot have.
    pub fn build(self) -> Result<Breaker, ConfigError> {
        Breaker::new(self)
    }

    /// From when on a call in flight counts as a failure.
    pub fn effective_hang_after(&self) -> Duration {
        self.hang_after.or(self.slow_after).unwrap_or(Duration::from_secs(5))
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        let share = |field, share: Option<f64>| match share {
            Some(share) if !(share > 0.0 && share <= 1.0) => {
                Err(ConfigError::new(field, share, "more than 0 and at most 1"))
            }
            _ => Ok(()),
        };
        let count = |field, count: u32, max: u32, allowed: &'static str| {
            if (1..=max).contains(&count) { Ok(()) } else { Err(ConfigError::new(field, count, allowed)) }
        };
        let span = |field, span: Duration| {
            if span >= Duration::from_millis(1) && span <= Duration::from_secs(7 * 86_400) {
                Ok(())
            } else {
                Err(ConfigError::duration(field, span, "1ms to 168h"))
            }
        };
        let watched = |field, span: Duration| {
            if span >= Duration::from_millis(1) && span <= Duration::from_secs(3600) {
                Ok(())
            } else {
                Err(ConfigError::duration(field, span, "1ms to 1h"))
            }
        };
        share("failure_rate", self.failure_rate)?;
        share("slow_rate", self.slow_rate)?;
        if let Some(consecutive) = self.consecutive {
            count("consecutive", consecutive, u32::MAX, "1 or more")?;
        }
        if self.consecutive.is_none() && self.failure_rate.is_none() && self.slow_rate.is_none() {
            return Err(ConfigError::new(
                "failure_rate",
                "none",
                "a share, unless `consecutive` or `slow_rate` is set",
            ));
        }
        if let (Some(rate), None) = (self.slow_rate, self.slow_after) {
            return Err(ConfigError::new(
                "slow_rate",
                rate,
                "only where there is a `slow_after`: set `slow_after` as well",
            ));
        }
        for (field, value) in [("slow_after", self.slow_after), ("hang_after", self.hang_after)] {
            value.map_or(Ok(()), |value| watched(field, value))?;
        }
        if let (Some(slow), Some(hang)) = (self.slow_after, self.hang_after)
            && hang < slow
        {
            return Err(ConfigError::duration("hang_after", hang, "`slow_after` or more"));
        }
        match self.window {
            Window::Time(length) if length < Duration::from_millis(100) || length > Duration::from_secs(7 * 86_400) => {
                return Err(ConfigError::duration("window", length, "100ms to 168h"));
            }
            Window::Time(_) => {}
            Window::Count(size) => count("window", size, CountWindow::MAX, "1 to 1000000 calls")?,
        }
        count("min_calls", self.min_calls, u32::MAX, "1 or more")?;
        if let Window::Count(size) = self.window
            && self.min_calls > size
        {
            return Err(ConfigError::new("min_calls", self.min_calls, format!("at most the size of `window`, {size}")));
        }
        if let Some(confidence) = self.confidence
            && !(0.5..1.0).contains(&confidence)
        {
            return Err(ConfigError::new("confidence", confidence, "0.5 to below 1"));
        }
        span("open_for", self.open_for)?;
        span("max_open", self.max_open)?;
        if self.max_open < self.open_for {
            let (open_for, max_open) = (format_duration(self.open_for), format_duration(self.max_open));
            return Err(if self.max_open == Self::default().max_open {
                ConfigError::new("open_for", open_for, format!("at most `max_open`, which is {max_open}"))
            } else {
                ConfigError::new("max_open", max_open, format!("at least `open_for`, which is {open_for}"))
            });
        }
        span("probe_deadline", self.probe_deadline)?;
        count("probes", self.probes, 32, "1 to 32")?;
        count("probe_window", self.probe_window, 63, "1 to 63")?;
        count("close_after", self.close_after, self.probe_window, "1 to `probe_window`")?;
        self.ramp.as_ref().map_or(Ok(()), RampConfig::validate)
    }
}
