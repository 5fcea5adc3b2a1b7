//! A world in virtual time: upstreams that queue, slow down and fail, clients that come whether or not they are served, and
//! any [`tower::Service`] chain between them.
//!
//! ```
//! use buttress_sim::world::{Load, Model, World};
//! use std::time::Duration;
//! use tower::{ServiceBuilder, limit::ConcurrencyLimitLayer};
//!
//! let score = World::play(1, async |world| {
//!     // 20 workers of 10 ms a call: 2000 calls a second; and twice as many arrive.
//!     let upstream = world.upstream(Model::new(20));
//!     let chain = ServiceBuilder::new().layer(ConcurrencyLimitLayer::new(30)).service(upstream.clone());
//!     world.load(Load::new(4_000.0).time_out(Duration::from_millis(100)), chain);
//!     world.run_until(Duration::from_secs(5)).await;
//!     world.score(&upstream, Duration::from_secs(1)..Duration::from_secs(5))
//! });
//! // Whoever waits for a permit in `poll_ready` waits too long: nothing is refused, nothing is in time.
//! assert!(score.good_share() < 0.2, "{score:?}");
//! ```
//!
//! # Time
//!
//! The world owns time. Arrivals, completions and clients' time-outs are events in nanoseconds; calls are polled by the
//! world's own executor, until none is ready, and then the clock moves to the next event. Tokio's clock is paused and moves
//! with it, so timers of layers fire too, as exactly as tokio's do (1 ms). Tasks that a layer spawns on tokio run at the next
//! event, at the latest after 1 ms. [`Clock`](buttress_core::Clock)s of layers must be tokio's: one that reads the wall clock
//! sees no time pass.
//!
//! The same seed gives the same world, and every purpose (arrivals, classes, work of the n-th call) has numbers of its own:
//! so two chains see the same calls. A layer that draws must be seeded as well (`.seed(..)` of its config), and one that reads the
//! time of day must read [this world's](World::wall_clock): the adaptive limit of `buttress-shed` does.
//!
//! A script waits by [`run_until`](World::run_until) alone, which is what makes the world go on. Nothing else does while the script waits
//! for something: [`sleep_until`](World::sleep_until) is for tasks of the world and would never end in it, and tokio's `sleep` would
//! move tokio's clock and not the world's, which the next `run_until` says by a panic.
//!
//! # What layers see of a call
//!
//! A [`Call`] is no HTTP request: it has no `Context` that a layer would look into. Its priority, deadline and tenant are said by a
//! closure, where a layer takes one; and what of it may be sent again says a rule, as no layer can know.
//!
//! # A chain of one's own
//!
//! Retries and a shedder, in front of an upstream that loses half of its workers for five seconds:
//!
//! ```
//! use buttress_retry::{Repeatable, RetryConfig, RetryLayer};
//! use buttress_shed::{Algorithm, Ask, ShedConfig, limit::{AdaptiveConfig, WallClock}};
//! use buttress_sim::world::{Call, Load, Model, World};
//! use std::time::Duration;
//! use tower::ServiceBuilder;
//!
//! let seconds = Duration::from_secs;
//! let score = World::play(1, async |world| {
//!     // 20 workers of 10 ms a call, 2000 calls a second; 1400 arrive.
//!     let upstream = world.upstream(Model::new(20));
//!
//!     // What draws is seeded, and the time of day is the world's: the same seed is the same run.
//!     let retry = RetryLayer::new(RetryConfig::new(2).seed(1).build()?).when(Repeatable);
//!     let adaptive = AdaptiveConfig::default().wall_clock(WallClock::new(world.wall_clock(0.0)));
//!     let shed = ShedConfig::default().limit(Algorithm::Adaptive(adaptive)).seed(1).layer_by(|call: &Call| {
//!         Ask::new().priority(call.priority).tenant_hash(call.tenant.into()).deadline(call.deadline)
//!     })?;
//!     let handle = shed.handle();
//!     let chain = ServiceBuilder::new().layer(retry).layer(shed).service(upstream.clone());
//!     world.load(Load::new(1_400.0).time_out(Duration::from_millis(500)), chain);
//!
//!     let failing = upstream.clone();
//!     world.at(seconds(10), move || failing.set_workers(10));
//!     let mended = upstream.clone();
//!     world.at(seconds(15), move || mended.set_workers(20));
//!
//!     world.run_until(seconds(21)).await;
//!     assert!(handle.snapshot().shed_total() > 0);
//!     Ok::<_, buttress_core::ConfigError>(world.score(&upstream, seconds(10)..seconds(20)))
//! })?;
//! assert!(score.goodput() > 0.9, "of the work that could be done meanwhile: {score:?}");
//! assert!(score.amplification() < 1.2, "{score:?}");
//! let recovery = score.recovery(seconds(15), Duration::from_millis(100));
//! assert!(recovery.is_some_and(|took| took < seconds(1)), "{recovery:?}");
//! # Ok::<(), buttress_core::ConfigError>(())
//! ```

mod hop;
mod kernel;
mod load;
mod model;
mod random;
mod score;
mod upstream;

#[cfg(test)]
mod tests;

pub use hop::Hop;
pub use kernel::Sleep;
pub use load::{Bursts, Load};
pub use model::{Model, Work};
pub use score::{Bin, CallRecord, End, Score, jain};
pub use upstream::{Down, Fault, Reply, Upstream};

use buttress_core::{Deadline, Priority};
use kernel::Kernel;
use std::{
    future::Future,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU32},
    time::{Duration, Instant},
};

/// A world in virtual time; clones are the same world. See the [module docs](self).
#[derive(Clone)]
pub struct World(Arc<Shared>);

struct Shared {
    kernel: Kernel,
    seed: u64,
    loads: AtomicU32,
    records: Mutex<Vec<CallRecord>>,
}

/// A request of this world.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Call {
    /// The number of the call: the same for all its attempts.
    pub id: u64,
    /// When its client sent it.
    pub arrived: Instant,
    /// When its client stops waiting.
    pub deadline: Deadline,
    /// How important it is.
    pub priority: Priority,
    /// Whose it is.
    pub tenant: u32,
    /// How often it was sent before, as far as it says so itself: layers that repeat it may count here.
    pub attempt: u32,
    /// How often it came to an upstream.
    sent: Arc<AtomicU32>,
}

impl World {
    /// Plays what `script` tells, in a world made from `seed`, on a runtime of its own whose clock is paused. Layers must be made
    /// in the script: what is made outside reads another clock.
    ///
    /// # Panics
    ///
    /// If it is called from within a runtime.
    pub fn play<T>(seed: u64, script: impl AsyncFnOnce(World) -> T) -> T {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime =
            runtime.enable_time().start_paused(true).build().expect("a runtime needs no resources but memory");
        runtime.block_on(async {
            let world = World(Arc::new(Shared {
                kernel: Kernel::new(),
                seed,
                loads: AtomicU32::new(0),
                records: Mutex::default(),
            }));
            let result = script(world.clone()).await;
            world.0.kernel.end();
            result
        })
    }

    /// How much time has passed in it.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.0.kernel.now())
    }

    /// The moment that lies `after` its beginning, at most 584 years.
    pub fn instant(&self, after: Duration) -> Instant {
        self.0.kernel.origin() + Duration::from_nanos(nanos(after))
    }

    /// Lets the world go on until so much time has passed since its beginning.
    ///
    /// # Panics
    ///
    /// If that is more than a year: it would not end. If tokio's clock and the world's differ, because the script waited for
    /// something else.
    pub async fn run_until(&self, end: Duration) {
        assert!(end <= YEAR, "a run has an end, after a year at most: {end:?}");
        // Tokio's budget per poll is for tasks that share a thread; here one task is the whole world.
        tokio::task::unconstrained(self.0.kernel.run_until(nanos(end))).await;
    }

    /// Something that happens at a moment: an upstream breaks, say.
    pub fn at(&self, at: Duration, happen: impl FnOnce() + Send + 'static) {
        self.0.kernel.run_at(nanos(at), Box::new(happen));
    }

    /// A task of this world.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.kernel.spawn(Box::pin(task));
    }

    /// Waits until so much time has passed since the world's beginning: in its tasks and layers. A script waits by
    /// [`run_until`](Self::run_until): while it waits for something else, nothing happens.
    pub fn sleep_until(&self, at: Duration) -> Sleep {
        self.0.kernel.sleep_until(nanos(at))
    }

    /// A wall clock that is `skew` seconds wrong: what it shows is the time since the Unix epoch.
    pub fn wall_clock(&self, skew: f64) -> impl Fn() -> Duration + Clone + Send + Sync + 'static {
        // A number without a meaning, so that aligned slots do not happen to begin with the world.
        let began = Duration::from_millis(1_700_000_001_234 + self.0.seed % 10_000);
        let world = Arc::downgrade(&self.0);
        move || {
            let now = world.upgrade().map_or(0, |world| world.kernel.now());
            let right = (began + Duration::from_nanos(now)).as_secs_f64();
            Duration::from_secs_f64((right + skew).max(0.0))
        }
    }

    /// What became of the calls that arrived in `span`, as far as it has passed.
    pub fn score(&self, upstream: &Upstream, span: Range<Duration>) -> Score {
        self.score_of(&[upstream], span)
    }

    /// [`score`](Self::score) with several upstreams. What a call brings is measured by the first of them.
    pub fn score_of(&self, upstreams: &[&Upstream], span: Range<Duration>) -> Score {
        let now = self.now();
        Score::new(&lock(&self.0.records), upstreams, span.start.min(now)..span.end.min(now))
    }

    /// Every call so far, in the order of arrival.
    pub fn records(&self) -> Vec<CallRecord> {
        lock(&self.0.records).clone()
    }
}

const YEAR: Duration = Duration::from_secs(366 * 24 * 3600);

/// As core's; but the mutex is std's in a loom build, too.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
