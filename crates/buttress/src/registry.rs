use buttress_core::{Handle, Mode, Value};
use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The handles of many layers under their names: what a status page, metrics and an admin API look at.
///
/// Filled by a builder scope ([`Scope::registry`](crate::Scope::registry)), by a [`stack`](crate::stack), or by hand.
/// Clones share it.
///
/// ```
/// use buttress::prelude::*;
/// use tower::ServiceBuilder;
///
/// let registry = Registry::new();
/// let layer = ServiceBuilder::new().opaque().registry(&registry).named("api").bulkhead(64);
/// let names: Vec<String> = registry.snapshot().into_iter().map(|entry| entry.name).collect();
/// assert_eq!(names, ["api.bulkhead"]);
/// # let _ = layer;
/// ```
#[derive(Clone, Default)]
pub struct Registry(Arc<Mutex<Handles>>);

type Handles = Vec<(String, Arc<dyn Handle>)>;

/// What one handle showed. `Serialize` with the feature `serde`: `{"name", "kind", "mode", <reading>: <value>, ..}`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Entry {
    /// Its name in the registry.
    pub name: String,
    /// The kind of layer.
    pub kind: &'static str,
    /// What an operator told it to do.
    pub mode: Mode,
    /// Its readings, by name.
    pub readings: Vec<(&'static str, Value)>,
}

impl Entry {
    /// One reading.
    pub fn get(&self, reading: &str) -> Option<Value> {
        self.readings.iter().find(|(name, _)| *name == reading).map(|(_, value)| *value)
    }
}

impl Registry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a handle. Where the name is taken, a number is added to it; the name it got is returned.
    pub fn add(&self, name: impl Into<String>, handle: Arc<dyn Handle>) -> String {
        let mut entries = self.lock();
        let wanted = name.into();
        let taken = |name: &str| entries.iter().any(|(other, _)| other == name);
        let name = if taken(&wanted) {
            (2..).map(|n| format!("{wanted}-{n}")).find(|name| !taken(name)).unwrap_or_default()
        } else {
            wanted
        };
        entries.push((name.clone(), handle));
        name
    }

    /// The handle of that name.
    pub fn get(&self, name: &str) -> Option<Arc<dyn Handle>> {
        self.lock().iter().find(|(other, _)| other == name).map(|(_, handle)| handle.clone())
    }

    /// Takes a handle out, for instance when its route is gone.
    pub fn remove(&self, name: &str) -> Option<Arc<dyn Handle>> {
        let mut entries = self.lock();
        let at = entries.iter().position(|(other, _)| other == name)?;
        Some(entries.remove(at).1)
    }

    /// All handles with their names, in the order in which they came.
    pub fn handles(&self) -> Vec<(String, Arc<dyn Handle>)> {
        self.lock().clone()
    }

    /// What all of them show now. No handle is asked under the lock. With the feature `serde` an [`Entry`] is `Serialize`:
    /// `serde_json::to_string(&registry.snapshot())` is a status page.
    pub fn snapshot(&self) -> Vec<Entry> {
        let entries = self.handles().into_iter().map(|(name, handle)| {
            let mut readings = Vec::new();
            handle.visit(&mut |name, value| readings.push((name, value)));
            Entry { name, kind: handle.kind(), mode: handle.mode(), readings }
        });
        entries.collect()
    }

    fn lock(&self) -> MutexGuard<'_, Handles> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.lock().iter().map(|(name, _)| name)).finish()
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Entry {
    /// `{"name", "kind", "mode", <reading>: <value>, ..}`; a duration is `<reading>_seconds`.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let mut map = serializer.serialize_map(Some(3 + self.readings.len()))?;
        map.serialize_entry("name", &self.name)?;
        map.serialize_entry("kind", self.kind)?;
        map.serialize_entry("mode", self.mode.as_str())?;
        for (name, value) in self.readings.iter().filter(|(name, _)| *name != "mode") {
            match value {
                Value::Count(n) | Value::Gauge(n) => map.serialize_entry(name, n)?,
                Value::Ratio(share) => map.serialize_entry(name, share)?,
                Value::Duration(span) => map.serialize_entry(&format!("{name}_seconds"), &span.as_secs_f64())?,
                Value::State(state, _) => map.serialize_entry(name, state)?,
                // A kind of reading newer than this crate.
                _ => {}
            }
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake;
    impl Handle for Fake {
        fn kind(&self) -> &'static str {
            "fake"
        }
        fn visit(&self, show: &mut dyn FnMut(&'static str, Value)) {
            show("limit", Value::Gauge(3));
        }
    }

    #[test]
    fn names_are_unique_and_handles_can_be_taken_out() {
        let registry = Registry::new();
        assert_eq!(registry.add("a", Arc::new(Fake)), "a");
        assert_eq!(registry.add("a", Arc::new(Fake)), "a-2");
        assert_eq!(registry.add("a", Arc::new(Fake)), "a-3");
        assert!(registry.remove("a-2").is_some() && registry.get("a-2").is_none());
        assert_eq!(registry.add("a", Arc::new(Fake)), "a-2");
        assert_eq!(registry.snapshot()[0].get("limit"), Some(Value::Gauge(3)));
    }

    #[test]
    fn a_mode_that_a_layer_does_not_have_is_an_error_that_names_it() {
        let error = Handle::set_mode(&Fake, Mode::Disabled).unwrap_err();
        assert_eq!(error.to_string(), "`mode` is disabled, allowed: nothing: the fake has no modes");
    }
}
