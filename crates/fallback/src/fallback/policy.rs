use super::{FallbackConfig, LAYER};
use crate::TARGET;
use crate::{Trigger, Triggers};
use buttress_core::{
    Cause, ConfigError, Draw, Fresh, Handle, Mode, ModeCell, Outcome, Parked, Value, Verdict, Wakers,
    sync::{AtomicU8, AtomicU64, Mutex, Ordering::Relaxed, lock},
};
use std::{borrow::Cow, fmt, task::Context};

/// Decides which results are answered otherwise, and counts them: the handle of [`FallbackLayer`](super::FallbackLayer).
///
/// | mode | what it does |
/// |---|---|
/// | `Auto` | answers in place of what its config names |
/// | `Disabled` | never answers, keeps nothing of requests, and counts nothing |
/// | `Enforcing(p)` | answers in place of `p` percent of what it would; the rest goes through and is counted as observed; at 0, [`Mode::OBSERVE_ONLY`], it observes only |
/// | `ForcedOpen` | maintenance: every call gets the fallback, and what is behind it is not called; where the fallback fails the call is refused, with [`Reason::SwitchedOff`](buttress_core::Reason::SwitchedOff) |
///
/// ```
/// use buttress_core::{Cause, Handle, Mode, Outcome, Verdict};
/// use buttress_fallback::{Fallback, FallbackConfig, Trigger};
///
/// let fallback = Fallback::from(FallbackConfig::default().on([Trigger::Failure]));
/// assert_eq!(fallback.decide(&Verdict::new(Outcome::Failure, None)), Some(Cause::Failure));
/// assert_eq!(fallback.decide(&Verdict::new(Outcome::Overload, None)), None);
///
/// fallback.set_mode(Mode::OBSERVE_ONLY)?;
/// # Ok::<(), buttress_core::ConfigError>(())
/// ```
pub struct Fallback {
    mode: ModeCell,
    on: AtomicU8,
    counts: Counts,
    /// Tasks that wait for a service that a switched fallback does not need.
    wakers: Wakers,
    config: Mutex<FallbackConfig>,
}

#[derive(Default)]
struct Counts {
    refused: AtomicU64,
    failure: AtomicU64,
    overload: AtomicU64,
    unwanted: AtomicU64,
    switched: AtomicU64,
    failed: AtomicU64,
    observed: AtomicU64,
}

/// What a [`Fallback`] shows of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct FallbackSnapshot {
    /// Answers in place of a refusal.
    pub refused_total: u64,
    /// Answers in place of a failure.
    pub failure_total: u64,
    /// Answers in place of "too much".
    pub overload_total: u64,
    /// Answers in place of one that the predicate did not want.
    pub unwanted_total: u64,
    /// Answers that an operator switched to.
    pub switched_total: u64,
    /// Calls that the backup had no good answer for, either.
    pub failed_total: u64,
    /// Results that a mode let through.
    pub observed_total: u64,
    /// What an operator told it to do.
    pub mode: Mode,
}

impl FallbackSnapshot {
    /// All answers that were given in place of others.
    pub fn answered_total(&self) -> u64 {
        self.refused_total + self.failure_total + self.overload_total + self.unwanted_total + self.switched_total
    }
}

impl Fallback {
    /// One with this config.
    pub fn new(config: FallbackConfig) -> Self {
        Self {
            mode: ModeCell::new(Draw::seed(None)),
            on: AtomicU8::new(config.on.bits()),
            counts: Counts::default(),
            wakers: Wakers::default(),
            config: Mutex::new(config),
        }
    }

    /// Why a result with this verdict is answered otherwise. `None`: it is not, as it is good, or says nothing, or its request is at fault,
    /// or the config does not name it. Counts nothing, and heeds no mode.
    #[inline]
    pub fn decide(&self, verdict: &Verdict) -> Option<Cause> {
        // What nearly every call says.
        if verdict.outcome == Outcome::Success && verdict.rejection.is_none() {
            return None;
        }
        self.decide_bad(verdict)
    }

    #[cold]
    fn decide_bad(&self, verdict: &Verdict) -> Option<Cause> {
        let cause = Cause::of(verdict)?;
        let trigger = match cause {
            Cause::Refused(rejection) if rejection.reason.accuses_request() => return None,
            Cause::Refused(_) => Trigger::Refused,
            Cause::Overload => Trigger::Overload,
            _ => Trigger::Failure,
        };
        Triggers::of_bits(self.on.load(Relaxed)).has(trigger).then_some(cause)
    }

    #[inline]
    pub(super) fn is_disabled(&self) -> bool {
        self.mode.get() == Mode::Disabled
    }

    #[inline]
    pub(super) fn is_switched(&self) -> bool {
        self.mode.get() == Mode::ForcedOpen
    }

    /// Whether a result that would be answered otherwise is. The others are counted.
    pub(super) fn enforces(&self) -> bool {
        let enforces = self.mode.enforces();
        if !enforces {
            self.counts.observed.fetch_add(1, Relaxed);
        }
        enforces
    }

    pub(super) fn park(&self, parked: &mut Parked, cx: &Context<'_>) {
        parked.park(&self.wakers, cx);
        // Between the question and the place.
        if self.is_switched() {
            cx.waker().wake_by_ref();
        }
    }

    pub(super) fn answered(&self, cause: Cause) {
        let count = match cause {
            Cause::Refused(_) => &self.counts.refused,
            Cause::Overload => &self.counts.overload,
            Cause::Unwanted => &self.counts.unwanted,
            Cause::Switched => &self.counts.switched,
            _ => &self.counts.failure,
        };
        count.fetch_add(1, Relaxed);
        self.tell(cause, "answered in place of the service");
    }

    pub(super) fn failed(&self, cause: Cause) {
        self.counts.failed.fetch_add(1, Relaxed);
        self.tell(cause, "the fallback has no answer");
    }

    fn tell(&self, cause: Cause, what: &'static str) {
        if tracing::enabled!(target: TARGET, tracing::Level::DEBUG) {
            let name = self.name();
            tracing::debug!(target: TARGET, fallback = &*name, cause = cause.as_str(), "{what}");
        }
    }

    /// Nobody's subscriber runs under the lock.
    fn name(&self) -> Cow<'static, str> {
        lock(&self.config).name.clone()
    }

    /// The present readings. They are taken one after the other, so under load they need not add up exactly.
    pub fn snapshot(&self) -> FallbackSnapshot {
        let counts = &self.counts;
        FallbackSnapshot {
            refused_total: counts.refused.load(Relaxed),
            failure_total: counts.failure.load(Relaxed),
            overload_total: counts.overload.load(Relaxed),
            unwanted_total: counts.unwanted.load(Relaxed),
            switched_total: counts.switched.load(Relaxed),
            failed_total: counts.failed.load(Relaxed),
            observed_total: counts.observed.load(Relaxed),
            mode: self.mode.get(),
        }
    }

    /// The config as it was last given.
    pub fn config(&self) -> FallbackConfig {
        lock(&self.config).clone()
    }

    /// Changes what later results are judged by. Counts stay.
    ///
    /// # Errors
    ///
    /// None yet: there is no wrong config.
    pub fn update(&self, config: FallbackConfig) -> Result<(), ConfigError> {
        let mut kept = lock(&self.config);
        self.on.store(config.on.bits(), Relaxed);
        *kept = config;
        Ok(())
    }
}

impl Default for Fallback {
    fn default() -> Self {
        Self::new(FallbackConfig::default())
    }
}

impl From<FallbackConfig> for Fallback {
    fn from(config: FallbackConfig) -> Self {
        Self::new(config)
    }
}

impl Fresh for Fallback {
    fn fresh(&self) -> Self {
        Self::new(self.config())
    }
}

impl Handle for Fallback {
    fn kind(&self) -> &'static str {
        LAYER
    }

    fn visit(&self, show: &mut dyn FnMut(&'static str, Value)) {
        let seen = self.snapshot();
        show("refused_total", Value::Count(seen.refused_total));
        show("failure_total", Value::Count(seen.failure_total));
        show("overload_total", Value::Count(seen.overload_total));
        show("unwanted_total", Value::Count(seen.unwanted_total));
        show("switched_total", Value::Count(seen.switched_total));
        show("failed_total", Value::Count(seen.failed_total));
        show("observed_total", Value::Count(seen.observed_total));
    }

    fn mode(&self) -> Mode {
        self.mode.get()
    }

    fn set_mode(&self, mode: Mode) -> Result<(), ConfigError> {
        self.mode.set(mode)?;
        self.wakers.wake_all();
        tracing::info!(target: TARGET, fallback = &*self.name(), mode = mode.as_str(), "fallback mode changed");
        Ok(())
    }
}

impl fmt::Debug for Fallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fallback").field("snapshot", &self.snapshot()).finish_non_exhaustive()
    }
}
