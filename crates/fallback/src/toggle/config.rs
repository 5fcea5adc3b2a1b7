use super::Toggle;
use crate::levels::{LevelGuard, Levels};
use buttress_core::{Clock, ConfigError, Signal, TokioClock};
use std::{borrow::Cow, time::Duration};

/// What switches a [`Toggle`] off by itself, and how it comes back.
///
/// ```
/// use buttress_fallback::{Back, ToggleConfig};
/// use std::time::Duration;
///
/// let toggle = ToggleConfig::new("recommendations")
///     .failure_rate(0.5)
///     .back(Back::Ramp { after: Duration::from_secs(30), over: Duration::from_secs(60) })
///     .build()?;
/// assert!(toggle.is_on());
///
/// let error = ToggleConfig::new("recommendations").failure_rate(1.5).build().unwrap_err();
/// assert_eq!(error.to_string(), "`failure_rate` is 1.5, allowed: more than 0 and at most 1");
/// # Ok::<(), buttress_core::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct ToggleConfig {
    /// What it is called: by those who read it, and in log events. Default: `"toggle"`.
    pub name: Cow<'static, str>,
    /// Whether the first failure switches it off. Default: no.
    pub first_failure: bool,
    /// The share of failures among the calls of the [`window`](Self#structfield.window) that switches it off: more than 0, at most 1.
    /// `None` (the default): none does.
    pub failure_rate: Option<f64>,
    /// The time that the share is taken over: 1 s to 1 h. Default: 10 s.
    #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration"))]
    pub window: Duration,
    /// How many calls there must be for a share: at least 1. Below 20, a share of calls that take no time is less exact. Default: 20.
    pub min_calls: u32,
    /// How it comes back after it was switched off by itself. Default: a probe after 30 s, 3 good ones.
    pub back: Back,
    /// What the draws of a ramp follow from; `None` (the default): others every time.
    pub seed: Option<u64>,
    #[cfg_attr(feature = "serde", serde(skip))]
    pub(super) signal: Option<Signal>,
    #[cfg_attr(feature = "serde", serde(skip))]
    pub(super) level: Option<LevelGuard>,
}

/// How a toggle comes back on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Back {
    /// An operator [sets](Toggle::set) it.
    Manual,
    /// One call at a time passes, as a probe. For toggles with a layer, or whose code [`admit`](Toggle::admit)s: who only asks whether it is
    /// on never sees a probe.
    Probe {
        /// How long it is off first; a probe that takes as long has failed. 1 ms to 24 h.
        #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration"))]
        after: Duration,
        /// How many good ones switch it on: 1 to 63. A bad one switches it off again.
        successes: u32,
    },
    /// The share of calls that pass rises from nothing to all.
    Ramp {
        /// How long it is off first: 1 ms to 24 h.
        #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration"))]
        after: Duration,
        /// How long it rises: 1 ms to 24 h.
        #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration"))]
        over: Duration,
    },
}

impl Default for Back {
    fn default() -> Self {
        Self::Probe { after: Duration::from_secs(30), successes: 3 }
    }
}

impl Default for ToggleConfig {
    fn default() -> Self {
        Self {
            name: Cow::Borrowed("toggle"),
            first_failure: false,
            failure_rate: None,
            window: Duration::from_secs(10),
            min_calls: 20,
            back: Back::default(),
            seed: None,
            signal: None,
            level: None,
        }
    }
}

const DAY: Duration = Duration::from_secs(24 * 3600);

impl ToggleConfig {
    /// A toggle of this name that only an operator switches.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    buttress_core::setters! {
        /// Sets [`first_failure`](Self#structfield.first_failure).
        first_failure: bool => first_failure;
        /// Sets [`window`](Self#structfield.window).
        window: Duration => window;
        /// Sets [`min_calls`](Self#structfield.min_calls).
        min_calls: u32 => min_calls;
        /// Sets [`back`](Self#structfield.back).
        back: Back => back;
    }

    /// Sets [`name`](Self#structfield.name).
    #[must_use]
    pub fn name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets [`failure_rate`](Self#structfield.failure_rate).
    #[must_use]
    pub fn failure_rate(mut self, failure_rate: impl Into<Option<f64>>) -> Self {
        self.failure_rate = failure_rate.into();
        self
    }

    /// Sets [`seed`](Self#structfield.seed).
    #[must_use]
    pub fn seed(mut self, seed: impl Into<Option<u64>>) -> Self {
        self.seed = seed.into();
        self
    }

    /// Off while `signal` says that a circuit is open, or an endpoint ejected. When that is over its way back begins, without waiting first. While
    /// the signal is due calls pass, as the breaker waits for them.
    ///
    /// That way back needs calls: with the default [`Back::Probe`] a toggle that is only asked whether it [is on](Toggle::is_on) never comes back, as
    /// nothing is ever a probe. Give one that has no layer, and whose code does not [`admit`](Toggle::admit), a [`Back::Ramp`].
    #[must_use]
    pub fn signal(mut self, signal: Signal) -> Self {
        self.signal = Some(signal);
        self
    }

    /// Off from the level `name` of `levels` on, and on again as soon as the level is better: its hysteresis is the level's.
    ///
    /// # Errors
    ///
    /// A level that there is not: the error lists those there are.
    pub fn level(mut self, levels: &Levels, name: &str) -> Result<Self, ConfigError> {
        self.level = Some(levels.at_least(name)?);
        Ok(self)
    }

    /// The toggle, on.
    ///
    /// # Errors
    ///
    /// The first field that is out of its range.
    pub fn build(self) -> Result<Toggle, ConfigError> {
        self.build_at(&TokioClock)
    }

    /// The same, by another clock; its moments must not lie before this one.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build).
    pub fn build_at(self, clock: &impl Clock) -> Result<Toggle, ConfigError> {
        self.validate()?;
        Ok(Toggle::with(self, clock.now()))
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        if let Some(rate) = self.failure_rate
            && !(rate > 0.0 && rate <= 1.0)
        {
            return Err(ConfigError::new("failure_rate", rate, "more than 0 and at most 1"));
        }
        let within = |field, value: Duration, least, most, allowed: &'static str| match (least..=most).contains(&value)
        {
            true => Ok(()),
            false => Err(ConfigError::duration(field, value, allowed)),
        };
        within("window", self.window, Duration::from_secs(1), Duration::from_secs(3600), "1s to 1h")?;
        if self.min_calls == 0 {
            return Err(ConfigError::new("min_calls", 0, "at least 1"));
        }
        let span = |field, value| within(field, value, Duration::from_millis(1), DAY, "1ms to 24h");
        match self.back {
            Back::Manual => Ok(()),
            Back::Probe { after, successes } => {
                span("back.probe.after", after)?;
                match (1..=63).contains(&successes) {
                    true => Ok(()),
                    false => Err(ConfigError::new("back.probe.successes", successes, "1 to 63")),
                }
            }
            Back::Ramp { after, over } => {
                span("back.ramp.after", after)?;
                span("back.ramp.over", over)
            }
        }
    }
}
