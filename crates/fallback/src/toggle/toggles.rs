use super::{Toggle, ToggleConfig, ToggleLayer};
use buttress_core::ConfigError;
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

/// The toggles of a program, by name. Clones share them.
///
/// Made at the start, it finds at the start what is wrong: names that nobody knows, and toggles that nobody heeds.
///
/// ```
/// use buttress_fallback::{ToggleConfig, Toggles, backup};
///
/// let toggles = Toggles::builder()
///     .add(ToggleConfig::new("recommendations").first_failure(true))
///     .add(ToggleConfig::new("reviews"))
///     .build()?;
/// let layer = toggles.layer("recommendations", backup::value("none today"))?;
/// # let _ = layer;
///
/// let error = toggles.reader("recomendations").unwrap_err();
/// assert_eq!(error.to_string(), "`toggle` is recomendations, allowed: recommendations, reviews");
///
/// let error = toggles.check_read().unwrap_err();
/// assert_eq!(error.to_string(), "`toggles` is reviews, allowed: toggles that a layer or a reader heeds: nobody reads this one");
/// # Ok::<(), buttress_core::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct Toggles(Arc<[Entry]>);

struct Entry {
    toggle: Toggle,
    is_read: AtomicBool,
}

/// Makes [`Toggles`].
#[derive(Clone, Debug, Default)]
pub struct TogglesBuilder(Vec<ToggleConfig>);

impl TogglesBuilder {
    /// Adds a toggle.
    #[must_use]
    #[expect(clippy::should_implement_trait, reason = "a builder takes one after the other")]
    pub fn add(mut self, toggle: ToggleConfig) -> Self {
        self.0.push(toggle);
        self
    }

    /// The toggles, all on.
    ///
    /// # Errors
    ///
    /// A name that two have, or the first field of one that is out of its range.
    pub fn build(self) -> Result<Toggles, ConfigError> {
        for (n, config) in self.0.iter().enumerate() {
            if self.0[..n].iter().any(|other| other.name == config.name) {
                return Err(ConfigError::new("toggles", &config.name, "one toggle of this name"));
            }
        }
        let entry = |config: ToggleConfig| {
            let name = config.name.clone();
            let toggle = config.build().map_err(|error| error.within(format_args!("toggles.{name}")))?;
            Ok(Entry { toggle, is_read: AtomicBool::new(false) })
        };
        self.0.into_iter().map(entry).collect::<Result<_, _>>().map(Toggles)
    }
}

impl Toggles {
    /// Makes them.
    pub fn builder() -> TogglesBuilder {
        TogglesBuilder::default()
    }

    /// A layer that heeds the toggle of this name.
    ///
    /// # Errors
    ///
    /// A name that there is not: the error lists those there are.
    pub fn layer<B>(&self, name: &str, backup: B) -> Result<ToggleLayer<B>, ConfigError> {
        self.reader(name).map(|toggle| ToggleLayer::new(toggle, backup))
    }

    /// The toggle of this name, for code that heeds it.
    ///
    /// # Errors
    ///
    /// As [`layer`](Self::layer).
    pub fn reader(&self, name: &str) -> Result<Toggle, ConfigError> {
        let entry = self.entry(name)?;
        entry.is_read.store(true, Relaxed);
        Ok(entry.toggle.clone())
    }

    /// The toggle of this name, for an operator: nobody heeds it by that.
    ///
    /// # Errors
    ///
    /// As [`layer`](Self::layer).
    pub fn get(&self, name: &str) -> Result<&Toggle, ConfigError> {
        self.entry(name).map(|entry| &entry.toggle)
    }

    fn entry(&self, name: &str) -> Result<&Entry, ConfigError> {
        self.0.iter().find(|entry| entry.toggle.name() == name).ok_or_else(|| {
            let names: Vec<_> = self.0.iter().map(|entry| entry.toggle.name()).collect();
            let allowed = if names.is_empty() { "nothing: there are no toggles".to_owned() } else { names.join(", ") };
            ConfigError::new("toggle", name, allowed)
        })
    }

    /// Whether somebody heeds each of them: call it when everything is built.
    ///
    /// # Errors
    ///
    /// The first one that has neither a [layer](Self::layer) nor a [reader](Self::reader).
    pub fn check_read(&self) -> Result<(), ConfigError> {
        match self.0.iter().find(|entry| !entry.is_read.load(Relaxed)) {
            None => Ok(()),
            Some(unread) => Err(ConfigError::new(
                "toggles",
                unread.toggle.name(),
                "toggles that a layer or a reader heeds: nobody reads this one",
            )),
        }
    }

    /// Shows each of them, in the order in which they were added.
    pub fn for_each(&self, show: impl FnMut(&Toggle)) {
        self.0.iter().map(|entry| &entry.toggle).for_each(show);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Toggles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|entry| &entry.toggle)).finish()
    }
}
