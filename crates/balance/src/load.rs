//! How busy and how slow one endpoint is, in a few words that every thread may write.

use crate::BalanceConfig;
use buttress_core::{
    Origin,
    sync::{
        AtomicU32, AtomicU64,
        Ordering::{AcqRel, Relaxed},
    },
};

/// What all endpoints of a balancer go by. Written by an update, read by every call.
#[derive(Debug)]
pub(crate) struct Tuning {
    pub(crate) origin: Origin,
    /// The last moment that anybody read, to within a millisecond.
    recent: AtomicU64,
    /// 1 / the time constant, per tick. The bits of an `f32`, as those of the penalty.
    rate: AtomicU32,
    /// Nanoseconds, as the two below.
    penalty: AtomicU32,
    overload: AtomicU64,
    max_overload: AtomicU64,
}

impl Tuning {
    pub(crate) fn new(origin: Origin, config: &BalanceConfig) -> Self {
        let tuning = Self {
            origin,
            recent: AtomicU64::new(0),
            rate: AtomicU32::new(0),
            penalty: AtomicU32::new(0),
            overload: AtomicU64::new(0),
            max_overload: AtomicU64::new(0),
        };
        tuning.set(config);
        tuning
    }

    pub(crate) fn set(&self, config: &BalanceConfig) {
        self.rate.store((TICK as f32 / config.decay.as_nanos() as f32).to_bits(), Relaxed);
        self.penalty.store((config.penalty.as_nanos() as f32).to_bits(), Relaxed);
        // An hour at most.
        self.overload.store(config.overload.as_nanos() as u64, Relaxed);
        self.max_overload.store(config.max_overload.as_nanos() as u64, Relaxed);
    }

    /// The time constant, in nanoseconds.
    fn decay(&self) -> f32 {
        TICK as f32 / f32::from_bits(self.rate.load(Relaxed))
    }

    /// What is left of a value after so many ticks.
    #[inline]
    fn keep(&self, ticks: u64) -> f32 {
        let spans = ticks as f32 * f32::from_bits(self.rate.load(Relaxed));
        // e^-x to within a thousandth, without a call: most reads come soon after the last sample.
        if spans < 0.06 { 1.0 - spans * (1.0 - spans * 0.5) } else { (-spans).exp() }
    }

    /// The last moment that anybody read.
    #[inline]
    pub(crate) fn recent(&self) -> u64 {
        self.recent.load(Relaxed)
    }

    /// Somebody read the clock. All calls read this word, so it is seldom written.
    #[inline]
    pub(crate) fn saw(&self, now: u64) {
        if now > self.recent() + MILLI {
            self.recent.store(now, Relaxed);
        }
    }

    #[inline]
    pub(crate) fn penalty(&self) -> f32 {
        f32::from_bits(self.penalty.load(Relaxed))
    }
}

const MILLI: u64 = 1_000_000;

/// The average's clock: 2^14 ns.
const TICK_BITS: u32 = 14;
const TICK: u64 = 1 << TICK_BITS;
/// Latencies below are not told apart, and a value decays no further: then the calls in flight decide.
const FLOOR: f32 = 1_000.0;

/// `[ stamp 34, in ticks | streak 2 | value 28 ]`; 0: nothing seen yet.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Average {
    stamp: u64,
    /// Failures in a row, at most [`STREAK`].
    streak: u64,
    /// Nanoseconds; at least [`FLOOR`].
    value: f32,
}

const STAMP_BITS: u32 = 34;
const STAMP_MASK: u64 = (1 << STAMP_BITS) - 1;
const VALUE_BITS: u32 = 28;
/// So many failures in a row are no accident: the average jumps to what failures cost, and the endpoint is failing.
const STREAK: u64 = 3;
/// A failing endpoint is tried again after as long as it has been failing, in time constants at least and at most this: a
/// moment's trouble costs a moment, and one that is down for long costs one call in a long time.
const REST: (f32, f32) = (0.1, 2.0);

impl Average {
    fn of(word: u64) -> Option<Self> {
        // The value is an `f32` without its sign and its last three bits.
        let value = f32::from_bits(((word & ((1 << VALUE_BITS) - 1)) << 3) as u32);
        (word != 0).then_some(Self { stamp: word >> (VALUE_BITS + 2), streak: word >> VALUE_BITS & 3, value })
    }

    fn word(self) -> u64 {
        let value = u64::from(self.value.max(FLOOR).to_bits() + 4) >> 3;
        (self.stamp & STAMP_MASK) << (VALUE_BITS + 2) | self.streak << VALUE_BITS | value
    }

    /// What is left of it.
    #[inline]
    fn now(self, tick: u64, tuning: &Tuning) -> f32 {
        (self.value * tuning.keep(self.age(tick))).max(FLOOR)
    }

    /// Ticks since the last sample; none where clocks disagree. The stamp comes round after 78 hours: an endpoint that was not
    /// picked for so long has decayed to the floor before.
    #[inline]
    fn age(self, tick: u64) -> u64 {
        let age = tick.wrapping_sub(self.stamp) & STAMP_MASK;
        if age > STAMP_MASK / 2 { 0 } else { age }
    }
}

/// What a sample says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sample {
    /// It answered.
    Success,
    /// It failed.
    Failure,
    /// It took at least this long: given up, or refused.
    AtLeast,
}

/// One endpoint's load. Times are nanoseconds since the balancer's origin.
#[derive(Debug)]
pub(crate) struct Load {
    /// `[ picks 40 | calls in flight 24 ]`: an admission is one addition.
    calls: AtomicU64,
    average: AtomicU64,
    /// Until when it is overloaded.
    overload: AtomicU64,
    /// Calls that wait for it to become ready.
    parked: AtomicU32,
    /// 1: a layer at the endpoint refused a call, until [`Tally::refuses_until`].
    refuses: AtomicU32,
    /// Apart, as calls that succeed do not need it: so all that a pick reads of an endpoint is one cache line.
    tally: Box<Tally>,
}

#[derive(Debug)]
struct Tally {
    failures: AtomicU64,
    skipped: AtomicU64,
    /// The last failure.
    failed: AtomicU64,
    /// Since when it is failing.
    failing_since: AtomicU64,
    /// The last call to see whether it works again.
    trial: AtomicU64,
    refuses_until: AtomicU64,
}

/// Which choice an endpoint is, whatever its load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Good,
    /// It was failing, and has had its rest: one call may see.
    Rested,
    /// It fails, or refuses: no load of others makes it the better one.
    Last,
}

const FLIGHT_BITS: u32 = 24;
const FLIGHT_MASK: u64 = (1 << FLIGHT_BITS) - 1;

impl Load {
    pub(crate) fn new() -> Self {
        Self {
            calls: AtomicU64::new(0),
            average: AtomicU64::new(0),
            overload: AtomicU64::new(0),
            parked: AtomicU32::new(0),
            refuses: AtomicU32::new(0),
            tally: Box::new(Tally {
                failures: AtomicU64::new(0),
                skipped: AtomicU64::new(0),
                failed: AtomicU64::new(0),
                failing_since: AtomicU64::new(0),
                trial: AtomicU64::new(0),
                refuses_until: AtomicU64::new(0),
            }),
        }
    }

    /// A call begins.
    #[inline]
    pub(crate) fn enter(&self) {
        self.calls.fetch_add(1 << FLIGHT_BITS | 1, AcqRel);
    }

    /// A call is at its real end.
    #[inline]
    pub(crate) fn leave(&self) {
        self.calls.fetch_sub(1, AcqRel);
    }

    pub(crate) fn park(&self) {
        self.parked.fetch_add(1, AcqRel);
    }

    pub(crate) fn unpark(&self) {
        self.parked.fetch_sub(1, AcqRel);
    }

    /// It was drawn and passed over.
    pub(crate) fn skip(&self) {
        self.tally.skipped.fetch_add(1, Relaxed);
    }

    #[inline]
    pub(crate) fn in_flight(&self) -> u64 {
        self.calls.load(Relaxed) & FLIGHT_MASK
    }

    pub(crate) fn parked(&self) -> u32 {
        self.parked.load(Relaxed)
    }

    pub(crate) fn picks(&self) -> u64 {
        self.calls.load(Relaxed) >> FLIGHT_BITS
    }

    pub(crate) fn failures(&self) -> u64 {
        self.tally.failures.load(Relaxed)
    }

    pub(crate) fn skipped(&self) -> u64 {
        self.tally.skipped.load(Relaxed)
    }

    /// The peak-EWMA of its latency, in nanoseconds, failures included at what they cost; `None`: nothing seen yet.
    #[inline]
    pub(crate) fn average(&self, now: u64, tuning: &Tuning) -> Option<f32> {
        Some(Average::of(self.average.load(Relaxed))?.now(now >> TICK_BITS, tuning))
    }

    pub(crate) fn is_overloaded(&self, now: u64) -> bool {
        now < self.overload.load(Relaxed)
    }

    /// Calls in flight, and those that wait.
    #[inline]
    pub(crate) fn calls(&self) -> u64 {
        self.in_flight() + u64::from(self.parked.load(Relaxed))
    }

    /// Whether its [standing](Self::standing) may be bad.
    #[inline]
    pub(crate) fn is_suspect(&self) -> bool {
        self.is_failing() || self.refuses.load(Relaxed) != 0
    }

    /// Whether it failed again and again, and has not worked since.
    #[inline]
    pub(crate) fn is_failing(&self) -> bool {
        self.average.load(Relaxed) >> VALUE_BITS & STREAK == STREAK
    }

    /// By load alone, an endpoint that fails at once would be better than those that are busy. `now` is exact.
    #[cold]
    pub(crate) fn standing(&self, now: u64, tuning: &Tuning) -> Standing {
        if self.refuses.load(Relaxed) != 0 {
            if now < self.tally.refuses_until.load(Relaxed) {
                return Standing::Last;
            }
            self.refuses.store(0, Relaxed);
        }
        match self.is_failing() {
            false => Standing::Good,
            true if now < self.next_trial(tuning) => Standing::Last,
            true => Standing::Rested,
        }
    }

    /// When a failing endpoint has had its rest.
    pub(crate) fn next_trial(&self, tuning: &Tuning) -> u64 {
        let tally = &*self.tally;
        let last = tally.failed.load(Relaxed).max(self.last_trial());
        let failing = last.saturating_sub(tally.failing_since.load(Relaxed));
        let span = |spans: f32| (spans * tuning.decay()) as u64;
        last.saturating_add(failing.clamp(span(REST.0), span(REST.1)))
    }

    pub(crate) fn last_trial(&self) -> u64 {
        self.tally.trial.load(Relaxed)
    }

    /// A call goes there to see whether it works, the first one after that at `last`; false: another one does.
    pub(crate) fn begin_trial(&self, last: u64, now: u64) -> bool {
        self.tally.trial.compare_exchange(last, now, Relaxed, Relaxed).is_ok()
    }

    /// A layer at the endpoint refused a call, and said until when. One that is closed sooner must not be passed over for long.
    #[cold]
    pub(crate) fn refused(&self, now: u64, wait: Option<u64>, tuning: &Tuning) {
        let overload = tuning.overload.load(Relaxed);
        self.tally.refuses_until.fetch_max(now.saturating_add(wait.unwrap_or(u64::MAX).min(overload)), Relaxed);
        self.refuses.store(1, Relaxed);
    }

    /// What a further call would have to expect, in nanoseconds: latency x (calls in flight + 1). The latency is rounded down to a
    /// power of two: averages are not that exact, and whoever is a little faster would get every call of a quiet client.
    ///
    /// An endpoint that nothing is known of is tried at once, by one call; until that is answered it counts as failing, as in
    /// Finagle.
    #[inline]
    pub(crate) fn load(&self, now: u64, tuning: &Tuning, limited: bool) -> f32 {
        let calls = self.calls() as f32;
        let tick = now >> TICK_BITS;
        let latency = match Average::of(self.average.load(Relaxed)) {
            Some(seen) => power_of_two(seen.now(tick, tuning)),
            None if calls == 0.0 => power_of_two(FLOOR),
            None => tuning.penalty(),
        };
        let busy = if limited || self.is_overloaded(now) { tuning.penalty() } else { 0.0 };
        (latency + busy) * (calls + 1.0)
    }

    /// A call that began at `began` ended at `now`; its latency was `latency` nanoseconds.
    ///
    /// A latency above the average raises it at once (the peak), one below moves it by the share of the time constant that has
    /// passed since the last sample. What a failure costs is averaged, so that the odd one shows as the odd one; with the
    /// third in a row it counts at once. The first success of a call that began after the last of such a row lifts it: one that began
    /// before says what the endpoint was.
    #[inline]
    pub(crate) fn sample(&self, now: u64, began: u64, latency: u64, sample: Sample, tuning: &Tuning) {
        if sample == Sample::Failure {
            self.tally.failures.fetch_add(1, Relaxed);
            self.tally.failed.fetch_max(now, Relaxed);
        }
        let (tick, latency) = (now >> TICK_BITS, (latency as f32).max(FLOOR));
        let word = self.average.load(Relaxed);
        if sample == Sample::Success && adds_nothing(word, tick, latency) {
            return;
        }
        if self.blend(word, tick, began, latency, sample, tuning) {
            self.tally.failing_since.store(now, Relaxed);
        }
    }

    /// Whether it is failing from now on.
    #[inline(never)]
    fn blend(&self, mut word: u64, tick: u64, began: u64, latency: f32, sample: Sample, tuning: &Tuning) -> bool {
        loop {
            let (next, turns) = match Average::of(word) {
                Some(seen) => {
                    let lifts = seen.streak < STREAK || began >= self.tally.failed.load(Relaxed);
                    let next = next(seen, tick, latency, sample, lifts, tuning);
                    (next, seen.streak < STREAK && next.is_some_and(|next| next.streak == STREAK))
                }
                None => {
                    let first = first(tick, latency, sample, tuning);
                    (first, first.is_some_and(|first| first.streak == STREAK))
                }
            };
            let next = next.map_or(word, Average::word);
            if next == word {
                return turns;
            }
            match self.average.compare_exchange_weak(word, next, Relaxed, Relaxed) {
                Ok(_) => return turns,
                Err(seen) => word = seen,
            }
        }
    }

    /// It said "too much", and to come back after `pushback`; `u64::MAX`: never. At once is no answer of one that refuses: then
    /// it would weigh nothing, however much it fails.
    pub(crate) fn overloaded(&self, now: u64, pushback: Option<u64>, tuning: &Tuning) {
        let span = pushback.unwrap_or(0).max(tuning.overload.load(Relaxed));
        let until = now.saturating_add(span.min(tuning.max_overload.load(Relaxed)));
        self.overload.fetch_max(until, Relaxed);
    }
}

/// Nanoseconds without all that is behind the first binary digit.
#[inline]
fn power_of_two(nanos: f32) -> f32 {
    f32::from_bits(nanos.to_bits() & 0x7f80_0000)
}

/// A success of the same tick that is no peak: at high rates most are.
#[inline]
fn adds_nothing(word: u64, tick: u64, latency: f32) -> bool {
    word >> VALUE_BITS == (tick & STAMP_MASK) << 2 && Average::of(word).is_some_and(|seen| latency <= seen.value)
}

fn first(tick: u64, latency: f32, sample: Sample, tuning: &Tuning) -> Option<Average> {
    let new = |streak, value: f32| Some(Average { stamp: tick & STAMP_MASK, streak, value });
    match sample {
        Sample::Success => new(0, latency),
        // It has never worked: until it has, one is enough.
        Sample::Failure => new(STREAK, latency.max(tuning.penalty())),
        // Nothing to compare it with.
        Sample::AtLeast if latency <= FLOOR => None,
        Sample::AtLeast => new(0, latency),
    }
}

/// `lifts`: a success ends the streak.
fn next(seen: Average, tick: u64, latency: f32, sample: Sample, lifts: bool, tuning: &Tuning) -> Option<Average> {
    let age = seen.age(tick);
    let keep = tuning.keep(age);
    let decayed = seen.value * keep;
    let blended = |with: f32| decayed + with * (1.0 - keep);
    // A stamp never goes back.
    let new = |streak, value| Some(Average { stamp: seen.stamp.wrapping_add(age) & STAMP_MASK, streak, value });
    match sample {
        Sample::Success if !lifts => new(seen.streak, blended(latency).max(latency)),
        Sample::Success if seen.streak == STREAK => new(0, latency),
        Sample::Success => new(0, blended(latency).max(latency)),
        Sample::Failure => {
            let (cost, streak) = (latency.max(tuning.penalty()), (seen.streak + 1).min(STREAK));
            new(streak, if streak == STREAK { cost.max(decayed) } else { blended(cost).max(latency) })
        }
        Sample::AtLeast if latency <= decayed.max(FLOOR) => None,
        Sample::AtLeast => new(seen.streak, latency),
    }
}
