use crate::{
    BreakerConfig, Cause, State, Transition, Window,
    in_flight::InFlight,
    params::Params,
    probes::Probes,
    state::{CLOSED, HALF_OPEN, OPEN, Word},
    ticket::{Kind, Phase, Ticket},
};
use buttress_core::{
    Clock, ConfigError, Mode, ModeCell, Origin, Outcome, Pushback, Reason, Rejection, Signal, Wakers,
    sync::{
        AtomicU64, Mutex,
        Ordering::{AcqRel, Relaxed},
        lock,
    },
    window::{CountWindow, Counts, TimeWindow},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

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
    /// SplitMix64 (Steele, Lea and Flood 2014).
    random: AtomicU64,
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
        let seed = config.seed.unwrap_or_else(random_seed);
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
            random: AtomicU64::new(seed),
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

    /// Failures in a row, in the generation of `word`.
    pub(crate) fn consecutive(&self, word: Word) -> u32 {
        let streak = self.streak.load(Relaxed);
        if (streak >> 32) as u32 == word.generation() { streak as u32 } else { 0 }
    }

    // Admission.

    /// What a closed circuit decides: two loads and no clock. `None`: ask [`admit`](Self::admit).
    #[inline]
    pub(crate) fn admit_plainly(&self) -> Option<Word> {
        let word = self.word();
        (word.kind() == CLOSED && self.mode.is_auto()).then_some(word)
    }

    /// How long until the next probe, if the circuit is open and nobody says otherwise. `None`: look more closely.
    #[inline]
    pub(crate) fn plainly_open_for(&self, clock: &impl Clock) -> Option<Duration> {
        let word = self.word();
        if word.kind() == OPEN && self.mode.is_auto() { until_probe(word, self.nanos(clock)) } else { None }
    }

    /// Decides.
    pub(crate) fn admit(&self, stripe: usize, clock: &impl Clock) -> Result<Ticket, Rejection> {
        match self.admit_plainly() {
            Some(word) => Ok(Ticket::closed(word)),
            None => self.admit_or_not(stripe, clock),
        }
    }

    #[inline(never)]
    fn admit_or_not(&self, stripe: usize, clock: &impl Clock) -> Result<Ticket, Rejection> {
        let mode = self.mode.get();
        match mode {
            Mode::Disabled => return Ok(Ticket::free()),
            Mode::ForcedOpen => return Err(self.refuse(stripe, None)),
            _ => {}
        }
        let now = self.nanos(clock);
        match self.decide(now) {
            Ok(ticket) => Ok(ticket),
            Err(wait) if mode == Mode::Auto || self.mode.enforces() => Err(self.refuse(stripe, Some(wait))),
            Err(_) => Ok(self.let_through()),
        }
    }

    /// The state machine's own decision; `Err`: how long until it is worth coming back.
    fn decide(&self, now: u64) -> Result<Ticket, Duration> {
        loop {
            let word = self.word();
            match word.kind() {
                CLOSED => return Ok(Ticket::closed(word)),
                OPEN => {
                    if let Some(wait) = until_probe(word, now) {
                        return Err(wait);
                    }
                    self.turn(word, word.then(HALF_OPEN, 0), Cause::OpenTimeOver, now);
                }
                _ => {
                    if self.expire_probes(word, now) {
                        continue;
                    }
                    let Some(next) = word.with_probe(self.params.probes()) else {
                        return Err(self.probes.wait(word.generation(), now, self.params.probe_deadline()));
                    };
                    if self.swap(word, next) {
                        let (slot, mark) = self.probes.take(word.generation(), now);
                        return Ok(Ticket::probe(word, slot, mark, now));
                    }
                }
            }
        }
    }

    /// Whether a call would be refused now, and how long it is worth waiting. Takes nothing.
    pub(crate) fn shut(&self, now: u64) -> Option<Duration> {
        loop {
            let word = self.word();
            match word.kind() {
                CLOSED => return None,
                OPEN => return until_probe(word, now),
                _ if self.expire_probes(word, now) => {}
                _ if word.with_probe(self.params.probes()).is_some() => return None,
                _ => return Some(self.probes.wait(word.generation(), now, self.params.probe_deadline())),
            }
        }
    }

    #[inline]
    pub(crate) fn refuse(&self, stripe: usize, wait: Option<Duration>) -> Rejection {
        self.refused[stripe].0.fetch_add(1, Relaxed);
        let rejection = Rejection::new(Reason::BreakerOpen, "breaker");
        wait.map_or(rejection, |wait| rejection.retry_after(wait))
    }

    pub(crate) fn let_through(&self) -> Ticket {
        self.let_through.fetch_add(1, Relaxed);
        Ticket::free()
    }

    pub(crate) fn refused_total(&self) -> u64 {
        self.refused.iter().map(|padded| padded.0.load(Relaxed)).sum()
    }

    pub(crate) fn let_through_total(&self) -> u64 {
        self.let_through.load(Relaxed)
    }

    // The phases of a call.

    /// The call takes time: from now on it is watched.
    pub(crate) fn pending(&self, ticket: &mut Ticket, stripe: usize, clock: &impl Clock) {
        if ticket.kind() != Kind::Closed || !ticket.is_in(Phase::Instant) {
            return;
        }
        let now = self.nanos(clock);
        ticket.began = now;
        self.look(now);
        let word = self.word();
        if word.kind() != CLOSED || word.generation() != ticket.generation() {
            // Its results will be ignored; only its age may matter to its drop.
            ticket.set_free();
            return;
        }
        ticket.enter(Phase::Waiting);
        ticket.hung = self.hung.enter(stripe, now);
        let (slow_after, hang_after) = (self.params.slow_after(), self.params.hang_after());
        if slow_after != u64::MAX && slow_after != hang_after {
            ticket.slow_epoch = self.slow.enter(stripe, now);
        }
    }

    /// The call's latency is over.
    #[inline]
    pub(crate) fn head(&self, ticket: &mut Ticket, stripe: usize, clock: &impl Clock) {
        if ticket.is_in(Phase::Waiting) {
            self.end_latency(ticket, stripe, self.nanos(clock));
        } else {
            ticket.enter(Phase::Past);
        }
    }

    fn end_latency(&self, ticket: &mut Ticket, stripe: usize, now: u64) {
        ticket.enter(Phase::Past);
        if now.saturating_sub(ticket.began) >= self.params.slow_after() {
            ticket.set_slow();
        }
        if ticket.kind() == Kind::Closed {
            self.hung.leave(stripe, ticket.hung);
            if ticket.slow_epoch != 0 {
                self.slow.leave(stripe, ticket.slow_epoch);
            }
            if let Calls::Time(window) = &self.window {
                window.advance(now);
            }
        }
    }

    /// The call's outcome is known.
    #[inline]
    pub(crate) fn conclude(
        &self,
        ticket: &mut Ticket,
        stripe: usize,
        outcome: Outcome,
        pushback: Option<Pushback>,
        clock: &impl Clock,
    ) {
        self.head(ticket, stripe, clock);
        if ticket.kind() == Kind::Closed && outcome == Outcome::Success && !ticket.is_slow() {
            self.succeed(ticket, stripe, clock);
        } else {
            self.conclude_otherwise(ticket, stripe, outcome, pushback, clock);
        }
    }

    #[inline]
    fn succeed(&self, ticket: &Ticket, stripe: usize, clock: &impl Clock) {
        let word = self.word();
        if word.kind() != CLOSED || word.generation() != ticket.generation() {
            return;
        }
        let streak = self.streak.load(Relaxed);
        if streak as u32 != 0 {
            self.end_streak(ticket.generation(), streak);
        }
        match &self.window {
            Calls::Time(window) => {
                if window.success(stripe, ticket.first()) {
                    self.read_clock(window, clock);
                }
            }
            Calls::Count(window) => window.record(ticket.generation(), false, false),
        }
    }

    #[cold]
    fn read_clock(&self, window: &TimeWindow, clock: &impl Clock) {
        let now = self.nanos(clock);
        window.advance(now);
        self.look(now);
    }

    #[inline(never)]
    fn conclude_otherwise(
        &self,
        ticket: &mut Ticket,
        stripe: usize,
        outcome: Outcome,
        pushback: Option<Pushback>,
        clock: &impl Clock,
    ) {
        let good = match outcome {
            Outcome::Success => Some(true),
            Outcome::Failure => Some(false),
            Outcome::Overload if self.params.overload_as_failure() => Some(false),
            _ => None,
        };
        match ticket.kind() {
            Kind::Closed => {
                if let Some(good) = good {
                    self.record(ticket, stripe, good, pushback, self.nanos(clock));
                }
            }
            Kind::Probe(slot) => {
                let good = good.map(|good| good && !(ticket.is_slow() && self.params.judges_slowness()));
                self.settle_probe(ticket.generation(), slot, ticket.hung, good, pushback, self.nanos(clock));
            }
            Kind::Free => {}
        }
    }

    /// The call was given up.
    pub(crate) fn abandon(&self, ticket: &mut Ticket, stripe: usize, outcome: Outcome, clock: &impl Clock) {
        let mut hung = false;
        if ticket.is_in(Phase::Waiting) {
            let now = self.nanos(clock);
            hung = now.saturating_sub(ticket.began) >= self.params.hang_after();
            self.end_latency(ticket, stripe, now);
            if hung {
                ticket.set_slow();
            }
        }
        let outcome = if hung { Outcome::Failure } else { outcome };
        self.conclude_otherwise(ticket, stripe, outcome, None, clock);
    }

    // Closed.

    /// A failure, or a slow success.
    fn record(&self, ticket: &Ticket, stripe: usize, good: bool, pushback: Option<Pushback>, now: u64) {
        let word = self.word();
        if word.kind() != CLOSED || word.generation() != ticket.generation() {
            return;
        }
        match &self.window {
            Calls::Time(window) => {
                let epoch = window.advance(now);
                if good {
                    window.success(stripe, ticket.first());
                } else {
                    window.failure(stripe, ticket.first(), epoch);
                }
                if ticket.is_slow() {
                    window.slow(stripe, ticket.first(), epoch);
                }
            }
            Calls::Count(window) => window.record(ticket.generation(), !good, ticket.is_slow()),
        }
        if good {
            self.end_streak(ticket.generation(), self.streak.load(Relaxed));
        } else if ticket.hung == 0 || !self.hung.is_reported(ticket.hung) {
            self.lengthen_streak(ticket.generation(), 1);
        }
        self.look(now);
        self.judge(word, pushback, now);
    }

    /// Looks for calls that hang. Once per tick: whoever has the clock in hand.
    fn look(&self, now: u64) {
        let watch = if self.watches_slow() { &self.slow } else { &self.hung };
        let tick = watch.epoch(now);
        if self.looked.load(Relaxed) != tick {
            self.look_now(tick, now);
        }
    }

    #[inline(never)]
    fn look_now(&self, tick: u64, now: u64) {
        self.looked.store(tick, Relaxed);
        let word = self.word();
        if word.kind() != CLOSED {
            return;
        }
        let hung = self.hung.newly_old(now);
        if hung > 0 {
            self.lengthen_streak(word.generation(), hung);
        }
        if hung > 0 || self.hung.old(now) > 0 || self.watches_slow() && self.slow.old(now) > 0 {
            self.judge(word, None, now);
        }
    }

    /// Looks at once, whatever the tick: for who wants to know.
    pub(crate) fn examine(&self, now: u64) {
        self.look_now(self.looked.load(Relaxed), now);
        let word = self.word();
        if word.kind() == HALF_OPEN {
            self.expire_probes(word, now);
        }
    }

    fn watches_slow(&self) -> bool {
        let slow_after = self.params.slow_after();
        slow_after != u64::MAX && slow_after != self.params.hang_after()
    }

    /// Calls in flight that hang, and that are slow.
    pub(crate) fn late(&self, now: u64) -> (u64, u64) {
        let hung = self.hung.old(now);
        let slow = match self.params.slow_after() {
            u64::MAX => 0,
            after if after == self.params.hang_after() => hung,
            _ => self.slow.old(now),
        };
        (hung, slow)
    }

    pub(crate) fn counts(&self, word: Word, now: u64) -> Counts {
        match &self.window {
            Calls::Time(window) if word.kind() == CLOSED => window.counts(word.payload(), now),
            Calls::Count(window) if word.kind() == CLOSED => window.counts(word.generation()),
            _ => Counts::default(),
        }
    }

    fn judge(&self, word: Word, pushback: Option<Pushback>, now: u64) {
        let cause = if u64::from(self.consecutive(word)) >= self.params.consecutive() {
            Cause::Consecutive
        } else {
            let (counts, (hung, slow)) = (self.counts(word, now), self.late(now));
            if self.params.fails_too_often(counts.failures + hung, counts.total + hung) {
                Cause::FailureRate
            } else if self.params.slow_too_often(counts.slow + slow, counts.total + slow) {
                Cause::SlowRate
            } else {
                return;
            }
        };
        self.open(word, cause, pushback, now);
    }

    #[cold]
    fn end_streak(&self, generation: u32, mut seen: u64) {
        while (seen >> 32) as u32 == generation && seen as u32 != 0 {
            match self.streak.compare_exchange_weak(seen, u64::from(generation) << 32, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }

    fn lengthen_streak(&self, generation: u32, by: u64) {
        let mut seen = self.streak.load(Relaxed);
        loop {
            let theirs = (seen >> 32) as u32;
            let length = match generation.wrapping_sub(theirs) & 0xff_ffff {
                0 => seen & u64::from(u32::MAX),
                ahead if ahead < 1 << 23 => 0,
                _ => return,
            };
            let next = u64::from(generation) << 32 | (length + by).min(u64::from(u32::MAX));
            match self.streak.compare_exchange_weak(seen, next, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }

    // Half-open.

    /// Takes the places of probes that are past their deadline. True: something changed.
    fn expire_probes(&self, word: Word, now: u64) -> bool {
        let deadline = self.params.probe_deadline();
        let mut changed = false;
        while let Some((slot, mark)) = self.probes.expired(word.generation(), now, deadline) {
            self.settle_probe(word.generation(), slot, mark, Some(false), None, now);
            changed = true;
        }
        changed
    }

    fn settle_probe(
        &self,
        generation: u32,
        slot: u8,
        mark: u64,
        good: Option<bool>,
        pushback: Option<Pushback>,
        now: u64,
    ) {
        if !self.probes.give_back(slot, mark) {
            return;
        }
        loop {
            let word = self.word();
            if word.kind() != HALF_OPEN || word.generation() != generation {
                return;
            }
            let next = word.without_probe(good);
            let (rules, tally) = (self.params.probes(), next.tally());
            let done = if rules.closes(tally) {
                self.close(word, Cause::ProbesGood, now)
            } else if rules.opens(tally) {
                self.open(word, Cause::ProbesBad, pushback, now)
            } else {
                self.swap(word, next) && {
                    if self.params.back_pressure() {
                        self.wakers.wake_all();
                    }
                    true
                }
            };
            if done {
                return;
            }
        }
    }

    // Transitions: one CAS each, which expects the very word the decision was made on.

    fn open(&self, word: Word, cause: Cause, pushback: Option<Pushback>, now: u64) -> bool {
        let healthy =
            word.kind() == CLOSED && now.saturating_sub(self.closed_at.load(Relaxed)) >= self.params.max_open();
        let times = if healthy { 0 } else { self.streak_of_openings.load(Relaxed) };
        let max = self.params.max_open();
        let full = self.params.open_for().saturating_mul(1 << times.min(40)).min(max);
        let jittered = full / 2 + self.draw() % (full / 2 + 1);
        let asked = match pushback.map(Pushback::delay) {
            Some(Some(delay)) => u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX),
            Some(None) => u64::MAX,
            None => 0,
        };
        let until = now.saturating_add(jittered.max(asked).min(max)).div_ceil(1_000_000);
        let opened = self.turn(word, word.then(OPEN, until), cause, now);
        if opened {
            self.streak_of_openings.store(times + 1, Relaxed);
            self.opened.fetch_add(1, Relaxed);
        }
        opened
    }

    fn close(&self, word: Word, cause: Cause, now: u64) -> bool {
        let first = match &self.window {
            Calls::Time(window) => window.next_epoch(now),
            Calls::Count(_) => 0,
        };
        // Before the circuit closes: whoever finds it closed must not find calls of an earlier generation hanging.
        self.hung.forget(now);
        self.slow.forget(now);
        self.closed_at.store(now, Relaxed);
        self.turn(word, word.then(CLOSED, first), cause, now)
    }

    /// Closes, whatever the state, and forgets everything.
    pub(crate) fn reset(&self, now: u64) {
        while !self.close(self.word(), Cause::Reset, now) {}
        self.streak_of_openings.store(0, Relaxed);
    }

    fn swap(&self, word: Word, next: Word) -> bool {
        self.state.compare_exchange(word.0, next.0, AcqRel, Relaxed).is_ok()
    }

    fn turn(&self, from: Word, to: Word, cause: Cause, now: u64) -> bool {
        let won = self.swap(from, to);
        if won {
            self.announce(from, to, cause, now);
        }
        won
    }

    #[cold]
    fn announce(&self, from: Word, to: Word, cause: Cause, now: u64) {
        self.sync_signal();
        self.wakers.wake_all();
        let transition = Transition {
            from: State::of(from),
            to: State::of(to),
            generation: to.generation(),
            cause,
            open_for: (to.kind() == OPEN).then(|| until_probe(to, now).unwrap_or_default()),
        };
        let name = lock(&self.config).name.clone();
        transition.trace(&name);
        let listeners = lock(&self.listeners).clone();
        for listener in listeners {
            listener(&transition);
        }
    }

    /// Makes the signal say whether calls are refused. Whoever writes looks again, so the last word is right.
    pub(crate) fn sync_signal(&self) {
        loop {
            let (word, mode) = (self.word(), self.mode.get());
            let refuses = match mode {
                Mode::ForcedOpen => true,
                Mode::Disabled | Mode::Enforcing(0) => false,
                _ => word.kind() == OPEN,
            };
            if refuses {
                let until = (word.kind() == OPEN).then(|| self.origin.at(word.payload().saturating_mul(1_000_000)));
                self.signal.raise(Signal::OPEN, until);
            } else {
                self.signal.clear(Signal::OPEN);
            }
            if (self.word(), self.mode.get()) == (word, mode) {
                return;
            }
        }
    }

    fn draw(&self) -> u64 {
        let mut z = self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// How long an open circuit stays open; `None`: a probe may go.
pub(crate) fn until_probe(word: Word, now: u64) -> Option<Duration> {
    let left = word.payload().saturating_mul(1_000_000).saturating_sub(now);
    (left > 0).then(|| Duration::from_nanos(left))
}

fn random_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}
