use crate::{
    Balancer,
    balancer::Left,
    node::{Node, State},
    now::Now,
    pick::Roster,
};
use buttress_core::{Mode, Value, sync::Ordering::Relaxed};
use std::{
    borrow::Cow,
    time::{Duration, Instant},
};

/// What a [`Balancer`] shows. Counters never go back, also when endpoints leave.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct BalanceSnapshot {
    /// What an operator told it.
    pub mode: Mode,
    /// The endpoints there are.
    pub endpoints: Vec<EndpointSnapshot>,
    /// Endpoints that were removed and still have calls.
    pub leaving: u64,
    /// Calls in flight, those to removed endpoints included.
    pub in_flight: u64,
    /// Calls sent to an endpoint.
    pub picks_total: u64,
    /// Calls that failed, and endpoints that failed when they were asked whether they are ready.
    pub failures_total: u64,
    /// How often an endpoint was drawn and passed over: shut, not ready, or it failed when it was asked.
    pub skipped_total: u64,
    /// Calls that had to wait, because no endpoint was ready.
    pub waited_total: u64,
    /// Calls refused: every endpoint was shut, or there was none.
    pub refused_total: u64,
    /// Errors of the discovery stream.
    pub discovery_errors_total: u64,
}

/// One endpoint of a [`BalanceSnapshot`].
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct EndpointSnapshot {
    /// Its name.
    pub name: Cow<'static, str>,
    /// Its number in [`Tried`](buttress_core::Tried).
    pub id: u32,
    /// Calls in flight, to the ends of their bodies.
    pub in_flight: u64,
    /// Calls that wait for it to become ready.
    pub waiting: u64,
    /// The peak-EWMA of its latency, failures included at what they cost. `None`: nothing was seen yet.
    #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration_opt"))]
    pub latency: Option<Duration>,
    /// What a further call would have to expect: the latency x (calls + 1), and the penalty of an overload.
    #[cfg_attr(feature = "serde", serde(with = "buttress_core::config::duration"))]
    pub load: Duration,
    /// Its circuit is open, or it is ejected.
    pub shut: bool,
    /// It failed three times in a row, and has not worked since.
    pub failing: bool,
    /// It said "too much" a moment ago, or its limiter is at its limit.
    pub overloaded: bool,
    /// Calls sent to it.
    pub picks_total: u64,
    /// Of those, the ones that failed; and failures of its readiness.
    pub failures_total: u64,
    /// How often it was drawn and passed over.
    pub skipped_total: u64,
}

impl BalanceSnapshot {
    pub(crate) fn take(balancer: &Balancer, roster: &Roster, left: &mut Left, now: Instant) -> Self {
        let count = |counter: &buttress_core::sync::AtomicU64| counter.load(Relaxed);
        let leaving = left.nodes().to_vec();
        let all = || roster.nodes.iter().chain(&leaving);
        let sum = |read: fn(&Node) -> u64| all().map(|node| read(node)).sum::<u64>();
        Self {
            mode: balancer.mode.get(),
            endpoints: roster.nodes.iter().map(|node| EndpointSnapshot::take(node, now)).collect(),
            leaving: leaving.iter().filter(|node| node.load.in_flight() > 0).count() as u64,
            in_flight: sum(|node| node.load.in_flight()),
            picks_total: left.picks + sum(|node| node.load.picks()),
            failures_total: left.failures + sum(|node| node.load.failures()),
            skipped_total: left.skipped + sum(|node| node.load.skipped()),
            waited_total: count(&balancer.counts.waited),
            refused_total: count(&balancer.counts.refused),
            discovery_errors_total: count(&balancer.counts.discovery_errors),
        }
    }

    /// The endpoint of this name.
    pub fn endpoint(&self, name: &str) -> Option<&EndpointSnapshot> {
        self.endpoints.iter().find(|endpoint| endpoint.name == name)
    }

    /// How many endpoints take no calls.
    pub fn shut(&self) -> usize {
        self.endpoints.iter().filter(|endpoint| endpoint.shut).count()
    }

    pub(crate) fn visit(&self, show: &mut dyn FnMut(&'static str, Value)) {
        show("endpoints", Value::Gauge(self.endpoints.len() as u64));
        show("endpoints_shut", Value::Gauge(self.shut() as u64));
        show("endpoints_leaving", Value::Gauge(self.leaving));
        show("in_flight", Value::Gauge(self.in_flight));
        show("picks_total", Value::Count(self.picks_total));
        show("failures_total", Value::Count(self.failures_total));
        show("skipped_total", Value::Count(self.skipped_total));
        show("waited_total", Value::Count(self.waited_total));
        show("refused_total", Value::Count(self.refused_total));
        show("discovery_errors_total", Value::Count(self.discovery_errors_total));
    }
}

impl EndpointSnapshot {
    fn take(node: &Node, now: Instant) -> Self {
        let (load, tuning) = (&node.load, &*node.tuning);
        let nanos = tuning.origin.nanos(now);
        let at = Now::new(now, tuning.origin, nanos);
        let duration = |nanos: f32| Duration::from_nanos(nanos as u64);
        Self {
            name: node.name.clone(),
            id: node.id,
            in_flight: load.in_flight(),
            waiting: u64::from(load.parked()),
            latency: load.average(nanos, tuning).map(duration),
            load: duration(load.load(nanos, tuning, node.is_limited())),
            shut: node.state(&at) == State::Shut,
            failing: load.is_failing(),
            overloaded: load.is_overloaded(nanos) || node.is_limited(),
            picks_total: load.picks(),
            failures_total: load.failures(),
            skipped_total: load.skipped(),
        }
    }
}
