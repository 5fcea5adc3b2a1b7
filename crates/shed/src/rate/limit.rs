use super::{
    RateLimitConfig,
    gcra::{Bucket, Rate},
};
use buttress_core::{
    Admit, Clock, ConfigError, Fresh, Gate, GateLayer, Gatekeeper, Handle, Mode, ModeCell, Opaque, Origin, Reason,
    Rejection, Resting, TokioClock, Value,
    sync::{AtomicBool, AtomicU64, Mutex, Ordering::Relaxed, lock},
};
use std::{
    fmt,
    time::{Duration, Instant},
};

/// The layer: `RateLimitConfig::per_second(100).layer()?`.
pub type RateLimitLayer = GateLayer<RateLimit>;

/// The service of [`RateLimitLayer`].
pub type RateLimitService<S, P = Opaque> = Gate<S, RateLimit, P>;

/// So many calls in a period, and so many at once.
///
/// It is its own handle: read it with [`snapshot`](Self::snapshot), change it with [`update`](Self::update), override it with
/// [`set_mode`](Handle::set_mode). On its own it limits whatever is no service:
///
/// ```
/// use buttress_core::Clock;
/// use buttress_shed::rate::RateLimitConfig;
/// use std::time::Duration;
///
/// let start = buttress_core::TokioClock.now();
/// let mails = RateLimitConfig::new(1, Duration::from_secs(2)).build_at(&start)?;
/// assert!(mails.check_at(&start).is_ok());
///
/// let refused = mails.check_at(&(start + Duration::from_millis(500))).unwrap_err();
/// assert_eq!(refused.retry_after, Some(Duration::from_millis(1500)));
/// # Ok::<(), buttress_core::ConfigError>(())
/// ```
///
/// | mode | what it does |
/// |---|---|
/// | `Auto` | refuses what is too much |
/// | `ForcedOpen` | refuses every call |
/// | `Disabled` | lets every call pass, and takes no permits |
/// | `Enforcing(p)` | refuses `p` percent of what is too much; the rest passes without a permit, and is counted; at 0, [`Mode::OBSERVE_ONLY`], it observes only |
pub struct RateLimit {
    bucket: Bucket,
    mode: ModeCell,
    origin: Origin,
    refused_total: AtomicU64,
    over_limit_total: AtomicU64,
    /// Whether the config was updated.
    changed: AtomicBool,
    /// In a table: which of its configs this is.
    edition: AtomicU64,
    /// What a client is told of the config.
    #[cfg(feature = "http")]
    policy: AtomicU64,
    config: Mutex<RateLimitConfig>,
}

/// What a rate limit shows of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct RateLimitSnapshot {
    /// Calls that would pass if they came now.
    pub remaining: u32,
    /// The most that pass at once.
    pub burst: u32,
    /// The time from one permit to the next.
    #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration"))]
    pub every: Duration,
    /// Calls that were refused.
    pub refused_total: u64,
    /// Calls that were too many and that a mode let pass.
    pub over_limit_total: u64,
    /// What an operator told it to do.
    pub mode: Mode,
}

/// What is left of a rate limit at one moment, for who tells a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Quota {
    /// Calls that would pass if they came now.
    pub remaining: u32,
    /// The most that pass at once.
    pub burst: u32,
    /// How long it is until there is one permit more; zero: there are as many as there can be.
    pub next: Duration,
}

/// The target of events, as the facade names the crate.
const TARGET: &str = "buttress::shed";

const REFUSED: Rejection = Rejection::new(Reason::RateLimited, "rate_limit");

/// What is said of a limit that an operator closed: nobody knows until when.
pub(super) const CLOSED: Rejection = REFUSED.retry_after(Duration::from_secs(1));

pub(super) fn tell(config: &RateLimitConfig, rate: Rate) {
    let (name, permits, burst) = (&*config.name, config.permits, rate.burst);
    tracing::info!(target: TARGET, rate_limit = name, permits, period = ?config.period, burst, "rate limit changed");
}

pub(super) fn tell_mode(config: &RateLimitConfig, mode: Mode) {
    tracing::info!(target: TARGET, rate_limit = &*config.name, mode = mode.as_str(), "rate limit mode changed");
}

impl RateLimit {
    pub(super) fn with(config: RateLimitConfig, rate: Rate, now: Instant) -> Self {
        Self::of_edition(0, config, rate, now)
    }

    pub(super) fn of_edition(edition: u64, config: RateLimitConfig, rate: Rate, now: Instant) -> Self {
        Self {
            edition: AtomicU64::new(edition),
            bucket: Bucket::new(rate),
            mode: ModeCell::new(0),
            origin: Origin::new(now),
            refused_total: AtomicU64::new(0),
            over_limit_total: AtomicU64::new(0),
            changed: AtomicBool::new(false),
            #[cfg(feature = "http")]
            policy: AtomicU64::new(super::headers::policy(&config)),
            config: Mutex::new(config),
        }
    }

    /// Takes a permit.
    ///
    /// # Errors
    ///
    /// [`Reason::RateLimited`]: there is none, and when there will be one.
    #[inline]
    pub fn check(&self) -> Result<(), Rejection> {
        self.check_at(&TokioClock)
    }

    /// The same, by another clock.
    ///
    /// # Errors
    ///
    /// As [`check`](Self::check).
    #[inline]
    pub fn check_at(&self, clock: &impl Clock) -> Result<(), Rejection> {
        self.check_under(&self.mode, clock).map(drop)
    }

    /// The same; `mode`, where it says anything, counts more than the limit's own. `Ok(false)`: it was too much, and passes.
    #[inline]
    pub(super) fn check_under(&self, mode: &ModeCell, clock: &impl Clock) -> Result<bool, Rejection> {
        let mode = if mode.is_auto() { &self.mode } else { mode };
        if !mode.is_auto() {
            match mode.get() {
                Mode::Disabled => return Ok(true),
                Mode::ForcedOpen => return self.refuse(CLOSED),
                _ => {}
            }
        }
        match self.bucket.take(self.origin.nanos(clock.now())) {
            Ok(()) => Ok(true),
            Err(wait) if mode.enforces() => self.refuse(REFUSED.retry_after(wait)),
            Err(_) => {
                self.over_limit_total.fetch_add(1, Relaxed);
                Ok(false)
            }
        }
    }

    #[cold]
    fn refuse(&self, refusal: Rejection) -> Result<bool, Rejection> {
        self.refused_total.fetch_add(1, Relaxed);
        Err(refusal)
    }

    /// What is left.
    pub fn quota(&self) -> Quota {
        self.quota_at(&TokioClock)
    }

    /// The same, by another clock.
    pub fn quota_at(&self, clock: &impl Clock) -> Quota {
        let (remaining, next) = self.bucket.look(self.origin.nanos(clock.now()));
        Quota { remaining, burst: self.bucket.rate().burst, next }
    }

    /// The present readings.
    pub fn snapshot(&self) -> RateLimitSnapshot {
        self.snapshot_at(&TokioClock)
    }

    /// The same, by another clock.
    pub fn snapshot_at(&self, clock: &impl Clock) -> RateLimitSnapshot {
        let quota = self.quota_at(clock);
        RateLimitSnapshot {
            remaining: quota.remaining,
            burst: quota.burst,
            every: self.bucket.rate().time_of(1),
            refused_total: self.refused_total.load(Relaxed),
            over_limit_total: self.over_limit_total.load(Relaxed),
            mode: self.mode.get(),
        }
    }

    /// The present config.
    pub fn config(&self) -> RateLimitConfig {
        lock(&self.config).clone()
    }

    /// Changes the rate and the burst while calls come. As many permits as were taken stay taken; a call that comes at that very moment may be
    /// held to either rate.
    ///
    /// # Errors
    ///
    /// A field out of its range. Nothing is changed then.
    pub fn update(&self, config: RateLimitConfig) -> Result<(), ConfigError> {
        self.update_at(config, &TokioClock)
    }

    /// The same, by another clock.
    ///
    /// # Errors
    ///
    /// As [`update`](Self::update).
    pub fn update_at(&self, config: RateLimitConfig, clock: &impl Clock) -> Result<(), ConfigError> {
        let rate = config.rate()?;
        // Under the config's lock, so that of two updates the later one wins in both places.
        let mut present = lock(&self.config);
        tell(&config, rate);
        self.changed.store(true, Relaxed);
        self.change(config, rate, &mut present, clock);
        Ok(())
    }

    fn change(&self, config: RateLimitConfig, rate: Rate, present: &mut RateLimitConfig, clock: &impl Clock) {
        self.bucket.set_rate(rate, self.origin.nanos(clock.now()));
        #[cfg(feature = "http")]
        self.policy.store(super::headers::policy(&config), Relaxed);
        *present = config;
    }

    #[inline]
    pub(super) fn edition(&self) -> u64 {
        self.edition.load(Relaxed)
    }

    /// Takes over what the table says, unless this key was told something else, or knows better.
    pub(super) fn adopt(&self, edition: u64, config: &RateLimitConfig, rate: Rate) {
        let mut present = lock(&self.config);
        if edition <= self.edition() {
            return;
        }
        if *present == *config {
            self.changed.store(false, Relaxed);
        } else if !self.changed.load(Relaxed) {
            self.change(config.clone(), rate, &mut present, &TokioClock);
        }
        self.edition.store(edition, Relaxed);
    }

    /// What a client is told of the config; `None` while an operator's word counts, and not the bucket.
    #[cfg(feature = "http")]
    pub(super) fn policy(&self) -> Option<u64> {
        let is_told = !matches!(self.mode.get(), Mode::Disabled | Mode::ForcedOpen);
        is_told.then(|| self.policy.load(Relaxed))
    }

    /// The time in which so many permits come.
    #[cfg(feature = "http")]
    pub(super) fn time_of(&self, permits: u32) -> Duration {
        self.bucket.rate().time_of(permits)
    }
}

impl Gatekeeper for RateLimit {
    type Permit = ();
    type Turn = ();
}

impl<Req> Admit<Req> for RateLimit {
    #[inline]
    fn admit(&self, _: &mut (), _: &Req) -> Result<(), Rejection> {
        self.check()
    }
}

impl Fresh for RateLimit {
    fn fresh(&self) -> Self {
        let rate = self.bucket.rate();
        Self::with(self.config(), rate, TokioClock.now())
    }
}

impl Resting for RateLimit {
    /// The bucket is full, no operator told it anything, and its config is the one it was made with.
    fn is_resting(&self) -> bool {
        let quota = self.quota();
        quota.remaining == quota.burst && self.mode.is_auto() && !self.changed.load(Relaxed)
    }
}

impl Handle for RateLimit {
    fn kind(&self) -> &'static str {
        "rate_limit"
    }

    fn visit(&self, show: &mut dyn FnMut(&'static str, Value)) {
        let snapshot = self.snapshot();
        show("remaining", Value::Gauge(snapshot.remaining.into()));
        show("burst", Value::Gauge(snapshot.burst.into()));
        show("every", Value::Duration(snapshot.every));
        show("refused_total", Value::Count(snapshot.refused_total));
        show("over_limit_total", Value::Count(snapshot.over_limit_total));
    }

    fn mode(&self) -> Mode {
        self.mode.get()
    }

    fn set_mode(&self, mode: Mode) -> Result<(), ConfigError> {
        self.mode.set(mode)?;
        tell_mode(&self.config(), mode);
        Ok(())
    }
}

impl fmt::Debug for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimit").field("snapshot", &self.snapshot()).finish_non_exhaustive()
    }
}
