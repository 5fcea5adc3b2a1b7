//! A registry as Prometheus sees it.

mod help;

use crate::{Mode, Registry, Value};
use buttress_core::{Handle, HistogramSnapshot, Measure, Series};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::{Registry as Exporter, Unit},
};
use std::{borrow::Cow, collections::BTreeMap, fmt};

/// The upper ends of buckets, in seconds, as OpenTelemetry advises for the durations of HTTP requests; and one for what is
/// faster, one for what is slower.
const BOUNDS: [f64; 16] =
    [0.001, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0];

impl Registry {
    /// The content type of [`encode_prometheus`](Self::encode_prometheus).
    pub const OPENMETRICS: &'static str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

    /// What all handles show now, in the [OpenMetrics](https://prometheus.io/docs/specs/om/open_metrics_spec/) text that Prometheus
    /// reads: the whole answer of `/metrics`.
    ///
    /// A reading of a handle is `buttress_<kind>_<reading>` with the label `name`, its name in the registry; times are in seconds; a
    /// state is a gauge for each of the states, 1 for the present one. What a handle [measures](Handle::measure) has the names it
    /// gives it. Calls pay nothing for it: everything is read here.
    ///
    /// Who has metrics of his own registers a clone with `prometheus_client`'s registry instead: it is a [`Collector`].
    ///
    /// ```
    /// use buttress::prelude::*;
    /// use tower::ServiceBuilder;
    ///
    /// let registry = Registry::new();
    /// let _layer = ServiceBuilder::new().opaque().registry(&registry).bulkhead(64);
    /// assert!(registry.encode_prometheus().contains("buttress_bulkhead_limit{name=\"bulkhead\"} 64"));
    /// ```
    pub fn encode_prometheus(&self) -> String {
        let mut exporter = Exporter::default();
        exporter.register_collector(Box::new(self.clone()));
        let mut text = String::new();
        text::encode(&mut text, &exporter).expect("a string takes all that is written to it");
        text
    }
}

impl Collector for Registry {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for ((name, _), family) in families(self) {
            let unit = family.seconds.then_some(&Unit::Seconds);
            let mut family_encoder = encoder.encode_descriptor(&name, &family.help, unit, family.kind.metric_type())?;
            for (labels, sample) in &family.samples {
                let mut encoder = family_encoder.encode_family(labels)?;
                match sample {
                    Sample::Count(count) => encoder.encode_counter::<NoLabelSet, _, u64>(count, None)?,
                    Sample::Gauge(value) => encoder.encode_gauge(value)?,
                    Sample::Durations { sum, count, buckets } => {
                        encoder.encode_histogram::<NoLabelSet>(*sum, *count, buckets, None)?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Series that differ in labels alone. Their samples stand together, whichever handle they are of.
struct Family {
    help: Cow<'static, str>,
    kind: Kind,
    seconds: bool,
    samples: Vec<(Labels, Sample)>,
}

type Labels = Vec<(&'static str, String)>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    fn metric_type(self) -> MetricType {
        match self {
            Self::Counter => MetricType::Counter,
            Self::Gauge => MetricType::Gauge,
            Self::Histogram => MetricType::Histogram,
        }
    }
}

enum Sample {
    Count(u64),
    Gauge(f64),
    Durations { sum: f64, count: u64, buckets: Vec<(f64, u64)> },
}

/// By name without `_total` and `_seconds`, and whether it is in seconds: a limit and a count may share the rest of their names.
#[derive(Default)]
struct Families(BTreeMap<(String, bool), Family>);

fn families(registry: &Registry) -> BTreeMap<(String, bool), Family> {
    let mut families = Families::default();
    for (name, handle) in registry.handles() {
        families.take(&name, &*handle);
    }
    families.0
}

impl Families {
    fn take(&mut self, name: &str, handle: &dyn Handle) {
        let mut readings = Vec::new();
        handle.visit(&mut |reading, value| readings.push((reading, value)));
        let kind = handle.kind();
        self.states((kind, "mode"), name, handle.mode().as_str(), &Mode::NAMES);
        for (reading, value) in readings.iter().filter(|(reading, _)| *reading != "mode") {
            let at = (kind, *reading);
            match *value {
                Value::Count(count) => self.reading(at, Kind::Counter, false, name, Sample::Count(count)),
                Value::Gauge(number) => {
                    // A present number beside a total of the same name needs a name of its own.
                    let total = |(other, _): &(&str, Value)| other.strip_suffix("_total") == Some(*reading);
                    let current = readings.iter().any(total).then(|| format!("{reading}_current"));
                    let at = (kind, current.as_deref().unwrap_or(reading));
                    self.reading(at, Kind::Gauge, false, name, Sample::Gauge(number as f64));
                }
                Value::Ratio(share) => self.reading(at, Kind::Gauge, false, name, Sample::Gauge(share)),
                Value::Duration(span) => {
                    self.reading(at, Kind::Gauge, true, name, Sample::Gauge(span.as_secs_f64()));
                }
                Value::State(state, states) => self.states(at, name, state, states),
                // A kind of reading newer than this crate.
                _ => {}
            }
        }
        handle.measure(&mut |series| self.series(name, series));
    }

    fn reading(&mut self, at: (&str, &str), kind: Kind, seconds: bool, name: &str, sample: Sample) {
        let family = self.family(at, kind, seconds);
        family.add(kind, vec![("name", name.to_owned())], sample);
    }

    /// One gauge for each state, labelled with the reading itself.
    fn states(&mut self, at: (&str, &'static str), name: &str, state: &str, states: &[&'static str]) {
        let label = sanitised_label(at.1);
        for known in states {
            let labels = vec![("name", name.to_owned()), (label, (*known).to_owned())];
            let is = if *known == state { 1.0 } else { 0.0 };
            self.family(at, Kind::Gauge, false).add(Kind::Gauge, labels, Sample::Gauge(is));
        }
    }

    fn family(&mut self, (kind, reading): (&str, &str), metric: Kind, seconds: bool) -> &mut Family {
        let plain = if metric == Kind::Counter { reading.strip_suffix("_total").unwrap_or(reading) } else { reading };
        self.named(sanitised(&format!("buttress_{kind}_{plain}")), || help::help(kind, reading), metric, seconds)
    }

    fn named(
        &mut self,
        name: String,
        help: impl FnOnce() -> Cow<'static, str>,
        kind: Kind,
        seconds: bool,
    ) -> &mut Family {
        self.0.entry((name, seconds)).or_insert_with(|| Family { help: help(), kind, seconds, samples: Vec::new() })
    }

    fn series(&mut self, name: &str, series: Series<'_>) {
        let own = series.labels.iter().map(|(label, value)| (*label, (*value).to_owned()));
        let labels: Labels = [("name", name.to_owned())].into_iter().chain(own).collect();
        let (kind, sample) = match series.measure {
            Measure::Count(count) => (Kind::Counter, Sample::Count(count)),
            Measure::Ratio(share) => (Kind::Gauge, Sample::Gauge(share)),
            Measure::Durations(seen) => (Kind::Histogram, durations(seen)),
            // A kind of measure newer than this crate.
            _ => return,
        };
        let (family, help) = (sanitised(series.family), || Cow::Borrowed(series.help));
        self.named(family, help, kind, kind == Kind::Histogram).add(kind, labels, sample);
    }
}

impl Family {
    /// A family has one kind: what two layers of others call the same, and is not, is shown for the first alone.
    fn add(&mut self, kind: Kind, labels: Labels, sample: Sample) {
        if self.kind == kind {
            self.samples.push((labels, sample));
        }
    }
}

fn durations(seen: &HistogramSnapshot) -> Sample {
    let mut below = 0;
    let count = seen.count();
    let mut buckets: Vec<(f64, u64)> = Vec::with_capacity(BOUNDS.len() + 1);
    for bound in BOUNDS {
        let within = seen.at_most(bound);
        buckets.push((bound, within - below));
        below = within;
    }
    buckets.push((f64::INFINITY, count - below));
    Sample::Durations { sum: seen.sum(), count, buckets }
}

/// Kinds and readings are names of others' layers, too.
fn sanitised(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect()
}

fn sanitised_label(label: &'static str) -> &'static str {
    let fits = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if fits && !label.starts_with(|c: char| c.is_ascii_digit()) && label != "name" { label } else { "state" }
}
