use super::{LevelsConfig, ladder::Ladder};
use crate::TARGET;
use buttress_core::{
    Clock, ConfigError, Origin, Signal, TokioClock,
    sync::{
        AtomicU64, Mutex,
        Ordering::{AcqRel, Relaxed},
        lock,
    },
};
use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

/// Ordered degradation: from the full service down to what is left of it, a step at a time.
///
/// Clones are handles of the same levels. Who asks for the [current](Self::current) one, or whether one [is reached](LevelGuard), drives
/// them: at most so often the sources of pressure are looked at, and there is no task. Pressure is the highest of what they say.
///
/// ```
/// use buttress_core::{Clock, Signal, TokioClock};
/// use buttress_fallback::LevelsConfig;
/// use std::time::Duration;
///
/// let start = TokioClock.now();
/// let overload = Signal::new(start);
/// let config = LevelsConfig::new("full").level("no recommendations", 0.7).level("read only", 0.9);
/// let levels = config.worse_after(Duration::ZERO).build()?;
/// levels.watch(overload.clone());
///
/// overload.set_pressure(0.8);
/// assert_eq!(levels.current_at(&(start + Duration::from_secs(1))), 1);
///
/// levels.pin("read only")?; // an operator says so
/// assert_eq!(levels.current_name(), "read only");
/// let error = levels.pin("no reviews").unwrap_err();
/// assert_eq!(error.to_string(), "`level` is no reviews, allowed: full, no recommendations, read only");
/// # Ok::<(), buttress_core::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct Levels(Arc<Inner>);

pub(super) struct Inner {
    /// [ when to look at the sources, in ms 48 | level 16 ]; never while it is pinned.
    word: AtomicU64,
    origin: Origin,
    pub(super) names: Box<[Arc<str>]>,
    sources: Mutex<Arc<[Source]>>,
    listeners: Mutex<Vec<Listener>>,
    pub(super) state: Mutex<State>,
}

pub(super) struct State {
    ladder: Ladder,
    pub(super) is_pinned: bool,
    pub(super) pressure: f64,
    /// When the level changed, in milliseconds.
    changed_at: u64,
    pub(super) entered: Box<[u64]>,
    pub(super) config: LevelsConfig,
}

type Source = Arc<dyn Fn() -> f64 + Send + Sync>;
type Listener = Arc<dyn Fn(&LevelChange) + Send + Sync>;

/// Who changed a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SteppedBy {
    /// The pressure, or that it is gone.
    Pressure,
    /// An operator.
    Operator,
}

impl SteppedBy {
    /// The name in logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pressure => "pressure",
            Self::Operator => "operator",
        }
    }
}

/// A level has changed.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LevelChange {
    /// The one before.
    pub from: Arc<str>,
    /// The one that holds.
    pub to: Arc<str>,
    /// The pressure that was seen last.
    pub pressure: f64,
    /// Who changed it.
    pub by: SteppedBy,
}

const LEVEL_BITS: u32 = 16;
const NEVER: u64 = u64::MAX >> LEVEL_BITS;

#[inline]
fn level_of(word: u64) -> usize {
    (word & ((1 << LEVEL_BITS) - 1)) as usize
}

#[inline]
fn due_of(word: u64) -> u64 {
    word >> LEVEL_BITS
}

fn word_of(due: u64, level: usize) -> u64 {
    due.min(NEVER) << LEVEL_BITS | level as u64
}

impl Levels {
    pub(super) fn with(config: LevelsConfig, now: Instant) -> Self {
        let state = State {
            ladder: Ladder::new(&config, 0),
            is_pinned: false,
            pressure: 0.0,
            changed_at: 0,
            entered: vec![0; config.levels.len()].into(),
            config,
        };
        Self(Arc::new(Inner {
            word: AtomicU64::new(0),
            origin: Origin::new(now),
            names: state.config.levels.iter().map(|level| Arc::from(&*level.name)).collect(),
            sources: Mutex::new(Arc::from([])),
            listeners: Mutex::new(Vec::new()),
            state: Mutex::new(state),
        }))
    }

    pub(super) fn inner(&self) -> &Inner {
        &self.0
    }

    /// Heeds the pressure of `signal`; an open circuit is all the pressure there can be, until it is due ([`Signal::until`], by tokio's clock). From
    /// then on only a call can close it, and the level may be what keeps calls away. So while what is behind it stays down a level may step
    /// back and forth, once per open time; a long [`better_after`](LevelsConfig::better_after) makes that rarer.
    pub fn watch(&self, signal: Signal) {
        self.source(move || if signal.is_shut(&TokioClock) { 1.0 } else { signal.pressure().into() });
    }

    /// Heeds what `pressure` says, from 0 to 1, each time that the sources are looked at: it must not block. What is no number says nothing.
    pub fn source(&self, pressure: impl Fn() -> f64 + Send + Sync + 'static) {
        let mut sources = lock(&self.0.sources);
        *sources = sources.iter().cloned().chain([Arc::new(pressure) as Source]).collect();
    }

    /// Calls `listener` after every change, outside of locks.
    pub fn on_change(&self, listener: impl Fn(&LevelChange) + Send + Sync + 'static) {
        lock(&self.0.listeners).push(Arc::new(listener));
    }

    /// The names of the levels, the full service first.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.names.iter().map(|name| &**name)
    }

    /// The level that holds: 0 is the full service.
    #[inline]
    pub fn current(&self) -> usize {
        self.current_at(&TokioClock)
    }

    /// The name of the level that holds.
    pub fn current_name(&self) -> &str {
        &self.0.names[self.current()]
    }

    /// [`current`](Self::current) by another clock. It is not read while the level is pinned.
    #[inline]
    pub fn current_at(&self, clock: &impl Clock) -> usize {
        let word = self.0.word.load(Relaxed);
        if due_of(word) == NEVER {
            return level_of(word);
        }
        let now = self.0.millis(clock);
        if now < due_of(word) { level_of(word) } else { self.look(word, now) }
    }

    /// The level that held when somebody asked last.
    #[inline]
    fn last(&self) -> usize {
        level_of(self.0.word.load(Relaxed))
    }

    #[cold]
    fn look(&self, word: u64, now: u64) -> usize {
        let inner = &*self.0;
        let every = lock(&inner.state).config.every.as_millis() as u64;
        // Who moves the time of the next look is the one who looks.
        let claimed = word_of(now + every, level_of(word));
        if inner.word.compare_exchange(word, claimed, AcqRel, Relaxed).is_err() {
            return self.last();
        }
        let sources = lock(&inner.sources).clone();
        let pressure = sources.iter().map(|source| source()).fold(0.0, f64::max);
        let change = {
            let mut state = lock(&inner.state);
            state.pressure = pressure;
            if state.is_pinned {
                return state.ladder.level;
            }
            let from = state.ladder.observe(pressure, now);
            from.map(|from| (from, inner.changed(&mut state, now + every, now)))
        };
        if let Some((from, to)) = change {
            inner.tell(from, to, pressure, SteppedBy::Pressure);
        }
        self.last()
    }

    /// Holds this level, whatever the pressure is.
    ///
    /// # Errors
    ///
    /// A level that there is not: the error lists those there are.
    pub fn pin(&self, level: &str) -> Result<(), ConfigError> {
        self.pin_at(level, &TokioClock)
    }

    /// The same, by another clock.
    ///
    /// # Errors
    ///
    /// As [`pin`](Self::pin).
    pub fn pin_at(&self, level: &str, clock: &impl Clock) -> Result<(), ConfigError> {
        let to = self.index(level)?;
        let now = self.0.millis(clock);
        let (from, pressure) = {
            let mut state = lock(&self.0.state);
            state.is_pinned = true;
            let from = state.ladder.go(to);
            if from == to {
                self.0.word.store(word_of(NEVER, to), Relaxed);
            } else {
                self.0.changed(&mut state, NEVER, now);
            }
            (from, state.pressure)
        };
        if from != to {
            self.0.tell(from, to, pressure, SteppedBy::Operator);
        }
        Ok(())
    }

    /// Lets the pressure decide again, step by step from the level that was pinned.
    pub fn unpin(&self) {
        let mut state = lock(&self.0.state);
        if std::mem::take(&mut state.is_pinned) {
            self.0.word.store(word_of(0, state.ladder.level), Relaxed);
        }
    }

    /// Says whether a level is reached, or a worse one.
    ///
    /// # Errors
    ///
    /// As [`pin`](Self::pin).
    pub fn at_least(&self, level: &str) -> Result<LevelGuard, ConfigError> {
        self.index(level).map(|level| LevelGuard { levels: self.clone(), level })
    }

    fn index(&self, level: &str) -> Result<usize, ConfigError> {
        self.names()
            .position(|name| name == level)
            .ok_or_else(|| ConfigError::new("level", level, self.names().collect::<Vec<_>>().join(", ")))
    }

    /// How long the level has held.
    pub fn lasting_at(&self, clock: &impl Clock) -> Duration {
        let now = self.0.millis(clock);
        Duration::from_millis(now.saturating_sub(lock(&self.0.state).changed_at))
    }

    /// The config as it was last given.
    pub fn config(&self) -> LevelsConfig {
        lock(&self.0.state).config.clone()
    }

    /// Changes when levels hold; the one that holds stays.
    ///
    /// # Errors
    ///
    /// A config that [`build`](LevelsConfig::build) refuses, or other levels. Nothing is changed then.
    pub fn update(&self, config: LevelsConfig) -> Result<(), ConfigError> {
        config.validate()?;
        if !self.names().eq(config.levels.iter().map(|level| &*level.name)) {
            let given = config.levels.iter().map(|level| &*level.name).collect::<Vec<_>>().join(", ");
            let allowed = self.names().collect::<Vec<_>>().join(", ");
            return Err(ConfigError::new("levels", given, format!("{allowed}: they cannot change while it runs")));
        }
        let mut state = lock(&self.0.state);
        state.ladder = Ladder::new(&config, state.ladder.level);
        state.config = config;
        Ok(())
    }
}

impl Inner {
    #[inline]
    fn millis(&self, clock: &impl Clock) -> u64 {
        self.origin.nanos(clock.now()) / 1_000_000
    }

    /// Under the lock: shows the level that the ladder went to.
    fn changed(&self, state: &mut State, due: u64, now: u64) -> usize {
        let level = state.ladder.level;
        state.changed_at = now;
        state.entered[level] += 1;
        self.word.store(word_of(due, level), Relaxed);
        level
    }

    /// Outside of locks.
    fn tell(&self, from: usize, to: usize, pressure: f64, by: SteppedBy) {
        let change = LevelChange { from: self.names[from].clone(), to: self.names[to].clone(), pressure, by };
        let name = lock(&self.state).config.name.clone();
        let (levels, was, is, by) = (&*name, &*change.from, &*change.to, by.as_str());
        if to > from {
            tracing::warn!(target: TARGET, levels, from = was, to = is, pressure, by, "the service is reduced");
        } else {
            tracing::info!(target: TARGET, levels, from = was, to = is, pressure, by, "the service is better");
        }
        let listeners = lock(&self.listeners).clone();
        for listener in listeners {
            listener(&change);
        }
    }
}

impl fmt::Debug for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Levels").field("snapshot", &self.snapshot()).finish_non_exhaustive()
    }
}

/// Whether a level of some [`Levels`] is reached, or a worse one.
#[derive(Clone, Debug)]
pub struct LevelGuard {
    levels: Levels,
    level: usize,
}

impl LevelGuard {
    /// Whether it is.
    #[inline]
    pub fn is_reached(&self) -> bool {
        self.is_reached_at(&TokioClock)
    }

    /// The same, by another clock.
    #[inline]
    pub fn is_reached_at(&self, clock: &impl Clock) -> bool {
        self.levels.current_at(clock) >= self.level
    }

    /// The same, as far as somebody has asked: it looks at no clock and no source.
    #[inline]
    pub(crate) fn was_reached(&self) -> bool {
        self.levels.last() >= self.level
    }

    /// The levels that it belongs to.
    pub fn levels(&self) -> &Levels {
        &self.levels
    }

    /// The name of the level.
    pub fn name(&self) -> &str {
        &self.levels.0.names[self.level]
    }
}
