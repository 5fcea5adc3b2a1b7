use buttress_core::{
    ConfigError,
    sync::{AtomicBool, Ordering::Relaxed},
};

/// A number from 0 to 1 that rises with the pressure between two bounds: 0 up to `from`, 1 from `to` on.
///
/// ```
/// use buttress_shed::pressure::Scaled;
///
/// let share = Scaled::new(0.8, 1.0)?;
/// assert_eq!((share.of(0.5), share.of(0.9), share.of(1.0)), (0.0, 0.5, 1.0));
/// # Ok::<(), buttress_core::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct Scaled {
    /// The highest pressure that still makes 0: at least 0, less than [`to`](Self::to).
    pub from: f64,
    /// The lowest pressure that makes 1: at most 1.
    pub to: f64,
}

impl Scaled {
    /// Between `from` and `to`.
    ///
    /// # Errors
    ///
    /// Bounds that are no numbers, outside of 0 to 1, or not in their order.
    pub fn new(from: f64, to: f64) -> Result<Self, ConfigError> {
        let scaled = Self { from, to };
        scaled.validate().map(|()| scaled)
    }

    /// Bounds that are known to be right.
    pub(super) const fn between(from: f64, to: f64) -> Self {
        Self { from, to }
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        if !(self.from >= 0.0 && self.from < 1.0) {
            return Err(ConfigError::new("from", self.from, "0 to less than 1"));
        }
        if !(self.to > self.from && self.to <= 1.0) {
            return Err(ConfigError::new(
                "to",
                self.to,
                format!("more than `from`, which is {}, and at most 1", self.from),
            ));
        }
        Ok(())
    }

    /// What the pressure makes. What is no number makes 0.
    pub fn of(&self, pressure: f64) -> f64 {
        if pressure.is_nan() { 0.0 } else { ((pressure - self.from) / (self.to - self.from)).clamp(0.0, 1.0) }
    }
}

/// Whether the pressure is too much: yes from `at` on, no again when it is lower by the hysteresis at least, so that it does not flutter.
///
/// ```
/// use buttress_shed::pressure::Threshold;
///
/// let too_much = Threshold::new(0.9, 0.1)?;
/// assert_eq!([0.85, 0.9, 0.85, 0.79].map(|pressure| too_much.is_reached(pressure)), [false, true, true, false]);
/// # Ok::<(), buttress_core::ConfigError>(())
/// ```
#[derive(Debug)]
pub struct Threshold {
    at: f64,
    hysteresis: f64,
    is_reached: AtomicBool,
}

impl Threshold {
    /// From `at` on: more than 0, at most 1. The hysteresis: 0 to less than `at`.
    ///
    /// # Errors
    ///
    /// The first of them that is out of its range.
    pub fn new(at: f64, hysteresis: f64) -> Result<Self, ConfigError> {
        if !(at > 0.0 && at <= 1.0) {
            return Err(ConfigError::new("at", at, "more than 0 and at most 1"));
        }
        if !(0.0..at).contains(&hysteresis) {
            return Err(ConfigError::new("hysteresis", hysteresis, format!("0 to less than {at}, where it begins")));
        }
        Ok(Self { at, hysteresis, is_reached: AtomicBool::new(false) })
    }

    /// Whether it is reached, now that the pressure is this. What is no number changes nothing.
    pub fn is_reached(&self, pressure: f64) -> bool {
        let was = self.is_reached.load(Relaxed);
        let is = pressure >= if was { self.at - self.hysteresis } else { self.at };
        let is = if pressure.is_nan() { was } else { is };
        if is != was {
            self.is_reached.store(is, Relaxed);
        }
        is
    }
}
