//! How many calls may be in flight: the algorithms, apart from everything else.
//!
//! An algorithm is asked once per [`Window`] of calls, by whichever call closed it, and never on the way of a call that is
//! admitted. It reads no clock: a window says when it began and ended.
//!
//! [`Aimd`], [`Vegas`], [`Gradient2`] and [`EnvoyGradient`] are what others have published, to compare with.

mod adaptive;
mod aimd;
mod check;
mod envoy;
mod fixed;
mod gradient2;
mod vegas;

pub use adaptive::{Adaptive, AdaptiveConfig, WallClock};
pub use aimd::{Aimd, AimdConfig};
pub use envoy::{EnvoyGradient, EnvoyGradientConfig};
pub use fixed::Fixed;
pub use gradient2::{Gradient2, Gradient2Config};
pub use vegas::{Vegas, VegasConfig};

use std::{
    fmt,
    time::{Duration, Instant},
};

/// An algorithm that says how many calls may be in flight.
pub trait Limit: fmt::Debug + Send + 'static {
    /// How many calls may be in flight now.
    fn limit(&self) -> u32;

    /// How long the window that has just begun is to be. Asked after [`new`](Span) and after each [`observe`](Self::observe).
    fn span(&self) -> Span;

    /// A window is over: what was seen in it. [`limit`](Self::limit) and [`span`](Self::span) are read after it.
    fn observe(&mut self, window: &Window);

    /// The name in snapshots and logs.
    fn name(&self) -> &'static str;

    /// How long a call takes without load, as far as it knows: for snapshots.
    fn base(&self) -> Option<Duration> {
        None
    }
}

/// When a window is over: as soon as any of these holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// So many timed calls have ended, and the window is this old. The first is what an algorithm would like to have, the others
    /// what it makes do with where calls are few: a noisy look beats none.
    pub looks: [(u32, Duration); 3],
    /// At this moment, whatever was seen: a probe begins or ends.
    pub until: Option<Instant>,
}

impl Span {
    /// So many calls, however long it takes.
    pub fn of(calls: u32) -> Self {
        Self::every(Duration::ZERO, calls)
    }

    /// So long, and at least so many calls.
    pub fn every(length: Duration, calls: u32) -> Self {
        Self { looks: [(calls, length); 3], until: None }
    }

    /// Whether a window of this age, in which so many timed calls have ended, is over at `now`.
    pub fn is_over(&self, samples: u32, age: Duration, now: Instant) -> bool {
        self.looks.iter().any(|&(least, old)| samples >= least && age >= old)
            || self.until.is_some_and(|until| now >= until)
    }
}

/// After 250 calls; or after half a second, if there were 20; or after two seconds, if there were 5.
impl Default for Span {
    fn default() -> Self {
        Self {
            looks: [(250, Duration::ZERO), (20, Duration::from_millis(500)), (5, Duration::from_secs(2))],
            until: None,
        }
    }
}

/// What was seen between two looks.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Window {
    /// When it began.
    pub start: Instant,
    /// When it ended: now.
    pub end: Instant,
    /// Calls that ended in it, with any outcome.
    pub completed: u64,
    /// Calls whose time counts: successes, and failures that took their time. Fast failures say nothing of the load.
    pub samples: u32,
    /// The sum of their times.
    pub total: Duration,
    /// The shortest of them; zero where there is none.
    pub shortest: Duration,
    /// The first decile of those that were [answered](Self::answered): a tenth of them took less. Zero where there is none.
    pub low: Duration,
    /// The mean of the fastest four fifths of those: what a call takes, whatever a few do. Zero where there is none.
    pub typical: Duration,
    /// Of the samples, those that were cut off (a deadline passed, the caller left): they would have taken longer than they did.
    pub censored: u32,
    /// Of the censored, those that a deadline of ours ended.
    pub timed_out: u32,
    /// Calls that the service refused as too many.
    pub overloads: u32,
    /// The most calls that were in flight when one ended.
    pub in_flight: u32,
    /// Whether a call found no room.
    pub limited: bool,
}

impl Window {
    /// A window in which nothing was seen.
    pub fn empty(start: Instant, end: Instant) -> Self {
        Self {
            start,
            end,
            completed: 0,
            samples: 0,
            total: Duration::ZERO,
            shortest: Duration::ZERO,
            low: Duration::ZERO,
            typical: Duration::ZERO,
            censored: 0,
            timed_out: 0,
            overloads: 0,
            in_flight: 0,
            limited: false,
        }
    }

    /// Samples that were not cut off.
    pub fn answered(&self) -> u32 {
        self.samples.saturating_sub(self.censored)
    }

    /// How long it was.
    pub fn length(&self) -> Duration {
        self.end.saturating_duration_since(self.start)
    }

    /// The mean time of its samples; `None` without one.
    pub fn mean(&self) -> Option<Duration> {
        (self.samples > 0).then(|| self.total / self.samples)
    }

    /// Whether a call was cut off or refused by the service as too many: what TCP calls a loss.
    pub fn lost(&self) -> bool {
        self.censored > 0 || self.overloads > 0
    }

    /// Calls that ended per second; 0 for a window without length.
    pub fn throughput(&self) -> f64 {
        let seconds = self.length().as_secs_f64();
        if seconds > 0.0 { self.completed as f64 / seconds } else { 0.0 }
    }
}

/// A window of 100 ms with so many samples of so many milliseconds each, and so many calls in flight.
#[cfg(test)]
fn seen(millis: u64, samples: u32, in_flight: u32) -> Window {
    use std::sync::OnceLock;
    static START: OnceLock<Instant> = OnceLock::new();
    let start = *START.get_or_init(|| tokio::time::Instant::now().into_std());
    let each = Duration::from_millis(millis);
    Window {
        completed: samples.into(),
        samples,
        total: each * samples,
        shortest: each,
        in_flight,
        ..Window::empty(start, start + Duration::from_millis(100))
    }
}
