use crate::{Chaos, ChaosLayer, Fault};
use buttress_core::ConfigError;
use std::borrow::Cow;

/// What a [`Chaos`] is made from.
///
/// ```
/// use buttress_chaos::{ChaosConfig, Fault};
///
/// let chaos = ChaosConfig::default().seed(7).build()?; // injects nothing until it is told to
/// chaos.inject([Fault::status(503).percent(20.0)])?;
///
/// let error = ChaosConfig::default().fault(Fault::status(200)).build().unwrap_err();
/// assert_eq!(error.to_string(), "`faults[0].status` is 200, allowed: 400 to 599");
/// # Ok::<(), buttress_core::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct ChaosConfig {
    /// What is injected from the beginning, at most 32 faults. Default: nothing.
    pub faults: Vec<Fault>,
    /// The seed of the draws. With the same seed and the same faults, the same calls suffer the same, in the order in which they
    /// come, counted from each injection. `None` (the default): a random one.
    pub seed: Option<u64>,
    /// The name in log events, whatever a builder or a registry calls the layer. Default: `"chaos"`.
    pub name: Cow<'static, str>,
}

impl Default for ChaosConfig {
    fn default() -> Self {
        Self { faults: Vec::new(), seed: None, name: Cow::Borrowed("chaos") }
    }
}

impl ChaosConfig {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one to the [`faults`](Self#structfield.faults).
    pub fn fault(mut self, fault: Fault) -> Self {
        self.faults.push(fault);
        self
    }

    buttress_core::setters! {
        /// Sets [`faults`](Self#structfield.faults).
        faults: impl IntoIterator<Item = Fault> => faults.into_iter().collect();
        /// Sets [`seed`](Self#structfield.seed).
        seed: impl Into<Option<u64>> => seed.into();
        /// Sets [`name`](Self#structfield.name).
        name: impl Into<Cow<'static, str>> => name.into();
    }

    /// The policy.
    ///
    /// # Errors
    ///
    /// The first field that is out of its range.
    pub fn build(self) -> Result<Chaos, ConfigError> {
        Chaos::new(self)
    }

    /// The layer, for any request. Faults that need HTTP are for one that [speaks](ChaosLayer::protocol) it.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build).
    pub fn layer(self) -> Result<ChaosLayer, ConfigError> {
        self.build().map(ChaosLayer::new)
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        validate(&self.faults)
    }
}

pub(crate) fn validate(faults: &[Fault]) -> Result<(), ConfigError> {
    if faults.len() > 32 {
        return Err(ConfigError::new("faults", format!("{} faults", faults.len()), "at most 32"));
    }
    faults
        .iter()
        .enumerate()
        .try_for_each(|(n, fault)| fault.validate().map_err(|error| error.within(format_args!("faults[{n}]"))))
}
