use super::Coalesce;
use buttress_core::ConfigError;
use std::{borrow::Cow, time::Duration};

/// What a [`CoalesceLayer`](crate::CoalesceLayer) shares of HTTP answers.
///
/// ```
/// use buttress_fallback::CoalesceConfig;
///
/// let coalesce = CoalesceConfig::default().max_body(64 * 1024).build()?;
/// # let _ = coalesce;
/// let error = CoalesceConfig::default().max_body(1 << 30).build().unwrap_err();
/// assert_eq!(error.to_string(), "`max_body` is 1073741824, allowed: 0 to 67108864 bytes");
/// # Ok::<_, buttress_core::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct CoalesceConfig {
    /// The most bytes of a response body that are collected to be shared: 0 to 64 MiB. Of a larger one the leader gets its stream, and
    /// each of the others makes a call of its own. Default: 256 KiB.
    pub max_body: usize,
    /// How long a body may take to be collected: up to 1 h. One that takes longer counts as one that is too large; so a stream
    /// holds nobody up for more than that. Default: 1 s.
    #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration"))]
    pub collect_within: Duration,
    /// The name in log events, whatever a builder or a registry calls the layer. Default: `"coalesce"`.
    pub name: Cow<'static, str>,
}

impl Default for CoalesceConfig {
    fn default() -> Self {
        Self { max_body: 256 * 1024, collect_within: Duration::from_secs(1), name: Cow::Borrowed("coalesce") }
    }
}

const MOST_BODY: usize = 64 * 1024 * 1024;
const HOUR: Duration = Duration::from_secs(3600);

impl CoalesceConfig {
    buttress_core::setters! {
        /// Sets [`max_body`](Self#structfield.max_body).
        max_body: usize => max_body;
        /// Sets [`collect_within`](Self#structfield.collect_within).
        collect_within: Duration => collect_within;
        /// Sets [`name`](Self#structfield.name).
        name: impl Into<Cow<'static, str>> => name.into();
    }

    /// The policy.
    ///
    /// # Errors
    ///
    /// The first field that is out of its range.
    pub fn build(self) -> Result<Coalesce, ConfigError> {
        self.validate()?;
        Ok(Coalesce::with(self))
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        if self.max_body > MOST_BODY {
            return Err(ConfigError::new("max_body", self.max_body, "0 to 67108864 bytes"));
        }
        if self.collect_within > HOUR {
            return Err(ConfigError::duration("collect_within", self.collect_within, "0s to 1h"));
        }
        Ok(())
    }
}
