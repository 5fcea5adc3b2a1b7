//! What the configs of the published algorithms have in common.

use buttress_core::ConfigError;
use std::time::Duration;

/// The greatest limit any algorithm may find.
pub(super) const MOST: u32 = 10_000;

/// `1 <= min <= initial <= max <= 10 000`.
pub(super) fn limits(initial: u32, min: u32, max: u32) -> Result<(), ConfigError> {
    if !(1..=MOST).contains(&min) {
        return Err(ConfigError::new("min", min, "1 to 10000"));
    }
    if !(min..=MOST).contains(&max) {
        return Err(ConfigError::new("max", max, format!("`min`, {min}, to 10000")));
    }
    if !(min..=max).contains(&initial) {
        return Err(ConfigError::new("initial", initial, format!("`min` to `max`, {min} to {max}")));
    }
    Ok(())
}

/// A number from `low` to `high`, both included.
pub(super) fn number(field: &'static str, value: f64, low: f64, high: f64) -> Result<(), ConfigError> {
    let is_allowed = value >= low && value <= high;
    if is_allowed { Ok(()) } else { Err(ConfigError::new(field, value, format!("{low} to {high}"))) }
}

/// At least one.
pub(super) fn positive(field: &'static str, value: u32) -> Result<(), ConfigError> {
    if value > 0 { Ok(()) } else { Err(ConfigError::new(field, value, "at least 1")) }
}

/// A time from 1 ms to 1 h.
pub(super) fn span(field: &'static str, value: Duration) -> Result<(), ConfigError> {
    let is_allowed = value >= Duration::from_millis(1) && value <= Duration::from_secs(3600);
    if is_allowed { Ok(()) } else { Err(ConfigError::duration(field, value, "1ms to 1h")) }
}
