use super::{
    LAYER, ToggleConfig, TogglePermit,
    machine::{Machine, since},
    state::{Switch, SwitchedBy, ToggleChange, ToggleState},
};
use crate::TARGET;
use buttress_core::{
    Clock, ConfigError, Handle, Mode, Parked, Striped, TokioClock, Value,
    sync::{Ordering::Relaxed, lock},
};
use std::{
    borrow::Cow,
    fmt,
    sync::Arc,
    task::Context,
    time::{Duration, Instant},
};

/// A named feature that is on or off. Clones are handles of the same one.
///
/// A [`ToggleLayer`](super::ToggleLayer) heeds it; so does code that asks:
///
/// ```
/// use buttress_fallback::{Switch, ToggleConfig};
///
/// let recommendations = ToggleConfig::new("recommendations").build()?;
/// # fn recommend() -> Vec<&'static str> { vec!["more of it"] }
/// let page = |toggle: &buttress_fallback::Toggle| if toggle.is_on() { recommend() } else { vec![] };
///
/// assert_eq!(page(&recommendations), ["more of it"]);
/// recommendations.set(Switch::Off);
/// assert!(page(&recommendations).is_empty());
/// # Ok::<(), buttress_core::ConfigError>(())
/// ```
///
/// # What it does
///
/// On, it is switched off by what its [config](ToggleConfig) names: the first failure, the share of failures, a signal. After a
/// time it lets single calls pass as probes, or a rising share of them, and is on again when these are good. A level that is reached switches
/// it off, and on again as soon as it is left. What an operator [sets](Self::set) wins over all that. Asking costs relaxed loads while it is on
/// (and with a level a look at the clock).
///
/// For a registry it has the modes `Auto`, `Disabled` ([`Switch::On`]: every call passes) and `ForcedOpen` ([`Switch::Off`]).
#[derive(Clone)]
pub struct Toggle {
    machine: Arc<Striped<Machine>>,
    name: Arc<str>,
}

/// What a [`Toggle`] shows of itself.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ToggleSnapshot {
    /// What it is called.
    pub name: String,
    /// What it does with calls, whoever says so.
    pub state: ToggleState,
    /// What an operator said.
    pub switch: Switch,
    /// What made it so; `None`: it has been as it is from the beginning.
    pub by: Option<SwitchedBy>,
    /// How long ago that was. For a level: how long ago its levels changed.
    #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration"))]
    pub lasting: Duration,
    /// How often it was switched off, by what: in the order of [`SwitchedBy::ALL`]. Levels are counted where they are.
    pub switched_off_by: [u64; SwitchedBy::ALL.len()],
    /// How often it came on again.
    pub switched_on_total: u64,
    /// Calls that passed as probes.
    pub probes_total: u64,
    /// Whether a probe is out now.
    pub probe_out: bool,
    /// Calls that found it off.
    pub turned_away_total: u64,
}

impl ToggleSnapshot {
    /// How often it was switched off by this.
    pub fn switched_off(&self, by: SwitchedBy) -> u64 {
        self.switched_off_by[by as usize]
    }
}

impl Toggle {
    /// A toggle of this config that is on.
    ///
    /// # Errors
    ///
    /// The first field that is out of its range.
    pub fn new(config: ToggleConfig) -> Result<Self, ConfigError> {
        config.build()
    }

    pub(super) fn with(config: ToggleConfig, now: Instant) -> Self {
        let name = Arc::from(&*config.name);
        let stripes = Striped::<Machine>::default_stripes();
        let machine = Arc::new(Striped::new(Machine::new(config, now, stripes), stripes));
        if let Some(level) = &machine.level {
            let machine = Arc::downgrade(&machine);
            level.levels().on_change(move |_| machine.upgrade().iter().for_each(|machine| machine.wakers.wake_all()));
        }
        Self { machine, name }
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the feature is on. On a ramp it is, as often as its share says; while it is probed it is not.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.is_on_at(&TokioClock)
    }

    /// The same, by another clock.
    #[inline]
    pub fn is_on_at(&self, clock: &impl Clock) -> bool {
        self.machine.is_on(clock)
    }

    /// Lets a call pass whose outcome will be told: by [`Settle`](buttress_core::Settle)'s methods of the permit. `None`: it is off.
    #[inline]
    pub fn admit(&self) -> Option<TogglePermit> {
        self.admit_at(&TokioClock)
    }

    /// The same, by another clock.
    #[inline]
    pub fn admit_at(&self, clock: &impl Clock) -> Option<TogglePermit> {
        let ticket = self.machine.admit(clock)?;
        Some(TogglePermit::new(|| self.machine.lease(), ticket))
    }

    /// Whether the next call may pass: asked before it is there.
    #[inline]
    pub(super) fn may_pass(&self) -> bool {
        self.machine.may_pass(&TokioClock)
    }

    pub(super) fn turn_away(&self) {
        self.machine.turn_away();
    }

    pub(super) fn park(&self, parked: &mut Parked, cx: &Context<'_>) {
        parked.park(&self.machine.wakers, cx);
        // Between the question and the place.
        if !self.may_pass() {
            cx.waker().wake_by_ref();
        }
    }

    /// An operator's word, which wins over everything else. [`Switch::Auto`]: it goes by itself from now on, and is on until something
    /// switches it off.
    pub fn set(&self, switch: Switch) {
        self.set_at(switch, &TokioClock);
    }

    /// The same, by another clock.
    pub fn set_at(&self, switch: Switch, clock: &impl Clock) {
        self.machine.set(switch, clock);
        tracing::info!(target: TARGET, toggle = self.name(), switch = switch.as_str(), "toggle set");
    }

    /// Calls `listener` after every change of state, outside of locks. Levels tell of theirs by themselves.
    pub fn on_change(&self, listener: impl Fn(&ToggleChange) + Send + Sync + 'static) {
        lock(&self.machine.listeners).push(Arc::new(listener));
    }

    /// The present readings. They are taken one after the other, so under load they need not add up exactly.
    pub fn snapshot(&self) -> ToggleSnapshot {
        self.snapshot_at(&TokioClock)
    }

    /// The same, by another clock.
    pub fn snapshot_at(&self, clock: &impl Clock) -> ToggleSnapshot {
        let machine = &self.machine;
        let now = machine.origin.nanos(clock.now()) / 1_000_000;
        let last = *lock(&machine.last);
        let switch = machine.switch();
        let level = machine.level.as_ref().filter(|level| switch == Switch::Auto && level.is_reached_at(clock));
        let (state, by, lasting) = match (switch, level) {
            (Switch::On, _) => (ToggleState::On, last.by, since(now, last.at)),
            (Switch::Off, _) => (ToggleState::Off, last.by, since(now, last.at)),
            (_, Some(level)) => (ToggleState::Off, Some(SwitchedBy::Level), level.levels().lasting_at(clock)),
            _ => (machine.word().state(), last.by, since(now, last.at)),
        };
        let totals = &machine.totals;
        ToggleSnapshot {
            name: self.name().to_owned(),
            state,
            switch,
            by,
            lasting,
            switched_off_by: std::array::from_fn(|i| totals.switched_off[i].load(Relaxed)),
            switched_on_total: totals.switched_on.load(Relaxed),
            probes_total: totals.probes.load(Relaxed),
            probe_out: machine.is_probe_out(),
            turned_away_total: totals.turned_away.load(Relaxed),
        }
    }

    /// The config as it was last given.
    pub fn config(&self) -> ToggleConfig {
        lock(&self.machine.config).clone()
    }

    /// Changes conditions and way back; what it is now stays, and when it may come back is as it was. Signal and level stay those that it
    /// was made with.
    ///
    /// # Errors
    ///
    /// A config that [`build`](ToggleConfig::build) refuses, another `name`, or another `seed`: they are fixed when it is made. Nothing is
    /// changed then.
    pub fn update(&self, config: ToggleConfig) -> Result<(), ConfigError> {
        config.validate()?;
        let kept = self.config();
        if config.name != kept.name {
            return Err(ConfigError::new(
                "name",
                &config.name,
                format!("{}: it cannot change while it runs", kept.name),
            ));
        }
        if config.seed != kept.seed {
            let show = |seed: Option<u64>| seed.map_or(Cow::Borrowed("nothing"), |seed| seed.to_string().into());
            let allowed = format!("{}: it cannot change while it runs", show(kept.seed));
            return Err(ConfigError::new("seed", show(config.seed), allowed));
        }
        let config = ToggleConfig { signal: kept.signal, level: kept.level, ..config };
        self.machine.update(config, TokioClock.now());
        Ok(())
    }
}

impl Handle for Toggle {
    fn kind(&self) -> &'static str {
        LAYER
    }

    fn visit(&self, show: &mut dyn FnMut(&'static str, Value)) {
        const OFF: [&str; SwitchedBy::ALL.len()] = [
            "switched_off_first_failure_total",
            "switched_off_failure_rate_total",
            "switched_off_signal_total",
            "switched_off_probe_total",
            "switched_off_time_total",
            "switched_off_level_total",
            "switched_off_operator_total",
        ];
        let seen = self.snapshot();
        show("state", Value::State(seen.state.as_str(), &ToggleState::NAMES));
        for (name, count) in OFF.into_iter().zip(seen.switched_off_by) {
            show(name, Value::Count(count));
        }
        show("switched_on_total", Value::Count(seen.switched_on_total));
        show("probes_total", Value::Count(seen.probes_total));
        show("turned_away_total", Value::Count(seen.turned_away_total));
    }

    fn mode(&self) -> Mode {
        match self.machine.switch() {
            Switch::Auto => Mode::Auto,
            Switch::On => Mode::Disabled,
            Switch::Off => Mode::ForcedOpen,
        }
    }

    fn set_mode(&self, mode: Mode) -> Result<(), ConfigError> {
        let switch = match mode {
            Mode::Auto => Switch::Auto,
            Mode::Disabled => Switch::On,
            Mode::ForcedOpen => Switch::Off,
            _ => return Err(ConfigError::new("mode", mode.as_str(), "auto, disabled (on), forced_open (off)")),
        };
        self.set(switch);
        Ok(())
    }
}

impl fmt::Debug for Toggle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Toggle").field("snapshot", &self.snapshot()).finish_non_exhaustive()
    }
}
