//! The state machine, an idea per file: who gets in, what is done in which phase of a call, how a closed circuit decides to open,
//! how a half-open one decides, first by its probes and then by degrees, and the changes of state.

mod admission;
mod call;
mod closed;
mod half_open;
mod ramping;
mod transition;

use crate::{
    BreakerConfig, Transition, Window,
    in_flight::InFlight,
    params::Params,
    probes::Probes,
    share::Share,
    state::{CLOSED, Word},
};
use buttress_core::{
    Clock, ConfigError, Draw, ModeCell, Origin, Signal, Wakers,
    sync::{AtomicU64, Mutex, Ordering::Relaxed, lock},
    window::{CountWindow, TimeWindow},
};
use std::{sync::Arc, time::Instant};

pub(crate) use ramping::Ramp;
pub(crate) use transition::until_probe;

/// The state machine: decides, records and turns, with the time as an argument.
pub(crate) struct Machine {
    state: AtomicU64,
    /// [ generation 32 | consecutive failures 32 ]
    streak: AtomicU64,
    pub(crate) mode: ModeCell,
    pub(crate) window: Calls,
    pub(crate) params: Params,
    pub(crate) hung: InFlight,
    pub(crate) slow: InFlight,
    /// The epoch of the last look at the calls in flight.
    looked: AtomicU64,
    probes: Probes,
    pub(crate) origin: Origin,
    /// How often it opened without a healthy spell in between.
    streak_of_openings: AtomicU64,
    /// Nanoseconds since the origin.
    closed_at: AtomicU64,
    jitter: Draw,
    /// Which calls pass in a ramp.
    pub(crate) share: Share,
    pub(crate) signal: Signal,
    pub(crate) wakers: Wakers,
    pub(crate) opened: AtomicU64,
    /// 1: the config is not the one it was made with.
    updated: AtomicU64,
    refused: Box<[Padded]>,
    let_through: AtomicU64,
    pub(crate) listeners: Mutex<Vec<Listener>>,
    pub(crate) config: Mutex<BreakerConfig>,
}

pub(crate) type Listener = Arc<dyn Fn(&Transition) + Send + Sync>;

#[repr(align(128))]
struct Padded(AtomicU64);

pub(crate) enum Calls {
    Time(TimeWindow),
    Count(CountWindow),
}

impl Machine {
    pub(crate) fn new(config: BreakerConfig, now: Instant, stripes: usize) -> Self {
        let seed = Draw::seed(config.seed);
        Self {
            state: AtomicU64::new(Word::new(CLOSED, 0, 0).0),
            streak: AtomicU64::new(0),
            mode: ModeCell::new(seed),
            window: match config.window {
                Window::Time(length) => Calls::Time(TimeWindow::new(length, stripes)),
                Window::Count(size) => Calls::Count(CountWindow::new(size)),
            },
            params: Params::new(&config),
            hung: InFlight::new(config.effective_hang_after(), stripes),
            slow: InFlight::new(config.slow_after.unwrap_or(config.effective_hang_after()), stripes),
            looked: AtomicU64::new(0),
            probes: Probes::new(),
            origin: Origin::new(now),
            streak_of_openings: AtomicU64::new(0),
            closed_at: AtomicU64::new(0),
            jitter: Draw::new(seed),
            share: Share::new(seed),
            signal: Signal::new(now),
            wakers: Wakers::default(),
            opened: AtomicU64::new(0),
            updated: AtomicU64::new(0),
            refused: (0..stripes).map(|_| Padded(AtomicU64::new(0))).collect(),
            let_through: AtomicU64::new(0),
            listeners: Mutex::new(Vec::new()),
            config: Mutex::new(config),
        }
    }

    #[inline]
    pub(crate) fn word(&self) -> Word {
        Word(self.state.load(Relaxed))
    }

    /// Closed, and nobody says otherwise.
    #[inline]
    pub(crate) fn is_plainly_closed(&self) -> bool {
        self.word().kind() == CLOSED && self.mode.is_auto()
    }

    pub(crate) fn nanos(&self, clock: &impl Clock) -> u64 {
        self.origin.nanos(clock.now())
    }

    pub(crate) fn update(&self, config: BreakerConfig, clock: &impl Clock) -> Result<(), ConfigError> {
        let mut present = lock(&self.config);
        match (&self.window, config.window) {
            (Calls::Time(_), Window::Time(_)) => {}
            (Calls::Count(window), Window::Count(size)) if window.size() == size => {}
            (Calls::Time(_), Window::Count(size)) => {
                return Err(ConfigError::new(
                    "window",
                    format!("{size} calls"),
                    "a time: another kind takes a new breaker",
                ));
            }
            (Calls::Count(window), _) => {
                let allowed = format!("{} calls: another window takes a new breaker", window.size());
                return Err(ConfigError::new("window", format!("{:?}", config.window), allowed));
            }
        }
        let now = self.nanos(clock);
        if let (Calls::Time(window), Window::Time(length)) = (&self.window, config.window) {
            window.resize(length, now);
        }
        self.hung.set_threshold(config.effective_hang_after(), now);
        self.slow.set_threshold(config.slow_after.unwrap_or(config.effective_hang_after()), now);
        self.params.store(&config);
        *present = config;
        self.updated.store(1, Relaxed);
        Ok(())
    }

    /// Whether a new one would do as well.
    pub(crate) fn is_forgettable(&self, now: u64) -> bool {
        let word = self.word();
        let healed = self.streak_of_openings.load(Relaxed) == 0
            || now.saturating_sub(self.closed_at.load(Relaxed)) >= self.params.max_open();
        let remembers = match &self.window {
            Calls::Time(_) => {
                let counts = self.counts(word, now);
                counts.failures + counts.slow > 0
            }
            Calls::Count(_) => false,
        };
        self.is_plainly_closed() && healed && !remembers && self.updated.load(Relaxed) == 0
    }
}
