use crate::{
    BalanceConfig, BalanceSnapshot,
    load::Tuning,
    node::Node,
    now::Now,
    pick::{Avoid, Picked, Roster},
};
use arc_swap::ArcSwap;
use buttress_core::{
    Clock, ConfigError, Draw, Handle, Mode, ModeCell, Origin, Reason, Rejection, Striped, Value,
    sync::{AtomicU32, AtomicU64, Mutex, Ordering::Relaxed, lock},
};
use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Instant,
};

pub(crate) const LAYER: &str = "balance";
pub(crate) const TARGET: &str = "buttress::balance";

/// What a [`Balance`](crate::Balance) goes by, and its handle: read it, change it, override it.
///
/// [`Mode`]s: [`Auto`](Mode::Auto) picks by load. [`Disabled`](Mode::Disabled) takes every endpoint in turn, measures nothing
/// and heeds no signal. [`ForcedOpen`](Mode::ForcedOpen) refuses every call. [`Enforcing`](Mode::Enforcing) refuses this
/// percentage of the calls for which every endpoint is shut, and sends the others to one all the same.
pub struct Balancer {
    pub(crate) tuning: Arc<Tuning>,
    picks: AtomicU32,
    pub(crate) mode: ModeCell,
    /// One per thread, about.
    draws: Box<[Line]>,
    turn: AtomicU64,
    /// What the snapshot shows; the service picks from its own, which has the services beside it.
    roster: ArcSwap<Roster>,
    left: Mutex<Left>,
    pub(crate) counts: Counts,
    config: Mutex<BalanceConfig>,
}

#[repr(align(128))]
struct Line(Draw);

/// What was counted apart from endpoints.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) refused: AtomicU64,
    pub(crate) waited: AtomicU64,
    pub(crate) discovery_errors: AtomicU64,
}

/// Endpoints that were removed.
#[derive(Default)]
pub(crate) struct Left {
    /// Somebody still uses them.
    nodes: Vec<Arc<Node>>,
    /// What the others counted.
    pub(crate) picks: u64,
    pub(crate) failures: u64,
    pub(crate) skipped: u64,
}

impl Left {
    pub(crate) fn nodes(&mut self) -> &[Arc<Node>] {
        let (used, free): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.nodes).into_iter().partition(|node| Arc::strong_count(node) > 1);
        self.nodes = used;
        for node in free {
            self.picks += node.load.picks();
            self.failures += node.load.failures();
            self.skipped += node.load.skipped();
        }
        &self.nodes
    }
}

impl Balancer {
    /// A balancer without endpoints.
    ///
    /// # Errors
    ///
    /// The first field of `config` with a value it cannot have.
    pub fn new(config: BalanceConfig) -> Result<Self, ConfigError> {
        Self::new_at(config, &buttress_core::TokioClock)
    }

    /// The same, by another clock; its moments must not lie before this one.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn new_at(config: BalanceConfig, clock: &impl Clock) -> Result<Self, ConfigError> {
        config.validate()?;
        let random = RandomState::new();
        let lines = if config.seed.is_some() { 1 } else { Striped::<()>::default_stripes() };
        let seed = |line| config.seed.unwrap_or_else(|| random.hash_one(line));
        Ok(Self {
            tuning: Arc::new(Tuning::new(Origin::new(clock.now()), &config)),
            picks: AtomicU32::new(config.picks),
            mode: ModeCell::new(seed(usize::MAX)),
            draws: (0..lines).map(|line| Line(Draw::new(seed(line)))).collect(),
            turn: AtomicU64::new(0),
            roster: ArcSwap::default(),
            left: Mutex::default(),
            counts: Counts::default(),
            config: Mutex::new(config),
        })
    }

    /// All there is to know.
    pub fn snapshot(&self) -> BalanceSnapshot {
        self.snapshot_at(&buttress_core::TokioClock)
    }

    /// The same, by another clock.
    pub fn snapshot_at(&self, clock: &impl Clock) -> BalanceSnapshot {
        // An endpoint moves from one to the other under this lock: it is counted once.
        let mut left = lock(&self.left);
        BalanceSnapshot::take(self, &self.roster.load(), &mut left, clock.now())
    }

    /// The present config.
    pub fn config(&self) -> BalanceConfig {
        lock(&self.config).clone()
    }

    /// Replaces the config. Endpoints, their averages and calls in flight stay.
    ///
    /// # Errors
    ///
    /// A value that a field cannot have, or another seed. Then nothing has changed.
    pub fn update(&self, config: BalanceConfig) -> Result<(), ConfigError> {
        config.validate()?;
        let mut present = lock(&self.config);
        if config.seed != present.seed {
            let allowed = format!("{:?}: it cannot change while the balancer runs", present.seed);
            return Err(ConfigError::new("seed", format!("{:?}", config.seed), allowed));
        }
        self.tuning.set(&config);
        self.picks.store(config.picks, Relaxed);
        *present = config;
        Ok(())
    }

    /// Another set of endpoints; those that are not in it have been removed.
    pub(crate) fn enlist(&self, roster: Arc<Roster>) {
        let mut left = lock(&self.left);
        let before = self.roster.swap(roster.clone());
        // A long list would make this slow: the ids are in order.
        let mut ids: Vec<u32> = roster.nodes.iter().map(|node| node.id).collect();
        ids.sort_unstable();
        let gone = before.nodes.iter().filter(|node| ids.binary_search(&node.id).is_err());
        left.nodes.extend(gone.inspect(|node| node.remove()).cloned());
        drop(before);
        left.nodes();
    }

    /// At most so many endpoints are asked by load.
    pub(crate) fn picks(&self) -> usize {
        self.picks.load(Relaxed) as usize
    }

    #[inline]
    pub(crate) fn now<C: Clock>(&self, clock: C) -> Now<C> {
        Now::new(clock, self.tuning.origin, self.tuning.recent())
    }

    /// One of `roster` for a call that begins now.
    #[inline]
    pub(crate) fn pick<C: Clock>(&self, roster: &Roster, stripe: usize, now: &Now<C>, mut avoid: Avoid<'_>) -> Picked {
        let draw = &self.draws[stripe & (self.draws.len() - 1)].0;
        if !self.mode.is_auto() && self.mode.get() == Mode::Disabled {
            avoid.turn = Some(self.turn.fetch_add(1, Relaxed));
        }
        let picked = roster.pick(draw, now, &self.tuning, avoid);
        if matches!(picked, Picked::Shut(_)) && !self.mode.enforces() {
            return roster.pick(draw, now, &self.tuning, Avoid { force: true, ..avoid });
        }
        picked
    }

    /// Whether calls are measured at all.
    #[inline]
    pub(crate) fn measures(&self) -> bool {
        self.mode.is_auto() || self.mode.get() != Mode::Disabled
    }

    #[inline]
    pub(crate) fn is_shut(&self) -> bool {
        !self.mode.is_auto() && self.mode.get() == Mode::ForcedOpen
    }

    /// Every endpoint is shut, the first of them until then; or an operator said no.
    #[cold]
    pub(crate) fn refuse(&self, until: Option<Instant>, now: Instant) -> Rejection {
        self.counts.refused.fetch_add(1, Relaxed);
        let rejection = Rejection::new(Reason::BreakerOpen, LAYER);
        // One that is forced open names no time.
        match until.map(|until| until.saturating_duration_since(now)).filter(|wait| wait.as_secs() < NEVER_SECS) {
            Some(wait) => rejection.retry_after(wait),
            None => rejection,
        }
    }

    #[cold]
    pub(crate) fn refuse_empty(&self) -> Rejection {
        self.counts.refused.fetch_add(1, Relaxed);
        Rejection::new(Reason::NoEndpoint, LAYER)
    }
}

/// Nobody means a year.
const NEVER_SECS: u64 = 365 * 86_400;

impl Handle for Balancer {
    fn kind(&self) -> &'static str {
        LAYER
    }

    fn visit(&self, show: &mut dyn FnMut(&'static str, Value)) {
        self.snapshot().visit(show);
    }

    fn mode(&self) -> Mode {
        self.mode.get()
    }

    fn set_mode(&self, mode: Mode) -> Result<(), ConfigError> {
        self.mode.set(mode)
    }
}

impl fmt::Debug for Balancer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endpoints = self.roster.load().nodes.len();
        f.debug_struct("Balancer").field("endpoints", &endpoints).field("mode", &self.mode()).finish_non_exhaustive()
    }
}
