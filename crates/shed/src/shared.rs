//! What every service, clone and call of a shedder shares.

use crate::{
    Ask, ShedConfig,
    limit::Limit,
    line::{self, CLASSES, LineMode, Why, class},
    meter::{End, Meter},
    permit::ShedPermit,
    waiters::{Moment, Waiters},
    waiting::Waiting,
};
use buttress_core::{
    Admission, Clock, Draw, Lease, Mode, ModeCell, Priority, Reason, Rejection, Release, Signal, Striped,
    permits::{Joined, Permits},
    sync::{AtomicBool, AtomicU32, AtomicU64, Mutex, Ordering::Relaxed, lock},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// The target of events, as the facade names the crate.
pub(crate) const TARGET: &str = "buttress::shed";
/// The name of this layer in refusals.
pub(crate) const LAYER: &str = "shed";

pub(crate) struct Shared {
    pub(crate) permits: Permits<Waiters, Counts>,
    pub(crate) meter: Meter,
    pub(crate) mode: ModeCell,
    /// Whether anybody may wait.
    queued: AtomicBool,
    release_at_head: AtomicBool,
    pub(crate) signal: Signal,
    /// Calls in flight without a permit.
    pub(crate) over_limit: AtomicU32,
    pub(crate) over_limit_total: AtomicU64,
    pub(crate) seed: u64,
    pub(crate) config: Mutex<ShedConfig>,
    /// Whether the config was updated.
    pub(crate) changed: AtomicBool,
}

/// What a stripe counts, on the line of its permits.
#[derive(Default)]
pub(crate) struct Counts {
    /// Calls that had a permit and gave it back.
    pub(crate) completed: AtomicU64,
    /// By class, and by cause.
    pub(crate) shed: [[AtomicU64; Cause::ALL.len()]; CLASSES],
}

/// Why a call was shed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    Full,
    PushedOut,
    TooLate,
    Waited,
    /// Its deadline had passed when it came.
    Deadline,
}

impl Cause {
    pub(crate) const ALL: [(Self, &'static str); 5] = [
        (Self::Full, "full"),
        (Self::PushedOut, "pushed_out"),
        (Self::TooLate, "too_late"),
        (Self::Waited, "waited"),
        (Self::Deadline, "deadline"),
    ];
}

impl From<Why> for Cause {
    fn from(why: Why) -> Self {
        match why {
            Why::Full => Self::Full,
            Why::PushedOut => Self::PushedOut,
            Why::TooLate => Self::TooLate,
            Why::WaitedTooLong => Self::Waited,
        }
    }
}

/// What can be said of an arrival at once.
enum AtOnce {
    Goes(ShedPermit),
    Refused,
    /// There is no room.
    MayWait,
}

impl Shared {
    pub(crate) fn new(config: ShedConfig, limit: Box<dyn Limit>, now: Instant, stripes: usize) -> Self {
        let seed = Draw::seed(config.seed);
        Self {
            permits: Permits::new(limit.limit(), stripes, Waiters::new(config.queue.rules())),
            meter: Meter::new(limit, now),
            mode: ModeCell::new(seed),
            queued: AtomicBool::new(config.queue.max > 0),
            release_at_head: AtomicBool::new(config.release == Release::Head),
            signal: Signal::new(now),
            over_limit: AtomicU32::new(0),
            over_limit_total: AtomicU64::new(0),
            seed,
            config: Mutex::new(config),
            changed: AtomicBool::new(false),
        }
    }

    /// What the config says to calls.
    pub(crate) fn heed(&self, config: &ShedConfig) {
        self.queued.store(config.queue.max > 0, Relaxed);
        self.release_at_head.store(config.release == Release::Head, Relaxed);
        self.permits.with_line(|waiters, _| waiters.line.set_rules(config.queue.rules()));
    }

    #[inline]
    pub(crate) fn releases_at_head(&self) -> bool {
        self.release_at_head.load(Relaxed)
    }

    #[inline]
    pub(crate) fn nanos(&self, clock: &impl Clock) -> u64 {
        self.meter.nanos(clock.now())
    }

    pub(crate) fn moment(&self, now: u64) -> Moment {
        Moment { now, service: self.meter.typical() }
    }

    /// Whether the call that has just been admitted at `home` is timed. As many have been as have ended and are in flight.
    #[inline]
    pub(crate) fn times_next(&self, home: usize) -> bool {
        let ended = self.permits.stripe(home).completed.load(Relaxed);
        self.meter.times(ended.wrapping_add(self.permits.in_flight_of(home).into()))
    }

    pub(crate) fn completed(&self) -> u64 {
        self.permits.stripes().map(|counts| counts.completed.load(Relaxed)).sum()
    }

    /// A permit of the stripe `home` comes back.
    #[inline]
    pub(crate) fn release(&self, home: usize, clock: &impl Clock) {
        self.permits.stripe(home).completed.fetch_add(1, Relaxed);
        self.permits.release(home, || self.moment(self.nanos(clock)));
    }

    /// A timed call has ended. `None`: its time says nothing.
    pub(crate) fn record(&self, end: Option<End>, nanos: u64, now: u64) {
        let over = match end {
            Some(end) => {
                let in_flight = self.permits.in_flight();
                if self.signal.is(Signal::LIMITED) && in_flight < self.meter.limit() / 2 {
                    self.signal.clear(Signal::LIMITED);
                }
                self.meter.add(nanos, end, in_flight, now)
            }
            None => self.meter.is_over(now),
        };
        if over {
            self.close(now);
        }
    }

    /// Who has the time in hand looks whether the window is over, though nothing ends.
    fn look(&self, now: u64) {
        if self.meter.is_over(now) {
            self.close(now);
        }
    }

    #[cold]
    fn close(&self, now: u64) {
        let Some(closed) = self.meter.close(now, || self.completed()) else { return };
        if closed.changed {
            self.follow(now);
        }
        let longest = self.permits.with_line(|waiters, _| waiters.line.oldest_wait(now));
        let full = closed.in_flight as f32 / closed.limit.max(1) as f32;
        let allowed = lock(&self.config).queue.burst_wait.as_nanos() as f32;
        self.signal.set_pressure(full.min(1.0) / 2.0 + (longest as f32 / allowed).min(1.0) / 2.0);
        if !closed.limited && self.signal.is(Signal::LIMITED) {
            self.signal.clear(Signal::LIMITED);
        }
        if let Some(from) = closed.tell {
            let name = lock(&self.config).name.clone();
            tracing::info!(target: TARGET, shed = &*name, from, to = closed.limit, "concurrency limit changed");
        }
    }

    /// The permits follow the algorithm.
    pub(crate) fn follow(&self, now: u64) {
        self.permits.set_limit(|| self.meter.limit(), self.moment(now));
    }

    pub(crate) fn count_pass(&self) {
        self.over_limit.fetch_add(1, Relaxed);
        self.over_limit_total.fetch_add(1, Relaxed);
    }

    /// Says why a call that is no newcomer any more goes without a permit.
    pub(crate) fn turn_away(&self, home: usize, priority: Priority, cause: Cause) -> Rejection {
        let before = self.permits.stripe(home).shed[class(priority)][cause as usize].fetch_add(1, Relaxed);
        let reason = if cause == Cause::Waited { Reason::QueueTimeout } else { Reason::Shed };
        Rejection::new(reason, LAYER).retry_after(self.retry_after(home, before, self.permits.queued()))
    }

    /// When those who wait now will be through, and a second at least; up to a half more, so that not all come back at once.
    fn retry_after(&self, home: usize, number: u64, queued: u32) -> Duration {
        const SECOND: u64 = 1_000_000_000;
        let drained = self.meter.pace().unwrap_or(0).saturating_mul(u64::from(queued) + 1).clamp(SECOND, 30 * SECOND);
        // Drawn by the count of refusals, which is no word that threads share.
        let seed = self.seed ^ (home as u64) << 56;
        let share = Draw::new(seed.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15))).draw() >> 32;
        Duration::from_nanos(drained + ((u128::from(drained / 2) * u128::from(share)) >> 32) as u64)
    }
}

/// Admission, for all that wait and that do not.
pub(crate) trait Admits {
    fn try_acquire_at(&self, clock: &impl Clock) -> Option<ShedPermit>;

    fn enqueue_at(
        &self,
        ask: impl FnOnce() -> Ask,
        clock: &impl Clock,
    ) -> Result<Admission<ShedPermit, Waiting>, Rejection>;

    fn refuse_at(&self, ask: impl FnOnce() -> Ask, clock: &impl Clock) -> Result<ShedPermit, Rejection>;
}

impl Admits for Striped<Shared> {
    /// The way of nearly all calls: there is room, and nobody waits for it.
    #[inline]
    fn try_acquire_at(&self, clock: &impl Clock) -> Option<ShedPermit> {
        let home = self.stripe();
        let shared: &Shared = self;
        (shared.mode.is_auto() && shared.permits.try_acquire(home, || shared.moment(shared.nanos(clock))))
            .then(|| ShedPermit::admitted(self.lease_of(home), clock))
    }

    #[inline]
    fn enqueue_at(
        &self,
        ask: impl FnOnce() -> Ask,
        clock: &impl Clock,
    ) -> Result<Admission<ShedPermit, Waiting>, Rejection> {
        let home = self.stripe();
        let shared: &Shared = self;
        if shared.mode.is_auto() && shared.permits.try_now(home, || shared.moment(shared.nanos(clock))) {
            return Ok(Admission::Now(ShedPermit::admitted(self.lease_of(home), clock)));
        }
        enqueue(self, ask(), clock)
    }

    #[inline]
    fn refuse_at(&self, ask: impl FnOnce() -> Ask, clock: &impl Clock) -> Result<ShedPermit, Rejection> {
        if let Some(permit) = self.try_acquire_at(clock) {
            return Ok(permit);
        }
        match at_once(self, true, clock) {
            AtOnce::Goes(permit) => Ok(permit),
            AtOnce::Refused | AtOnce::MayWait => Err(refuse(self, ask().priority.unwrap_or_default(), clock)),
        }
    }
}

/// An arrival for which there was no room a moment ago (`tried`: none at all), or whose admission an operator decides.
fn at_once(shared: &Striped<Shared>, tried: bool, clock: &impl Clock) -> AtOnce {
    match shared.mode.get() {
        // Who may wait is let in with the line.
        Mode::Auto if tried || shared.queued.load(Relaxed) => {}
        Mode::ForcedOpen => return AtOnce::Refused,
        mode => {
            let home = shared.stripe();
            if shared.permits.try_acquire(home, || shared.moment(shared.nanos(clock))) {
                let lease = shared.lease_of(home);
                let measured = mode != Mode::Disabled;
                return AtOnce::Goes(if measured {
                    ShedPermit::admitted(lease, clock)
                } else {
                    ShedPermit::unmeasured(lease)
                });
            }
        }
    }
    shared.meter.found_no_room();
    if !shared.signal.is(Signal::LIMITED) {
        shared.signal.raise(Signal::LIMITED, None);
    }
    if !shared.mode.enforces() {
        shared.count_pass();
        return AtOnce::Goes(ShedPermit::passed(shared.lease()));
    }
    if shared.queued.load(Relaxed) { AtOnce::MayWait } else { AtOnce::Refused }
}

#[inline(never)]
fn enqueue(
    shared: &Striped<Shared>,
    ask: Ask,
    clock: &impl Clock,
) -> Result<Admission<ShedPermit, Waiting>, Rejection> {
    let priority = ask.priority.unwrap_or_default();
    match at_once(shared, false, clock) {
        AtOnce::Goes(permit) => return Ok(Admission::Now(permit)),
        AtOnce::Refused => return Err(refuse(shared, priority, clock)),
        AtOnce::MayWait => {}
    }
    let now = shared.nanos(clock);
    shared.look(now);
    let home = shared.stripe();
    let deadline = ask.deadline.map(|deadline| (shared.meter.nanos(deadline.at), deadline.by_client));
    if let Some((at, by_client)) = deadline
        && at <= now
    {
        shared.permits.stripe(home).shed[class(priority)][Cause::Deadline as usize].fetch_add(1, Relaxed);
        let reason = if by_client { Reason::ClientDeadlinePassed } else { Reason::DeadlinePassed };
        return Err(Rejection::new(reason, LAYER));
    }
    let ask = line::Ask { priority, tenant: ask.tenant.unwrap_or(0), deadline: deadline.map(|(at, _)| at) };
    let (at, pace) = (shared.moment(now), shared.meter.pace());
    let mut until = 0;
    let joined = shared.permits.join(home, at, |waiters, seat, told| {
        let place = waiters.push(ask, at, pace, seat, told).map_err(|why| (why, waiters.line.len()))?;
        until = place.until;
        Ok(place.number)
    });
    match joined {
        Ok(Joined::Now) => Ok(Admission::Now(ShedPermit::admitted(shared.lease_of(home), clock))),
        Ok(Joined::Later(place)) => Ok(Admission::Later(Waiting::new(shared.lease_of(home), place, priority, until))),
        Err((why, queued)) => {
            let cause = Cause::from(why);
            let before = shared.permits.stripe(home).shed[class(priority)][cause as usize].fetch_add(1, Relaxed);
            Err(Rejection::new(Reason::Shed, LAYER).retry_after(shared.retry_after(home, before, queued)))
        }
    }
}

/// Where nobody may wait: no lock, and a look at the clock as often as calls are timed.
fn refuse(shared: &Striped<Shared>, priority: Priority, clock: &impl Clock) -> Rejection {
    let home = shared.stripe();
    let before = shared.permits.stripe(home).shed[class(priority)][Cause::Full as usize].fetch_add(1, Relaxed);
    if shared.meter.times(before) {
        shared.look(shared.nanos(clock));
    }
    Rejection::new(Reason::Shed, LAYER).retry_after(shared.retry_after(home, before, 0))
}

/// The line's mode, for people.
pub(crate) fn mode_name(mode: LineMode) -> &'static str {
    match mode {
        LineMode::Burst => "burst",
        LineMode::Standing => "standing",
    }
}

pub(crate) type SharedLease = Arc<Lease<Shared>>;
