use crate::{
    BreakerConfig, BreakerPermit, BreakerSnapshot, State, Transition,
    machine::Machine,
    run::{by_result, run},
    ticket::Ticket,
};
use buttress_core::{
    Clock, ConfigError, Error, Fresh, Handle, Mode, Outcome, Rejection, Resting, Signal, Striped, TokioClock, Value,
    sync::lock,
};
use std::{fmt, future::Future, sync::Arc};

/// A circuit breaker: the policy, its handle and its standalone use in one.
///
/// ```
/// use buttress_breaker::{BreakerConfig, Outcome, Settle};
///
/// let breaker = BreakerConfig::default().consecutive(2).build()?;
/// for _ in 0..2 {
///     breaker.try_acquire().expect("it is closed").settle(Outcome::Failure, None);
/// }
/// let refusal = breaker.try_acquire().unwrap_err();
/// assert!(refusal.retry_after.is_some());
/// # Ok::<(), buttress_breaker::ConfigError>(())
/// ```
pub struct Breaker {
    pub(crate) shared: Striped<Machine>,
}

impl Default for Breaker {
    /// A breaker with the default config.
    fn default() -> Self {
        Self::new(BreakerConfig::default()).expect("the defaults are valid")
    }
}

impl Breaker {
    /// A closed circuit.
    ///
    /// # Errors
    ///
    /// The first field of `config` with a value it cannot have.
    pub fn new(config: BreakerConfig) -> Result<Self, ConfigError> {
        Self::new_at(config, &TokioClock)
    }

    /// The same, by another clock; its moments must not lie before this one.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn new_at(config: BreakerConfig, clock: &impl Clock) -> Result<Self, ConfigError> {
        Self::with_stripes(config, clock, Striped::<Machine>::default_stripes())
    }

    /// With as many stripes (a power of two) as threads usually call it at once: 1 for one of many small breakers.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn with_stripes(config: BreakerConfig, clock: &impl Clock, stripes: usize) -> Result<Self, ConfigError> {
        config.validate()?;
        let stripes = stripes.max(1).next_power_of_two();
        Ok(Self { shared: Striped::new(Machine::new(config, clock.now(), stripes), stripes) })
    }

    /// Asks to make a call.
    ///
    /// # Errors
    ///
    /// The circuit is open; the refusal says when the next probe may go.
    #[inline]
    pub fn try_acquire(&self) -> Result<BreakerPermit, Rejection> {
        self.try_acquire_at(&TokioClock)
    }

    /// The same, by another clock. The permit's `.._at` methods take it, too.
    ///
    /// # Errors
    ///
    /// As [`try_acquire`](Self::try_acquire).
    #[inline]
    pub fn try_acquire_at(&self, clock: &impl Clock) -> Result<BreakerPermit, Rejection> {
        // The decision comes first: a refusal takes no lease.
        match self.shared.admit_plainly() {
            Some(word) => Ok(BreakerPermit::new(self.shared.lease(), Ticket::closed(word))),
            None => self.acquire_slowly(clock),
        }
    }

    #[inline(never)]
    fn acquire_slowly(&self, clock: &impl Clock) -> Result<BreakerPermit, Rejection> {
        let ticket = self.shared.admit(self.shared.stripe(), clock)?;
        Ok(BreakerPermit::new(self.shared.lease(), ticket))
    }

    /// Makes a call: `Ok` is a success, `Err` a failure. Refused, `future` is not polled.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// # use buttress_breaker::BreakerConfig;
    /// # async fn get_connection() -> Result<u32, std::io::Error> { Ok(7) }
    /// let breaker = BreakerConfig::default().build().unwrap();
    /// let connection = breaker.call(get_connection()).await;
    /// # assert_eq!(connection.unwrap(), 7);
    /// # }
    /// ```
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

    /// The present state. An open circuit whose time is over stays so until a call comes.
    pub fn state(&self) -> State {
        State::of(self.shared.word())
    }

    /// All there is to know.
    pub fn snapshot(&self) -> BreakerSnapshot {
        self.snapshot_at(&TokioClock)
    }

    /// The same, by another clock.
    pub fn snapshot_at(&self, clock: &impl Clock) -> BreakerSnapshot {
        BreakerSnapshot::take(&self.shared, clock)
    }

    /// The present config.
    pub fn config(&self) -> BreakerConfig {
        lock(&self.shared.config).clone()
    }

    /// Replaces the config. State, counts and calls in flight stay; another length of a time window begins an empty one,
    /// and with another `slow_after` or `hang_after` the calls now in flight are judged at their ends only.
    ///
    /// # Errors
    ///
    /// A value that a field cannot have, or another kind or size of count window: that takes a new breaker. Then nothing
    /// has changed.
    pub fn update(&self, config: BreakerConfig) -> Result<(), ConfigError> {
        self.update_at(config, &TokioClock)
    }

    /// The same, by another clock.
    ///
    /// # Errors
    ///
    /// As [`update`](Self::update).
    pub fn update_at(&self, config: BreakerConfig, clock: &impl Clock) -> Result<(), ConfigError> {
        config.validate()?;
        self.shared.update(config, clock)?;
        self.shared.sync_signal(self.shared.nanos(clock));
        self.shared.wakers.wake_all();
        Ok(())
    }

    /// Closes the circuit, whatever its state, and forgets what it has seen. The operator's mode stays.
    pub fn reset(&self) {
        self.reset_at(&TokioClock);
    }

    /// The same, by another clock.
    pub fn reset_at(&self, clock: &impl Clock) {
        self.shared.reset(self.shared.nanos(clock));
    }

    /// Calls `listener` after every transition, on the thread that caused it and under no lock: it may use the breaker.
    pub fn on_transition(&self, listener: impl Fn(&Transition) + Send + Sync + 'static) {
        lock(&self.shared.listeners).push(Arc::new(listener));
    }

    /// What others may read: [`Signal::OPEN`] is raised until the next probe while the circuit is open or half-open; half-open with
    /// a place for a probe, that moment has come. On a ramp it is raised until the next call passes for certain, and its pressure is the
    /// share that is refused: a balancer that waits for the moment is never refused and brings the ramp to its end, one
    /// that draws by the pressure sends as many calls as it takes. Where an operator lets a share of the calls pass
    /// ([`Mode::Enforcing`]), it is quiet.
    pub fn signal(&self) -> Signal {
        self.shared.signal.clone()
    }
}

impl Fresh for Breaker {
    fn fresh(&self) -> Self {
        let stripes = self.shared.stripes();
        Self { shared: Striped::new(Machine::new(self.config(), TokioClock.now(), stripes), stripes) }
    }
}

impl Resting for Breaker {
    /// Closed and healthy again, no call in flight, no failures in a time window, nothing changed by an operator. What a count
    /// window or a streak remembers does not keep it: it would for ever, if no more calls come.
    fn is_resting(&self) -> bool {
        self.shared.leased() == 0 && self.shared.is_forgettable(self.shared.nanos(&TokioClock))
    }
}

impl Handle for Breaker {
    fn kind(&self) -> &'static str {
        "breaker"
    }

    fn visit(&self, show: &mut dyn FnMut(&'static str, Value)) {
        self.snapshot().visit(show);
    }

    fn mode(&self) -> Mode {
        self.shared.mode.get()
    }

    fn set_mode(&self, mode: Mode) -> Result<(), ConfigError> {
        self.shared.mode.set(mode)?;
        self.shared.sync_signal(self.shared.nanos(&TokioClock));
        self.shared.wakers.wake_all();
        Ok(())
    }
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breaker").field("state", &self.state()).field("mode", &self.mode()).finish_non_exhaustive()
    }
}
