use super::{FailoverConfig, FailoverSnapshot, TierConfig, state::Shared};
use buttress_core::{Budget, Clock, ConfigError, Handle, Lease, Measure, Mode, Series, Striped, TokioClock, Value};
use std::{borrow::Cow, fmt, sync::Arc};

/// Which of its tiers a [`FailoverLayer`](super::FailoverLayer) sends calls to: the state that its services share, and its handle.
///
/// | mode | what it does |
/// |---|---|
/// | `Auto` | sends calls to backups as the results of the primary say |
/// | `Disabled` | sends every call to the primary, and measures nothing |
/// | `Enforcing(p)` | measures, and sends `p` percent of the calls that would go to a backup there; at 0, [`Mode::OBSERVE_ONLY`], it observes only |
///
/// There is no `ForcedOpen`: [`prefer`](Self::prefer) a backup.
pub struct Failover {
    pub(super) shared: Striped<Shared>,
}

/// That other tiers get the calls first from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FailoverChange {
    /// The tier that got them first.
    pub from: Cow<'static, str>,
    /// The tier that gets them first now.
    pub to: Cow<'static, str>,
    /// Why.
    pub why: FailoverWhy,
}

/// Why calls go to another tier first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailoverWhy {
    /// The primary gave too many bad results in a row.
    Failed,
    /// It gave enough good ones in a row.
    Recovered,
    /// An operator said so.
    Operator,
}

/// The target of events.
pub(super) const TARGET: &str = "buttress::fallback";
const KIND: &str = "failover";

impl Failover {
    pub(super) fn new(config: FailoverConfig, backups: Vec<TierConfig>, budget: Option<Arc<Budget>>) -> Self {
        let stripes = Striped::<()>::default_stripes();
        Self { shared: Striped::new(Shared::new(config, backups, budget, TokioClock.now(), stripes), stripes) }
    }

    pub(super) fn lease(&self) -> Arc<Lease<Shared>> {
        self.shared.lease()
    }

    /// All there is to know.
    pub fn snapshot(&self) -> FailoverSnapshot {
        self.snapshot_at(&TokioClock)
    }

    /// The same, by another clock.
    pub fn snapshot_at(&self, clock: &impl Clock) -> FailoverSnapshot {
        FailoverSnapshot::new(&self.shared, self.shared.leased() as u64, self.shared.origin.nanos(clock.now()))
    }

    /// The config.
    pub fn config(&self) -> FailoverConfig {
        self.shared.config.clone()
    }

    /// The names of the tiers: the primary, then the backups in order.
    pub fn tiers(&self) -> impl Iterator<Item = &str> {
        self.shared.tiers.iter().map(|tier| &*tier.name)
    }

    /// Sends calls to this tier first, whatever it answers, until [`auto`](Self::auto). Those that it does not serve well still go on to the
    /// tiers after it, and from the last one to the first.
    ///
    /// # Errors
    ///
    /// A name that no tier has.
    pub fn prefer(&self, tier: &str) -> Result<(), ConfigError> {
        let Some(place) = self.tiers().position(|name| name == tier) else {
            return Err(ConfigError::new("tier", tier, self.tiers().collect::<Vec<_>>().join(", ")));
        };
        // Nine at most.
        self.shared.prefer(Some(place as u8));
        Ok(())
    }

    /// Lets results decide again. It begins anew, with the primary.
    pub fn auto(&self) {
        self.shared.prefer(None);
    }

    /// Calls `listener` after every change, on the thread that caused it and under no lock: it may use the handle.
    pub fn on_change(&self, listener: impl Fn(&FailoverChange) + Send + Sync + 'static) {
        self.shared.listen(Arc::new(listener));
    }
}

impl Handle for Failover {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn visit(&self, show: &mut dyn FnMut(&'static str, Value)) {
        self.snapshot().visit(show);
    }

    fn measure(&self, show: &mut dyn FnMut(Series<'_>)) {
        let name = &*self.shared.config.name;
        for tier in self.snapshot().tiers {
            for (result, count) in [("answered", tier.answered_total), ("failed", tier.failed_total)] {
                show(Series {
                    family: "buttress_failover_tier_calls",
                    help: "Calls that a tier of a failover has ended, by result.",
                    labels: &[("failover", name), ("tier", &tier.name), ("result", result)],
                    measure: Measure::Count(count),
                });
            }
        }
    }

    fn mode(&self) -> Mode {
        self.shared.mode.get()
    }

    fn set_mode(&self, mode: Mode) -> Result<(), ConfigError> {
        if mode == Mode::ForcedOpen {
            return Err(ConfigError::new(
                "mode",
                mode.as_str(),
                "auto, disabled, enforcing: prefer a backup by its name",
            ));
        }
        self.shared.mode.set(mode)
    }
}

impl fmt::Debug for Failover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seen = self.shared.word.load();
        f.debug_struct("Failover")
            .field("active", &self.shared.active(seen).name)
            .field("mode", &self.mode())
            .finish_non_exhaustive()
    }
}
