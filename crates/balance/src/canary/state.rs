//! What a canary counts, and what it makes of it.

use super::{
    CanaryConfig, Side, Trip,
    policy::TARGET,
    word::{Seen, Word},
};
use buttress_core::{
    Clock, Draw, Mode, ModeCell, Origin,
    sync::{AtomicU64, Mutex, Ordering::Relaxed, lock},
    window::{Counts, TimeWindow},
};
use std::{collections::hash_map::RandomState, hash::BuildHasher, sync::Arc, time::Instant};

/// Where a call goes, and whether its end says something.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pick {
    pub(super) side: Side,
    pub(super) measured: bool,
    pub(super) generation: u32,
}

pub(super) struct Shared {
    pub(super) word: Word,
    pub(super) stable: Record,
    pub(super) canary: Record,
    pub(super) mode: ModeCell,
    pub(super) lines: Box<[Line]>,
    /// All threads draw from one line.
    seeded: bool,
    /// The bits of an `f64`.
    pub(super) margin: AtomicU64,
    pub(super) min_calls: AtomicU64,
    pub(super) origin: Origin,
    pub(super) trips: AtomicU64,
    pub(super) passed: AtomicU64,
    pub(super) retried: AtomicU64,
    /// One more than the last generation of which it was said that it would have been given up.
    noticed: AtomicU64,
    pub(super) config: Mutex<CanaryConfig>,
    pub(super) listeners: Mutex<Vec<Listener>>,
}

type Listener = Arc<dyn Fn(&Trip) + Send + Sync>;

/// What was seen of one side.
pub(super) struct Record {
    pub(super) window: TimeWindow,
    /// The first epoch of the present generation.
    start: AtomicU64,
}

/// What one thread changes at every call.
#[repr(align(128))]
pub(super) struct Line {
    draw: Draw,
    pub(super) stable: AtomicU64,
    pub(super) canary: AtomicU64,
}

impl Record {
    pub(super) fn counts(&self, now: u64) -> Counts {
        self.window.counts(self.start.load(Relaxed), now)
    }
}

impl Shared {
    pub(super) fn new(config: CanaryConfig, now: Instant, stripes: usize) -> Self {
        let random = RandomState::new();
        let seed = |line| config.seed.unwrap_or_else(|| random.hash_one(line));
        let line = |n| Line { draw: Draw::new(seed(n)), stable: AtomicU64::new(0), canary: AtomicU64::new(0) };
        let record = || Record { window: TimeWindow::new(config.window, stripes), start: AtomicU64::new(0) };
        Self {
            word: Word::new(config.weight),
            stable: record(),
            canary: record(),
            mode: ModeCell::new(!seed(usize::MAX)),
            lines: (0..stripes).map(line).collect(),
            seeded: config.seed.is_some(),
            margin: AtomicU64::new(config.margin.to_bits()),
            min_calls: AtomicU64::new(config.min_calls.into()),
            origin: Origin::new(now),
            trips: AtomicU64::new(0),
            passed: AtomicU64::new(0),
            retried: AtomicU64::new(0),
            noticed: AtomicU64::new(0),
            listeners: Mutex::default(),
            config: Mutex::new(config),
        }
    }

    #[inline]
    pub(super) fn pick(&self, stripe: usize, attempt: u32) -> Pick {
        let line = &self.lines[stripe];
        let seen = self.word.load();
        let (side, measured) = match attempt {
            0 if self.mode.is_auto() && !seen.is_tripped() => (self.split(seen, line), true),
            0 => self.pick_slowly(seen, line),
            _ => {
                self.retried.fetch_add(1, Relaxed);
                (Side::Stable, false)
            }
        };
        let picks = match side {
            Side::Stable => &line.stable,
            Side::Canary => &line.canary,
        };
        picks.fetch_add(1, Relaxed);
        Pick { side, measured, generation: seen.generation() }
    }

    /// By the weight alone.
    #[inline]
    fn split(&self, seen: Seen, line: &Line) -> Side {
        let line = if self.seeded { &self.lines[0] } else { line };
        if seen.takes(line.draw.draw()) { Side::Canary } else { Side::Stable }
    }

    #[cold]
    fn pick_slowly(&self, seen: Seen, line: &Line) -> (Side, bool) {
        match self.mode.get() {
            Mode::ForcedOpen => (Side::Stable, true),
            Mode::Disabled => (self.split(seen, line), false),
            _ if !seen.is_tripped() => (self.split(seen, line), true),
            Mode::Auto => (Side::Stable, true),
            _ => match self.split(seen, line) {
                Side::Canary if !self.mode.enforces() => {
                    self.passed.fetch_add(1, Relaxed);
                    (Side::Canary, false)
                }
                _ => (Side::Stable, true),
            },
        }
    }

    /// A measured call of `generation` is over. `waited`: it took time, so that reading the clock is the least of it.
    #[inline]
    pub(super) fn ended(&self, stripe: usize, pick: Pick, failed: bool, waited: bool, clock: &impl Clock) {
        if self.word.load().generation() != pick.generation || !self.measures() {
            return;
        }
        let record = match pick.side {
            Side::Stable => &self.stable,
            Side::Canary => &self.canary,
        };
        let (window, start) = (&record.window, record.start.load(Relaxed));
        let now = || self.origin.nanos(clock.now());
        if failed {
            let now = now();
            window.failure(stripe, start, window.advance(now));
            if pick.side == Side::Canary {
                self.judge(pick.generation, now);
            }
            return;
        }
        // The canary's calls are few: none of them may stand in an older bucket than it belongs to.
        if waited || pick.side == Side::Canary {
            window.advance(now());
            window.success(stripe, start);
        } else if window.success(stripe, start) {
            window.advance(now());
        }
    }

    fn measures(&self) -> bool {
        self.mode.is_auto() || self.mode.get() != Mode::Disabled
    }

    pub(super) fn is_worse(&self, stable: Counts, canary: Counts) -> bool {
        let min_calls = self.min_calls.load(Relaxed);
        let is_known = stable.total >= min_calls && canary.total >= min_calls;
        is_known && rate(canary) > rate(stable) + f64::from_bits(self.margin.load(Relaxed))
    }

    #[cold]
    fn judge(&self, generation: u32, now: u64) {
        let (stable, canary) = (self.stable.counts(now), self.canary.counts(now));
        if !self.is_worse(stable, canary) {
            return;
        }
        let is_observed = self.mode.get() == Mode::OBSERVE_ONLY;
        if is_observed {
            let this_one = u64::from(generation) + 1;
            if self.noticed.swap(this_one, Relaxed) == this_one {
                return;
            }
        } else if !self.word.trip(generation) {
            return;
        }
        let name = lock(&self.config).name.clone();
        let trip = Trip {
            canary_calls: canary.total,
            canary_rate: rate(canary),
            stable_calls: stable.total,
            stable_rate: rate(stable),
        };
        let (canary_rate, stable_rate) = (trip.canary_rate, trip.stable_rate);
        if is_observed {
            tracing::warn!(target: TARGET, canary = &*name, canary_rate, stable_rate, "the canary would get no calls: it fails more often than the stable service");
            return;
        }
        self.trips.fetch_add(1, Relaxed);
        tracing::warn!(target: TARGET, canary = &*name, canary_rate, stable_rate, "the canary gets no calls any more: it fails more often than the stable service");
        let listeners = lock(&self.listeners).clone();
        listeners.iter().for_each(|listener| listener(&trip));
    }

    /// Another generation. Under the lock of the config.
    pub(super) fn renew(&self, weight: f64, now: u64) {
        for record in [&self.stable, &self.canary] {
            record.start.store(record.window.next_epoch(now), Relaxed);
        }
        self.word.renew(weight);
    }
}

pub(super) fn rate(counts: Counts) -> f64 {
    if counts.total == 0 { 0.0 } else { counts.failures as f64 / counts.total as f64 }
}
