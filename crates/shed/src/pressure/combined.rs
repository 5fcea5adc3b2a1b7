use crate::sampled::{Claim, FULL, PATIENCE, Sampled};
use buttress_core::{
    Clock, ConfigError, Handle, Measure, Origin, Series, Signal, TokioClock, Value,
    sync::{Mutex, lock},
};
use std::{
    borrow::Cow,
    fmt,
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

/// Something that says how much pressure there is. A closure `FnMut() -> f64` is one.
pub trait Source: Send + 'static {
    /// The pressure at `now`, from 0 to 1; `None`: unknown. It is asked again and again by whoever happens to call, so it must be quick and never
    /// wait. Values outside are cut to 0 and 1; what is no number is unknown.
    ///
    /// All sources are asked under one lock: it must not use the [`Pressure`] that asks it, which would wait for itself for ever.
    fn look(&mut self, now: Instant) -> Option<f64>;

    /// Nobody has looked for seconds, and somebody does now: what was gathered until here is of the past.
    fn forget(&mut self) {}
}

impl<F: FnMut() -> f64 + Send + 'static> Source for F {
    fn look(&mut self, _: Instant) -> Option<f64> {
        Some(self())
    }
}

/// How often a [`Pressure`] looks at its sources.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct PressureConfig {
    /// The sources are looked at no more often: 10 ms to 1 m. The CPU time is a mean over it. Default: 250 ms.
    #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration"))]
    pub every: Duration,
}

impl Default for PressureConfig {
    fn default() -> Self {
        Self { every: Duration::from_millis(250) }
    }
}

impl PressureConfig {
    buttress_core::setters! {
        /// Sets [`every`](Self#structfield.every).
        every: Duration => every;
    }

    /// The pressure, without a source: 0.
    ///
    /// # Errors
    ///
    /// The first field that is out of its range.
    pub fn build(self) -> Result<Pressure, ConfigError> {
        self.build_at(&TokioClock)
    }

    /// The same, by another clock; its moments must not lie before this one.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build).
    pub fn build_at(self, clock: &impl Clock) -> Result<Pressure, ConfigError> {
        if !(Duration::from_millis(10)..=Duration::from_secs(60)).contains(&self.every) {
            return Err(ConfigError::duration("every", self.every, "10ms to 1m"));
        }
        Ok(Pressure(Arc::new(Inner {
            word: Sampled::default(),
            origin: Origin::new(clock.now()),
            every: self.every.as_millis() as u64,
            sources: Mutex::default(),
            signals: Mutex::new(Vec::new()),
        })))
    }
}

/// The highest of what its sources say. Clones are handles of the same.
#[derive(Clone)]
pub struct Pressure(Arc<Inner>);

struct Inner {
    /// The pressure, of 2^24. A task that drives it is always a while ahead of when it is due.
    word: Sampled,
    origin: Origin,
    /// In milliseconds.
    every: u64,
    sources: Mutex<Sources>,
    signals: Mutex<Vec<Signal>>,
}

#[derive(Default)]
struct Sources {
    all: Vec<Named>,
    looked: Option<Instant>,
}

struct Named {
    name: Cow<'static, str>,
    source: Box<dyn Source>,
    seen: Option<f64>,
}

/// What a [`Pressure`] shows of itself.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct PressureSnapshot {
    /// The highest of what the sources said.
    pub pressure: f64,
    /// Each of them, in the order in which they came.
    pub sources: Vec<SourceSnapshot>,
}

/// One source of a [`PressureSnapshot`].
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct SourceSnapshot {
    /// Its name.
    pub name: String,
    /// What it said when it was looked at last; `None`: it does not know, or was not asked yet.
    pub pressure: Option<f64>,
}

/// Nobody has looked for so long, or for two intervals: a lull.
const LULL: Duration = Duration::from_secs(5);

#[inline]
fn share_of(value: u64) -> f64 {
    value as f64 / FULL as f64
}

impl Pressure {
    /// Heeds one more source.
    pub fn source(&self, name: impl Into<Cow<'static, str>>, source: impl Source) {
        lock(&self.0.sources).all.push(Named { name: name.into(), source: Box::new(source), seen: None });
    }

    /// Shows it in `signal` from the next look on, for as long as somebody else has a clone of that to read.
    pub fn tell(&self, signal: Signal) {
        let mut signals = lock(&self.0.signals);
        signals.retain(Signal::is_shared);
        signals.push(signal);
    }

    /// The pressure, from 0 to 1.
    #[inline]
    pub fn current(&self) -> f64 {
        self.current_at(&TokioClock)
    }

    /// The same, by another clock.
    #[inline]
    pub fn current_at(&self, clock: &impl Clock) -> f64 {
        let now = clock.now();
        share_of(self.0.word.read(self.0.millis(now), self.0.every).unwrap_or_else(|claim| self.look(claim, now)))
    }

    #[cold]
    fn look(&self, claim: Claim, now: Instant) -> u64 {
        self.0.observe(claim, now);
        self.0.word.last()
    }

    /// Looks at the sources [every](PressureConfig::every) so long, for as long as it is polled; meanwhile nobody else does. Spawn it where no
    /// request is to read files; late by ten intervals (its runtime is stuck) or dropped (an aborted task), it leaves the looks to those who ask.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), buttress_core::ConfigError> {
    /// # use buttress_shed::pressure::{CpuPressure, PressureConfig};
    /// let pressure = PressureConfig::default().build()?;
    /// pressure.source("cpu", CpuPressure::new());
    /// let looks = tokio::spawn(pressure.drive());
    /// # looks.abort();
    /// # Ok(()) }
    /// ```
    pub fn drive(&self) -> impl Future<Output = ()> + Send + 'static {
        let pressure = self.clone();
        async move {
            let driven = pressure.driven();
            let mut ticks = tokio::time::interval(Duration::from_millis(driven.0.0.every));
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                driven.look(TokioClock.now());
            }
        }
    }

    /// The readings as they were seen last; it looks if that is due.
    pub fn snapshot(&self) -> PressureSnapshot {
        self.snapshot_at(&TokioClock)
    }

    /// The same, by another clock.
    pub fn snapshot_at(&self, clock: &impl Clock) -> PressureSnapshot {
        let pressure = self.current_at(clock);
        let sources = lock(&self.0.sources);
        let sources =
            sources.all.iter().map(|s| SourceSnapshot { name: s.name.clone().into_owned(), pressure: s.seen });
        PressureSnapshot { pressure, sources: sources.collect() }
    }
}

/// A task looks at the sources until this is dropped.
pub(super) struct Driven(Pressure);

impl Pressure {
    pub(super) fn driven(&self) -> Driven {
        Driven(self.clone())
    }
}

impl Driven {
    pub(super) fn look(&self, now: Instant) {
        let inner = &self.0.0;
        inner.observe(inner.word.seize(inner.millis(now) + PATIENCE * inner.every), now);
    }
}

impl Drop for Driven {
    fn drop(&mut self) {
        self.0.0.word.expire();
    }
}

impl Inner {
    #[inline]
    fn millis(&self, now: Instant) -> u64 {
        self.origin.nanos(now) / 1_000_000
    }

    /// Asks every source, and shows the highest.
    fn observe(&self, claim: Claim, now: Instant) {
        let mut sources = lock(&self.sources);
        let since = sources.looked.replace(now).map(|last| now.saturating_duration_since(last));
        let after_lull = since.is_some_and(|since| since > LULL.max(2 * Duration::from_millis(self.every)));
        let mut highest = 0.0;
        for named in &mut sources.all {
            if after_lull {
                named.source.forget();
            }
            named.seen = named.source.look(now).filter(|seen| !seen.is_nan()).map(|seen| seen.clamp(0.0, 1.0));
            highest = named.seen.unwrap_or(0.0).max(highest);
        }
        // Under the lock, so that of two looks the later one is shown, and by all signals.
        if self.word.write(claim, (highest * FULL as f64).round() as u64) {
            for signal in &*lock(&self.signals) {
                signal.set_pressure(highest as f32);
            }
        }
    }
}

impl Handle for Pressure {
    fn kind(&self) -> &'static str {
        "pressure_sources"
    }

    fn visit(&self, show: &mut dyn FnMut(&'static str, Value)) {
        let snapshot = self.snapshot();
        let unknown = snapshot.sources.iter().filter(|source| source.pressure.is_none()).count();
        show("pressure", Value::Ratio(snapshot.pressure));
        show("sources", Value::Gauge(snapshot.sources.len() as u64));
        show("unknown", Value::Gauge(unknown as u64));
    }

    fn measure(&self, show: &mut dyn FnMut(Series<'_>)) {
        for source in self.snapshot().sources {
            show(Series {
                family: "buttress_pressure_source",
                help: "The pressure that a source makes.",
                labels: &[("source", &source.name)],
                // One that does not know is shown as well: a series that goes cannot be told from one that is not there.
                measure: Measure::Ratio(source.pressure.unwrap_or(f64::NAN)),
            });
        }
    }
}

impl fmt::Debug for Pressure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pressure")
            .field("pressure", &share_of(self.0.word.last()))
            .field("signals", &lock(&self.0.signals).len())
            .finish()
    }
}
