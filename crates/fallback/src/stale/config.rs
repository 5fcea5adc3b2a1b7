use super::Stale;
use buttress_core::{Budget, ConfigError};
use std::{borrow::Cow, sync::Arc, time::Duration};

/// What a [`StaleLayer`](crate::StaleLayer) keeps, and when it gives it.
///
/// ```
/// use buttress_fallback::{StaleConfig, StaleLayer};
/// use std::time::Duration;
///
/// let stale = StaleConfig::default().max(Duration::from_secs(3600)).build()?;
/// let layer = StaleLayer::new(stale);
///
/// let error = StaleConfig::default().cache_name("my cache").build().unwrap_err();
/// assert_eq!(error.to_string(), "`cache_name` is my cache, allowed: letters, digits and !#$%&'*+-.^_`|~:/, a letter or * first");
/// # Ok::<_, buttress_core::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct StaleConfig {
    /// The most bytes that are kept, keys and headers included: 64 KiB to 64 GiB. Default: 64 MiB. Fixed when the layer is made.
    pub max_bytes: u64,
    /// The most bytes of one body that are kept: 0 to 64 MiB, and no more than half of `max_bytes`. Of a larger one nothing is copied
    /// where it says its length; else its copy is dropped as soon as it is too large. Default: 1 MiB.
    pub max_body: usize,
    /// How long an answer may be given after it became stale where it does not say itself (`stale-if-error`): 0 s to 8760 h. One that never
    /// says how long it is fresh is stale at once. `None` (the default): only what says that it may.
    #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration_opt"))]
    pub max: Option<Duration>,
    /// Whether fresh answers are given without asking, and stale ones within their `stale-while-revalidate` while they are asked
    /// for in the background. Default: no; every request goes on, and what is stored is for failures only.
    pub cache: bool,
    /// How the store calls itself in `Cache-Status` ([RFC 9211](https://www.rfc-editor.org/rfc/rfc9211)): a token. Default:
    /// `"buttress"`. Fixed when the layer is made.
    pub cache_name: Cow<'static, str>,
    /// The name in log events, whatever a builder or a registry calls the layer. Default: `"stale"`.
    pub name: Cow<'static, str>,
}

impl Default for StaleConfig {
    fn default() -> Self {
        Self {
            max_bytes: 64 * MIB,
            max_body: MIB as usize,
            max: None,
            cache: false,
            cache_name: Cow::Borrowed("buttress"),
            name: Cow::Borrowed("stale"),
        }
    }
}

const MIB: u64 = 1024 * 1024;
const MOST_BODY: usize = 64 * MIB as usize;
const YEAR: Duration = Duration::from_secs(8760 * 3600);

impl StaleConfig {
    buttress_core::setters! {
        /// Sets [`max_bytes`](Self#structfield.max_bytes).
        max_bytes: u64 => max_bytes;
        /// Sets [`max_body`](Self#structfield.max_body).
        max_body: usize => max_body;
        /// Sets [`max`](Self#structfield.max).
        max: impl Into<Option<Duration>> => max.into();
        /// Sets [`cache`](Self#structfield.cache).
        cache: bool => cache;
        /// Sets [`cache_name`](Self#structfield.cache_name).
        cache_name: impl Into<Cow<'static, str>> => cache_name.into();
        /// Sets [`name`](Self#structfield.name).
        name: impl Into<Cow<'static, str>> => name.into();
    }

    /// The policy. A budget of its own pays for what is asked in the background, a tenth of the requests.
    ///
    /// # Errors
    ///
    /// The first field that is out of its range.
    pub fn build(self) -> Result<Stale, ConfigError> {
        self.validate()?;
        Ok(Stale::with(self, None))
    }

    /// The policy; what is asked in the background is paid from a budget that others share: a retry's. What goes on is deposited for by
    /// them, what is answered from the store by the store.
    ///
    /// # Errors
    ///
    /// The first field that is out of its range.
    pub fn build_sharing(self, budget: Arc<Budget>) -> Result<Stale, ConfigError> {
        self.validate()?;
        Ok(Stale::with(self, Some(budget)))
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        if !(64 * 1024..=64 * 1024 * MIB).contains(&self.max_bytes) {
            return Err(ConfigError::new("max_bytes", self.max_bytes, "65536 to 68719476736 bytes"));
        }
        if self.max_body > MOST_BODY || self.max_body as u64 > self.max_bytes / 2 {
            let allowed = "0 to 67108864 bytes, and no more than half of `max_bytes`";
            return Err(ConfigError::new("max_body", self.max_body, allowed));
        }
        if let Some(max) = self.max.filter(|max| *max > YEAR) {
            return Err(ConfigError::duration("max", max, "0s to 8760h, or nothing"));
        }
        if !is_token(&self.cache_name) {
            let allowed = "letters, digits and !#$%&'*+-.^_`|~:/, a letter or * first";
            return Err(ConfigError::new("cache_name", &self.cache_name, allowed));
        }
        Ok(())
    }
}

/// A token of a structured field (RFC 9651, 3.3.4).
fn is_token(text: &str) -> bool {
    let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'*');
    first && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte))
}
