use crate::{
    DeadlineConfig,
    client::Client,
    wire::{Said, Wire},
};
use buttress_core::{
    ConfigError, Deadline, Fresh, Handle, Lease, Mode, ModeCell, Reason, Rejection, Striped, Value,
    sync::{AtomicBool, AtomicU64, Mutex, Ordering::Relaxed, lock},
};
use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

/// The name of this layer in refusals, metrics and logs.
pub(crate) const LAYER: &str = "deadline";

/// The deadlines of a layer and what became of its calls: the handle of [`DeadlineLayer`](crate::DeadlineLayer).
pub struct Deadlines {
    shared: Striped<Shared>,
}

/// What every call holds a lease of. The hot path only reads it; every count here is of a call that was ended.
pub(crate) struct Shared {
    pub(crate) mode: ModeCell,
    pub(crate) total: Span,
    pub(crate) per_try: Span,
    pub(crate) idle: Span,
    pub(crate) absolute: Span,
    pub(crate) propagate: AtomicBool,
    pub(crate) read: Option<Wire>,
    pub(crate) emit: Option<Wire>,
    pub(crate) counts: Counts,
    /// As it was last given; only `update` and `config` take the lock.
    config: Mutex<DeadlineConfig>,
}

pub(crate) type SharedLease = Arc<Lease<Shared>>;

#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) passed: AtomicU64,
    pub(crate) client_passed: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) bodies_cut: AtomicU64,
    pub(crate) idle: AtomicU64,
    pub(crate) malformed: AtomicU64,
    pub(crate) observed: AtomicU64,
}

/// A time span that may be missing, changed while calls read it.
pub(crate) struct Span(AtomicU64);

impl Span {
    const NONE: u64 = u64::MAX;

    fn new(span: Option<Duration>) -> Self {
        let cell = Self(AtomicU64::new(Self::NONE));
        cell.set(span);
        cell
    }

    fn set(&self, span: Option<Duration>) {
        // 584 years fit; more is as good as that.
        let nanos = span.map_or(Self::NONE, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX).min(Self::NONE - 1));
        self.0.store(nanos, Relaxed);
    }

    #[inline]
    pub(crate) fn get(&self) -> Option<Duration> {
        match self.0.load(Relaxed) {
            Self::NONE => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }
}

/// When a call ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    Never,
    /// So long after it first turned out to take time.
    In(Duration),
    At(Instant),
}

/// What was decided about one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) limit: Limit,
    pub(crate) by_client: bool,
    pub(crate) force: Force,
}

/// What happens at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Force {
    /// Nothing, bodies included.
    Off,
    /// It is counted.
    Observe,
    End,
}

impl Plan {
    /// No deadline; a body may still be idle.
    pub(crate) fn never(force: Force) -> Self {
        Self { limit: Limit::Never, by_client: false, force }
    }

    /// Why a call ends at `end`, or would. `client`: whom it may have waited for.
    pub(crate) fn reason(&self, client: Option<&Client>, end: Option<Instant>) -> Reason {
        if self.by_client || excused(client, end) { Reason::ClientDeadlinePassed } else { Reason::DeadlinePassed }
    }
}

/// Why a body ends that made no progress up to `end`.
pub(crate) fn idle_reason(client: Option<&Client>, end: Option<Instant>) -> Reason {
    if excused(client, end) { Reason::ClientDeadlinePassed } else { Reason::DeadlinePassed }
}

fn excused(client: Option<&Client>, end: Option<Instant>) -> bool {
    client.is_some_and(|client| client.excuses(end))
}

/// What bounds a call whose start is fixed: the whole of it, and this attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// What layers further in may know.
    pub(crate) whole: Option<Deadline>,
    pub(crate) attempt: Option<Deadline>,
}

impl Shared {
    /// min(the client's, ours, what is in the context); equal ones are ours.
    pub(crate) fn bounds(&self, now: Instant, said: Said, outer: Option<Deadline>) -> Bounds {
        // A moment that no clock can say is never.
        let ours = |span: &Span| span.get().and_then(|span| now.checked_add(span)).map(Deadline::new);
        let client = match said {
            Said::Within(span) => now.checked_add(span).map(|at| Deadline { at, by_client: true }),
            Said::Nothing | Said::Garbage => None,
        };
        let whole = earlier(earlier(ours(&self.total), outer), client);
        Bounds { whole, attempt: earlier(ours(&self.per_try), whole) }
    }

    /// Whether it has a deadline of its own to write into the context.
    #[inline]
    pub(crate) fn tells(&self) -> bool {
        self.propagate.load(Relaxed) && self.total.0.load(Relaxed) != Span::NONE
    }

    /// What bounds a call whose start nobody needs to know.
    #[inline]
    pub(crate) fn relative(&self) -> Limit {
        let nanos = self.total.0.load(Relaxed).min(self.per_try.0.load(Relaxed));
        if nanos == Span::NONE { Limit::Never } else { Limit::In(Duration::from_nanos(nanos)) }
    }

    /// A call that would be over before it began.
    #[cold]
    pub(crate) fn refuse(&self, reason: Reason) -> Rejection {
        self.counts.refused.fetch_add(1, Relaxed);
        self.ended("refused", reason)
    }

    /// A call whose response head did not come in time.
    #[cold]
    pub(crate) fn pass(&self, reason: Reason) -> Rejection {
        let count =
            if reason == Reason::ClientDeadlinePassed { &self.counts.client_passed } else { &self.counts.passed };
        count.fetch_add(1, Relaxed);
        self.ended("passed", reason)
    }

    /// A body that is ended.
    #[cold]
    pub(crate) fn cut(&self, reason: Reason, idle: bool) -> Rejection {
        let (count, what) = if idle { (&self.counts.idle, "idle body") } else { (&self.counts.bodies_cut, "body cut") };
        count.fetch_add(1, Relaxed);
        self.ended(what, reason)
    }

    /// What would have been ended, had the mode not said otherwise.
    #[cold]
    pub(crate) fn observe(&self) {
        self.counts.observed.fetch_add(1, Relaxed);
    }

    fn ended(&self, what: &'static str, reason: Reason) -> Rejection {
        tracing::debug!(target: "buttress::deadline", layer = LAYER, reason = reason.as_str(), "{what}");
        Rejection::new(reason, LAYER)
    }
}

#[inline]
fn earlier(one: Option<Deadline>, other: Option<Deadline>) -> Option<Deadline> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

impl Deadlines {
    pub(crate) fn of(config: DeadlineConfig, read: Option<Wire>, emit: Option<Wire>) -> Self {
        let shared = Shared {
            mode: ModeCell::new(seed(&config)),
            total: Span::new(config.total),
            per_try: Span::new(config.per_try),
            idle: Span::new(config.idle),
            absolute: Span::new(config.absolute),
            propagate: AtomicBool::new(config.propagate),
            read,
            emit,
            counts: Counts::default(),
            config: Mutex::new(config),
        };
        Self { shared: Striped::new(shared, Striped::<Shared>::default_stripes()) }
    }

    #[inline]
    pub(crate) fn lease(&self) -> SharedLease {
        self.shared.lease()
    }

    /// The config as it was last given.
    pub fn config(&self) -> DeadlineConfig {
        lock(&self.shared.config).clone()
    }

    /// Changes what later calls are bounded by; calls in flight keep what they have, counts go on.
    ///
    /// # Errors
    ///
    /// A config that [`build`](DeadlineConfig::build) refuses, or one with other headers: their names are fixed when the layer
    /// is made. Nothing is changed then.
    pub fn update(&self, config: DeadlineConfig) -> Result<(), ConfigError> {
        let (read, emit) = config.check()?;
        for (field, new, old) in [("read", &read, &self.shared.read), ("emit", &emit, &self.shared.emit)] {
            if new != old {
                let show = |wire: &Option<Wire>| wire.as_ref().map_or("nothing".to_owned(), Wire::to_string);
                let allowed = format!("{}: the headers are fixed when the layer is made", show(old));
                return Err(ConfigError::new(field, show(new), allowed));
            }
        }
        // Under the lock, so that two updates do not mix.
        let mut kept = lock(&self.shared.config);
        self.shared.total.set(config.total);
        self.shared.per_try.set(config.per_try);
        self.shared.idle.set(config.idle);
        self.shared.absolute.set(config.absolute);
        self.shared.propagate.store(config.propagate, Relaxed);
        *kept = config;
        Ok(())
    }

    /// What it is set to and what it has ended.
    pub fn snapshot(&self) -> DeadlineSnapshot {
        let (shared, counts) = (&*self.shared, &self.shared.counts);
        DeadlineSnapshot {
            mode: shared.mode.get(),
            total: shared.total.get(),
            per_try: shared.per_try.get(),
            idle: shared.idle.get(),
            absolute: shared.absolute.get(),
            passed_total: counts.passed.load(Relaxed),
            client_passed_total: counts.client_passed.load(Relaxed),
            refused_total: counts.refused.load(Relaxed),
            bodies_cut_total: counts.bodies_cut.load(Relaxed),
            idle_total: counts.idle.load(Relaxed),
            malformed_total: counts.malformed.load(Relaxed),
            observed_total: counts.observed.load(Relaxed),
        }
    }

    /// What an operator told it to do.
    pub fn mode(&self) -> Mode {
        self.shared.mode.get()
    }

    /// Tells it what to do: [`Mode::Disabled`] bounds nothing and writes no headers, [`Mode::OBSERVE_ONLY`] counts what it
    /// would end, [`Mode::Enforcing`] bounds that share of the calls. Calls in flight keep what they have.
    ///
    /// # Errors
    ///
    /// [`Mode::ForcedOpen`], which a deadline does not have, or more than 100 percent.
    pub fn set_mode(&self, mode: Mode) -> Result<(), ConfigError> {
        if mode == Mode::ForcedOpen {
            return Err(ConfigError::new("mode", mode.as_str(), "auto, disabled, observe_only or enforcing"));
        }
        self.shared.mode.set(mode)
    }
}

/// Any number will do: it decides which calls an `Enforcing` share hits.
fn seed(config: &DeadlineConfig) -> u64 {
    config.total.map_or(0, |total| total.as_nanos() as u64)
}

/// One deadline for the whole call. Of zero: every call is refused ([`DeadlineConfig::build`] would not allow it).
impl From<Duration> for Deadlines {
    fn from(total: Duration) -> Self {
        Self::of(DeadlineConfig::new(total), None, None)
    }
}

impl Fresh for Deadlines {
    fn fresh(&self) -> Self {
        Self::of(self.config(), self.shared.read.clone(), self.shared.emit.clone())
    }
}

impl Handle for Deadlines {
    fn kind(&self) -> &'static str {
        LAYER
    }

    fn visit(&self, show: &mut dyn FnMut(&'static str, Value)) {
        const MODES: &[&str] = &["auto", "disabled", "observe_only", "enforcing"];
        let snapshot = self.snapshot();
        show("mode", Value::State(snapshot.mode.as_str(), MODES));
        for (name, span) in [
            ("total", snapshot.total),
            ("per_try", snapshot.per_try),
            ("idle", snapshot.idle),
            ("absolute", snapshot.absolute),
        ] {
            if let Some(span) = span {
                show(name, Value::Duration(span));
            }
        }
        show("passed_total", Value::Count(snapshot.passed_total));
        show("client_passed_total", Value::Count(snapshot.client_passed_total));
        show("refused_total", Value::Count(snapshot.refused_total));
        show("bodies_cut_total", Value::Count(snapshot.bodies_cut_total));
        show("idle_total", Value::Count(snapshot.idle_total));
        show("malformed_total", Value::Count(snapshot.malformed_total));
        show("observed_total", Value::Count(snapshot.observed_total));
    }

    fn mode(&self) -> Mode {
        self.mode()
    }

    fn set_mode(&self, mode: Mode) -> Result<(), ConfigError> {
        self.set_mode(mode)
    }
}

impl fmt::Debug for Deadlines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.snapshot().fmt(f)
    }
}

/// A reading of [`Deadlines`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct DeadlineSnapshot {
    /// What an operator told it to do.
    pub mode: Mode,
    /// See [`DeadlineConfig::total`].
    #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration_opt"))]
    pub total: Option<Duration>,
    /// See [`DeadlineConfig::per_try`].
    #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration_opt"))]
    pub per_try: Option<Duration>,
    /// See [`DeadlineConfig::idle`].
    #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration_opt"))]
    pub idle: Option<Duration>,
    /// See [`DeadlineConfig::absolute`].
    #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration_opt"))]
    pub absolute: Option<Duration>,
    /// Calls whose response head did not come before a deadline of ours.
    pub passed_total: u64,
    /// The same for a deadline that the client had made shorter.
    pub client_passed_total: u64,
    /// Calls refused without an attempt: their deadline had passed.
    pub refused_total: u64,
    /// Bodies ended by a deadline.
    pub bodies_cut_total: u64,
    /// Bodies ended because they made no progress.
    pub idle_total: u64,
    /// Requests whose deadline header could not be read; it was ignored.
    pub malformed_total: u64,
    /// Calls and bodies that would have been ended had the mode not said otherwise.
    pub observed_total: u64,
}
