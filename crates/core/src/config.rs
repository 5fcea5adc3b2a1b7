//! Validation errors, and durations as people write them.

use std::{borrow::Cow, error::Error as StdError, fmt, time::Duration};

/// A value that a config cannot have: which field, what it was, what is allowed.
///
/// ```
/// use buttress_core::ConfigError;
///
/// let error = ConfigError::new("failure_rate", 1.5, "more than 0 and at most 1").within("breaker");
/// assert_eq!(error.to_string(), "`breaker.failure_rate` is 1.5, allowed: more than 0 and at most 1");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfigError {
    /// The path of the field: `"breaker.failure_rate"`.
    pub field: Cow<'static, str>,
    /// The value it had.
    pub value: String,
    /// The values it may have.
    pub allowed: Cow<'static, str>,
}

impl ConfigError {
    /// `field` is `value`, which is not among `allowed`.
    pub fn new(
        field: impl Into<Cow<'static, str>>,
        value: impl fmt::Display,
        allowed: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { field: field.into(), value: value.to_string(), allowed: allowed.into() }
    }

    /// The same for a [`Duration`], shown as it is written in a config.
    pub fn duration(
        field: impl Into<Cow<'static, str>>,
        value: Duration,
        allowed: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::new(field, format_duration(value), allowed)
    }

    /// The same error, seen from the table `parent` that holds the field.
    pub fn within(mut self, parent: impl fmt::Display) -> Self {
        self.field = Cow::Owned(format!("{parent}.{}", self.field));
        self
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is {}, allowed: {}", self.field, self.value, self.allowed)
    }
}

impl StdError for ConfigError {}

/// The setters of a config that is its own builder: a name, the type that its method takes, and what becomes the field's value.
///
/// ```
/// # use std::time::Duration;
/// #[derive(Default)]
/// pub struct FooConfig {
///     pub limit: Option<u32>,
///     pub after: Duration,
/// }
///
/// impl FooConfig {
///     buttress_core::setters! {
///         /// Sets [`limit`](Self#structfield.limit).
///         limit: u32 => Some(limit);
///         /// Sets [`after`](Self#structfield.after).
///         after: Duration => after;
///     }
/// }
/// assert_eq!(FooConfig::default().limit(5).limit, Some(5));
/// ```
#[macro_export]
macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $type:ty => $value:expr;)*) => {$(
        $(#[$doc])*
        #[must_use]
        pub fn $name(mut self, $name: $type) -> Self {
            self.$name = $value;
            self
        }
    )*};
}

const UNITS: [(&str, u64); 6] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Reads a duration: a number, a unit (`ns`, `us`, `ms`, `s`, `m`, `h`), fractions allowed: `"250ms"`, `"1.5s"`.
///
/// # Errors
///
/// A text that says what was read and what is allowed.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong =
        || format!("`{text}` is not a duration, allowed: a number and a unit (ns, us, ms, s, m, h), as in \"250ms\"");
    let trimmed = text.trim();
    let split = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
    let (number, unit) = trimmed.split_at(split);
    let (_, nanos) = UNITS.into_iter().find(|(name, _)| *name == unit.trim_start()).ok_or_else(wrong)?;
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(nanos).map(Duration::from_nanos).ok_or_else(wrong);
    }
    let number: f64 = number.parse().map_err(|_| wrong())?;
    Duration::try_from_secs_f64(number * nanos as f64 / 1e9).map_err(|_| wrong())
}

/// Writes a duration so that [`parse_duration`] reads the same: in the largest unit that needs no fraction.
pub fn format_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    let (unit, size) =
        UNITS.into_iter().rev().find(|(_, size)| nanos.is_multiple_of(u128::from(*size))).unwrap_or(UNITS[0]);
    format!("{}{unit}", nanos / u128::from(size))
}

/// `#[serde(with = "buttress_core::config::duration")]`: a [`Duration`] as `"250ms"`.
#[cfg(feature = "serde")]
pub mod duration {
    use super::{Duration, format_duration, parse_duration};
    use serde::{
        Deserializer, Serializer,
        de::{Error, Visitor},
    };
    use std::fmt;

    /// Writes it.
    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format_duration(*duration))
    }

    /// Reads it.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        deserializer.deserialize_str(Text)
    }

    struct Text;

    impl Visitor<'_> for Text {
        type Value = Duration;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a duration: a number and a unit (ns, us, ms, s, m, h), as in \"250ms\"")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
            parse_duration(text).map_err(E::custom)
        }

        fn visit_u64<E: Error>(self, number: u64) -> Result<Duration, E> {
            Err(no_unit(number))
        }

        fn visit_i64<E: Error>(self, number: i64) -> Result<Duration, E> {
            Err(no_unit(number))
        }

        fn visit_f64<E: Error>(self, number: f64) -> Result<Duration, E> {
            Err(no_unit(number))
        }
    }

    /// The most common slip deserves the right text, with the number that was written.
    fn no_unit<E: Error>(number: impl fmt::Display) -> E {
        let number = number.to_string();
        let positive = number.trim_start_matches('-');
        E::custom(format_args!(
            "{number} is not a duration, allowed: a number and a unit, as in \"{positive}ms\" or \"{positive}s\""
        ))
    }
}

/// `#[serde(with = "buttress_core::config::duration_opt", default)]`: the same for an `Option`.
#[cfg(feature = "serde")]
pub mod duration_opt {
    use super::{Duration, duration};
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes it.
    pub fn serialize<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => duration::serialize(duration, serializer),
            None => serializer.serialize_none(),
        }
    }

    /// Reads it.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        #[derive(Deserialize)]
        struct Text(#[serde(with = "duration")] Duration);
        Ok(Option::<Text>::deserialize(deserializer)?.map(|Text(duration)| duration))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, want) in [
            ("250ms", Duration::from_millis(250)),
            (" 1.5s ", Duration::from_millis(1500)),
            ("2m", Duration::from_secs(120)),
            ("1 h", Duration::from_secs(3600)),
            ("0s", Duration::ZERO),
            ("10us", Duration::from_micros(10)),
        ] {
            assert_eq!(parse_duration(text), Ok(want), "{text}");
            assert_eq!(parse_duration(&format_duration(want)), Ok(want));
        }
        for text in ["", "5", "ms", "-1s", "1.2.3s", "5 days", "1e9h", "99999999999999999999s", "∞s"] {
            let error = parse_duration(text).unwrap_err();
            assert!(error.contains(&format!("`{text}`")) && error.contains("250ms"), "{error}");
        }
    }

    #[cfg(feature = "serde")]
    #[test]
    fn a_number_without_a_unit_is_told_what_it_lacks() {
        use serde::de::value::{Error, F64Deserializer, I64Deserializer, StrDeserializer, U64Deserializer};
        let said = |read: Result<Duration, Error>| read.unwrap_err().to_string();
        let wanted = "5 is not a duration, allowed: a number and a unit, as in \"5ms\" or \"5s\"";
        assert_eq!(said(duration::deserialize(U64Deserializer::new(5))), wanted);
        assert_eq!(said(duration::deserialize(I64Deserializer::new(5))), wanted);
        assert!(said(duration::deserialize(F64Deserializer::new(1.5))).ends_with("as in \"1.5ms\" or \"1.5s\""));
        let read: Result<Duration, Error> = duration::deserialize(StrDeserializer::new("5s"));
        assert_eq!(read, Ok(Duration::from_secs(5)));
    }
}
