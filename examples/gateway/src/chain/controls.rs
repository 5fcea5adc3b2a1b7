//! What the layers are, for operators.

use super::Shedder;
use crate::config;
use buttress::{
    Balancer, Breaker, Canary, Chaos, ConfigError, Failover, Handle, Mode, Pressure, PressureGate, Priority,
    RampedGate, Registry, Rejection, Stale,
    core::TokioClock,
    fallback::{Levels, LevelsConfig, Toggles},
    shed::pressure::{CpuPressure, EventLoopLag, MemoryPressure, PressureConfig},
};
use std::{collections::BTreeMap, sync::Arc};
use tokio::task::JoinSet;

/// What the layers are, for operators.
pub(crate) struct Controls {
    /// All of them, under their names: `cluster.web/10.0.0.1:80.breaker`, `route.api.bulkhead`.
    pub(crate) registry: Registry,
    /// By cluster and endpoint.
    pub(crate) endpoints: BTreeMap<String, BTreeMap<String, EndpointControls>>,
    /// By cluster; one of a single endpoint has none.
    pub(crate) balancers: BTreeMap<String, Arc<Balancer>>,
    /// By cluster.
    pub(crate) sheds: BTreeMap<String, Arc<Shedder>>,
    /// By cluster; one of a single endpoint has none.
    pub(crate) gates: BTreeMap<String, Arc<RampedGate>>,
    pub(crate) pressure: Pressured,
    /// Where the config has levels.
    pub(crate) levels: Option<Levels>,
    pub(crate) toggles: Toggles,
    /// The last good answers, by route.
    pub(crate) stales: BTreeMap<String, Arc<Stale>>,
    /// By route.
    pub(crate) failovers: BTreeMap<String, Arc<Failover>>,
    /// By route.
    pub(crate) canaries: BTreeMap<String, Arc<Canary>>,
}

impl Controls {
    /// Levels and toggles; the layers are added when they are built.
    pub(crate) fn new(config: &config::Config) -> Result<Self, ConfigError> {
        let registry = Registry::new();
        let levels = config.levels.config().map(LevelsConfig::build).transpose()?;
        if let Some(levels) = &levels {
            registry.add("levels", Arc::new(levels.clone()));
        }
        let mut toggles = Toggles::builder();
        for (name, toggle) in &config.toggles {
            let own = toggle.config(name);
            toggles = toggles.add(match (&toggle.level, &levels) {
                (Some(level), Some(levels)) => own.level(levels, level)?,
                _ => own,
            });
        }
        let toggles = toggles.build()?;
        toggles.for_each(|toggle| _ = registry.add(format!("toggle.{}", toggle.name()), Arc::new(toggle.clone())));
        let pressure = Pressured::new(&config.pressure, &registry)?;
        let (endpoints, balancers) = (BTreeMap::new(), BTreeMap::new());
        let (sheds, gates) = (BTreeMap::new(), BTreeMap::new());
        let (stales, failovers, canaries) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Ok(Self {
            registry,
            endpoints,
            balancers,
            sheds,
            gates,
            pressure,
            levels,
            toggles,
            stales,
            failovers,
            canaries,
        })
    }

    /// Levels heed the clusters that the config says: the share of endpoints whose circuits are open is their pressure. Where it
    /// says so, they heed the pressure of this process as well.
    pub(crate) fn watch_clusters(&self, config: &config::Levels) {
        let Some(levels) = &self.levels else { return };
        if config.pressure {
            let pressure = self.pressure.sources.clone();
            levels.source(move || pressure.current());
        }
        for (name, endpoints) in &self.endpoints {
            if !config.clusters.is_empty() && !config.clusters.contains(name) {
                continue;
            }
            let signals: Vec<_> = endpoints.values().map(|endpoint| endpoint.breaker.signal()).collect();
            levels.source(move || {
                let open = signals.iter().filter(|signal| signal.is_shut(&TokioClock)).count();
                open as f64 / signals.len() as f64
            });
        }
    }
}

pub(crate) struct EndpointControls {
    pub(crate) breaker: Arc<Breaker>,
    pub(crate) chaos: Arc<Chaos>,
}

/// The pressure of this process, and who heeds it.
pub(crate) struct Pressured {
    pub(crate) gate: Arc<PressureGate>,
    pub(crate) sources: Pressure,
    lag: Option<EventLoopLag>,
}

impl Pressured {
    fn new(config: &config::Pressure, registry: &Registry) -> Result<Self, ConfigError> {
        let sources = PressureConfig::default().every(config.every).build()?;
        let mut lag = None;
        for source in &config.sources {
            match source {
                config::Source::Cpu => sources.source("cpu", CpuPressure::new()),
                config::Source::Memory => sources.source("memory", MemoryPressure::new()),
                config::Source::Lag => {
                    let measured = EventLoopLag::new(config.lag)?;
                    sources.source("lag", measured.clone());
                    lag = Some(measured);
                }
            }
        }
        let gate = config.gate().build(&sources)?;
        gate.set_mode(match config.mode {
            config::Gating::Auto => Mode::Auto,
            config::Gating::ObserveOnly => Mode::OBSERVE_ONLY,
            config::Gating::Disabled => Mode::Disabled,
        })?;
        let gate = Arc::new(gate);
        registry.add("pressure", gate.clone());
        registry.add("pressure.sources", Arc::new(sources.clone()));
        Ok(Self { gate, sources, lag })
    }

    /// Measures, until the tasks are dropped: so no request reads files. Though nobody heeds it yet: an operator may switch it on at any
    /// time, and read it before.
    pub(crate) fn watch(&self) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        tasks.spawn(self.sources.drive());
        self.lag.iter().for_each(|lag| _ = tasks.spawn(lag.watch()));
        tasks
    }

    /// Whether a request of this importance may come in.
    pub(crate) fn admit(&self, priority: Priority) -> Result<(), Rejection> {
        if self.gate.mode() == Mode::Disabled { Ok(()) } else { self.gate.decide(priority) }
    }
}
