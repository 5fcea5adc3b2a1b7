use super::Source;
use buttress_core::{
    Clock, ConfigError, Origin, TokioClock,
    sync::{AtomicU64, Ordering::Relaxed},
};
use std::{
    future::Future,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

/// How late a timer of tokio fires: what every task of the runtime waits before it is polled. Clones are handles of the same.
///
/// A task sleeps for [`EVERY`](Self::EVERY) again and again and sees by how much it overslept. The lag is the longest of these, which fades by half in a
/// second; one that is going on is seen, too, by whoever looks from another thread. Tokio's timers are right to a millisecond, so `full` is to be
/// a good deal longer than that.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), buttress_core::ConfigError> {
/// use buttress_shed::pressure::{EventLoopLag, PressureConfig};
/// use std::time::Duration;
///
/// let lag = EventLoopLag::new(Duration::from_millis(100))?; // so late is all the pressure there can be
/// tokio::spawn(lag.watch()); // ends when the last handle is gone
///
/// let pressure = PressureConfig::default().build()?;
/// pressure.source("lag", lag);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct EventLoopLag {
    seen: Arc<Seen>,
    full: Duration,
}

#[derive(Debug)]
struct Seen {
    origin: Origin,
    /// When the timer is to fire, in nanoseconds since the origin; 0: nobody watches.
    due: AtomicU64,
    /// The longest lag, in nanoseconds, as of `at`.
    lag: AtomicU64,
    at: AtomicU64,
}

impl EventLoopLag {
    /// How often the lag is measured.
    pub const EVERY: Duration = Duration::from_millis(20);
    /// In which time the longest lag fades by half.
    pub const HALF_LIFE: Duration = Duration::from_secs(1);

    /// A lag of `full` is all the pressure there can be. Unknown until it is [watched](Self::watch).
    ///
    /// # Errors
    ///
    /// Less than 5 ms.
    pub fn new(full: Duration) -> Result<Self, ConfigError> {
        if full < Duration::from_millis(5) {
            return Err(ConfigError::duration("full", full, "at least 5ms: tokio's timers are right to 1ms"));
        }
        let zero = || AtomicU64::new(0);
        let seen = Seen { origin: Origin::new(TokioClock.now()), due: zero(), lag: zero(), at: zero() };
        Ok(Self { seen: Arc::new(seen), full })
    }

    /// Measures, on the runtime that polls it, until no handle is left: spawn it, once.
    pub fn watch(&self) -> impl Future<Output = ()> + Send + 'static {
        let seen = Arc::downgrade(&self.seen);
        async move {
            let _watch = Watch(seen.clone());
            loop {
                let due = tokio::time::Instant::now() + Self::EVERY;
                match seen.upgrade() {
                    Some(seen) => seen.due.store(seen.origin.nanos(due.into_std()).max(1), Relaxed),
                    None => return,
                }
                tokio::time::sleep_until(due).await;
                let now = TokioClock.now();
                match seen.upgrade() {
                    Some(seen) => seen.woke(now.saturating_duration_since(due.into_std()), now),
                    None => return,
                }
            }
        }
    }

    /// The lag at `now`; `None`: nobody watches.
    pub fn lag(&self, now: Instant) -> Option<Duration> {
        let due = self.seen.due.load(Relaxed);
        let going_on = self.seen.origin.nanos(now).saturating_sub(due);
        (due > 0).then(|| self.seen.faded(now).max(Duration::from_nanos(going_on)))
    }
}

/// Says that nobody watches any more.
struct Watch(Weak<Seen>);

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(seen) = self.0.upgrade() {
            seen.due.store(0, Relaxed);
        }
    }
}

impl Seen {
    fn woke(&self, lag: Duration, now: Instant) {
        let lag = lag.max(self.faded(now));
        // One task writes; a reader in between is off by one step of the fading.
        self.lag.store(u64::try_from(lag.as_nanos()).unwrap_or(u64::MAX), Relaxed);
        self.at.store(self.origin.nanos(now), Relaxed);
    }

    fn faded(&self, now: Instant) -> Duration {
        let age = self.origin.nanos(now).saturating_sub(self.at.load(Relaxed));
        let halves = age as f64 / EventLoopLag::HALF_LIFE.as_nanos() as f64;
        Duration::from_nanos((self.lag.load(Relaxed) as f64 * (-halves).exp2()) as u64)
    }
}

impl Source for EventLoopLag {
    fn look(&mut self, now: Instant) -> Option<f64> {
        self.lag(now).map(|lag| lag.as_secs_f64() / self.full.as_secs_f64())
    }
}
