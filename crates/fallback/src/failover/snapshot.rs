use super::state::Shared;
use buttress_core::{BudgetSnapshot, Mode, Value, sync::Ordering::Relaxed};
use std::{borrow::Cow, time::Duration};

/// What a [`Failover`](super::Failover) shows.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct FailoverSnapshot {
    /// What an operator told it.
    pub mode: Mode,
    /// The tier that calls go to first.
    pub active: Cow<'static, str>,
    /// An operator chose it.
    pub preferred: bool,
    /// For how long calls have gone to the first backup at once; `None`: they go to the primary, or where an operator says.
    pub failed_over: Option<Duration>,
    /// Calls in flight, to the ends of their bodies.
    pub in_flight: u64,
    /// The primary, then the backups in order.
    pub tiers: Vec<TierSnapshot>,
    /// How often calls were sent to the first backup at once.
    pub failovers_total: u64,
    /// How often they came back by themselves.
    pub returns_total: u64,
    /// Calls that went to the primary first while others did not.
    pub probes_total: u64,
    /// Calls that stayed with a tier because a mode said so.
    pub passed_total: u64,
    /// What pays for backups.
    pub budget: Option<BudgetSnapshot>,
}

/// One tier of a [`FailoverSnapshot`].
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct TierSnapshot {
    /// Its name.
    pub name: Cow<'static, str>,
    /// Calls sent to it.
    pub calls_total: u64,
    /// Those of them that were answered well.
    pub answered_total: u64,
    /// Those that were not. The rest is in flight, was given up by its caller, or says nothing about the tier.
    pub failed_total: u64,
    /// Those that took longer than the tier's share of the time.
    pub timed_out_total: u64,
    /// Calls that it was not sent because as many as it may have were in flight.
    pub capped_total: u64,
    /// Calls that it was not sent because the budget did not pay for them.
    pub unpaid_total: u64,
}

impl FailoverSnapshot {
    pub(super) fn new(shared: &Shared, in_flight: u64, now: u64) -> Self {
        let seen = shared.word.load();
        let tiers = shared.tiers.iter().map(|tier| TierSnapshot {
            name: tier.name.clone(),
            calls_total: tier.sum(|line| &line.calls),
            answered_total: tier.sum(|line| &line.answered),
            failed_total: tier.sum(|line| &line.failed),
            timed_out_total: tier.timed_out.load(Relaxed),
            capped_total: tier.capped.load(Relaxed),
            unpaid_total: tier.unpaid.load(Relaxed),
        });
        Self {
            mode: shared.mode.get(),
            active: shared.active(seen).name.clone(),
            preferred: seen.preferred().is_some(),
            failed_over: seen.is_over().then(|| Duration::from_nanos(now.saturating_sub(shared.since()))),
            in_flight,
            tiers: tiers.collect(),
            failovers_total: shared.failovers.load(Relaxed),
            returns_total: shared.returns.load(Relaxed),
            probes_total: shared.probes.load(Relaxed),
            passed_total: shared.passed.load(Relaxed),
            budget: shared.budget.as_ref().map(|budget| budget.snapshot()),
        }
    }

    pub(super) fn visit(&self, show: &mut dyn FnMut(&'static str, Value)) {
        let state = match (self.preferred, self.failed_over) {
            (true, _) => "preferred",
            (false, Some(_)) => "failed_over",
            (false, None) => "active",
        };
        let backups = |read: fn(&TierSnapshot) -> u64| Value::Count(self.tiers.iter().skip(1).map(read).sum());
        let timed_out = self.tiers.iter().map(|tier| tier.timed_out_total).sum();
        show("state", Value::State(state, &["active", "failed_over", "preferred"]));
        show("in_flight", Value::Gauge(self.in_flight));
        show("failed_over_for", Value::Duration(self.failed_over.unwrap_or_default()));
        show("failovers_total", Value::Count(self.failovers_total));
        show("returns_total", Value::Count(self.returns_total));
        show("probes_total", Value::Count(self.probes_total));
        show("passed_total", Value::Count(self.passed_total));
        show("primary_calls_total", Value::Count(self.tiers[0].calls_total));
        show("primary_failed_total", Value::Count(self.tiers[0].failed_total));
        show("backup_calls_total", backups(|tier| tier.calls_total));
        show("backup_answered_total", backups(|tier| tier.answered_total));
        show("backup_failed_total", backups(|tier| tier.failed_total));
        show("backup_capped_total", backups(|tier| tier.capped_total));
        show("backup_unpaid_total", backups(|tier| tier.unpaid_total));
        show("timed_out_total", Value::Count(timed_out));
    }
}
