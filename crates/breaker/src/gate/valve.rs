//! The state of a gate: decides, records and moves, with the time as an argument.

use super::{RampedGateConfig, permit::Ticket, snapshot::GateChange, word::Word};
use crate::{in_flight::InFlight, share::Share};
use buttress_core::{
    Clock, Draw, Mode, ModeCell, Origin, Reason, Rejection, Signal, Wakers,
    sync::{
        AtomicU64, Mutex,
        Ordering::{AcqRel, Relaxed},
        lock,
    },
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

pub(crate) struct Valve {
    state: AtomicU64,
    pub(super) mode: ModeCell,
    pub(super) hung: InFlight,
    /// The epoch of the last look at the calls in flight.
    looked: AtomicU64,
    share: Share,
    pub(super) rate: Rate,
    pub(super) origin: Origin,
    pub(super) signal: Signal,
    pub(super) wakers: Wakers,
    hang_after: AtomicU64,
    min_share: AtomicU64,
    probe_every: AtomicU64,
    pub(super) narrowed: AtomicU64,
    let_through: AtomicU64,
    counts: Box<[Counts]>,
    pub(super) listeners: Mutex<Vec<Listener>>,
    pub(super) config: Mutex<RampedGateConfig>,
}

pub(super) type Listener = Arc<dyn Fn(&GateChange) + Send + Sync>;

#[repr(align(128))]
struct Counts {
    /// Calls that came while the gate was narrow.
    offered: AtomicU64,
    refused: AtomicU64,
}

/// Bad results must outweigh the good ones for this long before a gate that is wide open is narrowed: a replica that goes down
/// takes all its calls with it in one moment, and the others answer in the next.
const SPAN: u64 = 100_000_000;
/// The floor by the rate is not above this, or a gate with few calls would be none.
const MOST_BY_RATE: f64 = 0.25;

impl Valve {
    pub(super) fn new(config: RampedGateConfig, now: Instant, stripes: usize) -> Self {
        let seed = Draw::seed(config.seed);
        let valve = Self {
            state: AtomicU64::new(Word::new().0),
            mode: ModeCell::new(seed),
            hung: InFlight::new(config.hang_after, stripes),
            looked: AtomicU64::new(0),
            share: Share::new(seed),
            rate: Rate(AtomicU64::new(0)),
            origin: Origin::new(now),
            signal: Signal::new(now),
            wakers: Wakers::default(),
            hang_after: AtomicU64::new(0),
            min_share: AtomicU64::new(0),
            probe_every: AtomicU64::new(0),
            narrowed: AtomicU64::new(0),
            let_through: AtomicU64::new(0),
            counts: (0..stripes).map(|_| Counts { offered: AtomicU64::new(0), refused: AtomicU64::new(0) }).collect(),
            listeners: Mutex::new(Vec::new()),
            config: Mutex::new(config.clone()),
        };
        valve.store(&config);
        valve
    }

    fn store(&self, config: &RampedGateConfig) {
        self.hang_after.store(config.hang_after.as_nanos() as u64, Relaxed);
        self.probe_every.store(config.probe_every.as_nanos() as u64, Relaxed);
        self.min_share.store(config.min_share.to_bits(), Relaxed);
    }

    #[inline]
    pub(super) fn word(&self) -> Word {
        Word(self.state.load(Relaxed))
    }

    /// What a gate that is wide open decides: two loads and no clock. `None`: ask [`admit`](Self::admit).
    #[inline]
    pub(super) fn admit_plainly(&self) -> Option<Word> {
        let word = self.word();
        (word.is_wide_open() && self.mode.is_auto()).then_some(word)
    }

    pub(super) fn nanos(&self, clock: &impl Clock) -> u64 {
        self.origin.nanos(clock.now())
    }

    pub(super) fn hang_after(&self) -> u64 {
        self.hang_after.load(Relaxed)
    }

    /// Decides.
    #[inline(never)]
    pub(super) fn admit(&self, stripe: usize, clock: &impl Clock) -> Result<Ticket, Rejection> {
        let mode = self.mode.get();
        match mode {
            Mode::Disabled => return Ok(Ticket::free()),
            Mode::ForcedOpen => return Err(self.refuse(stripe, None)),
            _ => {}
        }
        match self.decide(stripe, self.nanos(clock)) {
            Ok(word) => Ok(Ticket::new(word)),
            Err(wait) if mode == Mode::Auto || self.mode.enforces() => Err(self.refuse(stripe, Some(wait))),
            Err(_) => Ok(self.let_through()),
        }
    }

    /// The gate's own decision; `Err`: how long until a call passes for certain.
    pub(super) fn decide(&self, stripe: usize, now: u64) -> Result<Word, Duration> {
        // Who has the clock in hand looks: calls that hang narrow it further, also if no result ever comes.
        self.look(now);
        let word = self.word();
        if word.is_wide_open() {
            return Ok(word);
        }
        self.counts[stripe].offered.fetch_add(1, Relaxed);
        self.share.admit(word.share(), now, self.probe_every.load(Relaxed))?;
        if is_shut(word) {
            self.sync_signal();
        }
        Ok(word)
    }

    pub(super) fn refuse(&self, stripe: usize, wait: Option<Duration>) -> Rejection {
        self.counts[stripe].refused.fetch_add(1, Relaxed);
        refusal(wait)
    }

    /// A call of which it was decided before that it passes.
    pub(super) fn pass(&self) -> Ticket {
        Ticket::new(self.word())
    }

    pub(super) fn let_through(&self) -> Ticket {
        self.let_through.fetch_add(1, Relaxed);
        Ticket::free()
    }

    /// A call of `generation` was good.
    #[inline]
    pub(super) fn succeed(&self, generation: u64, clock: &impl Clock) {
        let word = self.word();
        // While all is well nothing is written.
        if word.generation() == generation && !word.is_at_ease() {
            self.clear(generation, clock);
        }
    }

    #[cold]
    fn clear(&self, generation: u64, clock: &impl Clock) {
        loop {
            let word = self.word();
            if word.generation() != generation {
                return;
            }
            let next = word.with_good();
            if next.is_cleared() {
                let now = self.nanos(clock);
                // It answers now: calls that hang since before tell of the past.
                self.hung.forget(now);
                self.rate.begin(now, self.offered());
                if self.turn(word, word.wider()) {
                    return;
                }
            } else if next == word || self.swap(word, next) {
                return;
            }
        }
    }

    /// A call of `generation` was bad.
    #[inline(never)]
    pub(super) fn fail(&self, generation: u64, now: u64) {
        loop {
            let word = self.word();
            if word.generation() != generation || self.accuse(word, 1, now) {
                return;
            }
        }
    }

    /// Looks for calls that hang. Once per epoch: whoever has the clock in hand.
    pub(super) fn look(&self, now: u64) {
        let epoch = self.hung.epoch(now);
        if self.looked.load(Relaxed) != epoch {
            self.looked.store(epoch, Relaxed);
            self.examine(now);
        }
        let word = self.word();
        if word.is_wide_open() && word.evidence() >= word.limit() && self.hung.old(now) > 0 {
            // The evidence is there, and the time may be now. Without a call that hangs it is old: after a lull the next answer tells.
            self.accuse(word, 0, now);
        }
    }

    /// Calls that hang are bad now, whenever they were sent: each is counted once. They are seen many at a time, and speak for as
    /// many steps as there would have been.
    #[inline(never)]
    pub(super) fn examine(&self, now: u64) {
        let mut hung = self.hung.newly_old(now);
        while hung > 0 {
            let word = self.word();
            let count = hung.min((word.limit() - word.evidence()).max(0) as u64);
            if !self.accuse(word, count.max(1), now) {
                continue;
            }
            let after = self.word();
            if after.is_wide_open() || after.generation() == word.generation() && count < hung {
                // Wide open, it takes time as well; at the floor there is nothing to narrow.
                return;
            }
            hung -= count;
        }
    }

    /// So many bad results. False: somebody else was faster.
    fn accuse(&self, word: Word, count: u64, now: u64) -> bool {
        let next = word.with_bad(count, now);
        let is_enough = next.evidence() >= next.limit();
        if !is_enough || next.is_wide_open() && next.suspected_for(now) < SPAN {
            return next == word || self.swap(word, next);
        }
        let offered = self.offered();
        let least = self.floor(word, now, offered);
        // Before the gate is narrow: whoever finds it so measures from here.
        self.rate.begin(now, offered);
        if word.is_wide_open() {
            self.share.begin(now);
        }
        let narrower = word.narrower(least);
        if narrower.share() == word.share() {
            return self.swap(word, word.unjudged());
        }
        self.turn(word, narrower)
    }

    /// The least share: the config's own, or what lets a probe through often enough at the rate at which calls come.
    fn floor(&self, word: Word, now: u64, offered: u64) -> f64 {
        let least = f64::from_bits(self.min_share.load(Relaxed));
        // Wide open, nobody counts.
        let rate = if word.is_wide_open() { None } else { self.rate.per_nano(now, offered) };
        let by_rate = rate.map_or(0.0, |rate| 1.0 / (rate * self.probe_every.load(Relaxed) as f64));
        least.max(by_rate.min(MOST_BY_RATE))
    }

    pub(super) fn update(&self, config: RampedGateConfig, now: u64) {
        let mut present = lock(&self.config);
        self.hung.set_threshold(config.hang_after, now);
        self.store(&config);
        let least = config.min_share;
        *present = config;
        drop(present);
        loop {
            let word = self.word();
            match word.at_least(least) {
                Some(next) if !self.turn(word, next) => {}
                _ => break,
            }
        }
        self.sync_signal();
        self.wakers.wake_all();
    }

    /// Wide open, and forgets what it has seen.
    pub(super) fn reset(&self, now: u64) {
        self.hung.forget(now);
        loop {
            let word = self.word();
            if self.turn(word, word.wide_open()) {
                return;
            }
        }
    }

    fn swap(&self, word: Word, next: Word) -> bool {
        self.state.compare_exchange(word.0, next.0, AcqRel, Relaxed).is_ok()
    }

    fn turn(&self, from: Word, to: Word) -> bool {
        let won = self.swap(from, to);
        if won && from.share() != to.share() {
            self.announce(from, to);
        }
        won
    }

    #[cold]
    fn announce(&self, from: Word, to: Word) {
        if from.is_wide_open() {
            self.narrowed.fetch_add(1, Relaxed);
        }
        self.sync_signal();
        self.wakers.wake_all();
        let change = GateChange { from: from.share(), to: to.share() };
        let name = lock(&self.config).name.clone();
        change.trace(&name);
        let listeners = lock(&self.listeners).clone();
        for listener in listeners {
            listener(&change);
        }
    }

    /// Makes the signal say what share is refused. Whoever writes looks again, so the last word is right.
    pub(super) fn sync_signal(&self) {
        loop {
            let (word, mode, due) = (self.word(), self.mode.get(), self.share.due());
            let (pressure, until) = match mode {
                Mode::ForcedOpen => (1.0, Some(None)),
                // A share of the calls passes whatever the gate says, and whoever heeds the signal would keep that away as well.
                Mode::Disabled | Mode::Enforcing(..100) => (0.0, None),
                _ => (1.0 - word.share(), is_shut(word).then(|| Some(self.origin.at(due)))),
            };
            self.signal.set_pressure(pressure as f32);
            match until {
                Some(until) => self.signal.raise(Signal::OPEN, until),
                None => self.signal.clear(Signal::OPEN),
            }
            // A read that writes is of the very last word: what is said here comes before what its next writer says.
            let last = Word(self.state.fetch_or(0, AcqRel));
            let is_due_then = !is_shut(word) || self.share.last_due() == due;
            if is_due_then && (last, self.mode.get()) == (word, mode) {
                return;
            }
        }
    }

    /// How long until a call passes for certain; `None`: all do.
    pub(super) fn probe_in(&self, now: u64) -> Option<Duration> {
        let left = self.share.due().saturating_sub(now);
        (!self.word().is_wide_open()).then(|| Duration::from_nanos(left))
    }

    fn offered(&self) -> u64 {
        self.counts.iter().map(|counts| counts.offered.load(Relaxed)).sum()
    }

    pub(super) fn refused_total(&self) -> u64 {
        self.counts.iter().map(|counts| counts.refused.load(Relaxed)).sum()
    }

    pub(super) fn let_through_total(&self) -> u64 {
        self.let_through.load(Relaxed)
    }
}

/// `wait`: until a call passes for certain.
pub(super) fn refusal(wait: Option<Duration>) -> Rejection {
    let rejection = Rejection::new(Reason::BreakerOpen, "gate");
    wait.map_or(rejection, |wait| rejection.retry_after(wait))
}

/// It refuses more than it lets through.
fn is_shut(word: Word) -> bool {
    word.share() < 0.5
}

/// How often calls come to a narrow gate: `[ since, in ms 40 | calls before that 24 ]`.
pub(super) struct Rate(AtomicU64);

const MILLI: u64 = 1_000_000;
const CALLS_BITS: u32 = 24;
const CALLS_MASK: u64 = (1 << CALLS_BITS) - 1;
/// So many calls say something about the rate.
const ENOUGH: u64 = 10;

impl Rate {
    /// Counts from now on.
    fn begin(&self, now: u64, offered: u64) {
        self.0.store((now / MILLI) << CALLS_BITS | offered & CALLS_MASK, Relaxed);
    }

    /// Calls per nanosecond; `None`: too few have come, or all at once.
    fn per_nano(&self, now: u64, offered: u64) -> Option<f64> {
        let word = self.0.load(Relaxed);
        let calls = offered.wrapping_sub(word) & CALLS_MASK;
        let elapsed = now.saturating_sub((word >> CALLS_BITS) * MILLI);
        (calls >= ENOUGH && elapsed > 0).then(|| calls as f64 / elapsed as f64)
    }
}
