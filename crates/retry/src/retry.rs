use crate::{Cause, Course, Decision, RetryConfig, Wait, Why, rules::Rules};
use buttress_core::{
    Budget, BudgetSnapshot, Clock, ConfigError, Draw, Fresh, Handle, Lease, Mode, ModeCell, Striped, Value,
    sync::{AtomicBool, AtomicU64, AtomicUsize, Mutex, Ordering::Relaxed, lock},
};
use std::{
    borrow::Cow,
    fmt,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

/// The target of events, as the facade names the crate.
const TARGET: &str = "buttress::retry";

/// Decides which attempts are made: the handle of [`RetryLayer`](crate::RetryLayer), and usable without a layer.
///
/// ```
/// use buttress_core::TokioClock;
/// use buttress_retry::{Cause, Course, Decision, Retry, Wait};
/// use std::time::Duration;
///
/// let retry = Retry::default();
/// let mut course = Course::new();
/// retry.deposit(&TokioClock);
/// // ... the first attempt failed:
/// match retry.decide(&mut course, Cause::Error, Wait::Backoff, None, &TokioClock) {
///     Decision::Retry { after, token, .. } => {
///         assert!(after <= Duration::from_millis(50));
///         // wait, send it again, and then
///         drop(token);
///     }
///     Decision::GiveUp(why) => println!("{why}"),
/// }
/// ```
///
/// | mode | what it does |
/// |---|---|
/// | `Auto` | retries |
/// | `Disabled` | every request is sent once, and nothing is kept or counted |
/// | `Enforcing(p)` | makes `p` percent of the retries it decides on and counts the others as `observed`; they are paid for all the same; at 0, [`Mode::OBSERVE_ONLY`], it observes only |
/// | `ForcedOpen` | there is no such mode: it refuses nothing |
pub struct Retry {
    pub(crate) shared: Striped<Shared>,
}

pub(crate) struct Shared {
    pub(crate) mode: ModeCell,
    /// What calls that do not fail read of the config.
    pub(crate) terms: Terms,
    pub(crate) budget: Arc<Budget>,
    pub(crate) draw: Draw,
    /// Read when an attempt has failed.
    rules: RwLock<Rules>,
    counts: Counts,
    /// As it was last given; only `update` and `config` take the lock.
    config: Mutex<RetryConfig>,
}

pub(crate) struct Terms {
    /// Whether any request is sent more than once.
    pub(crate) is_on: AtomicBool,
    pub(crate) max_body: AtomicUsize,
    pub(crate) idempotency_key: AtomicBool,
    pub(crate) grpc_peek: AtomicBool,
}

#[derive(Default)]
struct Counts {
    failed_firsts: AtomicU64,
    retries: [AtomicU64; Cause::ALL.len()],
    recovered: AtomicU64,
    gave_up: [AtomicU64; Why::ALL.len()],
}

/// What a [`Retry`] shows of itself.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct RetrySnapshot {
    /// First attempts that paid: of all layers that share the budget, without those that another layer's retry made.
    pub first_total: u64,
    /// First attempts whose result was not good.
    pub first_failed_total: u64,
    /// Further attempts.
    pub retries_total: u64,
    /// The same by what had failed: in the order of [`Cause::ALL`].
    pub retries_by_cause: [u64; Cause::ALL.len()],
    /// Calls that a further attempt made good.
    pub recovered_total: u64,
    /// Bad results that no attempt followed, by the reason: in the order of [`Why::ALL`].
    pub gave_up_by_why: [u64; Why::ALL.len()],
    /// What pays.
    pub budget: BudgetSnapshot,
    /// What an operator told it to do.
    pub mode: Mode,
}

impl RetrySnapshot {
    /// How many further attempts followed a failure of this kind.
    pub fn retries(&self, cause: Cause) -> u64 {
        self.retries_by_cause[cause as usize]
    }

    /// How many bad results no attempt followed for this reason.
    pub fn gave_up(&self, why: Why) -> u64 {
        self.gave_up_by_why[why as usize]
    }
}

impl Retry {
    pub(crate) fn with(config: RetryConfig, budget: Arc<Budget>) -> Self {
        let stripes = Striped::<Shared>::default_stripes();
        let shared = Shared {
            mode: ModeCell::new(0),
            terms: Terms {
                is_on: AtomicBool::new(config.max_attempts > 1),
                max_body: AtomicUsize::new(config.max_body),
                idempotency_key: AtomicBool::new(config.idempotency_key),
                grpc_peek: AtomicBool::new(config.grpc_peek),
            },
            budget,
            draw: Draw::new(Draw::seed(config.seed)),
            rules: RwLock::new(Rules::new(&config)),
            counts: Counts::default(),
            config: Mutex::new(config),
        };
        Self { shared: Striped::new(shared, stripes) }
    }

    /// A first attempt: it pays its share into the budget.
    #[inline]
    pub fn deposit(&self, clock: &impl Clock) {
        self.shared.budget.deposit(clock);
    }

    /// What becomes of a call whose last attempt failed: see [`Decision`].
    ///
    /// `deadline` is the whole call's. The decision is counted, and told as a `tracing` event.
    pub fn decide(
        &self,
        course: &mut Course,
        cause: Cause,
        wait: Wait,
        deadline: Option<Instant>,
        clock: &impl Clock,
    ) -> Decision {
        self.shared.decide(course, (cause, wait), deadline, clock, ())
    }

    /// What pays: share it with hedges, or with another layer.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.shared.budget
    }

    /// The present readings. They are taken one after the other, so under load they need not add up exactly.
    pub fn snapshot(&self) -> RetrySnapshot {
        let shared = &*self.shared;
        let retries_by_cause = std::array::from_fn(|i| shared.counts.retries[i].load(Relaxed));
        let budget = shared.budget.snapshot();
        RetrySnapshot {
            first_total: budget.deposits_total,
            first_failed_total: shared.counts.failed_firsts.load(Relaxed),
            retries_total: retries_by_cause.iter().sum(),
            retries_by_cause,
            recovered_total: shared.counts.recovered.load(Relaxed),
            gave_up_by_why: std::array::from_fn(|i| shared.counts.gave_up[i].load(Relaxed)),
            budget,
            mode: shared.mode.get(),
        }
    }

    /// The config as it was last given.
    pub fn config(&self) -> RetryConfig {
        lock(&self.shared.config).clone()
    }

    /// Changes what later decisions follow; what the budget has saved stays. The budget's own config is changed only where `config` has
    /// another one than before, so that a shared one is not changed by accident.
    ///
    /// # Errors
    ///
    /// A config that [`build`](RetryConfig::build) refuses, or another `seed`: it is fixed when the layer is made. Nothing is changed then.
    pub fn update(&self, config: RetryConfig) -> Result<(), ConfigError> {
        config.validate()?;
        let shared = &*self.shared;
        // Under the lock, so that two updates do not mix.
        let mut kept = lock(&shared.config);
        if config.seed != kept.seed {
            let show = |seed: Option<u64>| seed.map_or("nothing".to_owned(), |seed| seed.to_string());
            let allowed = format!("{}: it cannot change while the layer runs", show(kept.seed));
            return Err(ConfigError::new("seed", show(config.seed), allowed));
        }
        if config.budget != kept.budget {
            shared.budget.update(config.budget.clone()).map_err(|error| error.within("budget"))?;
        }
        *shared.rules.write().unwrap_or_else(PoisonError::into_inner) = Rules::new(&config);
        shared.terms.is_on.store(config.max_attempts > 1, Relaxed);
        shared.terms.max_body.store(config.max_body, Relaxed);
        shared.terms.idempotency_key.store(config.idempotency_key, Relaxed);
        shared.terms.grpc_peek.store(config.grpc_peek, Relaxed);
        *kept = config;
        Ok(())
    }
}

impl Shared {
    pub(crate) fn rules(&self) -> Rules {
        *self.rules.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call's `attempts`th attempt came out badly.
    pub(crate) fn failed(&self, attempts: u32) {
        if attempts == 1 {
            self.counts.failed_firsts.fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn recovered(&self) {
        self.counts.recovered.fetch_add(1, Relaxed);
    }

    pub(crate) fn retrying(&self, cause: Cause, attempts: u32, after: Duration) {
        self.counts.retries[cause as usize].fetch_add(1, Relaxed);
        if tracing::enabled!(target: TARGET, tracing::Level::DEBUG) {
            let name = self.name();
            tracing::debug!(target: TARGET, retry = &*name, cause = cause.as_str(), attempts, ?after, "retrying");
        }
    }

    pub(crate) fn gave_up(&self, why: Why, attempts: u32) {
        self.counts.gave_up[why as usize].fetch_add(1, Relaxed);
        if tracing::enabled!(target: TARGET, tracing::Level::DEBUG) {
            let name = self.name();
            tracing::debug!(target: TARGET, retry = &*name, why = why.as_str(), attempts, "gave up");
        }
    }

    /// Nobody's subscriber runs under the lock.
    fn name(&self) -> Cow<'static, str> {
        lock(&self.config).name.clone()
    }
}

pub(crate) type SharedLease = Arc<Lease<Shared>>;

impl Default for Retry {
    fn default() -> Self {
        Self::with(RetryConfig::default(), Arc::new(Budget::default()))
    }
}

/// With a budget of its own.
impl Fresh for Retry {
    fn fresh(&self) -> Self {
        Self::with(self.config(), Arc::new(self.shared.budget.fresh()))
    }
}

impl Handle for Retry {
    fn kind(&self) -> &'static str {
        "retry"
    }

    fn visit(&self, show: &mut dyn FnMut(&'static str, Value)) {
        const RETRIES: [&str; Cause::ALL.len()] = [
            "retries_unsent_total",
            "retries_error_total",
            "retries_status_total",
            "retries_grpc_total",
            "retries_overload_total",
            "retries_refused_total",
            "retries_timed_out_total",
            "retries_rule_total",
        ];
        const GAVE_UP: [&str; Why::ALL.len()] = [
            "gave_up_not_retryable_total",
            "gave_up_not_repeatable_total",
            "gave_up_declined_total",
            "gave_up_committed_total",
            "gave_up_attempts_total",
            "gave_up_pushed_back_total",
            "gave_up_retry_after_too_long_total",
            "gave_up_deadline_total",
            "gave_up_body_too_large_total",
            "gave_up_body_failed_total",
            "gave_up_budget_empty_total",
            "gave_up_budget_concurrent_total",
            "gave_up_budget_closed_total",
            "gave_up_observed_total",
        ];
        let snapshot = self.snapshot();
        show("first_total", Value::Count(snapshot.first_total));
        show("first_failed_total", Value::Count(snapshot.first_failed_total));
        show("retries_total", Value::Count(snapshot.retries_total));
        for (name, count) in RETRIES.into_iter().zip(snapshot.retries_by_cause) {
            show(name, Value::Count(count));
        }
        show("recovered_total", Value::Count(snapshot.recovered_total));
        for (name, count) in GAVE_UP.into_iter().zip(snapshot.gave_up_by_why) {
            show(name, Value::Count(count));
        }
        show("tokens", Value::Gauge(snapshot.budget.tokens as u64));
        show("in_flight", Value::Gauge(snapshot.budget.in_flight.into()));
    }

    fn mode(&self) -> Mode {
        self.shared.mode.get()
    }

    fn set_mode(&self, mode: Mode) -> Result<(), ConfigError> {
        if mode == Mode::ForcedOpen {
            return Err(ConfigError::new("mode", mode.as_str(), "auto, disabled, enforcing: a retry refuses nothing"));
        }
        self.shared.mode.set(mode)?;
        tracing::info!(target: TARGET, retry = &*self.config().name, mode = mode.as_str(), "retry mode changed");
        Ok(())
    }
}

impl fmt::Debug for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry").field("snapshot", &self.snapshot()).finish_non_exhaustive()
    }
}
