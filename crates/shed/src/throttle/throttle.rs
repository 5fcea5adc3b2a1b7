use super::{
    ThrottleConfig, ThrottlePermit,
    counts::{Calls, Seen},
};
use crate::sampled::{Claim, Sampled};
use buttress_core::{
    Admit, Clock, ConfigError, Draw, Fresh, Gate, GateLayer, Gatekeeper, Handle, Mode, ModeCell, Opaque, Origin,
    Reason, Rejection, Resting, Striped, TokioClock, Value,
    sync::{AtomicBool, AtomicU64, Mutex, Ordering::Relaxed, lock},
};
use std::{
    fmt,
    time::{Duration, Instant},
};

/// The layer: `ThrottleConfig::default().layer()?`.
pub type ThrottleLayer = GateLayer<Throttle>;

/// The service of [`ThrottleLayer`].
pub type ThrottleService<S, P = Opaque> = Gate<S, Throttle, P>;

/// Refuses, by chance, what would be refused anyway.
///
/// It is its own handle: read it with [`snapshot`](Self::snapshot), change it with [`update`](Self::update), override it with
/// [`set_mode`](Handle::set_mode). On its own:
///
/// ```
/// use buttress_core::{Outcome, Settle};
/// use buttress_shed::throttle::Throttle;
///
/// let throttle = Throttle::default();
/// let permit = throttle.try_send()?; // the call is made here
/// permit.settle(Outcome::Success, None);
/// # Ok::<(), buttress_core::Rejection>(())
/// ```
///
/// | mode | what it does |
/// |---|---|
/// | `Auto` | refuses what chance says |
/// | `ForcedOpen` | refuses every call |
/// | `Disabled` | lets every call pass, and counts none |
/// | `Enforcing(p)` | refuses `p` percent of those that chance says. The others are sent and counted as any call is: what the service says of them makes the probability what it would be if they were refused; at 0, [`Mode::OBSERVE_ONLY`], it observes only |
pub struct Throttle {
    shared: Striped<Shared>,
}

pub(super) struct Shared {
    calls: Calls,
    /// The probability, of 2^24.
    word: Sampled,
    mode: ModeCell,
    draw: Draw,
    origin: Origin,
    refused_total: AtomicU64,
    overload_total: AtomicU64,
    over_total: AtomicU64,
    /// Whether the config was updated.
    changed: AtomicBool,
    config: Mutex<ThrottleConfig>,
}

/// What a throttle shows of itself.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ThrottleSnapshot {
    /// The probability with which the next call is refused.
    pub probability: f64,
    /// Calls in the window, but for those that nothing was said of.
    pub calls: u64,
    /// Of these, those that were accepted, or may yet be.
    pub accepted: u64,
    /// Calls that were sent and are not over.
    pub in_flight: u64,
    /// Calls that were refused here.
    pub refused_total: u64,
    /// Calls that the service called too many.
    pub overload_total: u64,
    /// Calls that chance refused and a mode sent.
    pub over_total: u64,
    /// What an operator told it to do.
    pub mode: Mode,
}

/// The target of events, as the facade names the crate.
const TARGET: &str = "buttress::shed";

/// The window moves on by then, and with it the odds.
const REFUSED: Rejection = Rejection::new(Reason::Shed, "throttle").retry_after(Duration::from_secs(1));

impl Throttle {
    pub(super) fn with(config: ThrottleConfig, now: Instant) -> Self {
        let stripes = Striped::<()>::default_stripes();
        let seed = Draw::seed(config.seed);
        let shared = Shared {
            calls: Calls::new(config.window, stripes),
            word: Sampled::default(),
            mode: ModeCell::new(seed),
            draw: Draw::new(seed),
            origin: Origin::new(now),
            refused_total: AtomicU64::new(0),
            overload_total: AtomicU64::new(0),
            over_total: AtomicU64::new(0),
            changed: AtomicBool::new(false),
            config: Mutex::new(config),
        };
        Self { shared: Striped::new(shared, stripes) }
    }

    /// A permit for a call that is sent at once.
    ///
    /// # Errors
    ///
    /// [`Reason::Shed`]: chance says no.
    #[inline]
    pub fn try_send(&self) -> Result<ThrottlePermit, Rejection> {
        self.try_send_at(&TokioClock)
    }

    /// The same, by another clock.
    ///
    /// # Errors
    ///
    /// As [`try_send`](Self::try_send).
    #[inline]
    pub fn try_send_at(&self, clock: &impl Clock) -> Result<ThrottlePermit, Rejection> {
        let stripe = self.shared.stripe();
        if self.shared.mode.is_auto() && self.shared.word.last() == 0 {
            let (epoch, is_late) = self.shared.calls.sent(stripe);
            if is_late {
                self.shared.calls.advance(self.shared.origin.nanos(clock.now()));
            }
            return Ok(ThrottlePermit::new(self.shared.lease_of(stripe), epoch));
        }
        self.try_send_slowly(stripe, clock)
    }

    fn try_send_slowly(&self, stripe: usize, clock: &impl Clock) -> Result<ThrottlePermit, Rejection> {
        let shared = &*self.shared;
        match shared.mode.get() {
            Mode::Disabled => return Ok(ThrottlePermit::unseen(self.shared.lease_of(stripe))),
            Mode::ForcedOpen => {
                shared.refused_total.fetch_add(1, Relaxed);
                return Err(REFUSED);
            }
            _ => {}
        }
        let now = shared.origin.nanos(clock.now());
        let probability = shared.probability(now);
        let is_refused = shared.draw.draw() >> (64 - SURE.count_ones()) < probability;
        if is_refused && shared.mode.enforces() {
            shared.calls.refused(stripe, now);
            shared.refused_total.fetch_add(1, Relaxed);
            return Err(REFUSED);
        }
        shared.over_total.fetch_add(is_refused.into(), Relaxed);
        shared.calls.advance(now);
        let (epoch, _) = shared.calls.sent(stripe);
        Ok(ThrottlePermit::new(self.shared.lease_of(stripe), epoch))
    }

    /// The present readings.
    pub fn snapshot(&self) -> ThrottleSnapshot {
        self.snapshot_at(&TokioClock)
    }

    /// The same, by another clock.
    pub fn snapshot_at(&self, clock: &impl Clock) -> ThrottleSnapshot {
        let shared = &*self.shared;
        let now = shared.origin.nanos(clock.now());
        let seen = shared.calls.seen(now);
        ThrottleSnapshot {
            probability: shared.work_out(&seen),
            calls: seen.made,
            accepted: seen.accepted(),
            in_flight: self.shared.leased() as u64,
            refused_total: shared.refused_total.load(Relaxed),
            overload_total: shared.overload_total.load(Relaxed),
            over_total: shared.over_total.load(Relaxed),
            mode: shared.mode.get(),
        }
    }

    /// The present config.
    pub fn config(&self) -> ThrottleConfig {
        lock(&self.shared.config).clone()
    }

    /// Changes the config while calls run. Another window begins empty; the seed is for the next instance.
    ///
    /// # Errors
    ///
    /// A field out of its range. Nothing is changed then.
    pub fn update(&self, config: ThrottleConfig) -> Result<(), ConfigError> {
        self.update_at(config, &TokioClock)
    }

    /// The same, by another clock.
    ///
    /// # Errors
    ///
    /// As [`update`](Self::update).
    pub fn update_at(&self, config: ThrottleConfig, clock: &impl Clock) -> Result<(), ConfigError> {
        config.validate()?;
        let shared = &*self.shared;
        let now = shared.origin.nanos(clock.now());
        {
            let mut present = lock(&shared.config);
            tracing::info!(target: TARGET, throttle = &*config.name, k = config.k, window = ?config.window, "throttle changed");
            shared.calls.resize(config.window, now);
            shared.changed.store(true, Relaxed);
            *present = config;
        }
        // At once, so that a throttle that refused nothing hears of it before the next "too much"; and by this config, whatever a look under way read.
        shared.refresh(shared.word.seize(now / 1_000_000 + shared.calls.every()), now);
        Ok(())
    }
}

#[cfg(all(test, buttress_loom))]
impl Throttle {
    /// The probability as calls see it.
    pub(super) fn probability_at(&self, clock: &impl Clock) -> f64 {
        self.shared.probability(self.shared.origin.nanos(clock.now())) as f64 / SURE as f64
    }
}

impl Shared {
    /// Says what came of a call that was sent in `epoch`: that it was too much, or nothing.
    #[cold]
    pub(super) fn said(&self, stripe: usize, epoch: u64, too_much: bool, clock: &impl Clock) {
        let now = self.origin.nanos(clock.now());
        self.calls.said(stripe, epoch, too_much, now);
        if too_much {
            self.overload_total.fetch_add(1, Relaxed);
            self.probability(now);
        }
    }

    /// The probability at `now`, of 2^24, worked out anew if that is due.
    fn probability(&self, now: u64) -> u64 {
        let read = self.word.read(now / 1_000_000, self.calls.every());
        read.unwrap_or_else(|claim| self.refresh(claim, now))
    }

    fn refresh(&self, claim: Claim, now: u64) -> u64 {
        let share = self.work_out(&self.calls.seen(now));
        let probability = (share * SURE as f64) as u64;
        self.word.write(claim, probability);
        probability
    }

    fn work_out(&self, seen: &Seen) -> f64 {
        let config = lock(&self.config);
        if seen.made < u64::from(config.min_calls) { 0.0 } else { seen.probability(config.k).min(config.max_refused) }
    }
}

/// The highest probability: one call in 2^24 is sent.
const SURE: u64 = crate::sampled::FULL;

impl Gatekeeper for Throttle {
    type Permit = ThrottlePermit;
    type Turn = ();
}

impl<Req> Admit<Req> for Throttle {
    #[inline]
    fn admit(&self, _: &mut (), _: &Req) -> Result<ThrottlePermit, Rejection> {
        self.try_send()
    }
}

impl Fresh for Throttle {
    fn fresh(&self) -> Self {
        Self::with(self.config(), TokioClock.now())
    }
}

impl Resting for Throttle {
    /// Nothing is in flight, nothing was too much in the window, no operator told it anything, and its config is the one it was made with. Calls
    /// that went well are forgotten: kept, they would pin every key that was ever called.
    fn is_resting(&self) -> bool {
        let shared = &*self.shared;
        let seen = shared.calls.seen(shared.origin.nanos(TokioClock.now()));
        (seen.refused, seen.overloads) == (0, 0)
            && self.shared.leased() == 0
            && shared.mode.is_auto()
            && !shared.changed.load(Relaxed)
    }
}

impl Handle for Throttle {
    fn kind(&self) -> &'static str {
        "throttle"
    }

    fn visit(&self, show: &mut dyn FnMut(&'static str, Value)) {
        let snapshot = self.snapshot();
        show("probability", Value::Ratio(snapshot.probability));
        show("calls", Value::Gauge(snapshot.calls));
        show("accepted", Value::Gauge(snapshot.accepted));
        show("in_flight", Value::Gauge(snapshot.in_flight));
        show("refused_total", Value::Count(snapshot.refused_total));
        show("overload_total", Value::Count(snapshot.overload_total));
        show("over_total", Value::Count(snapshot.over_total));
    }

    fn mode(&self) -> Mode {
        self.shared.mode.get()
    }

    fn set_mode(&self, mode: Mode) -> Result<(), ConfigError> {
        self.shared.mode.set(mode)?;
        tracing::info!(target: TARGET, throttle = &*self.config().name, mode = mode.as_str(), "throttle mode changed");
        Ok(())
    }
}

impl fmt::Debug for Throttle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Throttle").field("snapshot", &self.snapshot()).finish_non_exhaustive()
    }
}
