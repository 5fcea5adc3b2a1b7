//! What retries and hedges are paid from.

mod ledger;
#[cfg(all(test, buttress_loom))]
mod loom_tests;
#[cfg(all(test, not(buttress_loom)))]
mod tests;

use crate::{
    Clock, ConfigError, Fresh, Handle, Mode, ModeCell, Origin, Striped, TokioClock, Value,
    stripe::thread_number,
    sync::{AtomicU32, AtomicU64, Mutex, Ordering::Relaxed, lock},
};
use ledger::{Ledger, TOKEN, Terms, UNCAPPED};
use std::{fmt, sync::Arc, time::Duration};

/// How many retries and hedges a [`Budget`] pays for.
///
/// ```
/// use buttress_core::BudgetConfig;
///
/// let budget = BudgetConfig::default().ratio(0.6).min_per_sec(0.5).build()?;
/// # let _ = budget;
/// let error = BudgetConfig::default().ratio(2.5).build().unwrap_err();
/// assert_eq!(error.to_string(), "`ratio` is 2.5, allowed: 0.000001 to 2");
/// # Ok::<_, buttress_core::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct BudgetConfig {
    /// Retries per first attempt: 0.000001 to 2, exact to six digits. Default: 0.1, so a service that fails altogether gets a tenth
    /// more load, and not a multiple.
    pub ratio: f64,
    /// Retries per second that need no deposits, for clients with little traffic: 0 (none) to 1000. A second's worth may be
    /// used at once, and at least one. Default: 1.
    pub min_per_sec: f64,
    /// The most tokens that can be saved up: 1 to 4000. Default: 100.
    pub capacity: u32,
    /// Over which time deposits fade: after this long 37 % are left, as in a moving average. So a steady client has saved at
    /// most the deposits of this time (and a few: up to 32 per processor are looked at late). 1 s to 1 h. Default: 10 s.
    #[cfg_attr(feature = "serde", serde(with = "crate::config::duration"))]
    pub window: Duration,
    /// How many retries and hedges may be under way at once, from the moment one is decided on: 1 or more. `None` (the
    /// default): as many as there are tokens.
    pub max_concurrent: Option<u32>,
}

impl Default for BudgetConfig {
    fn default() -> Self {
        Self { ratio: 0.1, min_per_sec: 1.0, capacity: 100, window: Duration::from_secs(10), max_concurrent: None }
    }
}

impl BudgetConfig {
    /// The defaults with this ratio.
    pub fn new(ratio: f64) -> Self {
        Self { ratio, ..Self::default() }
    }

    crate::setters! {
        /// Sets [`ratio`](Self#structfield.ratio).
        ratio: f64 => ratio;
        /// Sets [`min_per_sec`](Self#structfield.min_per_sec).
        min_per_sec: f64 => min_per_sec;
        /// Sets [`capacity`](Self#structfield.capacity).
        capacity: u32 => capacity;
        /// Sets [`window`](Self#structfield.window).
        window: Duration => window;
        /// Sets [`max_concurrent`](Self#structfield.max_concurrent).
        max_concurrent: impl Into<Option<u32>> => max_concurrent.into();
    }

    /// The budget; its time begins now.
    ///
    /// # Errors
    ///
    /// The first field that is out of its range.
    pub fn build(self) -> Result<Budget, ConfigError> {
        self.build_at(&TokioClock)
    }

    /// The same, by another clock.
    ///
    /// # Errors
    ///
    /// The first field that is out of its range.
    pub fn build_at(self, clock: &impl Clock) -> Result<Budget, ConfigError> {
        self.validate()?;
        Ok(Budget::with(self, clock))
    }

    /// Whether [`build`](Self::build) would accept it.
    ///
    /// # Errors
    ///
    /// The first field that is out of its range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        // Ranges that NaN is not in.
        if !(0.000_001..=2.0).contains(&self.ratio) {
            return Err(ConfigError::new("ratio", self.ratio, "0.000001 to 2"));
        }
        if !(self.min_per_sec == 0.0 || (0.001..=1000.0).contains(&self.min_per_sec)) {
            return Err(ConfigError::new("min_per_sec", self.min_per_sec, "0 (none), or 0.001 to 1000"));
        }
        if !(1..=4000).contains(&self.capacity) {
            return Err(ConfigError::new("capacity", self.capacity, "1 to 4000"));
        }
        if !(Duration::from_secs(1)..=Duration::from_secs(3600)).contains(&self.window) {
            return Err(ConfigError::duration("window", self.window, "1s to 1h"));
        }
        if self.max_concurrent == Some(0) || self.max_concurrent == Some(UNCAPPED) {
            let value = self.max_concurrent.unwrap_or_default();
            return Err(ConfigError::new("max_concurrent", value, "1 to 4294967294, or nothing: no cap"));
        }
        Ok(())
    }

    fn deposit(&self) -> u64 {
        (self.ratio * TOKEN as f64).round() as u64
    }

    fn floor_interval(&self) -> u64 {
        if self.min_per_sec == 0.0 { 0 } else { (1e9 / self.min_per_sec).round() as u64 }
    }
}

/// Pays for retries and hedges, so that they never multiply the load of a service that fails: every first attempt deposits a
/// fraction of a token, every further attempt takes a whole one
/// ([SRE book, Handling Overload](https://sre.google/sre-book/handling-overload/); Finagle's `RetryBudget`).
///
/// Put it behind an [`Arc`] and share it: between clones, between retries and hedges, or between layers, so that they do not
/// multiply each other.
///
/// ```
/// use buttress_core::{BudgetConfig, TokioClock};
/// use std::sync::Arc;
///
/// let budget = Arc::new(BudgetConfig::new(0.5).min_per_sec(0.0).build()?);
/// (0..3).for_each(|_| budget.deposit(&TokioClock));
/// let first = budget.withdraw(&TokioClock);
/// assert!(first.is_ok(), "three first attempts pay for one retry");
/// assert!(budget.withdraw(&TokioClock).is_err(), "and not for two");
/// # Ok::<_, buttress_core::ConfigError>(())
/// ```
///
/// | mode | what it does |
/// |---|---|
/// | `Auto` | grants what the deposits and the floor pay for |
/// | `ForcedOpen` | denies everything |
/// | `Disabled` | grants everything; takes no tokens |
/// | `Enforcing(p)` | denies `p` percent of what it would deny, and counts the others as `unpaid_total`; at 0, [`Mode::OBSERVE_ONLY`], it observes only |
///
/// It is exact where it matters: no token is granted twice, whatever threads do. Where threads withdraw at the same moment, one may be
/// denied a token that another has in hand, and that is back a moment later.
pub struct Budget {
    ledger: Ledger,
    origin: Origin,
    mode: ModeCell,
    granted: AtomicU64,
    unpaid: AtomicU64,
    denied: [AtomicU64; Denied::ALL.len()],
    /// As it was last given; only `update` and `config` take the lock.
    config: Mutex<BudgetConfig>,
}

/// Leave to make one further attempt. Held to the end of that attempt; dropped, it gives back its place among the concurrent
/// ones. The token itself is spent.
pub struct Token(Arc<Budget>);

/// Why there is no [`Token`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Denied {
    /// First attempts have not paid for it, nor does the floor.
    Empty,
    /// As many as allowed are under way.
    Concurrent,
    /// An operator closed it.
    ForcedOpen,
}

impl Denied {
    /// Every cause, in the order of their discriminants.
    pub const ALL: [Denied; 3] = [Self::Empty, Self::Concurrent, Self::ForcedOpen];

    /// The label in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "budget_empty",
            Self::Concurrent => "budget_concurrent",
            Self::ForcedOpen => "budget_closed",
        }
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::error::Error for Denied {}

/// What a [`Budget`] shows of itself.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct BudgetSnapshot {
    /// The tokens that deposits have saved up; the floor comes on top.
    pub tokens: f64,
    /// The most that can be saved up.
    pub capacity: u32,
    /// Tokens that are held.
    pub in_flight: u32,
    /// First attempts that have paid.
    pub deposits_total: u64,
    /// Tokens granted.
    pub granted_total: u64,
    /// Those of them that a mode granted against the decision, or without one.
    pub unpaid_total: u64,
    /// Withdrawals denied for want of tokens.
    pub denied_empty_total: u64,
    /// Withdrawals denied because as many as allowed were under way.
    pub denied_concurrent_total: u64,
    /// Withdrawals denied because an operator said so.
    pub denied_forced_total: u64,
    /// What an operator told it to do.
    pub mode: Mode,
}

impl Budget {
    fn with(config: BudgetConfig, clock: &impl Clock) -> Self {
        let terms = Terms {
            deposit: AtomicU64::new(config.deposit()),
            capacity: AtomicU64::new(u64::from(config.capacity) * TOKEN),
            window: AtomicU64::new(nanos(config.window)),
            floor_interval: AtomicU64::new(config.floor_interval()),
            max_concurrent: AtomicU32::new(config.max_concurrent.unwrap_or(UNCAPPED)),
        };
        Self {
            ledger: Ledger::new(terms, Striped::<()>::default_stripes()),
            origin: Origin::new(clock.now()),
            mode: ModeCell::new(0),
            granted: AtomicU64::new(0),
            unpaid: AtomicU64::new(0),
            denied: Default::default(),
            config: Mutex::new(config),
        }
    }

    /// A first attempt: it deposits [`ratio`](BudgetConfig::ratio) of a token. Few of them read the clock.
    #[inline]
    pub fn deposit(&self, clock: &impl Clock) {
        self.ledger.deposit(thread_number(), || self.origin.nanos(clock.now()));
    }

    /// A token for one further attempt.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn withdraw(self: &Arc<Self>, clock: &impl Clock) -> Result<Token, Denied> {
        self.decide(clock).inspect_err(|denied| {
            self.denied[*denied as usize].fetch_add(1, Relaxed);
        })?;
        self.granted.fetch_add(1, Relaxed);
        Ok(Token(self.clone()))
    }

    /// Takes a place and a token. The place comes first: it can be given back.
    fn decide(&self, clock: &impl Clock) -> Result<(), Denied> {
        let mode = self.mode.get();
        if mode == Mode::ForcedOpen {
            return Err(Denied::ForcedOpen);
        }
        if mode == Mode::Disabled {
            self.ledger.enter_anyway();
            self.unpaid.fetch_add(1, Relaxed);
            return Ok(());
        }
        let denied = if !self.ledger.enter() {
            Denied::Concurrent
        } else if self.ledger.take(self.origin.nanos(clock.now())) {
            return Ok(());
        } else {
            self.ledger.leave();
            Denied::Empty
        };
        if self.mode.enforces() {
            return Err(denied);
        }
        self.ledger.enter_anyway();
        self.unpaid.fetch_add(1, Relaxed);
        Ok(())
    }

    /// The present readings. They are taken one after the other, so under load they need not add up exactly.
    pub fn snapshot(&self) -> BudgetSnapshot {
        self.snapshot_at(&TokioClock)
    }

    /// The same, by another clock.
    pub fn snapshot_at(&self, clock: &impl Clock) -> BudgetSnapshot {
        let denied = |cause: Denied| self.denied[cause as usize].load(Relaxed);
        BudgetSnapshot {
            tokens: self.ledger.balance(self.origin.nanos(clock.now())) as f64 / TOKEN as f64,
            capacity: (self.ledger.terms.capacity.load(Relaxed) / TOKEN) as u32,
            in_flight: self.ledger.in_flight(),
            deposits_total: self.ledger.deposits(),
            granted_total: self.granted.load(Relaxed),
            unpaid_total: self.unpaid.load(Relaxed),
            denied_empty_total: denied(Denied::Empty),
            denied_concurrent_total: denied(Denied::Concurrent),
            denied_forced_total: denied(Denied::ForcedOpen),
            mode: self.mode.get(),
        }
    }

    /// The config as it was last given.
    pub fn config(&self) -> BudgetConfig {
        lock(&self.config).clone()
    }

    /// Changes what later attempts deposit and may take. What was saved stays, up to the new capacity.
    ///
    /// # Errors
    ///
    /// A config that [`build`](BudgetConfig::build) refuses. Nothing is changed then.
    pub fn update(&self, config: BudgetConfig) -> Result<(), ConfigError> {
        config.validate()?;
        // Under the lock, so that two updates do not mix.
        let mut kept = lock(&self.config);
        let terms = &self.ledger.terms;
        self.ledger.set_deposit(config.deposit(), self.origin.nanos(TokioClock.now()));
        terms.capacity.store(u64::from(config.capacity) * TOKEN, Relaxed);
        terms.window.store(nanos(config.window), Relaxed);
        terms.floor_interval.store(config.floor_interval(), Relaxed);
        terms.max_concurrent.store(config.max_concurrent.unwrap_or(UNCAPPED), Relaxed);
        *kept = config;
        Ok(())
    }
}

/// An hour at most.
fn nanos(window: Duration) -> u64 {
    window.as_nanos() as u64
}

impl Default for Budget {
    fn default() -> Self {
        Self::with(BudgetConfig::default(), &TokioClock)
    }
}

impl Fresh for Budget {
    fn fresh(&self) -> Self {
        Self::with(self.config(), &TokioClock)
    }
}

impl Handle for Budget {
    fn kind(&self) -> &'static str {
        "budget"
    }

    fn visit(&self, show: &mut dyn FnMut(&'static str, Value)) {
        let snapshot = self.snapshot();
        show("tokens", Value::Gauge(snapshot.tokens as u64));
        show("capacity", Value::Gauge(snapshot.capacity.into()));
        show("in_flight", Value::Gauge(snapshot.in_flight.into()));
        show("deposits_total", Value::Count(snapshot.deposits_total));
        show("granted_total", Value::Count(snapshot.granted_total));
        show("unpaid_total", Value::Count(snapshot.unpaid_total));
        show("denied_empty_total", Value::Count(snapshot.denied_empty_total));
        show("denied_concurrent_total", Value::Count(snapshot.denied_concurrent_total));
        show("denied_forced_total", Value::Count(snapshot.denied_forced_total));
    }

    fn mode(&self) -> Mode {
        self.mode.get()
    }

    fn set_mode(&self, mode: Mode) -> Result<(), ConfigError> {
        self.mode.set(mode)
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget").field("snapshot", &self.snapshot()).finish_non_exhaustive()
    }
}

impl Token {
    /// The budget it was taken from.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.0
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        self.0.ledger.leave();
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").finish_non_exhaustive()
    }
}
