use crate::limit::{Adaptive, AdaptiveConfig, Fixed, Limit};
use buttress_core::{ConfigError, permits::MAX_LIMIT};

/// How a limit is found.
///
/// In a config file it is the word `"adaptive"`, a number of calls, or a table: `{ adaptive = { max = 500 } }`, `{ fixed = 64 }`.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Algorithm {
    /// It is found out, and followed as it changes.
    Adaptive(AdaptiveConfig),
    /// It is known: 1 to 2 147 483 647.
    Fixed(u32),
}

impl Default for Algorithm {
    fn default() -> Self {
        Self::Adaptive(AdaptiveConfig::default())
    }
}

impl Algorithm {
    pub(crate) fn make(&self) -> Box<dyn Limit> {
        match self {
            Self::Adaptive(config) => Box::new(Adaptive::with(config.clone())),
            Self::Fixed(limit) => Box::new(Fixed(*limit)),
        }
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        match self {
            Self::Adaptive(config) => config.validate().map_err(|error| error.within("limit.adaptive")),
            Self::Fixed(limit) if !(1..=MAX_LIMIT).contains(limit) => {
                Err(ConfigError::new("limit.fixed", limit, "1 to 2147483647"))
            }
            Self::Fixed(_) => Ok(()),
        }
    }
}

/// By hand: an untagged enum would hide what is wrong inside of a table.
#[cfg(feature = "serde")]
mod read {
    use super::{AdaptiveConfig, Algorithm};
    use serde::de::{Deserialize, Deserializer, Error, MapAccess, Unexpected, Visitor};
    use std::fmt;

    impl<'de> Deserialize<'de> for Algorithm {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_any(Reader)
        }
    }

    /// Read as a field is, so that a format that knows where its keys stand can say where an unknown one does.
    #[derive(serde::Deserialize)]
    #[serde(field_identifier, rename_all = "snake_case")]
    enum Key {
        Adaptive,
        Fixed,
    }

    struct Reader;

    impl<'de> Visitor<'de> for Reader {
        type Value = Algorithm;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("\"adaptive\", a number of calls, or one of the tables `adaptive` and `fixed`")
        }

        fn visit_str<E: Error>(self, word: &str) -> Result<Algorithm, E> {
            match word {
                "adaptive" => Ok(Algorithm::default()),
                _ => Err(E::invalid_value(Unexpected::Str(word), &self)),
            }
        }

        fn visit_u64<E: Error>(self, limit: u64) -> Result<Algorithm, E> {
            let fixed = u32::try_from(limit).map(Algorithm::Fixed);
            fixed.map_err(|_| E::invalid_value(Unexpected::Unsigned(limit), &"1 to 2147483647 calls"))
        }

        fn visit_i64<E: Error>(self, limit: i64) -> Result<Algorithm, E> {
            let fixed = u32::try_from(limit).map(Algorithm::Fixed);
            fixed.map_err(|_| E::invalid_value(Unexpected::Signed(limit), &"1 to 2147483647 calls"))
        }

        fn visit_map<A: MapAccess<'de>>(self, mut table: A) -> Result<Algorithm, A::Error> {
            let algorithm = match table.next_key()? {
                Some(Key::Adaptive) => Algorithm::Adaptive(table.next_value::<AdaptiveConfig>()?),
                Some(Key::Fixed) => Algorithm::Fixed(table.next_value()?),
                None => return Err(A::Error::custom("an empty table, allowed: one of `adaptive` and `fixed`")),
            };
            match table.next_key::<Key>()? {
                None => Ok(algorithm),
                Some(_) => Err(A::Error::custom("`adaptive` and `fixed` in one, allowed: one of them, not both")),
            }
        }
    }
}
