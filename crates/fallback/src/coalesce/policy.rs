use super::{CoalesceConfig, flights::FlightCounts};
use buttress_core::{
    ConfigError, Fresh, Handle, Mode, ModeCell, Value,
    sync::{AtomicU64, AtomicUsize, Mutex, Ordering::Relaxed, lock},
};
use std::{fmt, sync::Arc, time::Duration};

/// The target of events, as the facade names the crate.
const TARGET: &str = "buttress::fallback";

/// What the services of a [`CoalesceLayer`](crate::CoalesceLayer) share: its handle.
///
/// | mode | what it does |
/// |---|---|
/// | `Auto` | shares calls |
/// | `Disabled`, `Enforcing(0)` ([`Mode::OBSERVE_ONLY`]: observe only) | every request makes a call of its own; calls that are shared already come to their end |
/// | `Enforcing(p)` | shares `p` percent of the calls that may be shared |
/// | `ForcedOpen` | there is no such mode: it refuses nothing |
pub struct Coalesce {
    mode: ModeCell,
    pub(super) max_body: AtomicUsize,
    collect_within: AtomicU64,
    pub(super) flights: Arc<FlightCounts>,
    /// Calls that were not shared in the end, though they had joined.
    parted: AtomicU64,
    /// As it was last given; only `update`, `config` and events take the lock.
    config: Mutex<CoalesceConfig>,
}

/// What a [`Coalesce`] shows of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CoalesceSnapshot {
    /// Calls under way that others may join, or have joined.
    pub in_flight: u64,
    /// Calls that were made and that others could join.
    pub calls_total: u64,
    /// Requests that joined one.
    pub shared_total: u64,
    /// Of these, the ones that made a call of their own in the end: what came could not be shared.
    pub parted_total: u64,
    /// Calls whose caller left, and that another one of those who waited went on with.
    pub handed_over_total: u64,
    /// What an operator told it to do.
    pub mode: Mode,
}

impl Coalesce {
    pub(super) fn with(config: CoalesceConfig) -> Self {
        Self {
            mode: ModeCell::new(0),
            max_body: AtomicUsize::new(config.max_body),
            collect_within: AtomicU64::new(nanos(config.collect_within)),
            flights: Arc::default(),
            parted: AtomicU64::new(0),
            config: Mutex::new(config),
        }
    }

    /// What it does and has done.
    pub fn snapshot(&self) -> CoalesceSnapshot {
        CoalesceSnapshot {
            in_flight: self.flights.flying.load(Relaxed),
            calls_total: self.flights.led.load(Relaxed),
            shared_total: self.flights.joined.load(Relaxed),
            parted_total: self.parted.load(Relaxed),
            handed_over_total: self.flights.handed_over.load(Relaxed),
            mode: self.mode.get(),
        }
    }

    /// The config as it was last given.
    pub fn config(&self) -> CoalesceConfig {
        lock(&self.config).clone()
    }

    /// Changes what later calls follow.
    ///
    /// # Errors
    ///
    /// A config that [`build`](CoalesceConfig::build) refuses. Nothing is changed then.
    pub fn update(&self, config: CoalesceConfig) -> Result<(), ConfigError> {
        config.validate()?;
        self.max_body.store(config.max_body, Relaxed);
        self.collect_within.store(nanos(config.collect_within), Relaxed);
        *lock(&self.config) = config;
        Ok(())
    }

    /// Whether this call may be shared.
    pub(super) fn shares(&self) -> bool {
        self.mode.is_auto() || self.mode.enforces()
    }

    pub(super) fn terms(&self) -> Terms {
        Terms {
            max_body: self.max_body.load(Relaxed),
            collect_within: Duration::from_nanos(self.collect_within.load(Relaxed)),
        }
    }

    pub(super) fn parted(&self) {
        self.parted.fetch_add(1, Relaxed);
    }
}

/// What is collected of a body.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(feature = "http"), allow(dead_code, reason = "only HTTP has bodies"))]
#[doc(hidden)]
pub struct Terms {
    pub(super) max_body: usize,
    pub(super) collect_within: Duration,
}

/// An hour at most.
fn nanos(span: Duration) -> u64 {
    span.as_nanos() as u64
}

impl Default for Coalesce {
    fn default() -> Self {
        Self::with(CoalesceConfig::default())
    }
}

impl Fresh for Coalesce {
    fn fresh(&self) -> Self {
        Self::with(self.config())
    }
}

impl Handle for Coalesce {
    fn kind(&self) -> &'static str {
        "coalesce"
    }

    fn visit(&self, show: &mut dyn FnMut(&'static str, Value)) {
        let snapshot = self.snapshot();
        show("in_flight", Value::Gauge(snapshot.in_flight));
        show("calls_total", Value::Count(snapshot.calls_total));
        show("shared_total", Value::Count(snapshot.shared_total));
        show("parted_total", Value::Count(snapshot.parted_total));
        show("handed_over_total", Value::Count(snapshot.handed_over_total));
    }

    fn mode(&self) -> Mode {
        self.mode.get()
    }

    fn set_mode(&self, mode: Mode) -> Result<(), ConfigError> {
        if mode == Mode::ForcedOpen {
            let allowed = "auto, disabled, enforcing: coalescing refuses nothing";
            return Err(ConfigError::new("mode", mode.as_str(), allowed));
        }
        self.mode.set(mode)?;
        tracing::info!(target: TARGET, coalesce = &*self.config().name, mode = mode.as_str(), "coalesce mode changed");
        Ok(())
    }
}

impl fmt::Debug for Coalesce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coalesce").field("snapshot", &self.snapshot()).finish_non_exhaustive()
    }
}
