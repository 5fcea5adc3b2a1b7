//! The adaptive limit. See [`Adaptive`].

mod base;
mod config;
#[cfg(all(test, not(buttress_loom)))]
mod tests;

pub use config::{AdaptiveConfig, WallClock};

use super::{Limit, Span, Window};
use base::{Base, SAMPLES, Seen};
use buttress_core::ConfigError;
use std::time::{Duration, Instant};

/// Calls may be in flight until a queue begins to form where they go: found out by itself, without a number to tune.
///
/// # How it tells a queue
///
/// A service that works on `c` calls at once is used in full by `c` calls in flight; each further one waits there, and everybody
/// with it. In a queue that is served in order *every* call waits, the fastest as well. So the limit watches the first decile of
/// the times of calls: it is several times less noisy than their mean (with log-normal times of sigma 1 the mean of 250 calls
/// is 8 % off, the decile 2 % of the mean), and does not mind a few slow calls, a pause of a garbage collector or another mix of them. What it
/// is without a queue is the `base`. By Little's law the wait above it, times the rate of answers, is the queue's length:
///
/// ```text
/// queue  = rate * (low - base)
/// target = sqrt(limit) / 2, at least 1/2
/// queue < target / 4   grow: 25 %, 50 %, 100 % from window to window
/// queue < target * 2   limit += (target - queue) / 2
/// otherwise            limit = limit - queue + target, at most 30 % less at once
/// ```
///
/// It never grows unless a call found no room: a limit that nobody reaches tells nothing. If more than a tenth of the calls
/// time out it falls by 30 %; so much of it as the service itself refuses is given up, too.
///
/// # How it learns the base
///
/// Without load from every window, down at once and up slowly. Under load a higher first decile is a queue, or a service that has become
/// slower; these look the same until somebody makes room. So it falls with what is seen, and rises only by a *probe*: the limit
/// is cut by a quarter for about five round trips. If calls are as many as before and faster, there was a queue; if they are
/// fewer and as slow, the service is slower, and the base rises (at most to its double, as one probe may err). A probe comes every 20 s under load, and within 1.25 s of
/// a queue that comes from nowhere. Slots are those of the wall clock, so that all instances in front of one service
/// make room at the same time: who probes alone learns nothing, because others take what it leaves. (Times are for calls of up to 20 ms; for longer ones by as much longer.)
///
/// # Start
///
/// From `initial` it trebles with each short window, as long as the rate of answers doubles.
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
    /// The next probe, while there is load.
    probe_at: Option<Instant>,
    /// A queue came from nowhere, and no probe has said yet what it is.
    suspicious: bool,
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
    /// There is room, and this was seen before.
    Probe(Seen),
}

#[derive(Clone, Copy, Debug)]
enum After {
    Follow,
    Probe(Seen),
}

/// Suspicious queues are looked into this often, for calls of up to [`SHORT`].
const SLOT: f64 = 1.25;
/// Any, every so many slots.
const ROUTINE: f64 = 16.0;
/// Seconds.
const SHORT: f64 = 0.02;
/// Up to here a base may rise at once, in seconds: twice of nothing is nothing.
const FINEST: f64 = 1e-4;
/// A window with fewer calls says too little of their first decile; unless it was a long one, and there are no more.
const ENOUGH: u32 = 20;
const FEW: u32 = 5;
const LONG: Duration = Duration::from_secs(2);
/// What it grows by, in so many steps.
const GROWTH: [f64; 5] = [0.0, 0.25, 0.25, 0.5, 1.0];

/// At the lowest limit a slow service never answers twenty calls in a short time: who waited for them would stay there.
fn is_enough(window: &Window) -> bool {
    window.samples >= ENOUGH || window.samples >= FEW && window.length() >= LONG
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
            limit: f64::from(config.initial),
            config,
            base: None,
            phase: Phase::Start(None),
            seen: None,
            probe_at: None,
            suspicious: false,
            steps: 0,
        }
    }

    /// How many calls may stand in a queue behind it: without any, a moment's gap would leave the service idle.
    fn target(&self) -> f64 {
        (self.limit.sqrt() / 2.0).max(0.5)
    }

    fn queue(&self, seen: &Seen) -> f64 {
        self.base.map_or(0.0, |base| seen.rate * (seen.low - base.low).max(0.0))
    }

    fn set(&mut self, limit: f64) {
        self.limit = limit.clamp(f64::from(self.config.min), f64::from(self.config.max));
    }

    fn settle(&mut self, after: After) {
        self.phase = Phase::Settle(after);
    }

    fn learn(&mut self, seen: &Seen, share: f64) {
        match &mut self.base {
            Some(base) => base.learn(seen.low, seen.samples, share),
            None => self.base = Some(Base::new(seen.low, seen.samples)),
        }
    }

    /// A probe at the next of the slots that every instance has: those of the wall clock.
    fn plan_probe(&mut self, slots: f64, seen: &Seen, now: Instant) {
        let without_queue = seen.mean - self.base.map_or(0.0, |base| (seen.low - base.low).max(0.0));
        let slow = (without_queue / SHORT).max(1.0).log2().ceil().exp2();
        let every = SLOT * slots * slow;
        let wait = every - self.config.wall_clock.now().as_secs_f64() % every;
        self.probe_at = now.checked_add(Duration::try_from_secs_f64(wait).unwrap_or_default());
    }

    fn start(&mut self, seen: &Seen, before: Option<f64>, limited: bool, now: Instant) {
        if !limited {
            self.learn(seen, 0.2);
            self.phase = if before.is_none() && self.limit > seen.limit { Phase::Start(None) } else { Phase::Follow };
        } else if before.is_none_or(|before| seen.rate > 2.0 * before) {
            self.learn(seen, 0.2);
            self.set(self.limit * 3.0);
            self.phase = Phase::Start(Some(seen.rate));
        } else {
            let without_queue = (self.limit - self.queue(seen)).max(self.limit / 3.0);
            self.set(without_queue + self.target());
            self.steps = 1;
            self.plan_probe(1.0, seen, now);
            self.settle(After::Follow);
        }
    }

    fn probed(&mut self, was: &Seen, seen: &Seen, now: Instant) {
        let eased = was.eased(seen);
        let base = self.base.map_or(seen.low, |base| base.low);
        let noise = 1.1 + 2.0 / seen.samples.sqrt();
        let moved = if eased { seen.low * noise < base } else { seen.low > base * noise };
        if seen.low < base || !eased {
            // Doubled at most: if the others did not make room at the same time, what was seen is their queue.
            let mut believed = Seen { low: seen.low.min((2.0 * base).max(FINEST)), ..*seen };
            if moved {
                // However few they were: `noise` has allowed for that.
                believed.samples = believed.samples.max(SAMPLES / 2.0);
            }
            self.learn(&believed, if moved { 0.7 } else { 0.2 });
        }
        let back = if eased { was.limit - self.queue(was) / 2.0 } else { was.limit };
        self.set(back.max(self.limit));
        // A service that has become slower may be slower still: until a probe has said how much, no queue is believed.
        self.suspicious = moved && !eased;
        self.steps = if eased { 2 } else { 1 };
        // A queue that nobody knew of, or a slower service: there may be more of it.
        self.plan_probe(if moved { 1.0 } else { ROUTINE }, seen, now);
        self.settle(After::Follow);
    }

    fn follow(&mut self, window: &Window, mut seen: Seen, now: Instant) {
        let Some(Base { low: base, .. }) = self.base else { return self.learn(&seen, 1.0) };
        let enough = is_enough(window);
        if !enough {
            // A probe was due before more was seen.
            seen = self.seen.unwrap_or(seen);
        }
        let queue = self.queue(&seen);
        let target = self.target();
        if !window.limited {
            if queue <= 2.0 * target {
                match &mut self.base {
                    Some(known) if seen.low >= base => known.creep(seen.low, seen.samples),
                    _ => self.learn(&seen, 0.2),
                }
                (self.probe_at, self.suspicious, self.steps) = (None, false, 1);
                return;
            }
            // Nobody found the limit, and yet there is a queue: the limit is what was in flight.
            if enough {
                self.set(self.limit.min(f64::from(window.in_flight)));
            }
        }
        if enough && seen.low < base {
            self.learn(&Seen { samples: seen.samples.min(60.0), ..seen }, 0.1);
        }
        self.seen = Some(seen);
        if queue > 2.0 * target && !self.suspicious && self.steps < 2 {
            self.suspicious = true;
            self.steps = 0;
            self.plan_probe(1.0, &seen, now);
            self.set((self.limit - queue + target).max(0.7 * self.limit));
            return self.settle(After::Follow);
        }
        match self.probe_at {
            None => self.plan_probe(ROUTINE, &seen, now),
            Some(at) if now >= at => {
                let cut = (0.75 * (self.limit - queue).max(0.7 * self.limit)).round().max(1.0);
                if cut < self.limit.round() {
                    self.set(cut);
                    return self.settle(After::Probe(seen));
                }
                self.suspicious = false;
                self.plan_probe(ROUTINE, &seen, now);
            }
            Some(_) => {}
        }
        if !enough {
            return;
        }
        if queue > 2.0 * target {
            if !self.suspicious {
                self.set((self.limit - queue + target).max(0.7 * self.limit));
                self.steps = 2;
                self.settle(After::Follow);
            }
        } else if queue < 0.25 * target {
            let more = (GROWTH[self.steps.min(GROWTH.len() - 1)] * self.limit).max(1.0);
            if more > 0.1 * self.limit {
                self.settle(After::Follow);
            }
            self.set(self.limit + more);
            self.suspicious = false;
            self.steps += 1;
        } else {
            self.set(self.limit + 0.5 * (target - queue));
            self.steps = 0;
        }
    }
}

impl Limit for Adaptive {
    fn limit(&self) -> u32 {
        self.limit.round() as u32
    }

    fn span(&self) -> Span {
        const HALF: Duration = Duration::from_millis(500);
        let trips = |n: f64| Duration::try_from_secs_f64(n * self.seen.map_or(0.01, |seen| seen.mean)).unwrap_or(LONG);
        let limit = self.limit();
        match self.phase {
            Phase::Start(_) => {
                Span { looks: [(limit.max(ENOUGH), trips(1.0)), (ENOUGH, HALF), (FEW, LONG)], until: None }
            }
            Phase::Settle(_) => Span { looks: [(limit.max(FEW), trips(1.0)), (FEW, HALF), (1, LONG)], until: None },
            Phase::Probe(_) => {
                // Slow calls are few: they have ten round trips, so that chance does not decide.
                let while_few = trips(10.0).clamp(Duration::from_millis(400), LONG);
                Span { looks: [(150, trips(4.0)), (ENOUGH, while_few), (FEW, LONG)], until: None }
            }
            Phase::Follow => {
                // A low limit tells its queue by fewer calls: the error is in calls, and few are in flight.
                let (per_call, most) = if self.steps > 0 || self.suspicious { (5, 100) } else { (12, 250) };
                let calls = limit.saturating_mul(per_call).clamp(30, most);
                Span { looks: [(calls, trips(4.0)), (ENOUGH, HALF), (FEW, LONG)], until: self.probe_at }
            }
        }
    }

    fn observe(&mut self, window: &Window) {
        let (Some(mean), length) = (window.mean(), window.length().as_secs_f64()) else { return };
        if length <= 0.0 {
            return;
        }
        // Streams are timed at their heads, and end much later.
        let ended = window.completed.max(u64::from(window.samples)).max(1);
        let answered = ended.saturating_sub(u64::from(window.timed_out) + u64::from(window.overloads));
        let seen = Seen {
            limit: self.limit,
            rate: answered as f64 / length,
            low: window.low.as_secs_f64(),
            mean: mean.as_secs_f64(),
            samples: f64::from(window.samples),
        };
        let of_all = |n: u32| f64::from(n) / ended as f64;
        let now = window.end;
        match std::mem::replace(&mut self.phase, Phase::Follow) {
            Phase::Settle(After::Follow) => {}
            Phase::Settle(After::Probe(was)) => self.phase = Phase::Probe(was),
            _ if of_all(window.overloads) > 0.02 => {
                self.set(self.limit * (1.0 - of_all(window.overloads)).max(0.7));
                self.steps = 0;
                self.settle(After::Follow);
            }
            _ if of_all(window.timed_out) > 0.1 => {
                if window.limited {
                    self.set(self.limit * 0.7);
                    self.steps = 1;
                    self.settle(After::Follow);
                }
            }
            Phase::Start(before) => self.start(&seen, before, window.limited, now),
            Phase::Probe(was) => self.probed(&was, &seen, now),
            Phase::Follow => self.follow(window, seen, now),
        }
        self.seen = Some(seen).filter(|_| is_enough(window)).or(self.seen).or(Some(seen));
    }

    fn name(&self) -> &'static str {
        "adaptive"
    }

    fn base(&self) -> Option<Duration> {
        self.base.and_then(|base| Duration::try_from_secs_f64(base.low).ok())
    }
}
