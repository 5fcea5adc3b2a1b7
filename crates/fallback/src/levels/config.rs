use super::Levels;
use buttress_core::{Clock, ConfigError, TokioClock};
use std::{borrow::Cow, time::Duration};

/// What [`Levels`] there are, and when they hold.
///
/// ```
/// use buttress_fallback::LevelsConfig;
///
/// let levels = LevelsConfig::new("full")
///     .level("no recommendations", 0.7)
///     .level("read only", 0.85)
///     .level("static", 0.95)
///     .build()?;
/// assert_eq!(levels.current_name(), "full");
///
/// let error = LevelsConfig::new("full").level("read only", 0.8).level("static", 0.7).build().unwrap_err();
/// assert_eq!(error.to_string(), "`levels[2].at` is 0.7, allowed: more than 0.8 and at most 1");
/// # Ok::<(), buttress_core::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct LevelsConfig {
    /// What they are called in log events and metrics. Default: `"levels"`.
    pub name: Cow<'static, str>,
    /// The full service first, and then what is left of it, at least 2 and at most 64. Default: only the full service, which is too few.
    pub levels: Vec<LevelConfig>,
    /// How far the pressure must fall below what a level begins at before it is left: 0 to less than the lowest of these. Default: 0.1.
    pub hysteresis: f64,
    /// How long the pressure must hold before it gets one level worse: up to 1 h. Default: 1 s.
    #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration"))]
    pub worse_after: Duration,
    /// How long it must be lower before it gets one level better: up to 1 h. Default: 10 s.
    #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration"))]
    pub better_after: Duration,
    /// How often the sources of pressure are asked at most: 1 ms to 1 m. Default: 100 ms.
    #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration"))]
    pub every: Duration,
}

/// One level of [`LevelsConfig`].
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct LevelConfig {
    /// What it is called.
    pub name: Cow<'static, str>,
    /// The pressure from which on it holds: more than 0, at most 1, rising from level to level. The first level has none; a later one without
    /// is reached by an operator only, and so are those after it.
    #[cfg_attr(feature = "serde", serde(default))]
    pub at: Option<f64>,
}

impl LevelConfig {
    /// A level that holds from the pressure `at` on.
    pub fn new(name: impl Into<Cow<'static, str>>, at: impl Into<Option<f64>>) -> Self {
        Self { name: name.into(), at: at.into() }
    }
}

/// With one level, which is too few: for a config that is read.
impl Default for LevelsConfig {
    fn default() -> Self {
        Self::new("full")
    }
}

const HOUR: Duration = Duration::from_secs(3600);
const MOST: usize = 64;

impl LevelsConfig {
    /// The defaults, with the full service called `full`.
    pub fn new(full: impl Into<Cow<'static, str>>) -> Self {
        Self {
            name: Cow::Borrowed("levels"),
            levels: vec![LevelConfig::new(full, None)],
            hysteresis: 0.1,
            worse_after: Duration::from_secs(1),
            better_after: Duration::from_secs(10),
            every: Duration::from_millis(100),
        }
    }

    /// Adds a level that holds from the pressure `at` on; without one, an operator reaches it only.
    #[must_use]
    pub fn level(mut self, name: impl Into<Cow<'static, str>>, at: impl Into<Option<f64>>) -> Self {
        self.levels.push(LevelConfig::new(name, at));
        self
    }

    buttress_core::setters! {
        /// Sets [`hysteresis`](Self#structfield.hysteresis).
        hysteresis: f64 => hysteresis;
        /// Sets [`worse_after`](Self#structfield.worse_after).
        worse_after: Duration => worse_after;
        /// Sets [`better_after`](Self#structfield.better_after).
        better_after: Duration => better_after;
        /// Sets [`every`](Self#structfield.every).
        every: Duration => every;
    }

    /// Sets [`name`](Self#structfield.name).
    #[must_use]
    pub fn name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.name = name.into();
        self
    }

    /// The levels, with the full service.
    ///
    /// # Errors
    ///
    /// The first field that is out of its range.
    pub fn build(self) -> Result<Levels, ConfigError> {
        self.build_at(&TokioClock)
    }

    /// The same, by another clock; its moments must not lie before this one.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build).
    pub fn build_at(self, clock: &impl Clock) -> Result<Levels, ConfigError> {
        self.validate()?;
        Ok(Levels::with(self, clock.now()))
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        if !(2..=MOST).contains(&self.levels.len()) {
            return Err(ConfigError::new("levels", format!("{} levels", self.levels.len()), "2 to 64 levels"));
        }
        for (n, level) in self.levels.iter().enumerate() {
            if self.levels[..n].iter().any(|other| other.name == level.name) {
                return Err(ConfigError::new(format!("levels[{n}].name"), &level.name, "one level of this name"));
            }
            self.check_at(n, level)?;
        }
        let lowest = self.levels.iter().find_map(|level| level.at).unwrap_or(1.0);
        if !(0.0..lowest).contains(&self.hysteresis) {
            let allowed = format!("0 to less than {lowest}, where the first level begins");
            return Err(ConfigError::new("hysteresis", self.hysteresis, allowed));
        }
        for (field, value) in [("worse_after", self.worse_after), ("better_after", self.better_after)] {
            if value > HOUR {
                return Err(ConfigError::duration(field, value, "0s to 1h"));
            }
        }
        if !(Duration::from_millis(1)..=Duration::from_secs(60)).contains(&self.every) {
            return Err(ConfigError::duration("every", self.every, "1ms to 1m"));
        }
        Ok(())
    }

    fn check_at(&self, n: usize, level: &LevelConfig) -> Result<(), ConfigError> {
        let Some(at) = level.at else { return Ok(()) };
        let wrong = |allowed: String| Err(ConfigError::new(format!("levels[{n}].at"), at, allowed));
        match n.checked_sub(1).map(|before| (before, self.levels[before].at)) {
            None => wrong("nothing: the first level is the full service".to_owned()),
            Some((0, _)) if at > 0.0 && at <= 1.0 => Ok(()),
            Some((0, _)) => wrong("more than 0 and at most 1".to_owned()),
            Some((_, Some(before))) if at > before && at <= 1.0 => Ok(()),
            Some((_, Some(before))) => wrong(format!("more than {before} and at most 1")),
            Some((_, None)) => wrong("nothing: the level before is reached by an operator only".to_owned()),
        }
    }
}
