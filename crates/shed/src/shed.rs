use crate::{
    Ask, FromContext, ShedConfig, ShedPermit, ShedSnapshot,
    limit::Limit,
    shared::{Admits, Shared, TARGET},
};
use buttress_core::{
    Admission, Clock, ConfigError, Error, Fresh, Handle, Mode, Outcome, Rejection, Resting, Series, Settle, Signal,
    Striped, TokioClock, Value,
    sync::{Ordering::Relaxed, lock},
};
use std::{fmt, future::Future, sync::Arc, time::Instant};

/// Makes an algorithm that begins at a moment.
type Make = Arc<dyn Fn(Instant) -> Box<dyn Limit> + Send + Sync>;

/// A limit of calls in flight that finds itself, and a queue in front of it: the policy, its handle and its standalone use.
///
/// [`ShedLayer`](crate::ShedLayer) puts one around a service. On its own it guards whatever is no service:
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use buttress_core::Priority;
/// use buttress_shed::{Ask, ShedConfig};
///
/// let shed = ShedConfig::default().build().unwrap();
/// let ask = Ask::new().priority(Priority::Critical).tenant("acme");
/// let rows = shed.call(ask, async { Ok::<_, std::io::Error>(42) }).await;
/// assert_eq!(rows.unwrap(), 42);
/// # }
/// ```
///
/// | mode | what it does |
/// |---|---|
/// | `Auto` | sheds what is too much |
/// | `ForcedOpen` | refuses every newcomer; those who wait already still get their turn |
/// | `Disabled` | lets every call pass, and learns nothing; above the limit they are counted as `over_limit` |
/// | `Enforcing(p)` | holds `p` percent of the calls above the limit to it; the others pass, are counted, and teach it nothing; at 0, [`Mode::OBSERVE_ONLY`], it observes only |
pub struct Shed<D = FromContext> {
    pub(crate) shared: Striped<Shared>,
    pub(crate) describe: D,
    /// Of an algorithm that is not one of the config's.
    make: Option<Make>,
}

impl Shed {
    /// A shedder whose calls are described by their [`Context`](buttress_core::Context).
    ///
    /// # Errors
    ///
    /// The first field of `config` that is out of its range.
    pub fn new(config: ShedConfig) -> Result<Self, ConfigError> {
        Self::new_at(config, &TokioClock)
    }

    /// The same, by another clock; its moments must not lie before this one.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn new_at(config: ShedConfig, clock: &impl Clock) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self::made(config, FromContext, None, clock.now()))
    }

    /// With an algorithm of your own, made by `make` as of the moment it is given. [`ShedConfig::limit`] means nothing then.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn with_limit(
        config: ShedConfig,
        make: impl Fn(Instant) -> Box<dyn Limit> + Send + Sync + 'static,
    ) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self::made(config, FromContext, Some(Arc::new(make)), TokioClock.now()))
    }

    /// The same state; `describe` says what a call asks for, and what it leaves out the request's context does.
    ///
    /// ```
    /// use buttress_core::Priority;
    /// use buttress_shed::{Ask, ShedConfig};
    ///
    /// struct Job { tenant: u64, urgent: bool }
    /// let shed = ShedConfig::default().build()?.by(|job: &Job| {
    ///     let ask = Ask::new().tenant(job.tenant);
    ///     if job.urgent { ask.priority(Priority::Critical) } else { ask }
    /// });
    /// # let _ = shed;
    /// # Ok::<(), buttress_core::ConfigError>(())
    /// ```
    pub fn by<Req, F>(self, describe: F) -> Shed<F>
    where
        F: Fn(&Req) -> Ask + Send + Sync + 'static,
    {
        Shed { shared: self.shared, describe, make: self.make }
    }
}

impl<D> Shed<D> {
    fn made(config: ShedConfig, describe: D, make: Option<Make>, now: Instant) -> Self {
        let stripes = match config.stripes {
            0 => Striped::<Shared>::default_stripes(),
            n => (n as usize).next_power_of_two(),
        };
        let limit = make.as_ref().map_or_else(|| config.limit.make(), |make| make(now));
        Self { shared: Striped::new(Shared::new(config, limit, now, stripes), stripes), describe, make }
    }

    /// A permit, or a refusal at once, though there be a queue.
    ///
    /// # Errors
    ///
    /// [`Reason::Shed`](buttress_core::Reason::Shed): there is no room.
    #[inline]
    pub fn try_acquire(&self) -> Result<ShedPermit, Rejection> {
        self.shared.refuse_at(Ask::new, &TokioClock)
    }

    /// A permit, if need be after waiting for it in the queue.
    ///
    /// Dropped while it waits, it leaves the queue; a permit it was granted meanwhile goes to the next.
    ///
    /// # Errors
    ///
    /// The call was shed: see the [crate docs](crate#what-it-does).
    pub async fn acquire(&self, ask: Ask) -> Result<ShedPermit, Rejection> {
        match self.shared.enqueue_at(|| ask, &TokioClock)? {
            Admission::Now(permit) => Ok(permit),
            Admission::Later(waiting) => waiting.await,
        }
    }

    /// Makes a call, waiting for room as [`acquire`](Self::acquire) does: `Ok` is a success, `Err` a failure.
    ///
    /// # Errors
    ///
    /// The refusal, or the future's own error.
    pub async fn call<T, E, F>(&self, ask: Ask, future: F) -> Result<T, Error<E>>
    where
        F: Future<Output = Result<T, E>>,
    {
        let permit = self.acquire(ask).await.map_err(Error::Rejected)?;
        let result = future.await;
        permit.settle(if result.is_ok() { Outcome::Success } else { Outcome::Failure }, None);
        result.map_err(Error::Inner)
    }

    /// The present readings. They are taken one after the other, so under load they need not add up exactly.
    pub fn snapshot(&self) -> ShedSnapshot {
        ShedSnapshot::take(&self.shared, self.shared.nanos(&TokioClock))
    }

    /// The present config.
    pub fn config(&self) -> ShedConfig {
        lock(&self.shared.config).clone()
    }

    /// Changes the config while calls run: they keep their permits, and those who wait their places and their time. With another
    /// [`limit`](ShedConfig::limit) its algorithm begins anew; otherwise it knows what it knew.
    ///
    /// # Errors
    ///
    /// A field out of its range, a change of `stripes` or `seed`, or of the `limit` of a shedder that was made
    /// [with one of its own](Shed::with_limit). Nothing is changed then.
    pub fn update(&self, config: ShedConfig) -> Result<(), ConfigError> {
        config.validate()?;
        let mut present = lock(&self.shared.config);
        let fixed = |field, value: String, present: String| {
            Err(ConfigError::new(field, value, format!("{present}: it cannot change while the shedder runs")))
        };
        if config.stripes != present.stripes {
            return fixed("stripes", config.stripes.to_string(), present.stripes.to_string());
        }
        if config.seed != present.seed {
            return fixed("seed", format!("{:?}", config.seed), format!("{:?}", present.seed));
        }
        if self.make.is_some() && config.limit != present.limit {
            return fixed("limit", format!("{:?}", config.limit), format!("{:?}", present.limit));
        }
        let now = TokioClock.now();
        let limit = (config.limit != present.limit).then(|| config.limit.make());
        *present = config;
        self.shared.changed.store(true, Relaxed);
        self.shared.heed(&present);
        drop(present);
        if limit.is_some() {
            let nanos = self.shared.meter.nanos(now);
            self.shared.meter.restart(limit, nanos, self.shared.completed());
            self.shared.follow(nanos);
        }
        Ok(())
    }

    /// What others may know of it. [`Signal::LIMITED`] from a call that found no room to the end of a window in which none
    /// failed to, or to a moment when the limit is not even half used. Its pressure is made of two halves: how much of the limit was used at
    /// most in the last window, and how long the first in the queue has waited, measured by `burst_wait`. So 0.5 is all the
    /// service can do, and 1 is overload.
    pub fn signal(&self) -> Signal {
        self.shared.signal.clone()
    }
}

impl<D: Clone> Fresh for Shed<D> {
    fn fresh(&self) -> Self {
        Self::made(self.config(), self.describe.clone(), self.make.clone(), TokioClock.now())
    }
}

impl<D> Resting for Shed<D> {
    /// No call is in flight or waits, no operator told it anything, and its config is the one it was made with. The limit
    /// it has learnt does not keep it: it would for ever, and is soon learnt again.
    fn is_resting(&self) -> bool {
        let shared = &*self.shared;
        shared.permits.in_flight() == 0
            && shared.over_limit.load(Relaxed) == 0
            && shared.mode.is_auto()
            && !shared.changed.load(Relaxed)
            && shared.permits.queued() == 0
    }
}

impl<D: Send + Sync + 'static> Handle for Shed<D> {
    fn kind(&self) -> &'static str {
        "shed"
    }

    fn visit(&self, show: &mut dyn FnMut(&'static str, Value)) {
        self.snapshot().visit(show);
    }

    fn measure(&self, show: &mut dyn FnMut(Series<'_>)) {
        let name = lock(&self.shared.config).name.clone();
        self.snapshot().measure(&name, show);
    }

    fn mode(&self) -> Mode {
        self.shared.mode.get()
    }

    fn set_mode(&self, mode: Mode) -> Result<(), ConfigError> {
        let before = self.shared.mode.get();
        self.shared.mode.set(mode)?;
        let name = lock(&self.shared.config).name.clone();
        tracing::info!(target: TARGET, shed = &*name, mode = mode.as_str(), "shedder mode changed");
        let now = self.shared.nanos(&TokioClock);
        if before == Mode::Disabled && mode != Mode::Disabled {
            // The window spans a time in which nothing was seen.
            self.shared.meter.restart(None, now, self.shared.completed());
        }
        if matches!(mode, Mode::Disabled | Mode::OBSERVE_ONLY) {
            self.shared.permits.pass_all(self.shared.moment(now), || self.shared.count_pass());
        }
        Ok(())
    }
}

impl<D> fmt::Debug for Shed<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shed").field("snapshot", &self.snapshot()).finish_non_exhaustive()
    }
}
