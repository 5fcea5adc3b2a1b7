use super::state::rate;
use buttress_core::{Mode, Value, window::Counts};

/// What a [`Canary`](crate::Canary) shows.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CanarySnapshot {
    /// What an operator told it.
    pub mode: Mode,
    /// The canary was given up, until an operator resets it or sets a weight.
    pub tripped: bool,
    /// How many of a hundred first attempts go to it now.
    pub weight: f64,
    /// By what the window holds it fails too often.
    pub worse: bool,
    /// Calls in flight, to the ends of their bodies.
    pub in_flight: u64,
    /// The stable service.
    pub stable: SideSnapshot,
    /// The canary.
    pub canary: SideSnapshot,
    /// Further attempts, which all went to the stable service.
    pub retried_total: u64,
    /// Calls that a mode let pass to a tripped canary.
    pub passed_total: u64,
    /// How often it was given up.
    pub trips_total: u64,
}

/// One side of a [`CanarySnapshot`].
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct SideSnapshot {
    /// Calls sent to it.
    pub picks_total: u64,
    /// Calls in the window, since the last weight or reset.
    pub calls: u64,
    /// Of those, the ones that failed.
    pub failures: u64,
    /// Their share.
    pub failure_rate: f64,
}

impl SideSnapshot {
    pub(super) fn new(picks_total: u64, counts: Counts) -> Self {
        Self { picks_total, calls: counts.total, failures: counts.failures, failure_rate: rate(counts) }
    }
}

impl CanarySnapshot {
    pub(super) fn visit(&self, show: &mut dyn FnMut(&'static str, Value)) {
        let state = if self.tripped { "tripped" } else { "splitting" };
        show("state", Value::State(state, &["splitting", "tripped"]));
        show("weight", Value::Ratio(self.weight / 100.0));
        show("in_flight", Value::Gauge(self.in_flight));
        show("canary_picks_total", Value::Count(self.canary.picks_total));
        show("stable_picks_total", Value::Count(self.stable.picks_total));
        show("canary_failure_rate", Value::Ratio(self.canary.failure_rate));
        show("stable_failure_rate", Value::Ratio(self.stable.failure_rate));
        show("retried_total", Value::Count(self.retried_total));
        show("passed_total", Value::Count(self.passed_total));
        show("trips_total", Value::Count(self.trips_total));
    }
}
