//! What is seen of calls between two looks, and the look itself.
//!
//! A timed call that ends adds to a handful of words; whichever crosses the [span](crate::limit::Span) shows the algorithm a
//! [`Window`] of them and publishes what it says. Nobody waits for that: who finds the algorithm busy goes on.

use crate::limit::{Limit, Window};
use buttress_core::{
    Origin,
    sync::{
        AtomicBool, AtomicU32, AtomicU64, Mutex, MutexGuard,
        Ordering::{AcqRel, Relaxed},
        lock,
    },
};
use std::{
    fmt,
    sync::TryLockError,
    time::{Duration, Instant},
};

/// Nanoseconds in a unit of a sum.
const UNIT: u64 = 16;
// The sum of a window's samples: [ samples 20 | units 44 ].
const SUM: u32 = 44;
const SUM_MASK: u64 = (1 << SUM) - 1;
/// So many samples are kept one by one, for their quantiles.
const TIMES: usize = if cfg!(buttress_loom) { 4 } else { 256 }; // loom counts each load
/// In place of the time of one that was cut off.
const CUT_OFF: u32 = u32::MAX;
/// The most units that one sample counts for: 18 minutes.
const LONGEST: u64 = 1 << 36;
/// A window that is half full is over, whatever its span: then a hundred threads at once cannot make the sum overflow.
const HALF_SAMPLES: u64 = 1 << 19;
const HALF_SUM: u64 = 1 << 43;

/// Nobody times calls more rarely than one in so many.
const RAREST: u32 = 10;
/// Fewer calls a second than that are all timed.
const ALL_TIMED: u64 = 2_500;
/// A window that lasts longer times every call from there on.
const LONG: u64 = 500_000_000;

/// How a timed call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Its time is the time it takes.
    Whole,
    /// It was cut off, and would have taken longer.
    Cut,
    /// The same, by a deadline of ours.
    TimedOut,
}

/// What was decided when a window ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Closed {
    /// The limit changed.
    pub(crate) changed: bool,
    pub(crate) limit: u32,
    /// The limit that was told of last, where a change is worth telling of now.
    pub(crate) tell: Option<u32>,
    pub(crate) limited: bool,
    pub(crate) in_flight: u32,
}

pub(crate) struct Meter {
    tally: Tally,
    plan: Plan,
    origin: Origin,
    controller: Mutex<Controller>,
}

/// Written by calls that are timed.
#[repr(align(128))]
struct Tally {
    sum: AtomicU64,
    /// The latest samples, in units; a sample's place is its number.
    times: [AtomicU32; TIMES],
    shortest: AtomicU64,
    in_flight: AtomicU32,
    // Totals; a window's are the difference to those of the one before.
    cut: AtomicU64,
    timed_out: AtomicU64,
    overloads: AtomicU64,
}

/// Written when a window ends, and read by calls.
#[repr(align(128))]
struct Plan {
    /// A call is timed if its hash is not above this.
    timed: AtomicU64,
    start: AtomicU64,
    /// The window is over with so many timed calls, from a moment on.
    looks: [Look; 3],
    until: AtomicU64,
    /// Nanoseconds; 0: nobody knows.
    mean: AtomicU64,
    typical: AtomicU64,
    pace: AtomicU64,
    limit: AtomicU32,
    limited: AtomicBool,
}

#[derive(Default)]
struct Look {
    calls: AtomicU32,
    from: AtomicU64,
}

struct Controller {
    limit: Box<dyn Limit>,
    seen: Totals,
    /// What was told of last, and when.
    told: (u32, u64),
}

#[derive(Clone, Copy, Default)]
struct Totals {
    completed: u64,
    cut: u64,
    timed_out: u64,
    overloads: u64,
}

impl Meter {
    pub(crate) fn new(limit: Box<dyn Limit>, now: Instant) -> Self {
        let zero = || AtomicU64::new(0);
        let meter = Self {
            tally: Tally {
                sum: zero(),
                times: std::array::from_fn(|_| AtomicU32::new(0)),
                shortest: AtomicU64::new(u64::MAX),
                in_flight: AtomicU32::new(0),
                cut: zero(),
                timed_out: zero(),
                overloads: zero(),
            },
            plan: Plan {
                timed: AtomicU64::new(u64::MAX),
                start: zero(),
                looks: std::array::from_fn(|_| Look::default()),
                until: zero(),
                mean: zero(),
                typical: zero(),
                pace: zero(),
                limit: AtomicU32::new(0),
                limited: AtomicBool::new(false),
            },
            origin: Origin::new(now),
            controller: Mutex::new(Controller { told: (limit.limit(), 0), limit, seen: Totals::default() }),
        };
        meter.plan(&lock(&meter.controller), 0);
        meter
    }

    #[inline]
    pub(crate) fn nanos(&self, now: Instant) -> u64 {
        self.origin.nanos(now)
    }

    pub(crate) fn at(&self, nanos: u64) -> Instant {
        self.origin.at(nanos)
    }

    /// Whether the `count`th call is timed.
    ///
    /// By its hash (Fibonacci hashing): spread evenly, and in step with no pattern of calls.
    #[inline]
    pub(crate) fn times(&self, count: u64) -> bool {
        count.wrapping_mul(0x9e37_79b9_7f4a_7c15) <= self.plan.timed.load(Relaxed)
    }

    /// One call in this many is timed.
    pub(crate) fn one_in(&self) -> u64 {
        1 << self.plan.timed.load(Relaxed).leading_zeros()
    }

    /// Whether a call that failed, or was given up, took long enough for that to say something of the load.
    pub(crate) fn is_slow(&self, nanos: u64) -> bool {
        let typical = self.typical();
        typical > 0 && nanos >= typical / 2
    }

    /// The mean time of the last window that had any, in nanoseconds; 0: there was none.
    pub(crate) fn mean(&self) -> u64 {
        self.plan.mean.load(Relaxed)
    }

    /// What a call usually takes, whatever a few do: the same.
    #[inline]
    pub(crate) fn typical(&self) -> u64 {
        self.plan.typical.load(Relaxed)
    }

    /// The mean time between two ends of calls.
    pub(crate) fn pace(&self) -> Option<u64> {
        Some(self.plan.pace.load(Relaxed)).filter(|pace| *pace > 0)
    }

    /// What the algorithm said last.
    pub(crate) fn limit(&self) -> u32 {
        self.plan.limit.load(Relaxed)
    }

    pub(crate) fn algorithm(&self) -> (&'static str, Option<Duration>) {
        let controller = lock(&self.controller);
        (controller.limit.name(), controller.limit.base())
    }

    /// A call found no room.
    #[inline]
    pub(crate) fn found_no_room(&self) {
        if !self.plan.limited.load(Relaxed) {
            self.plan.limited.store(true, Relaxed);
        }
    }

    #[cold]
    pub(crate) fn overload(&self) {
        self.tally.overloads.fetch_add(1, Relaxed);
    }

    /// A timed call has ended, with so many in flight. Whether that ends the window.
    pub(crate) fn add(&self, nanos: u64, end: End, in_flight: u32, now: u64) -> bool {
        let tally = &self.tally;
        // Before the sample: a window that has the sample has this.
        match end {
            End::Whole => {}
            End::Cut => {
                tally.cut.fetch_add(1, Relaxed);
            }
            End::TimedOut => {
                tally.timed_out.fetch_add(1, Relaxed);
            }
        }
        if nanos < tally.shortest.load(Relaxed) {
            fetch_min(&tally.shortest, nanos);
        }
        self.saw(in_flight);
        let units = (nanos / UNIT).min(LONGEST);
        let sample = 1 << SUM | units;
        let before = tally.sum.fetch_add(sample, AcqRel);
        let place = if end == End::Whole { units.min(u64::from(CUT_OFF) - 1) as u32 } else { CUT_OFF };
        // One that was cut off is no fast one. A window that ends between these two has an older time in this place: a quantile does not mind.
        tally.times[(before >> SUM) as usize % TIMES].store(place, Relaxed);
        self.is_over_at(before + sample, now)
    }

    /// So many calls are in flight, and one ends.
    pub(crate) fn saw(&self, in_flight: u32) {
        let mut most = self.tally.in_flight.load(Relaxed);
        while in_flight > most {
            match self.tally.in_flight.compare_exchange_weak(most, in_flight, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(seen) => most = seen,
            }
        }
    }

    /// Whether the window is over by now. Where one lasts, times every call.
    pub(crate) fn is_over(&self, now: u64) -> bool {
        if self.plan.timed.load(Relaxed) != u64::MAX && now.saturating_sub(self.plan.start.load(Relaxed)) > LONG {
            self.plan.timed.store(u64::MAX, Relaxed);
        }
        self.is_over_at(self.tally.sum.load(Relaxed), now)
    }

    fn is_over_at(&self, sum: u64, now: u64) -> bool {
        let (plan, samples) = (&self.plan, sum >> SUM);
        let over = |look: &Look| samples >= u64::from(look.calls.load(Relaxed)) && now >= look.from.load(Relaxed);
        plan.looks.iter().any(over)
            || now >= plan.until.load(Relaxed)
            || samples >= HALF_SAMPLES
            || sum & SUM_MASK >= HALF_SUM
    }

    /// Shows the algorithm a window that is over. `None`: somebody else does, or did.
    #[cold]
    pub(crate) fn close(&self, now: u64, completed: impl FnOnce() -> u64) -> Option<Closed> {
        let mut controller = try_lock(&self.controller)?;
        if !self.is_over(now) {
            return None;
        }
        let start = self.plan.start.load(Relaxed);
        // A clock that stepped back has not moved.
        let now = now.max(start);
        let window = self.take(&mut controller.seen, start, now, completed());
        let before = self.limit();
        controller.limit.observe(&window);
        self.learn(&window);
        self.plan(&controller, now);
        let limit = controller.limit.limit();
        let tell = tell(&mut controller.told, limit, now);
        let (limited, in_flight) = (window.limited, window.in_flight);
        Some(Closed { changed: limit != before, limit, tell, limited, in_flight })
    }

    /// Begins anew, with another algorithm if there is one. What was seen of the present window is forgotten.
    pub(crate) fn restart(&self, limit: Option<Box<dyn Limit>>, now: u64, completed: u64) {
        let mut controller = lock(&self.controller);
        let now = now.max(self.plan.start.load(Relaxed));
        if let Some(limit) = limit {
            controller.limit = limit;
        }
        self.take(&mut controller.seen, now, now, completed);
        self.plan(&controller, now);
    }

    /// The present window; the next one begins.
    fn take(&self, seen: &mut Totals, start: u64, now: u64, completed: u64) -> Window {
        let tally = &self.tally;
        let sum = tally.sum.swap(0, AcqRel);
        let samples = (sum >> SUM) as u32;
        let shortest = tally.shortest.swap(u64::MAX, Relaxed);
        let more = |total: &AtomicU64, seen: &mut u64, most: u64| {
            // What belongs to a sample that is not there yet is left for the window that has it.
            let n = total.load(Relaxed).wrapping_sub(*seen).min(most);
            *seen += n;
            n as u32
        };
        let timed_out = more(&tally.timed_out, &mut seen.timed_out, samples.into());
        let cut = more(&tally.cut, &mut seen.cut, u64::from(samples - timed_out));
        let overloads = more(&tally.overloads, &mut seen.overloads, u32::MAX.into());
        let ended = completed.saturating_sub(seen.completed);
        seen.completed = seen.completed.max(completed);
        let total = Duration::from_nanos((sum & SUM_MASK) * UNIT);
        let quantiles = self.quantiles(samples as usize);
        // The latest were all cut off: what was answered before them says nothing of now.
        let cut = if quantiles.is_some() { cut } else { samples - timed_out };
        let (low, typical) = quantiles.unwrap_or_default();
        Window {
            completed: ended,
            samples,
            total,
            shortest: if samples > 0 && shortest != u64::MAX { Duration::from_nanos(shortest) } else { Duration::ZERO },
            low,
            typical,
            censored: cut + timed_out,
            timed_out,
            overloads,
            in_flight: tally.in_flight.swap(0, Relaxed),
            limited: self.plan.limited.swap(false, Relaxed),
            ..Window::empty(self.at(start), self.at(now))
        }
    }

    /// Of those of the latest samples that were not cut off: their first decile, and the mean of their fastest four fifths.
    fn quantiles(&self, samples: usize) -> Option<(Duration, Duration)> {
        let time = |units: u64| Duration::from_nanos(units * UNIT);
        let mut times = [0; TIMES];
        let mut n = 0;
        for seen in self.tally.times.iter().take(samples) {
            times[n] = seen.load(Relaxed);
            n += usize::from(times[n] != CUT_OFF);
        }
        let times = &mut times[..n];
        let last = (n * 4).div_ceil(5).checked_sub(1)?;
        let (fast, &mut slowest, _) = times.select_nth_unstable(last);
        let sum = fast.iter().map(|&units| u64::from(units)).sum::<u64>() + u64::from(slowest);
        let (_, &mut low, _) = times[..=last].select_nth_unstable((n - 1) / 10);
        Some((time(low.into()), time(sum / (last as u64 + 1))))
    }

    /// What later calls and those who wait should know of it.
    fn learn(&self, window: &Window) {
        if let Some(mean) = window.mean() {
            self.plan.mean.store(mean.as_nanos() as u64, Relaxed);
        }
        if window.answered() > 0 {
            self.plan.typical.store(window.typical.as_nanos() as u64, Relaxed);
        }
        let length = window.length().as_nanos() as u64;
        if length == 0 {
            return;
        }
        if let Some(pace) = length.checked_div(window.completed) {
            self.plan.pace.store(pace.max(1), Relaxed);
        }
        let rate = (u128::from(window.completed) * 1_000_000_000 / u128::from(length)) as u64;
        // A window is to fill in a tenth of a second, or a little more.
        let wanted = (u64::from(self.plan.looks[0].calls.load(Relaxed)) * 10).max(ALL_TIMED);
        let one_in = rate.div_ceil(wanted).max(1).next_power_of_two();
        self.plan.timed.store(u64::MAX >> one_in.ilog2().min(RAREST), Relaxed);
    }

    /// What the algorithm wants next.
    fn plan(&self, controller: &Controller, now: u64) {
        let (plan, span) = (&self.plan, controller.limit.span());
        let after = |wait: Duration| now.saturating_add(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX));
        plan.start.store(now, Relaxed);
        for (look, (calls, old)) in plan.looks.iter().zip(span.looks) {
            look.calls.store(calls.max(u32::from(old.is_zero())), Relaxed);
            // Of no age is at any time, were it before the start: the clock may have stepped back.
            look.from.store(if old.is_zero() { 0 } else { after(old) }, Relaxed);
        }
        plan.until.store(span.until.map_or(u64::MAX, |until| self.nanos(until)), Relaxed);
        plan.limit.store(controller.limit.limit(), Relaxed);
    }
}

/// Changes are told of at most once in ten seconds.
fn tell(told: &mut (u32, u64), limit: u32, now: u64) -> Option<u32> {
    let (from, at) = *told;
    if limit == from || now.saturating_sub(at) < 10_000_000_000 {
        return None;
    }
    *told = (limit, now);
    Some(from)
}

fn fetch_min(word: &AtomicU64, value: u64) {
    let mut seen = word.load(Relaxed);
    while value < seen {
        match word.compare_exchange_weak(seen, value, Relaxed, Relaxed) {
            Ok(_) => return,
            Err(now) => seen = now,
        }
    }
}

fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meter").field("limit", &self.limit()).field("one_in", &self.one_in()).finish_non_exhaustive()
    }
}
