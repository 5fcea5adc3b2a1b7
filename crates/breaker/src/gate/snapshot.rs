use super::{TARGET, valve::Valve};
use buttress_core::{Clock, Mode, Value, sync::Ordering::Relaxed};
use std::time::Duration;

/// The share of a gate has changed.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct GateChange {
    /// What it was, above 0 and at most 1.
    pub from: f64,
    /// What it is.
    pub to: f64,
}

impl GateChange {
    pub(super) fn trace(&self, name: &str) {
        let (from, to) = (self.from, self.to);
        if from >= 1.0 {
            tracing::warn!(target: TARGET, name, from, to, "gate narrows");
        } else if to >= 1.0 {
            tracing::info!(target: TARGET, name, from, to, "gate wide open");
        } else {
            tracing::debug!(target: TARGET, name, from, to, "gate moves");
        }
    }
}

/// A gate at one moment.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct RampedGateSnapshot {
    /// The share of calls that pass: 1 is wide open.
    pub share: f64,
    /// What an operator told it to do.
    pub mode: Mode,
    /// How often the share has changed, modulo 2^20.
    pub generation: u64,
    /// What speaks against the service, of the results since then: a bad one counts 1, a good one -3. Wide open 0 to 40, else -5 to 9.
    pub evidence: i64,
    /// Calls that are waiting for an answer (those that were pending at least once), but for those from before it was widened last.
    pub in_flight: u64,
    /// Of these, those that hang.
    pub hung_in_flight: u64,
    /// How often it was wide open and is narrowed.
    pub narrowed_total: u64,
    /// How many calls it refused.
    pub refused_total: u64,
    /// How many calls it would have refused, had the mode not let them through.
    pub let_through_total: u64,
    /// Narrow: how long until a call passes for certain.
    #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration_opt"))]
    pub probe_in: Option<Duration>,
}

impl RampedGateSnapshot {
    pub(super) fn take(valve: &Valve, clock: &impl Clock) -> Self {
        let now = valve.nanos(clock);
        valve.look(now);
        let word = valve.word();
        Self {
            share: word.share(),
            mode: valve.mode.get(),
            generation: word.generation(),
            evidence: word.evidence(),
            in_flight: valve.hung.all(),
            hung_in_flight: valve.hung.old(now),
            narrowed_total: valve.narrowed.load(Relaxed),
            refused_total: valve.refused_total(),
            let_through_total: valve.let_through_total(),
            probe_in: valve.probe_in(now),
        }
    }

    pub(super) fn visit(&self, show: &mut dyn FnMut(&'static str, Value)) {
        show("share", Value::Ratio(self.share));
        show("in_flight", Value::Gauge(self.in_flight));
        show("hung_in_flight", Value::Gauge(self.hung_in_flight));
        show("narrowed_total", Value::Count(self.narrowed_total));
        show("refused_total", Value::Count(self.refused_total));
        show("let_through_total", Value::Count(self.let_through_total));
    }
}
