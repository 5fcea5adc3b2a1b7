//! A gate in front of a fleet: lets a share of the calls through, which follows how they fare.

mod config;
mod layer;
#[cfg(all(test, buttress_loom))]
mod loom_tests;
mod permit;
mod snapshot;
pub(crate) mod valve;
mod word;

pub use config::RampedGateConfig;
pub use layer::{RampedGateLayer, RampedGateTurn};
pub use permit::RampedGatePermit;
pub use snapshot::{GateChange, RampedGateSnapshot};

use crate::run::{by_result, run};
use buttress_core::{
    Clock, ConfigError, Error, Fresh, Handle, Mode, Outcome, Rejection, Signal, Striped, TokioClock, Value, sync::lock,
};
use permit::Ticket;
use std::{fmt, future::Future, sync::Arc};
use valve::Valve;

/// The target of events, as the facade names the crate.
const TARGET: &str = "buttress::breaker";

/// A ramped gate: the policy, its handle and its standalone use in one.
///
/// ```
/// use buttress_breaker::{Outcome, RampedGateConfig, Settle};
///
/// let gate = RampedGateConfig::default().build()?;
/// gate.try_acquire().expect("it is wide open").settle(Outcome::Success, None);
/// assert_eq!(gate.share(), 1.0);
/// # Ok::<(), buttress_breaker::ConfigError>(())
/// ```
pub struct RampedGate {
    shared: Striped<Valve>,
}

impl Default for RampedGate {
    /// A gate with the default config.
    fn default() -> Self {
        Self::new(RampedGateConfig::default()).expect("the defaults are valid")
    }
}

impl RampedGate {
    /// A gate that is wide open.
    ///
    /// # Errors
    ///
    /// The first field of `config` with a value it cannot have.
    pub fn new(config: RampedGateConfig) -> Result<Self, ConfigError> {
        Self::new_at(config, &TokioClock)
    }

    /// The same, by another clock; its moments must not lie before this one.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn new_at(config: RampedGateConfig, clock: &impl Clock) -> Result<Self, ConfigError> {
        config.validate()?;
        let stripes = Striped::<Valve>::default_stripes();
        Ok(Self { shared: Striped::new(Valve::new(config, clock.now(), stripes), stripes) })
    }

    /// Asks to make a call.
    ///
    /// # Errors
    ///
    /// The call is not among those that pass; the refusal says when one passes for certain, if nobody comes before.
    #[inline]
    pub fn try_acquire(&self) -> Result<RampedGatePermit, Rejection> {
        self.try_acquire_at(&TokioClock)
    }

    /// The same, by another clock. The permit's `.._at` methods take it, too.
    ///
    /// # Errors
    ///
    /// As [`try_acquire`](Self::try_acquire).
    #[inline]
    pub fn try_acquire_at(&self, clock: &impl Clock) -> Result<RampedGatePermit, Rejection> {
        // The decision comes first: a refusal takes no lease.
        let ticket = match self.shared.admit_plainly() {
            Some(word) => Ticket::new(word),
            None => self.shared.admit(self.shared.stripe(), clock)?,
        };
        Ok(RampedGatePermit::new(self.shared.lease(), ticket))
    }

    /// Makes a call: `Ok` is a success, `Err` a failure. Refused, `future` is not polled.
    ///
    /// # Errors
    ///
    /// The call's own, or the refusal.
    pub async fn call<F, T, E>(&self, future: F) -> Result<T, Error<E>>
    where
        F: Future<Output = Result<T, E>>,
    {
        self.call_with(future, by_result).await
    }

    /// Makes a call that `classify` judges.
    ///
    /// # Errors
    ///
    /// The call's own, or the refusal.
    pub async fn call_with<F, T, E>(
        &self,
        future: F,
        classify: impl FnOnce(Result<&T, &E>) -> Outcome,
    ) -> Result<T, Error<E>>
    where
        F: Future<Output = Result<T, E>>,
    {
        run(self.try_acquire()?, future, classify).await
    }

    /// The share of calls that pass: 1 is wide open.
    pub fn share(&self) -> f64 {
        self.shared.word().share()
    }

    /// All there is to know.
    pub fn snapshot(&self) -> RampedGateSnapshot {
        self.snapshot_at(&TokioClock)
    }

    /// The same, by another clock.
    pub fn snapshot_at(&self, clock: &impl Clock) -> RampedGateSnapshot {
        RampedGateSnapshot::take(&self.shared, clock)
    }

    /// The present config.
    pub fn config(&self) -> RampedGateConfig {
        lock(&self.shared.config).clone()
    }

    /// Replaces the config. The share stays, unless it is below the new `min_share`; with another `hang_after` the calls now in
    /// flight are judged at their ends only; another seed takes a new gate.
    ///
    /// # Errors
    ///
    /// A value that a field cannot have. Then nothing has changed.
    pub fn update(&self, config: RampedGateConfig) -> Result<(), ConfigError> {
        self.update_at(config, &TokioClock)
    }

    /// The same, by another clock.
    ///
    /// # Errors
    ///
    /// As [`update`](Self::update).
    pub fn update_at(&self, config: RampedGateConfig, clock: &impl Clock) -> Result<(), ConfigError> {
        config.validate()?;
        let (name, hang_after, min_share, probe_every) =
            (&*config.name, config.hang_after, config.min_share, config.probe_every);
        tracing::info!(target: TARGET, name, ?hang_after, min_share, ?probe_every, "gate changed");
        self.shared.update(config, self.shared.nanos(clock));
        Ok(())
    }

    /// Opens it wide, and forgets what it has seen. The operator's mode stays.
    pub fn reset(&self) {
        self.reset_at(&TokioClock);
    }

    /// The same, by another clock.
    pub fn reset_at(&self, clock: &impl Clock) {
        self.shared.reset(self.shared.nanos(clock));
    }

    /// Calls `listener` after every change of the share, on the thread that caused it and under no lock: it may use the gate.
    pub fn on_change(&self, listener: impl Fn(&GateChange) + Send + Sync + 'static) {
        lock(&self.shared.listeners).push(Arc::new(listener));
    }

    /// What others may read: its pressure is the share that is refused. [`Signal::OPEN`] is raised as well while that is more than
    /// a half, until the next call passes for certain: a balancer over several gates sends one then, which is not refused. Where an
    /// operator lets a share of the calls pass ([`Mode::Enforcing`]), it is quiet.
    pub fn signal(&self) -> Signal {
        self.shared.signal.clone()
    }
}

impl Fresh for RampedGate {
    fn fresh(&self) -> Self {
        let stripes = self.shared.stripes();
        Self { shared: Striped::new(Valve::new(self.config(), TokioClock.now(), stripes), stripes) }
    }
}

impl Handle for RampedGate {
    fn kind(&self) -> &'static str {
        "gate"
    }

    fn visit(&self, show: &mut dyn FnMut(&'static str, Value)) {
        self.snapshot().visit(show);
    }

    fn mode(&self) -> Mode {
        self.shared.mode.get()
    }

    fn set_mode(&self, mode: Mode) -> Result<(), ConfigError> {
        self.shared.mode.set(mode)?;
        tracing::info!(target: TARGET, name = &*self.config().name, mode = mode.as_str(), "gate mode changed");
        self.shared.sync_signal();
        self.shared.wakers.wake_all();
        Ok(())
    }
}

impl fmt::Debug for RampedGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RampedGate").field("share", &self.share()).field("mode", &self.mode()).finish_non_exhaustive()
    }
}
