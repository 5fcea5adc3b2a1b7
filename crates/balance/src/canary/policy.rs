use super::{
    CanaryConfig, CanaryPermit, CanarySnapshot, Side,
    config::validate_weight,
    snapshot::SideSnapshot,
    word::{Seen, Word},
};
use buttress_core::{
    Clock, ConfigError, Draw, Handle, Mode, ModeCell, Origin, Striped, TokioClock, Value,
    sync::{AtomicU64, Mutex, Ordering::Relaxed, lock},
    window::{Counts, TimeWindow},
};
use std::{collections::hash_map::RandomState, fmt, hash::BuildHasher, sync::Arc};

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
/// | `Enforcing(p)` | tripped, `p` percent of the canary's calls go to the stable service all the same, the others pass and are not measured. `Enforcing(0)` judges, says so once, and does not trip |
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

/// Where a call goes, and whether its end says something.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pick {
    pub(super) side: Side,
    pub(super) measured: bool,
    pub(super) generation: u32,
}

pub(super) struct Shared {
    word: Word,
    stable: Record,
    canary: Record,
    mode: ModeCell,
    lines: Box<[Line]>,
    /// All threads draw from one line.
    seeded: bool,
    /// The bits of an `f64`.
    margin: AtomicU64,
    min_calls: AtomicU64,
    origin: Origin,
    trips: AtomicU64,
    passed: AtomicU64,
    retried: AtomicU64,
    /// One more than the last generation of which it was said that it would have been given up.
    noticed: AtomicU64,
    config: Mutex<CanaryConfig>,
    listeners: Mutex<Vec<Listener>>,
}

type Listener = Arc<dyn Fn(&Trip) + Send + Sync>;

/// What was seen of one side.
struct Record {
    window: TimeWindow,
    /// The first epoch of the present generation.
    start: AtomicU64,
}

/// What one thread changes at every call.
#[repr(align(128))]
struct Line {
    draw: Draw,
    stable: AtomicU64,
    canary: AtomicU64,
}

/// The target of events, as the facade names the crate.
const TARGET: &str = "buttress::canary";
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
        let random = RandomState::new();
        let seed = |line| config.seed.unwrap_or_else(|| random.hash_one(line));
        let stripes = Striped::<()>::default_stripes();
        let line = |n| Line { draw: Draw::new(seed(n)), stable: AtomicU64::new(0), canary: AtomicU64::new(0) };
        let record = || Record { window: TimeWindow::new(config.window, stripes), start: AtomicU64::new(0) };
        let shared = Shared {
            word: Word::new(config.weight),
            stable: record(),
            canary: record(),
            mode: ModeCell::new(!seed(usize::MAX)),
            lines: (0..stripes).map(line).collect(),
            seeded: config.seed.is_some(),
            margin: AtomicU64::new(config.margin.to_bits()),
            min_calls: AtomicU64::new(config.min_calls.into()),
            origin: Origin::new(clock.now()),
            trips: AtomicU64::new(0),
            passed: AtomicU64::new(0),
            retried: AtomicU64::new(0),
            noticed: AtomicU64::new(0),
            listeners: Mutex::default(),
            config: Mutex::new(config),
        };
        Ok(Self { shared: Striped::new(shared, stripes) })
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

impl Record {
    fn counts(&self, now: u64) -> Counts {
        self.window.counts(self.start.load(Relaxed), now)
    }
}

impl Shared {
    #[inline]
    fn pick(&self, stripe: usize, attempt: u32) -> Pick {
        let line = &self.lines[stripe];
        let seen = self.word.load();
        let (side, measured) = match attempt {
            0 if self.mode.is_auto() && !seen.is_tripped() => (self.split(seen, line), true),
            0 => self.pick_slowly(seen, line),
            _ => {
                self.retried.fetch_add(1, Relaxed);
                (Side::Stable, false)
            }
        };
        let picks = match side {
            Side::Stable => &line.stable,
            Side::Canary => &line.canary,
        };
        picks.fetch_add(1, Relaxed);
        Pick { side, measured, generation: seen.generation() }
    }

    /// By the weight alone.
    #[inline]
    fn split(&self, seen: Seen, line: &Line) -> Side {
        let line = if self.seeded { &self.lines[0] } else { line };
        if seen.takes(line.draw.draw()) { Side::Canary } else { Side::Stable }
    }

    #[cold]
    fn pick_slowly(&self, seen: Seen, line: &Line) -> (Side, bool) {
        match self.mode.get() {
            Mode::ForcedOpen => (Side::Stable, true),
            Mode::Disabled => (self.split(seen, line), false),
            _ if !seen.is_tripped() => (self.split(seen, line), true),
            Mode::Auto => (Side::Stable, true),
            _ => match self.split(seen, line) {
                Side::Canary if !self.mode.enforces() => {
                    self.passed.fetch_add(1, Relaxed);
                    (Side::Canary, false)
                }
                _ => (Side::Stable, true),
            },
        }
    }

    /// A measured call of `generation` is over. `waited`: it took time, so that reading the clock is the least of it.
    #[inline]
    pub(super) fn ended(&self, stripe: usize, pick: Pick, failed: bool, waited: bool, clock: &impl Clock) {
        if self.word.load().generation() != pick.generation || !self.measures() {
            return;
        }
        let record = match pick.side {
            Side::Stable => &self.stable,
            Side::Canary => &self.canary,
        };
        let (window, start) = (&record.window, record.start.load(Relaxed));
        let now = || self.origin.nanos(clock.now());
        if failed {
            let now = now();
            window.failure(stripe, start, window.advance(now));
            if pick.side == Side::Canary {
                self.judge(pick.generation, now);
            }
            return;
        }
        // The canary's calls are few: none of them may stand in an older bucket than it belongs to.
        if waited || pick.side == Side::Canary {
            window.advance(now());
            window.success(stripe, start);
        } else if window.success(stripe, start) {
            window.advance(now());
        }
    }

    fn measures(&self) -> bool {
        self.mode.is_auto() || self.mode.get() != Mode::Disabled
    }

    fn is_worse(&self, stable: Counts, canary: Counts) -> bool {
        let min_calls = self.min_calls.load(Relaxed);
        let is_known = stable.total >= min_calls && canary.total >= min_calls;
        is_known && rate(canary) > rate(stable) + f64::from_bits(self.margin.load(Relaxed))
    }

    #[cold]
    fn judge(&self, generation: u32, now: u64) {
        let (stable, canary) = (self.stable.counts(now), self.canary.counts(now));
        if !self.is_worse(stable, canary) {
            return;
        }
        let is_observed = self.mode.get() == Mode::OBSERVE_ONLY;
        if is_observed {
            let this_one = u64::from(generation) + 1;
            if self.noticed.swap(this_one, Relaxed) == this_one {
                return;
            }
        } else if !self.word.trip(generation) {
            return;
        }
        let name = lock(&self.config).name.clone();
        let trip = Trip {
            canary_calls: canary.total,
            canary_rate: rate(canary),
            stable_calls: stable.total,
            stable_rate: rate(stable),
        };
        let (canary_rate, stable_rate) = (trip.canary_rate, trip.stable_rate);
        if is_observed {
            tracing::warn!(target: TARGET, canary = &*name, canary_rate, stable_rate, "the canary would get no calls: it fails more often than the stable service");
            return;
        }
        self.trips.fetch_add(1, Relaxed);
        tracing::warn!(target: TARGET, canary = &*name, canary_rate, stable_rate, "the canary gets no calls any more: it fails more often than the stable service");
        let listeners = lock(&self.listeners).clone();
        listeners.iter().for_each(|listener| listener(&trip));
    }

    /// Another generation. Under the lock of the config.
    fn renew(&self, weight: f64, now: u64) {
        for record in [&self.stable, &self.canary] {
            record.start.store(record.window.next_epoch(now), Relaxed);
        }
        self.word.renew(weight);
    }
}

pub(super) fn rate(counts: Counts) -> f64 {
    if counts.total == 0 { 0.0 } else { counts.failures as f64 / counts.total as f64 }
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
