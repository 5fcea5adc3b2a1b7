//! The state machine of a toggle, sans-IO. Every change is one compare-and-swap that expects the very word it was decided on.

mod ending;
mod passing;

pub(super) use ending::Told;

use super::{
    Back, ToggleConfig,
    state::{NEVER, Switch, SwitchedBy, ToggleChange, ToggleState, Word, later},
};
use crate::levels::LevelGuard;
use buttress_core::{
    Clock, Draw, Origin, Signal, Wakers,
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
        let seed = Draw::seed(config.seed);
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
        self.signal.as_ref().is_some_and(|signal| signal.is_shut(clock))
    }

    #[inline]
    fn is_levelled_off(&self, clock: &impl Clock) -> bool {
        self.level.as_ref().is_some_and(|level| level.is_reached_at(clock))
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
            // Of two changes that are told at once the later one stays. Generations have 22 bits and begin again.
            if (generation << 10).wrapping_sub(last.generation << 10) as i32 >= 0 {
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

    pub(super) fn is_probe_out(&self) -> bool {
        let word = self.word();
        word.state() == ToggleState::Probing && word.probe_takes(0).is_some()
    }
}

fn counts(config: &ToggleConfig) -> bool {
    config.first_failure || config.failure_rate.is_some()
}

/// How long ago a moment was.
pub(super) fn since(now: u64, at: u64) -> Duration {
    Duration::from_millis(now.saturating_sub(at))
}
