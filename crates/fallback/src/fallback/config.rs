use super::{Fallback, FallbackLayer};
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

/// A kind of result that a fallback answers in place of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Trigger {
    /// A layer further in refused the call.
    Refused,
    /// It failed.
    Failure,
    /// What was called said "too much".
    Overload,
}

impl Trigger {
    /// Every kind, in the order of their discriminants.
    pub const ALL: [Self; 3] = [Self::Refused, Self::Failure, Self::Overload];
}

/// A set of [`Trigger`]s; in a config the list of their names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(into = "Vec<Trigger>", from = "Vec<Trigger>"))]
pub struct Triggers(u8);

impl Triggers {
    /// Every trigger.
    pub const ALL: Self = Self(0b111);
    /// None.
    pub const NONE: Self = Self(0);

    /// Whether `trigger` is one of them.
    pub const fn has(self, trigger: Trigger) -> bool {
        self.0 & 1 << trigger as u8 != 0
    }

    pub(super) const fn bits(self) -> u8 {
        self.0
    }

    pub(super) const fn of_bits(bits: u8) -> Self {
        Self(bits & Self::ALL.0)
    }
}

impl FromIterator<Trigger> for Triggers {
    fn from_iter<I: IntoIterator<Item = Trigger>>(triggers: I) -> Self {
        Self(triggers.into_iter().fold(0, |bits, trigger| bits | 1 << trigger as u8))
    }
}

impl From<Triggers> for Vec<Trigger> {
    fn from(triggers: Triggers) -> Self {
        Trigger::ALL.into_iter().filter(|trigger| triggers.has(*trigger)).collect()
    }
}

impl From<Vec<Trigger>> for Triggers {
    fn from(triggers: Vec<Trigger>) -> Self {
        triggers.into_iter().collect()
    }
}
