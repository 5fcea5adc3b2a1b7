//! The state machine of a toggle, sans-IO. Every change is one compare-and-swap that expects the very word it was decided on.

use super::{
    Back, ToggleConfig,
    state::{NEVER, Switch, SwitchedBy, ToggleChange, ToggleState, Word, later},
};
use crate::LevelGuard;
use buttress_core::{
    Clock, Draw, Origin, Outcome, Signal, Wakers,
    sync::{
        AtomicBool, AtomicU8, AtomicU64, Mutex,
        Ordering::{AcqRel, Acquire, Relaxed},
        lock,
    },
    window::TimeWindow,
};
use std::time::{Duration, Instant};

/// Whom a change is told.
pub(super) type Listener = std::sync::Arc<dyn Fn(&ToggleChange) + Send + Sync>;

pub(super) struct Machine {
    word: AtomicU64,
    switch: AtomicU8,
    /// Whether outcomes may switch it off: else calls that pass hold nothing.
    counts: AtomicBool,
    rated: AtomicBool,
    window: TimeWindow,
    /// The first epoch of the window that counts.
    begun: AtomicU64,
    draw: Draw,
    pub(super) origin: Origin,
    signal: Option<Signal>,
    pub(super) level: Option<LevelGuard>,
    pub(super) wakers: Wakers,
    pub(super) config: Mutex<ToggleConfig>,
    pub(super) listeners: Mutex<Vec<Listener>>,
    /// The latest change: its generation and kind, and when it was in milliseconds.
    pub(super) last: Mutex<Last>,
    pub(super) totals: Totals,
}

#[derive(Clone, Copy, Default)]
pub(super) struct Last {
    generation: u32,
    pub(super) by: Option<SwitchedBy>,
    pub(super) at: u64,
}

#[derive(Default)]
pub(super) struct Totals {
    pub(super) switched_off: [AtomicU64; SwitchedBy::ALL.len()],
    pub(super) switched_on: AtomicU64,
    pub(super) probes: AtomicU64,
    pub(super) turned_away: AtomicU64,
}

/// What an admitted call is to the toggle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ticket {
    /// Nothing follows from it.
    Free,
    /// Its outcome counts in this generation.
    Counted(u32),
    /// It is the probe of this generation.
    Probe(u32),
}

impl Machine {
    pub(super) fn new(config: ToggleConfig, now: Instant, stripes: usize) -> Self {
        let seed = config.seed.unwrap_or_else(any_seed);
        Self {
            word: AtomicU64::new(Word::NEW.0),
            switch: AtomicU8::new(Switch::Auto as u8),
            counts: AtomicBool::new(counts(&config)),
            rated: AtomicBool::new(config.failure_rate.is_some()),
            window: TimeWindow::new(config.window, stripes),
            begun: AtomicU64::new(0),
            draw: Draw::new(seed),
            origin: Origin::new(now),
            signal: config.signal.clone(),
            level: config.level.clone(),
            wakers: Wakers::default(),
            config: Mutex::new(config),
            listeners: Mutex::new(Vec::new()),
            last: Mutex::new(Last::default()),
            totals: Totals::default(),
        }
    }

    /// Changes the conditions and the way back; what it is now stays.
    pub(super) fn update(&self, config: ToggleConfig, now: Instant) {
        let mut kept = lock(&self.config);
        self.window.resize(config.window, self.origin.nanos(now));
        self.counts.store(counts(&config), Relaxed);
        self.rated.store(config.failure_rate.is_some(), Relaxed);
        *kept = config;
    }

    #[inline]
    pub(super) fn word(&self) -> Word {
        Word(self.word.load(Acquire))
    }

    #[inline]
    pub(super) fn switch(&self) -> Switch {
        Switch::of(self.switch.load(Relaxed))
    }

    fn millis(&self, clock: &impl Clock) -> u64 {
        self.origin.nanos(clock.now()) / 1_000_000
    }

    fn back(&self) -> Back {
        lock(&self.config).back
    }

    /// Whether a circuit is open, and does not wait for a call.
    #[inline]
    pub(super) fn is_signalled(&self, clock: &impl Clock) -> bool {
        self.signal
            .as_ref()
            .is_some_and(|signal| signal.is(Signal::OPEN | Signal::EJECTED) && signal.until() > clock.now())
    }

    #[inline]
    fn is_levelled_off(&self, clock: &impl Clock) -> bool {
        self.level.as_ref().is_some_and(|level| level.is_reached_at(clock))
    }

    /// Whether the next call passes, as far as that can be said without letting one pass. Where it does not, nobody else looks: what switches
    /// off does so here.
    #[inline]
    pub(super) fn may_pass(&self, clock: &impl Clock) -> bool {
        match self.switch() {
            Switch::On => return true,
            Switch::Off => return false,
            Switch::Auto => {}
        }
        // A level that is reached is looked at, or nobody would find that it is better; else that is the call's business.
        if self.level.as_ref().is_some_and(LevelGuard::was_reached) && self.is_levelled_off(clock) {
            return false;
        }
        let word = self.word();
        word.state() == ToggleState::On && !self.is_signalled(clock) || self.may_pass_slowly(word, clock)
    }

    #[cold]
    fn may_pass_slowly(&self, word: Word, clock: &impl Clock) -> bool {
        let now = self.millis(clock);
        match (word.state(), self.is_signalled(clock)) {
            (ToggleState::On | ToggleState::Ramping, true) => {
                self.switch_off(word, SwitchedBy::Signal, now);
                false
            }
            (ToggleState::On | ToggleState::Ramping, false) => true,
            (ToggleState::Off, is_signalled) => !is_signalled && word.moment() <= now,
            (ToggleState::Probing, is_signalled) => self.has_place(word, now) && !is_signalled,
        }
    }

    /// Whether a probe may go. One that takes too long has failed.
    fn has_place(&self, word: Word, now: u64) -> bool {
        let Some(takes) = word.probe_takes(now) else { return true };
        let limit = match self.back() {
            Back::Probe { after, .. } => after.as_millis() as u64,
            _ => 0,
        };
        if takes >= limit {
            self.switch_off(word, SwitchedBy::Probe, now);
        }
        false
    }

    /// Lets a call pass, or does not. `None`: it is off.
    #[inline]
    pub(super) fn admit(&self, clock: &impl Clock) -> Option<Ticket> {
        match self.switch() {
            Switch::On => return Some(Ticket::Free),
            Switch::Off => return self.turn_away(),
            Switch::Auto => {}
        }
        if self.is_levelled_off(clock) {
            return self.turn_away();
        }
        let word = self.word();
        if word.state() == ToggleState::On && !self.is_signalled(clock) {
            return Some(self.counted(word));
        }
        self.admit_slowly(word, true, clock)
    }

    #[inline]
    fn counted(&self, word: Word) -> Ticket {
        if self.counts.load(Relaxed) { Ticket::Counted(word.generation()) } else { Ticket::Free }
    }

    /// A call finds it off.
    pub(super) fn turn_away(&self) -> Option<Ticket> {
        self.totals.turned_away.fetch_add(1, Relaxed);
        None
    }

    /// Whether the feature is on for somebody who reports nothing.
    #[inline]
    pub(super) fn is_on(&self, clock: &impl Clock) -> bool {
        match self.switch() {
            Switch::On => return true,
            Switch::Off => return false,
            Switch::Auto => {}
        }
        if self.is_levelled_off(clock) {
            return false;
        }
        let word = self.word();
        word.state() == ToggleState::On && !self.is_signalled(clock) || self.admit_slowly(word, false, clock).is_some()
    }

    /// `reports`: whether the outcome will be told, so that it may be a probe.
    #[cold]
    fn admit_slowly(&self, mut word: Word, reports: bool, clock: &impl Clock) -> Option<Ticket> {
        let now = self.millis(clock);
        loop {
            let is_signalled = self.is_signalled(clock);
            let ticket = match word.state() {
                ToggleState::On | ToggleState::Ramping if is_signalled => {
                    self.switch_off(word, SwitchedBy::Signal, now);
                    None
                }
                ToggleState::On => Some(self.counted(word)),
                ToggleState::Ramping => match self.ramp(word, now) {
                    Some(ticket) => ticket,
                    None => {
                        word = self.word();
                        continue;
                    }
                },
                ToggleState::Off if is_signalled || now < word.moment() => None,
                ToggleState::Off => {
                    self.begin_return(word, now);
                    word = self.word();
                    continue;
                }
                ToggleState::Probing if !self.has_place(word, now) || is_signalled || !reports => None,
                ToggleState::Probing => match self.swap(word, word.with_probe(now)) {
                    Ok(()) => {
                        self.totals.probes.fetch_add(1, Relaxed);
                        return Some(Ticket::Probe(word.generation()));
                    }
                    Err(seen) => {
                        word = seen;
                        continue;
                    }
                },
            };
            return if ticket.is_none() && reports { self.turn_away() } else { ticket };
        }
    }

    /// A call on the ramp. `None`: its end is reached.
    fn ramp(&self, word: Word, now: u64) -> Option<Option<Ticket>> {
        let risen = now.saturating_sub(word.moment());
        let over = match self.back() {
            Back::Ramp { over, .. } => over.as_millis() as u64,
            // The way back was changed meanwhile.
            _ => 0,
        };
        if risen >= over {
            self.turn(word, word.becomes(ToggleState::On), SwitchedBy::Time, now);
            return None;
        }
        // 53 bits of the draw are a fraction.
        let drawn = (self.draw.draw() >> 11) as f64 / (1u64 << 53) as f64;
        Some((drawn < risen as f64 / over as f64).then(|| self.counted(word)))
    }

    fn begin_return(&self, word: Word, now: u64) {
        let next = match self.back() {
            // Whatever was waited for is over, and an operator's word is needed all the same.
            Back::Manual => word.then(ToggleState::Off, NEVER),
            Back::Probe { .. } => word.then(ToggleState::Probing, 0),
            Back::Ramp { .. } => word.then(ToggleState::Ramping, now),
        };
        self.forget(now);
        self.turn(word, next, SwitchedBy::Time, now);
    }

    /// What comes now counts from here on.
    fn forget(&self, now: u64) {
        self.begun.fetch_max(self.window.next_epoch(now.saturating_mul(1_000_000)), Relaxed);
    }

    fn swap(&self, word: Word, next: Word) -> Result<(), Word> {
        self.word.compare_exchange(word.0, next.0, AcqRel, Acquire).map(drop).map_err(Word)
    }

    /// Off, by itself.
    fn switch_off(&self, word: Word, by: SwitchedBy, now: u64) -> bool {
        let until = match (self.back(), by) {
            (Back::Manual, _) => NEVER,
            // Its end is the signal's.
            (_, SwitchedBy::Signal) => 0,
            (Back::Probe { after, .. } | Back::Ramp { after, .. }, _) => later(now, after),
        };
        self.turn(word, word.then(ToggleState::Off, until), by, now)
    }

    fn turn(&self, from: Word, to: Word, by: SwitchedBy, now: u64) -> bool {
        let won = self.swap(from, to).is_ok();
        if won {
            self.announce(from.state(), to, by, now);
        }
        won
    }

    /// An operator's word: everything begins anew.
    pub(super) fn set(&self, switch: Switch, clock: &impl Clock) {
        let now = self.millis(clock);
        self.forget(now);
        let shown = |switch, word: Word| match switch {
            Switch::Auto => word.state(),
            Switch::On => ToggleState::On,
            Switch::Off => ToggleState::Off,
        };
        let before = Switch::of(self.switch.swap(switch as u8, AcqRel));
        let mut word = self.word();
        while let Err(seen) = self.swap(word, word.then(ToggleState::On, 0)) {
            word = seen;
        }
        let next = word.then(ToggleState::On, 0);
        self.announce_as(shown(before, word), shown(switch, next), next.generation(), SwitchedBy::Operator, now);
    }

    fn announce(&self, from: ToggleState, to: Word, by: SwitchedBy, now: u64) {
        self.announce_as(from, to.state(), to.generation(), by, now);
    }

    #[cold]
    fn announce_as(&self, from: ToggleState, to: ToggleState, generation: u32, by: SwitchedBy, now: u64) {
        {
            let mut last = lock(&self.last);
            // Of two changes that are told at once the later one stays.
            if generation.wrapping_sub(last.generation) as i32 >= 0 {
                *last = Last { generation, by: Some(by), at: now };
            }
        }
        self.wakers.wake_all();
        if from == to {
            return;
        }
        match to {
            ToggleState::Off => self.totals.switched_off[by as usize].fetch_add(1, Relaxed),
            ToggleState::On => self.totals.switched_on.fetch_add(1, Relaxed),
            _ => 0,
        };
        let name = lock(&self.config).name.clone();
        let change = ToggleChange { from, to, by };
        change.tell(&name);
        let listeners = lock(&self.listeners).clone();
        for listener in listeners {
            listener(&change);
        }
    }

    /// The call's answer has come, its end has not: another probe may go.
    pub(super) fn answered(&self, ticket: Ticket) {
        let Ticket::Probe(generation) = ticket else { return };
        self.of_probe(generation, |word| word.without_probe(word.good()));
    }

    /// Changes the word while it is of this probe's generation; `false`: it is not any more.
    fn of_probe(&self, generation: u32, next: impl Fn(Word) -> Word) -> bool {
        let mut word = self.word();
        while word.generation() == generation && word.state() == ToggleState::Probing {
            match self.swap(word, next(word)) {
                Ok(()) => return true,
                Err(seen) => word = seen,
            }
        }
        false
    }

    /// A call ends. `holds`: a probe has its place still.
    pub(super) fn conclude(&self, ticket: Ticket, holds: bool, outcome: Outcome, call: Told, clock: &impl Clock) {
        match ticket {
            Ticket::Free => {}
            Ticket::Counted(generation) => self.count(generation, outcome, call, clock),
            Ticket::Probe(generation) => self.probed(generation, holds, outcome, clock),
        }
    }

    #[inline]
    fn count(&self, generation: u32, outcome: Outcome, call: Told, clock: &impl Clock) {
        let word = self.word();
        if word.generation() != generation {
            return;
        }
        match outcome {
            Outcome::Success if self.rated.load(Relaxed) => {
                let advance = || self.window.advance(self.origin.nanos(clock.now()));
                if call.waited {
                    advance();
                }
                let asks = self.window.success(call.stripe, self.begun.load(Relaxed));
                if asks && !call.waited {
                    advance();
                }
            }
            Outcome::Failure => self.failed(word, call, clock),
            _ => {}
        }
    }

    #[cold]
    fn failed(&self, mut word: Word, call: Told, clock: &impl Clock) {
        let now = self.origin.nanos(clock.now());
        let (first, rate, min_calls) = {
            let config = lock(&self.config);
            (config.first_failure, config.failure_rate, u64::from(config.min_calls))
        };
        let begun = self.begun.load(Relaxed);
        let by = match rate {
            _ if first => SwitchedBy::FirstFailure,
            None => return,
            Some(rate) => {
                self.window.failure(call.stripe, begun, self.window.advance(now));
                let counts = self.window.counts(begun, now);
                if counts.total < min_calls || (counts.failures as f64) < rate * counts.total as f64 {
                    return;
                }
                SwitchedBy::FailureRate
            }
        };
        let generation = word.generation();
        // A ramp that has just come to its end is the same generation.
        while word.generation() == generation && !self.switch_off(word, by, now / 1_000_000) {
            word = self.word();
        }
    }

    fn probed(&self, generation: u32, holds: bool, outcome: Outcome, clock: &impl Clock) {
        let wanted = match self.back() {
            Back::Probe { successes, .. } => successes,
            _ => 1,
        };
        let mut word = self.word();
        while word.generation() == generation && word.state() == ToggleState::Probing {
            let done = match outcome {
                Outcome::Success if word.good() + 1 >= wanted => {
                    let now = self.millis(clock);
                    self.forget(now);
                    self.turn(word, word.then(ToggleState::On, 0), SwitchedBy::Probe, now)
                }
                Outcome::Failure | Outcome::Overload => {
                    let now = self.millis(clock);
                    self.switch_off(word, SwitchedBy::Probe, now)
                }
                Outcome::Success => self.swap(word, word.with_good(holds)).is_ok(),
                _ if holds => self.swap(word, word.without_probe(word.good())).is_ok(),
                _ => return,
            };
            if done {
                return;
            }
            word = self.word();
        }
    }

    pub(super) fn is_probe_out(&self) -> bool {
        let word = self.word();
        word.state() == ToggleState::Probing && word.probe_takes(0).is_some()
    }
}

/// What is known of a call that ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    pub(super) stripe: usize,
    /// It was not ready at once, so that its end may read the clock.
    pub(super) waited: bool,
}

fn counts(config: &ToggleConfig) -> bool {
    config.first_failure || config.failure_rate.is_some()
}

fn any_seed() -> u64 {
    use std::hash::BuildHasher;
    std::collections::hash_map::RandomState::new().hash_one(0)
}

/// How long ago a moment was.
pub(super) fn since(now: u64, at: u64) -> Duration {
    Duration::from_millis(now.saturating_sub(at))
}
