use super::{Fallback, FallbackLayer};
use crate::{Trigger, Triggers};
use buttress_core::ConfigError;
use std::borrow::Cow;

/// What a [`FallbackLayer`] answers in place of.
///
/// ```
/// use buttress_fallback::{FallbackConfig, FallbackLayer, Trigger, backup};
///
/// let config = FallbackConfig::default().name("recommendations").on([Trigger::Refused, Trigger::Failure]);
/// let layer = FallbackLayer::new(config, backup::value("nothing today"));
/// # let _: FallbackLayer<_> = layer;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct FallbackConfig {
    /// Which results it answers in place of: `["refused", "failure", "overload"]`. Default: all three. None at all: what a
    /// [predicate](super::AnswerLayer::when) or an operator says.
    pub on: Triggers,
    /// The name in log events, whatever a builder or a registry calls the layer. Default: `"fallback"`.
    pub name: Cow<'static, str>,
}

impl Default for FallbackConfig {
    fn default() -> Self {
        Self { on: Triggers::ALL, name: Cow::Borrowed("fallback") }
    }
}

impl FallbackConfig {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`on`](Self#structfield.on).
    #[must_use]
    pub fn on(mut self, on: impl IntoIterator<Item = Trigger>) -> Self {
        self.on = on.into_iter().collect();
        self
    }

    /// Sets [`name`](Self#structfield.name).
    #[must_use]
    pub fn name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.name = name.into();
        self
    }

    /// The policy.
    ///
    /// # Errors
    ///
    /// None yet: there is no wrong config.
    pub fn build(self) -> Result<Fallback, ConfigError> {
        Ok(Fallback::from(self))
    }

    /// The layer, with what is answered.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build).
    pub fn layer<B: Clone>(self, backup: B) -> Result<FallbackLayer<B>, ConfigError> {
        self.build().map(|fallback| FallbackLayer::new(fallback, backup))
    }
}
