//! The adaptive limit. See [`Adaptive`].

mod base;
mod config;
#[cfg(all(test, not(buttress_loom)))]
mod tests;

pub use config::{AdaptiveConfig, WallClock};

use super::{Limit, Span, Window};
use base::{Base, SAMPLES, SLOWER, Seen};
use buttress_core::ConfigError;
use std::time::{Duration, Instant};

/// Calls may be in flight until a queue begins to form where they go: found out by itself, without a number to tune.
///
/// # How it tells a queue
///
/// A service that works on `c` calls at once is used in full by `c` calls in flight; each further one waits there, and everybody
/// with it. In a queue that is served in order *every* call waits, the fastest as well. So the limit watches the first decile of
/// the times of calls that are answered: it is several times less noisy than their mean (with log-normal times of sigma 1 the mean of 250 calls
/// is 8 % off, the decile 2 % of the mean), and does not mind a few slow calls, a pause of a garbage collector or another mix of them. What it
/// is without a queue is the `base`. By Little's law the wait above it, times the rate of answers, is what looks like a queue:
///
/// ```text
/// queue  = rate * wait
/// wait   = low - base, or typical - 2 * its base if that is more
/// target = sqrt(limit) / 2, at least 1/2
/// queue < target / 4   grow: 25 %, 50 %, 100 % from window to window
/// queue < target       limit += (target - queue) / 2
/// otherwise            ask a probe, and as long as that said "saturated":
/// queue < target * 2   limit += (target - queue) / 2
/// otherwise            limit = limit - queue + target, at most 30 % less at once
/// ```
///
/// `typical` is the mean of the fastest four fifths. Where a part of the calls never comes to the queue (answers from a cache), or there are many queues (replicas behind
/// a balancer), the first decile knows nothing of the wait of all others; then what most calls take beyond twice of what they should counts.
///
/// It never grows unless a call found no room: a limit that nobody reaches tells nothing. And it never shrinks for what only looks like
/// a queue: calls that have become slower look the same. Where it is full of calls that hang, and the few that are answered between them are as fast as ever, there is no queue
/// either, and it grows.
///
/// # Probes
///
/// A probe moves the limit for some round trips, and looks at what follows. Most *reach*: a third more calls in flight. If they take as
/// much longer, and are no more answers, they stand in a queue: the service is saturated, and what seemed to be the queue is given
/// up, until that takes answers away as well. If there are more answers, there was no queue, and the limit
/// keeps what it asked for. So a service that has become slower and has room is used in full after a few probes, none of which
/// took anything from anybody. Every other one of the regular probes *yields* instead: a quarter less. What is faster then was a queue which
/// the base had taken for work; this is how it falls again.
///
/// They come while there is load: regularly every 5 s, and within 1.25 s of what looks like a queue and of a probe that found calls to
/// be slower. (That is for calls of up to 0.1 s; for longer ones it doubles with their time.) Slots are those of the wall clock,
/// so that all instances in front of one service do the same at the same time: who makes room alone learns nothing, because others take it, and who asks for more alone
/// gets what they had. So only the regular probes, which all instances make together, raise the base: to its double at most, as one may err, and in full only if the answers
/// have become as many more; by half if with less there are as many fewer. As long as hardly any calls were seen, any probe may. Instances whose clocks differ by a second or more do not profit from that: their limits may grow with each other's queue.
///
/// Without load the base is learnt from every window, down at once and up slowly: within a minute.
///
/// # Relief
///
/// If more than a tenth of the calls time out, and all others are slow as well, or the service itself refuses more than 2 %, the limit falls by as much,
/// at most by 30 %, from window to window. Three times, that is: if there are as many of them then, they have another reason, the limit is what it was before, and for
/// 10 s nothing is cut. Where no call at all is answered, for whatever reason they end and whether or not any found no room, it goes on twelve times, that is to a hundredth,
/// and stays there until one is: the service has to work off what nobody waits for first.
///
/// # Start
///
/// From `initial` it trebles with each short window, as long as the rate of answers doubles; after a first look, in which none but the fastest calls can have come back.
///
/// Started under overload a service is used nearly in full from the first second on, but it may take 3 to 4 s until the limit has settled: the base was learnt in a queue
/// then, and the first probes have to find that out. Until then calls wait there, the more the fewer workers the service has (20 calls in flight, where 4 are enough, are a
/// queue of 16). Where you know better, set [`initial`](AdaptiveConfig::initial), from which it still trebles, and [`max`](AdaptiveConfig::max), which it never passes.
///
/// # Where it comes from
///
/// Queue length as the measure is TCP Vegas's (Brakmo and Peterson, 1995), start and aligned probes are BBR's (Cardwell et al., 2016). Of
/// other limits for services: per-call minima are too low a base where times vary, averages drift with the queue that they are
/// to find, and additive increase with multiplicative decrease needs time-outs to stop. `cargo run -p buttress-benches --bin track` measures them beside it.
#[derive(Debug)]
pub struct Adaptive {
    config: AdaptiveConfig,
    limit: f64,
    base: Option<Base>,
    phase: Phase,
    /// The latest window with enough calls.
    seen: Option<Seen>,
    /// What the latest windows said together, as long as the limit was the same: a probe is compared with it.
    lately: Option<Seen>,
    /// A call found no room in the latest window that was long enough to tell.
    limited: bool,
    /// The next probe, while there is load.
    probe_at: Option<Instant>,
    /// Something looks like a queue, and no probe has said yet what it is.
    suspicious: bool,
    /// The last probe made room, and found a queue that nobody knew of: the next one makes room as well.
    draining: bool,
    /// The last probe came in a slot in which all instances probe.
    common: bool,
    /// The last probe said that more calls in flight bring no more answers.
    saturated: bool,
    /// What was seen before that.
    full: Option<Seen>,
    /// Calls that ended without an answer since the last one that had one.
    unanswered: Unanswered,
    /// What is done about calls that time out, or that the service refuses.
    relief: Relief,
    /// How often in a row it grew or shrank.
    steps: usize,
}

#[derive(Debug)]
enum Phase {
    /// The limit trebles, while the rate of answers doubles; it was so much before.
    Start(Option<f64>),
    /// It follows the queue.
    Follow,
    /// It has moved a good deal: what was admitted before that is let out first.
    Settle(After),
    /// There are more calls in flight, and this was seen before.
    Reach(Seen),
    /// There are fewer, and this was seen before.
    Yield(Seen),
}

#[derive(Clone, Copy, Debug)]
enum After {
    Follow,
    Reach(Seen),
    Yield(Seen),
}

/// Cuts because of calls that time out or are refused further in: they go on as long as they help.
#[derive(Clone, Copy, Debug, Default)]
struct Relief {
    /// How often in a row.
    cuts: u32,
    /// The share of such calls, and the limit, before the first.
    share: f64,
    limit: f64,
    /// They did not help: until then there are none.
    spared: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Unanswered {
    calls: u32,
    time: Duration,
}

/// What looks like a queue is looked into this often, for calls of up to [`SHORT`].
const SLOT: f64 = 1.25;
/// Any limit that is reached, every so many slots.
const ROUTINE: f64 = 4.0;
/// Of so many such probes one makes room.
const TURNS: f64 = 2.0;
/// What a probe adds, or takes.
const MORE: f64 = 4.0 / 3.0;
const LESS: f64 = 0.75;
/// A base rises at most by this at once: what a probe saw may be the queue of others, who did not probe with it.
const RISE: f64 = 2.0;
/// Calls that time out are too many only where all others are slower than their base, by this: in a queue all wait.
const SLOW: f64 = 2.0;
/// After so many cuts without effect there are none for so long.
const CUTS: u32 = 3;
/// So many calls that went wrong are all.
const IN_VAIN: f64 = 0.95;
const CUTS_IN_VAIN: u32 = 12;
const SPARED: Duration = Duration::from_secs(10);
/// Seconds.
const SHORT: f64 = 0.1;
/// Up to here a base may rise at once, in seconds: twice of nothing is nothing.
const FINEST: f64 = 1e-4;
/// A window with fewer calls says too little of their first decile; unless it was a long one, and there are no more.
const ENOUGH: u32 = 20;
const FEW: u32 = 5;
const LONG: Duration = Duration::from_secs(2);
/// What it grows by, in so many steps.
const GROWTH: [f64; 5] = [0.0, 0.25, 0.25, 0.5, 1.0];

/// At the lowest limit a slow service never answers twenty calls in a short time: who waited for them would stay there.
fn is_enough(calls: u32, window: &Window) -> bool {
    calls >= ENOUGH || calls >= FEW && window.length() >= LONG
}

impl Adaptive {
    /// A limit that knows nothing yet.
    ///
    /// # Errors
    ///
    /// A bound that is zero, or above another that it should be below.
    pub fn new(config: AdaptiveConfig) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self::with(config))
    }

    /// The same with a config that was validated.
    pub(crate) fn with(config: AdaptiveConfig) -> Self {
        Self {
            limit: f64::from(config.start()),
            config,
            base: None,
            phase: Phase::Start(None),
            seen: None,
            lately: None,
            limited: false,
            probe_at: None,
            suspicious: false,
            common: false,
            draining: false,
            saturated: false,
            full: None,
            unanswered: Unanswered::default(),
            relief: Relief::default(),
            steps: 0,
        }
    }

    /// How many calls may stand in a queue behind it: without any, a moment's gap would leave the service idle.
    fn target(&self) -> f64 {
        (self.limit.sqrt() / 2.0).max(0.5)
    }

    fn queue(&self, seen: &Seen) -> f64 {
        self.base.map_or(0.0, |base| seen.rate * base.wait(seen))
    }

    /// How long a call takes without its wait, as far as that is known.
    fn without_queue(&self, seen: &Seen) -> f64 {
        seen.trip() - self.base.map_or(0.0, |base| (seen.low - base.low).max(0.0))
    }

    /// Whether every call takes much longer than it need: else those that time out have not waited for the others.
    fn is_slow(&self, seen: &Seen) -> bool {
        seen.samples == 0.0
            || self.base.is_none_or(|base| {
                seen.low > SLOW * noise(seen) * base.low || seen.typical > 2.0 * SLOW * noise(seen) * base.typical
            })
    }

    fn set(&mut self, limit: f64) {
        self.limit = limit.clamp(f64::from(self.config.min), f64::from(self.config.max));
    }

    fn settle(&mut self, after: After) {
        self.phase = Phase::Settle(after);
    }

    fn learn(&mut self, seen: &Seen, share: f64) {
        if seen.samples == 0.0 {
            return;
        }
        match &mut self.base {
            Some(base) => base.learn(seen, share),
            None => self.base = Some(Base::new(seen)),
        }
    }

    /// The fastest were faster; what most take may still have a queue in it.
    fn learn_down(&mut self, seen: &Seen, share: f64) {
        let typical = self.base.map_or(seen.typical, |base| seen.typical.min(base.typical));
        self.learn(&Seen { typical, ..*seen }, share);
    }

    /// A probe at the next of the slots that every instance has: those of the wall clock.
    fn plan_probe(&mut self, slots: f64, seen: &Seen, now: Instant) {
        let every = SLOT * slots * slowness(self.without_queue(seen));
        let wait = every - self.config.wall_clock.now().as_secs_f64() % every;
        self.probe_at = now.checked_add(Duration::try_from_secs_f64(wait).unwrap_or_default());
    }

    fn start(&mut self, window: &Window, seen: &Seen, before: Option<f64>) {
        if self.seen.is_none() && window.limited {
            // None but the fastest can have come back. How long to wait for the others is known now.
            self.phase = Phase::Start(None);
        } else if !window.limited {
            self.learn(seen, 0.2);
            self.phase = Phase::Follow;
        } else if before.is_none_or(|before| seen.rate > 2.0 * before) {
            self.learn(seen, 0.2);
            self.set(self.limit * 3.0);
            self.phase = Phase::Start(Some(seen.rate));
        } else {
            let without_queue = (self.limit - self.queue(seen)).max(self.limit / 3.0);
            self.set(without_queue + self.target());
            (self.steps, self.saturated) = (1, true);
            self.plan_probe(1.0, seen, window.end);
            self.settle(After::Follow);
        }
    }

    /// More calls were in flight. Either there are more answers now, or they all take longer.
    fn reached(&mut self, was: &Seen, seen: &Seen, limited: bool, now: Instant) {
        self.saturated = limited && was.waited(seen);
        if self.saturated {
            self.full = Some(*was);
            self.set((was.limit - self.queue(was) + self.target()).max(0.5 * was.limit));
            self.steps = if self.suspicious { 2 } else { 0 };
            self.suspicious = false;
            self.plan_probe(ROUTINE, seen, now);
        } else {
            let trust = match (self.common, was.gained(seen)) {
                (true, true) => 1.0,
                (true, false) => 0.1,
                // Who asked alone may have got what others had. Where next to nothing is known that is still more.
                (false, true) if self.base.is_some_and(|base| base.is_little()) => 1.0,
                (false, _) => 0.0,
            };
            let moved = self.raise_base(seen, trust);
            (self.suspicious, self.steps) = (moved, 3);
            self.plan_probe(if moved { 1.0 } else { ROUTINE }, seen, now);
        }
        self.settle(After::Follow);
    }

    /// Fewer calls were in flight. Either there are as many answers, and a queue is shorter, or there are fewer.
    fn yielded(&mut self, was: &Seen, seen: &Seen, now: Instant) {
        let eased = was.eased(seen);
        let base = self.base.map_or(seen.low, |base| base.low);
        let moved = eased && seen.low * noise(seen) < base;
        self.draining = moved;
        if !eased {
            self.raise_base(seen, if self.common && was.lost(seen) { 0.5 } else { 0.0 });
        } else if seen.low < base {
            self.learn_down(seen, if moved { 0.7 } else { 0.2 });
        }
        self.set(if eased { was.limit - self.queue(was) / 2.0 } else { was.limit }.max(self.limit));
        self.saturated = eased;
        self.full = Some(*was);
        self.suspicious = false;
        self.steps = if eased { 2 } else { 1 };
        // A queue that nobody knew of: there may be more of it.
        self.plan_probe(if moved { 1.0 } else { ROUTINE }, seen, now);
        self.settle(After::Follow);
    }

    fn is_slower(&self, seen: &Seen) -> bool {
        self.base.is_none_or(|base| seen.low > base.low * noise(seen) || seen.typical > SLOWER * base.typical)
    }

    /// What was seen is how long calls take, without a queue: as far as that is more than chance, `trust` says how sure that is. Whether it is.
    fn raise_base(&mut self, seen: &Seen, trust: f64) -> bool {
        let Some(base) = self.base else { return false };
        let moved = self.is_slower(seen);
        // However few they were: `noise` has allowed for that.
        let samples = if moved { seen.samples.max(SAMPLES) } else { seen.samples };
        let most = |base: f64| (RISE * base).max(FINEST);
        let (low, typical) = (seen.low.min(most(base.low)), seen.typical.min(most(base.typical)));
        let share = if moved { trust } else { 0.2 };
        if share > 0.0 && (moved || seen.low > base.low) {
            self.learn(&Seen { low, typical, samples, ..*seen }, share);
        }
        moved
    }

    fn follow(&mut self, window: &Window, mut seen: Seen, now: Instant) {
        let enough = is_enough(window.answered(), window);
        // A probe was due before much was seen: that nobody asked for room in that moment says nothing.
        self.limited = window.limited || !enough && self.limited;
        let Some(Base { low: base, .. }) = self.base else { return self.learn(&seen, 1.0) };
        if !self.limited {
            match &mut self.base {
                Some(known) if seen.low * noise(&seen) >= base => {
                    known.creep(&seen, window.length().as_secs_f64(), noise(&seen))
                }
                _ => self.learn(&seen, 0.2),
            }
            (self.probe_at, self.suspicious, self.saturated, self.steps) = (None, false, false, 1);
            return;
        }
        self.lately = match self.lately {
            Some(lately) if lately.is_near(self.limit) => Some(lately.and(&seen)),
            // A few calls are not enough to go by, but with those of the next windows they are.
            lately => Some(seen).filter(|_| enough || window.answered() >= FEW).or(lately),
        };
        // The limit is full of calls that wait for something else than their turn: the few others are as fast as ever.
        let hung = !enough && window.samples >= ENOUGH && seen.samples > 0.0 && !self.is_slow(&seen);
        if !enough {
            seen = self.seen.unwrap_or(seen);
        }
        if enough && seen.low < base {
            self.learn_down(&Seen { samples: seen.samples.min(60.0), ..seen }, 0.1);
        }
        self.seen = Some(seen);
        // What was true of a limit need not be of one that is much lower by now.
        if enough && self.saturated && self.full.is_some_and(|full| full.starved(&seen)) {
            self.saturated = false;
        }
        let (queue, target) = (if hung { 0.0 } else { self.queue(&seen) }, self.target());
        let doubtful = queue > if self.saturated { 2.0 * target } else { target };
        if doubtful && !self.suspicious && (self.saturated || self.steps < 2) {
            // Once only: what still looks like a queue then may be none.
            if self.saturated {
                self.set((self.limit - queue + target).max(0.7 * self.limit));
                self.settle(After::Follow);
            }
            // What it was before is not what a probe finds now.
            self.lately = Some(seen);
            (self.suspicious, self.steps) = (true, 0);
            return self.plan_probe(1.0, &seen, now);
        }
        match self.probe_at {
            None => self.plan_probe(ROUTINE, &seen, now),
            Some(at) if now >= at => match self.lately.filter(|lately| lately.is_near(self.limit)) {
                Some(lately) if enough || lately.samples >= f64::from(ENOUGH) => return self.probe(lately, queue),
                // Against what was seen under another limit it would say nothing.
                _ => self.plan_probe(1.0, &seen, now),
            },
            Some(_) => {}
        }
        if !enough && !hung {
            return;
        }
        if queue < 0.25 * target {
            let more = (GROWTH[self.steps.min(GROWTH.len() - 1)] * self.limit).max(1.0);
            if more > 0.1 * self.limit {
                self.settle(After::Follow);
            }
            self.set(self.limit + more);
            self.suspicious = false;
            self.steps += 1;
        } else if !doubtful {
            // It never shrinks for what only looks like a queue.
            self.set(self.limit + 0.5 * (target - queue));
            self.steps = 0;
        }
    }

    /// Every instance does the same in the same slot: those in front of one service make room together, or ask for more together.
    fn probe(&mut self, seen: Seen, queue: f64) {
        let slots = self.config.wall_clock.now().as_secs_f64() / (SLOT * ROUTINE * slowness(self.without_queue(&seen)));
        let turn = slots.round() % TURNS == 0.0;
        let less = (LESS * (self.limit - queue).max(0.7 * self.limit)).round().max(1.0);
        self.common = (slots - slots.round()).abs() < 0.1;
        (self.probe_at, self.lately) = (None, None);
        if (self.common && turn || self.draining) && less < self.limit.round() {
            self.set(less);
            return self.settle(After::Yield(seen));
        }
        self.set((self.limit * MORE).max(self.limit + 1.0));
        self.settle(After::Reach(seen));
    }

    /// Cuts the limit because of a share of calls that went wrong for having been too many. Whether that was done.
    fn relieve(&mut self, wrong: Option<f64>, reached: f64, now: Instant) -> bool {
        let Some(share) = wrong else {
            if self.relief.cuts > CUTS {
                // Answers again: most likely there is room for many more.
                self.steps = GROWTH.len() - 1;
            }
            self.relief.cuts = 0;
            return false;
        };
        if self.relief.spared.is_some_and(|until| now < until) {
            return false;
        }
        // Where nobody is served there is nothing to lose, and the queue may be a hundred times too long.
        let in_vain = share > IN_VAIN;
        let some_are_served = self.relief.share > IN_VAIN && !in_vain;
        if self.relief.cuts == 0 || some_are_served {
            self.relief = Relief { cuts: 0, share, limit: self.limit, spared: None };
        }
        let most = if in_vain { CUTS_IN_VAIN } else { CUTS };
        if self.relief.cuts < most || share <= 0.8 * self.relief.share {
            self.set(reached * (1.0 - share).max(0.7));
            self.relief.cuts += 1;
            self.unanswered = Unanswered::default();
        } else if share < 1.0 {
            // Fewer calls in flight, and as many of them in vain: they would be in any case.
            self.set(self.relief.limit);
            self.relief = Relief { spared: now.checked_add(SPARED), ..Relief::default() };
        } else {
            return false;
        }
        self.steps = 1;
        self.settle(After::Follow);
        true
    }
}

/// How far chance may move a first decile.
fn noise(seen: &Seen) -> f64 {
    1.1 + 2.0 / seen.samples.max(1.0).sqrt()
}

/// For slow calls everything takes longer: by powers of two, so that instances agree.
fn slowness(time: f64) -> f64 {
    (time / SHORT).max(1.0).log2().ceil().exp2()
}

impl Limit for Adaptive {
    fn limit(&self) -> u32 {
        self.limit.round() as u32
    }

    fn span(&self) -> Span {
        const HALF: Duration = Duration::from_millis(500);
        let trips =
            |n: f64| Duration::try_from_secs_f64(n * self.seen.map_or(0.01, |seen| seen.trip())).unwrap_or(LONG);
        let limit = self.limit();
        // No look is shorter than the calls it is to see: else it sees the short ones.
        let (some, few) = ((ENOUGH, trips(3.0).max(HALF)), (FEW, trips(5.0).max(LONG)));
        match self.phase {
            // The base is learnt here: from more than twenty.
            Phase::Start(None) if self.seen.is_some() => {
                Span { looks: [(3 * ENOUGH, trips(3.0)), some, few], until: None }
            }
            Phase::Start(_) => Span { looks: [(limit.max(ENOUGH), trips(1.0)), some, few], until: None },
            Phase::Settle(_) => {
                Span { looks: [(limit.max(FEW), trips(1.0)), (FEW, trips(1.0).max(HALF)), (1, few.1)], until: None }
            }
            Phase::Reach(_) | Phase::Yield(_) => {
                // Slow calls are few: they have ten round trips, so that chance does not decide.
                let while_few = trips(10.0).max(Duration::from_millis(400));
                Span { looks: [(150, trips(4.0)), (ENOUGH, while_few), few], until: None }
            }
            Phase::Follow => {
                // A low limit tells its queue by fewer calls: the error is in calls, and few are in flight.
                let (per_call, most) = if self.steps > 0 || self.suspicious { (5, 100) } else { (12, 250) };
                let calls = limit.saturating_mul(per_call).clamp(30, most);
                // Where nobody is answered there is nothing to probe.
                let until = self.probe_at.filter(|_| self.unanswered.calls == 0);
                Span { looks: [(calls, trips(4.0)), some, few], until }
            }
        }
    }

    fn observe(&mut self, window: &Window) {
        let length = window.length().as_secs_f64();
        let Some(mean) = window.mean().filter(|_| length > 0.0) else {
            // Refused at once, all of them: nothing was timed.
            let refused = f64::from(window.overloads) / window.completed.max(1) as f64;
            if refused > 0.5 {
                self.relieve(Some(refused), self.limit, window.end);
            }
            return;
        };
        // Streams are timed at their heads, and end much later.
        let ended = window.completed.max(u64::from(window.samples)).max(1);
        let served = ended.saturating_sub(window.overloads.into()) as f64;
        let answered = served * f64::from(window.answered()) / f64::from(window.samples);
        let seen = Seen {
            limit: self.limit,
            rate: answered / length,
            low: window.low.as_secs_f64(),
            mean: mean.as_secs_f64(),
            typical: window.typical.as_secs_f64(),
            samples: f64::from(window.answered()),
        };
        let now = window.end;
        let refused = f64::from(window.overloads) / ended as f64;
        // Whoever ended them: if nobody is answered, all wait too long, and were it by calls of one window after the other.
        let silent = window.answered() == 0;
        let (telling, late) = if silent {
            self.unanswered.calls = self.unanswered.calls.saturating_add(window.samples);
            self.unanswered.time = self.unanswered.time.saturating_add(window.length());
            let Unanswered { calls, time } = self.unanswered;
            (calls >= ENOUGH || calls >= FEW && time >= LONG, 1.0)
        } else {
            self.unanswered = Unanswered::default();
            (is_enough(window.samples, window), f64::from(window.timed_out) / f64::from(window.samples))
        };
        let late = if telling { late } else { 0.0 };
        // Who waits for an answer in vain long enough to leave again makes room for others: such a limit is too high though nobody finds it full.
        let late_for_a_queue = late > 0.1 && (silent || window.limited && self.is_slow(&seen));
        // What is above all calls there are changes nothing.
        let unreached = silent && !window.limited;
        let reached = if unreached { self.limit.min(f64::from(window.in_flight.max(1))) } else { self.limit };
        let wrong = match refused > late {
            true => Some(refused).filter(|refused| *refused > 0.02),
            false => Some(late).filter(|_| late_for_a_queue),
        };
        match std::mem::replace(&mut self.phase, Phase::Follow) {
            Phase::Settle(After::Follow) => {}
            Phase::Settle(After::Reach(was)) => self.phase = Phase::Reach(was),
            Phase::Settle(After::Yield(was)) => self.phase = Phase::Yield(was),
            _ if (telling || wrong.is_some()) && self.relieve(wrong, reached, now) => {}
            // Nothing can be learnt from calls that go wrong.
            _ if refused > 0.5 => {}
            Phase::Follow => self.follow(window, seen, now),
            _ if window.answered() == 0 => {}
            Phase::Start(before) => self.start(window, &seen, before),
            Phase::Reach(was) => self.reached(&was, &seen, window.limited, now),
            Phase::Yield(was) => self.yielded(&was, &seen, now),
        }
        if is_enough(window.answered(), window) || self.seen.is_none() && window.answered() > 0 {
            self.seen = Some(seen);
        }
    }

    fn name(&self) -> &'static str {
        "adaptive"
    }

    fn base(&self) -> Option<Duration> {
        self.base.and_then(|base| Duration::try_from_secs_f64(base.low).ok())
    }
}
