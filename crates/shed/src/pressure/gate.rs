use super::{Pressure, Scaled};
use crate::line::class;
use buttress_core::{
    Admit, Clock, ConfigError, Context, Draw, Fresh, Gate, GateLayer, Gatekeeper, Handle, Mode, ModeCell, Opaque,
    Priority, Reason, Rejection, TokioClock, Value,
    sync::{AtomicU64, Mutex, Ordering::Relaxed, lock},
};
use std::{borrow::Cow, fmt, time::Duration};

/// The layer: `PressureGateConfig::default().layer(&pressure)?`.
pub type PressureLayer = GateLayer<PressureGate>;

/// The service of [`PressureLayer`].
pub type PressureService<S, P = Opaque> = Gate<S, PressureGate, P>;

/// Which share of the calls of each priority a [`PressureGate`] refuses.
///
/// By default the sheddable ones go between 80 and 90 % of pressure, the normal ones between 90 and 100 %, and the critical ones never: a critical
/// call that is refused may be the health check that would have said so. All this is a mean over many calls: each is refused by chance.
///
/// ```
/// use buttress_shed::pressure::{PressureConfig, PressureGateConfig, Scaled};
///
/// let pressure = PressureConfig::default().build()?;
/// let gate = PressureGateConfig::default().normal(Scaled::new(0.85, 0.95)?).build(&pressure)?;
/// # let _: buttress_shed::pressure::PressureGate = gate;
///
/// let error = PressureGateConfig::default().normal(Scaled::new(0.7, 0.95)?).build(&pressure).unwrap_err();
/// assert_eq!(error.to_string(), "`normal.from` is 0.7, allowed: at least 0.8, where `sheddable` begins: lower priorities go first");
/// # Ok::<(), buttress_core::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct PressureGateConfig {
    /// Calls of the lowest priority: none are refused up to `from`, all from `to` on. `None`: never. Default: 0.8 to 0.9.
    pub sheddable: Option<Scaled>,
    /// Normal ones; they do not go before the sheddable ones. Default: 0.9 to 1.
    pub normal: Option<Scaled>,
    /// Critical ones; they do not go before the normal ones. Default `None`: never.
    pub critical: Option<Scaled>,
    /// When a refused caller should come back: this at least, and less than twice this, by chance. More than 0, at most 1 h. Default: 1 s.
    #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration"))]
    pub retry_after: Duration,
    /// Where chance begins. Default `None`: differs from instance to instance.
    pub seed: Option<u64>,
    /// The name in log events, whatever a builder or a registry calls the layer. Default: `"pressure"`.
    pub name: Cow<'static, str>,
}

impl Default for PressureGateConfig {
    fn default() -> Self {
        Self {
            sheddable: Some(Scaled::between(0.8, 0.9)),
            normal: Some(Scaled::between(0.9, 1.0)),
            critical: None,
            retry_after: Duration::from_secs(1),
            seed: None,
            name: Cow::Borrowed("pressure"),
        }
    }
}

impl PressureGateConfig {
    buttress_core::setters! {
        /// Sets [`sheddable`](Self#structfield.sheddable).
        sheddable: impl Into<Option<Scaled>> => sheddable.into();
        /// Sets [`normal`](Self#structfield.normal).
        normal: impl Into<Option<Scaled>> => normal.into();
        /// Sets [`critical`](Self#structfield.critical).
        critical: impl Into<Option<Scaled>> => critical.into();
        /// Sets [`retry_after`](Self#structfield.retry_after).
        retry_after: Duration => retry_after;
        /// Sets [`seed`](Self#structfield.seed).
        seed: u64 => Some(seed);
        /// Sets [`name`](Self#structfield.name).
        name: impl Into<Cow<'static, str>> => name.into();
    }

    /// The gate, which heeds `pressure`.
    ///
    /// # Errors
    ///
    /// The first field that is out of its range.
    pub fn build(self, pressure: &Pressure) -> Result<PressureGate, ConfigError> {
        self.validate()?;
        Ok(PressureGate::with(self, pressure.clone()))
    }

    /// The layer.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build).
    pub fn layer(self, pressure: &Pressure) -> Result<PressureLayer, ConfigError> {
        self.build(pressure).map(GateLayer::new)
    }

    /// By rising priority.
    fn classes(&self) -> [(&'static str, Option<Scaled>); 3] {
        [("sheddable", self.sheddable), ("normal", self.normal), ("critical", self.critical)]
    }

    fn validate(&self) -> Result<(), ConfigError> {
        let classes = self.classes();
        for (name, scaled) in classes {
            if let Some(scaled) = scaled {
                scaled.validate().map_err(|error| error.within(name))?;
            }
        }
        for [(lower, before), (higher, scaled)] in [[classes[0], classes[1]], [classes[1], classes[2]]] {
            let Some(scaled) = scaled else { continue };
            let Some(before) = before else {
                let said = format!("{} to {}", scaled.from, scaled.to);
                return Err(ConfigError::new(
                    higher,
                    said,
                    format!("none, as `{lower}` has none: lower priorities go first"),
                ));
            };
            let bounds = [("from", before.from, scaled.from, "begins"), ("to", before.to, scaled.to, "ends")];
            for (bound, least, value, what) in bounds {
                if value < least {
                    let allowed = format!("at least {least}, where `{lower}` {what}: lower priorities go first");
                    return Err(ConfigError::new(format!("{higher}.{bound}"), value, allowed));
                }
            }
        }
        if self.retry_after.is_zero() || self.retry_after > Duration::from_secs(3600) {
            return Err(ConfigError::duration("retry_after", self.retry_after, "more than 0 and at most 1h"));
        }
        Ok(())
    }
}

/// Refuses calls while the pressure is high, low priorities first.
///
/// It is its own handle: read it with [`snapshot`](Self::snapshot), change it with [`update`](Self::update), override it with
/// [`set_mode`](Handle::set_mode). On its own, [`decide`](Self::decide).
///
/// | mode | what it does |
/// |---|---|
/// | `Auto` | refuses what chance says |
/// | `ForcedOpen` | refuses every call, critical ones, too |
/// | `Disabled` | lets every call pass |
/// | `Enforcing(p)` | refuses `p` percent of those that chance says; the rest passes, and is counted; at 0, [`Mode::OBSERVE_ONLY`], it observes only |
pub struct PressureGate {
    pressure: Pressure,
    /// [`Ramp`]s by rising priority.
    ramps: [AtomicU64; 3],
    shed_total: [AtomicU64; 3],
    over_total: AtomicU64,
    mode: ModeCell,
    draw: Draw,
    /// In nanoseconds.
    retry_after: AtomicU64,
    config: Mutex<PressureGateConfig>,
}

/// What a [`PressureGate`] shows of itself.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct PressureGateSnapshot {
    /// The pressure.
    pub pressure: f64,
    /// Sheddable calls that were refused.
    pub sheddable_refused_total: u64,
    /// Normal ones.
    pub normal_refused_total: u64,
    /// Critical ones.
    pub critical_refused_total: u64,
    /// Calls that chance refused and a mode let pass.
    pub over_total: u64,
    /// What an operator told it to do.
    pub mode: Mode,
}

/// The target of events, as the facade names the crate.
const TARGET: &str = "buttress::shed";

const REFUSED: Rejection = Rejection::new(Reason::Shed, "pressure");

impl PressureGate {
    fn with(config: PressureGateConfig, pressure: Pressure) -> Self {
        let seed = Draw::seed(config.seed);
        Self {
            pressure,
            ramps: config.classes().map(|(_, scaled)| AtomicU64::new(ramp(scaled))),
            shed_total: std::array::from_fn(|_| AtomicU64::new(0)),
            over_total: AtomicU64::new(0),
            mode: ModeCell::new(seed),
            draw: Draw::new(seed),
            retry_after: AtomicU64::new(config.retry_after.as_nanos() as u64),
            config: Mutex::new(config),
        }
    }

    /// Whether a call of this priority passes.
    ///
    /// # Errors
    ///
    /// [`Reason::Shed`]: the pressure is high, and chance says no.
    #[inline]
    pub fn decide(&self, priority: Priority) -> Result<(), Rejection> {
        self.decide_at(priority, &TokioClock)
    }

    /// The same, by another clock.
    ///
    /// # Errors
    ///
    /// As [`decide`](Self::decide).
    #[inline]
    pub fn decide_at(&self, priority: Priority, clock: &impl Clock) -> Result<(), Rejection> {
        let class = class(priority);
        let ramp = self.ramps[class].load(Relaxed);
        if self.mode.is_auto() && ramp == NEVER {
            return Ok(());
        }
        let share = share(ramp, self.pressure.current_at(clock));
        if self.mode.is_auto() && share == 0.0 {
            return Ok(());
        }
        self.decide_slowly(class, share)
    }

    #[cold]
    fn decide_slowly(&self, class: usize, share: f64) -> Result<(), Rejection> {
        let mode = self.mode.get();
        if mode == Mode::Disabled || (mode != Mode::ForcedOpen && self.draw.unit() >= share) {
            return Ok(());
        }
        if !self.mode.enforces() {
            self.over_total.fetch_add(1, Relaxed);
            return Ok(());
        }
        self.shed_total[class].fetch_add(1, Relaxed);
        let least = Duration::from_nanos(self.retry_after.load(Relaxed));
        Err(REFUSED.retry_after(least.mul_f64(1.0 + self.draw.unit())))
    }

    /// What it heeds.
    pub fn pressure(&self) -> &Pressure {
        &self.pressure
    }

    /// The present readings.
    pub fn snapshot(&self) -> PressureGateSnapshot {
        self.snapshot_at(&TokioClock)
    }

    /// The same, by another clock.
    pub fn snapshot_at(&self, clock: &impl Clock) -> PressureGateSnapshot {
        let shed = |class: usize| self.shed_total[class].load(Relaxed);
        PressureGateSnapshot {
            pressure: self.pressure.current_at(clock),
            sheddable_refused_total: shed(0),
            normal_refused_total: shed(1),
            critical_refused_total: shed(2),
            over_total: self.over_total.load(Relaxed),
            mode: self.mode.get(),
        }
    }

    /// The present config.
    pub fn config(&self) -> PressureGateConfig {
        lock(&self.config).clone()
    }

    /// Changes the config while calls come. The seed is for the next instance.
    ///
    /// # Errors
    ///
    /// A field out of its range. Nothing is changed then.
    pub fn update(&self, config: PressureGateConfig) -> Result<(), ConfigError> {
        config.validate()?;
        let mut present = lock(&self.config);
        tracing::info!(target: TARGET, pressure = &*config.name, "pressure gate changed");
        for (word, (_, scaled)) in self.ramps.iter().zip(config.classes()) {
            word.store(ramp(scaled), Relaxed);
        }
        self.retry_after.store(config.retry_after.as_nanos() as u64, Relaxed);
        *present = config;
        Ok(())
    }
}

/// Two bounds in one word, so that nobody sees half of a change: [ from | to ], as bits of `f32`.
fn ramp(scaled: Option<Scaled>) -> u64 {
    scaled.map_or(NEVER, |s| u64::from((s.from as f32).to_bits()) << 32 | u64::from((s.to as f32).to_bits()))
}

/// No bounds: they would be no numbers.
const NEVER: u64 = u64::MAX;

#[inline]
fn share(ramp: u64, pressure: f64) -> f64 {
    if ramp == NEVER {
        return 0.0;
    }
    let [from, to] = [ramp >> 32, ramp & u64::from(u32::MAX)].map(|bits| f64::from(f32::from_bits(bits as u32)));
    // Bounds that `f32` cannot tell apart are a step.
    if to > from { Scaled::between(from, to).of(pressure) } else { f64::from(u8::from(pressure >= to)) }
}

impl Gatekeeper for PressureGate {
    type Permit = ();
    type Turn = ();

    const HEEDS_CONTEXT: bool = true;
}

/// A request is as important as its context says; without one it is a normal one.
impl<Req> Admit<Req> for PressureGate {
    #[inline]
    fn admit(&self, _: &mut (), _: &Req) -> Result<(), Rejection> {
        self.decide(Priority::Normal)
    }

    #[inline]
    fn admit_in(&self, _: &mut (), _: &Req, context: Option<&Context>) -> Result<(), Rejection> {
        self.decide(context.map_or(Priority::Normal, |context| context.priority))
    }
}

/// It heeds the same pressure.
impl Fresh for PressureGate {
    fn fresh(&self) -> Self {
        Self::with(self.config(), self.pressure.clone())
    }
}

impl Handle for PressureGate {
    fn kind(&self) -> &'static str {
        "pressure"
    }

    fn visit(&self, show: &mut dyn FnMut(&'static str, Value)) {
        let snapshot = self.snapshot();
        show("pressure", Value::Ratio(snapshot.pressure));
        show("sheddable_refused_total", Value::Count(snapshot.sheddable_refused_total));
        show("normal_refused_total", Value::Count(snapshot.normal_refused_total));
        show("critical_refused_total", Value::Count(snapshot.critical_refused_total));
        show("over_total", Value::Count(snapshot.over_total));
    }

    fn mode(&self) -> Mode {
        self.mode.get()
    }

    fn set_mode(&self, mode: Mode) -> Result<(), ConfigError> {
        self.mode.set(mode)?;
        tracing::info!(target: TARGET, pressure = &*self.config().name, mode = mode.as_str(), "pressure gate mode changed");
        Ok(())
    }
}

impl fmt::Debug for PressureGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PressureGate").field("snapshot", &self.snapshot()).finish_non_exhaustive()
    }
}
