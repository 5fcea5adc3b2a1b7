use crate::{
    AdmissionMode, BulkheadConfig, Release, Waiting,
    line::{Full, Line, Permits},
};
use buttress_core::{
    Admission, Clock, ConfigError, Error, Fresh, Handle, Lease, Mode, ModeCell, Outcome, Pushback, Reason, Rejection,
    Resting, Settle, Signal, Striped, TokioClock, Value,
    permits::{Joined, MAX_LIMIT, Verdict},
    sync::{AtomicBool, AtomicU32, AtomicU64, Mutex, Ordering::Relaxed, lock},
};
use std::{convert::Infallible, fmt, future::Future, sync::Arc, time::Duration};

/// A compartment: so many calls at once, and no more.
///
/// [`BulkheadLayer`](crate::BulkheadLayer) puts one around a service. On its own it guards whatever is no service:
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use buttress_bulkhead::Bulkhead;
///
/// let pool = Bulkhead::from(8);
/// let rows = pool.call(async { Ok::<_, std::io::Error>(42) }).await;
/// assert_eq!(rows.unwrap(), 42);
/// assert_eq!(pool.snapshot().in_flight, 0);
/// # }
/// ```
///
/// It is its own handle: read it with [`snapshot`](Self::snapshot), change it with [`update`](Self::update) and
/// [`set_limit`](Self::set_limit), override it with [`set_mode`](Handle::set_mode).
///
/// | mode | what it does |
/// |---|---|
/// | `Auto` | holds every call to the limit |
/// | `ForcedOpen` | refuses every newcomer; those who wait already still get their turn |
/// | `Disabled` | lets every call pass; within the limit they take permits, above it they are counted as `over_limit` |
/// | `Enforcing(p)` | holds `p` percent of the calls above the limit to it (they wait or are refused); the others pass, and are counted; at 0, [`Mode::OBSERVE_ONLY`], it observes only |
pub struct Bulkhead {
    pub(crate) shared: Striped<Shared>,
}

pub(crate) struct Shared {
    pub(crate) permits: Permits,
    mode: ModeCell,
    /// Whether `signal` says so, in a place that calls read anyway.
    limited: AtomicBool,
    release_at_head: AtomicBool,
    pub(crate) back_pressure: bool,
    pub(crate) queued: bool,
    /// Whether it was said that a layer without a queue ignores `max_queue`.
    pub(crate) warned: AtomicBool,
    signal: Signal,
    config: Mutex<BulkheadConfig>,
    /// Whether the config was updated.
    changed: AtomicBool,
    /// Calls in flight without a permit.
    over_limit: AtomicU32,
    over_limit_total: AtomicU64,
    timed_out_total: AtomicU64,
}

/// The target of events, as the facade names the crate.
pub(crate) const TARGET: &str = "buttress::bulkhead";

/// What a bulkhead shows of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct BulkheadSnapshot {
    /// The limit.
    pub limit: u32,
    /// Calls in flight, with a permit and without.
    pub in_flight: u32,
    /// Calls in flight without a permit, as a mode let them pass.
    pub over_limit: u32,
    /// Calls that wait.
    pub queued: u32,
    /// Calls refused because there was no room.
    pub refused_total: u64,
    /// Calls refused because they had waited too long.
    pub timed_out_total: u64,
    /// Calls that a mode let pass without a permit.
    pub over_limit_total: u64,
    /// What an operator told it to do.
    pub mode: Mode,
}

/// When a refused caller should come back. Permits come back whenever a call ends, so there is nothing better to say.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(1);

pub(crate) const FULL: Rejection = Rejection::new(Reason::AtCapacity, "bulkhead").retry_after(RETRY_AFTER);
pub(crate) const WAITED: Rejection = Rejection::new(Reason::QueueTimeout, "bulkhead").retry_after(RETRY_AFTER);

impl Bulkhead {
    /// A bulkhead from a config that was validated.
    pub(crate) fn with(config: BulkheadConfig) -> Self {
        let stripes = match config.stripes {
            0 => spread(config.limit),
            n => (n as usize).next_power_of_two(),
        };
        let shared = Shared {
            permits: Permits::new(config.limit, stripes, Line::new(config.order)),
            mode: ModeCell::new(0),
            limited: AtomicBool::new(false),
            release_at_head: AtomicBool::new(config.release == Release::Head),
            back_pressure: config.admission == AdmissionMode::BackPressure,
            queued: config.max_queue > 0,
            warned: AtomicBool::new(false),
            signal: Signal::new(TokioClock.now()),
            config: Mutex::new(config),
            changed: AtomicBool::new(false),
            over_limit: AtomicU32::new(0),
            over_limit_total: AtomicU64::new(0),
            timed_out_total: AtomicU64::new(0),
        };
        Self { shared: Striped::new(shared, stripes) }
    }

    /// A permit, or a refusal at once.
    ///
    /// # Errors
    ///
    /// [`Reason::AtCapacity`]: the limit is reached.
    #[inline]
    pub fn try_acquire(&self) -> Result<BulkheadPermit, Rejection> {
        let home = self.shared.stripe();
        if self.shared.mode.is_auto()
            && !self.shared.limited.load(Relaxed)
            && self.shared.permits.try_acquire(home, || ())
        {
            return Ok(BulkheadPermit::new(self.shared.lease_of(home), Held::Permit));
        }
        self.try_acquire_slowly()
    }

    /// A permit, if need be after waiting for it as the config says: up to `max_wait`, in a queue of up to `max_queue`.
    ///
    /// Dropped while it waits, it leaves the queue; a permit it was granted meanwhile goes to the next.
    ///
    /// # Errors
    ///
    /// [`Reason::AtCapacity`]: no room, and none to wait either. [`Reason::QueueTimeout`]: it waited too long.
    pub async fn acquire(&self) -> Result<BulkheadPermit, Rejection> {
        match self.enqueue(&TokioClock)? {
            Admission::Now(permit) => Ok(permit),
            Admission::Later(waiting) => waiting.await,
        }
    }

    /// Runs `future` in the compartment, waiting for a permit as [`acquire`](Self::acquire) does.
    ///
    /// # Errors
    ///
    /// The refusal, or the future's own error.
    pub async fn call<T, E, F>(&self, future: F) -> Result<T, Error<E>>
    where
        F: Future<Output = Result<T, E>>,
    {
        let _permit = self.acquire().await.map_err(Error::Rejected)?;
        future.await.map_err(Error::Inner)
    }

    /// The present readings. They are taken one after the other, so under load they need not add up exactly.
    pub fn snapshot(&self) -> BulkheadSnapshot {
        let shared = &*self.shared;
        let over_limit = shared.over_limit.load(Relaxed);
        BulkheadSnapshot {
            limit: shared.permits.limit(),
            in_flight: shared.permits.in_flight() + over_limit,
            over_limit,
            queued: shared.permits.queued(),
            refused_total: shared.permits.stripes().map(|refused| refused.load(Relaxed)).sum(),
            timed_out_total: shared.timed_out_total.load(Relaxed),
            over_limit_total: shared.over_limit_total.load(Relaxed),
            mode: shared.mode.get(),
        }
    }

    /// The present config.
    pub fn config(&self) -> BulkheadConfig {
        lock(&self.shared.config).clone()
    }

    /// Changes the limit and nothing else. See [`update`](Self::update).
    ///
    /// # Errors
    ///
    /// A limit above [`MAX_LIMIT`](crate::MAX_LIMIT).
    pub fn set_limit(&self, limit: u32) -> Result<(), ConfigError> {
        self.change(|config| config.limit = limit)
    }

    /// Changes the config while calls run: they keep their permits, and those who wait their places.
    ///
    /// A higher limit lets waiting calls in at once. A lower one takes effect as calls end: nobody is admitted until fewer are
    /// in flight than it allows. Waiting calls keep the `max_wait` they came with.
    ///
    /// # Errors
    ///
    /// A field out of its range; a change of `stripes` or `admission`; a queue where there was none when the bulkhead was built
    /// (the layer decides at once and could not wait). Nothing is changed then.
    pub fn update(&self, config: BulkheadConfig) -> Result<(), ConfigError> {
        self.change(|present| *present = config)
    }

    /// What others may know of it: [`Signal::LIMITED`] from a call that found no room until one that did.
    pub fn signal(&self) -> Signal {
        self.shared.signal.clone()
    }

    fn change(&self, change: impl FnOnce(&mut BulkheadConfig)) -> Result<(), ConfigError> {
        let mut present = lock(&self.shared.config);
        let mut next = present.clone();
        change(&mut next);
        next.validate()?;
        if next.stripes != present.stripes {
            let allowed = format!("{}: it cannot change while the bulkhead runs", present.stripes);
            return Err(ConfigError::new("stripes", next.stripes, allowed));
        }
        if next.admission != present.admission {
            let allowed = format!("{:?}: it cannot change while the bulkhead runs", present.admission);
            return Err(ConfigError::new("admission", format!("{:?}", next.admission), allowed));
        }
        if next.max_queue > 0 && !self.shared.queued {
            return Err(ConfigError::new("max_queue", next.max_queue, "0: this bulkhead was built without a queue"));
        }
        let limits = (present.limit, next.limit);
        *present = next;
        self.shared.changed.store(true, Relaxed);
        self.shared.release_at_head.store(present.release == Release::Head, Relaxed);
        self.shared.permits.with_line(|line, _| line.order = present.order);
        if limits.0 != limits.1 {
            tracing::info!(target: TARGET, bulkhead = &*present.name, from = limits.0, to = limits.1, "bulkhead limit changed");
            // Under the config's lock, so that of two updates the later one wins in both places.
            self.shared.permits.set_limit(|| limits.1, ());
        }
        Ok(())
    }

    #[cold]
    fn try_acquire_slowly(&self) -> Result<BulkheadPermit, Rejection> {
        self.admit_now().unwrap_or_else(|| Err(self.refuse()))
    }

    /// What can be said without waiting; `None`: there is no room, and this call is held to the limit.
    fn admit_now(&self) -> Option<Result<BulkheadPermit, Rejection>> {
        let mode = self.shared.mode.get();
        if mode == Mode::ForcedOpen {
            return Some(Err(self.refuse()));
        }
        let home = self.shared.stripe();
        if self.shared.permits.try_acquire(home, || ()) {
            self.shared.set_limited(false);
            return Some(Ok(BulkheadPermit::new(self.shared.lease_of(home), Held::Permit)));
        }
        self.shared.set_limited(true);
        if self.shared.mode.enforces() {
            return None;
        }
        self.shared.count_pass();
        Some(Ok(BulkheadPermit::new(self.shared.lease(), Held::Pass)))
    }

    /// A permit, a place in the queue, or a refusal.
    #[inline]
    pub(crate) fn enqueue(&self, clock: &impl Clock) -> Result<Admission<BulkheadPermit, Waiting>, Rejection> {
        let home = self.shared.stripe();
        if self.shared.mode.is_auto()
            && !self.shared.limited.load(Relaxed)
            && self.shared.permits.try_acquire(home, || ())
        {
            return Ok(Admission::Now(BulkheadPermit::new(self.shared.lease_of(home), Held::Permit)));
        }
        let (max_queue, max_wait) = {
            let config = lock(&self.shared.config);
            (config.max_queue, config.max_wait)
        };
        self.enqueue_slowly(max_queue, || clock.now().checked_add(max_wait))
    }

    #[cold]
    pub(crate) fn enqueue_slowly(
        &self,
        max_queue: u32,
        until: impl FnOnce() -> Option<std::time::Instant>,
    ) -> Result<Admission<BulkheadPermit, Waiting>, Rejection> {
        if let Some(decided) = self.admit_now() {
            return decided.map(Admission::Now);
        }
        let lease = self.shared.lease();
        match lease.permits.join(lease.stripe(), (), |line, seat, _| line.push(seat, max_queue)) {
            Ok(Joined::Now) => Ok(Admission::Now(BulkheadPermit::new(lease, Held::Permit))),
            Ok(Joined::Later(place)) => Ok(Admission::Later(Waiting::new(lease, place, until()))),
            Err(Full) => Err(self.refuse()),
        }
    }

    #[cold]
    pub(crate) fn refuse(&self) -> Rejection {
        self.shared.permits.stripe(self.shared.stripe()).fetch_add(1, Relaxed);
        FULL
    }
}

impl Shared {
    pub(crate) fn count_pass(&self) {
        self.over_limit.fetch_add(1, Relaxed);
        self.over_limit_total.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_time_out(&self) {
        self.timed_out_total.fetch_add(1, Relaxed);
    }

    fn set_limited(&self, limited: bool) {
        if self.limited.load(Relaxed) != limited {
            self.limited.store(limited, Relaxed);
            match limited {
                true => self.signal.raise(Signal::LIMITED, None),
                false => self.signal.clear(Signal::LIMITED),
            }
        }
    }
}

/// So many calls at once, refused at once beyond that. 0 refuses every call; a limit above [`MAX_LIMIT`] is as good as that.
impl From<u32> for Bulkhead {
    fn from(limit: u32) -> Self {
        Self::with(BulkheadConfig::new(limit.min(MAX_LIMIT)))
    }
}

impl Fresh for Bulkhead {
    fn fresh(&self) -> Self {
        Self::with(self.config())
    }
}

impl Resting for Bulkhead {
    /// No call is in flight or waits, no operator told it anything, and its config is the one it was made with.
    fn is_resting(&self) -> bool {
        let shared = &*self.shared;
        shared.permits.in_flight() == 0
            && shared.over_limit.load(Relaxed) == 0
            && shared.mode.is_auto()
            && !shared.changed.load(Relaxed)
            && shared.permits.queued() == 0
    }
}

impl Handle for Bulkhead {
    fn kind(&self) -> &'static str {
        "bulkhead"
    }

    fn visit(&self, show: &mut dyn FnMut(&'static str, Value)) {
        let snapshot = self.snapshot();
        show("limit", Value::Gauge(snapshot.limit.into()));
        show("in_flight", Value::Gauge(snapshot.in_flight.into()));
        show("over_limit", Value::Gauge(snapshot.over_limit.into()));
        show("queued", Value::Gauge(snapshot.queued.into()));
        show("refused_total", Value::Count(snapshot.refused_total));
        show("timed_out_total", Value::Count(snapshot.timed_out_total));
        show("over_limit_total", Value::Count(snapshot.over_limit_total));
    }

    fn mode(&self) -> Mode {
        self.shared.mode.get()
    }

    fn set_mode(&self, mode: Mode) -> Result<(), ConfigError> {
        self.shared.mode.set(mode)?;
        tracing::info!(target: TARGET, bulkhead = &*self.config().name, mode = mode.as_str(), "bulkhead mode changed");
        if matches!(mode, Mode::Disabled | Mode::OBSERVE_ONLY) {
            self.shared.permits.pass_all((), || self.shared.count_pass());
        }
        Ok(())
    }
}

impl fmt::Debug for Bulkhead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bulkhead").field("snapshot", &self.snapshot()).finish_non_exhaustive()
    }
}

/// Over how many stripes a limit is spread.
fn spread(limit: u32) -> usize {
    let most = Striped::<()>::default_stripes();
    let fitting = (limit / 8).max(1);
    most.min(1 << fitting.ilog2())
}

/// What a call in the compartment holds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Held {
    Permit,
    /// A mode let it pass.
    Pass,
}

/// What one that waited was told.
impl From<Verdict<Infallible>> for Held {
    fn from(verdict: Verdict<Infallible>) -> Self {
        match verdict {
            Verdict::Permit => Self::Permit,
            Verdict::Pass => Self::Pass,
            Verdict::Refused(never) => match never {},
        }
    }
}

/// A call's place in the compartment; dropped, it is free again.
pub struct BulkheadPermit {
    lease: Arc<Lease<Shared>>,
    held: Option<Held>,
}

impl BulkheadPermit {
    #[inline]
    pub(crate) fn new(lease: Arc<Lease<Shared>>, grant: Held) -> Self {
        Self { lease, held: Some(grant) }
    }

    #[inline]
    fn give_back(&mut self) {
        match self.held.take() {
            Some(Held::Permit) => self.lease.permits.release(self.lease.stripe(), || ()),
            Some(Held::Pass) => {
                self.lease.over_limit.fetch_sub(1, Relaxed);
            }
            None => {}
        }
    }
}

impl Settle for BulkheadPermit {
    #[inline]
    fn head(&mut self) {
        if self.lease.release_at_head.load(Relaxed) {
            self.give_back();
        }
    }

    /// A bulkhead asks how many, not how well.
    #[inline]
    fn conclude(&mut self, _: Outcome, _: Option<Pushback>) {}
}

impl Drop for BulkheadPermit {
    #[inline]
    fn drop(&mut self) {
        self.give_back();
    }
}

impl fmt::Debug for BulkheadPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BulkheadPermit").field("held", &self.held).finish_non_exhaustive()
    }
}
