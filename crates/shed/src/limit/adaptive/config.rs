use buttress_core::ConfigError;
use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

/// What an [`Adaptive`](super::Adaptive) limit is made from. The defaults are for everybody: there is no number to tune.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct AdaptiveConfig {
    /// The limit before anything is known: `min` to `max`. Default `None`: 20, or what is nearest to it of these. Started under
    /// overload it takes some seconds to settle: see [`Adaptive`](super::Adaptive#start).
    pub initial: Option<u32>,
    /// It is never lower: 1 or more. Default: 1.
    pub min: u32,
    /// It is never higher: `min` to 1 000 000. Default: 10 000.
    pub max: u32,
    /// The time of day, by which instances in front of one service probe at the same time. Default: the system's.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub wall_clock: WallClock,
}

impl Default for AdaptiveConfig {
    fn default() -> Self {
        Self { initial: None, min: 1, max: 10_000, wall_clock: WallClock::default() }
    }
}

impl AdaptiveConfig {
    buttress_core::setters! {
        /// Sets [`initial`](Self#structfield.initial).
        initial: u32 => Some(initial);
        /// Sets [`min`](Self#structfield.min).
        min: u32 => min;
        /// Sets [`max`](Self#structfield.max).
        max: u32 => max;
        /// Sets [`wall_clock`](Self#structfield.wall_clock).
        wall_clock: WallClock => wall_clock;
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        if self.min == 0 {
            return Err(ConfigError::new("min", self.min, "1 or more"));
        }
        if !(self.min..=1_000_000).contains(&self.max) {
            return Err(ConfigError::new("max", self.max, format!("{} (`min`) to 1000000", self.min)));
        }
        match self.initial {
            Some(initial) if initial < self.min => {
                Err(ConfigError::new("initial", initial, format!("{} (`min`) or more", self.min)))
            }
            Some(initial) if initial > self.max => {
                Err(ConfigError::new("initial", initial, format!("{} (`max`) or less", self.max)))
            }
            _ => Ok(()),
        }
    }

    /// The limit before anything is known, of a config that was validated.
    pub fn start(&self) -> u32 {
        self.initial.unwrap_or(20).clamp(self.min, self.max)
    }
}

/// Where the time of day comes from, as a duration since the Unix epoch. A clock that is wrong, stands still or jumps only makes
/// probes come at another moment.
#[derive(Clone)]
pub struct WallClock(Arc<dyn Fn() -> Duration + Send + Sync>);

impl WallClock {
    /// A clock of one's own.
    pub fn new(clock: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self(Arc::new(clock))
    }

    pub(super) fn now(&self) -> Duration {
        (self.0)()
    }
}

/// The system's.
impl Default for WallClock {
    fn default() -> Self {
        Self::new(|| SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
    }
}

impl fmt::Debug for WallClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WallClock")
    }
}

/// Which clock it is does not make two configs differ.
impl PartialEq for WallClock {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
