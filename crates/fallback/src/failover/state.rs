//! What a failover counts, and what it makes of it.

use super::{
    FailoverChange, FailoverConfig, FailoverPermit, FailoverWhy, TierConfig,
    policy::TARGET,
    word::{Terms, Turn, Word},
};
use crate::Trigger;
use buttress_core::{
    Budget, Clock, Lease, Mode, ModeCell, Origin, Outcome, TokioClock,
    sync::{AtomicU32, AtomicU64, Mutex, Ordering::Relaxed, lock},
};
use std::{borrow::Cow, sync::Arc, time::Instant};

/// Which tier a call begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pick {
    pub(super) start: u8,
    /// An operator chose it.
    pub(super) chosen: bool,
    /// The result of the primary counts.
    pub(super) measured: bool,
    pub(super) generation: u64,
}

pub(super) struct Shared {
    pub(super) word: Word,
    terms: Terms,
    /// When calls began to go to the backup; nanoseconds since the origin.
    since: AtomicU64,
    /// When the next call may go to the primary first, while they do.
    due: AtomicU64,
    pub(super) origin: Origin,
    pub(super) mode: ModeCell,
    /// The primary, and its backups.
    pub(super) tiers: Box<[Tier]>,
    pub(super) config: FailoverConfig,
    pub(super) budget: Option<Arc<Budget>>,
    pub(super) failovers: AtomicU64,
    pub(super) returns: AtomicU64,
    pub(super) probes: AtomicU64,
    pub(super) passed: AtomicU64,
    listeners: Mutex<Vec<Listener>>,
}

type Listener = Arc<dyn Fn(&FailoverChange) + Send + Sync>;

pub(super) struct Tier {
    pub(super) name: Cow<'static, str>,
    pub(super) share: f64,
    max_concurrent: u32,
    /// Of a backup.
    pub(super) in_flight: AtomicU32,
    pub(super) lines: Box<[Line]>,
    pub(super) capped: AtomicU64,
    pub(super) unpaid: AtomicU64,
    pub(super) timed_out: AtomicU64,
}

/// What one thread changes at every call.
#[repr(align(128))]
#[derive(Default)]
pub(super) struct Line {
    pub(super) calls: AtomicU64,
    pub(super) answered: AtomicU64,
    pub(super) failed: AtomicU64,
}

impl Tier {
    fn new(config: TierConfig, share: f64, stripes: usize) -> Self {
        Self {
            name: config.name,
            share: config.share.unwrap_or(share),
            max_concurrent: config.max_concurrent.unwrap_or(u32::MAX),
            in_flight: AtomicU32::new(0),
            lines: (0..stripes).map(|_| Line::default()).collect(),
            capped: AtomicU64::new(0),
            unpaid: AtomicU64::new(0),
            timed_out: AtomicU64::new(0),
        }
    }

    /// A place among its calls.
    fn enter(&self) -> bool {
        self.in_flight.fetch_add(1, Relaxed) < self.max_concurrent || {
            self.in_flight.fetch_sub(1, Relaxed);
            false
        }
    }

    pub(super) fn sum(&self, read: impl Fn(&Line) -> &AtomicU64) -> u64 {
        self.lines.iter().map(|line| read(line).load(Relaxed)).sum()
    }
}

impl Shared {
    pub(super) fn new(
        config: FailoverConfig,
        backups: Vec<TierConfig>,
        budget: Option<Arc<Budget>>,
        now: Instant,
        stripes: usize,
    ) -> Self {
        let primary = TierConfig::new(config.primary.clone());
        let tiers = [primary].into_iter().chain(backups).map(|tier| Tier::new(tier, config.share, stripes)).collect();
        Self {
            word: Word::new(),
            terms: Terms { fail_after: config.fail_after, return_after: config.return_after },
            since: AtomicU64::new(0),
            due: AtomicU64::new(0),
            origin: Origin::new(now),
            mode: ModeCell::new(0),
            tiers,
            config,
            budget,
            failovers: AtomicU64::new(0),
            returns: AtomicU64::new(0),
            probes: AtomicU64::new(0),
            passed: AtomicU64::new(0),
            listeners: Mutex::default(),
        }
    }

    /// Which tier a call begins with.
    #[inline]
    pub(super) fn pick(&self, clock: &impl Clock) -> Pick {
        let seen = self.word.load();
        let generation = seen.generation();
        if self.mode.get() == Mode::Disabled {
            return Pick { start: 0, chosen: false, measured: false, generation };
        }
        if seen.is_calm() {
            return Pick { start: 0, chosen: false, measured: true, generation };
        }
        let preferred = seen.preferred();
        let elsewhere = match preferred {
            Some(tier) => tier,
            None if self.takes_probe(clock) => return Pick { start: 0, chosen: false, measured: true, generation },
            None => 1,
        };
        let start = if elsewhere == 0 || self.enforces() { elsewhere } else { 0 };
        Pick { start, chosen: preferred.is_some(), measured: false, generation }
    }

    /// Whether this call is the one that goes to the primary, to see how it is.
    fn takes_probe(&self, clock: &impl Clock) -> bool {
        let now = self.origin.nanos(clock.now());
        let due = self.due.load(Relaxed);
        let takes = now >= due && self.due.compare_exchange(due, self.next_due(now), Relaxed, Relaxed).is_ok();
        if takes {
            self.probes.fetch_add(1, Relaxed);
        }
        takes
    }

    fn next_due(&self, now: u64) -> u64 {
        // An hour at most.
        now.saturating_add(self.config.probe_every.as_nanos() as u64)
    }

    /// Whether a call goes elsewhere indeed; one that does not is counted.
    pub(super) fn enforces(&self) -> bool {
        let enforces = self.mode.enforces();
        if !enforces {
            self.passed.fetch_add(1, Relaxed);
        }
        enforces
    }

    /// A place among the calls of `tier`, paid for. The primary always has one.
    #[inline]
    pub(super) fn admit(lease: Arc<Lease<Self>>, tier: u8, pick: Pick) -> Option<FailoverPermit> {
        let present = &lease.tiers[usize::from(tier)];
        let mut token = None;
        if tier != 0 {
            if !present.enter() {
                present.capped.fetch_add(1, Relaxed);
                return None;
            }
            if let Some(budget) = &lease.budget {
                token = budget.withdraw(&TokioClock).ok();
                if token.is_none() {
                    present.unpaid.fetch_add(1, Relaxed);
                    present.in_flight.fetch_sub(1, Relaxed);
                    return None;
                }
            }
        }
        present.lines[lease.stripe()].calls.fetch_add(1, Relaxed);
        let measured = pick.measured && tier == 0;
        Some(FailoverPermit::new(lease, tier, token, measured, pick.generation))
    }

    #[inline]
    pub(super) fn leave(&self, tier: u8) {
        if tier != 0 {
            self.tiers[usize::from(tier)].in_flight.fetch_sub(1, Relaxed);
        }
    }

    pub(super) fn is_on(&self, on: Trigger) -> bool {
        self.config.on.has(on)
    }

    /// Whether an outcome speaks against its tier. `None`: it says nothing, or nothing that is asked for. "Too much" says nothing: it may be
    /// meant for one client, and that one must not move the others.
    #[inline]
    pub(super) fn is_bad(&self, outcome: Outcome) -> Option<bool> {
        match outcome {
            Outcome::Success => Some(false),
            Outcome::Failure => self.is_on(Trigger::Failure).then_some(true),
            _ => None,
        }
    }

    /// Whether an outcome sends its call to the next tier.
    #[inline]
    pub(super) fn goes_on(&self, outcome: Outcome) -> bool {
        match outcome {
            Outcome::Failure => self.is_on(Trigger::Failure),
            Outcome::Overload => self.is_on(Trigger::Overload),
            _ => false,
        }
    }

    /// A call to `tier` ended. It is one of the primary that counts if it is of a generation.
    #[inline]
    pub(super) fn told(&self, stripe: usize, tier: u8, generation: Option<u64>, good: bool, clock: &impl Clock) {
        let line = &self.tiers[usize::from(tier)].lines[stripe];
        if good { &line.answered } else { &line.failed }.fetch_add(1, Relaxed);
        if let Some(generation) = generation {
            let before = || {
                let now = self.origin.nanos(clock.now());
                self.since.store(now, Relaxed);
                self.due.fetch_max(self.next_due(now), Relaxed);
            };
            if let Some(turn) = self.word.told(generation, good, self.terms, before) {
                self.announce(turn);
            }
        }
    }

    #[cold]
    fn announce(&self, turn: Turn) {
        let name = &*self.config.name;
        let [primary, backup] = [0, 1].map(|tier: usize| self.tiers[tier].name.clone());
        let change = match turn {
            Turn::Over => {
                self.failovers.fetch_add(1, Relaxed);
                let bad = self.terms.fail_after;
                tracing::warn!(target: TARGET, failover = name, from = &*primary, to = &*backup, bad, "failed over");
                FailoverChange { from: primary, to: backup, why: FailoverWhy::Failed }
            }
            Turn::Back => {
                self.returns.fetch_add(1, Relaxed);
                let good = self.terms.return_after;
                tracing::info!(target: TARGET, failover = name, from = &*backup, to = &*primary, good, "returned");
                FailoverChange { from: backup, to: primary, why: FailoverWhy::Recovered }
            }
        };
        self.tell(&change);
    }

    /// An operator's word.
    pub(super) fn prefer(&self, tier: Option<u8>) {
        let before = self.word.prefer(tier);
        let from = self.active(before).name.clone();
        let to = self.tiers[usize::from(tier.unwrap_or(0))].name.clone();
        let automatic = tier.is_none();
        let name = &*self.config.name;
        tracing::info!(target: TARGET, failover = name, from = &*from, to = &*to, automatic, "an operator chose the tier");
        self.tell(&FailoverChange { from, to, why: FailoverWhy::Operator });
    }

    /// The tier that calls begin with.
    pub(super) fn active(&self, seen: super::word::Seen) -> &Tier {
        let tier = seen.preferred().unwrap_or(u8::from(seen.is_over()));
        &self.tiers[usize::from(tier)]
    }

    pub(super) fn since(&self) -> u64 {
        self.since.load(Relaxed)
    }

    pub(super) fn listen(&self, listener: Listener) {
        lock(&self.listeners).push(listener);
    }

    fn tell(&self, change: &FailoverChange) {
        let listeners = lock(&self.listeners).clone();
        listeners.iter().for_each(|listener| listener(change));
    }
}
