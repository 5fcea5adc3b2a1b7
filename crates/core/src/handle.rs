use crate::{ConfigError, HistogramSnapshot, Mode};
use std::time::Duration;

/// One reading of a layer, typed by what it means, so that a table, JSON and Prometheus can each show it properly.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// A total that only grows.
    Count(u64),
    /// A present number.
    Gauge(u64),
    /// A share between 0 and 1.
    Ratio(f64),
    /// A time span.
    Duration(Duration),
    /// One of several states, with the names of all.
    State(&'static str, &'static [&'static str]),
}

/// One series of a family of metrics, for exporters. A family has one `help` and one kind of [`Measure`].
#[derive(Clone, Copy, Debug)]
pub struct Series<'a> {
    /// The name of the family in full, without `_total` and without a unit: `"http_server_request_duration"`.
    pub family: &'static str,
    /// What it is, in a line.
    pub help: &'static str,
    /// Labels and their values, which are few: never an id or a path of a request.
    pub labels: &'a [(&'static str, &'a str)],
    /// What it shows.
    pub measure: Measure<'a>,
}

/// What a [`Series`] shows.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Measure<'a> {
    /// A total that only grows.
    Count(u64),
    /// A share between 0 and 1, as it is now; no number where it is not known.
    Ratio(f64),
    /// How often which time was taken.
    Durations(&'a HistogramSnapshot),
}

/// What the handle of every layer can do, whatever its type: enough for a registry, metrics and an admin page.
///
/// The handles of the layer crates offer more: a typed `snapshot()` and `update(..)`.
pub trait Handle: Send + Sync + 'static {
    /// The kind of layer: `"breaker"`.
    fn kind(&self) -> &'static str;

    /// Shows every reading, by name.
    fn visit(&self, show: &mut dyn FnMut(&'static str, Value));

    /// Shows what one name is too little for: readings with labels, and histograms. Every series, also those that are 0.
    fn measure(&self, show: &mut dyn FnMut(Series<'_>)) {
        let _ = show;
    }

    /// What an operator told it to do.
    fn mode(&self) -> Mode {
        Mode::Auto
    }

    /// Tells it what to do.
    ///
    /// # Errors
    ///
    /// A mode this layer does not have.
    fn set_mode(&self, mode: Mode) -> Result<(), ConfigError> {
        Err(ConfigError::new("mode", mode.as_str(), format!("nothing: the {} has no modes", self.kind())))
    }
}
