//! What the layers did, read from their handles as any status page reads them.

use super::script::{CANARY, CAST, Role, Stage};
use crate::proxy::Gateway;
use buttress::{Balancer, Handle, Value, breaker};
use std::{
    collections::VecDeque,
    mem,
    net::SocketAddr,
    ops::Sub,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::time::Instant;

/// What all layers of a kind did, since the start or in some time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Acts {
    /// Further attempts that were made.
    pub(crate) retried: u64,
    /// Further attempts that the budget did not pay for.
    pub(crate) denied: u64,
    /// Attempts and calls that a deadline cut off.
    pub(crate) cut: u64,
    /// Breakers that opened.
    pub(crate) opened: u64,
    /// Calls that open breakers refused, and balancers all of whose breakers were open.
    pub(crate) refused: u64,
    /// Calls that full bulkheads refused.
    pub(crate) full: u64,
    /// Calls that were shed.
    pub(crate) shed: u64,
    /// Calls that the canary got.
    pub(crate) canary: u64,
    /// Canaries that were given up.
    pub(crate) tripped: u64,
    /// Answers of earlier calls.
    pub(crate) stale: u64,
    /// Answers made beforehand.
    pub(crate) fixed: u64,
    /// Calls to a feature that was off.
    pub(crate) off: u64,
}

impl Sub for Acts {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            retried: self.retried - earlier.retried,
            denied: self.denied - earlier.denied,
            cut: self.cut - earlier.cut,
            opened: self.opened - earlier.opened,
            refused: self.refused - earlier.refused,
            full: self.full - earlier.full,
            shed: self.shed - earlier.shed,
            canary: self.canary - earlier.canary,
            tripped: self.tripped - earlier.tripped,
            stale: self.stale - earlier.stale,
            fixed: self.fixed - earlier.fixed,
            off: self.off - earlier.off,
        }
    }
}

/// A change of state, with its reason.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) at: Instant,
    pub(crate) role: &'static str,
    /// A breaker that is closed again.
    pub(crate) closed: bool,
    pub(crate) text: String,
}

/// An endpoint in the last second.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    pub(crate) role: &'static Role,
    /// The state of its breaker; none: it is switched off.
    pub(crate) breaker: Option<&'static str>,
    /// Of the calls to its cluster; of the canary: of all calls that it could get.
    pub(crate) share: Option<f64>,
    pub(crate) latency: Option<Duration>,
}

/// Calls to endpoints with a fault while others of their cluster had none.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Astray {
    pub(crate) calls: u64,
    /// As many as had been, had all endpoints got the same.
    pub(crate) equal: f64,
}

struct Sample {
    at: Instant,
    acts: Acts,
    /// Calls sent to each of the cast, and to the canary.
    picks: [u64; CAST.len() + 1],
}

pub(crate) struct Watch {
    handles: Vec<Arc<dyn Handle>>,
    balancers: Vec<(&'static str, Arc<Balancer>)>,
    /// Of each of the cast: its address, and its breaker.
    endpoints: Vec<(String, Option<Arc<dyn Handle>>)>,
    canary: Option<Arc<dyn Handle>>,
    changes: Arc<Mutex<Vec<Change>>>,
    samples: VecDeque<Sample>,
    pub(crate) astray: Astray,
}

impl Watch {
    /// `addresses` are those of the cast, in its order.
    pub(crate) fn new(gateway: &Gateway, addresses: &[SocketAddr]) -> Self {
        let controls = gateway.controls();
        let changes = Arc::<Mutex<Vec<Change>>>::default();
        let mut endpoints = Vec::new();
        for (role, address) in CAST.iter().zip(addresses) {
            let address = address.to_string();
            controls.endpoints[role.cluster][&address].breaker.on_transition(on_transition(role.name, &changes));
            endpoints
                .push((address.clone(), controls.registry.get(&format!("cluster.{}/{address}.breaker", role.cluster))));
        }
        let canaries = controls.endpoints.get(CANARY.cluster).into_iter().flatten();
        for (_, endpoint) in canaries {
            endpoint.breaker.on_transition(on_transition(CANARY.name, &changes));
        }
        for canary in controls.canaries.values() {
            let changes = changes.clone();
            canary.on_trip(move |trip| {
                let (bad, good) = (100.0 * trip.canary_rate, 100.0 * trip.stable_rate);
                let text = format!("canary given up: {bad:.0} % of its calls failed, of the others {good:.0} %");
                let change = Change { at: Instant::now(), role: CANARY.name, closed: false, text };
                changes.lock().expect("never poisoned").push(change);
            });
        }
        if let Some(levels) = &controls.levels {
            let changes = changes.clone();
            levels.on_change(move |change| {
                let (from, to) = (&change.from, &change.to);
                let text = format!("service {from} -> {to}: {:.0} % of c's circuits are open", 100.0 * change.pressure);
                let change = Change { at: Instant::now(), role: "levels", closed: false, text };
                changes.lock().expect("never poisoned").push(change);
            });
        }
        let clusters = super::setup::CLUSTERS.into_iter();
        Self {
            handles: controls.registry.handles().into_iter().map(|(_, handle)| handle).collect(),
            balancers: clusters.map(|cluster| (cluster, controls.balancers[cluster].clone())).collect(),
            endpoints,
            canary: controls.registry.get("route.a.canary"),
            changes,
            samples: VecDeque::new(),
            astray: Astray::default(),
        }
    }

    /// Looks at everything; several times a second.
    pub(crate) fn sample(&mut self, now: Instant, stage: Stage) {
        let mut acts = Acts::default();
        for handle in &self.handles {
            handle.visit(&mut |name, value| acts.add(handle.kind(), name, value));
        }
        let mut picks = [0; CAST.len() + 1];
        let mut snapshots = Vec::new();
        for (cluster, balancer) in &self.balancers {
            snapshots.push((*cluster, balancer.snapshot()));
        }
        for (i, role) in CAST.iter().enumerate() {
            let snapshot = snapshots.iter().find(|(cluster, _)| *cluster == role.cluster).map(|(_, seen)| seen);
            picks[i] = snapshot.and_then(|seen| seen.endpoint(&self.endpoints[i].0)).map_or(0, |seen| seen.picks_total);
        }
        picks[CAST.len()] = acts.canary;
        if let Some(before) = self.samples.back() {
            // A call that was sent before a scene began is not the balancer's mistake.
            self.astray.add(&before.picks, &picks, [stage.share(before.at), stage.share(now)]);
        }
        self.samples.push_back(Sample { at: now, acts, picks });
        while self.samples.get(1).is_some_and(|second| second.at + Duration::from_secs(1) <= now) {
            self.samples.pop_front();
        }
    }

    /// Since the start.
    pub(crate) fn total(&self) -> Acts {
        self.samples.back().map_or(Acts::default(), |sample| sample.acts)
    }

    /// In the last second.
    pub(crate) fn second(&self) -> Acts {
        match (self.samples.front(), self.samples.back()) {
            (Some(first), Some(last)) => last.acts - first.acts,
            _ => Acts::default(),
        }
    }

    /// The cast, and the canary where there is one.
    pub(crate) fn readings(&self) -> Vec<Reading> {
        let mut sent = [0; CAST.len() + 1];
        if let (Some(first), Some(last)) = (self.samples.front(), self.samples.back()) {
            sent = std::array::from_fn(|i| last.picks[i] - first.picks[i]);
        }
        let share = |of: u64, all: u64| (all > 0).then(|| of as f64 / all as f64);
        let mut readings = Vec::new();
        for (i, role) in CAST.iter().enumerate() {
            let all = CAST.iter().zip(sent).filter(|(other, _)| other.cluster == role.cluster);
            let (address, breaker) = &self.endpoints[i];
            let balancer = self.balancers.iter().find(|(cluster, _)| *cluster == role.cluster);
            let seen = balancer.and_then(|(_, balancer)| balancer.snapshot().endpoint(address).cloned());
            readings.push(Reading {
                role,
                breaker: breaker.as_ref().and_then(|breaker| state(&**breaker)),
                share: share(sent[i], all.map(|(_, sent)| sent).sum()),
                // What a failing one is charged is no latency.
                latency: seen.filter(|seen| !seen.failing && sent[i] > 0).and_then(|seen| seen.latency),
            });
        }
        if let Some(canary) = &self.canary {
            let stable: u64 = CAST.iter().zip(sent).filter(|(role, _)| role.cluster == "a").map(|(_, sent)| sent).sum();
            readings.push(Reading {
                role: &CANARY,
                breaker: state(&**canary),
                share: share(sent[CAST.len()], sent[CAST.len()] + stable),
                latency: None,
            });
        }
        readings
    }

    /// What changed since this was last asked.
    pub(crate) fn changes(&self) -> Vec<Change> {
        mem::take(&mut self.changes.lock().expect("never poisoned"))
    }
}

impl Acts {
    fn add(&mut self, kind: &str, name: &str, value: Value) {
        let Value::Count(count) = value else { return };
        match (kind, name) {
            ("retry", "retries_total") => self.retried += count,
            ("retry", "gave_up_budget_empty_total" | "gave_up_budget_concurrent_total") => self.denied += count,
            ("deadline", "passed_total" | "bodies_cut_total") => self.cut += count,
            ("breaker", "opened_total") => self.opened += count,
            ("breaker" | "balance" | "gate", "refused_total") => self.refused += count,
            ("bulkhead", "refused_total" | "timed_out_total") => self.full += count,
            ("shed", "shed_total") => self.shed += count,
            ("canary", "canary_picks_total") => self.canary += count,
            ("canary", "trips_total") => self.tripped += count,
            ("stale", "served_stale_total") => self.stale += count,
            (
                "fallback",
                "refused_total" | "failure_total" | "overload_total" | "unwanted_total" | "switched_total",
            ) => self.fixed += count,
            ("toggle", "turned_away_total") => self.off += count,
            _ => {}
        }
    }
}

impl Astray {
    fn add(&mut self, before: &[u64], after: &[u64], shares: [f64; 2]) {
        for cluster in super::setup::CLUSTERS {
            let members = || CAST.iter().enumerate().filter(move |(_, role)| role.cluster == cluster);
            let faulty = |role: &Role| shares.map(|share| role.fault(share).is_some());
            let steady = members().all(|(_, role)| matches!(faulty(role), [true, true] | [false, false]));
            let bad: Vec<_> = members().filter(|(_, role)| faulty(role)[1]).collect();
            let all = members().count();
            if !steady || bad.is_empty() || bad.len() == all {
                continue;
            }
            let sent = |i: usize| after[i] - before[i];
            self.calls += bad.iter().map(|(i, _)| sent(*i)).sum::<u64>();
            let total: u64 = members().map(|(i, _)| sent(i)).sum();
            self.equal += total as f64 * bad.len() as f64 / all as f64;
        }
    }
}

fn state(handle: &dyn Handle) -> Option<&'static str> {
    let mut found = None;
    if handle.mode() != buttress::Mode::Disabled {
        handle.visit(&mut |name, value| {
            if let ("state", Value::State(state, _)) = (name, value) {
                found = Some(state);
            }
        });
    }
    found
}

fn on_transition(role: &'static str, changes: &Arc<Mutex<Vec<Change>>>) -> impl Fn(&breaker::Transition) + use<> {
    let changes = changes.clone();
    move |change| {
        let (from, to) = (change.from.as_str(), change.to.as_str());
        let why = match change.cause {
            breaker::Cause::Consecutive => "failures in a row",
            breaker::Cause::FailureRate => "too many failures",
            breaker::Cause::SlowRate => "too many slow calls",
            breaker::Cause::OpenTimeOver => "its time is over, calls may probe",
            breaker::Cause::ProbesGood => "its probes went well",
            breaker::Cause::ProbesBad => "its probes failed",
            other => other.as_str(),
        };
        let text = format!("breaker {from} -> {to}: {why}").replace("half_open", "half-open");
        let change = Change { at: Instant::now(), role, closed: change.to == breaker::State::Closed, text };
        changes.lock().expect("never poisoned").push(change);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_to_faulty_endpoints_are_held_against_an_equal_share() {
        let mut astray = Astray::default();
        let mut picks = [0; CAST.len() + 1];
        // a/1 fails, of three.
        picks[..3].copy_from_slice(&[2, 14, 14]);
        astray.add(&[0; CAST.len() + 1], &picks, [0.12, 0.13]);
        assert_eq!((astray.calls, astray.equal), (2, 10.0));
        // It begins to.
        astray.add(&[0; CAST.len() + 1], &picks, [0.05, 0.07]);
        assert_eq!(astray.calls, 2);
    }
}
