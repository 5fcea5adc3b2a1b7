use crate::{
    ChaosConfig, Decision, Fault, LAYER,
    config::validate,
    plan::{End, Plan},
};
use arc_swap::ArcSwapOption;
use buttress_core::{
    Clock, ConfigError, Fresh, Handle, Mode, ModeCell, Reason, Rejection, TokioClock, Value,
    sync::{AtomicBool, AtomicU8, AtomicU64, Mutex, Ordering::Relaxed, lock},
};
use std::{collections::hash_map::RandomState, fmt, hash::BuildHasher, sync::Arc, time::Duration};

/// Injects faults into a share of calls, while it is told to.
///
/// [`ChaosLayer`](crate::ChaosLayer) puts one around a service. It is its own handle:
///
/// ```
/// use buttress_chaos::{ChaosConfig, ChaosLayer, Fault};
/// use std::time::Duration;
///
/// let layer = ChaosLayer::new(ChaosConfig::default().seed(7).build()?);
/// let chaos = layer.handle();
/// assert!(!chaos.is_injecting());
///
/// chaos.inject(["latency=200ms..500ms percent=50".parse()?, Fault::refuse().percent(5.0)])?;
/// assert_eq!(chaos.snapshot().faults.len(), 2);
/// chaos.clear();
/// # Ok::<(), buttress_core::ConfigError>(())
/// ```
///
/// | mode | what it does |
/// |---|---|
/// | `Auto` | injects the faults it was told to |
/// | `ForcedOpen` | refuses every call, with [`Reason::Injected`] |
/// | `Disabled` | injects nothing; the faults stay, and their time goes on |
/// | `Enforcing(p)` | harms `p` percent of the calls it would harm, and counts the others as spared; at 0, [`Mode::OBSERVE_ONLY`], it observes only |
pub struct Chaos {
    /// The one word that calls read while nothing is injected.
    on: AtomicBool,
    pub(crate) plan: ArcSwapOption<Plan>,
    mode: ModeCell,
    /// Which protocols its services speak: [`OPAQUE`], [`HTTP`].
    served: AtomicU8,
    totals: Totals,
    seed: u64,
    config: Mutex<ChaosConfig>,
}

const OPAQUE: u8 = 1;
const HTTP: u8 = 2;

/// The target of events, as the facade names the crate.
const TARGET: &str = "buttress::chaos";

#[derive(Default)]
struct Totals {
    delayed: AtomicU64,
    refused: AtomicU64,
    answered: AtomicU64,
    hung: AtomicU64,
    cut: AtomicU64,
    spared: AtomicU64,
}

/// What a [`Chaos`] shows. Totals never go back; the counts of faults begin with their injection.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ChaosSnapshot {
    /// What an operator told it.
    pub mode: Mode,
    /// Whether calls may be harmed now.
    pub injecting: bool,
    /// The faults that were injected last and are not cleared.
    pub faults: Vec<FaultSnapshot>,
    /// Calls that were delayed.
    pub delayed_total: u64,
    /// Calls that were refused.
    pub refused_total: u64,
    /// Calls that were answered with a status.
    pub answered_total: u64,
    /// Calls that were left without an answer.
    pub hung_total: u64,
    /// Calls whose response body was to be cut. A body may have been shorter.
    pub cut_total: u64,
    /// Calls that a mode spared.
    pub spared_total: u64,
}

/// One fault of a [`ChaosSnapshot`].
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct FaultSnapshot {
    /// The fault.
    pub fault: Fault,
    /// Calls that it harmed.
    pub harmed_total: u64,
    /// How long it goes on; zero: it is over. `None`: until it is cleared.
    #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration_opt"))]
    pub left: Option<Duration>,
}

impl Chaos {
    /// One that injects what `config` says, which by default is nothing.
    ///
    /// # Errors
    ///
    /// The first field of `config` that is out of its range.
    pub fn new(config: ChaosConfig) -> Result<Self, ConfigError> {
        Self::new_at(config, &TokioClock)
    }

    /// The same, by another clock; its moments must not lie before this one.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn new_at(config: ChaosConfig, clock: &impl Clock) -> Result<Self, ConfigError> {
        config.validate()?;
        let seed = config.seed.unwrap_or_else(|| RandomState::new().hash_one(0));
        let chaos = Self {
            on: AtomicBool::new(false),
            plan: ArcSwapOption::empty(),
            mode: ModeCell::new(!seed),
            served: AtomicU8::new(0),
            totals: Totals::default(),
            seed,
            config: Mutex::new(ChaosConfig { faults: Vec::new(), ..config.clone() }),
        };
        if !config.faults.is_empty() {
            chaos.inject_at(config.faults, clock)?;
        }
        Ok(chaos)
    }

    /// Injects these faults from now on, in place of all others; draws begin anew, so that with one seed the same calls suffer
    /// the same after every injection.
    ///
    /// # Errors
    ///
    /// A fault with a value out of its range, or one that needs HTTP where every service is opaque. Then nothing has changed.
    pub fn inject(&self, faults: impl IntoIterator<Item = Fault>) -> Result<(), ConfigError> {
        self.inject_at(faults, &TokioClock)
    }

    /// The same, by another clock.
    ///
    /// # Errors
    ///
    /// As [`inject`](Self::inject).
    pub fn inject_at(&self, faults: impl IntoIterator<Item = Fault>, clock: &impl Clock) -> Result<(), ConfigError> {
        let faults: Vec<_> = faults.into_iter().collect();
        validate(&faults)?;
        if self.served.load(Relaxed) == OPAQUE
            && let Some((n, fault)) = faults.iter().enumerate().find(|(_, fault)| fault.harm.needs_http())
        {
            let allowed = "latency, refuse, reason or hang: this layer speaks no HTTP (`.protocol(..)`)";
            return Err(ConfigError::new(format!("faults[{n}]"), fault, allowed));
        }
        if faults.is_empty() {
            self.clear();
            return Ok(());
        }
        let plan = Arc::new(Plan::new(&faults, self.seed, clock.now()));
        let text = faults.iter().map(Fault::to_string).collect::<Vec<_>>().join("; ");
        let name = {
            let mut config = lock(&self.config);
            config.faults = faults;
            self.plan.store(Some(plan));
            self.switch();
            config.name.clone()
        };
        tracing::warn!(target: TARGET, chaos = &*name, faults = text, "faults are injected");
        Ok(())
    }

    /// Injects nothing any more. Calls that hang or wait stay as they are.
    pub fn clear(&self) {
        self.end(None);
    }

    /// Ends `only` this plan, or whatever there is.
    pub(crate) fn end(&self, only: Option<&Arc<Plan>>) {
        let name = {
            let mut config = lock(&self.config);
            let present = self.plan.load();
            match (&*present, only) {
                (None, _) => return,
                (Some(present), Some(only)) if !Arc::ptr_eq(present, only) => return,
                _ => {}
            }
            self.plan.store(None);
            config.faults.clear();
            self.switch();
            config.name.clone()
        };
        tracing::info!(target: TARGET, chaos = &*name, "no faults are injected any more");
    }

    /// Under the lock of `config`.
    fn switch(&self) {
        let on = match self.mode.get() {
            Mode::ForcedOpen => true,
            Mode::Disabled => false,
            _ => self.plan.load().is_some(),
        };
        self.on.store(on, Relaxed);
    }

    /// Whether calls may be harmed now.
    #[inline]
    pub fn is_injecting(&self) -> bool {
        self.on.load(Relaxed)
    }

    /// What happens to the next call. While nothing is injected this is one relaxed load.
    #[inline]
    pub fn next(&self, clock: &impl Clock) -> Decision {
        self.next_of(clock, true)
    }

    #[inline]
    pub(crate) fn next_of(&self, clock: &impl Clock, http: bool) -> Decision {
        if self.is_injecting() { self.injure(clock, None, http) } else { Decision::PASS }
    }

    /// What happens to a call with this draw, a number of all there are: [`next`](Self::next) with randomness from elsewhere.
    pub fn decide(&self, clock: &impl Clock, draw: u64) -> Decision {
        if self.is_injecting() { self.injure(clock, Some(draw), true) } else { Decision::PASS }
    }

    #[cold]
    fn injure(&self, clock: &impl Clock, draw: Option<u64>, http: bool) -> Decision {
        if self.mode.get() == Mode::ForcedOpen {
            self.totals.refused.fetch_add(1, Relaxed);
            return Decision { end: Some(End::Refuse(Rejection::new(Reason::Injected, LAYER))), ..Decision::PASS };
        }
        let Some(plan) = self.plan.load_full() else { return Decision::PASS };
        let now = plan.now(clock);
        if plan.over.zip(now).is_some_and(|(over, now)| now >= over) {
            self.end(Some(&plan));
            return Decision::PASS;
        }
        let (decision, done_by) = plan.decide(now, draw.unwrap_or_else(|| plan.draw.draw()), http);
        if done_by == 0 {
            return Decision::PASS;
        }
        if !self.mode.enforces() {
            self.totals.spared.fetch_add(1, Relaxed);
            return Decision::PASS;
        }
        for active in plan.of(done_by) {
            active.harmed.fetch_add(1, Relaxed);
        }
        self.totals.count(&decision);
        decision
    }

    /// All there is to know.
    pub fn snapshot(&self) -> ChaosSnapshot {
        self.snapshot_at(&TokioClock)
    }

    /// The same, by another clock.
    pub fn snapshot_at(&self, clock: &impl Clock) -> ChaosSnapshot {
        let now = clock.now();
        let plan = self.plan.load_full();
        let is_over = plan.as_ref().is_some_and(|plan| plan.over.is_some_and(|over| now >= over));
        let faults = plan.iter().flat_map(|plan| &plan.faults).map(|active| FaultSnapshot {
            fault: active.fault,
            harmed_total: active.harmed.load(Relaxed),
            left: active.until.map(|until| until.saturating_duration_since(now)),
        });
        let totals = &self.totals;
        let mode = self.mode.get();
        ChaosSnapshot {
            mode,
            injecting: self.is_injecting() && (mode == Mode::ForcedOpen || !is_over),
            faults: faults.collect(),
            delayed_total: totals.delayed.load(Relaxed),
            refused_total: totals.refused.load(Relaxed),
            answered_total: totals.answered.load(Relaxed),
            hung_total: totals.hung.load(Relaxed),
            cut_total: totals.cut.load(Relaxed),
            spared_total: totals.spared.load(Relaxed),
        }
    }

    /// The present config; its faults are those that are injected.
    pub fn config(&self) -> ChaosConfig {
        lock(&self.config).clone()
    }

    /// Replaces the config, and injects its faults if they are others than now.
    ///
    /// # Errors
    ///
    /// As [`inject`](Self::inject), or another seed. Then nothing has changed.
    pub fn update(&self, config: ChaosConfig) -> Result<(), ConfigError> {
        config.validate()?;
        let present = self.config();
        if config.seed != present.seed {
            let allowed = format!("{:?}: it cannot change while the layer runs", present.seed);
            return Err(ConfigError::new("seed", format!("{:?}", config.seed), allowed));
        }
        if config.faults != present.faults {
            self.inject(config.faults)?;
        }
        lock(&self.config).name = config.name;
        Ok(())
    }

    /// A service around it speaks HTTP, or does not.
    pub(crate) fn serve(&self, http: bool) {
        let before = self.served.fetch_or(if http { HTTP } else { OPAQUE }, Relaxed);
        if http || before & OPAQUE != 0 {
            return;
        }
        let config = self.config();
        for fault in config.faults.iter().filter(|fault| fault.harm.needs_http()) {
            let (chaos, fault) = (&*config.name, fault.to_string());
            tracing::error!(target: TARGET, chaos, fault, "it needs HTTP, and is not injected where the layer speaks none: `.protocol(..)`");
        }
    }
}

impl Totals {
    fn count(&self, decision: &Decision) {
        let add = |is: bool, total: &AtomicU64| {
            if is {
                total.fetch_add(1, Relaxed);
            }
        };
        add(decision.delay.is_some(), &self.delayed);
        add(decision.cut.is_some(), &self.cut);
        add(matches!(decision.end, Some(End::Refuse(_))), &self.refused);
        add(matches!(decision.end, Some(End::Status { .. })), &self.answered);
        add(decision.end == Some(End::Hang), &self.hung);
    }
}

/// Injects nothing until it is told to.
impl Default for Chaos {
    fn default() -> Self {
        Self::new(ChaosConfig::default()).expect("the default config is valid")
    }
}

impl Fresh for Chaos {
    fn fresh(&self) -> Self {
        Self::new(self.config()).expect("it was validated")
    }
}

impl Handle for Chaos {
    fn kind(&self) -> &'static str {
        LAYER
    }

    fn visit(&self, show: &mut dyn FnMut(&'static str, Value)) {
        let seen = self.snapshot();
        show("state", Value::State(if seen.injecting { "injecting" } else { "quiet" }, &["quiet", "injecting"]));
        show("delayed_total", Value::Count(seen.delayed_total));
        show("refused_total", Value::Count(seen.refused_total));
        show("answered_total", Value::Count(seen.answered_total));
        show("hung_total", Value::Count(seen.hung_total));
        show("cut_total", Value::Count(seen.cut_total));
        show("spared_total", Value::Count(seen.spared_total));
    }

    fn mode(&self) -> Mode {
        self.mode.get()
    }

    fn set_mode(&self, mode: Mode) -> Result<(), ConfigError> {
        let _config = lock(&self.config);
        self.mode.set(mode)?;
        self.switch();
        Ok(())
    }
}

impl fmt::Debug for Chaos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chaos")
            .field("injecting", &self.is_injecting())
            .field("mode", &self.mode())
            .finish_non_exhaustive()
    }
}
