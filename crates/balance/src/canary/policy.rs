use super::{
    CanaryConfig, CanaryPermit, CanarySnapshot,
    config::validate_weight,
    snapshot::SideSnapshot,
    state::{Line, Shared},
};
use buttress_core::{
    Clock, ConfigError, Handle, Mode, Striped, TokioClock, Value,
    sync::{AtomicU64, Ordering::Relaxed, lock},
};
use std::{fmt, sync::Arc};

/// Decides which calls go to a canary, and gives it up when it fails more often than the stable service.
///
/// [`CanaryLayer`](crate::CanaryLayer) puts one around a service. On its own it is asked for each call, and told how that ended:
///
/// ```
/// use buttress_balance::{CanaryConfig, Side};
/// use buttress_core::{Outcome, Settle};
///
/// let canary = CanaryConfig::new(10.0).margin(0.05).min_calls(20).build()?;
/// for _ in 0..1_000 {
///     let permit = canary.pick(0);
///     let outcome = match permit.side() {
///         Side::Stable => Outcome::Success,
///         Side::Canary => Outcome::Failure,
///     };
///     permit.settle(outcome, None);
/// }
/// assert!(canary.snapshot().tripped);
/// assert_eq!(canary.pick(0).side(), Side::Stable);
/// # Ok::<(), buttress_core::ConfigError>(())
/// ```
///
/// It is its own handle.
///
/// | mode | what it does |
/// |---|---|
/// | `Auto` | splits by the weight, judges, gives the canary up |
/// | `ForcedOpen` | every call goes to the stable service |
/// | `Disabled` | splits by the weight, tripped or not; nothing is measured or judged |
/// | `Enforcing(p)` | tripped, `p` percent of the canary's calls go to the stable service all the same, the others pass and are not measured. At 0, [`Mode::OBSERVE_ONLY`], it observes only: it judges, says so once, and does not trip |
pub struct Canary {
    shared: Striped<Shared>,
}

/// Why a canary was given up.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Trip {
    /// Calls of the canary in the window.
    pub canary_calls: u64,
    /// The share of them that failed.
    pub canary_rate: f64,
    /// Calls of the stable service in the window.
    pub stable_calls: u64,
    /// The share of them that failed.
    pub stable_rate: f64,
}

/// The target of events, as the facade names the crate.
pub(super) const TARGET: &str = "buttress::canary";
const KIND: &str = "canary";

impl Canary {
    /// A canary with nothing seen yet.
    ///
    /// # Errors
    ///
    /// The first field of `config` with a value it cannot have.
    pub fn new(config: CanaryConfig) -> Result<Self, ConfigError> {
        Self::new_at(config, &TokioClock)
    }

    /// The same, by another clock; its moments must not lie before this one.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn new_at(config: CanaryConfig, clock: &impl Clock) -> Result<Self, ConfigError> {
        config.validate()?;
        let stripes = Striped::<()>::default_stripes();
        Ok(Self { shared: Striped::new(Shared::new(config, clock.now(), stripes), stripes) })
    }

    /// Where a call goes. `attempt` is how often it was sent before: a further attempt goes to the stable service, and says
    /// nothing about it, as its request has failed before.
    #[inline]
    pub fn pick(&self, attempt: u32) -> CanaryPermit {
        let lease = self.shared.lease();
        let pick = lease.pick(lease.stripe(), attempt);
        CanaryPermit::new(lease, pick)
    }

    /// All there is to know.
    pub fn snapshot(&self) -> CanarySnapshot {
        self.snapshot_at(&TokioClock)
    }

    /// The same, by another clock.
    pub fn snapshot_at(&self, clock: &impl Clock) -> CanarySnapshot {
        let shared = &*self.shared;
        let now = shared.origin.nanos(clock.now());
        let config = lock(&shared.config);
        let seen = shared.word.load();
        let (stable, canary) = (shared.stable.counts(now), shared.canary.counts(now));
        let mode = shared.mode.get();
        let sum = |read: fn(&Line) -> &AtomicU64| shared.lines.iter().map(|line| read(line).load(Relaxed)).sum();
        CanarySnapshot {
            mode,
            tripped: seen.is_tripped(),
            weight: match mode {
                Mode::ForcedOpen => 0.0,
                Mode::Disabled => config.weight,
                Mode::Enforcing(percent) if seen.is_tripped() => config.weight * (1.0 - f64::from(percent) / 100.0),
                _ if seen.is_tripped() => 0.0,
                _ => config.weight,
            },
            worse: shared.is_worse(stable, canary),
            in_flight: self.shared.leased() as u64,
            stable: SideSnapshot::new(sum(|line| &line.stable), stable),
            canary: SideSnapshot::new(sum(|line| &line.canary), canary),
            retried_total: shared.retried.load(Relaxed),
            passed_total: shared.passed.load(Relaxed),
            trips_total: shared.trips.load(Relaxed),
        }
    }

    /// The present config.
    pub fn config(&self) -> CanaryConfig {
        lock(&self.shared.config).clone()
    }

    /// Replaces the config. What was seen stays, and so does a trip, unless the weight or the window is another: then everything begins anew.
    ///
    /// # Errors
    ///
    /// A value that a field cannot have, or another seed. Then nothing has changed.
    pub fn update(&self, config: CanaryConfig) -> Result<(), ConfigError> {
        config.validate()?;
        let shared = &*self.shared;
        let mut present = lock(&shared.config);
        if config.seed != present.seed {
            let allowed = format!("{:?}: it cannot change while the canary runs", present.seed);
            return Err(ConfigError::new("seed", format!("{:?}", config.seed), allowed));
        }
        shared.margin.store(config.margin.to_bits(), Relaxed);
        shared.min_calls.store(config.min_calls.into(), Relaxed);
        if config.weight != present.weight || config.window != present.window {
            let now = shared.origin.nanos(TokioClock.now());
            for record in [&shared.stable, &shared.canary] {
                record.window.resize(config.window, now);
            }
            shared.renew(config.weight, now);
        }
        *present = config;
        Ok(())
    }

    /// Sends `weight` percent of the calls to the canary from now on, tripped or not. It is judged by what comes from now on.
    ///
    /// # Errors
    ///
    /// A weight that is not 0 to 100.
    pub fn set_weight(&self, weight: f64) -> Result<(), ConfigError> {
        self.set_weight_at(weight, &TokioClock)
    }

    /// The same, by another clock.
    ///
    /// # Errors
    ///
    /// As [`set_weight`](Self::set_weight).
    pub fn set_weight_at(&self, weight: f64, clock: &impl Clock) -> Result<(), ConfigError> {
        validate_weight(weight)?;
        let name = {
            let mut config = lock(&self.shared.config);
            config.weight = weight;
            self.shared.renew(weight, self.shared.origin.nanos(clock.now()));
            config.name.clone()
        };
        tracing::info!(target: TARGET, canary = &*name, weight, "the canary's weight is set");
        Ok(())
    }

    /// Gives the canary its weight back, and forgets what was seen. The operator's mode stays.
    pub fn reset(&self) {
        self.reset_at(&TokioClock);
    }

    /// The same, by another clock.
    pub fn reset_at(&self, clock: &impl Clock) {
        let (name, weight) = {
            let config = lock(&self.shared.config);
            self.shared.renew(config.weight, self.shared.origin.nanos(clock.now()));
            (config.name.clone(), config.weight)
        };
        tracing::info!(target: TARGET, canary = &*name, weight, "the canary is reset");
    }

    /// Calls `listener` after every trip, on the thread that caused it and under no lock: it may use the canary.
    pub fn on_trip(&self, listener: impl Fn(&Trip) + Send + Sync + 'static) {
        lock(&self.shared.listeners).push(Arc::new(listener));
    }
}

impl Handle for Canary {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn visit(&self, show: &mut dyn FnMut(&'static str, Value)) {
        self.snapshot().visit(show);
    }

    fn mode(&self) -> Mode {
        self.shared.mode.get()
    }

    fn set_mode(&self, mode: Mode) -> Result<(), ConfigError> {
        self.shared.mode.set(mode)
    }
}

impl fmt::Debug for Canary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seen = self.shared.word.load();
        f.debug_struct("Canary")
            .field("tripped", &seen.is_tripped())
            .field("mode", &self.mode())
            .finish_non_exhaustive()
    }
}
